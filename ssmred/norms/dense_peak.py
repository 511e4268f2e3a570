"""Peaks of dense frequency responses, from triangular blocks, with their backward error.

Theory: ``theory/hinf-enclosure.md``.
"""

from __future__ import annotations

import math

import numpy as np

from ssmred.errors import AccuracyError, message
from ssmred.kernels.blas import with_blas_threads
from ssmred.kernels.peak_search import WIDEST, fill_dense_peaks, fill_diagonal_peaks
from ssmred.norms.dense_form import Triangular, modal_form, schur_form
from ssmred.norms.response_form import UNIT
from ssmred.systems.dense import DenseSystem, flat_matrices

__all__ = ["dense_peaks"]

ALLOWED = 1.1  # relative width that is asked for, over the rtol that the search is given
RESOLVED = 0.1  # perturbation of a dense system, relative to the distance from the boundary


@with_blas_threads
def dense_peaks(
    system: DenseSystem, rtol: float, where: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return lower and upper bounds of the peaks and their frequencies, (H,) each.

    Raises
    ------
    AccuracyError
        If a pole is within rounding of the stability boundary.
    """
    real = system.is_real
    if system.real_output:
        system = system.realified()
    system = _turned(system)
    n, channels = system.order, math.prod(system.batch_shape)
    A, B, C, D = flat_matrices(system)
    D = D.reshape(channels, system.outputs * system.inputs).astype(np.complex128)
    result = np.zeros((channels, 3))
    halves, continuous = 1 if real else 2, not system.is_discrete
    for h in range(channels):
        if n == 0:
            result[h] = _static_peak(D[h], system.outputs, system.inputs, halves, continuous, rtol)
            continue
        with np.errstate(all="ignore"):  # overflow shows up as an upper bound that is not finite
            result[h] = _narrowest(A[h], B[h], C[h], D[h], halves, continuous, rtol, where)
    return result[:, 0], result[:, 1], result[:, 2]


def _turned(system: DenseSystem) -> DenseSystem:
    """Return a standard system whose response has the same norm at every point of the circle.

    ``z (C (z I - A)^{-1} B + D / z)`` is what a post-update system does: without the z, D is behind
    a delay. Unlike ``C A`` and ``D + C B`` this is exact.
    """
    if not system.is_post_update:
        return system
    n, D = system.order, system.D
    extra = min(D.shape[-2:]) if D.any() else 0
    A = np.zeros((*system.batch_shape, n + extra, n + extra), system.A.dtype)
    A[..., :n, :n] = system.A
    B, C = system.B, system.C
    if extra:
        unit = np.broadcast_to(np.eye(extra), (*system.batch_shape, extra, extra))
        narrow = system.inputs == extra
        B = np.concatenate([B, unit if narrow else D], axis=-2)
        C = np.concatenate([C, D if narrow else unit], axis=-1)
    return DenseSystem(A, B, C, None, system.dt)


def _static_peak(
    D: np.ndarray, p: int, m: int, halves: int, continuous: bool, rtol: float
) -> tuple[float, float, float]:
    poles, residues = np.empty((1, 0), np.complex128), np.empty((1, 0, len(D)), np.complex128)
    out = np.empty((3, 1))
    counts = np.zeros(1, np.int64)
    fill_diagonal_peaks(poles, residues, D[None], counts, p, m, halves, continuous, rtol, *out)
    return float(out[0, 0]), float(out[1, 0]), float(out[2, 0])


def _narrowest(
    A: np.ndarray,
    B: np.ndarray,
    C: np.ndarray,
    D: np.ndarray,
    halves: int,
    continuous: bool,
    rtol: float,
    where: str,
) -> tuple[float, float, float]:
    """Return the enclosure from the Schur form, cut by that from the modes where it is too wide."""
    try:
        found = _peak(schur_form(A, B, C), D, halves, continuous, rtol, where)
        refusal = None
        if found[1] - found[0] <= ALLOWED * rtol * found[1]:
            return found
    except AccuracyError as error:
        found, refusal = (0.0, math.inf, 0.0), error
    form = modal_form(A, B, C, continuous)
    if form is None:
        if refusal is not None:
            raise refusal
        return found
    try:
        other = _peak(form, D, halves, continuous, rtol, where)
    except AccuracyError:
        if refusal is not None:
            raise refusal from None
        return found
    lower, frequency = max((found[0], found[2]), (other[0], other[2]))
    return lower, min(found[1], other[1]), frequency


def _peak(
    form: Triangular, D: np.ndarray, halves: int, continuous: bool, rtol: float, where: str
) -> tuple[float, float, float]:
    poles, backward = np.diagonal(form.T), form.backward
    gaps = np.abs(poles.real) if continuous else np.abs(1 - np.abs(poles))
    worst = int((gaps - backward / RESOLVED).argmin())
    if gaps[worst] <= backward[worst] / RESOLVED:
        _refuse(where, float(gaps[worst]), float(backward[worst]))
    weights = np.sqrt(backward)
    found = np.zeros((halves, 5))
    for half in range(halves):  # the lower half of the boundary is the upper one of the conjugate
        found[half, 0] = found[:half, 0].max(initial=0.0)
        data = [np.ascontiguousarray(a.conj() if half else a) for a in (form.T, form.B, form.C, D)]
        fill_dense_peaks(*data, weights, continuous, rtol, found[half])
    best = int(found[:, 0].argmax())
    lower, frequency = float(found[best, 0]), (-1.0 if best else 1.0) * float(found[best, 2])
    upper, states, outputs = (float(v) for v in found[:, [1, 3, 4]].max(axis=0))
    moved = backward > 0
    if not moved.any():
        return lower, upper, frequency
    # States and outputs carry the root of ||E|| each.
    largest = math.sqrt(backward.max())
    reached = max(
        largest * states / (np.linalg.norm(form.B[moved]) or math.inf),
        largest * outputs / (np.linalg.norm(form.C[:, moved]) or math.inf),
    )
    if reached > RESOLVED:
        _refuse(where, largest**2 / reached, largest**2)
    # Both are rational with the same poles: nowhere more than 1 / cos of their samples.
    widest = 1.0 / math.cos(WIDEST / 2)
    states, outputs = widest * states, widest * outputs
    slack = states * outputs / (1.0 - RESOLVED) + form.outputs * states + form.inputs * outputs
    return max(lower - slack, 0.0), (upper + slack) * (1.0 + 4 * UNIT), frequency


def _refuse(where: str, distance: float, backward: float) -> None:
    raise AccuracyError(
        message(
            where,
            "a pole of the dense system is within rounding of the stability boundary",
            expected=f"a distance above {backward / RESOLVED:.1e}",
            got=f"{distance:.1e}",
            cure="Give the system as a DiagonalSystem, whose poles are exact.",
        )
    )
