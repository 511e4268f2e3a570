"""Reductors that move poles: what they share.

A method is a *core* that knows one flat batch of systems and can reduce a part of it to one order.
Around it stands everything that is the same for all: conjugate pairs, half spectra, recurrences,
channels of different order, and the form in which the result comes back.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ssmred.checks import check_choice
from ssmred.reductors.conjugation import find_conjugate_pairs
from ssmred.reductors.path import ReductionPath
from ssmred.reductors.reduction import ErrorBound, Projection, Reduction
from ssmred.reductors.reductor import Reductor
from ssmred.reductors.subset_path import packed
from ssmred.systems.dense import DenseSystem
from ssmred.systems.diagonal import DiagonalSystem
from ssmred.systems.diagonalisation import diagonalised
from ssmred.systems.linear import LinearSystem

__all__ = ["Core", "MovingPath", "MovingReductor", "taken"]

System = TypeVar("System", bound=LinearSystem)

FORMS = ("input", "dense", "diagonal")


class Core(Protocol):
    """What a method knows of a flat batch of H systems before an order is chosen.

    N is the order of the working systems: ``2 n`` for the half spectrum of a real system, else n.
    A core with an attribute ``exact`` that is true knows the errors themselves, not bounds.
    """

    @property
    def errors(self) -> np.ndarray:
        """Bound on the error at every order, (H, N + 1), ``errors[:, r]`` for order r.

        Estimates where ``theorem`` is None.
        """
        ...

    @property
    def norms(self) -> np.ndarray:
        """What the errors are relative to, (H,)."""
        ...

    @property
    def norm(self) -> str:
        """Norm of the errors; see ErrorBound."""
        ...

    @property
    def theorem(self) -> str | None:
        """Slug of the theorem behind the errors; None if they are estimates."""
        ...

    @property
    def hankel(self) -> np.ndarray | None:
        """Hankel singular values (H, N), where the method computes them."""
        ...

    def reduced(
        self, channels: np.ndarray, order: int
    ) -> tuple[LinearSystem, Projection | None, np.ndarray | None]:
        """Return some channels reduced to one order (real data for real systems).

        At most to that order: what a channel has less is padding at its end with B = 0, C = 0.
        Their projection where there is one, and their exact errors or bounds (len(channels),) where
        these are known better than ``errors`` (None otherwise).
        """
        ...


class MovingReductor(Reductor):
    """Reduce by a method that moves poles.

    Parameters
    ----------
    form : {"input", "dense", "diagonal"}
        In which form the reduced system comes back: as the input did, dense, or diagonal. A
        diagonal one is an eigendecomposition; its conditioning is in ``Reduction.condition``.
    """

    method: str
    moves_direct_term = False
    """Whether D changes; then post-update systems are reduced in the standard recurrence."""
    norm = "hinf"
    theorem: str | None = None
    """What a core would claim, for systems without states, which have none; see Core."""

    def __init__(self, *, form: str = "input") -> None:
        self.form = check_choice(form, FORMS, "form", type(self).__name__)

    @abstractmethod
    def core(self, system: LinearSystem) -> Core:
        """Return what the method knows of a flat batch (H,) of systems.

        ``system`` is a DiagonalSystem or DenseSystem with batch shape (H,), H >= 1, order >= 1. It
        may be a half spectrum (``real_output``); then orders count real states and what
        ``Core.reduced`` returns is a real DenseSystem, or a half-spectrum DiagonalSystem. Its
        recurrence is to be ignored unless ``moves_direct_term`` (then it is standard):
        ``C (z I - A)^{-1} B`` is reduced.
        """

    def finished(self, reduction: Reduction, core: Core | None) -> Reduction:
        """Return a reduction with what only this method knows added; None without states."""
        del core
        return reduction

    def path(self, system: LinearSystem) -> MovingPath:
        """Return what every order costs.

        Parameters
        ----------
        system : DiagonalSystem or DenseSystem

        Returns
        -------
        MovingPath
        """
        self.check_accepts(system)
        work = system
        if isinstance(work, DiagonalSystem):
            pairs = find_conjugate_pairs(work)
            if pairs is not None:
                work = pairs.half
        if self.moves_direct_term and work.is_post_update:
            work = work.with_recurrence("standard")
        core = None
        if work.order and all(work.batch_shape):
            core = self.core(taken(work, np.arange(math.prod(work.batch_shape))))
        return MovingPath(system, work, self, core)


@dataclass(frozen=True, eq=False)
class MovingPath(ReductionPath):
    """Hold what a method knows of every order of a system.

    Attributes
    ----------
    system : LinearSystem
        The full system.
    work : LinearSystem
        What is reduced: a real system with its full spectrum is worked on as a half spectrum.
    reductor : MovingReductor
    core : Core or None
        None for systems without states or an empty batch.
    """

    system: LinearSystem
    work: LinearSystem
    reductor: MovingReductor
    core: Core | None = field(repr=False)

    @property
    def errors(self) -> np.ndarray:  # type: ignore[override]
        """Bound after k modes are gone, (..., n + 1)."""
        n, batch = self.system.order, self.system.batch_shape
        if self.core is None:
            return np.zeros((*batch, n + 1))
        orders = np.minimum(self._states(np.arange(n, -1, -1)), self.core.errors.shape[-1] - 1)
        return self.core.errors[:, orders].reshape(*batch, n + 1)

    @property
    def norms(self) -> np.ndarray:  # type: ignore[override]
        """What the errors are relative to, (...)."""
        batch = self.system.batch_shape
        return np.zeros(batch) if self.core is None else self.core.norms.reshape(batch)

    @property
    def metric(self) -> str:  # type: ignore[override]
        """Norm of the errors."""
        return self.reductor.norm if self.core is None else self.core.norm

    def reduction(self, kept: npt.ArrayLike) -> Reduction:
        """Return the system that keeps at most so many modes of each channel.

        Parameters
        ----------
        kept : (...) int
            In the unit of ``system.order``. A half spectrum is reduced to ``2 kept`` real states;
            if these do not fit into ``kept`` stored modes, because more than one pole is real, to
            as many as do.

        Returns
        -------
        Reduction

        Raises
        ------
        OrderError, ShapeError
            If a number is not an integer between 0 and n, or the shape does not fit.
        AccuracyError
            If the result is to be diagonal and its eigenvectors are too badly conditioned.
        """
        counts = self._check_kept(kept)
        flat = counts.reshape(-1)
        pieces: list[_Piece] = []
        states = self._states(flat)
        todo = np.arange(flat.size)
        while todo.size:
            again = [todo[:0]]
            for order in np.unique(states[todo]):
                channels = todo[states[todo] == order]
                piece = self._piece(channels, int(order))
                fits = piece.modes <= (flat[channels] if self._is_diagonal else states[channels])
                pieces.append(piece.part(fits))
                again.append(channels[~fits])
            todo = np.concatenate(again)
            states[todo] -= 1
        return self.reductor.finished(self._assembled(pieces), self.core)

    @property
    def _is_diagonal(self) -> bool:
        """Whether the reduced system comes back diagonal."""
        form = self.reductor.form
        return form == "diagonal" or (form == "input" and isinstance(self.system, DiagonalSystem))

    def _states(self, modes: np.ndarray) -> np.ndarray:
        """Return the order of the working system for a number of modes of the full one."""
        return 2 * modes if self.system.real_output else modes.copy()

    def _piece(self, channels: np.ndarray, order: int) -> _Piece:
        """Return some channels at one order of the working system, in the final form."""
        errors = np.zeros(channels.size)
        projection = condition = None
        if self.core is None or order == self._states(np.asarray(self.system.order)):
            system: LinearSystem = taken(self.system, channels)  # nothing goes: untouched
        else:
            system, projection, known = self.core.reduced(channels, order)
            system = system.replace(recurrence=self.work.recurrence)
            if system.recurrence != self.system.recurrence:
                system = _in_recurrence(system, self.system.recurrence)
            errors = self.core.errors[channels, order] if known is None else known
        if not self._is_diagonal:
            system = system.realified() if system.is_real else system.to_dense()
        elif isinstance(system, DenseSystem):
            projection = None
            result = diagonalised(system, half=self.system.real_output)
            return _Piece(channels, result.system, result.modes, errors, None, result.condition)
        elif system.real_output and not self.system.real_output:
            system, modes = _written_out(system)
            return _Piece(channels, system, modes, errors, None, None)
        modes = np.full(channels.size, system.order, np.int64)
        if order < self._states(np.asarray(self.system.order)):
            modes = _used(system)
        return _Piece(channels, system, modes, errors, projection, condition)

    def _assembled(self, pieces: list[_Piece]) -> Reduction:
        """Return the channels of all pieces as one padded batch, in their places."""
        batch, reductor, core = self.system.batch_shape, self.reductor, self.core
        if not pieces:  # an empty batch
            orders = np.zeros(batch, np.int64)
            return Reduction(self.system, self.system, orders, reductor.method, self._no_error())
        channels = np.concatenate([piece.channels for piece in pieces])
        places = np.argsort(channels)
        modes = np.concatenate([piece.modes for piece in pieces])[places]
        width = int(modes.max())
        padded = [_padded(piece.system, width) for piece in pieces]
        names = ("poles", "B", "C", "D") if self._is_diagonal else ("A", "B", "C", "D")
        arrays = {
            name: _gathered([getattr(part, name) for part in padded], places) for name in names
        }
        first = padded[0]
        system = first.replace(
            **{name: array.reshape(*batch, *array.shape[1:]) for name, array in arrays.items()}
        )
        claim = hankel = None
        if core is None:
            claim = self._no_error()
        else:
            hankel = core.hankel
            hankel = None if hankel is None else hankel.reshape(*batch, -1)
            if core.theorem is not None:
                value = np.concatenate([piece.errors for piece in pieces])[places].reshape(batch)
                exact = getattr(core, "exact", False)
                claim = ErrorBound(value, self.norms, core.norm, core.theorem, exact)
        conditions = [piece.condition for piece in pieces if piece.condition is not None]
        condition = None
        if conditions:
            condition = np.ones(channels.size)
            for piece in pieces:
                if piece.condition is not None:
                    condition[piece.channels] = piece.condition
            condition = condition.reshape(batch)
        return Reduction(
            full=self.system,
            system=system,
            orders=modes.reshape(batch),
            method=reductor.method,
            claim=claim,
            hankel=hankel,
            projection=_joined(pieces, places, width, batch),
            condition=condition,
        )

    def _no_error(self) -> ErrorBound | None:
        """Return the claim where there is nothing to reduce; None if the method has none."""
        norm, theorem = self.reductor.norm, self.reductor.theorem
        if theorem is None:
            return None
        zeros = np.zeros(self.system.batch_shape)
        return ErrorBound(zeros, zeros, norm, theorem, exact=True)


@dataclass(frozen=True, eq=False)
class _Piece:
    """Some channels that were reduced to one order, as one flat batch."""

    channels: np.ndarray
    system: LinearSystem
    modes: np.ndarray
    errors: np.ndarray
    projection: Projection | None
    condition: np.ndarray | None

    def part(self, which: np.ndarray) -> _Piece:
        """Return the channels of a mask."""
        if which.all():
            return self
        projection = self.projection
        if projection is not None:
            projection = Projection(projection.V[which], projection.W[which])
        condition = None if self.condition is None else self.condition[which]
        return _Piece(
            self.channels[which],
            taken(self.system, np.flatnonzero(which)),
            self.modes[which],
            self.errors[which],
            projection,
            condition,
        )


def taken(system: System, channels: np.ndarray) -> System:
    """Return some channels of a system as a flat batch."""
    names = ("poles" if isinstance(system, DiagonalSystem) else "A", "B", "C", "D")
    lead = len(system.batch_shape)
    arrays = {name: getattr(system, name) for name in names}
    count = math.prod(system.batch_shape)
    return system.replace(
        **{name: a.reshape(count, *a.shape[lead:])[channels] for name, a in arrays.items()}
    )


def _in_recurrence(system: LinearSystem, recurrence: str) -> LinearSystem:
    """Return the other recurrence; padding keeps its poles at 0, which have no inverse."""
    idle = np.arange(system.order) >= _used(system)[:, None]
    if isinstance(system, DiagonalSystem):
        moved = system.replace(poles=np.where(idle, 1, system.poles)).with_recurrence(recurrence)
        return moved.replace(poles=system.poles)
    moved = system.replace(A=system.A + idle[:, None, :] * np.eye(system.order))
    return moved.with_recurrence(recurrence).replace(A=system.A)


def _used(system: LinearSystem) -> np.ndarray:
    """Return the modes or states of every channel without the padding at its end."""
    used = np.any(system.B != 0, axis=-1) | np.any(system.C != 0, axis=-2)
    if isinstance(system, DenseSystem):
        coupled = np.where(np.eye(system.order, dtype=bool), 0, system.A) != 0
        used |= np.any(coupled, axis=-1) | np.any(coupled, axis=-2)
    return np.max(np.where(used, np.arange(1, system.order + 1), 0), axis=-1, initial=0)


def _written_out(half: DiagonalSystem) -> tuple[DiagonalSystem, np.ndarray]:
    """Return the full spectrum of a half spectrum, real poles once, with the modes per channel."""
    full = half.full_spectrum()
    n = half.order
    own = np.concatenate([half.poles.imag == 0, half.poles.imag == 0], axis=-1)
    mask = ~own | (np.arange(2 * n) < n)
    mask &= np.tile(np.arange(n) < _used(half)[:, None], 2)
    full = full.replace(C=np.where(own[..., None, :], 2 * full.C, full.C))
    return packed(full, mask), mask.sum(axis=-1)


def _padded(system: LinearSystem, width: int) -> LinearSystem:
    """Return a flat batch with its order cut or padded to a width; padding is stable."""
    n = min(system.order, width)
    extra = width - n
    if n == system.order and extra == 0:
        return system
    B = np.pad(system.B[:, :n], ((0, 0), (0, extra), (0, 0)))
    C = np.pad(system.C[:, :, :n], ((0, 0), (0, 0), (0, extra)))
    rest = 0.0 if system.is_discrete else -1.0
    if isinstance(system, DiagonalSystem):
        poles = np.pad(system.poles[:, :n], ((0, 0), (0, extra)), constant_values=rest)
        return system.replace(poles=poles, B=B, C=C)
    A = np.pad(system.A[:, :n, :n], ((0, 0), (0, extra), (0, extra)))  # type: ignore[attr-defined]
    A[:, range(n, width), range(n, width)] = rest
    return system.replace(A=A, B=B, C=C)


def _joined(
    pieces: list[_Piece], places: np.ndarray, width: int, batch: tuple[int, ...]
) -> Projection | None:
    """Return the projections of all pieces, padded with zero columns; None unless all have one."""
    if any(piece.projection is None for piece in pieces):
        return None
    V, W = (
        _gathered([_widened(getattr(piece.projection, name), width) for piece in pieces], places)
        for name in ("V", "W")
    )
    return Projection(V.reshape(*batch, *V.shape[1:]), W.reshape(*batch, *W.shape[1:]))


def _widened(basis: np.ndarray, width: int) -> np.ndarray:
    """Return (H, N, r) bases with their columns cut or padded with zeros to a width."""
    missing = width - basis.shape[-1]
    if missing <= 0:
        return basis[..., :width]
    return np.pad(basis, ((0, 0), (0, 0), (0, missing)))


def _gathered(arrays: list[np.ndarray], places: np.ndarray) -> np.ndarray:
    """Return all arrays as one, in an order; a single one that is in order is not copied."""
    if len(arrays) == 1 and (places == np.arange(places.size)).all():
        return arrays[0]
    return np.concatenate(arrays)[places]
