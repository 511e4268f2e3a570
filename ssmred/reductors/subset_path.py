"""The path of a backward elimination, and the reductions along it.

Theory: ``theory/optimal-readout.md``, ``theory/alternating-readout.md``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ssmred.errors import ShapeError, message
from ssmred.gramians.square_root import SquareRoot, basis_coefficients, change_read_out
from ssmred.kernels.elimination import fill_read_out_changes
from ssmred.reductors.alternating import Alternation
from ssmred.reductors.path import ReductionPath
from ssmred.reductors.reduction import ErrorBound, Reduction
from ssmred.systems import DiagonalSystem

__all__ = ["SubsetPath", "packed"]


@dataclass(frozen=True, eq=False)
class SubsetPath(ReductionPath):
    """Hold, for every channel, the order in which modes go and the error that this causes.

    Where conjugate pairs go as one (:class:`SubsetReductor` says when), both partners stand next to
    each other in ``removal``, and half a pair is never kept: ``errors[..., k]`` belongs to the
    largest set on the path with at most ``n - k`` modes.

    Attributes
    ----------
    system : DiagonalSystem
        The full system, n modes in each channel.
    removal : (..., n) int64
        Modes in the order of removal.
    errors : (..., n + 1) float64
        Error with the best read-out after k removals, k = 0, ..., n. Never decreases.
    norms : (...) float64
        Norm of the target; ``errors / norms`` is relative.
    metric : str
        ``"h2"``, ``"h2, horizon T"`` or ``"calibrated, ..."``.
    alternation : Alternation, optional
        How B is fitted too; reductions then have at most these errors.
    """

    system: DiagonalSystem
    removal: np.ndarray
    errors: np.ndarray
    norms: np.ndarray
    metric: str
    root: SquareRoot = field(repr=False)
    alternation: Alternation | None = field(default=None, kw_only=True)

    def reduction(self, kept: npt.ArrayLike) -> Reduction:
        """Return the system that keeps so many modes of each channel, with the best read-out.

        ``min ||R (theta_0 - theta)||`` over the coefficients of D and of the kept modes, solved for
        the change of the coefficients.

        Parameters
        ----------
        kept : (...) int
            Modes to keep in each channel (at most so many where conjugate pairs go as one); one
            number serves all. A channel that keeps none becomes its best static gain, in D.

        Returns
        -------
        Reduction

        Raises
        ------
        OrderError, ShapeError
            If a number is not an integer between 0 and n, or the shape does not fit.

        Notes
        -----
        Level: FLOAT; the error is evaluated from the stored coefficients, so their rounding is in
        it. Cost O(n**3) per channel. Theory: ``theory/optimal-readout.md``.
        """
        return self._reduction(self._mask(self._check_kept(kept)))

    def keeping(self, mask: npt.ArrayLike) -> Reduction:
        """Return the system that keeps the modes of a mask, with the best read-out.

        Parameters
        ----------
        mask : (..., n) bool
            Modes to keep, chosen by whatever rule. Where conjugate pairs go as one, both modes of a
            pair have to stay or go.

        Returns
        -------
        Reduction

        Raises
        ------
        ShapeError
            If the mask is not one of bool, of this shape, or splits a pair.
        """
        where = "SubsetPath.keeping"
        values = np.asarray(mask)
        if values.dtype != bool or values.shape != self.system.poles.shape:
            raise ShapeError(
                message(
                    where,
                    "the mask does not fit the modes",
                    expected=f"{self.system.poles.shape} of bool",
                    got=f"{values.shape} of {values.dtype}",
                )
            )
        return self._reduction(values)

    def _reduction(self, mask: np.ndarray) -> Reduction:
        system, error, sweeps = self._fit(mask)
        theorem = "optimal-readout" if sweeps is None else "alternating-readout"
        return Reduction(
            full=self.system,
            system=packed(system, mask),
            orders=np.asarray(np.sum(mask, axis=-1)),
            method="subset",
            claim=ErrorBound(error, self.norms, self.metric, theorem, exact=True),
            kept=mask,
            sweeps=sweeps,
        )

    def _mask(self, counts: np.ndarray) -> np.ndarray:
        """Return which modes stay where so many stay."""
        n = self.system.order
        rank = np.empty_like(self.removal)
        np.put_along_axis(rank, self.removal, np.broadcast_to(np.arange(n), rank.shape), axis=-1)
        return rank >= (n - counts)[..., None]

    def _fit(self, mask: np.ndarray) -> tuple[DiagonalSystem, np.ndarray, np.ndarray | None]:
        """Return the full system with the others' read-out 0, its error, and sweeps if any."""
        channels = self.root.factor.shape[0]
        theta = self._coefficients(self.system)
        change = np.empty_like(theta)
        fill_read_out_changes(
            self.root.factor,
            theta,
            self.root.extra,
            np.ascontiguousarray(mask.reshape(channels, self.system.order)),
            self.root.fixed,
            change,
        )
        system = change_read_out(
            self.system, change.reshape(*self.system.batch_shape, *change.shape[1:])
        )
        # removed modes: exactly zero, whatever the division by B left
        system = system.replace(C=np.where(mask[..., None, :], system.C, 0))
        if self.alternation is None:
            return system, self._error(system), None
        return self.alternation.improve(self.system, system, mask)

    def _coefficients(self, system: DiagonalSystem) -> np.ndarray:
        theta = basis_coefficients(system)
        return np.ascontiguousarray(theta.reshape(-1, *theta.shape[-2:]))

    def _error(self, system: DiagonalSystem) -> np.ndarray:
        """Return the error of a system that differs from the full one in C and D only."""
        difference = system.replace(C=system.C - self.system.C, D=system.D - self.system.D)
        missed = self.root.extra - self.root.factor @ self._coefficients(difference)
        missed = self.root.mixed(missed)
        error = np.sqrt(self.root.residual**2 + np.sum(missed**2, axis=(-2, -1)))
        return error.reshape(self.system.batch_shape)


def packed(system: DiagonalSystem, mask: np.ndarray) -> DiagonalSystem:
    """Return the system with kept modes moved to the front and the rest cut off or padded."""
    counts = mask.sum(axis=-1)
    width = int(counts.max(initial=0))
    order = np.argsort(~mask, axis=-1, kind="stable")[..., :width]
    filled = np.arange(width) < counts[..., None]
    poles = np.where(filled, np.take_along_axis(system.poles, order, axis=-1), 0)
    B = np.take_along_axis(system.B, order[..., None], axis=-2) * filled[..., None]
    C = np.take_along_axis(system.C, order[..., None, :], axis=-1) * filled[..., None, :]
    return system.replace(poles=poles, B=B, C=C)
