"""Hankel singular values and balanced truncation of single-input single-output diagonal systems.

One factor serves both Gramians, because only the residues matter: the Hankel operator is
``G_kj = sum_i Re(r_i psi_k(l_i) psi_j(l_i))`` in the basis of Kautz functions, a symmetric matrix.

Theory: ``theory/hankel-values.md``, ``theory/balanced-truncation.md``.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

from ssmred.kernels.cauchy import conjugate_factor_of
from ssmred.kernels.jacobi import fill_decomposition_of, fill_values_of, fill_vectors_of

__all__ = ["fill_hankel_decompositions", "fill_hankel_values", "fill_truncations"]


@njit(cache=True)
def _hankel_matrix(poles, roots, continuous):
    """Return ``F^T diag(1, -1, 1, -1, ...) F`` for the columns in use of the real factor F."""
    size = 2 * poles.shape[0]
    columns = np.empty((size, size))
    rank = conjugate_factor_of(poles, roots, continuous, columns)
    plain = columns[:rank]
    signed = plain.copy()
    signed[:, 1::2] = -signed[:, 1::2]
    return plain @ signed.T


@njit(cache=True, parallel=True)
def fill_hankel_values(poles, roots, continuous, values):
    """Fill the Hankel singular values of real half spectra from the roots of their residues.

    poles and roots (H, n) complex128, values (H, 2 n) float64.
    """
    for h in prange(poles.shape[0]):
        values[h] = 0.0
        fill_values_of(_hankel_matrix(poles[h], roots[h], continuous), values[h])


@njit(cache=True, parallel=True)
def fill_hankel_decompositions(
    poles, roots, continuous, least, W, tau, rows, place, X, order, values, used, ranks, dropped
):
    """Fill the decompositions of the Hankel operators; see ``fill_decompositions`` of jacobi.py.

    used (H,) int64: orders of the Hankel matrices. All other arrays have room for order 2 n; what
    is in use of each comes first.
    """
    for h in prange(poles.shape[0]):
        hankel = _hankel_matrix(poles[h], roots[h], continuous)
        used[h] = hankel.shape[0]
        ranks[h], dropped[h] = fill_decomposition_of(
            hankel, least, W[h], tau[h], rows[h], place[h], X[h], order[h], values[h]
        )


@njit(cache=True, parallel=True)
def fill_truncations(
    channels,
    poles,
    roots,
    continuous,
    W,
    tau,
    rows,
    place,
    X,
    order,
    values,
    used,
    ranks,
    matrix_poles,
    weights,
    b,
    c,
    out_A,
    out_B,
    out_C,
    out_V,
    out_W,
):
    """Fill the truncated balanced realisations of the channels with the numbers channels (c,).

    With singular vectors U, V and ``S = diag(values)``: ``F U S^{-1/2}`` and ``F V S^{-1/2}``, a
    pair of rows for every mode, seen as complex numbers ``f_i``, ``g_i``: ``A_jk = sum_i Re(l_i
    f_ij g_ik)``, ``B_j = sum_i Re(w_i f_ij)``, ``C_k = sum_i Re(w_i g_ik)``, l_i and w_i from
    matrix_poles and weights. The bases of the projection: out_V and out_W (c, 2 n, k) are
    ``b_i g_i`` and ``conj(c_i f_i)``. out_A (c, k, k), out_B and out_C (c, k) float64; all arrays
    of modes (H, n) complex128. States of value 0 are zero.
    """
    for index in prange(channels.shape[0]):
        h = channels[index]
        n, k, u = poles.shape[1], out_V.shape[2], used[h]
        columns = np.empty((2 * n, 2 * n))
        conjugate_factor_of(poles[h], roots[h], continuous, columns)
        left, right = np.zeros((u, k)), np.zeros((u, k))
        fill_vectors_of(
            W[h], tau[h], rows[h], place[h], X[h], order[h], ranks[h], u, u, left, right
        )
        for j in range(k):
            scale = 1.0 / math.sqrt(values[h, j]) if values[h, j] > 0.0 else 0.0
            for i in range(u):
                left[i, j] *= scale
                right[i, j] *= scale
        f, g = columns[:u].T @ left, columns[:u].T @ right
        moved = np.empty_like(g)
        out_B[index] = 0.0
        out_C[index] = 0.0
        for i in range(n):
            pole, w = matrix_poles[h, i], weights[h, i]
            for j in range(k):
                x, y = g[2 * i, j], g[2 * i + 1, j]
                moved[2 * i, j] = pole.real * x - pole.imag * y
                moved[2 * i + 1, j] = -(pole.real * y + pole.imag * x)
                out_C[index, j] += w.real * x - w.imag * y
                out_V[index, 2 * i, j] = b[h, i].real * x - b[h, i].imag * y
                out_V[index, 2 * i + 1, j] = b[h, i].real * y + b[h, i].imag * x
                x, y = f[2 * i, j], f[2 * i + 1, j]
                out_B[index, j] += w.real * x - w.imag * y
                out_W[index, 2 * i, j] = c[h, i].real * x - c[h, i].imag * y
                out_W[index, 2 * i + 1, j] = -(c[h, i].real * y + c[h, i].imag * x)
        out_A[index] = f.T @ moved
