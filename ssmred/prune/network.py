"""A network whose operators can be removed: every layer's filter is a bank of trainable kernels."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from ssmred.errors import UnsupportedOperationError, message
from ssmred.networks import LinearFilter, find_layers
from ssmred.networks.copying import copy_module
from ssmred.networks.discovery import check_weights, filter_name, with_module
from ssmred.networks.layers import S4, S4D
from ssmred.networks.operator_bank import OperatorBank, kernel_of
from ssmred.systems.linear import LinearSystem

__all__ = ["PrunableNetwork", "operators_of"]


@dataclass(frozen=True, eq=False)
class PrunableNetwork:
    """Hold a network whose layers filter with `OperatorBank`.

    An operator is one channel's single-input single-output system inside a layer.

    Attributes
    ----------
    model : nn.Module
    paths : dict of str to str
        Where the banks are in the model, by layer name, in execution order.
    """

    model: nn.Module
    paths: dict[str, str]

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers, in execution order."""
        return tuple(self.paths)

    @property
    def banks(self) -> dict[str, OperatorBank]:
        """The banks by layer name."""
        return {n: cast(OperatorBank, self.model.get_submodule(p)) for n, p in self.paths.items()}

    @property
    def live(self) -> dict[str, list[int]]:
        """Channels that have their own operator, by layer: the mask."""
        return {name: bank.own for name, bank in self.banks.items()}

    @property
    def operators(self) -> int:
        """Number of operators that are left."""
        return sum(len(bank.own) for bank in self.banks.values())

    @property
    def channels(self) -> dict[str, int]:
        """Number of channels by layer, which is that of operators before any removal."""
        return {name: bank.channels for name, bank in self.banks.items()}

    def with_banks(self, banks: Mapping[str, OperatorBank]) -> PrunableNetwork:
        """Return a copy of the network with these banks in the place of its own."""
        model = copy.deepcopy(self.model)
        for name, bank in banks.items():
            model = with_module(model, self.paths[name], copy.deepcopy(bank))
        return PrunableNetwork(model.train(self.model.training), dict(self.paths))

    def pruned(self, gains: Mapping[str, Mapping[int, float]]) -> PrunableNetwork:
        """Return the network without some operators, each replaced by a gain; see `OperatorBank`.

        Parameters
        ----------
        gains : mapping of str to mapping of int to float
            By layer name and channel.
        """
        banks = self.banks
        return self.with_banks({n: banks[n].pruned(dict(g)) for n, g in gains.items() if g})

    def masked(self, gains: Mapping[str, Mapping[int, float]]) -> PrunableNetwork:
        """Return the same function as `pruned` does, by zero read-outs: nothing is smaller."""
        banks = self.banks
        return self.with_banks({n: banks[n].masked(dict(g)) for n, g in gains.items() if g})


def operators_of(model: nn.Module) -> PrunableNetwork:
    """Return a copy of a network whose state-space layers are banks of operators.

    Layers S4D and S4 keep their own parameters, and are trained as before; those of any other
    family with independent channels are held by modes, or by dense matrices, that are trained
    themselves. Banks in the network stay as they are.

    Parameters
    ----------
    model : nn.Module
        Never modified.

    Raises
    ------
    UnsupportedOperationError
        If there is no state-space layer, or the channels of one share a state (S5, LRU).
    CheckpointError
        If a weight is nan or inf, or a layer does not compute what its weights say.
    """
    check_weights(model, "operators_of")
    network, paths = copy_module(model), {}
    for found in find_layers(network):
        module = found.module
        if isinstance(module, OperatorBank):
            paths[found.name] = found.path
            continue
        systems = found.to_systems()
        for name, system in systems.items():
            _check_independent(name, system)
        if isinstance(module, LinearFilter):
            bank = _bank(module, systems[found.name], module)
            network = with_module(network, found.path, bank)
            paths[found.name] = found.path
            continue
        cores = {}
        for name, system in systems.items():
            core = name.removeprefix(found.name).removeprefix(".") or "core"
            cores[core] = _bank(module, system, module if len(systems) == 1 else None)
            paths[filter_name(found.name, core)] = f"{found.path}.{core}".removeprefix(".")
        block = found.adapter.to_block(module, cores).to(_place(module))
        network = with_module(network, found.path, block)
    return PrunableNetwork(network.train(model.training), paths)


def _bank(layer: nn.Module, system: LinearSystem, native: nn.Module | None) -> OperatorBank:
    """Return a bank with the layer's own kernel where it is known, of the system's otherwise."""
    place = _place(layer)
    live = torch.arange(system.batch_shape[0])
    if isinstance(native, S4D):
        return OperatorBank(native.D, [copy.deepcopy(native.kernel)], live).to(place)
    if isinstance(native, S4) and native.layer.kernel.C.shape[0] == 1:
        return OperatorBank(native.layer.D[0], [copy.deepcopy(native.layer.kernel)], live).to(place)
    floating = [p.dtype for p in layer.parameters() if p.is_floating_point()]
    dtype = floating[0] if floating else torch.float32
    if isinstance(layer, LinearFilter):
        return OperatorBank.from_system(system).to(device=place, dtype=dtype)
    D = torch.from_numpy(system.D.real.reshape(-1).copy())
    bank = OperatorBank(D, [kernel_of(system, live.numpy())], live)
    return bank.to(device=place, dtype=dtype)


def _check_independent(name: str, system: LinearSystem) -> None:
    if len(system.batch_shape) != 1 or not system.inputs == system.outputs == 1:
        raise UnsupportedOperationError(
            message(
                "operators_of",
                f"the channels of layer {name} share one state",
                expected="layers of independent channels: S4, S4D, DSS",
                got=f"{system!r}",
                cure="Remove states with ssmred.reduce instead.",
            )
        )


def _place(module: nn.Module) -> torch.device:
    tensor = next(iter((*module.parameters(), *module.buffers())), None)
    return torch.device("cpu") if tensor is None else tensor.device
