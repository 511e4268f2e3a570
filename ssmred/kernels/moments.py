"""Square roots of empirical Gramians: the metric of the signals that a layer really sees.

Theory: ``theory/calibrated-metric.md``.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

from ssmred.kernels.square_root import _absorb, _finish_factor

__all__ = [
    "fill_displacement_roots",
    "fill_state_moments",
    "fill_toeplitz_roots",
    "fill_transposed_solutions",
]

FAST = {"contract", "reassoc", "nsz"}
EPS = 2.0**-52
CANCELLING = 0.05  # below this `horizon * |1 - l m|`, division would lose more than two digits
JITTER = 1e-13  # relative to the diagonal; stands for the rounding of the displacement formula


@njit(cache=True, error_model="numpy", fastmath=FAST)
def _add_shifted(row, before):
    """Add the previous row, shifted by one, to a row: one step of the sums along diagonals."""
    for k in range(before.shape[0]):
        row[k + 1] += before[k]


@njit(cache=True, error_model="numpy", fastmath=FAST)
def _two_dots(x, a, b):
    """Return the scalar products of x with two vectors."""
    first = 0.0
    second = 0.0
    for k in range(x.shape[0]):
        first += x[k] * a[k]
        second += x[k] * b[k]
    return first, second


@njit(cache=True, error_model="numpy")
def _fill_cholesky(G, floors):
    """Overwrite the lower triangle of G, semidefinite up to rounding, by its Cholesky factor.

    Pivots below their floor are raised to it; a column whose pivot and floor are zero is zero.
    """
    for i in range(G.shape[0]):
        row = G[i]
        j = 0
        while j < i:
            k = min(j + 1, i - 1)
            a, b = _two_dots(row[:j], G[j, :j], G[k, :j])
            row[j] = (row[j] - a) / G[j, j] if G[j, j] > 0.0 else 0.0
            if k > j:
                rest = row[k] - b - row[j] * G[k, j]
                row[k] = rest / G[k, k] if G[k, k] > 0.0 else 0.0
            j += 2
        energy, _ = _two_dots(row[:i], row[:i], row[:i])
        row[i] = math.sqrt(max(row[i] - energy, floors[i]))


@njit(cache=True, error_model="numpy", fastmath=FAST)
def _add_scaled(out, a, row):
    """Add ``a row`` to out."""
    for k in range(row.shape[0]):
        out[k] += a * row[k]


@njit(cache=True, error_model="numpy")
def _fill_toeplitz_root(moments, powers, delay, relative, factor):
    """Fill the square root of one channel; see :func:`fill_toeplitz_roots`."""
    horizon = moments.shape[0]
    modes = powers.shape[0]
    order = factor.shape[0]
    # Row a of L becomes sum_r sum_s v_{a-r} v_{b-r}, the time-reversed sum_s L(v_s)^T L(v_s).
    L = moments.copy()
    for a in range(1, horizon):
        _add_shifted(L[a], L[a - 1, : horizon - 1])
    for a in range(horizon):
        for b in range(a):
            L[a, b] = L[b, a]
    floors = np.empty(horizon)
    for a in range(horizon):
        floors[a] = 4.0 * horizon * EPS * L[a, a]
    _fill_cholesky(L, floors)
    S = np.zeros((order, horizon))
    S[0] = L[horizon - 1]  # direct term: a unit impulse at time 0, last of the reversed rows
    for i in range(modes):
        for k in range(horizon - delay):
            row = L[horizon - 1 - delay - k]
            stop = horizon - delay - k
            _add_scaled(S[1 + 2 * i, :stop], powers[i, k].real, row[:stop])
            _add_scaled(S[2 + 2 * i, :stop], powers[i, k].imag, row[:stop])
    R = np.zeros((order, order))
    _absorb(R, S, horizon, False, 1)
    _finish_factor(R, 1, relative, factor)


@njit(cache=True, error_model="numpy", parallel=True)
def fill_toeplitz_roots(moments, powers, delay, relative, factors):
    """Fill ``factors[h]`` with R, ``R^T R = sum_s F_s^T F_s``, F_s the responses to input s.

    Columns of F_s: the input itself, then the real and the imaginary part of each mode driven by
    it. ``moments`` (H, T, T) is ``sum_s v_s v_s^T``; of it the upper triangle is used.

    ``powers`` (H, n, T) complex128, ``delay`` 0 (post-update) or 1 (standard), ``relative`` as in
    ``fill_regularised_roots``, ``factors`` (H, 2 n + 1, 2 n + 1) by rows.
    Cost ``T**3 / 3 + 2 T**2 n + 8 T n**2`` per channel.
    """
    for h in prange(moments.shape[0]):
        _fill_toeplitz_root(moments[h], powers[h], delay, relative, factors[h])


@njit(cache=True, error_model="numpy", fastmath=FAST)
def _advance(xr, xi, lr, li, mr, mi, v):
    """Move the states one step, and add the old states times the input to the cross moments."""
    for i in range(xr.shape[0]):
        a = xr[i]
        b = xi[i]
        mr[i] += a * v
        mi[i] += b * v
        xr[i] = lr[i] * a - li[i] * b + v
        xi[i] = lr[i] * b + li[i] * a


@njit(cache=True, error_model="numpy")
def _cancelling_pairs(poles, horizon):
    """Return the pairs of modes (i, j, pseudo) for which the displacement formula cancels."""
    modes = poles.shape[0]
    pairs = np.empty((2 * modes * modes, 3), np.int64)
    count = 0
    for i in range(modes):
        for j in range(modes):
            for pseudo in range(2):
                other = poles[j] if pseudo else poles[j].conjugate()
                if abs(1.0 - poles[i] * other) * horizon < CANCELLING:
                    pairs[count, 0] = i
                    pairs[count, 1] = j
                    pairs[count, 2] = pseudo
                    count += 1
    return pairs[:count]


@njit(cache=True, error_model="numpy")
def _add_state_moments(V, h, poles, energy, cross, last, last_pseudo, near, near_pseudo):
    """Add the moments of channel h; see :func:`fill_state_moments`."""
    modes = poles.shape[0]
    pairs = _cancelling_pairs(poles, V.shape[2])
    lr, li = np.empty(modes), np.empty(modes)
    mr, mi = np.zeros(modes), np.zeros(modes)
    xr, xi = np.empty(modes), np.empty(modes)
    for i in range(modes):
        lr[i] = poles[i].real
        li[i] = poles[i].imag
    for s in range(V.shape[0]):
        for i in range(modes):
            xr[i] = 0.0
            xi[i] = 0.0
        for k in range(V.shape[2]):
            value = V[s, h, k]
            energy[h] += value * value
            _advance(xr, xi, lr, li, mr, mi, value)
            for p in range(pairs.shape[0]):
                i, j = pairs[p, 0], pairs[p, 1]
                a = complex(xr[i], xi[i])
                if pairs[p, 2]:
                    near_pseudo[h, i, j] += a * complex(xr[j], xi[j])
                else:
                    near[h, i, j] += a * complex(xr[j], -xi[j])
        for i in range(modes):
            a = complex(xr[i], xi[i])
            for j in range(modes):
                last[h, i, j] += a * complex(xr[j], -xi[j])
                last_pseudo[h, i, j] += a * complex(xr[j], xi[j])
    for i in range(modes):
        cross[h, i] += complex(mr[i], mi[i])


@njit(cache=True, error_model="numpy", parallel=True)
def fill_state_moments(V, poles, energy, cross, last, last_pseudo, near, near_pseudo):
    """Add what the displacement formula needs, for inputs ``V`` (S, H, T) of H channels.

    With states ``x_k = l x_{k-1} + v_k``: ``energy`` (H,) sums ``v_k**2``, ``cross`` (H, n) sums
    ``x_{k-1} v_k``, ``last`` and ``last_pseudo`` (H, n, n) sum ``z z^*`` and ``z z^T`` of the last
    states, ``near`` and ``near_pseudo`` sum ``x x^*`` and ``x x^T`` over all times, but only for
    the pairs of modes where the formula would cancel. Cost ``12 S H T n``.
    """
    for h in prange(poles.shape[0]):
        _add_state_moments(V, h, poles[h], energy, cross, last, last_pseudo, near, near_pseudo)


@njit(cache=True, inline="always")
def _divided(numerator, product, direct, horizon):
    """Return ``numerator / (1 - product)``, or the direct sum where that would cancel."""
    gap = 1.0 - product
    return numerator / gap if abs(gap) * horizon >= CANCELLING else direct


@njit(cache=True, error_model="numpy")
def _fill_displacement_root(
    poles, alive, horizon, energy, cross, last, last_pseudo, near, near_pseudo, delay, factor
):
    """Fill one channel of :func:`fill_displacement_roots`."""
    size = factor.shape[0]
    G = np.zeros((size, size))
    floors = np.zeros(size)
    G[0, 0] = (1.0 + JITTER) * energy
    floors[0] = JITTER * energy
    for i in range(poles.shape[0]):
        if not alive[i]:
            continue
        m = poles[i] * cross[i]
        c = cross[i] if delay == 1 else m + energy
        G[1 + 2 * i, 0] = c.real
        G[2 + 2 * i, 0] = c.imag
        for j in range(i + 1):
            if not alive[j]:
                continue
            k = poles[j] * cross[j]
            p = poles[i] * poles[j].conjugate()
            W = _divided(m + k.conjugate() + energy - p * last[i, j], p, near[i, j], horizon)
            p = poles[i] * poles[j]
            U = _divided(m + k + energy - p * last_pseudo[i, j], p, near_pseudo[i, j], horizon)
            if i == j:
                floors[1 + 2 * i] = 0.5 * JITTER * max(W.real + U.real, 0.0)
                floors[2 + 2 * i] = 0.5 * JITTER * max(W.real - U.real, 0.0)
            if delay == 1:
                W -= last[i, j]
                U -= last_pseudo[i, j]
            G[1 + 2 * i, 1 + 2 * j] = 0.5 * (W.real + U.real)
            G[1 + 2 * i, 2 + 2 * j] = 0.5 * (U.imag - W.imag)
            G[2 + 2 * i, 1 + 2 * j] = 0.5 * (U.imag + W.imag)
            G[2 + 2 * i, 2 + 2 * j] = 0.5 * (W.real - U.real)
        G[1 + 2 * i, 1 + 2 * i] += floors[1 + 2 * i]
        G[2 + 2 * i, 2 + 2 * i] += floors[2 + 2 * i]
    _fill_cholesky(G, floors)
    for i in range(size):
        for j in range(size):
            factor[j, i] = G[i, j] if j <= i else 0.0


@njit(cache=True, error_model="numpy", parallel=True)
def fill_displacement_roots(
    poles, alive, horizon, energy, cross, last, last_pseudo, near, near_pseudo, delay, factors
):
    """Fill ``factors[h]`` like ``fill_toeplitz_roots``, from the sums of ``fill_state_moments``.

    ``delay`` 1 is the standard recurrence, whose state is the previous one. Diagonal entries
    are raised by ``JITTER`` times the energy of their undelayed signal: this is the
    regularisation, and larger than in the other routines because squares have been formed.
    """
    for h in prange(poles.shape[0]):
        _fill_displacement_root(
            poles[h],
            alive[h],
            horizon,
            energy[h],
            cross[h],
            last[h],
            last_pseudo[h],
            near[h],
            near_pseudo[h],
            delay,
            factors[h],
        )


@njit(cache=True, error_model="numpy", parallel=True)
def fill_transposed_solutions(factors, right, solutions):
    """Fill ``solutions[h] = factors[h]^{-T} right[h]``; factors (H, K, K) upper, right (H, K, q).

    Where a diagonal entry is zero (a zero column) the solution is zero.
    """
    for h in prange(factors.shape[0]):
        for o in range(right.shape[2]):
            for j in range(factors.shape[1]):
                value = right[h, j, o]
                for k in range(j):
                    value -= factors[h, k, j] * solutions[h, k, o]
                pivot = factors[h, j, j]
                solutions[h, j, o] = value / pivot if pivot != 0.0 else 0.0
