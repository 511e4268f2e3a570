"""Reduce trained structured state-space networks under a bound on the output error.

``ssmred.reduce(model, tol=1e-3)`` is the main entry. Nothing heavy is imported before it is used:
torch loads with the first function that needs it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ssmred._version import __version__

if TYPE_CHECKING:
    from ssmred.certify import Certificate, InputSet, verify
    from ssmred.networks import export
    from ssmred.pipeline import Inspection, ReductionResult, inspect, load, quadratic_bound, reduce

_HOMES = {
    "Certificate": "ssmred.certify",
    "InputSet": "ssmred.certify",
    "Inspection": "ssmred.pipeline",
    "ReductionResult": "ssmred.pipeline",
    "export": "ssmred.networks",
    "inspect": "ssmred.pipeline",
    "load": "ssmred.pipeline",
    "quadratic_bound": "ssmred.pipeline",
    "reduce": "ssmred.pipeline",
    "verify": "ssmred.certify",
}
_ROOMS = (
    "certify",
    "deploy",
    "errors",
    "gramians",
    "networks",
    "norms",
    "pipeline",
    "prune",
    "reductors",
    "report",
    "rigour",
    "systems",
    "tasks",
    "zoo",
)

__all__ = [
    "Certificate",
    "InputSet",
    "Inspection",
    "ReductionResult",
    "__version__",
    "export",
    "inspect",
    "load",
    "quadratic_bound",
    "reduce",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _ROOMS:
        return importlib.import_module(f"ssmred.{name}")
    raise AttributeError(f"module 'ssmred' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_ROOMS})
