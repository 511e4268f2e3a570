"""What the tests of S5 and LRU layers have in common: the layers, and what they compute."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from foreign_lru import FullLRU
from torch import nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # scripts and escapes that Python will refuse one day
    import LRU_pytorch as lru_package
    import s5 as s5_package
    from neural_ssm.ssm.cells.lti import lru as delayed_package

from ssmred.networks.adapters.lru import LRUAdapter
from ssmred.networks.adapters.s5 import S5Adapter
from ssmred.networks.adapters.shared_probing import default_dtype, in_double
from ssmred.networks.layers import LRU, S5

__all__ = ["KINDS", "Kind", "Residual", "forward", "gated_block", "impulses"]

WIDTH, MODES = 3, 4


@dataclass(frozen=True)
class Kind:
    """Say how to make one kind of layer, and how it takes sequences.

    ``make(modes)`` has 3 inputs and so many modes.
    """

    adapter: Any
    make: Callable[[int], nn.Module]
    time_first: bool = True


def package_s5(modes: int, *, rule: str = "zoh", two_ways: bool = False) -> nn.Module:
    layer = s5_package.S5(WIDTH, modes, bcInit="dense", bidir=two_ways)
    if rule == "bilinear":  # what the class S5SSM offers, and its wrapper does not
        layer.seq.discretize = s5_package.s5_model.discretize_bilinear
    return layer


def own_s5(modes: int, **options: Any) -> nn.Module:
    states = 2 * modes
    return S5(WIDTH, states, **options)


def package_lru(modes: int, outputs: int = WIDTH) -> nn.Module:
    return lru_package.LRU(WIDTH, outputs, modes, rmax=0.95)


def delayed_lru(modes: int, outputs: int = WIDTH, **options: Any) -> nn.Module:
    return delayed_package.LRU(WIDTH, outputs, modes, rmin=0.2, rmax=0.95, **options)


KINDS: dict[str, Kind] = {
    "s5-pytorch": Kind(S5Adapter(), package_s5),
    "s5-pytorch, bilinear": Kind(S5Adapter(), lambda n: package_s5(n, rule="bilinear")),
    "s5-pytorch, both ways": Kind(S5Adapter(), lambda n: package_s5(n, two_ways=True)),
    "S5": Kind(S5Adapter(), own_s5, False),
    "S5, bilinear": Kind(S5Adapter(), lambda n: own_s5(n, discretisation="bilinear"), False),
    "S5, whole spectrum": Kind(S5Adapter(), lambda n: own_s5(n, conj_sym=False), False),
    "S5, both ways": Kind(S5Adapter(), lambda n: own_s5(n, bidirectional=True), False),
    "S5, not clipped": Kind(S5Adapter(), lambda n: own_s5(n, clip_eigs=False), False),
    "LRU-pytorch": Kind(LRUAdapter(), lambda n: lru_package.LRU(WIDTH, WIDTH, n, rmax=0.95)),
    "LRU-pytorch, 5 outputs": Kind(LRUAdapter(), lambda n: lru_package.LRU(WIDTH, 5, n, rmax=0.95)),
    "neural-ssm": Kind(
        LRUAdapter(), lambda n: delayed_package.LRU(WIDTH, WIDTH, n, rmin=0.2, rmax=0.95)
    ),
    "neural-ssm, start": Kind(
        LRUAdapter(), lambda n: delayed_package.LRU(WIDTH, 2, n, rmin=0.2, rmax=0.95, learn_x0=True)
    ),
    "LRU": Kind(LRUAdapter(), lambda n: LRU(WIDTH, 2 * n, r_max=0.95), False),
    "lru-reduction": Kind(LRUAdapter(), lambda n: FullLRU(WIDTH, 4, n)),
    "lru-reduction, doubled": Kind(LRUAdapter(), lambda n: FullLRU(WIDTH, 4, n, doubled=True)),
}


def forward(kind: Kind, module: nn.Module, u: np.ndarray, *, double: bool = True) -> np.ndarray:
    """Return the module's own output for u (batch, T, inputs), in double or as it is."""
    layer = in_double(module) if double else module
    dtype = torch.float64 if double else torch.float32
    signal = torch.from_numpy(u).to(dtype)
    with torch.no_grad(), default_dtype(dtype):
        y = layer(signal if kind.time_first else signal.transpose(-1, -2).contiguous())
    y = y[0] if isinstance(y, tuple) else y
    return (y if kind.time_first else y.transpose(-1, -2)).double().numpy()


def impulses(kind: Kind, module: nn.Module, at: int, length: int, **options: Any) -> np.ndarray:
    """Return the response (inputs, T, outputs) to an impulse in each input at one step."""
    u = np.zeros((WIDTH, length, WIDTH))
    u[np.arange(WIDTH), at, np.arange(WIDTH)] = 1.0
    return forward(kind, module, u, **options)


def gated_block(modes: int) -> nn.Module:
    """Return the block of s5-pytorch: norm, S5, gate, feed-forward."""
    return s5_package.S5Block(WIDTH, modes, False, bcInit="dense")


class Residual(nn.Module):
    """An encoder, residual layers behind a GELU, mean pooling, a decoder."""

    def __init__(self, layers: list[nn.Module], kind: Kind, inputs: int = 2) -> None:
        super().__init__()
        self.encoder = nn.Linear(inputs, WIDTH)
        self.layers = nn.ModuleList(layers)
        self.decoder = nn.Linear(WIDTH, 3)
        self.time_first = kind.time_first

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (batch, 3) for (batch, T, inputs)."""
        x = self.encoder(x)
        for layer in self.layers:
            y = layer(x if self.time_first else x.transpose(-1, -2))
            y = y[0] if isinstance(y, tuple) else y
            x = x + nn.functional.gelu(y if self.time_first else y.transpose(-1, -2))
        return self.decoder(x.mean(dim=1))
