"""Ranges and slopes of entrywise functions over intervals, in balls.

Lemma 7 of ``theory/error-rules.md``; the extrema of GELU and SiLU are enclosed by changes of sign
(``theory/ball-arithmetic.md``, proposition 3). An interval that may hold an extremum, as far as
its balls tell, is taken to hold it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ssmred.errors import AccuracyError, message
from ssmred.rigour.balls import INFINITY, ONE, ZERO, arb, each, filled, maximum

__all__ = ["RANGES", "SLOPES", "sigmoid_range", "sigmoid_slope"]

Ends = tuple[np.ndarray, np.ndarray]
Scalar = Callable[[arb], arb]

HALVINGS = 100


# The functions and their derivatives ----------------------------------------------------------


def _normal(x: arb) -> arb:
    return (-x / arb(2).sqrt()).erfc() / 2


def _density(x: arb) -> arb:
    return (-x * x / 2).exp() / (2 * arb.pi()).sqrt()


def _sigmoid(x: arb) -> arb:
    if not x.is_finite():
        return ONE if x == INFINITY else ZERO if -x == INFINITY else ZERO.union(ONE)
    if x > 0:
        return ONE / (ONE + (-x).exp())
    power = x.exp()
    return power / (ONE + power)


def _tanh(x: arb) -> arb:
    return 2 * _sigmoid(2 * x) - ONE


def _gelu(x: arb) -> arb:
    return x * _normal(x)


def _gelu_slope(x: arb) -> arb:
    return _normal(x) + x * _density(x)


def _tanh_gelu(x: arb) -> arb:
    return x * _sigmoid(2 * (2 / arb.pi()).sqrt() * (x + arb("0.044715") * x * x * x))


def _silu(x: arb) -> arb:
    return x * _sigmoid(x)


def _silu_slope(x: arb) -> arb:
    return _sigmoid(x) * (ONE + x * _sigmoid(-x))


# Extrema --------------------------------------------------------------------------------------


def _sign_change(function: Scalar, low: float, high: float) -> arb:
    """Return a ball that holds a zero of a function which changes its sign between two points."""
    a, b = arb(low), arb(high)
    rising = function(b) > 0
    if not (rising and function(a) < 0) and not (function(b) < 0 and function(a) > 0):
        raise AccuracyError(message("rigour.functions", "there is no change of sign", got=f"{a}"))
    for _ in range(HALVINGS):
        middle = ((a + b) / 2).mid()
        value = function(middle)
        if value > 0:
            a, b = (a, middle) if rising else (middle, b)
        elif value < 0:
            a, b = (middle, b) if rising else (a, middle)
        else:
            break
    return a.union(b)


def _may_hold(lo: arb, hi: arb, point: arb) -> bool:
    return not (hi < point or lo > point)


def _dipping(function: Scalar, derivative: Scalar, bracket: tuple[float, float]) -> Callable:
    """Return the range of a function that falls to its only minimum and rises after it."""

    def ranged(lo: np.ndarray, hi: np.ndarray) -> Ends:
        place = _sign_change(derivative, *bracket)
        least = function(place)

        def one(low: arb, high: arb) -> tuple[arb, arb]:
            if not (low.is_finite() and high.is_finite()):
                return least, high.max(ZERO)
            first, second = function(low), function(high)
            bottom = least if _may_hold(low, high, place) else first.min(second)
            return bottom, first.max(second)

        return each(one, lo, hi, outputs=2)

    return ranged


def _steepest(derivative: Scalar, place_of: Callable[[], arb]) -> Callable:
    """Return ``max |f'|`` for an f' monotone between ``-p`` and ``p``, ``f'(x) + f'(-x) = 1``."""

    def slope(lo: np.ndarray, hi: np.ndarray) -> np.ndarray:
        place = place_of()
        most = derivative(place)

        def one(low: arb, high: arb) -> arb:
            if not (low.is_finite() and high.is_finite()):
                return most
            ends = abs(derivative(low)).max(abs(derivative(high))).min(most)
            if _may_hold(low, high, place):
                return most
            return ends.max(most - ONE) if _may_hold(low, high, -place) else ends

        return each(one, lo, hi)

    return slope


# The table ------------------------------------------------------------------------------------


def _relu_range(lo: np.ndarray, hi: np.ndarray) -> Ends:
    return maximum(lo, ZERO), maximum(hi, ZERO)


def _relu_slope(lo: np.ndarray, hi: np.ndarray) -> np.ndarray:
    return each(lambda high: ZERO if high <= 0 else ONE, hi)


def _tanh_range(lo: np.ndarray, hi: np.ndarray) -> Ends:
    return each(_tanh, lo), each(_tanh, hi)


def _tanh_slope(lo: np.ndarray, hi: np.ndarray) -> np.ndarray:
    return 4 * sigmoid_slope(2 * lo, 2 * hi)


def _tanh_gelu_range(lo: np.ndarray, hi: np.ndarray) -> Ends:
    def one(low: arb, high: arb) -> tuple[arb, arb]:
        top = ZERO if high <= 0 else _tanh_gelu(high) if high.is_finite() else INFINITY
        if low >= 0:
            return _tanh_gelu(low), top.max(ZERO)
        return low.max(arb("-0.17005")), top.max(ZERO)

    return each(one, lo, hi, outputs=2)


def sigmoid_range(lo: np.ndarray, hi: np.ndarray) -> Ends:
    """Return the range of the sigmoid over ``[lo, hi]``."""
    return each(_sigmoid, lo), each(_sigmoid, hi)


def sigmoid_slope(lo: np.ndarray, hi: np.ndarray) -> np.ndarray:
    """Return the largest derivative of the sigmoid over ``[lo, hi]``: it falls away from 0."""

    def one(low: arb, high: arb) -> arb:
        nearest = low.max(-high).max(ZERO)
        return _sigmoid(nearest) * _sigmoid(-nearest) if nearest.is_finite() else arb(0.25)

    return each(one, lo, hi)


RANGES: dict[str, Callable[[np.ndarray, np.ndarray], Ends]] = {
    "gelu": _dipping(_gelu, _gelu_slope, (-1.0, -0.5)),
    "silu": _dipping(_silu, _silu_slope, (-2.0, -1.0)),
    "tanh-gelu": _tanh_gelu_range,
    "relu": _relu_range,
    "tanh": _tanh_range,
    "sigmoid": sigmoid_range,
}
"""Range over an interval, by function."""

SLOPES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "gelu": _steepest(_gelu_slope, lambda: arb(2).sqrt()),
    "silu": _steepest(
        _silu_slope, lambda: _sign_change(lambda x: 2 - x * (x / 2).tanh(), 2.0, 3.0)
    ),
    # these constants hold everywhere: theory/error-rules.md, lemma 7, by subdivision
    "tanh-gelu": lambda lo, hi: filled(len(lo), arb("1.129")),
    "relu": _relu_slope,
    "tanh": _tanh_slope,
    "sigmoid": sigmoid_slope,
}
"""Largest absolute derivative over an interval, by function."""
