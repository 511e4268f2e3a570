"""Answer to a linear matrix equation: the solution, its residual, a bound on its error.

Theory: ``theory/residual-bound.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ssmred.gramians.residuals import frobenius_norms

__all__ = ["Solution"]


@dataclass(frozen=True, eq=False)
class Solution:
    """Solution of a linear matrix equation, one per batch entry.

    Attributes
    ----------
    X : (..., n, m) float64 or complex128
        Hermitian where the exact one is.
    backend : str
        The solver that was used.
    residual : (...) float64
        ``||W - operator(X)||_F`` over ``||W||_F + sum ||left||_F ||X||_F ||right||_F``; near 1e-16
        for any method that is backward stable, whatever the error.
    error_bound : (...) float64
        ``||X - exact||_2 <= error_bound ||X||_F``. inf where no bound could be shown, which does
        not mean that X is wrong.

    Notes
    -----
    Level FLOAT: the bound includes the rounding of the residual, not underflow. Residual and bound
    are computed when first read; the bound costs about as much as the solution. Stable equations:
    residual times the norm of the solution for ``W = I`` (Sylvester: the geometric mean of two),
    which is sharp within the order of the system. All others: a majorant of the inverse of the
    triangular operator, sharp for nearly normal matrices and too large by powers of the
    non-normality otherwise; none with E.
    """

    X: np.ndarray
    backend: str
    _residual: Callable[[], np.ndarray] = field(repr=False)
    _bound: Callable[[], np.ndarray] = field(repr=False)

    @cached_property
    def residual(self) -> np.ndarray:
        """Relative residual; computed when first read."""
        return self._residual()

    @cached_property
    def error_bound(self) -> np.ndarray:
        """Bound on ``||X - exact||_2 / ||X||_F``; computed when first read."""
        absolute, size = self._bound(), frobenius_norms(self.X)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(absolute == 0, 0.0, absolute / size)
