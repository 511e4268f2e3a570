"""H2-optimal reduction: two-sided iteration, or descent over poles that stay stable.

Theory: ``theory/h2-optimality.md``.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np

from ssmred.checks import check_choice, check_integer, check_tolerance
from ssmred.errors import AccuracyError
from ssmred.norms import h2_error, h2_norm
from ssmred.reductors.balanced import balanced
from ssmred.reductors.balancing import dense_result
from ssmred.reductors.h2_descent import descended
from ssmred.reductors.moving import Core, MovingPath, MovingReductor, taken
from ssmred.reductors.reduction import ErrorBound, Reduction
from ssmred.reductors.resolvents import resolvent_of
from ssmred.reductors.tsia import two_sided_iteration
from ssmred.systems.dense import DenseSystem
from ssmred.systems.diagonal import DiagonalSystem
from ssmred.systems.diagonalisation import diagonalised
from ssmred.systems.linear import LinearSystem, of_kind
from ssmred.systems.stability import check_stable

__all__ = ["H2OptimalReductor", "H2Path"]

ALGORITHMS = ("tsia", "gradient")

RESOLVED = 1e-12
"""Squared errors below this share of the squared norm, which TSIA finds as differences of energies,
are evaluated again before the start is given up."""


class H2OptimalReductor(MovingReductor):
    """Minimise the h2 norm of the error over all systems of an order, from the balanced truncation.

    The minimum is local; it is never worse than its start.

    Parameters
    ----------
    algorithm : {"tsia", "gradient"}
        The two-sided iteration, continued by descent where it does not converge; or descent alone:
        quasi-Newton steps over ``exp(-exp(nu) + i theta)``, continuous ``-exp(nu) + i omega``, with
        the best read-out at every step. Descent needs a diagonal system, or a dense one with
        usable eigenvectors, and keeps the number of real poles that the start has.
    rtol : float
        TSIA has converged once its model moves by less, relative to the norm of the system.
    steps : int
        Most iterations of TSIA; descent takes up to five times as many, which cost less.
    form : {"input", "dense", "diagonal"}

    Notes
    -----
    ``Reduction.converged`` tells where the result meets the first-order conditions: then
    ``H_r(s) b = H(s) b``, ``c^* H_r = c^* H`` and ``c^* H_r' b = c^* H' b`` at the mirror images of
    its poles. ``Reduction.bound`` is the h2 error itself, evaluated; it is relative to the norm of
    the strictly proper part. The direct term of the standard recurrence stays, which is optimal.
    Level FLOAT. Cost O(n r + r^3) per step and channel for diagonal systems, all channels
    together; O(n^2 r) for dense ones after one Schur form. A tol searches the order by bisection.
    Theory: ``theory/h2-optimality.md``. Source: [XuZeng2011], [GugercinAntoulasBeattie2008].

    Examples
    --------
    ``1 / (z - 0.5) + 1 / (z + 0.5) = 2 z / (z^2 - 0.25)`` is seen, and driven, alike from both
    sides; the best constant is D:

    >>> system = DiagonalSystem([0.5, -0.5], [1.0, 1.0], [1.0, 1.0], 2.0)
    >>> H2OptimalReductor().reduce(system, order=0).system.D.tolist()
    [[2.0]]
    >>> reduction = H2OptimalReductor().reduce(system, order=1)
    >>> bool(reduction.bound.value < h2_norm(system.replace(D=np.zeros((1, 1)))))
    True
    """

    moves_direct_term = True
    norm = "h2"
    theorem = "h2-optimality"

    def __init__(
        self,
        *,
        algorithm: str = "tsia",
        rtol: float = 1e-8,
        steps: int = 100,
        form: str = "input",
    ) -> None:
        super().__init__(form=form)
        where = "H2OptimalReductor"
        self.algorithm = check_choice(algorithm, ALGORITHMS, "algorithm", where)
        self.rtol = check_tolerance(rtol, where, name="rtol")
        self.steps = check_integer(steps, "steps", where, low=1)
        self.method = f"h2-optimal, {self.algorithm}"

    def check_accepts(self, system: LinearSystem) -> None:
        """Raise UnstableSystemError unless every pole is stable."""
        super().check_accepts(system)
        check_stable(system, "H2OptimalReductor")

    def path(self, system: LinearSystem) -> H2Path:
        """Return what every order costs; each order is reduced when it is asked for.

        Parameters
        ----------
        system : DiagonalSystem or DenseSystem

        Returns
        -------
        H2Path
        """
        path = super().path(system)
        return H2Path(path.system, path.work, path.reductor, path.core)

    def core(self, system: LinearSystem) -> _H2Core:
        """Return the balanced bases of a flat batch, from which the search starts."""
        return _H2Core(system, self)

    def finished(self, reduction: Reduction, core: Core | None) -> Reduction:
        """Return a reduction with the error of the system as it is stored, and what converged."""
        if not isinstance(core, _H2Core):
            return reduction
        batch = reduction.full.batch_shape
        claim = ErrorBound(
            np.asarray(reduction.h2_error),
            core.norms.reshape(batch),
            core.norm,
            core.theorem,
            exact=True,
        )
        return replace(reduction, claim=claim, converged=core.converged.reshape(batch).copy())


class H2Path(MovingPath):
    """Find the order of a tolerance by bisection, since every order is a search of its own."""

    def reduction_to(self, tol: float) -> Reduction:
        """Return the smallest reduction found by bisection with relative error <= tol; see base."""
        tol = check_tolerance(tol, "H2Path.reduction_to")
        limit = np.asarray(tol * self.norms)
        low = np.zeros(self.system.batch_shape, np.int64)
        high = np.full_like(low, self.system.order)
        while np.any(low < high):
            middle = (low + high) // 2
            claim = self.reduction(middle).claim
            fits = np.zeros(low.shape, bool) if claim is None else claim.value <= limit
            low, high = np.where(fits, low, middle + 1), np.where(fits, middle, high)
            low = np.minimum(low, high)
        return self.reduction(high)


class _H2Core:
    norm = H2OptimalReductor.norm
    theorem = H2OptimalReductor.theorem

    def __init__(self, system: LinearSystem, reductor: H2OptimalReductor) -> None:
        self.system, self.reductor = system, reductor
        self.balancing = balanced(system, "H2OptimalReductor")
        self.hankel = self.balancing.values
        self.norms = np.asarray(h2_norm(system.replace(D=np.zeros_like(system.D))))
        self.converged = np.ones(self.norms.shape, bool)

    @cached_property
    def errors(self) -> np.ndarray:
        """Errors of the best models found, for every order; the largest of it and all above it."""
        channels = np.arange(len(self.norms))
        orders = range(self.hankel.shape[-1])
        found = [self.reduced(channels, order)[2] for order in orders]
        errors = np.stack([*found, np.zeros_like(self.norms)], axis=-1)
        return np.maximum.accumulate(errors[:, ::-1], axis=-1)[:, ::-1]

    @cached_property
    def modes(self) -> DiagonalSystem | None:
        """The system in modal form, pairs written out; None if its eigenvectors are no use."""
        system = self.system
        if isinstance(system, DenseSystem):
            try:
                return diagonalised(system).system
            except AccuracyError:
                if self.reductor.algorithm == "gradient":
                    raise
                return None
        system = of_kind(system, DiagonalSystem, "H2OptimalReductor")
        return system.full_spectrum() if system.real_output else system

    def reduced(self, channels: np.ndarray, order: int) -> tuple[DenseSystem, None, np.ndarray]:
        """Return the best models found, with their errors."""
        part = self.balancing.compression(channels, order)
        system = taken(self.system, channels)
        start = dense_result(self.system, part.A, part.B, part.C, system.D)
        # what has no more states than the order comes back whole
        higher = self.balancing.ranks[channels] > order
        squares = np.where(higher, self.norms[channels] ** 2, 0.0)
        self.converged[channels] = True
        todo = np.flatnonzero(higher & (squares > 0))
        if order == 0 or todo.size == 0:
            return start, None, np.sqrt(squares)
        model, found, converged = self._searched(channels[todo], taken(start, todo))
        squares[todo] = found
        self.converged[channels[todo]] = converged
        return _with(start, todo, model), None, np.sqrt(squares)

    def _searched(
        self, channels: np.ndarray, start: DenseSystem
    ) -> tuple[DenseSystem, np.ndarray, np.ndarray]:
        """Return models of channels of higher rank, their squared errors and what converged."""
        system, norms, wish = taken(self.system, channels), self.norms[channels], self.reductor
        model, squares = start, np.full(norms.shape, np.inf)
        converged = np.zeros(norms.shape, bool)
        if wish.algorithm == "tsia":
            model, squares, converged = two_sided_iteration(
                resolvent_of(system), start, norms, rtol=wish.rtol, steps=wish.steps
            )
        rest = np.flatnonzero(~converged)
        if rest.size and self.modes is not None:
            moved, found, settled = descended(
                taken(self.modes, channels[rest]), taken(model, rest), steps=5 * wish.steps
            )
            better = found <= squares[rest]
            model = _with(model, rest[better], taken(moved, np.flatnonzero(better)))
            squares[rest[better]] = found[better]
            converged[rest] = settled & better
        doubtful = np.flatnonzero(~(squares > RESOLVED * norms**2) | np.isinf(squares))
        if doubtful.size:
            full = taken(system, doubtful)
            before, after = (
                np.asarray(h2_error(full, taken(one, doubtful))) for one in (start, model)
            )
            back = after > before
            model = _with(model, doubtful[back], taken(start, doubtful[back]))
            converged[doubtful[back]] = False
            squares[doubtful] = np.minimum(before, after) ** 2
        return model, squares, converged


def _with(system: DenseSystem, channels: np.ndarray, other: DenseSystem) -> DenseSystem:
    """Return a flat batch with some channels replaced."""
    arrays = {name: getattr(system, name).copy() for name in "ABC"}
    for name, array in arrays.items():
        array[channels] = getattr(other, name)
    return system.replace(**arrays)
