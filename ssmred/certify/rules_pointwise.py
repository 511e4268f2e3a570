"""Rules of entrywise functions: their exact range and largest slope over an interval.

Every rule is proved in ``theory/error-rules.md`` (lemma 7). The slope is the largest absolute
derivative over the interval that holds the signal in both networks.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.special import expit, ndtr

from ssmred.certify.graph import Node
from ssmred.certify.rules_table import rule
from ssmred.certify.values import Value, outward, up
from ssmred.errors import UnsupportedOperationError, message

__all__ = ["sigmoid_slope"]

# Extrema as (position, value), values rounded outward; tests/certify/test_rules_pointwise.py proves
# them with ball arithmetic.
GELU_MINIMUM = (-0.7517915246935646, -0.16997120747990375)
GELU_SLOPE = (math.sqrt(2.0), 1.128904145185155)  # at minus the position it is 1 - 1.1289...
TANH_GELU_MINIMUM = -0.17005
TANH_GELU_SLOPE = 1.129
SILU_MINIMUM = (-1.2784645427610738, -0.2784645427610739)
SILU_SLOPE = (2.3993572805154677, 1.0998393201288673)
NEAR = 1e-9  # half width of the neighbourhood that is counted as an extremum's position
FUNCTION_ULPS = 1024  # allowance for SciPy's ndtr, expit and NumPy's exp, tanh: x^2/2 in the tail
SLOPE_ULPS = 64  # absolute, for slopes: their terms are of size 1
FAR = 38.0  # beyond it the Gaussian tail is below 1e-310
UNDERFLOW = 1e-300  # absolute allowance for what the functions lose below the smallest numbers

Function = Callable[[np.ndarray], np.ndarray]


def _has(lo: np.ndarray, hi: np.ndarray, point: float) -> np.ndarray:
    """Tell where an interval holds a point or comes near it."""
    return (lo <= point + NEAR) & (hi >= point - NEAR)


def _largest_slope(
    lo: np.ndarray, hi: np.ndarray, derivative: Function, extremum: tuple[float, float]
) -> np.ndarray:
    """Return ``max |f'|`` over ``[lo, hi]`` for an f' that is monotone between its two extrema.

    The extrema are ``(p, m)`` and, by ``f'(x) + f'(-x) = 1``, ``(-p, 1 - m)``.
    """
    point, value = extremum
    # the derivative itself is at most 1.2 in size, and so is each term it is made of
    slack = SLOPE_ULPS * np.finfo(float).eps
    ends = np.maximum(np.abs(derivative(lo)), np.abs(derivative(hi))) + slack
    ends = np.where(_has(lo, hi, point), value, np.minimum(ends, value))
    return np.where(_has(lo, hi, -point), np.maximum(ends, value - 1.0 + slack), ends)


def _dipping_range(
    x: Value, function: Function, minimum: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the range of a function that falls to its only minimum and rises after it."""
    first, second = function(x.lo), function(x.hi)
    lo = np.where(_has(x.lo, x.hi, minimum[0]), minimum[1], np.minimum(first, second))
    lo, hi = outward(lo, np.maximum(first, second), None, FUNCTION_ULPS)
    return np.maximum(lo - UNDERFLOW, minimum[1]), hi + UNDERFLOW


def _gelu(x: np.ndarray) -> np.ndarray:
    inside = np.clip(x, -FAR, FAR)
    return np.where(x > FAR, x, inside * ndtr(inside))


def _gelu_slope(x: np.ndarray) -> np.ndarray:
    inside = np.clip(x, -FAR, FAR)
    return ndtr(inside) + inside * np.exp(-0.5 * inside * inside) / math.sqrt(2.0 * math.pi)


def _silu(x: np.ndarray) -> np.ndarray:
    inside = np.clip(x, -700.0, None)  # beyond it exp(x) underflows
    return inside * expit(inside)


def _silu_slope(x: np.ndarray) -> np.ndarray:
    inside = np.clip(x, -700.0, 700.0)
    return expit(inside) * (1.0 + inside * expit(-inside))


@rule("gelu")
def gelu(node: Node, x: Value) -> Value:
    """Apply ``x Phi(x)``, or its tanh approximation."""
    kind = node.param("approximate", "none")
    if kind == "none":
        lo, hi = _dipping_range(x, _gelu, GELU_MINIMUM)
        slope = _largest_slope(x.original_lo, x.original_hi, _gelu_slope, GELU_SLOPE)
        return x.pointwise(lo, hi, slope, gain=1.0)
    if kind == "tanh":
        # x s(x) with 0 <= s <= 1 increasing: an interval product, cut at the minimum
        lo = np.where(x.lo < 0.0, np.maximum(x.lo, TANH_GELU_MINIMUM), _tanh_gelu(x.lo))
        hi = np.where(x.hi > 0.0, _tanh_gelu(x.hi), 0.0)
        lo, hi = outward(lo, hi, None, FUNCTION_ULPS)
        return x.pointwise(np.minimum(lo, hi), hi, TANH_GELU_SLOPE, gain=1.0)
    raise UnsupportedOperationError(
        message(
            f"rule for 'gelu' (node {node.name!r})",
            "the approximation is not known",
            expected="'none' or 'tanh'",
            got=repr(kind),
        )
    )


def _tanh_gelu(x: np.ndarray) -> np.ndarray:
    inside = np.clip(x, -FAR, FAR)
    inner = math.sqrt(2.0 / math.pi) * (inside + 0.044715 * inside**3)
    return np.where(x > FAR, x, inside * expit(2.0 * inner))


@rule("silu")
def silu(node: Node, x: Value) -> Value:
    """Apply ``x sigmoid(x)``."""
    lo, hi = _dipping_range(x, _silu, SILU_MINIMUM)
    slope = _largest_slope(x.original_lo, x.original_hi, _silu_slope, SILU_SLOPE)
    return x.pointwise(lo, hi, slope, gain=1.0)


@rule("relu")
def relu(node: Node, x: Value) -> Value:
    """Apply ``max(x, 0)``; its slope is 0 where both signals stay below 0."""
    slope = np.where(x.original_hi <= 0.0, 0.0, 1.0)
    return x.pointwise(np.maximum(x.lo, 0.0), np.maximum(x.hi, 0.0), slope, gain=1.0)


def _nearest_to_zero(lo: np.ndarray, hi: np.ndarray) -> np.ndarray:
    return np.maximum(np.maximum(lo, -hi), 0.0)


def sigmoid_slope(lo: np.ndarray, hi: np.ndarray) -> np.ndarray:
    """Return the largest derivative of the sigmoid over ``[lo, hi]``: it falls away from 0."""
    nearest = _nearest_to_zero(lo, hi)
    slope = up(expit(nearest) * expit(-nearest), FUNCTION_ULPS) + UNDERFLOW
    return np.minimum(slope, 0.25)


def sigmoid_range(lo: np.ndarray, hi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the range of the sigmoid over ``[lo, hi]``."""
    low, high = outward(expit(lo), expit(hi), None, FUNCTION_ULPS)
    return np.maximum(low - UNDERFLOW, 0.0), np.minimum(high + UNDERFLOW, 1.0)


@rule("sigmoid")
def sigmoid(node: Node, x: Value) -> Value:
    """Apply ``1 / (1 + exp(-x))``."""
    low, high = sigmoid_range(x.lo, x.hi)
    return x.pointwise(low, high, sigmoid_slope(x.original_lo, x.original_hi))


@rule("tanh")
def tanh(node: Node, x: Value) -> Value:
    """Apply the hyperbolic tangent."""
    low, high = outward(np.tanh(x.lo), np.tanh(x.hi), None, FUNCTION_ULPS)
    # tanh(x) = 2 sigmoid(2x) - 1, so tanh'(x) = 4 sigmoid'(2x)
    slope = 4.0 * sigmoid_slope(2.0 * x.original_lo, 2.0 * x.original_hi)
    return x.pointwise(np.maximum(low, -1.0), np.minimum(high, 1.0), slope, gain=1.0)
