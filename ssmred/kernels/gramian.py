"""Gramians of diagonal systems, their orthonormal factors, and Lyapunov factors.

Theory: ``theory/diagonal-gramian.md``, ``theory/real-output-gramian.md``, ``theory/h2-norm.md``.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from ssmred.kernels.powers import one_minus_product, zdd_power

__all__ = [
    "fill_energies_of",
    "fill_gramian",
    "fill_lyapunov_factor",
    "fill_orthogonal_factor",
    "fill_squared_norms",
    "fill_stability_margins",
    "fill_stable_gramian",
    "kernel_gap",
    "stable_gap",
]

SMALL = 2.0**-52  # T |1 - z| below this: the geometric sum is T (1 - (T - 1) (1 - z) / 2)


@njit(cache=True, inline="always")
def _pair(value, conjugate):
    return value.real, 0.0, -value.imag if conjugate else value.imag, 0.0


@njit(cache=True)
def geometric_sum(a, b, a_power, b_power, horizon):
    """Return ``sum_{k < horizon} (a b)^k``; horizon 0 stands for infinity (|a b| < 1).

    All four arguments are complex double-doubles; ``a_power = a**horizon`` likewise.
    """
    gap = one_minus_product(a, b)
    if horizon == 0:
        return 1.0 / gap
    if horizon * abs(gap) < SMALL:
        return horizon * (1.0 - 0.5 * (horizon - 1) * gap)
    return one_minus_product(a_power, b_power) / gap


@njit(cache=True, parallel=True)
def fill_gramian(left, right, weights, conjugate, continuous, horizon, out):
    """Fill ``out_ij = w_ij sum_{k < horizon} (l_i r_j)^k`` (or ``-w_ij / (l_i + r_j)``).

    left (H, n), right (H, N), weights and out (H, n, N), complex128; ``r_j`` is conjugated first
    where ``conjugate``. horizon 0 stands for infinity and is the only one in continuous time.
    """
    channels, n = left.shape
    columns = right.shape[1]
    for h in prange(channels):
        left_powers = np.empty((n, 4))
        right_powers = np.empty((columns, 4))
        if horizon > 0:
            for i in range(n):
                a = zdd_power(left[h, i], horizon)
                left_powers[i, 0], left_powers[i, 1], left_powers[i, 2], left_powers[i, 3] = a
            for j in range(columns):
                r = right[h, j].conjugate() if conjugate else right[h, j]
                b = zdd_power(r, horizon)
                right_powers[j, 0], right_powers[j, 1] = b[0], b[1]
                right_powers[j, 2], right_powers[j, 3] = b[2], b[3]
        for i in range(n):
            for j in range(columns):
                r = right[h, j].conjugate() if conjugate else right[h, j]
                if continuous:
                    out[h, i, j] = -weights[h, i, j] / (left[h, i] + r)
                    continue
                a, b = left_powers[i], right_powers[j]
                out[h, i, j] = weights[h, i, j] * geometric_sum(
                    _pair(left[h, i], False),
                    _pair(r, False),
                    (a[0], a[1], a[2], a[3]),
                    (b[0], b[1], b[2], b[3]),
                    horizon,
                )


@njit(cache=True, parallel=True)
def fill_stability_margins(poles, continuous, out):
    """Fill ``1 - |l|^2`` (or ``-Re s``), whose sign is exact; poles (N,), out (N,) float64."""
    for i in prange(poles.shape[0]):
        if continuous:
            out[i] = -poles[i].real
        else:
            out[i] = one_minus_product(_pair(poles[i], False), _pair(poles[i], True)).real


@njit(cache=True)
def kernel_gap(a, b, continuous):
    """Return ``1 - a conj(b)``, or ``-(a + conj(b))`` in continuous time."""
    if continuous:
        return complex(-(a.real + b.real), b.imag - a.imag)
    return one_minus_product(_pair(a, False), _pair(b, True))


@njit(cache=True, inline="always")
def stable_gap(a, b, margin, continuous):
    """Return the same for stable poles; ``margin`` is the gap of b with itself, to one rounding.

    ``margin + (b - a) conj(b)``: neither term exceeds ``2 |1 - a conj(b)|`` inside the circle, so
    a few units in the last place are lost, wherever the poles are.
    """
    x, y = b.real - a.real, b.imag - a.imag
    if continuous:
        return complex(-(a.real + b.real), y)
    return complex(margin + (x * b.real + y * b.imag), y * b.real - x * b.imag)


@njit(cache=True, parallel=True)
def fill_stable_gramian(poles, B, continuous, out, finite):
    """Fill ``out_ij = B_i B_j^* / (1 - l_i conj(l_j))`` (or ``-B_i B_j^* / (l_i + conj(l_j))``).

    poles (H, n) stable, B (H, n, m), out (H, n, n), complex128; finite (H,) bool.
    """
    channels, n = poles.shape
    inputs = B.shape[2]
    for h in prange(channels):
        total = 0.0
        for j in range(n):
            pole = poles[h, j]
            margin = kernel_gap(pole, pole, continuous).real
            for i in range(j, n):
                gap = stable_gap(poles[h, i], pole, margin, continuous)
                real, imag = 0.0, 0.0
                for a in range(inputs):
                    v, w = B[h, i, a], B[h, j, a]
                    real += v.real * w.real + v.imag * w.imag
                    imag += v.imag * w.real - v.real * w.imag
                if continuous:  # the squares of a gap may leave the range of float64
                    entry = complex(real, imag) / gap
                    x, y = entry.real, entry.imag
                else:
                    size = 1.0 / (gap.real * gap.real + gap.imag * gap.imag)
                    x = (real * gap.real + imag * gap.imag) * size
                    y = (imag * gap.real - real * gap.imag) * size
                out[h, i, j] = complex(x, y)
                out[h, j, i] = complex(x, -y)
                total += abs(x) + abs(y)
            out[h, j, j] = out[h, j, j].real
        finite[h] = np.isfinite(total)


@njit(cache=True, parallel=True)
def fill_orthogonal_factor(poles, continuous, out):
    """Fill the lower triangular L with ``(L L^*)_ij = 1 / (1 - l_i conj(l_j))``.

    Column k holds the values of the k-th Takenaka-Malmquist function, a product of Blaschke
    factors, at the poles: every entry is a product of accurate numbers, hence accurate itself,
    however ill-conditioned L L^* is. poles (H, n), out (H, n, n) complex128.
    """
    channels, n = poles.shape
    for h in prange(channels):
        blaschke = np.ones(n, np.complex128)
        for k in range(n):
            margin = kernel_gap(poles[h, k], poles[h, k], continuous).real
            root = np.sqrt(margin)
            for i in range(k):
                out[h, i, k] = 0.0
            for i in range(k, n):
                gap = stable_gap(poles[h, i], poles[h, k], margin, continuous)
                out[h, i, k] = blaschke[i] * root / gap
                blaschke[i] *= (poles[h, i] - poles[h, k]) / gap


@njit(cache=True)
def fill_energies_of(poles, weights, continuous, out):
    """Fill ``out_a = sum_k |sum_i w_ia l_i^k|^2`` of one system by the orthonormal factor.

    poles (n,) complex128, weights (n, K) complex128, out (K,) float64.
    """
    n, outputs = weights.shape
    blaschke = np.ones(n, np.complex128)
    column = np.empty(outputs, np.complex128)
    out[:] = 0.0
    for k in range(n):
        margin = kernel_gap(poles[k], poles[k], continuous).real
        root = np.sqrt(margin)
        column[:] = 0.0
        for i in range(k, n):
            gap = stable_gap(poles[i], poles[k], margin, continuous)
            entry = blaschke[i] * root / gap
            blaschke[i] *= (poles[i] - poles[k]) / gap
            for a in range(outputs):
                column[a] += weights[i, a] * entry
        for a in range(outputs):
            out[a] += column[a].real ** 2 + column[a].imag ** 2


@njit(cache=True, parallel=True)
def fill_squared_norms(poles, residues, counts, real, continuous, out):
    """Fill ``out[h, a] = sum_k |sum_i r_ia l_i^k|^2`` from the factor above, never forming it.

    poles (H, n) complex128, residues (H, n, K) complex128, counts (H,) modes in use, out (H, K)
    float64. ``real``: the summand is the real part; a mode off the real axis then stands for
    itself and its conjugate, each with half the residue.
    """
    channels, n, outputs = residues.shape
    for h in prange(channels):
        full = 0
        expanded = np.empty(2 * n, np.complex128)
        weights = np.empty((2 * n, outputs), np.complex128)
        for i in range(counts[h]):
            pole = poles[h, i]
            split = real and pole.imag != 0.0
            expanded[full] = pole
            for a in range(outputs):
                weights[full, a] = 0.5 * residues[h, i, a] if split else residues[h, i, a]
            full += 1
            if split:
                expanded[full] = pole.conjugate()
                for a in range(outputs):
                    weights[full, a] = 0.5 * residues[h, i, a].conjugate()
                full += 1
        fill_energies_of(expanded[:full], weights[:full], continuous, out[h])


@njit(cache=True, parallel=True)
def fill_lyapunov_factor(A, R, continuous, out):
    """Fill upper triangular U with ``X = U^* U`` solving a Lyapunov equation (Hammarling 1982).

    ``X - A^* X A = R^* R`` (or ``A^* X + X A = -R^* R``) with upper triangular A and R, all
    (H, n, n) complex128; R is destroyed. One row of U per step, then one update of the QR
    factorisation R by the row ``y`` (Givens).
    """
    channels, n = A.shape[0], A.shape[1]
    for h in prange(channels):
        T, W, U = A[h], R[h], out[h]
        y, carried = np.empty(n, np.complex128), np.empty(n, np.complex128)
        U[:, :] = 0.0
        for k in range(n):
            alpha = T[k, k]
            beta = np.sqrt(
                -2.0 * alpha.real if continuous else kernel_gap(alpha, alpha, False).real
            )
            size = abs(W[k, k])  # make the pivot of R real and non-negative
            turn = W[k, k].conjugate() / size if size > 0.0 else complex(1.0, 0.0)
            for j in range(k, n):
                W[k, j] *= turn
            top = size / beta
            U[k, k] = top
            # Forward substitution for the rest of the row: u_j uses u_l, l < j.
            for j in range(k + 1, n):
                carried[j] = top * T[k, j]
            for j in range(k + 1, n):
                if continuous:
                    gap = -(alpha.conjugate() + T[j, j])
                    U[k, j] = (beta * W[k, j] + carried[j]) / gap
                    y[j] = W[k, j] - beta * U[k, j]
                else:
                    gap = kernel_gap(T[j, j], alpha, False)
                    U[k, j] = (beta * W[k, j] + alpha.conjugate() * carried[j]) / gap
                    # alpha r - beta (carried + u_j t_jj) with u_j put in: for diagonal A this
                    # is r (alpha - t_jj) / gap, a product, so nothing cancels.
                    y[j] = (W[k, j] * (alpha - T[j, j]) - beta * carried[j]) / gap
                value = U[k, j]
                for i in range(j + 1, n):
                    carried[i] += value * T[j, i]
            # R has rows k+1.. plus the new row y; rotate y into them.
            for i in range(k + 1, n):
                norm = np.hypot(abs(W[i, i]), abs(y[i]))
                if norm == 0.0:
                    continue
                c, s = W[i, i] / norm, y[i] / norm
                for j in range(i, n):
                    old = W[i, j]
                    W[i, j] = c.conjugate() * old + s.conjugate() * y[j]
                    y[j] = c * y[j] - s * old
