"""Find the boldest cut whose measured error stays below a limit."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

CutT = TypeVar("CutT")

HOPELESS = 1e6
"""Error over limit from which on halving the cut is given up."""


@dataclass(frozen=True, eq=False)
class Trial(Generic[CutT]):
    """Hold one cut that was tried.

    Attributes
    ----------
    states : int
        States it was allowed to keep.
    cut : object
        What was built.
    error : float
        Its measured error, in the unit of the limit.
    """

    states: int
    cut: CutT
    error: float


def boldest(
    build: Callable[[int], CutT],
    measure: Callable[[CutT], float],
    *,
    full: int,
    limit: float,
    rounds: int,
    resolution: float = 0.005,
) -> list[Trial[CutT]]:
    """Search the number of states for the smallest cut with ``error <= limit``.

    The logarithm of the error falls roughly linearly with the states kept, so bracketing by
    regula falsi on it needs few rounds; every step stays a tenth away from both ends. Where an
    error is out of all proportion the most cautious cut is asked next: if even that is not
    admissible nothing is.

    Parameters
    ----------
    build : callable
        Makes the cut that keeps at most so many states.
    measure : callable
        Returns its error.
    full : int
        States of the full network; keeping all is always admissible.
    limit : float
        Largest error allowed.
    rounds : int
        Number of cuts to try.
    resolution : float
        Stop once the bracket is this share of `full`.

    Returns
    -------
    list of Trial
        All cuts tried, most states first.
    """
    trials: list[Trial[CutT]] = []
    bold, bold_error = 0, math.inf
    cautious, cautious_error = full, 0.0
    smallest_cut = full - max(2, round(resolution * full))
    for _ in range(rounds):
        width = cautious - bold
        if width <= max(2, resolution * full):
            break
        position = 0.5
        if cautious == full and HOPELESS * limit < bold_error < math.inf and bold < smallest_cut:
            position = (smallest_cut - bold) / width
        elif 0.0 < cautious_error <= limit < bold_error < math.inf:
            rise = math.log(bold_error / cautious_error)
            position = min(max(math.log(bold_error / limit) / rise, 0.1), 0.9)
        states = bold + round(position * width)
        cut = build(states)
        error = measure(cut)
        trials.append(Trial(states, cut, error))
        if error <= limit:
            cautious, cautious_error = states, error
        else:
            bold, bold_error = states, error
    return sorted(trials, key=lambda trial: -trial.states)
