"""What follows a filter in a block: activation, dropout and a mixing of features."""

from __future__ import annotations

import torch
from torch import nn

from ssmred.checks import check_integer
from ssmred.networks.layers.layer import check_choice

__all__ = ["GATES", "BilinearGate", "Gate"]

GATES = ("glu", "half-glu", "bilinear", "linear", "gelu", "tanh", "none")


class BilinearGate(nn.Module):
    """Multiply two mixings of the features: ``(W y + b) * (V y + c)``, (batch, H, T).

    A filter with it is one system with quadratic outputs, which
    `ssmred.networks.export_bilinear` returns. Theory: ``theory/bilinear-gate.md``.

    Parameters
    ----------
    channels_in : int
    channels_out : int, optional
        As many as in by default.
    bias : bool
        Whether the mixings have biases.

    Attributes
    ----------
    mixing : nn.Conv1d
        Both mixings, W above V.

    Raises
    ------
    OrderError
        If a number of channels is not an integer of at least 1.

    Notes
    -----
    The GLU without its sigmoid; "bilinear" in Shazeer, arXiv 2002.05202.

    Examples
    --------
    >>> BilinearGate(4, 2)(torch.zeros(3, 4, 10)).shape
    torch.Size([3, 2, 10])
    """

    def __init__(
        self, channels_in: int, channels_out: int | None = None, *, bias: bool = True
    ) -> None:
        super().__init__()
        channels_in = check_integer(channels_in, "channels_in", "BilinearGate", low=1)
        if channels_out is None:
            channels_out = channels_in
        channels_out = check_integer(channels_out, "channels_out", "BilinearGate", low=1)
        self.mixing = nn.Conv1d(channels_in, 2 * channels_out, 1, bias=bias)

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        """Return the products, (..., channels_out, T)."""
        one, two = self.mixing(y).chunk(2, dim=-2)
        return one * two


class Gate(nn.Module):
    """Apply ``x = dropout(gelu(y))`` and one of several mixings to sequences (batch, H, T).

    Parameters
    ----------
    channels : int
    kind : {"glu", "half-glu", "bilinear", "linear", "gelu", "tanh", "none"}
        ``(W x + b) sigmoid(V x + c)``; ``x sigmoid(W x + b)``; ``(W y + b) * (V y + c)`` without
        any activation; ``W x + b``; ``x``; ``tanh(y)`` in place of the activation; nothing at all.
        The first two are the full and the half GLU of the S5 and LRU papers.
    dropout : float
        Drops whole channels, all steps alike.
    """

    def __init__(self, channels: int, kind: str = "glu", dropout: float = 0.0) -> None:
        super().__init__()
        self.kind = check_choice(kind, GATES, "gate", "Gate")
        if kind == "none":
            return
        others = {"tanh": nn.Tanh, "bilinear": nn.Identity}
        self.activation = others.get(kind, nn.GELU)()
        self.dropout = nn.Dropout1d(dropout) if dropout > 0.0 else nn.Identity()
        if kind == "glu":
            self.output_linear = nn.Sequential(nn.Conv1d(channels, 2 * channels, 1), nn.GLU(dim=-2))
        elif kind == "bilinear":
            self.output_linear = BilinearGate(channels)
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
