"""Descent of the h2 error with quadratic outputs, over poles that stay stable.

Theory: ``theory/quadratic-h2.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from ssmred.reductors.h2_descent import moved_across
from ssmred.reductors.quadratic_modes import ModalStates
from ssmred.reductors.quadratic_objective import QuadraticObjective
from ssmred.systems.diagonal import DiagonalSystem

__all__ = ["Descent", "Parameters", "quadratic_descent"]

CLOSEST = 1e-13
"""Least ``-log |pole|``: closer to the circle than this rounding decides what is stable."""

SMALLEST = 1e-8
"""Least modulus of a pole in discrete time: at 0 the logarithm has no value."""

FURTHEST = 30.0
"""Largest change of the logarithm of a decay."""

ROUNDS = 4
"""Descents, each from where the one before got stuck at the real axis."""

MEMORY = 20
FLAT = 1e-16
"""Decrease of J, relative to the energy of the system, below which a descent ends: rounding."""

RESTARTS = 3
"""A descent that ends so is started again, without its memory, at most so often."""

NEWTON_STEPS, LARGEST_HESSIAN = 4, 200
"""Newton steps at its end, where there are not more parameters: J is flat to rounding long before
the gradient is."""

FAR = 1e-2
"""Derivatives, relative to J, beyond which no Newton step is tried."""

DIFFERENCE = 1e-5
"""Step of the central differences of gradients."""

FLATTEST = 1e-6
"""Curvatures below this share of the largest are those of free factors of the rows."""

ROUNDING = 1e-14
"""Growth of J, relative to the energy of the system, that a Newton step may show."""

Bounds = list[tuple[float | None, float | None]]
Valued = Callable[[np.ndarray], tuple[float, np.ndarray]]


@dataclass(frozen=True, eq=False)
class Descent:
    """Hold where a descent ended: its states, their J, and whether the gradient is small there."""

    states: ModalStates
    value: float
    converged: bool


class Parameters:
    """Real parameters of states around a start: decays, angles or frequencies, rows of B.

    A pole is ``exp(-rate e^x + i (angle + rate y))``, in continuous time ``-rate e^x + i (frequency
    + rate y)``; where unstable poles are admitted ``exp(log|start| + rate x + i ...)``. Real poles
    of real systems keep their sign and have no y. Rows are free where there are several inputs.

    Parameters
    ----------
    start : ModalStates
        Stable where ``stable``.
    continuous, stable : bool
    """

    def __init__(self, start: ModalStates, *, continuous: bool, stable: bool) -> None:
        self.start, self.continuous, self.stable = start, continuous, stable
        poles = start.poles
        self.turns = start.pairs if start.real else np.ones(len(poles), bool)
        if continuous:
            self.rates = -poles.real
        else:
            size = np.abs(poles)
            poles = np.where(size < SMALLEST, SMALLEST, poles)
            self.logs = np.log(np.abs(poles))
            self.angles = np.angle(poles)
            self.rates = np.maximum(np.abs(self.logs), CLOSEST if stable else 1e-4)
        self.moves_rows = start.rows.shape[-1] > 1

    @property
    def first(self) -> np.ndarray:
        """The parameters of the start."""
        q, turns = len(self.turns), int(self.turns.sum())
        parts = [np.zeros(q + turns)]
        if self.moves_rows:
            rows = self.start.rows
            parts += [rows.real.ravel(), rows.imag[self.turns].ravel()]
        return np.concatenate(parts)

    def bounds(self) -> Bounds:
        """Return the bounds of all parameters: decays stay where they can be told apart."""
        q = len(self.turns)
        low, high = np.full(q, -FURTHEST), np.full(q, FURTHEST)
        if not self.continuous:
            deepest = -np.log(SMALLEST)
            if self.stable:
                low = np.maximum(low, np.log(CLOSEST / self.rates))
                high = np.minimum(high, np.log(deepest / self.rates))
            else:
                low = np.maximum(low, (-deepest - self.logs) / self.rates)
        free = len(self.first) - q
        limits = [*zip(np.minimum(low, 0.0).tolist(), np.maximum(high, 0.0).tolist(), strict=True)]
        return [*limits, *[(None, None)] * free]

    def states(self, x: np.ndarray) -> ModalStates:
        """Return the states of parameters."""
        q, turns = len(self.turns), self.turns
        turned = np.zeros(q)
        turned[turns] = self.rates[turns] * x[q : q + turns.sum()]
        if self.continuous:
            poles = -self.rates * np.exp(x[:q]) + 1j * (self.start.poles.imag + turned)
        else:
            decay = -self.rates * np.exp(x[:q]) if self.stable else self.logs + self.rates * x[:q]
            poles = np.exp(decay) * np.exp(1j * (self.angles + turned))
            # exact for real poles, whose angle is 0 or pi
            poles = np.where(turns, poles, np.copysign(np.exp(decay), np.cos(self.angles)))
        rows = self.start.rows
        if self.moves_rows:
            m = rows.shape[-1]
            rest = x[q + turns.sum() :]
            rows = rest[: q * m].reshape(q, m) + 0j
            rows[turns] += 1j * rest[q * m :].reshape(-1, m)
        return ModalStates(poles, rows, self.start.real)

    def gradient(self, x: np.ndarray, states: ModalStates, by_poles: np.ndarray,
                 by_rows: np.ndarray) -> np.ndarray:  # fmt: skip
        """Return the derivatives by the parameters from those by all modes (`Evaluation`)."""
        q, turns = len(self.turns), self.turns
        poles, rows = states.folded(by_poles), states.folded(by_rows)
        inner = 1.0 if self.continuous else states.poles
        decay = -self.rates * np.exp(x[:q]) if self.continuous or self.stable else self.rates
        parts = [
            2 * (poles * np.conj(decay * inner)).real,
            2 * (poles * np.conj(1j * self.rates * inner)).real[turns],
        ]
        if self.moves_rows:
            parts += [2 * rows.real.ravel(), 2 * rows.imag[turns].ravel()]
        return np.concatenate(parts)


def quadratic_descent(
    objective: QuadraticObjective, start: ModalStates, *, rtol: float, steps: int
) -> Descent:
    """Descend from some states, C and M being the best ones for the states at every step.

    Parameters
    ----------
    objective : QuadraticObjective
    start : ModalStates
        Unstable poles are mirrored first, where the system has none.
    rtol : float
        It has converged where no derivative of J by a parameter exceeds so much of J.
    steps : int
        Quasi-Newton steps, at most, altogether.

    Returns
    -------
    Descent

    Notes
    -----
    L-BFGS-B of SciPy. A pair that ends close to the real axis becomes two real poles, two real
    poles that meet become a pair, and a real pole at 0 changes its sign, and the descent goes on
    from there: neither can happen on the way. Level FLOAT. Theory: ``theory/quadratic-h2.md``, 6.
    """
    if objective.stable:
        start = start.mirrored(objective.continuous)
    best = _one_descent(objective, start, rtol, steps)[0]
    now, left = best, steps
    for _ in range(ROUNDS if start.real else 0):
        states = _across(now.states, objective.continuous)
        if states is None or left <= 0:
            break
        now, used = _one_descent(objective, states, rtol, left)
        left -= used
        if not now.value < best.value:
            break
        best = now
    return best


def _one_descent(
    objective: QuadraticObjective, start: ModalStates, rtol: float, steps: int
) -> tuple[Descent, int]:
    """Return where one descent ended, and how many steps it took."""
    energy = objective.energy if objective.energy > 0 else 1.0
    used, best = 0, Descent(start, np.inf, False)
    for _ in range(RESTARTS):
        parameters = Parameters(start, continuous=objective.continuous, stable=objective.stable)
        bounds = parameters.bounds()

        def valued(x: np.ndarray, parameters: Parameters = parameters) -> tuple[float, np.ndarray]:
            states = parameters.states(x)
            found = objective(*states.written_out())
            gradient = parameters.gradient(x, states, found.by_poles, found.by_rows)
            if not (np.isfinite(found.value) and np.isfinite(gradient).all()):
                return np.inf, np.zeros_like(x)
            return found.value / energy, gradient / energy

        first = parameters.first
        value, gradient = valued(first)
        if not np.isfinite(value):
            break
        result = minimize(
            valued,
            first,
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={
                "maxiter": max(1, steps - used),
                "maxfun": 3 * max(1, steps - used) + 20,
                "maxcor": MEMORY,
                "ftol": FLAT,
                "gtol": 0.1 * rtol * value,
            },
        )
        used += int(result.nit)
        x = np.asarray(result.x)
        if used < steps:
            x = _polished(valued, x, bounds, rtol)
        value, gradient = valued(x)
        converged = _steepest(x, gradient, bounds) <= rtol * max(value, 0.0)
        ended = parameters.states(x)
        sizes = np.linalg.norm(ended.rows, axis=-1, keepdims=True)
        ended = ModalStates(ended.poles, ended.rows / np.where(sizes > 0, sizes, 1.0), ended.real)
        if value * energy < best.value:
            best = Descent(ended, value * energy, converged)
        if converged or used >= steps:
            break
        start = ended
    return best, used


def _polished(valued: Valued, x: np.ndarray, bounds: Bounds, rtol: float) -> np.ndarray:
    """Return parameters after Newton steps, which see the gradient where J is all rounding."""
    size = len(x)
    value, gradient = valued(x)
    steepest = _steepest(x, gradient, bounds)
    for _ in range(NEWTON_STEPS if size <= LARGEST_HESSIAN else 0):
        if not FAR * value >= steepest > rtol * value:
            break
        steps = DIFFERENCE * np.eye(size)
        rows = [(valued(x + step)[1] - valued(x - step)[1]) / (2 * DIFFERENCE) for step in steps]
        hessian = np.array(rows)
        curvatures, axes = np.linalg.eigh((hessian + hessian.T) / 2)
        kept = np.abs(curvatures) > FLATTEST * np.abs(curvatures).max(initial=0.0)
        if np.any(curvatures[kept] < 0):
            break
        axes = axes[:, kept]
        moved = x - axes @ ((axes.T @ gradient) / curvatures[kept])
        low, high = _limits(bounds)
        moved = np.clip(moved, low, high)
        found, slopes = valued(moved)
        less = _steepest(moved, slopes, bounds)
        if not (found <= value + ROUNDING and less < steepest):
            break
        x, value, gradient, steepest = moved, found, slopes, less
    return x


def _limits(bounds: Bounds) -> tuple[np.ndarray, np.ndarray]:
    low = np.array([-np.inf if one is None else one for one, _ in bounds])
    high = np.array([np.inf if two is None else two for _, two in bounds])
    return low, high


def _steepest(x: np.ndarray, gradient: np.ndarray, bounds: Bounds) -> float:
    """Return the largest derivative, without those that push against a bound."""
    moved = np.clip(x - gradient, *_limits(bounds)) - x
    return float(np.abs(moved).max(initial=0.0))


def _across(states: ModalStates, continuous: bool) -> ModalStates | None:
    """Return states with poles that meet moved across the real axis, None where none do."""
    half = DiagonalSystem(
        states.poles[None],
        states.rows[None],
        np.zeros((1, 1, len(states.poles))),
        None,  # type: ignore[arg-type]
        0.0 if continuous else 1.0,
        real_output=True,
    )
    moved, counts, crossed = moved_across(half, np.array([len(states.poles)]))
    if not crossed[0]:
        return None
    poles, rows = moved.poles[0, : counts[0]], moved.B[0, : counts[0]]
    sizes = np.linalg.norm(rows, axis=-1, keepdims=True)
    if np.any(sizes == 0):  # a pair with a real row: its difference is what counts
        rows = np.where(sizes > 0, rows, 1.0)
        sizes = np.linalg.norm(rows, axis=-1, keepdims=True)
    return ModalStates(poles, rows / sizes, True)
