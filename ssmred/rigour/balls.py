"""Arrays of real balls: numbers with a proved radius, rounded outward by Arb.

Arrays are NumPy arrays of `flint.arb`, so ``+ - * /`` work entry by entry. Every function returns
balls that hold the value of the exact expression on everything that the given balls hold; where a
bound is asked for, its upper end is one (``theory/ball-arithmetic.md``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ssmred.errors import AccuracyError, MissingDependencyError, message

try:
    import flint
    from flint import acb, acb_mat, arb, arb_mat
except ImportError as problem:
    raise MissingDependencyError(
        message(
            "ssmred.rigour",
            "python-flint, which does the ball arithmetic, is not installed",
            cure="pip install 'ssmred[rigour]'",
        )
    ) from problem

__all__ = [
    "INFINITY",
    "ONE",
    "ZERO",
    "acb",
    "acb_mat",
    "arb",
    "each",
    "exact",
    "filled",
    "flint_version",
    "largest",
    "matrix",
    "maximum",
    "middle",
    "minimum",
    "norm",
    "product",
    "root",
    "size",
    "smallest",
    "spectral_norm",
    "times",
    "total",
    "upper_float",
    "working_precision",
]

ZERO, ONE = arb(0), arb(1)
INFINITY = arb.pos_inf()

Array = np.ndarray
"""Of `flint.arb`, dtype object."""


def flint_version() -> str:
    """Return the version of python-flint."""
    return str(flint.__version__)


@contextmanager
def working_precision(bits: int) -> Iterator[None]:
    """Compute with so many bits inside, and with as many as before after it."""
    before = flint.ctx.prec
    flint.ctx.prec = bits
    try:
        yield
    finally:
        flint.ctx.prec = before


# Making and reading ---------------------------------------------------------------------------


def exact(values: Any) -> Array:
    """Return stored numbers, float64 or narrower, as balls of radius 0.

    Examples
    --------
    >>> exact([0.5, 3])
    array([0.500000000000000, 3.00000000000000], dtype=object)
    """
    source = np.asarray(values)
    out = np.empty(source.shape, dtype=object)
    flat = out.reshape(-1)
    for place, value in enumerate(source.astype(np.float64).reshape(-1).tolist()):
        flat[place] = arb(value)
    return out


def filled(count: int, value: arb) -> Array:
    """Return an array of one ball, repeated."""
    out = np.empty(count, dtype=object)
    out[:] = value
    return out


def middle(ball: arb) -> float:
    """Return a float near a ball, to decide by; nothing rests on how near."""
    try:
        return float(ball)
    except (OverflowError, ValueError):
        return math.inf


def upper_float(ball: arb) -> float:
    """Return the smallest float64 that is not below anything in a ball.

    Examples
    --------
    >>> upper_float(arb(1) / 3) > 1 / 3, upper_float(arb(0.25))
    (True, 0.25)
    """
    top = ball.upper()
    if top.is_nan() or top == INFINITY:
        return math.inf
    value = float(top)
    while not arb(value) >= top:
        value = math.nextafter(value, math.inf)
    while math.isfinite(value) and arb(math.nextafter(value, -math.inf)) >= top:
        value = math.nextafter(value, -math.inf)
    return value


def lower_float(ball: arb) -> float:
    """Return the largest float64 that is not above anything in a ball."""
    return -upper_float(-ball)


# Entry by entry -------------------------------------------------------------------------------


def _known(ball: arb) -> arb:
    # an indeterminate bound is one of which nothing is known
    return INFINITY if ball.is_nan() else ball


def _times(a: arb, b: arb) -> arb:
    if a.is_zero() or b.is_zero():
        return ZERO
    return _known(a * b)


def _root(ball: arb) -> arb:
    return ball.nonnegative_part().sqrt()


def each(function: Callable[..., Any], *arrays: Any, outputs: int = 1) -> Any:
    """Return a function of balls applied entry by entry: an array, or as many as it returns."""
    return np.frompyfunc(function, len(arrays), outputs)(*arrays)


times: Any = np.frompyfunc(_times, 2, 1)
"""Product of two bounds, where ``0 * inf = 0`` (lemma 0.4) and an unknown bound is infinite."""

minimum: Any = np.frompyfunc(arb.min, 2, 1)
maximum: Any = np.frompyfunc(arb.max, 2, 1)
size: Any = np.frompyfunc(abs, 1, 1)
root: Any = np.frompyfunc(_root, 1, 1)
"""Square root of a number that is not negative, whatever its ball says."""


# Over an array --------------------------------------------------------------------------------


def total(balls: Iterable[arb]) -> arb:
    """Return the sum."""
    result = ZERO
    for ball in balls:
        result = result + ball
    return result


def largest(balls: Iterable[arb]) -> arb:
    """Return the maximum; 0 of nothing, as bounds are not negative."""
    found = None
    for ball in balls:
        found = ball if found is None else found.max(ball)
    return ZERO if found is None else found


def smallest(balls: Iterable[arb]) -> arb:
    """Return the minimum; infinity of nothing."""
    found = None
    for ball in balls:
        found = ball if found is None else found.min(ball)
    return INFINITY if found is None else found


def norm(balls: Iterable[arb]) -> arb:
    """Return the 2-norm of bounds.

    Examples
    --------
    >>> norm(exact([3, 4]))
    5.00000000000000
    """
    return _known(_root(total(ball * ball for ball in balls)))


# Matrices -------------------------------------------------------------------------------------


def matrix(balls: Array) -> arb_mat:
    """Return a two-dimensional array as a matrix of Arb."""
    rows, columns = balls.shape
    return arb_mat(rows, columns, balls.reshape(-1).tolist())


def product(left: arb_mat, vector: Array) -> Array:
    """Return matrix times vector; an infinite entry counts where its factor is not 0."""
    unknown = [place for place, ball in enumerate(vector) if not ball.is_finite()]
    known = vector
    if unknown:
        known = vector.copy()
        known[unknown] = ZERO
    column = left * arb_mat(len(known), 1, known.tolist())
    out = np.empty(left.nrows(), dtype=object)
    out[:] = column.entries()
    if unknown:
        for row in range(len(out)):
            if any(not left[row, place].is_zero() for place in unknown):
                out[row] = INFINITY
    return out


def spectral_norm(balls: Array) -> arb:
    """Return a ball whose upper end bounds the largest singular value.

    With V approximate eigenvectors of the Gram matrix G (of the shorter side), ``B = V^T G V`` and
    ``N = V^T V``: ``sigma^2 <= max_i (B_ii + sum_j |B_ij|) / (1 - max_i sum_j |N - I|_ij)``
    (``theory/ball-arithmetic.md``, proposition 2).

    Parameters
    ----------
    balls : (m, n) array

    Raises
    ------
    AccuracyError
        If the approximate eigenvectors are useless.

    Examples
    --------
    >>> spectral_norm(exact([[3.0, 0.0], [0.0, 4.0]]))
    4.00000000000000
    """
    peak = largest(size(balls).reshape(-1))
    if peak.is_zero() or not peak.is_finite():
        return peak
    scaled = matrix(balls / peak.upper())
    across = scaled.transpose()
    gram = scaled * across if balls.shape[0] < balls.shape[1] else across * scaled
    n = gram.nrows()
    approximate = np.array([middle(ball) for ball in gram.entries()]).reshape(n, n)
    vectors = matrix(exact(np.linalg.eigh(approximate)[1]))
    turned = vectors.transpose() * gram * vectors
    overlap = vectors.transpose() * vectors
    tops, off = [], []
    for row in range(n):
        sides = total(abs(turned[row, column]) for column in range(n) if column != row)
        tops.append(turned[row, row] + sides)
        off.append(
            total(abs(overlap[row, column] - (1 if column == row else 0)) for column in range(n))
        )
    least = ONE - largest(off)
    if not least > 0:
        raise AccuracyError(
            message("spectral_norm", "the approximate eigenvectors are not nearly orthonormal")
        )
    return peak.upper() * _root(largest(tops) / least)
