"""Stability of systems, decided exactly where the poles are given."""

from __future__ import annotations

import numpy as np

from ssmred.checks import check_horizon
from ssmred.errors import UnstableSystemError, UnsupportedOperationError, message
from ssmred.kernels.gramian import fill_stability_margins
from ssmred.systems.linear import LinearSystem, check_system

__all__ = ["check_horizon_of", "check_stable", "is_stable", "stability_margins"]


def stability_margins(system: LinearSystem) -> np.ndarray:
    """Return ``1 - |l|^2`` (discrete) or ``-Re l`` (continuous) of every pole.

    Parameters
    ----------
    system : DiagonalSystem or DenseSystem

    Returns
    -------
    (..., n) float64
        Positive exactly where the pole is stable.

    Notes
    -----
    For a diagonal system correct to one rounding, even one unit in the last place from the unit
    circle; for a dense one as accurate as the eigenvalues.

    Examples
    --------
    >>> from ssmred.systems import DiagonalSystem
    >>> stability_margins(DiagonalSystem([0.5, 1.0], [1, 1], [1, 1])).tolist()
    [0.75, 0.0]
    """
    poles = np.ascontiguousarray(system.poles)  # type: ignore[attr-defined]
    margins = np.empty(poles.size)
    fill_stability_margins(poles.reshape(-1), not system.is_discrete, margins)
    return margins.reshape(poles.shape)


def is_stable(system: LinearSystem) -> bool:
    """Tell whether every pole of every batch entry is strictly stable."""
    return bool((stability_margins(system) > 0).all())


def check_stable(system: LinearSystem, where: str) -> None:
    """Raise UnstableSystemError, naming the worst pole, unless every pole is strictly stable."""
    margins = stability_margins(system)
    unstable = ~(margins > 0)
    if not unstable.any():
        return
    worst = system.poles[np.unravel_index(np.argmin(margins), margins.shape)]  # type: ignore[attr-defined]
    kind = type(system).__name__
    if system.is_discrete:
        expected, got = "|pole| < 1", f"|pole| = {abs(worst):.17g}"
        cure = "Pass horizon=T (a number of samples): finite horizons need no stability."
    else:
        expected, got = "Re(pole) < 0", f"Re(pole) = {worst.real:.17g}"
        cure = "Only stable systems have this norm or Gramian."
    raise UnstableSystemError(
        message(
            where,
            f"{int(unstable.sum())} poles of this {kind} are unstable and the horizon is infinite",
            expected=expected,
            got=got,
            cure=cure,
        )
    )


def check_horizon_of(system: LinearSystem, horizon: int | None, where: str) -> int | None:
    """Return a horizon that the quantities of a system exist for.

    Parameters
    ----------
    system : DiagonalSystem or DenseSystem
    horizon : int or None
        Number of samples; None is infinite and the only one in continuous time.
    where : str

    Raises
    ------
    UnsupportedOperationError
        If this is no system, or the horizon is finite in continuous time.
    OrderError
        If the horizon is not an integer >= 1.
    UnstableSystemError
        If the horizon is infinite and a pole is not stable.
    """
    check_system(system, where)
    length = check_horizon(horizon, where)
    if length is None:
        check_stable(system, where)
    elif not system.is_discrete:
        raise UnsupportedOperationError(
            message(
                where,
                "a finite horizon counts samples, but the system is in continuous time",
                cure="Discretise it, or use horizon=None.",
            )
        )
    return length
