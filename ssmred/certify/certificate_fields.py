"""Checks of a certificate's fields: each adds what it finds to a list of problems."""

from __future__ import annotations

import json
import math
from typing import Any

__all__ = ["check_json", "check_number", "check_text", "check_whole", "is_sha256"]


def is_sha256(text: Any) -> bool:
    """Tell whether a value is a SHA-256 in hexadecimal."""
    return isinstance(text, str) and len(text) == 64 and set(text) <= set("0123456789abcdef")


def check_text(value: Any, name: str, problems: list[str]) -> None:
    """Add a problem where a field is no text, or an empty one."""
    if not isinstance(value, str) or not value:
        problems.append(f"{name} is not a text: {value!r}")


def check_whole(value: Any, name: str, problems: list[str], *, low: int = 0) -> None:
    """Add a problem where a field is no integer, or below `low`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        problems.append(f"{name} is not an integer >= {low}: {value!r}")


def check_number(
    value: Any, name: str, problems: list[str], *, infinite: bool = False, positive: bool = False
) -> None:
    """Add a problem where a field is no number >= 0, or > 0, or infinite where it must not be."""
    number = math.nan if isinstance(value, bool) or not isinstance(value, (int, float)) else value
    if not (number > 0 if positive else number >= 0) or (math.isinf(number) and not infinite):
        problems.append(f"{name} is not a number {'> 0' if positive else '>= 0'}: {value!r}")


def check_json(value: Any, name: str, problems: list[str]) -> None:
    """Add a problem where a field is no dictionary of JSON types."""
    try:
        if not isinstance(value, dict):
            raise TypeError("it is not a dictionary")
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        problems.append(f"{name} cannot be stored as JSON: {error}")
