"""Gramians of diagonal systems in closed form, entry by entry accurate.

Theory: ``theory/diagonal-gramian.md``, ``theory/real-output-gramian.md``.
"""

from __future__ import annotations

import math

import numpy as np

from ssmred.errors import AccuracyError, message
from ssmred.kernels.gramian import fill_gramian, fill_orthogonal_factor
from ssmred.kernels.powers import power_tables
from ssmred.systems.diagonal import DiagonalSystem

__all__ = ["diagonal_factor", "diagonal_gramian"]

BLOCK_ENTRIES = 2**21  # responses are triangularised in blocks of about 32 MiB


def diagonal_gramian(
    poles: np.ndarray,
    weights: np.ndarray,
    *,
    horizon: int | None,
    conjugate: bool,
    continuous: bool,
    where: str,
) -> np.ndarray:
    """Return ``G_ij = w_ij sum_k (l_i conj(l_j))^k`` (no conjugate: ``sum_k (l_i l_j)^k``).

    Parameters
    ----------
    poles : (..., n) complex128
    weights : (..., n, n) complex128
    horizon : int or None
        Number of terms; None is infinite.
    conjugate, continuous : bool
        Continuous time: ``G_ij = -w_ij / (l_i + conj(l_j))``.
    where : str
        Public function named in errors.

    Returns
    -------
    (..., n, n) complex128

    Raises
    ------
    AccuracyError
        If a finite-horizon entry overflows.
    """
    n, channels = poles.shape[-1], math.prod(poles.shape[:-1])
    flat = np.ascontiguousarray(poles, dtype=np.complex128).reshape(channels, n)
    out = np.empty((channels, n, n), dtype=np.complex128)
    fill_gramian(
        flat,
        flat,
        np.ascontiguousarray(weights, dtype=np.complex128).reshape(channels, n, n),
        conjugate,
        continuous,
        0 if horizon is None else horizon,
        out,
    )
    if not np.isfinite(out).all():
        raise AccuracyError(
            message(
                where,
                f"an entry overflows float64 within {horizon} samples",
                cure="Shorten the horizon or drop the fastest growing poles.",
            )
        )
    return out.reshape(weights.shape)


def diagonal_factor(system: DiagonalSystem, *, horizon: int | None) -> np.ndarray:
    """Return L with ``P = L L^*`` for a diagonal system, without forming P.

    Infinite horizon: the Takenaka-Malmquist values (exact triangular factor of the Cauchy-like
    matrix), scaled by each input column and compressed by one QR. Finite horizon: QR of the
    responses of the states, in blocks of time.

    Returns
    -------
    (..., n, n) complex128
    """
    n, m = system.order, system.inputs
    if horizon is None:
        channels = math.prod(system.batch_shape)
        poles = np.ascontiguousarray(system.poles).reshape(channels, n)
        root = np.empty((channels, n, n), dtype=np.complex128)
        fill_orthogonal_factor(poles, not system.is_discrete, root)
        root = root.reshape(*system.batch_shape, n, n)
        columns = [system.B[..., q, None] * root for q in range(m)]
        return columns[0] if m == 1 else compressed(np.concatenate(columns, axis=-1), n)
    fine, coarse = power_tables(system.poles, horizon)
    size, blocks = fine.shape[-1], coarse.shape[-1]
    driven = system.B[..., None] * fine[..., None, :]  # (..., n, m, S)
    step = max(1, BLOCK_ENTRIES // max(1, math.prod(system.batch_shape) * n * m * size))
    factor = np.zeros((*system.batch_shape, n, 0), dtype=np.complex128)
    with np.errstate(all="ignore"):  # overflow is found and reported below
        for first in range(0, blocks, step):
            jumps = coarse[..., first : first + step]
            part = driven[..., None, :] * jumps[..., None, :, None]  # (..., n, m, q, S)
            length = min(jumps.shape[-1] * size, horizon - first * size)
            part = part.reshape(*part.shape[:-2], jumps.shape[-1] * size)[..., :length]
            part = part.reshape(*system.batch_shape, n, m * length)
            if not np.isfinite(part).all():
                raise AccuracyError(
                    message(
                        "controllability_factor",
                        f"a state overflows float64 within {horizon} samples",
                        cure="Shorten the horizon or drop the fastest growing poles.",
                    )
                )
            factor = compressed(np.concatenate([factor, part], axis=-1), n)
    return factor


def compressed(factor: np.ndarray, n: int) -> np.ndarray:
    """Return an n x n lower triangular L with ``L L^* = F F^*``, by a QR of ``F^*``."""
    if factor.shape[-1] < n:
        padding = np.zeros((*factor.shape[:-1], n - factor.shape[-1]), dtype=factor.dtype)
        factor = np.concatenate([factor, padding], axis=-1)
    if n == 0 or factor.size == 0:
        return factor[..., :n]
    upper = np.linalg.qr(np.swapaxes(factor, -1, -2).conj(), mode="r")
    return np.swapaxes(upper, -1, -2).conj()
