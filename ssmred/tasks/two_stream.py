"""A network for pairs of sequences, as in document retrieval."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["TwoStream"]


class TwoStream(nn.Module):
    """Map pairs of sequences to classes: ``head([u, v, u v, u - v])`` of one trunk's outputs.

    Both streams go through the trunk as one batch, so that every layer runs once per pass.

    Parameters
    ----------
    trunk : nn.Module
        Maps (n, T) or (n, T, features) to (n, width).
    width, classes : int

    Examples
    --------
    >>> from ssmred.networks.deep import DeepSSM
    >>> trunk = DeepSSM(9, 16, encoder="embedding", channels=8, states=8, layers=1)
    >>> TwoStream(trunk, 16, 2)(torch.zeros(3, 2, 20, dtype=torch.long)).shape
    torch.Size([3, 2])
    """

    def __init__(self, trunk: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.hidden = nn.Linear(4 * width, width)
        self.activation = nn.GELU()
        self.head = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, 2, T, ...) to (n, classes)."""
        u, v = self.trunk(torch.cat([x[:, 0], x[:, 1]])).chunk(2)
        joined = torch.cat([u, v, u * v, u - v], dim=-1)
        return self.head(self.activation(self.hidden(joined)))
