"""Impulse responses of diagonal systems as sums of exponentials, and time stepping."""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

from ssmred.kernels.powers import power_tables, zdd_add, zdd_multiply

__all__ = [
    "exponential_blocks",
    "exponential_sums",
    "fill_dense_outputs",
    "fill_diagonal_outputs",
    "fill_merged_residues",
]

DUST = 2.0**-96  # relative rounding of a double-double sum of some hundred terms
BLOCK_ENTRIES = 2**22  # samples of a response held at once


@njit(cache=True, inline="always")
def _as_zdd(value, conjugate):
    return value.real, 0.0, -value.imag if conjugate else value.imag, 0.0


@njit(cache=True, inline="always")
def _cleaned(re, im, size):
    """Return the number, or an exact zero where nothing but double-double rounding is left."""
    if abs(re) + abs(im) <= DUST * size:
        return complex(0.0, 0.0)
    return complex(re, im)


@njit(cache=True, parallel=True)
def fill_merged_residues(poles, B, C, D, post, real, out_poles, out_residues, out_direct, counts):
    """Fill the response form ``h_0 = d``, ``h_k = sum_i r_i l_i^(k-1)`` with every pole once.

    Shapes: poles (H, n), B (H, n, m), C (H, p, n), D (H, p, m), all complex128; out_poles (H, n),
    out_residues (H, n, p, m), out_direct (H, p, m), counts (H,) int64. Equal poles are merged
    before rounding: products and sums are double-double, so the difference of two systems that
    share poles is a difference of read-outs, correct to one rounding. ``post``: post-update
    recurrence (``r = c l b`` and ``d = D + sum c b``), else ``r = c b`` and ``d = D``. ``real``:
    the response is the real part; modes below the real axis are reflected and real modes lose
    the imaginary part of their residue, which changes no output. Modes with a zero residue are
    dropped; slots beyond ``counts`` are zero.
    """
    channels, n = poles.shape
    p, m = D.shape[1], D.shape[2]
    for h in prange(channels):
        sums = np.zeros((n, p, m, 4))
        direct = np.zeros((p, m, 4))
        sum_sizes = np.zeros((n, p, m))
        direct_sizes = np.zeros((p, m))
        distinct = np.zeros(n, np.complex128)
        used = 0
        for i in range(n):
            pole = poles[h, i]
            flip = real and pole.imag < 0.0
            if flip:
                pole = complex(pole.real, -pole.imag)
            slot = used
            for j in range(used):
                if distinct[j] == pole:
                    slot = j
                    break
            if slot == used:
                distinct[used] = pole
                used += 1
            for a in range(p):
                for b in range(m):
                    term = zdd_multiply(_as_zdd(C[h, a, i], flip), _as_zdd(B[h, i, b], flip))
                    if post:
                        total = direct[a, b]
                        total[0], total[1], total[2], total[3] = zdd_add(
                            (total[0], total[1], total[2], total[3]), term
                        )
                        direct_sizes[a, b] += abs(term[0]) + abs(term[2])
                        term = zdd_multiply(term, _as_zdd(pole, False))
                    sum_sizes[slot, a, b] += abs(term[0]) + abs(term[2])
                    total = sums[slot, a, b]
                    total[0], total[1], total[2], total[3] = zdd_add(
                        (total[0], total[1], total[2], total[3]), term
                    )
        for a in range(p):
            for b in range(m):
                total = direct[a, b]
                exact = zdd_add(
                    (total[0], total[1], total[2], total[3]), _as_zdd(D[h, a, b], False)
                )
                size = direct_sizes[a, b] + abs(D[h, a, b])
                out_direct[h, a, b] = _cleaned(exact[0], 0.0 if real else exact[2], size)
        kept = 0
        for j in range(used):
            lives = False
            drop_imaginary = real and distinct[j].imag == 0.0
            for a in range(p):
                for b in range(m):
                    total = sums[j, a, b]
                    value = _cleaned(
                        total[0], 0.0 if drop_imaginary else total[2], sum_sizes[j, a, b]
                    )
                    out_residues[h, kept, a, b] = value
                    lives = lives or value != 0.0
            if lives:
                out_poles[h, kept] = distinct[j]
                kept += 1
        counts[h] = kept
        for j in range(kept, n):
            out_poles[h, j] = 0.0
            for a in range(p):
                for b in range(m):
                    out_residues[h, j, a, b] = 0.0


def exponential_sums(poles, residues, horizon, *, real):
    """Return ``s_k = sum_i r_i l_i^k`` for k < horizon as one matrix product of power tables.

    Parameters
    ----------
    poles : (..., n) complex128
    residues : (..., K, n) complex128
    horizon : int
    real : bool
        Return the real part only (as float64, by a real product).

    Returns
    -------
    (..., K, horizon) complex128 or float64
        ``|error| <= (3 n + 16) 2**-53 sum_i |r_i| |l_i|^k``; cost O(K n horizon) in BLAS.
    """
    dtype = np.float64 if real else np.complex128
    blocks = list(exponential_blocks(poles, residues, horizon, real=real))
    if not blocks:
        return np.empty((*residues.shape[:-1], 0), dtype=dtype)
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=-1)


def exponential_blocks(poles, residues, horizon, *, real):
    """Yield the sums of :func:`exponential_sums` in consecutive blocks of bounded memory."""
    if horizon == 0:
        return
    fine, coarse = power_tables(poles, horizon)
    size, blocks = fine.shape[-1], -(-horizon // fine.shape[-1])
    if real:
        fine = np.concatenate([fine.real, fine.imag], axis=-2)
    step = max(1, BLOCK_ENTRIES // max(1, math.prod(residues.shape[:-1]) * size))
    for first in range(0, blocks, step):
        jumps = np.swapaxes(coarse[..., first : min(first + step, blocks)], -1, -2)
        weights = residues[..., :, None, :] * jumps[..., None, :, :]  # (..., K, q, n)
        if real:
            weights = np.concatenate([weights.real, -weights.imag], axis=-1)
        sums = weights @ fine[..., None, :, :]  # (..., K, q, S)
        length = min(sums.shape[-2] * size, horizon - first * size)
        yield sums.reshape(*sums.shape[:-2], sums.shape[-2] * size)[..., :length]


@njit(cache=True, parallel=True)
def fill_diagonal_outputs(poles, B, C, D, post, u, states, y):
    """Fill ``y`` and leave the final states in ``states`` by running the recurrence.

    poles (H, n), B (H, n, m), C (H, p, n), D (H, p, m), u (H, T, m), states (H, n) and y (H, T, p)
    are complex128. The caller takes the real part where outputs are real.
    """
    channels, n = poles.shape
    p, m = D.shape[1], D.shape[2]
    for h in prange(channels):
        x = states[h]
        for k in range(u.shape[1]):
            for a in range(p):
                total = complex(0.0, 0.0)
                for b in range(m):
                    total += D[h, a, b] * u[h, k, b]
                y[h, k, a] = total
            for i in range(n):
                drive = complex(0.0, 0.0)
                for b in range(m):
                    drive += B[h, i, b] * u[h, k, b]
                new = poles[h, i] * x[i] + drive
                seen = new if post else x[i]
                for a in range(p):
                    y[h, k, a] += C[h, a, i] * seen
                x[i] = new


@njit(cache=True, parallel=True)
def fill_dense_outputs(A, B, C, D, post, u, states, y):
    """Fill ``y`` for dense systems; shapes as in :func:`fill_diagonal_outputs`, A (H, n, n)."""
    channels, n = states.shape
    p, m = D.shape[1], D.shape[2]
    for h in prange(channels):
        x = states[h]
        new = np.zeros(n, np.complex128)
        for k in range(u.shape[1]):
            for i in range(n):
                total = complex(0.0, 0.0)
                for j in range(n):
                    total += A[h, i, j] * x[j]
                for b in range(m):
                    total += B[h, i, b] * u[h, k, b]
                new[i] = total
            for a in range(p):
                total = complex(0.0, 0.0)
                for b in range(m):
                    total += D[h, a, b] * u[h, k, b]
                for i in range(n):
                    total += C[h, a, i] * (new[i] if post else x[i])
                y[h, k, a] = total
            for i in range(n):
                x[i] = new[i]
