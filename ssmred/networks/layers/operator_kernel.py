"""What the kernels of independent channels share: channels are taken out of them, or silenced."""

from __future__ import annotations

import copy
from abc import abstractmethod
from typing import Any, ClassVar, Self

import torch
from torch import nn

from ssmred.networks.layers.optimisation import MarkedModule
from ssmred.systems.linear import LinearSystem

__all__ = ["OperatorKernel"]


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
