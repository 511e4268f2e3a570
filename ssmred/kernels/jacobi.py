"""Singular values of graded matrices to high relative accuracy: pivoted QR and one-sided Jacobi.

Everything is stored transposed, columns as contiguous rows. Real and complex by the same code.

Theory: ``theory/hankel-values.md``.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

__all__ = [
    "fill_compressed",
    "fill_decomposition_of",
    "fill_decompositions",
    "fill_singular_values",
    "fill_values_of",
    "fill_vectors",
    "fill_vectors_of",
]

FAST = {"reassoc", "contract", "nsz"}  # order of summation only; nan and inf keep their meaning
LONGEST = 60  # sweeps; ten are many
RECOMPUTE = 1e-3  # downdated squares below this share of their last full sum are summed again
VECTOR = 8  # numbers in a vector register
LEAST = 1e-280
"""Columns shorter than 1e-140 of the largest entry count as zero, because products underflow."""


@njit(cache=True, fastmath=FAST)
def _inner(x, y, first):
    total = x[0] * 0.0
    for k in range(first, x.shape[0]):
        total += x[k].conjugate() * y[k]
    return total


@njit(cache=True, fastmath=FAST)
def square_of(x, first):
    """Return ``sum_{k >= first} |x_k|^2``."""
    total = 0.0
    for k in range(first, x.shape[0]):
        total += x[k].real * x[k].real + x[k].imag * x[k].imag
    return total


@njit(cache=True, fastmath=FAST)
def _add_multiple(y, factor, x, first):
    for k in range(first, x.shape[0]):
        y[k] += factor * x[k]


@njit(cache=True, fastmath=FAST)
def _rotate(x, y, cosine, sine, conjugate_sine):
    for k in range(x.shape[0]):
        a, b = x[k], y[k]
        x[k] = cosine * a - conjugate_sine * b
        y[k] = sine * a + cosine * b


@njit(cache=True)
def _swap(x, y):
    for k in range(x.shape[0]):
        a = x[k]
        x[k] = y[k]
        y[k] = a


@njit(cache=True)
def triangularise(W, least, place, tau):
    """Turn the columns (rows of W) into R and Householder vectors, ``A Pi = Q R``, pivoted.

    W (n, m): on exit W[j, i] = R[i, j] for i <= j, and W[k, k+1:] the k-th vector (its first
    entry is 1). place (n,) int64: column j of R belongs to column place[j] of A. tau (min(m, n),).
    Stops when no remaining column has a square above ``least``; returns the number of rows of R and
    the Frobenius norm of what remains.
    """
    n, m = W.shape
    squares, full = np.empty(n), np.empty(n)
    for j in range(n):
        place[j] = j
        squares[j] = square_of(W[j], 0)
        full[j] = squares[j]
    for k in range(min(n, m)):
        best = k
        for j in range(k + 1, n):
            if squares[j] > squares[best]:
                best = j
        if not squares[best] > least:
            remainder = 0.0
            for j in range(k, n):
                remainder += square_of(W[j], k)
            return k, math.sqrt(remainder)
        if best != k:
            _swap(W[k], W[best])
            place[k], place[best] = place[best], place[k]
            squares[best], full[best] = squares[k], full[k]
        column = W[k]
        size = math.sqrt(square_of(column, k))
        head = abs(column[k])
        phase = column[k] / head if head > 0.0 else column[k] * 0.0 + 1.0
        scale = 1.0 / (phase * (head + size))
        for i in range(k + 1, m):
            column[i] *= scale
        column[k] = phase * 0.0 + 1.0
        tau[k] = (head + size) / size
        for j in range(k + 1, n):
            other = W[j]
            _add_multiple(other, -tau[k] * _inner(column, other, k), column, k)
            left = squares[j] - (other[k].real ** 2 + other[k].imag ** 2)
            if left <= RECOMPUTE * full[j]:
                left = square_of(other, k + 1)
                full[j] = left
            squares[j] = left
        column[k] = -phase * size
    return min(n, m), 0.0


@njit(cache=True)
def apply_reflections(W, tau, x):
    """Overwrite x (m,) by ``Q x`` for the vectors that :func:`triangularise` left in W."""
    for k in range(tau.shape[0] - 1, -1, -1):
        column = W[k]
        total = x[k]
        for i in range(k + 1, x.shape[0]):
            total += column[i].conjugate() * x[i]
        total *= -tau[k]
        x[k] += total
        for i in range(k + 1, x.shape[0]):
            x[i] += total * column[i]


@njit(cache=True)
def orthogonalise(W):
    """Make the rows of W orthogonal by rotations of pairs, in place; tell if it succeeded.

    Every round turns pairs that have no row in common, as in a tournament, so that their square
    roots and divisions overlap; n - 1 rounds make a sweep. Rows are orthogonal when ``|x^* y| <=
    sqrt(m) eps ||x|| ||y||``.
    """
    n, m = W.shape
    seats = n + n % 2  # with an odd number, one row rests in each round
    half = seats // 2
    seat, squares = np.arange(seats), np.zeros(seats)
    products, sines = np.empty(half, W.dtype), np.empty(half, W.dtype)
    cosines = np.empty(half)
    limit = m * 2.0**-104
    for _ in range(LONGEST):
        for i in range(n):
            squares[i] = square_of(W[i], 0)
        turned = False
        for _round in range(seats - 1):
            for k in range(half):
                i, j = seat[k], seat[seats - 1 - k]
                products[k] = _inner(W[i], W[j], 0) if max(i, j) < n else 0.0
            for k in range(half):
                i, j = seat[k], seat[seats - 1 - k]
                size = abs(products[k])
                cosines[k] = 0.0
                if size == 0.0 or size * size <= limit * squares[i] * squares[j]:
                    continue
                zeta = (squares[j] - squares[i]) / (2.0 * size)
                tangent = 1.0 / (abs(zeta) + math.sqrt(1.0 + zeta * zeta))
                if zeta < 0.0:
                    tangent = -tangent
                cosines[k] = 1.0 / math.sqrt(1.0 + tangent * tangent)
                sines[k] = cosines[k] * tangent * (products[k] / size)
                squares[i] -= tangent * size
                squares[j] += tangent * size
            for k in range(half):
                if cosines[k] != 0.0:
                    turned = True
                    sine = sines[k]
                    _rotate(W[seat[k]], W[seat[seats - 1 - k]], cosines[k], sine, sine.conjugate())
            last = seat[seats - 1]
            for k in range(seats - 1, 1, -1):
                seat[k] = seat[k - 1]
            if seats > 1:
                seat[1] = last
        if not turned:
            return True
    return False


@njit(cache=True)
def _scaled_columns(G, rows):
    """Return the columns of G as rows, rows of G sorted by size, and the scale they lost."""
    m, n = G.shape
    sizes = np.zeros(m)
    for i in range(m):
        for j in range(n):
            sizes[i] = max(sizes[i], abs(G[i, j].real), abs(G[i, j].imag))
    rows[:] = np.argsort(-sizes)
    scale = sizes[rows[0]] if m else 0.0
    scale = 1.0 if scale == 0.0 or not np.isfinite(scale) else scale
    W = np.empty((n, m), G.dtype)
    for i in range(m):
        for j in range(n):
            W[j, i] = G[rows[i], j] / scale
    return W, scale


@njit(cache=True)
def _adjoint_of_triangle(W, r):
    """Return the columns of ``R^*`` as rows, (r, n) and zeros; W from :func:`triangularise`.

    The zeros fill the rows up to whole vectors: loops over them have no slow rest.
    """
    n = W.shape[0]
    X = np.zeros((r, (n + VECTOR - 1) // VECTOR * VECTOR), W.dtype)
    for i in range(r):
        for j in range(i, n):
            X[i, j] = W[j, i].conjugate()
    return X


@njit(cache=True, fastmath=FAST)
def _inner_head(x, y, last):
    total = x[0] * 0.0
    for k in range(last):
        total += x[k].conjugate() * y[k]
    return total


@njit(cache=True)
def fill_values_of(G, values):
    """Fill the singular values of one matrix, nan if they do not converge; see the batched one."""
    m, n = G.shape
    values[: min(m, n)] = 0.0
    if min(m, n) == 0:
        return
    rows, place = np.empty(m, np.int64), np.empty(n, np.int64)
    W, scale = _scaled_columns(G, rows)
    r, _ = triangularise(W, LEAST, place, np.empty(min(m, n)))
    X = _adjoint_of_triangle(W, r)
    done = orthogonalise(X)
    for i in range(r):
        values[i] = scale * math.sqrt(square_of(X[i], 0)) if done else math.nan
    order = np.sort(values[:r])
    for i in range(r):
        values[i] = order[r - 1 - i]


@njit(cache=True)
def fill_decomposition_of(G, least, W, tau, rows, place, X, order, values):
    """Fill everything from which :func:`fill_vectors_of` takes singular vectors of one matrix.

    G (m, n); W (n, m), tau (min(m, n),), rows (m,) int64, place (n,) int64: the pivoted QR; X
    (min(m, n), n): orthogonal rows, order (min(m, n),) int64 from the largest to the smallest;
    values (min(m, n),). The arrays may be larger. Returns the number of rows in use and the norm of
    what was dropped.
    """
    m, n = G.shape
    most = min(m, n)
    values[:] = 0.0
    if most == 0:
        return 0, 0.0
    start, scale = _scaled_columns(G, rows[:m])
    r, remainder = triangularise(start, least, place[:n], tau[:most])
    local = _adjoint_of_triangle(start, r)  # contiguous: the loops over it run in vectors
    done = orthogonalise(local)
    sizes = np.empty(r)
    for i in range(r):
        sizes[i] = math.sqrt(square_of(local[i], 0))
        X[i, :n] = local[i, :n]
    order[:r] = np.argsort(-sizes)
    for j in range(n):
        W[j, :m] = start[j]
    for k in range(r):
        values[k] = scale * sizes[order[k]] if done else math.nan
    return r, scale * remainder


@njit(cache=True)
def fill_vectors_of(W, tau, rows, place, X, order, rank, m, n, U, V):
    """Fill leading singular vectors U (m, k), V (n, k); those beyond the rank are 0.

    ``R^* Z = Y S``: the columns of Y are the rows of X scaled, and ``A = Q Z S Y^*``. Z comes from
    a triangular solve, in which the grading of R cancels.
    """
    U[:, :] = 0.0
    V[:, :] = 0.0
    left = np.empty(max(m, n), W.dtype)
    for k in range(min(U.shape[1], rank)):
        x = X[order[k]]
        size = math.sqrt(square_of(x[:n], 0))
        if size == 0.0:
            continue
        for i in range(n):
            V[place[i], k] = x[i] / size
        left[:] = 0.0
        for i in range(rank):
            left[i] = (x[i] - _inner_head(W[i], left, i)) / W[i, i].conjugate()
        apply_reflections(W, tau[:rank], left[:m])
        for i in range(m):
            U[rows[i], k] = left[i]


@njit(cache=True, parallel=True)
def fill_singular_values(G, values):
    """Fill the singular values of every matrix in descending order.

    G (H, m, n) float64 or complex128, values (H, min(m, n)) float64; nan where the rotations do
    not converge. Rows are sorted, columns pivoted, so that a matrix ``D1 M D2`` with D1 and D2
    graded and M well-conditioned keeps the relative accuracy of its small values.
    """
    for h in prange(G.shape[0]):
        fill_values_of(G[h], values[h])


@njit(cache=True, parallel=True)
def fill_decompositions(G, least, W, tau, rows, place, X, order, values, ranks, dropped):
    """Fill the arrays of :func:`fill_decomposition_of` for every matrix, one more axis in front.

    Columns whose square is below ``least``, relative to the largest entry, are dropped: their
    values are 0, and dropped (H,) float64 is the Frobenius norm of their part of the matrix. nan
    stands in values where the rotations do not converge.
    """
    for h in prange(G.shape[0]):
        ranks[h], dropped[h] = fill_decomposition_of(
            G[h], least, W[h], tau[h], rows[h], place[h], X[h], order[h], values[h]
        )


@njit(cache=True, parallel=True)
def fill_vectors(channels, W, tau, rows, place, X, order, ranks, U, V):
    """Fill U (c, m, k) and V (c, n, k) for the matrices with the numbers channels (c,) int64."""
    for i in prange(channels.shape[0]):
        h = channels[i]
        fill_vectors_of(
            W[h],
            tau[h],
            rows[h],
            place[h],
            X[h],
            order[h],
            ranks[h],
            U.shape[1],
            V.shape[1],
            U[i],
            V[i],
        )


@njit(cache=True, parallel=True)
def fill_compressed(F, out, order):
    """Fill a square L with ``L L^* = F F^*``, by a pivoted QR of ``F^*`` with sorted rows.

    F (H, n, K) with K >= n, out (H, n, n) of the same type, order (H, n) int64: ``L[order]`` is
    lower triangular, its pivots in descending order.
    """
    for h in prange(F.shape[0]):
        n, m = F.shape[1], F.shape[2]
        rows = np.empty(m, np.int64)
        W, scale = _scaled_columns(F[h].T.conj(), rows)
        count, _ = triangularise(W, 0.0, order[h], np.empty(n))
        out[h] = 0.0
        for j in range(n):
            for i in range(min(j + 1, count)):
                out[h, order[h, j], i] = scale * W[j, i].conjugate()
