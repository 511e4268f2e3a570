"""The h2 norm of systems with quadratic outputs, and what it bounds.

Theory: ``theory/quadratic-output.md``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ssmred.checks import check_positive
from ssmred.errors import UnsupportedOperationError, message
from ssmred.gramians.gramian import gramian_factor
from ssmred.gramians.quadratic import seen_by
from ssmred.norms.h2 import h2_norm, h2_of
from ssmred.norms.hinf import hinf_norm
from ssmred.systems.linear import adjoint
from ssmred.systems.quadratic import QuadraticOutputSystem
from ssmred.systems.quadratic_forms import HERMITIAN
from ssmred.systems.stability import check_horizon_of
from ssmred.systems.stacking import check_alike, stacked_states

__all__ = ["EnergyGains", "energy_gains", "h2_inner", "peak_bound"]

INDEFINITE = 64 * np.finfo(float).eps
"""Eigenvalues above minus so much of the largest count as rounding of 0."""


def h2_inner(
    one: QuadraticOutputSystem, two: QuadraticOutputSystem, *, horizon: int | None = None
) -> np.ndarray | complex | float:
    """Return the h2 inner product, ``tr(C_1 X C_2^*) + sum_j tr(M_1j X M_2j X^*)`` and h_0.

    ``X = sum_k A_1^k B_1 B_2^* A_2^{*k}``. It is the sum over all samples of both kernels of
    entries of the first times conjugate entries of the second, so that ``h2_inner(S, S)`` is
    ``h2_norm(S)**2``.

    Parameters
    ----------
    one, two : QuadraticOutputSystem
        Same time, batch, inputs, outputs, recurrence and convention.
    horizon : int or None

    Returns
    -------
    float or complex, or (...) of them
        Real for real systems.

    Raises
    ------
    ShapeError
        If the systems do not match; and the errors of :func:`h2_norm`.

    Notes
    -----
    Level FLOAT; wrong by a few eps of the product of the norms. The norm of a difference is
    :func:`h2_error`, which does not subtract squares.
    """
    where = "h2_inner"
    check_alike(one, two, where)
    if one.real_output or two.real_output:
        one, two = one.realified(), two.realified()
    length = check_horizon_of(one.linear, horizon, where)
    check_horizon_of(two.linear, horizon, where)
    first, second = (s.linear if s.is_post_update is False else s.linear.with_recurrence("standard")
                     for s in (one, two))  # fmt: skip
    direct = np.sum(first.D * second.D.conj(), axis=(-2, -1))
    if not one.is_discrete and np.any(direct):
        raise UnsupportedOperationError(
            message(where, "both systems have direct terms, so the integral does not exist",
                    expected="D = 0 in continuous time")
        )  # fmt: skip
    # of the standard recurrence the last sample sees one term less
    later = None if length is None else length - 1
    left, right = _halves(one, two, later, where)
    total = direct + np.sum((first.C @ left) * (second.C @ right).conj(), axis=(-2, -1))
    if one.is_post_update and length is not None:
        left, right = _halves(one, two, length, where)
    seen = (seen_by(s, L) for s, L in ((one, left), (two, right)))
    k1, k2 = seen
    total = total + np.sum(k1 * k2.conj(), axis=(-3, -2, -1))
    if one.is_real and two.is_real:
        total = total.real
    return total if one.batch_shape else total.item()


def _halves(
    one: QuadraticOutputSystem, two: QuadraticOutputSystem, terms: int | None, where: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return L1 and L2 with ``L1 L2^* = X``: the halves of a factor for the stacked states."""
    if terms == 0:
        left, right = (np.zeros((*s.batch_shape, s.order, 1)) for s in (one, two))
        return left, right
    both = stacked_states(one.linear, two.linear)
    L = gramian_factor(both, where, terms, dual=False)
    return L[..., : one.order, :], L[..., one.order :, :]


def peak_bound(
    system: QuadraticOutputSystem, energy: float, *, horizon: int | None = None
) -> np.ndarray | float:
    """Return ``||S|| e sqrt(1 + e^2)``, which no output exceeds for inputs with ``||u||_2 <= e``.

    ``sup_k ||y_k||_2`` from rest. For a difference of two systems: of their outputs.

    Parameters
    ----------
    system : QuadraticOutputSystem
        Discrete, or continuous with D = 0.
    energy : float
        Bound e on ``(sum_k ||u_k||_2^2)^(1/2)``.
    horizon : int or None
        Length of the inputs.

    Returns
    -------
    float or (...) float64

    Raises
    ------
    DataError
        If the energy is not a number >= 0; and the errors of :func:`h2_norm`.

    Notes
    -----
    Level FLOAT. Theory: ``theory/quadratic-output.md``, 4.

    Examples
    --------
    >>> system = QuadraticOutputSystem([0.0], [[1.0]], None, [[1.0]])
    >>> peak_bound(system, 2.0)  # y = u^2 delayed: 4 at most
    4.47213595499958
    """
    e = check_positive(energy, "energy", "peak_bound", allow_zero=True)
    return h2_of(system, horizon, "peak_bound") * (e * math.sqrt(1.0 + e * e))


@dataclass(frozen=True, eq=False)
class EnergyGains:
    """Hold what positive quadratic outputs of an input with ``||u||_2 = e`` are at most.

    Attributes
    ----------
    total : float or (...) float64
        ``sum_k ||y_k||_1 <= total e^2``.
    peak : float or (...) float64
        ``sup_k ||y_k||_1 <= peak e^2``.
    """

    total: np.ndarray | float
    peak: np.ndarray | float

    @property
    def l2(self) -> np.ndarray | float:
        """``(sum_k ||y_k||_2^2)^(1/2) <= l2 e^2``; the geometric mean of the other two."""
        return np.sqrt(self.total) * np.sqrt(self.peak)


def energy_gains(system: QuadraticOutputSystem) -> EnergyGains:
    """Return the gains of purely quadratic outputs with positive semidefinite matrices.

    With ``M_j = U_j U_j^*`` and ``U`` all of them: ``total = ||(A, B, U^*)||_Hinf^2``,
    ``peak = ||(A, B, U^*)||_h2^2``.

    Parameters
    ----------
    system : QuadraticOutputSystem
        Stable, hermitian (or with real states), C = 0 and D = 0.

    Returns
    -------
    EnergyGains

    Raises
    ------
    UnsupportedOperationError
        If there are linear outputs, or a matrix is not positive semidefinite.
    UnstableSystemError
        If a pole is not stable.

    Notes
    -----
    Level FLOAT: upper bounds up to the rounding of the matrices' eigenvalues and of the h2 norm.
    Theory: ``theory/quadratic-output.md``, 5.

    Examples
    --------
    >>> system = QuadraticOutputSystem([0.6], [[4.0]], None, ([[1.0]],))
    >>> gains = energy_gains(system)
    >>> round(gains.total, 3), round(gains.peak, 12), round(float(gains.l2), 3)
    (100.0, 25.0, 50.0)
    """
    where = "energy_gains"
    if np.any(system.C) or np.any(system.D):
        raise UnsupportedOperationError(
            message(
                where,
                "there are linear outputs beside the quadratic ones",
                expected="C = 0 and D = 0",
                cure="Bound the linear outputs apart: system.linear.",
            )
        )
    if system.real_output:
        system = system.realified()
    elif system.convention != HERMITIAN:
        system = system.with_convention(HERMITIAN)
    rows = adjoint(_root_of(system, where))
    D = np.zeros((*system.batch_shape, rows.shape[-2], system.inputs))
    energies = system.linear.replace(C=rows, D=D)
    return EnergyGains(hinf_norm(energies).upper ** 2, h2_norm(energies) ** 2)


def _root_of(system: QuadraticOutputSystem, where: str) -> np.ndarray:
    """Return factors U_j of positive matrices ``U_j U_j^*`` side by side, (..., n, K)."""
    if system.factors is not None and np.array_equal(*system.factors):
        roots = system.factors[0]
    else:
        values, vectors = np.linalg.eigh(system.matrices())
        largest = np.abs(values).max(axis=-1, keepdims=True, initial=0.0)
        if np.any(values < -INDEFINITE * largest):
            raise UnsupportedOperationError(
                message(
                    where,
                    "a matrix is not positive semidefinite",
                    expected="eigenvalues >= 0",
                    got=f"{values.min():.3g}",
                    cure="Use peak_bound, which takes any M.",
                )
            )
        roots = vectors * np.sqrt(np.maximum(values, 0.0))[..., None, :]
    tall = np.moveaxis(roots, -3, -2)  # (..., n, p, r)
    return tall.reshape(*tall.shape[:-2], -1)
