"""Real systems given with their full spectrum: conjugate pairs leave together.

Theory: ``theory/optimal-readout.md``, section on conjugate pairs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ssmred.errors import ShapeError, message
from ssmred.reductors.reduction import Reduction
from ssmred.reductors.subset_path import SubsetPath
from ssmred.systems import DiagonalSystem

__all__ = ["ConjugatePairs", "ConjugatePath", "find_conjugate_pairs"]

CLOSE = 16 * np.finfo(float).eps
"""Relative gap below which two numbers count as conjugate: a few roundings of what made them."""

PREFERENCE = 0.999
"""Factor that breaks ties between inputs of equal size, the same way for a mode and its partner."""


@dataclass(frozen=True, eq=False)
class ConjugatePairs:
    """Hold a system that equals its conjugate, with its half spectrum.

    Attributes
    ----------
    system : DiagonalSystem
        The full spectrum, n modes in each channel.
    partner : (..., n) int64
        The conjugate of every mode; a real mode is its own.
    half : DiagonalSystem
        The same responses from one mode of each pair, the first, and the real modes: w modes with
        ``real_output=True``. Channels with fewer are padded with B = 0, C = 0.
    position : (..., n) int64
        The mode of ``half`` that stands for each mode of ``system``.
    sizes : (..., w) int64
        Modes of ``system`` that each mode of ``half`` stands for: 2, 1, or 0 for padding.
    gauge : (..., n) complex128
        One entry of each row of B, the same of both partners; 1 where B is 0.
    """

    system: DiagonalSystem
    partner: np.ndarray
    half: DiagonalSystem
    position: np.ndarray
    sizes: np.ndarray
    gauge: np.ndarray

    def spread(self, values: np.ndarray) -> np.ndarray:
        """Return the values (..., w) of the half spectrum's modes at all modes (..., n)."""
        return np.take_along_axis(values, self.position, axis=-1)

    def written_out(self, half: DiagonalSystem) -> DiagonalSystem:
        """Return the full spectrum of a half spectrum that differs in C, D and perhaps B."""
        modes = np.arange(self.system.order)
        own, later = self.partner == modes, self.partner < modes
        if not np.array_equal(half.B, self.half.B):
            return self._written_anew(half, own, later)
        C = np.take_along_axis(half.C, self.position[..., None, :], axis=-1)
        C = np.where(later[..., None, :], C.conj(), C) / 2
        # What scales B of a partner by a factor scales its C by the inverse.
        wanted = np.take_along_axis(self.gauge, self.partner, axis=-1).conj()
        scaled = later & (wanted != self.gauge)
        C = C * np.where(scaled, wanted / self.gauge, 1)[..., None, :]
        C = np.where(own[..., None, :], 2 * C.real / _phase(self.gauge)[..., None, :], C)
        driven = np.any(self.system.B != 0, axis=-1)[..., None, :]
        return self.system.replace(C=np.where(driven, C, self.system.C), D=half.D)

    def _written_anew(
        self, half: DiagonalSystem, own: np.ndarray, later: np.ndarray
    ) -> DiagonalSystem:
        """Return the same with B of the half spectrum, partners exactly conjugate."""
        B = np.take_along_axis(half.B, self.position[..., None], axis=-2)
        C = np.take_along_axis(half.C, self.position[..., None, :], axis=-1)
        B = np.where(later[..., None], B.conj(), B)
        C = np.where(later[..., None, :], C.conj(), C) / 2
        B = np.where(own[..., None], B.real, B)
        C = np.where(own[..., None, :], 2 * C.real, C)
        return self.system.replace(B=B, C=C, D=half.D)


@dataclass(frozen=True, eq=False)
class ConjugatePath(SubsetPath):
    """Hold the removal path of a system whose conjugate pairs go as one.

    Attributes
    ----------
    half : SubsetPath
        Path of the half spectrum.
    pairs : ConjugatePairs
    left : (..., w + 1) int64
        Modes of the full spectrum that are left after each removal from the half spectrum.
    """

    half: SubsetPath = field(repr=False)
    pairs: ConjugatePairs = field(repr=False)
    left: np.ndarray = field(repr=False)

    @classmethod
    def written_out(cls, half: SubsetPath, pairs: ConjugatePairs) -> ConjugatePath:
        """Return the path of a full spectrum, from that of its half."""
        n = pairs.system.order
        sizes = np.take_along_axis(pairs.sizes, half.removal, axis=-1)
        left = n - np.cumsum(np.concatenate([np.zeros_like(sizes[..., :1]), sizes], -1), axis=-1)
        step = np.empty_like(half.removal)
        np.put_along_axis(
            step, half.removal, np.broadcast_to(np.arange(step.shape[-1]), step.shape), axis=-1
        )
        removal = np.argsort(pairs.spread(step), axis=-1, kind="stable")
        taken = _steps(left, n - np.arange(n + 1))
        errors = np.take_along_axis(half.errors, taken, axis=-1)
        return cls(
            pairs.system,
            removal,
            errors,
            half.norms,
            half.metric,
            half.root,
            half,
            pairs,
            left,
        )

    def keeping(self, mask: npt.ArrayLike) -> Reduction:
        """Return the system that keeps the modes of a mask; see :meth:`SubsetPath.keeping`."""
        values = np.asarray(mask)
        if values.dtype == bool and values.shape == self.system.poles.shape:
            driven = np.any(self.system.B != 0, axis=-1)
            partner = np.take_along_axis(values, self.pairs.partner, axis=-1)
            if np.any(driven & (partner != values)):
                raise ShapeError(
                    message(
                        "SubsetPath.keeping",
                        "the mask keeps one mode of a conjugate pair",
                        expected="both or none: the system is real",
                    )
                )
        return super().keeping(mask)

    def _mask(self, counts: np.ndarray) -> np.ndarray:
        taken = _steps(self.left, counts[..., None])[..., 0]
        return self.pairs.spread(self.half._mask(self.half.system.order - taken))

    def _fit(self, mask: np.ndarray) -> tuple[DiagonalSystem, np.ndarray, np.ndarray | None]:
        chosen = np.zeros(self.half.system.poles.shape, bool)
        np.put_along_axis(chosen, self.pairs.position, mask, axis=-1)
        half, error, sweeps = self.half._fit(chosen)
        system = self.pairs.written_out(half)
        return system.replace(C=np.where(mask[..., None, :], system.C, 0)), error, sweeps


def find_conjugate_pairs(system: DiagonalSystem) -> ConjugatePairs | None:
    """Return the conjugate pairs of a real system that is given with its full spectrum.

    Mode j is the partner of mode i if their poles and their residues ``C_i B_i`` are conjugate, to
    a few units in the last place, and so are the rows of B up to a factor. A real mode is its own
    partner.

    Parameters
    ----------
    system : DiagonalSystem

    Returns
    -------
    ConjugatePairs or None
        None if the data is real, ``real_output`` is set, or a channel does not equal its conjugate:
        D is not real or a mode that some input drives has no partner.

    Notes
    -----
    Cost O(n**2 (m + p)) per channel.

    Examples
    --------
    >>> system = DiagonalSystem([0.5j, 0.2, -0.5j], [1, 1, 1], [1 + 1j, 3, 1 - 1j])
    >>> pairs = find_conjugate_pairs(system)
    >>> pairs.partner.tolist(), pairs.half.C.tolist()
    ([2, 1, 0], [[(2+2j), (3+0j)]])
    """
    if system.is_real or system.poles.size == 0 or system.inputs == 0:
        return None
    poles, B, D = system.poles, system.B, system.D
    driven = np.any(B != 0, axis=-1)
    largest = np.max(np.abs(D), axis=(-2, -1), initial=0)[..., None, None]
    # The sums spare systems without any partners the comparison of all modes.
    spill = np.abs(np.sum(poles.imag, axis=-1, where=driven))
    bound = system.order * CLOSE * np.sum(np.abs(poles), axis=-1)
    if np.any(np.abs(D.imag) > CLOSE * largest) or np.any(spill > bound):
        return None
    gauge = np.where(driven, _gauge(B), 1)
    partner = _partners(system, gauge, driven)
    if partner is None:
        return None
    modes = np.arange(system.order)
    own = partner == modes
    first = partner >= modes
    phase = _phase(gauge)
    # One mode of each pair to the front. What fills up a channel keeps its pole, away from 0.
    width = int(np.max(np.sum(first, axis=-1)))
    order = np.argsort(~first, axis=-1, kind="stable")[..., :width]
    filled = np.take_along_axis(first, order, axis=-1)
    B = np.where(own[..., None], (B / phase[..., None]).real, B)
    C = np.where(own[..., None, :], (system.C * phase[..., None, :]).real, 2 * system.C)
    half = system.replace(
        poles=np.take_along_axis(np.where(own, poles.real, poles), order, axis=-1),
        B=np.take_along_axis(B, order[..., None], axis=-2) * filled[..., None],
        C=np.take_along_axis(C, order[..., None, :], axis=-1) * filled[..., None, :],
        D=D.real,
        real_output=True,
    )
    rank = np.cumsum(first, axis=-1) - 1
    position = np.take_along_axis(rank, np.minimum(partner, modes), axis=-1)
    sizes = np.where(filled, 2 - np.take_along_axis(own, order, axis=-1), 0)
    return ConjugatePairs(system, partner, half, position, sizes, gauge)


def _partners(system: DiagonalSystem, gauge: np.ndarray, driven: np.ndarray) -> np.ndarray | None:
    """Return the partner (..., n) of every mode, or None if a driven one has none."""
    with np.errstate(over="ignore", invalid="ignore"):  # then nothing is close
        rows = system.B / gauge[..., None]
        columns = np.swapaxes(system.C, -1, -2) * (gauge * driven)[..., None]
        close = _conjugate(system.poles[..., None]) & _conjugate(rows) & _conjugate(columns)
    close &= np.swapaxes(close, -1, -2)
    # Equal modes pair off with their partners in the order in which they stand.
    modes = np.arange(system.order)
    kind = np.argmax(close, axis=-1)
    rank = np.sum((kind[..., None, :] == kind[..., None]) & (modes < modes[:, None]), axis=-1)
    turn = close & (np.cumsum(close, axis=-1) == rank[..., None] + 1)
    own = np.diagonal(close, axis1=-2, axis2=-1)
    partner = np.where(own, modes, np.argmax(turn, axis=-1))
    found = own | np.any(turn, axis=-1)
    found &= np.take_along_axis(partner, partner, axis=-1) == modes
    # What no input drives adds nothing to any response, whatever its pole.
    if not np.all(found | ~driven):
        return None
    return np.where(found, partner, modes)


def _conjugate(rows: np.ndarray) -> np.ndarray:
    """Return the (..., n, n) pairs of rows (..., n, v) that are conjugate to rounding."""
    gaps = np.abs(rows[..., :, None, :] - rows[..., None, :, :].conj())
    sizes = np.max(np.abs(rows), axis=-1, initial=0)
    return np.max(gaps, axis=-1, initial=0) <= CLOSE * sizes[..., None]


def _gauge(B: np.ndarray) -> np.ndarray:
    """Return the largest entry (..., n) of every row of B (..., n, m)."""
    sizes = np.abs(B) * PREFERENCE ** np.arange(B.shape[-1])
    return np.take_along_axis(B, np.argmax(sizes, axis=-1)[..., None], axis=-1)[..., 0]


def _phase(gauge: np.ndarray) -> np.ndarray:
    """Return ``gauge / |gauge|``; exactly 1 or -1 for real numbers."""
    # not left to complex division, which multiplies by a rounded reciprocal
    return np.where(gauge.imag == 0, np.sign(gauge.real), gauge / np.abs(gauge))


def _steps(left: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the fewest removals after which at most ``wanted`` (..., t) modes are left."""
    return np.sum(left[..., None, :] > wanted[..., :, None], axis=-1)
