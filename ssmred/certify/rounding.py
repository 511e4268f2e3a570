"""Write bounds down with few digits, never smaller than they are."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, Context

__all__ = ["percent_up", "rounded_up"]


def rounded_up(value: float, digits: int = 3) -> str:
    """Return a bound with so many digits, never less than it is.

    Examples
    --------
    >>> rounded_up(0.0300100), rounded_up(0.05), rounded_up(math.inf)
    ('0.0301', '0.05', 'inf')
    """
    if not math.isfinite(value):
        return f"{value:g}"
    # of the shortest decimal that names the float, so that 0.05 stays 0.05
    above = Context(prec=digits, rounding=ROUND_CEILING).create_decimal(repr(float(value)))
    return f"{float(above):.{digits}g}"


def percent_up(share: float) -> str:
    """Return a bound on a share in per cent.

    Examples
    --------
    >>> percent_up(0.0185274), percent_up(1.0)
    ('1.86 %', '100 %')
    """
    return f"{rounded_up(100.0 * share)} %"
