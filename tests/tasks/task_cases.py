"""Small tasks of every kind."""

import torch

from ssmred.tasks import Sample, Task


def sequences(count, *shape, seed=0):
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


def classes_of(count, classes=2):
    return torch.arange(count) % classes


def small_task(**changes):
    """Eight training, four validation and six test sequences of 10 steps."""
    x, y = sequences(18, 10, 1), classes_of(18)
    told = {
        "name": "small",
        "train": Sample(x[:8], y[:8]),
        "val": Sample(x[8:12], y[8:12]),
        "classes": 2,
        "test": lambda: Sample(x[12:], y[12:]),
    }
    return Task(**(told | changes))
