"""How many operators each layer loses at a rate: as in S4oP, evenly, by cost, by cost per time."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from ssmred.checks import check_choice
from ssmred.errors import RequestError, message

__all__ = ["ALLOCATIONS", "check_rates", "exponential", "removals_by_layer", "uniform"]

ALLOCATIONS = ("exponential", "uniform", "global", "latency")


def check_rates(rates: tuple[float, ...] | list[float]) -> tuple[float, ...]:
    """Return rates of removal or raise RequestError: rising, between 0 and 1.

    Examples
    --------
    >>> check_rates([0.1, 0.5])
    (0.1, 0.5)
    """
    values = tuple(float(rate) for rate in rates)
    inside = all(0.0 < rate < 1.0 for rate in values)
    if not values or not inside or any(b <= a for a, b in pairwise(values)):
        raise RequestError(
            message(
                "prune",
                "the rates cannot be used",
                expected="rising shares between 0 and 1, both excluded, of all operators",
                got=f"{rates!r}",
                cure="Pass for example rates=(0.1, 0.3, 0.5, 0.7, 0.9).",
            )
        )
    return values


def exponential(rate: float, channels: tuple[int, ...]) -> tuple[int, ...]:
    """Return how many operators S4oP removes from every layer, in total at this rate.

    Layer i weighs ``2^i``. The target ``round(rate * sum(H))`` is swept over the layers i >= 1 that
    are not full, rounding half to even, at most ``H - 1`` of each; what is left is swept again.
    Layer 0 comes when all others are full, and in a network of one layer, where S4oP removes
    nothing.

    Raises
    ------
    RequestError
        If more would go than leaves one operator in each layer.

    Notes
    -----
    Source: arXiv 2606.18096.

    Examples
    --------
    >>> exponential(0.3, (128,) * 6)
    (0, 7, 15, 30, 59, 119)
    """
    target = round(rate * sum(channels))
    room = [count - 1 for count in channels]
    if target > sum(room):
        raise RequestError(
            message(
                "prune",
                f"rate {rate:g} would empty a layer",
                expected=f"at most {sum(room)} of {sum(channels)} operators removed: S4oP leaves "
                "one in every layer",
                got=f"{target}",
                cure='Lower the rate, or let whole layers go with allocation="global".',
            )
        )
    gone, rest = [0] * len(channels), target
    while rest:
        open_layers = [i for i in range(1, len(channels)) if gone[i] < room[i]] or [0]
        total = sum(2**i for i in open_layers)
        shares = {i: round(rest * 2**i / total) for i in open_layers}  # rounds half to even
        moved = 0
        for i in open_layers:
            take = min(shares[i], room[i] - gone[i], rest - moved)
            gone[i] += take
            moved += take
        if not moved:  # every share rounds to nothing
            gone[open_layers[-1]] += 1
            moved = 1
        rest -= moved
    return tuple(gone)


def uniform(rate: float, channels: tuple[int, ...]) -> tuple[int, ...]:
    """Return equal shares of every layer, by largest remainders; the total is that of the rate.

    Examples
    --------
    >>> uniform(0.5, (3, 4))
    (2, 2)
    """
    target = round(rate * sum(channels))
    exact = [rate * count for count in channels]
    gone = [int(share) for share in exact]
    order = sorted(range(len(channels)), key=lambda i: gone[i] - exact[i])
    for i in order[: target - sum(gone)]:
        gone[i] += 1
    return tuple(gone)


def removals_by_layer(
    allocation: str,
    rate: float,
    scores: Mapping[str, np.ndarray],
    live: Mapping[str, list[int]],
    *,
    seconds: Mapping[str, float] | None = None,
) -> dict[str, list[int]]:
    """Return the operators to remove now so that a share of all is gone: cheapest first.

    Parameters
    ----------
    allocation : {"exponential", "uniform", "global", "latency"}
        Fixed numbers per layer, or one queue of all operators: by cost, or cost per second saved.
    rate : float
        Share of all operators that are gone afterwards.
    scores : mapping of str to (H,) float
        What the removal of every operator costs, by layer in execution order.
    live : mapping of str to list of int
        Operators that there are; the others are gone already and stay so.
    seconds : mapping of str to float, optional
        For "latency": what the removal of one operator of a layer saves.

    Returns
    -------
    dict of str to list of int
        By layer, rising. A layer that has lost more than its share already keeps the rest, so that
        fewer may go than the rate says.
    """
    check_choice(allocation, ALLOCATIONS, "allocation", "prune")
    names = list(scores)
    channels = tuple(len(scores[name]) for name in names)
    if allocation in ("exponential", "uniform"):
        wanted = (exponential if allocation == "exponential" else uniform)(rate, channels)
        answer = {}
        for name, total in zip(names, wanted, strict=True):
            more = total - (len(scores[name]) - len(live[name]))
            order = sorted(live[name], key=lambda channel, name=name: scores[name][channel])
            answer[name] = sorted(order[: max(more, 0)])
        return answer
    worth = {name: 1.0 for name in names}
    if allocation == "latency":
        worth = {name: max(float((seconds or {})[name]), 1e-12) for name in names}
    queue = sorted(
        (float(scores[name][channel]) / worth[name], place, channel)
        for place, name in enumerate(names)
        for channel in live[name]
    )
    more = round(rate * sum(channels)) - (sum(channels) - len(queue))
    answer = {name: [] for name in names}
    for _, place, channel in queue[: max(more, 0)]:
        answer[names[place]].append(channel)
    return {name: sorted(found) for name, found in answer.items()}
