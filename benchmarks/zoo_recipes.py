"""What the bundled networks look like and what they are trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssmred.tasks.fashion_mnist import (
    HELD_OUT,
    as_sequences,
    read_images,
    read_labels,
)
from ssmred.tasks.listops import SHORT, VOCABULARY, listops_parts
from ssmred.zoo.tasks import FOLDER

ZOO = Path(str(FOLDER))
CALIBRATION = 512
LISTOPS_TRAINING = 200_000

FAMILIES = ("s4d", "s4", "s5", "lru")
_WIDE = {"channels": 64, "states": 64, "layers": 4, "dropout": 0.1, "mixing": "glu"}
_PIXELS = {"inputs": 1, "outputs": 10}
_TOKENS = {"inputs": len(VOCABULARY), "outputs": 10, "encoder": "embedding", "norm": "layer"}
_SHARED = {"states": 128}  # of the whole layer, not of every channel
_FAMILY_OPTIONS: dict[str, dict[str, Any]] = {
    "s4d": {},
    "s4": {},
    "s5": {**_SHARED, "layer_options": {"blocks": 4}},
    "lru": {**_SHARED, "layer_options": {"r_min": 0.5, "r_max": 0.99}},
}
VARIANTS: dict[tuple[str, str, str], dict[str, Any]] = {
    ("fashion-mnist", "s4d", "gelu"): {
        "channels": 32,
        "layers": 2,
        "dropout": 0.0,
        "mixing": "linear",
    },
}
"""Further networks by task, family and suffix: what differs from the one without a suffix."""


@dataclass(frozen=True, eq=False)
class Parts:
    """Hold the data of a task; the test part is made when it is asked for, once.

    Attributes
    ----------
    train, held_out : (inputs, labels)
    test : callable
    """

    train: tuple[torch.Tensor, torch.Tensor]
    held_out: tuple[torch.Tensor, torch.Tensor]
    test: Callable[[], tuple[torch.Tensor, torch.Tensor]]


def recipe(task: str, family: str, variant: str = "") -> dict[str, Any]:
    """Return the arguments of `ssmred.networks.deep.DeepSSM`."""
    sizes = _PIXELS if task == "fashion-mnist" else _TOKENS
    settings = sizes | {"layer": family} | _WIDE | _FAMILY_OPTIONS[family]
    if family == "s4":
        settings["layer_options"] = {"length": 196 if task == "fashion-mnist" else SHORT.max_length}
    return settings | (VARIANTS[task, family, variant] if variant else {})


def fashion_mnist(source: Path) -> Parts:
    """Return the original images; the last 5,000 training images are held out."""

    def labelled(part: str) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.from_numpy(read_labels(source, part).astype(np.int64))
        return as_sequences(read_images(source, part)), labels

    x, y = labelled("train")
    held_out = (x[-HELD_OUT:], y[-HELD_OUT:])
    return Parts((x[:-HELD_OUT], y[:-HELD_OUT]), held_out, lambda: labelled("t10k"))


def keep_fashion_mnist(source: Path, target: Path) -> None:
    """Store 512 training images and all test images, which come with the package."""
    pixels, labels = read_images(source, "train"), read_labels(source, "train")
    sample = np.random.default_rng(0).choice(len(pixels) - HELD_OUT, CALIBRATION, replace=False)
    np.savez_compressed(
        target,
        calibration_pixels=pixels[sample],
        calibration_labels=labels[sample],
        test_pixels=read_images(source, "t10k"),
        test_labels=read_labels(source, "t10k"),
    )


def listops() -> Parts:
    """Return generated expressions; no part holds one of another."""
    parts = listops_parts(LISTOPS_TRAINING)
    train, held_out, test = (
        (parts[name].inputs, parts[name].labels) for name in ("training", "held_out", "test")
    )
    return Parts(train, held_out, lambda: test)
