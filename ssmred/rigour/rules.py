"""One rule per operation, in balls: the lemmas of ``theory/error-rules.md``.

Every rule maps the values of an operation's inputs to the value of its output.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ssmred.errors import UnsupportedOperationError, message
from ssmred.rigour.architecture import Step
from ssmred.rigour.balls import (
    INFINITY,
    ONE,
    ZERO,
    arb,
    exact,
    filled,
    largest,
    matrix,
    maximum,
    middle,
    minimum,
    norm,
    product,
    root,
    size,
    spectral_norm,
    times,
    total,
)
from ssmred.rigour.functions import RANGES, SLOPES, sigmoid_range, sigmoid_slope
from ssmred.rigour.values import Ball, Value

__all__ = ["RULES", "Mixing"]


class Mixing:
    """Hold a matrix and its bias, and what the rules ask of them.

    Parameters
    ----------
    weight : (m, n) array of numbers
    bias : (m,) array of numbers or None
    """

    def __init__(self, weight: np.ndarray, bias: np.ndarray | None) -> None:
        self.weight = exact(weight)
        self.bias = filled(len(weight), ZERO) if bias is None else exact(bias)
        self.matrix = matrix(self.weight)
        self.moduli = matrix(size(self.weight))
        self.rows = np.array([norm(size(row)) for row in self.weight], dtype=object)
        gram = self.matrix.transpose() * self.matrix
        self.gram = matrix(size(np.array(gram.entries(), dtype=object)).reshape(gram.nrows(), -1))
        self.sigma = spectral_norm(self.weight)

    def weighted(self, scale: np.ndarray) -> arb:
        """Return ``||W diag(scale)||_2``."""
        return spectral_norm(self.weight * scale)

    def correlated(self, bounds: np.ndarray) -> arb:
        """Return a bound on ``||W d||`` for ``||d_f|| <= bounds_f``: ``e^T |W^T W| e``."""
        if not all(ball.is_finite() for ball in bounds):
            return INFINITY
        return root(total(bounds * product(self.gram, bounds)))


def affine(step: Step, x: Value) -> Value:
    """Apply ``W x + b`` to the features (lemma 1)."""
    mixing: Mixing = step.params["mixing"]
    steps = x.root_steps
    center, radius = x.center, x.radius
    middles = product(mixing.matrix, center) + mixing.bias
    spread = product(mixing.moduli, radius)
    offset = size(mixing.bias)
    from_middle = steps * norm(size(middles)) + times(
        steps, times(mixing.sigma, norm(radius)).min(norm(spread))
    )
    each = minimum(product(mixing.moduli, x.l2_each), times(mixing.rows, x.l2)) + steps * offset
    error = times(mixing.sigma, x.error).min(mixing.correlated(x.each))
    together = norm(x.each).min(x.error)
    return Value(
        middles - spread,
        middles + spread,
        x.steps,
        l2=(times(mixing.sigma, x.l2) + steps * norm(offset)).min(from_middle),
        l2_each=each,
        sup=product(mixing.moduli, x.sup),
        error=error.min(_weighted(mixing, x.ball)),
        each=minimum(product(mixing.moduli, x.each), times(mixing.rows, together)),
    )


def _weighted(mixing: Mixing, ball: Ball) -> arb:
    if ball.radius.is_zero():
        return ZERO
    sizes = [middle(scale) for scale in ball.scale]
    if not ball.radius.is_finite() or min(sizes) == max(sizes) or max(sizes) == float("inf"):
        return INFINITY  # equal weights: the spectral norm says it
    return times(mixing.weighted(ball.scale), ball.radius)


def embedding(step: Step) -> Value:
    """Look up rows of a table: every token sequence (lemma 2)."""
    table = exact(step.params["table"])
    steps = step.params["steps"]
    none = filled(table.shape[1], ZERO)
    return Value(
        np.array([-largest(-column) for column in table.T], dtype=object),
        np.array([largest(column) for column in table.T], dtype=object),
        steps,
        l2=arb(steps).sqrt() * largest(norm(size(row)) for row in table),
        sup=none,
        error=ZERO,
    )


def _scaled(x: Value, scale: np.ndarray, shift: np.ndarray) -> Value:
    """Apply ``scale x + shift`` entry by entry (lemma 3)."""
    gain = size(scale)
    first, second = times(scale, x.lo), times(scale, x.hi)
    moved = x.root_steps * size(shift)
    return Value(
        minimum(first, second) + shift,
        maximum(first, second) + shift,
        x.steps,
        l2=times(largest(gain), x.l2) + norm(moved),
        l2_each=times(gain, x.l2_each) + moved,
        **x.scaled_errors(gain),
    )


def batchnorm(step: Step, x: Value) -> Value:
    """Normalise by stored statistics: the mean goes first, then an affine map (lemma 3)."""
    params = step.params
    scale = exact(params["weight"]) / root(exact(params["var"]) + arb(params["eps"]))
    centered = _scaled(x, filled(len(x.lo), ONE), -exact(params["mean"]))
    return _scaled(centered, scale, exact(params["bias"]))


def layernorm(step: Step, x: Value) -> Value:
    """Normalise the features by their own mean and variance (lemma 10)."""
    d, eps = len(x.lo), arb(step.params["eps"])
    gamma, beta = exact(step.params["weight"]), exact(step.params["bias"])
    gain = size(gamma)
    smallest_here = _smallest_variance(x.lo, x.hi)
    moved = norm(x.sup).min(x.error)
    still = (root(smallest_here) - moved / arb(d).sqrt()).max(ZERO)
    both = _smallest_variance(*x.original).max(still * still)
    steepest = _reciprocal(root(both + eps))
    low, high = _normalised_range(x, root(smallest_here + eps), eps)
    limit, whole = arb(d - 1).sqrt(), arb(d).sqrt()
    first, second = gamma * low, gamma * high
    peak = largest(gain)
    error_l2 = times(steepest, x.error).min(2 * x.root_steps * whole)
    error_z = times(steepest, moved).min(2 * whole).min(2 * limit)
    return Value(
        minimum(first, second) + beta,
        maximum(first, second) + beta,
        x.steps,
        l2=x.root_steps * (peak * whole + norm(size(beta))),
        sup=times(gain, error_z),
        error=times(peak, error_l2),
        ball=Ball(gain, error_l2),
    )


def _reciprocal(ball: arb) -> arb:
    return ONE / ball if ball > 0 else INFINITY


def _normalised_range(x: Value, least: arb, eps: arb) -> tuple[np.ndarray, np.ndarray]:
    """Return the range of ``(x_f - mean) / s``, at most ``sqrt(d - 1)``."""
    d = len(x.lo)
    limit = arb(d - 1).sqrt()
    low_sum, high_sum = total(x.lo), total(x.hi)
    low = x.lo - (x.lo + (high_sum - x.hi)) / d
    high = x.hi - (x.hi + (low_sum - x.lo)) / d
    center = total((x.lo + x.hi) / 2) / d
    apart = maximum(size(x.lo - center), size(x.hi - center))
    most = root(total(apart * apart) / d + eps)

    def quotient(end: arb, toward: int) -> arb:
        outside = end < 0 if toward < 0 else end > 0
        inside = end >= 0 if toward < 0 else end <= 0
        if not (least > 0 and end.is_finite()):
            return toward * limit
        near, away = end / least, end / most
        if not most.is_finite():
            away = ZERO
        picked = near if outside else away if inside else near.union(away)
        return picked.max(-limit).min(limit)

    return (
        np.array([quotient(end, -1) for end in low], dtype=object),
        np.array([quotient(end, 1) for end in high], dtype=object),
    )


def _smallest_variance(lo: np.ndarray, hi: np.ndarray) -> arb:
    """Return a ball whose lower end is below the variance of every point of a box (lemma 10).

    Bisection in floats finds a place; the tangent there, in balls, is the bound.
    """
    if not all(ball.is_finite() for ball in (*lo, *hi)):
        return ZERO
    lows, highs = (np.array([middle(ball) for ball in end]) for end in (lo, hi))
    low, high = sorted((float(lows.max()), float(highs.min())))
    if not np.isfinite([lows, highs]).all():
        return ZERO
    a, b = low, high
    for _ in range(200):
        m = 0.5 * (a + b)
        if not a < m < b:
            break
        rising = np.sum(np.clip(m, lows, highs) - m) <= 0.0
        a, b = (a, m) if rising else (m, b)
    place = arb(0.5 * (a + b))
    gaps = place - np.array(
        [place.max(first).min(second) for first, second in zip(lo, hi, strict=True)], dtype=object
    )
    d = len(lo)
    value = total(gaps * gaps) / d
    # the minimum lies between the largest low and the smallest high: nowhere further away
    edge_low, edge_high = largest(hi * 0 + lo), -largest(-hi)
    reach = abs(edge_low - place).max(abs(edge_high - place))
    return (value - 2 * abs(total(gaps) / d) * reach).max(ZERO)


def pointwise(step: Step, x: Value) -> Value:
    """Apply an entrywise function (lemma 7); all but the sigmoid obey ``|g(x)| <= |x|``."""
    kind = step.params["function"]
    lo, hi = RANGES[kind](x.lo, x.hi)
    facts: dict[str, Any] = {} if kind == "sigmoid" else {"l2": x.l2, "l2_each": x.l2_each}
    slope = SLOPES[kind](*x.original)
    return Value(lo, hi, x.steps, **facts, **x.scaled_errors(slope))


def glu(step: Step, x: Value) -> Value:
    """Gate the first half of the features by the sigmoid of the second (lemma 9)."""
    half = len(x.lo) // 2
    a, b = slice(0, half), slice(half, 2 * half)
    original_lo, original_hi = x.original
    gate_lo, gate_hi = sigmoid_range(x.lo[b], x.hi[b])
    lo, hi = _product_range(x.lo[a], x.hi[a], gate_lo, gate_hi)
    slope = sigmoid_slope(original_lo[b], original_hi[b])
    ways = [
        (sigmoid_range(original_lo[b], original_hi[b])[1], x.magnitude[a]),
        (gate_hi, x.original_magnitude[a]),
    ]
    sup, each, errors, balls = [], [], [], []
    for gate, reach in ways:
        swing = times(reach, slope)
        sup.append(times(gate, x.sup[a]) + times(swing, x.sup[b]))
        each.append(times(gate, x.each[a]) + times(swing, x.each[b]))
        errors.append(times(largest(root(gate * gate + times(swing, swing))), x.error))
        first, second = times(gate, x.ball.scale[a]), times(swing, x.ball.scale[b])
        balls.append(Ball(root(times(first, first) + times(second, second)), x.ball.radius))
    best = min(balls, key=lambda ball: middle(largest(ball.scale)))
    if not all(scale.is_finite() for scale in best.scale):
        best = Ball.plain(half)
    return Value(
        lo,
        hi,
        x.steps,
        l2=times(largest(gate_hi), x.l2.min(norm(x.l2_each[a]))),
        l2_each=times(gate_hi, x.l2_each[a]),
        sup=minimum(*sup),
        error=errors[0].min(errors[1]),
        each=minimum(*each),
        ball=best,
    )


def _product_range(
    x_lo: np.ndarray, x_hi: np.ndarray, y_lo: np.ndarray, y_hi: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    corners = [times(a, b) for a in (x_lo, x_hi) for b in (y_lo, y_hi)]
    lo = minimum(minimum(*corners[:2]), minimum(*corners[2:]))
    return lo, maximum(maximum(*corners[:2]), maximum(*corners[2:]))


def multiply(step: Step, x: Value, y: Value) -> Value:
    """Multiply two signals (lemma 8)."""
    lo, hi = _product_range(x.lo, x.hi, y.lo, y.hi)
    if step.inputs[0] == step.inputs[1]:
        lo = maximum(lo, ZERO)
    sup, each, errors = [], [], []
    for of_x, of_y in ((y.original_magnitude, x.magnitude), (y.magnitude, x.original_magnitude)):
        sup.append(times(of_x, x.sup) + times(of_y, y.sup))
        each.append(times(of_x, x.each) + times(of_y, y.each))
        errors.append(times(largest(of_x), x.error) + times(largest(of_y), y.error))
    return Value(
        lo,
        hi,
        x.steps,
        l2=times(largest(x.magnitude), y.l2).min(times(largest(y.magnitude), x.l2)),
        l2_each=minimum(times(x.magnitude, y.l2_each), times(y.magnitude, x.l2_each)),
        sup=minimum(*sup),
        error=errors[0].min(errors[1]),
        each=minimum(*each),
    )


def add(step: Step, x: Value, y: Value) -> Value:
    """Add two signals (lemma 4)."""
    return Value(
        x.lo + y.lo,
        x.hi + y.hi,
        x.steps,
        l2=x.l2 + y.l2,
        l2_each=x.l2_each + y.l2_each,
        sup=x.sup + y.sup,
        error=x.error + y.error,
        each=x.each + y.each,
        ball=x.ball + y.ball,
    )


def pool(step: Step, x: Value) -> Value:
    """Take the mean, the maximum or one step over time (lemmas 5 and 6)."""
    if step.params["kind"] == "mean":
        share = ONE / x.root_steps
        return Value(
            x.lo,
            x.hi,
            1,
            l2=times(x.l2, share),
            l2_each=times(x.l2_each, share),
            sup=x.sup,
            error=times(x.error, share),
            each=times(x.each, share),
            ball=Ball(x.ball.scale, times(x.ball.radius, share)),
        )
    facts = x.ranges() | x.errors() | {"steps": 1}
    if step.params["kind"] == "max":
        facts.pop("ball")
    return Value(**facts)


def take(step: Step, x: Value) -> Value:
    """Keep a piece of the features (lemma 5)."""
    piece = slice(*step.params["piece"])
    return Value(
        x.lo[piece],
        x.hi[piece],
        x.steps,
        l2=x.l2,
        l2_each=x.l2_each[piece],
        sup=x.sup[piece],
        error=x.error,
        each=x.each[piece],
        ball=Ball(x.ball.scale[piece], x.ball.radius),
    )


RULES = {
    "affine": affine,
    "embedding": embedding,
    "batchnorm": batchnorm,
    "layernorm": layernorm,
    "pointwise": pointwise,
    "glu": glu,
    "multiply": multiply,
    "add": add,
    "pool": pool,
    "take": take,
}
"""Rules by the operations of `architecture`; state-space layers are in `layers`."""


def rule_of(step: Step) -> Any:
    """Return the rule of an operation.

    Raises
    ------
    UnsupportedOperationError
        If there is none.
    """
    if step.op not in RULES:
        raise UnsupportedOperationError(message("rigour", f"no rule for {step.op!r}"))
    return RULES[step.op]
