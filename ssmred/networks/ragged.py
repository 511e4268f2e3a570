"""Tensors of ragged diagonal layers: complex pairs, checks of stored ones, tables of powers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ssmred.errors import CheckpointError, OrderError, message
from ssmred.kernels.powers import fill_power_tables

__all__ = ["as_complex", "as_pairs", "check_stored", "check_tensors", "power_tables", "to_pairs"]


def as_pairs(values: Any, modes: int, name: str) -> torch.Tensor:
    """Return complex values as a (modes, 2) float64 tensor; zeros for None."""
    array = np.zeros(modes) if values is None else np.asarray(values)
    if array.shape != (modes,):
        raise OrderError(
            message(
                "ReducedSSM",
                f"{name} do not match the orders",
                expected=f"({modes},)",
                got=f"{array.shape}",
            )
        )
    return to_pairs(array)


def to_pairs(array: np.ndarray) -> torch.Tensor:
    """Return complex numbers (...) as real and imaginary parts, (..., 2) float64."""
    array = np.ascontiguousarray(array, dtype=np.complex128)
    if array.size == 0:  # NumPy's strides of nothing are none that torch reads as pairs
        return torch.zeros(*array.shape, 2, dtype=torch.float64)
    return torch.from_numpy(array.view(np.float64).reshape(*array.shape, 2).copy())


def as_complex(pairs: torch.Tensor) -> np.ndarray:
    """Return real and imaginary parts (..., 2) as (...) complex128 array."""
    return np.ascontiguousarray(pairs.detach().cpu().numpy()).view(np.complex128)[..., 0]


def power_tables(pairs: torch.Tensor, block: int, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``l^0 ... l^(block - 1)`` and ``l^0, l^block, ...``; block is a power of two."""
    if pairs.device.type == "cpu" and not (torch.is_grad_enabled() and pairs.requires_grad):
        fine = np.empty((len(pairs), block), dtype=np.complex128)
        coarse = np.empty((len(pairs), rows), dtype=np.complex128)
        threads = torch.get_num_threads()
        fill_power_tables(as_complex(pairs), fine, coarse)
        torch.set_num_threads(threads)  # Numba's thread pool changes what torch's libraries use
        return torch.from_numpy(fine), torch.from_numpy(coarse)
    poles = torch.view_as_complex(pairs)
    stride = poles
    for _ in range(block.bit_length() - 1):
        stride = stride * stride
    return _powers(poles, block), _powers(stride, rows)


def _powers(base: torch.Tensor, count: int) -> torch.Tensor:
    """Return ``base**0 ... base**(count - 1)``, (K, count), by doubling; exact zeros stay zero."""
    table = torch.ones_like(base)[:, None]
    while table.shape[1] < count:
        table = torch.cat([table, table * base[:, None]], dim=1)
        base = base * base
    return table[:, :count]


def check_stored(stored: dict[str, torch.Tensor], prefix: str) -> None:
    """Raise CheckpointError unless the four tensors of a state dict describe one layer."""
    offsets = stored["offsets"]
    good = offsets.ndim == 1 and offsets.numel() >= 1 and offsets.dtype == torch.int64
    good = good and int(offsets[0]) == 0 and bool((offsets.diff() >= 0).all())
    if not good:
        raise CheckpointError(
            message(
                "ReducedSSM",
                f"{prefix}offsets is not a list of channel boundaries",
                expected="int64, starting at 0, never falling",
                got=f"{offsets.dtype} {tuple(offsets.shape)}",
            )
        )
    modes, channels = int(offsets[-1]), offsets.numel() - 1
    shapes = {"poles": (modes, 2), "residues": (modes, 2), "D": (channels,)}
    check_tensors("ReducedSSM", stored, shapes, prefix)


def check_tensors(
    where: str,
    stored: dict[str, torch.Tensor],
    shapes: dict[str, tuple[int, ...]],
    prefix: str,
) -> None:
    """Raise CheckpointError, naming the key, unless tensors are float64 of these shapes, finite."""
    for name, shape in shapes.items():
        tensor = stored[name]
        if tuple(tensor.shape) != shape or tensor.dtype != torch.float64:
            raise CheckpointError(
                message(
                    where,
                    f"{prefix}{name} does not fit the layer",
                    expected=f"float64 {shape}",
                    got=f"{tensor.dtype} {tuple(tensor.shape)}",
                )
            )
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(
                message(where, f"{prefix}{name} holds nan or inf", expected="finite numbers")
            )
