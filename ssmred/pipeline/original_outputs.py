"""What the layers of the original network put out, for those that are fitted to it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import torch
from torch import nn

from ssmred.networks import ImportedNetwork
from ssmred.networks.sensing import outputs_of, signals_of

__all__ = ["OriginalOutputs"]

KEPT_BYTES = 2**30
"""Most bytes of layers' outputs that are kept in memory."""


class OriginalOutputs:
    """Hold what the layers of a network put out on the data.

    Where that is too much to keep, the network runs again for each.

    Parameters
    ----------
    network : ImportedNetwork
    data : torch.Tensor, (S, T, ...)
    """

    def __init__(self, network: ImportedNetwork, data: torch.Tensor) -> None:
        self.network, self.data = network, data
        self._kept: list[dict[str, torch.Tensor]] | None = None

    @cached_property
    def cores(self) -> dict[str, nn.Module]:
        """The layers' filters by name."""
        return {at.name: self.network.core(at.name) for at in self.network.layers}

    def of(self, name: str) -> Iterator[torch.Tensor]:
        """Yield what a layer puts out, (S, H, T), batch by batch."""
        if self._kept is None and self._bytes <= KEPT_BYTES:
            self._kept = list(outputs_of(self.network.model, self.cores, self.data))
        if self._kept is None:
            pairs = signals_of(self.network.model, name, self.cores[name], self.data)
            yield from (outputs for _, outputs in pairs)
        else:
            yield from (batch[name] for batch in self._kept)

    @property
    def _bytes(self) -> int:
        one = next(outputs_of(self.network.model, self.cores, self.data[:1]))
        return len(self.data) * sum(t.numel() * t.element_size() for t in one.values())
