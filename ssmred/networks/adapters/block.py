"""The drop-in that runs a ReducedSSM in the place of a state-space layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ssmred.networks.reduced import ReducedSSM

__all__ = ["FilterBlock"]


class FilterBlock(nn.Module):
    """Run a `ReducedSSM` in the place of a gated or plain state-space layer.

    ``mixing(dropout(activation(core(u))))`` with the layer's own activation, dropout and mixing.

    Parameters
    ----------
    core : ReducedSSM
    activation, dropout, output_linear : nn.Module
        Taken from the layer that is replaced.
    transposed : bool
        Whether sequences are (batch, H, T) (True) or (batch, T, H).
    paired : bool
        Return ``(y, None)`` as upstream does, or ``y`` alone.
    """

    def __init__(
        self,
        core: ReducedSSM,
        activation: nn.Module,
        dropout: nn.Module,
        output_linear: nn.Module,
        *,
        transposed: bool = True,
        paired: bool = True,
    ) -> None:
        super().__init__()
        self.core = core
        self.activation = activation
        self.dropout = dropout
        self.output_linear = output_linear
        self.transposed = transposed
        self.paired = paired

    def forward(self, u: torch.Tensor, **_ignored: Any) -> Any:
        """Return the layer's output, with ``None`` in place of a state where upstream has one."""
        if not self.transposed:
            u = u.transpose(-1, -2)
        y = self.output_linear(self.dropout(self.activation(self.core(u))))
        if not self.transposed:
            y = y.transpose(-1, -2)
        return (y, None) if self.paired else y
