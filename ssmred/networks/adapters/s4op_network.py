"""A network that runs an S4oP checkpoint, built from its tensors alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ssmred.errors import CheckpointError, message
from ssmred.networks.adapters.block import FilterBlock
from ssmred.networks.adapters.s4_settings import UPSTREAM, S4Settings
from ssmred.networks.adapters.s4op import S4oPCheckpoint, S4oPLayer, read_s4op
from ssmred.networks.cores import core_for

__all__ = ["S4oPNetwork", "network_from_s4op"]


class S4oPNetwork(nn.Module):
    """Classify sequences: input map, residual blocks with norms before or after, mean, output map.

    Tokens (batch, T) with an embedding, or (batch, T, features) with a linear input map; two
    sequences (batch, 2, T) where the output map compares them.

    Parameters
    ----------
    embedding : nn.Module
    layers : list of FilterBlock
    norms : list of nn.Module
    head : nn.Module
        ``fc``, or ``match`` on both sequences' means, their distance and their product.
    prenorm : bool
        Whether norms stand before the layers, inside the residual branch.
    paired : bool
        Whether the output map compares two sequences.
    """

    def __init__(
        self,
        embedding: nn.Module,
        layers: list[FilterBlock],
        norms: list[nn.Module],
        head: nn.Module,
        *,
        prenorm: bool,
        paired: bool = False,
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.layers = nn.ModuleList(layers)
        self.norms = nn.ModuleList(norms)
        self.head = head
        self.prenorm = prenorm
        self.paired = paired

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        if not self.paired:
            return self.head(self._encoded(x))
        first, second = self._encoded(x[:, 0]), self._encoded(x[:, 1])
        both = [first, second, (first - second).abs(), first * second]
        return self.head(torch.cat(both, dim=-1))

    def _encoded(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embedding(x).transpose(1, 2)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            if self.prenorm:
                x = x + layer(self._normed(norm, x))
            else:
                x = self._normed(norm, x + layer(x))
        return x.mean(dim=-1)

    @staticmethod
    def _normed(norm: nn.Module, x: torch.Tensor) -> torch.Tensor:
        if isinstance(norm, nn.BatchNorm1d):
            return norm(x)
        return norm(x.transpose(1, 2)).transpose(1, 2)


def network_from_s4op(
    checkpoint: Mapping[str, Any] | S4oPCheckpoint,
    *,
    prenorm: bool | None = None,
    settings: S4Settings = UPSTREAM,
) -> S4oPNetwork:
    """Return a network in eval mode that computes what an S4oP checkpoint computes.

    Parameters
    ----------
    checkpoint : mapping or S4oPCheckpoint
        See `read_s4op`.
    prenorm : bool
        Whether norms stand before the layers; a checkpoint does not tell.
    settings : S4Settings
        Of its S4 layers.

    Returns
    -------
    S4oPNetwork
        Its layers are imported ones (`ReducedSSM`, or `DenseSSM` for S4), ready to be reduced; a
        bypassed channel has order 0 and D = 1.

    Raises
    ------
    CheckpointError
        If `prenorm` is missing, or as `read_s4op`.

    Notes
    -----
    The mean is over all steps. Dropout is left out.
    """
    found = checkpoint if isinstance(checkpoint, S4oPCheckpoint) else None
    if found is None:
        found = read_s4op(checkpoint, settings=settings)  # type: ignore[arg-type]
    if prenorm is None:
        raise CheckpointError(
            message(
                "network_from_s4op",
                "an S4oP checkpoint does not tell whether its norms stand before the layers",
                cure="Pass prenorm=True or prenorm=False, as the network was trained "
                '("pre-norm" in its configuration).',
            )
        )
    paired = any(name.startswith("match.") for name in found.head)
    network = S4oPNetwork(
        _embedding(found),
        [_block(layer) for layer in found.layers],
        [_norm(layer, found) for layer in found.layers],
        _match(found) if paired else _filled(found.head, "fc"),
        prenorm=prenorm,
        paired=paired,
    )
    return network.eval()


def _block(layer: S4oPLayer) -> FilterBlock:
    weight = layer.mixing["0.weight"]
    position_wise = weight.ndim == 3
    mixing = nn.Conv1d(weight.shape[1], weight.shape[0], 1) if position_wise else None
    mixing = mixing or nn.Linear(weight.shape[1], weight.shape[0])
    _fill(mixing, {n.removeprefix("0."): t for n, t in layer.mixing.items()}, layer.name)
    return FilterBlock(
        core_for(layer.system),
        nn.GELU(),
        None,
        nn.Sequential(mixing, nn.GLU(dim=-2 if position_wise else -1)),
        features_last=not position_wise,
        paired=False,
    )


def _norm(layer: S4oPLayer, found: S4oPCheckpoint) -> nn.Module:
    norm = getattr(nn, found.norm_kind)(found.width)
    _fill(norm, layer.norm, f"the norm of {layer.name}")
    return norm


def _embedding(found: S4oPCheckpoint) -> nn.Module:
    weight = found.embedding.get("weight")
    if weight is None or weight.ndim != 2:
        raise CheckpointError(message("read_s4op", "embedding.weight is missing or misshapen"))
    if "bias" in found.embedding:
        module: nn.Module = nn.Linear(weight.shape[1], found.width)
    else:
        module = nn.Embedding(weight.shape[0], found.width)
    _fill(module, found.embedding, "embedding")
    return module


def _match(found: S4oPCheckpoint) -> nn.Module:
    parts = [{n.removeprefix(f"match.{i}."): t for n, t in found.head.items()
              if n.startswith(f"match.{i}.")} for i in (0, 2)]  # fmt: skip
    layers = [_filled({f"fc.{n}": t for n, t in part.items()}, "fc") for part in parts]
    return nn.Sequential(layers[0], nn.GELU(), layers[1])


def _filled(tensors: Mapping[str, torch.Tensor], name: str) -> nn.Linear:
    weight = tensors.get(f"{name}.weight")
    if weight is None or weight.ndim != 2:
        raise CheckpointError(message("read_s4op", f"{name}.weight is missing or misshapen"))
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    _fill(layer, {n.removeprefix(f"{name}."): t for n, t in tensors.items()}, name)
    return layer


def _fill(module: nn.Module, tensors: Mapping[str, torch.Tensor], name: str) -> None:
    """Load tensors into a module in their own dtype, or raise CheckpointError naming the part."""
    wanted = {n: tuple(t.shape) for n, t in module.state_dict().items()}
    got = {n: tuple(t.shape) for n, t in tensors.items()}
    optional = {"num_batches_tracked"}
    if {n: s for n, s in wanted.items() if n not in optional} != {
        n: s for n, s in got.items() if n not in optional
    }:
        raise CheckpointError(
            message(
                "read_s4op",
                f"the tensors of {name} do not fit",
                expected=f"{wanted}",
                got=f"{got}",
            )
        )
    module.to(next(iter(tensors.values())).dtype)
    module.load_state_dict(dict(tensors), strict=False)
