"""The h2 norm: energy of the impulse response, and of the kernel of quadratic outputs.

Theory: ``theory/h2-norm.md``, ``theory/quadratic-output.md``; what it bounds:
``theory/h2-sup-bound.md``.
"""

from __future__ import annotations

import numpy as np

from ssmred.gramians.closed_form import conjugate_factor
from ssmred.gramians.dense import dense_factor
from ssmred.gramians.gramian import gramian_factor
from ssmred.gramians.quadratic import seen_through
from ssmred.kernels.gramian import fill_squared_norms
from ssmred.norms.response_form import ResponseForm, response_form
from ssmred.systems.conversions import difference_of
from ssmred.systems.dense import DenseSystem
from ssmred.systems.diagonal import DiagonalSystem
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
    the last place for any poles, O(n^2); finite horizon, the squares of the samples, O(n T). Dense
    systems use a Lyapunov factor. The error is about ``eps ||c_i x_i||`` summed over the modes, so
    a norm far below the modes it is made of keeps its digits down to that level.

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
    if isinstance(system, DiagonalSystem):
        form = response_form(system)
        return form.shaped(_infinite(form) if length is None else _finite(form, length, where))
    return _dense(system.to_dense(), length, where)


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
        The real states of a half spectrum are written out. ``P = L L^*``.
    """
    length = check_horizon_of(system.linear, horizon, where)
    terms = length if length is None or system.is_post_update else length - 1
    real = system.realified() if system.real_output else system
    if terms == 0:
        return real, np.zeros((*real.batch_shape, real.order, 1))
    if terms is None and system.real_output and isinstance(system.linear, DiagonalSystem):
        poles, B = system.linear.poles, system.linear.B
        return real, conjugate_factor(poles, B, continuous=not system.is_discrete)
    return real, gramian_factor(real.linear, where, terms, dual=False)


def _quadratic(system: QuadraticOutputSystem, horizon: int | None, where: str) -> np.ndarray:
    """Return the norms (...) of the quadratic kernels."""
    seen = seen_through(*state_root(system, horizon, where))
    return np.linalg.norm(seen.reshape(*system.batch_shape, -1), axis=-1)


def _infinite(form: ResponseForm) -> np.ndarray:
    """Return the norms (H,) from the orthonormal factor."""
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
    direct = np.linalg.norm(system.D, axis=(-2, -1))
    if horizon == 1:
        response = np.zeros_like(direct)
    else:
        factor = dense_factor(
            system.A,
            system.B,
            horizon=None if horizon is None else horizon - 1,
            continuous=not system.is_discrete,
            where=where,
        )
        response = np.linalg.norm(system.C @ factor, axis=(-2, -1))
    if system.is_discrete:
        norms = np.hypot(direct, response)
    else:
        norms = np.where(direct > 0, np.inf, response)
    return float(norms) if system.batch_shape == () else norms
