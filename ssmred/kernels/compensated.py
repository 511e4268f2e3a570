"""Impulse responses of differences of diagonal systems, in double-double arithmetic.

Two systems that share most poles differ by ``sum_i d_i l_i^k`` with large coefficients that cancel
in the sum. Float64 leaves ``eps * sum |d_i| |l_i|^k`` of noise; here every coefficient, power and
sum is a double-double, and the answer is rounded once. See ``theory/network-bound.md``.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from ssmred.kernels.powers import dd_add, dd_multiply, zdd_add, zdd_multiply, zdd_power

__all__ = ["fill_difference_response"]


@njit(cache=True, inline="always")
def _product(a, b):
    """Return the product of two complex doubles as a complex double-double."""
    return zdd_multiply((a.real, 0.0, a.imag, 0.0), (b.real, 0.0, b.imag, 0.0))


@njit(cache=True)
def _add_mode(pole, coefficient, size, fine, high, low):
    """Add ``Re(coefficient pole^k)`` to the double-double ``high[k] + low[k]`` for every k."""
    horizon = high.shape[0]
    value = (1.0, 0.0, 0.0, 0.0)
    base = (pole.real, 0.0, pole.imag, 0.0)
    for r in range(size):
        fine[0, r], fine[1, r], fine[2, r], fine[3, r] = value
        value = zdd_multiply(value, base)
    jump = zdd_power(pole, size)
    for start in range(0, horizon, size):
        rh, rl, ih, il = coefficient
        for r in range(min(size, horizon - start)):
            ph, pl = dd_multiply(rh, rl, fine[0, r], fine[1, r])
            qh, ql = dd_multiply(ih, il, fine[2, r], fine[3, r])
            ph, pl = dd_add(ph, pl, -qh, -ql)
            high[start + r], low[start + r] = dd_add(high[start + r], low[start + r], ph, pl)
        coefficient = zdd_multiply(coefficient, jump)


@njit(cache=True, parallel=True)
def fill_difference_response(poles, B, C, other_poles, other_B, other_C, out):
    """Fill ``out[h, k] = Re(sum_i C B l^k) - Re(sum_j C' B' l'^k)`` rounded once.

    ``poles``, ``B``, ``C`` (H, n) and ``other_*`` (H, m) complex128, ``out`` (H, T) float64. The
    response is the post-update one without the direct term. Coefficients of bitwise equal poles
    are differenced before they meet a power.
    """
    horizon = out.shape[1]
    size = max(1, int(np.ceil(np.sqrt(horizon))))
    for h in prange(poles.shape[0]):
        n = poles.shape[1]
        coefficients = np.empty((n, 4))
        for i in range(n):
            value = _product(C[h, i], B[h, i])
            coefficients[i, 0], coefficients[i, 1], coefficients[i, 2], coefficients[i, 3] = value
        fine = np.empty((4, size))
        high = np.zeros(horizon)
        low = np.zeros(horizon)
        for j in range(other_poles.shape[1]):
            value = _product(other_C[h, j], other_B[h, j])
            value = (-value[0], -value[1], -value[2], -value[3])
            i = 0
            while i < n and poles[h, i] != other_poles[h, j]:
                i += 1
            if i < n:
                old = (
                    coefficients[i, 0],
                    coefficients[i, 1],
                    coefficients[i, 2],
                    coefficients[i, 3],
                )
                value = zdd_add(old, value)
                coefficients[i, 0], coefficients[i, 1], coefficients[i, 2], coefficients[i, 3] = (
                    value
                )
            elif value[0] != 0.0 or value[2] != 0.0:
                _add_mode(other_poles[h, j], value, size, fine, high, low)
        for i in range(n):
            if coefficients[i, 0] != 0.0 or coefficients[i, 2] != 0.0:
                value = (
                    coefficients[i, 0],
                    coefficients[i, 1],
                    coefficients[i, 2],
                    coefficients[i, 3],
                )
                _add_mode(poles[h, i], value, size, fine, high, low)
        for k in range(horizon):
            out[h, k] = high[k] + low[k]
