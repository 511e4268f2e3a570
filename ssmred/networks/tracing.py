"""Translate a network into the list of operations that the bounds are evaluated on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import fx, nn

from ssmred.certify.graph import NetworkGraph
from ssmred.certify.inputs import InputSet
from ssmred.certify.rules_table import has_rule
from ssmred.errors import ShapeError, SsmredError, UnsupportedOperationError, message
from ssmred.networks import arithmetic, layouts, operations  # noqa: F401  (fill the handlers)
from ssmred.networks.agreement import check_agreement
from ssmred.networks.capture import capture, check_hooks
from ssmred.networks.discovery import import_network, is_imported, layer_name
from ssmred.networks.filters import LinearFilter, is_core
from ssmred.networks.translation import BATCH, LengthNeeded, Translation, Wire

__all__ = ["example_inputs", "floating_dtype", "follow", "trace"]

EXAMPLE_LENGTH = 13
"""Steps of the first example run: short, a prime unlike usual widths."""


def trace(
    model: nn.Module,
    *,
    horizon: int | None = None,
    example_shape: tuple[int, ...] | None = None,
    tokens: bool | None = None,
    inputs: InputSet | None = None,
) -> NetworkGraph:
    """Translate a network into a graph of operations with axes and weights.

    Parameters
    ----------
    model : nn.Module
        In any wiring of known operations; S4D layers are imported first. Never modified.
    horizon : int, optional
        Length of the sequences; needed only where the network uses it.
    example_shape : tuple of int, optional
        Shape of one input, time first: ``(T, features)`` or ``(T,)``. By default the number of
        features is what the first layers take.
    tokens : bool, optional
        Whether inputs are token indices; by default whether the first operation is an Embedding.
    inputs : InputSet, optional
        Declared inputs; a box with one entry per feature tells the number of features.

    Returns
    -------
    ssmred.certify.NetworkGraph
        State-space nodes carry the layers' names.

    Raises
    ------
    UnsupportedOperationError
        If an operation has no rule or the network cannot be traced, a module has forward hooks, a
        tensor that is used elsewhere is changed in place, a layer is used twice, or the graph does
        not compute what the network computes; names the place and the cure.

    Notes
    -----
    The network is followed in eval mode, once, on a short random input; nothing is learned from
    the values but the shapes. Then the graph is evaluated on another input and compared with the
    network's own answer; not if an operation is a user's own, which only its rule describes.
    """
    if inputs is not None and example_shape is None and np.size(inputs.low) > 1:
        example_shape = (EXAMPLE_LENGTH, int(np.size(inputs.low)))
    translation, output = follow(
        model, horizon=horizon, example_shape=example_shape, tokens=tokens, strict=True
    )
    graph = NetworkGraph(tuple(translation.nodes), output.name)
    check_agreement(graph, model, translation, output)
    return graph


def follow(
    model: nn.Module,
    *,
    horizon: int | None = None,
    example_shape: tuple[int, ...] | None = None,
    tokens: bool | None = None,
    strict: bool = True,
) -> tuple[Translation, Wire]:
    """Capture a network and follow an example through it; return the translation and its output.

    Parameters and errors are those of `trace`; with ``strict=False`` pointwise operations without
    a rule pass.
    """
    check_hooks(model, "trace")  # importing a layer would lose them
    if not is_imported(model):
        model = import_network(model).model
    module = capture(model, is_leaf=lambda leaf: has_rule(type(leaf)))
    problems: list[str] = []
    # a short example first, then one of full length where a value depends on it
    for length in [EXAMPLE_LENGTH] if horizon is None else [EXAMPLE_LENGTH, horizon]:
        shapes = {"length": length, "example_shape": example_shape, "tokens": tokens}
        for example in example_inputs(module, **shapes):
            try:
                return _attempt(module, example, horizon, strict)
            except LengthNeeded:
                break
            except ShapeError as error:
                problems.append(f"input {tuple(example.shape)}: {error}")
            except SsmredError:
                raise
            except RuntimeError as error:  # the example does not fit the network
                problems.append(f"input {tuple(example.shape)}: {error}")
    raise UnsupportedOperationError(
        message(
            "trace",
            f"{type(model).__name__} runs on no example input",
            got="; ".join(problems) or "no candidate",
            cure="Pass example_shape=(T, features), the shape of one input.",
        )
    )


def floating_dtype(model: nn.Module) -> torch.dtype:
    """Return the dtype a network computes in: that of its weights outside reduced layers."""
    for module in model.modules():
        if not is_core(module):
            for tensor in module._parameters.values():
                if tensor is not None and tensor.is_floating_point():
                    return tensor.dtype
    return torch.get_default_dtype()


def example_inputs(
    module: fx.GraphModule,
    *,
    length: int = EXAMPLE_LENGTH,
    example_shape: tuple[int, ...] | None = None,
    tokens: bool | None = None,
) -> Iterator[torch.Tensor]:
    """Yield inputs, batch and time first, that a captured network may take, the likeliest first."""
    for shape, is_tokens in _samples(module, example_shape, tokens):
        size = (BATCH, length, *shape)
        if is_tokens:
            yield torch.zeros(size, dtype=torch.int64)
        else:
            generator = torch.Generator().manual_seed(0)
            yield torch.randn(size, generator=generator, dtype=floating_dtype(module))


def _attempt(
    module: fx.GraphModule, example: torch.Tensor, horizon: int | None, strict: bool
) -> tuple[Translation, Wire]:
    axes = ("batch", "time", *("feature" for _ in example.shape[2:]))
    translation = Translation(
        module, example, axes, horizon, layer_name, is_ruled=has_rule, strict=strict
    )
    return translation, translation.run()


def _samples(
    module: fx.GraphModule, example_shape: tuple[int, ...] | None, tokens: bool | None
) -> Iterator[tuple[tuple[int, ...], bool]]:
    """Yield candidates for the shape of one time step, the likeliest first."""
    if tokens is None:
        tokens = _reads_tokens(module)
    if example_shape is not None:
        yield tuple(int(n) for n in example_shape[1:]), tokens
        return
    if tokens:
        yield (), True
        return
    widths = dict.fromkeys(
        width
        for node in module.graph.nodes
        if node.op == "call_module"
        for width in [_width(module.get_submodule(str(node.target)))]
        if width is not None
    )
    yield from (((width,), False) for width in widths)
    yield (), False
    if 1 not in widths:
        yield (1,), False


def _reads_tokens(module: fx.GraphModule) -> bool:
    """Tell whether the input, unchanged but for its layout, goes into an embedding."""
    reached = [node for node in module.graph.nodes if node.op == "placeholder"]
    for node in reached:
        for user in node.users:
            if user.op == "call_module":
                if isinstance(module.get_submodule(str(user.target)), nn.Embedding):
                    return True
            elif user.target is nn.functional.embedding:
                return True
            elif user.op == "call_method" and user.target in ("long", "int", "to", "squeeze"):
                reached.append(user)
    return False


def _width(module: nn.Module) -> int | None:
    if isinstance(module, nn.Linear):
        return module.in_features
    if isinstance(module, nn.LayerNorm):
        return module.normalized_shape[-1]
    if isinstance(module, nn.Conv1d):
        return module.in_channels
    if isinstance(module, nn.BatchNorm1d):
        return module.num_features
    return module.inputs if isinstance(module, LinearFilter) else None
