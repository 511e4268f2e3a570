"""Measure layers whose channels share one state: gains of a matrix-valued response.

The gains of ``theory/network-bound.md`` for m inputs and p outputs (theorem 1, coupled layers):
entry by entry, by rows, and the largest singular value of the transfer matrix over frequency.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ssmred.certify.values import EPS, norm, times, up
from ssmred.norms import (
    h2_error,
    h2_norm,
    impulse_l1_gain,
    l1_gain,
    l1_gain_error,
    l2_gain,
    l2_gain_error,
)
from ssmred.norms.response_form import response_form
from ssmred.norms.transfer_peak import transfer_peaks
from ssmred.systems import DiagonalSystem
from ssmred.systems.conversions import difference_of

__all__ = ["CoupledGains", "carried", "coupled_gains", "endless_gains"]

SUMMED_ENTRIES = 4096
"""Entries of a response up to which each one's moduli are summed over an infinite horizon."""


@dataclass(frozen=True, eq=False)
class CoupledGains:
    """Hold the gains of a response of p outputs to m inputs, each an upper bound.

    Parameters
    ----------
    l1, l2, h2 : (p, m) float64
        Of every entry, as of a channel by itself.
    step_lo, step_hi : (p, m) float64
        Range of the step response of every entry over time.
    step_l2 : (p, m) float64
        2-norm of the step response; inf on an infinite horizon.
    l2_rows, h2_rows : (p,) float64
        2-norm of an output over time, and its largest value, per 2-norm of the whole input.
    l2_whole : float
        2-norm of the whole output per 2-norm of the whole input.
    """

    l1: np.ndarray
    l2: np.ndarray
    h2: np.ndarray
    step_lo: np.ndarray
    step_hi: np.ndarray
    step_l2: np.ndarray
    l2_rows: np.ndarray
    h2_rows: np.ndarray
    l2_whole: float

    @property
    def step(self) -> np.ndarray:
        """Largest absolute value of the step response of every entry, at most ``l1``."""
        return np.minimum(np.maximum(np.abs(self.step_lo), np.abs(self.step_hi)), self.l1)

    @classmethod
    def zero(cls, outputs: int, inputs: int) -> CoupledGains:
        """Return the gains of the zero layer."""
        entry, row = np.zeros((outputs, inputs)), np.zeros(outputs)
        return cls(*[entry] * 6, row, row, 0.0)


def carried(gains: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Return ``sum_j gains[i, j] bounds[j]``, (p, 1), for bounds (m, 1), where ``0 * inf = 0``."""
    terms = times(gains, bounds[:, 0])
    return up(np.sum(terms, axis=-1, keepdims=True), gains.shape[-1] + 1)


def coupled_gains(h: np.ndarray, noise: np.ndarray) -> CoupledGains:
    """Return the gains of a response (p, m, T) known up to ``sum_k |rounding_k| <= noise`` (p, m).

    Theory: ``theory/finite-horizon-gain.md``.
    """
    horizon = h.shape[-1]
    l1 = up(impulse_l1_gain(h) + noise)
    peaks = transfer_peaks(np.moveaxis(h, -1, 0), noise)
    l2 = np.minimum(peaks.entries, l1)
    row_noise = norm(noise, axis=-1)
    l2_rows = np.minimum(peaks.rows, norm(l2, axis=-1))
    energy = norm(np.abs(h), axis=-1)
    h2 = np.minimum(up(energy + noise), l2)
    h2_rows = np.minimum(up(norm(energy, axis=-1) + row_noise), norm(h2, axis=-1))
    h2_rows = np.minimum(h2_rows, l2_rows)
    steps = np.cumsum(h, axis=-1)
    slack = up(noise + (horizon + 2) * EPS * l1)
    step_l2 = up(norm(np.abs(steps), axis=-1) + math.sqrt(horizon) * slack, 4)
    return CoupledGains(
        l1,
        l2,
        h2,
        steps.min(axis=-1) - slack,
        steps.max(axis=-1) + slack,
        step_l2,
        l2_rows,
        h2_rows,
        min(peaks.whole, float(norm(l2_rows)), _by_sums(l1)),
    )


def endless_gains(original: DiagonalSystem, reduced: DiagonalSystem | None) -> CoupledGains:
    """Return the gains of a layer, or of ``original - reduced``, over an infinite horizon."""
    if reduced is None:
        whole = float(np.max(l2_gain(original, horizon=None)))
        energy = [np.asarray(h2_norm(by(original), horizon=None)) for by in (_rows, _entries)]
    else:
        whole = float(np.max(l2_gain_error(original, reduced, horizon=None)))
        energy = [
            np.asarray(h2_error(by(original), by(reduced), horizon=None))
            for by in (_rows, _entries)
        ]
    l1 = _endless_sums(original, reduced)
    whole = min(whole, _by_sums(l1))
    l2 = np.minimum(l1, whole)
    l2_rows = np.minimum(norm(l2, axis=-1), whole)
    # the h2 norm is no upper bound against its own rounding; the l2 gain is one, and is larger
    h2_rows = np.minimum(up(energy[0], 2**20), l2_rows)
    h2 = np.minimum(up(energy[1].reshape(l1.shape), 2**20), l2)
    step_l2 = np.where(l1 > 0.0, math.inf, 0.0)
    return CoupledGains(l1, l2, h2, -l1, l1, step_l2, l2_rows, h2_rows, whole)


def _by_sums(l1: np.ndarray) -> float:
    """Return the bound of the largest singular value by row and column sums (Schur)."""
    rows, columns = np.sum(l1, axis=1).max(initial=0.0), np.sum(l1, axis=0).max(initial=0.0)
    return float(up(math.sqrt(rows) * math.sqrt(columns), sum(l1.shape) + 4))


def _endless_sums(original: DiagonalSystem, reduced: DiagonalSystem | None) -> np.ndarray:
    """Return bounds of ``sum_k |h_k|`` (p, m), by the moduli of the modes where there are many."""
    shape = original.outputs, original.inputs
    if math.prod(shape) <= SUMMED_ENTRIES:
        if reduced is None:
            sums = l1_gain(_entries(original), horizon=None)
        else:
            sums = l1_gain_error(_entries(original), _entries(reduced), horizon=None)
        return np.asarray(sums).reshape(shape)
    form = response_form(original if reduced is None else difference_of(original, reduced, "gains"))
    direct = np.abs(form.direct) * (1.0 + 4 * EPS)
    return up(direct + form.absolute_sums(1, None)).reshape(shape)


def _rows(system: DiagonalSystem) -> DiagonalSystem:
    """Return the outputs of a shared state as a batch of p systems."""
    p, m, n = system.outputs, system.inputs, system.order
    return system.replace(
        poles=np.broadcast_to(system.poles.reshape(1, n), (p, n)),
        B=np.broadcast_to(system.B.reshape(1, n, m), (p, n, m)),
        C=system.C.reshape(p, 1, n),
        D=system.D.reshape(p, 1, m),
    )


def _entries(system: DiagonalSystem) -> DiagonalSystem:
    """Return the entries of the response of a shared state as a batch of p m systems."""
    p, m, n = system.outputs, system.inputs, system.order
    B, C = np.swapaxes(system.B.reshape(n, m), 0, 1), system.C.reshape(p, n)
    return system.replace(
        poles=np.broadcast_to(system.poles.reshape(1, n), (p * m, n)),
        B=np.broadcast_to(B[None, :, :, None], (p, m, n, 1)).reshape(p * m, n, 1),
        C=np.broadcast_to(C[:, None, None, :], (p, m, 1, n)).reshape(p * m, 1, n),
        D=system.D.reshape(p * m, 1, 1),
    )
