"""Backward elimination of many modes that share their inputs and outputs, in cubic time.

The same problem and the same answer as :func:`ssmred.kernels.elimination.fill_removals`, for layers
with hundreds of modes and outputs: the inverse is carried along instead of found again.

Theory: ``theory/shared-elimination.md``.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

from ssmred.kernels.elimination import (
    NEARLY_PARALLEL,
    _delete_pair,
    _fill_inverse,
    _removal_cost,
    _rotate_three,
)

__all__ = ["fill_shared_removals"]

FAST = {"contract", "reassoc", "nsz"}
EPS = 2.0**-52
DRIFT = 1e-6  # relative error of a carried row of the inverse from which on it is found again
DOUBT = 1e-6  # relative error of a cost from which on its rows are found again before it decides
ROUNDING = 1e-14  # of the targets: costs are not told apart below it


@njit(cache=True, error_model="numpy", fastmath=FAST)
def _add_products(first, second, third, column):
    """Add the products of the pairs of entries of one column: own, mixed, other."""
    for e in range(first.shape[0]):
        p = column[2 * e]
        q = column[2 * e + 1]
        first[e] += p * p
        second[e] += p * q
        third[e] += q * q


@njit(cache=True, error_model="numpy", fastmath=FAST)
def _subtract_scaled(out, a, x, b, y):
    """Subtract ``a x + b y`` from out."""
    for o in range(out.shape[0]):
        out[o] -= a * x[o] + b * y[o]


@njit(cache=True, error_model="numpy", fastmath=FAST)
def _subtract_row(out, a, x):
    """Subtract ``a x`` from out."""
    for k in range(out.shape[0]):
        out[k] -= a * x[k]


@njit(cache=True, error_model="numpy")
def _renew_row(R, Z, size, row, X, theta, work):
    """Find row `row` of the inverse of R, kept as ``X[:, row]``, and its coefficients again."""
    for k in range(row, size):
        work[k] = 0.0
    work[row] = 1.0
    for k in range(row, size):
        work[k] /= R[k, k]
        _subtract_row(work[k + 1 : size], work[k], R[k, k + 1 : size])
        X[k, row] = work[k]
    for o in range(Z.shape[0]):
        total = 0.0
        for k in range(row, size):
            total += work[k] * Z[o, k]
        theta[row, o] = total


@njit(cache=True, error_model="numpy")
def _cheap_cost(first, second, pp, pq, qq):
    """Return the cost of a pair of rows from their coefficients, which is what they see of Z."""
    slope = pq / qq
    rest = pp - slope * pq
    one = 0.0
    two = 0.0
    for o in range(first.shape[0]):
        part = first[o] - slope * second[o]
        one += second[o] * second[o]
        two += part * part
    return one / qq + two / rest


@njit(cache=True, error_model="numpy")
def _fill_cost(e, fixed, size, R, Z, X, theta, drift, products, costs, doubts, length, work):
    """Fill the cost of removing pair ``e`` and, where it is in doubt, a bound of its error.

    Costs and their errors are norms, ``length`` the norm of Z. Rows that do not serve are found
    again, in any case if ``doubts[e]`` comes in negative.
    """
    column = fixed + 2 * e
    pp, pq, qq = products[0, e], products[1, e], products[2, e]
    rest = pp - pq * pq / qq
    own = math.sqrt(max(rest, EPS * pp))
    moved = drift[column] + drift[column + 1] * math.sqrt(pp / qq)
    if moved > DRIFT * own or drift[column + 1] > DRIFT * math.sqrt(qq) or doubts[e] < 0.0:
        pp = pq = qq = moved = 0.0
        for row in (column, column + 1):
            _renew_row(R, Z, size, row, X, theta, work[0])
            drift[row] = 0.0
        for k in range(column, size):
            pp += X[k, column] * X[k, column]
            pq += X[k, column] * X[k, column + 1]
            qq += X[k, column + 1] * X[k, column + 1]
        products[0, e], products[1, e], products[2, e] = pp, pq, qq
        rest = pp - pq * pq / qq
        own = math.sqrt(max(rest, EPS * pp))
    if rest < NEARLY_PARALLEL * pp:
        inside = size - column
        for k in range(inside):
            work[0, k] = X[column + k, column]
            work[1, k] = X[column + k, column + 1]
        cost = _removal_cost(work[0, :inside], work[1, :inside], Z, column)
    else:
        cost = _cheap_cost(theta[column], theta[column + 1], pp, pq, qq)
    costs[e] = math.sqrt(cost)
    doubt = length * (moved / own + drift[column + 1] / math.sqrt(qq))
    doubts[e] = doubt if doubt > max(DOUBT * costs[e], ROUNDING * length) else 0.0


@njit(cache=True, error_model="numpy")
def _first(costs, doubts):
    """Return the pair that may be the cheapest one, whatever the others turn out to cost."""
    best = 0
    least = math.inf
    for e in range(costs.shape[0]):
        if costs[e] - doubts[e] < least:
            least = costs[e] - doubts[e]
            best = e
    return best


@njit(cache=True, error_model="numpy")
def _fill_shared_removal(factor, target, fixed, order, errors):
    """Fill one channel of :func:`fill_shared_removals`."""
    size = factor.shape[0]
    outputs = target.shape[1]
    modes = (size - fixed) // 2
    R = factor.copy()
    Z = np.ascontiguousarray(target.T)
    for j in range(size):
        if R[j, j] == 0.0:  # a zero column: its coefficient does not matter
            R[j, j] = 1.0
    X = np.zeros((size, size))
    _fill_inverse(R, size, fixed, X)
    X = np.ascontiguousarray(X.T)  # X[k] is column k of the inverse: rotations run along memory
    X[:, :fixed] = 0.0
    theta = np.ascontiguousarray(X.T) @ np.ascontiguousarray(Z.T)
    drift = np.zeros(size)
    work = np.empty((2, size))
    turns = np.empty((size, 3))
    products = np.empty((3, modes))
    costs, doubts = np.empty(modes), np.empty(modes)
    left = np.arange(modes)
    squared = errors[0] * errors[0]
    for step in range(modes):
        count = modes - step
        products[:] = 0.0
        pp, pq, qq = products[0, :count], products[1, :count], products[2, :count]
        for k in range(fixed, size):
            until = min(count, (k - fixed) // 2 + 1)
            _add_products(pp[:until], pq[:until], qq[:until], X[k, fixed : fixed + 2 * until])
        length = math.sqrt(np.sum(Z[:, :size] ** 2))
        doubts[:count] = 0.0
        for e in range(count):
            _fill_cost(
                e, fixed, size, R, Z, X, theta, drift, products, costs, doubts, length, work
            )  # fmt: skip
        best = _first(costs[:count], doubts[:count])
        while doubts[best] > 0.0:
            doubts[best] = -1.0  # asks for new rows
            _fill_cost(
                best, fixed, size, R, Z, X, theta, drift, products, costs, doubts, length, work
            )  # fmt: skip
            best = _first(costs[:count], doubts[:count])
        column = fixed + 2 * best
        for e in range(count):  # rotations round relative to the rows as they are now
            drift[fixed + 2 * e] += 4.0 * EPS * math.sqrt(pp[e])
            drift[fixed + 2 * e + 1] += 4.0 * EPS * math.sqrt(qq[e])
        _delete_pair(R, Z, size, column, turns)
        for k in range(size):
            for r in range(column, size - 2):
                X[k, r] = X[k, r + 2]
        for r in range(column, size - 2):
            theta[r] = theta[r + 2]
            drift[r] = drift[r + 2]
        for j in range(column, size - 2):
            if turns[j, 2] != 0.0:
                rows = slice(fixed, j + 1)
                _rotate_three(
                    X[j, rows], X[j + 1, rows], X[j + 2, rows],
                    turns[j, 0], turns[j, 1], turns[j, 2],
                )  # fmt: skip
        for o in range(outputs):
            squared += Z[o, size - 2] * Z[o, size - 2] + Z[o, size - 1] * Z[o, size - 1]
        last = np.ascontiguousarray(Z[:, size - 2 : size].T)
        for r in range(fixed, size - 2):
            _subtract_scaled(theta[r], X[size - 2, r], last[0], X[size - 1, r], last[1])
        order[step] = left[best]
        for e in range(best, count - 1):
            left[e] = left[e + 1]
        errors[step + 1] = math.sqrt(squared)
        size -= 2


@njit(cache=True, error_model="numpy", parallel=True)
def fill_shared_removals(factors, targets, fixed, orders, errors):
    """Fill, for every channel, the order in which modes go and the error after each removal.

    Arguments as for ``fill_removals``. Cost ``O(K**3 + K**2 q)`` per channel, as long as few rows
    of the inverse have to be found again.
    """
    for h in prange(factors.shape[0]):
        _fill_shared_removal(factors[h], targets[h], fixed, orders[h], errors[h])
