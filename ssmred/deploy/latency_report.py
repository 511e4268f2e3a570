"""Hold the measurements of a latency run and print them as a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ssmred.deploy.quantities import aligned, quantity

__all__ = ["LatencyReport", "Measurement", "Spread"]


@dataclass(frozen=True)
class Spread:
    """Hold the quartiles of repeated measurements of one quantity."""

    lower: float
    median: float
    upper: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Spread:
        """Return the quartiles of samples.

        Examples
        --------
        >>> Spread.of([3.0, 1.0, 2.0, 5.0, 4.0])
        Spread(lower=2.0, median=3.0, upper=4.0)
        """
        lower, median, upper = np.quantile(np.asarray(samples, dtype=np.float64), (0.25, 0.5, 0.75))
        return cls(float(lower), float(median), float(upper))


@dataclass(frozen=True)
class Measurement:
    """Hold one quantity, measured on every variant that has it.

    Attributes
    ----------
    name : str
        What was measured.
    unit : {"s", "B"}
        Seconds per call, or bytes.
    original : Spread or None
        The model as it was given; None for streaming, which such a model does not offer.
    imported : Spread
        The same network at full order in ssmred's layers (float64 systems, cached kernels), so
        that what the layers buy and what the reduction buys can be told apart.
    reduced : Spread
        The reduced network.
    """

    name: str
    unit: str
    original: Spread | None
    imported: Spread
    reduced: Spread

    @property
    def ratio(self) -> float:
        """Reduced over original (over imported, where the original has no such quantity)."""
        return _ratio(self.reduced, self.original or self.imported)

    @property
    def ratio_to_imported(self) -> float:
        """Reduced over imported at full order: the share that is due to the reduction alone."""
        return _ratio(self.reduced, self.imported)


@dataclass(frozen=True)
class LatencyReport:
    """Hold the measurements of one run and the circumstances they were made in.

    Attributes
    ----------
    measurements : tuple of Measurement
        In the order of the table.
    horizon : int
        Number of steps of the sequences.
    batches : tuple of int
        Batch sizes that were run.
    repeats : int
        Timed blocks per variant and quantity.
    threads : int
        Threads that torch (and at most Numba) used.
    machine : str
        Processor, number of processors, system, versions.
    notes : tuple of str
        What could not be measured, and why.
    """

    measurements: tuple[Measurement, ...]
    horizon: int
    batches: tuple[int, ...]
    repeats: int
    threads: int
    machine: str
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Measurement:
        """Return the measurement of this name."""
        for measurement in self.measurements:
            if measurement.name == name:
                return measurement
        known = ", ".join(m.name for m in self.measurements)
        raise KeyError(f"LatencyReport: no measurement {name!r}; there are: {known}")

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-ready types, the ratios included."""
        stored = asdict(self)
        stored |= {"batches": list(self.batches), "notes": list(self.notes)}
        stored["measurements"] = [
            asdict(m) | {"ratio": m.ratio, "ratio_to_imported": m.ratio_to_imported}
            for m in self.measurements
        ]
        return stored

    def __str__(self) -> str:
        """Return the table as plain text: medians, quartiles below them in brackets."""
        titles = ("", "original", "full order", "reduced", "reduced/original", "reduced/full")
        lines: list[tuple[str, ...]] = [titles]
        for m in self.measurements:
            variants = (m.original, m.imported, m.reduced)
            relative = "-" if m.original is None else f"{m.ratio:.2f}"
            medians = ["-" if v is None else quantity(v.median, m.unit) for v in variants]
            lines.append((m.name, *medians, relative, f"{m.ratio_to_imported:.2f}"))
            if any(v is not None and v.lower != v.upper for v in variants):
                lines.append(
                    ("", *("" if v is None else _range(v, m.unit) for v in variants), "", "")
                )
        rows = aligned(lines)
        rows += [
            "",
            f"medians [quartiles] of {self.repeats} alternating blocks; sequences of "
            f"{self.horizon} steps; threads: {self.threads}",
            '"full order" is the original in ssmred\'s layers: float64 systems, kernel cached, '
            "nothing removed",
            self.machine,
            *self.notes,
        ]
        return "\n".join(rows)


def _ratio(reduced: Spread, other: Spread) -> float:
    return reduced.median / other.median if other.median else math.nan


def _range(spread: Spread, unit: str) -> str:
    return f"[{quantity(spread.lower, unit)}, {quantity(spread.upper, unit)}]"
