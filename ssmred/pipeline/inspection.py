"""Say what a checkpoint is, without the classes that wrote it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ssmred.errors import RequestError, UnsupportedOperationError, message
from ssmred.networks.checkpoints import (
    StoredLayer,
    StoredTensors,
    as_stored,
    module_layers,
    read_file,
    stored_layers,
)
from ssmred.networks.checkpoints.layers import check_finite
from ssmred.pipeline.inspected import InspectedFilter, InspectedLayer, Inspection
from ssmred.pipeline.progress import Progress
from ssmred.pipeline.spare_states import answers_of

__all__ = ["inspect"]


def inspect(
    source: str | Path | Mapping[str, Any] | nn.Module,
    *,
    options: Mapping[str, Any] | None = None,
    norm: str | None = None,
    progress: bool = False,
) -> Inspection:
    """Say what a checkpoint holds: families, sizes, stability, time constants, spare states.

    Parameters
    ----------
    source : path-like, mapping or nn.Module
        A ``.safetensors`` or ``.npz`` file, a file of ``torch.save``, a folder that ssmred wrote;
        named tensors, as in a state dict; or a network, whose layers are then compared with what
        they compute.
    options : mapping of str to Any, optional
        What the tensors do not tell: ``disc``, ``real_transform``, ``imag_transform``,
        ``dt_transform``, ``length``, ``bandlimit`` (S4), ``imag_exp`` (DSS), ``delayed`` (stored
        filters without their declaration). Where one matters and is not given, the answers are
        given under each assumption, by name.
    norm : {"pre", "post"}, optional
        Where the norms of an S4oP checkpoint stand, which it does not tell; with it the network is
        built, which shows that all its parts fit.
    progress : bool
        Show progress bars on standard error.

    Returns
    -------
    Inspection
        Prints as text; ``to_dict()``, ``to_json()``, ``plot()``.

    Raises
    ------
    CheckpointError
        If the file is missing, truncated, of another kind or pickled; if no layer is recognised;
        or if a tensor is missing, misshapen, nan or inf (the key is named).
    RequestError
        If an option is unknown to the layers found, or has no such value.
    UnsupportedOperationError
        For the tensors of selective layers (Mamba); for a module without a layer that is known.

    Notes
    -----
    States are spare at a level where balanced truncation leaves them out with
    ``2 (sigma_{r+1} + ... + sigma_n) <= level sigma_1`` for the Hankel singular values of every
    channel by itself (theory/balanced-truncation.md, statement 3). That is the error of one
    layer's response in the H-infinity norm; `ssmred.reduce` says what it does to an output.

    Examples
    --------
    >>> from ssmred.networks.layers import S4D
    >>> found = inspect(S4D(3, 8).state_dict())
    >>> found.layers[0].family, found.layers[0].states
    ('s4d', 24)
    """
    asked = dict(options or {})
    if norm is not None and asked.setdefault("norm", norm) != norm:
        raise RequestError(message("inspect", "norm is given twice, as two things"))
    with Progress(progress) as bars:
        stored, found, name = _read(source, asked, bars)
        inside = {key for layer in found for key in layer.tensors}
        rest = {key: tensor for key, tensor in stored.tensors.items() if key not in inside}
        check_finite(rest)
        advance = bars.stage("Hankel singular values", len(found))
        layers = []
        for layer in found:
            layers.append(_inspected(layer, stored.tensors))
            advance(1)
    return Inspection(
        source=name,
        form=stored.form,
        entry=stored.entry,
        others=stored.others,
        tensors=len(stored.tensors),
        dtypes=_dtypes(stored.tensors.values()),
        numbers=_numbers(stored.tensors.values()),
        hints=stored.hints,
        layers=tuple(layers),
        rest=tuple(rest),
        rest_numbers=_numbers(rest.values()),
        given=asked,
    )


def _read(
    source: Any, options: dict[str, Any], bars: Progress
) -> tuple[StoredTensors, list[StoredLayer], str]:
    if isinstance(source, nn.Module):
        if options:
            raise RequestError(
                message(
                    "inspect",
                    "options are for tensors; a module is compared with what it computes",
                    got=", ".join(options),
                )
            )
        stored = StoredTensors(
            {k: t.detach() for k, t in source.state_dict().items() if torch.is_tensor(t)}, "network"
        )
        check_finite(stored.tensors)
        return stored, module_layers(source, _bar(bars)), type(source).__name__
    if isinstance(source, Mapping):
        stored, name = as_stored(source), "tensors"
    elif isinstance(source, (str, Path)):
        stored, name = read_file(source), str(source)
    else:
        raise UnsupportedOperationError(
            message(
                "inspect",
                "nothing to look at",
                expected="a path, named tensors or a torch.nn.Module",
                got=type(source).__name__,
            )
        )
    return stored, stored_layers(stored, options, advance=_bar(bars)), name


def _bar(bars: Progress) -> Callable[[int, int], None]:
    """Return what advances a bar that is opened once it is known how many layers there are."""
    opened: list[Callable[[int], None]] = []

    def advance(_done: int, total: int) -> None:
        if not opened:
            opened.append(bars.stage("reading layers", total))
        opened[0](1)

    return advance


def _inspected(layer: StoredLayer, tensors: Mapping[str, torch.Tensor]) -> InspectedLayer:
    own = [tensors[name] for name in layer.tensors]
    copies = int(layer.facts.get("copies (channels)", 1))
    filters = []
    for reading in layer.readings:
        for core, found in reading.filters.items():
            width = found.states.size
            filters.append(
                InspectedFilter(
                    name=layer.name if core == "core" else f"{layer.name}.{core}",
                    assumed=reading.assumed,
                    inputs=width * found.system.inputs // copies,
                    outputs=width * found.system.outputs,
                    channels=width,
                    states=int(found.states.sum()),
                    per_channel=(int(found.states.min()), int(found.states.max())),
                    answers=answers_of(found.system, found.states),
                )
            )
    return InspectedLayer(
        name=layer.name,
        family=layer.family,
        facts=layer.facts,
        bidirectional="backward" in layer.readings[0].filters,
        dtypes=_dtypes(own),
        numbers=_numbers(own),
        filters=tuple(filters),
        silent=layer.silent,
        impossible=layer.impossible,
    )


def _numbers(tensors: Any) -> int:
    """Return how many real numbers floating-point tensors hold; a complex one is two."""
    return sum(
        t.numel() * (2 if t.is_complex() else 1)
        for t in tensors
        if t.is_complex() or t.is_floating_point()
    )


def _dtypes(tensors: Any) -> dict[str, int]:
    """Return how many real numbers there are by dtype, the most frequent first."""
    found: dict[str, int] = {}
    for tensor in tensors:
        name = str(tensor.dtype).removeprefix("torch.")
        if tensor.is_complex() or tensor.is_floating_point():
            found[name] = found.get(name, 0) + _numbers([tensor])
    return dict(sorted(found.items(), key=lambda entry: -entry[1]))
