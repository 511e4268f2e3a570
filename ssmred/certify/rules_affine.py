"""Rules of affine operations: linear maps, embeddings, scalings, sums, constants.

Every rule is proved in ``theory/error-rules.md`` (lemmas 1 to 4).
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np

from ssmred.certify.graph import Node
from ssmred.certify.rules_shape import spread_pair, spread_to
from ssmred.certify.rules_table import rule
from ssmred.certify.values import EPS, ErrorBall, Value, norm, outward, times, up, weighted_sum
from ssmred.errors import ShapeError, UnsupportedOperationError, message

__all__ = ["affine_map", "spectral_norm"]

SEPARATE_POSITIONS = 16
"""Positions beside a mapped axis up to which each gets a spectral norm of its own."""

CACHED_MATRICES = 256  # matrices whose norms are kept; a network has a few tens
_known: OrderedDict[Any, MatrixFacts] = OrderedDict()


class MatrixFacts(NamedTuple):
    """Hold what the rules ask of one matrix: it does not change during a search.

    ``weights`` is ``|W|``, ``rows`` the 2-norms of its rows, ``sigma`` its spectral norm and
    ``gram`` the entrywise ``|W^T W|``, all rounded up.
    """

    weights: np.ndarray
    rows: np.ndarray
    sigma: float
    gram: np.ndarray


def matrix_facts(W: np.ndarray) -> MatrixFacts:
    """Return the norms of a matrix, remembered by its hash."""
    key = (W.shape, hashlib.blake2b(np.ascontiguousarray(W), digest_size=16).digest())
    if key not in _known:
        weights = np.abs(W)
        gram = np.abs(W.T @ W) + (W.shape[0] + 2) * EPS * (weights.T @ weights)
        _known[key] = MatrixFacts(weights, norm(weights, axis=1), spectral_norm(W), gram)
        if len(_known) > CACHED_MATRICES:
            _known.popitem(last=False)
    _known.move_to_end(key)
    return _known[key]


def spectral_norm(matrix: np.ndarray) -> float:
    """Return an upper bound on the spectral norm, the root of the Gram matrix's largest eigenvalue.

    Parameters
    ----------
    matrix : (m, n) float64

    Notes
    -----
    With k = min(m, n) the computed Gram matrix is off by at most ``n eps ||W||_F^2``, which is at
    most ``k n eps`` times the square sought, and the eigenvalue by a small multiple of
    ``k eps``; the answer is rounded up by both (``theory/error-rules.md``, lemma 1).

    Examples
    --------
    >>> import numpy as np
    >>> round(spectral_norm(np.array([[3.0, 0.0], [0.0, 4.0]])), 12)
    4.0
    """
    peak = float(np.max(np.abs(matrix), initial=0.0))
    if peak == 0.0 or math.isinf(peak):
        return peak
    scaled = matrix / peak
    gram = scaled @ scaled.T if matrix.shape[0] < matrix.shape[1] else scaled.T @ scaled
    largest = float(np.linalg.eigvalsh(gram)[-1])
    small, large = sorted(matrix.shape)
    return peak * math.sqrt(largest) * (1.0 + (small * large + 16 * small + 8) * EPS)


def affine_map(x: Value, W: np.ndarray, b: np.ndarray | None, axis: int) -> Value:
    """Return the value of ``W x + b`` along one feature axis of the sample (lemma 1)."""
    if x.axes[axis] != "feature" or x.shape[axis] != W.shape[1]:
        raise ShapeError(
            message(
                "linear rule",
                f"a matrix of shape {W.shape} does not act on axis {axis} of this sample",
                expected=f"a feature axis of length {W.shape[1]}",
                got=f"shape {x.shape}, axes {x.axes}",
            )
        )
    bias = np.zeros(W.shape[0]) if b is None else b
    weights, rows, sigma, gram = matrix_facts(W)
    n = W.shape[1] + 1

    def last(array: np.ndarray) -> np.ndarray:
        return np.moveaxis(np.broadcast_to(array, x.shape), axis, -1)

    def back(array: np.ndarray) -> np.ndarray:
        return np.moveaxis(array, -1, axis)

    center, radius = last(x.center), last(x.radius)
    middle = center @ W.T + bias
    spread = weighted_sum(weights, radius)
    rounding = weighted_sum(weights, np.abs(center)) + np.abs(bias)
    lo, hi = outward(middle - spread, middle + spread, rounding + spread, n)

    positions = math.prod(last(x.lo).shape[:-1])
    root = x.root_steps
    # ||Wx + b|| from the signal itself, and from its deviation from the middle of the box
    constant = float(times(root * up(math.sqrt(positions)), norm(np.abs(bias))))
    l2 = float(times(sigma, x.l2)) + constant
    drift = np.abs(middle) + n * EPS * rounding
    from_middle = up(
        times(root, norm(drift)) + times(root, min(times(sigma, norm(radius)), norm(spread))), 3
    )
    entry = np.minimum(weighted_sum(weights, last(x.l2_features)), times(rows, x.l2))
    entry = up(entry + times(root, np.abs(bias)))

    error_entry = weighted_sum(weights, last(x.error_features))
    error_entry = np.minimum(error_entry, times(rows, _positionwise(last(x.error_features), x)))
    error_l2 = min(float(times(sigma, x.error_l2)), _correlated_norm(gram, last(x.error_features)))
    ball = _mapped_ball(W, last(x.error_ball.scale), x.error_ball.radius)
    return Value(
        back(lo),
        back(hi),
        x.axes,
        x.length,
        l2=min(up(l2), float(from_middle)),
        l2_features=back(entry),
        error_sup=back(weighted_sum(weights, last(x.error_sup))),
        error_l2=error_l2,
        error_features=back(error_entry),
        error_ball=ErrorBall(back(np.broadcast_to(ball.scale, middle.shape)), ball.radius),
    )


def _positionwise(features: np.ndarray, x: Value) -> np.ndarray:
    """Return the 2-norm of the error over the mapped axis, for every position beside it."""
    return np.minimum(norm(features, axis=-1), x.error_l2)[..., None]


def _correlated_norm(gram: np.ndarray, bounds: np.ndarray) -> float:
    """Return a bound on ``||W d||`` where ``||d_f||_2 <= bounds_f``: ``e^T |W^T W| e`` (lemma 1.3).

    The entries of the Gram matrix keep the cancellation between rows that ``|W|`` forgets.
    """
    peak = float(np.max(bounds, initial=0.0))
    if peak == 0.0 or math.isinf(peak):
        return peak
    scaled = bounds / peak
    total = float(np.sum((scaled @ gram) * scaled))
    return float(up(peak * math.sqrt(total), gram.size + 8))


def _mapped_ball(W: np.ndarray, scale: np.ndarray, radius: float) -> ErrorBall:
    """Return the ball of ``W d``: at each position beside the axis ``||W diag(scale)||`` at most.

    Of few positions each gets its own norm; many share that of their largest weights, times what
    is the largest part of these that a position has (lemma 1.4).
    """
    shape = (*scale.shape[:-1], 1)
    if radius == 0.0 or math.isinf(radius) or np.isinf(scale).any() or np.ptp(scale) == 0.0:
        # equal scales: the plain spectral norm says it
        return ErrorBall(np.ones(shape), math.inf if radius > 0.0 else 0.0)
    rows = scale.reshape(-1, scale.shape[-1])
    # each entry of W * row is rounded once: a relative change of the Frobenius norm
    if len(rows) <= SEPARATE_POSITIONS:
        norms = np.array([up(spectral_norm(W * row), W.shape[1]) for row in rows])
    else:
        largest = np.max(rows, axis=0)
        parts = np.max(rows / np.where(largest > 0.0, largest, 1.0), axis=-1)
        norms = times(up(spectral_norm(W * largest), W.shape[1]), parts)
    return ErrorBall(norms.reshape(shape), radius)


@rule("linear")
def linear(node: Node, x: Value) -> Value:
    """Apply ``W x + b`` along the last axis."""
    return affine_map(x, node.params["weight"], node.param("bias"), len(x.shape) - 1)


@rule("conv1d")
def conv1d(node: Node, x: Value) -> Value:
    """Apply a convolution of kernel size 1 along the first axis."""
    weight = node.params["weight"]
    if weight.ndim == 3:
        if weight.shape[2] != 1:
            raise UnsupportedOperationError(
                message(
                    f"rule for 'conv1d' (node {node.name!r})",
                    "the kernel reaches over time",
                    expected="kernel size 1",
                    got=f"kernel size {weight.shape[2]}",
                    cure='Ask for guarantee="statistical", or register a rule for your own module.',
                )
            )
        weight = weight[:, :, 0]
    return affine_map(x, weight, node.param("bias"), 0)


@rule("embedding")
def embedding(node: Node, x: Value) -> Value:
    """Look up rows of a table: every token sequence (lemma 2)."""
    table = node.params["weight"]
    if np.any(x.error_sup > 0.0) or not x.axes:
        raise UnsupportedOperationError(
            message(
                f"rule for 'embedding' (node {node.name!r})",
                "its tokens depend on the reduced layers or have no axis",
                expected="tokens taken from the network's input",
            )
        )
    shape = (*x.shape, table.shape[1])
    positions = math.prod(x.shape)
    root = up(x.root_steps * math.sqrt(positions), 3)
    return Value(
        np.broadcast_to(table.min(axis=0), shape),
        np.broadcast_to(table.max(axis=0), shape),
        (*x.axes, "feature"),
        x.length,
        l2=float(times(root, np.max(norm(np.abs(table), axis=1)))),
        error_sup=np.zeros(shape),
        error_l2=0.0,
    )


def diagonal(x: Value, scale: np.ndarray, shift: np.ndarray, rounded: int = 0) -> Value:
    """Return the value of ``scale x + shift`` entrywise; ``rounded`` operations made the scale."""
    gain = up(np.abs(scale), rounded)
    ends = [np.where(scale == 0.0, 0.0, scale * end) for end in (x.lo, x.hi)]
    lo, hi = np.minimum(*ends) + shift, np.maximum(*ends) + shift
    lo, hi = outward(lo, hi, times(gain, x.magnitude) + np.abs(shift), 4 + rounded)
    root = x.root_steps
    moved = times(root, np.abs(shift))
    peak = float(np.max(gain, initial=0.0))
    return Value(
        lo,
        hi,
        x.axes,
        x.length,
        l2=float(up(times(peak, x.l2) + times(root, norm(np.abs(shift))))),
        l2_features=up(times(gain, x.l2_features) + moved),
        **x.scaled_error(gain),
    )


@rule("batchnorm")
def batchnorm(node: Node, x: Value) -> Value:
    """Normalise by stored statistics: an affine map per channel; gamma may be negative."""
    if node.param("mean") is None or node.param("var") is None:
        raise UnsupportedOperationError(
            message(
                f"rule for 'batchnorm' (node {node.name!r})",
                "it has no running statistics, so its output depends on the batch",
                cure="Use track_running_stats=True.",
            )
        )
    axis = int(node.param("axis", 0)) % len(x.shape)
    shape = [1] * len(x.shape)
    shape[axis] = -1
    mean, var = node.params["mean"], node.params["var"]
    spread = np.sqrt(var + float(node.param("eps", 1e-5)))
    scale = np.asarray(node.param("weight", np.ones_like(mean))) / spread
    shift = np.asarray(node.param("bias", np.zeros_like(mean)))
    if x.axes[axis] != "feature" or x.shape[axis] != mean.size:
        raise ShapeError(
            message(
                f"rule for 'batchnorm' (node {node.name!r})",
                f"axis {axis} is not its channel axis",
                expected=f"a feature axis of length {mean.size}",
                got=f"shape {x.shape}, axes {x.axes}",
            )
        )
    # subtract the mean first: scale * (x - mean) + shift keeps the digits of a narrow range
    centered = diagonal(x, np.ones(x.shape), np.broadcast_to(-mean.reshape(shape), x.shape))
    return diagonal(
        centered,
        np.broadcast_to(scale.reshape(shape), x.shape),
        np.broadcast_to(shift.reshape(shape), x.shape),
        rounded=4,
    )


@rule("affine")
def affine(node: Node, x: Value) -> Value:
    """Scale and shift by stored constants."""
    scale = np.asarray(node.param("scale", 1.0), dtype=np.float64)
    shift = np.asarray(node.param("shift", 0.0), dtype=np.float64)
    shape = np.broadcast_shapes(x.shape, scale.shape, shift.shape)
    x = spread_to(x, shape, node.axes, x.steps)
    return diagonal(x, np.broadcast_to(scale, shape), np.broadcast_to(shift, shape))


@rule("constant")
def constant(node: Node) -> Value:
    """Return a stored signal: known exactly, the same in both networks."""
    value = np.asarray(node.params["value"], dtype=np.float64)
    axis = node.time_axis
    length = 1.0 if axis is None else float(value.shape[axis])
    size = np.abs(value)
    collapse: dict[str, Any] = {"axis": axis, "keepdims": True}
    return Value(
        value if axis is None else value.min(**collapse),
        value if axis is None else value.max(**collapse),
        node.axes,
        length,
        l2=float(norm(size)),
        l2_features=size if axis is None else np.expand_dims(norm(size, axis=axis), axis),
        error_sup=np.zeros(value.shape if axis is None else value.min(**collapse).shape),
        error_l2=0.0,
    )


def _sum(x: Value, y: Value, sign: float) -> Value:
    """Return the value of ``x + sign y`` (lemma 4): no correlation between the two is assumed."""
    low, high = (y.lo, y.hi) if sign > 0 else (-y.hi, -y.lo)
    lo, hi = outward(x.lo + low, x.hi + high, x.magnitude + y.magnitude)
    return Value(
        lo,
        hi,
        x.axes,
        x.length,
        l2=up(x.l2 + y.l2),
        l2_features=up(x.l2_features + y.l2_features),
        error_sup=up(x.error_sup + y.error_sup),
        error_l2=up(x.error_l2 + y.error_l2),
        error_features=up(x.error_features + y.error_features),
        error_ball=x.error_ball + y.error_ball,
    )


@rule("add")
def add(node: Node, x: Value, y: Value) -> Value:
    """Add two signals, a residual connection among others."""
    return _sum(*spread_pair(x, y, node.axes), 1.0)


@rule("sub")
def sub(node: Node, x: Value, y: Value) -> Value:
    """Subtract two signals."""
    return _sum(*spread_pair(x, y, node.axes), -1.0)
