"""Glover's all-pass embedding of one balanced system, in continuous time.

Theory: ``theory/hankel-norm-approximation.md``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import svd

from ssmred.errors import AccuracyError, UnstableSystemError, message
from ssmred.gramians import controllability_factor, observability_factor
from ssmred.gramians.spectral_split import decoupled, schur_form
from ssmred.norms import hinf_error
from ssmred.systems.dense import DenseSystem

__all__ = ["MULTIPLICITY", "BalancedData", "hankel_approximant", "multiplicity_groups"]

MULTIPLICITY = 1e-10
"""Hankel singular values closer than this, relative to each other, count as one. Their rounding
is about ``n eps`` times the largest one, which is allowed for separately."""

EPS = float(np.finfo(float).eps)

DECIDED = 1e-2
"""Relative width of the enclosures of two errors of which the smaller one is wanted."""

RANK = 1e-8
"""Singular values of the rows of B or C of one multiple Hankel value below this share of the
largest count as zero: B and C of such a group have the same Gramian, wrong by its rounding."""


@dataclass(frozen=True, eq=False)
class BalancedData:
    """Hold a balanced system: ``A S + S A^* + B B^* = 0 = A^* S + S A + C^* C``, S diagonal.

    Attributes
    ----------
    sigma : (n,) float64
        Descending, > 0.
    A, B, C, D : float64 or complex128
    """

    sigma: np.ndarray
    A: np.ndarray
    B: np.ndarray
    C: np.ndarray
    D: np.ndarray


def multiplicity_groups(sigma: np.ndarray) -> np.ndarray:
    """Return the number of the group of equal values that each Hankel singular value is in.

    Parameters
    ----------
    sigma : (..., n) float64
        Descending.

    Returns
    -------
    (..., n) int64
        From 0, ascending. A group is what lies within the tolerance of its first, largest value.
    """
    groups = np.zeros(sigma.shape, np.int64)
    if sigma.shape[-1] == 0:
        return groups
    noise = sigma.shape[-1] * EPS * sigma[..., 0]
    first = sigma[..., 0].copy()
    for i in range(1, sigma.shape[-1]):
        new = first - sigma[..., i] > MULTIPLICITY * first + noise
        groups[..., i] = groups[..., i - 1] + new
        first = np.where(new, sigma[..., i], first)
    return groups


def hankel_approximant(
    data: BalancedData, order: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return A, B, C, D of an optimal Hankel-norm approximation.

    Of two direct terms the one with the smaller H-infinity error: Glover's, for which the error is
    at most the sum of the Hankel values that go, and the one that the embedding leaves, which is
    usually better where there are several inputs and outputs. With one of each it is Glover's.

    Parameters
    ----------
    data : BalancedData
        m inputs, p outputs; complex or real.
    order : int
        Below n. Where it would split equal Hankel singular values, all of them go.

    Returns
    -------
    tuple of arrays
        Of at most that order, stable.
    """
    sigma = data.sigma
    groups = multiplicity_groups(sigma)
    gone = groups == groups[order]
    kept = int(np.argmax(gone))
    p, m = data.D.shape
    # square, so that the error is all-pass: the compression to the first rows and columns is ours
    B = np.pad(data.B, ((0, 0), (0, p)))
    C = np.pad(data.C, ((0, m), (0, 0)))
    U = _dilation(data.B[gone], data.C[:, gone])
    A, B, C, _ = _embedded(sigma, data.A, B, C, U, gone)
    D = data.D - sigma[kept] * U[:p, :m]
    T, Q, poles = schur_form(A)
    stable, other, _ = decoupled(T, Q, B, C, _stable(poles, kept))
    A, B, C = stable[0], stable[1][:, :m], stable[2][:p]
    shift = _constant(*other, U)[:p, :m]
    if shift.size > 1 and shift.any() and _is_better(data, DenseSystem(A, B, C, D, 0), shift):
        return A, B, C, D
    return A, B, C, D + shift


def _is_better(data: BalancedData, reduced: DenseSystem, shift: np.ndarray) -> bool:
    """Tell whether a reduced system has surely a smaller error than with its D shifted."""
    full = DenseSystem(data.A, data.B, data.C, data.D, 0)
    try:
        plain = hinf_error(full, reduced, rtol=DECIDED)
        shifted = hinf_error(full, reduced.replace(D=reduced.D + shift), rtol=DECIDED)
    except (AccuracyError, UnstableSystemError):  # too close to the boundary to tell
        return False
    return bool(plain.upper <= shifted.lower)


def _dilation(B: np.ndarray, C: np.ndarray) -> np.ndarray:
    """Return the unitary (p + m, p + m) matrix around the least U with ``B = -C^* U`` (Halmos).

    U is the partial isometry ``-C (C^* C)^+ B``.
    """
    X, S, Yh = np.linalg.svd(C, full_matrices=False)
    if S.size and S[0] > 0:
        r = int(np.sum(S / S[0] > RANK))
        # rows of Yh B / S are orthonormal up to rounding: make them so
        left, _, right = np.linalg.svd((Yh[:r] @ B) / S[:r, None], full_matrices=False)
        U = -X[:, :r] @ (left @ right)
    else:
        U = np.zeros((C.shape[0], B.shape[1]), np.result_type(B, C))
    Uh = U.conj().T
    return np.block([[U, np.eye(len(U)) - U @ Uh], [np.eye(len(Uh)) - Uh @ U, -Uh]])


def _embedded(
    sigma: np.ndarray, A: np.ndarray, B: np.ndarray, C: np.ndarray, U: np.ndarray, gone: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return Glover's A, B, C of a square system, states scaled by ``|Gamma|^(1/2)``, and S."""
    value, left = sigma[gone].mean(), ~gone
    s = sigma[left]
    Gamma = (s - value) * (s + value)
    scale = np.sqrt(np.abs(Gamma))
    A, B, C = A[np.ix_(left, left)], B[left], C[:, left]
    CU = C.conj().T @ U
    A = value**2 * A.conj().T + s[:, None] * A * s - value * CU @ B.conj().T
    Bn = s[:, None] * B + value * CU
    Cn = C * s + value * U @ B.conj().T
    sign = np.sign(Gamma)
    return (
        (sign / scale)[:, None] * A / scale,
        (sign / scale)[:, None] * Bn,
        Cn / scale,
        s,
    )


def _stable(poles: np.ndarray, count: int) -> np.ndarray:
    """Return the mask of the stable poles, of which there are so many."""
    mask = poles.real < 0
    if mask.sum() != count:
        raise _on_the_axis(f"{count} stable poles", f"{mask.sum()}")
    return mask


def _on_the_axis(expected: str, got: str) -> AccuracyError:
    return AccuracyError(
        message(
            "HankelReductor",
            "a pole of the embedding lies on the imaginary axis within rounding",
            expected=expected,
            got=got,
            cure="Choose another order.",
        )
    )


def _constant(A: np.ndarray, B: np.ndarray, C: np.ndarray, model: np.ndarray) -> np.ndarray:
    """Return a matrix within the sum of the Hankel values of a square antistable system."""
    D = np.zeros((C.shape[0], B.shape[1]), np.result_type(A, B, C))
    if A.shape[0] == 0:
        return D
    mirrored = DenseSystem(-A, B, -C, dt=0)
    try:
        factors = controllability_factor(mirrored), observability_factor(mirrored)
    except UnstableSystemError:
        raise _on_the_axis("none", "one in the antistable part") from None
    data = balanced_data(*factors, mirrored.A, mirrored.B, mirrored.C, D)
    sigma, A, B, C = data.sigma, data.A, data.B, data.C
    while sigma.size:
        groups = multiplicity_groups(sigma)
        gone = groups == groups[-1]
        U = _completed(B[gone], C[:, gone], model)
        D = D - sigma[gone].mean() * U
        A, B, C, sigma = _embedded(sigma, A, B, C, U, gone)
    return D


def _completed(B: np.ndarray, C: np.ndarray, model: np.ndarray) -> np.ndarray:
    """Return the unitary U with ``B = -C^* U`` that is closest to a model elsewhere."""
    X, S, Yh = svd(C)
    r = int(np.sum(S / S[0] > RANK)) if S.size and S[0] > 0 else 0
    rows = (Yh[:r] @ B) / S[:r, None]
    # orthonormal up to rounding: make them so
    left, _, right = svd(rows)
    first = left @ right[:r]
    P, _, Rh = svd(X[:, r:].conj().T @ model @ right[r:].conj().T)
    return -X[:, :r] @ first + X[:, r:] @ P @ Rh @ right[r:]


def balanced_data(
    Lp: np.ndarray, Lq: np.ndarray, A: np.ndarray, B: np.ndarray, C: np.ndarray, D: np.ndarray
) -> BalancedData:
    """Return the minimal balanced form from factors of both Gramians."""
    Z, sigma, Yh = np.linalg.svd(Lq.conj().T @ Lp)
    r = int(np.sum(sigma > sigma.size * EPS * sigma[0])) if sigma.size else 0
    root = np.sqrt(sigma[:r])
    V, Wh = Lp @ Yh[:r].conj().T / root, (Z[:, :r] / root).conj().T @ Lq.conj().T
    return BalancedData(sigma[:r], Wh @ A @ V, Wh @ B, C @ V, D)


def embedding_bounds(sigma: np.ndarray) -> np.ndarray:
    """Return the bound on the H-infinity error at every order.

    Parameters
    ----------
    sigma : (..., n) float64
        Descending.

    Returns
    -------
    (..., n + 1) float64
        The value that goes, once, and the sum of all behind its group. Equal ones among these count
        one by one: the values of the antistable part are only bounded by them, not equal to them.
    """
    groups, others = multiplicity_groups(sigma), sigma[..., None, :]
    own, other = groups[..., :, None], groups[..., None, :]
    going = np.max(np.where(other == own, others, 0.0), axis=-1, initial=0.0)
    behind = np.sum(np.where(other > own, others, 0.0), axis=-1)
    return np.concatenate([going + behind, np.zeros((*sigma.shape[:-1], 1))], axis=-1)
