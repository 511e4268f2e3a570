"""The tasks by their names."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from ssmred.errors import RequestError, message
from ssmred.tasks.fashion_mnist import fashion_mnist
from ssmred.tasks.imdb import imdb
from ssmred.tasks.listops import listops
from ssmred.tasks.lra import lra_listops, lra_retrieval, lra_text
from ssmred.tasks.lra_images import lra_image, lra_pathfinder
from ssmred.tasks.pathfinder import pathfinder
from ssmred.tasks.task import Task
from ssmred.tasks.ucr import ecg5000, fetal_ecg, ford_a

__all__ = ["NAMES", "load"]

_MAKERS: dict[str, Callable[..., Task]] = {
    "listops": listops,
    "fashion-mnist": fashion_mnist,
    "ecg5000": ecg5000,
    "fetal-ecg": fetal_ecg,
    "ford-a": ford_a,
    "imdb": imdb,
    "pathfinder": pathfinder,
    "lra-listops": lra_listops,
    "lra-text": lra_text,
    "lra-retrieval": lra_retrieval,
    "lra-image": lra_image,
    "lra-pathfinder": lra_pathfinder,
}

NAMES = tuple(_MAKERS)
"""What `load` takes."""


def load(name: str, **options: Any) -> Task:
    """Return a task by its name.

    Parameters
    ----------
    name : str
        One of `NAMES`.
    **options
        Those of the task's maker, such as ``source`` or ``training``; docs/tasks.md lists them.

    Raises
    ------
    RequestError
        If there is no such task, or it has no such option.
    MissingDependencyError, DataError
        If its data are not there, or are damaged; the message says how to get them.

    Examples
    --------
    >>> task = load("listops", training=300, held_out=50, test=50)
    >>> task
    Task('listops', 300 training and 50 validation sequences of 96 steps, 10 classes)
    """
    if name not in _MAKERS:
        raise RequestError(
            message("tasks.load", f"no task {name!r}", expected=f"one of {', '.join(NAMES)}")
        )
    known = inspect.signature(_MAKERS[name]).parameters
    unknown = [option for option in options if option not in known]
    if unknown:
        raise RequestError(
            message(
                "tasks.load",
                f"{name} has no option {unknown[0]!r}",
                expected=f"one of {', '.join(known)}",
            )
        )
    return _MAKERS[name](**options)
