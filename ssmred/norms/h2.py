"""The h2 norm: energy of the impulse response, and of the kernel of quadratic outputs.

Theory: ``theory/h2-norm.md``, ``theory/quadratic-output.md``; what it bounds:
``theory/h2-sup-bound.md``.
"""

from __future__ import annotations

import numpy as np

from ssmred.gramians.dense import dense_factor
from ssmred.gramians.gramian import gramian_factor
from ssmred.gramians.quadratic import seen_through
from ssmred.kernels.blas import with_blas_threads
from ssmred.kernels.gramian import fill_squared_norms
from ssmred.norms.response_form import ResponseForm, response_form
from ssmred.systems.conversions import difference_of
from ssmred.systems.dense import DenseSystem
from ssmred.systems.diagonal import DiagonalSystem
from ssmred.systems.linear import LinearSystem
from ssmred.systems.quadratic import AnySystem, QuadraticOutputSystem
from ssmred.systems.stability import check_horizon_of
from ssmred.systems.stacking import quadratic_difference

__all__ = ["h2_error", "h2_norm", "h2_of", "state_root"]


def h2_norm(system: AnySystem, *, horizon: int | None = None) -> np.ndarray | float:
    """Return the h2 norm, ``(sum_{k < horizon} ||h_k||_F^2)^(1/2)``.

    The direct term counts: ``h_0`` is D (standard) or ``C B + D`` (post-update). In continuous
    time ``(int ||h(t)||_F^2 dt)^(1/2)``, infinite where D is not zero. Quadratic outputs add the
    squares of their kernel, ``sum_j tr(P M_j P M_j)``.

    Parameters
    ----------
    system : DiagonalSystem, DenseSystem or QuadraticOutputSystem
    horizon : int or None
        Number of samples T of the impulse response, h_0 to h_{T-1}; None is infinite.

    Returns
    -------
    float or (...) float64
        One value per batch entry; a sum over samples, not scaled by dt.

    Raises
    ------
    UnstableSystemError
        If a pole is not stable and the horizon is infinite.
    UnsupportedOperationError
        For a finite horizon in continuous time.
    AccuracyError
        If an unstable response overflows within the horizon.

    Notes
    -----
    Level FLOAT. Never a difference of squares: diagonal systems, infinite horizon, sum the squares
    of ``C L`` with the Takenaka-Malmquist factor L, whose entries are accurate to a few units in
    the last place for any poles, O(n^2 m p), or, several inputs and outputs and no pole twice, with
    a factor for all inputs, O(n^2 (m + p)); finite horizon, the squares of the samples, O(n T).
    Dense systems use a Lyapunov factor. The error is about ``eps ||c_i x_i||`` summed over the
    modes, so a norm far below the modes it is made of keeps its digits down to that level.

    Examples
    --------
    ``h = 2, 3, 3/2, 3/4, ...``: ``4 + 9 / (1 - 1/4) = 16``.

    >>> from ssmred.systems import DiagonalSystem
    >>> h2_norm(DiagonalSystem([0.5], [1.0], [3.0], 2.0))
    4.0
    >>> h2_norm(DiagonalSystem([1.0], [1.0], [1.0]), horizon=10)
    3.0
    >>> h2_norm(DiagonalSystem([-2.0], [2.0], [1.0], dt=0))
    1.0
    """
    return h2_of(system, horizon, "h2_norm")


def h2_error(
    full: AnySystem, reduced: AnySystem, *, horizon: int | None = None
) -> np.ndarray | float:
    """Return the h2 norm of ``full - reduced``.

    Parameters
    ----------
    full, reduced : DiagonalSystem, DenseSystem or QuadraticOutputSystem
        Same dt, batch, inputs and outputs.
    horizon : int or None

    Returns
    -------
    float or (...) float64

    Raises
    ------
    ShapeError
        If the systems do not match; and the errors of :func:`h2_norm`.

    Notes
    -----
    Level FLOAT. Two diagonal systems in the same recurrence: equal poles are merged in
    double-double arithmetic, so the read-outs are differenced first and an error of ``1e-14``
    relative is real. Never ``||S||^2 - 2 <S, S^> + ||S^||^2``. Quadratic outputs: right to a few
    eps of the norms of the two quadratic parts.

    Examples
    --------
    >>> from ssmred.systems import DiagonalSystem
    >>> full = DiagonalSystem([0.6, 0.5], [1.0, 1.0], [4.0, 1.0])
    >>> h2_error(full, DiagonalSystem([0.5], [1.0], [1.0]))
    5.0
    """
    where = "h2_error"
    if isinstance(full, QuadraticOutputSystem) or isinstance(reduced, QuadraticOutputSystem):
        return h2_of(quadratic_difference(full, reduced, where), horizon, where)
    return h2_of(difference_of(full, reduced, where), horizon, where)


def h2_of(system: AnySystem, horizon: int | None, where: str) -> np.ndarray | float:
    """Return :func:`h2_norm`; errors name the function ``where``."""
    if isinstance(system, QuadraticOutputSystem):
        linear = h2_of(system.linear, horizon, where)
        norms = np.hypot(linear, _quadratic(system, horizon, where))
        return norms if system.batch_shape else float(norms)
    length = check_horizon_of(system, horizon, where)
    if not isinstance(system, DiagonalSystem):
        return _dense(system.to_dense(), length, where)
    if length is None and min(system.inputs, system.outputs) > 1 and _has_distinct_poles(system):
        return _through_states(system, where)
    form = response_form(system)
    return form.shaped(_infinite(form) if length is None else _finite(form, length, where))


def state_root(
    system: QuadraticOutputSystem, horizon: int | None, where: str
) -> tuple[QuadraticOutputSystem, np.ndarray]:
    """Return a system without ``real_output`` and a factor L of the Gramian of what outputs see.

    Parameters
    ----------
    system : QuadraticOutputSystem
    horizon : int or None
        Number of samples; the last state that a standard output sees has one input less.
    where : str

    Returns
    -------
    QuadraticOutputSystem, (..., N, K)
        A half spectrum is written out: its conjugate modes, or the real states where the horizon
        is finite, over which powers of A are cheaper than responses. ``P = L L^*``.
    """
    length = check_horizon_of(system.linear, horizon, where)
    terms = length if length is None or system.is_post_update else length - 1
    plain = system
    if system.real_output:
        modal = terms is None and isinstance(system.linear, DiagonalSystem)
        plain = system.full_spectrum() if modal else system.realified()
    if terms == 0:
        return plain, np.zeros((*plain.batch_shape, plain.order, 1))
    return plain, gramian_factor(plain.linear, where, terms, dual=False)


@with_blas_threads
def _quadratic(system: QuadraticOutputSystem, horizon: int | None, where: str) -> np.ndarray:
    """Return the norms (...) of the quadratic kernels."""
    seen = seen_through(*state_root(system, horizon, where))
    return np.linalg.norm(seen.reshape(*system.batch_shape, -1), axis=-1)


def _has_distinct_poles(system: DiagonalSystem) -> bool:
    """Return whether no system of a batch has a pole twice, conjugates written out."""
    ordered = np.sort(system.full_spectrum().poles, axis=-1)
    return not np.any(ordered[..., 1:] == ordered[..., :-1])


def _through_states(system: DiagonalSystem, where: str) -> np.ndarray | float:
    """Return the norms from one factor for all inputs: O(n^2 (m + p)), not O(n^2 m p).

    Only for distinct poles: read-outs of equal ones are merged before anything is rounded.
    """
    if system.is_discrete:
        system = system.with_recurrence("standard")
    modes = system.full_spectrum()
    seen = modes.C @ gramian_factor(modes, where, None, dual=False)
    return _joined(system, seen)


def _infinite(form: ResponseForm) -> np.ndarray:
    """Return the norms (H,) from the orthonormal factor of the poles."""
    scale = np.abs(form.residues).max(axis=(1, 2), initial=0.0)
    scale = np.where(scale > 0, scale, 1.0)
    squares = np.empty(form.direct.shape)
    fill_squared_norms(
        form.poles,
        form.residues / scale[:, None, None],  # keeps tiny and huge squares in range
        form.counts,
        form.real,
        form.continuous,
        squares,
    )
    response = scale * np.sqrt(squares.sum(axis=1))
    direct = np.linalg.norm(form.direct, axis=1)
    if form.continuous:
        return np.where(direct > 0, np.inf, response)
    return np.hypot(direct, response)


def _finite(form: ResponseForm, horizon: int, where: str) -> np.ndarray:
    """Return the norms (H,) of the first samples, block by block."""
    total = np.linalg.norm(form.direct, axis=1)
    for block in form.later_blocks(horizon, where):
        scale = np.abs(block).max(axis=(1, 2), initial=0.0)
        scale = np.where(scale > 0, scale, 1.0)
        scaled = block / scale[:, None, None]
        energy = np.einsum("hkt,hkt->h", scaled, scaled.conj()).real
        total = np.hypot(total, scale * np.sqrt(energy))
    return total


def _dense(system: DenseSystem, horizon: int | None, where: str) -> np.ndarray | float:
    if system.is_real:
        system = system.realified()
    if system.is_discrete:
        system = system.with_recurrence("standard")
    if horizon == 1:
        return _joined(system, np.zeros_like(system.D))
    factor = dense_factor(
        system.A,
        system.B,
        horizon=None if horizon is None else horizon - 1,
        continuous=not system.is_discrete,
        where=where,
    )
    return _joined(system, system.C @ factor)


def _joined(system: LinearSystem, later: np.ndarray) -> np.ndarray | float:
    """Return the norms of responses: D is the first sample, ``later`` as large as all others."""
    sizes = []
    for part in (system.D, later):
        scale = np.abs(part).max(axis=(-2, -1), initial=0.0)
        scale = np.where(scale > 0, scale, 1.0)  # keeps tiny and huge squares in range
        sizes.append(scale * np.linalg.norm(part / scale[..., None, None], axis=(-2, -1)))
    first, others = sizes
    norms = np.hypot(first, others)
    if not system.is_discrete:
        norms = np.where(first > 0, np.inf, others)
    return norms if system.batch_shape else float(norms)
