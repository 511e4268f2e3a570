"""Read the layers of an S4oP checkpoint, whose bypassed channels have no states."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ssmred.errors import CheckpointError, RequestError, message
from ssmred.networks.adapters.s4_settings import UPSTREAM
from ssmred.networks.adapters.s4op import S4oPLayer, read_s4op
from ssmred.networks.adapters.s4op_network import network_from_s4op
from ssmred.networks.checkpoints.families import family_named
from ssmred.networks.checkpoints.files import WHERE, StoredTensors
from ssmred.networks.checkpoints.found import Filter, Reading, StoredLayer

__all__ = ["NORMS", "s4op_layers"]

NORMS = ("pre", "post")
"""Values of the option ``norm``: where the norms stand, which no such checkpoint tells."""

_FORMS = {
    "new": "rows of the active channels only",
    "old": "all rows with pruning masks",
    "full": "nothing bypassed",
}


def s4op_layers(
    stored: StoredTensors,
    options: Mapping[str, Any],
    advance: Callable[[int, int], None] | None = None,
) -> list[StoredLayer]:
    """Return the layers of a checkpoint in either form.

    Raises
    ------
    CheckpointError
        As `read_s4op`; with the option ``norm`` also where the network cannot be built.
    RequestError
        If an option is unknown.
    """
    family = family_named("s4" if any(n.startswith("s4_") for n in stored.tensors) else "s4d")
    known = {*family.options, "norm"}
    if set(options) - known or options.get("norm", "pre") not in NORMS:
        raise RequestError(
            message(
                WHERE,
                "an option does not fit an S4oP checkpoint",
                expected=f"{', '.join(sorted(known))}; norm one of {', '.join(NORMS)}",
                got=", ".join(f"{name}={value}" for name, value in options.items()),
            )
        )
    leaves = {name.rpartition(".")[2] for name in stored.tensors}
    told = {"disc": "P", "length": "l_kernel"}  # by which tensor
    for name in sorted(set(options) & {n for n, tensor in told.items() if tensor in leaves}):
        raise RequestError(
            message(WHERE, f"option {name} has nothing to say: the file tells it by {told[name]}")
        )
    given = family.chosen(options)
    found = read_s4op(
        {"model_state_dict": stored.tensors, **stored.beside}, settings=UPSTREAM.replace(**given)
    )
    if "norm" in options:
        network_from_s4op(found, prenorm=options["norm"] == "pre")  # refuses what does not fit
    layers = []
    for done, layer in enumerate(found.layers):
        tensors = _tensors_of(layer, stored)
        facts = {
            "generation": f"S4oP, {_FORMS[found.form]}",
            "bypassed channels": found.width - len(layer.active),
            "norms": found.norm_kind + (f", {options['norm']}-norm" if "norm" in options else ""),
        }
        silent = dict(family.silent)
        if "norm" not in options:
            meaning = "pre or post, --norm; not needed for these answers, but to run it"
            silent = {"norm": meaning} | silent
        layers.append(
            StoredLayer(
                name=layer.name,
                family=family.name,
                facts=facts,
                tensors=tensors,
                readings=(_reading(layer, family.name, given, tensors),),
                silent=silent,
            )
        )
        if advance is not None:
            advance(done + 1, len(found.layers))
    return layers


def _reading(
    layer: S4oPLayer, family: str, given: Mapping[str, Any], tensors: tuple[str, ...]
) -> Reading:
    """Return the layer's only reading, with what S4oP's code leaves at its defaults."""
    states = np.zeros(layer.system.batch_shape[0], dtype=np.int64)
    states[layer.active] = layer.system.states
    assumed: dict[str, Any] = {}
    if family == "s4" and layer.active.size:
        leaves = {name.rpartition(".")[2] for name in tensors}
        asked = ["real_transform", "imag_transform", "dt_transform"]
        asked += [] if "P" in leaves else ["disc"]
        assumed = {name: getattr(UPSTREAM, name) for name in asked if name not in given}
    return Reading(assumed, {"core": Filter(layer.system, states)})


def _tensors_of(layer: S4oPLayer, stored: StoredTensors) -> tuple[str, ...]:
    inside = [name for name in stored.tensors if name.startswith(f"{layer.name}.")]
    if not inside:
        raise CheckpointError(message(WHERE, f"{layer.name} has no tensors"))
    return tuple(name for name in inside if ".output_linear." not in name)
