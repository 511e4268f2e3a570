"""The states of diagonal systems along sequences, by a compiled recurrence with gradients.

Sequences of states and of what drives them are real arrays ``(..., 2, n, T)``: all real parts, then
all imaginary ones. So a complex matrix drives or reads states by one real product, copying nothing.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.autograd import forward_ad
from torch.jit._trace import is_tracing

from ssmred.kernels.scan import scan_costates, scan_states

__all__ = ["can_scan", "drive_of", "read_of", "scan"]


def drive_of(real: torch.Tensor, imaginary: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Return ``B u`` of real sequences, (..., m, T) to (..., 2, n, T), for the parts of B (n, m).

    In the dtype of `u`.
    """
    return _times(torch.cat([real, imaginary]).to(u.dtype), u).unflatten(-2, (2, len(real)))


def read_of(real: torch.Tensor, imaginary: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Return ``Re(C x)``, (..., 2, n, T) to (..., p, T), for the parts of C (p, n)."""
    return _times(torch.cat([real, -imaginary], dim=-1).to(x.dtype), x.flatten(-3, -2))


def can_scan(poles: torch.Tensor, drive: torch.Tensor) -> bool:
    """Return whether `scan` may run: on a CPU, nothing being compiled, traced or looked through."""
    if drive.device.type != "cpu" or drive.dtype not in (torch.float32, torch.float64):
        return False
    traced = torch.compiler.is_compiling() or is_tracing()
    return not (traced or _is_wrapped(poles) or _is_wrapped(drive))


def scan(poles: torch.Tensor, drive: torch.Tensor) -> torch.Tensor:
    """Return the states of the modes: ``x_k = l x_{k-1} + v_k``.

    Parameters
    ----------
    poles : torch.Tensor, (n, 2) float64
        Real and imaginary parts.
    drive : torch.Tensor, (..., 2, n, T) float64 or float32
        May be overwritten.

    Returns
    -------
    torch.Tensor, (..., 2, n, T)

    Notes
    -----
    Differentiable, twice too. Backwards the adjoint recurrence runs, in a compiled loop as well.
    """
    if torch.is_grad_enabled() and (poles.requires_grad or drive.requires_grad):
        return _Scan.apply(poles, drive)
    drive = drive.detach().contiguous()
    _scan(poles, drive, drive)
    return drive


class _Scan(torch.autograd.Function):
    """The recurrence forwards, its adjoint backwards."""

    @staticmethod
    def forward(ctx: Any, poles: torch.Tensor, drive: torch.Tensor) -> torch.Tensor:
        drive = drive.contiguous()
        states = torch.empty_like(drive)
        _scan(poles, drive, states)
        ctx.save_for_backward(poles, states)
        return states

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        poles, states = ctx.saved_tensors
        g = gradients[0].contiguous()
        if torch.is_grad_enabled():  # gradients of gradients are wanted
            return _differentiable(poles, states, g)
        costates, rows = torch.empty_like(g), _rows(states)
        slopes = poles.new_empty(len(rows), *poles.shape)
        pairs = poles.contiguous().numpy()
        scan_costates(pairs, rows, _rows(g), _rows(costates), slopes.numpy())
        return slopes.sum(dim=0), costates


def _differentiable(
    poles: torch.Tensor, states: torch.Tensor, gradients: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what `scan_costates` does, by the recurrence of the reversed sequence."""
    conjugates = poles * poles.new_tensor([1.0, -1.0])
    costates = scan(conjugates, gradients.flip(-1)).flip(-1)
    later, earlier = costates[..., 1:].double(), states[..., :-1].double()
    (p_re, p_im), (x_re, x_im) = later.unbind(-3), earlier.unbind(-3)
    slopes = torch.stack([p_re * x_re + p_im * x_im, p_im * x_re - p_re * x_im], dim=-1)
    return slopes.sum(dim=(*range(slopes.ndim - 3), -2)), costates


def _scan(poles: torch.Tensor, drive: torch.Tensor, states: torch.Tensor) -> None:
    scan_states(poles.detach().contiguous().numpy(), _rows(drive), _rows(states))


def _rows(tensor: torch.Tensor) -> Any:
    return tensor.numpy().reshape(math.prod(tensor.shape[:-3]), *tensor.shape[-3:])


def _times(matrix: torch.Tensor, signals: torch.Tensor) -> torch.Tensor:
    """Return the product with every signal; torch would copy them where the matrix is trained."""
    return matrix.expand(*signals.shape[:-2], *matrix.shape) @ signals


def _is_wrapped(tensor: torch.Tensor) -> bool:
    """Whether vmap, jvp or a tracer looks through the tensor, so that it has no memory."""
    try:
        tensor.detach().data_ptr()
    except RuntimeError:
        return True
    if forward_ad.unpack_dual(tensor).tangent is not None:
        return True
    return type(tensor) not in (torch.Tensor, torch.nn.Parameter)
