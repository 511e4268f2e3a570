"""A deep state-space network: encoder, residual blocks, pooling, decoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ssmred.errors import RequestError, message
from ssmred.networks.layers import LRU, S4, S4D, S5, LQOLayer
from ssmred.networks.layers.gates import GATES, Gate
from ssmred.networks.layers.layer import StateSpaceLayer, check_choice

__all__ = ["FAMILIES", "DeepLQO", "DeepSSM"]

FAMILIES: dict[str, type[StateSpaceLayer]] = {
    "s4d": S4D,
    "s4": S4,
    "s5": S5,
    "lru": LRU,
    "lqo": LQOLayer,
}
"""Layers by the names that `DeepSSM` takes."""

TWO_WAYS = ("s4", "s5")
"""Families that can be bidirectional, as their originals can."""

NORMS = ("batch", "layer", "none")
ENCODERS = ("linear", "embedding")
POOLINGS = ("mean", "last", "max")


class DeepSSM(nn.Module):
    """Map sequences to classes, numbers or sequences with a stack of residual blocks.

    ``x <- x + dropout(gate(layer(norm(x))))``, or with ``prenorm=False``
    ``x <- norm(x + dropout(gate(layer(x))))``, for every block; then pooling over time and a linear
    decoder.

    Parameters
    ----------
    inputs, outputs : int
        Input features per step, or size of the vocabulary; outputs per sequence or step (classes,
        or numbers for a regression).
    layer : {"s4d", "s4", "s5", "lru", "lqo"}
    channels, states, layers : int
        Width; real states (per channel for "s4d" and "s4", of the whole layer for the others);
        depth.
    encoder : {"linear", "embedding"}
        Whether steps are vectors (batch, T, inputs) or tokens (batch, T).
    norm : {"batch", "layer", "none"}
    prenorm : bool
    mixing : {"glu", "half-glu", "bilinear", "linear", "gelu", "tanh", "none"}
        What follows the linear filter; see `Gate`.
    dropout : float
        Dropout probability inside and after every block; whole channels are dropped.
    pooling : {"mean", "last", "max"} or None
        None returns a sequence.
    bidirectional : bool
        For "s4" and "s5".
    layer_options : mapping, optional
        Further arguments of the layers, ``{"length": 1024}`` for "s4" above all.

    Raises
    ------
    RequestError
        If an option does not exist, or the family cannot be bidirectional.

    Notes
    -----
    The layers of "s4d" and "s4" mix themselves, as their originals do, where `mixing` is "glu" or
    "linear"; otherwise the block's gate does.

    Examples
    --------
    >>> model = DeepSSM(3, 10, layer="s5", channels=8, states=8, layers=2, norm="layer")
    >>> model(torch.zeros(2, 20, 3)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        layer: str = "s4d",
        channels: int = 64,
        states: int = 64,
        layers: int = 4,
        encoder: str = "linear",
        norm: str = "batch",
        prenorm: bool = True,
        mixing: str = "glu",
        dropout: float = 0.0,
        pooling: str | None = "mean",
        bidirectional: bool = False,
        layer_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        check_choice(layer, tuple(FAMILIES), "layer", "DeepSSM")
        check_choice(mixing, GATES, "mixing", "DeepSSM")
        self.norm = check_choice(norm, NORMS, "norm", "DeepSSM")
        if pooling is not None:
            check_choice(pooling, POOLINGS, "pooling", "DeepSSM")
        self.pooling = pooling
        self.prenorm = prenorm
        family = FAMILIES[layer]
        options = dict(layer_options or {})
        if bidirectional:
            if layer not in TWO_WAYS:
                raise RequestError(
                    message(
                        "DeepSSM",
                        f"{layer!r} layers cannot be bidirectional",
                        expected=" or ".join(map(repr, TWO_WAYS)),
                    )
                )
            options["bidirectional"] = True
        mixes_itself = mixing in family.MIXINGS and mixing != "none"
        self.paired = bool(family.MIXINGS)
        if self.paired:
            options["mixing"] = mixing if mixes_itself else "none"
            if mixes_itself:
                options["dropout"] = dropout
        if check_choice(encoder, ENCODERS, "encoder", "DeepSSM") == "embedding":
            self.encoder: nn.Module = nn.Embedding(inputs, channels)
        else:
            self.encoder = nn.Linear(inputs, channels)
        kinds = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm, "none": lambda _: nn.Identity()}
        self.norms = nn.ModuleList(kinds[norm](channels) for _ in range(layers))
        self.layers = nn.ModuleList(family(channels, states, **options) for _ in range(layers))
        self.gates = nn.ModuleList(
            nn.Identity() if mixes_itself or mixing == "none" else Gate(channels, mixing, dropout)
            for _ in range(layers)
        )
        self.dropout = nn.Dropout1d(dropout)
        self.decoder = nn.Linear(channels, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, T, inputs) or tokens (batch, T) to (batch, outputs) or (batch, T, outputs).

        Parameters
        ----------
        x : torch.Tensor

        Returns
        -------
        torch.Tensor
            Logits or numbers, without an activation.
        """
        x = self.encoder(x).transpose(-1, -2).contiguous()
        for norm, layer, gate in zip(self.norms, self.layers, self.gates, strict=True):
            y = self._normalised(norm, x) if self.prenorm else x
            if self.paired:
                y, _ = layer(y)
            else:
                y = layer(y)
            x = x + self.dropout(gate(y))
            if not self.prenorm:
                x = self._normalised(norm, x)
        if self.pooling is None:
            return self.decoder(x.transpose(-1, -2))
        return self.decoder(self._pooled(x))

    def _normalised(self, norm: nn.Module, x: torch.Tensor) -> torch.Tensor:
        if self.norm == "layer":
            return norm(x.transpose(-1, -2)).transpose(-1, -2)
        return norm(x)

    def _pooled(self, x: torch.Tensor) -> torch.Tensor:
        if self.pooling == "mean":
            return x.mean(dim=-1)
        if self.pooling == "last":
            return x[..., -1]
        return x.amax(dim=-1)


class DeepLQO(DeepSSM):
    """Stack layers with quadratic outputs: ``x <- x + tanh(lqo(norm(x)))``.

    A `DeepSSM` with layers "lqo" and mixing "tanh": what follows a layer is bounded and has slope 1
    at most, so that squares do not grow from block to block. B, C and U mix the features.

    Parameters
    ----------
    inputs, outputs, channels, states, layers, encoder, norm, dropout, pooling
        As of `DeepSSM`.
    rank : int
        Squares per output; see `LQOLayer`.
    **layer_options
        Further arguments of `LQOLayer`, such as ``initial="legs"``.

    Examples
    --------
    >>> model = DeepLQO(256, 2, encoder="embedding", channels=8, states=16, layers=2)
    >>> model(torch.zeros(3, 20, dtype=torch.long)).shape
    torch.Size([3, 2])
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        channels: int = 64,
        states: int = 256,
        layers: int = 4,
        rank: int = 1,
        encoder: str = "linear",
        norm: str = "batch",
        dropout: float = 0.0,
        pooling: str | None = "mean",
        **layer_options: Any,
    ) -> None:
        super().__init__(
            inputs,
            outputs,
            layer="lqo",
            channels=channels,
            states=states,
            layers=layers,
            encoder=encoder,
            norm=norm,
            mixing="tanh",
            dropout=dropout,
            pooling=pooling,
            layer_options={"rank": rank, **layer_options},
        )
