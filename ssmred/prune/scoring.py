"""Outputs and scores of a network as it is used: in eval mode, without gradients."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ssmred.checks import check_integer
from ssmred.tasks import Sample, Task

__all__ = ["BATCH", "device_of", "evaluate", "in_eval_mode", "modes_kept", "outputs_of"]

BATCH = 256
"""Sequences per forward pass where no gradients are kept."""


def evaluate(
    model: nn.Module,
    sample: Sample,
    task: Task,
    *,
    batch: int = BATCH,
    device: torch.device | str | None = None,
) -> float:
    """Return a network's score on a sample, in percent.

    Parameters
    ----------
    model : torch.nn.Module
        Left in the modes it came in, training or eval, and where it is.
    sample : Sample
        Any part: `evaluate` decides nothing.
    task : Task
        Scores.
    batch : int
        Sequences per forward pass.
    device : torch.device, optional
        Where to compute; by default where the network is.

    Raises
    ------
    ShapeError
        If the outputs do not fit the task.
    """
    home = device_of(model)
    place = home if device is None else torch.device(device)
    model.to(place)
    try:
        outputs = outputs_of(model, sample.inputs, batch=batch)
    finally:
        model.to(home)
    return task.score(outputs, sample.labels.to(place))


def outputs_of(model: nn.Module, inputs: torch.Tensor, *, batch: int = BATCH) -> torch.Tensor:
    """Return a network's outputs in eval mode, (n, classes), on its device.

    Parameters
    ----------
    model : torch.nn.Module
    inputs : torch.Tensor
        On any device.
    batch : int

    Notes
    -----
    Without gradients, but not in torch's inference mode: what a layer keeps from here, such as the
    spectrum of its kernel, may be needed for a gradient later.
    """
    check_integer(batch, "batch", "evaluate", low=1)
    device = device_of(model)
    with in_eval_mode(model), torch.no_grad():
        return torch.cat([model(part.to(device)) for part in inputs.split(batch)])


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Put every module back in its own mode, training or eval, afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:  # parents come first, so that no child is left in theirs
            module.train(training)


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Put a network in eval mode, and every module back in its own mode afterwards."""
    with modes_kept(model):
        model.eval()
        yield


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a network's first parameter or buffer; the CPU if it has none."""
    tensor = next(itertools.chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if tensor is None else tensor.device
