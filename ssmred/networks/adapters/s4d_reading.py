"""Read minimal S4D layers from named tensors, without the class that wrote them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ssmred.errors import CheckpointError, message
from ssmred.networks.adapters.s4_names import check_not_selective
from ssmred.networks.adapters.s4_reading import as_arrays
from ssmred.systems import DiagonalSystem
from ssmred.systems.linear import LinearSystem

__all__ = ["read_s4d", "recognises_tensors"]

_NAMES = ("C", "log_dt", "log_A_real", "A_imag")


def recognises_tensors(names_to_shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Tell whether named tensors are those of one minimal S4D layer; others may be among them."""
    return len(_prefixes(names_to_shapes)) == 1


def read_s4d(tensors: Mapping[str, Any]) -> dict[str, LinearSystem]:
    """Return ``{"core": system}`` of a minimal S4D layer from the tensors of its state dict.

    Parameters
    ----------
    tensors : mapping of str to array or torch.Tensor
        ``D (H)``, ``kernel.C (H, N/2, 2)``, ``kernel.log_dt (H)``, ``kernel.log_A_real`` and
        ``kernel.A_imag (H, N/2)``.

    Returns
    -------
    dict
        ``"core"``: DiagonalSystem, poles (H, N/2), C doubled, post-update, real outputs.

    Raises
    ------
    CheckpointError
        If a tensor is missing, misshapen, nan or inf; the key is named.
    """
    where = "read_s4d"
    arrays = as_arrays(tensors, where)
    check_not_selective(arrays, where=where)
    prefixes = _prefixes(arrays)
    if len(prefixes) != 1:
        told = ((n, key) for key in reversed(_NAMES) for n in arrays if _last(n) == key)
        start = next((name.removesuffix(key) for name, key in told), "")
        missing = [f"{start}{name}" for name in _NAMES if f"{start}{name}" not in arrays]
        problem = f"{missing[0]} is missing" if missing else "more than one S4D layer"
        raise CheckpointError(message(where, problem, got=", ".join(sorted(arrays))))
    prefix = prefixes[0]
    outer = prefix.removesuffix(".").rpartition(".")[0]
    D = f"{outer}.D" if outer else "D"
    if D not in arrays:
        raise CheckpointError(message(where, f"{D} is missing", got=", ".join(sorted(arrays))))
    inside = {n for n in arrays if n.startswith(prefix) and "." not in n.removeprefix(prefix)}
    for extra in sorted(inside - {f"{prefix}{name}" for name in _NAMES}):
        raise CheckpointError(message(where, f"{extra} is unknown", expected=", ".join(_NAMES)))
    own = {name: arrays[f"{prefix}{name}"] for name in _NAMES}
    channels, modes = (*own["C"].shape, 0, 0)[:2]
    shapes = {
        f"{prefix}C": (channels, modes, 2),
        f"{prefix}log_dt": (channels,),
        f"{prefix}log_A_real": (channels, modes),
        f"{prefix}A_imag": (channels, modes),
        D: (channels,),
    }
    for name, shape in shapes.items():
        if arrays[name].shape != shape or 0 in shape[1:]:
            raise CheckpointError(
                message(
                    where,
                    f"{name} has the wrong shape",
                    expected=f"{shape}",
                    got=f"{arrays[name].shape}",
                )
            )
    with np.errstate(over="ignore"):
        A = -np.exp(own["log_A_real"]) + 1j * own["A_imag"]
        dt = np.exp(own["log_dt"])[:, None]
    if not (np.isfinite(A) & (A.real < 0) & np.isfinite(dt) & (dt > 0)).all():
        raise CheckpointError(
            message(
                where,
                f"{prefix}log_A_real or {prefix}log_dt is out of range",
                expected="exponentials that are finite and not 0",
            )
        )
    C = own["C"][..., 0] + 1j * own["C"][..., 1]
    system = DiagonalSystem(
        np.exp(A * dt),
        (np.expm1(A * dt) / A)[..., None],
        2.0 * C[:, None, :],
        arrays[D][:, None, None],
        recurrence="post-update",
        real_output=True,
    )
    return {"core": system}


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _prefixes(names: Mapping[str, Any]) -> list[str]:
    found = [name.removesuffix("log_A_real") for name in names if name.endswith("log_A_real")]
    complete = [p for p in found if all(f"{p}{name}" in names for name in _NAMES)]
    return [p for p in complete if f"{p}B" not in names and f"{p}P" not in names]
