"""What every reductor returns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ssmred.systems import DiagonalSystem

__all__ = ["Reduction"]


@dataclass(frozen=True, eq=False)
class Reduction:
    """Hold a reduced system and its error.

    Attributes
    ----------
    system : DiagonalSystem
        The reduced system. In a batch, channels of smaller order are padded at the end with modes
        of pole 0, B = 0, C = 0.
    orders : (...) int64
        Modes kept in each channel.
    kept : (..., n) bool
        Which modes of the full system were kept.
    error : (...) float64
        Norm of the error of each channel, in the metric of the reductor; it includes the rounding
        of the stored read-out.
    relative_error : (...) float64
        Error divided by the norm of the target; 0 where both are 0.
    metric : str
        Name of the metric.
    """

    system: DiagonalSystem
    orders: np.ndarray
    kept: np.ndarray
    error: np.ndarray
    relative_error: np.ndarray
    metric: str
