"""Time calls in alternation, and set the number of threads for as long as that takes."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numba
import torch

__all__ = ["timed", "using_threads"]

_BLOCK_SECONDS = 2e-3
"""Length that blocks of short calls aim at: far above the grain of the clock."""

_WARM_UP_CALLS = 3
"""Calls before timing: compiles kernels, fills the kernel caches and the allocator's pools."""

_SHORT_SECONDS = 50e-3
"""Calls below this are called once more, untimed, before each block: whatever else alternates has
taken the processor's caches. Longer ones do not notice."""


def timed(calls: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Return the seconds per call of several functions that are called in alternation.

    Parameters
    ----------
    calls : mapping of functions without arguments
    repeats : int
        Rounds; every round runs a block of each function once, in an order drawn afresh, so that a
        change of the machine's clock or load meets all of them alike. A block repeats a short call
        for about 2 ms.

    Returns
    -------
    dict of lists
        Per name one value per round, s.
    """
    clock = time.perf_counter
    lengths, short = {}, set()
    for name, call in calls.items():
        for _ in range(_WARM_UP_CALLS):
            call()
        start = clock()
        call()
        seconds = max(clock() - start, 1e-7)
        lengths[name] = max(1, math.ceil(_BLOCK_SECONDS / seconds))
        if seconds < _SHORT_SECONDS:
            short.add(name)
    samples: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    shuffle = random.Random(0).shuffle
    for _ in range(repeats):
        shuffle(names)  # a fixed order can fall into step with the scheduler's time slices
        for name in names:
            call = calls[name]
            if name in short:
                call()
            start = clock()
            for _ in range(lengths[name]):
                call()
            samples[name].append((clock() - start) / lengths[name])
    return samples


@contextmanager
def using_threads(wanted: int | None) -> Iterator[int]:
    """Let torch, and Numba as far as it has them, use so many threads; then as before.

    Parameters
    ----------
    wanted : int, optional
        None leaves the setting as it is.

    Yields
    ------
    int
        Threads that torch uses.
    """
    before, numba_before = torch.get_num_threads(), numba.get_num_threads()
    try:
        if wanted is not None:
            torch.set_num_threads(wanted)
            most: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
            numba.set_num_threads(min(wanted, most))
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
        numba.set_num_threads(numba_before)
