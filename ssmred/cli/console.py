"""What a command shows and how it ends: text or JSON, one line per error, an exit code."""

from __future__ import annotations

import json
import math
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.console import Console as Terminal
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from ssmred.errors import (
    AccuracyError,
    CertificateError,
    SsmredError,
    UnstableSystemError,
    UnsupportedOperationError,
)

__all__ = ["BadInputError", "Console", "DamagedFolderError", "epilog", "plain"]

REFUSED, BAD_INPUT, FAULT, INTERRUPTED = 1, 2, 3, 130

_EXIT_CODES = """Exit codes:
  0  done (also when nothing could be removed: that is an answer)
  1  refused: a certificate or folder that does not verify, or a statement
     that cannot be proved for this network
  2  wrong usage or input: options, files, shapes, weights, too little data
  3  a fault of ssmred itself; the traceback is worth reporting"""


def epilog(*examples: str) -> str:
    """Return the end of a command's help: examples, and what the exit codes mean."""
    # "\b" keeps the line breaks of the paragraph that follows.
    lines = "\n".join(f"  {example}" for example in examples)
    return f"\b\nExamples:\n{lines}\n\n\b\n{_EXIT_CODES}"


class BadInputError(SsmredError, ValueError):
    """Report an argument of the command line that cannot be used."""


class DamagedFolderError(SsmredError, ValueError):
    """Report a result's folder whose files are damaged, changed or do not belong together."""


_REFUSALS = (
    AccuracyError,
    CertificateError,
    DamagedFolderError,
    UnstableSystemError,
    UnsupportedOperationError,
)


class Console:
    """Print a command's results, and turn its errors into one line and an exit code.

    Parameters
    ----------
    command : str
        Name of the command, for its messages.
    as_json : bool
        Print one JSON object to the standard output and nothing else.
    quiet : bool
        Print errors only.
    """

    def __init__(self, command: str, *, as_json: bool = False, quiet: bool = False) -> None:
        self.command = command
        self.as_json = as_json
        self.quiet = quiet

    @property
    def progress(self) -> bool:
        """Whether progress bars are welcome: someone watches the standard error stream."""
        return not (self.quiet or self.as_json) and sys.stderr.isatty()

    @contextmanager
    def stages(self) -> Iterator[Callable[[str, int, int], None]]:
        """Yield a function that shows how far a stage is, on the standard error stream."""
        bars = Progress(
            TextColumn("{task.description:<28}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Terminal(stderr=True),
            disable=not self.progress,
        )
        tasks: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        with bars:
            yield show

    def show(self, text: object) -> None:
        """Print text for people; nothing under --json and --quiet."""
        if not (self.quiet or self.as_json):
            typer.echo(str(text))

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Print the JSON object under --json."""
        if self.as_json:
            typer.echo(json.dumps(plain({"ok": True, **facts}), indent=2, allow_nan=False))

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Run a command's body; whatever it raises ends the command with its exit code."""
        try:
            with warnings.catch_warnings():
                warnings.showwarning = self._show_warning
                yield
        except (typer.Exit, typer.Abort):
            raise
        except SsmredError as error:
            self._fail(error, REFUSED if isinstance(error, _REFUSALS) else BAD_INPUT)
        except OSError as error:
            self._fail(error, BAD_INPUT)
        except Exception as error:  # a crash must not look like a refusal, Python's code 1
            traceback.print_exc()
            self._fail(error, FAULT)
        except KeyboardInterrupt:
            typer.echo(f"ssmred {self.command}: interrupted", err=True)
            raise typer.Exit(INTERRUPTED) from None

    def _fail(self, error: Exception, code: int) -> None:
        text = " ".join(str(error).split())
        typer.echo(f"ssmred {self.command}: error: {text}", err=True)
        if self.as_json:
            failure = {"type": type(error).__name__, "message": text}
            typer.echo(json.dumps({"ok": False, "exit_code": code, "error": failure}, indent=2))
        raise typer.Exit(code) from error

    def _show_warning(self, text: Warning | str, *_: Any, **__: Any) -> None:
        if not self.quiet:
            typer.echo(f"ssmred {self.command}: warning: {' '.join(str(text).split())}", err=True)


def plain(value: Any) -> Any:
    """Return a value as JSON types; a float that JSON cannot hold becomes "inf", "-inf" or "nan".

    Examples
    --------
    >>> plain({"bound": math.inf, "states": (3, 4)})
    {'bound': 'inf', 'states': [3, 4]}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(entry) for entry in value]
    if hasattr(value, "tolist"):  # NumPy scalars and arrays, tensors
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)
