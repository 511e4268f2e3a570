"""What quadratic outputs see of the states, and the linear outputs with the same Gramian Q.

Theory: ``theory/quadratic-output.md``.
"""

from __future__ import annotations

import numpy as np

from ssmred.kernels.blas import blas_threads
from ssmred.systems.linear import LinearSystem, adjoint
from ssmred.systems.quadratic import QuadraticOutputSystem
from ssmred.systems.quadratic_forms import HERMITIAN

__all__ = ["seen_by", "seen_through", "with_quadratic_rows"]


def seen_through(system: QuadraticOutputSystem, L: np.ndarray) -> np.ndarray:
    """Return matrices (..., p, k, k) with the Frobenius norms of ``L^* M_j L`` (``L^T``).

    Parameters
    ----------
    system : QuadraticOutputSystem
        Without ``real_output``.
    L : (..., n, K)

    Notes
    -----
    With factors of rank r, ``k = min(2 r, K)``: ``L^* M L = W J W^*`` with ``W = L^* (U, V)``, and
    ``T J T^*`` with the triangular factor T of W has the same norm. No squares are formed.
    """
    L = L[..., None, :, :]
    hermitian = system.convention == HERMITIAN
    left = adjoint(L) if hermitian else np.swapaxes(L, -1, -2)
    if system.factors is None:
        return left @ system.M @ L
    W = left @ np.concatenate(system.factors, axis=-1)
    with blas_threads(W.shape[-1]):
        T = np.linalg.qr(W, mode="r")
    return T @ _halves_swapped(adjoint(T) if hermitian else np.swapaxes(T, -1, -2)) / 2


def seen_by(system: QuadraticOutputSystem, L: np.ndarray) -> np.ndarray:
    """Return the matrices ``L^* M_j L`` (``L^T``) themselves, (..., p, K, K)."""
    tall = L[..., None, :, :]
    left = adjoint(tall) if system.convention == HERMITIAN else np.swapaxes(tall, -1, -2)
    if system.factors is None:
        return left @ system.M @ tall
    U, V = system.factors
    one, two = left @ U, left @ V
    flipped = np.conj if system.convention == HERMITIAN else np.asarray
    product = one @ np.swapaxes(flipped(two), -1, -2)
    return (product + np.swapaxes(flipped(product), -1, -2)) / 2


def with_quadratic_rows(system: QuadraticOutputSystem, L: np.ndarray) -> LinearSystem:
    """Return the linear system whose observability Gramian is that of all outputs.

    Beside C it has the rows ``S_j`` with ``S_j^* S_j = M_j P M_j`` (transpose: ``M_j^* conj(P)
    M_j``), of as many rows as the rank of the factors doubled.

    Parameters
    ----------
    system : QuadraticOutputSystem
    L : (..., n, K)
        ``P = L L^*``.
    """
    hermitian = system.convention == HERMITIAN
    tall = L[..., None, :, :]
    left = adjoint(tall) if hermitian else np.swapaxes(tall, -1, -2)
    if system.factors is None:
        rows = left @ system.M
    else:
        both = np.concatenate(system.factors, axis=-1)
        W = left @ both
        with blas_threads(W.shape[-1]):
            T = np.linalg.qr(W, mode="r")
        rows = T @ _halves_swapped(adjoint(both) if hermitian else np.swapaxes(both, -1, -2)) / 2
    linear = system.linear
    rows = rows.reshape(*system.batch_shape, -1, system.order)
    direct = np.zeros((*system.batch_shape, rows.shape[-2], system.inputs))
    return linear.replace(
        C=np.concatenate([linear.C, rows], axis=-2), D=np.concatenate([linear.D, direct], axis=-2)
    )


def _halves_swapped(rows: np.ndarray) -> np.ndarray:
    """Return ``J X`` with ``J = (0, I; I, 0)``."""
    half = rows.shape[-2] // 2
    return np.concatenate([rows[..., half:, :], rows[..., :half, :]], axis=-2)
