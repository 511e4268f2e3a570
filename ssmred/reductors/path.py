"""What is known of a reduction before an order is chosen."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt

from ssmred.checks import check_tolerance
from ssmred.errors import (
    OrderError,
    ShapeError,
    ToleranceError,
    UnsupportedOperationError,
    message,
)
from ssmred.reductors.reduction import Reduction
from ssmred.systems.linear import LinearSystem

__all__ = ["ReductionPath"]


class ReductionPath(ABC):
    """Hold, for every channel and every order, what the reduction to that order costs.

    Attributes
    ----------
    system : LinearSystem
        The full system, n modes in each channel.
    errors : (..., n + 1) float64
        Bound on the error (or the error itself, or an estimate where there is no bound) after k
        modes are gone, k = 0, ..., n. Never decreases; inf where so many cannot go.
    norms : (...) float64
        What ``errors / norms`` is relative to.
    metric : str
        Norm of the errors.
    """

    system: LinearSystem
    errors: np.ndarray
    norms: np.ndarray
    metric: str

    @property
    def states_per_mode(self) -> int:
        """Real states that one mode counts for."""
        return self.system.states // self.system.order if self.system.order else 2

    @abstractmethod
    def reduction(self, kept: npt.ArrayLike) -> Reduction:
        """Return the system that keeps (at most) so many modes of each channel."""

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
            If tol is not a positive number, or not even the full order reaches it (against a
            target, or because rounding of the stored system exceeds it); ``best`` holds the best
            tolerance.
        UnsupportedOperationError
            If no bound on the error is known.
        """
        where = f"{type(self).__name__}.reduction_to"
        tol = check_tolerance(tol, where)
        n = self.system.order
        limit = np.asarray(tol * self.norms)
        self._check_reachable(self.errors[..., 0], limit, tol, where)
        counts = n + 1 - np.sum(self.errors <= limit[..., None], axis=-1)
        reduction = self.reduction(counts)
        if reduction.bound is None:
            raise UnsupportedOperationError(
                message(
                    where,
                    "no bound on the error of this method is known, so tol has no meaning",
                    cure="Choose an order and evaluate the error of the result.",
                )
            )
        # The error of the stored system may exceed the path's by rounding: then keep one more.
        while np.any(over := (reduction.bound.value > limit) & (counts < n)):
            counts = counts + over
            reduction = self.reduction(counts)
        self._check_reachable(reduction.bound.value, limit, tol, where)
        return reduction

    def _check_reachable(
        self, reached: np.ndarray, limit: np.ndarray, tol: float, where: str
    ) -> None:
        if not np.any(reached > limit):
            return
        best = float(np.max(reached / np.maximum(self.norms, np.finfo(float).tiny)))
        raise ToleranceError(
            message(
                where,
                "not even the full order reaches this tolerance",
                expected=f"tol >= {best:.3g}",
                got=f"{tol:.3g}",
            ),
            best=best,
        )

    def _check_kept(self, kept: npt.ArrayLike) -> np.ndarray:
        where = f"{type(self).__name__}.reduction"
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
