"""Long Range Arena from its official files: images as sequences of pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ssmred.checks import check_choice
from ssmred.errors import DataError, message
from ssmred.tasks.lra import ABSENT, REPEATS, folder_of
from ssmred.tasks.safe_pickle import read_npy, read_pickle
from ssmred.tasks.sample import Sample
from ssmred.tasks.task import Task

__all__ = ["lra_image", "lra_pathfinder"]

SIDE = 32
SEED = 0
GREY = (0.2989, 0.5870, 0.1140)
"""Weights of red, green and blue, as TensorFlow has them."""

CIFAR_HELD_OUT = 5_000
LEVELS = ("curv_baseline", "curv_contour_length_9", "curv_contour_length_14")
TENTH = 0.1


def lra_image(*, source: str | Path | None = None) -> Task:
    """Return CIFAR-10 in grey: 1,024 steps of one pixel, 10 classes.

    Parameters
    ----------
    source : path
        The folder ``cifar-10-batches-py`` with its six pickles, which are read without trust
        (`ssmred.tasks.safe_pickle`).

    Raises
    ------
    DataError
        If files are missing, are damaged, or hold anything but arrays.

    Notes
    -----
    The last 5,000 training images are the validation part.
    """
    where = "lra_image"
    if source is None:
        raise DataError(
            message(
                where,
                "CIFAR-10 does not come with ssmred",
                cure="Get cifar-10-python.tar.gz of cs.toronto.edu/~kriz/cifar.html, unpack it, "
                "and name the folder with source=.",
            )
        )
    folder = folder_of(source, "data_batch_1", where)
    batches = [_batch(folder / f"data_batch_{i}") for i in range(1, 6)]
    inputs, labels = (
        torch.cat([getattr(batch, name) for batch in batches]) for name in ("inputs", "labels")
    )
    held_out = min(CIFAR_HELD_OUT, len(labels) // 10)
    return Task(
        "lra-image",
        train=Sample(inputs[:-held_out], labels[:-held_out]),
        val=Sample(inputs[-held_out:], labels[-held_out:]),
        classes=10,
        test=lambda: _batch(folder / "test_batch"),
        split={
            "source": "CIFAR-10 in grey",
            "how": "the last training images are the validation part, official test part",
            "train": len(labels) - held_out,
            "val": held_out,
        },
        repeats=REPEATS,
    )


def lra_pathfinder(*, source: str | Path | None = None, level: str = LEVELS[-1]) -> Task:
    """Return official Pathfinder images: 1,024 steps of one pixel, joined or not.

    Parameters
    ----------
    source : path
        The folder ``pathfinder32``, or one level of it (with ``metadata`` and ``imgs``).
    level : {"curv_baseline", "curv_contour_length_9", "curv_contour_length_14"}
        Easy, intermediate, hard.

    Raises
    ------
    DataError
        If files are missing, are damaged, or are refused.

    Notes
    -----
    80, 10 and 10 % of all images, always the same ones. Images of no bytes, of which the official
    files have one, are left out. The lists in ``metadata`` are text, or arrays that are read
    without trust (`ssmred.tasks.safe_pickle`).
    """
    where = "lra_pathfinder"
    check_choice(level, LEVELS, "level", where)
    folder = folder_of(source, "", where)
    folder = folder if (folder / "metadata").is_dir() else folder / level
    rows = [
        row for path in sorted((folder / "metadata").glob("*.npy")) for row in _listed(folder, path)
    ]
    if not rows:
        raise DataError(message(where, f"{folder / 'metadata'} lists no images", cure=ABSENT))
    order = np.random.default_rng(SEED).permutation(len(rows))
    tenth = int(TENTH * len(rows))
    shut, val, train = np.split(order, [tenth, 2 * tenth])

    def part(which: np.ndarray) -> Sample:
        pixels = np.stack([_pixels(rows[i][0]) for i in which])
        return _sequences(pixels, [rows[i][1] for i in which])

    return Task(
        "lra-pathfinder",
        train=part(train),
        val=part(val),
        classes=2,
        test=lambda: part(shut),
        split={
            "source": f"Long Range Arena, Pathfinder, {folder.name}",
            "how": "all images split by the seed",
            "seed": SEED,
            "train": len(train),
            "val": len(val),
            "test": len(shut),
        },
        repeats=REPEATS,
    )


def _batch(path: Path) -> Sample:
    """Return one pickle of CIFAR-10."""
    if not path.is_file():
        raise DataError(message("lra_image", f"{path} is missing"))
    found = read_pickle(path, "lra_image")
    found = found if isinstance(found, dict) else {}
    data, labels = (found.get(key, found.get(key.decode())) for key in (b"data", b"labels"))
    colours = (3, SIDE, SIDE)
    fits = (
        isinstance(data, np.ndarray)
        and data.dtype == np.uint8
        and data.ndim == 2
        and data.shape[1] == np.prod(colours)
        and isinstance(labels, list)
        and len(labels) == len(data)
        and all(isinstance(label, int) for label in labels)
    )
    if not fits:
        raise DataError(
            message(
                "lra_image",
                f"{path} is no batch of CIFAR-10",
                expected="data (n, 3072) uint8 and a list of n labels",
            )
        )
    grey = np.tensordot(np.array(GREY), data.reshape(-1, *colours), axes=(0, 1))
    return _sequences(grey, labels)


def _sequences(pixels: np.ndarray, labels: list[int]) -> Sample:
    scaled = pixels.reshape(len(pixels), -1, 1).astype(np.float32) / 127.5 - 1.0
    return Sample(torch.from_numpy(scaled), torch.tensor(labels, dtype=torch.int64))


def _listed(folder: Path, path: Path) -> list[tuple[Path, int]]:
    """Return the images and labels that a list in ``metadata`` names."""
    if path.read_bytes()[:6] == b"\x93NUMPY":
        found = read_npy(path, "lra_pathfinder")
        lines: list[list[str]] = [[_plain(entry) for entry in np.ravel(row)] for row in found]
    else:
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    listed = []
    for fields in lines:
        if len(fields) < 4 or fields[3] not in ("0", "1"):
            raise DataError(
                message(
                    "lra_pathfinder",
                    f"{path} has a line without folder, name, number and label",
                    got=" ".join(fields)[:80],
                )
            )
        image = (folder / fields[0] / fields[1]).resolve()
        if not image.is_relative_to(folder.resolve()) or not image.is_file():
            raise DataError(
                message(
                    "lra_pathfinder", f"{path} names an image that is not there", got=f"{image}"
                )
            )
        if image.stat().st_size:
            listed.append((image, int(fields[3])))
    return listed


def _plain(entry: object) -> str:
    return entry.decode("latin-1") if isinstance(entry, bytes) else str(entry)


def _pixels(path: Path) -> np.ndarray:
    from matplotlib.image import imread  # here: no other task needs it

    try:
        pixels = np.round(255.0 * imread(path, format="png"))
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(message("lra_pathfinder", f"{path} is no image", got=str(error))) from error
    if pixels.shape != (SIDE, SIDE):
        raise DataError(
            message(
                "lra_pathfinder",
                f"{path} has another size",
                expected=f"{SIDE} x {SIDE} grey pixels",
                got=f"{pixels.shape}",
            )
        )
    return pixels
