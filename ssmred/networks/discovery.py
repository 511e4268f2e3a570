"""Find the state-space layers of a network and put reduced ones in their place."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from ssmred.errors import CheckpointError, UnsupportedOperationError, message
from ssmred.networks.adapters import Adapter, adapter_for
from ssmred.networks.capture import capture, check_hooks
from ssmred.networks.reduced import ReducedSSM
from ssmred.systems import DiagonalSystem

__all__ = [
    "FoundLayer",
    "ImportedLayer",
    "ImportedNetwork",
    "check_weights",
    "export_plain",
    "find_layers",
    "import_network",
    "is_imported",
    "layer_name",
    "with_systems",
]

CORE = "core"
"""Attribute of a drop-in block that holds its ReducedSSM."""

CHECKED_SAMPLES = 40
"""Samples of a new core's kernel that are compared with the response of its system."""

WHOLE = "model"
"""Name of the only layer of a network that is itself a layer."""


@dataclass(frozen=True, eq=False)
class FoundLayer:
    """Hold one state-space layer of a network.

    Attributes
    ----------
    name : str
        The layer's name, in certificates too.
    path : str
        Path of the module in the network.
    module : nn.Module
    adapter : Adapter or None
        None for a `ReducedSSM`, which needs no translation.
    """

    name: str
    path: str
    module: nn.Module
    adapter: Adapter | None

    def to_system(self) -> DiagonalSystem:
        """Return the layer's channels as one batched post-update system."""
        if isinstance(self.module, ReducedSSM):
            return self.module.to_system()
        try:
            return self.adapter.to_system(self.module)
        except CheckpointError as error:
            raise CheckpointError(f"layer {self.name}: {error}") from error


@dataclass(frozen=True, eq=False)
class ImportedLayer:
    """Hold one layer of an imported network.

    Attributes
    ----------
    name : str
    system : DiagonalSystem
        Its channels at full order.
    core : str
        Path of its `ReducedSSM` in the imported model.
    states : int
        Real states of all channels together; a mode counts as two.
    """

    name: str
    system: DiagonalSystem
    core: str
    states: int


@dataclass(frozen=True, eq=False)
class ImportedNetwork:
    """Hold a copy of a network whose state-space layers are full-order `ReducedSSM` blocks.

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
    def systems(self) -> dict[str, DiagonalSystem]:
        """The full systems by layer name."""
        return {layer.name: layer.system for layer in self.layers}

    def core(self, name: str, model: nn.Module | None = None) -> ReducedSSM:
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
        return cast(ReducedSSM, (self.model if model is None else model).get_submodule(path))

    def with_systems(self, systems: Mapping[str, Any]) -> nn.Module:
        """Return a copy with reduced layers; see `ssmred.networks.with_systems`."""
        return with_systems(self, systems)


def layer_name(path: str) -> str:
    """Return the name of the layer at a module path; a block's core has the block's name.

    Examples
    --------
    >>> layer_name("layers.0.core"), layer_name("layers.0"), layer_name("core")
    ('layers.0', 'layers.0', 'model')
    """
    outer = path.removesuffix(CORE).removesuffix(".") if _is_core(path) else path
    return outer or WHOLE


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
    """Tell whether all state-space layers of a network are `ReducedSSM` layers."""
    return all(found.adapter is None for found in _found(model).values())


def _found(model: nn.Module) -> dict[str, FoundLayer]:
    if not isinstance(model, nn.Module):
        raise UnsupportedOperationError(
            message("find_layers", "no network", expected="a torch.nn.Module", got=f"{type(model)}")
        )
    found: dict[str, FoundLayer] = {}
    inside: list[str] = []
    for path, module in model.named_modules():
        if any(path.startswith(f"{outer}.") for outer in inside):
            continue
        adapter = None if isinstance(module, ReducedSSM) else adapter_for(module)
        if adapter is not None or isinstance(module, ReducedSSM):
            found[path] = FoundLayer(layer_name(path), path, module, adapter)
            inside.append(path)
    if not found:
        raise UnsupportedOperationError(
            message(
                "find_layers",
                f"{type(model).__name__} has no state-space layer that ssmred knows",
                expected="minimal S4D layers (tensors D, C, log_dt, log_A_real, A_imag) or "
                "ReducedSSM",
                got=", ".join(sorted({type(m).__name__ for m in model.modules()})),
                cure="Register an adapter for its layers with ssmred.networks.register_adapter.",
            )
        )
    return found


def import_network(model: nn.Module) -> ImportedNetwork:
    """Return a copy of a network that runs on full-order `ReducedSSM` layers.

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
    network = copy.deepcopy(model)
    threads = torch.get_num_threads()
    layers = []
    for found in find_layers(network):
        if not isinstance(found.module, ReducedSSM):  # the drop-in would lose them
            check_hooks(found.module, f"import_network: layer {found.name}")
        system = found.to_system()
        core = found.path
        if not isinstance(found.module, ReducedSSM):
            core = f"{found.path}.{CORE}" if found.path else CORE
            full = ReducedSSM.from_system(system, kept=_everything(system))
            _check_core(full, system, found.name)
            full.to(next(found.module.parameters()).device)
            block = found.adapter.to_block(found.module, full)
            network = _replace(network, found.path, block)
        states = network.get_submodule(core).states
        layers.append(ImportedLayer(found.name, system, core, states))
    torch.set_num_threads(threads)  # Numba's thread pool changes what torch's libraries use
    return ImportedNetwork(network, tuple(layers))


def with_systems(imported: ImportedNetwork, systems: Mapping[str, Any]) -> nn.Module:
    """Return a copy of an imported network with reduced layers.

    Parameters
    ----------
    imported : ImportedNetwork
    systems : mapping of str to (system, orders), system or ReducedSSM
        By layer name: batched system whose channel h keeps its first ``orders[h]`` modes. Layers
        that are not named stay as they are.

    Raises
    ------
    CheckpointError
        If a name is not a layer, or the number of channels changes.
    """
    model = copy.deepcopy(imported.model)
    for name, wanted in systems.items():
        old = imported.core(name, model)
        if isinstance(wanted, ReducedSSM):
            core = copy.deepcopy(wanted)
        else:
            system, orders = wanted if isinstance(wanted, tuple) else (wanted, None)
            core = ReducedSSM.from_system(system, orders=orders)
        if core.channels != old.channels:
            raise CheckpointError(
                message(
                    "with_systems",
                    f"layer {name} changes its width",
                    expected=f"{old.channels} channels",
                    got=f"{core.channels}",
                )
            )
        _check_core(core, core.to_system(), name)
        path = next(layer.core for layer in imported.layers if layer.name == name)
        model = _replace(model, path, core.to(old.poles.device).train(old.training))
    return model


def export_plain(
    original: nn.Module, reduced: nn.Module, *, states: int | None = None
) -> nn.Module:
    """Write reduced layers back as padded layers of the original's own classes.

    Parameters
    ----------
    original : nn.Module
        The network before reduction; never modified.
    reduced : nn.Module
        The same network with reduced layers.
    states : int, optional
        Real states per channel of every layer, even; by default the largest order anywhere, so
        that the original class loads the state dict when built with that many states.

    Returns
    -------
    nn.Module
        A copy of `original`, in its own dtype; every layer's kernel was compared with the reduced
        system's response.

    Raises
    ------
    OrderError
        If `states` is odd or too few.
    CheckpointError
        If the networks do not have the same layers, or a system cannot be written.
    """
    systems = {found.name: found.to_system() for found in find_layers(reduced)}
    targets = find_layers(original)
    if set(systems) != {found.name for found in targets}:
        raise CheckpointError(
            message(
                "export_plain",
                "the two networks do not have the same layers",
                expected=f"{[found.name for found in targets]}",
                got=f"{sorted(systems)}",
            )
        )
    if states is None:
        orders = [ReducedSSM.from_system(s).orders.max(initial=1) for s in systems.values()]
        states = 2 * int(max(orders))
    model = copy.deepcopy(original)
    tensors = reduced.state_dict()
    own = model.state_dict()
    with torch.no_grad():  # whatever else was changed in the reduced network comes along
        for key in own.keys() & tensors.keys():
            if own[key].shape == tensors[key].shape:
                own[key].copy_(tensors[key])
    for found in targets:
        if found.adapter is not None:
            layer = model.get_submodule(found.path)
            plain = found.adapter.from_system(layer, systems[found.name], states=states)
            model = _replace(model, found.path, plain)
    return model


def check_weights(model: nn.Module, where: str) -> None:
    """Raise CheckpointError, naming the key, if a weight is nan or inf."""
    for key, tensor in model.state_dict().items():
        floating = isinstance(tensor, torch.Tensor) and tensor.is_floating_point()
        if floating and not bool(torch.isfinite(tensor).all()):
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


def _everything(system: DiagonalSystem) -> Any:
    return abs(system.poles) >= 0.0  # a mode with a zero read-out is a state all the same


def _check_core(core: ReducedSSM, system: DiagonalSystem, name: str) -> None:
    """Raise CheckpointError unless a layer's own kernel is the response of its system."""
    with torch.no_grad():
        kernel = core.kernel(CHECKED_SAMPLES).cpu().numpy()
    response = system.impulse_response(CHECKED_SAMPLES)[..., 0, 0]
    sizes = np.abs(system.C[..., 0, :] * system.B[..., 0]).sum(axis=-1) + abs(system.D[..., 0, 0])
    growth = np.maximum(np.abs(system.poles).max(axis=-1, initial=0.0), 1.0) ** CHECKED_SAMPLES
    margin = (system.poles.shape[-1] + 16) * np.finfo(np.float64).eps
    if not (np.abs(kernel - response) <= (margin * sizes * growth)[:, None]).all():
        raise CheckpointError(
            message(
                "import_network",
                f"the kernel of layer {name} is not the response of its system",
                got=f"a difference of {np.abs(kernel - response).max():.3g}",
            )
        )


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


def _replace(network: nn.Module, path: str, module: nn.Module) -> nn.Module:
    """Put a module at a path, everywhere the old one is used; return the network."""
    if not path:
        return module
    old = network.get_submodule(path)
    for owner in list(network.modules()):
        for name, child in list(owner._modules.items()):
            if child is old:
                owner._modules[name] = module
    return network
