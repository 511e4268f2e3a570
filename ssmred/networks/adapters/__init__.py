"""One adapter per checkpoint family: recognise a layer, read it, replace it, write it back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import nn

from ssmred.networks.filters import holds_place
from ssmred.systems.linear import LinearSystem

__all__ = ["Adapter", "adapter_for", "known_families", "register_adapter"]


class Adapter(Protocol):
    """Translate one family of state-space layers; register an instance with `register_adapter`.

    A layer holds one linear filter, its ``"core"``, or two, ``"core"`` and ``"backward"``, the
    latter on the reversed sequence. `LayerAdapter` supplies all but `recognises` and `to_systems`
    for layers with a single filter.
    """

    family: str

    def recognises(self, module: nn.Module) -> bool:
        """Tell by structure, never by class or import path, whether this is such a layer."""
        ...

    def to_systems(self, module: nn.Module) -> dict[str, LinearSystem]:
        """Return the layer's systems by core, compared with what the module computes.

        Independent channels: batch shape (H,), one input and one output, post-update recurrence.
        One shared state: a DiagonalSystem of batch shape (1,). Real outputs, float64.
        """
        ...

    def to_block(self, module: nn.Module, cores: Mapping[str, nn.Module]) -> nn.Module:
        """Return a drop-in for the layer whose submodules of these names are the cores."""
        ...

    def from_systems(
        self, module: nn.Module, systems: Mapping[str, LinearSystem], *, states: int | None = None
    ) -> nn.Module:
        """Return a layer of the module's own class, padded, that holds the systems."""
        ...


_ADAPTERS: list[Adapter] = []


def register_adapter(adapter: Adapter) -> Adapter:
    """Make a family known; the one registered last is asked first."""
    _ADAPTERS.insert(0, adapter)
    return adapter


def adapter_for(module: nn.Module) -> Adapter | None:
    """Return the adapter that recognises a module, or None."""
    adapter = next((a for a in _ADAPTERS if a.recognises(module)), None)
    if adapter is not None and any(holds_place(part) for part in module.modules()):
        return None  # a stored layer without its class: a filter in it stands in for it
    return adapter


def known_families() -> str:
    """Return the names of the registered families."""
    return ", ".join(dict.fromkeys(adapter.family for adapter in _ADAPTERS))


from ssmred.networks.adapters import dss, lqo, lru, s4_block, s4d, s5  # noqa: E402  (they need the above)

for _adapter in (
    lru.LRUAdapter(),
    lqo.LQOAdapter(),
    s5.S5Adapter(),
    s4_block.S4Adapter(),
    dss.DSSAdapter(),
    s4d.S4DAdapter(),
):
    register_adapter(_adapter)
