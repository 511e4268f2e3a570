"""Splitting: poles inside a boundary are reduced, all others stay as they are.

Theory: ``theory/spectral-split.md``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ssmred.checks import check_array
from ssmred.errors import DataError, OrderError, UnsupportedOperationError, message
from ssmred.reductors.moving import _padded, taken
from ssmred.reductors.path import ReductionPath
from ssmred.reductors.reduction import ErrorBound, Reduction
from ssmred.reductors.reductor import Reductor
from ssmred.reductors.split_parts import Part, dense_parts, diagonal_parts, part_of
from ssmred.systems.dense import DenseSystem
from ssmred.systems.diagonal import DiagonalSystem
from ssmred.systems.linear import LinearSystem, of_kind
from ssmred.systems.stability import stability_margins

__all__ = ["SplitPath", "SplitReductor"]


class SplitReductor(Reductor):
    """Reduce the part of a system with its poles inside a boundary, and keep the other part.

    ``H = H_1 + H_2`` with the poles of ``H_1`` inside; the result is ``H_1r + H_2``, so that
    ``H - H_r = H_1 - H_1r`` whatever ``H_2`` is: unstable, on the stability boundary, or only slow.

    Parameters
    ----------
    reductor : Reductor
        What reduces the part inside; its options (form, horizon, ...) apply.
    boundary : float, optional
        Inside is ``|pole| < boundary`` in discrete time, ``Re(pole) < boundary`` in continuous
        time. The stability boundary by default.

    Notes
    -----
    An order counts all modes of the result, those outside included, so it cannot be below their
    number. A tol is relative to the norm of the part inside, as the reductor measures it; so are
    the bound and its theorem. ``Reduction.compared`` holds the parts where the whole is unstable:
    errors are those of the parts then, and of the stored systems otherwise. Diagonal systems are
    split exactly; dense ones with a backward error of about eps times the norm of the spectral
    projection, and with this accuracy the part outside comes back. Level FLOAT; cost O(n^3) for
    each dense system, in a loop, besides that of the reductor. Theory:
    ``theory/spectral-split.md``. Source: [BavelyStewart1979].

    Examples
    --------
    The unstable mode stays, and of the stable ones that which the output hardly sees goes:

    >>> from ssmred.reductors import ModalReductor
    >>> system = DiagonalSystem([0.5, 0.0, 2.0], [1.0, 1.0, 1.0], [1.0, 0.25, 5.0])
    >>> reduction = SplitReductor(ModalReductor()).reduce(system, order=2)
    >>> reduction.system.poles.real.tolist(), float(reduction.claim.value.round(12))
    ([0.5, 2.0], 0.25)
    """

    def __init__(self, reductor: Reductor, *, boundary: float | None = None) -> None:
        where = "SplitReductor"
        if not isinstance(reductor, Reductor):
            is_class = isinstance(reductor, type) and issubclass(reductor, Reductor)
            raise UnsupportedOperationError(
                message(
                    where,
                    "reductor cannot reduce systems",
                    expected="a Reductor",
                    got=reductor.__name__ if is_class else type(reductor).__name__,
                    cure=f"Pass an object: {reductor.__name__}()." if is_class else "",
                )
            )
        if boundary is not None:
            value = check_array(boundary, "boundary", where)
            if value.ndim or np.iscomplexobj(value) or isinstance(boundary, (bool, np.bool_)):
                raise DataError(
                    message(
                        where,
                        "boundary is not usable",
                        expected="a real number, or None for the stability boundary",
                        got=f"{boundary!r}",
                    )
                )
            boundary = float(value)
        self.reductor, self.boundary = reductor, boundary

    @property
    def form(self) -> str:
        """In which form the reduced system comes back, as the reductor has it."""
        return getattr(self.reductor, "form", "input")

    def check_accepts(self, system: LinearSystem) -> None:
        """Raise an error unless the system can be split and the reductor takes the part inside."""
        super().check_accepts(system)
        for part in self._parts(system):
            self.reductor.check_accepts(part.inside)

    def path(self, system: LinearSystem) -> SplitPath:
        """Return what every order costs.

        Parameters
        ----------
        system : DiagonalSystem or DenseSystem

        Returns
        -------
        SplitPath

        Raises
        ------
        AccuracyError
            If a dense system cannot be split there; see :func:`ssmred.gramians.spectral_split`.
        DataError
            If the boundary does not fit the time of the system.
        UnstableSystemError
            If the boundary leaves unstable poles to a reductor that does not take them.
        """
        super().check_accepts(system)
        parts = self._parts(system)
        inner = tuple(self.reductor.path(part.inside) for part in parts)
        return SplitPath(system, tuple(parts), inner)

    def _parts(self, system: LinearSystem) -> list[Part]:
        """Return the channels, those with equally many poles inside together."""
        count = math.prod(system.batch_shape)
        flat = taken(system, np.arange(count))
        if not count:
            return [part_of(flat, np.arange(0), flat, _shortened(flat, 0), None)]
        split = diagonal_parts if isinstance(flat, DiagonalSystem) else dense_parts
        parts = split(flat, self.boundary)
        if self.form == "diagonal" and isinstance(flat, DenseSystem):
            parts = [part.diagonalised() for part in parts]
        return parts


@dataclass(frozen=True, eq=False)
class SplitPath(ReductionPath):
    """Hold what the reductor knows of the part inside, for every channel and order.

    Attributes
    ----------
    system : LinearSystem
        The full system.
    parts : tuple
        Its channels, grouped by their numbers of poles inside, taken apart.
    inner : tuple of ReductionPath
        Paths of the parts inside.
    """

    system: LinearSystem
    parts: tuple[Part, ...] = field(repr=False)
    inner: tuple[ReductionPath, ...] = field(repr=False)

    @property
    def errors(self) -> np.ndarray:  # type: ignore[override]
        """Bound after k modes are gone, (..., n + 1); inf where modes outside would have to go."""
        batch, n = self.system.batch_shape, self.system.order
        errors = np.full((math.prod(batch), n + 1), np.inf)
        for part, inner in zip(self.parts, self.inner, strict=True):
            known = n + 1 - part.fixed[:, None]
            places = np.minimum(np.arange(n + 1), inner.system.order)
            values = np.where(np.arange(n + 1) < known, inner.errors[:, places], np.inf)
            errors[part.channels] = values
        return errors.reshape(*batch, n + 1)

    @property
    def norms(self) -> np.ndarray:  # type: ignore[override]
        """What the errors are relative to, (...)."""
        batch = self.system.batch_shape
        norms = np.zeros(math.prod(batch))
        for part, inner in zip(self.parts, self.inner, strict=True):
            norms[part.channels] = inner.norms
        return norms.reshape(batch)

    @property
    def metric(self) -> str:  # type: ignore[override]
        """Norm of the errors."""
        return self._largest.metric

    @property
    def _largest(self) -> ReductionPath:
        return max(self.inner, key=lambda path: path.system.order)

    def reduction(self, kept: npt.ArrayLike) -> Reduction:
        """Return the system that keeps at most so many modes of each channel, all outside included.

        Parameters
        ----------
        kept : (...) int

        Returns
        -------
        Reduction

        Raises
        ------
        OrderError, ShapeError
            If a number is not an integer between 0 and n, the shape does not fit, or there are more
            modes outside than are to be kept; and the errors of the reductor.
        """
        counts = self._check_kept(kept).reshape(-1)
        pieces: list[_Piece] = []
        for part, inner in zip(self.parts, self.inner, strict=True):
            wanted = counts[part.channels] - part.fixed
            if np.any(wanted < 0):
                raise OrderError(
                    message(
                        "SplitReductor",
                        "there are more poles outside the boundary, which all stay, than the order",
                        expected=f"order >= {int(part.fixed[np.argmin(wanted)])}",
                        got=f"{int(counts[part.channels][np.argmin(wanted)])}",
                        cure="Raise the order, or move the boundary.",
                    )
                )
            wanted = np.minimum(wanted, inner.system.order)
            pieces.append(_Piece(part, inner.reduction(wanted)))
        return self._assembled(pieces)

    def _assembled(self, pieces: list[_Piece]) -> Reduction:
        """Return the channels of all pieces as one padded batch, in their places."""
        batch, n = self.system.batch_shape, self.system.order
        total = math.prod(batch)
        orders, masks = np.zeros(total, np.int64), np.ones((total, n), bool)
        conditions, converged = np.zeros(total), np.ones(total, bool)
        for piece in pieces:
            channels = piece.part.channels
            orders[channels] = piece.orders
            if piece.part.places is not None and piece.inner.kept is not None:
                masks[channels[:, None], piece.part.places] = piece.inner.kept
            if piece.inner.converged is not None:
                converged[channels] = piece.inner.converged
            for condition in (piece.inner.condition, piece.part.condition):
                if condition is not None:
                    conditions[channels] = np.maximum(conditions[channels], condition)
        inner = [piece.inner for piece in pieces]
        chosen = inner[self.inner.index(self._largest)]
        stored = [(piece.part.channels, piece.system) for piece in pieces]
        return Reduction(
            full=self.system,
            system=_together(stored, batch),
            orders=orders.reshape(batch),
            method=f"split, {chosen.method}",
            claim=self._claim(inner, chosen.claim),
            hankel=self._hankel(inner),
            kept=None if chosen.kept is None else masks.reshape(*batch, n),
            condition=conditions.reshape(batch) if conditions.any() else None,
            compared=_compared(pieces, batch),
            converged=None if chosen.converged is None else converged.reshape(batch),
        )

    def _claim(self, inner: list[Reduction], chosen: ErrorBound | None) -> ErrorBound | None:
        if chosen is None:
            return None
        batch = self.system.batch_shape
        values, references = np.zeros((2, math.prod(batch)))
        for part, one in zip(self.parts, inner, strict=True):
            if one.claim is not None:
                values[part.channels] = one.claim.value
                references[part.channels] = one.claim.reference
        exact = all(one.claim is None or one.claim.exact for one in inner)
        arrays = (values.reshape(batch), references.reshape(batch))
        return ErrorBound(*arrays, chosen.norm, chosen.theorem, exact)

    def _hankel(self, inner: list[Reduction]) -> np.ndarray | None:
        known = [one.hankel for one in inner if one.hankel is not None]
        if not known:
            return None
        batch = self.system.batch_shape
        width = max(values.shape[-1] for values in known)
        hankel = np.zeros((math.prod(batch), width))
        for part, one in zip(self.parts, inner, strict=True):
            if one.hankel is not None:
                hankel[part.channels, : one.hankel.shape[-1]] = one.hankel
        return hankel.reshape(*batch, width)


class _Piece:
    """Channels with their part inside reduced, and put together again."""

    def __init__(self, part: Part, inner: Reduction) -> None:
        self.part, self.inner = part, inner
        outside = _in_kind(part.outside, inner.system)
        more = outside.order // max(part.outside.order, 1)  # a half spectrum that is written out
        modes = np.stack([inner.orders, more * part.kept], axis=-1)
        joined = _joined(inner.system, outside, modes)
        self.orders = modes.sum(axis=-1)
        self.system = joined
        whole = inner.orders == _in_kind(inner.full, inner.system).order
        if whole.any() and isinstance(joined, (type(part.full), DenseSystem)):
            # nothing went: untouched
            untouched = _in_kind(part.full, inner.system)
            left, same = np.flatnonzero(~whole), np.flatnonzero(whole)
            both = [(left, taken(joined, left)), (same, taken(untouched, same))]
            self.orders[same] = untouched.order
            self.system = _together([pair for pair in both if pair[0].size], (whole.size,))


def _compared(
    pieces: list[_Piece], batch: tuple[int, ...]
) -> tuple[LinearSystem, LinearSystem] | None:
    """Return the parts inside of channels that are unstable outside, and other channels whole."""
    before: list[tuple[np.ndarray, LinearSystem]] = []
    after: list[tuple[np.ndarray, LinearSystem]] = []
    unstable_channels = 0
    for piece in pieces:
        part, inner = piece.part, piece.inner
        unstable = ~np.all(stability_margins(part.outside) > 0, axis=-1)
        unstable_channels += int(unstable.sum())
        for mask, full, reduced in (
            (unstable, part.inside, inner.system),
            (~unstable, part.full, piece.system),
        ):
            which = np.flatnonzero(mask)
            if which.size:
                before.append((part.channels[which], taken(full, which)))
                after.append((part.channels[which], taken(reduced, which)))
    if not unstable_channels:
        return None
    return _together(before, batch), _together(after, batch)


def _shortened(system: LinearSystem, order: int) -> LinearSystem:
    """Return the first states alone, without D."""
    return _padded(system, order).replace(D=np.zeros_like(system.D))


def _in_kind(system: LinearSystem, like: LinearSystem) -> LinearSystem:
    """Return a system as dense as another one, real where it can be."""
    if isinstance(like, DiagonalSystem):
        return system
    return system.realified() if system.is_real else system.to_dense()


def _joined(one: LinearSystem, two: LinearSystem, modes: np.ndarray) -> LinearSystem:
    """Return the sum of two flat batches of a kind, their used modes (H, 2) in front."""
    n, extra = one.order, two.order
    used = np.concatenate(
        [np.arange(k) < modes[:, i : i + 1] for i, k in enumerate((n, extra))], -1
    )
    width = int(modes.sum(axis=-1).max(initial=0))
    places = np.argsort(~used, axis=-1, kind="stable")[:, :width]
    filled = np.take_along_axis(used, places, axis=-1)
    B = np.concatenate([one.B, two.B], axis=-2)
    C = np.concatenate([one.C, two.C], axis=-1)
    rest = 0.0 if one.is_discrete else -1.0
    arrays = {
        "B": np.take_along_axis(B, places[..., None], axis=-2) * filled[..., None],
        "C": np.take_along_axis(C, places[..., None, :], axis=-1) * filled[..., None, :],
        "D": one.D + two.D,
    }
    if isinstance(one, DiagonalSystem) and isinstance(two, DiagonalSystem):
        poles = np.take_along_axis(np.concatenate([one.poles, two.poles], -1), places, axis=-1)
        return one.replace(poles=np.where(filled, poles, rest), **arrays)
    one, two = (of_kind(part, DenseSystem, "SplitReductor") for part in (one, two))
    A = np.zeros((len(B), n + extra, n + extra), np.result_type(one.A, two.A))
    A[:, :n, :n], A[:, n:, n:] = one.A, two.A
    A = np.take_along_axis(A, places[:, :, None], axis=1)
    A = np.take_along_axis(A, places[:, None, :], axis=2) * filled[:, None, :]
    A += np.where(filled, 0.0, rest)[:, None, :] * np.eye(width)
    return one.replace(A=A, **arrays)


def _together(
    pieces: list[tuple[np.ndarray, LinearSystem]], batch: tuple[int, ...]
) -> LinearSystem:
    """Return flat batches as one, padded, every channel in its place."""
    places = np.argsort(np.concatenate([channels for channels, _ in pieces]))
    width = max(system.order for _, system in pieces)
    padded = [_padded(system, width) for _, system in pieces]
    names = ("poles" if isinstance(padded[0], DiagonalSystem) else "A", "B", "C", "D")
    arrays = {k: np.concatenate([getattr(one, k) for one in padded])[places] for k in names}
    return padded[0].replace(**{k: a.reshape(*batch, *a.shape[1:]) for k, a in arrays.items()})
