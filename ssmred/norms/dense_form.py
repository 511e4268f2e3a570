"""Triangular and diagonal forms of dense systems, with what rounding did to them.

Theory: ``theory/hinf-enclosure.md``, items 4 and 5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.linalg import matrix_balance, schur
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from ssmred.kernels.accurate_product import fill_accurate_product
from ssmred.norms.response_form import UNIT

__all__ = ["Triangular", "modal_form", "schur_form"]

LARGEST_MODAL = 128  # order; products in twice the precision cost n^3 slow operations
SMALL_TURN = 1e-3  # correction of an eigenvector by another one: beyond it they stay together
TINY = 1e-300
LARGEST_TURN = 0.5  # all corrections together


@dataclass(frozen=True)
class Triangular:
    """Hold ``(T, B, C)`` similar to ``(A + E, B, C)``, T upper triangular.

    Parameters
    ----------
    T : (n, n) complex128
    B, C : (n, m), (p, n) complex128
    backward : (n,) float64
        ``||E||`` of the block that a state belongs to; 0 where the block was triangular already.
    inputs, outputs : float
        ``(sum ||dB||^2 / ||E||)^(1/2)`` over the blocks, and for C: what rounding did to them.
    """

    T: np.ndarray
    B: np.ndarray
    C: np.ndarray
    backward: np.ndarray
    inputs: float
    outputs: float


def schur_form(A: np.ndarray, B: np.ndarray, C: np.ndarray) -> Triangular:
    """Bring every block of states that are connected by A to triangular form."""
    number, label = connected_components(csr_array(A != 0), directed=True, connection="weak")
    n = len(A)
    order, sizes = np.argsort(label, kind="stable"), np.bincount(label, minlength=number)
    A, B, C = A[np.ix_(order, order)], B[order], C[:, order]
    T = np.zeros((n, n), np.complex128)
    new_b, new_c = B.astype(np.complex128), C.astype(np.complex128)
    backward, inputs, outputs = np.zeros(n), 0.0, 0.0
    start = 0
    for size in sizes:
        own = slice(start, start + size)
        start += int(size)
        block = A[own, own]
        if not np.tril(block, -1).any():
            T[own, own] = block
            continue
        # Powers of two: balancing changes no number but the exponents.
        balanced, (scale, permutation) = matrix_balance(block, separate=True)
        b, c = B[own][permutation] / scale[:, None], C[:, own][:, permutation] * scale
        form = schur(balanced, output="complex")
        T[own, own], Q = form[0], form[1]
        size_b, size_c = (float(np.linalg.norm(x)) for x in (b, c))
        new_b[own], new_c[:, own] = Q.conj().T @ b, c @ Q
        error = _backward_error(balanced, T[own, own], Q)
        backward[own] = error
        rounding = 4 * UNIT * math.sqrt(size)
        inputs += (rounding * size_b) ** 2 / error
        outputs += (rounding * size_c) ** 2 / error
    return Triangular(T, new_b, new_c, backward, math.sqrt(inputs), math.sqrt(outputs))


def _backward_error(A: np.ndarray, T: np.ndarray, Q: np.ndarray) -> float:
    """Return an estimate from above of ``||E||``, T the Schur form of A + E, from the residual."""
    residual = np.linalg.norm(A @ Q - Q @ T)
    skew = np.linalg.norm(Q.conj().T @ Q - np.eye(len(A)))
    size = np.linalg.norm(A)
    return float(2 * (residual + size * skew) + 4 * UNIT * size)


def modal_form(A: np.ndarray, B: np.ndarray, C: np.ndarray, continuous: bool) -> Triangular | None:
    """Return a form with poles rounded about once; None where the modes do not separate.

    Eigenvectors in float64, their residual in twice the precision, one step of correction. Poles
    too close for that stay together, in a triangular block around their mean.
    """
    n = len(A)
    if n > LARGEST_MODAL:
        return None
    try:
        poles, V = (M.astype(np.complex128) for M in np.linalg.eig(A))
        W = np.linalg.inv(V)
    except np.linalg.LinAlgError:
        return None
    if not np.linalg.norm(W @ V - np.eye(n)) <= SMALL_TURN:  # refinement would not converge
        return None
    # states scaled by powers of two so that inputs and outputs of a mode are of one size
    reached = np.maximum(np.linalg.norm(W @ B, axis=1), TINY)
    seen = np.maximum(np.linalg.norm(C @ V, axis=0), TINY)
    scale = np.exp2(np.round(0.5 * (np.log2(seen) - np.log2(reached))))
    V, W = V / scale, scale[:, None] * W
    # V^{-1} A V = diag(poles) + E
    residual = _accurate(np.hstack([A, V]), np.vstack([V, -np.diag(poles)]))
    E = W @ residual
    E += W @ (residual - V @ E)
    new_b, new_c = W @ B, _accurate(C, V)
    missing = W @ _accurate(np.hstack([B, V]), np.vstack([np.eye(B.shape[1]), -new_b]))
    new_b += missing
    gaps = poles - poles[:, None]
    number, label = connected_components(csr_array(np.abs(E) >= SMALL_TURN * np.abs(gaps)))
    together = label == label[:, None]
    inside, across = np.where(together, E, 0), np.where(together, 0, E)
    Z = across / np.where(together, 1, gaps)
    turn = float(np.linalg.norm(Z))
    if not turn <= LARGEST_TURN:
        return None
    new_b, new_c = np.linalg.solve(np.eye(n) + Z, new_b), new_c + new_c @ Z
    left = float(np.linalg.norm(inside @ Z - Z @ inside + across @ Z)) / (1 - turn)
    size_v, size_w = np.abs(V), np.abs(W)
    doubt = 4 * n * UNIT * size_v @ np.abs(E) + 4 * UNIT * np.abs(residual)
    doubt += (16 * n * UNIT) ** 2 * (np.abs(A) @ size_v + size_v * np.abs(poles))
    left += float(np.linalg.norm(size_w @ doubt))
    doubt_b = float(np.linalg.norm(4 * n * UNIT * size_w @ (size_v @ np.abs(missing))))
    doubt_c = float(np.linalg.norm((16 * n * UNIT) ** 2 * np.abs(C) @ size_v))
    order, sizes = np.argsort(label, kind="stable"), np.bincount(label, minlength=number)
    new_b, new_c = new_b[order], new_c[:, order]
    T, Q, turned = _blocks(poles[order], inside[np.ix_(order, order)], sizes)
    new_b, new_c = Q.conj().T @ new_b, new_c @ Q
    found = np.diagonal(T)
    distances = np.abs(found.real) if continuous else np.abs(1 - np.abs(found))
    backward = 2 * (left + turned) + 2 * UNIT * np.maximum(np.abs(found), distances)
    # turns mix modes; what stays together is mixed most
    mixed = turn if sizes.max() == 1 else 1.0
    rounding = 4 * UNIT * (2 + math.sqrt(sizes.max()))
    inputs, outputs = (
        float(np.linalg.norm((rounding * (size + mixed * size.max()) + doubt) / np.sqrt(backward)))
        for size, doubt in (
            (np.linalg.norm(new_b, axis=1), doubt_b),
            (np.linalg.norm(new_c, axis=0), doubt_c),
        )
    )
    return Triangular(T, new_b, new_c, backward, inputs, outputs)


def _blocks(
    poles: np.ndarray, changes: np.ndarray, sizes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return T and Q of the Schur form of ``diag(poles) + changes``, block diagonal, and its error.

    Each block is brought to triangular form after its mean is taken off: rounding is relative to
    the spread of its poles.
    """
    n = len(poles)
    T, Q, error, start = np.zeros((n, n), np.complex128), np.eye(n, dtype=np.complex128), 0.0, 0
    for size in sizes:
        own = slice(start, start + size)
        start += int(size)
        centre = poles[own].mean()
        block = changes[own, own] + np.diag(poles[own] - centre)
        if size > 1:
            form = schur(block, output="complex")
            block, Q[own, own] = form[0], form[1]
            error += 16 * size * UNIT * float(np.linalg.norm(block))
        T[own, own] = block + centre * np.eye(size)
    return T, Q, error


def _accurate(X: np.ndarray, Y: np.ndarray) -> np.ndarray:
    """Return X Y, every entry rounded about once."""
    X, Y = (np.ascontiguousarray(M, dtype=np.complex128) for M in (X, Y))
    out = np.empty((X.shape[0], Y.shape[1]), np.complex128)
    fill_accurate_product(X, Y, out)
    return out
