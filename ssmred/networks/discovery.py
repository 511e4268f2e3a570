"""Find the state-space layers of a network and put reduced ones in their place."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import torch
from torch import nn

from ssmred.errors import CheckpointError, UnsupportedOperationError, message
from ssmred.networks.adapters import Adapter, adapter_for, known_families
from ssmred.networks.capture import capture, check_hooks
from ssmred.networks.copying import copy_module
from ssmred.networks.cores import check_core, core_like, full_core
from ssmred.networks.filters import LinearFilter, is_core, stood_for
from ssmred.networks.held_poles import held_poles
from ssmred.networks.layers.lqo import QuadraticOutputs
from ssmred.systems.diagonal import DiagonalSystem
from ssmred.systems.linear import LinearSystem

__all__ = [
    "FoundLayer",
    "ImportedLayer",
    "ImportedNetwork",
    "check_weights",
    "find_layers",
    "import_network",
    "is_imported",
    "layer_name",
    "with_module",
    "with_systems",
]

CORE, BACKWARD = "core", "backward"
"""Attributes of a drop-in block that hold its filters."""

WHOLE = "model"
"""Name of the only layer of a network that is itself a layer."""


@dataclass(frozen=True, eq=False)
class FoundLayer:
    """Hold one state-space layer of a network, or one filter of a layer imported already.

    Attributes
    ----------
    name : str
        The layer's name.
    path : str
        Path of the module in the network.
    module : nn.Module
    adapter : Adapter or None
        None for a core, which needs no translation.
    """

    name: str
    path: str
    module: nn.Module
    adapter: Adapter | None

    def to_systems(self) -> dict[str, LinearSystem]:
        """Return the layer's systems by the names of its filters, in certificates too."""
        if isinstance(self.module, LinearFilter):
            return {self.name: self.module.to_system()}
        try:
            systems = self.adapter.to_systems(self.module)
        except CheckpointError as error:
            raise CheckpointError(f"layer {self.name}: {error}") from error
        if CORE not in systems or set(systems) - {CORE, BACKWARD}:
            raise CheckpointError(
                message(
                    f"layer {self.name}",
                    f"the adapter for {self.adapter.family!r} names its filters otherwise",
                    expected=f"{CORE!r}, and {BACKWARD!r} for one that runs backwards",
                    got=f"{sorted(systems)}",
                )
            )
        return {filter_name(self.name, core): system for core, system in systems.items()}


@dataclass(frozen=True, eq=False)
class ImportedLayer:
    """Hold one linear filter of an imported network: a layer, or one direction of it.

    Attributes
    ----------
    name : str
        The layer's name; ``<layer>.backward`` for a filter that runs backwards.
    system : LinearSystem
        At full order.
    core : str
        Path of the filter in the imported model.
    states : int
        Real states of all channels together; a complex mode counts as two.
    held : callable
        Returns a system with its poles as the layer's own class holds them.
    squared : bool
        Whether the layer squares what it has more outputs than inputs of; those have no direct
        term.
    """

    name: str
    system: LinearSystem
    core: str
    states: int
    held: Callable[[DiagonalSystem], DiagonalSystem] = lambda system: system
    squared: bool = False


@dataclass(frozen=True, eq=False)
class ImportedNetwork:
    """Hold a copy of a network whose state-space layers are full-order filters.

    Attributes
    ----------
    model : nn.Module
        The copy; computes what the original computes.
    layers : tuple of ImportedLayer
        In execution order where the network can be traced.
    """

    model: nn.Module
    layers: tuple[ImportedLayer, ...]

    @property
    def systems(self) -> dict[str, LinearSystem]:
        """The full systems by layer name."""
        return {layer.name: layer.system for layer in self.layers}

    def core(self, name: str, model: nn.Module | None = None) -> LinearFilter:
        """Return the core of a layer, of this model or of one made by `with_systems`."""
        path = next((layer.core for layer in self.layers if layer.name == name), None)
        if path is None:
            raise CheckpointError(
                message(
                    "ImportedNetwork.core",
                    f"there is no layer {name!r}",
                    expected=f"one of {[layer.name for layer in self.layers]}",
                )
            )
        return cast(LinearFilter, (self.model if model is None else model).get_submodule(path))

    def with_systems(self, systems: Mapping[str, Any]) -> nn.Module:
        """Return a copy with reduced layers; see `ssmred.networks.with_systems`."""
        return with_systems(self, systems)


def layer_name(path: str) -> str:
    """Return the name of the layer at a module path; a block's core has the block's name.

    Examples
    --------
    >>> layer_name("layers.0.core"), layer_name("layers.0"), layer_name("core")
    ('layers.0', 'layers.0', 'model')
    >>> layer_name("layers.0.backward"), layer_name("backward")
    ('layers.0.backward', 'model.backward')
    """
    if path == BACKWARD:
        return f"{WHOLE}.{BACKWARD}"
    outer = path.removesuffix(CORE).removesuffix(".") if _is_core(path) else path
    return outer or WHOLE


def filter_name(layer: str, core: str) -> str:
    """Return the name of a layer's filter: the layer's own, or ``<layer>.backward``."""
    return layer if core == CORE else f"{layer}.{core}"


def find_layers(model: nn.Module) -> list[FoundLayer]:
    """Return the state-space layers, in execution order where the network can be traced.

    Parameters
    ----------
    model : nn.Module
        Never modified. A module that is used twice is found once.

    Raises
    ------
    UnsupportedOperationError
        If there is none.
    """
    found = _found(model)
    return [found[path] for path in _execution_order(model, list(found))]


def is_imported(model: nn.Module) -> bool:
    """Tell whether all state-space layers of a network are imported or reduced ones."""
    return all(found.adapter is None for found in _found(model).values())


def _found(model: nn.Module) -> dict[str, FoundLayer]:
    if not isinstance(model, nn.Module):
        raise UnsupportedOperationError(
            message("find_layers", "no network", expected="a torch.nn.Module", got=f"{type(model)}")
        )
    found: dict[str, FoundLayer] = {}
    inside: list[str] = []
    left_behind = stood_for(model)
    for path, module in model.named_modules():
        if any(path.startswith(f"{outer}.") for outer in inside):
            continue
        adapter = None if is_core(module) or left_behind(path) else adapter_for(module)
        if adapter is not None or is_core(module):
            found[path] = FoundLayer(layer_name(path), path, module, adapter)
            inside.append(path)
    if not found:
        raise UnsupportedOperationError(
            message(
                "find_layers",
                f"{type(model).__name__} has no state-space layer that ssmred knows",
                expected=f"layers of the families {known_families()}, or imported ones",
                got=", ".join(sorted({type(m).__name__ for m in model.modules()})),
                cure="Register an adapter for its layers with ssmred.networks.register_adapter.",
            )
        )
    return found


def import_network(model: nn.Module) -> ImportedNetwork:
    """Return a copy of a network that runs on full-order filters: `ReducedSSM` and its like.

    Parameters
    ----------
    model : nn.Module
        Never modified.

    Returns
    -------
    ImportedNetwork

    Raises
    ------
    UnsupportedOperationError
        If there is no state-space layer, or one of them has forward hooks.
    CheckpointError
        If a weight is nan or inf, or a layer does not compute what its weights say: the impulse
        response of every layer is compared with its own kernel, and the drop-in with the layer.
    """
    check_weights(model, "import_network")
    return import_in_place(copy_module(model))


def import_in_place(network: nn.Module) -> ImportedNetwork:
    """Import the layers of a network, which is changed; see `import_network`."""
    threads = torch.get_num_threads()
    layers = []
    for found in find_layers(network):
        if found.adapter is not None:  # the drop-in would lose them
            check_hooks(found.module, f"import_network: layer {found.name}")
        systems = found.to_systems()
        paths = {found.name: found.path}
        if isinstance(found.module, LinearFilter):
            _take_the_place(network, found.module)
        if found.adapter is not None:
            paths = {name: _core_path(found, name) for name in systems}
            cores = {}
            for name, system in systems.items():
                full = full_core(system)
                check_core(full, system, name)
                cores[paths[name].rpartition(".")[2]] = full.to(_device(found.module))
            network = with_module(network, found.path, found.adapter.to_block(found.module, cores))
        for name, system in systems.items():
            owner = network.get_submodule(paths[name].rpartition(".")[0])
            layer = ImportedLayer(
                name,
                system,
                paths[name],
                network.get_submodule(paths[name]).states,
                squared=isinstance(getattr(owner, "activation", None), QuadraticOutputs),
            )
            if found.adapter is not None:
                core = paths[name].rpartition(".")[2]
                held = partial(held_poles, found.adapter, found.module, core)
                layer = replace(layer, held=held)
            layers.append(layer)
    torch.set_num_threads(threads)  # Numba's thread pool changes what torch's libraries use
    return ImportedNetwork(network, tuple(layers))


def with_systems(imported: ImportedNetwork, systems: Mapping[str, Any]) -> nn.Module:
    """Return a copy of an imported network with reduced layers.

    Parameters
    ----------
    imported : ImportedNetwork
    systems : mapping of str to (system, orders), system or core
        By layer name: batched system whose channel h keeps its first ``orders[h]`` modes. Layers
        that are not named stay as they are. Another kind of system makes another kind of core.

    Raises
    ------
    CheckpointError
        If a name is not a layer, or the number of channels changes.
    """
    model = copy.deepcopy(imported.model)
    for name, wanted in systems.items():
        old = imported.core(name, model)
        if isinstance(wanted, LinearFilter):
            core = copy.deepcopy(wanted)
        else:
            system, orders = wanted if isinstance(wanted, tuple) else (wanted, None)
            core = core_like(old, system, orders)
        if (core.inputs, core.outputs) != (old.inputs, old.outputs):
            raise CheckpointError(
                message(
                    "with_systems",
                    f"layer {name} changes its width",
                    expected=f"{old.inputs} channels in, {old.outputs} out",
                    got=f"{core.inputs} and {core.outputs}",
                )
            )
        check_core(core, core.to_system(), name)
        path = next(layer.core for layer in imported.layers if layer.name == name)
        model = with_module(model, path, core.to(_device(old)).train(old.training))
    return model


def check_weights(model: nn.Module, where: str) -> None:
    """Raise CheckpointError, naming the key, if a weight is nan or inf."""
    for key, tensor in model.state_dict().items():
        known = isinstance(tensor, torch.Tensor)
        inexact = known and (tensor.is_floating_point() or tensor.is_complex())
        if inexact and not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(
                message(
                    where,
                    f"{key} holds nan or inf",
                    expected="finite weights",
                    cure="Load a checkpoint from before the training diverged.",
                )
            )


def _is_core(path: str) -> bool:
    return path == CORE or path.endswith(f".{CORE}")


def _take_the_place(network: nn.Module, core: LinearFilter) -> None:
    """Let a filter that stood in for a stored layer replace it: the layer's own tensors go."""
    for key in core.stands_for or ():
        owner, _, name = key.rpartition(".")
        with contextlib.suppress(AttributeError):  # gone with the layer's other filter
            delattr(network.get_submodule(owner), name)
    core.stands_for = None


def _core_path(found: FoundLayer, name: str) -> str:
    """Return where a drop-in block holds one of a layer's filters."""
    core = CORE if name == found.name else name.removeprefix(f"{found.name}.")
    return f"{found.path}.{core}" if found.path else core


def _device(module: nn.Module) -> torch.device:
    tensors = (*module.parameters(), *module.buffers())
    return tensors[0].device if tensors else torch.device("cpu")


def _execution_order(model: nn.Module, paths: list[str]) -> list[str]:
    if len(paths) == 1:
        return paths
    try:
        graph = capture(model, is_leaf=lambda module: adapter_for(module) is not None).graph
    except UnsupportedOperationError:
        return paths
    used = [str(node.target) for node in graph.nodes if node.op == "call_module"]
    ordered = list(dict.fromkeys(path for path in used if path in paths))
    return ordered + [path for path in paths if path not in ordered]


def with_module(network: nn.Module, path: str, module: nn.Module) -> nn.Module:
    """Put a module at a path, everywhere the old one is used; return the network."""
    if not path:
        return module
    old = network.get_submodule(path)
    for owner in list(network.modules()):
        for name, child in list(owner._modules.items()):
            if child is old:
                owner._modules[name] = module
    return network
