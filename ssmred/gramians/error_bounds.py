"""What the residual of a linear matrix equation says about the error of its solution.

Theory: ``theory/residual-bound.md``.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import schur

from ssmred.errors import AccuracyError
from ssmred.gramians.residuals import (
    SLACK,
    UNIT,
    Terms,
    frobenius_norms,
    general_terms,
    residual_sizes,
    symmetric_terms,
)
from ssmred.gramians.solvers import solved_equation
from ssmred.gramians.triangular import balancing_scales
from ssmred.kernels.sylvester import fill_majorant
from ssmred.systems.linear import adjoint

__all__ = ["general_bounds", "gramian_bound", "majorant_bound", "symmetric_bounds"]


def symmetric_bounds(A: np.ndarray, X: np.ndarray, W: np.ndarray, discrete: bool) -> np.ndarray:
    """Return bounds (...) on ``||X - exact||_2`` for ``X - A X A^* = W``, or the Lyapunov equation.

    From the residual of the balanced equation; inf where none can be shown.
    """
    A, d = _balanced(A)
    X, W = (M / d[..., :, None] / d[..., None, :] for M in (X, W))
    residual = _residual_bounds(symmetric_terms(A, None, discrete), X, W)
    out = _products(residual, _inverse_norms(A, d, discrete))
    _fill_majorant_bounds(out, A, None, residual, d.max(axis=-1) ** 2, discrete)
    return out


def general_bounds(
    A: np.ndarray, B: np.ndarray, X: np.ndarray, W: np.ndarray, discrete: bool
) -> np.ndarray:
    """Return the same for ``X - A X B = W``, or ``A X + X B = W``."""
    A, d = _balanced(A)
    B, e = _balanced(adjoint(B))
    X, W = (M / d[..., :, None] / e[..., None, :] for M in (X, W))
    residual = _residual_bounds(general_terms(A, adjoint(B), discrete), X, W)
    sign = 1.0
    if not discrete:  # both may be anti-stable
        traces = np.trace(A, axis1=-2, axis2=-1).real + np.trace(B, axis1=-2, axis2=-1).real
        sign = np.where(traces > 0, -1.0, 1.0)[..., None, None]
    left, right = (_inverse_norms(sign * M, s, discrete) for M, s in ((A, d), (B, e)))
    out = _products(residual, SLACK * np.sqrt(left) * np.sqrt(right))
    factor = d.max(axis=-1) * e.max(axis=-1)
    _fill_majorant_bounds(out, A, B, residual, factor, discrete)
    return out


def _residual_bounds(terms: Terms, X: np.ndarray, W: np.ndarray) -> np.ndarray:
    """Return bounds (...) of the Frobenius norms of the residuals."""
    computed, rounding, _ = residual_sizes(terms, X, W)
    return computed + rounding


def _products(residual: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """Return ``residual * inverse`` (...), 0 where the residual is 0."""
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray(np.where(residual == 0, 0.0, residual * inverse))


def _balanced(A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ``diag(d)^-1 A diag(d)`` and d."""
    d = balancing_scales(A)
    return A / d[..., :, None] * d[..., None, :], d


def _inverse_norms(A: np.ndarray, scales: np.ndarray, discrete: bool) -> np.ndarray:
    """Return bounds (...) of ``||diag(d) G diag(d)||_2``, G the solution for ``W = I``; or inf."""
    one = np.ones(A.shape[:-2])
    with np.errstate(divide="ignore"):
        shift = 0.5 * one if discrete else 0.25 / frobenius_norms(A)
    eye = np.broadcast_to(np.eye(A.shape[-1], dtype=A.dtype), A.shape)
    right = eye if discrete else -eye
    try:
        G = solved_equation(A, A, right, "ssmred", "error_bound", same=True, discrete=discrete)
    except AccuracyError:
        return np.full(one.shape, np.inf)
    terms = symmetric_terms(A, None, discrete)
    return gramian_bound(terms, one, (G + adjoint(G)) / 2, shift, scales)


def _fill_majorant_bounds(out, A, B, residual, factor, discrete: bool) -> None:
    """Replace the infinite entries of ``out`` (...); ``factor`` (...) leads back to X."""
    for index in (tuple(i) for i in np.argwhere(np.isinf(out))):
        right = None if B is None else B[index]
        bound = majorant_bound(A[index], right, residual[index], discrete=discrete)
        out[index] = factor[index] * bound


def gramian_bound(
    terms: Terms, residual: np.ndarray, G: np.ndarray, shift: np.ndarray, scales: np.ndarray
) -> np.ndarray:
    """Return a bound on ``||X - exact||_2`` for Stein and Lyapunov equations, inf if none is known.

    Parameters
    ----------
    terms : tuple
        The operator, of the form of :func:`residual_sizes`.
    residual : (...) float64
        Bound on the Frobenius norm of the residual of X.
    G : (..., n, n) float64 or complex128
        Hermitian, an approximate solution for ``W = I``.
    shift : (...) float64
        ``G - shift I`` has to be positive definite.
    scales : (..., n) float64
        d, powers of two: bound ``diag(d) (X - exact) diag(d)`` instead.

    Returns
    -------
    (...) float64
        ``residual ||diag(d) G diag(d)|| / (1 - ||I - operator(G)||)`` where G proves the pair
        stable.
    """
    n = G.shape[-1]
    identity = np.broadcast_to(np.eye(n, dtype=G.dtype), G.shape)
    computed, rounding, _ = residual_sizes(terms, G, identity)
    defect = (computed + rounding) * SLACK
    finite = np.isfinite(G).all(axis=(-1, -2)) & np.isfinite(shift)
    norm = _norm_bounds(G)
    final = _norm_bounds(scales[..., :, None] * G * scales[..., None, :])
    trusted = finite & (defect < 1) & (8 * (n + 2) ** 2 * UNIT * norm < shift)
    bound = np.full(residual.shape, np.inf)
    for index in (tuple(i) for i in np.argwhere(trusted)):
        try:
            np.linalg.cholesky(G[index] - shift[index] * np.eye(n))
        except np.linalg.LinAlgError:
            continue
        bound[index] = SLACK * residual[index] * final[index] / (1 - defect[index])
    return bound


def majorant_bound(
    A: np.ndarray, B: np.ndarray | None, residual: float, *, discrete: bool
) -> float:
    """Return a bound on ``||X - exact||_F`` for ``X - A X B^*`` or ``A X + X B^*``, or inf.

    Parameters
    ----------
    A : (n, n) float64 or complex128
    B : (m, m) float64 or complex128, or None
        None stands for A.
    residual : float
        Bound on the Frobenius norm of the residual of X.
    discrete : bool

    Returns
    -------
    float
        Holds for any eigenvalues; grows quickly with the order of far from normal matrices.

    Notes
    -----
    Level FLOAT, O(n m (n + m)).
    """
    n, m = A.shape[0], A.shape[0] if B is None else B.shape[0]
    with np.errstate(over="ignore", invalid="ignore"):
        left = _schur_with_defects(A)
        right = left if B is None else _schur_with_defects(B)
        (S, left_defect, left_spread), (T, right_defect, right_spread) = left, right
        if not (left_spread < 0.5 and right_spread < 0.5):
            return np.inf
        majorant = np.empty((m, n))
        fill_majorant(
            np.diagonal(S).copy(), np.diagonal(T).copy(), np.abs(S.T), np.abs(T), discrete, majorant
        )
        inverse = np.sqrt(n * m) * majorant.max(initial=0.0) * SLACK
        # ||U||, ||V|| <= large and ||U^-1||, ||V^-1|| <= 1 / small
        large = np.sqrt((1 + left_spread) * (1 + right_spread))
        small = np.sqrt((1 - left_spread) * (1 - right_spread))
        if discrete:
            norms = np.sqrt(1 + right_spread) * np.linalg.norm(T) + right_defect
            change = left_defect * norms
            change += np.sqrt(1 + left_spread) * np.linalg.norm(S) * right_defect
        else:
            change = left_defect * np.sqrt(1 + right_spread)
            change += np.sqrt(1 + left_spread) * right_defect
        denominator = 1 - SLACK * inverse * change / small
        if not denominator > 0:
            return np.inf
        return float(SLACK * large * inverse * residual / small / denominator)


def _schur_with_defects(A: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Return T, a bound on ``||A U - U T||_F`` and one on ``||U^* U - I||_F``."""
    n = A.shape[0]
    T, U = schur(np.asarray(A, dtype=np.complex128), output="complex")[:2]
    steps = 4 * (n + 4) * UNIT
    sizes = np.linalg.norm(U) * (np.linalg.norm(A) + np.linalg.norm(T))
    defect = np.linalg.norm(A @ U - U @ T) + steps * SLACK * sizes
    spread = np.linalg.norm(U.conj().T @ U - np.eye(n)) + steps * SLACK * (2 * n + 1)
    return T, float(defect * SLACK), float(spread * SLACK)


def _norm_bounds(M: np.ndarray) -> np.ndarray:
    """Return upper bounds of the spectral norms of Hermitian matrices."""
    return np.minimum(frobenius_norms(M), np.abs(M).sum(axis=-1).max(axis=-1, initial=0.0)) * SLACK
