"""The two-sided iteration (TSIA) towards an h2-optimal model, for many channels at once.

Theory: ``theory/h2-optimality.md``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ssmred.norms import h2_error
from ssmred.reductors.moving import taken
from ssmred.reductors.resolvents import Resolvent, pole_gaps
from ssmred.systems.dense import DenseSystem
from ssmred.systems.diagonal import DiagonalSystem
from ssmred.systems.linear import adjoint
from ssmred.systems.stability import stability_margins

__all__ = ["two_sided_iteration"]

CONDITION_LIMIT = 1e12
"""Eigenvectors of a model, or a product ``W^* V``, worse than this end the iteration."""

RESOLUTION = 1e-14
"""Energies that differ by less, relative to the system's, count as equal: they are differences."""


@dataclass(frozen=True, eq=False)
class _Modes:
    """Hold models as ``sum_j c_j b_j / (z - l_j)``, and where (H,) that can be trusted."""

    system: DiagonalSystem
    sound: np.ndarray

    def energies(self) -> np.ndarray:
        """Return the squared h2 norms (H,)."""
        poles, B, C = self.system.poles, self.system.B, self.system.C
        weights = (B @ adjoint(B)) * (np.swapaxes(C, -1, -2) @ C.conj())
        gaps = pole_gaps(poles, poles, self.system.is_discrete)
        return np.sum(weights / gaps, axis=(-1, -2)).real


def two_sided_iteration(
    full: Resolvent, start: DenseSystem, norms: np.ndarray, *, rtol: float, steps: int
) -> tuple[DenseSystem, np.ndarray, np.ndarray]:
    """Return the best model that the iteration passes, and where it converged.

    Parameters
    ----------
    full : Resolvent
        H channels.
    start : DenseSystem
        Stable models (H,) of order r >= 1, standard recurrence; real for real systems.
    norms : (H,) float64
        The h2 norms of the strictly proper parts of the full systems.
    rtol : float
        A channel has converged once its model moves by less, in the h2 norm, relative to its norm.
    steps : int
        Models looked at, at most.

    Returns
    -------
    DenseSystem
        Stable; the one with the smallest error, the start among them.
    squares : (H,) float64
        Its squared h2 error, as a difference of energies.
    converged : (H,) bool

    Notes
    -----
    Level FLOAT. Errors are compared as differences of energies, which resolve relative errors
    down to about 1e-7; below, the latest model counts as the best.
    """
    best = {name: getattr(start, name).copy() for name in "ABC"}
    squares, converged = np.full(norms.shape, np.inf), np.zeros(norms.shape, bool)
    active, part = np.arange(len(norms)), full
    A, B, C = best["A"], best["B"], best["C"]
    before: DiagonalSystem | None = None
    for _ in range(steps):
        modes, stable = _modes(A, B, C, start)
        system = modes.system
        X, Y = part.solutions(system.poles, system.B, system.C)
        energies, whole = modes.energies(), norms[active] ** 2
        found = whole + energies - 2 * _products(part.C @ X, system, start.is_real)
        limit = squares[active] + RESOLUTION * whole
        better = modes.sound & stable & (found <= limit)
        for name, array in zip("ABC", (A, B, C), strict=True):
            best[name][active[better]] = array[better]
        squares[active[better]] = np.minimum(found, squares[active])[better]
        if before is not None:
            moved = np.asarray(h2_error(system, before))
            converged[active] = modes.sound & stable & (moved <= rtol * norms[active])
        A, B, C, usable = _projected(part, X, Y)
        going = modes.sound & usable & ~converged[active]
        if not going.any():
            break
        active, part = active[going], part.part(going)
        A, B, C = A[going], B[going], C[going]
        before = taken(system, going)
    return start.replace(**best), squares, converged


def _modes(
    A: np.ndarray, B: np.ndarray, C: np.ndarray, like: DenseSystem
) -> tuple[_Modes, np.ndarray]:
    """Return models in modal form, unstable poles mirrored, and where (H,) none was."""
    poles, S = np.linalg.eig(A)
    poles = poles.astype(np.complex128)
    sound = np.linalg.cond(S) <= CONDITION_LIMIT
    S = np.where(sound[:, None, None], S, np.eye(A.shape[-1]))
    margins = stability_margins(_diagonal(poles, np.linalg.solve(S, B), C @ S, like))
    stable = np.all(margins > 0, axis=-1)
    if not stable.all():
        mirrored = 1 / poles.conj() if like.is_discrete else -poles.conj()
        poles = np.where(margins >= 0, poles, mirrored)
        sound &= np.all(margins != 0, axis=-1)
        safe = 0.0 if like.is_discrete else -1.0
        poles = np.where(sound[:, None], poles, safe)
    return _Modes(_diagonal(poles, np.linalg.solve(S, B), C @ S, like), sound), stable


def _diagonal(poles: np.ndarray, B: np.ndarray, C: np.ndarray, like: DenseSystem) -> DiagonalSystem:
    return DiagonalSystem(poles, B, C, np.zeros_like(C @ B), like.dt)


def _projected(
    full: Resolvent, X: np.ndarray, Y: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return A, B, C of the projection along Y on X, and where (H,) it is well-conditioned."""
    usable = np.asarray(np.isfinite(X).all((-1, -2)) & np.isfinite(Y).all((-1, -2)))
    X, Y = (np.where(usable[:, None, None], M, 0) for M in (X, Y))
    V, W = np.linalg.qr(X)[0], np.linalg.qr(Y)[0]
    left, values, right = np.linalg.svd(adjoint(W) @ V)
    usable &= values[:, -1] * CONDITION_LIMIT >= values[:, 0]
    scale = 1 / np.sqrt(np.where(usable[:, None], values, 1))[:, None, :]
    V, W = V @ (adjoint(right) * scale), W @ (left * scale)
    return adjoint(W) @ full.times_a(V), adjoint(W) @ full.B, full.C @ V, usable


def _products(outputs: np.ndarray, model: DiagonalSystem, real: bool) -> np.ndarray:
    """Return the inner products (H,) of models and systems, from ``C X``; see `solutions`."""
    if not real:
        return np.sum(outputs * model.C.conj(), axis=(-1, -2)).real
    poles = model.poles[:, None, :]
    weights = np.where(poles.imag >= 0, model.C.real, model.C.imag)
    return np.sum(np.where(poles.imag == 0, 1, 2) * weights * outputs, axis=(-1, -2))
