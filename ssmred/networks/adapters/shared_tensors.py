"""Named tensors of one shared-state layer (S5, LRU), from a file or a module, without its class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

from ssmred.errors import CheckpointError, message
from ssmred.networks.adapters.s4_names import check_not_selective

__all__ = [
    "LayerTensors",
    "as_tensor",
    "layer_prefix",
    "like",
    "prefixes",
    "to_float64",
]

_SEPARATORS = "./"


class LayerTensors:
    """Hand out the tensors of one layer in double precision; every refusal names the key.

    Parameters
    ----------
    tensors : mapping of str to array_like or torch.Tensor
        A state dict, or a flattened parameter tree with ``.`` or ``/`` in its keys.
    prefix : str
        What the layer's keys begin with, separator included; keys without it are not looked at.
    where : str
        The public name that refuses.

    Attributes
    ----------
    stored : dict of str to torch.Tensor
        The layer's tensors as they are, by their names behind the prefix.
    sizes : dict of str to int
        Lengths of named axes, fixed by the first tensor that has them.
    """

    def __init__(self, tensors: Mapping[str, Any], prefix: str, where: str) -> None:
        self.prefix, self.where = prefix, where
        self.stored = {
            key[len(prefix) :]: as_tensor(value, key, where)
            for key, value in tensors.items()
            if key.startswith(prefix)
        }
        self.sizes: dict[str, int] = {}

    def check_names(self, required: Iterable[str], optional: Iterable[str] = ()) -> None:
        """Raise CheckpointError if a key is missing or there is one too many."""
        required = set(required)
        missing = sorted(required - self.stored.keys())
        extra = sorted(self.stored.keys() - required - set(optional))
        for keys, problem in ((missing, "is missing"), (extra, "is not of this layer")):
            if keys:
                raise CheckpointError(
                    message(
                        self.where,
                        f"{', '.join(self.prefix + key for key in keys)} {problem}",
                        expected=f"{', '.join(self.prefix + key for key in sorted(required))}",
                    )
                )

    def take(self, name: str, *axes: int | str, infinite: float | None = None) -> np.ndarray:
        """Return a real tensor; named axes must have one length throughout the layer.

        Parameters
        ----------
        name : str
        *axes : int or str
            Length of an axis, or the name of the length.
        infinite : float, optional
            The one value that is allowed besides finite ones.

        Raises
        ------
        CheckpointError
            If the shape does not fit, or a value is complex, nan or inf.
        """
        tensor = self.stored[name]
        if tensor.is_complex():
            raise self._refuse(name, "is complex", "real numbers", str(tensor.dtype))
        self._bind(name, tuple(tensor.shape), axes)
        return self._finite(name, to_float64(tensor), infinite)

    def take_complex(self, name: str, *axes: int | str) -> np.ndarray:
        """Return a complex tensor, stored as such or with (real, imaginary) as last axis."""
        tensor = self.stored[name]
        if tensor.is_complex():
            self._bind(name, tuple(tensor.shape), axes)
            return self._finite(name, to_float64(tensor))
        self._bind(name, tuple(tensor.shape), (*axes, 2))
        values = self._finite(name, to_float64(tensor))
        return values[..., 0] + 1j * values[..., 1]

    def _bind(self, name: str, shape: tuple[int, ...], axes: tuple[int | str, ...]) -> None:
        fits = len(shape) == len(axes)
        for length, axis in zip(shape, axes, strict=False):
            wanted = axis if isinstance(axis, int) else self.sizes.get(axis, max(length, 1))
            fits = fits and length == wanted
        if not fits:
            known = [f"{self.sizes.get(str(axis), axis)}" for axis in axes]
            raise self._refuse(name, "has the wrong shape", f"({', '.join(known)})", str(shape))
        self.sizes |= {axis: n for n, axis in zip(shape, axes, strict=True) if axis != n}

    def _finite(self, name: str, values: np.ndarray, infinite: float | None = None) -> np.ndarray:
        good = np.isfinite(values)
        if infinite is not None:
            good |= values == infinite
        if not good.all():
            index = tuple(int(i) for i in np.argwhere(~good)[0])
            raise self._refuse(
                name, "holds nan or inf", "finite numbers", f"{values[index]} at {index}"
            )
        return values

    def _refuse(self, name: str, problem: str, expected: str, got: str) -> CheckpointError:
        text = message(self.where, f"{self.prefix}{name} {problem}", expected=expected, got=got)
        return CheckpointError(text)


def prefixes(names: Iterable[str], markers: Iterable[Iterable[str]]) -> list[str]:
    """Return where in a checkpoint layers lie: prefixes behind which all names of a marker follow.

    Examples
    --------
    >>> prefixes(["enc.w", "l.0/seq/nu_log", "l.0/seq/theta_log"], [("nu_log", "theta_log")])
    ['l.0/seq/']
    """
    names = list(dict.fromkeys(names))
    found = dict.fromkeys(name[: len(name) - len(_leaf(name))] for name in names)
    groups = [set(marker) for marker in markers]
    return [p for p in found if any(all(p + n in names for n in group) for group in groups)]


def layer_prefix(
    tensors: Mapping[str, Any], markers: Iterable[frozenset[str]], family: str, where: str
) -> str:
    """Return the prefix of the only layer of a family among named tensors.

    Raises
    ------
    CheckpointError
        If there is none, naming what is missing where a layer is incomplete, or more than one.
    UnsupportedOperationError
        If the tensors are those of a selective layer.
    """
    check_not_selective(tensors, where=where)
    markers = list(markers)
    found = prefixes(tensors, markers)
    if len(found) == 1:
        return found[0]
    expected = " or ".join(", ".join(sorted(marker)) for marker in markers)
    if found:
        raise CheckpointError(
            message(where, f"more than one {family} layer", expected="one", got=", ".join(found))
        )
    lacks = []
    for prefix in {name[: len(name) - len(_leaf(name))] for name in tensors}:
        for marker in markers:
            missing = sorted(name for name in marker if prefix + name not in tensors)
            if len(missing) <= 2:
                lacks.append((len(missing), -len(marker), prefix, missing))
    if lacks:
        *_, prefix, missing = min(lacks)
        problem = f"{', '.join(prefix + name for name in missing)} is missing"
    else:
        problem = f"no {family} layer"
    raise CheckpointError(
        message(where, problem, expected=expected, got=", ".join(sorted(tensors)) or "nothing")
    )


def _leaf(name: str) -> str:
    return name[max(name.rfind(mark) for mark in _SEPARATORS) + 1 :]


def as_tensor(value: Any, key: str = "value", where: str = "as_tensor") -> torch.Tensor:
    """Return an array as a tensor of its own dtype on the CPU; refuse what is not numbers."""
    if not isinstance(value, torch.Tensor):
        array = np.asarray(value)
        if array.dtype.kind not in "fc" or array.dtype.itemsize > 16:
            raise CheckpointError(
                message(
                    where,
                    f"{key} does not hold floating-point numbers",
                    got=f"dtype {array.dtype}",
                    cure="Give an array per key; flatten nested trees to keys with '/' or '.'.",
                )
            )
        value = torch.from_numpy(np.array(array))
    return value.detach().cpu()


def to_float64(tensor: torch.Tensor) -> np.ndarray:
    """Return a tensor as float64 or complex128 array; exact."""
    kind = torch.complex128 if tensor.is_complex() else torch.float64
    return tensor.detach().cpu().to(kind).resolve_conj().numpy()


def like(template: torch.Tensor, values: np.ndarray) -> torch.Tensor:
    """Return values in a tensor's dtype, a complex array as (real, imaginary) if it is real."""
    if np.iscomplexobj(values) and not template.is_complex():
        values = np.stack([values.real, values.imag], axis=-1)
    return torch.from_numpy(np.array(values)).to(template.device, template.dtype)
