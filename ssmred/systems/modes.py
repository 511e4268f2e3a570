"""Modes of dense systems in twice the precision of their eigenvectors.

Theory: ``theory/hinf-enclosure.md``, item 5.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from ssmred.kernels.accurate_product import fill_accurate_product

__all__ = ["LARGEST_MODAL", "Modes", "separated_modes"]

UNIT = 2.0**-53
LARGEST_MODAL = 256  # order; products in twice the precision cost n^3 slow operations
SMALL_TURN = 1e-3  # correction of an eigenvector by another one: beyond it they stay together
LARGEST_TURN = 0.5  # all corrections together
TINY = 1e-300


@dataclass(frozen=True, eq=False)
class Modes:
    """Hold ``(diag(poles) + changes + F, B, C)``, similar to a dense system.

    Attributes
    ----------
    poles : (n,) complex128
    changes : (n, n) complex128
        About one rounding error of A; diagonal but for blocks of poles that are too close.
    sizes : (b,) int64
        Of the blocks, in order.
    B, C : (n, m), (p, n) complex128
    left : float
        Estimate of ``||F||`` from above.
    turn : float
        How far the eigenvectors were corrected.
    doubt_b, doubt_c : float
        What is wrong with B and C besides a few roundings of their entries and of ``turn``.
    """

    poles: np.ndarray
    changes: np.ndarray
    sizes: np.ndarray
    B: np.ndarray
    C: np.ndarray
    left: float
    turn: float
    doubt_b: float
    doubt_c: float


def separated_modes(
    A: np.ndarray, B: np.ndarray, C: np.ndarray, *, even: bool = False
) -> Modes | None:
    """Return the modes of one dense system, or None where they do not separate.

    Eigenvectors in float64, their residual in twice the precision, one step of correction.

    Parameters
    ----------
    A, B, C : (n, n), (n, m), (p, n)
        Above 256 states the answer is None.
    even : bool
        Scale the modes so that their inputs and outputs are of one size, which makes ``left`` less
        where responses count; silent modes get large scales.
    """
    n = len(A)
    if not 0 < n <= LARGEST_MODAL:
        return None
    try:
        poles, V = (M.astype(np.complex128) for M in np.linalg.eig(A))
        W = np.linalg.inv(V)
    except np.linalg.LinAlgError:
        return None
    if not np.linalg.norm(W @ V - np.eye(n)) <= SMALL_TURN:  # refinement would not converge
        return None
    if even:
        reached = np.maximum(np.linalg.norm(W @ B, axis=1), TINY)
        seen = np.maximum(np.linalg.norm(C @ V, axis=0), TINY)
        scale = np.exp2(np.round(0.5 * (np.log2(seen) - np.log2(reached))))  # rounds nothing
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
    return Modes(
        poles[order],
        inside[np.ix_(order, order)],
        sizes,
        new_b[order],
        new_c[:, order],
        left,
        turn,
        doubt_b,
        doubt_c,
    )


def _accurate(X: np.ndarray, Y: np.ndarray) -> np.ndarray:
    """Return X Y, every entry rounded about once."""
    X, Y = (np.ascontiguousarray(M, dtype=np.complex128) for M in (X, Y))
    out = np.empty((X.shape[0], Y.shape[1]), np.complex128)
    fill_accurate_product(X, Y, out)
    return out
