"""Hankel singular values, small ones to high relative accuracy.

Theory: ``theory/hankel-values.md``, ``theory/cauchy-ldl.md``.
"""

from __future__ import annotations

import math

import numpy as np

from ssmred.errors import AccuracyError, message
from ssmred.gramians.closed_form import conjugate_factor, pivoted_factor
from ssmred.gramians.gramian import gramian_factor
from ssmred.kernels.balancing import fill_hankel_values
from ssmred.kernels.cauchy import fill_complex_factor, fill_pair_distances
from ssmred.kernels.jacobi import fill_singular_values
from ssmred.systems.dense import DenseSystem, flat_matrices
from ssmred.systems.diagonal import DiagonalSystem
from ssmred.systems.linear import LinearSystem, adjoint
from ssmred.systems.modes import separated_modes
from ssmred.systems.stability import check_horizon_of

__all__ = [
    "check_converged",
    "gramian_factors",
    "hankel_singular_values",
    "hankel_values",
    "residue_roots",
    "singular_values",
]

GRADED = 1e-8
"""Smallest over largest value below which the factors of a dense system leave too few digits."""

KNOWN = 2.0**-50
"""Largest error of a pole, relative to its distance from the boundary, for that."""

CANCELLED, SMALL = 100, 1e-10
"""Where the values of all modes alone add up to so many times the largest value, only those below
so much of it are taken from the residues."""

NEARLY_REAL = 0.05
"""Pairs closer to the real axis (pseudo-hyperbolic) are not written in real functions."""


def hankel_singular_values(system: LinearSystem, *, horizon: int | None = None) -> np.ndarray:
    """Return the Hankel singular values, the singular values of ``Lq^* Lp``.

    Parameters
    ----------
    system : DiagonalSystem or DenseSystem
        A ``real_output`` system is completed by its conjugate modes, a post-update one brought to
        the standard recurrence (past inputs reach future outputs through ``C A``).
    horizon : int or None
        With a horizon, the values of the Gramians of that horizon.

    Returns
    -------
    (..., n) float64
        In descending order; ``2 n`` of them for ``real_output``. Below about 1e-140 of the largest
        they are 0.

    Raises
    ------
    UnstableSystemError
        If a pole is not stable and the horizon is infinite.
    UnsupportedOperationError
        For a finite horizon in continuous time.

    Notes
    -----
    Level FLOAT. Diagonal systems at infinite horizon: the small values are accurate relative to
    themselves, as far as poles and residues determine them (``diag(-1, ..., -20)``: all 20, over
    29 decades). So are those of dense systems with one input and one output and up to 256 states
    whose modes separate; where the values span 8 decades, one system after the other. Other dense
    systems and finite horizons: to rounding relative to ``||Lp|| ||Lq||`` in the worst case, and
    far better where the factors are graded. Cost O(n^3) per channel, all channels in one kernel.
    Theory: ``theory/hankel-values.md``.

    Examples
    --------
    >>> from ssmred.systems import DiagonalSystem
    >>> hankel_singular_values(DiagonalSystem([0.6], [4.0], [1.0])).round(12).tolist()
    [6.25]
    """
    return hankel_values(system, horizon, "hankel_singular_values")


def hankel_values(system: LinearSystem, horizon: int | None, where: str) -> np.ndarray:
    """Return :func:`hankel_singular_values`; errors name the function ``where``."""
    length = check_horizon_of(system, horizon, where)
    if system.is_discrete:
        system = system.with_recurrence("standard")
    channels, batch = math.prod(system.batch_shape), system.batch_shape
    states = 2 * system.order if system.real_output else system.order
    if states == 0 or channels == 0:
        return np.zeros((*batch, states))
    single = system.inputs == 1 and system.outputs == 1
    if length is None and isinstance(system, DiagonalSystem) and single:
        return _values_of_residues(system, where).reshape(*batch, states)
    Lp, Lq = gramian_factors(system, horizon=length, where=where)
    values = singular_values(adjoint(Lq) @ Lp, where)
    if length is None and isinstance(system, DenseSystem) and single:
        return _values_from_modes(system, values, where)
    return values


def gramian_factors(
    system: LinearSystem,
    *,
    horizon: int | None = None,
    real: bool = False,
    where: str = "gramian_factors",
) -> tuple[np.ndarray, np.ndarray]:
    """Return factors of both Gramians, real ones where the system has real outputs.

    Parameters
    ----------
    system : DiagonalSystem or DenseSystem
        Stable where the horizon is infinite.
    horizon : int or None
    real : bool
        Demand the factors of the real states even where complex ones are more accurate: of
        ``system.realified()`` for ``real_output``.
    where : str
        Public function named in errors.

    Returns
    -------
    Lp, Lq : (..., N, N) float64 or complex128
        N = n, or 2 n for ``real_output``: of the states of ``system.realified()``, or, unless
        ``real``, of ``system.full_spectrum()``.
    """
    continuous = not system.is_discrete
    if isinstance(system, DiagonalSystem) and horizon is None:
        C_adjoint = adjoint(system.C)
        if not system.real_output:
            Lp = pivoted_factor(system.poles, system.B, continuous=continuous)[0]
            Lq = pivoted_factor(system.poles.conj(), C_adjoint, continuous=continuous)[0]
            return (Lp, Lq) if system._has_complex_data() else (Lp.real.copy(), Lq.real.copy())
        if real or not _is_nearly_real(system).any():
            Lp = conjugate_factor(system.poles, system.B, continuous=continuous)
            Lq = conjugate_factor(system.poles.conj(), C_adjoint, continuous=continuous)
            return Lp, Lq
        return gramian_factors(system.full_spectrum(), where=where)
    if system.real_output:
        system = system.realified()
    return (
        gramian_factor(system, where, horizon, dual=False),
        gramian_factor(system, where, horizon, dual=True),
    )


def residue_roots(system: DiagonalSystem) -> tuple[np.ndarray, np.ndarray]:
    """Return poles and ``sqrt(c_i b_i)`` of single-input single-output channels, (H, n) each.

    The Hankel operator depends on B and C through the residues only. A real pole of a
    ``real_output`` system has the residue ``Re(c_i b_i)``.
    """
    channels, n = math.prod(system.batch_shape), system.order
    poles = np.ascontiguousarray(system.poles).reshape(channels, n)
    residues = (system.B[..., 0] * system.C[..., 0, :]).reshape(channels, n)
    if system.real_output:
        residues = np.where(poles.imag == 0, residues.real, residues)
    return poles, np.sqrt(residues.astype(np.complex128))


def singular_values(matrices: np.ndarray, where: str) -> np.ndarray:
    """Return the singular values of graded matrices (..., m, n) by QR and Jacobi rotations.

    Raises
    ------
    AccuracyError
        If the rotations do not converge.
    """
    m, n = matrices.shape[-2:]
    batch = matrices.shape[:-2]
    values = np.empty((math.prod(batch), min(m, n)))
    fill_singular_values(np.ascontiguousarray(matrices).reshape(-1, m, n), values)
    return check_converged(values, where).reshape(*batch, min(m, n))


def check_converged(values: np.ndarray, where: str) -> np.ndarray:
    """Return the values, or raise AccuracyError where a kernel left nan."""
    if not np.isfinite(values).all():
        raise AccuracyError(
            message(
                where,
                "the singular values overflow float64, or the rotations do not converge",
                cure="Scale B and C to a common size.",
            )
        )
    return values


def _values_of_residues(system: DiagonalSystem, where: str) -> np.ndarray:
    """Return the values (H, N) of single-input single-output channels."""
    poles, roots = residue_roots(system)
    channels, n = poles.shape
    continuous = not system.is_discrete
    if not system.real_output:
        return _complex_values(poles, roots, continuous, where, real=not system._has_complex_data())
    values = np.empty((channels, 2 * n))
    near = _is_nearly_real(system).reshape(channels)
    if near.any():
        both = np.concatenate([poles[near], poles[near].conj()], axis=-1)
        scaled = roots[near] / np.sqrt(2.0)
        both_roots = np.concatenate([scaled, scaled.conj()], axis=-1)
        values[near] = _complex_values(both, both_roots, continuous, where, real=False)
    if not near.all():
        part = np.empty((int((~near).sum()), 2 * n))
        fill_hankel_values(poles[~near], roots[~near], continuous, part)
        values[~near] = part
    return check_converged(values, where)


def _complex_values(
    poles: np.ndarray, roots: np.ndarray, continuous: bool, where: str, *, real: bool
) -> np.ndarray:
    """Return the values from ``F^T F``, F the pivoted factor for the roots of the residues."""
    channels, n = poles.shape
    factor, order = np.empty((channels, n, n), np.complex128), np.empty((channels, n), np.int64)
    fill_complex_factor(poles, roots[..., None], continuous, factor, order)
    hankel = np.swapaxes(factor, -1, -2) @ factor
    return singular_values(hankel.real if real else hankel, where)


def _values_from_modes(system: DenseSystem, values: np.ndarray, where: str) -> np.ndarray:
    """Return the values of dense single-input single-output systems, graded ones from modes.

    Channels whose values reach down to the rounding of the dense factors are computed again from
    poles and residues, where these are known to a few roundings. Where residues cancel, large
    values stay.
    """
    if system.real_output:
        system = system.realified()
    flat, out = flat_matrices(system), values.reshape(-1, values.shape[-1]).copy()
    for h in np.flatnonzero(out[:, -1] < GRADED * out[:, 0]):
        modes = separated_modes(*(M[h] for M in flat[:3]))
        if modes is None or modes.sizes.max() > 1:
            continue
        poles = modes.poles + np.diagonal(modes.changes)
        margins = 1 - np.abs(poles) if system.is_discrete else -poles.real
        if not (modes.left <= KNOWN * margins).all():
            continue
        diagonal = DiagonalSystem(poles, modes.B, modes.C, dt=system.dt)
        fine = _values_of_residues(diagonal, where)[0]
        # of a mode alone: |c b| / (1 - |l|^2), or |c b| / (-2 Re l)
        gaps = margins * (1 + np.abs(poles)) if system.is_discrete else 2 * margins
        alone = float(np.sum(np.abs(modes.B[:, 0] * modes.C[0]) / gaps))
        if alone > CANCELLED * fine[0]:
            fine = np.where(fine < SMALL * fine[0], fine, out[h])
        out[h] = fine
    return out.reshape(values.shape)


def _is_nearly_real(system: DiagonalSystem) -> np.ndarray:
    """Tell which channels (...) have a pair of poles too close to the real axis."""
    n = system.order
    weights = np.linalg.norm(system.B, axis=-1) * np.linalg.norm(system.C, axis=-2)
    out = np.empty(math.prod(system.batch_shape))
    fill_pair_distances(
        np.ascontiguousarray(system.poles).reshape(-1, n),
        np.ascontiguousarray(weights, dtype=np.complex128).reshape(-1, n),
        not system.is_discrete,
        out,
    )
    return (out < NEARLY_REAL).reshape(system.batch_shape)
