"""Shifted triangular systems, one for each pole of a small model.

Theory: ``theory/h2-optimality.md``.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

__all__ = ["fill_shifted_solutions"]


@njit(cache=True, parallel=True)
def fill_shifted_solutions(T, poles, W, discrete, out):
    """Fill column j of ``out``: ``(I - conj(l_j) T)^{-1} w_j``, or ``-(T + conj(l_j))^{-1} w_j``.

    T (H, n, n) upper triangular, poles (H, r), W and out (H, n, r), complex128.
    """
    channels, n, r = W.shape
    for task in prange(channels * r):
        h, j = task // r, task % r
        shift = poles[h, j].conjugate()
        x = np.empty(n, np.complex128)
        for i in range(n - 1, -1, -1):
            carried = 0.0 + 0.0j
            for k in range(i + 1, n):
                carried += T[h, i, k] * x[k]
            if discrete:
                x[i] = (W[h, i, j] + shift * carried) / (1.0 - shift * T[h, i, i])
            else:
                x[i] = -(W[h, i, j] + carried) / (T[h, i, i] + shift)
        for i in range(n):
            out[h, i, j] = x[i]
