"""What commands on a result's folder share: options, loading, the record beside the result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ssmred.cli.console import BadInputError, DamagedFolderError, plain
from ssmred.cli.sources import check_result_folder, load_data, load_model, needs_class, zoo_data
from ssmred.errors import CheckpointError

__all__ = [
    "Data",
    "Factory",
    "Folder",
    "Json",
    "Quiet",
    "Weights",
    "loaded",
    "recorded",
    "sequences_of",
    "write_record",
]

RECORD = "report.json"
"""What `ssmred reduce` printed under --json; a convenience, nothing rests on it."""

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object to stdout and nothing else there.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
Data = Annotated[
    Path | None,
    typer.Option(
        help="Inputs (n, T, features), or tokens (n, T): .npy, .npz or .safetensors; the array "
        "'inputs', or the only one.",
        metavar="FILE",
    ),
]
Folder = Annotated[Path, typer.Argument(help="What `ssmred reduce --out` wrote.", metavar="DIR")]
Weights = Annotated[
    Path | None, typer.Option(help="Weights for a factory's network.", metavar="FILE.safetensors")
]
Factory = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="zoo:NAME or package.module:function; needed only for a network whose operations "
        "could not be written into the folder.",
        metavar="MODEL",
    ),
]


def loaded(folder: Path, model: str | None, weights: Path | None) -> Any:
    """Return the result in a folder, or raise what says why there is none."""
    check_result_folder(folder)
    if model is None and needs_class(folder):
        raise BadInputError(
            f"{folder} holds weights of a network whose operations could not be written down; "
            "give the factory of its class with --model package.module:function"
        )
    original = None if model is None else load_model(model, weights).model
    from ssmred.pipeline.result import load

    try:
        return load(folder, model=original)
    except CheckpointError as error:
        raise DamagedFolderError(f"{folder} was changed or is damaged: {error}") from error


def sequences_of(folder: Path, data: Path | None, result: Any) -> Any:
    """Return --data, else the bundled calibration data of a zoo network, else None."""
    if data is not None:
        return load_data(data, result.original)
    source = recorded(folder).get("model")
    bundled = zoo_data(source if isinstance(source, str) else None)
    return None if bundled is None else bundled.calibration.inputs


def recorded(folder: Path) -> dict[str, Any]:
    """Return what `ssmred reduce` left beside its result; nothing where it did not."""
    try:
        found = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def write_record(folder: Path, facts: dict[str, Any]) -> None:
    """Write what a command reports beside its result."""
    part = folder / f".{RECORD}.part"
    part.write_text(json.dumps(plain(facts), indent=1, allow_nan=False), encoding="utf-8")
    part.replace(folder / RECORD)
