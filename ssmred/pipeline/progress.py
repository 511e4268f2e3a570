"""Progress bars of a reduction."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars


class Progress:
    """Show one bar per stage of the work on standard error, or nothing.

    Parameters
    ----------
    visible : bool
        Whether to show anything.
    """

    def __init__(self, visible: bool) -> None:
        self._bars = Bars(
            TextColumn("{task.description:<28}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            disable=not visible,
        )

    def stage(self, name: str, total: int) -> Callable[[int], None]:
        """Open a bar and return the function that advances it."""
        task = self._bars.add_task(name, total=total)
        return lambda amount: self._bars.advance(task, amount)

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()
