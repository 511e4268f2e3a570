"""A deep S4D classifier: encoder, residual blocks, mean pooling, decoder."""

from __future__ import annotations

import torch
from torch import nn

from ssmred.networks.layers import S4D


class DeepS4D(nn.Module):
    """Classify sequences with a stack of pre-norm residual S4D blocks.

    ``x <- x + dropout(S4D(norm(x)))`` for every block, then mean pooling and a linear decoder.

    Parameters
    ----------
    inputs, outputs : int
        Input features per step and number of classes.
    channels, states, layers : int
        Width, real states per channel, depth.
    dropout : float
        Dropout probability inside and after every block.
    gated : bool
        Whether blocks mix with a gated linear unit.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        channels: int = 64,
        states: int = 64,
        layers: int = 4,
        dropout: float = 0.0,
        gated: bool = True,
    ) -> None:
        super().__init__()
        self.encoder = nn.Linear(inputs, channels)
        self.norms = nn.ModuleList(nn.BatchNorm1d(channels) for _ in range(layers))
        self.layers = nn.ModuleList(
            S4D(channels, states, dropout=dropout, gated=gated) for _ in range(layers)
        )
        self.dropout = nn.Dropout1d(dropout)
        self.decoder = nn.Linear(channels, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map sequences (batch, T, inputs) to logits (batch, outputs)."""
        x = self.encoder(x).transpose(-1, -2)
        for norm, layer in zip(self.norms, self.layers, strict=True):
            y, _ = layer(norm(x))
            x = x + self.dropout(y)
        return self.decoder(x.mean(dim=-1))
