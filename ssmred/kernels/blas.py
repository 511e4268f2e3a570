"""One BLAS thread for small matrices.

After a parallel kernel Numba's threads wait awake for the next one, on the cores that the threads
of BLAS and LAPACK then compete for: a Schur form of order 100 takes ten times as long as with one
thread, which is all that it needs.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import ParamSpec, TypeVar

from threadpoolctl import ThreadpoolController

__all__ = ["blas_threads", "with_blas_threads"]

SMALL = 256  # from this order on, threads of BLAS are worth more than they cost

P = ParamSpec("P")
R = TypeVar("R")


@functools.cache
def _controller() -> ThreadpoolController:
    import scipy.linalg  # noqa: F401  its BLAS must be loaded to be found

    return ThreadpoolController()


class _OneThread:
    """Limit BLAS while anybody is inside; the last to leave, in any thread, lifts the limit."""

    def __init__(self) -> None:
        self._lock, self._inside, self._limiter = threading.Lock(), 0, None

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._limiter = _controller().limit(limits=1, user_api="blas")
            self._inside += 1

    def __exit__(self, *_error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._limiter.restore_original_limits()


_ONE = _OneThread()


def blas_threads(order: int) -> AbstractContextManager:
    """Return a context with one BLAS thread for matrices of a small order, else without effect."""
    return nullcontext() if order >= SMALL else _ONE


def with_blas_threads(function: Callable[P, R]) -> Callable[P, R]:
    """Run a function with BLAS threads by the last axis, or the order, of its first argument."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        first = args[0]
        order = first.shape[-1] if hasattr(first, "shape") else first.order  # type: ignore
        with blas_threads(order):
            return function(*args, **kwargs)

    return run
