"""Small networks that the pipeline tests reduce."""

from __future__ import annotations

import torch
from torch import nn

from ssmred.networks.deep import DeepSSM
from ssmred.networks.layers import S4D

HORIZON = 48


def classifier(*, gated: bool = True, layers: int = 2, dropout: float = 0.0) -> DeepSSM:
    """Return a freshly initialised network of 2 layers x 6 channels x 16 states, in eval mode."""
    torch.manual_seed(7)
    mixing = "glu" if gated else "linear"
    model = DeepSSM(2, 3, channels=6, states=16, layers=layers, dropout=dropout, mixing=mixing)
    return model.eval()


def sequences(count: int, *, seed: int = 0) -> torch.Tensor:
    """Return slowly varying inputs in [-1, 1], (count, HORIZON, 2) float32."""
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randn(count, HORIZON, 2, generator=generator).cumsum(dim=1) / 4
    return torch.tanh(steps)


class TokenNetwork(nn.Module):
    """An Embedding in front, post-norm blocks, last-step pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 4)
        self.layer = S4D(4, 8, transposed=False)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 2)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embedding(tokens)
        y, _ = self.layer(x)
        return self.head(self.norm(x + y)[:, -1])


class WithoutRule(nn.Module):
    """A network with an operation that no rule covers."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(2, 4)
        self.layer = S4D(4, 8)
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, _ = self.layer(self.encoder(x).transpose(-1, -2))
        return self.head(torch.erfinv(torch.tanh(y) * 0.5).mean(dim=-1))
