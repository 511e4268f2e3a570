"""What networks of layers with quadratic outputs are trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from zoo_recipes import Parts, as_parts

from ssmred import tasks
from ssmred.tasks.imdb import VOCABULARY

__all__ = ["SIZES", "imdb", "parts_of", "products"]

TEST, HELD_OUT = 5_000, 1_000
"""Sequences of noise to test on, and to watch."""

LAGS = (3, 5)
STEPS = 256

SIZES = {
    "imdb": {"inputs": VOCABULARY, "outputs": 2, "encoder": "embedding"},
    "products": {"inputs": 1, "outputs": 2},
}
"""Arguments of `ssmred.networks.deep.DeepLQO` that the tasks decide."""


def parts_of(task: str, length: int, source: Path | None) -> Parts:
    """Return the data of a task; a length and a source are those of reviews."""
    return imdb(length, source) if task == "imdb" else products()


def imdb(length: int, source: Path | None) -> Parts:
    """Return the 25,000 labelled IMDb reviews as bytes: `ssmred.tasks.imdb`."""
    return as_parts(tasks.load("imdb", length=length, source=source))


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
