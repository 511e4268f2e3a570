"""Measure whole sequences at batch 1 on networks as they are, in alternation.

A pruned network is compared with its parent in the same run, so that a change of the machine's
clock or load meets both alike. Both keep their kernels from one pass to the next; what it costs to
make them at every pass is a quantity of its own (`Uncached`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import nn

from ssmred.checks import check_integer
from ssmred.deploy import Spread
from ssmred.deploy.timing import timed, using_threads
from ssmred.errors import DataError, UnsupportedOperationError, message

__all__ = ["Latencies", "Uncached", "alternating", "ready"]


class Latencies(dict[str, Spread]):
    """Hold the latencies of networks that alternated in one run, by name: seconds per sequence.

    Parameters
    ----------
    samples : mapping of str to list of float
        Seconds of every round; all networks have the same rounds.
    """

    def __init__(self, samples: Mapping[str, Sequence[float]]) -> None:
        super().__init__({name: Spread.of(values) for name, values in samples.items()})
        self.samples = {name: tuple(values) for name, values in samples.items()}

    def ratio(self, name: str, base: str) -> Spread:
        """Return the quartiles of one network's time over another's, round by round.

        A load that comes and goes meets both in a round, so this moves less than the ratio of
        their medians.

        Examples
        --------
        >>> times = Latencies({"small": [1.0, 3.0, 4.0], "parent": [2.0, 6.0, 4.0]})
        >>> times.ratio("small", "parent")
        Spread(lower=0.5, median=0.5, upper=0.75)
        """
        pairs = zip(self.samples[name], self.samples[base], strict=True)
        return Spread.of([one / other for one, other in pairs])


class Uncached(nn.Module):
    """Run a copy of a network that forgets its kernels before every pass.

    Parameters
    ----------
    model : nn.Module

    Notes
    -----
    Only the modules that do something when the mode changes are told to forget: in this package
    those that keep kernels. To compare with, not as the baseline of a pruned network.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = deepcopy(model)
        self._keeping = [m for m in self.model.modules() if type(m).train is not nn.Module.train]

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Forget, then run the network on a batch."""
        for module in self._keeping:
            module.train(module.training)
        return self.model(inputs)


def alternating(
    models: Mapping[str, nn.Module],
    inputs: np.ndarray | torch.Tensor,
    *,
    repeats: int = 30,
    threads: int | None = 1,
) -> Latencies:
    """Measure how long networks take for one whole sequence, alternating in one run.

    Parameters
    ----------
    models : mapping of str to nn.Module
        Run as they are, in eval mode without gradients, kernels cached; afterwards in the modes
        that they came in, with empty caches. ``Uncached(parent)`` beside ``parent`` tells what
        making the kernels costs.
    inputs : (n, T, features), (n, T), (n, 2, T) or (n, 2, T, features)
        What the networks take; the first sequence (or pair) is run.
    repeats : int
        Timed blocks per network; a block repeats a short pass for about 2 ms.
    threads : int, optional
        Threads for torch and Numba; None leaves them as they are set.

    Returns
    -------
    Latencies
        Per name the quartiles of the seconds per pass; ``ratio(name, base)`` compares two.

    Raises
    ------
    DataError
        If there is no network or no sequence.
    UnsupportedOperationError
        If a model is not an nn.Module, or not on the CPU: this is a measurement of the CPU.
    OrderError
        If repeats or threads is not a whole number >= 1.
    """
    where = "alternating"
    if not models:
        raise DataError(message(where, "there is no network to measure"))
    for name, model in models.items():
        _check_model(model, name, where)
    sequence = torch.as_tensor(inputs).detach()[:1]
    if sequence.numel() == 0:
        raise DataError(message(where, "inputs are empty", expected="at least one sequence"))
    repeats = check_integer(repeats, "repeats", where, low=1)
    if threads is not None:
        threads = check_integer(threads, "threads", where, low=1)
    calls = {name: _forward(model, sequence) for name, model in models.items()}
    with ready(*models.values()), using_threads(threads), torch.inference_mode():
        samples = timed(calls, repeats)
    return Latencies(samples)


@contextmanager
def ready(*models: nn.Module) -> Iterator[None]:
    """Put networks in eval mode for as long as a measurement takes, then back module by module.

    What they kept meanwhile is forgotten: tensors of torch's inference mode must not meet
    gradients.
    """
    modes = [(module, module.training) for model in models for module in model.modules()]
    try:
        for model in models:
            model.eval()
        yield
    finally:
        for model in models:
            model.eval()
        for module, mode in modes:
            module.training = mode  # not train(mode), which would reach into the parts


def _forward(model: nn.Module, sequence: torch.Tensor) -> Callable[[], Any]:
    return lambda: model(sequence)


def _check_model(model: Any, name: str, where: str) -> None:
    if not isinstance(model, nn.Module):
        raise UnsupportedOperationError(
            message(
                where,
                f"{name} is not a network",
                expected="a torch.nn.Module",
                got=type(model).__name__,
            )
        )
    elsewhere = {str(p.device) for p in model.parameters() if p.device.type != "cpu"}
    if elsewhere:
        raise UnsupportedOperationError(
            message(
                where,
                f"{name} is not on the CPU, whose time is measured",
                got=", ".join(sorted(elsewhere)),
                cure="Call model.cpu() first.",
            )
        )
