"""The response form of a diagonal system: every distinct pole once, residues to one rounding.

All norms of diagonal systems start here. Equal poles are merged in double-double arithmetic, so
the difference of two systems with shared poles is formed from the differences of their read-outs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ssmred.checks import check_integer
from ssmred.errors import AccuracyError, UnsupportedOperationError, message
from ssmred.kernels.gramian import fill_stability_margins
from ssmred.kernels.response import exponential_blocks, fill_merged_residues
from ssmred.systems.conversions import difference_of
from ssmred.systems.diagonal import DiagonalSystem

__all__ = ["ResponseForm", "difference_response", "response_form", "with_conjugates"]

UNIT = 2.0**-53  # rounding unit of float64
BLOCK_ENTRIES = 2**22  # samples held at once


@dataclass(frozen=True)
class ResponseForm:
    """Hold ``h_0 = direct``, ``h_k = sum_i residues_i poles_i^(k-1)`` (real part if ``real``).

    Parameters
    ----------
    poles : (H, n) complex128
    residues : (H, n, K) complex128
        ``K = p m`` entries of the response, row by row; zero beyond ``counts``.
    direct : (H, K) complex128
    counts : (H,) int64
        Modes in use.
    real, continuous : bool
    batch_shape : tuple of int
    entries : tuple of int
        ``(p, m)``.
    """

    poles: np.ndarray
    residues: np.ndarray
    direct: np.ndarray
    counts: np.ndarray
    real: bool
    continuous: bool
    batch_shape: tuple[int, ...]
    entries: tuple[int, int]

    def part(self, channels: slice) -> ResponseForm:
        """Return some of the channels, with a flat batch."""
        poles = self.poles[channels]
        return replace(
            self,
            poles=poles,
            residues=self.residues[channels],
            direct=self.direct[channels],
            counts=self.counts[channels],
            batch_shape=poles.shape[:1],
        )

    def parts(self, entries_per_channel: int) -> list[slice]:
        """Return slices of channels that keep ``entries_per_channel`` within bounded memory."""
        step = max(1, BLOCK_ENTRIES // max(1, entries_per_channel))
        return [slice(i, i + step) for i in range(0, self.poles.shape[0], step)]

    def shaped(self, values: np.ndarray) -> np.ndarray | float:
        """Return values (H,) in the batch shape, a float for a single system."""
        return float(values[0]) if self.batch_shape == () else values.reshape(self.batch_shape)

    def samples(self, horizon: int, where: str) -> np.ndarray:
        """Return ``h_0 ... h_{horizon-1}`` as (H, K, horizon), float64 where real."""
        direct = self.direct.real if self.real else self.direct
        return np.concatenate([direct[..., None], *self.later_blocks(horizon, where)], axis=-1)

    def later_blocks(self, horizon: int, where: str) -> Iterator[np.ndarray]:
        """Yield h_1 ... h_{horizon-1} in consecutive blocks (H, K, t) of bounded memory."""
        residues = np.swapaxes(self.residues, -1, -2)
        with np.errstate(all="ignore"):  # overflow is found and reported here
            for block in exponential_blocks(self.poles, residues, horizon - 1, real=self.real):
                if not np.isfinite(block).all():
                    raise AccuracyError(
                        message(
                            where,
                            f"the impulse response overflows float64 within {horizon} samples",
                            cure="Shorten the horizon.",
                        )
                    )
                yield block

    def moduli(self) -> tuple[np.ndarray, np.ndarray]:
        """Return ``1 - |l|`` accurately (negative outside the circle) and ``|l|``, both (H, n)."""
        margins = np.empty(self.poles.size)
        fill_stability_margins(np.ascontiguousarray(self.poles).reshape(-1), False, margins)
        radius = np.abs(self.poles)
        return margins.reshape(radius.shape) / (1.0 + radius), radius

    def absolute_sums(self, start: int, stop: int | None) -> np.ndarray:
        """Return ``sum_i |r_i| sum_{start <= k < stop} |l_i|^(k-1)``, start >= 1, as (H, K).

        An upper bound of the l1 norm of that stretch of the response; stop None is infinity.
        """
        gap, radius = self.moduli()
        alive = np.arange(radius.shape[1]) < self.counts[:, None]
        with np.errstate(all="ignore"):
            rate = np.log1p(-gap)  # log |l|; -inf for a pole at 0
            head = np.where(start == 1, 1.0, np.exp((start - 1) * rate))
            if stop is None:
                sums = head / gap
            else:
                length = stop - start
                flat = np.abs(gap) * length < UNIT
                # gap = 0 is replaced by 1 where the limit ``length`` is taken anyway
                safe = np.where(flat, 1.0, gap)
                sums = np.where(flat, length, -np.expm1(length * rate) / safe) * head
                sums = np.where(length <= 0, 0.0, sums)
        sums = np.where(alive, sums, 0.0)
        # Inflated by more than the rounding of the few operations above.
        return (1.0 + 1e-12) * np.einsum("hnk,hn->hk", np.abs(self.residues), sums)

    def rounding(self, horizon: int) -> np.ndarray:
        """Return a bound (H, K) on the l1 norm of the rounding error of ``samples(horizon)``.

        ``|fl(h_k) - h_k| <= (3 n + 16) u sum_i |r_i| |l_i|^(k-1)``: inner products of 2 n real
        terms (their two parts together cost ``sqrt(2) 2 n u``), two table entries, the residue
        and their product 6 u; the rest covers higher orders.
        """
        modes = self.poles.shape[1]
        bound = (3 * modes + 16) * UNIT * self.absolute_sums(1, max(horizon, 1))
        return bound + 2 * UNIT * np.abs(self.direct)


def response_form(system: DiagonalSystem) -> ResponseForm:
    """Return the response form of a diagonal system (any recurrence, discrete or continuous)."""
    n, m, p = system.order, system.inputs, system.outputs
    channels = math.prod(system.batch_shape)
    poles = np.empty((channels, n), dtype=np.complex128)
    residues = np.empty((channels, n, p, m), dtype=np.complex128)
    direct = np.empty((channels, p, m), dtype=np.complex128)
    counts = np.empty(channels, dtype=np.int64)
    fill_merged_residues(
        system.poles.reshape(channels, n),
        system.B.reshape(channels, n, m),
        system.C.reshape(channels, p, n),
        np.ascontiguousarray(system.D, dtype=np.complex128).reshape(channels, p, m),
        system.is_post_update,
        system.is_real,
        poles,
        residues,
        direct,
        counts,
    )
    return ResponseForm(
        poles=poles,
        residues=residues.reshape(channels, n, p * m),
        direct=direct.reshape(channels, p * m),
        counts=counts,
        real=system.is_real,
        continuous=not system.is_discrete,
        batch_shape=system.batch_shape,
        entries=(p, m),
    )


def with_conjugates(
    poles: np.ndarray, residues: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the modes (H, 2 n) of a real response: halves of pairs, real poles once, then none."""
    alive = np.arange(poles.shape[1]) < counts[:, None]
    pairs = alive & (poles.imag != 0)
    scale = np.where(pairs, 0.5, 1.0)[..., None]
    both = np.concatenate([poles, poles.conj()], axis=1)
    weights = np.concatenate([residues * scale, residues.conj() * scale], axis=1)
    used = np.concatenate([alive, pairs], axis=1)
    order = np.argsort(~used, axis=1, kind="stable")
    both = np.take_along_axis(both, order, axis=1)
    weights = np.take_along_axis(weights, order[..., None], axis=1)
    return both, np.ascontiguousarray(weights), used.sum(axis=1)


def difference_response(
    full: DiagonalSystem, reduced: DiagonalSystem, horizon: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the impulse response of ``full - reduced`` and a bound of its rounding error.

    Equal poles are merged first, so the samples are differences of read-outs, not of samples.

    Parameters
    ----------
    full, reduced : DiagonalSystem
        Discrete; same dt, batch, inputs and outputs.
    horizon : int
        Number of samples.

    Returns
    -------
    response : (..., horizon, p, m) float64 or complex128
    radius : (..., p, m) float64
        Bound of ``sum_k |error of response[k]|`` for each entry: pass it to
        :func:`impulse_l2_gain` and :func:`impulse_l1_gain`.

    Raises
    ------
    ShapeError
        If the systems do not match.
    AccuracyError
        If the response overflows.

    Examples
    --------
    >>> full = DiagonalSystem([0.5, 0.25], [1.0, 1.0], [1.0, 5.0])
    >>> response, radius = difference_response(full, DiagonalSystem([0.25], [1.0], [5.0]), 3)
    >>> response[:, 0, 0].tolist(), bool(radius[0, 0] < 1e-14)
    ([0.0, 1.0, 0.5], True)
    """
    where = "difference_response"
    length = check_integer(horizon, "horizon", where, low=1)
    system = difference_of(full, reduced, where)
    if not isinstance(system, DiagonalSystem) or not system.is_discrete:
        raise UnsupportedOperationError(
            message(
                where,
                "not a pair of discrete diagonal systems",
                got=repr(system),
                cure="Discretise or diagonalise them first.",
            )
        )
    form = response_form(system)
    shape = (*form.batch_shape, length, *form.entries)
    samples = np.ascontiguousarray(np.swapaxes(form.samples(length, where), -1, -2)).reshape(shape)
    radius = form.rounding(length).reshape(*form.batch_shape, *form.entries)
    return samples, radius
