"""A base class for adapters of one's own: a layer with a single filter in about 20 lines."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from ssmred.errors import CheckpointError, UnsupportedOperationError, message
from ssmred.networks.adapters.block import FilterBlock
from ssmred.networks.adapters.drop_in import agrees
from ssmred.networks.cores import full_core
from ssmred.systems.linear import LinearSystem

__all__ = ["LayerAdapter"]


class LayerAdapter:
    """Supply what adapters have in common; a subclass says `recognises` and `to_systems`.

    The layer is taken to compute ``output_linear(dropout(activation(filter(u))))``, as `parts`
    says; the layout of sequences, and whether the answer comes in a pair, are found by trying.

    Examples
    --------
    See docs/own-layer.md.
    """

    family = "own"

    def recognises(self, module: nn.Module) -> bool:
        """Tell by structure whether this is such a layer."""
        raise NotImplementedError

    def to_systems(self, module: nn.Module) -> dict[str, LinearSystem]:
        """Return ``{"core": system}``, and ``"backward"`` for a filter on the reversed sequence.

        Independent channels: batch shape (H,), one input and one output. One shared state: a
        DiagonalSystem of batch shape (1,). Real outputs; a half spectrum has its factor 2 in C.
        """
        raise NotImplementedError

    def parts(self, module: nn.Module) -> dict[str, Any]:
        """Return what else the layer does, as keyword arguments of `FilterBlock`.

        By default nothing: the layer is its filter. Leave out ``transposed`` and ``paired``.
        """
        return {}

    def from_systems(
        self, module: nn.Module, systems: Mapping[str, LinearSystem], *, states: int | None = None
    ) -> nn.Module:
        """Return a layer of the module's own class that holds the systems; refused by default.

        Raises
        ------
        UnsupportedOperationError
            Unless a subclass says how.
        """
        raise UnsupportedOperationError(
            message(
                f"{type(self).__name__}.from_systems",
                f"this adapter cannot write a {type(module).__name__} back",
                cure="Keep the reduced layers as they are, or write from_systems.",
            )
        )

    def to_block(self, module: nn.Module, cores: Mapping[str, nn.Module]) -> nn.Module:
        """Return a drop-in with these filters and the layer's other modules.

        Raises
        ------
        CheckpointError
            If with the layer's own systems no drop-in answers as the layer does.
        """
        full = {name: full_core(system) for name, system in self.to_systems(module).items()}
        for block in self.blocks(module, full):
            if agrees(module, block):
                for name, core in cores.items():
                    setattr(block, name, core)
                return block.train(module.training)
        raise CheckpointError(
            message(
                f"{type(self).__name__}.to_block",
                f"{type(module).__name__} does not compute what its systems say",
                expected="output_linear(dropout(activation(filter(u)))) with the modules that "
                "parts() names",
                cure="ssmred.networks.check_adapter(adapter, module) looks for the usual mistakes.",
            )
        )

    def blocks(self, module: nn.Module, cores: Mapping[str, Any]) -> Iterator[FilterBlock]:
        """Yield the drop-ins with these filters, in every layout that the layer may have."""
        named = getattr(module, "transposed", None)
        layouts = (named,) if isinstance(named, bool) else (True, False)
        parts = self.parts(module)
        sides = (parts.pop("features_last"),) if "features_last" in parts else (False, True)
        for transposed, last in itertools.product(layouts, sides):
            yield FilterBlock(**cores, **parts, features_last=last, transposed=transposed)
