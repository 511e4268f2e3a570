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

from ssmred.norms.response_form import UNIT
from ssmred.systems.modes import separated_modes

__all__ = ["Triangular", "modal_form", "schur_form"]


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

    Poles too close to separate stay together, in a triangular block around their mean.
    """
    modes = separated_modes(A, B, C, even=True)
    if modes is None:
        return None
    T, Q, turned = _blocks(modes.poles, modes.changes, modes.sizes)
    new_b, new_c = Q.conj().T @ modes.B, modes.C @ Q
    found = np.diagonal(T)
    distances = np.abs(found.real) if continuous else np.abs(1 - np.abs(found))
    backward = 2 * (modes.left + turned) + 2 * UNIT * np.maximum(np.abs(found), distances)
    # turns mix modes; what stays together is mixed most
    largest = modes.sizes.max()
    mixed = modes.turn if largest == 1 else 1.0
    rounding = 4 * UNIT * (2 + math.sqrt(largest))
    inputs, outputs = (
        float(np.linalg.norm((rounding * (size + mixed * size.max()) + doubt) / np.sqrt(backward)))
        for size, doubt in (
            (np.linalg.norm(new_b, axis=1), modes.doubt_b),
            (np.linalg.norm(new_c, axis=0), modes.doubt_c),
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
