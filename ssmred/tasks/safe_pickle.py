"""Read the arrays of a pickle without trusting it.

A pickle is a program: it may call any function of any module. Data sets are still handed out as
pickles, so this reader runs them with a dictionary of what they may name, a few stand-ins for the
functions with which NumPy writes arrays. The stand-ins only note what they are given; arrays are
made afterwards, from sizes and bytes that agree. Whatever else a pickle names is refused before it
is imported.
"""

from __future__ import annotations

import io
import math
import pickle
import re
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from ssmred.errors import DataError, message

__all__ = ["read_npy", "read_pickle"]

PLAIN = re.compile(r"[<>|=]?(?:b1|[iu][1248]|f[248]|[SU]\d{1,6}|O8?|[?bBhHiIlLqQefd])")
"""Types of entries: numbers, strings, and objects where a list holds them."""

DEPTH = 50
"""Deepest nesting of containers."""


def read_pickle(path: str | Path, where: str, *, start: int = 0) -> Any:
    """Return what a pickle holds: dicts, lists, tuples, strings, bytes, numbers and arrays.

    Parameters
    ----------
    path : path
    where : str
        The function that refuses.
    start : int
        First byte of the pickle in the file.

    Raises
    ------
    DataError
        If the pickle names anything but NumPy's arrays, or is damaged.

    Notes
    -----
    Strings of Python 2 come as bytes.
    """
    with Path(path).open("rb") as file:
        file.seek(start)
        data = file.read()
    try:
        return _made(_Reader(io.BytesIO(data), encoding="bytes").load(), DEPTH, {})
    except _RefusedError as error:
        raise DataError(
            message(
                where,
                f"{path} is refused, for it holds {error}",
                expected="a pickle of arrays, strings, numbers, lists and dicts",
                cure="Unpickling it elsewhere could run any program; ask for another file.",
            )
        ) from None
    except Exception as error:  # a damaged pickle fails in any way there is
        raise DataError(
            message(where, f"{path} is no pickle of arrays", got=f"{type(error).__name__}: {error}")
        ) from error


def read_npy(path: str | Path, where: str) -> np.ndarray:
    """Return the array of an .npy file; one of objects is read as `read_pickle` does.

    Raises
    ------
    DataError
        If the file is damaged, or refused.
    """
    try:
        with Path(path).open("rb") as file:
            version = np.lib.format.read_magic(file)
            header = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            _, _, dtype = header(file)
            start = file.tell()
        if not dtype.hasobject:
            return np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise DataError(message(where, f"{path} is no .npy file", got=str(error))) from error
    found = read_pickle(path, where, start=start)
    if not isinstance(found, np.ndarray):
        raise DataError(message(where, f"{path} holds no array", got=type(found).__name__))
    return found


class _RefusedError(Exception):
    """A name that no pickle of arrays needs."""


class _StandIn:
    """Something that a pickle may name; it cannot be changed by the pickle."""

    __slots__ = ()

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise _RefusedError(f"an attribute {name!r}")

    def __setstate__(self, state: object) -> None:
        raise _RefusedError(f"a state of {type(self).__name__}")

    def __reduce__(self) -> NoReturn:
        raise _RefusedError(type(self).__name__)


class _ArrayClass(_StandIn):
    """``numpy.ndarray``, which is passed on and never called."""

    __slots__ = ()


class _Type(_StandIn):
    """A dtype: its text, and the byte order that its state brings."""

    __slots__ = ("order", "text")

    def __init__(self, text: str) -> None:
        object.__setattr__(self, "text", text)
        object.__setattr__(self, "order", "|")

    def __setstate__(self, state: object) -> None:
        """Take the byte order; refuse fields, shapes and metadata."""
        if (
            not isinstance(state, tuple)
            or len(state) < 5
            or any(part is not None for part in state[2:5])
        ):
            raise _RefusedError("a dtype with fields")
        object.__setattr__(self, "order", _text(state[1]))

    def dtype(self) -> np.dtype:
        """Return the dtype."""
        found = np.dtype(self.text)
        return found.newbyteorder(self.order) if self.order in ("<", ">") else found


class _Array(_StandIn):
    """An array to be: its type, shape, order and bytes, or its list of objects."""

    __slots__ = ("parts",)

    def __init__(self, parts: tuple | None = None) -> None:
        object.__setattr__(self, "parts", parts)

    def __setstate__(self, state: object) -> None:
        """Take ``(version, shape, dtype, is_fortran, data)``."""
        if not isinstance(state, tuple) or len(state) != 5 or self.parts is not None:
            raise _RefusedError("an array with another state")
        _, shape, dtype, fortran, data = state
        object.__setattr__(self, "parts", (shape, dtype, "F" if fortran else "C", data))

    def array(self, depth: int, made: dict[int, Any]) -> np.ndarray:
        """Return the array; its bytes must be as many as its shape says."""
        shape, dtype, order, data = self.parts or (None,) * 4
        if (
            not isinstance(dtype, _Type)
            or not isinstance(shape, tuple)
            or not all(isinstance(size, int) and size >= 0 for size in shape)
        ):
            raise _RefusedError("an array without type or shape")
        kind, count = dtype.dtype(), math.prod(shape)
        if kind.hasobject:
            if not isinstance(data, list) or len(data) != count:
                raise _RefusedError("an array of objects without a list of them")
            flat = np.empty(count, dtype=object)
            for i, entry in enumerate(data):
                flat[i] = _made(entry, depth - 1, made)
            return flat.reshape(shape, order=order)
        if not isinstance(data, (bytes, bytearray)) or len(data) != count * kind.itemsize:
            raise _RefusedError("an array with another number of bytes")
        return np.frombuffer(bytes(data), dtype=kind).reshape(shape, order=order).copy()


class _MakeType(_StandIn):
    """``numpy.dtype(text, align, copy)``."""

    __slots__ = ()

    def __call__(self, text: object, *_: object) -> _Type:
        """Return the type if it is one of plain entries."""
        name = _text(text)
        if not PLAIN.fullmatch(name):
            raise _RefusedError(f"the dtype {name!r}")
        return _Type(name)


class _MakeArray(_StandIn):
    """``_reconstruct(ndarray, shape, type)``: an empty array, whose state follows."""

    __slots__ = ()

    def __call__(self, subtype: object, *_: object) -> _Array:
        """Return an array without parts."""
        if not isinstance(subtype, _ArrayClass):
            raise _RefusedError("an array of another class")
        return _Array()


class _FromBuffer(_StandIn):
    """``_frombuffer(data, dtype, shape, order)``, protocol 5."""

    __slots__ = ()

    def __call__(self, data: object, dtype: object, shape: object, order: object) -> _Array:
        """Return the array."""
        return _Array((shape, dtype, "F" if _text(order) == "F" else "C", data))


class _Scalar(_StandIn):
    """``scalar(dtype, data)``: a NumPy number."""

    __slots__ = ()

    def __call__(self, dtype: object, data: object) -> _Array:
        """Return an array of no axes."""
        return _Array(((), dtype, "C", data))


class _Encode(_StandIn):
    """``_codecs.encode(text, "latin1")``, by which Python 3 writes bytes for Python 2."""

    __slots__ = ()

    def __call__(self, text: object, encoding: object) -> bytes:
        """Return the bytes."""
        if not isinstance(text, str) or _text(encoding) not in ("latin1", "latin-1"):
            raise _RefusedError("an encoding")
        return text.encode("latin-1")


class _NoBytes(_StandIn):
    """``bytes()``, by which Python 3 writes no bytes for Python 2."""

    __slots__ = ()

    def __call__(self) -> bytes:
        """Return no bytes."""
        return b""


_NUMPY = ("numpy.core", "numpy._core")
_ALLOWED: dict[tuple[str, str], type[_StandIn]] = {
    ("numpy", "ndarray"): _ArrayClass,
    ("numpy", "dtype"): _MakeType,
    ("_codecs", "encode"): _Encode,
    ("__builtin__", "bytes"): _NoBytes,
    **{(f"{core}.multiarray", "_reconstruct"): _MakeArray for core in _NUMPY},
    **{(f"{core}.multiarray", "scalar"): _Scalar for core in _NUMPY},
    **{(f"{core}.numeric", "_frombuffer"): _FromBuffer for core in _NUMPY},
}


class _Reader(pickle.Unpickler):
    """An unpickler that imports nothing."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a stand-in, or refuse the name."""
        if (module, name) not in _ALLOWED:
            raise _RefusedError(f"the name {module}.{name}")
        return _ALLOWED[module, name]()

    def persistent_load(self, pid: Any) -> NoReturn:
        """Refuse objects that are kept elsewhere."""
        raise _RefusedError("an object outside")


def _text(value: object) -> str:
    """Return a string, which Python 2 wrote as bytes."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if not isinstance(value, str):
        raise _RefusedError(f"a {type(value).__name__} where a string belongs")
    return value


def _made(value: Any, depth: int, made: dict[int, Any]) -> Any:
    """Return the value with arrays in place of what stands for them.

    `made` remembers values by their identity: one that is held many times is made once.
    """
    if not isinstance(value, (_StandIn, dict, list, tuple, set, frozenset)):
        return value
    if depth < 0:
        raise _RefusedError("containers within containers without end")
    if id(value) not in made:
        made[id(value)] = _rebuilt(value, depth, made)
    return made[id(value)]


def _rebuilt(value: Any, depth: int, made: dict[int, Any]) -> Any:
    if isinstance(value, _Array):
        array = value.array(depth, made)
        return array[()] if array.ndim == 0 else array
    if isinstance(value, _StandIn):
        raise _RefusedError(f"a bare {type(value).__name__.strip('_')}")
    if isinstance(value, dict):
        return {
            _made(key, depth - 1, made): _made(entry, depth - 1, made)
            for key, entry in value.items()
        }
    if isinstance(value, (set, frozenset)):
        raise _RefusedError("a set")
    return type(value)(_made(entry, depth - 1, made) for entry in value)
