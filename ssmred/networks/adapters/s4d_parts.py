"""Recognise the parts of a minimal S4D layer and read its weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ssmred.errors import CheckpointError, message
from ssmred.networks.filters import is_core

__all__ = ["S4DParts", "find_parts", "own_tensors", "parts_of", "read_weights", "to_numpy"]

_KERNEL_NAMES = {"C", "log_dt", "log_A_real", "A_imag"}


@dataclass(frozen=True)
class S4DParts:
    """Name the submodules of a minimal S4D layer; an empty string means there is none.

    Attributes
    ----------
    kernel, activation, dropout, mixing : str
        Attribute names in the layer.
    channels, modes : int
        H and N/2.
    """

    kernel: str
    activation: str
    dropout: str
    mixing: str
    channels: int
    modes: int


def find_parts(module: nn.Module) -> S4DParts | None:
    """Return the parts of a minimal S4D layer, or None where the structure is another one.

    Looks at tensors only: ``D (H,)`` of the layer itself; one child that holds exactly
    ``C (H, N/2, 2)``, ``log_dt (H,)``, ``log_A_real`` and ``A_imag (H, N/2)``, parameters or
    buffers; at most one more child with tensors, a position-wise mixing from H channels; any
    number of children without tensors (activation, dropout).
    """
    if set(own_tensors(module)) != {"D"} or is_core(module):
        return None
    children = dict(module.named_children())
    kernels = [n for n, c in children.items() if set(own_tensors(c)) == _KERNEL_NAMES]
    if len(kernels) != 1 or any(True for _ in children[kernels[0]].children()):
        return None
    stored = own_tensors(children.pop(kernels[0]))
    channels = module.D.numel()
    modes = stored["A_imag"].shape[-1] if stored["A_imag"].ndim == 2 else -1
    shapes = {
        "C": (channels, modes, 2),
        "log_dt": (channels,),
        "log_A_real": (channels, modes),
        "A_imag": (channels, modes),
    }
    if module.D.shape != (channels,) or any(stored[n].shape != s for n, s in shapes.items()):
        return None
    mixing = [name for name, child in children.items() if child.state_dict()]
    if len(mixing) > 1 or any(not _is_mixing(children[name], channels) for name in mixing):
        return None
    free = [name for name in children if name not in mixing]
    dropout = [name for name in free if "drop" in f"{name} {type(children[name])}".lower()]
    activation = [name for name in free if name not in dropout]
    if len(dropout) > 1 or len(activation) > 1:
        return None
    first = [names[0] if names else "" for names in (activation, dropout, mixing)]
    return S4DParts(kernels[0], *first, channels, modes)


def read_weights(module: nn.Module, parts: S4DParts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return A (H, N/2), dt (H,) and C (H, N/2) of the stored weights in float64."""
    stored = {n: to_numpy(t) for n, t in own_tensors(getattr(module, parts.kernel)).items()}
    for name, values in [("D", to_numpy(module.D)), *stored.items()]:
        key = name if name == "D" else f"{parts.kernel}.{name}"
        if not np.isfinite(values).all():
            raise CheckpointError(
                message("S4DAdapter", f"{key} holds nan or inf", expected="finite numbers")
            )
    with np.errstate(over="ignore"):
        A = -np.exp(stored["log_A_real"]) + 1j * stored["A_imag"]
        dt = np.exp(stored["log_dt"])
    if not (np.isfinite(A).all() and np.isfinite(dt).all() and (A != 0).all()):
        raise CheckpointError(
            message(
                "S4DAdapter",
                f"{parts.kernel}.log_A_real or {parts.kernel}.log_dt is out of range",
                expected="exp(log_dt) finite, exp(log_A_real) finite and not 0",
            )
        )
    return A, dt, stored["C"][..., 0] + 1j * stored["C"][..., 1]


def parts_of(module: nn.Module) -> S4DParts:
    """Return the parts of a minimal S4D layer or raise CheckpointError."""
    parts = find_parts(module)
    if parts is None:
        raise CheckpointError(
            message(
                "S4DAdapter",
                f"{type(module).__name__} is not a minimal S4D layer",
                expected="tensors D, C, log_dt, log_A_real, A_imag and a position-wise mixing",
            )
        )
    return parts


def own_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return the parameters and buffers that a module holds itself."""
    return dict(module.named_parameters(recurse=False)) | dict(module.named_buffers(recurse=False))


def _is_mixing(module: nn.Module, channels: int) -> bool:
    members = list(module) if isinstance(module, nn.Sequential) else [module]
    first, rest = (members[0], members[1:]) if members else (None, [])
    return (
        isinstance(first, nn.Conv1d)
        and (first.in_channels, first.kernel_size, first.groups) == (channels, (1,), 1)
        and all(not m.state_dict() and not any(True for _ in m.children()) for m in rest)
    )


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """Return a tensor as float64 array."""
    return tensor.detach().cpu().to(torch.float64).numpy()
