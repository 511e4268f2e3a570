"""Gains of raw impulse responses: upper bounds that include the rounding of their own evaluation.

Theory: ``theory/finite-horizon-gain.md``, ``theory/l1-gain.md``.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import fft

from ssmred.checks import check_array, check_positive
from ssmred.errors import DataError, ShapeError, message

__all__ = [
    "check_oversampling",
    "impulse_l1_gain",
    "impulse_l2_gain",
    "transform_length",
    "transform_rounding",
]

UNIT = 2.0**-53
BLOCK_ENTRIES = 2**22  # transform values held at once


def impulse_l1_gain(h: np.ndarray, *, radius: np.ndarray | float = 0.0) -> np.ndarray | float:
    """Return an upper bound of ``sum_k |h_k|``, the l-infinity to l-infinity gain.

    Parameters
    ----------
    h : (..., T) float64 or complex128
        Impulse responses of single-input single-output systems.
    radius : float or (...) float64, optional
        A bound on the l1 norm of an error in ``h`` itself; added.

    Returns
    -------
    float or (...) float64
        Not below the exact sum of the given floats: inflated by ``(T + 4) u``, u = 2**-53.

    Raises
    ------
    ShapeError, DataError
        If h is no array of finite numbers with at least one sample.

    Examples
    --------
    >>> 6.0 <= impulse_l1_gain([1.0, -2.0, 3.0]) < 6.0 + 1e-14
    True
    """
    h = _checked(h, "impulse_l1_gain")
    return _returned(_l1(h) + _radius(radius, h, "impulse_l1_gain"))


def impulse_l2_gain(
    h: np.ndarray, oversampling: float = 8, *, radius: np.ndarray | float = 0.0
) -> np.ndarray | float:
    """Return an upper bound of ``max_w |sum_k h_k e^{-jwk}|``, the l2 to l2 gain.

    ``max_j |H(w_j)| / cos(pi (T - 1) / (2 N))`` over ``N >= oversampling T`` equispaced points,
    and at most ``sum_k |h_k|``.

    Parameters
    ----------
    h : (..., T) float64 or complex128
        Impulse responses of single-input single-output systems.
    oversampling : float
        At least 1. The bound exceeds the maximum by a factor below
        ``1 / cos(pi / (2 oversampling))``, 1.0196 for 8.
    radius : float or (...) float64, optional
        A bound on the l1 norm of an error in ``h`` itself; added.

    Returns
    -------
    float or (...) float64

    Raises
    ------
    ShapeError, DataError
        If h is no array of finite numbers with at least one sample, or oversampling < 1.

    Notes
    -----
    The rounding of the transform is covered by ``16 u log2(N) sum_k |h_k|``: every output of a
    mixed-radix FFT with small factors is a sum of at most that depth. Cost O(N log N).

    Examples
    --------
    ``|1 + 2 e^{-jw}|`` is largest, 3, at w = 0.

    >>> 3.0 <= impulse_l2_gain([1.0, 2.0]) < 3.0 + 1e-14
    True
    """
    where = "impulse_l2_gain"
    h = _checked(h, where)
    check_oversampling(oversampling, where)
    horizon = h.shape[-1]
    length = transform_length(horizon, oversampling)
    flat = h.reshape(-1, horizon)
    peaks = np.empty(flat.shape[0])
    step = max(1, BLOCK_ENTRIES // length)
    for first in range(0, flat.shape[0], step):
        part = flat[first : first + step]
        values = fft.fft(part, length) if np.iscomplexobj(part) else fft.rfft(part, length)
        peaks[first : first + step] = np.abs(values).max(axis=-1)
    sums = _l1(h)
    peaks = peaks.reshape(h.shape[:-1]) + transform_rounding(length) * sums
    factor = (1.0 + 8 * UNIT) / math.cos(math.pi * (horizon - 1) / (2 * length))
    bound = np.minimum(peaks * factor, sums)
    return _returned(bound + _radius(radius, h, where))


def transform_length(horizon: int, oversampling: float) -> int:
    """Return the FFT length, at least ``oversampling * horizon``, with small factors only."""
    wanted = math.ceil(oversampling * horizon)
    return fft.next_fast_len(wanted, real=True) or wanted


def transform_rounding(length: int) -> float:
    """Return the factor of ``sum |h_k|`` that bounds the rounding of any one FFT output."""
    return 16 * UNIT * math.log2(max(length, 2))


def check_oversampling(oversampling: float, where: str) -> None:
    """Raise DataError unless oversampling is a finite number >= 1."""
    if check_positive(oversampling, "oversampling", where) < 1:
        raise DataError(
            message(where, "oversampling is too small", expected=">= 1", got=f"{oversampling!r}")
        )


def _l1(h: np.ndarray) -> np.ndarray:
    # |.| of a complex number costs 2 u, any order of summation (T - 1) u.
    return np.abs(h).sum(axis=-1) * (1.0 + (h.shape[-1] + 4) * UNIT)


def _checked(h: np.ndarray, where: str) -> np.ndarray:
    h = check_array(h, "h", where)
    if h.ndim == 0 or h.shape[-1] == 0:
        raise ShapeError(message(where, "h has no samples", expected="(..., T)", got=f"{h.shape}"))
    return h


def _radius(radius: np.ndarray | float, h: np.ndarray, where: str) -> np.ndarray:
    values = check_array(radius, "radius", where)
    if np.any(values < 0) or values.shape not in ((), h.shape[:-1]):
        raise ShapeError(
            message(where, "radius does not fit", expected=f"{h.shape[:-1]}, >= 0", got=f"{radius}")
        )
    return values


def _returned(values: np.ndarray) -> np.ndarray | float:
    # One more unit for the last addition.
    values = np.nextafter(values, np.inf)
    return float(values) if values.ndim == 0 else values
