"""Small families, written down by hand."""

from __future__ import annotations

import torch
from torch import nn

from ssmred.deploy import Spread
from ssmred.prune import Family, Member

WIDTH = 4
LAYERS = ("layers.0", "layers.1")
OPERATORS = WIDTH * len(LAYERS)


def spread(median: float) -> Spread:
    return Spread(0.9 * median, median, 1.1 * median)


def member(kept: list[list[int]], *, latency: float, scores: tuple, weights: str, **more) -> Member:
    left = sum(map(len, kept))
    given = {
        "rate": 1.0 - left / OPERATORS,
        "kept": dict(zip(LAYERS, kept, strict=True)),
        "removed": OPERATORS - left,
        "operators": OPERATORS,
        "parameters": 100 + 10 * left,
        "bytes": 4 * (100 + 10 * left),
        "latency": spread(latency),
        "parent_latency": spread(8e-3),
        "error": {"bound": 0.125, "guarantee": "statistical"},
        "scores": {
            "val_before": scores[0],
            "val_after": scores[1],
            "test_before": scores[2],
            "test_after": scores[3],
            "candidates": [{"seed": 0, "val_after": scores[1]}],
        },
        "seconds": 1.5,
        "weights": weights,
    }
    return Member(**(given | more))


def parent() -> Member:
    everything = [[0, 1, 2, 3], [0, 1, 2, 3]]
    scores = (90.0, 90.0, 89.0, 89.0)
    return member(
        everything, latency=8e-3, scores=scores, weights="parent", error={}, uncached=spread(0.02)
    )


def members() -> tuple[Member, ...]:
    return (
        member([[0, 1, 3], [0, 1, 3]], latency=6e-3, scores=(88, 91, 87, 88.5), weights="rate-25"),
        member([[0, 1, 3], [1]], latency=5e-3, scores=(70, 80, 69, 79), weights="rate-50"),
        member([[1, 3], []], latency=2e-3, scores=(50, 85, 49, 84), weights="rate-75"),
    )


def networks() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {m.weights: nn.Sequential(nn.Linear(3, 2)) for m in (parent(), *members())}


def family(**more) -> Family:
    given = {
        "parent": parent(),
        "members": members(),
        "options": {"selection": "calibrated", "seeds": (0, 1)},
        "split": {"seed": 0, "train": 100},
        "machine": "a machine",
        "task": "listops",
        "held": networks(),
    }
    return Family(**(given | more))
