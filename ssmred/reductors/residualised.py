"""Singular perturbation: balanced states at rest instead of truncated, the static gain kept.

Theory: ``theory/residualisation.md``.
"""

from __future__ import annotations

import numpy as np

from ssmred.errors import AccuracyError, message
from ssmred.reductors.balanced import balanced
from ssmred.reductors.balancing import Balancing, dense_result
from ssmred.reductors.moving import MovingReductor
from ssmred.systems.dense import DenseSystem
from ssmred.systems.diagonal import DiagonalSystem
from ssmred.systems.linear import LinearSystem
from ssmred.systems.stability import check_stable

__all__ = ["ResidualisedReductor"]


class ResidualisedReductor(MovingReductor):
    """Set the hardly reachable and observable states to their equilibrium (DC matching).

    The static gain is that of the full system: ``H_r(1) = H(1)``, or ``H_r(0) = H(0)`` in
    continuous time. Fits low frequencies best where truncation fits high ones.

    Parameters
    ----------
    form : {"input", "dense", "diagonal"}

    Notes
    -----
    ``||H - H_r||_inf <= 2 (sigma_{r+1} + ... + sigma_n)``, the bound of balanced truncation; the
    direct term changes, so post-update systems are reduced in the standard recurrence. Level
    FLOAT. Theory: ``theory/residualisation.md``. Source: [LiuAnderson1989].

    Examples
    --------
    >>> system = DenseSystem([[-1.0, 0.0], [0.0, -9.0]], [1.0, 1.0], [1.0, 1.0], dt=0)
    >>> reduced = ResidualisedReductor().reduce(system, order=1).system
    >>> gain = reduced.frequency_response(np.array([0.0]))[0, 0, 0]
    >>> bool(abs(gain - (1 + 1 / 9)) < 1e-14)
    True
    """

    method = "residualised"
    theorem = "residualisation"
    moves_direct_term = True

    def check_accepts(self, system: LinearSystem) -> None:
        """Raise UnstableSystemError unless every pole is stable."""
        super().check_accepts(system)
        check_stable(system, "ResidualisedReductor")

    def core(self, system: LinearSystem) -> _ResidualCore:
        """Return the balanced bases of a flat batch."""
        return _ResidualCore(system, balanced(system, "ResidualisedReductor"))


class _ResidualCore:
    norm = "hinf"
    theorem = "residualisation"

    def __init__(self, system: LinearSystem, balancing: Balancing) -> None:
        self.system, self.balancing = system, balancing
        self.hankel = balancing.values
        self.errors = balancing.tail_bounds()
        self.norms = self.hankel[:, 0]

    def reduced(self, channels: np.ndarray, order: int) -> tuple[DenseSystem, None, None]:
        """Return the residualised systems."""
        return residualised(self.system, self.balancing, channels, order), None, None


def residualised(
    system: LinearSystem, balancing: Balancing, channels: np.ndarray, order: int
) -> DenseSystem:
    """Return ``A_r = z + M^{-1}``, ``B_r = M^{-1} b``, ``C_r = c M^{-1}``, ``M = W^* N V``.

    ``N = (A - z)^{-1}``, ``b = W^* N B``, ``c = C N V`` and ``D_r = D - C N B + c M^{-1} b``, with
    z = 1, or 0 in continuous time. States whose Hankel singular value is 0 stay zero.
    """
    shift = 1.0 if system.is_discrete else 0.0
    part = balancing.compression(channels, order, shift)
    empty = np.logical_not(part.A.any(axis=-1) | part.A.any(axis=-2))  # beyond the rank
    M = part.A + empty[..., None] * np.eye(order)
    size = part.B.shape[-1]
    right = np.concatenate([part.B, np.broadcast_to(np.eye(order), M.shape)], -1)
    try:
        both = np.linalg.solve(M, right)
    except np.linalg.LinAlgError as error:  # equal Hankel values on both sides of the cut
        raise AccuracyError(
            message(
                "ResidualisedReductor",
                f"states at rest do not determine a model of order {order}",
                cure="Choose another order; that one splits equal Hankel singular values.",
            )
        ) from error
    B, inverse = both[..., :size], both[..., size:]
    A = shift * np.eye(order) + inverse
    rest = 0.5 if system.is_discrete else -1.0  # no 0: a post-update form divides by A
    A = np.where(empty[..., None] & np.eye(order, dtype=bool), rest, A)
    D = _static_gain(system, channels, shift) + part.C @ B
    return dense_result(system, A, B, part.C @ inverse, D)


def _static_gain(system: LinearSystem, channels: np.ndarray, shift: float) -> np.ndarray:
    """Return ``D - C (A - z)^{-1} B`` of some channels."""
    B, C, D = system.B[channels], system.C[channels], system.D[channels]
    if isinstance(system, DiagonalSystem):
        product = C @ (B / (system.poles[channels] - shift)[..., None])
    else:
        A = system.A[channels]  # type: ignore[attr-defined]
        product = C @ np.linalg.solve(A - shift * np.eye(system.order), B)
    return D - (product.real if system.real_output else product)
