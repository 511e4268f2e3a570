"""Count the bytes of a network: its parameters, and the peak of one forward pass."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

__all__ = ["parameter_bytes", "peak_bytes", "peak_forward_bytes"]

_MEMORY_EVENT = "[memory]"


def parameter_bytes(model: nn.Module) -> int:
    """Return the bytes of all parameters and buffers, shared storages counted once.

    Examples
    --------
    >>> parameter_bytes(nn.Linear(3, 2))  # 8 float32 numbers
    32
    """
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for tensor in chain(model.parameters(), model.buffers())
        if tensor.numel()
    }
    return sum(storages.values())


def peak_bytes(call: Callable[[], Any]) -> int:
    """Return the highest sum of live blocks of torch's CPU allocator during a call.

    Parameters
    ----------
    call : callable
        Called once. What it returns stays alive to the end, so it is counted.

    Returns
    -------
    int
        Bytes above what was allocated when the call began.

    Notes
    -----
    Read from the memory events of torch's profiler: exact for every block that goes through the
    allocator, temporaries inside an operation included; blind to memory that libraries take
    elsewhere.
    """
    with _quiet_profiler():
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
            result = call()
        del result
    events: list[Any] = record.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = [(e.start_ns(), e.nbytes()) for e in events if e.name() == _MEMORY_EVENT]
    changes.sort(key=lambda change: change[0])  # stable: simultaneous events keep their order
    live = peak = 0
    for _, change in changes:
        live += change
        peak = max(peak, live)
    return peak


def peak_forward_bytes(model: nn.Module, inputs: torch.Tensor) -> tuple[int, int]:
    """Return the peak of the first forward pass (empty caches) and of a later one, in bytes."""
    with torch.no_grad():
        model(inputs)  # one-time set-up of the libraries is not the model's
        model.train().eval()  # a change of mode empties the kernel caches
        return peak_bytes(lambda: model(inputs)), peak_bytes(lambda: model(inputs))


@contextmanager
def _quiet_profiler() -> Iterator[None]:
    # The profiler's native library logs to the standard error stream unless told not to.
    name = "KINETO_LOG_LEVEL"
    before = os.environ.get(name)
    os.environ.setdefault(name, "99")
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
