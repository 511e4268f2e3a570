"""What the bundled networks were trained for: samples and test sets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files

import numpy as np
import torch

from ssmred.errors import CheckpointError, message
from ssmred.tasks import Sample
from ssmred.tasks.listops import listops_parts

__all__ = ["CALIBRATION", "FOLDER", "ZooData", "task_data"]

FOLDER = files("ssmred.zoo") / "data"

CALIBRATION = 512
"""Size of the calibration samples."""


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


@cache
def _fashion_mnist() -> ZooData:
    with as_file(FOLDER / "fashion-mnist.npz") as path, np.load(path, allow_pickle=False) as stored:
        return ZooData(
            calibration=_images(stored["calibration_pixels"], stored["calibration_labels"]),
            test=_images(stored["test_pixels"], stored["test_labels"]),
        )


@cache
def _listops() -> ZooData:
    parts = listops_parts(CALIBRATION)
    return ZooData(calibration=parts["training"], test=parts["test"])


def _images(pixels: np.ndarray, labels: np.ndarray) -> Sample:
    return Sample(
        inputs=torch.from_numpy(pixels.astype(np.float32) / 127.5 - 1.0).unsqueeze(-1),
        labels=torch.from_numpy(labels.astype(np.int64)),
    )


_TASKS: dict[str, Callable[[], ZooData]] = {"fashion-mnist": _fashion_mnist, "listops": _listops}
