"""Hand models to the rigorous verifier, which reads files and knows no models."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ssmred.certify.certificate import Certificate

__all__ = ["EnclosureProgress", "enclose"]

EnclosureProgress = Callable[[str, int, int], None]
"""Called with a stage, what is done of it and how much there is."""


def enclose(
    certificate: Certificate,
    reader: Any,
    original: Any,
    reduced: Any,
    progress: EnclosureProgress | None = None,
) -> tuple[Any, Certificate]:
    """Write both models and the certificate to a folder of their own and verify that rigorously.

    Returns
    -------
    report : ssmred.rigour.Enclosure
    certificate : Certificate
        At level RIGOROUS.

    Raises
    ------
    CertificateError, UnsupportedOperationError, AccuracyError
        As `ssmred.rigour.verify`.
    """
    from ssmred import rigour  # python-flint is an extra

    with tempfile.TemporaryDirectory(prefix="ssmred-") as name:
        folder = Path(name)
        path = certificate.save(folder / "certificate.json")
        for place, model in (("original", original), ("reduced", reduced)):
            reader.store(model, folder / place)
        shown = {} if progress is None else {"progress": progress}
        report = rigour.verify(path, folder / "original", folder / "reduced", **shown)
        return report, Certificate.from_json(report.to_json())
