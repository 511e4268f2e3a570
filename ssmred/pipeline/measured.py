"""What every order of a method costs in the h2 norm, and the best read-out for moved poles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from ssmred.errors import AccuracyError
from ssmred.gramians.square_root import SquareRoot, basis_coefficients, basis_square_root
from ssmred.norms import h2_error, h2_norm
from ssmred.reductors import Reduction, ReductionPath, SubsetPath
from ssmred.systems import DiagonalSystem
from ssmred.systems.linear import of_kind
from ssmred.systems.stability import stability_margins

__all__ = ["MeasuredPath", "h2_root", "measured", "united", "usable", "with_read_out"]


@dataclass(frozen=True, eq=False)
class MeasuredPath(ReductionPath):
    """Hold the h2 error that a method leaves at every order, evaluated, not bounded.

    Bounds differ from method to method in norm and in looseness; the h2 error compares all methods,
    and all channels, in the unit that is divided among them. Where a smaller order has the smaller
    error, or an order cannot be had, the smaller order is taken.

    Attributes
    ----------
    system : DiagonalSystem
        The full system (H,).
    errors : (H, n + 1) float64
        Error once k modes are gone. Never decreases.
    norms : (H,) float64
        The h2 norm of the full system.
    metric : str
        ``"h2"`` or ``"h2, horizon T"``.
    orders : (H, n + 1) int64
        Order that serves where at most k modes may stay.
    source : ReductionPath
        Makes the reductions.
    """

    system: DiagonalSystem
    errors: np.ndarray
    norms: np.ndarray
    metric: str
    orders: np.ndarray
    source: ReductionPath = field(repr=False)

    def reduction(self, kept: npt.ArrayLike) -> Reduction:
        """Return the system that keeps at most so many modes of each channel.

        Parameters
        ----------
        kept : (H,) int

        Returns
        -------
        Reduction
        """
        counts = self._check_kept(kept)
        return self.source.reduction(np.take_along_axis(self.orders, counts[:, None], -1)[:, 0])


def measured(
    source: ReductionPath, horizon: int | None, advance: Callable[[int], None] = lambda _: None
) -> MeasuredPath:
    """Reduce every channel to every order and return the h2 errors.

    An order counts as not available, for a channel, if its result cannot be written with
    well-conditioned modes, is unstable though the channel is stable, or overflows.

    Parameters
    ----------
    source : ReductionPath
        Of a diagonal system with batch shape (H,).
    horizon : int or None
        Samples over which responses are compared.
    advance : callable, optional
        Called with 1 after every order.
    """
    system = of_kind(source.system, DiagonalSystem, "measured")
    channels, n = system.poles.shape
    found = np.full((channels, n + 1), np.inf)
    found[:, n] = 0.0
    for order in range(n):
        _measure(source, horizon, order, found[:, order])
        advance(1)
    # the first of the smallest errors among the orders up to k
    least = np.minimum.accumulate(found, axis=-1)
    fresh = np.concatenate([np.ones((channels, 1), bool), found[:, 1:] < least[:, :-1]], axis=-1)
    orders = np.maximum.accumulate(np.where(fresh, np.arange(n + 1), 0), axis=-1)
    return MeasuredPath(
        system,
        least[:, ::-1].copy(),
        np.asarray(h2_norm(system, horizon=horizon)),
        "h2" if horizon is None else f"h2, horizon {horizon}",
        orders,
        source,
    )


def usable(source: ReductionPath, kept: np.ndarray) -> Reduction:
    """Return the reduction to the largest available orders up to those given, (H,)."""
    system = source.system
    counts = np.asarray(kept).copy()
    while True:
        failed = np.zeros(counts.shape, bool)
        try:
            reduction = source.reduction(counts)
            failed |= ~_keeps_stability(system, reduction.system)
        except AccuracyError:
            _find_failures(source, counts, np.arange(len(counts)), failed)
        if not failed.any():
            return reduction
        counts = counts - failed


def _find_failures(
    source: ReductionPath, counts: np.ndarray, which: np.ndarray, failed: np.ndarray
) -> None:
    """Mark the channels, among some, that cannot be reduced to their orders; by halves."""
    tried = np.full_like(counts, source.system.order)
    tried[which] = counts[which]
    try:
        source.reduction(tried)
    except AccuracyError:
        if which.size == 1:
            failed[which] = True
            return
        for part in np.array_split(which, 2):
            _find_failures(source, counts, part, failed)


def _keeps_stability(full: DiagonalSystem, reduced: DiagonalSystem) -> np.ndarray:
    """Tell which channels (H,) are stable, or were not before."""
    before, after = ((stability_margins(part) > 0).all(axis=-1) for part in (full, reduced))
    return np.asarray(after | ~before)


def _measure(source: ReductionPath, horizon: int | None, order: int, out: np.ndarray) -> None:
    """Fill the errors (H,) at one order, inf where it is not available."""
    system = source.system
    counts = np.full(len(out), order)
    failed = np.zeros(len(out), bool)
    try:
        reduced = source.reduction(counts).system
    except AccuracyError:
        _find_failures(source, counts, np.arange(len(out)), failed)
        reduced = source.reduction(np.where(failed, system.order, counts)).system
    had = np.flatnonzero(_keeps_stability(system, reduced) & ~failed)
    if had.size:
        with np.errstate(over="ignore", invalid="ignore"):
            errors = np.asarray(
                h2_error(_taken(system, had), _taken(reduced, had), horizon=horizon)
            )
        out[had] = np.where(np.isfinite(errors), errors, np.inf)


def _taken(system: DiagonalSystem, channels: np.ndarray) -> DiagonalSystem:
    names = ("poles", "B", "C", "D")
    return system.replace(**{name: getattr(system, name)[channels] for name in names})


def united(reduction: Reduction) -> DiagonalSystem:
    """Return the full system with the modes of the reduced one beside its own, at rest.

    Their B is that of the reduced system, their C is 0: the response is the full one's, and any
    read-out of the moved modes is a read-out of some modes of this system.
    """
    full, moved = (
        of_kind(part, DiagonalSystem, "united") for part in (reduction.full, reduction.system)
    )
    return full.replace(
        poles=np.concatenate([full.poles, moved.poles], axis=-1),
        B=np.concatenate([full.B, moved.B], axis=-2),
        C=np.concatenate([full.C, np.zeros_like(moved.C)], axis=-1),
    )


def h2_root(system: DiagonalSystem, horizon: int | None) -> SquareRoot:
    """Return the least-squares problems of real read-outs of a system (H,) in the h2 norm."""
    factor = np.ascontiguousarray(basis_square_root(system, horizon=horizon))
    theta = basis_coefficients(system).reshape(len(factor), -1, system.outputs)
    norms = np.linalg.norm((factor @ theta).reshape(len(factor), -1), axis=-1)
    return SquareRoot(factor, system.inputs, np.zeros_like(theta), np.zeros(len(factor)), norms)


def with_read_out(reduction: Reduction, root: SquareRoot, metric: str) -> Reduction:
    """Return a reduction whose C and D are the best ones for its poles and B.

    Channels that kept all their modes stay as they are.

    Parameters
    ----------
    reduction : Reduction
        Of a diagonal system (H,) with real outputs.
    root : SquareRoot
        The metric, for :func:`united` of the reduction.
    metric : str
        Its name.

    Notes
    -----
    The least-squares problem is that of keeping a subset of the modes of the united system: the
    moved ones. Theory: ``theory/optimal-readout.md``.
    """
    union = united(reduction)
    moved, orders = (
        of_kind(reduction.system, DiagonalSystem, "with_read_out"),
        np.asarray(reduction.orders),
    )
    n, width = reduction.full.order, moved.order
    stays = np.concatenate(
        [np.zeros((len(orders), n), bool), np.arange(width) < orders[:, None]], axis=-1
    )
    removal = np.argsort(stays, axis=-1, kind="stable")
    path = SubsetPath(union, removal, np.zeros(stays.shape), root.norms, metric, root)
    fitted = path.reduction(orders)
    whole = orders == n
    system = moved.replace(
        C=np.where(whole[:, None, None], moved.C, fitted.system.C[..., :width]),
        D=np.where(whole[:, None, None], moved.D, fitted.system.D),
    )
    claim = fitted.claim
    if claim is not None:
        claim = replace(claim, value=np.where(whole, 0.0, claim.value))
    return replace(reduction, system=system, claim=claim)
