"""What is shown while a training or a set of candidates runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

__all__ = ["Callback", "Report", "counted", "reports"]


@dataclass(frozen=True)
class Report:
    """Hold how far a training is.

    Attributes
    ----------
    name : str
        Of the training.
    epoch, epochs : int
        The epoch that runs, from 1, and how many there can be.
    step, steps : int
        Steps done in it, and how many it has.
    loss : float
        Mean training loss of the epoch so far.
    score : float or None
        Validation score in percent, where the epoch is done.
    """

    name: str
    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    score: float | None


Callback = Callable[[Report], None]


@contextmanager
def reports(progress: bool | Callback) -> Iterator[Callback | None]:
    """Give what takes the reports of a training: a bar on stderr, the user's function, or None."""
    if not isinstance(progress, bool):
        yield progress
    elif not progress:
        yield None
    else:
        numbers = TextColumn("loss {task.fields[loss]:.3f}, {task.fields[score]}")
        with _bar(numbers) as bar:
            line = bar.add_task("", total=None, loss=float("nan"), score="")

            def show(report: Report) -> None:
                score = bar.tasks[line].fields["score"]
                bar.update(
                    line,
                    description=f"{report.name or 'training'}, epoch {report.epoch}",
                    total=report.steps * report.epochs,
                    completed=report.steps * (report.epoch - 1) + report.step,
                    loss=report.loss,
                    score=score if report.score is None else f"validation {report.score:.2f} %",
                )

            yield show


@contextmanager
def counted(
    progress: bool | Callable[[int, int], None], total: int
) -> Iterator[Callable[[int, int], None] | None]:
    """Give what is told how many of `total` jobs are done: a bar, the user's function, or None."""
    if not isinstance(progress, bool):
        yield progress
    elif not progress:
        yield None
    else:
        with _bar() as bar:
            line = bar.add_task("candidates", total=total)
            yield lambda done, _: bar.update(line, completed=done)


def _bar(*columns: TextColumn) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        *columns,
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )
