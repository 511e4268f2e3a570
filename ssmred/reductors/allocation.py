"""Allocation: which channels of which layers pay for a removal.

Theory: ``theory/nested-pythagoras.md``, section on many channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ssmred.checks import check_finite, check_integer, check_positive
from ssmred.errors import DataError, OrderError, ShapeError, message
from ssmred.kernels.elimination import fill_hull_slopes
from ssmred.reductors.path import ReductionPath

__all__ = ["allocate", "removal_curve"]

LAST = 1e300
"""Cost that no error has: what stays is dearer than anything else."""


def allocate(
    paths: Sequence[ReductionPath],
    weights: Sequence[npt.ArrayLike],
    *,
    states: int | None = None,
    threshold: float | None = None,
    budget: float | None = None,
) -> list[np.ndarray]:
    """Divide removals among channels, cheapest increase of the weighted squared error first.

    Minimises ``sum_c w_c errors_c[k_c]**2`` over the numbers of removals, with the curves of the
    channels replaced by their lower convex hulls.

    Parameters
    ----------
    paths : sequence of ReductionPath
        One per layer.
    weights : sequence of (H,) float64
        Weight of the squared error of each channel, >= 0.
    states : int, optional
        Keep at most so many real states, over all layers.
    threshold : float, optional
        Remove while one more state costs at most this increase.
    budget : float, optional
        Remove while the total increase is at most this.

    Returns
    -------
    list of (H,) int64
        Modes to keep, for ``path.reduction``.

    Raises
    ------
    OrderError
        If not exactly one of states, threshold and budget is given, or states is not usable.
    DataError, ShapeError
        If weights are negative, not finite or of the wrong shape, or a limit is not usable.

    Notes
    -----
    Optimal for the numbers of states that end at corners of the hulls (Shoham and Gersho 1988).
    Cost O(N log N) for N modes. Theory: ``theory/nested-pythagoras.md``.
    """
    where = "allocate"
    if sum(limit is not None for limit in (states, threshold, budget)) != 1:
        raise OrderError(message(where, "pass exactly one of states, threshold and budget"))
    slopes, sizes, owner, increase = _merged(paths, weights, where)
    if states is not None:
        kept = check_integer(states, "states", where)
        excess = int(sum(_states(path) for path in paths)) - kept
        count = int(np.searchsorted(np.cumsum(sizes), excess, side="left")) + 1 if excess > 0 else 0
        count = min(count, sizes.size)
    elif threshold is not None:
        limit = check_positive(threshold, "threshold", where, allow_zero=True, allow_inf=True)
        count = int(np.searchsorted(slopes, limit, side="right"))
    else:
        limit = check_positive(budget, "budget", where, allow_zero=True, allow_inf=True)
        count = int(np.searchsorted(np.cumsum(increase), limit, side="right"))
    channels = [path.norms.size for path in paths]
    removed = np.bincount(owner[:count], minlength=sum(channels))
    parts = np.split(removed, np.cumsum(channels)[:-1])
    return [
        path.system.order - part.reshape(path.norms.shape)
        for path, part in zip(paths, parts, strict=True)
    ]


def removal_curve(
    paths: Sequence[ReductionPath], weights: Sequence[npt.ArrayLike]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the weighted squared error against the number of states removed.

    Parameters
    ----------
    paths, weights
        As in :func:`allocate`.

    Returns
    -------
    states : (N + 1,) int64
        Real states removed, from 0 to all.
    error : (N + 1,) float64
        ``sum_c w_c errors_c[k_c]**2`` when they go in the order of :func:`allocate`; inf where
        modes would have to go that cannot.
    """
    _, sizes, _, increase = _merged(paths, weights, "removal_curve")
    start = sum(
        float(np.sum(np.asarray(w) * path.errors[..., 0] ** 2))
        for path, w in zip(paths, weights, strict=True)
    )
    states = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return states, start + np.concatenate([[0.0], np.cumsum(increase)])


def _states(path: ReductionPath) -> int:
    return path.norms.size * path.system.order * path.states_per_mode


def _merged(
    paths: Sequence[ReductionPath], weights: Sequence[npt.ArrayLike], where: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return slope per state, states, channel and true increase of every removal, in order."""
    if not paths or len(paths) != len(weights):
        raise ShapeError(
            message(
                where,
                "paths and weights do not match",
                expected="one weight array per path, at least one path",
                got=f"{len(paths)} paths, {len(weights)} weight arrays",
            )
        )
    parts = []
    offset = 0
    for path, given in zip(paths, weights, strict=True):
        weight = check_finite(np.asarray(given, dtype=float), "weights", where)
        if weight.shape != path.norms.shape:
            raise ShapeError(
                message(
                    where,
                    "weights have the wrong shape",
                    expected=f"{path.norms.shape}",
                    got=f"{weight.shape}",
                )
            )
        if np.any(weight < 0):
            raise DataError(message(where, "a weight is negative", got=f"{weight.min():.3g}"))
        channels, n = weight.size, path.system.order
        errors = path.errors.reshape(channels, n + 1)
        stays = np.isinf(errors)  # modes that cannot go, at the end of their channel
        costs = weight.reshape(-1, 1) * np.where(stays, 0, errors) ** 2
        costs[stays] = np.broadcast_to(LAST * np.arange(1, n + 2), stays.shape)[stays]
        slopes = np.empty((channels, n))
        fill_hull_slopes(costs, slopes)
        slopes[stays[:, 1:]] = np.inf
        increase = np.where(stays[:, 1:], np.inf, np.diff(costs, axis=-1))
        owner = np.repeat(np.arange(offset, offset + channels), n)
        sizes = np.full(channels * n, path.states_per_mode)
        parts.append((slopes.ravel() / path.states_per_mode, sizes, owner, increase.ravel()))
        offset += channels
    slopes, sizes, owner, increase = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(slopes, kind="stable")
    return slopes[order], sizes[order], owner[order], increase[order]
