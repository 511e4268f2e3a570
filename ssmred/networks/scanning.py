"""Whether the states of a sequence may be found by the compiled recurrence, and that."""

from __future__ import annotations

import torch
from torch.autograd import forward_ad
from torch.jit._trace import is_tracing

from ssmred.kernels.scan import scan_states

__all__ = ["can_scan", "scan"]


def can_scan(poles: torch.Tensor, drive: torch.Tensor) -> bool:
    """Return whether `scan` may run: on a CPU, no gradients wanted, nothing being traced."""
    learning = torch.is_grad_enabled() and (drive.requires_grad or poles.requires_grad)
    traced = torch.compiler.is_compiling() or is_tracing() or _is_wrapped(drive)
    return drive.device.type == "cpu" and not learning and not traced


def scan(poles: torch.Tensor, drive: torch.Tensor) -> torch.Tensor:
    """Return the states of the modes, and overwrite what drives them.

    Parameters
    ----------
    poles : torch.Tensor, (n, 2) float64
        Real and imaginary parts, as of the states.
    drive : torch.Tensor, (..., n, T, 2) float64 or float32

    Returns
    -------
    torch.Tensor, (..., n, T, 2)
    """
    drive = drive.detach().contiguous()
    scan_states(poles.detach().contiguous().numpy(), drive.numpy().reshape(-1, *drive.shape[-3:]))
    return drive


def _is_wrapped(tensor: torch.Tensor) -> bool:
    """Whether vmap, jvp or a tracer looks through the tensor, so that it has no memory."""
    try:
        tensor.detach().data_ptr()
    except RuntimeError:
        return True
    if forward_ad.unpack_dual(tensor).tangent is not None:
        return True
    return type(tensor) not in (torch.Tensor, torch.nn.Parameter)
