"""The minimal diagonal S4 layer."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import nn

from ssmred.networks.layers.layer import StateSpaceLayer, check_choice, check_even, to_array
from ssmred.networks.layers.operator_kernel import OperatorKernel, modal_responses
from ssmred.systems import DiagonalSystem
from ssmred.systems.linear import LinearSystem

__all__ = ["S4D", "S4DKernel"]


class S4DKernel(OperatorKernel):
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

    SLOW: ClassVar[tuple[str, ...]] = ("log_dt", "log_A_real", "A_imag")
    AXES: ClassVar[dict[str, int]] = {"C": 0, "log_dt": 0, "log_A_real": 0, "A_imag": 0}

    def __init__(
        self, channels: int, states: int = 64, dt_min: float = 1e-3, dt_max: float = 1e-1
    ) -> None:
        super().__init__()
        modes = check_even(states, "S4DKernel")
        log_dt = torch.rand(channels) * (math.log(dt_max) - math.log(dt_min)) + math.log(dt_min)
        self.C = nn.Parameter(torch.view_as_real(torch.randn(channels, modes, dtype=torch.cfloat)))
        self.log_dt = nn.Parameter(log_dt)
        self.log_A_real = nn.Parameter(torch.full((channels, modes), math.log(0.5)))
        frequencies = math.pi * torch.arange(modes, dtype=torch.float32)
        self.A_imag = nn.Parameter(frequencies.repeat(channels, 1))
        self.mark()

    def forward(self, L: int) -> torch.Tensor:
        """Return the kernel, shape (H, L)."""
        dt = torch.exp(self.log_dt)
        A = -torch.exp(self.log_A_real) + 1j * self.A_imag
        dtA = A * dt.unsqueeze(-1)
        C = torch.view_as_complex(self.C) * (torch.exp(dtA) - 1.0) / A
        powers = torch.exp(dtA.unsqueeze(-1) * torch.arange(L, device=A.device))
        return 2 * torch.einsum("hn, hnl -> hl", C, powers).real

    def responses(self, T: int) -> torch.Tensor:
        """Return the first T samples of every channel's impulse response, (H, T).

        What `forward` returns, in float64 inside and with few exponentials.
        """
        exponents, gains, C = self._modes()
        return modal_responses(exponents, C * gains, T).to(self.log_dt.dtype)

    @property
    def settings(self) -> dict[str, int]:
        """Channels and real states of each."""
        return {"channels": self.channels, "states": 2 * self.A_imag.shape[1]}

    @classmethod
    def blank(cls, channels: int, states: int) -> S4DKernel:
        """Return a kernel for a state dict to fill."""
        return cls(channels, states)

    def to_system(self) -> DiagonalSystem:
        """Return the channels as one batch of N/2 modes each, without direct terms."""
        poles, B, C = (to_array(tensor) for tensor in self.discrete())
        return DiagonalSystem(
            poles, B[..., None], C[:, None], recurrence="post-update", real_output=True
        )

    def discrete(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return poles, input gains and read-outs (the 2 included), (H, N/2) complex128 each."""
        exponents, gains, C = self._modes()
        return torch.exp(exponents), gains, C

    def _modes(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        A = torch.complex(-self.log_A_real.double().exp(), self.A_imag.double())
        dtA = A * self.log_dt.double().exp().unsqueeze(-1)
        C = 2.0 * torch.view_as_complex(self.C.double())
        return dtA, torch.expm1(dtA) / A, C


class S4D(StateSpaceLayer):
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
    mixing : {"glu", "linear", "none"}
        Mix with a gated linear unit as upstream does, with a plain 1x1 convolution, or return
        ``K * u + D u`` alone.
    dt_min, dt_max : float
        Range of the log-uniform initial steps.

    Notes
    -----
    State dicts exchange with ``models/s4/s4d.py`` of state-spaces/s4. The kernel is computed in the
    parameters' dtype, with upstream's operations, so its results are upstream's bit for bit; steps
    are computed in float64.

    Examples
    --------
    >>> layer = S4D(3, 8, mixing="none").double()
    >>> u, state = torch.ones(1, 3, 5, dtype=torch.float64), layer.initial_state(1)
    >>> for k in range(5):
    ...     y, state = layer.step(u[..., k], state)
    >>> bool((y - layer(u)[0][..., -1]).abs().max() < 1e-12)
    True
    """

    MIXINGS: ClassVar[tuple[str, ...]] = ("glu", "linear", "none")

    def __init__(
        self,
        channels: int,
        states: int = 64,
        dropout: float = 0.0,
        transposed: bool = True,
        mixing: str = "glu",
        *,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
    ) -> None:
        super().__init__()
        self.transposed = transposed
        self.mixing = check_choice(mixing, self.MIXINGS, "mixing", "S4D")
        self.D = nn.Parameter(torch.randn(channels))
        self.kernel = S4DKernel(channels, states, dt_min, dt_max)
        self.activation = nn.Identity() if mixing == "none" else nn.GELU()
        if mixing == "none":
            return
        self.dropout = nn.Dropout1d(dropout) if dropout > 0.0 else nn.Identity()
        width = 2 * channels if mixing == "glu" else channels
        layers: list[nn.Module] = [nn.Conv1d(channels, width, kernel_size=1)]
        if mixing == "glu":
            layers.append(nn.GLU(dim=-2))
        self.output_linear = nn.Sequential(*layers)

    def forward(self, u: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Return the layer's output and ``None`` (upstream's place for a state)."""
        if not self.transposed:
            u = u.transpose(-1, -2)
        y = self._mixed(self.filter(u))
        if not self.transposed:
            y = y.transpose(-1, -2)
        return y, None

    def filter(self, u: torch.Tensor) -> torch.Tensor:
        """Return ``K * u + D u`` for sequences (batch, H, T)."""
        self._check_signal(u, self.D.numel())
        length = u.size(-1)
        kernel = self.kernel(L=length)
        y = torch.fft.irfft(
            torch.fft.rfft(u, n=2 * length) * torch.fft.rfft(kernel, n=2 * length), n=2 * length
        )[..., :length]
        return y + u * self.D.unsqueeze(-1)

    def initial_state(self, batch: int = 1) -> torch.Tensor:
        """Return the zero state of `batch` streams, (batch, H, N/2) complex128."""
        shape = (batch, *self.kernel.A_imag.shape)
        return torch.zeros(shape, dtype=torch.complex128, device=self.D.device)

    def step(self, u: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Advance by one time step.

        Parameters
        ----------
        u : torch.Tensor, (batch, H)
        state : torch.Tensor, (batch, H, N/2) complex128
            From `initial_state` or the last step; left alone.

        Returns
        -------
        y : torch.Tensor, (batch, H)
            What `forward` returns for this step, mixing included.
        state : torch.Tensor
        """
        self._check_step(u, state, self.D.numel())
        poles, gains, D = self._step_terms()
        state = poles * state + u.unsqueeze(-1)
        y = (gains * state).sum(-1).real + D * u
        return self._mixed(y.to(u.dtype).unsqueeze(-1)).squeeze(-1), state

    def to_systems(self) -> dict[str, LinearSystem]:
        """Return ``{"core": system}``: H channels of N/2 modes, D (H, 1, 1)."""
        D = to_array(self.D.double())[:, None, None]
        return {"core": self.kernel.to_system().replace(D=D)}

    def _mixed(self, y: torch.Tensor) -> torch.Tensor:
        if self.mixing == "none":
            return y
        return self.output_linear(self.dropout(self.activation(y)))

    def _recurrence(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        poles, B, C = self.kernel.discrete()
        return poles, B * C, self.D.double()
