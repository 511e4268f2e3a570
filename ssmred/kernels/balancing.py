"""Hankel singular values and balanced truncation of single-input single-output diagonal systems.

One factor serves both Gramians, because only the residues matter: the Hankel operator is
``G_kj = sum_i Re(r_i psi_k(l_i) psi_j(l_i))`` in the basis of Kautz functions, a symmetric matrix.

Theory: ``theory/hankel-values.md``, ``theory/balanced-truncation.md``.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

from ssmred.kernels.jacobi import fill_decomposition_of, fill_values_of, fill_vectors_of

__all__ = ["fill_hankel_decompositions", "fill_hankel_values", "fill_truncations"]


@njit(cache=True)
def _hankel_matrix(F, rank):
    """Return ``F^T diag(1, -1, 1, -1, ...) F`` over the columns in use, both triangles."""
    rows = F.shape[0]
    plain, signed = F[:, :rank].copy(), F[:, :rank].copy()
    for i in range(1, rows, 2):
        for k in range(rank):
            signed[i, k] = -signed[i, k]
    return plain.T @ signed


@njit(cache=True, parallel=True)
def fill_hankel_values(factors, ranks, values):
    """Fill the Hankel singular values from the factors of :func:`fill_conjugate_factor`.

    factors (H, N, N) float64 of poles with weights ``sqrt(r_i)``, ranks (H,) int64, values (H, N).
    """
    for h in prange(factors.shape[0]):
        values[h] = 0.0
        fill_values_of(_hankel_matrix(factors[h], ranks[h]), values[h])


@njit(cache=True, parallel=True)
def fill_hankel_decompositions(
    factors, used, least, W, tau, rows, place, X, order, values, ranks, dropped
):
    """Fill the decompositions of the Hankel operators; see ``fill_decompositions`` of jacobi.py.

    used (H,) int64: columns in use of the factors (H, N, N). All other arrays have room for order
    N; what is in use of each comes first.
    """
    for h in prange(factors.shape[0]):
        ranks[h], dropped[h] = fill_decomposition_of(
            _hankel_matrix(factors[h], used[h]),
            least,
            W[h],
            tau[h],
            rows[h],
            place[h],
            X[h],
            order[h],
            values[h],
        )


@njit(cache=True, parallel=True)
def fill_truncations(
    channels,
    factors,
    used,
    W,
    tau,
    rows,
    place,
    X,
    order,
    ranks,
    values,
    poles,
    weights,
    left,
    right,
    out_A,
    out_B,
    out_C,
):
    """Fill the truncated balanced realisations of the channels with the numbers channels (c,).

    With singular vectors U, V and ``S = diag(values)``: left and right (c, N, k) are
    ``F U S^{-1/2}`` and ``F V S^{-1/2}``, a pair of rows for every mode, seen as complex numbers
    ``f_i``, ``g_i``: ``A_jk = sum_i Re(l_i f_ij g_ik)``, ``B_j = sum_i Re(w_i f_ij)``, ``C_k =
    sum_i Re(w_i g_ik)``. out_A (c, k, k), out_B and out_C (c, k) float64; poles and weights (H, n)
    complex128. States of value 0 are zero.
    """
    for index in prange(channels.shape[0]):
        h = channels[index]
        n, k, u = poles.shape[1], left.shape[2], used[h]
        U, V = np.zeros((2 * n, k)), np.zeros((2 * n, k))
        fill_vectors_of(
            W[h],
            tau[h],
            rows[h],
            place[h],
            X[h],
            order[h],
            ranks[h],
            u,
            u,
            U,
            V,
        )
        for j in range(k):
            scale = 1.0 / math.sqrt(values[h, j]) if values[h, j] > 0.0 else 0.0
            for i in range(u):
                U[i, j] *= scale
                V[i, j] *= scale
        f, g = factors[h] @ U, factors[h] @ V
        moved = np.empty_like(g)
        out_B[index] = 0.0
        out_C[index] = 0.0
        for i in range(n):
            pole, w = poles[h, i], weights[h, i]
            for j in range(k):
                x, y = g[2 * i, j], g[2 * i + 1, j]
                moved[2 * i, j] = pole.real * x - pole.imag * y
                moved[2 * i + 1, j] = -(pole.real * y + pole.imag * x)
                out_C[index, j] += w.real * x - w.imag * y
                out_B[index, j] += w.real * f[2 * i, j] - w.imag * f[2 * i + 1, j]
        out_A[index] = f.T @ moved
        left[index] = f
        right[index] = g
