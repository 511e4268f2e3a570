"""Causal convolution by real transforms, forwards and backwards."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["convolve"]


def convolve(signal: torch.Tensor, spectrum: torch.Tensor, size: int) -> torch.Tensor:
    """Return the causal convolution of sequences with kernels that are given by their transforms.

    Parameters
    ----------
    signal : torch.Tensor, (..., H, T) float32 or float64
    spectrum : torch.Tensor, (H, size // 2 + 1) complex
        ``rfft(kernel, n=size)``.
    size : int
        At least ``2 T - 1``.

    Returns
    -------
    torch.Tensor, (..., H, T)

    Notes
    -----
    What is learnt with goes back by real transforms too: automatic differentiation of ``irfft``
    and ``rfft`` takes complex ones of twice the size.
    """
    if torch.is_grad_enabled() and (signal.requires_grad or spectrum.requires_grad):
        return _Convolution.apply(signal, spectrum, size)[0]
    transform = torch.fft.rfft(signal, n=size)
    return torch.fft.irfft(transform * spectrum, n=size)[..., : signal.shape[-1]]


class _Convolution(torch.autograd.Function):
    """The convolution and, for the way back, the transform of the signal."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        signal: torch.Tensor, spectrum: torch.Tensor, size: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        transform = torch.fft.rfft(signal, n=size)
        return torch.fft.irfft(transform * spectrum, n=size)[..., : signal.shape[-1]], transform

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
        signal, spectrum, ctx.size = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(signal, spectrum, output[1])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        signal, spectrum, transform = ctx.saved_tensors
        if torch.is_grad_enabled():  # gradients of gradients
            transform = torch.fft.rfft(signal, n=ctx.size)
        own = torch.fft.rfft(gradients[0], n=ctx.size)
        to_signal, to_spectrum = None, None
        if ctx.needs_input_grad[0]:
            whole = torch.fft.irfft(own * spectrum.conj(), n=ctx.size)
            to_signal = whole[..., : signal.shape[-1]]
        if ctx.needs_input_grad[1]:
            # irfft counts all frequencies but the outermost ones twice
            share = own.new_full(own.shape[-1:], 2.0 / ctx.size, dtype=own.real.dtype)
            share[0] = 1.0 / ctx.size
            if ctx.size % 2 == 0:
                share[-1] = 1.0 / ctx.size
            product = transform.conj() * own
            to_spectrum = share * product.sum_to_size(spectrum.shape)
        return to_signal, to_spectrum, None
