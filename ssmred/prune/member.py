"""One network of a family: which operators it has, what it costs, how good it is."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any

from ssmred.checks import check_integer, check_positive
from ssmred.deploy import Spread
from ssmred.errors import DataError, message

__all__ = ["SCORES", "Member", "json_ready"]

SCORES = ("val_before", "val_after", "test_before", "test_after")
"""Scores that every member has, percent; those of the test part are None until it is opened."""

_WHERE = "Member"
_SPREADS = ("latency", "parent_latency", "ratio", "uncached")
_HALF = 0.5 + 1e-6
"""Half an operator, and far more than the rounding of a rate times their number."""


@dataclass(frozen=True)
class Member:
    """Describe one network of a family; the parent is a member of rate 0.

    Parameters
    ----------
    rate : float
        Share of the parent's operators that are gone.
    kept : mapping of str to list of int
        Live operators (channels) of every layer, rising: the mask.
    removed, operators : int
        Operators that are gone, and all that the parent has.
    parameters, bytes : int
        Numbers in the parameters; bytes of parameters and buffers.
    latency, parent_latency : Spread
        Seconds of one whole sequence at batch 1, of this network and of its parent, measured in
        alternation in the same run.
    error : mapping
        What is certified against the parent before fine-tuning: at least ``"bound"``, of the
        output error relative to the output scale (may be inf), and ``"guarantee"``; empty for the
        parent.
    scores : mapping
        Percent, higher is better. ``"val_before"`` and ``"val_after"`` fine-tuning on the
        validation part; ``"test_before"`` and ``"test_after"`` on the test part, None until it is
        opened at the very end; ``"candidates"``, a list of what every candidate reached (its seed,
        its validation scores).
    seconds : float
        Time that this step took.
    weights : str
        Where the weights are, relative to the family's folder.
    ratio : Spread, optional
        Latency over the parent's, round by round; better than the ratio of the medians, which
        stands in where it is missing.
    uncached : Spread, optional
        Seconds of one sequence where every pass makes the kernels anew.
    peak_bytes : int, optional
        Peak memory of one forward pass at batch 1, without parameters and kept kernels.

    Raises
    ------
    DataError, OrderError
        If a value is none of these, or the mask, `removed` and `operators` disagree.
    """

    rate: float
    kept: Mapping[str, list[int]]
    removed: int
    operators: int
    parameters: int
    bytes: int
    latency: Spread
    parent_latency: Spread
    error: Mapping[str, Any]
    scores: Mapping[str, Any]
    seconds: float
    weights: str
    ratio: Spread | None = None
    uncached: Spread | None = None
    peak_bytes: int | None = None

    def __post_init__(self) -> None:
        clean: dict[str, Any] = {
            "rate": check_positive(self.rate, "rate", _WHERE, allow_zero=True),
            "seconds": check_positive(self.seconds, "seconds", _WHERE, allow_zero=True),
            "kept": _mask(self.kept),
            "error": json_ready(self.error, "error", _WHERE),
            "scores": _scores(self.scores),
        }
        for name in ("removed", "operators", "parameters", "bytes"):
            clean[name] = check_integer(getattr(self, name), name, _WHERE)
        if self.peak_bytes is not None:
            clean["peak_bytes"] = check_integer(self.peak_bytes, "peak_bytes", _WHERE)
        for name, value in clean.items():
            object.__setattr__(self, name, value)
        live = sum(map(len, self.kept.values()))
        if live + self.removed != self.operators or not self.operators:
            raise _wrong(
                "the mask and the numbers disagree",
                f"{self.operators - self.removed} live operators of {self.operators}",
                f"{live}",
            )
        if not self.has_rate(self.removed / self.operators):
            raise _wrong(
                "the rate is not that of the mask",
                f"{self.removed / self.operators:.6g} to half an operator",
                f"{self.rate}",
            )
        for name in _SPREADS:
            _check_spread(getattr(self, name), name, optional=name in ("ratio", "uncached"))
        if self.error:
            if not {"bound", "guarantee"} <= set(self.error):
                raise _wrong("error is no certificate", "a bound and a guarantee", f"{self.error}")
            _bound(self.error["bound"])
        if not isinstance(self.weights, str) or not _is_inside(self.weights):
            raise _wrong("weights is no place in the folder", "a relative path", f"{self.weights}")

    def has_rate(self, rate: float) -> bool:
        """Tell whether a rate, rounded to whole operators, is this member's."""
        return abs(self.rate - rate) * self.operators <= _HALF

    @property
    def relative(self) -> Spread:
        """Latency over the parent's, quartiles."""
        if self.ratio is not None:
            return self.ratio
        times, unit = self.latency, self.parent_latency.median
        return Spread(times.lower / unit, times.median / unit, times.upper / unit)

    @property
    def latency_ratio(self) -> float:
        """Latency over the parent's, median."""
        return self.relative.median

    @property
    def bound(self) -> float | None:
        """Certified relative output error before fine-tuning; None where nothing is."""
        return _bound(self.error["bound"]) if self.error else None

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-ready types, the ratio of latencies included."""
        stored: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            stored[field.name] = vars(value) | {} if isinstance(value, Spread) else value
        return json_ready(stored | {"latency_ratio": self.latency_ratio}, "member", _WHERE)

    @classmethod
    def from_dict(cls, stored: Any) -> Member:
        """Return what `to_dict` gave.

        Raises
        ------
        DataError, OrderError
            If a field is missing, unknown or wrong.
        """
        known = {field.name for field in fields(cls)} | {"latency_ratio"}
        if isinstance(stored, Mapping):
            stored = {"ratio": None, **stored}  # older records have none
        if not isinstance(stored, Mapping) or set(stored) != known:
            got = sorted(map(str, stored)) if isinstance(stored, Mapping) else type(stored).__name__
            raise _wrong("the record is no member of a family", ", ".join(sorted(known)), f"{got}")
        content = {name: value for name, value in stored.items() if name != "latency_ratio"}
        for name in _SPREADS:
            if content[name] is not None:
                content[name] = _spread(content[name], name)
        return cls(**content)


def json_ready(value: Any, name: str, where: str) -> Any:
    """Return a value as JSON types, infinity as the string "inf".

    Raises
    ------
    DataError
        If it holds nan, or what JSON has no type for.
    """
    if isinstance(value, Mapping):
        return {str(key): json_ready(entry, name, where) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_ready(entry, name, where) for entry in value]
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real) and not math.isnan(value):
        return float(value) if math.isfinite(value) else str(float(value))
    if hasattr(value, "tolist"):  # arrays and tensors
        return json_ready(value.tolist(), name, where)
    raise DataError(
        message(
            where,
            f"{name} holds what cannot be stored",
            expected="numbers, texts, lists and mappings; no nan",
            got=f"{type(value).__name__} {value!r}",
        )
    )


def _wrong(problem: str, expected: str, got: str) -> DataError:
    return DataError(message(_WHERE, problem, expected=expected, got=got))


def _mask(kept: Any) -> dict[str, list[int]]:
    if not isinstance(kept, Mapping) or not kept:
        raise _wrong("kept is no mask", "live operators per layer", repr(kept))
    clean = {}
    for layer, live in kept.items():
        if not isinstance(live, (list, tuple)):
            raise _wrong(f"kept[{layer!r}] is no list", "numbers of operators", repr(live))
        channels = [check_integer(n, f"kept[{layer!r}]", _WHERE) for n in live]
        if any(a >= b for a, b in pairwise(channels)):
            raise _wrong(f"kept[{layer!r}] does not rise", "every operator once", f"{channels}")
        clean[str(layer)] = channels
    return clean


def _scores(scores: Any) -> dict[str, Any]:
    clean = json_ready(scores, "scores", _WHERE)
    if not isinstance(clean, dict) or set(clean) != {*SCORES, "candidates"}:
        got = sorted(clean) if isinstance(clean, dict) else repr(clean)
        raise _wrong("scores has other keys", f"{', '.join(SCORES)}, candidates", f"{got}")
    for name in SCORES:
        score = clean[name]
        unopened = score is None and name.startswith("test")
        if not unopened and (isinstance(score, bool) or not isinstance(score, (int, float))):
            raise _wrong(f"{name} is no score", "a finite number, percent", repr(score))
    if not isinstance(clean["candidates"], list):
        raise _wrong("candidates is no list", "one record each", repr(clean["candidates"]))
    return clean


def _check_spread(value: Any, name: str, *, optional: bool) -> None:
    if optional and value is None:
        return
    ordered = (
        isinstance(value, Spread)
        and all(isinstance(part, numbers.Real) for part in vars(value).values())
        and 0.0 < value.lower <= value.median <= value.upper < math.inf
    )
    if not ordered:
        raise _wrong(f"{name} is no latency", "a Spread of positive numbers", repr(value))


def _spread(stored: Any, name: str) -> Spread:
    if not isinstance(stored, Mapping) or set(stored) != {"lower", "median", "upper"}:
        raise _wrong(f"{name} is no latency", "lower, median and upper", repr(stored))
    return Spread(**stored)


def _bound(value: Any) -> float:
    number = math.inf if value == "inf" else value
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not number >= 0.0:
        raise _wrong("error['bound'] is no bound", "a number >= 0, or inf", repr(value))
    return float(number)


def _is_inside(path: str) -> bool:
    place = PurePosixPath(path)
    return bool(place.parts) and not place.is_absolute() and ".." not in place.parts
