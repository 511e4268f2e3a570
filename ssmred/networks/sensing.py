"""Observe what the state-space layers of a network see, put out, and how much it matters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ssmred.errors import DataError

Objective = Callable[[torch.Tensor, slice], torch.Tensor]
"""Maps the outputs of some inputs, and where these are among all, to a number."""

LARGEST_BATCH, MOST_STEPS = 256, 2**16
"""Inputs, and steps of all of them together, per forward pass."""


@dataclass(frozen=True, eq=False)
class Signals:
    """Hold one batch of signals at one layer.

    Attributes
    ----------
    inputs : torch.Tensor, (S, H, T)
        What the layer's systems received.
    sensitivities : torch.Tensor, (S, H, T)
        Gradient of a random projection of the network's output with respect to what they answered;
        its second moment is that of the whole Jacobian.
    """

    inputs: torch.Tensor
    sensitivities: torch.Tensor


class _LayerSeenError(Exception):
    """Leave a forward pass once the layer of interest has been seen."""


@contextmanager
def _recording(
    cores: dict[str, nn.Module], *, stop_at: str | None = None
) -> Iterator[dict[str, list[tuple[torch.Tensor, torch.Tensor]]]]:
    seen: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {name: [] for name in cores}

    def recorder(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple, output: torch.Tensor) -> None:
            if torch.is_grad_enabled() and not output.requires_grad:
                output.requires_grad_()  # frozen weights still have sensitivities
            seen[name].append((args[0], output))
            if name == stop_at:
                raise _LayerSeenError

        return hook

    handles = [core.register_forward_hook(recorder(name)) for name, core in cores.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def lengths_seen(model: nn.Module, cores: dict[str, nn.Module], data: torch.Tensor) -> list[int]:
    """Return the number of steps that each layer sees in one run.

    Raises
    ------
    DataError
        If a layer does not take part in the run, or runs more than once: a layer that is used
        twice sees two signals, and its removals cannot be weighed as one.
    """
    with torch.no_grad(), _recording(cores) as seen:
        model(data[:1])
    for name, calls in seen.items():
        if len(calls) != 1:
            raise DataError(
                f"reduce: layer {name} runs {len(calls)} times in one forward pass; expected once. "
                "Give every use its own layer, or reduce data-free."
            )
    return [calls[0][0].shape[-1] for calls in seen.values()]


def signals_of(
    model: nn.Module, name: str, core: nn.Module, data: torch.Tensor
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield what one layer sees and puts out, (S, H, T) each, batch by batch.

    The network runs only up to it.
    """
    for part in batches(data):
        recording = _recording({name: core}, stop_at=name)
        with torch.no_grad(), recording as seen, suppress(_LayerSeenError):
            model(part)
        yield seen[name][0]


def inputs_of(
    model: nn.Module, name: str, core: nn.Module, data: torch.Tensor
) -> Iterator[torch.Tensor]:
    """Yield what one layer sees, (S, H, T), batch by batch; the network runs only up to it."""
    return (inputs for inputs, _ in signals_of(model, name, core, data))


def outputs_of(
    model: nn.Module, cores: dict[str, nn.Module], data: torch.Tensor
) -> Iterator[dict[str, torch.Tensor]]:
    """Yield what all layers put out, (S, H, T), in one run, batch by batch."""
    for part in batches(data):
        with torch.no_grad(), _recording(cores) as seen:
            model(part)
        yield {name: calls[0][1] for name, calls in seen.items()}


def sensitivities(
    model: nn.Module,
    cores: dict[str, nn.Module],
    data: torch.Tensor,
    *,
    seed: int,
    objective: Objective | None = None,
) -> Iterator[dict[str, Signals]]:
    """Yield signals and output sensitivities of all layers, batch by batch.

    Every input draws its own vector of random signs ``r``; the gradient ``g`` of ``r . f(x)`` then
    has the second moment ``E g g^T = J^T J``, J the Jacobian of the network's output. With an
    objective, a function of a batch's outputs and of its place among the data, it is the gradient
    of that.
    """
    generator, start = torch.Generator().manual_seed(seed), 0
    for part in batches(data):
        with torch.enable_grad(), _recording(cores) as seen:
            output = model(part)
            signs = torch.randint(0, 2, output.shape, generator=generator).to(output) * 2 - 1
            answers = [seen[name][0][1] for name in cores]
            if objective is None:
                value = (signs * output).sum()
            else:
                value = objective(output, slice(start, start + len(part)))
            start += len(part)
            gradients = torch.autograd.grad(value, answers, allow_unused=True)
        yield {
            name: Signals(
                seen[name][0][0].detach(),
                torch.zeros_like(answer) if gradient is None else gradient,
            )
            for name, answer, gradient in zip(cores, answers, gradients, strict=True)
        }


def outputs(model: nn.Module, data: torch.Tensor) -> np.ndarray:
    """Return the network's outputs, (n, ...), as float64.

    Raises
    ------
    DataError
        If the network returns anything but one tensor.
    """
    with torch.no_grad():
        answers = [model(part) for part in batches(data)]
    if not all(isinstance(answer, torch.Tensor) for answer in answers):
        raise DataError(
            f"reduce: the model must return one tensor, got {type(answers[0]).__name__}. "
            "Wrap it in a module that returns the tensor whose error matters."
        )
    return torch.cat(answers).double().cpu().numpy()


def batches(data: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Split inputs into batches of at most 2**16 steps, to bound the memory of a pass."""
    return data.split(max(1, min(LARGEST_BATCH, MOST_STEPS // data[0].numel())))
