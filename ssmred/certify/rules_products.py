"""Rules of gates and products of signals.

A gate's gain grows with the range that reaches it; every rule is proved in
``theory/error-rules.md`` (lemmas 8 and 9).
"""

from __future__ import annotations

import math

import numpy as np

from ssmred.certify.graph import Node
from ssmred.certify.rules_pointwise import sigmoid_range, sigmoid_slope
from ssmred.certify.rules_shape import spread_pair
from ssmred.certify.rules_table import rule
from ssmred.certify.values import SMALLEST, ErrorBall, Value, magnitude, norm, outward, times, up
from ssmred.errors import ShapeError, message

__all__: list[str] = []


def _product_range(
    x_lo: np.ndarray, x_hi: np.ndarray, y_lo: np.ndarray, y_hi: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the range of the product of two intervals, where ``0 * inf = 0``."""
    corners = np.stack(
        [np.where((a == 0.0) | (b == 0.0), 0.0, a * b) for a in (x_lo, x_hi) for b in (y_lo, y_hi)]
    )
    lo, hi = outward(corners.min(axis=0), corners.max(axis=0))
    lost = np.where((magnitude(x_lo, x_hi) > 0.0) & (magnitude(y_lo, y_hi) > 0.0), SMALLEST, 0.0)
    return lo - lost, hi + lost  # a product of two tiny ends may have become 0


@rule("multiply")
def multiply(node: Node, x: Value, y: Value) -> Value:
    """Multiply two signals; nothing is assumed of how they depend on each other."""
    square = node.inputs[:1] * 2 == node.inputs
    x, y = spread_pair(x, y, node.axes)
    lo, hi = _product_range(x.lo, x.hi, y.lo, y.hi)
    if square:
        lo = np.maximum(lo, 0.0)
    x_size, y_size = x.magnitude, y.magnitude
    l2 = min(times(np.max(x_size), y.l2), times(np.max(y_size), x.l2))
    entry = np.minimum(times(x_size, y.l2_features), times(y_size, x.l2_features))
    # x y - x^ y^ = (x - x^) y + x^ (y - y^) = (x - x^) y^ + x (y - y^)
    ways = [(y.original_magnitude, x_size), (y_size, x.original_magnitude)]
    sup, features, total = [], [], []
    for of_x, of_y in ways:
        sup.append(up(times(of_x, x.error_sup) + times(of_y, y.error_sup)))
        features.append(up(times(of_x, x.error_features) + times(of_y, y.error_features)))
        first = times(np.max(of_x), x.error_l2)
        total.append(float(up(first + times(np.max(of_y), y.error_l2))))
    return Value(
        lo,
        hi,
        x.axes,
        x.length,
        l2=float(l2),
        l2_features=entry,
        error_sup=np.minimum(*sup),
        error_l2=min(total),
        error_features=np.minimum(*features),
    )


@rule("glu")
def glu(node: Node, x: Value) -> Value:
    """Gate the first half of an axis by the sigmoid of the second: ``a sigmoid(b)``."""
    axis = int(node.param("axis", -1)) % len(x.shape)
    half, odd = divmod(x.shape[axis], 2)
    if x.axes[axis] != "feature" or odd:
        raise ShapeError(
            message(
                f"rule for 'glu' (node {node.name!r})",
                f"axis {axis} cannot be halved",
                expected="a feature axis of even length",
                got=f"shape {x.shape}, axes {x.axes}",
            )
        )

    def halves(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        first = np.take(array, range(half), axis=axis)
        return first, np.take(array, range(half, 2 * half), axis=axis)

    a_lo, b_lo = halves(x.lo)
    a_hi, b_hi = halves(x.hi)
    b_original = (halves(x.original_lo)[1], halves(x.original_hi)[1])
    gate_lo, gate_hi = sigmoid_range(b_lo, b_hi)
    lo, hi = _product_range(a_lo, a_hi, gate_lo, gate_hi)
    slope = sigmoid_slope(*b_original)
    a_l2 = min(x.l2, float(norm(halves(x.l2_features)[0])))
    # a s(b) - a^ s(b^) = (a - a^) s(b) + a^ (s(b) - s(b^)) = (a - a^) s(b^) + a (s(b) - s(b^))
    ways = [
        (sigmoid_range(*b_original)[1], np.maximum(np.abs(a_lo), np.abs(a_hi))),
        (gate_hi, halves(x.original_magnitude)[0]),
    ]
    sup_a, sup_b = halves(x.error_sup)
    entry_a, entry_b = halves(x.error_features)
    scale_a, scale_b = halves(x.error_ball.scale)
    sup, features, total, balls = [], [], [], []
    for gate, size in ways:
        swing = times(size, slope)
        sup.append(up(times(gate, sup_a) + times(swing, sup_b)))
        features.append(up(times(gate, entry_a) + times(swing, entry_b)))
        gain = norm(np.stack([gate, swing]), axis=0)  # Cauchy and Schwarz, entry by entry
        total.append(float(times(np.max(gain), x.error_l2)))
        scale = norm(np.stack([times(gate, scale_a), times(swing, scale_b)]), axis=0)
        balls.append(ErrorBall(scale, x.error_ball.radius))
    best = min(balls, key=lambda ball: float(np.max(ball.scale, initial=0.0)))
    if not np.all(np.isfinite(best.scale)):
        best = ErrorBall(np.ones_like(best.scale), math.inf)
    return Value(
        lo,
        hi,
        x.axes,
        x.length,
        l2=float(times(np.max(gate_hi), a_l2)),
        l2_features=times(gate_hi, halves(x.l2_features)[0]),
        error_sup=np.minimum(*sup),
        error_l2=min(total),
        error_features=np.minimum(*features),
        error_ball=best,
    )
