"""The squared h2 error of states with their best read-out of quadratic outputs, and its gradient.

Theory: ``theory/quadratic-h2.md``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from scipy.linalg import schur

from ssmred.kernels.quadratic_descent import fill_pole_sums
from ssmred.kernels.shifted import fill_shifted_solutions
from ssmred.norms import h2_norm
from ssmred.reductors.quadratic_read_out import projected_forms
from ssmred.systems.dense import DenseSystem
from ssmred.systems.diagonal import DiagonalSystem
from ssmred.systems.linear import adjoint
from ssmred.systems.quadratic import QuadraticOutputSystem
from ssmred.systems.quadratic_forms import HERMITIAN
from ssmred.systems.stability import is_stable

__all__ = ["Evaluation", "QuadraticObjective"]

DEPENDENT = 1e-14
"""Eigenvalues of a Gramian of rows of length 1 below this share of the largest count as 0."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Hold the squared error at (poles, rows), the best read-out, and the gradient.

    Attributes
    ----------
    value : float
        J, as a difference of energies: right to a few eps of the energy of the system.
    C, M : (p, r), (p, r, r)
        The best read-out; C of the states before the update.
    by_poles, by_rows : (r,), (r, m)
        ``dJ = 2 Re sum_j (by_poles_j conj(dl_j) + by_rows_j db_j^*)``.
    X, Z : (n, r)
        The states of the system that are driven like those of the model, and seen like them.
    """

    value: float
    C: np.ndarray
    M: np.ndarray
    by_poles: np.ndarray
    by_rows: np.ndarray
    X: np.ndarray
    Z: np.ndarray


class QuadraticObjective:
    """Evaluate ``J(poles, rows) = min over C, M of ||S - S^||^2`` for diagonal models.

    Parameters
    ----------
    full : QuadraticOutputSystem
        One system; a half spectrum is written out.
    horizon : int or None
        Number of samples; None is infinite.
    direct : bool
        Whether D of the models is free too; else it is the full system's.

    Attributes
    ----------
    real : bool
        Whether models have conjugate pairs.
    energy : float
        Squared norm of all that poles and rows have to do with: without D, and without the first
        sample where a free D makes it right.
    stable : bool
        Whether all poles of the system are stable.

    Notes
    -----
    Level FLOAT. A post-update output ``C A^k B``, ``k >= 1``, is ``(C A) A^{k-1} B``: with a free D
    the model is sought for ``C A``. Cost of an evaluation: O(n r (m + p q)) for modes and factors
    of rank q; O(n^2 r) more for a dense A (by one Schur form, or over a horizon by powers of A),
    O(p n^2 r) for whole M. Theory: ``theory/quadratic-h2.md``.
    """

    def __init__(
        self, full: QuadraticOutputSystem, horizon: int | None, *, direct: bool = True
    ) -> None:
        self.real, self.stable = full.is_real, is_stable(full.linear)
        work = full
        if full.is_real:
            modal = isinstance(full.linear, DiagonalSystem)
            work = full.full_spectrum() if modal and full.real_output else full.realified()
        self.continuous = not full.is_discrete
        # terms of what linear and quadratic outputs see; 0 is infinity
        self.later = 0 if horizon is None else horizon - 1
        self.all = horizon or 0 if full.is_post_update else self.later
        shifted = work.is_post_update and direct
        if work.is_post_update and not direct:
            self.later = self.all
        self.empty = horizon == 1 and self.later != self.all  # no later sample
        self.energy = _energy(work, horizon, shifted)
        linear = work.linear
        if isinstance(linear, DiagonalSystem):
            self.reach: _Reach = _Modes(linear.poles, self.continuous)
        elif horizon is None:
            A = linear.to_dense().A.astype(np.complex128)
            T, Q = schur(A, output="complex")[:2]
            self.reach = _Triangle(T, self.continuous)
            work = _turned(work, T, Q)
        else:
            self.reach = _Powers(linear.to_dense().A, sorted({self.later, self.all} - {0}))
        self.hermitian = work.convention == HERMITIAN
        self.B, self.C = work.B + 0j, work.C + 0j
        if shifted:
            self.C = adjoint(self.reach.times(adjoint(self.C), dual=True))
        self.factors = work.factors
        self.matrices = work.M if work.factors is None else None

    def __call__(self, poles: np.ndarray, rows: np.ndarray) -> Evaluation:
        """Evaluate one model, poles (r,), rows (r, m), pairs written out.

        J is nan where the states of the model overflow within the horizon.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            return self._evaluated(poles, rows)

    def _evaluated(self, poles: np.ndarray, rows: np.ndarray) -> Evaluation:
        poles, rows = np.ascontiguousarray(poles) + 0j, np.ascontiguousarray(rows) + 0j
        value = self.energy
        by_poles, by_rows = np.zeros_like(poles), np.zeros_like(rows)
        p, r = len(self.C), len(poles)
        C, M = np.zeros((p, r), np.complex128), np.zeros((p, r, r), np.complex128)
        X = Z = np.zeros((len(self.B), r), np.complex128)
        driven, own = self.B @ adjoint(rows), rows @ adjoint(rows)
        # linear and quadratic outputs see the same states but for a post-update horizon
        parts = [(self.all, True, True)]
        if self.later != self.all:
            parts = [(self.later, True, False), (self.all, False, True)]
        for terms, linear, quadratic in parts:
            if linear and self.empty:
                if not quadratic:
                    continue
                break
            seen = self.reach.at(poles, terms)
            X, slopes = seen.driven(driven)
            sums, sum_slopes = _pole_sums(poles, poles, self.continuous, terms)
            P, P_slopes = own * sums, own * sum_slopes
            S = _inverse(P)
            weights = np.zeros((r, r), np.complex128)
            Y = np.zeros_like(X)
            if linear:
                shadow = self.C @ X
                C = shadow @ S
                value += float(np.sum(((C @ P) - 2 * shadow) * C.conj()).real)
                weights += adjoint(C) @ C
                Y += adjoint(self.C) @ C
            if quadratic:
                moved = self._moved(X)  # (p, n, r)
                left = adjoint(X) if self.hermitian else X.T
                shadow = left @ moved
                flip = np.asarray if self.hermitian else np.conj
                M = flip(S) @ shadow @ S
                image = flip(P) @ M
                value += float(np.sum((image @ P - 2 * shadow) * M.conj()).real)
                weights += 2 * np.sum(adjoint(M) @ image, axis=0)
                Y += 2 * np.sum(flip(moved) @ M, axis=0)
            Zt = seen.observed(Y)
            by_poles += np.sum(weights.T * P_slopes, axis=0) - np.sum(Y.conj() * slopes, axis=0)
            by_rows += (weights.T * sums).T @ rows - adjoint(Zt) @ self.B
            Z = Z + Zt
        return Evaluation(value, C, M, by_poles, by_rows, X, Z)

    def _moved(self, X: np.ndarray) -> np.ndarray:
        """Return ``M_j X``, (p, n, r)."""
        if self.factors is None:
            return self.matrices @ X
        U, V = self.factors
        star = adjoint if self.hermitian else _transposed
        return (U @ (star(V) @ X) + V @ (star(U) @ X)) / 2


class _Reach(ABC):
    """Hold A in some coordinates."""

    @abstractmethod
    def at(self, poles: np.ndarray, terms: int) -> _Seen:
        """Prepare the sums over so many terms (0 is infinity) for the poles of a model."""

    @abstractmethod
    def times(self, V: np.ndarray, *, dual: bool = False) -> np.ndarray:
        """Return ``A V``, or ``A^* V``."""


class _Seen(ABC):
    """Hold what can be said of sums ``F(conj(l_j)) = sum_k conj(l_j)^k A^k``, or integrals."""

    @abstractmethod
    def driven(self, W: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the columns ``F(conj(l_j)) w_j``, (n, r), and their slopes by ``conj(l_j)``."""

    @abstractmethod
    def observed(self, Y: np.ndarray) -> np.ndarray:
        """Return the columns ``F(conj(l_j))^* y_j``, (n, r)."""


class _Modes(_Reach):
    """A diagonal A."""

    def __init__(self, poles: np.ndarray, continuous: bool) -> None:
        self.poles, self.continuous = np.ascontiguousarray(poles) + 0j, continuous

    def at(self, poles: np.ndarray, terms: int) -> _Seen:
        return _SeenModes(*_pole_sums(self.poles, poles, self.continuous, terms))

    def times(self, V: np.ndarray, *, dual: bool = False) -> np.ndarray:
        return (self.poles.conj() if dual else self.poles)[:, None] * V


@dataclass(frozen=True, eq=False)
class _SeenModes(_Seen):
    sums: np.ndarray
    slopes: np.ndarray

    def driven(self, W: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.sums * W, self.slopes * W

    def observed(self, Y: np.ndarray) -> np.ndarray:
        return self.sums.conj() * Y


class _Triangle(_Reach):
    """An upper triangular A, infinite horizon."""

    def __init__(self, T: np.ndarray, continuous: bool) -> None:
        self.T, self.continuous = np.ascontiguousarray(T)[None], continuous
        self.flipped = np.ascontiguousarray(adjoint(T)[::-1, ::-1])[None]

    def at(self, poles: np.ndarray, terms: int) -> _Seen:
        return _SeenTriangle(self, poles)

    def times(self, V: np.ndarray, *, dual: bool = False) -> np.ndarray:
        return (adjoint(self.T[0]) if dual else self.T[0]) @ V


@dataclass(frozen=True, eq=False)
class _SeenTriangle(_Seen):
    reach: _Triangle
    poles: np.ndarray

    def driven(self, W: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        X = self._solved(self.reach.T, self.poles, W)
        # the derivative of (I - s A)^{-1}, or of -(A + s I)^{-1}
        return X, self._solved(
            self.reach.T, self.poles, X if self.reach.continuous else self.reach.T[0] @ X
        )

    def observed(self, Y: np.ndarray) -> np.ndarray:
        return self._solved(self.reach.flipped, self.poles.conj(), Y[::-1])[::-1]

    def _solved(self, T: np.ndarray, poles: np.ndarray, W: np.ndarray) -> np.ndarray:
        W = np.ascontiguousarray(W, dtype=np.complex128)[None]
        out = np.empty_like(W)
        poles = np.ascontiguousarray(poles)[None]
        fill_shifted_solutions(T, poles, W, not self.reach.continuous, out)
        return out[0]


class _Powers(_Reach):
    """Any A, finite horizon: the powers along the leading bits of the numbers of terms."""

    def __init__(self, A: np.ndarray, terms: list[int]) -> None:
        self.A = A + 0j
        self.powers: dict[int, np.ndarray] = {1: self.A}
        for count in terms:
            for bit in range(count.bit_length() - 2, 0, -1):
                half = count >> (bit + 1)
                square = self.powers[half] @ self.powers[half]
                self.powers[2 * half] = square
                if (count >> bit) & 1:
                    self.powers[2 * half + 1] = self.A @ square

    def at(self, poles: np.ndarray, terms: int) -> _Seen:
        return _SeenPowers(self, poles, terms)

    def times(self, V: np.ndarray, *, dual: bool = False) -> np.ndarray:
        return (adjoint(self.A) if dual else self.A) @ V


@dataclass(frozen=True, eq=False)
class _SeenPowers(_Seen):
    reach: _Powers
    poles: np.ndarray
    terms: int

    def driven(self, W: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._summed(W, self.poles.conj(), dual=False)

    def observed(self, Y: np.ndarray) -> np.ndarray:
        return self._summed(Y, self.poles, dual=True)[0]

    def _summed(self, W: np.ndarray, z: np.ndarray, *, dual: bool) -> tuple[np.ndarray, np.ndarray]:
        """Return ``sum_k z_j^k A^k w_j`` and the slopes by ``z_j``, doubled along the bits."""
        X, slopes, count = W + 0j, np.zeros_like(W + 0j), 1
        for bit in range(self.terms.bit_length() - 2, -1, -1):
            power = self.reach.powers[count]
            power = adjoint(power) if dual else power
            below = z ** (count - 1)
            shifted, moved = power @ X, power @ slopes
            slopes = slopes + below * (count * shifted + z * moved)
            X = X + below * z * shifted
            count *= 2
            if (self.terms >> bit) & 1:
                shifted, moved = (self.reach.times(V, dual=dual) for V in (X, slopes))
                slopes, X = shifted + z * moved, W + z * shifted
                count += 1
        return X, slopes


def _pole_sums(
    full: np.ndarray, poles: np.ndarray, continuous: bool, terms: int
) -> tuple[np.ndarray, np.ndarray]:
    sums = np.empty((len(full), len(poles)), np.complex128)
    slopes = np.empty_like(sums)
    fill_pole_sums(full, poles, continuous, terms, sums, slopes)
    return sums, slopes


def _inverse(P: np.ndarray) -> np.ndarray:
    """Return the inverse of a Gramian, its rows brought to one size; of dependent rows a part."""
    sizes = np.sqrt(np.diagonal(P).real)
    sizes = np.where(sizes > 0, sizes, 1.0)
    scaled = P / np.outer(sizes, sizes)
    if not np.isfinite(scaled).all():
        return np.full_like(P, np.nan)
    values, vectors = np.linalg.eigh(scaled)
    kept = values > DEPENDENT * values.max(initial=0.0)
    vectors = vectors[:, kept] / sizes[:, None]
    return (vectors / values[kept]) @ adjoint(vectors)


def _energy(work: QuadraticOutputSystem, horizon: int | None, shifted: bool) -> float:
    """Return the squared norm of linear outputs without D, or the first sample, and the others."""
    linear = work.linear.with_recurrence("standard") if shifted else work.linear
    later = h2_norm(linear.replace(D=np.zeros_like(work.D)), horizon=horizon)
    silent = work.replace(C=np.zeros_like(work.C), D=np.zeros_like(work.D))
    return float(np.square(later) + np.square(h2_norm(silent, horizon=horizon)))


def _turned(work: QuadraticOutputSystem, T: np.ndarray, Q: np.ndarray) -> QuadraticOutputSystem:
    """Return the system in the states y, ``x = Q y``, with ``T = Q^* A Q``."""
    linear = work.linear.to_dense()
    turned = DenseSystem(
        T, adjoint(Q) @ linear.B, linear.C @ Q, linear.D, linear.dt, recurrence=linear.recurrence
    )
    return QuadraticOutputSystem.of(turned, projected_forms(work, Q), convention=work.convention)


def _transposed(matrices: np.ndarray) -> np.ndarray:
    return np.swapaxes(matrices, -1, -2)
