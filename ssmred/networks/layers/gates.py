"""What follows a filter in a block: activation, dropout and a mixing of features."""

from __future__ import annotations

import torch
from torch import nn

from ssmred.networks.layers.layer import check_choice

__all__ = ["GATES", "Gate"]

GATES = ("glu", "half-glu", "linear", "gelu", "tanh", "none")


class Gate(nn.Module):
    """Apply ``x = dropout(gelu(y))`` and one of several mixings to sequences (batch, H, T).

    Parameters
    ----------
    channels : int
    kind : {"glu", "half-glu", "linear", "gelu", "tanh", "none"}
        ``(W x + b) sigmoid(V x + c)``; ``x sigmoid(W x + b)``; ``W x + b``; ``x``; ``tanh(y)`` in
        place of the activation; nothing at all.
        The first two are the full and the half GLU of the S5 and LRU papers.
    dropout : float
        Drops whole channels, all steps alike.
    """

    def __init__(self, channels: int, kind: str = "glu", dropout: float = 0.0) -> None:
        super().__init__()
        self.kind = check_choice(kind, GATES, "gate", "Gate")
        if kind == "none":
            return
        self.activation = nn.Tanh() if kind == "tanh" else nn.GELU()
        self.dropout = nn.Dropout1d(dropout) if dropout > 0.0 else nn.Identity()
        if kind == "glu":
            self.output_linear = nn.Sequential(nn.Conv1d(channels, 2 * channels, 1), nn.GLU(dim=-2))
        elif kind in ("half-glu", "linear"):
            self.output_linear = nn.Conv1d(channels, channels, 1)

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        """Return the mixed features, same shape."""
        if self.kind == "none":
            return y
        x = self.dropout(self.activation(y))
        if self.kind in ("gelu", "tanh"):
            return x
        if self.kind == "half-glu":
            return x * torch.sigmoid(self.output_linear(x))
        return self.output_linear(x)
