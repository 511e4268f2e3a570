"""H2-optimal reduction of systems with quadratic outputs.

Theory: ``theory/quadratic-h2.md``.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cached_property

import numpy as np

from ssmred.checks import check_choice, check_integer, check_tolerance
from ssmred.errors import AccuracyError
from ssmred.reductors.quadratic import QuadraticPath, QuadraticReduction, QuadraticReductor
from ssmred.reductors.quadratic_balanced import QuadraticBalancedReductor, by_modes
from ssmred.reductors.quadratic_descent import quadratic_descent
from ssmred.reductors.quadratic_modes import ModalStates, modal_states
from ssmred.reductors.quadratic_objective import QuadraticObjective
from ssmred.reductors.quadratic_read_out import with_best_read_out
from ssmred.reductors.quadratic_tsia import quadratic_two_sided
from ssmred.systems.quadratic import QuadraticOutputSystem

__all__ = ["QuadraticH2Path", "QuadraticH2Reductor"]

METHODS = ("tsia", "descent", "both")
FORMS = ("dense", "diagonal")

EXACT = 1e-12
"""A start with a smaller relative error is returned: no search resolves what is left."""

ROUNDING = 1e-15
"""Squared errors that differ by less, relative to the energy of the system, count as equal."""

DESCENT_STEPS = 5
"""Quasi-Newton steps for every step of the two-sided iteration, which costs more."""


class QuadraticH2Reductor(QuadraticReductor):
    """Minimise the h2 norm of the error over all systems of an order, from the balanced truncation.

    The minimum is local. The result is never worse than its start, balanced truncation with the
    best read-out (:class:`QuadraticBalancedReductor`, ``read_out="best"``).

    Parameters
    ----------
    method : {"tsia", "descent", "both"}
        The two-sided iteration; descent over poles and B, with the best C, D and M at every step;
        or the iteration, and descent from the best of its models and from the start.
    form : {"dense", "diagonal"}
        In which form the reduced system comes back.
    horizon : int, optional
        Number of samples over which kernels are compared; None is infinite.
    direct : bool
        Whether D is free too; else it is the full system's.
    rtol : float
        The iteration has converged once no pole moves by more (pseudo-hyperbolic distance), and no
        row of B turns by more; descent where no derivative of the squared error exceeds so much of
        it, in parameters that change poles by the size of their decay.
    steps : int
        Most steps of the iteration; descent takes up to five times as many.

    Notes
    -----
    ``reduction.converged`` tells whether the search came to rest at the system that is returned: a
    statement about the search, not a proof of a minimum. Infinite horizon: the result is stable.
    Over a finite horizon every model of the search of a stable system is stable, but its start need
    not be; a fixed point of the iteration is not stationary there, so "tsia" is not enough. A real
    system comes back real. A tol searches the order by bisection. Level FLOAT. Cost O(n r (m + p
    q)) per step for modes and M in factors of rank q, O(n^2 r) for a dense A, after O(n^3) for the
    start. Theory: ``theory/quadratic-h2.md``. Source: [Wilson1970], [XuZeng2011],
    [GolubPereyra1973].

    Examples
    --------
    >>> system = QuadraticOutputSystem(
    ...     [0.9, 0.7, -0.5], [[1.0], [1.0], [1.0]], [[1.0, 0.5, 0.2]],
    ...     [[1.0, 0.2, 0.0], [0.2, -1.0, 0.1], [0.0, 0.1, 0.5]])
    >>> best = QuadraticH2Reductor().reduce(system, order=1)
    >>> start = QuadraticBalancedReductor(read_out="best").reduce(system, order=1)
    >>> best.converged, bool(best.bound.value < start.bound.value)
    (True, True)
    """

    def __init__(
        self,
        *,
        method: str = "both",
        form: str = "dense",
        horizon: int | None = None,
        direct: bool = True,
        rtol: float = 1e-6,
        steps: int = 100,
    ) -> None:
        super().__init__(horizon=horizon)
        where = "QuadraticH2Reductor"
        self.algorithm = check_choice(method, METHODS, "method", where)
        self.form = check_choice(form, FORMS, "form", where)
        self.direct = direct
        self.rtol = check_tolerance(rtol, where, name="rtol")
        self.steps = check_integer(steps, "steps", where, low=1)
        self.method = f"h2-optimal, quadratic outputs, {method}"

    def path(self, system: QuadraticOutputSystem) -> QuadraticPath:  # type: ignore[override]
        """Return what every order costs; each order is a search when it is first asked for.

        Parameters
        ----------
        system : QuadraticOutputSystem
            One system; if it is real, orders count its real states.

        Returns
        -------
        QuadraticPath
        """
        self.check_accepts(system)
        return QuadraticH2Path(system, self)


class QuadraticH2Path(QuadraticPath):
    """Hold the balanced bases, from which every search starts, and what was found.

    Attributes
    ----------
    starts : QuadraticPath
        Balanced truncation with the best read-out.
    """

    def __init__(self, full: QuadraticOutputSystem, reductor: QuadraticH2Reductor) -> None:
        self.starts = QuadraticBalancedReductor(
            read_out="best", horizon=reductor.horizon, direct=reductor.direct
        ).path(full)
        super().__init__(full, self.starts.system, reductor.horizon)
        self.reductor = reductor
        self.found: dict[int, QuadraticReduction] = {}

    @cached_property
    def objective(self) -> QuadraticObjective:
        """The squared error as a function of poles and B."""
        return QuadraticObjective(self.full, self.horizon, direct=self.reductor.direct)

    def balanced_states(self, order: int) -> ModalStates | None:
        """Return the modes of the balanced truncation to an order, None if they are no use."""
        part = self.starts.balancing.compression(np.arange(1), order)
        return modal_states(part.A[0], part.B[0], self.objective.real)

    def reduced(self, order: int) -> QuadraticReduction:
        """Return the best system found of this order."""
        if order not in self.found:
            self.found[order] = self._searched(order)
        return self.found[order]

    def reduction_to(self, tol: float) -> QuadraticReduction:  # type: ignore[override]
        """Return the smallest reduction found by bisection with relative error <= tol.

        Raises
        ------
        ToleranceError
            If tol is not a positive number.
        """
        tol = check_tolerance(tol, "QuadraticPath.reduction_to")
        low, high = 0, self.system.order
        while low < high:
            middle = (low + high) // 2
            if self.reduced(middle).bound.value <= tol * self.norms:
                high = middle
            else:
                low = middle + 1
        return self.reduced(high)

    def _searched(self, order: int) -> QuadraticReduction:
        start = replace(self.starts.reduced(order), method=self.reductor.method)
        if order == self.system.order:
            return replace(start, converged=True)
        energy = math.sqrt(self.objective.energy)
        if order == 0 or start.bound.value <= EXACT * energy:
            return self._finished(start, start.system, True)
        begin = self.balanced_states(order)
        candidates = [(start.system, False)]
        if begin is not None and len(begin.poles):
            states, converged = self._states(begin)
            linear = states.system(self.system.linear)
            system = with_best_read_out(
                self.system, linear, horizon=self.horizon, direct=self.reductor.direct
            )
            candidates.insert(0, (system, converged))
        finished = []
        for number, (system, converged) in enumerate(candidates, 1):
            try:
                finished.append(self._finished(start, system, converged))
            except AccuracyError:  # no diagonal form: another candidate may have one
                if number == len(candidates) and not finished:
                    raise
        return min(finished, key=lambda one: float(one.bound.value))  # the first of equals

    def _states(self, begin: ModalStates) -> tuple[ModalStates, bool]:
        """Return the best states that the search finds, and whether it came to rest there."""
        objective, wish = self.objective, self.reductor
        if objective.stable:
            begin = begin.mirrored(objective.continuous)
        starts, found = [begin], []
        if wish.algorithm != "descent":
            passed = quadratic_two_sided(objective, begin, rtol=wish.rtol, steps=wish.steps)
            starts, found = [passed.states, begin], [passed]
        if wish.algorithm != "tsia":
            most = DESCENT_STEPS * wish.steps
            ends = [quadratic_descent(objective, one, rtol=wish.rtol, steps=most) for one in starts]
            found = [*ends, *found]
        level = min(one.value for one in found) + ROUNDING * objective.energy
        # of those that rounding does not tell apart, one that came to rest
        best = max((one for one in found if one.value <= level), key=lambda one: one.converged)
        return best.states, best.converged

    def _finished(
        self, start: QuadraticReduction, system: QuadraticOutputSystem, converged: bool
    ) -> QuadraticReduction:
        """Return a system in the form that was asked for, with its error as it is stored."""
        condition = None
        if self.reductor.form == "diagonal":
            system, condition = by_modes(system)
        return replace(
            start,
            system=system,
            bound=self.claimed(system),
            condition=condition,
            converged=converged,
        )
