"""Gramians of dense systems: Lyapunov factors by Hammarling's method, or slycot.

Theory: ``theory/h2-norm.md`` (factors), ``theory/diagonal-gramian.md`` (horizon T by doubling).
"""

from __future__ import annotations

import math

import numpy as np
from scipy.linalg import schur

from ssmred.errors import (
    AccuracyError,
    MissingDependencyError,
    UnstableSystemError,
    UnsupportedOperationError,
    message,
)
from ssmred.gramians.closed_form import compressed
from ssmred.kernels.gramian import fill_lyapunov_factor, fill_stability_margins

__all__ = ["dense_factor", "dense_finite_gramian", "slycot_gramian"]


def dense_factor(
    A: np.ndarray, B: np.ndarray, *, horizon: int | None, continuous: bool, where: str
) -> np.ndarray:
    """Return L with ``L L^* = P``, ``P - A P A^* = B B^*`` (or ``A P + P A^* = -B B^*``).

    Parameters
    ----------
    A : (..., n, n) float64 or complex128
        Stable where the horizon is infinite.
    B : (..., n, m) float64 or complex128
    horizon : int or None
        Number of terms ``A^k B``; None is infinite.
    continuous : bool
    where : str
        Public function named in errors.

    Returns
    -------
    (..., n, n) float64 or complex128

    Notes
    -----
    Infinite: complex Schur form of ``A^*``, then the factor of the triangular equation row by row
    (Hammarling 1982), O(n^3). Finite: ``[L, A^t L]`` is a factor of ``P_2t``; one QR per doubling.
    """
    if horizon is not None:
        return _doubled_factor(A, B, horizon, where)
    n, channels = A.shape[-1], math.prod(A.shape[:-2])
    if n == 0 or channels == 0:
        return np.zeros_like(A)
    T, Z = schur(np.swapaxes(A, -1, -2).conj(), output="complex")[:2]
    R = np.swapaxes(compressed(np.swapaxes(Z, -1, -2).conj() @ B, n), -1, -2).conj()
    flat = np.ascontiguousarray(T, dtype=np.complex128).reshape(channels, n, n)
    margins = np.empty(channels * n)
    poles = np.diagonal(flat, axis1=-2, axis2=-1).reshape(channels * n)
    fill_stability_margins(np.ascontiguousarray(poles), continuous, margins)
    if not (margins > 0).all():  # the eigenvalues said stable, the Schur form does not
        raise UnstableSystemError(
            message(
                where,
                "a pole lies on the stability boundary within rounding",
                cure="Use a DiagonalSystem, where poles are exact, or a finite horizon.",
            )
        )
    U = np.empty_like(flat)
    fill_lyapunov_factor(
        flat, np.array(R, dtype=np.complex128).reshape(channels, n, n), continuous, U
    )
    L = Z @ np.swapaxes(U.reshape(T.shape), -1, -2).conj()
    if np.iscomplexobj(A) or np.iscomplexobj(B):
        return L
    # Real data: the real n x n factor of the same L L^*.
    return compressed(np.concatenate([L.real, L.imag], axis=-1), n)


def dense_finite_gramian(A: np.ndarray, B: np.ndarray, horizon: int, where: str) -> np.ndarray:
    """Return ``sum_{k < horizon} A^k B B^* A^{*k}`` as ``L L^*``."""
    factor = dense_factor(A, B, horizon=horizon, continuous=False, where=where)
    return factor @ np.swapaxes(factor, -1, -2).conj()


def slycot_gramian(A: np.ndarray, B: np.ndarray, *, continuous: bool, where: str) -> np.ndarray:
    """Return the infinite-horizon Gramian of one real system from SLICOT's SB03MD.

    Raises
    ------
    MissingDependencyError
        If slycot is not installed.
    UnsupportedOperationError
        For a batch or complex data.
    """
    if A.ndim != 2 or np.iscomplexobj(A) or np.iscomplexobj(B):
        raise UnsupportedOperationError(
            message(
                where,
                'backend="slycot" takes one real system',
                got=f"A of shape {A.shape} and dtype {A.dtype}",
                cure="Use the default backend.",
            )
        )
    try:
        from slycot import sb03md57
    except ImportError as error:
        raise MissingDependencyError(
            message(where, "slycot is not installed", cure="Use the default backend.")
        ) from error
    if A.shape[0] == 0:
        return np.zeros_like(A)
    result = sb03md57(A.copy(), C=-B @ B.T, dico="C" if continuous else "D", job="X", trana="T")
    return result[2]


def _doubled_factor(A: np.ndarray, B: np.ndarray, horizon: int, where: str) -> np.ndarray:
    n = A.shape[-1]
    factor, power = compressed(B, n), A
    with np.errstate(all="ignore"):  # overflow is found and reported below
        for bit in bin(horizon)[3:]:
            factor = compressed(np.concatenate([factor, power @ factor], axis=-1), n)
            power = power @ power
            if bit == "1":
                factor = compressed(np.concatenate([B, A @ factor], axis=-1), n)
                power = A @ power
            if not np.isfinite(factor).all():
                raise AccuracyError(
                    message(
                        where,
                        f"the states overflow float64 within {horizon} samples",
                        cure="Shorten the horizon.",
                    )
                )
    return factor
