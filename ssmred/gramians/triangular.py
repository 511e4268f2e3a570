"""Large single equations: Schur form, recursive back substitution, and squaring.

Theory: ``theory/schur-equations.md``.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import schur

from ssmred.kernels.doubling import NEGLIGIBLE, is_hopeless
from ssmred.kernels.scaling import fill_scales
from ssmred.kernels.sylvester import REFINED, fill_triangular_solution

__all__ = ["balancing_scales", "bilinear_pair", "doubled_solution", "schur_solution"]

LEAF = 64
"""Blocks of this order are solved by the kernel; the rest is matrix products."""


def balancing_scales(A: np.ndarray) -> np.ndarray:
    """Return d (..., n), powers of two, such that ``diag(d)^-1 A diag(d)`` is balanced.

    All 1 unless that lowers the Frobenius norm of A (..., n, n) tenfold. Without it, the Schur form
    of states in very different units is right to rounding of the largest of them only.
    """
    n = A.shape[-1]
    d = np.ones(A.shape[:-1])
    if d.size:
        fill_scales(np.ascontiguousarray(A).reshape(-1, n, n), d.reshape(-1, n))
    return d


def schur_solution(
    A: np.ndarray, B: np.ndarray, W: np.ndarray, *, same: bool, discrete: bool
) -> tuple[np.ndarray, float]:
    """Return X of ``X - A X B^* = W`` (or ``A X + X B^* = W``) and the smallest relative pivot.

    Parameters
    ----------
    A : (n, n) float64 or complex128
    B : (m, m) of the same dtype
    W : (n, m) of the same dtype
    same : bool
        Whether B is A.
    discrete : bool

    Returns
    -------
    X : (n, m) of the same dtype
    pivot : float
        0 where the equation is singular.

    Notes
    -----
    Level FLOAT. O(n^3 + m^3 + n m (n + m)), nearly all of it in matrix products.
    """
    S, U = schur(A, output="real")[:2]
    T, V = (S, U) if same else schur(B, output="real")[:2]
    Y = U.conj().T @ W @ V
    pivot = _solve_blocks(S, T, Y, discrete)
    X = U @ Y @ V.conj().T
    if pivot > 0:  # one step of refinement, with the residual of the given matrices
        residual = W - X + A @ X @ B.conj().T if discrete else W - A @ X - X @ B.conj().T
        change = U.conj().T @ residual @ V
        _solve_blocks(S, T, change, discrete)
        change = U @ change @ V.conj().T
        if np.abs(change).max(initial=0.0) <= REFINED * np.abs(X).max(initial=0.0):
            X = X + change
    return X, pivot


def doubled_solution(
    A: np.ndarray, W: np.ndarray, *, rounds: int, growth: float
) -> np.ndarray | None:
    """Return X of ``X - A X A^* = W`` by squaring A, None where that does not converge.

    Parameters
    ----------
    A, W : (n, n) of one dtype
    rounds : int
        Squarings at most.
    growth : float
        Give up where ``||A^(2^k)||_F`` exceeds it times ``||I||_F``.

    Returns
    -------
    (n, n) of the same dtype, or None
    """
    total, power = W.copy(), A
    limit = growth * np.sqrt(A.shape[0])
    previous = np.inf
    for k in range(rounds):
        size = np.linalg.norm(power)
        if not size <= limit or is_hopeless(size, previous, k, rounds):
            return None
        previous = size
        total += power @ total @ power.conj().T
        if size < NEGLIGIBLE:
            return total
        power = power @ power
    return None


def bilinear_pair(A: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Return F and V such that ``A X + X A^* + W = 0`` means ``X - F X F^* = V W V^*``.

    ``F = (b I - A)^-1 (b I + A)``, ``V = sqrt(2 b) (b I - A)^-1``, b near the geometric mean of
    the largest and the smallest singular value of A (n, n). None where A is triangular, so that
    nothing is better than its diagonal, or where it is singular, or b an eigenvalue.
    """
    n = A.shape[0]
    if not (np.tril(A, -1).any() and np.triu(A, 1).any()):
        return None
    try:
        shift = np.sqrt(_norm_estimate(A)) / np.sqrt(_norm_estimate(np.linalg.inv(A)))
        gap, eye = shift * np.eye(n) - A, np.eye(n)
        pair = np.linalg.solve(gap, shift * eye + A), np.linalg.solve(gap, np.sqrt(2 * shift) * eye)
    except np.linalg.LinAlgError:
        return None
    return pair if all(np.isfinite(M).all() for M in pair) else None


def _norm_estimate(M: np.ndarray) -> float:
    """Return an upper bound of the spectral norm, from the largest row and column sums."""
    return float(np.sqrt(np.linalg.norm(M, 1)) * np.sqrt(np.linalg.norm(M, np.inf)))


def _solve_blocks(S: np.ndarray, T: np.ndarray, X: np.ndarray, discrete: bool) -> float:
    n, m = X.shape
    if max(n, m) <= LEAF:
        leaf = X.T.copy()
        pivot = fill_triangular_solution(S.T.copy(), T.T.copy(), leaf, discrete)
        X[:] = leaf.T
        return pivot
    if n >= m:
        k = _cut(S)
        later = _solve_blocks(S[k:, k:], T, X[k:], discrete)
        if discrete:
            X[:k] += S[:k, k:] @ (X[k:] @ T.conj().T)
        else:
            X[:k] -= S[:k, k:] @ X[k:]
        return min(later, _solve_blocks(S[:k, :k], T, X[:k], discrete))
    k = _cut(T)
    later = _solve_blocks(S, T[k:, k:], X[:, k:], discrete)
    carried = X[:, k:] @ T[:k, k:].conj().T
    if discrete:
        X[:, :k] += S @ carried
    else:
        X[:, :k] -= carried
    return min(later, _solve_blocks(S, T[:k, :k], X[:, :k], discrete))


def _cut(T: np.ndarray) -> int:
    """Return an index near the middle that splits no 2 x 2 block."""
    k = T.shape[0] // 2
    return k + 1 if T[k, k - 1] != 0 else k
