"""Gramians of diagonal systems in closed form, entry by entry accurate.

Theory: ``theory/diagonal-gramian.md``, ``theory/real-output-gramian.md``, ``theory/cauchy-ldl.md``.
"""

from __future__ import annotations

import math

import numpy as np

from ssmred.checks import check_choice
from ssmred.errors import AccuracyError, UnsupportedOperationError, message
from ssmred.kernels.cauchy import complex_factor_of, fill_complex_factor, fill_conjugate_factor
from ssmred.kernels.gramian import (
    fill_gramian,
    fill_orthogonal_factor,
    fill_stable_gramian,
)
from ssmred.kernels.jacobi import fill_compressed
from ssmred.kernels.powers import power_tables
from ssmred.systems.diagonal import DiagonalSystem
from ssmred.systems.linear import adjoint
from ssmred.systems.stability import check_stable

__all__ = [
    "cauchy_ldl",
    "conjugate_factor",
    "diagonal_factor",
    "diagonal_gramian",
    "pivoted_factor",
    "stable_gramian",
]

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
    _check_range(bool(np.isfinite(out).all()), where, horizon)
    return out.reshape(weights.shape)


def stable_gramian(poles: np.ndarray, B: np.ndarray, *, continuous: bool, where: str) -> np.ndarray:
    """Return ``P_ij = (B B^*)_ij / (1 - l_i conj(l_j))`` of stable poles.

    Parameters
    ----------
    poles : (..., n) complex128
    B : (..., n, m) complex128
    continuous : bool
        ``P_ij = -(B B^*)_ij / (l_i + conj(l_j))``.
    where : str
        Public function named in errors.

    Returns
    -------
    (..., n, n) complex128
        Exactly Hermitian.

    Raises
    ------
    AccuracyError
        If an entry overflows.
    """
    n, channels = poles.shape[-1], math.prod(poles.shape[:-1])
    out = np.empty((channels, n, n), dtype=np.complex128)
    finite = np.empty(channels, dtype=bool)
    fill_stable_gramian(
        np.ascontiguousarray(poles, dtype=np.complex128).reshape(channels, n),
        np.ascontiguousarray(B, dtype=np.complex128).reshape(channels, n, B.shape[-1]),
        continuous,
        out,
        finite,
    )
    _check_range(bool(finite.all()), where, None)
    return out.reshape(*poles.shape, n)


def cauchy_ldl(
    system: DiagonalSystem, *, of: str = "controllability"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the factors of ``P[perm][:, perm] = L diag(d) L^*`` with complete pivoting.

    Parameters
    ----------
    system : DiagonalSystem
        Stable; discrete or continuous.
    of : {"controllability", "observability"}
        Which infinite-horizon Gramian.

    Returns
    -------
    L : (..., n, n) float64 or complex128
        Unit lower triangular, entries at most 1 in modulus up to rounding.
    d : (..., n) float64
        Pivots, in descending order; 0 from the rank of P on (equal poles, modes without input).
    perm : (..., n) int64
        Order of the modes.

    Raises
    ------
    UnstableSystemError
        If a pole is not stable.
    UnsupportedOperationError
        For a dense system.

    Notes
    -----
    Level FLOAT. One input: every entry of L and d is accurate to a small multiple of n units in the
    last place, however ill-conditioned P is. More inputs: a row of B is turned before it is
    eliminated, which is small relative to what is left of every row, not to every entry. For
    ``real_output`` the Gramian of the complex states. Cost O(n^2 m) per channel. Theory:
    ``theory/cauchy-ldl.md``.

    Examples
    --------
    >>> L, d, perm = cauchy_ldl(DiagonalSystem([0.0, 0.6], [1.0, 4.0], [1.0, 1.0]))
    >>> perm.tolist(), d.round(12).tolist(), L.round(12).tolist()
    ([1, 0], [25.0, 0.36], [[1.0, 0.0], [0.16, 1.0]])
    """
    where = "cauchy_ldl"
    if not isinstance(system, DiagonalSystem):
        raise UnsupportedOperationError(
            message(
                where,
                "not a diagonal system",
                expected="DiagonalSystem",
                got=type(system).__name__,
                cure="Use controllability_factor.",
            )
        )
    check_choice(of, ("controllability", "observability"), "of", where)
    check_stable(system, where)
    poles, rows = system.poles, system.B
    if of == "observability":
        poles, rows = poles.conj(), adjoint(system.C)
    factor, order = pivoted_factor(poles, rows, continuous=not system.is_discrete)
    if not system._has_complex_data():
        factor = factor.real
    lower = np.take_along_axis(factor, order[..., None], axis=-2)
    pivots = np.diagonal(lower, axis1=-2, axis2=-1)
    unit = np.tril(lower / np.where(pivots == 0, 1, pivots)[..., None, :], -1)
    modes = np.arange(system.order)
    unit[..., modes, modes] = 1.0
    return unit, np.abs(pivots) ** 2, order


def pivoted_factor(
    poles: np.ndarray, rows: np.ndarray, *, continuous: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return F with ``(F F^*)_ij = r_i r_j^* / (1 - l_i conj(l_j))`` and the order of its pivots.

    Parameters
    ----------
    poles : (..., n) complex128
        Stable.
    rows : (..., n, m) complex128
    continuous : bool

    Returns
    -------
    factor : (..., n, n) complex128
        ``F[order]`` is lower triangular, its columns graded in descending order.
    order : (..., n) int64
    """
    n, channels = poles.shape[-1], math.prod(poles.shape[:-1])
    flat, rows = _flat_rows(poles, rows)
    factor = np.empty((channels, n, n), dtype=np.complex128)
    order = np.empty((channels, n), dtype=np.int64)
    # powers of two keep the squares in range
    _, exponents = np.frexp(np.abs(rows).max(axis=(1, 2), initial=0.0)[:, None, None])
    scaled = np.ldexp(rows.view(np.float64), -exponents).view(np.complex128)
    if channels == 1:  # wakes no threads, which BLAS would have to compete with
        complex_factor_of(flat[0], scaled[0], continuous, factor[0], order[0])
    else:
        fill_complex_factor(flat, scaled, continuous, factor, order)
    parts = factor.view(np.float64)
    np.ldexp(parts, exponents, out=parts)
    return factor.reshape(*poles.shape, n), order.reshape(poles.shape)


def conjugate_factor(poles: np.ndarray, rows: np.ndarray, *, continuous: bool) -> np.ndarray:
    """Return a real factor of the Gramian of the states ``(Re x_1, Im x_1, Re x_2, ...)``.

    Of ``x_{k+1} = diag(poles) x_k + rows u_k`` with real u, in terms of Kautz functions.

    Parameters
    ----------
    poles : (..., n) complex128
        Stable.
    rows : (..., n, m) complex128
    continuous : bool

    Returns
    -------
    (..., 2 n, 2 n) float64
        Columns graded in descending order.

    Notes
    -----
    Accurate relative to the two rows of each mode; entries lose ``|1 - l^2| / |l - conj(l)|``
    relative to that where a pole is nearly real.
    """
    n, m, channels = poles.shape[-1], rows.shape[-1], math.prod(poles.shape[:-1])
    flat, rows = _flat_rows(poles, rows)
    weights = rows[..., 0] if m == 1 else np.linalg.norm(rows, axis=-1).astype(np.complex128)
    factor = np.empty((channels, 2 * n, 2 * n))
    ranks = np.empty(channels, dtype=np.int64)
    fill_conjugate_factor(flat, np.ascontiguousarray(weights), continuous, factor, ranks)
    if m != 1:
        complex_rows = factor[:, 0::2] + 1j * factor[:, 1::2]
        stacked = _stacked(complex_rows, rows, weights)
        parts = np.stack([stacked.real, stacked.imag], axis=2)  # (H, n, 2, m N)
        factor = _squeezed(np.ascontiguousarray(parts).reshape(channels, 2 * n, -1))
    return factor.reshape(*poles.shape[:-1], 2 * n, 2 * n)


def _flat_rows(poles: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    n, channels = poles.shape[-1], math.prod(poles.shape[:-1])
    flat = np.ascontiguousarray(poles, dtype=np.complex128).reshape(channels, n)
    rows = np.ascontiguousarray(rows, dtype=np.complex128)
    return flat, rows.reshape(channels, n, rows.shape[-1])


def _stacked(factor: np.ndarray, rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return side by side what every column of ``rows`` makes of a factor for ``weights``."""
    directions = rows / np.where(weights == 0, 1, weights)[..., None]
    columns = [directions[..., q, None] * factor for q in range(rows.shape[-1])]
    return np.concatenate([factor[..., :0], *columns], axis=-1)


def _squeezed(factor: np.ndarray) -> np.ndarray:
    """Return a square factor of the same product, (H, n, K)."""
    channels, n, width = factor.shape
    if width < n:
        factor = np.concatenate(
            [factor, np.zeros((channels, n, n - width), dtype=factor.dtype)], axis=-1
        )
    out, order = np.empty((channels, n, n), dtype=factor.dtype), np.empty((channels, n), np.int64)
    fill_compressed(np.ascontiguousarray(factor), out, order)
    return out


def diagonal_factor(system: DiagonalSystem, *, horizon: int | None, where: str) -> np.ndarray:
    """Return L with ``P = L L^*`` for a diagonal system, without forming P.

    Infinite horizon, one input: the Takenaka-Malmquist values in the given order of the poles,
    lower triangular. More inputs: :func:`pivoted_factor`. Finite horizon: QR of the responses of
    the states, in blocks of time.

    Returns
    -------
    (..., n, n) complex128
    """
    n, m = system.order, system.inputs
    if horizon is None:
        if m != 1:
            return pivoted_factor(system.poles, system.B, continuous=not system.is_discrete)[0]
        channels = math.prod(system.batch_shape)
        poles = np.ascontiguousarray(system.poles).reshape(channels, n)
        root = np.empty((channels, n, n), dtype=np.complex128)
        fill_orthogonal_factor(poles, not system.is_discrete, root)
        root = root.reshape(*system.batch_shape, n, n)
        return system.B * root
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
                        where,
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
    upper = np.linalg.qr(adjoint(factor), mode="r")
    return adjoint(upper)


def _check_range(finite: bool, where: str, horizon: int | None) -> None:
    if finite:
        return
    problem, cure = "an entry overflows float64", "Scale B and C to a common size."
    if horizon is not None:
        problem += f" within {horizon} samples"
        cure = "Shorten the horizon or drop the fastest growing poles."
    raise AccuracyError(message(where, problem, cure=cure))
