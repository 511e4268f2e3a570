"""From continuous to discrete time: holds and numerical integrators.

``x' = A x + B u`` is sampled every ``dt``. What is exact depends on the input: ``"zoh"`` for inputs
that are constant between samples, ``"foh"`` for inputs that run straight from one sample to the
next, ``"impulse"`` for the samples of the impulse response. The others replace the derivative by a
difference quotient. The isometric bilinear map, which also goes back, is :func:`cayley`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ssmred.checks import check_choice, check_time_step
from ssmred.errors import (
    AccuracyError,
    DataError,
    UnsupportedOperationError,
    message,
)
from ssmred.systems.dense import DenseSystem
from ssmred.systems.diagonal import DiagonalSystem
from ssmred.systems.linear import LinearSystem, check_system

__all__ = ["discretise"]

METHODS = ("zoh", "foh", "impulse", "bilinear", "backward", "euler", "gbt")
WEIGHTS = {"bilinear": 0.5, "backward": 1.0, "euler": 0.0}
SERIES_RADIUS = 1.0  # of (e^z - 1 - z) / z^2; outside nothing cancels
SERIES_TERMS = 18  # the next term is below 1 / 20! < eps / 90 of the sum
SINGULAR = 1.0 / np.finfo(float).eps  # condition beyond which a solution has no digit


def discretise(
    system: LinearSystem, dt: float, method: str = "zoh", *, alpha: float | None = None
) -> LinearSystem:
    """Sample a continuous-time system.

    With ``h = dt`` and ``phi_1(M) = integral_0^1 e^{t M} dt``:

    ==============  ========================================================================
    ``"zoh"``       ``e^{Ah}``, ``h phi_1(Ah) B``, ``C``, ``D``
    ``"foh"``       as python-control's and SciPy's: the sampled state is shifted so that D
                    takes the part of the ramp that has arrived already
    ``"impulse"``   ``e^{Ah}``, ``h e^{Ah} B``, ``C``, ``h C B``; needs D = 0
    ``"gbt"``       ``(I - alpha h A)^{-1} (I + (1 - alpha) h A)``, ``(I - alpha h A)^{-1} h B``,
                    ``C (I - alpha h A)^{-1}``, ``D + alpha C B_d``
    ``"bilinear"``  gbt with alpha = 1/2 (Tustin); ``"backward"``: 1; ``"euler"``: 0
    ==============  ========================================================================

    Parameters
    ----------
    system : DiagonalSystem or DenseSystem
        In continuous time; batches and complex data as they are.
    dt : float
        Sampling time > 0.
    method : {"zoh", "foh", "impulse", "bilinear", "backward", "euler", "gbt"}
    alpha : float, optional
        Weight of the new derivative in [0, 1]; with ``"gbt"``, and only there.

    Returns
    -------
    DiagonalSystem or DenseSystem
        Of the same kind, in the standard recurrence.

    Raises
    ------
    UnsupportedOperationError
        If the system is in discrete time already, or has D != 0 under ``"impulse"``.
    DataError
        If dt is not positive, alpha is missing or outside [0, 1], a pole sits where the method
        divides by zero (``alpha h l = 1``), or ``e^{Ah}`` overflows.
    AccuracyError
        If a dense ``I - alpha h A`` is singular to working precision.
    ShapeError
        If the method is not known.

    Notes
    -----
    Diagonal systems: closed form, every entry to a few units in the last place also for tiny and
    zero poles. Dense systems: ``scipy.signal.cont2discrete``, one batch entry after the other.
    A stable pole with ``-Re(l) dt`` below 1e-16 is mapped to the circle itself: float64 has no
    number between. ``"euler"`` can turn stable systems into unstable ones.

    S4 and S5 layers discretise differently: their zoh is this one in the post-update recurrence
    (the output sees the new state), their bilinear keeps C and D.

    Examples
    --------
    An integrator counts; ``1 / (s + 1)`` with Tustin's rule and dt = 2 has its pole at 0.

    >>> counter = discretise(DiagonalSystem([0.0], [1.0], [1.0], dt=0), 0.5)
    >>> counter.poles.tolist(), counter.B.tolist(), counter.dt
    ([(1+0j)], [[(0.5+0j)]], 0.5)
    >>> discretise(DiagonalSystem([-1.0], [1.0], [1.0], dt=0), 2.0, "bilinear").poles.tolist()
    [0j]
    """
    where = "discretise"
    check_choice(method, METHODS, "method", where)
    check_system(system, where)
    if system.is_discrete:
        raise UnsupportedOperationError(
            message(
                where,
                "the system is in discrete time already",
                expected="dt = 0",
                got=f"dt = {system.dt:g}",
                cure="cayley(system) leads back to continuous time.",
            )
        )
    step = check_time_step(dt, where)
    if step == 0:
        raise DataError(message(where, "dt is 0", expected="a sampling time > 0"))
    weight = _weight(method, alpha, where)
    if method == "impulse" and np.any(system.D != 0):
        raise UnsupportedOperationError(
            message(
                where,
                "D is not 0, and a sampled impulse response cannot hold the impulse D delta(t)",
                cure="Take zoh or bilinear, or discretise the system without D and add D.",
            )
        )
    if isinstance(system, DiagonalSystem):
        return _diagonal(system, step, method, weight)
    return _dense(system, step, method, weight)


def _weight(method: str, alpha: float | None, where: str) -> float | None:
    """Return the alpha of the generalised bilinear transform, None for the exponential methods."""
    if method != "gbt":
        if alpha is not None:
            raise DataError(
                message(where, "alpha belongs to method='gbt'", got=f"method={method!r}")
            )
        return WEIGHTS.get(method)
    number = isinstance(alpha, (int, float, np.integer, np.floating))
    if not number or isinstance(alpha, bool) or not 0.0 <= alpha <= 1.0:
        raise DataError(
            message(where, "alpha is not usable", expected="a number in [0, 1]", got=f"{alpha!r}")
        )
    return float(alpha)


def _diagonal(
    system: DiagonalSystem, step: float, method: str, weight: float | None
) -> DiagonalSystem:
    """Return the discretised diagonal system, in closed form."""
    scaled = system.poles * step
    B, C, D = system.B * step, system.C, system.D
    with np.errstate(all="ignore"):
        if weight is not None:
            gap = 1.0 - weight * scaled
            if np.any(gap == 0):
                raise DataError(_on_the_singularity(f"1 / (alpha dt) = {1 / (weight * step):g}"))
            poles = (1.0 + (1.0 - weight) * scaled) / gap
            B = B / gap[..., None]
            D = D + system._output_part(weight * (C @ B))
            C = C / gap[..., None, :]
        else:
            poles = np.exp(scaled)
            if method == "zoh":
                B = first_phi(scaled)[..., None] * B
            elif method == "foh":
                late = second_phi(scaled)
                D = D + system._output_part(C @ (late[..., None] * B))
                B = (first_phi(scaled) + late * np.expm1(scaled))[..., None] * B
            else:
                D = D + system._output_part(C @ B)
                B = poles[..., None] * B
    _check_overflow(poles, B, C, D)
    return system.replace(poles=poles, B=B, C=C, D=D, dt=step)


def first_phi(z: np.ndarray) -> np.ndarray:
    """Return ``(e^z - 1) / z``, 1 at z = 0."""
    z = np.asarray(z)
    return np.where(z == 0, 1.0, np.expm1(z) / np.where(z == 0, 1.0, z))


def second_phi(z: np.ndarray) -> np.ndarray:
    """Return ``(e^z - 1 - z) / z^2``, 1/2 at z = 0, by its series inside the unit disc."""
    z = np.asarray(z)
    small = np.abs(z) < SERIES_RADIUS
    inner = np.where(small, z, 0.0)
    series = np.zeros_like(inner) + 1.0 / SERIES_TERMS
    for k in range(SERIES_TERMS - 1, 1, -1):  # 1/2 (1 + z/3 (1 + z/4 (...))) read backwards
        series = (1.0 + inner * series) / k
    outer = np.where(small, 1.0, z)
    return np.where(small, series, (np.expm1(outer) - outer) / outer**2)


def _dense(system: DenseSystem, step: float, method: str, weight: float | None) -> DenseSystem:
    """Return the discretised dense system, by SciPy."""
    from scipy.signal import cont2discrete

    if system.order == 0:  # nothing moves; SciPy would need a state
        return system.replace(dt=step)
    if weight is not None:
        resolvent = np.eye(system.order) - weight * step * system.A
        check_invertible(resolvent, "I - alpha dt A", "discretise")
    how = {"method": method} if weight is None else {"method": "gbt", "alpha": weight}

    def sampled(A: np.ndarray, B: np.ndarray, C: np.ndarray, D: np.ndarray) -> tuple:
        with np.errstate(all="ignore"):
            return cont2discrete((A, B, C, D), step, **how)[:4]  # type: ignore[index]

    A, B, C, D = _entrywise(sampled, system)
    _check_overflow(A, B, C, D)
    return system.replace(A=A, B=B, C=C, D=system._output_part(D), dt=step)


def _check_overflow(*matrices: np.ndarray) -> None:
    """Raise DataError where the discretised system is not finite."""
    if not all(np.isfinite(M).all() for M in matrices):
        raise DataError(
            message(
                "discretise",
                "the discretised system overflows float64",
                cure="Take a smaller dt, or remove the fastest growing poles.",
            )
        )


def _entrywise(function: Callable[..., tuple], system: DenseSystem) -> tuple[np.ndarray, ...]:
    """Return what a function of (A, B, C, D) gives for every entry of a batch, stacked."""
    arrays = (system.A, system.B, system.C, system.D)
    flat = [a.reshape(-1, *a.shape[-2:]) for a in arrays]
    results = [function(*entry) for entry in zip(*flat, strict=True)]
    if not results:
        return arrays
    return tuple(
        np.stack(values).reshape(a.shape)
        for values, a in zip(zip(*results, strict=True), arrays, strict=True)
    )


def check_invertible(matrices: np.ndarray, name: str, where: str) -> None:
    """Raise AccuracyError if any matrix of a stack is singular to working precision."""
    if not matrices.size:
        return
    try:
        condition = np.linalg.cond(matrices, 1)
    except np.linalg.LinAlgError:
        condition = np.array(np.inf)
    worst = float(np.max(condition))
    if not worst < SINGULAR:
        raise AccuracyError(
            message(
                where,
                f"{name} is singular to working precision",
                expected=f"a condition number below {SINGULAR:.1e}",
                got=f"{worst:.1e}",
                cure="An eigenvalue of A sits where the map has its pole: change its parameters.",
            )
        )


def _on_the_singularity(place: str) -> str:
    return message(
        "discretise",
        f"a pole is exactly {place}, where the method divides by zero",
        cure="Choose another dt or method.",
    )
