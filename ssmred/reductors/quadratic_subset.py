"""Removal of modes of systems with quadratic outputs, with the best read-out of the others.

Theory: ``theory/quadratic-read-out.md``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular

from ssmred.errors import UnsupportedOperationError, message
from ssmred.gramians.square_root import ROUNDING
from ssmred.kernels.blas import with_blas_threads
from ssmred.reductors.quadratic import QuadraticPath, QuadraticReduction, QuadraticReductor
from ssmred.reductors.quadratic_read_out import read_out_roots, with_best_read_out
from ssmred.systems.diagonal import DiagonalSystem
from ssmred.systems.linear import adjoint, of_kind
from ssmred.systems.quadratic import QuadraticOutputSystem
from ssmred.systems.quadratic_forms import HERMITIAN

__all__ = ["QuadraticSubsetReductor", "quadratic_removal_errors"]


class QuadraticSubsetReductor(QuadraticReductor):
    """Keep a subset of the modes of a diagonal system with quadratic outputs.

    At every step the mode goes whose loss the read-out of the others, C and all M_j together, can
    make up for best. Poles and B of kept modes are untouched.

    Parameters
    ----------
    horizon : int, optional
        Number of samples over which kernels are compared; None is infinite.

    Notes
    -----
    A half spectrum (``real_output``) comes back with its conjugate modes written out, both modes of
    a pair or none: among its own modes alone the best M is no ``x^* M x``. The choice is greedy,
    its costs are exact: ``2 ||N_j v||^2 - |v^* N_j v|^2`` summed over the outputs. Level FLOAT; the
    error of the result is evaluated. Cost O(n^3 + n^2 p r) for all steps, r the rank of the factors
    (n for matrices). Theory: ``theory/quadratic-read-out.md``.

    Examples
    --------
    Of two modes with the same pole one is redundant, also for a square of the state:

    >>> poles, B = [0.5, 0.5, -0.3], [[1.0], [1.0], [1.0]]
    >>> system = QuadraticOutputSystem(poles, B, None, ([[1.0], [2.0], [1.0]],))
    >>> reduction = QuadraticSubsetReductor().reduce(system, order=2)
    >>> bool(reduction.bound.relative < 1e-14), int(reduction.kept[2])
    (True, 1)
    """

    method = "subset, quadratic outputs"

    def check_accepts(self, system: QuadraticOutputSystem) -> None:  # type: ignore[override]
        """Raise an error unless the system has modes, and is stable if need be."""
        super().check_accepts(system)
        if not isinstance(system.linear, DiagonalSystem):
            raise UnsupportedOperationError(
                message(
                    "QuadraticSubsetReductor",
                    "this system has no modes to keep",
                    expected="poles in place of a dense A",
                    cure="Use QuadraticBalancedReductor.",
                )
            )

    def path(self, system: QuadraticOutputSystem) -> QuadraticPath:  # type: ignore[override]
        """Return the removal path.

        Parameters
        ----------
        system : QuadraticOutputSystem
            One system with a diagonal A; with ``real_output`` orders count the modes of its full
            spectrum.

        Returns
        -------
        QuadraticPath
        """
        self.check_accepts(system)
        return _SubsetPath(system, self)


class _SubsetPath(QuadraticPath):
    """Hold the order in which modes go, and what every step costs.

    Attributes
    ----------
    removal : list of int
        Modes, or pairs by the number of their first mode, in the order of removal.
    costs : (steps,) float64
        Squares of the errors that the steps add.
    """

    def __init__(self, full: QuadraticOutputSystem, reductor: QuadraticSubsetReductor) -> None:
        super().__init__(full, full.full_spectrum(), reductor.horizon)
        self.reductor = reductor
        self.size = 2 if full.real_output else 1
        self.removal, self.costs = _eliminated(self.system, self.size, reductor.horizon)

    @property
    def errors(self) -> np.ndarray:  # type: ignore[override]
        """Error after k modes are gone, (n + 1,); half a pair never goes."""
        steps = -(-np.arange(self.system.order + 1) // self.size)
        return np.sqrt(np.concatenate([[0.0], np.cumsum(self.costs)]))[steps]

    def reduced(self, order: int) -> QuadraticReduction:
        """Return the system that keeps at most so many modes."""
        n = self.system.order
        gone = -(-(n - order) // self.size)
        groups = n // self.size
        kept = np.ones(groups, bool)
        kept[self.removal[:gone]] = False
        mask = np.tile(kept, self.size)
        system = self.full
        if gone:
            linear = of_kind(self.system.linear, DiagonalSystem, "QuadraticSubsetReductor")
            states = linear.replace(poles=linear.poles[mask], B=linear.B[mask], C=linear.C[:, mask])
            system = with_best_read_out(self.system, states, horizon=self.horizon)
            if self.full.real_output:
                system = _exactly_paired(system)
        return QuadraticReduction(
            self.full,
            system,
            int(mask.sum()),
            self.reductor.method,
            self.claimed(system),
            kept=mask,
        )


def _exactly_paired(system: QuadraticOutputSystem) -> QuadraticOutputSystem:
    """Return the mean of a system and its conjugate, whose modes are its own, halves swapped."""
    other = np.roll(np.arange(system.order), system.order // 2)
    C = (system.linear.C + system.linear.C[:, other].conj()) / 2
    M = system.M
    if system.factors is None:
        M = (M + M[:, other][:, :, other].conj()) / 2
    return system.replace(C=C, D=system.D.real, M=M)


@dataclass(eq=False)
class _Space:
    """Hold directions dual to the rows of kept modes, and what is fitted in their span.

    Attributes
    ----------
    W : (K, groups, size)
        ``L_S W = I``; in the span of the rows, in coordinates of which there are as many as rows.
    Y : (K, R)
        What is fitted, projected onto the span.
    """

    W: np.ndarray
    Y: np.ndarray

    @classmethod
    def of(cls, L: np.ndarray, targets: np.ndarray, size: int) -> _Space:
        """Return the space of all rows of L (n, K), targets (n, R) in terms of the rows."""
        lengths = np.linalg.norm(L, axis=1)
        lengths = np.where(lengths > 0, lengths, 1.0)
        # a direction of its own keeps the rows apart; it stands for their rounding
        apart = np.concatenate([L / lengths[:, None], ROUNDING * np.eye(len(L))], axis=1)
        R = np.linalg.qr(adjoint(apart), mode="r")  # in these coordinates rows are adjoint(R)
        W = adjoint(solve_triangular(R, np.eye(len(L)))) / lengths
        grouped = np.moveaxis(W.reshape(len(W), size, -1), 1, 2)
        return cls(np.ascontiguousarray(grouped), R @ (lengths[:, None] * targets))

    def directions(self) -> np.ndarray:
        """Return what the span loses with every group, orthonormal, (K, groups, size)."""
        V = self.W / np.linalg.norm(self.W, axis=0)
        if V.shape[2] == 2:
            for _ in range(2):  # once more for what rounding left
                inner = np.sum(V[:, :, 0].conj() * V[:, :, 1], axis=0)
                second = V[:, :, 1] - V[:, :, 0] * inner
                V = np.stack([V[:, :, 0], second / np.linalg.norm(second, axis=0)], axis=2)
        return V

    def remove(self, group: int, V: np.ndarray) -> None:
        """Take a group out of the span, V (K, size) its directions."""
        flat = np.delete(self.W, group, axis=1)
        W = flat.reshape(len(flat), -1)
        for _ in range(2):
            W = W - V @ (adjoint(V) @ W)
        self.W = W.reshape(flat.shape)
        self.Y = self.Y - V @ (adjoint(V) @ self.Y)


@with_blas_threads
def quadratic_removal_errors(
    system: QuadraticOutputSystem, *, horizon: int | None = None
) -> np.ndarray:
    """Return the h2 errors of removing every single mode, with the best read-out of the others.

    Parameters
    ----------
    system : QuadraticOutputSystem
        One system with a diagonal A; with ``real_output`` a mode goes with its conjugate.
    horizon : int or None

    Returns
    -------
    (n,) float64

    Raises
    ------
    ShapeError, UnsupportedOperationError, UnstableSystemError
        As :class:`QuadraticSubsetReductor`.

    Notes
    -----
    Level FLOAT. The first step of :class:`QuadraticSubsetReductor`, at O(n^3 + n^2 (m + p r)), r
    the rank of the factors.

    Examples
    --------
    ``y = x_1 x_2`` of two unrelated states with energy 1: either is needed.

    >>> B, factors = [[0.8, 0.0], [0.0, 0.8]], ([[1.0], [0.0]], [[0.0], [1.0]])
    >>> system = QuadraticOutputSystem([0.6, 0.6], B, None, factors)
    >>> quadratic_removal_errors(system).round(12).tolist()
    [0.707106781187, 0.707106781187]
    """
    QuadraticSubsetReductor(horizon=horizon).check_accepts(system)
    size = 2 if system.real_output else 1
    spaces = _spaces(system.full_spectrum(), size, horizon)
    cost, _ = _costs(spaces, system.outputs, system.convention == HERMITIAN)
    return np.sqrt(np.maximum(cost, 0.0))


def _eliminated(
    system: QuadraticOutputSystem, size: int, horizon: int | None
) -> tuple[list[int], np.ndarray]:
    """Return groups in the order of removal, and the squares that every step adds.

    Group g are the modes g, g + n / size, ...
    """
    spaces = _spaces(system, size, horizon)
    left, removal, costs = list(range(system.order // size)), [], []
    while left:
        cost, lost = _costs(spaces, system.outputs, system.convention == HERMITIAN)
        best = int(np.argmin(cost))
        removal.append(left.pop(best))
        costs.append(max(float(cost[best]), 0.0))
        for space, V in zip(spaces, lost, strict=True):
            space.remove(best, V[:, best])
    return removal, np.array(costs)


def _spaces(system: QuadraticOutputSystem, size: int, horizon: int | None) -> tuple[_Space, _Space]:
    """Return what C, and what M, is fitted in with all modes."""
    first, second = read_out_roots(system, None, horizon, "QuadraticSubsetReductor")
    n, p = system.order, system.outputs
    linear = _Space.of(first, adjoint(system.linear.C), size)
    U, V = system.factors or (system.M, np.broadcast_to(np.eye(n), system.M.shape))
    both = np.concatenate([U, V], axis=-1)  # (p, n, 2 r)
    both = both if system.convention == HERMITIAN else both.conj()
    targets = np.moveaxis(both, 0, 1).reshape(n, p * both.shape[-1])
    return linear, _Space.of(second, targets, size)


def _costs(
    spaces: tuple[_Space, _Space], outputs: int, hermitian: bool
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Return what the removal of every group adds to the square, and what the spaces lose."""
    linear, quadratic = spaces
    lost = linear.directions(), quadratic.directions()
    cost = _linear_costs(linear, lost[0])
    return cost + _quadratic_costs(quadratic, lost[1], outputs, hermitian), lost


def _linear_costs(space: _Space, V: np.ndarray) -> np.ndarray:
    """Return ``||G V||^2`` for every group, G the rows that are fitted."""
    seen = np.tensordot(space.Y.conj(), V, axes=(0, 0))  # (p, groups, size)
    return np.sum(np.abs(seen) ** 2, axis=(0, 2))


def _quadratic_costs(space: _Space, V: np.ndarray, outputs: int, hermitian: bool) -> np.ndarray:
    """Return ``2 ||N_j V||^2 - ||V^* N_j V||^2`` for every group, over all outputs."""
    Y = space.Y.reshape(len(space.Y), outputs, -1)
    q = np.tensordot(Y.conj(), V, axes=(0, 0))  # (p, 2 r, groups, size)
    half = Y.shape[-1] // 2
    swapped = np.concatenate([q[:, half:], q[:, :half]], axis=1) / 2
    parts = np.moveaxis(Y, 1, 0)
    gram = adjoint(parts) @ parts
    gram = gram if hermitian else gram.conj()
    moved = (gram @ swapped.reshape(*swapped.shape[:2], -1)).reshape(swapped.shape)
    images = np.sum(swapped.conj() * moved, axis=(0, 1)).real.sum(axis=-1)
    left = q.conj() if hermitian else q
    inner = np.einsum("pags,pagt->pgst", left, swapped)
    return 2 * images - np.sum(np.abs(inner) ** 2, axis=(0, 2, 3))
