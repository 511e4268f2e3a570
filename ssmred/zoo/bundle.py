"""Load the bundled networks, their data sample and the record of their training."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from ssmred.errors import CheckpointError
from ssmred.networks.deep import DeepSSM

_DATA = files("ssmred.zoo") / "data"


@dataclass(frozen=True, eq=False)
class Sample:
    """Hold labelled sequences.

    Attributes
    ----------
    inputs : torch.Tensor, (n, T, features) float32
        Pixel sequences scaled to [-1, 1].
    labels : torch.Tensor, (n,) int64
        Class of each sequence.
    """

    inputs: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        """Return the number of sequences."""
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class ZooData:
    """Hold what a bundled network was trained for: a calibration sample and the test set.

    Attributes
    ----------
    calibration : Sample
        Drawn from the training images.
    test : Sample
        All test images; never used for a decision.
    """

    calibration: Sample
    test: Sample


def names() -> tuple[str, ...]:
    """Return the names of the bundled networks.

    Examples
    --------
    >>> "fashion-mnist-s4d" in names()
    True
    """
    return tuple(
        sorted(
            entry.name.removesuffix(".json")
            for entry in _DATA.iterdir()
            if entry.name.endswith(".json")
        )
    )


def record(name: str) -> dict[str, Any]:
    """Return how a bundled network was trained: recipe, options, history, test accuracy.

    Raises
    ------
    CheckpointError
        If no bundled network has this name.
    """
    if name not in names():
        raise CheckpointError(
            f"zoo: no network called {name!r}; expected one of {', '.join(names())}. "
            "Spell it as `ssmred zoo` lists it."
        )
    return json.loads((_DATA / f"{name}.json").read_text())


def load(name: str) -> tuple[DeepSSM, ZooData]:
    """Return a bundled trained network, in eval mode, and its data.

    Parameters
    ----------
    name : str
        One of `names`.

    Returns
    -------
    model : DeepSSM
        A fresh copy with the trained float32 weights.
    data : ZooData
        Calibration sample and all 10,000 test images.

    Raises
    ------
    CheckpointError
        If no bundled network has this name.

    Notes
    -----
    Data: Fashion-MNIST (Zalando SE, MIT licence), averaged over 2 x 2 pixels and read row by row.
    Made by ``benchmarks/train_fashion_mnist.py``.
    """
    model = DeepSSM(1, 10, **record(name)["recipe"])
    with as_file(_DATA / f"{name}.safetensors") as path:
        model.load_state_dict(load_file(path))
    return model.eval(), _data()


@cache
def _data() -> ZooData:
    with as_file(_DATA / "fashion-mnist.npz") as path, np.load(path, allow_pickle=False) as stored:
        return ZooData(
            calibration=_sample(stored["calibration_pixels"], stored["calibration_labels"]),
            test=_sample(stored["test_pixels"], stored["test_labels"]),
        )


def _sample(pixels: np.ndarray, labels: np.ndarray) -> Sample:
    return Sample(
        inputs=torch.from_numpy(pixels.astype(np.float32) / 127.5 - 1.0).unsqueeze(-1),
        labels=torch.from_numpy(labels.astype(np.int64)),
    )
