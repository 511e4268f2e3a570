"""Factors of Gramians of dense systems: Hammarling's method, or squaring with compression.

Theory: ``theory/h2-norm.md`` (factors), ``theory/schur-equations.md`` (squaring),
``theory/diagonal-gramian.md`` (horizon T by doubling).
"""

from __future__ import annotations

import math

import numpy as np
from scipy.linalg import schur

from ssmred.errors import (
    AccuracyError,
    UnstableSystemError,
    message,
)
from ssmred.gramians.closed_form import compressed
from ssmred.gramians.residuals import residual_sizes, symmetric_terms
from ssmred.gramians.triangular import balancing_scales, bilinear_pair
from ssmred.kernels.blas import with_blas_threads
from ssmred.kernels.gramian import fill_lyapunov_factor, fill_stability_margins
from ssmred.systems.linear import adjoint

__all__ = ["dense_factor", "dense_finite_gramian"]

LARGE_ORDER, LARGE_CONTINUOUS_ORDER = 128, 500
"""Above these orders a factor is computed by squaring where that converges. Hammarling's method
keeps more digits of the small directions; in continuous time it is far slower only at the larger
orders."""

ROUNDS = 14
GROWTH = 10.0
SMALL_RESIDUAL = 1e-14
"""A factor of a balanced system with a larger relative residual is not used."""

NEGLIGIBLE = 2.0**-54
"""With ``||A^t||_F`` below it, the columns left out are below rounding."""


@with_blas_threads
def dense_factor(
    A: np.ndarray,
    B: np.ndarray,
    *,
    horizon: int | None,
    continuous: bool,
    where: str,
    balanced: bool = True,
    cure: str = "Use a DiagonalSystem, where poles are exact, or a finite horizon.",
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
    balanced : bool
        Whether states in very different units may be scaled first.
    where, cure : str
        Public function named in errors, and what it advises where a pole is not stable.

    Returns
    -------
    (..., n, n) float64 or complex128

    Raises
    ------
    UnstableSystemError
        If the horizon is infinite and the Schur form has an eigenvalue that is not stable.

    Notes
    -----
    Infinite: complex Schur form of ``A^*``, then the factor of the triangular equation row by row
    (Hammarling 1982), O(n^3); systems of more than 128 states by squaring A, or of more than 500 in
    continuous time by squaring its bilinear image, where that converges quickly, the columns
    compressed to at most n by QR. Finite: ``[L, A^t L]`` is a
    factor of ``P_2t``; one QR per doubling.
    """
    if horizon is not None:
        return _doubled_factor(A, B, horizon, where)
    n, channels = A.shape[-1], math.prod(A.shape[:-2])
    if n == 0 or channels == 0:
        return np.zeros_like(A)
    d = balancing_scales(A) if balanced else np.ones(A.shape[:-1])
    if (d != 1).any():
        options = {"horizon": None, "continuous": continuous, "where": where, "cure": cure}
        options["balanced"] = False
        scaled = A / d[..., :, None] * d[..., None, :]
        factor = d[..., :, None] * dense_factor(scaled, B / d[..., :, None], **options)
        if _is_solution(A, B, factor, continuous):
            return factor
    if n > (LARGE_CONTINUOUS_ORDER if continuous else LARGE_ORDER):
        flat_A, flat_B = A.reshape(channels, n, n), B.reshape(channels, n, B.shape[-1])
        large = _large_continuous_factor if continuous else _squared_factor
        factors = [large(*pair) for pair in zip(flat_A, flat_B, strict=True)]
        if all(factor is not None for factor in factors):
            return np.stack(factors).reshape(*A.shape[:-2], n, n)
    T, Z = schur(adjoint(A), output="complex")[:2]
    R = adjoint(compressed(adjoint(Z) @ B, n))
    flat = np.ascontiguousarray(T, dtype=np.complex128).reshape(channels, n, n)
    margins = np.empty(channels * n)
    poles = np.diagonal(flat, axis1=-2, axis2=-1).reshape(channels * n)
    fill_stability_margins(np.ascontiguousarray(poles), continuous, margins)
    if not (margins > 0).all():
        worst = poles[int(np.argmin(margins))]
        raise UnstableSystemError(
            message(
                where,
                "a pole is not stable, or lies on the stability boundary within rounding",
                expected="Re(pole) < 0" if continuous else "|pole| < 1",
                got=f"{worst.real if continuous else abs(worst):.17g}",
                cure=cure,
            )
        )
    U = np.empty_like(flat)
    fill_lyapunov_factor(
        flat, np.array(R, dtype=np.complex128).reshape(channels, n, n), continuous, U
    )
    L = Z @ adjoint(U.reshape(T.shape))
    if np.iscomplexobj(A) or np.iscomplexobj(B):
        return L
    # Real data: the real n x n factor of the same L L^*.
    return compressed(np.concatenate([L.real, L.imag], axis=-1), n)


def dense_finite_gramian(A: np.ndarray, B: np.ndarray, horizon: int, where: str) -> np.ndarray:
    """Return ``sum_{k < horizon} A^k B B^* A^{*k}`` as ``L L^*``."""
    factor = dense_factor(A, B, horizon=horizon, continuous=False, where=where)
    return factor @ adjoint(factor)


def _doubled_factor(A: np.ndarray, B: np.ndarray, horizon: int, where: str) -> np.ndarray:
    factor, power = _narrowed(B), A
    with np.errstate(all="ignore"):  # overflow is found and reported below
        for bit in bin(horizon)[3:]:
            factor = _narrowed(np.concatenate([factor, power @ factor], axis=-1))
            power = power @ power
            if bit == "1":
                factor = _narrowed(np.concatenate([B, A @ factor], axis=-1))
                power = A @ power
            if not np.isfinite(factor).all():
                raise AccuracyError(
                    message(
                        where,
                        f"the states overflow float64 within {horizon} samples",
                        cure="Shorten the horizon.",
                    )
                )
    return compressed(factor, A.shape[-1])


def _squared_factor(A: np.ndarray, B: np.ndarray) -> np.ndarray | None:
    """Return the infinite-horizon factor of one discrete system, None where A^t is slow to fall."""
    n = A.shape[0]
    factor, power = _narrowed(B), A
    for _ in range(ROUNDS):
        size = np.linalg.norm(power)
        if not size <= GROWTH * math.sqrt(n):
            return None
        factor = _narrowed(np.concatenate([factor, power @ factor], axis=-1))
        if size < NEGLIGIBLE:
            return compressed(factor, n)
        power = power @ power
    return None


def _large_continuous_factor(A: np.ndarray, B: np.ndarray) -> np.ndarray | None:
    """Return the factor through the bilinear map, None where its residual is not small."""
    pair = bilinear_pair(A)
    factor = None if pair is None else _squared_factor(pair[0], pair[1] @ B)
    return factor if factor is not None and _is_solution(A, B, factor, True) else None


def _is_solution(A: np.ndarray, B: np.ndarray, factor: np.ndarray, continuous: bool) -> bool:
    """Tell whether a factor has a small residual, in the norm of A as it is."""
    P, W = factor @ adjoint(factor), B @ adjoint(B)
    computed, _, scale = residual_sizes(symmetric_terms(A, None, not continuous), P, W)
    return bool((computed <= SMALL_RESIDUAL * scale).all())


def _narrowed(factor: np.ndarray) -> np.ndarray:
    """Return a factor (..., n, k) of the same product with at most n columns."""
    n, k = factor.shape[-2:]
    return factor if k <= n else compressed(factor, n)
