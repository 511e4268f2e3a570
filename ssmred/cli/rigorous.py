"""Verify a result's certificate in ball arithmetic: ``ssmred verify --rigorous``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ssmred.cli.console import Console, DamagedFolderError
from ssmred.cli.sources import check_result_folder
from ssmred.errors import CheckpointError

__all__ = ["verify_rigorously"]


def verify_rigorously(
    folder: Path, certificate: Path | None, save: Path | None, console: Console
) -> None:
    """Show what the rigorous verifier found about a folder, and write its certificate if asked to.

    Raises
    ------
    SsmredError
        As `ssmred.rigour.verify`; DamagedFolderError where a stored network is damaged.
    """
    check_result_folder(folder)
    from ssmred import rigour

    path = folder / "certificate.json" if certificate is None else certificate
    try:
        with console.stages() as progress:
            report = rigour.verify(path, folder / "original", folder, progress=progress)
    except CheckpointError as error:
        raise DamagedFolderError(f"{folder} was changed or is damaged: {error}") from error
    facts: dict[str, Any] = {
        "folder": folder,
        "verification": {
            "level": "RIGOROUS",
            "precision": report.precision,
            "absolute_bound": report.absolute_bound,
            "relative_bound": report.relative_bound,
            "vacuous": report.certificate["vacuous"],
            "checks": [vars(check) for check in report.checks],
            "not_recomputed": report.not_recomputed,
        },
    }
    console.show(report)
    console.show(f"\n{folder}: the absolute bound is RIGOROUS.")
    if save is not None:
        facts["saved"] = report.save(save)
        console.show(f"Written to {save}.")
    console.finish(facts)
