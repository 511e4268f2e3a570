"""Accurate triangular factors of Cauchy-like matrices, poles in the order of complete pivoting.

The entries are products of accurate numbers: nothing cancels, however close the poles are.

Theory: ``theory/cauchy-ldl.md``.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

from ssmred.kernels.powers import SPLITTER

__all__ = [
    "complex_factor_of",
    "conjugate_factor_of",
    "fill_complex_factor",
    "fill_conjugate_factor",
    "fill_pair_distances",
]


@njit(cache=True, inline="always")
def _halves(a):
    """Return ``(h, l)`` with ``a = h + l``, each of at most 26 bits (Veltkamp)."""
    t = SPLITTER * a
    h = t - (t - a)
    return h, a - h


@njit(cache=True, inline="always")
def _product_error(p, ah, al, bh, bl):
    """Return ``a b - p`` exactly, p the rounded product (Dekker)."""
    return ((ah * bh - p) + ah * bl + al * bh) + al * bl


@njit(cache=True, inline="always")
def _sum_error(s, a, b):
    """Return ``a + b - s`` exactly, s the rounded sum (Knuth)."""
    t = s - a
    return (a - (s - t)) + (b - t)


@njit(cache=True)
def fill_gap_rows(x, halves, a, conjugated, plain):
    """Fill ``conjugated[:, i] = 1 - x_i conj(a)`` and ``plain[:, i] = 1 - x_i a``.

    All (2, n) float64, real parts in row 0; halves (4, n) are the halves of x, a (2,). The absolute
    error is about 1e-31 before one rounding. Without branches, so that it runs in vectors.
    """
    ar, ai = a[0], a[1]
    arh, arl = _halves(ar)
    aih, ail = _halves(ai)
    for i in range(x.shape[1]):
        xr, xi = x[0, i], x[1, i]
        xrh, xrl, xih, xil = halves[0, i], halves[1, i], halves[2, i], halves[3, i]
        p, q, u, v = xr * ar, xi * ai, xi * ar, xr * ai
        p_low = _product_error(p, xrh, xrl, arh, arl)
        q_low = _product_error(q, xih, xil, aih, ail)
        u_low = _product_error(u, xih, xil, arh, arl)
        v_low = _product_error(v, xrh, xrl, aih, ail)
        s = 1.0 - p
        s_low = _sum_error(s, 1.0, -p) - p_low
        t = s - q
        conjugated[0, i] = t + (s_low + _sum_error(t, s, -q) - q_low)
        t = s + q
        plain[0, i] = t + (s_low + _sum_error(t, s, q) + q_low)
        t = v - u
        conjugated[1, i] = t + (_sum_error(t, v, -u) + v_low - u_low)
        t = -u - v
        plain[1, i] = t + (_sum_error(t, -u, -v) - u_low - v_low)


@njit(cache=True)
def _fill_gaps(x, halves, a, continuous, conjugated, plain):
    """Fill the gaps of :func:`fill_gap_rows`, in continuous time ``-(x_i + conj(a))`` etc."""
    if not continuous:
        fill_gap_rows(x, halves, a, conjugated, plain)
        return
    for i in range(x.shape[1]):
        conjugated[0, i] = -(x[0, i] + a[0])
        conjugated[1, i] = a[1] - x[1, i]
        plain[0, i] = -(x[0, i] + a[0])
        plain[1, i] = -(x[1, i] + a[1])


@njit(cache=True)
def _fill_start(poles, x, halves, norms, continuous):
    """Fill real and imaginary parts of poles, their halves, and ``1 / (1 - |l_i|^2)``."""
    n = poles.shape[0]
    row, other = np.empty((2, 1)), np.empty((2, 1))
    for i in range(n):
        x[0, i], x[1, i] = poles[i].real, poles[i].imag
        halves[0, i], halves[1, i] = _halves(x[0, i])
        halves[2, i], halves[3, i] = _halves(x[1, i])
    for i in range(n):
        _fill_gaps(x[:, i : i + 1], halves[:, i : i + 1], x[:, i], continuous, row, other)
        norms[i] = 1.0 / row[0, 0]


@njit(cache=True, inline="always")
def _largest(value, norms):
    """Return the index of the largest pivot and its size; index -1 where all are 0."""
    best, size = -1, 0.0
    for i in range(norms.shape[0]):
        pivot = (value[0, i] * value[0, i] + value[1, i] * value[1, i]) * norms[i]
        if pivot > size:
            best, size = i, pivot
    return best, size


@njit(cache=True, inline="always")
def _largest_row(value, norms, squares):
    """Return :func:`_largest` for rows of several entries, value (m, 2, n)."""
    squares[:] = 0.0
    for q in range(value.shape[0]):
        for i in range(value.shape[2]):
            squares[i] += value[q, 0, i] * value[q, 0, i] + value[q, 1, i] * value[q, 1, i]
    best, size = -1, 0.0
    for i in range(norms.shape[0]):
        pivot = squares[i] * norms[i]
        if pivot > size:
            best, size = i, pivot
    return best


@njit(cache=True)
def _turn(value, pivot, w, inner):
    """Reflect rows so that row ``pivot`` has one entry, its largest one, and return which.

    value (m, 2, n); w (m, 2) and inner (2, n) are space to work in.
    """
    m, _, n = value.shape
    lead, largest, total, filled = 0, -1.0, 0.0, 0
    for q in range(m):
        w[q, 0], w[q, 1] = value[q, 0, pivot], -value[q, 1, pivot]
        square = w[q, 0] * w[q, 0] + w[q, 1] * w[q, 1]
        total += square
        if w[q, 0] != 0.0 or w[q, 1] != 0.0:
            filled += 1
        if square > largest:
            lead, largest = q, square
    if filled == 1:
        return lead
    # w = x + e^{i phase} ||x|| e_lead: the sign that cancels nothing
    root, modulus = math.sqrt(total), math.sqrt(largest)
    stretch = 1.0 + root / modulus
    w[lead, 0] *= stretch
    w[lead, 1] *= stretch
    tau = 1.0 / (root * (root + modulus))
    inner[:] = 0.0
    for q in range(m):
        wr, wi = w[q, 0], w[q, 1]
        for i in range(n):
            inner[0, i] += value[q, 0, i] * wr - value[q, 1, i] * wi
            inner[1, i] += value[q, 0, i] * wi + value[q, 1, i] * wr
    for q in range(m):
        wr, wi = tau * w[q, 0], tau * w[q, 1]
        for i in range(n):
            value[q, 0, i] -= inner[0, i] * wr + inner[1, i] * wi
            value[q, 1, i] -= inner[1, i] * wr - inner[0, i] * wi
        if q != lead:
            value[q, 0, pivot], value[q, 1, pivot] = 0.0, 0.0
    return lead


@njit(cache=True)
def complex_factor_of(poles, rows, continuous, out, order):
    """Fill one factor and its order, (n, n) and (n,); see below."""
    n, m = rows.shape
    x, value = np.empty((2, n)), np.empty((m, 2, n))
    halves, norms, squares = np.empty((4, n)), np.empty(n), np.empty(n)
    gap, unused = np.empty((2, n)), np.empty((2, n))
    w = np.empty((m, 2))
    taken = np.zeros(n, np.bool_)
    _fill_start(poles, x, halves, norms, continuous)
    for q in range(m):
        for i in range(n):
            value[q, 0, i], value[q, 1, i] = rows[i, q].real, rows[i, q].imag
    out[:] = 0.0
    for k in range(n):
        best = _largest_row(value, norms, squares)
        if best < 0:
            for i in range(n):
                if not taken[i]:
                    best = i
                    break
            taken[best] = True
            order[k] = best
            continue
        taken[best] = True
        order[k] = best
        lead = _turn(value, best, w, unused)
        root = 1.0 / math.sqrt(norms[best])
        _fill_gaps(x, halves, x[:, best].copy(), continuous, gap, unused)
        ar, ai = x[0, best], x[1, best]
        for i in range(n):
            gr, gi = gap[0, i], gap[1, i]
            size = 1.0 / (gr * gr + gi * gi)
            vr, vi = value[lead, 0, i], value[lead, 1, i]
            # value / gap
            qr = (vr * gr + vi * gi) * size
            qi = (vi * gr - vr * gi) * size
            out[i, k] = complex(qr * root, qi * root)
            dr, di = x[0, i] - ar, x[1, i] - ai
            value[lead, 0, i] = qr * dr - qi * di
            value[lead, 1, i] = qr * di + qi * dr


@njit(cache=True, parallel=True)
def fill_complex_factor(poles, rows, continuous, out, order):
    """Fill F with ``(F F^*)_ij = r_i r_j^* / (1 - l_i conj(l_j))``, column k for pole order[k].

    poles (H, n), rows (H, n, m) and out (H, n, n) complex128, order (H, n) int64. Complete
    pivoting: column k belongs to the mode with the largest diagonal entry left. Rows stay in the
    order of the poles; ``F[order]`` is lower triangular. Modes without a pivot come last, with
    columns of zeros.
    """
    for h in prange(poles.shape[0]):
        complex_factor_of(poles[h], rows[h], continuous, out[h], order[h])


@njit(cache=True)
def conjugate_factor_of(poles, weights, continuous, F):
    """Fill the columns of one factor as rows of F, and return how many are in use; see below."""
    n = poles.shape[0]
    x, value = np.empty((2, n)), np.empty((2, n))
    halves, norms = np.empty((4, n)), np.empty(n)
    first, second = np.empty((2, n)), np.empty((2, n))
    _fill_start(poles, x, halves, norms, continuous)
    for i in range(n):
        value[0, i], value[1, i] = weights[i].real, weights[i].imag
    F[:] = 0.0
    k = 0
    for _ in range(n):
        best, _size = _largest(value, norms)
        if best < 0 or k == 2 * n:
            break
        ar, ai = x[0, best], x[1, best]
        _fill_gaps(x, halves, x[:, best].copy(), continuous, first, second)
        if ai == 0.0:
            root = 1.0 / math.sqrt(norms[best])
            for i in range(n):
                gr, gi = first[0, i], first[1, i]
                size = 1.0 / (gr * gr + gi * gi)
                qr = (value[0, i] * gr + value[1, i] * gi) * size
                qi = (value[1, i] * gr - value[0, i] * gi) * size
                F[k, 2 * i], F[k, 2 * i + 1] = qr * root, qi * root
                dr = x[0, i] - ar
                value[0, i] = qr * dr - qi * x[1, i]
                value[1, i] = qr * x[1, i] + qi * dr
            k += 1
            continue
        # psi_1 = (offset + slope x) scale_1 / q, psi_2 = scale_2 / q, q the product of gaps
        squared = ar * ar + ai * ai
        margin = 1.0 / norms[best]  # 1 - |a|^2, or -2 Re a
        if continuous:
            shift, sign = 0.0, -1.0
            scale_1 = math.sqrt(2.0 * margin)
            scale_2 = math.sqrt(2.0 * margin * squared)
        else:
            # x - b with b = 2 Re a / (1 + |a|^2), from the nearer of 1 and -1
            sign = 1.0 if ar >= 0.0 else -1.0
            near = (1.0 - sign * ar) ** 2 + ai * ai  # |sign - a|^2
            far = (1.0 + sign * ar) ** 2 + ai * ai
            shift = near / (1.0 + squared)  # 1 - sign b
            scale_1 = math.sqrt(margin * (1.0 + squared))
            scale_2 = scale_1 * math.sqrt(near * far) / (1.0 + squared)
        for i in range(n):
            gr = first[0, i] * second[0, i] - first[1, i] * second[1, i]
            gi = first[0, i] * second[1, i] + first[1, i] * second[0, i]
            size = 1.0 / (gr * gr + gi * gi)
            qr = (value[0, i] * gr + value[1, i] * gi) * size
            qi = (value[1, i] * gr - value[0, i] * gi) * size
            if continuous:
                tr, ti = -x[0, i], -x[1, i]
            else:
                tr = sign * (shift - (1.0 - sign * x[0, i]))
                ti = x[1, i]
            F[k, 2 * i] = scale_1 * (qr * tr - qi * ti)
            F[k, 2 * i + 1] = scale_1 * (qr * ti + qi * tr)
            F[k + 1, 2 * i], F[k + 1, 2 * i + 1] = scale_2 * qr, scale_2 * qi
            # (x - a) (x - conj(a))
            dr, lo, hi = x[0, i] - ar, x[1, i] - ai, x[1, i] + ai
            ur, ui = qr * dr - qi * lo, qr * lo + qi * dr
            value[0, i] = ur * dr - ui * hi
            value[1, i] = ur * hi + ui * dr
        k += 2
    return k


@njit(cache=True, parallel=True)
def fill_conjugate_factor(poles, weights, continuous, out, ranks):
    """Fill a real factor of the Gramian of ``(Re x_1, Im x_1, ...)``, pairs of poles pivoted.

    Row ``2 i`` and ``2 i + 1`` hold the real and imaginary part of ``w_i psi_k(l_i)``, psi the
    real orthonormal (Kautz) functions whose poles are the modes and their conjugates; a real pole
    has one function, all others two. poles and weights (H, n) complex128, out (H, 2 n, 2 n)
    float64, ranks (H,) int64: columns in use.
    """
    for h in prange(poles.shape[0]):
        columns = np.empty(out.shape[1:])
        ranks[h] = conjugate_factor_of(poles[h], weights[h], continuous, columns)
        out[h] = columns.T


@njit(cache=True, parallel=True)
def fill_pair_distances(poles, weights, continuous, out):
    """Fill the least pseudo-hyperbolic distance of a mode off the real axis to its conjugate.

    ``|l - conj(l)| / |1 - l^2|``, or ``|Im l| / |l|``; modes of weight 0 do not count; 1 if there
    is none. poles and weights (H, n) complex128, out (H,) float64.
    """
    for h in prange(poles.shape[0]):
        least = 1.0
        for i in range(poles.shape[1]):
            a = poles[h, i]
            if a.imag == 0.0 or weights[h, i] == 0.0:
                continue
            if continuous:
                distance = abs(a.imag) / abs(a)
            else:
                distance = 2.0 * abs(a.imag) / (abs(1.0 - a) * abs(1.0 + a))
            least = min(least, distance)
        out[h] = least
