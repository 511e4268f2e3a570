"""The methods that `ssmred.reduce` knows, by name."""

from __future__ import annotations

import importlib

from ssmred.errors import RequestError, message
from ssmred.gramians import InputMoments
from ssmred.reductors import Reductor
from ssmred.systems import DiagonalSystem
from ssmred.systems.stability import is_stable

__all__ = ["METHODS", "SUBSET", "check_method", "reductor_of"]

SUBSET = "subset"
"""Keeps poles; all other methods move them."""

_REDUCTORS = {
    "balanced": ("ssmred.reductors.balanced", "BalancedReductor"),
    "residualised": ("ssmred.reductors.residualised", "ResidualisedReductor"),
    "h2_optimal": ("ssmred.reductors.h2_optimal", "H2OptimalReductor"),
    "modal": ("ssmred.reductors.modal", "ModalReductor"),
    "hankel": ("ssmred.reductors.hankel", "HankelReductor"),
}

METHODS = (SUBSET, *_REDUCTORS)


def check_method(method: str) -> str:
    """Return the name of a method, or raise RequestError that lists all."""
    if method not in METHODS:
        raise RequestError(
            message(
                "reduce",
                "method is not known",
                expected=f"one of {', '.join(METHODS)}",
                got=f"{method!r}",
            )
        )
    return method


def reductor_of(
    method: str,
    system: DiagonalSystem,
    horizon: int | None,
    *,
    moments: InputMoments | None = None,
) -> Reductor:
    """Return the reductor of a method that moves poles, in the form of its input.

    All of them judge by an infinite horizon, which leaves stable systems stable. Only balanced
    truncation has versions for calibration inputs, used where moments are given, and for a finite
    horizon, which serves systems that are not stable. H2-optimal models are found by descent alone,
    the faster of the two algorithms.
    """
    module, name = _REDUCTORS[check_method(method)]
    kind = getattr(importlib.import_module(module), name)
    if method == "h2_optimal":
        return kind(algorithm="gradient")
    if method != "balanced":
        return kind()
    if moments is not None:
        return kind(moments=moments)
    return kind(horizon=None if is_stable(system) else horizon)
