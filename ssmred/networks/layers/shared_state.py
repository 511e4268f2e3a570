"""What layers with one diagonal state for all features share: S5 and LRU."""

from __future__ import annotations

from abc import abstractmethod

import torch
from scipy.fft import next_fast_len

from ssmred.networks.layers.layer import StateSpaceLayer, powers, to_array
from ssmred.networks.scanning import can_scan, drive_of, read_of, scan
from ssmred.systems import DiagonalSystem
from ssmred.systems.linear import LinearSystem

__all__ = ["SharedStateLayer"]


class SharedStateLayer(StateSpaceLayer):
    """Drive one diagonal state by all features and read all features from it.

    ``x_k = l x_{k-1} + B u_k``, ``y_k = Re(C x_k) + D u_k`` with a diagonal D (H,). With
    `bidirectional` a second state runs through the reversed sequence, and C reads both.

    Notes
    -----
    Whole sequences go through the states by the recurrence, in a compiled loop, on CPU, gradients
    too; elsewhere by FFT, ``O(P T log T)`` besides the products with B and C.
    """

    D: torch.Tensor

    @abstractmethod
    def discrete(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return poles (P,), B (P, H) and C (H, P), or (H, 2 P) if bidirectional, complex128.

        C holds the factor 2 of a half spectrum.
        """

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        """Return the layer's output for sequences (batch, H, T)."""
        self._check_signal(u, self.D.numel())
        poles, B, C = self.discrete()
        y = 0
        for number, read_out in enumerate(C.chunk(1 + self.bidirectional, dim=-1)):
            x = u.flip(-1) if number else u
            x = _states(poles, drive_of(B.real, B.imag, x))
            part = read_of(read_out.real, read_out.imag, x)
            y = y + (part.flip(-1) if number else part)
        return self.read(y, u)

    def read(self, filtered: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        """Return the output for what C reads of the states, (..., P, T), and the input."""
        return filtered + self.D.unsqueeze(-1) * u

    def initial_state(self, batch: int = 1) -> torch.Tensor:
        """Return the zero state of `batch` streams, (batch, P) complex128."""
        shape = (batch, self._modes())
        return torch.zeros(shape, dtype=torch.complex128, device=self.D.device)

    def step(self, u: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Advance by one time step.

        Parameters
        ----------
        u : torch.Tensor, (batch, H)
        state : torch.Tensor, (batch, P) complex128
            From `initial_state` or the last step; left alone.

        Returns
        -------
        y : torch.Tensor, (batch, H)
        state : torch.Tensor

        Raises
        ------
        UnsupportedOperationError
            If the layer is bidirectional.
        """
        self._check_step(u, state, self.D.numel())
        poles, B, C, _ = self._step_terms()
        signal = u.double()
        state = poles * state + signal.to(B.dtype) @ B.T
        filtered = (state @ C.T).real.unsqueeze(-1)
        return self.read(filtered, signal.unsqueeze(-1))[..., 0].to(u.dtype), state

    def to_systems(self) -> dict[str, LinearSystem]:
        """Return ``{"core": system}`` and, if bidirectional, ``"backward"``.

        DiagonalSystem of batch shape (1,), every pole two real states, D (1, H, H) diagonal. The
        backward filter runs on the reversed sequence, this step included, and has no D.
        """
        poles, B, C, D = self._recurrence()
        direct = torch.diag(D)
        systems = {}
        parts = C.chunk(1 + self.bidirectional, dim=-1)
        for core, part in zip(("core", "backward"), parts, strict=False):
            systems[core] = DiagonalSystem(
                *(to_array(tensor)[None] for tensor in (poles, B, part, direct)),
                recurrence="post-update",
                real_output=True,
            )
            direct = torch.zeros_like(direct)
        return systems

    @abstractmethod
    def _modes(self) -> int: ...

    def _recurrence(self) -> tuple[torch.Tensor, ...]:
        return (*self.discrete(), self.D.double())


def _states(poles: torch.Tensor, drive: torch.Tensor) -> torch.Tensor:
    """Return the states (..., 2, P, T) of poles (P,) that B u drives, which may be overwritten."""
    if can_scan(poles, drive):
        return scan(torch.view_as_real(poles), drive)
    length = drive.shape[-1]
    size = next_fast_len(2 * length - 1)
    signal = torch.complex(*drive.unbind(-3))
    spectrum = torch.fft.fft(powers(poles, length), n=size).to(signal.dtype)
    states = torch.fft.ifft(torch.fft.fft(signal, n=size) * spectrum)[..., :length]
    return torch.stack([states.real, states.imag], dim=-3)
