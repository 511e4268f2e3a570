"""A norm as an interval that holds it, with the frequency where it is attained.

Theory: ``theory/hinf-enclosure.md``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Enclosure"]


@dataclass(frozen=True, eq=False)
class Enclosure:
    """Hold ``lower <= norm <= upper`` and where the peak is.

    Attributes
    ----------
    lower, upper : float or (...) float64
        Level FLOAT: rounding is bounded and inside.
    frequency : float or (...) float64
        Frequency at which ``lower`` was found, in rad per unit time (discrete: rad per sample over
        dt); negative only for complex systems, inf where D of a continuous system is the peak.

    Examples
    --------
    >>> enclosure = Enclosure(1.0, 1.5, 0.0)
    >>> enclosure.value, enclosure.width
    (1.25, 0.4)
    """

    lower: np.ndarray | float
    upper: np.ndarray | float
    frequency: np.ndarray | float

    @property
    def value(self) -> np.ndarray | float:
        """Middle of the enclosure; bounds have to use ``upper``."""
        return self.lower + 0.5 * (self.upper - self.lower)

    @property
    def width(self) -> np.ndarray | float:
        """``(upper - lower) / value``, the relative width; 0 where both are 0."""
        difference, value = np.subtract(self.upper, self.lower), np.asarray(self.value)
        ratio = np.where(difference > 0, difference / np.where(value > 0, value, 1.0), 0.0)
        return float(ratio) if ratio.ndim == 0 else ratio
