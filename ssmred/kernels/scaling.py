"""Diagonal scaling of matrices, in powers of two, so that it rounds nothing.

Theory: ``theory/schur-equations.md``.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

__all__ = ["fill_scales"]

UNEVEN = 8.0  # rows and columns whose norms differ less are left alone
SWEEPS = 60  # ten are many
WORTH = 0.1  # scaling that does not lower the norm to this share is not used


@njit(cache=True, parallel=True, nogil=True)
def fill_scales(A, scales):
    """Fill d such that rows and columns of ``diag(d)^-1 A diag(d)`` are of similar size.

    A (H, n, n) float64 or complex128, scales (H, n) float64, powers of two; all 1 where scaling
    would not lower the Frobenius norm of A tenfold (Parlett and Reinsch 1969; James, Langou and
    Lowery 2014 on why it has to).
    """
    for h in prange(A.shape[0]):
        _fill_scale(A[h], scales[h])


@njit(cache=True, nogil=True)
def _fill_scale(A, d):
    n = A.shape[0]
    d[:] = 1.0
    rows, columns = np.zeros(n), np.zeros(n)
    largest = 0.0
    for i in range(n):
        for j in range(n):
            size = abs(A[i, j].real) + abs(A[i, j].imag)
            largest = max(largest, size)
            if i != j:
                rows[i] += size
                columns[j] += size
    uneven = False
    for i in range(n):
        if rows[i] > 0.0 and columns[i] > 0.0:
            uneven = uneven or rows[i] > UNEVEN * columns[i] or columns[i] > UNEVEN * rows[i]
    if not uneven or largest > 1e150 or largest < 1e-150:
        return
    M = np.empty((n, n))
    before = 0.0
    for i in range(n):
        for j in range(n):
            M[i, j] = abs(A[i, j].real) + abs(A[i, j].imag)
            before += M[i, j] * M[i, j]
    for _ in range(SWEEPS):
        changed = False
        for i in range(n):
            row, column = 0.0, 0.0
            for j in range(n):
                if j != i:
                    row += M[i, j]
                    column += M[j, i]
            if row == 0.0 or column == 0.0:
                continue
            factor = 2.0 ** np.round(0.5 * (math.log2(row) - math.log2(column)))
            if row / factor + column * factor < 0.95 * (row + column):
                changed = True
                d[i] *= factor
                for j in range(n):
                    if j != i:
                        M[i, j] /= factor
                        M[j, i] *= factor
        if not changed:
            break
    after = 0.0
    for i in range(n):
        for j in range(n):
            after += M[i, j] * M[i, j]
    if not after <= WORTH * WORTH * before or d.max() > 1e100 * d.min():
        d[:] = 1.0
