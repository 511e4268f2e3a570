"""What the bundled networks were trained for: samples and test sets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files

import numpy as np
import torch

from ssmred.errors import CheckpointError, message
from ssmred.zoo.listops import SHORT

__all__ = ["CALIBRATION", "FOLDER", "Sample", "ZooData", "listops_parts", "task_data"]

FOLDER = files("ssmred.zoo") / "data"

CALIBRATION = 512
"""Size of the calibration samples."""

TEST_EXPRESSIONS = 10_000
HELD_OUT_EXPRESSIONS = 2_000
SEEDS = {"test": 1, "held_out": 2, "training": 3}


@dataclass(frozen=True, eq=False)
class Sample:
    """Hold labelled sequences.

    Attributes
    ----------
    inputs : torch.Tensor, (n, T, features) float32 or (n, T) int64
        Pixel sequences scaled to [-1, 1], or tokens.
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
        Drawn from the training data.
    test : Sample
        All test data; never used for a decision.
    """

    calibration: Sample
    test: Sample


def task_data(task: str) -> ZooData:
    """Return the calibration sample and the test set of a task.

    Raises
    ------
    CheckpointError
        If there is no such task.
    """
    if task not in _TASKS:
        raise CheckpointError(
            message("zoo", f"no task {task!r}", expected=f"one of {', '.join(_TASKS)}")
        )
    return _TASKS[task]()


def listops_parts(training: int = CALIBRATION) -> dict[str, Sample]:
    """Return ``"test"``, ``"held_out"`` and ``"training"`` expressions, all different.

    Parameters
    ----------
    training : int
        Number of training expressions; a smaller part is the beginning of a larger one.

    Notes
    -----
    `ssmred.zoo.listops.SHORT`; 10,000 test and 2,000 held-out expressions.
    """
    counts = {"test": TEST_EXPRESSIONS, "held_out": HELD_OUT_EXPRESSIONS, "training": training}
    parts, used = {}, set()
    for part, count in counts.items():
        tokens, answers = SHORT.sample(count, seed=SEEDS[part], without=used)
        used |= {row.tobytes() for row in tokens}
        parts[part] = Sample(torch.from_numpy(tokens).long(), torch.from_numpy(answers))
    return parts


@cache
def _fashion_mnist() -> ZooData:
    with as_file(FOLDER / "fashion-mnist.npz") as path, np.load(path, allow_pickle=False) as stored:
        return ZooData(
            calibration=_images(stored["calibration_pixels"], stored["calibration_labels"]),
            test=_images(stored["test_pixels"], stored["test_labels"]),
        )


@cache
def _listops() -> ZooData:
    parts = listops_parts()
    return ZooData(calibration=parts["training"], test=parts["test"])


def _images(pixels: np.ndarray, labels: np.ndarray) -> Sample:
    return Sample(
        inputs=torch.from_numpy(pixels.astype(np.float32) / 127.5 - 1.0).unsqueeze(-1),
        labels=torch.from_numpy(labels.astype(np.int64)),
    )


_TASKS: dict[str, Callable[[], ZooData]] = {"fashion-mnist": _fashion_mnist, "listops": _listops}
