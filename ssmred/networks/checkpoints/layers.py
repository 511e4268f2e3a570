"""Find the layers among the tensors of a checkpoint and read each in every way it leaves open."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ssmred.errors import CheckpointError, RequestError, message
from ssmred.networks.adapters import s4op
from ssmred.networks.adapters.s4_names import check_not_selective
from ssmred.networks.checkpoints.families import FAMILIES, Family
from ssmred.networks.checkpoints.files import WHERE, StoredTensors
from ssmred.networks.checkpoints.found import Reading, StoredLayer, filter_of
from ssmred.networks.checkpoints.s4op_layers import s4op_layers

__all__ = ["Place", "check_finite", "layer_path", "natural", "placed", "said", "stored_layers"]

LEVELS = 2
"""How far above a kernel the rest of its layer may lie."""

_INNER = ("core", "layer", "seq")
"""Last parts of paths that are the inside of a layer, not its name."""


@dataclass(frozen=True)
class Place:
    """Say where a layer lies: family, path of the kernel and of the layer, names of its tensors."""

    family: Family
    path: str
    names: tuple[str, ...]


def stored_layers(
    stored: StoredTensors,
    options: Mapping[str, Any] | None = None,
    *,
    advance: Callable[[int, int], None] | None = None,
) -> list[StoredLayer]:
    """Return the layers of a checkpoint, in the natural order of their names.

    Parameters
    ----------
    stored : StoredTensors
    options : mapping of str to Any
        What the tensors do not tell; for every family in the checkpoint that knows the name.
    advance : callable, optional
        Called with how many layers are read, and how many there are.

    Raises
    ------
    CheckpointError
        If there is none, or one of them lacks a tensor or has one that is misshapen, nan or inf;
        the key is named.
    UnsupportedOperationError
        For the tensors of selective layers.
    RequestError
        If an option is unknown to the families in the checkpoint, or has no such value.
    """
    options = dict(options or {})
    check_not_selective(stored.tensors, where=WHERE)
    if s4op.recognises_tensors({name: tuple(t.shape) for name, t in stored.tensors.items()}):
        return s4op_layers(stored, options, advance)
    if "norm" in options:
        raise RequestError(
            message(WHERE, "the option norm is for S4oP checkpoints, which this is not")
        )
    places = placed(stored.tensors)
    if not places:
        raise CheckpointError(
            message(
                WHERE,
                f"there is no state-space layer that ssmred knows among {len(stored.tensors)} "
                "tensors",
                expected="; ".join(
                    f"{family.name} ({', '.join(sorted(family.markers))})"
                    if family.markers
                    else family.name
                    for family in FAMILIES
                ),
                got=_first_names(stored.tensors),
                cure="An own layer: build the network, register an adapter and pass the module.",
            )
        )
    known = {name for place in places for name in place.family.options}
    for name in sorted(set(options) - known):
        raise RequestError(
            message(
                WHERE,
                f"option {name} is unknown to the layers found "
                f"({', '.join(sorted({p.family.name for p in places}))})",
                expected=f"one of {', '.join(sorted(known))}" if known else "no options",
            )
        )
    layers = []
    for done, place in enumerate(places):
        layers.append(_layer(place, stored, options))
        if advance is not None:
            advance(done + 1, len(places))
    _check_used(options, places, stored)
    return layers


def check_finite(tensors: Mapping[str, torch.Tensor]) -> None:
    """Raise CheckpointError, naming the key, if a tensor holds nan or inf."""
    for name, tensor in tensors.items():
        inexact = tensor.is_floating_point() or tensor.is_complex()
        wide = tensor if tensor.itemsize > 1 else tensor.float()  # torch cannot tell for 8 bits
        if inexact and not bool(torch.isfinite(wide).all()):
            raise CheckpointError(
                message(
                    WHERE,
                    f"{name} holds nan or inf",
                    expected="finite weights",
                    cure="Load a checkpoint from before the training diverged.",
                )
            )


def natural(name: str) -> list[tuple[int, Any]]:
    """Return a key that sorts layer 9 before layer 10."""
    return [(0, int(p)) if p.isdigit() else (1, p) for p in re.split(r"(\d+)", name) if p]


# Finding -----------------------------------------------------------------------------------------


def placed(tensors: Mapping[str, torch.Tensor]) -> list[Place]:
    """Return where layers lie; damaged ones too, which reading then refuses by key."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    owners: dict[str, list[str]] = {}
    for name in shapes:
        owners.setdefault(_owner(name), []).append(name)
    found = []
    for prefix, names in owners.items():
        own = {name: shapes[name] for name in names}
        family = next((f for f in FAMILIES if f.recognises(own)), None) or _damaged(prefix, own)
        if family is not None:
            path, all_names = _with_rest(prefix, names, owners, family)
            found.append(Place(family, path, tuple(all_names)))
    return sorted(found, key=lambda place: natural(place.path))


def _owner(name: str) -> str:
    return name[: name.rfind(".") + 1]


def _up(prefix: str) -> str:
    return _owner(prefix[:-1])


def _damaged(prefix: str, own: Mapping[str, tuple[int, ...]]) -> Family | None:
    """Return the family that lacks something here, if two of its markers are here."""
    leaves = {name[len(prefix) :] for name in own}
    best = max(FAMILIES, key=lambda family: len(family.markers & leaves))
    return best if len(best.markers & leaves) >= 2 else None


def _with_rest(
    prefix: str, names: list[str], owners: Mapping[str, list[str]], family: Family
) -> tuple[str, list[str]]:
    """Return the path of the layer and its tensors: the kernel's, and those above it."""
    place, above = prefix, []
    for _ in range(LEVELS + 1):
        here = owners.get(place, [])
        above += [name for name in here if name not in names]
        if not family.above or all(f"{place}{name}" in here for name in family.above):
            return place, [*names, *above]
        if not place:
            break
        place = _up(place)
    return prefix, names


# Reading -----------------------------------------------------------------------------------------


def _layer(place: Place, stored: StoredTensors, options: Mapping[str, Any]) -> StoredLayer:
    family = place.family
    tensors = {name: stored.tensors[name] for name in place.names}
    path = place.path[:-1]
    given = family.chosen(options)
    if _is_declared(place, stored):
        given["delayed"] = stored.delayed[path]
    try:
        asked = {n: v for n, v in family.asks(tensors).items() if n not in given}
        facts = family.facts(tensors)
    except CheckpointError:
        family.read(tensors, **given)  # refuses by key, with its own words
        raise
    readings, refused = [], []
    for values in itertools.product(*asked.values()):
        assumed = dict(zip(asked, values, strict=True))
        try:
            filters = family.read(tensors, **given, **assumed)
        except CheckpointError as error:
            refused.append((assumed, error))
            continue
        readings.append(Reading(assumed, {core: filter_of(f) for core, f in filters.items()}))
    if not readings:
        raise refused[0][1]
    return StoredLayer(
        name=layer_path(path),
        family=family.name,
        facts=facts,
        tensors=place.names,
        readings=tuple(readings),
        silent=dict(family.silent),
        impossible=tuple(f"{said(assumed)}: {error}" for assumed, error in refused),
    )


def _is_declared(place: Place, stored: StoredTensors) -> bool:
    return "delayed" in place.family.options and place.path[:-1] in stored.delayed


def _check_used(options: Mapping[str, Any], places: list[Place], stored: StoredTensors) -> None:
    """Raise RequestError for an option that every layer's tensors answer themselves."""
    used = {"length"} if options.get("disc") == "dss" else set()
    for place in places:
        used |= set(place.family.free)
        asked = place.family.asks({name: stored.tensors[name] for name in place.names})
        used |= set(asked) - ({"delayed"} if _is_declared(place, stored) else set())
    for name in sorted(set(options) - used):
        raise RequestError(
            message(
                WHERE,
                f"option {name} has nothing to say: the file tells it",
                got=f"{name}={options[name]}",
                cure="Leave it out.",
            )
        )


def layer_path(path: str) -> str:
    """Return the name of the layer at a path: without the part that is its inside.

    Examples
    --------
    >>> layer_path("layers.0.core"), layer_path("layers.0.layer"), layer_path("")
    ('layers.0', 'layers.0', 'model')
    """
    outer, _, last = path.rpartition(".")
    return (outer if last in _INNER else path) or "model"


def said(assumed: Mapping[str, Any]) -> str:
    """Return assumptions as text."""
    return ", ".join(f"{name}={value}" for name, value in assumed.items())


def _first_names(names: Mapping[str, Any], count: int = 6) -> str:
    listed = sorted(names, key=natural)
    more = f" and {len(listed) - count} more" if len(listed) > count else ""
    return ", ".join(listed[:count]) + more
