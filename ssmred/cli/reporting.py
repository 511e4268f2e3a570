"""The command ``ssmred report``, and commands written out as they were given."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from ssmred.cli.console import Console
from ssmred.cli.folders import (
    Data,
    Factory,
    Folder,
    Json,
    Quiet,
    Weights,
    loaded,
    recorded,
    sequences_of,
)

__all__ = ["EXAMPLES", "report", "written_out"]

EXAMPLES = (
    "ssmred report small",
    "ssmred report small --latency --out for_review.html",
    "ssmred report small --data inputs.npy --title 'Heartbeats, third network'",
)

PAGE = "report.html"

_SILENT = ("quiet", "as_json", "force")
"""Options that change nothing in what is made."""


def report(
    folder: Folder,
    out: Annotated[
        Path | None,
        typer.Option(help=f"The page; default: {PAGE} in the folder itself.", metavar="FILE.html"),
    ] = None,
    data: Data = None,
    latency: Annotated[
        bool,
        typer.Option(
            "--latency",
            help="Measure latency now, on this machine; else what `ssmred reduce` measured is "
            "shown, if it did.",
        ),
    ] = False,
    title: Annotated[
        str | None, typer.Option(help="Name of the network; default: what was reduced.")
    ] = None,
    model: Factory = None,
    weights: Weights = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write the safety report: one page for a reviewer, that loads nothing and prints well.

    The certificate is recomputed first, as `ssmred verify` does; of one that does not
    hold there is no report.
    """
    console = Console("report", as_json=as_json, quiet=quiet)
    with console.guarded():
        from ssmred.report.page import checked_path, save_page

        target = checked_path(folder / PAGE if out is None else out)
        result = loaded(folder, model, weights)
        sequences = sequences_of(folder, data, result)
        known = recorded(folder)
        from ssmred.cli import measuring
        from ssmred.pipeline.safety import safety_page

        timing = known.get("latency")
        if latency:
            timing = measuring.latency_of(result, sequences, console)
        page = safety_page(
            result,
            data=measuring.evidence_of(result, sequences, given=data is not None),
            latency=timing,
            title=title or str(known.get("model") or folder.resolve().name),
            command=plain_command(known.get("command")),
            folder=str(folder),
            progress=console.progress,
        )
        save_page(page, target)
        facts = measuring.verification_facts(page.verification)
        console.show(f"{page.verification}\n\nWritten to {target}.")
        console.finish({"folder": folder, "report": target, "verification": facts})


def plain_command(text: Any) -> str:
    """Return a recorded command if it is one call of `ssmred reduce` and nothing else, else "".

    Whoever made the folder could have written anything there, and a reader will run it.

    Examples
    --------
    >>> plain_command("ssmred reduce zoo:a --out b"), plain_command("ssmred reduce a; rm -r b")
    ('ssmred reduce zoo:a --out b', '')
    """
    try:
        words = shlex.split(text) if isinstance(text, str) else []
    except ValueError:
        return ""
    plain = words[:2] == ["ssmred", "reduce"] and shlex.join(words) == text
    return text if plain else ""


def written_out(context: typer.Context) -> str:
    """Return a command with the arguments that it was given, ready for a shell.

    Defaults, and options that change nothing in what is made, are left out.
    """
    words = ["ssmred", str(context.info_name)]
    for parameter in context.command.params:
        value: Any = context.params.get(str(parameter.name))
        if parameter.name in _SILENT or value in (None, (), parameter.default):
            continue
        name = [] if parameter.param_type_name == "argument" else [parameter.opts[0]]
        values = [] if value is True else list(value) if isinstance(value, tuple) else [value]
        words += [*name, *map(str, values)]
    return shlex.join(words)
