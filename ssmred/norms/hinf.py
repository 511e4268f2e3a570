"""Enclosures of the H-infinity norm and, for systems that are not stable, the L-infinity norm.

Theory: ``theory/hinf-enclosure.md``.
"""

from __future__ import annotations

import numpy as np

from ssmred.checks import check_tolerance
from ssmred.errors import AccuracyError, UnstableSystemError, message
from ssmred.kernels.peak_search import fill_diagonal_peaks
from ssmred.norms.dense_peak import dense_peaks
from ssmred.norms.enclosure import Enclosure
from ssmred.norms.response_form import response_form, with_conjugates
from ssmred.systems.conversions import difference_of
from ssmred.systems.diagonal import DiagonalSystem
from ssmred.systems.linear import LinearSystem, check_system
from ssmred.systems.stability import check_stable, stability_margins

__all__ = ["hinf_error", "hinf_norm", "linf_norm"]

SEARCHED = 0.9  # share of rtol that the search may use; rounding has the rest
NARROWEST = 1e-13  # rtol below which the search would only chase rounding


def hinf_norm(system: LinearSystem, *, rtol: float = 1e-6) -> Enclosure:
    """Return an enclosure of the H-infinity norm, ``max_w ||H(e^{jw})||_2`` or ``||H(jw)||_2``.

    Parameters
    ----------
    system : DiagonalSystem or DenseSystem
        Stable; discrete or continuous, real or complex, in either recurrence.
    rtol : float
        Relative width of the enclosure, at least 1e-13.

    Returns
    -------
    Enclosure
        ``lower``, ``upper`` and the peak ``frequency`` in rad per unit time, in the batch shape.
        Wider than rtol only where float64 cannot resolve the response that well.

    Raises
    ------
    UnstableSystemError
        If a pole is not stable.
    AccuracyError
        If a pole of a dense system is within rounding of the stability boundary, or the response
        overflows.
    ToleranceError
        If rtol is not a positive number.

    Notes
    -----
    Level FLOAT, with the rounding of every value bounded and inside the enclosure. Diagonal: a few
    points per pole however close the poles are to the boundary, O(n) each; all-pass systems need
    ``O(n / sqrt(rtol))``. Dense: one Schur form and O(n^2) per point; where its backward
    error widens the enclosure, next to the boundary, a second one from the modes, in twice the
    precision, cuts it. No Hamiltonian matrix, so nothing depends on deciding whether a computed
    eigenvalue is imaginary. Theory: ``theory/hinf-enclosure.md``.

    Examples
    --------
    ``1 / (z - 1/2)`` is largest, 2, at z = 1; ``1 / (z + 1/2)`` at z = -1.

    >>> from ssmred.systems import DiagonalSystem
    >>> norm = hinf_norm(DiagonalSystem([0.5], [1.0], [1.0]))
    >>> norm.lower <= 2.0 <= norm.upper, norm.width < 1e-6, norm.frequency
    (True, True, 0.0)
    >>> hinf_norm(DiagonalSystem([-0.5], [1.0], [1.0], dt=0.5)).frequency == 2 * np.pi
    True
    """
    return _enclosure(system, rtol, "hinf_norm", stable=True)


def hinf_error(full: LinearSystem, reduced: LinearSystem, *, rtol: float = 1e-6) -> Enclosure:
    """Return an enclosure of the H-infinity norm of ``full - reduced``; see :func:`hinf_norm`.

    Notes
    -----
    Equal poles of two diagonal systems are merged in double-double arithmetic first, so an error
    of 1e-14 of the system has an enclosure as narrow as any other.

    Examples
    --------
    >>> from ssmred.systems import DiagonalSystem
    >>> full = DiagonalSystem([0.5, 0.25], [1.0, 1.0], [1.0, 5.0])
    >>> error = hinf_error(full, DiagonalSystem([0.25], [1.0], [5.0]))
    >>> error.lower <= 2.0 <= error.upper
    True
    """
    return _enclosure(difference_of(full, reduced, "hinf_error"), rtol, "hinf_error", stable=True)


def linf_norm(system: LinearSystem, *, rtol: float = 1e-6) -> Enclosure:
    """Return an enclosure of the L-infinity norm: poles on both sides of the boundary.

    The same maximum over frequencies as :func:`hinf_norm`, for systems without a pole on the
    boundary; it is the gain of the two-sided (non-causal) map, not of the causal unstable system.

    Raises
    ------
    UnstableSystemError
        If a pole lies on the boundary: the norm is infinite.
    AccuracyError
        As for :func:`hinf_norm`.

    Examples
    --------
    ``1 / (z - 2)`` is largest in modulus, 1, at z = 1.

    >>> from ssmred.systems import DiagonalSystem
    >>> norm = linf_norm(DiagonalSystem([2.0], [1.0], [1.0]))
    >>> norm.lower <= 1.0 <= norm.upper
    True
    """
    return _enclosure(system, rtol, "linf_norm", stable=False)


def _enclosure(system: LinearSystem, rtol: float, where: str, *, stable: bool) -> Enclosure:
    check_system(system, where)
    rtol = max(check_tolerance(rtol, where, name="rtol"), NARROWEST)
    _check_poles(system, where, stable=stable)
    diagonal = isinstance(system, DiagonalSystem)
    search = _diagonal if diagonal else dense_peaks
    lower, upper, frequency = search(system, SEARCHED * min(rtol, 1.0), where)
    if not np.isfinite(upper).all():
        raise AccuracyError(
            message(
                where,
                "the frequency response overflows float64, or cannot be resolved",
                cure="Scale the inputs and outputs.",
            )
        )
    if system.is_discrete:
        frequency = frequency / system.dt
    values = [np.asarray(v).reshape(system.batch_shape) for v in (lower, upper, frequency)]
    if system.batch_shape == ():
        return Enclosure(*(float(v) for v in values))
    return Enclosure(*values)


def _check_poles(system: LinearSystem, where: str, *, stable: bool) -> None:
    if not stable:
        margins = stability_margins(system)
        if (margins == 0).any():
            _refuse_boundary(where)
        return
    try:
        check_stable(system, where)
    except UnstableSystemError as error:
        text = str(error).split(". ")[0]
        cure = "linf_norm takes systems with poles on both sides; l2_gain(horizon=T) any system."
        raise UnstableSystemError(f"{text}. {cure}") from None


def _refuse_boundary(where: str) -> None:
    raise UnstableSystemError(
        message(
            where,
            "a pole lies on the stability boundary, so the norm is infinite",
            expected="no |pole| = 1 (discrete) or Re(pole) = 0 (continuous)",
            cure="Use a finite horizon: l2_gain(system, horizon=T).",
        )
    )


def _diagonal(
    system: DiagonalSystem, rtol: float, where: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    form = response_form(system)
    channels = form.poles.shape[0]
    lower, upper, frequency = (np.empty(channels) for _ in range(3))
    width = max(form.poles.shape[1] * form.residues.shape[2], 1)
    for part in form.parts(8 * width):
        one = form.part(part)
        poles, residues, counts = one.poles, one.residues, one.counts
        if form.real:
            poles, residues, counts = with_conjugates(poles, residues, counts)
        fill_diagonal_peaks(
            poles,
            residues,
            one.direct,
            counts,
            *form.entries,
            1 if form.real else 2,
            form.continuous,
            rtol,
            lower[part],
            upper[part],
            frequency[part],
        )
    return lower, upper, frequency
