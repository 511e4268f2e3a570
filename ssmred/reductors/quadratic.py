"""What reductors of systems with quadratic outputs share.

Theory: ``theory/quadratic-read-out.md``.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ssmred.checks import check_horizon
from ssmred.errors import ShapeError, message
from ssmred.norms import h2_error, h2_norm
from ssmred.reductors.path import ReductionPath
from ssmred.reductors.reduction import ErrorBound
from ssmred.reductors.reductor import Reductor
from ssmred.systems.quadratic import QuadraticOutputSystem
from ssmred.systems.stability import check_horizon_of

__all__ = ["QuadraticPath", "QuadraticReduction", "QuadraticReductor"]


@dataclass(frozen=True, eq=False)
class QuadraticReduction:
    """Hold a reduced system with quadratic outputs and the error that it was found to have.

    Attributes
    ----------
    full, system : QuadraticOutputSystem
        Before and after.
    order : int
        States that were kept, in the unit of ``system.order``.
    method : str
        Name of the reductor.
    bound : ErrorBound
        The h2 error of the stored system, evaluated.
    kept : (n,) bool, optional
        Which modes were kept, where the reductor keeps modes; of ``full.full_spectrum()`` for
        ``real_output``.
    values : (N,) float64, optional
        Roots of the eigenvalues of P Q that decided.
    condition : float, optional
        Condition number of the eigenvectors, where the reduced system was diagonalised.
    converged : bool, optional
        Whether an iterative method came to rest at this system; None where nothing is iterated.
    """

    full: QuadraticOutputSystem
    system: QuadraticOutputSystem
    order: int
    method: str
    bound: ErrorBound
    kept: np.ndarray | None = None
    values: np.ndarray | None = None
    condition: float | None = None
    converged: bool | None = None


class QuadraticPath(ReductionPath):
    """Reduce one system with quadratic outputs to any order; errors are those of the results.

    Attributes
    ----------
    full : QuadraticOutputSystem
        The full system.
    system : QuadraticOutputSystem
        The same without ``real_output``; orders count its states.
    horizon : int or None
    """

    system: QuadraticOutputSystem  # type: ignore[assignment]

    def __init__(
        self, full: QuadraticOutputSystem, system: QuadraticOutputSystem, horizon: int | None
    ) -> None:
        self.full, self.system, self.horizon = full, system, horizon  # type: ignore[assignment]
        self.metric = "h2" if horizon is None else f"h2, horizon {horizon}"
        self.norms = np.asarray(h2_norm(full, horizon=horizon))

    @abstractmethod
    def reduced(self, order: int) -> QuadraticReduction:
        """Return the reduction to at most this order."""

    def reduction(self, kept: npt.ArrayLike) -> QuadraticReduction:  # type: ignore[override]
        """Return the system that keeps at most so many states of ``system``.

        Raises
        ------
        OrderError, ShapeError
            If the number is not an integer between 0 and n.
        """
        return self.reduced(int(self._check_kept(kept)))

    @cached_property
    def errors(self) -> np.ndarray:  # type: ignore[override]
        """Largest error of all orders with at most k states gone, (n + 1,)."""
        n = self.system.order
        found = [self.reduced(order).bound.value for order in range(n, -1, -1)]
        return np.maximum.accumulate(np.asarray(found, dtype=float))

    def claimed(self, reduced: QuadraticOutputSystem) -> ErrorBound:
        """Return the evaluated error of a reduced system; of the full one it is 0."""
        if reduced is self.full:
            return ErrorBound(np.zeros(()), self.norms, self.metric, "quadratic-output", exact=True)
        value = np.asarray(h2_error(self.system, reduced, horizon=self.horizon))
        return ErrorBound(value, self.norms, self.metric, "quadratic-output", exact=True)


class QuadraticReductor(Reductor):
    """Reduce systems with quadratic outputs, one at a time.

    Parameters
    ----------
    horizon : int, optional
        Number of samples over which kernels are compared; None is infinite.
    """

    KINDS = (QuadraticOutputSystem,)
    method: str

    def __init__(self, *, horizon: int | None = None) -> None:
        self.horizon = check_horizon(horizon, type(self).__name__)

    def check_accepts(self, system: QuadraticOutputSystem) -> None:  # type: ignore[override]
        """Raise an error unless this is one system with quadratic outputs, stable if need be."""
        super().check_accepts(system)  # type: ignore[arg-type]
        where = type(self).__name__
        if system.batch_shape:
            raise ShapeError(
                message(
                    where,
                    "the system is a batch",
                    expected="one system",
                    got=f"batch shape {system.batch_shape}",
                    cure="Reduce one entry after the other.",
                )
            )
        check_horizon_of(system.linear, self.horizon, where)
