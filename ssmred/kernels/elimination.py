"""Backward elimination of modes and the optimal read-out, on triangular square roots.

Every channel is one least-squares problem ``min ||Z - R theta||`` with R upper triangular, stored
by rows; its first `fixed` columns always stay, the others come in pairs (one mode).

Theory: ``theory/removal-cost.md``, ``theory/nested-pythagoras.md``, ``theory/optimal-readout.md``.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

__all__ = ["fill_hull_slopes", "fill_read_out_changes", "fill_removals"]

FAST = {"contract", "reassoc", "nsz"}
NEARLY_PARALLEL = 1e-4  # squared sine below which two rows are orthogonalised explicitly


@njit(cache=True, error_model="numpy", fastmath=FAST)
def _subtract_rows(x, y, a, b, c, d, r, s):
    """Subtract ``a r + b s`` from x and ``c r + d s`` from y."""
    for k in range(x.shape[0]):
        x[k] -= a * r[k] + b * s[k]
        y[k] -= c * r[k] + d * s[k]


@njit(cache=True, error_model="numpy", fastmath=FAST)
def _dot(a, b):
    """Return the scalar product of two vectors."""
    total = 0.0
    for k in range(a.shape[0]):
        total += a[k] * b[k]
    return total


@njit(cache=True, error_model="numpy")
def _fill_inverse(R, size, fixed, X):
    """Fill the upper triangle of X with rows `fixed`, ..., ``size - 1`` of the inverse of R.

    Each row is found by itself, by substitution in ``x R = e``: so it is exact for an R with
    slightly perturbed columns (Higham 2002, section 8.1), as harmless as their own rounding. The
    loops run over all rows at once, two rows and two columns at a time; ``size - fixed`` is even.
    """
    for i in range(fixed, size):
        for k in range(i, size):
            X[i, k] = 0.0
        X[i, i] = 1.0
    for i in range(fixed, size, 2):
        X[i + 1, i] = 0.0
    for k in range(fixed, size, 2):
        r = R[k]
        s = R[k + 1]
        first = 1.0 / r[k]
        second = 1.0 / s[k + 1]
        right = r[k + 2 : size]
        below = s[k + 2 : size]
        for i in range(fixed, k + 1, 2):
            x = X[i]
            y = X[i + 1]
            a = x[k] * first
            b = (x[k + 1] - a * r[k + 1]) * second
            c = y[k] * first
            d = (y[k + 1] - c * r[k + 1]) * second
            x[k], x[k + 1], y[k], y[k + 1] = a, b, c, d
            _subtract_rows(x[k + 2 : size], y[k + 2 : size], a, b, c, d, right, below)


@njit(cache=True, error_model="numpy", fastmath=FAST)
def _products(p, q):
    """Return ``p p``, ``p q`` and ``q q``."""
    pp = 0.0
    pq = 0.0
    qq = 0.0
    for k in range(p.shape[0]):
        pp += p[k] * p[k]
        pq += p[k] * q[k]
        qq += q[k] * q[k]
    return pp, pq, qq


@njit(cache=True, error_model="numpy")
def _removal_cost(p, q, Z, column):
    """Return the squared error that removing columns `column` and `column + 1` adds.

    p and q, their rows of the inverse of R from `column` on (p is overwritten), span the residuals
    of the pair against all other columns; the part of Z in that plane is lost. Z is (q, K): one
    row per output.
    """
    pp, pq, qq = _products(p, q)
    rest = pp - pq * pq / qq
    if rest < NEARLY_PARALLEL * pp:  # orthogonalise explicitly, twice (Giraud et al. 2005)
        for _ in range(2):
            t = pq / qq
            for k in range(p.shape[0]):
                p[k] -= t * q[k]
            rest, pq, _ = _products(p, q)
    cost = 0.0
    for o in range(Z.shape[0]):
        z = Z[o, column : column + p.shape[0]]
        first = _dot(q, z)
        second = _dot(p, z) - pq / qq * first
        cost += first * first / qq + second * second / rest
    return cost


@njit(cache=True, error_model="numpy", fastmath=FAST)
def _rotate_three(a, b, c, v, w, tau):
    """Apply the reflector ``I - tau [1, v, w]^T [1, v, w]`` to three rows."""
    for k in range(a.shape[0]):
        t = tau * (a[k] + v * b[k] + w * c[k])
        a[k] -= t
        b[k] -= t * v
        c[k] -= t * w


@njit(cache=True, error_model="numpy")
def _delete_pair(R, Z, size, column, turns):
    """Delete two columns of R, make it triangular again, and turn Z (q, K) along.

    Afterwards ``Z[:, size - 2 : size]`` is what no remaining column can reach, and ``turns[j]``
    holds (v, w, tau) of the reflector that turned rows j, j + 1 and j + 2.
    """
    for r in range(size):
        for k in range(max(column, r - 2), size - 2):  # left of that, zeros move onto zeros
            R[r, k] = R[r, k + 2]
    for j in range(column, size - 2):
        alpha, b, c = R[j, j], R[j + 1, j], R[j + 2, j]
        energy = b * b + c * c
        turns[j, 2] = 0.0
        if energy == 0.0:
            continue
        beta = -math.copysign(math.sqrt(alpha * alpha + energy), alpha)
        tau = (beta - alpha) / beta
        v = b / (alpha - beta)
        w = c / (alpha - beta)
        turns[j, 0], turns[j, 1], turns[j, 2] = v, w, tau
        R[j, j] = beta
        R[j + 1, j] = 0.0
        R[j + 2, j] = 0.0
        right = slice(j + 1, size - 2)
        _rotate_three(R[j, right], R[j + 1, right], R[j + 2, right], v, w, tau)
        for o in range(Z.shape[0]):
            z = Z[o]
            t = tau * (z[j] + v * z[j + 1] + w * z[j + 2])
            z[j] -= t
            z[j + 1] -= t * v
            z[j + 2] -= t * w


@njit(cache=True, error_model="numpy")
def _fill_removal(factor, target, fixed, order, errors):
    """Fill the removal order and the errors of one channel; see :func:`fill_removals`."""
    size = factor.shape[0]
    modes = (size - fixed) // 2
    R = np.empty((size, size))
    Z = np.empty((target.shape[1], size))
    for j in range(size):
        for k in range(size):
            R[j, k] = factor[j, k]
        if R[j, j] == 0.0:  # a zero column: its coefficient does not matter
            R[j, j] = 1.0
        for o in range(target.shape[1]):
            Z[o, j] = target[j, o]
    left = np.arange(modes)
    X = np.empty((size, size))
    turns = np.empty((size, 3))
    squared = errors[0] * errors[0]
    for step in range(modes):
        best = 0
        cheapest = math.inf
        _fill_inverse(R, size, fixed, X)
        for e in range(modes - step):
            column = fixed + 2 * e
            cost = _removal_cost(X[column, column:size], X[column + 1, column:size], Z, column)
            if cost < cheapest:
                cheapest = cost
                best = e
        _delete_pair(R, Z, size, fixed + 2 * best, turns)
        order[step] = left[best]
        for e in range(best, modes - step - 1):
            left[e] = left[e + 1]
        for o in range(Z.shape[0]):
            squared += Z[o, size - 2] ** 2 + Z[o, size - 1] ** 2
        errors[step + 1] = math.sqrt(squared)
        size -= 2


@njit(cache=True, error_model="numpy", parallel=True)
def fill_removals(factors, targets, fixed, orders, errors):
    """Fill, for every channel, the order in which modes go and the error after each removal.

    ``factors`` (H, K, K) upper triangular by rows, ``targets`` (H, K, q), ``orders`` (H, n) int64,
    ``errors`` (H, n + 1) with ``errors[:, 0]`` given. Cost ``K**4 / 24`` per channel.
    """
    for h in prange(factors.shape[0]):
        _fill_removal(factors[h], targets[h], fixed, orders[h], errors[h])


@njit(cache=True, error_model="numpy", fastmath=FAST)
def _reflect(v, tau, column):
    """Apply ``I - tau v v^T`` to a vector."""
    t = tau * _dot(v, column)
    for k in range(v.shape[0]):
        column[k] -= t * v[k]


@njit(cache=True, error_model="numpy")
def _make_vector(v):
    """Turn v into the Householder vector that maps it to ``beta e_1``; return (beta, tau)."""
    tail = v[1:]
    energy = _dot(tail, tail)
    if energy == 0.0:
        beta = v[0]
        v[0] = 1.0
        return beta, 0.0
    beta = -math.copysign(math.sqrt(v[0] * v[0] + energy), v[0])
    pivot = v[0] - beta
    v[0] = 1.0
    for i in range(tail.shape[0]):
        tail[i] /= pivot
    return beta, -pivot / beta


@njit(cache=True, error_model="numpy")
def _fill_read_out_change(factor, coefficients, extra, kept, fixed, change):
    """Fill the change of one channel's coefficients; see :func:`fill_read_out_changes`."""
    size = factor.shape[0]
    outputs = coefficients.shape[1]
    where = np.empty(size, np.int64)  # the columns that stay
    count = 0
    rhs = np.empty((outputs, size))
    for o in range(outputs):
        for r in range(size):
            rhs[o, r] = extra[r, o]
    for j in range(size):
        if j < fixed or kept[(j - fixed) // 2]:
            where[count] = j
            count += 1
            continue
        for o in range(outputs):
            change[j, o] = -coefficients[j, o]
            for r in range(j + 1):
                rhs[o, r] += factor[r, j] * coefficients[j, o]
    A = np.zeros((count, size))  # kept columns, one per row
    for k in range(count):
        j = where[k]
        for r in range(j + 1):
            A[k, r] = factor[r, j]
        if A[k, j] == 0.0:  # a zero column: its coefficient does not change
            A[k, j] = 1.0
    for k in range(count):
        v = A[k, k : where[k] + 1]
        beta, tau = _make_vector(v)
        if tau != 0.0:
            for j in range(k + 1, count):
                _reflect(v, tau, A[j, k : where[k] + 1])
            for o in range(outputs):
                _reflect(v, tau, rhs[o, k : where[k] + 1])
        v[0] = beta
    for o in range(outputs):
        for k in range(count - 1, -1, -1):
            value = rhs[o, k] / A[k, k]
            change[where[k], o] = value
            for r in range(k):
                rhs[o, r] -= value * A[k, r]


@njit(cache=True, error_model="numpy", parallel=True)
def fill_read_out_changes(factors, coefficients, extra, kept, fixed, changes):
    """Fill ``changes``, which added to the coefficients make the best read-out of the kept modes.

    Minimises ``||extra - R change||`` with the change of every removed coefficient pinned to
    minus itself. Solving for the change, not for the new coefficients, keeps rounding errors
    relative to what was removed.

    ``factors`` (H, K, K), ``coefficients``, ``extra`` and ``changes`` (H, K, q), ``kept`` (H, n)
    bool.
    """
    for h in prange(factors.shape[0]):
        _fill_read_out_change(factors[h], coefficients[h], extra[h], kept[h], fixed, changes[h])


@njit(cache=True, error_model="numpy", parallel=True)
def fill_hull_slopes(costs, slopes):
    """Fill ``slopes[h, k]``: the slope over [k, k + 1] of the lower convex hull of ``costs[h]``.

    ``costs`` (H, n + 1) and ``slopes`` (H, n) float64; slopes never decrease along k.
    """
    for h in prange(costs.shape[0]):
        count = costs.shape[1]
        corner = np.empty(count, np.int64)
        top = 0
        corner[0] = 0
        for k in range(1, count):
            while top > 0:
                a, b = corner[top - 1], corner[top]
                before = (costs[h, b] - costs[h, a]) / (b - a)
                after = (costs[h, k] - costs[h, b]) / (k - b)
                if before <= after:
                    break
                top -= 1
            top += 1
            corner[top] = k
        for c in range(top):
            a, b = corner[c], corner[c + 1]
            for k in range(a, b):
                slopes[h, k] = (costs[h, b] - costs[h, a]) / (b - a)
