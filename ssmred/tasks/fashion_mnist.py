"""Fashion-MNIST as sequences of 196 steps, from the four original IDX files."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import torch

from ssmred.errors import DataError, message
from ssmred.tasks.task import Sample, Task

__all__ = ["SOURCE", "fashion_mnist_task"]

SOURCE = Path("/usr/share/datasets/fashion-mnist")
"""Where the Debian package ``dataset-fashion-mnist`` puts the four files."""

HELD_OUT = 5_000


def fashion_mnist_task(source: str | Path = SOURCE) -> Task:
    """Return Fashion-MNIST, averaged over 2 x 2 pixels and read row by row.

    Parameters
    ----------
    source : path-like
        Folder of ``train-images-idx3-ubyte.gz`` and the three others.

    Raises
    ------
    DataError
        If a file is missing or damaged.

    Notes
    -----
    The last 5,000 training images are for validation; half of the training images are mirrored at
    every draw. Data: Zalando SE, MIT licence.
    """
    folder = Path(source)
    x, y = _labelled(folder, "train")
    split = {"source": "Fashion-MNIST, original IDX files", "validation": "last 5,000 of 60,000"}
    return Task(
        "fashion-mnist",
        Sample(x[:-HELD_OUT], y[:-HELD_OUT]),
        Sample(x[-HELD_OUT:], y[-HELD_OUT:]),
        10,
        lambda: Sample(*_labelled(folder, "t10k")),
        augment=mirrored,
        split=split,
    )


def _labelled(folder: Path, part: str) -> tuple[torch.Tensor, torch.Tensor]:
    try:
        images, labels = read_images(folder, part), read_labels(folder, part)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(
            message(
                "fashion_mnist_task",
                f"the {part} files in {folder} cannot be read",
                expected="the four original IDX files, compressed",
                got=f"{error}",
                cure="Install Debian's dataset-fashion-mnist, or pass source=.",
            )
        ) from error
    return as_sequences(images), torch.from_numpy(labels.astype(np.int64))


def read_images(source: Path, part: str) -> np.ndarray:
    """Return the images of one part, averaged over 2 x 2 pixels, as (n, 196) uint8."""
    with gzip.open(source / f"{part}-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 14, 2, 14, 2)
    return np.round(pixels.mean(axis=(2, 4))).astype(np.uint8).reshape(-1, 196)


def read_labels(source: Path, part: str) -> np.ndarray:
    """Return the labels of one part, (n,) uint8."""
    with gzip.open(source / f"{part}-labels-idx1-ubyte.gz") as file:
        return np.frombuffer(file.read(), np.uint8, offset=8)


def as_sequences(pixels: np.ndarray) -> torch.Tensor:
    """Scale pixels to [-1, 1] sequences, (n, 196, 1) float32."""
    return torch.from_numpy(pixels.astype(np.float32) / 127.5 - 1.0).unsqueeze(-1)


def mirrored(x: torch.Tensor) -> torch.Tensor:
    """Mirror half of the images left-right: a garment stays a garment."""
    flip = torch.rand(len(x), 1, 1, device=x.device) < 0.5
    return torch.where(flip, x.view(-1, 14, 14).flip(-1).reshape(x.shape), x)
