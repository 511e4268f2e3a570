"""Balanced truncation of systems with quadratic outputs.

Theory: ``theory/quadratic-balancing.md``.
"""

from __future__ import annotations

import numpy as np

from ssmred.checks import check_choice
from ssmred.gramians import controllability_factor, observability_factor
from ssmred.reductors.balancing import FactorBalancing, dense_result
from ssmred.reductors.quadratic import QuadraticPath, QuadraticReduction, QuadraticReductor
from ssmred.reductors.quadratic_read_out import projected_forms, with_best_read_out
from ssmred.systems.diagonalisation import diagonalised
from ssmred.systems.quadratic import QuadraticOutputSystem

__all__ = ["QuadraticBalancedReductor", "by_modes"]

FORMS = ("dense", "diagonal")
READ_OUTS = ("projected", "best")


class QuadraticBalancedReductor(QuadraticReductor):
    """Truncate the states that are hard to reach and hard to see in all outputs, quadratic too.

    Square-root method with ``P = sum_k b_k b_k^*`` and
    ``Q = sum_k A^{*k} (C^* C + sum_j M_j P M_j) A^k``.

    Parameters
    ----------
    form : {"dense", "diagonal"}
        In which form the reduced system comes back.
    read_out : {"projected", "best"}
        C and M as the projection leaves them, ``C V`` and ``V^* M_j V``, or the best ones for the
        poles and B that it leaves.
    horizon : int, optional
        Balance the Gramians of so many terms, and compare so many samples; None is infinite.
    direct : bool
        Whether the best read-out has a D of its own; else it is the full system's.

    Notes
    -----
    Infinite horizon: the reduced system is stable. No bound in terms of the truncated values is
    known; the error is evaluated. The values depend on the unit of the input, because quadratic
    outputs grow faster: scale inputs to their usual size first. Level FLOAT. Cost O(n^3). Theory:
    ``theory/quadratic-balancing.md``. Source: [Benner2022].

    Examples
    --------
    >>> system = QuadraticOutputSystem([0.5, 0.4], [[1.0], [1.0]], None, [[1.0, 0.0], [0.0, 1e-8]])
    >>> reduction = QuadraticBalancedReductor().reduce(system, order=1)
    >>> bool(abs(reduction.system.A[0, 0] - 0.5) < 1e-6)
    True
    """

    method = "balanced, quadratic outputs"

    def __init__(
        self,
        *,
        form: str = "dense",
        read_out: str = "projected",
        horizon: int | None = None,
        direct: bool = True,
    ) -> None:
        super().__init__(horizon=horizon)
        where = "QuadraticBalancedReductor"
        self.form = check_choice(form, FORMS, "form", where)
        self.read_out = check_choice(read_out, READ_OUTS, "read_out", where)
        self.direct = direct

    def path(self, system: QuadraticOutputSystem) -> QuadraticPath:  # type: ignore[override]
        """Return what every order costs.

        Parameters
        ----------
        system : QuadraticOutputSystem
            One system; if it is real, orders count its real states.

        Returns
        -------
        QuadraticPath
        """
        self.check_accepts(system)
        return _BalancedPath(system, self)


class _BalancedPath(QuadraticPath):
    """Hold the balanced bases."""

    def __init__(self, full: QuadraticOutputSystem, reductor: QuadraticBalancedReductor) -> None:
        horizon = reductor.horizon
        super().__init__(full, full.realified() if full.is_real else full, horizon)
        self.reductor = reductor
        dense = self.system.linear.to_dense()
        self.flat = dense.replace(**{name: getattr(dense, name)[None] for name in "ABCD"})
        factors = (
            controllability_factor(self.system, horizon=horizon),
            observability_factor(self.system, horizon=horizon),
        )
        Lp, Lq = (factor[None] for factor in factors)
        self.balancing = FactorBalancing(self.flat, Lp, Lq, type(reductor).__name__)

    def reduced(self, order: int) -> QuadraticReduction:
        """Return the truncated system."""
        if order == self.system.order:
            return self._result(self.full, order)
        part = self.balancing.compression(np.arange(1), order)
        flat = dense_result(self.flat, part.A, part.B, part.C, self.flat.D)
        linear = flat.replace(**{name: getattr(flat, name)[0] for name in "ABCD"})
        if self.reductor.read_out == "best":
            system = with_best_read_out(
                self.system, linear, horizon=self.horizon, direct=self.reductor.direct
            )
        else:
            M = projected_forms(self.system, part.projection.V[0])
            system = QuadraticOutputSystem.of(linear, M, convention=self.system.convention)
        if self.reductor.form == "dense":
            return self._result(system, order)
        system, condition = by_modes(system)
        return self._result(system, order, condition)

    def _result(
        self, system: QuadraticOutputSystem, order: int, condition: float | None = None
    ) -> QuadraticReduction:
        return QuadraticReduction(
            self.full,
            system,
            order,
            self.reductor.method,
            self.claimed(system),
            values=self.balancing.values[0],
            condition=condition,
        )


def by_modes(system: QuadraticOutputSystem) -> tuple[QuadraticOutputSystem, float]:
    """Return the same system with a diagonal A, and the condition of the eigenvectors."""
    linear, r = system.linear.to_dense(), system.order
    # the states as further outputs come back as the eigenvectors
    states = np.concatenate([linear.C, np.eye(r)])
    silent = np.concatenate([linear.D, np.zeros((r, linear.inputs))])
    result = diagonalised(linear.replace(C=states, D=silent))
    C, X = np.split(result.system.C, [linear.outputs])
    modes = result.system.replace(C=C, D=linear.D)
    forms = projected_forms(system, X)
    turned = QuadraticOutputSystem.of(modes, forms, convention=system.convention)
    return turned, float(result.condition)
