"""What every reductor can do."""

from __future__ import annotations

from abc import ABC, abstractmethod

from ssmred.checks import check_order, check_tolerance
from ssmred.errors import OrderError, UnsupportedOperationError, message
from ssmred.kernels.blas import blas_threads
from ssmred.reductors.path import ReductionPath
from ssmred.reductors.reduction import Reduction
from ssmred.systems.linear import LinearSystem

__all__ = ["Reductor"]


class Reductor(ABC):
    """Turn systems into smaller ones: options are given once, systems afterwards."""

    KINDS: tuple[type, ...] = (LinearSystem,)
    """Kinds of systems that are taken."""

    @abstractmethod
    def path(self, system: LinearSystem) -> ReductionPath:
        """Return what every order would cost; ``path.reduction(order)`` is the reduced system.

        Raises what :meth:`check_accepts` raises.
        """

    def check_accepts(self, system: LinearSystem) -> None:
        """Raise an error that says why, unless the system can be reduced by this method."""
        if not isinstance(system, self.KINDS):
            linear = LinearSystem in self.KINDS
            raise UnsupportedOperationError(
                message(
                    type(self).__name__,
                    "not a system that it takes",
                    expected="DiagonalSystem or DenseSystem" if linear else self.KINDS[0].__name__,
                    got=type(system).__name__,
                )
            )

    def reduce(
        self, system: LinearSystem, *, order: int | None = None, tol: float | None = None
    ) -> Reduction:
        """Return a reduced system of a given order, or of the smallest that meets a tolerance.

        Parameters
        ----------
        system : DiagonalSystem or DenseSystem
            Not modified.
        order : int, optional
            Modes to keep, in every channel of a batch; at most so many where conjugate pairs stay
            together.
        tol : float, optional
            Largest relative error of every channel; ``Reduction.bound`` says in which norm.

        Returns
        -------
        Reduction

        Raises
        ------
        OrderError
            If not exactly one of order and tol is given, or order is negative or exceeds that of
            the system.
        ToleranceError
            If tol is not positive, or cannot be reached; ``best`` holds what can.
        UnstableSystemError, UnsupportedOperationError
            If the method cannot take the system.
        """
        where = f"{type(self).__name__}.reduce"
        if (order is None) == (tol is None):
            raise OrderError(message(where, "pass exactly one of order and tol"))
        Reductor.check_accepts(self, system)  # all else is checked by path
        if order is not None:
            order = check_order(order, where, high=system.order)
        elif tol is not None:
            check_tolerance(tol, where)
        with blas_threads(system.order):
            path = self.path(system)
            return path.reduction_to(tol) if order is None else path.reduction(order)
