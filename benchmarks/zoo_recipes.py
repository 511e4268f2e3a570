"""What the bundled networks look like and what they are trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssmred.tasks import Sample, Task
from ssmred.tasks.fashion_mnist import HELD_OUT, read_images, read_labels
from ssmred.tasks.listops import SHORT, VOCABULARY
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


def as_parts(task: Task) -> Parts:
    """Return the parts of a task; its test part is opened when it is first asked for."""

    def pair(sample: Sample) -> tuple[torch.Tensor, torch.Tensor]:
        return sample.inputs, sample.labels

    return Parts(pair(task.train), pair(task.val), cache(lambda: pair(task.open_test())))


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
