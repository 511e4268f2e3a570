"""What each guarantee allows on the bundled networks, and how loose the worst case is.

Prints, for tolerance 1e-3: states removed under every guarantee; and for the two networks the
worst-case bound beside the largest error found on the test images.
"""

from __future__ import annotations

from typing import Any

import torch

import ssmred
from ssmred import zoo
from ssmred.networks import import_network
from ssmred.pipeline import ReductionResult
from ssmred.report import table

HORIZON = 196
CASES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("fashion-mnist-s4d", "layer, tol 1e-3", {"tol": 1e-3, "guarantee": "layer"}),
    ("fashion-mnist-s4d", "worst-case, tol 1e-3", {"tol": 1e-3, "guarantee": "worst-case"}),
    ("fashion-mnist-s4d", "worst-case, half the states", {"states": 0.5}),
    ("fashion-mnist-s4d", "statistical, tol 0.01", {"tol": 0.01, "data": True}),
    ("fashion-mnist-s4d", "statistical, tol 0.05", {"tol": 0.05, "data": True}),
    ("fashion-mnist-s4d-gelu", "worst-case, tol 1e-3", {"tol": 1e-3, "guarantee": "worst-case"}),
    ("fashion-mnist-s4d-gelu", "worst-case, half the states", {"states": 0.5}),
)


def largest_error(model: torch.nn.Module, result: ReductionResult, x: torch.Tensor) -> float:
    """Return the largest output error on some inputs, in float64, relative to the output scale."""
    exact, reduced = import_network(model).model.double(), result.model.double()
    with torch.no_grad():
        errors = [(exact(part) - reduced(part)).norm(dim=-1) for part in x.double().split(500)]
    scale = result.certificate.scale if result.certificate.guarantee != "layer" else 1.0
    return float(torch.cat(errors).max()) / scale


def measure() -> list[list[str]]:
    """Return network, guarantee, states removed, bound, largest error found."""
    rows = []
    for name, label, wish in CASES:
        model, data = zoo.load(name)
        arguments = dict(wish)
        if arguments.pop("data", False):
            arguments["data"] = data.calibration.inputs
        else:
            arguments["horizon"] = HORIZON
        result = ssmred.reduce(model, progress=False, **arguments)
        certificate = result.certificate
        bound = f"{certificate.bound:.1e}" + (" (vacuous)" if certificate.vacuous else "")
        found = "-"
        if certificate.guarantee != "layer":
            found = f"{largest_error(model, result, data.test.inputs[:2000]):.1e}"
        rows.append([name, label, f"{100 * result.removed:.1f} %", bound, found])
    return rows


HEADERS = ["network", "guarantee", "states removed", "bound", "largest error, 2,000 test images"]


if __name__ == "__main__":
    print(table(measure(), HEADERS))
