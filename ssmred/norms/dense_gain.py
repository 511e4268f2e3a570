"""Samples of dense systems with everything that an upper bound has to add.

Theory: ``theory/finite-horizon-gain.md``, ``theory/l1-gain.md``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ssmred.errors import AccuracyError, message
from ssmred.norms.response_form import UNIT
from ssmred.systems.dense import DenseSystem, flat_matrices

__all__ = ["DenseSamples", "dense_samples"]

LONGEST = 2**16  # samples taken before a dense system is called too slow
SMALL_TAIL = 1e-6  # tail relative to the sum of the samples at which they suffice


@dataclass(frozen=True)
class DenseSamples:
    """Hold samples and a bound of what they leave out.

    Parameters
    ----------
    values : (H, T, p, m) float64 or complex128
    extra : (H,) float64
        Bound of ``sum_k ||error of h_k||_F`` over all k: rounding, and the tail beyond T.
    """

    values: np.ndarray
    extra: np.ndarray


def dense_samples(system: DenseSystem, horizon: int | None, where: str) -> DenseSamples:
    """Return the first samples of a dense discrete system and a bound of the rest.

    Tail: with ``nu = ||A^q||_2 < 1``, ``sum_{k >= T} ||h_k|| <= sum_{r < q} ||C A^r||
    ||A^{T-1} B|| / (1 - nu)``. Rounding: each step ``x <- A x`` adds at most
    ``(3 n + 8) u ||A||_F ||x||``, which later steps carry on through ``C A^i``; so do ``C A`` and
    ``D + C B`` where the post-update recurrence is brought to the standard one.

    Raises
    ------
    AccuracyError
        If the samples overflow, or the tail does not become small within 65,536 samples.
    """
    if system.is_real:
        system = system.realified()
    given, system = system, system.with_recurrence("standard")
    n = system.order
    A, B, C, D = flat_matrices(system)
    with np.errstate(all="ignore"):  # overflow is found and reported below
        if horizon is not None:
            values, inputs, outputs = _march(A, B, C, horizon - 1)
            tail = np.zeros(A.shape[0])
        else:
            values, inputs, outputs, tail = _until_small(A, B, C, where)
        sums_in, sums_out = inputs.sum(axis=1), outputs.sum(axis=1)
        step = (3 * n + 8) * UNIT
        size_a = np.linalg.norm(A, axis=(-2, -1))
        size_c = np.linalg.norm(C, axis=(-2, -1))
        rounding = 1.1 * step * sums_in * (size_a * sums_out + size_c)
        rounding += 4 * UNIT * np.linalg.norm(D, axis=(-2, -1))
        if given.is_post_update:  # twice: ||A^k B|| beyond the samples, where nu < 1 / 2
            read = np.linalg.norm(flat_matrices(given)[2], axis=(-2, -1))
            carried = 2 * size_a * sums_in + np.linalg.norm(B, axis=(-2, -1))
            rounding += 1.1 * step * read * carried
    values = np.concatenate([D[:, None], values], axis=1)
    if not (np.isfinite(values).all() and np.isfinite(rounding).all()):
        raise AccuracyError(
            message(
                where,
                "the impulse response overflows float64",
                cure="Shorten the horizon, or scale the inputs and outputs.",
            )
        )
    return DenseSamples(values, (rounding + tail) * (1.0 + 1e-12))


def _march(A: np.ndarray, B: np.ndarray, C: np.ndarray, count: int):
    """Return ``C A^k B`` (H, count, p, m), ``||A^k B||_F`` and ``||C A^k||_F``, k < count."""
    dtype = np.result_type(A, B, C)
    values = np.empty((A.shape[0], count, C.shape[1], B.shape[2]), dtype=dtype)
    inputs, outputs = np.empty((A.shape[0], count)), np.empty((A.shape[0], count))
    x, w = B, C
    for k in range(count):
        values[:, k] = C @ x
        inputs[:, k] = np.linalg.norm(x, axis=(-2, -1))
        outputs[:, k] = np.linalg.norm(w, axis=(-2, -1))
        x, w = A @ x, w @ A
    return values, inputs, outputs


def _until_small(A: np.ndarray, B: np.ndarray, C: np.ndarray, where: str):
    count, power = 16, np.linalg.matrix_power(A, 16)
    while count <= LONGEST:
        contraction = np.linalg.norm(power, axis=(-2, -1))  # Frobenius >= spectral norm
        if (contraction < 0.5).all():
            values, inputs, outputs = _march(A, B, C, count)
            # ||A^count B|| <= ||A^count|| ||B||, and every later block shrinks by as much again.
            head = contraction * np.linalg.norm(B, axis=(-2, -1))
            tail = outputs.sum(axis=1) * head / (1.0 - contraction)
            size = np.linalg.norm(np.abs(values).sum(axis=1), axis=(-2, -1))
            if (tail <= SMALL_TAIL * size).all() or count == LONGEST:
                return values, inputs, outputs, tail
        count, power = 2 * count, power @ power
    raise AccuracyError(
        message(
            where,
            f"the dense system has not decayed after {LONGEST} samples",
            cure="Pass horizon=T, or a DiagonalSystem, whose poles may be as slow as they like.",
        )
    )
