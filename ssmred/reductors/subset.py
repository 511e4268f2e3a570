"""Removal of modes, with the optimal read-out of those that stay.

Theory: ``theory/optimal-readout.md``, ``theory/removal-cost.md``, ``theory/nested-pythagoras.md``,
``theory/static-gain.md``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ssmred.checks import check_horizon, check_order, check_tolerance
from ssmred.errors import AccuracyError, OrderError, ShapeError, ToleranceError, message
from ssmred.gramians.empirical import InputMoments
from ssmred.gramians.output_metric import OutputMetric
from ssmred.gramians.square_root import (
    SquareRoot,
    basis_coefficients,
    basis_square_root,
    change_read_out,
    check_diagonal,
)
from ssmred.kernels.elimination import fill_read_out_changes, fill_removals
from ssmred.reductors.reduction import Reduction
from ssmred.systems import DiagonalSystem

__all__ = ["SubsetPath", "SubsetReductor"]


@dataclass(frozen=True, eq=False)
class SubsetPath:
    """Hold, for every channel, the order in which modes go and the error that this causes.

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
            Modes to keep in each channel; one number serves all. A channel that keeps none becomes
            its best static gain, in D.

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
        counts = self._check_kept(kept)
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
        error = self._error(system)
        norms = self.norms
        relative = np.divide(error, norms, out=np.zeros_like(error), where=norms > 0)
        return Reduction(_packed(system, mask), counts, mask, error, relative, self.metric)

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


class SubsetReductor:
    """Keep a subset of the modes of a diagonal system, chosen by backward elimination.

    At every step the mode goes whose loss the others' read-out can make up for best; the read-out
    of those that stay (C, and D) is the best one in the metric, ``C P[:, S] P[S, S]^{-1}`` in terms
    of the Gramian P. Poles and B of kept modes are untouched.

    Parameters
    ----------
    horizon : int, optional
        Number of samples over which impulse responses are compared; None is infinite. Only for
        the h2 metric.
    metric : "h2", InputMoments or OutputMetric
        The h2 norm of the error, its mean square on calibration inputs, or what it does to the
        output of the network around the layer.

    Notes
    -----
    Level: FLOAT. Cost ``(2 n)**4 / 24`` for the path and ``O(n**3 log T)`` for the square root, per
    channel, all channels in one kernel. Works on square roots throughout: errors are real down to
    about ``1e-15 sum_i |c_i b_i| ||x_i||``. Theory: ``theory/removal-cost.md``.

    Examples
    --------
    Of two modes with the same pole one is redundant:

    >>> system = DiagonalSystem([0.5, 0.5, -0.3], [1.0, 1.0, 1.0], [1.0, 2.0, 4.0])
    >>> reduction = SubsetReductor().reduce(system, order=2)
    >>> bool(reduction.relative_error < 1e-14)
    True
    >>> np.sort(reduction.system.C[0].real).round(12).tolist()
    [3.0, 4.0]
    """

    def __init__(
        self, *, horizon: int | None = None, metric: str | InputMoments | OutputMetric = "h2"
    ) -> None:
        self.horizon = check_horizon(horizon, "SubsetReductor")
        if metric != "h2" and not isinstance(metric, (InputMoments, OutputMetric)):
            raise ShapeError(
                message(
                    "SubsetReductor",
                    "metric is not known",
                    expected='"h2", an InputMoments or an OutputMetric',
                    got=f"{metric!r}",
                )
            )
        if not isinstance(metric, str) and self.horizon not in (None, metric.horizon):
            raise OrderError(
                message(
                    "SubsetReductor",
                    "horizon contradicts the calibration inputs",
                    expected=f"None or {metric.horizon}",
                    got=f"{self.horizon}",
                )
            )
        self.metric = metric

    def check_accepts(self, system: DiagonalSystem) -> None:
        """Raise UnsupportedOperationError unless the system is diagonal."""
        check_diagonal(system, "SubsetReductor")

    def path(self, system: DiagonalSystem) -> SubsetPath:
        """Return the removal path of every channel of a system.

        Parameters
        ----------
        system : DiagonalSystem
            Batched or not, any numbers of inputs and outputs (a calibrated metric: batched
            single-input single-output with real outputs).

        Returns
        -------
        SubsetPath

        Raises
        ------
        UnstableSystemError
            If the horizon is infinite and a driven mode does not decay.
        AccuracyError
            If responses leave the range of float64.
        """
        self.check_accepts(system)
        batch, n = system.batch_shape, system.order
        theta = basis_coefficients(system)
        theta = np.ascontiguousarray(theta.reshape(-1, *theta.shape[-2:]))
        root = self._square_root(system, theta)
        channels = root.factor.shape[0]
        removal = np.empty((channels, n), dtype=np.int64)
        errors = np.empty((channels, n + 1))
        errors[:, 0] = root.residual
        target = root.factor @ theta + root.extra
        fill_removals(root.factor, target, root.fixed, removal, errors)
        if not np.isfinite(errors).all():
            raise AccuracyError(
                message(
                    "SubsetReductor.path",
                    "responses overflow or underflow float64 when squared",
                    cure="Scale B and C to a common size.",
                )
            )
        return SubsetPath(
            system,
            removal.reshape(*batch, n),
            errors.reshape(*batch, n + 1),
            root.norms.reshape(batch),
            self._metric_name(),
            root,
        )

    def reduce(
        self, system: DiagonalSystem, *, order: int | None = None, tol: float | None = None
    ) -> Reduction:
        """Return a reduced system of a given order, or of the smallest that meets a tolerance.

        Parameters
        ----------
        system : DiagonalSystem
        order : int, optional
            Modes to keep, in every channel of a batch.
        tol : float, optional
            Largest relative error of every channel.

        Returns
        -------
        Reduction

        Raises
        ------
        OrderError
            If not exactly one of order and tol is given, or order exceeds that of the system.
        ToleranceError
            If tol is not positive, or cannot be reached.
        """
        if (order is None) == (tol is None):
            raise OrderError(message("SubsetReductor.reduce", "pass exactly one of order and tol"))
        self.check_accepts(system)
        if tol is not None:
            check_tolerance(tol, "SubsetReductor.reduce")
            return self.path(system).reduction_to(tol)
        order = check_order(order, "SubsetReductor.reduce", high=system.order)
        return self.path(system).reduction(order)

    def _square_root(self, system: DiagonalSystem, theta: np.ndarray) -> SquareRoot:
        if not isinstance(self.metric, str):
            return self.metric.square_root(system)
        factor = basis_square_root(system, horizon=self.horizon)
        factor = np.ascontiguousarray(factor.reshape(-1, *factor.shape[-2:]))
        target = factor @ theta
        norms = np.sqrt(np.sum(target**2, axis=(-2, -1)))
        fixed = factor.shape[-1] - 2 * system.order
        return SquareRoot(factor, fixed, np.zeros_like(target), np.zeros(len(factor)), norms)

    def _metric_name(self) -> str:
        if not isinstance(self.metric, str):
            return self.metric.name
        return "h2" if self.horizon is None else f"h2, horizon {self.horizon}"


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
