"""Small reduced networks in folders, for the tests of rigorous verification."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import ssmred
from ssmred.networks.deep import DeepSSM

HORIZON = 16

WIRINGS: dict[str, dict[str, Any]] = {
    "gated, batch norm": {"norm": "batch", "mixing": "glu"},
    "plain, no norm": {"norm": "none", "mixing": "linear"},
    "half gate, layer norm behind, last": {
        "norm": "layer",
        "mixing": "half-glu",
        "prenorm": False,
        "pooling": "last",
    },
    "gated, layer norm": {"norm": "layer", "mixing": "glu"},
    "tanh, maximum": {"norm": "batch", "mixing": "tanh", "pooling": "max"},
    "tokens, sequence": {
        "norm": "batch",
        "mixing": "gelu",
        "pooling": None,
        "encoder": "embedding",
    },
    "bilinear": {"norm": "batch", "mixing": "bilinear"},
    "nothing behind": {"norm": "none", "mixing": "none"},
}
"""Settings of `DeepSSM` by what is particular about them."""


@dataclass(frozen=True)
class Folder:
    """Hold a result and where it was saved."""

    path: Path
    result: Any

    @property
    def certificate(self) -> Path:
        return self.path / "certificate.json"

    @property
    def original(self) -> Path:
        return self.path / "original"

    def places(self) -> tuple[Path, Path, Path]:
        return self.certificate, self.original, self.path


def network(seed: int = 0, **settings: Any) -> DeepSSM:
    """Return a network with weights and statistics as training leaves them: none special."""
    torch.manual_seed(seed)
    tokens = settings.get("encoder") == "embedding"
    model = DeepSSM(5 if tokens else 2, 3, layer="s4d", channels=6, states=8, layers=2, **settings)
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if "norms" in name and tensor.is_floating_point():
                spread = 0.3 * torch.rand(tensor.shape)
                tensor.copy_(tensor + spread if "var" in name else tensor + spread - 0.15)
    return model.eval()


def inputs_of(model: DeepSSM) -> ssmred.InputSet:
    """Return the set that certificates of these tests are about."""
    tokens = isinstance(model.encoder, torch.nn.Embedding)
    return ssmred.InputSet.tokens() if tokens else ssmred.InputSet.box([-1.0, 0.0], [1.0, 0.5])


def reduced_folder(folder: Path, model: DeepSSM, states: float = 0.3, **wishes: Any) -> Folder:
    """Reduce a network with a worst-case certificate and save all of it."""
    wishes = {"inputs": inputs_of(model), "horizon": HORIZON} | wishes
    result = ssmred.reduce(model, states=states, guarantee="worst-case", progress=False, **wishes)
    result.save(folder)
    return Folder(folder, result)


def stored(path: Path) -> dict[str, Any]:
    """Return a JSON file's content."""
    return json.loads(path.read_text())
