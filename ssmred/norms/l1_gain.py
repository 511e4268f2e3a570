"""Upper bounds of the l-infinity to l-infinity gain, the l1 norm of the impulse response.

Theory: ``theory/l1-gain.md``.
"""

from __future__ import annotations

import math

import numpy as np

from ssmred.norms.dense_gain import dense_samples
from ssmred.norms.l2_gain import check_discrete
from ssmred.norms.response_form import UNIT, ResponseForm, response_form
from ssmred.systems.conversions import difference
from ssmred.systems.diagonal import DiagonalSystem
from ssmred.systems.linear import LinearSystem

__all__ = ["l1_gain", "l1_gain_error"]

LONGEST = 2**17  # samples summed before the geometric tail takes over
SMALL_TAIL = 2.0**-40  # |pole|^T at which the tail is left to its bound


def l1_gain(system: LinearSystem, *, horizon: int | None = None) -> np.ndarray | float:
    """Return an upper bound of the peak gain, ``sup_k |y_k| <= gain sup_k |u_k|``.

    ``max_i sum_j sum_{k < horizon} |h_k[i, j]|``.

    Parameters
    ----------
    system : DiagonalSystem or DenseSystem
        Discrete time.
    horizon : int or None
        Number of samples; None is infinite: samples until the slowest mode has died away, at
        most 131,072, plus the geometric tail ``sum_i |r_i| |l_i|^(T-1) / (1 - |l_i|)``.

    Returns
    -------
    float or (...) float64

    Raises
    ------
    UnstableSystemError
        If a pole is not stable and the horizon is infinite.
    UnsupportedOperationError
        In continuous time.
    AccuracyError
        If the response overflows, or a dense system is too close to the stability boundary.

    Notes
    -----
    Level FLOAT, but an upper bound also against the rounding of its own evaluation. Tight to
    about ``1e-12`` for ``|poles| < 1 - 2e-4``; for slower ones the tail ignores their oscillation
    (at most a factor pi / 2 for a single slow pair).

    Examples
    --------
    >>> from ssmred.systems import DiagonalSystem
    >>> 2.0 <= l1_gain(DiagonalSystem([-0.5], [1.0], [1.0])) < 2.0 + 1e-11
    True
    """
    return _l1_gain(system, horizon, "l1_gain")


def l1_gain_error(
    full: LinearSystem, reduced: LinearSystem, *, horizon: int | None = None
) -> np.ndarray | float:
    """Return an upper bound of the peak gain of ``full - reduced``; see :func:`l1_gain`."""
    return _l1_gain(difference(full, reduced), horizon, "l1_gain_error")


def _l1_gain(system: LinearSystem, horizon: int | None, where: str) -> np.ndarray | float:
    length = check_discrete(system, horizon, where)
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
        gains[channels] = _diagonal(form.part(channels), length)
    return form.shaped(gains)


def _diagonal(form: ResponseForm, horizon: int | None) -> np.ndarray:
    count = horizon if horizon is not None else _samples_until_small(form)
    sums = np.abs(form.direct)
    for block in form.later_blocks(count):
        sums = sums + np.abs(block).sum(axis=-1)
    sums = sums * (1.0 + (count + 8) * UNIT) + form.rounding(count)
    if horizon is None:
        sums = sums + form.absolute_sums(count, None)
    rows = sums.reshape(len(sums), *form.entries).sum(axis=-1)
    return rows.max(axis=-1, initial=0.0) * (1.0 + (form.entries[1] + 8) * UNIT)


def _samples_until_small(form: ResponseForm) -> int:
    """Return a count T with ``|l|^(T-1) <= SMALL_TAIL`` for all poles, within 1 and LONGEST."""
    gap, _ = form.moduli()
    slowest = float(gap.min(initial=1.0))
    if slowest >= 1.0:
        return 2
    return min(LONGEST, 2 + math.ceil(math.log(SMALL_TAIL) / math.log1p(-slowest)))
