"""Describe the layers of a live network as those of a file are described."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from ssmred.networks.adapters import adapter_for
from ssmred.networks.checkpoints.found import Filter, Reading, StoredLayer, filter_of
from ssmred.networks.checkpoints.layers import placed
from ssmred.networks.discovery import layer_name
from ssmred.networks.exporting import layer_paths, systems_at
from ssmred.networks.filters import LinearFilter
from ssmred.systems.linear import LinearSystem

__all__ = ["module_layers"]


def module_layers(
    model: nn.Module, advance: Callable[[int, int], None] | None = None
) -> list[StoredLayer]:
    """Return the layers of a network, each compared with what it computes.

    Parameters
    ----------
    model : nn.Module
        Never modified.
    advance : callable, optional
        Called with how many layers are read, and how many there are.

    Raises
    ------
    UnsupportedOperationError, CheckpointError
        As `ssmred.networks.export`.
    """
    tensors = {k: t for k, t in model.state_dict().items() if isinstance(t, torch.Tensor)}
    layers = []
    paths = layer_paths(model)
    for path in paths:
        systems = systems_at(model, path)
        layers.append(_described(path, model.get_submodule(path), systems, tensors))
        if advance is not None:
            advance(len(layers), len(paths))
    return layers


def _described(
    path: str,
    module: nn.Module,
    systems: Mapping[str, LinearSystem],
    tensors: Mapping[str, torch.Tensor],
) -> StoredLayer:
    name = layer_name(path)
    prefix = f"{path}." if path else ""
    own = {key: t for key, t in tensors.items() if key.startswith(prefix)}
    places = placed(own)
    known = places[0] if len(places) == 1 else None
    facts: dict[str, Any] = {"class": type(module).__name__}
    if known is not None:
        facts |= known.family.facts({key: own[key] for key in known.names})
    adapter = adapter_for(module)
    if adapter is not None:
        family = adapter.family
    elif known is not None:
        family = known.family.name
    else:
        family = type(module).__name__.lower()
    if isinstance(module, LinearFilter):
        filters = {"core": filter_of(module)}
    else:
        filters: dict[str, Filter] = {
            ("core" if key == name else key.removeprefix(f"{name}.")): filter_of(system)
            for key, system in systems.items()
        }
    return StoredLayer(
        name=name,
        family=family,
        facts=facts,
        tensors=known.names if known is not None else tuple(own),
        readings=(Reading({}, filters),),
        silent={},
    )
