"""One adapter per checkpoint family: recognise a layer, read it, replace it, write it back."""

from __future__ import annotations

from typing import Protocol

from torch import nn

from ssmred.networks.reduced import ReducedSSM
from ssmred.systems import DiagonalSystem

__all__ = ["Adapter", "adapter_for", "register_adapter"]


class Adapter(Protocol):
    """Translate one family of state-space layers; register an instance with `register_adapter`."""

    family: str

    def recognises(self, module: nn.Module) -> bool:
        """Tell by structure, never by class or import path, whether this is such a layer."""
        ...

    def to_system(self, module: nn.Module) -> DiagonalSystem:
        """Return the layer's channels: batched, post-update, real output, float64."""
        ...

    def to_block(self, module: nn.Module, core: ReducedSSM) -> nn.Module:
        """Return a drop-in for the layer that filters with `core`, a submodule named ``core``."""
        ...

    def from_system(
        self, module: nn.Module, system: DiagonalSystem, *, states: int | None = None
    ) -> nn.Module:
        """Return a layer of the module's own class, padded, that holds `system`."""
        ...


_ADAPTERS: list[Adapter] = []


def register_adapter(adapter: Adapter) -> Adapter:
    """Make a family known; the one registered last is asked first."""
    _ADAPTERS.insert(0, adapter)
    return adapter


def adapter_for(module: nn.Module) -> Adapter | None:
    """Return the adapter that recognises a module, or None."""
    return next((a for a in _ADAPTERS if a.recognises(module)), None)


from ssmred.networks.adapters import s4d  # noqa: E402  (registers itself)

register_adapter(s4d.S4DAdapter())
