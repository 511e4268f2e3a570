"""Data to train, prune and judge networks on: tasks with sealed test parts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ssmred.errors import RequestError, message
from ssmred.tasks.fashion_mnist import fashion_mnist_task
from ssmred.tasks.imdb import imdb_task
from ssmred.tasks.listops import ListOps, listops_task
from ssmred.tasks.task import Sample, Task
from ssmred.tasks.two_stream import TwoStream
from ssmred.tasks.ucr import ECG5000, FETAL_ECG, FORD_A, ucr_task

__all__ = ["NAMES", "ListOps", "Sample", "Task", "TwoStream", "load"]

_MAKERS: dict[str, Callable[..., Task]] = {
    "listops": listops_task,
    "fashion-mnist": fashion_mnist_task,
    "ecg5000": partial(ucr_task, ECG5000),
    "fetal-ecg": partial(ucr_task, FETAL_ECG),
    "ford-a": partial(ucr_task, FORD_A),
    "imdb": imdb_task,
}

NAMES = tuple(_MAKERS)
"""Tasks by the names that `load` knows."""


def load(name: str, **options: Any) -> Task:
    """Return a task by name.

    Parameters
    ----------
    name : str
        One of `NAMES`.
    **options
        Of its maker: sizes, lengths, ``source=`` of the files.

    Raises
    ------
    RequestError
        If there is no such task, or it has no such option.
    MissingDependencyError, DataError
        If its data are missing or damaged.

    Examples
    --------
    >>> task = load("listops", training=20, held_out=5, test=5)
    >>> task.classes, task.length, len(task.train)
    (10, 96, 20)
    """
    if name not in _MAKERS:
        raise RequestError(
            message("tasks.load", "no such task", expected=f"one of {', '.join(NAMES)}",
                    got=repr(name))
        )  # fmt: skip
    try:
        return _MAKERS[name](**options)
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        raise RequestError(
            message("tasks.load", f"{name} has no such option", got=f"{error}")
        ) from error
