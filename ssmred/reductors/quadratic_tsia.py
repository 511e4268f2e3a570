"""The two-sided iteration (TSIA) for systems with quadratic outputs.

Theory: ``theory/quadratic-h2.md``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from ssmred.reductors.quadratic_modes import ModalStates, modal_states
from ssmred.reductors.quadratic_objective import QuadraticObjective
from ssmred.systems.linear import adjoint

__all__ = ["Iteration", "quadratic_two_sided"]

CONDITION_LIMIT = 1e12
"""A product ``W^* V`` worse than this ends the iteration."""

RESOLUTION = 1e-14
"""J that differ by less, relative to the energy of the system, count as equal: the latest counts as
the best."""


@dataclass(frozen=True, eq=False)
class Iteration:
    """Hold what an iteration found.

    Attributes
    ----------
    states : ModalStates
        The best admissible states that it passed, the start among them.
    value : float
        Their J.
    converged : bool
        Whether the iteration came to rest, at these states.
    unstable : int
        Steps that left the stable set, and were mirrored.
    """

    states: ModalStates
    value: float
    converged: bool
    unstable: int


def quadratic_two_sided(
    objective: QuadraticObjective, start: ModalStates, *, rtol: float, steps: int
) -> Iteration:
    """Iterate from some states: project on X along Z, take the best read-out, and again.

    Parameters
    ----------
    objective : QuadraticObjective
    start : ModalStates
        Stable, unless the system itself is not (finite horizon).
    rtol : float
        The iteration has come to rest once no pole moves by more in the pseudo-hyperbolic distance,
        and no row of B turns by more.
    steps : int
        Models looked at, at most.

    Returns
    -------
    Iteration

    Notes
    -----
    Level FLOAT. Neither convergence nor stability of the iterates is guaranteed, nor does J have to
    fall: unstable poles are mirrored, the best admissible states are kept. Over a finite horizon a
    fixed point is not stationary. Cost of a step: one evaluation and O(n r^2). Theory:
    ``theory/quadratic-h2.md``, 5.
    """
    best, value, converged, unstable = start, np.inf, False, 0
    states = start
    for _ in range(steps):
        found = objective(*states.written_out())
        if not np.isfinite(found.value):
            break
        if found.value <= value + RESOLUTION * objective.energy:
            best, value = states, min(value, found.value)
        projected = _projected(objective, states, found.X, found.Z)
        if projected is None or len(projected.poles) == 0:
            break
        left_the_set = objective.stable and bool(
            np.any(projected.margins(objective.continuous) <= 0)
        )
        moved = _distance(states, projected, objective.continuous)
        if not left_the_set and moved <= rtol:
            converged = best is states
            break
        if left_the_set:
            unstable += 1
            projected = projected.mirrored(objective.continuous)
            on_the_boundary = np.any(projected.margins(objective.continuous) <= 0)
            if on_the_boundary or _distance(states, projected, objective.continuous) <= rtol:
                break  # at rest, but not at a fixed point
        states = projected
    return Iteration(best, value, converged, unstable)


def _projected(
    objective: QuadraticObjective, states: ModalStates, X: np.ndarray, Z: np.ndarray
) -> ModalStates | None:
    """Return the modes of the projection on X along Z, None where it means nothing."""
    if not (np.isfinite(X).all() and np.isfinite(Z).all()):
        return None
    V, W = (np.linalg.qr(_real_combinations(part, states))[0] for part in (X, Z))
    left, values, right = np.linalg.svd(adjoint(W) @ V)
    if not values[-1] * CONDITION_LIMIT >= values[0]:
        return None
    scale = 1 / np.sqrt(values)
    V, W = V @ (adjoint(right) * scale), W @ (left * scale)
    A, B = adjoint(W) @ objective.reach.times(V), adjoint(W) @ objective.B
    if states.real:  # to rounding: combinations of conjugate columns have real products
        A, B = A.real, B.real
    return modal_states(A, B, states.real)


def _real_combinations(columns: np.ndarray, states: ModalStates) -> np.ndarray:
    """Return, of every pair of columns, half the sum and half the difference over i."""
    if not states.real:
        return columns
    q, pairs = len(states.poles), states.pairs
    out = columns.copy()
    upper, lower = columns[:, :q][:, pairs], columns[:, q:]
    out[:, :q][:, pairs], out[:, q:] = (upper + lower) / 2, (upper - lower) / 2j
    return out


def _distance(one: ModalStates, two: ModalStates, continuous: bool) -> float:
    """Return how far poles and directions of rows are apart, matched; inf for other numbers."""
    if one.poles.shape != two.poles.shape or one.pairs.sum() != two.pairs.sum():
        return np.inf
    a, b = one.poles[:, None], two.poles[None, :].conj()
    gaps = np.abs(a + b if continuous else 1 - a * b)
    apart = np.abs(a - b.conj())
    distances = apart / np.maximum(gaps, np.maximum(apart, np.finfo(float).tiny))
    rows, columns = linear_sum_assignment(distances)
    first, second = one.rows[rows], two.rows[columns]
    along = np.sum(first * second.conj(), axis=-1, keepdims=True)
    turned = np.linalg.norm(first - along * second, axis=-1)
    return float(max(distances[rows, columns].max(initial=0.0), turned.max(initial=0.0)))
