"""Rule of LayerNorm: the local slope from the smallest variance, and the global one from eps.

Proved in ``theory/error-rules.md`` (lemma 10). BatchNorm in eval mode is affine and lives in
``rules_affine``.
"""

from __future__ import annotations

import math

import numpy as np

from ssmred.certify.graph import Node
from ssmred.certify.rules_table import rule
from ssmred.certify.values import EPS, ErrorBall, Value, norm, times, up
from ssmred.errors import ShapeError, UnsupportedOperationError, message

__all__ = ["smallest_variance"]


def smallest_variance(lo: np.ndarray, hi: np.ndarray) -> np.ndarray:
    """Return a lower bound on the biased variance of every point of a box, over the last axis.

    ``var(x) = min_m mean_f (x_f - m)^2``, so the smallest over the box is the minimum over m of
    the mean squared distance of m to the intervals: convex in m and smooth, its derivative is
    piecewise linear with kinks at the ends of the intervals.

    Parameters
    ----------
    lo, hi : (..., d) float64

    Returns
    -------
    (...) float64

    Examples
    --------
    >>> import numpy as np
    >>> float(smallest_variance(np.array([0.0, 2.0]), np.array([1.0, 3.0])).round(12))
    0.25
    """
    flat = np.where(np.isfinite(lo) & np.isfinite(hi), 1.0, 0.0).min(axis=-1) > 0.0
    lo, hi = np.where(flat[..., None], lo, -1.0), np.where(flat[..., None], hi, 1.0)
    highest, lowest = lo.max(axis=-1), hi.min(axis=-1)  # no gap between them: variance 0
    low, high = np.minimum(highest, lowest), np.maximum(highest, lowest)
    for _ in range(60):  # bisection of the increasing derivative
        m = 0.5 * (low + high)
        slope = np.sum(np.clip(m[..., None], lo, hi) - m[..., None], axis=-1)
        low, high = np.where(slope > 0.0, m, low), np.where(slope > 0.0, high, m)
    # a convex function lies above its tangent: the bound holds wherever the bisection stopped
    m = 0.5 * (low + high)
    gap = m[..., None] - np.clip(m[..., None], lo, hi)
    d = lo.shape[-1]
    value = np.mean(np.square(gap), axis=-1)
    slope = 2.0 * np.abs(np.mean(gap, axis=-1)) * (high - low)
    size = np.maximum(np.abs(lo), np.abs(hi)).max(axis=-1)
    rounding = (d + 16) * EPS * (value + size * np.sqrt(value)) + (d + 4.0) ** 3 * np.square(
        EPS * size
    )
    return np.where(flat, np.maximum(value - slope - rounding, 0.0), 0.0)


def _largest_variance(lo: np.ndarray, hi: np.ndarray) -> np.ndarray:
    """Return an upper bound on the biased variance: mean squared distance to one fixed point."""
    middle = np.clip(np.mean(0.5 * (lo + hi), axis=-1, keepdims=True), -1e300, 1e300)
    far = np.maximum(np.abs(lo - middle), np.abs(hi - middle))
    return up(np.mean(np.square(far), axis=-1), lo.shape[-1] + 4)


@rule("layernorm")
def layernorm(node: Node, x: Value) -> Value:
    """Normalise the last axes: ``gamma (x - mean) / sqrt(var + eps) + beta``, biased variance."""
    count = int(node.param("dims", 1))
    normalised = range(len(x.shape) - count, len(x.shape))
    if count < 1 or count > len(x.shape) or any(x.axes[axis] == "time" for axis in normalised):
        raise UnsupportedOperationError(
            message(
                f"rule for 'layernorm' (node {node.name!r})",
                f"it normalises {count} trailing axes of {x.axes}",
                expected="feature axes only",
                cure='Ask for guarantee="statistical".',
            )
        )
    lead = x.shape[: len(x.shape) - count]
    d = math.prod(x.shape[len(lead) :])
    if d * math.prod(lead) != x.lo.size or d == 0:
        raise ShapeError(message(f"rule for 'layernorm' (node {node.name!r})", "no features"))
    eps = float(node.param("eps", 1e-5))

    def rows(array: np.ndarray) -> np.ndarray:
        return np.broadcast_to(array, x.shape).reshape(*lead, d)

    gamma = np.ones(d) if node.param("weight") is None else node.params["weight"].reshape(d)
    beta = np.zeros(d) if node.param("bias") is None else node.params["bias"].reshape(d)
    size = np.abs(gamma)
    lo, hi = rows(x.lo), rows(x.hi)

    # Smallest variance of the reduced signal, and on the way to the original one.
    smallest = smallest_variance(lo, hi)
    error_rows = np.minimum(norm(rows(x.error_sup), axis=-1), x.error_l2)  # ||delta(t)||_2
    both = smallest_variance(rows(x.original_lo), rows(x.original_hi))
    moved = np.maximum(np.sqrt(smallest) - up(error_rows / math.sqrt(d), 3), 0.0)
    both = np.maximum(both, np.square(moved) * (1.0 - 8 * EPS))
    steepest = up(1.0 / np.sqrt(both + eps), 4)  # eps = 0 and variance 0: infinite

    # Range: |z_f| <= sqrt(d - 1), and (x_f - mean) / s for s in its own range.
    mean_lo, mean_hi = np.sum(lo, axis=-1, keepdims=True), np.sum(hi, axis=-1, keepdims=True)
    centered_lo = lo - (lo + (mean_hi - hi)) / d
    centered_hi = hi - (hi + (mean_lo - lo)) / d
    rounding = (d + 4) * EPS * np.max(np.maximum(np.abs(lo), np.abs(hi)), axis=-1)[..., None]
    centered_lo, centered_hi = centered_lo - rounding, centered_hi + rounding
    s_low = np.sqrt(smallest + eps)[..., None]
    s_high = np.sqrt(_largest_variance(lo, hi) + eps)[..., None]
    z_lo = np.where(centered_lo < 0.0, centered_lo / s_low, centered_lo / s_high)
    z_hi = np.where(centered_hi > 0.0, centered_hi / s_low, centered_hi / s_high)
    limit = up(math.sqrt(d - 1), 2)
    z_lo = np.where(np.isnan(z_lo), -limit, np.clip(z_lo - 8 * EPS * np.abs(z_lo), -limit, limit))
    z_hi = np.where(np.isnan(z_hi), limit, np.clip(z_hi + 8 * EPS * np.abs(z_hi), -limit, limit))
    ends = gamma * z_lo, gamma * z_hi
    y_lo = np.minimum(*ends) + beta
    y_hi = np.maximum(*ends) + beta
    slack = 4 * EPS * (size * limit + np.abs(beta))

    # ||z(t)||_2 <= sqrt(d) at every time.
    positions = math.prod(lead)
    root = up(x.root_steps * math.sqrt(positions), 3)
    peak = float(np.max(size, initial=0.0))
    whole = up(root * (peak * math.sqrt(d) + norm(np.abs(beta))), 6)

    # Errors: slope 1 / s in every direction; and two points of the range, never further apart.
    error_z = times(steepest, error_rows)
    error_z = np.minimum(error_z, up(2.0 * math.sqrt(d), 2))[..., None]
    error_l2 = float(times(np.max(steepest), x.error_l2))
    error_l2 = min(error_l2, float(up(2.0 * root * math.sqrt(d), 4)))
    # ||delta z|| <= ||delta|| / s at every position by itself: the ball keeps where s is small
    weight = times(steepest, np.max(rows(x.error_ball.scale), axis=-1, initial=0.0))
    ball = ErrorBall(weight[..., None], x.error_ball.radius)
    if not float(times(np.max(weight, initial=0.0), ball.radius)) < error_l2:
        ball = ErrorBall(np.ones((*lead, 1)), error_l2)

    def back(array: np.ndarray) -> np.ndarray:
        return np.broadcast_to(array, (*lead, d)).reshape(x.shape)

    return Value(
        back(y_lo - slack),
        back(y_hi + slack),
        x.axes,
        x.length,
        l2=float(whole),
        error_sup=back(times(size, np.minimum(error_z, up(2.0 * limit, 2)))),
        error_l2=float(times(peak, error_l2)),
        error_ball=ErrorBall(back(times(size, ball.scale)), ball.radius),
    )
