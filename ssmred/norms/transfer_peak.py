"""The largest singular value over frequencies of a matrix-valued response, from its samples.

Theory: ``theory/finite-horizon-gain.md``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import fft

from ssmred.norms.impulse import transform_rounding
from ssmred.norms.response_form import UNIT

__all__ = ["TransferPeaks", "largest_norm", "spectral_norms", "transfer_peaks"]

OVERSAMPLING = 8
AT_ONCE = 32  # matrices per call of LAPACK
CAUTION = 1e-9  # relative; far above the rounding of a Frobenius norm
UNDERFLOWN = 1e-150  # what squares leave out where the largest sample is 1


@dataclass(frozen=True)
class TransferPeaks:
    """Hold upper bounds of ``max_w |H(e^{jw})|`` entry by entry, of rows, and of the whole matrix.

    Parameters
    ----------
    entries : (p, m) float64
        Moduli.
    rows : (p,) float64
        2-norms of the rows.
    whole : float
        Largest singular value.
    """

    entries: np.ndarray
    rows: np.ndarray
    whole: float


def spectral_norms(matrices: np.ndarray) -> np.ndarray:
    """Return the largest singular value of (..., p, m) matrices, rounded upwards generously."""
    if matrices.shape[-2:] == (1, 1):
        return np.abs(matrices[..., 0, 0])
    # A singular value from LAPACK is off by at most a small multiple of eps ||.||_2.
    slack = 1.0 + 32 * max(matrices.shape[-2:]) * UNIT
    return np.linalg.norm(matrices, ord=2, axis=(-2, -1)) * slack


def largest_norm(
    matrices: np.ndarray, known: float = 0.0, *, extra: np.ndarray | float = 0.0
) -> float:
    """Return the largest of `known` and the spectral norms of (F, p, m) matrices plus `extra`.

    Matrices whose Frobenius norm is below the largest found so far need no singular values.
    """
    extra = np.broadcast_to(extra, matrices.shape[:1])
    frobenius = np.sqrt(np.einsum("fij,fij->f", matrices.real, matrices.real))
    if np.iscomplexobj(matrices):
        frobenius = np.hypot(
            frobenius, np.sqrt(np.einsum("fij,fij->f", matrices.imag, matrices.imag))
        )
    most = frobenius * (1.0 + CAUTION) + extra
    order = np.argsort(-most)
    for start in range(0, len(order), AT_ONCE):
        some = order[start : start + AT_ONCE]
        some = some[most[some] > known]
        if not some.size:
            break
        known = max(known, float((spectral_norms(matrices[some]) + extra[some]).max()))
    return known


def transfer_peaks(samples: np.ndarray, rounding: np.ndarray) -> TransferPeaks:
    """Bound the transfer matrix of the first samples of a response.

    ``max_j |H_T(w_j)| / cos(pi (T - 1) / (2 N))`` over ``N >= 8 T`` equispaced points, for entries,
    rows and singular values alike: all are maxima of moduli of ``v^* H w``.

    Parameters
    ----------
    samples : (T, p, m) float64
    rounding : (p, m) float64
        Bound of ``sum_k |error of samples[k]|``.

    Returns
    -------
    TransferPeaks
        Upper bounds also against rounding.

    Notes
    -----
    The points are visited in 5 interleaved sets of T, whose conjugates are the others, so memory
    stays at that of two copies of the samples. Theory: ``theory/finite-horizon-gain.md``, 2.

    Examples
    --------
    ``H(z) = (1, 1 / z)`` has rows and singular values of sqrt(2) everywhere.

    >>> peaks = transfer_peaks(np.array([[[1.0, 0.0]], [[0.0, 1.0]]]), np.zeros((1, 2)))
    >>> 2.0**0.5 <= peaks.whole < 1.03 * 2.0**0.5, bool((peaks.entries >= 1.0).all())
    (True, True)
    """
    horizon, _, inputs = samples.shape
    largest = float(np.abs(samples).max(initial=0.0))
    scale = 2.0 ** math.frexp(largest)[1] if 0.0 < largest < 2.0**1000 else 1.0
    samples, rounding = samples / scale, rounding / scale
    length = fft.next_fast_len(horizon) or horizon
    points = OVERSAMPLING * length
    steps = np.arange(horizon)
    entries = np.zeros(samples.shape[1:])
    rows = np.zeros(samples.shape[1])
    whole = 0.0
    for shift in range(OVERSAMPLING // 2 + 1):  # frequencies (q + shift / 8) 2 pi / length
        turn = np.exp(-2j * np.pi * (steps * shift % points) / points)
        turned = samples * turn[:, None, None] if shift else samples
        moduli = np.abs(transfer := fft.fft(turned, length, axis=0))
        entries = np.maximum(entries, moduli.max(axis=0))
        rows = np.maximum(rows, np.sqrt(np.square(moduli).sum(axis=-1).max(axis=0)))
        whole = largest_norm(transfer, whole)
    sums = np.abs(samples).sum(axis=0) * (1.0 + (horizon + 4) * UNIT)
    # a transform of this length after one multiplication by a rounded number of modulus 1
    error = (transform_rounding(points) + 16 * UNIT) * sums
    factor = (1.0 + (inputs + 16) * UNIT) / math.cos(math.pi * (horizon - 1) / (2 * points))

    def bound(peak: Any, axes: tuple[int, ...]) -> np.ndarray:
        sizes = [np.sqrt(np.square(size).sum(axis=axes)) for size in (error, rounding)]
        if not axes:
            sizes = [error, rounding]
        value = (peak + sizes[0] * (1.0 + CAUTION)) * factor + sizes[1] * (1.0 + CAUTION)
        return scale * (value + UNDERFLOWN)

    return TransferPeaks(bound(entries, ()), bound(rows, (1,)), float(bound(whole, (0, 1))))
