"""Real single-input single-output diagonal systems, balanced from their con-eigenvectors.

In the coordinates of the con-eigenvectors of the Hankel operator, whose signed values are ``l_i``,
the balanced form in continuous time is ``b_i = beta_i |l_i|^(1/2)``,
``a_ij = -s_j X_ij``, ``X_ij = b_i b_j / (l_i + l_j)``, ``s_j = sign(l_j)``.

Theory: ``theory/aak-con-eigenvalues.md``.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

from ssmred.kernels.jacobi import LEAST, fill_decomposition_of, fill_vectors_of

__all__ = ["fill_balanced_forms", "fill_embeddings", "fill_input_vectors"]

CLUSTER = 1e-3  # values closer than this, relatively, get their vectors from a small eigenproblem
NEAR = 1.0 / 64.0  # |l_i + l_j| below this share of the larger: X_ij from the matrix A itself


@njit(cache=True)
def _places(F, poles, rank):
    """Return the first column of the section of every mode (rows 2 i, 2 i + 1 of F); -1: none."""
    n = poles.shape[0]
    place = np.full(n, -1, np.int64)
    for i in range(n):
        for k in range(rank - 1, -1, -1):
            if F[2 * i, k] != 0.0 or F[2 * i + 1, k] != 0.0:
                place[i] = k if poles[i].imag == 0.0 else max(k - 1, 0)
                break
    return place


@njit(cache=True)
def _fill_sections(poles, margins, place, centre, b, corner):
    """Fill the input vector and the skew part of every section, ``A = S - b b^T / 2``.

    Section blocks of S are ``[[0, -corner], [corner, 0]]``; below them S is ``-b_k b_j / 2``.
    centre is 1 or -1, the point that s = 0 stands for, or 0 in continuous time.
    """
    n, rank = poles.shape[0], b.shape[0]
    mode = np.full(rank, -1, np.int64)
    for i in range(n):
        if place[i] >= 0:
            mode[place[i]] = i
    b[:] = 0.0
    corner[:] = 0.0
    sign, k = 1.0, 0
    while k < rank:
        i = mode[k]
        if i < 0:  # cannot happen for a factor in use
            k += 1
            continue
        a, margin = poles[i], margins[i]
        if centre == 0.0:
            if a.imag == 0.0:
                b[k] = sign * math.sqrt(margin)
                sign = -sign
                k += 1
                continue
            b[k] = sign * math.sqrt(2.0 * margin)
            corner[k] = abs(a)
        else:
            point = -centre
            near, far = abs(1.0 - point * a), abs(1.0 + point * a)
            if a.imag == 0.0:
                b[k] = sign * math.sqrt(2.0 * margin) / near
                sign *= point
                k += 1
                continue
            size = math.sqrt(2.0 * margin / (1.0 + (a.real * a.real + a.imag * a.imag)))
            b[k] = sign * point * size
            b[k + 1] = sign * size * far / near
            corner[k] = point * far / near
        k += 2


@njit(cache=True)
def fill_input_vectors(factor, poles, margins, rank, centre, b, corner):
    """Fill b and corner (rank,) of one channel; see :func:`fill_balanced_forms`."""
    place = _places(factor, poles, rank)
    _fill_sections(poles, margins, place, centre, b[:rank], corner[:rank])


@njit(cache=True)
def _times_a(b, corner, v, out):
    """Fill ``A v`` of the section form."""
    total, k, rank = 0.0, 0, b.shape[0]
    while k < rank:
        if corner[k] == 0.0:
            out[k] = -b[k] * (total + 0.5 * b[k] * v[k])
            total += b[k] * v[k]
            k += 1
            continue
        own = 0.5 * (b[k] * v[k] + b[k + 1] * v[k + 1])
        out[k] = -b[k] * (total + own) - corner[k] * v[k + 1]
        out[k + 1] = -b[k + 1] * (total + own) + corner[k] * v[k]
        total += 2.0 * own
        k += 2


@njit(cache=True)
def _sign_clusters(U, V, values, signed):
    """Turn singular vectors (n, r) into eigenvectors, in V, of the symmetric matrix ``U S V^T``."""
    n, r = V.shape
    start = 0
    while start < r:
        stop = start + 1
        while stop < r and values[stop - 1] - values[stop] <= CLUSTER * values[stop - 1]:
            stop += 1
        if stop - start == 1:
            product = 0.0
            for k in range(n):
                product += U[k, start] * V[k, start]
            signed[start] = values[start] if product >= 0.0 else -values[start]
        else:
            block = np.ascontiguousarray(V[:, start:stop])
            small = np.ascontiguousarray(block.T) @ np.ascontiguousarray(U[:, start:stop])
            for i in range(stop - start):
                small[:, i] *= values[start + i]
            w, X = np.linalg.eigh(0.5 * (small + small.T))
            order = np.argsort(-np.abs(w))
            turned = block @ X
            for i in range(stop - start):
                V[:, start + i] = turned[:, order[i]]
                signed[start + i] = w[order[i]]
        start = stop


@njit(cache=True)
def _fill_singular_vectors(F, U, values, V):
    """Fill the singular values and vectors of ``F^T diag(1, -1, 1, -1, ...) F``."""
    signed = F.copy()
    for i in range(1, F.shape[0], 2):
        for k in range(F.shape[1]):
            signed[i, k] = -signed[i, k]
    n = F.shape[1]
    W, X, tau = np.empty((n, n)), np.empty((n, n)), np.empty(n)
    rows, place, order = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64)
    G = F.T @ signed
    rank, _ = fill_decomposition_of(G, LEAST, W, tau, rows, place, X, order, values)
    fill_vectors_of(W, tau, rows, place, X, order, rank, n, n, U, V)


@njit(cache=True, parallel=True)
def fill_balanced_forms(factors, ranks, poles, margins, centres, signed, b, X):
    """Fill signed con-eigenvalues, b and X of every channel.

    factors (H, N, N), ranks (H,) from :func:`ssmred.kernels.cauchy.fill_conjugate_factor`; poles
    (H, n) complex128, margins (H, n) ``1 - |pole|^2`` or ``-2 Re pole``, centres (H,) 1, -1 or, in
    continuous time, 0. signed and b (H, N), X (H, N, N) float64; states beyond the rank are 0, and
    nan stands in signed where the con-eigenvalues do not converge.
    """
    for h in prange(poles.shape[0]):
        rank = ranks[h]
        signed[h] = 0.0
        b[h] = 0.0
        X[h] = 0.0
        if rank == 0:
            continue
        F = np.ascontiguousarray(factors[h, :, :rank])
        U, V, values = np.empty((rank, rank)), np.empty((rank, rank)), np.empty(rank)
        _fill_singular_vectors(F, U, values, V)
        count = 0
        while count < rank and values[count] > 0.0:
            count += 1
        if count == 0:
            signed[h, 0] = values[0]
            continue
        beta, corner = np.zeros(rank), np.zeros(rank)
        fill_input_vectors(factors[h], poles[h], margins[h], rank, centres[h], beta, corner)
        W = np.ascontiguousarray(V[:, :count])
        _sign_clusters(np.ascontiguousarray(U[:, :count]), W, values, signed[h])
        turn = -1.0 if centres[h] < 0.0 else 1.0
        for i in range(count):
            signed[h, i] *= turn
        coordinates = np.ascontiguousarray(W.T)
        for i in range(count):
            total = 0.0
            for k in range(rank):
                total += coordinates[i, k] * beta[k]
            b[h, i] = total * math.sqrt(abs(signed[h, i]))
        moved = np.empty(rank)
        for j in range(count):
            lj = signed[h, j]
            known = False
            for i in range(j, count):
                li = signed[h, i]
                if abs(li + lj) >= NEAR * max(abs(li), abs(lj)):
                    X[h, i, j] = b[h, i] * b[h, j] / (li + lj)
                else:
                    if not known:
                        _times_a(beta, corner, coordinates[j], moved)
                        known = True
                    total = 0.0
                    for k in range(rank):
                        total += coordinates[i, k] * moved[k]
                    # a_ij = (sigma_i / sigma_j)^(1/2) (V_i^T A V_j)
                    total *= math.sqrt(abs(li / lj))
                    X[h, i, j] = -total if lj > 0.0 else total
                X[h, j, i] = X[h, i, j]


@njit(cache=True, parallel=True)
def fill_embeddings(signed, b, X, gone, width, M, left, right):
    """Fill the all-pass embedding at the value ``signed[h, gone]`` of every channel.

    With l that value and ``f_i = |(l_i - l) / (l_i + l)|^(1/2)``: ``right_j = sign(l_j - l) f_j
    b_j``, ``left_i = s_i sign(l_i + l) f_i b_i``, ``M_ij = -s_i sign(l_i + l) f_i X_ij f_j
    sign(l_j - l)`` for i, j other than gone, below ``width + 1``. States of value 0 get the pole 1.
    M (H, width, width), left and right (H, width) float64.
    """
    for h in prange(signed.shape[0]):
        level = signed[h, gone]
        rows, columns = np.zeros(width), np.zeros(width)
        for i in range(width):
            value = signed[h, i + (i >= gone)]
            if value == 0.0:
                continue
            f = math.sqrt(abs(value - level) / abs(value + level))
            sign = 1.0 if value > 0.0 else -1.0
            rows[i] = f * sign * (1.0 if value + level > 0.0 else -1.0)
            columns[i] = f if value - level > 0.0 else -f
        for i in range(width):
            own = i + (i >= gone)
            left[h, i] = rows[i] * b[h, own]
            right[h, i] = columns[i] * b[h, own]
            for j in range(width):
                M[h, i, j] = -rows[i] * X[h, own, j + (j >= gone)] * columns[j]
            if signed[h, own] == 0.0:
                M[h, i, i] = 1.0
