"""Checks of arguments, shared by every room.

``check_*`` returns the clean value or raises; ``is_*`` answers. ``where`` is always the public
name that the caller used, so that the message names it.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt

from ssmred.errors import DataError, OrderError, ShapeError, ToleranceError, message

__all__ = [
    "RECURRENCES",
    "check_array",
    "check_choice",
    "check_finite",
    "check_fraction",
    "check_horizon",
    "check_integer",
    "check_order",
    "check_positive",
    "check_real_array",
    "check_shape",
    "check_time_step",
    "check_tolerance",
    "is_complex_data",
]

RECURRENCES = ("standard", "post-update")
"""The two recurrences a system can be in; see docs/conventions.md."""


def check_finite(array: npt.ArrayLike, name: str, where: str) -> np.ndarray:
    """Return ``array`` if every entry is a finite number, raise DataError otherwise."""
    values = np.asarray(array)
    finite = np.isfinite(values)
    if not finite.all():
        index = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise DataError(
            message(
                where,
                f"{name} has {int((~finite).sum())} entries that are nan or inf",
                expected="finite numbers",
                got=f"{values[index]} at index {index}",
                cure="Remove or repair these values first.",
            )
        )
    return values


def check_array(array: Any, name: str, where: str) -> np.ndarray:
    """Return a finite float64 or complex128 copy of ``array``; complex only where the data is.

    Parameters
    ----------
    array : array_like
        Booleans, integers, floats or complex numbers of any precision.
    name, where : str
        Names of the argument and of the public function, for the message.

    Returns
    -------
    numpy.ndarray
        A C-contiguous copy, float64 or complex128.

    Raises
    ------
    ShapeError
        If the values are not numbers, or are ragged.
    DataError
        If a value is nan or inf.
    """
    try:
        values = np.asarray(array)
    except ValueError as error:  # NumPy's message for ragged lists
        raise ShapeError(
            message(where, f"{name} is not a rectangular array", got=str(error))
        ) from error
    if values.dtype.kind not in "biufc":
        raise ShapeError(
            message(
                where,
                f"{name} does not hold numbers",
                expected="real or complex numbers",
                got=f"dtype {values.dtype}",
                cure=f"Convert {name} to float64 or complex128.",
            )
        )
    kind = np.complex128 if values.dtype.kind == "c" else np.float64
    with np.errstate(over="ignore"):  # a longdouble beyond float64 becomes inf and is refused
        values = np.array(values, dtype=kind, order="C")
    return check_finite(values, name, where)


def check_real_array(array: Any, name: str, where: str) -> np.ndarray:
    """Return a finite float64 copy of ``array``; complex data is refused, never cast."""
    values = check_array(array, name, where)
    if values.dtype.kind == "c":
        raise ShapeError(
            message(
                where,
                f"{name} is complex",
                expected="real numbers",
                got=f"dtype {values.dtype}",
                cure=f"Pass {name}.real if the imaginary part is meant to be dropped.",
            )
        )
    return values


def is_complex_data(*arrays: np.ndarray) -> bool:
    """Tell whether any array has an entry with a non-zero imaginary part."""
    return any(np.iscomplexobj(a) and bool(np.any(a.imag != 0)) for a in arrays)


def check_shape(array: np.ndarray, shape: tuple[int | None, ...], name: str, where: str) -> None:
    """Raise ShapeError unless the trailing axes of ``array`` are ``shape`` (None: any length)."""
    got = array.shape[array.ndim - len(shape) :] if array.ndim >= len(shape) else ()
    fits = len(got) == len(shape) and all(
        want is None or want == have for want, have in zip(shape, got, strict=True)
    )
    if not fits:
        wanted = ", ".join("*" if want is None else str(want) for want in shape)
        raise ShapeError(
            message(
                where,
                f"{name} has the wrong shape",
                expected=f"(..., {wanted})",
                got=f"{array.shape}",
            )
        )


def check_integer(value: Any, name: str, where: str, *, low: int = 0) -> int:
    """Return ``value`` as an int of at least ``low``; booleans and fractions raise OrderError."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, (bool, np.bool_))
    if not whole or int(value) < low:
        raise OrderError(
            message(
                where, f"{name} is not usable", expected=f"an integer >= {low}", got=f"{value!r}"
            )
        )
    return int(value)


def check_order(value: Any, where: str, *, low: int = 0, high: int | None = None) -> int:
    """Return an order (number of states) between ``low`` and ``high`` or raise OrderError."""
    order = check_integer(value, "order", where, low=low)
    if high is not None and order > high:
        raise OrderError(
            message(
                where, "order exceeds the states there are", expected=f"<= {high}", got=f"{order}"
            )
        )
    return order


def check_horizon(horizon: Any, where: str) -> int | None:
    """Return the horizon as an int >= 1, or None for an infinite one."""
    if horizon is None:
        return None
    if isinstance(horizon, float) and math.isinf(horizon):
        raise OrderError(
            message(where, "horizon is inf", cure="Pass horizon=None for an infinite horizon.")
        )
    return check_integer(horizon, "horizon", where, low=1)


def check_positive(
    value: Any, name: str, where: str, *, allow_zero: bool = False, allow_inf: bool = False
) -> float:
    """Return ``value`` as a positive finite float or raise DataError."""
    number = _number(value)
    low_enough = number >= 0 if allow_zero else number > 0
    if not low_enough or (math.isinf(number) and not allow_inf):
        sign = ">= 0" if allow_zero else "> 0"
        raise DataError(
            message(where, f"{name} is not usable", expected=f"a number {sign}", got=f"{value!r}")
        )
    return number


def check_fraction(value: Any, name: str, where: str) -> float:
    """Return ``value`` as a float strictly between 0 and 1 or raise DataError."""
    number = _number(value)
    if not 0.0 < number < 1.0:
        raise DataError(
            message(where, f"{name} is not usable", expected="a number in (0, 1)", got=f"{value!r}")
        )
    return number


def check_tolerance(value: Any, where: str, *, name: str = "tol") -> float:
    """Return a tolerance as a positive finite float or raise ToleranceError."""
    number = _number(value)
    if not number > 0 or math.isinf(number):
        raise ToleranceError(
            message(
                where, f"{name} is not usable", expected="a finite number > 0", got=f"{value!r}"
            )
        )
    return number


def check_time_step(dt: Any, where: str) -> float:
    """Return dt as a float: > 0 for discrete time (True counts as 1.0), 0 for continuous time."""
    if isinstance(dt, (bool, np.bool_)) and dt:  # python-control's "some unspecified step"
        return 1.0
    number = math.nan if isinstance(dt, (bool, np.bool_)) else _number(dt)
    if not number >= 0 or math.isinf(number):
        raise DataError(
            message(
                where,
                "dt is not usable",
                expected="a number > 0 (discrete time) or 0 (continuous time)",
                got=f"{dt!r}",
                cure="Say which time the system lives in; it is never guessed.",
            )
        )
    return number


def check_choice(value: Any, choices: Collection[str], name: str, where: str) -> str:
    """Return ``value`` if it is one of ``choices`` or raise ShapeError naming them."""
    if not isinstance(value, str) or value not in choices:
        raise ShapeError(
            message(
                where,
                f"{name} is not known",
                expected="one of " + ", ".join(repr(c) for c in choices),
                got=f"{value!r}",
            )
        )
    return value


def _number(value: Any) -> float:
    """Return a real scalar as float, nan for anything else (nan fails every comparison)."""
    if isinstance(value, (bool, np.bool_)):
        return math.nan
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    return float(value) if isinstance(value, numbers.Real) else math.nan
