"""Residuals of linear matrix equations.

Theory: ``theory/residual-bound.md``.
"""

from __future__ import annotations

import numpy as np

from ssmred.systems.linear import adjoint

__all__ = [
    "SLACK",
    "UNIT",
    "Terms",
    "frobenius_norms",
    "general_terms",
    "residual_sizes",
    "symmetric_terms",
]

UNIT = 2.0**-53
SLACK = 1.0 + 2.0**-20
"""Covers the rounding of the norms and of the few products of norms, far below it."""

SMALLEST, LARGEST = 1e-140, 1e140
"""Norms outside are computed again with scaling: squares lose digits or overflow."""

Terms = tuple[tuple[float, np.ndarray | None, np.ndarray | None], ...]
"""``sum_t s_t L_t X R_t``; None stands for the identity."""


def symmetric_terms(A: np.ndarray, E: np.ndarray | None, discrete: bool) -> Terms:
    """Return the operator ``E X E^* - A X A^*`` or ``-A X E^* - E X A^*``; E None stands for I."""
    E_adjoint = None if E is None else adjoint(E)
    if discrete:
        return ((1.0, E, E_adjoint), (-1.0, A, adjoint(A)))
    return ((-1.0, A, E_adjoint), (-1.0, E, adjoint(A)))


def general_terms(A: np.ndarray, B: np.ndarray, discrete: bool) -> Terms:
    """Return the operator ``X - A X B`` or ``A X + X B``."""
    if discrete:
        return ((1.0, None, None), (-1.0, A, B))
    return ((1.0, A, None), (1.0, None, B))


def residual_sizes(
    terms: Terms, X: np.ndarray, W: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the residual of ``sum_t s_t L_t X R_t = W``.

    Parameters
    ----------
    terms : tuple of (float, (..., n, n) or None, (..., m, m) or None)
        The signs ``s_t``, ``L_t`` and ``R_t``.
    X, W : (..., n, m) float64 or complex128

    Returns
    -------
    residual : (...) float64
        Frobenius norm of the computed residual.
    rounding : (...) float64
        Bound on the Frobenius norm of what rounding changed in it.
    scale : (...) float64
        ``||W||_F + sum_t ||L_t||_F ||X||_F ||R_t||_F``, spectral norm 1 for the identity.
    """
    difference, scale, size = W.copy(), frobenius_norms(W), frobenius_norms(X)
    for sign, left, right in terms:
        term, weight = X, size
        if left is not None:
            term, weight = left @ term, weight * frobenius_norms(left)
        if right is not None:
            term, weight = term @ right, weight * frobenius_norms(right)
        difference -= sign * term
        scale = scale + weight
    steps = (X.shape[-2] + X.shape[-1] + 6) * (4 if np.iscomplexobj(difference) else 1)
    return frobenius_norms(difference), steps * UNIT / (1 - steps * UNIT) * SLACK * scale, scale


def frobenius_norms(M: np.ndarray) -> np.ndarray:
    """Return the Frobenius norms (...) of matrices (..., n, m), of any size that float64 holds."""
    with np.errstate(over="ignore", under="ignore"):
        norms = np.sqrt((M.real**2 + M.imag**2).sum(axis=(-1, -2)))
    odd = ~((norms > SMALLEST) & (norms < LARGEST))
    if odd.any():
        part = M[odd]
        size = np.maximum(np.abs(part.real), np.abs(part.imag)).max(axis=(-1, -2), initial=0.0)
        size = np.where((size > 0) & np.isfinite(size), size, 1.0)
        scaled = part / size[..., None, None]
        with np.errstate(over="ignore"):
            whole = size * np.sqrt((scaled.real**2 + scaled.imag**2).sum(axis=(-1, -2)))
        norms = np.array(norms)
        norms[odd] = whole
    return norms
