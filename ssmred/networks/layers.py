"""Trainable state-space layers in the parametrisation their checkpoints use."""

from __future__ import annotations

import math

import torch
from torch import nn


class S4DKernel(nn.Module):
    """Generate the convolution kernel of a diagonal S4 layer.

    ``K_k = 2 Re sum_i C_i (exp(dt A_i) - 1) / A_i exp(dt A_i)^k`` with
    ``A = -exp(log_A_real) + i A_imag`` and ``dt = exp(log_dt)`` (zero-order hold, ``B = 1``).

    Parameters
    ----------
    channels : int
        Number of independent single-input single-output systems, ``H``.
    states : int
        Real state dimension of each, ``N``; even, because modes come in conjugate pairs.
    dt_min, dt_max : float
        Range of the log-uniform initial steps.

    Notes
    -----
    Parameter names, shapes and signs are those of the minimal S4D layer of state-spaces/s4
    (Gu et al., arXiv 2206.11893), so checkpoints exchange with it.
    """

    def __init__(
        self, channels: int, states: int = 64, dt_min: float = 1e-3, dt_max: float = 1e-1
    ) -> None:
        super().__init__()
        if states % 2:
            raise ValueError(f"S4DKernel: states must be even (conjugate pairs), got {states}")
        modes = states // 2
        log_dt = torch.rand(channels) * (math.log(dt_max) - math.log(dt_min)) + math.log(dt_min)
        self.C = nn.Parameter(torch.view_as_real(torch.randn(channels, modes, dtype=torch.cfloat)))
        self.log_dt = nn.Parameter(log_dt)
        self.log_A_real = nn.Parameter(torch.full((channels, modes), math.log(0.5)))
        frequencies = math.pi * torch.arange(modes, dtype=torch.float32)
        self.A_imag = nn.Parameter(frequencies.repeat(channels, 1))

    def forward(self, L: int) -> torch.Tensor:
        """Return the kernel, shape (H, L)."""
        dt = torch.exp(self.log_dt)
        A = -torch.exp(self.log_A_real) + 1j * self.A_imag
        dtA = A * dt.unsqueeze(-1)
        C = torch.view_as_complex(self.C) * (torch.exp(dtA) - 1.0) / A
        powers = torch.exp(dtA.unsqueeze(-1) * torch.arange(L, device=A.device))
        return 2 * torch.einsum("hn, hnl -> hl", C, powers).real


class S4D(nn.Module):
    """Apply a diagonal state-space layer: ``GLU(W gelu(K * u + D u) + b)``.

    Parameters
    ----------
    channels : int
        Width ``H``.
    states : int
        Real state dimension of each channel, even.
    dropout : float
        Dropout probability after the activation.
    transposed : bool
        Whether sequences are (batch, H, T) (True) or (batch, T, H).
    gated : bool
        Mix with a gated linear unit as upstream does; ``False`` mixes with a plain 1x1 convolution.
    """

    def __init__(
        self,
        channels: int,
        states: int = 64,
        dropout: float = 0.0,
        transposed: bool = True,
        gated: bool = True,
    ) -> None:
        super().__init__()
        self.transposed = transposed
        self.D = nn.Parameter(torch.randn(channels))
        self.kernel = S4DKernel(channels, states)
        self.activation = nn.GELU()
        self.dropout = nn.Dropout1d(dropout) if dropout > 0.0 else nn.Identity()
        width = 2 * channels if gated else channels
        mixing: list[nn.Module] = [nn.Conv1d(channels, width, kernel_size=1)]
        if gated:
            mixing.append(nn.GLU(dim=-2))
        self.output_linear = nn.Sequential(*mixing)

    def forward(self, u: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Return the layer's output and ``None`` (upstream's place for a state)."""
        if not self.transposed:
            u = u.transpose(-1, -2)
        length = u.size(-1)
        kernel = self.kernel(L=length)
        y = torch.fft.irfft(
            torch.fft.rfft(u, n=2 * length) * torch.fft.rfft(kernel, n=2 * length), n=2 * length
        )[..., :length]
        y = y + u * self.D.unsqueeze(-1)
        y = self.output_linear(self.dropout(self.activation(y)))
        if not self.transposed:
            y = y.transpose(-1, -2)
        return y, None
