"""The methods that `ssmred.reduce` knows, by name."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from ssmred.errors import RequestError, message
from ssmred.gramians import InputMoments
from ssmred.reductors import Reductor, SubsetReductor
from ssmred.systems import DiagonalSystem
from ssmred.systems.stability import is_stable

__all__ = [
    "ALTERNATING",
    "LAYER_METHODS",
    "LQO_BOUND",
    "METHODS",
    "QUADRATIC",
    "RANDOM",
    "SUBSET",
    "check_method",
    "reductor_of",
]

SUBSET, ALTERNATING = "subset", "alternating"
"""Keep poles and fit C and D, or B too; all other methods move poles."""

RANDOM = "random"
"""Keep modes that chance chooses: what any other method has to beat."""

_REDUCTORS = {
    "balanced": ("ssmred.reductors.balanced", "BalancedReductor"),
    "residualised": ("ssmred.reductors.residualised", "ResidualisedReductor"),
    "h2_optimal": ("ssmred.reductors.h2_optimal", "H2OptimalReductor"),
    "modal": ("ssmred.reductors.modal", "ModalReductor"),
    "hankel": ("ssmred.reductors.hankel", "HankelReductor"),
    RANDOM: ("ssmred.reductors.modal", "ModalReductor"),
}

LQO_BOUND = "lqo-bound"
"""Divide states so that the chain of h2 errors has the least bound."""

QUADRATIC = {
    LQO_BOUND: "h2",
    "lqo-h2": "h2",
    "lqo-limited": "limited",
    "lqo-balanced": "balanced",
}
"""Methods for networks whose layers all square outputs, and how each finds states."""

LAYER_METHODS = (SUBSET, ALTERNATING, *_REDUCTORS)
"""Methods for any layers."""

METHODS = (*LAYER_METHODS, *QUADRATIC)


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
    seed: int | Sequence[int] = 0,
) -> Reductor:
    """Return the reductor of a method, other than "subset", in the form of its input.

    Those that move poles judge by an infinite horizon, which leaves stable systems stable. Only
    balanced truncation has versions for calibration inputs, used where moments are given, and for a
    finite horizon, which serves systems that are not stable. H2-optimal models are found by descent
    alone, the faster of the two algorithms. Only ``"random"`` looks at the seed; each layer needs
    its own, or all keep the modes at the same places.
    """
    if check_method(method) == ALTERNATING:
        return SubsetReductor(horizon=horizon, refit="both")
    module, name = _REDUCTORS[method]
    kind = getattr(importlib.import_module(module), name)
    if method == "h2_optimal":
        return kind(algorithm="gradient")
    if method == RANDOM:
        return kind(measure="random", seed=seed)
    if method != "balanced":
        return kind()
    if moments is not None:
        return kind(moments=moments)
    return kind(horizon=None if is_stable(system) else horizon)
