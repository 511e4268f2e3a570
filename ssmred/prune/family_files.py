"""Read ``family.json`` strictly, and look after the files of a family's weights."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from ssmred.errors import CheckpointError, message

__all__ = [
    "FAMILY",
    "FORMAT",
    "PLAIN",
    "SCHEMA",
    "copy_weights",
    "digest",
    "read_record",
    "unreadable",
]

FAMILY = "family.json"
FORMAT = "ssmred-family"

SCHEMA = 1
"""Version of ``family.json``."""

PLAIN = {
    "task": str,
    "metric": str,
    "machine": str,
    "options": dict,
    "split": dict,
    "digests": dict,
}
"""Fields that are stored as they are, and their types."""


def read_record(path: Path) -> dict[str, Any]:
    """Return the content of ``family.json``, its fields there and of the right types, or raise."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise unreadable(path, f"{error}") from error
    if not isinstance(stored, dict) or stored.get("format") != FORMAT:
        raise unreadable(path, "it is no family")
    if stored.get("schema") != SCHEMA:
        raise CheckpointError(
            message(
                "Family.load",
                f"{path} has another schema",
                expected=str(SCHEMA),
                got=repr(stored.get("schema")),
                cure="Update ssmred.",
            )
        )
    known = {*PLAIN, "format", "schema", "parent", "members"}
    if set(stored) != known:
        faults = sorted(known ^ set(stored))
        raise unreadable(path, f"fields are missing or unknown: {', '.join(faults)}")
    wrong = [name for name, kind in PLAIN.items() if not isinstance(stored[name], kind)]
    if wrong or not isinstance(stored["members"], list):
        raise unreadable(path, f"fields of another type: {', '.join(wrong) or 'members'}")
    return stored


def unreadable(path: Path, reason: str) -> CheckpointError:
    """Return the error for a file that is no family's."""
    return CheckpointError(
        message(
            "Family.load",
            f"{path} cannot be read: {reason}",
            cure="Pass a folder that progressive or Family.save wrote.",
        )
    )


def copy_weights(source: Path, target: Path) -> None:
    """Copy what a member's weights are stored in: a folder or a file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy2(source, target)


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, or of all files in a folder with their names."""
    summary = hashlib.sha256()
    if not path.exists():
        raise CheckpointError(message("Family", f"there is no {path}", cure="Copy it again."))
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
        summary.update(f"{file.relative_to(path.parent).as_posix()}\0".encode())
        summary.update(hashlib.sha256(file.read_bytes()).digest())
    return summary.hexdigest()
