"""Sums over two sets of poles, and their slopes, for the descent with quadratic outputs.

Theory: ``theory/quadratic-h2.md``.
"""

from __future__ import annotations

from numba import njit, prange

from ssmred.kernels.gramian import kernel_gap, stable_gap

__all__ = ["fill_pole_sums"]


@njit(cache=True, parallel=True, error_model="numpy")
def fill_pole_sums(full, poles, continuous, terms, sums, slopes):
    """Fill ``sums_ij = sum_{k < terms} z^k``, ``z = l_i conj(m_j)``, and their slopes.

    full (n,), poles (r,), sums and slopes (n, r), complex128; slopes are derivatives by
    ``conj(m_j)``. terms 0 stands for infinity, where all ``|z| < 1``; continuous time knows no
    other: ``-1 / (l_i + conj(m_j))``. Finite sums are doubled along the bits of ``terms``: no
    division by ``1 - z``, so z may be 1, or beyond.
    """
    r = poles.shape[0]
    top = 0
    while terms >> (top + 1) > 0:
        top += 1
    for i in prange(full.shape[0]):
        for j in range(r):
            if terms == 0:
                margin = kernel_gap(poles[j], poles[j], continuous).real
                value = 1.0 / stable_gap(full[i], poles[j], margin, continuous)
                sums[i, j] = value
                slopes[i, j] = value * value * (1.0 if continuous else full[i])
                continue
            z = full[i] * poles[j].conjugate()
            # the sum and its derivative for the leading bits, z^(count - 1) and z^count
            value, slope, before, power, count = 1.0 + 0j, 0j, 1.0 + 0j, z, 1
            for bit in range(top - 1, -1, -1):
                slope = slope * (1.0 + power) + count * before * value
                value = value * (1.0 + power)
                before, power, count = before * power, power * power, 2 * count
                if (terms >> bit) & 1:
                    slope = value + z * slope
                    value = 1.0 + z * value
                    before, power, count = power, power * z, count + 1
            sums[i, j] = value
            slopes[i, j] = slope * full[i]
