"""Channels of a system, grouped by how many poles lie inside a boundary, and taken apart.

Theory: ``theory/spectral-split.md``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ssmred.errors import AccuracyError, message
from ssmred.gramians.spectral_split import spectral_split
from ssmred.reductors.conjugation import find_conjugate_pairs
from ssmred.reductors.moving import taken
from ssmred.systems.dense import DenseSystem
from ssmred.systems.diagonal import DiagonalSystem
from ssmred.systems.diagonalisation import diagonalised
from ssmred.systems.linear import LinearSystem, of_kind

__all__ = ["Part", "dense_parts", "diagonal_parts", "part_of"]


@dataclass(frozen=True, eq=False)
class Part:
    """Some channels of a flat batch with equally many modes inside, taken apart.

    Attributes
    ----------
    channels : (G,) int64
    full, inside, outside : LinearSystem
        Of these channels; inside + outside = full.
    kept : (G,) int64
        Modes of outside without padding.
    fixed : (G,) int64
        What they count for in an order.
    places : (G, i) int64 or None
        Numbers of the modes inside, of a diagonal system.
    condition : (G,) float64 or None
        Condition number of the eigenvectors of outside, where it was diagonalised.
    """

    channels: np.ndarray
    full: LinearSystem
    inside: LinearSystem
    outside: LinearSystem
    kept: np.ndarray
    fixed: np.ndarray
    places: np.ndarray | None
    condition: np.ndarray | None = None

    def diagonalised(self) -> Part:
        """Return the same with a diagonal outside."""
        outside = of_kind(self.outside, DenseSystem, "SplitReductor")
        result = diagonalised(outside, half=outside.real_output)
        return Part(
            self.channels,
            self.full,
            self.inside,
            result.system,
            result.modes,
            np.maximum(self.fixed, result.modes),
            None,
            result.condition,
        )


def diagonal_parts(flat: DiagonalSystem, boundary: float | None) -> list[Part]:
    """Return the groups of channels of a diagonal system."""
    count, n = flat.poles.shape
    # modes carry their numbers through the split
    numbers = np.broadcast_to(np.arange(1.0, n + 1), (count, n))
    marked = DiagonalSystem(flat.poles, numbers, np.zeros((count, n)), dt=flat.dt)
    inner, outer = (
        part.B[..., 0].real.astype(np.int64) - 1 for part in spectral_split(marked, boundary)
    )
    inside = np.zeros((count, n + 1), bool)
    np.put_along_axis(inside, inner, True, axis=-1)
    inside = inside[:, :n]  # padding went to the last column
    _check_pairs(flat, inside)
    sizes = np.sum(inner >= 0, axis=-1)
    parts = []
    for size in np.unique(sizes):
        channels = np.flatnonzero(sizes == size)
        part = taken(flat, channels)
        places, others = inner[channels, :size], outer[channels, : n - size]
        rest = _chosen(part, others).replace(D=np.zeros_like(part.D))
        parts.append(part_of(part, channels, _chosen(part, places), rest, places))
    return parts


def _check_pairs(flat: DiagonalSystem, inside: np.ndarray) -> None:
    """Raise AccuracyError if a conjugate pair of a real system lies on both sides."""
    pairs = find_conjugate_pairs(flat)
    if pairs is None:
        return
    if np.any(inside != np.take_along_axis(inside, pairs.partner, axis=-1)):
        raise AccuracyError(
            message(
                "SplitReductor",
                "a conjugate pair lies on the boundary within rounding, one of it on each side",
                cure="Pass another boundary, or make the poles exactly conjugate.",
            )
        )


def dense_parts(flat: LinearSystem, boundary: float | None) -> list[Part]:
    """Return the groups of channels of a dense system."""
    flat = of_kind(flat, DenseSystem, "SplitReductor")
    singles = [
        spectral_split(flat.replace(**{k: getattr(flat, k)[h] for k in "ABCD"}), boundary)
        for h in range(len(flat.A))
    ]
    sizes = np.array([inside.order for inside, _ in singles])
    parts = []
    for size in np.unique(sizes):
        channels = np.flatnonzero(sizes == size)
        inside, outside = (
            flat.replace(
                **{k: np.stack([getattr(singles[h][i], k) for h in channels]) for k in "ABCD"}
            )
            for i in (0, 1)
        )
        parts.append(part_of(taken(flat, channels), channels, inside, outside, None))
    return parts


def part_of(
    full: LinearSystem,
    channels: np.ndarray,
    inside: LinearSystem,
    outside: LinearSystem,
    places: np.ndarray | None,
) -> Part:
    """Return a part all of whose outside modes are used."""
    kept = np.full(channels.size, outside.order, np.int64)
    return Part(channels, full, inside, outside, kept, kept, places)


def _chosen(system: DiagonalSystem, places: np.ndarray) -> DiagonalSystem:
    """Return the modes with these numbers (H, k)."""
    return system.replace(
        poles=np.take_along_axis(system.poles, places, axis=-1),
        B=np.take_along_axis(system.B, places[..., None], axis=-2),
        C=np.take_along_axis(system.C, places[..., None, :], axis=-1),
    )
