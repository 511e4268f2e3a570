"""What a worst-case certificate has to contain, field by field, and how it is written.

Written anew: nothing here is taken from the code that issues certificates, and a test holds the two
against each other.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

__all__ = [
    "FORMAT",
    "PRECISIONS",
    "SCHEMA",
    "WORDS",
    "faults",
    "number",
    "render",
    "seal",
    "sealed_by",
    "write",
]

FORMAT, SCHEMA = "ssmred-certificate", 2
SEAL = "content_sha256"

_THEOREMS = (
    "network-bound",
    "error-rules",
    "h2-norm",
    "h2-sup-bound",
    "finite-horizon-gain",
    "l1-gain",
)
_INPUTS = "Every input lies in the declared set and has the declared length."
_EXACT = (
    "The statement is about the stored weights in exact arithmetic; what float32 inference adds is "
    "outside it.",
    "The networks are in eval mode.",
)
WORDS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "FLOAT": {
        "theorems": _THEOREMS,
        "assumptions": (
            _INPUTS,
            "Each layer of the original is its import: poles and residues in float64.",
            "Level FLOAT: the bound is evaluated in float64 with a-priori rounding terms, not in "
            "ball arithmetic.",
            *_EXACT,
        ),
    },
    "RIGOROUS": {
        "theorems": (*_THEOREMS, "ball-arithmetic"),
        "assumptions": (
            _INPUTS,
            "Each layer is the exact function of its stored parameters.",
            "Level RIGOROUS: every bound is enclosed in ball arithmetic from the stored weights "
            "alone.",
            "The output scale is a recorded measurement: the absolute bound does not rest on it, "
            "the relative bound is relative to it.",
            *_EXACT,
        ),
    },
}
"""Theorems and assumptions of a worst-case certificate, by level; nothing less, nothing more."""

_LAYER = {
    "name": "text",
    "states_full": "count",
    "states_kept": "count",
    "error": "bound",
    "relative_error": "bound",
    "gain_error": "bound",
    "weight": "bound",
    "contribution": "bound",
}
_FIELDS = {
    "format": "text",
    "schema": "count",
    "guarantee": "text",
    "level": "text",
    "tol": "tolerance",
    "bound": "bound",
    "vacuous": "flag",
    "scale": "positive",
    "scale_source": "text",
    "scale_sampling": "object",
    "horizon": "length",
    "metric": "text",
    "layers": "layers",
    "inputs": "inputs",
    "statistics": "nothing",
    "enclosure": "enclosure",
    "theorems": "words",
    "assumptions": "words",
    "original_sha256": "hash",
    "reduced_sha256": "hash",
    "ssmred_version": "text",
    "created": "date",
    SEAL: "hash",
}
PRECISIONS = (128, 256, 512, 1024)
"""Bits that a certificate may be enclosed with: the next ones where balls stay wide."""

_INPUT_FIELDS = {"box": {"kind", "low", "high"}, "ball": {"kind", "radius"}, "tokens": {"kind"}}


def number(value: Any) -> float:
    """Return a stored bound; infinity is the word "inf", anything else that is no number is nan."""
    if value == "inf":
        return math.inf
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if plain else math.nan


def render(data: Mapping[str, Any]) -> str:
    """Return a certificate's text, the only one there is for its content."""
    return json.dumps(data, indent=2, sort_keys=True, allow_nan=False) + "\n"


def sealed_by(data: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the text of all other fields."""
    rest = {key: value for key, value in data.items() if key != SEAL}
    return hashlib.sha256(render(rest).encode()).hexdigest()


def seal(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy with the hash of its content."""
    out = copy.deepcopy(dict(data))
    out[SEAL] = sealed_by(out)
    return out


def write(data: Mapping[str, Any], path: Path) -> Path:
    """Write a certificate beside its place and move it there, so that nothing is lost halfway."""
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(render(data))
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
    return path


# What is wrong --------------------------------------------------------------------------------


def faults(data: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with a certificate by itself; nothing if all fields are as they must be.

    Examples
    --------
    >>> "scale is missing" in faults({})
    True
    """
    if data.get("guarantee") in ("statistical", "layer"):  # of another shape
        return [f"the guarantee is {data['guarantee']!r}; only worst-case ones are enclosed"]
    found = [f"{key} is missing" for key in sorted(set(_FIELDS) - set(data))]
    found += [f"{key} is unknown" for key in sorted(set(data) - set(_FIELDS))]
    for key, kind in _FIELDS.items():
        if key in data and not _KINDS[kind](data[key]):
            found.append(f"{key} is no {kind}: {_short(data[key])}")
    if found:
        return found
    if (data["format"], data["schema"]) != (FORMAT, SCHEMA):
        found.append(f"it is {data['format']} {data['schema']}, not {FORMAT} {SCHEMA}")
    if data["level"] not in WORDS:
        found.append(f"level {data['level']!r} is none of {sorted(WORDS)}")
    else:
        for key, expected in WORDS[data["level"]].items():
            if tuple(data[key]) != expected:
                found.append(f"{key} are not those of level {data['level']}: {_change(data, key)}")
        if (data["enclosure"] is not None) != (data["level"] == "RIGOROUS"):
            found.append("enclosure belongs to level RIGOROUS and only there")
    if data["guarantee"] != "worst-case":
        found.append(f"the guarantee is {data['guarantee']!r}; only worst-case ones are enclosed")
    if data["vacuous"] is (number(data["bound"]) <= 1.0):
        found.append("its word on vacuity contradicts its bound")
    return found


def _change(data: Mapping[str, Any], key: str) -> str:
    expected = WORDS[data["level"]][key]
    missing = [text for text in expected if text not in data[key]]
    extra = [text for text in data[key] if text not in expected]
    return f"missing {missing}, unexpected {extra}" if missing or extra else "another order"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_positive(value: Any) -> bool:
    return 0.0 < number(value) < math.inf and value != "inf"


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def _is_layers(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(
            isinstance(layer, dict)
            and set(layer) == set(_LAYER)
            and all(_KINDS[kind](layer[key]) for key, kind in _LAYER.items())
            for layer in value
        )
    )


def _is_inputs(value: Any) -> bool:
    if not isinstance(value, dict) or set(value) != _INPUT_FIELDS.get(value.get("kind")):
        return False
    if value["kind"] == "ball":
        return 0.0 <= number(value["radius"]) < math.inf
    if value["kind"] == "tokens":
        return True
    low, high = _numbers(value["low"]), _numbers(value["high"])
    if not low or len(low) != len(high):
        return False
    return all(-math.inf < a <= b < math.inf for a, b in zip(low, high, strict=True))


def _numbers(value: Any) -> list[float]:
    values = value if isinstance(value, list) else [value]
    return [math.nan if item == "inf" else number(item) for item in values]


def _is_enclosure(value: Any) -> bool:
    return value is None or (
        isinstance(value, dict)
        and set(value) == {"precision", "python_flint", "absolute_bound", "wiring_sha256"}
        and value["precision"] in PRECISIONS
        and _is_count(value["precision"])
        and _is_text(value["python_flint"])
        and number(value["absolute_bound"]) >= 0.0
        and _is_hash(value["wiring_sha256"])
    )


_KINDS: dict[str, Callable[[Any], bool]] = {
    "text": _is_text,
    "count": _is_count,
    "bound": lambda value: number(value) >= 0.0,
    "positive": _is_positive,
    "tolerance": lambda value: value is None or _is_positive(value),
    "flag": lambda value: isinstance(value, bool),
    "length": lambda value: value is None or (_is_count(value) and value >= 1),
    "layers": _is_layers,
    "inputs": _is_inputs,
    "nothing": lambda value: value is None,
    "object": lambda value: isinstance(value, dict),
    "enclosure": _is_enclosure,
    "words": lambda value: isinstance(value, list) and all(map(_is_text, value)),
    "hash": _is_hash,
    "date": lambda value: value is None or _is_text(value),
}
