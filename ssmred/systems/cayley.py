"""The isometric bilinear map between continuous and discrete time.

Theory: ``theory/cayley-transform.md``.
"""

from __future__ import annotations

import numpy as np

from ssmred.checks import check_positive, check_time_step
from ssmred.errors import DataError, message
from ssmred.systems.dense import DenseSystem
from ssmred.systems.diagonal import DiagonalSystem
from ssmred.systems.discretisation import check_invertible
from ssmred.systems.linear import LinearSystem, check_system

__all__ = ["cayley"]


def cayley(
    system: LinearSystem, *, alpha: float = 1.0, beta: float = 1.0, dt: float = 1.0
) -> LinearSystem:
    """Carry a system to the other time by ``s = beta (z - alpha) / (z + alpha)``.

    Continuous to discrete, with ``r = sqrt(2 alpha beta)``:

    ``A_d = alpha (beta I + A) (beta I - A)^{-1}``, ``B_d = r (beta I - A)^{-1} B``,
    ``C_d = r C (beta I - A)^{-1}``, ``D_d = D + C (beta I - A)^{-1} B``;

    discrete to continuous the inverse of it, with ``alpha I + A`` in place of ``beta I - A``:

    ``A_c = beta (A - alpha I) (alpha I + A)^{-1}``, ``B_c = r (alpha I + A)^{-1} B``,
    ``C_c = r C (alpha I + A)^{-1}``, ``D_c = D - C (alpha I + A)^{-1} B``.

    Parameters
    ----------
    system : DiagonalSystem or DenseSystem
        A discrete one is brought to the standard recurrence first.
    alpha, beta : float
        Both > 0. With alpha = 1 the imaginary axis is mapped to the unit circle and both Gramians
        stay what they are, for every beta; ``beta = 2 / dt`` is Tustin's rule.
    dt : float
        Sampling time that a continuous system gets; a label, the map does not depend on it.

    Returns
    -------
    DiagonalSystem or DenseSystem
        Of the same kind, with ``H_d(z) = H_c(s)`` at every point.

    Raises
    ------
    DataError
        If alpha, beta or dt is not positive, or a pole of a diagonal system is exactly ``beta``
        (continuous) or ``-alpha`` (discrete), which the map sends to infinity.
    AccuracyError
        If the matrix to be inverted is singular to working precision.

    Notes
    -----
    With alpha = 1: stable to stable, equal Gramians, Hankel singular values and H-infinity norms
    (theory/cayley-transform.md; SLICOT AB04MD). The h2 norm is *not* kept. Level FLOAT; the poles
    of a diagonal system are mapped to a few units in the last place. O(n) per channel for diagonal
    systems, O(n^3) for dense ones.

    Examples
    --------
    ``1 / (s + 1)`` has its pole at -1, which goes to z = 0; the Gramian stays 1/2.

    >>> system = cayley(DiagonalSystem([-1.0], [1.0], [1.0], dt=0))
    >>> system.poles.tolist(), float((abs(system.B[0, 0]) ** 2).round(12)), system.D.tolist()
    ([0j], 0.5, [[(0.5+0j)]])
    >>> cayley(system).poles.tolist()
    [(-1+0j)]
    """
    where = "cayley"
    alpha = check_positive(alpha, "alpha", where)
    beta = check_positive(beta, "beta", where)
    step = check_time_step(dt, where)
    if step == 0:
        raise DataError(message(where, "dt is 0", expected="a sampling time > 0"))
    check_system(system, where)
    if system.is_discrete:
        system = system.with_recurrence("standard")
        step, sign, fixed, scale = 0.0, -1.0, alpha, beta
    else:
        sign, fixed, scale = 1.0, beta, alpha
    # one formula for both: M = fixed I -+ A, A' = +- scale (fixed I +- A) M^{-1}
    moved = _diagonal if isinstance(system, DiagonalSystem) else _dense
    return moved(system, sign, fixed, scale, float(np.sqrt(2.0 * alpha * beta)), step)


def _diagonal(
    system: DiagonalSystem, sign: float, fixed: float, scale: float, root: float, step: float
) -> DiagonalSystem:
    gap = fixed - sign * system.poles
    if np.any(gap == 0):
        raise DataError(
            message(
                "cayley",
                f"a pole is exactly {sign * fixed:g}, which the map sends to infinity",
                cure="Change beta (continuous systems) or alpha (discrete ones).",
            )
        )
    poles = sign * scale * (fixed + sign * system.poles) / gap
    half = system.B / gap[..., None]
    D = system.D + sign * system._output_part(system.C @ half)
    C = root * (system.C / gap[..., None, :])
    return system.replace(poles=poles, B=root * half, C=C, D=D, dt=step)


def _dense(
    system: DenseSystem, sign: float, fixed: float, scale: float, root: float, step: float
) -> DenseSystem:
    eye = np.eye(system.order)
    gap = fixed * eye - sign * system.A
    check_invertible(gap, "beta I - A" if sign > 0 else "alpha I + A", "cayley")
    half = np.linalg.solve(gap, system.B)
    D = system.D + sign * system._output_part(system.C @ half)
    transpose = np.swapaxes(gap, -1, -2)
    C = root * np.swapaxes(np.linalg.solve(transpose, np.swapaxes(system.C, -1, -2)), -1, -2)
    A = sign * scale * np.linalg.solve(gap, fixed * eye + sign * system.A)
    return system.replace(A=A, B=root * half, C=C, D=D, dt=step)
