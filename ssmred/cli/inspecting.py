"""The command ``ssmred inspect``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ssmred.cli.console import BadInputError, Console
from ssmred.cli.sources import ZOO, load_model

__all__ = ["EXAMPLES", "inspect"]

EXAMPLES = (
    "ssmred inspect weights.safetensors",
    "ssmred inspect last.ckpt --option disc=zoh --plot decay.png",
    "ssmred inspect s4op.pt --norm pre --json facts.json",
    "ssmred inspect params.npz --json -",
    "ssmred inspect zoo:fashion-mnist-s4d",
)


def inspect(
    file: Annotated[
        str,
        typer.Argument(
            help="A .safetensors file, a file of torch.save (weights only, nothing is unpickled), "
            "an .npz of arrays, a folder that ssmred wrote, or zoo:NAME.",
            metavar="FILE",
        ),
    ],
    norm: Annotated[
        Literal["pre", "post"] | None,
        typer.Option(
            help="Where the norms of an S4oP checkpoint stand, which it does not tell; its network "
            "is then built, which shows that all parts fit."
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            help="What the file leaves open, several times if need be: disc, real_transform, "
            "imag_transform, dt_transform, length, swap_channels, bandlimit (S4), imag_exp (DSS), "
            "delayed. Without it the answers are given under each assumption.",
            metavar="NAME=VALUE",
        ),
    ] = None,
    json_to: Annotated[
        str | None,
        typer.Option(
            "--json",
            help="Write the facts to a file; with - print one JSON object to stdout and nothing "
            "else there.",
            metavar="FILE|-",
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Draw how the Hankel singular values of every layer fall.", metavar="FILE.png"
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
) -> None:
    """Say what a checkpoint is: families, sizes, stability, time constants, spare states.

    The classes that wrote it are not needed. What a file leaves open is named, and
    answered for under each assumption.
    """
    console = Console("inspect", as_json=json_to == "-", quiet=quiet)
    with console.guarded():
        options = _options(option or [])
        source: Any = file
        if file.startswith(ZOO):
            source = load_model(file).model
        from ssmred import pipeline

        found = pipeline.inspect(source, options=options, norm=norm, progress=console.progress)
        facts = found.to_dict() | {"source": file}
        if plot is not None:
            found.plot(plot)
            facts["picture"] = plot
        console.show(found)
        if json_to not in (None, "-"):
            _write(Path(json_to), facts)
            console.show(f"\nWritten to {json_to}.")
        console.finish(facts)


def _options(texts: list[str]) -> dict[str, Any]:
    """Return ``NAME=VALUE`` as a mapping or raise BadInputError."""
    found: dict[str, Any] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not (name and sign and value):
            raise BadInputError(f"--option {text}: expected NAME=VALUE, for example disc=zoh")
        if name in found:
            raise BadInputError(f"--option {name} is given twice")
        found[name] = value
    return found


def _write(path: Path, facts: dict[str, Any]) -> None:
    import json

    from ssmred.cli.console import plain

    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        text = json.dumps(plain({"ok": True, **facts}), indent=1, allow_nan=False)
        part.write_text(f"{text}\n", encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
