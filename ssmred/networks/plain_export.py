"""Reduced networks in the layers of the original's own classes.

Every written layer is compared with the system that it stands for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from ssmred.errors import CheckpointError, message
from ssmred.networks.copying import copy_module
from ssmred.networks.cores import largest_order
from ssmred.networks.discovery import (
    BACKWARD,
    CORE,
    FoundLayer,
    filter_name,
    find_layers,
    with_module,
)
from ssmred.networks.filters import holds_place
from ssmred.systems.linear import LinearSystem

__all__ = ["export_plain"]

WRITTEN, COMPARED_SAMPLES = 1e-4, 256
"""How far, relative to the largest so far, a sample of a written layer's response may be off, and
how many are compared."""


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
        Real states of every layer, per channel or of all channels together as the family counts
        them, even; by default what the layer that needs most needs, so that the original class
        loads the state dict when built with that many states.

    Returns
    -------
    nn.Module
        A copy of `original`, in its own dtype; every layer's response was compared with that of the
        reduced system.

    Raises
    ------
    OrderError
        If `states` is odd or too few.
    CheckpointError
        If the networks do not have the same layers, or a system cannot be written: its poles have
        no parameters in the class, or its modes cancel beyond the digits of the class's dtype.
    """
    systems: dict[str, LinearSystem] = {}
    for found in find_layers(reduced):
        systems |= found.to_systems()
    targets = find_layers(original)
    wanted = {
        found.name: {
            core: systems[filter_name(found.name, core)]
            for core in (CORE, BACKWARD)
            if filter_name(found.name, core) in systems
        }
        for found in targets
    }
    filters = {name for found in targets for name in found.to_systems()}
    if filters != set(systems):
        raise CheckpointError(
            message(
                "export_plain",
                "the two networks do not have the same layers",
                expected=f"{sorted(filters)}",
                got=f"{sorted(systems)}",
            )
        )
    if states is None:
        needed = [
            _states_needed(found, wanted[found.name])
            for found in targets
            if found.adapter is not None
        ]
        states = max(needed, default=None)
    model = copy_module(original)
    tensors = reduced.state_dict()
    own = model.state_dict()
    with torch.no_grad():  # whatever else was changed in the reduced network comes along
        for key in own.keys() & tensors.keys():
            if own[key].shape == tensors[key].shape:
                own[key].copy_(tensors[key])
    for found in targets:
        if holds_place(found.module):
            raise CheckpointError(
                message(
                    "export_plain",
                    f"layer {found.name} of the original is a stored one without its class",
                    cure="Pass the network as its own class makes it, with its weights.",
                )
            )
        if found.adapter is not None:
            layer = model.get_submodule(found.path)
            plain = found.adapter.from_systems(layer, wanted[found.name], states=states)
            _check_written(found, plain, wanted[found.name])
            model = with_module(model, found.path, plain)
    return model


def _check_written(found: FoundLayer, plain: nn.Module, wanted: Mapping[str, LinearSystem]) -> None:
    """Raise CheckpointError if rounding to the layer's dtype changes what it computes."""
    floating = [t.dtype for t in plain.state_dict().values() if t.is_floating_point()]
    try:
        back = replace(found, module=plain).to_systems()
    except CheckpointError as error:  # its own kernel is that far off
        raise _cancelling(found.name, "modes", floating, f"{error}") from error
    pairs = {
        filter_name(found.name, core): [
            np.asarray(s.impulse_response(COMPARED_SAMPLES))
            for s in (system, back[filter_name(found.name, core)])
        ]
        for core, system in wanted.items()
    }
    eps = max((torch.finfo(dtype).eps for dtype in floating), default=0.0)
    sizes = {name: _largest_so_far(one) for name, (one, _) in pairs.items()}
    floor = eps * np.max([size.max(axis=0, initial=0.0) for size in sizes.values()], axis=0)
    for name, (one, two) in pairs.items():
        errors = np.abs(one - two).max(axis=(-2, -1), initial=0.0).reshape(sizes[name].shape)
        allowed = WRITTEN * sizes[name] + floor
        if BACKWARD in wanted:  # both directions see the sample itself: their sum there is told
            errors[:, 0] = 0.0
        shares = (errors / np.maximum(allowed, np.finfo(float).tiny)).max(axis=1)
        if np.any(~(shares <= 1.0)):
            worst = int(np.argmax(shares))
            modes = f"modes of channel {worst}"
            raise _cancelling(name, modes, floating, f"{WRITTEN * shares[worst]:.3g}")


def _cancelling(
    name: str, modes: str, floating: Sequence[torch.dtype], got: str
) -> CheckpointError:
    digits = ", ".join(sorted({str(dtype) for dtype in floating}))
    return CheckpointError(
        message(
            f"export_plain: layer {name}",
            f"its class cannot hold this system: {modes} cancel beyond the digits of {digits}",
            expected=f"samples within {WRITTEN:g} of the largest so far",
            got=got,
            cure="Keep the drop-in, write into model.double(), or reduce with "
            'method="subset", whose modes cancel less.',
        )
    )


def _largest_so_far(response: np.ndarray) -> np.ndarray:
    """Return the largest modulus up to every sample, (channels, T)."""
    sizes = np.abs(response).max(axis=(-2, -1), initial=0.0)
    return np.maximum.accumulate(sizes.reshape(-1, sizes.shape[-1]), axis=1)


def _states_needed(found: FoundLayer, systems: Mapping[str, LinearSystem]) -> int:
    """Return the states that a layer of the original class needs; some share what others repeat."""
    needs = getattr(found.adapter, "states_needed", None)
    if needs is not None:
        return needs(found.module, systems)
    return max(largest_order(system) for system in systems.values())
