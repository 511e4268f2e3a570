"""QR with column pivoting, columns stored as contiguous rows, and what it is made of.

Real and complex by the same code.

Theory: ``theory/hankel-values.md``.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

__all__ = [
    "FAST",
    "VECTOR",
    "add_multiple",
    "inner",
    "reflect_four",
    "square_of",
    "swap",
    "triangularise",
]

FAST = {"reassoc", "contract", "nsz"}  # order of summation only; nan and inf keep their meaning
VECTOR = 8  # numbers in a vector register
RECOMPUTE = 1e-3  # downdated squares below this share of their last full sum are summed again


@njit(cache=True, fastmath=FAST)
def inner(x, y, first):
    """Return ``sum_{k >= first} conj(x_k) y_k``."""
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
def add_multiple(y, factor, x, first):
    """Add a multiple of x to y from an entry on."""
    for k in range(first, x.shape[0]):
        y[k] += factor * x[k]


@njit(cache=True)
def swap(x, y):
    """Exchange two rows."""
    for k in range(x.shape[0]):
        a = x[k]
        x[k] = y[k]
        y[k] = a


@njit(cache=True, fastmath=FAST)
def reflect_four(x, tau, W, j, first):
    """Apply ``I - tau x x^*`` to rows j to j + 3 of W; four at once because rows are short."""
    a, b, c, d = x[0] * 0.0, x[0] * 0.0, x[0] * 0.0, x[0] * 0.0
    for k in range(first, W.shape[1]):
        y = x[k].conjugate()
        a += y * W[j, k]
        b += y * W[j + 1, k]
        c += y * W[j + 2, k]
        d += y * W[j + 3, k]
    a, b, c, d = a * tau, b * tau, c * tau, d * tau
    for k in range(first, W.shape[1]):
        W[j, k] -= a * x[k]
        W[j + 1, k] -= b * x[k]
        W[j + 2, k] -= c * x[k]
        W[j + 3, k] -= d * x[k]


@njit(cache=True)
def triangularise(W, m, least, place, tau):
    """Turn the columns (rows of W) into R and Householder vectors, ``A Pi = Q R``, pivoted.

    W (n, M), M >= m a multiple of VECTOR, zero beyond column m: on exit W[j, i] = R[i, j] for i <=
    j, and W[k, k+1:m] the k-th vector (its first entry is 1). place (n,) int64: column j of R
    belongs to column place[j] of A. tau (min(m, n),). Stops when no remaining column has a square
    above ``least``; returns the number of rows of R and the Frobenius norm of what remains.
    """
    n = W.shape[0]
    squares, full = np.empty(n), np.empty(n)
    reflector = np.zeros(W.shape[1], W.dtype)  # with zeros in front, loops take whole vectors
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
            swap(W[k], W[best])
            place[k], place[best] = place[best], place[k]
            squares[best], full[best] = squares[k], full[k]
        column = W[k]
        size = math.sqrt(square_of(column, k))
        head = abs(column[k])
        phase = column[k] / head if head > 0.0 else column[k] * 0.0 + 1.0
        scale = 1.0 / (phase * (head + size))
        for i in range(k + 1, m):
            column[i] *= scale
            reflector[i] = column[i]
        reflector[k] = phase * 0.0 + 1.0
        if k > 0:
            reflector[k - 1] = 0.0
        tau[k] = (head + size) / size
        first = k // VECTOR * VECTOR
        fours = n - (n - k - 1) % 4
        for j in range(k + 1, fours, 4):
            reflect_four(reflector, tau[k], W, j, first)
        for j in range(fours, n):
            add_multiple(W[j], -tau[k] * inner(reflector, W[j], first), reflector, first)
        for j in range(k + 1, n):
            left = squares[j] - (W[j, k].real ** 2 + W[j, k].imag ** 2)
            if left <= RECOMPUTE * full[j]:
                left = square_of(W[j], k + 1)
                full[j] = left
            squares[j] = left
        column[k] = -phase * size
    return min(n, m), 0.0
