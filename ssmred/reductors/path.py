"""The path of a backward elimination, and the reductions along it.

Theory: ``theory/optimal-readout.md``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ssmred.checks import check_tolerance
from ssmred.errors import OrderError, ShapeError, ToleranceError, message
from ssmred.gramians.square_root import SquareRoot, basis_coefficients, change_read_out
from ssmred.kernels.elimination import fill_read_out_changes
from ssmred.reductors.reduction import Reduction
from ssmred.systems import DiagonalSystem

__all__ = ["SubsetPath"]


@dataclass(frozen=True, eq=False)
class SubsetPath:
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
    """

    system: DiagonalSystem
    removal: np.ndarray
    errors: np.ndarray
    norms: np.ndarray
    metric: str
    root: SquareRoot = field(repr=False)

    @property
    def states_per_mode(self) -> int:
        """Real states that one mode counts for."""
        return self.system.states // self.system.order if self.system.order else 2

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
        mask, system, error = self._fit(self._check_kept(kept))
        norms = self.norms
        relative = np.divide(error, norms, out=np.zeros_like(error), where=norms > 0)
        orders = np.asarray(np.sum(mask, axis=-1))
        return Reduction(_packed(system, mask), orders, mask, error, relative, self.metric)

    def reduction_to(self, tol: float) -> Reduction:
        """Return the smallest reduction on this path with relative error <= tol in each channel.

        Parameters
        ----------
        tol : float
            Largest relative error, > 0.

        Returns
        -------
        Reduction

        Raises
        ------
        ToleranceError
            If tol is not a positive number, or not even the full set of modes reaches it (which
            only happens against a target); ``best`` holds the best tolerance.
        """
        tol = check_tolerance(tol, "SubsetPath.reduction_to")
        n = self.system.order
        limit = np.asarray(tol * self.norms)
        if np.any(self.errors[..., 0] > limit):
            norms = np.maximum(self.norms, np.finfo(float).tiny)
            best = float(np.max(self.errors[..., 0] / norms))
            raise ToleranceError(
                message(
                    "SubsetPath.reduction_to",
                    "not even all modes reproduce the target this well",
                    expected=f"tol >= {best:.3g}",
                    got=f"{tol:.3g}",
                ),
                best=best,
            )
        counts = n + 1 - np.sum(self.errors <= limit[..., None], axis=-1)
        reduction = self.reduction(counts)
        # The error of the stored read-out may exceed the path's by rounding: then keep one more.
        while np.any(over := (reduction.error > limit) & (counts < n)):
            counts = counts + over
            reduction = self.reduction(counts)
        return reduction

    def _fit(self, counts: np.ndarray) -> tuple[np.ndarray, DiagonalSystem, np.ndarray]:
        """Return which modes stay, the full system with the others' read-out 0, and its error."""
        n = self.system.order
        rank = np.empty_like(self.removal)
        np.put_along_axis(rank, self.removal, np.broadcast_to(np.arange(n), rank.shape), axis=-1)
        mask = rank >= (n - counts)[..., None]
        channels = self.root.factor.shape[0]
        theta = self._coefficients(self.system)
        change = np.empty_like(theta)
        fill_read_out_changes(
            self.root.factor,
            theta,
            self.root.extra,
            mask.reshape(channels, n),
            self.root.fixed,
            change,
        )
        system = change_read_out(
            self.system, change.reshape(*self.system.batch_shape, *change.shape[1:])
        )
        # removed modes: exactly zero, whatever the division by B left
        system = system.replace(C=np.where(mask[..., None, :], system.C, 0))
        return mask, system, self._error(system)

    def _coefficients(self, system: DiagonalSystem) -> np.ndarray:
        theta = basis_coefficients(system)
        return np.ascontiguousarray(theta.reshape(-1, *theta.shape[-2:]))

    def _error(self, system: DiagonalSystem) -> np.ndarray:
        """Return the error of a system that differs from the full one in C and D only."""
        difference = system.replace(C=system.C - self.system.C, D=system.D - self.system.D)
        missed = self.root.extra - self.root.factor @ self._coefficients(difference)
        error = np.sqrt(self.root.residual**2 + np.sum(missed**2, axis=(-2, -1)))
        return error.reshape(self.system.batch_shape)

    def _check_kept(self, kept: npt.ArrayLike) -> np.ndarray:
        where = "SubsetPath.reduction"
        values = np.asarray(kept)
        if values.dtype.kind not in "iu":
            raise OrderError(message(where, "kept is not an integer", got=f"dtype {values.dtype}"))
        batch = self.system.batch_shape
        if values.shape not in ((), batch):
            raise ShapeError(
                message(
                    where,
                    "kept has the wrong shape",
                    expected=f"{batch} or one number",
                    got=f"{values.shape}",
                )
            )
        if values.size and (values.min() < 0 or values.max() > self.system.order):
            raise OrderError(
                message(
                    where,
                    "kept is outside what there is",
                    expected=f"0 <= kept <= {self.system.order}",
                    got=f"{values.min()} to {values.max()}",
                )
            )
        return np.broadcast_to(values.astype(np.int64), batch).copy()


def _packed(system: DiagonalSystem, mask: np.ndarray) -> DiagonalSystem:
    """Return the system with kept modes moved to the front and the rest cut off or padded."""
    counts = mask.sum(axis=-1)
    width = int(counts.max(initial=0))
    order = np.argsort(~mask, axis=-1, kind="stable")[..., :width]
    filled = np.arange(width) < counts[..., None]
    poles = np.where(filled, np.take_along_axis(system.poles, order, axis=-1), 0)
    B = np.take_along_axis(system.B, order[..., None], axis=-2) * filled[..., None]
    C = np.take_along_axis(system.C, order[..., None, :], axis=-1) * filled[..., None, :]
    return system.replace(poles=poles, B=B, C=C)
