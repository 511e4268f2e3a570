"""Run candidates beside each other, on this machine or on a cluster: joblib."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar, cast

import torch
from rich.console import Console
from rich.progress import track

from ssmred.checks import check_integer
from ssmred.errors import MissingDependencyError, SsmredError, message

__all__ = ["run_all"]

T = TypeVar("T")


def run_all(
    jobs: Sequence[Callable[[], T]], *, workers: int = 1, progress: bool = False
) -> list[T]:
    """Return what all jobs return, in their order.

    Parameters
    ----------
    jobs : sequence of callable
        Go to other processes as a whole.
    workers : int
        Jobs at a time, one thread each. With 1 they run here, one after the other, unless
        ``joblib.parallel_config`` names a back-end: with ``"dask"`` they run on its cluster.
    progress : bool

    Raises
    ------
    SsmredError
        Of the first job that fails, with its number.
    MissingDependencyError
        If joblib is needed and not installed.

    Examples
    --------
    >>> run_all([lambda: 1, lambda: 2])
    [1, 2]
    """
    workers = check_integer(workers, "workers", "run_all", low=1)
    shown = {"console": Console(stderr=True), "disable": not progress, "description": "candidates"}
    try:
        from joblib import Parallel, delayed, parallel_config  # noqa: F401
        from joblib.parallel import get_active_backend
    except ImportError as error:
        if workers > 1:
            raise MissingDependencyError(
                message("run_all", "joblib is not installed", cure="pip install 'ssmred[prune]'")
            ) from error
        return [_numbered(k, job) for k, job in enumerate(track(jobs, **shown))]
    elsewhere = type(get_active_backend()[0]).__name__ == "DaskDistributedBackend"
    if workers == 1 and not elsewhere:
        return [_numbered(k, job) for k, job in enumerate(track(jobs, **shown))]
    run = Parallel(n_jobs=-1 if elsewhere else workers, return_as="generator")
    answers = run(delayed(_alone)(k, job) for k, job in enumerate(jobs))
    return cast(list[T], list(track(answers, total=len(jobs), **shown)))


def _alone(number: int, job: Callable[[], T]) -> T:
    torch.set_num_threads(1)
    return _numbered(number, job)


def _numbered(number: int, job: Callable[[], T]) -> T:
    try:
        return job()
    except SsmredError as error:
        error.add_note(f"in candidate {number}")
        raise
