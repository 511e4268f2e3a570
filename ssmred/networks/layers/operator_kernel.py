"""What the kernels of independent channels share: channels are taken out of them, or silenced."""

from __future__ import annotations

import copy
from abc import abstractmethod
from typing import Any, ClassVar, Self

import torch
from torch import nn

from ssmred.networks.layers.optimisation import MarkedModule
from ssmred.systems.linear import LinearSystem

__all__ = ["OperatorKernel", "modal_responses"]


class OperatorKernel(MarkedModule):
    """Generate the responses of independent channels, operators in the language of S4oP.

    Attributes
    ----------
    AXES : mapping of str to int
        Along which axis a parameter has one entry per channel.
    READ_OUT : str
        The parameter without which a channel is silent.
    """

    AXES: ClassVar[dict[str, int]] = {}
    READ_OUT: ClassVar[str] = "C"

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self._parameters[self.READ_OUT].shape[self.AXES[self.READ_OUT]]

    @abstractmethod
    def responses(self, T: int) -> torch.Tensor:
        """Return the first T samples of every channel's impulse response, (channels, T)."""

    @abstractmethod
    def to_system(self) -> LinearSystem:
        """Return the channels as one batch of systems without direct terms."""

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What `blank` needs to make room for the state dict of this kernel; JSON-ready."""

    @classmethod
    @abstractmethod
    def blank(cls, **settings: Any) -> Self:
        """Return a kernel for a state dict to fill."""

    def taken(self, channels: torch.Tensor) -> Self:
        """Return the kernel of some channels, by their numbers: really smaller tensors."""
        other = copy.deepcopy(self)
        for name, axis in self.AXES.items():
            other._take(name, axis, channels)
        other.mark()
        return other

    def silenced(self, channels: torch.Tensor) -> Self:
        """Return the kernel with zero responses of some channels: a mask, nothing is smaller."""
        other = copy.deepcopy(self)
        with torch.no_grad():
            other._parameters[self.READ_OUT].index_fill_(self.AXES[self.READ_OUT], channels, 0.0)
        return other

    def _take(self, name: str, axis: int, channels: torch.Tensor) -> None:
        old = self._parameters[name]
        part = old.detach().index_select(axis, channels.to(old.device))
        self._parameters[name] = nn.Parameter(part, requires_grad=old.requires_grad)


def modal_responses(exponents: torch.Tensor, residues: torch.Tensor, T: int) -> torch.Tensor:
    """Return ``h_k = Re sum_i r_i exp(k e_i)`` for ``k < T``, (H, T).

    exponents, residues (H, n) complex. With ``k = S a + b`` a matrix product of
    ``exp(S a e_i)`` and ``exp(b e_i)``, S about sqrt(T): few exponentials, of which a training step
    would be made otherwise.
    """
    block = 1 << max(0, (T - 1).bit_length() + 1) // 2
    steps = torch.arange(block, device=exponents.device)
    starts = block * torch.arange(-(-T // block), device=exponents.device)
    fine = torch.exp(exponents.unsqueeze(-1) * steps)
    coarse = residues.unsqueeze(-1) * torch.exp(exponents.unsqueeze(-1) * starts)
    return (coarse.mT @ fine).real.flatten(-2)[..., :T]
