"""Fashion-MNIST as sequences: 14 x 14 mean pixels, one a step."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import torch

from ssmred.errors import DataError, message
from ssmred.tasks.sample import Sample
from ssmred.tasks.task import Task

__all__ = [
    "HELD_OUT",
    "SOURCE",
    "as_sequences",
    "fashion_mnist",
    "mirrored",
    "read_images",
    "read_labels",
]

SOURCE = Path("/usr/share/datasets/fashion-mnist")
"""Where the Debian package ``dataset-fashion-mnist`` puts the four original IDX files."""

HELD_OUT = 5_000
"""Last training images, which are the validation part."""

SIDE = 14
CLASSES = 10

_HEADERS = {"images": bytes((0, 0, 8, 3)), "labels": bytes((0, 0, 8, 1))}


def fashion_mnist(*, source: str | Path = SOURCE) -> Task:
    """Return the task: 196 steps of one pixel, 10 kinds of clothes.

    Parameters
    ----------
    source : path
        Folder of the four files ``train-images-idx3-ubyte.gz`` and so on.

    Raises
    ------
    DataError
        If files are missing or damaged.

    Notes
    -----
    55,000 training images, the last 5,000 are the validation part, 10,000 official test images.
    Source: Xiao, Rasul and Vollgraf, arXiv 1708.07747; MIT licence.
    """
    folder = Path(source)

    def labelled(part: str) -> Sample:
        pixels, labels = read_images(folder, part), read_labels(folder, part)
        if len(pixels) != len(labels):
            raise DataError(
                message(
                    "fashion_mnist",
                    f"images and labels of {part} are not as many",
                    got=f"{len(pixels)} and {len(labels)}",
                )
            )
        return Sample(as_sequences(pixels), torch.from_numpy(labels.astype(np.int64)))

    known = labelled("train")
    if len(known) <= HELD_OUT:
        raise DataError(
            message(
                "fashion_mnist",
                "too few training images",
                expected=f"more than {HELD_OUT:,}",
                got=f"{len(known):,}",
            )
        )
    return Task(
        "fashion-mnist",
        train=Sample(known.inputs[:-HELD_OUT], known.labels[:-HELD_OUT]),
        val=Sample(known.inputs[-HELD_OUT:], known.labels[-HELD_OUT:]),
        classes=CLASSES,
        test=lambda: labelled("t10k"),
        augment=mirrored,
        split={
            "source": "Fashion-MNIST, averaged to 14 x 14",
            "how": "the last official training images are the validation part, official test part",
            "train": len(known) - HELD_OUT,
            "val": HELD_OUT,
        },
    )


def read_images(source: Path, part: str) -> np.ndarray:
    """Return the images of one part, averaged over 2 x 2 pixels, as (n, 196) uint8."""
    data = _read(source / f"{part}-images-idx3-ubyte.gz", "images", skip=16)
    pixels = data.reshape(-1, SIDE, 2, SIDE, 2)
    return np.round(pixels.mean(axis=(2, 4))).astype(np.uint8).reshape(-1, SIDE * SIDE)


def read_labels(source: Path, part: str) -> np.ndarray:
    """Return the labels of one part, (n,) uint8."""
    return _read(source / f"{part}-labels-idx1-ubyte.gz", "labels", skip=8)


def _read(path: Path, kind: str, *, skip: int) -> np.ndarray:
    if not path.is_file():
        raise DataError(
            message(
                "fashion_mnist",
                f"{path} is missing",
                cure="apt-get install dataset-fashion-mnist, or name the folder with source=.",
            )
        )
    try:
        data = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(message("fashion_mnist", f"{path} is damaged", got=str(error))) from error
    count = int.from_bytes(data[4:8], "big")
    size = (2 * SIDE) ** 2 if kind == "images" else 1
    if data[:4] != _HEADERS[kind] or len(data) != skip + count * size:
        raise DataError(
            message("fashion_mnist", f"{path} is no IDX file of 28 x 28 {kind}", got="others")
        )
    return np.frombuffer(data, np.uint8, offset=skip)


def as_sequences(pixels: np.ndarray) -> torch.Tensor:
    """Scale pixels to [-1, 1] sequences, (n, 196, 1) float32."""
    return torch.from_numpy(pixels.astype(np.float32) / 127.5 - 1.0).unsqueeze(-1)


def mirrored(x: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """Mirror half of the images left-right: a garment stays a garment.

    Parameters
    ----------
    x : torch.Tensor, (n, 196, 1)
    generator : torch.Generator, optional
        Its device may be another one than that of `x`; without it torch's own draws.
    """
    device = x.device if generator is None else generator.device
    flip = (torch.rand(len(x), 1, 1, device=device, generator=generator) < 0.5).to(x.device)
    return torch.where(flip, x.view(-1, SIDE, SIDE).flip(-1).reshape(x.shape), x)
