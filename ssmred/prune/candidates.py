"""Run several trainings side by side, on this machine or on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from threadpoolctl import threadpool_limits

from ssmred.checks import check_integer
from ssmred.errors import MissingDependencyError, RequestError, message
from ssmred.prune.progress import counted

__all__ = ["run_all"]

T = TypeVar("T")


def run_all(
    jobs: Sequence[Callable[[], T]],
    *,
    workers: int = 1,
    threads: int = 1,
    names: Sequence[str] | None = None,
    progress: bool | Callable[[int, int], None] = False,
) -> list[T]:
    """Return what every job returns, in the order of the jobs.

    Parameters
    ----------
    jobs : sequence of callable
        Without arguments; for several workers also lambdas and closures, as long as what they hold
        can be pickled.
    workers : int
        Processes of this machine; 1 runs the jobs here, one after another. A cluster, ``with
        joblib.parallel_config(backend="dask")``, has workers of its own and runs them all.
    threads : int
        Of every job, wherever it runs: results that depend on the number of threads do not depend
        on the number of workers.
    names : sequence of str, optional
        Of the jobs, for errors.
    progress : bool or callable
        A bar on stderr, or a function that takes the number of jobs done and of all jobs.

    Raises
    ------
    MissingDependencyError
        Without joblib, for several workers.
    Exception
        The first of a job, with the name of the job as a note; jobs that have not started do not.

    Notes
    -----
    Trainings share torch's generators with everything else in their process: on a cluster, give
    every worker process one thread (``threads_per_worker=1``).

    Examples
    --------
    >>> run_all([lambda: 1, lambda: 2])
    [1, 2]
    """
    check_integer(workers, "workers", "run_all", low=1)
    check_integer(threads, "threads", "run_all", low=1)
    labels = [f"candidate {k + 1} of {len(jobs)}" for k in range(len(jobs))]
    if names is not None:
        if len(names) != len(jobs):
            raise RequestError(
                message(
                    "run_all",
                    "names and jobs do not go together",
                    expected=f"{len(jobs)} names",
                    got=f"{len(names)}",
                )
            )
        labels = [f"{label} ({name})" for label, name in zip(labels, names, strict=True)]
    results = []
    with counted(progress, len(jobs)) as count, _answers(jobs, labels, workers, threads) as answers:
        for answer in answers:
            results.append(answer)
            if count is not None:
                count(len(results), len(jobs))
    return results


@contextmanager
def _answers(
    jobs: Sequence[Callable[[], T]], labels: Sequence[str], workers: int, threads: int
) -> Iterator[Iterator[T]]:
    """Give what the jobs return, as they are done and in their order."""
    try:
        from joblib import Parallel, delayed
    except ImportError as error:
        if workers == 1:
            yield (_named(job, label, threads) for job, label in zip(jobs, labels, strict=True))
            return
        raise MissingDependencyError(
            message("run_all", "joblib is not installed", cure="pip install 'ssmred[prune]'")
        ) from error
    calls = (delayed(_named)(job, label, threads) for job, label in zip(jobs, labels, strict=True))
    with _small_clusters_used():
        answers: Any = Parallel(n_jobs=workers, return_as="generator")(calls)
        yield answers


@contextmanager
def _small_clusters_used() -> Iterator[None]:
    """Have a cluster with one place run the jobs; joblib would run them in this process."""
    from joblib.parallel import get_active_backend

    backend, _ = get_active_backend()
    if not hasattr(backend, "client"):  # one of this machine
        yield
        return
    places = backend.effective_n_jobs
    backend.effective_n_jobs = lambda n_jobs: max(places(n_jobs), 2)
    try:
        yield
    finally:
        del backend.effective_n_jobs  # the class's own is back


def _named(job: Callable[[], T], label: str, threads: int) -> T:
    """Run a job with its number of threads; an exception carries its label."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(threads):
            return job()
    except Exception as error:
        error.add_note(label)
        raise
    finally:
        torch.set_num_threads(before)
