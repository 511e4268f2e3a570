"""Upper bounds of the l2 to l2 gain.

Theory: ``theory/finite-horizon-gain.md``.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import fft

from ssmred.errors import UnsupportedOperationError, message
from ssmred.kernels.phase_grid import fill_phase_grid, fill_transfer_values
from ssmred.norms.dense_gain import dense_samples
from ssmred.norms.impulse import (
    check_oversampling,
    impulse_l2_gain,
    transform_length,
    transform_rounding,
)
from ssmred.norms.response_form import BLOCK_ENTRIES, UNIT, ResponseForm, response_form
from ssmred.norms.transfer_peak import largest_norm, spectral_norms
from ssmred.systems.conversions import difference_of
from ssmred.systems.diagonal import DiagonalSystem
from ssmred.systems.linear import LinearSystem, check_system
from ssmred.systems.stability import check_horizon_of

__all__ = ["l2_gain", "l2_gain_error"]


def l2_gain(
    system: LinearSystem, *, horizon: int | None, oversampling: float = 8
) -> np.ndarray | float:
    """Return an upper bound of the l2 to l2 gain, ``||y||_2 <= gain ||u||_2``.

    Finite horizon T: ``max_w ||H_T(e^{jw})||_2`` with ``H_T`` the transfer matrix of the first T
    samples, bounded from ``N >= oversampling T`` samples by the factor
    ``1 / cos(pi (T - 1) / (2 N))``. Infinite horizon: ``max_w ||H(e^{jw})||_2`` (the H-infinity
    norm), bounded from points evenly spaced in the Blaschke phase of the poles.

    Parameters
    ----------
    system : DiagonalSystem or DenseSystem
        Discrete time.
    horizon : int or None
        Number of samples of every signal; None is infinite.
    oversampling : float
        At least 1. The result exceeds the maximum by a factor of at most
        ``1 / cos(pi / (2 oversampling))``, 1.0196 for 8.

    Returns
    -------
    float or (...) float64
        One value per batch entry; for several inputs and outputs the largest singular value.

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
    Level FLOAT, but an upper bound also against the rounding of its own evaluation, which is
    bounded a priori and added. Cost O(n T + oversampling T log T) per channel; infinite horizon
    O(oversampling n^2), whatever the distance of the poles from the circle. A dense system at
    infinite horizon is bounded by its first samples plus a geometric tail.

    Examples
    --------
    ``H(z) = 1 / (z - 1/2)`` is largest, 2, at z = 1; its first three samples sum to 3/2.

    >>> from ssmred.systems import DiagonalSystem
    >>> system = DiagonalSystem([0.5], [1.0], [1.0])
    >>> 2.0 <= l2_gain(system, horizon=None) < 2.0 * 1.02
    True
    >>> 1.5 <= l2_gain(system, horizon=3) < 1.5 * (1 + 1e-14)
    True
    """
    return _l2_gain(system, horizon, oversampling, "l2_gain")


def l2_gain_error(
    full: LinearSystem,
    reduced: LinearSystem,
    *,
    horizon: int | None,
    oversampling: float = 8,
) -> np.ndarray | float:
    """Return an upper bound of the l2 gain of ``full - reduced``; see :func:`l2_gain`.

    Examples
    --------
    >>> from ssmred.systems import DiagonalSystem
    >>> full = DiagonalSystem([0.5, 0.25], [1.0, 1.0], [1.0, 5.0])
    >>> reduced = DiagonalSystem([0.25], [1.0], [5.0])
    >>> 1.5 <= l2_gain_error(full, reduced, horizon=3) < 1.5 * (1 + 1e-14)
    True
    """
    return _l2_gain(
        difference_of(full, reduced, "l2_gain_error"), horizon, oversampling, "l2_gain_error"
    )


def _l2_gain(
    system: LinearSystem, horizon: int | None, oversampling: float, where: str
) -> np.ndarray | float:
    check_system(system, where)
    if not system.is_discrete:
        raise UnsupportedOperationError(
            message(
                where,
                "the system is in continuous time",
                cure="hinf_norm bounds its energy gain; or discretise it first.",
            )
        )
    length = check_horizon_of(system, horizon, where)
    check_oversampling(oversampling, where)
    if not isinstance(system, DiagonalSystem):
        samples = dense_samples(system.to_dense(), length, where)
        gain = _sampled(samples.values, oversampling) + samples.extra
        gain = np.nextafter(gain, np.inf).reshape(system.batch_shape)
        return float(gain) if system.batch_shape == () else gain
    form = response_form(system)
    gains = np.empty(form.poles.shape[0])
    per_channel = math.prod(form.entries) * (
        transform_length(length, oversampling)
        if length is not None
        else int(4 * oversampling) * (2 * system.order + 8)
    )
    for channels in form.parts(per_channel):
        part = form.part(channels)
        if length is None:
            gains[channels] = _infinite(part, oversampling)
        else:
            samples = part.samples(length, where)
            values = np.moveaxis(samples, -1, 1).reshape(len(samples), length, *form.entries)
            gains[channels] = _sampled(values, oversampling) + _frobenius(part.rounding(length))
    return form.shaped(np.nextafter(gains, np.inf))


def _frobenius(entries: np.ndarray) -> np.ndarray:
    return np.linalg.norm(entries, axis=-1) * (1.0 + 1e-14)


def _sampled(values: np.ndarray, oversampling: float) -> np.ndarray:
    """Return bounds (H,) for samples (H, T, p, m) taken as exact."""
    if values.shape[-2:] == (1, 1):
        return np.asarray(impulse_l2_gain(values[..., 0, 0], oversampling))
    horizon = values.shape[1]
    length = transform_length(horizon, oversampling)
    transform = fft.fft if np.iscomplexobj(values) else fft.rfft
    peaks = spectral_norms(transform(values, length, axis=1)).max(axis=1, initial=0.0)
    size = np.linalg.norm(np.abs(values).sum(axis=1), axis=(-2, -1))
    peaks = peaks + transform_rounding(length) * size
    return peaks * (1.0 + 8 * UNIT) / math.cos(math.pi * (horizon - 1) / (2 * length))


def _peaks(values: np.ndarray, rounding: np.ndarray) -> np.ndarray:
    """Return bounds (H,) for transfer matrices (H, F, p, m) with a rounding each, (H, F)."""
    if values.shape[-2:] == (1, 1):
        return (spectral_norms(values) + rounding).max(axis=1, initial=0.0)
    pairs = zip(values, rounding, strict=True)
    return np.array([largest_norm(matrices, extra=extra) for matrices, extra in pairs])


def _infinite(form: ResponseForm, oversampling: float) -> np.ndarray:
    """Return bounds (H,) of the H-infinity norm from a grid even in the Blaschke phase."""
    channels, modes, width = form.residues.shape
    target = math.pi / oversampling
    capacity = 16 + int(4 * oversampling) * (2 * modes + 2)
    used, gaps = np.empty(channels, np.int64), np.empty(channels)
    while True:
        grid = np.zeros((channels, capacity), np.complex128)
        fill_phase_grid(form.poles, form.counts, form.real, target, grid, used, gaps)
        if used.max(initial=0) <= capacity:
            break
        capacity = int(used.max())
    peaks = np.zeros(channels)
    block = max(1, BLOCK_ENTRIES // (channels * width))
    for start in range(0, capacity, block):
        part = np.ascontiguousarray(grid[:, start : start + block])
        values = np.empty((*part.shape, width), np.complex128)
        sizes = np.empty((*part.shape, width))
        fill_transfer_values(
            form.poles,
            form.residues,
            form.direct,
            form.counts,
            form.real,
            part,
            np.maximum(used - start, 0),
            values,
            sizes,
        )
        rounding = (8 * modes + 32) * UNIT * np.linalg.norm(sizes, axis=-1)
        peaks = np.maximum(peaks, _peaks(values.reshape(*part.shape, *form.entries), rounding))
    half = np.minimum(gaps / 2 + 1e-14, math.pi / 2)
    with np.errstate(divide="ignore"):
        bound = peaks * (1.0 + 8 * UNIT) / np.maximum(np.cos(half), 0.0)
    # The sum of moduli bounds the gain too, and is the only bound left where float64 has no
    # points between a pole and the circle.
    return np.minimum(bound, _frobenius(np.abs(form.direct) + form.absolute_sums(1, None)))
