"""Hand out the linear systems of a layer or of a whole network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from ssmred.errors import UnsupportedOperationError, message
from ssmred.networks.adapters import adapter_for, known_families
from ssmred.networks.capture import capture
from ssmred.networks.discovery import FoundLayer, filter_name, layer_name
from ssmred.networks.filters import LinearFilter, stood_for
from ssmred.systems.linear import LinearSystem

__all__ = ["SystemChain", "export", "layer_paths", "systems_at"]


@dataclass(frozen=True, eq=False)
class SystemChain:
    """List the linear systems of a network.

    Attributes
    ----------
    layers : tuple of (str, LinearSystem)
        Name and system of every filter, in execution order where the network can be traced;
        ``<layer>.backward`` for a filter on the reversed sequence. What the network does between
        them is not part of it.

    Examples
    --------
    >>> from ssmred.systems import DiagonalSystem
    >>> chain = SystemChain((("first", DiagonalSystem([0.5], [1.0], [2.0])),))
    >>> print(chain)
    first  DiagonalSystem(order=1, inputs=1, outputs=1, dt=1, recurrence='standard')
    >>> len(chain), chain.names, chain["first"].order
    (1, ('first',), 1)
    """

    layers: tuple[tuple[str, LinearSystem], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names, in order."""
        return tuple(name for name, _ in self.layers)

    @property
    def systems(self) -> dict[str, LinearSystem]:
        """The systems by name."""
        return dict(self.layers)

    def __getitem__(self, name: str) -> LinearSystem:
        """Return the system of a name."""
        return self.systems[name]

    def __len__(self) -> int:
        """Return the number of systems."""
        return len(self.layers)

    def __iter__(self) -> Iterator[tuple[str, LinearSystem]]:
        """Go through names and systems."""
        return iter(self.layers)

    def __str__(self) -> str:
        """Return one line per system."""
        width = max((len(name) for name in self.names), default=0)
        return "\n".join(f"{name:{width}}  {system!r}" for name, system in self.layers)


def export(model: nn.Module) -> LinearSystem | SystemChain:
    """Return the linear system of a layer, or the chain of those of a network.

    Parameters
    ----------
    model : nn.Module
        A state-space layer (one of ssmred's own, a core, or one that an adapter recognises) or a
        network that holds some; never modified. What a layer does after its filter is left out.

    Returns
    -------
    LinearSystem or SystemChain
        Float64, post-update: independent channels have batch shape (H,), a shared state (1,).

    Raises
    ------
    UnsupportedOperationError
        If there is no state-space layer, or a single layer holds two filters.
    CheckpointError
        If a layer that was not made here does not compute what its weights say.

    Examples
    --------
    >>> from ssmred.networks.layers import S4D
    >>> export(S4D(3, 8))  # doctest: +ELLIPSIS
    DiagonalSystem(batch=(3,), order=4, inputs=1, outputs=1, ..., real_output=True)
    """
    paths = _layer_paths(model)
    if paths == [""]:
        systems = _systems_of("", model)
        if len(systems) > 1:
            raise UnsupportedOperationError(
                message(
                    "export",
                    f"{type(model).__name__} is bidirectional and holds {len(systems)} systems",
                    cure="Call to_systems() of the layer or of its adapter.",
                )
            )
        return next(iter(systems.values()))
    chain: list[tuple[str, LinearSystem]] = []
    for path in layer_paths(model):
        chain += systems_at(model, path).items()
    return SystemChain(tuple(chain))


def layer_paths(model: nn.Module) -> list[str]:
    """Return where the layers of a network are, in execution order; raises as `export`."""
    return _in_order(model, _layer_paths(model))


def systems_at(model: nn.Module, path: str) -> dict[str, LinearSystem]:
    """Return the systems of the layer at a path by the names of its filters."""
    return _systems_of(path, model.get_submodule(path))


def _systems_of(path: str, module: nn.Module) -> dict[str, LinearSystem]:
    """Return the systems of a layer by the names of its filters."""
    name = layer_name(path)
    if not _speaks(module):
        return FoundLayer(name, path, module, adapter_for(module)).to_systems()
    if hasattr(module, "to_systems"):
        return {filter_name(name, core): system for core, system in module.to_systems().items()}
    return {name: module.to_system()}


def _speaks(module: nn.Module) -> bool:
    """Tell whether a module says itself what its systems are."""
    return any(callable(getattr(module, name, None)) for name in ("to_systems", "to_system"))


def _is_layer(module: nn.Module) -> bool:
    return isinstance(module, LinearFilter) or _speaks(module) or adapter_for(module) is not None


def _layer_paths(model: nn.Module) -> list[str]:
    paths: list[str] = []
    left_behind = stood_for(model)
    for path, module in model.named_modules():
        inside = any(path.startswith(f"{outer}.") or not outer for outer in paths)
        known = isinstance(module, LinearFilter) or not left_behind(path)
        if not inside and known and _is_layer(module):
            paths.append(path)
    if not paths:
        raise UnsupportedOperationError(
            message(
                "export",
                f"{type(model).__name__} has no state-space layer that ssmred knows",
                expected=f"layers of the families {known_families()}, or modules with to_system()",
                cure="Register an adapter for its layers with ssmred.networks.register_adapter.",
            )
        )
    return paths


def _in_order(model: nn.Module, paths: list[str]) -> list[str]:
    if len(paths) == 1:
        return paths
    try:
        graph = capture(model, is_leaf=_is_layer).graph
    except UnsupportedOperationError:
        return paths
    used = [str(node.target) for node in graph.nodes if node.op == "call_module"]
    ordered = list(dict.fromkeys(path for path in used if path in paths))
    return ordered + [path for path in paths if path not in ordered]
