"""The S4 layer with a diagonal-plus-low-rank matrix."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import nn

from ssmred.networks.layers.dplr import S4Kernel
from ssmred.networks.layers.layer import StateSpaceLayer, check_choice, to_array
from ssmred.systems import DenseSystem
from ssmred.systems.linear import LinearSystem

__all__ = ["S4"]


class _Filter(nn.Module):
    """Hold the tensors of the filter, and what follows it, under upstream's names."""

    def __init__(
        self, kernel: S4Kernel, copies: int, activation: nn.Module, dropout: float
    ) -> None:
        super().__init__()
        self.D = nn.Parameter(torch.randn(copies, kernel.inv_dt.shape[0]))
        self.kernel = kernel
        self.activation = activation
        self.drop = nn.Dropout1d(dropout) if dropout > 0.0 else nn.Identity()


class S4(StateSpaceLayer):
    """Apply an S4 layer: ``GLU(W gelu(K * u + D u) + b)``, K of a HiPPO-LegS matrix.

    With `bidirectional`, ``y_t = sum_{s <= t} k_{t-s} u_s + sum_{s > t} k'_{s-t-1} u_s + D u_t``.

    Parameters
    ----------
    channels : int
        Width ``H``.
    states : int
        Real state dimension of each channel, ``N``, even.
    dropout : float
        Dropout probability before the activation.
    transposed : bool
        Whether sequences are (batch, H, T) (True) or (batch, T, H).
    mixing : {"glu", "linear", "none"}
        Mix with a gated linear unit as upstream does, with a plain linear map, or return
        ``K * u + D u`` alone.
    copies : int
        Filters of every channel, what upstream calls channels; mixed, or concatenated, copy by
        copy.
    systems : int
        Different (A, B, P); what upstream calls ``n_ssm``.
    bidirectional : bool
    length : int, optional
        Length of the sequences; see `S4Kernel`.
    dt_min, dt_max : float
        Range of the log-uniform initial steps.

    Notes
    -----
    State dicts exchange with ``S4Block(mode="dplr")`` of state-spaces/s4 (Gu, Goel and Re,
    arXiv 2111.00396): ``layer.D``, ``layer.kernel.*`` (`S4Kernel`), ``output_linear.0.*``.
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
        copies: int = 1,
        systems: int = 1,
        bidirectional: bool = False,
        length: int | None = None,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
    ) -> None:
        super().__init__()
        self.transposed = transposed
        self.bidirectional = bidirectional
        self.mixing = check_choice(mixing, self.MIXINGS, "mixing", "S4")
        kernel = S4Kernel(
            channels,
            states,
            rows=(1 + bidirectional) * copies,
            systems=systems,
            length=length,
            dt_min=dt_min,
            dt_max=dt_max,
        )
        activation = nn.Identity() if mixing == "none" else nn.GELU()
        self.layer = _Filter(kernel, copies, activation, dropout)
        self.output_linear: nn.Module = nn.Identity()
        if mixing == "glu":
            wide = nn.Linear(channels * copies, 2 * channels)
            self.output_linear = nn.Sequential(wide, nn.GLU(dim=-1))
        elif mixing == "linear":
            self.output_linear = nn.Sequential(nn.Linear(channels * copies, channels))

    def forward(self, u: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Return the layer's output and ``None`` (upstream's place for a state)."""
        if not self.transposed:
            u = u.transpose(-1, -2)
        y = self._mixed(self.filter(u))
        if not self.transposed:
            y = y.transpose(-1, -2)
        return y, None

    def filter(self, u: torch.Tensor) -> torch.Tensor:
        """Return ``K * u + D u`` for (batch, H, T), (batch, copies H, T), copy by copy."""
        D = self.layer.D
        self._check_signal(u, D.shape[1])
        length = u.shape[-1]
        kernels, _ = self.layer.kernel(L=length)
        size = 2 * length
        spectra = torch.fft.rfft(kernels.to(u.dtype), n=size)
        if self.bidirectional:
            forwards, backwards = spectra.chunk(2)
            # time reversal is conjugation; one step earlier is a turn by one root of unity
            angles = torch.arange(length + 1, device=u.device, dtype=u.dtype)
            turn = torch.exp(1j * torch.pi / length * angles)
            spectra = forwards + turn * backwards.conj()
        y = torch.fft.rfft(u, n=size).unsqueeze(-3) * spectra
        y = torch.fft.irfft(y, n=size)[..., :length] + D.unsqueeze(-1) * u.unsqueeze(-3)
        return y.flatten(-3, -2)

    def initial_state(self, batch: int = 1) -> torch.Tensor:
        """Return the zero state of `batch` streams, (batch, H, N) float64."""
        D = self.layer.D
        shape = (batch, D.shape[1], self.layer.kernel.states)
        return torch.zeros(shape, dtype=torch.float64, device=D.device)

    def step(self, u: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Advance by one time step.

        Parameters
        ----------
        u : torch.Tensor, (batch, H)
        state : torch.Tensor, (batch, H, N) float64
            From `initial_state` or the last step; left alone.

        Returns
        -------
        y : torch.Tensor, (batch, H)
            What `forward` returns for this step, mixing included.
        state : torch.Tensor

        Raises
        ------
        UnsupportedOperationError
            If the layer is bidirectional.
        """
        self._check_step(u, state, self.layer.D.shape[1])
        dA, dB, C, D = self._step_terms()
        state = torch.einsum("hnm,bhm->bhn", dA, state) + dB * u.unsqueeze(-1)
        y = torch.einsum("rhn,bhn->brh", C, state) + D * u.unsqueeze(1)
        return self._mixed(y.to(u.dtype).flatten(1).unsqueeze(-1)).squeeze(-1), state

    def to_systems(self) -> dict[str, LinearSystem]:
        """Return ``{"core": system}`` and, if bidirectional, ``"backward"``.

        DenseSystem, (copies H,) channels copy by copy, N real states each; D belongs to the core.
        The backward filter runs on the reversed sequence and sees only what comes after a step.
        """
        dA, dB, C, D = (to_array(tensor) for tensor in self._recurrence())
        copies, channels = D.shape
        A = np.tile(dA, (copies, 1, 1))
        B = np.tile(dB, (copies, 1))[..., None]
        systems = {}
        for number, core in enumerate(("core", "backward")[: 1 + self.bidirectional]):
            rows = C[number * copies : (number + 1) * copies]
            direct = D if core == "core" else 0.0 * D
            systems[core] = DenseSystem(
                A,
                B,
                rows.reshape(copies * channels, 1, -1),
                direct.reshape(-1, 1, 1),
                recurrence="post-update",
            )
        return systems

    def _mixed(self, y: torch.Tensor) -> torch.Tensor:
        y = self.layer.activation(self.layer.drop(y))
        if self.mixing == "none":
            return y
        return self.output_linear(y.transpose(-1, -2)).transpose(-1, -2)

    def _recurrence(self) -> tuple[torch.Tensor, ...]:
        return (*self.layer.kernel.discrete(), self.layer.D.double())
