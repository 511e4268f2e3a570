"""Small models in modal form, of real systems by half: what the search for them moves.

Theory: ``theory/quadratic-h2.md``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ssmred.systems.dense import DenseSystem
from ssmred.systems.diagonal import DiagonalSystem
from ssmred.systems.linear import LinearSystem

__all__ = ["ModalStates", "modal_states"]

CONDITION_LIMIT = 1e12
"""Eigenvectors worse than this are no use."""


@dataclass(frozen=True, eq=False)
class ModalStates:
    """Hold poles and rows of B; for a real system one of every pair, and the real ones.

    Attributes
    ----------
    poles : (q,) complex128
    rows : (q, m) complex128
        Of length 1: the read-out takes up any factor. Real for real poles of a real system.
    real : bool
    """

    poles: np.ndarray
    rows: np.ndarray
    real: bool

    @property
    def pairs(self) -> np.ndarray:
        """Which poles (q,) stand for a pair."""
        return (self.poles.imag != 0) & self.real

    @property
    def order(self) -> int:
        """Number of states, pairs written out."""
        return len(self.poles) + int(self.pairs.sum())

    def written_out(self) -> tuple[np.ndarray, np.ndarray]:
        """Return poles (r,) and rows (r, m), the conjugates at the end."""
        pairs = self.pairs
        return (
            np.concatenate([self.poles, self.poles[pairs].conj()]),
            np.concatenate([self.rows, self.rows[pairs].conj()]),
        )

    def folded(self, values: np.ndarray) -> np.ndarray:
        """Return coefficients (q, ...) of the parameters from those (r, ...) of all modes.

        With ``dJ = 2 Re sum_j values_j conj(dz_j)`` over all modes, the same sum over the stored
        ones.
        """
        q = len(self.poles)
        out = values[:q].copy()
        out[self.pairs] += values[q:].conj()
        return out

    def mirrored(self, continuous: bool) -> ModalStates:
        """Return states with the unstable poles on the other side of the boundary."""
        poles = self.poles
        if continuous:
            return replace(self, poles=np.where(poles.real < 0, poles, -poles.conj()))
        size = np.abs(poles)
        inverse = poles / np.where(size >= 1, size, 1.0) ** 2
        return replace(self, poles=np.where(size < 1, poles, inverse))

    def margins(self, continuous: bool) -> np.ndarray:
        """Return how far poles are from the boundary, negative beyond it."""
        return -self.poles.real if continuous else 1 - np.abs(self.poles)

    def system(self, like: LinearSystem) -> DenseSystem:
        """Return a dense system with these states and no outputs, real for a real system."""
        q = len(self.poles)
        silent = np.zeros((0, q)), np.zeros((0, self.rows.shape[-1]))
        modes = DiagonalSystem(self.poles, self.rows, *silent, like.dt, recurrence=like.recurrence)
        if not self.real:
            return modes.to_dense()
        dense = modes.replace(real_output=True).realified()
        used = np.stack([np.ones(q, bool), self.pairs], axis=-1).ravel()
        return dense.replace(A=dense.A[np.ix_(used, used)], B=dense.B[used], C=dense.C[:, used])


def modal_states(A: np.ndarray, B: np.ndarray, real: bool) -> ModalStates | None:
    """Return the modes of (A, B) that are driven, None where the eigenvectors are no use.

    Parameters
    ----------
    A, B : (r, r), (r, m)
    real : bool
        Whether to keep one of every conjugate pair; A and B are real then.
    """
    if not (np.isfinite(A).all() and np.isfinite(B).all()):
        return None
    poles, S = np.linalg.eig(A)
    if not np.linalg.cond(S) <= CONDITION_LIMIT:
        return None
    poles, rows = poles + 0j, np.linalg.solve(S, B) + 0j
    if real:
        kept = poles.imag >= 0
        poles, rows = poles[kept], rows[kept]
        rows[poles.imag == 0] = rows[poles.imag == 0].real
    sizes = np.linalg.norm(rows, axis=-1)
    used = sizes > 0
    return ModalStates(poles[used], rows[used] / sizes[used, None], real)
