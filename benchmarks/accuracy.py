"""Accuracy of the bundled network after removals without retraining, beside published scores.

All 10,000 test images; the calibration images come from the training set. Prints one table.
"""

from __future__ import annotations

import torch
from peer_scores import SCORES, kept_modes
from torch import nn

import ssmred
from ssmred import zoo
from ssmred.networks import ReducedSSM, import_network
from ssmred.report import table

NAME = "fashion-mnist-s4d"
HORIZON = 196
SHARES = (0.5, 0.3, 0.2, 0.1)


def accuracy(model: nn.Module, test: zoo.Sample) -> float:
    """Return the share of right classes in percent."""
    with torch.no_grad():
        answers = torch.cat([model(x).argmax(-1) for x in test.inputs.split(500)])
    return 100.0 * float((answers == test.labels).double().mean())


def pruned(model: nn.Module, score: str, share: float) -> nn.Module:
    """Return the network with the modes that a published score keeps, nothing refitted."""
    network = import_network(model)
    systems = network.systems
    layers = [(s.poles, s.C[..., 0, :] * s.B[..., 0]) for s in systems.values()]
    masks = kept_modes(score, layers, share)
    return network.with_systems(
        {
            name: ReducedSSM.from_system(system, kept=mask)
            for (name, system), mask in zip(systems.items(), masks, strict=True)
        }
    ).eval()


def measure() -> dict[str, dict[float, float]]:
    """Return accuracy by method and share of states kept; share 1 is the original."""
    model, data = zoo.load(NAME)
    rows: dict[str, dict[float, float]] = {
        "calibrated (ssmred, data)": {},
        "h2, horizon 196 (ssmred, data-free)": {},
        **{f"{score} score": {} for score in SCORES},
    }
    full = accuracy(model, data.test)
    for values in rows.values():
        values[1.0] = full
    for share in SHARES:
        calibrated = ssmred.reduce(
            model, states=share, data=data.calibration.inputs, progress=False
        )
        free = ssmred.reduce(model, states=share, horizon=HORIZON, progress=False)
        rows["calibrated (ssmred, data)"][share] = accuracy(calibrated.model, data.test)
        rows["h2, horizon 196 (ssmred, data-free)"][share] = accuracy(free.model, data.test)
        for score in SCORES:
            rows[f"{score} score"][share] = accuracy(pruned(model, score, share), data.test)
    return rows


HEADERS = ["accuracy (%) after removing", *(f"{100 * (1 - s):.0f} %" for s in (1.0, *SHARES))]


def cells(rows: dict[str, dict[float, float]]) -> list[list[str]]:
    """Return the measurements as the cells of a table."""
    return [[name, *(f"{v[s]:.2f}" for s in (1.0, *SHARES))] for name, v in rows.items()]


if __name__ == "__main__":
    print(table(cells(measure()), HEADERS))
