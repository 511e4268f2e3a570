"""Plain-text tables with aligned columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Integral, Real

from ssmred.errors import ShapeError, message

__all__ = ["table"]

_MISSING = "-"


def table(rows: Iterable[Sequence[object]], headers: Sequence[str]) -> str:
    """Return rows as aligned plain text: numbers to the right, words to the left.

    Parameters
    ----------
    rows : iterable of sequences
        One sequence per row, as long as ``headers``. None is shown as ``-``; a float with four
        significant digits; everything else through ``str``.
    headers : sequence of str
        Column titles.

    Returns
    -------
    str
        Title line, rule, one line per row; no trailing newline and no trailing spaces.

    Raises
    ------
    ShapeError
        If a row has another length than the headers.

    Examples
    --------
    >>> print(table([["layer 0", 64, 1.5e-7], ["layer 1", 8, None]], ["name", "states", "error"]))
    name     states    error
    -------  ------  -------
    layer 0      64  1.5e-07
    layer 1       8        -
    """
    titles = [str(title) for title in headers]
    given = [list(row) for row in rows]
    for index, row in enumerate(given):
        if len(row) != len(titles):
            raise ShapeError(
                message(
                    "table",
                    f"row {index} has the wrong length",
                    expected=f"{len(titles)} cells",
                    got=f"{len(row)}",
                )
            )
    cells = [[_text(value) for value in row] for row in given]
    widths = [max(len(row[j]) for row in [titles, *cells]) for j in range(len(titles))]
    right = [_is_numeric([row[j] for row in given]) for j in range(len(titles))]
    lines = [titles, ["-" * width for width in widths], *cells]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if numeric else cell.ljust(width)
            for cell, width, numeric in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    )


def _text(value: object) -> str:
    if value is None:
        return _MISSING
    if isinstance(value, Real) and not isinstance(value, Integral):
        return f"{float(value):.4g}"
    return str(value)


def _is_numeric(column: list[object]) -> bool:
    known = [value for value in column if value is not None]
    return bool(known) and all(
        (isinstance(value, Real) and not isinstance(value, bool))
        or (isinstance(value, str) and value[:1].isdigit())  # "1.23 ms", "85.4 %"
        for value in known
    )
