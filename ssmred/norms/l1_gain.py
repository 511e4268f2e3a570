"""Upper bounds of the l-infinity to l-infinity gain, the l1 norm of the impulse response.

Theory: ``theory/l1-gain.md``.
"""

from __future__ import annotations

import math

import numpy as np

from ssmred.kernels.impulse_integral import fill_absolute_integrals
from ssmred.norms.dense_gain import dense_samples
from ssmred.norms.dense_integral import dense_integrals
from ssmred.norms.response_form import UNIT, ResponseForm, response_form, with_conjugates
from ssmred.systems.conversions import difference_of
from ssmred.systems.dense import DenseSystem
from ssmred.systems.diagonal import DiagonalSystem
from ssmred.systems.linear import LinearSystem
from ssmred.systems.stability import check_horizon_of

__all__ = ["l1_gain", "l1_gain_error"]

LONGEST = 2**17  # samples (cells) summed before the tail is bounded mode by mode
EXCESS = 1e-4  # remainder of a cell, relative to the moduli of the modes, continuous time
SMALL_TAIL = 2.0**-40  # |pole|^T at which the tail is left to its bound


def l1_gain(system: LinearSystem, *, horizon: int | None = None) -> np.ndarray | float:
    """Return an upper bound of the peak gain, ``sup_k |y_k| <= gain sup_k |u_k|``.

    ``max_i sum_j sum_{k < horizon} |h_k[i, j]|``; in continuous time
    ``max_i sum_j (|D[i, j]| + int |h[i, j](t)| dt)``.

    Parameters
    ----------
    system : DiagonalSystem or DenseSystem
    horizon : int or None
        Number of samples (discrete only); None is infinite: samples until the slowest mode has
        died away, at most 131,072, plus the geometric tail
        ``sum_i |r_i| |l_i|^(T-1) / (1 - |l_i|)``.

    Returns
    -------
    float or (...) float64

    Raises
    ------
    UnstableSystemError
        If a pole is not stable and the horizon is infinite.
    UnsupportedOperationError
        For a finite horizon in continuous time.
    AccuracyError
        If the response overflows, or a dense system is too close to the stability boundary.

    Notes
    -----
    Level FLOAT, but an upper bound also against the rounding of its own evaluation. Discrete:
    tight to about ``1e-12`` for ``|poles| < 1 - 2e-4``; for slower ones the tail ignores their
    oscillation (at most a factor pi / 2 for a single slow pair). Continuous, diagonal: in excess by
    about ``1e-4`` of ``sum_i |r_i| / |Re l_i|`` for pairs that turn less than 10 times while they
    decay; for slower ones the tail is the same as in discrete time. Continuous, dense: in excess by
    ``1e-3`` where 131,072 cells reach that, defective A included; the tail is bounded by the length
    of the state, in coordinates in which it never grows. Theory: ``theory/l1-gain.md``.

    Examples
    --------
    >>> from ssmred.systems import DiagonalSystem
    >>> 2.0 <= l1_gain(DiagonalSystem([-0.5], [1.0], [1.0])) < 2.0 + 1e-11
    True
    >>> 2.0 <= l1_gain(DiagonalSystem([-0.5], [1.0], [1.0], dt=0)) < 2.0 + 1e-3
    True
    """
    return _l1_gain(system, horizon, "l1_gain")


def l1_gain_error(
    full: LinearSystem, reduced: LinearSystem, *, horizon: int | None = None
) -> np.ndarray | float:
    """Return an upper bound of the peak gain of ``full - reduced``; see :func:`l1_gain`."""
    return _l1_gain(difference_of(full, reduced, "l1_gain_error"), horizon, "l1_gain_error")


def _l1_gain(system: LinearSystem, horizon: int | None, where: str) -> np.ndarray | float:
    length = check_horizon_of(system, horizon, where)
    if not system.is_discrete:
        if isinstance(system, DiagonalSystem):
            return _continuous(response_form(system))
        return _dense_continuous(system.to_dense(), where)
    if not isinstance(system, DiagonalSystem):
        samples = dense_samples(system.to_dense(), length, where)
        count = samples.values.shape[1] + samples.values.shape[3]
        sums = np.abs(samples.values).sum(axis=1) * (1.0 + (count + 4) * UNIT)
        # The row sum of an error matrix is at most sqrt(m) times its Frobenius norm.
        extra = math.sqrt(system.inputs) * (1.0 + 1e-14) * samples.extra
        gain = np.nextafter(sums.sum(axis=-1).max(axis=-1, initial=0.0) + extra, np.inf)
        gain = gain.reshape(system.batch_shape)
        return float(gain) if system.batch_shape == () else gain
    form = response_form(system)
    gains = np.empty(form.poles.shape[0])
    for channels in form.parts(math.prod(form.entries) * system.order * 64):
        gains[channels] = _diagonal(form.part(channels), length, where)
    return form.shaped(gains)


def _diagonal(form: ResponseForm, horizon: int | None, where: str) -> np.ndarray:
    count = horizon if horizon is not None else _samples_until_small(form)
    sums = np.abs(form.direct)
    for block in form.later_blocks(count, where):
        sums = sums + np.abs(block).sum(axis=-1)
    sums = sums * (1.0 + (count + 8) * UNIT) + form.rounding(count)
    if horizon is None:
        sums = sums + form.absolute_sums(count, None)
    rows = sums.reshape(len(sums), *form.entries).sum(axis=-1)
    return rows.max(axis=-1, initial=0.0) * (1.0 + (form.entries[1] + 8) * UNIT)


def _continuous(form: ResponseForm) -> np.ndarray | float:
    """Return the gains of diagonal systems in continuous time."""
    poles, residues, counts = form.poles, form.residues, form.counts
    if form.real:
        poles, residues, counts = with_conjugates(poles, residues, counts)
    sums = np.empty(form.direct.shape)
    fill_absolute_integrals(poles, residues, counts, EXCESS, LONGEST, sums)
    sums += np.abs(form.direct) * (1.0 + 4 * UNIT)
    rows = sums.reshape(len(sums), *form.entries).sum(axis=-1)
    return form.shaped(rows.max(axis=-1, initial=0.0) * (1.0 + (form.entries[1] + 8) * UNIT))


def _dense_continuous(system: DenseSystem, where: str) -> np.ndarray | float:
    """Return the gains of dense systems in continuous time."""
    direct = np.abs(system.D).reshape(-1, system.outputs, system.inputs)
    rows = (dense_integrals(system, where) + direct * (1.0 + 4 * UNIT)).sum(axis=-1)
    gains = rows.max(axis=-1, initial=0.0) * (1.0 + (system.inputs + 8) * UNIT)
    return float(gains[0]) if system.batch_shape == () else gains.reshape(system.batch_shape)


def _samples_until_small(form: ResponseForm) -> int:
    """Return a count T with ``|l|^(T-1) <= SMALL_TAIL`` for all poles, within 1 and LONGEST."""
    gap, _ = form.moduli()
    slowest = float(gap.min(initial=1.0))
    if slowest >= 1.0:
        return 2
    return min(LONGEST, 2 + math.ceil(math.log(SMALL_TAIL) / math.log1p(-slowest)))
