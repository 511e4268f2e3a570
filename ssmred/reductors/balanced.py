"""Balanced truncation by the square-root method.

Theory: ``theory/balanced-truncation.md``.
"""

from __future__ import annotations

import numpy as np

from ssmred.gramians import controllability_factor, observability_factor
from ssmred.reductors.moving import MovingReductor
from ssmred.reductors.reduction import Projection
from ssmred.systems.dense import DenseSystem
from ssmred.systems.linear import LinearSystem
from ssmred.systems.stability import check_stable

__all__ = ["BalancedReductor"]


class BalancedReductor(MovingReductor):
    """Truncate the states that are hard to reach and hard to observe at once.

    Parameters
    ----------
    form : {"input", "dense", "diagonal"}

    Notes
    -----
    ``||H - H_r||_inf <= 2 (sigma_{r+1} + ... + sigma_n)``; level FLOAT.
    """

    method = "balanced"

    def check_accepts(self, system: LinearSystem) -> None:
        """Raise UnstableSystemError unless every pole is stable."""
        super().check_accepts(system)
        check_stable(system, "BalancedReductor")

    def core(self, system: LinearSystem) -> _BalancedCore:
        """Return the factors of the Gramians and the Hankel singular values."""
        return _BalancedCore(system.realified() if system.is_real else system.to_dense())


class _BalancedCore:
    norm = "hinf"
    theorem = "balanced-truncation"

    def __init__(self, system: DenseSystem) -> None:
        self.system = system
        self.Lp, self.Lq = controllability_factor(system), observability_factor(system)
        self.Z, self.hankel, self.Yh = np.linalg.svd(_adjoint(self.Lq) @ self.Lp)
        tails = np.cumsum(self.hankel[:, ::-1], axis=-1)[:, ::-1]
        self.errors = 2 * np.concatenate([tails, np.zeros((len(tails), 1))], axis=-1)
        self.norms = self.hankel[:, 0]

    def reduced(self, channels: np.ndarray, order: int) -> tuple[DenseSystem, Projection, None]:
        """Return the truncated balanced systems."""
        root = np.sqrt(self.hankel[channels, None, :order])
        V = self.Lp[channels] @ _adjoint(self.Yh[channels])[..., :order] / root
        W = self.Lq[channels] @ self.Z[channels][..., :order] / root
        full = self.system
        system = full.replace(
            A=_adjoint(W) @ full.A[channels] @ V,
            B=_adjoint(W) @ full.B[channels],
            C=full.C[channels] @ V,
            D=full.D[channels],
        )
        return system, Projection(V, W), None


def _adjoint(matrices: np.ndarray) -> np.ndarray:
    return np.swapaxes(matrices, -1, -2).conj()
