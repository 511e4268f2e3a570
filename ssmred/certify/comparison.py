"""Compare what a certificate states with what is found, and say how models are read.

What verification says, and does not say, is in docs/certificates.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ssmred.certify.inputs import InputSet

__all__ = ["Check", "ModelReader", "agree", "check_number"]

AGREEMENT = 1e-9  # relative; another BLAS sums in another order, the same one agrees exactly


class ModelReader(Protocol):
    """Translate models for the verifier."""

    def graph(self, model: Any, horizon: int | None, inputs: InputSet) -> Any:
        """Return the model's NetworkGraph."""
        ...

    def systems(self, model: Any) -> Any:
        """Return the model's layers, name to DiagonalSystem, in execution order."""
        ...

    def weights_sha256(self, model: Any) -> str:
        """Return the SHA-256 of the model's weights."""
        ...

    def outputs(self, model: Any, data: Any) -> np.ndarray:
        """Return the model's outputs (samples, ...) in eval mode."""
        ...

    def store(self, model: Any, folder: Path) -> None:
        """Write the model to a folder, as `ssmred.rigour` reads it."""
        ...


@dataclass(frozen=True)
class Check:
    """Hold one comparison: what the certificate says and what was found."""

    name: str
    passed: bool
    stated: str
    found: str


def agree(stated: float, found: float, tolerance: float, floor: float = 0.0) -> bool:
    """Tell whether two numbers agree to a relative tolerance or to an absolute floor."""
    if math.isinf(stated) or math.isinf(found):
        return stated == found
    return abs(stated - found) <= tolerance * max(abs(stated), abs(found)) + floor


def check_number(
    checks: list[Check], name: str, stated: float, found: float, floor: float = 0.0
) -> None:
    """Add the comparison of two numbers, which have to agree to a relative 1e-9 or the floor."""
    passed = agree(stated, found, AGREEMENT, floor)
    checks.append(Check(name, passed, f"{stated:.12g}", f"{found:.12g}"))
