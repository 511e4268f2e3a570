"""How stable, how slow and how redundant a filter is: the answers of an inspection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ssmred.errors import AccuracyError, ShapeError, UnstableSystemError, message
from ssmred.gramians import hankel_singular_values
from ssmred.systems.linear import LinearSystem
from ssmred.systems.stability import stability_margins

__all__ = ["LEVELS", "THEOREM", "Answers", "answers_of", "needed_orders"]

LEVELS = (1e-3, 1e-6)
"""Errors relative to a channel's largest Hankel singular value at which states are spare."""

THEOREM = "theory/balanced-truncation.md, statement 3"
"""Why ``2 (sigma_{r+1} + ... + sigma_n)`` bounds the error of order r in the H-infinity norm."""


@dataclass(frozen=True, eq=False)
class Answers:
    """Hold what is computed of one filter.

    Attributes
    ----------
    margin : float or None
        ``1 - max |pole|`` over all channels; negative where it is unstable. None without states.
    slowest, median, fastest : float or None
        Time constants ``-1 / log |pole|`` of its modes, in steps.
    spare : dict of float to int, or None
        States that balanced truncation can leave out of all channels together, by level.
    hankel : (H, n) float64, or None
        Hankel singular values of every channel, falling: those of ``C (z I - A)^-1 B``, in either
        recurrence.
    problem : str
        Why there are no Hankel singular values.
    """

    margin: float | None
    slowest: float | None
    median: float | None
    fastest: float | None
    spare: dict[float, int] | None
    hankel: np.ndarray | None
    problem: str = ""


def answers_of(
    system: LinearSystem, states: np.ndarray, levels: Sequence[float] = LEVELS
) -> Answers:
    """Return what an inspection says about a filter.

    Parameters
    ----------
    system : DiagonalSystem or DenseSystem
        Batch shape (H,), discrete.
    states : (H,) int
        Real states of every channel; the others are padding, with poles 0.
    levels : sequence of float

    Notes
    -----
    Level FLOAT: poles of dense systems are computed eigenvalues. A channel whose response is 0
    needs no state at all.
    """
    margins = np.sort(stability_margins(system), axis=-1).reshape(len(states), -1)
    per_pole = 2 if system.real_output else 1
    alive = np.arange(margins.shape[-1]) < -(-states[:, None] // per_pole)
    squared = margins[alive]  # 1 - |l|^2, the slowest first: padding is fastest
    if not squared.size:
        return Answers(None, None, None, None, dict.fromkeys(levels, 0), np.zeros((len(states), 0)))
    with np.errstate(divide="ignore"):
        times = np.where(squared > 0, -2.0 / np.log1p(-np.clip(squared, 0.0, 1.0)), np.inf)
    worst = float(squared.min())
    margin = worst / (1.0 + np.sqrt(1.0 - worst))
    ordered = np.sort(times)
    summary = [float(ordered[-1]), float(ordered[ordered.size // 2]), float(ordered[0])]
    try:
        # of C (z - A)^-1 B: balanced truncation keeps the recurrence, and the bound has these
        values = hankel_singular_values(system.replace(recurrence="standard"))
        values = values.reshape(len(states), -1)
    except (UnstableSystemError, AccuracyError) as error:
        return Answers(margin, *summary, None, None, str(error))
    spare = {
        level: int((states - np.minimum(needed_orders(values, level), states)).sum())
        for level in levels
    }
    return Answers(margin, *summary, spare, values)


def needed_orders(values: np.ndarray, level: float) -> np.ndarray:
    """Return the smallest orders whose bound is within a level of the largest value.

    Theory: ``theory/balanced-truncation.md``, statement 3.

    ``min {r : 2 (sigma_{r+1} + ... + sigma_n) <= level sigma_1}``.

    Parameters
    ----------
    values : (H, n) float64
        Hankel singular values, falling.
    level : float

    Returns
    -------
    (H,) int64
        0 where all values are 0.

    Raises
    ------
    ShapeError
        If the values are no table.

    Examples
    --------
    >>> needed_orders(np.array([[1.0, 0.1, 4e-4, 1e-5], [0.0, 0.0, 0.0, 0.0]]), 1e-3).tolist()
    [2, 0]
    """
    if values.ndim != 2:
        raise ShapeError(message("needed_orders", "no table", expected="(H, n)", got=values.shape))
    tails = np.cumsum(values[:, ::-1], axis=1)[:, ::-1]  # smallest first
    largest = values[:, :1] if values.shape[1] else np.zeros((len(values), 1))
    return (2.0 * tails > level * largest).sum(axis=1)
