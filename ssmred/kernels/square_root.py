"""Square roots of Gramians of sampled responses, by structured QR.

Matrices are kept by *columns* inside the kernels: ``R[j]`` is column j, so that dot products and
updates of Householder reflectors run along contiguous memory. All routines reduce to one,
``_absorb``: the QR factor of ``[R; S]`` with R triangular, two columns (one mode) at a time.

Theory: ``theory/square-root-doubling.md``.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

from ssmred.kernels.powers import zdd_multiply

__all__ = ["fill_merged_roots", "fill_regularised_roots", "fill_response_roots"]

FAST = {"contract", "reassoc", "nsz"}
SEED_ROWS = 32  # rows of powers formed directly, before the first doubling (at most twice this)
NEGLIGIBLE = 2.0**-60  # a tail this small relative to its column is below its rounding error
INFINITE = -1  # value of `samples` that asks for the infinite horizon


@njit(cache=True, error_model="numpy", fastmath=FAST)
def _make_reflector(R, S, j, m):
    """Turn ``S[j, :m]`` into the tail of the reflector that annihilates it; return its factor.

    ``H = I - tau [1; v] [1; v]^T`` maps ``[R[j, j]; S[j, :m]]`` to ``[beta; 0]``.
    """
    v = S[j]
    energy = 0.0
    for i in range(m):
        energy += v[i] * v[i]
    if energy == 0.0:
        for i in range(m):
            v[i] = 0.0
        return 0.0
    alpha = R[j, j]
    beta = -math.copysign(math.sqrt(alpha * alpha + energy), alpha)
    scale = 1.0 / (alpha - beta)
    for i in range(m):
        v[i] *= scale
    R[j, j] = beta
    return (beta - alpha) / beta


@njit(cache=True, error_model="numpy", fastmath=FAST)
def _apply_one(v, tau, top, column, m):
    """Apply one reflector to ``[top; column[:m]]``; return the new top entry."""
    dot = 0.0
    for i in range(m):
        dot += v[i] * column[i]
    t = tau * (top + dot)
    for i in range(m):
        column[i] -= t * v[i]
    return top - t


@njit(cache=True, error_model="numpy", fastmath=FAST)
def _apply_two(v, w, tau, sigma, cross, R, S, j, k, m):
    """Apply the reflectors of columns j and j + 1 to columns k and k + 1 of ``[R; S]``."""
    a = S[k]
    b = S[k + 1]
    va = 0.0
    wa = 0.0
    vb = 0.0
    wb = 0.0
    for i in range(m):
        va += v[i] * a[i]
        wa += w[i] * a[i]
        vb += v[i] * b[i]
        wb += w[i] * b[i]
    ta = tau * (R[k, j] + va)
    sa = sigma * (R[k, j + 1] + wa - cross * ta)
    tb = tau * (R[k + 1, j] + vb)
    sb = sigma * (R[k + 1, j + 1] + wb - cross * tb)
    R[k, j] -= ta
    R[k, j + 1] -= sa
    R[k + 1, j] -= tb
    R[k + 1, j + 1] -= sb
    for i in range(m):
        a[i] -= ta * v[i] + sa * w[i]
        b[i] -= tb * v[i] + sb * w[i]


@njit(cache=True, error_model="numpy", fastmath=FAST)
def _absorb(R, S, rows, triangular, fixed):
    """Overwrite R by the triangular factor of ``[R; S[:rows]]``; S is used up.

    R and S are (K, K) and (K, >= rows), stored by columns. The first `fixed` columns are single,
    the others come in pairs. With `triangular`, column pair i of S has non-zeros only in its
    first ``2 i + 2`` rows (and none in the fixed columns).
    """
    order = R.shape[0]
    for j in range(fixed):
        tau = _make_reflector(R, S, j, rows)
        if tau != 0.0:
            for k in range(j + 1, order):
                R[k, j] = _apply_one(S[j], tau, R[k, j], S[k], rows)
    for j in range(fixed, order - 1, 2):
        m = min(rows, j - fixed + 2) if triangular else rows
        tau = _make_reflector(R, S, j, m)
        R[j + 1, j] = _apply_one(S[j], tau, R[j + 1, j], S[j + 1], m)
        sigma = _make_reflector(R, S, j + 1, m)
        cross = 0.0
        for i in range(m):
            cross += S[j, i] * S[j + 1, i]
        for k in range(j + 2, order - 1, 2):
            _apply_two(S[j], S[j + 1], tau, sigma, cross, R, S, j, k, m)


@njit(cache=True, error_model="numpy", fastmath=FAST)
def _absorb_row(R, row):
    """Overwrite R (by columns) by the triangular factor of ``[R; row]``, by Givens rotations."""
    order = R.shape[0]
    for j in range(order):
        length = math.sqrt(R[j, j] * R[j, j] + row[j] * row[j])
        if length == 0.0:  # nothing to do, or the squares underflow
            continue
        c = R[j, j] / length
        s = row[j] / length
        R[j, j] = length
        for k in range(j + 1, order):
            top = R[k, j]
            R[k, j] = c * top + s * row[k]
            row[k] = c * row[k] - s * top


@njit(cache=True, error_model="numpy", fastmath=FAST)
def _turn(R, re, im, S, pair, m):
    """Fill a column pair of S with that of R times the real 2 x 2 form of ``re + 1j im``."""
    a = R[pair]
    b = R[pair + 1]
    p = S[pair]
    q = S[pair + 1]
    for i in range(m):
        p[i] = re * a[i] - im * b[i]
        q[i] = im * a[i] + re * b[i]


@njit(cache=True, error_model="numpy")
def _fill_response_root(poles, alive, samples, start, R):
    """Fill R (by columns) for one channel; see :func:`fill_response_roots`."""
    modes = poles.shape[0]
    R[:] = 0.0
    length = 1
    doublings = 0
    if samples == INFINITE:
        length = SEED_ROWS
        slowest = 0.0
        for i in range(modes):
            if alive[i]:
                slowest = max(slowest, abs(poles[i]))
        if slowest > 0.0:
            needed = math.log(NEGLIGIBLE) / min(math.log(slowest), -(2.0**-54))
            while length * 2.0**doublings < needed:
                doublings += 1
    else:
        length = samples
        while length >= 2 * SEED_ROWS:
            length >>= 1
            doublings += 1
    S = np.zeros((2 * modes, max(length, 2 * modes)))
    state = np.zeros((modes, 4))
    row = np.empty(2 * modes)
    for i in range(modes):
        pole = (poles[i].real, 0.0, poles[i].imag, 0.0)
        power = (1.0, 0.0, 0.0, 0.0)
        if alive[i]:
            for k in range(length):
                following = zdd_multiply(power, pole)
                value = following if start == 1 else power
                S[2 * i, k] = value[0]
                S[2 * i + 1, k] = value[2]
                power = following
        else:
            power = (0.0, 0.0, 0.0, 0.0)
        state[i, 0], state[i, 1], state[i, 2], state[i, 3] = power
    _absorb(R, S, length, False, 0)
    for step in range(doublings - 1, -1, -1):
        for i in range(modes):
            power = (state[i, 0], state[i, 1], state[i, 2], state[i, 3])
            _turn(R, power[0], power[2], S, 2 * i, 2 * i + 2)
            power = zdd_multiply(power, power)
            if abs(power[0]) + abs(power[2]) < 1e-280:  # keep subnormals out of the arithmetic
                power = (0.0, 0.0, 0.0, 0.0)
            state[i, 0], state[i, 1], state[i, 2], state[i, 3] = power
        _absorb(R, S, 2 * modes, True, 0)
        if samples != INFINITE and (samples >> step) & 1:
            for i in range(modes):
                pole = (poles[i].real, 0.0, poles[i].imag, 0.0)
                power = (state[i, 0], state[i, 1], state[i, 2], state[i, 3])
                longer = zdd_multiply(power, pole)
                value = longer if start == 1 else power
                row[2 * i] = value[0]  # dead modes have state zero
                row[2 * i + 1] = value[2]
                state[i, 0], state[i, 1], state[i, 2], state[i, 3] = longer
            _absorb_row(R, row)


@njit(cache=True, error_model="numpy", parallel=True)
def fill_response_roots(poles, alive, samples, start, roots):
    """Fill ``roots[h]`` with R, ``R^T R = Phi^T Phi``, Phi the sampled powers of the poles.

    Column ``2 i`` of Phi is ``Re poles[h, i]**(start + k)``, column ``2 i + 1`` the imaginary
    part, ``k < samples``. R is stored by columns: ``roots[h, j]`` is column j.

    ``poles`` (H, n) complex128, ``alive`` (H, n) bool (other modes get zero columns), ``samples``
    int (-1: infinitely many), ``start`` 0 or 1, ``roots`` (H, 2 n, 2 n) float64.
    """
    for h in prange(poles.shape[0]):
        _fill_response_root(poles[h], alive[h], samples, start, roots[h])


@njit(cache=True, error_model="numpy")
def _fill_merged_root(root, turns, merged):
    """Fill one channel of :func:`fill_merged_roots`."""
    size = root.shape[0]
    S = np.zeros((size, size))
    merged[:] = 0.0
    for v in range(turns.shape[0]):
        for i in range(turns.shape[1]):
            t = turns[v, i]
            for r in range(2 * i + 2):
                a = root[2 * i, r]
                b = root[2 * i + 1, r]
                S[2 * i, r] = a * t[0, 0] + b * t[1, 0]
                S[2 * i + 1, r] = a * t[0, 1] + b * t[1, 1]
        _absorb(merged, S, size, True, 0)


@njit(cache=True, error_model="numpy", parallel=True)
def fill_merged_roots(roots, turns, merged):
    """Fill the triangular factor of the stack of ``roots[h] @ blockdiag(turns[h, v])``, all v.

    ``roots`` and ``merged`` (H, 2 n, 2 n) are stored by columns; ``turns`` (H, V, n, 2, 2) maps
    the column pair (a, b) of mode i to ``(a t00 + b t10, a t01 + b t11)``.
    """
    for h in prange(roots.shape[0]):
        _fill_merged_root(roots[h], turns[h], merged[h])


@njit(cache=True, error_model="numpy")
def _finish_factor(R, fixed, relative, factor):
    """Absorb the rows ``relative * ||x_i|| e_j^T`` of all mode columns j; fill factor by rows.

    ``||x_i||`` is the length of both columns of the mode together: a real pole has no imaginary
    part, and one that is almost real has a tiny one, which must not carry a huge coefficient.
    """
    order = R.shape[0]
    S = np.zeros((order, order - fixed))
    for j in range(fixed, order, 2):
        energy = 0.0
        for column in range(j, j + 2):
            for r in range(column + 1):
                energy += R[column, r] * R[column, r]
        for column in range(j, j + 2):
            S[column, column - fixed] = relative * math.sqrt(energy)
    _absorb(R, S, order - fixed, True, fixed)
    for j in range(order):
        for r in range(order):
            factor[r, j] = R[j, r] if r <= j else 0.0


@njit(cache=True, error_model="numpy")
def _fill_regularised_root(root, top, relative, factor):
    """Fill one channel of :func:`fill_regularised_roots`."""
    fixed = top.shape[0]
    order = factor.shape[0]
    R = np.zeros((order, order))
    for j in range(fixed):
        R[j, j] = 1.0
    for j in range(order - fixed):
        for f in range(fixed):
            R[fixed + j, f] = top[f, j]
        for r in range(j + 1):
            R[fixed + j, fixed + r] = root[j, r]
    _finish_factor(R, fixed, relative, factor)


@njit(cache=True, error_model="numpy", parallel=True)
def fill_regularised_roots(roots, top, relative, factors):
    """Fill ``factors[h]`` (by rows) with the factor of ``[[I, top], [0, root]]``, regularised.

    Regularised: every column of a mode gets a direction of its own, ``relative`` times as long as
    the mode, which is to stand for the rounding error of the column.

    ``roots`` (H, 2 n, 2 n) by columns, ``top`` (H, f, 2 n), ``factors`` (H, f + 2 n, f + 2 n).
    """
    for h in prange(roots.shape[0]):
        _fill_regularised_root(roots[h], top[h], relative, factors[h])
