"""The command ``ssmred prune``."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from ssmred.cli.console import BadInputError, Console
from ssmred.cli.prune_example import EXAMPLE
from ssmred.cli.sources import load_configured

__all__ = ["EXAMPLES", "prune"]

EXAMPLES = (
    "ssmred prune --example > prune.toml",
    "ssmred prune prune.toml --folder pruned",
    "ssmred prune prune.toml --folder pruned --resume",
    "ssmred prune prune.toml --folder pruned --force --workers 4 --json",
)

CONFIG = "prune.toml"
PICTURE = "family.png"
_RUN = "run.json"


def prune(
    config: Annotated[
        Path | None,
        typer.Argument(
            help="What to prune and how: sections [model], [task], [prune], [training].",
            metavar="FILE.toml",
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the family; default: the file's name with -family, here.",
            metavar="DIR",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on with what is in --folder, which must come from the same file."
        ),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Start anew: delete an earlier run in --folder.")
    ] = False,
    workers: Annotated[
        int, typer.Option(help="Candidates that are fine-tuned side by side.", min=1)
    ] = 1,
    example: Annotated[
        bool, typer.Option("--example", help="Print a commented file that works, and end.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print one JSON object to stdout and nothing else there."),
    ] = False,
) -> None:
    """Remove operators step by step, fine-tune, measure; one network per rate.

    The folder holds the family (family.json), the weights of every network, a copy of
    the file and a picture. A run that was stopped goes on with --resume. Needs the extra
    `prune`.
    """
    console = Console("prune", as_json=as_json, quiet=quiet)
    with console.guarded():
        if example:
            typer.echo(EXAMPLE, nl=False)
            return
        if config is None:
            raise BadInputError("give a FILE.toml; `ssmred prune --example` prints one")
        if resume and force:
            raise BadInputError("give --resume or --force, not both: one goes on, one starts anew")
        target = Path(f"{config.stem}-family") if folder is None else folder
        from ssmred.prune.config import read_config

        read = read_config(config)
        _check_folder(target, resume=resume, force=force)
        model = load_configured(read.model)
        from ssmred import prune as pruning
        from ssmred import tasks
        from ssmred.networks.writing import write_text

        task = tasks.load(read.task.name, **read.task.options)
        if force:  # only now: everything that was asked for is there
            shutil.rmtree(target, ignore_errors=True)
        try:
            family = pruning.progressive(
                model,
                task,
                **read.options,
                training=read.training,
                workers=workers,
                folder=target,
                progress=console.progress,
            )
        except KeyboardInterrupt:
            console.show(f"Stopped; go on with: ssmred prune {config} --folder {target} --resume")
            raise
        write_text(target / CONFIG, read.text)
        from ssmred.report import plot_family

        plot_family(family, target / PICTURE)
        console.show(f"{family}\n\nWritten to {target}, with {PICTURE}.")
        facts: dict[str, Any] = {"folder": target, "picture": target / PICTURE}
        console.finish(facts | {"family": family.to_dict()})


def _check_folder(folder: Path, *, resume: bool, force: bool) -> None:
    """Refuse a folder with an earlier run, unless told what to do, and one with anything else."""
    if folder.exists() and not folder.is_dir():
        raise BadInputError(f"--folder {folder} is a file; name a folder")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not (folder / _RUN).is_file():
        raise BadInputError(
            f"--folder {folder} holds other things than an earlier run; choose another folder"
        )
    if not (resume or force):
        raise BadInputError(
            f"--folder {folder} holds an earlier run; go on with it with --resume, or start anew "
            "with --force"
        )
