"""Compare a traced network with the network itself, on an input it has not seen."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize

from ssmred.certify.evaluate import can_evaluate, node_values
from ssmred.certify.graph import NetworkGraph
from ssmred.errors import ShapeError, UnsupportedOperationError, message
from ssmred.networks.adapters.drop_in import cast_module
from ssmred.networks.discovery import import_network, is_imported
from ssmred.networks.translation import Translation, Wire

__all__ = ["check_agreement"]

TOLERANCE = 1e-6
"""Agreement in float64, relative to the largest output: numbers that the forward itself computes
were recorded in the network's dtype, float32 as a rule."""

COARSE_TOLERANCE = 1e-3
"""Where the network cannot run in float64, because it casts to a fixed dtype on its way."""

CANCELLATION = 1e-12
"""Agreement relative to the largest number on the way, which may cancel before the output."""

LONG = 64
"""Steps beyond which one sample is compared instead of the whole example batch."""


def check_agreement(
    graph: NetworkGraph, model: nn.Module, translation: Translation, output: Wire
) -> None:
    """Raise UnsupportedOperationError unless the graph computes what the network computes.

    Parameters
    ----------
    graph : NetworkGraph
        Of `model`; nothing is compared if an operation is a user's own.
    model : nn.Module
        As it was handed to `trace`, its layers imported or not; never modified.
    translation : Translation
        Tells the shape of an input.
    output : Wire
        The translation's output.
    """
    if not can_evaluate(graph):
        return
    inputs = _fresh_inputs(graph, translation.example)
    if inputs.shape[1] > LONG and not is_imported(model):
        model = import_network(model).model  # compared when imported, and far faster
    # twice: a network that keeps a memory, or rolls dice, is not what any graph computes
    first, again, tolerance = _answers(model, inputs, translation.place)
    batch = output.axes.index("batch")
    answers = torch.stack([first, again]).double().movedim(batch + 1, 0).cpu().numpy()
    for sample, wanted in zip(inputs.cpu().numpy(), answers, strict=True):
        problem = _difference(graph, sample, wanted, tolerance)
        if problem:
            raise UnsupportedOperationError(
                message(
                    "trace",
                    f"{type(model).__name__} does not compute what its operations say ({problem})",
                    expected="the same answer from the network and from the operations seen",
                    cure="Look for state that the forward keeps, tensors changed in place, or a "
                    "forward replaced on an instance; layer and statistical guarantees need no "
                    "trace.",
                )
            )


def _difference(graph: NetworkGraph, sample: np.ndarray, wanted: np.ndarray, tol: float) -> str:
    """Return in words how the graph's answer differs from both runs, nothing where not."""
    try:
        values = node_values(graph, sample)
    except (ShapeError, ValueError, IndexError) as error:
        return str(error)
    got = values[graph.output]
    if got.shape != wanted.shape[1:]:
        return f"shape {got.shape} instead of {wanted.shape[1:]}"
    largest = max(float(np.abs(value).max(initial=0.0)) for value in values.values())
    margin = tol * np.abs(got).max(initial=0.0) + CANCELLATION * largest
    error = np.abs(got - wanted).max(initial=0.0)
    if error <= margin:  # false for nan
        return ""
    return f"a difference of {error:.3g} in outputs up to {np.abs(wanted).max():.3g}"


def _answers(
    model: nn.Module, inputs: torch.Tensor, place: int | None
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Run a copy of the network twice, in float64 where it can; return the tolerance with it."""

    def run(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
        answer = network(x.clone())
        return answer if place is None else answer[place]

    problem: Exception | None = None
    with torch.no_grad():
        for dtype, tolerance in ((torch.float64, TOLERANCE), (None, COARSE_TOLERANCE)):
            network = copy.deepcopy(model).eval()
            floating = inputs.is_floating_point() and dtype is not None
            try:
                if dtype is not None:
                    _fix_parametrised(network)
                    cast_module(network, dtype)
                x = inputs.to(dtype) if floating else inputs
                return run(network, x), run(network, x), tolerance
            except (RuntimeError, TypeError, ValueError) as error:
                problem = error
    raise UnsupportedOperationError(
        message("trace", f"{type(model).__name__} does not run a second time: {problem}")
    ) from problem


def _fresh_inputs(graph: NetworkGraph, example: torch.Tensor) -> torch.Tensor:
    """Return another input like the example; tokens are those that every embedding has."""
    example = example if example.shape[1] <= LONG else example[:1]
    generator = torch.Generator().manual_seed(1)
    if example.is_floating_point():
        return torch.randn(example.shape, generator=generator, dtype=example.dtype)
    known = min((len(node.param("weight")) for node in graph if node.op == "embedding"), default=1)
    return torch.randint(known, example.shape, generator=generator, dtype=example.dtype)


def _fix_parametrised(network: nn.Module) -> None:
    """Keep the weights that parametrised layers compute, as rounded as the trace took them."""
    for module in list(network.modules()):
        if parametrize.is_parametrized(module):
            for name in list(getattr(module, "parametrizations", ())):
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)
