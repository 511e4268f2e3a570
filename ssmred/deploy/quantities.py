"""Write times and sizes as people read them, in columns."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["aligned", "quantity"]

_UNITS = {
    "s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")),
    "B": ((2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B")),
}


def quantity(value: float, unit: str) -> str:
    """Return a time ("s") or a size ("B") with three significant digits and a handy unit.

    Examples
    --------
    >>> quantity(0.00123456, "s"), quantity(2048.0, "B")
    ('1.23 ms', '2 KiB')
    """
    units = _UNITS[unit]
    factor, symbol = next((pair for pair in units if value >= pair[0]), units[-1])
    scaled = value / factor
    return f"{scaled:.0f} {symbol}" if scaled >= 99.95 else f"{scaled:.3g} {symbol}"


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Return lines of cells as text in columns, the first to the left, with a rule below line 1.

    Examples
    --------
    >>> for line in aligned([("what", "time"), ("whole", "8 ms"), ("step", "40 us")]):
    ...     print(line)
    what    time
    -----  -----
    whole   8 ms
    step   40 us
    """
    widths = [max(len(line[j]) for line in lines) for j in range(len(lines[0]))]
    rows = [
        "  ".join(
            cell.rjust(width) if j else cell.ljust(width)
            for j, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return [rows[0], "  ".join("-" * width for width in widths), *rows[1:]]
