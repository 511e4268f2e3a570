"""Write down the call that makes a reduction again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssmred.certify import InputSet
from ssmred.errors import DataError, message

__all__ = ["call_text"]

ARGUMENTS = (
    "tol",
    "states",
    "horizon",
    "inputs",
    "guarantee",
    "metric",
    "method",
    "feedthrough",
    "division",
    "coverage",
    "confidence",
    "seed",
)
"""Arguments of `ssmred.reduce` that are written out; the others are ``model`` and ``data``."""


def call_text(request: Mapping[str, Any]) -> str:
    """Return Python that asks for a reduction again, every argument written out.

    What is written is safe to run: a request read from a file holds names and values, no code.

    Parameters
    ----------
    request : mapping
        ``ReductionResult.request``.

    Raises
    ------
    DataError
        If it holds anything but arguments of `ssmred.reduce`.

    Examples
    --------
    >>> print(call_text({"tol": 0.01, "inputs": None, "data": None, "seed": 0}))
    import ssmred
    <BLANKLINE>
    # model: the original network, whose hash is below
    result = ssmred.reduce(
        model,
        tol=0.01,
        seed=0,
    )
    """
    try:
        unknown = sorted(set(request) - {*ARGUMENTS, "data"})
        if unknown:
            raise ValueError(f"it has no argument {unknown[0]!r}")
        lines = ["import ssmred", "", "# model: the original network, whose hash is below"]
        data = request.get("data")
        if data is not None:
            shape = ", ".join(str(int(size)) for size in data["shape"])
            lines.append(f"# data: {data['dtype']!r}, shape ({shape}), SHA-256 {data['sha256']!r}")
        lines += ["result = ssmred.reduce(", "    model,"]
        lines += [] if data is None else ["    data=data,"]
        for name in ARGUMENTS:
            value = request.get(name)
            if value is not None:
                lines.append(f"    {name}={_literal(value)},")
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            message(
                "report",
                f"the request that was recorded is none of ssmred.reduce ({error})",
                cure="The folder was edited or damaged: reduce again.",
            )
        ) from error
    return "\n".join([*lines, ")"])


def _literal(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"ssmred.{InputSet.from_json(value)!r}"
    if not isinstance(value, (int, float, str)):
        raise TypeError(f"{value!r} is no argument")
    return repr(value)
