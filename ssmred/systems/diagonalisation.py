"""From a dense system to a diagonal one, with the conditioning of the eigenvectors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ssmred.errors import AccuracyError, UnsupportedOperationError, message
from ssmred.systems.dense import DenseSystem
from ssmred.systems.diagonal import DiagonalSystem

__all__ = ["Diagonalisation", "diagonalised"]

CONDITION_LIMIT = 1e10
"""Beyond it the residues keep fewer than about six digits."""


@dataclass(frozen=True, eq=False)
class Diagonalisation:
    """Hold a diagonal system, and how well its eigenvectors are conditioned.

    Attributes
    ----------
    system : DiagonalSystem
        In a batch, channels with fewer modes are padded at the end with B = 0, C = 0 and pole 0
        (-1 in continuous time).
    modes : (...) int64
        Modes of every channel.
    condition : (...) float64
        2-norm condition number of the eigenvectors, scaled to length 1; 1 for order 0.
    """

    system: DiagonalSystem
    modes: np.ndarray
    condition: np.ndarray


def diagonalised(
    system: DenseSystem, *, half: bool = False, limit: float = CONDITION_LIMIT
) -> Diagonalisation:
    """Return ``Lambda = X^{-1} A X``, ``X^{-1} B``, ``C X`` for the eigenvectors X.

    Parameters
    ----------
    system : DenseSystem
        Real data, or complex data without ``real_output``.
    half : bool
        Return one mode of every conjugate pair, its C doubled, with ``real_output=True``; only for
        real data. Real poles stay as they are.
    limit : float
        Largest condition number of the eigenvectors that is accepted.

    Returns
    -------
    Diagonalisation
        Of a real system the conjugate pairs are exactly conjugate and stand next to each other.

    Raises
    ------
    AccuracyError
        If the eigenvectors are worse conditioned (a defective or nearly defective A).
    UnsupportedOperationError
        If a half spectrum is asked for of complex data.

    Notes
    -----
    Level FLOAT: the residues are wrong by about eps times the condition number, relative to
    ``||C|| ||B||``. Cost O(n^3) per channel.

    Examples
    --------
    >>> system = DenseSystem([[0.0, -0.25], [0.25, 0.0]], [[1.0], [0.0]], [[1.0, 0.0]])
    >>> result = diagonalised(system, half=True)
    >>> result.system.poles.tolist(), float(result.condition.round(6))
    ([0.25j], 1.0)
    """
    where = "diagonalised"
    real = system.is_real
    if system.real_output:
        system = system.realified()
    if half and not real:
        raise UnsupportedOperationError(
            message(
                where,
                "a half spectrum needs real data",
                got="complex matrices and complex outputs",
                cure="Pass half=False.",
            )
        )
    batch, n = system.batch_shape, system.order
    if n == 0 or not all(batch):
        return _empty(system, half)
    A = system.A.real if real else system.A
    poles, X = np.linalg.eig(A)
    poles, X = poles.astype(np.complex128), X.astype(np.complex128)
    condition = np.asarray(np.linalg.cond(X))
    worst = float(condition.max(initial=1.0))
    if not worst <= limit:
        raise AccuracyError(
            message(
                where,
                "A is defective or nearly so: its eigenvectors are too badly conditioned",
                expected=f"condition <= {limit:.3g}",
                got=f"{worst:.3g}",
                cure='Keep the system dense (form="dense"), or choose another order.',
            )
        )
    B = np.linalg.solve(X, system.B.astype(np.complex128))
    C = system.C @ X
    modes = np.full(batch, n, np.int64)
    if real:
        poles, B, C, modes = _paired(poles, B, C, half)
    if not system.is_discrete:  # padding must not sit on the stability boundary
        poles = np.where(np.arange(poles.shape[-1]) < modes[..., None], poles, -1.0)
    diagonal = DiagonalSystem(
        poles,
        B,
        C,
        system.D.real if half else system.D,
        system.dt,
        recurrence=system.recurrence,
        real_output=half,
    )
    return Diagonalisation(diagonal, modes, condition)


def _paired(
    poles: np.ndarray, B: np.ndarray, C: np.ndarray, half: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return modes of a real system, upper half first; with half, without the lower half."""
    upper, own = poles.imag > 0, poles.imag == 0
    if half:
        # kept modes to the front
        kept = upper | own
        modes = kept.sum(axis=-1)
        order = np.argsort(~kept, axis=-1, kind="stable")[..., : int(modes.max(initial=0))]
        filled = np.take_along_axis(kept, order, axis=-1)
    else:
        modes = np.full(poles.shape[:-1], poles.shape[-1], np.int64)
        order = np.broadcast_to(np.arange(poles.shape[-1]), poles.shape)
        filled = np.ones(poles.shape, bool)
    real = np.take_along_axis(own, order, axis=-1)
    poles = np.where(filled, np.take_along_axis(poles, order, axis=-1), 0)
    B = np.take_along_axis(B, order[..., None], axis=-2) * filled[..., None]
    C = np.take_along_axis(C, order[..., None, :], axis=-1) * filled[..., None, :]
    B = np.where(real[..., None], B.real, B)
    C = np.where(real[..., None, :], C.real, 2 * C if half else C)
    if not half:  # LAPACK puts the partner next; make it the exact conjugate
        lower = np.zeros_like(real)
        lower[..., 1:] = np.take_along_axis(upper, order, axis=-1)[..., :-1]
        poles = np.where(lower, np.roll(poles, 1, axis=-1).conj(), poles)
        B = np.where(lower[..., None], np.roll(B, 1, axis=-2).conj(), B)
        C = np.where(lower[..., None, :], np.roll(C, 1, axis=-1).conj(), C)
    return poles, B, C, modes


def _empty(system: DenseSystem, half: bool) -> Diagonalisation:
    """Return the diagonal system of order 0."""
    batch = system.batch_shape
    diagonal = DiagonalSystem(
        np.zeros((*batch, 0)),
        np.zeros((*batch, 0, system.inputs)),
        np.zeros((*batch, system.outputs, 0)),
        system.D,
        system.dt,
        recurrence=system.recurrence,
        real_output=half,
    )
    return Diagonalisation(diagonal, np.zeros(batch, np.int64), np.ones(batch))
