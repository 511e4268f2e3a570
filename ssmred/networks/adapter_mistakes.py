"""The usual mistakes in reading a state-space layer, each with what undoes it.

What undoes a mistake maps the systems that an adapter gave to those that it should have given.
Where A is discretised, B follows it: ``b = (l - 1) / A`` (zero-order hold) or
``b = dt (l + 1) / 2`` (bilinear), so a wrong A also scales B, by a factor that the poles tell.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssmred.systems import DiagonalSystem
from ssmred.systems.linear import LinearSystem

__all__ = ["Candidate", "candidates", "fitted_steps"]

Systems = Mapping[str, LinearSystem]

HOLDS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "": lambda _old, new: np.ones_like(new),
    " (zero-order hold)": lambda old, new: _held(new) / _held(old),
    " (bilinear)": lambda old, new: (new + 1.0) / (old + 1.0),
}
"""By discretisation: the factor of B where other poles come of another A and the same step."""

STEPS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "": lambda poles, factor: poles**factor,
    " (zero-order hold)": lambda poles, factor: poles**factor,
    " (bilinear)": lambda poles, factor: _cayley(factor * (poles - 1.0) / (poles + 1.0)),
}
"""By discretisation: the poles where the step is so many times as large."""

STEP_FACTORS = np.geomspace(1e-3, 1e3, 241)
"""Ratios of steps that are tried, before the best is refined."""

GOLDEN_SECTIONS = 50  # a bracket of 0.1 to 1e-11

IMAGINARY = "the imaginary part of A has the wrong sign"
REAL = "the real part of A has the wrong sign"
BOTH = "A has the wrong sign"
CONJUGATED_B = "B is conjugated"
CONJUGATED_C = "C is conjugated"
MISSING_TWO = "the factor 2 of a half spectrum is missing in C"
DOUBLED_TWO = (
    "the factor 2 of a half spectrum is in C, but the layer has none (or it is there twice)"
)
TOO_EARLY = (
    "the layer answers one step later: its output sees the state before the update "
    '(recurrence="standard")'
)
TOO_LATE = (
    "the layer answers one step earlier: its output sees the state after the update "
    '(recurrence="post-update")'
)
TRANSPOSED = "B and C are transposed: inputs and outputs have changed places"
NEGATED = "C, or B, has the wrong sign"


@dataclass(frozen=True)
class Candidate:
    """Hold systems that would be right if some mistakes had been made, and these by name."""

    mistakes: tuple[str, ...]
    systems: Systems


def candidates(systems: Systems) -> Iterator[Candidate]:
    """Yield what the systems would be without one usual mistake, then without two."""
    fixes = _fixes(systems)
    for name, fix in fixes:
        yield Candidate((name,), fix(systems))
    for (one, first), (two, second) in itertools.combinations(fixes, 2):
        if one.split(" (")[0] != two.split(" (")[0] and {one, two} != {MISSING_TWO, DOUBLED_TWO}:
            yield Candidate((one, two), second(first(systems)))


def fitted_steps(
    systems: Systems, error_of: Callable[[Systems], np.ndarray]
) -> Iterator[Candidate]:
    """Yield systems with the steps, one per channel, that fit best, for every discretisation.

    Parameters
    ----------
    systems : mapping of str to LinearSystem
    error_of : callable
        Returns the error of every channel, (H,), or of all together, (1,).
    """
    if not all(isinstance(s, DiagonalSystem) and np.all(s.poles != 0) for s in systems.values()):
        return
    channels = len(error_of(systems))
    for name, hold in reversed(HOLDS.items()):  # B without a hold comes last

        def with_steps(
            factors: np.ndarray, step: Any = STEPS[name], hold: Any = hold, held: bool = bool(name)
        ) -> Mapping[str, LinearSystem]:
            def change(system: Any) -> LinearSystem:
                with np.errstate(all="ignore"):
                    poles = step(system.poles, factors[:, None])
                    moved = _with_poles(system, poles, hold)
                return moved.replace(B=moved.B * factors[:, None, None]) if held else moved

            return {key: change(system) for key, system in systems.items()}

        def errors(
            logs: np.ndarray, make: Callable[[np.ndarray], Systems] = with_steps
        ) -> np.ndarray:
            values = error_of(make(np.exp(logs)))
            return np.where(np.isfinite(values), values, np.inf)

        grid = np.log(STEP_FACTORS)
        all_errors = np.array([errors(np.full(channels, log)) for log in grid])
        best = grid[all_errors.argmin(axis=0)]
        factors = np.exp(_refined(errors, best - (grid[1] - grid[0]), best + (grid[1] - grid[0])))
        same = np.ptp(factors) <= 1e-4 * factors.max()
        told = ", ".join(f"{factor:.5g}" for factor in factors[: 1 if same else 4])
        more = ", ..." if not same and channels > 4 else ""
        yield Candidate(
            (f"the step size is wrong: the layer's is {told}{more} times as large{name}",),
            with_steps(factors),
        )


def _refined(
    errors: Callable[[np.ndarray], np.ndarray], low: np.ndarray, high: np.ndarray
) -> np.ndarray:
    """Return the minima (H,) of H functions of one variable, by golden sections."""
    share = (np.sqrt(5.0) - 1.0) / 2.0
    for _ in range(GOLDEN_SECTIONS):
        left, right = high - share * (high - low), low + share * (high - low)
        lower = errors(left) <= errors(right)
        low, high = np.where(lower, low, left), np.where(lower, right, high)
    return 0.5 * (low + high)


def _fixes(systems: Systems) -> list[tuple[str, Callable[[Systems], Systems]]]:
    fixes: list[tuple[str, Callable[[Systems], Systems]]] = [
        (MISSING_TWO, _each(lambda s: s.replace(C=2.0 * s.C))),
        (DOUBLED_TWO, _each(lambda s: s.replace(C=0.5 * s.C))),
        (NEGATED, _each(lambda s: s.replace(C=-s.C))),
    ]
    if all(system.is_post_update for system in systems.values()):
        fixes.append((TOO_EARLY, _each(lambda s: s.replace(recurrence="standard"))))
    else:
        fixes.append((TOO_LATE, _each(lambda s: s.replace(recurrence="post-update"))))
    if all(s.inputs == s.outputs > 1 for s in systems.values()):
        fixes.append((TRANSPOSED, _each(_transposed)))
    if not all(isinstance(system, DiagonalSystem) for system in systems.values()):
        return fixes
    fixes += [
        (CONJUGATED_C, _each(lambda s: s.replace(C=s.C.conj()))),
    ]
    moves: tuple[tuple[str, Callable[[np.ndarray], np.ndarray]], ...] = (
        (IMAGINARY, np.conj),
        (REAL, lambda poles: 1.0 / np.conj(poles)),
        (BOTH, lambda poles: 1.0 / poles),
    )
    for how, hold in HOLDS.items():  # what B holds of A is not conjugated with it
        fixes.append((CONJUGATED_B + how, _each(lambda s, h=hold: _conjugated_input(s, h))))
    for (name, move), (how, hold) in itertools.product(moves, HOLDS.items()):
        fixes.append((name + how, _each(lambda s, m=move, h=hold: _with_poles(s, m(s.poles), h))))
    return fixes


def _each(change: Callable[[Any], LinearSystem]) -> Callable[[Systems], Systems]:
    def fix(systems: Systems) -> Systems:
        with np.errstate(all="ignore"):
            return {name: change(system) for name, system in systems.items()}

    return fix


def _with_poles(system: Any, poles: np.ndarray, hold: Callable[..., np.ndarray]) -> LinearSystem:
    factor = hold(system.poles, poles)
    good = np.isfinite(poles) & np.isfinite(factor)
    poles, factor = np.where(good, poles, 0.0), np.where(good, factor, 0.0)
    return system.replace(poles=poles, B=system.B * factor[..., None])


def _conjugated_input(system: Any, hold: Callable[..., np.ndarray]) -> LinearSystem:
    factor = hold(system.poles.conj(), system.poles)
    factor = np.where(np.isfinite(factor), factor, 0.0)
    return system.replace(B=system.B.conj() * factor[..., None])


def _cayley(rate: np.ndarray) -> np.ndarray:
    return (1.0 + rate) / (1.0 - rate)


def _held(poles: np.ndarray) -> np.ndarray:
    """Return ``(l - 1) / log l``, what zero-order hold makes of B besides the step."""
    rate = np.log(poles)
    return np.where(rate == 0, 1.0, np.expm1(rate) / np.where(rate == 0, 1.0, rate))


def _transposed(system: Any) -> LinearSystem:
    changed = {name: np.swapaxes(getattr(system, name), -1, -2) for name in ("B", "C", "D")}
    if not isinstance(system, DiagonalSystem):
        changed["A"] = np.swapaxes(system.A, -1, -2)
    return system.replace(**changed | {"B": changed["C"], "C": changed["B"]})
