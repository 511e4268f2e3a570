"""Predict with a reduced network and bound, input by input, how far the original's answer can be.

Theory: ``theory/observed-bound.md``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from ssmred.certify import ObservedChain
from ssmred.networks import trace
from ssmred.pipeline.progress import Progress
from ssmred.pipeline.request import as_tensor

__all__ = ["BoundedPredictor", "Predictions"]


@dataclass(frozen=True, eq=False)
class Predictions:
    """Hold what the reduced network answers to some inputs, and bounds on the error of each answer.

    Unpacks into ``prediction, error_bound``; prints as a page.

    Attributes
    ----------
    prediction : torch.Tensor, (n, ..., features) or (n,)
        Outputs of the reduced network, as it runs.
    error_bound : torch.Tensor, float64
        Bound on the 2-norm of the difference to the original's output, for every output vector:
        (n,), or (n, T) where the output is a sequence. inf where nothing is known.
    guaranteed : torch.Tensor, bool, or None
        Whether the original's arg-max is that of the prediction, of the same shape: the two largest
        outputs are further apart than ``sqrt(2) * error_bound``. None for single outputs.
    vacuous : torch.Tensor, bool
        Whether the bound is above the size of the answer itself, and so says nothing.
    seconds, plain_seconds : float
        Wall time of the bounds, and of the reduced network's own run on the same inputs.
    preparation : float
        Wall time of what was computed once for this length of inputs, the first time.
    """

    prediction: torch.Tensor
    error_bound: torch.Tensor
    guaranteed: torch.Tensor | None
    vacuous: torch.Tensor
    seconds: float
    plain_seconds: float
    preparation: float

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter((self.prediction, self.error_bound))

    @property
    def cost(self) -> float:
        """How many times as long the bounds take as the predictions alone."""
        return self.seconds / self.plain_seconds

    def __str__(self) -> str:
        count = self.error_bound.numel()
        size = np.sort(self.error_bound.numpy().reshape(-1))
        lines = [
            f"error bound  {size[0]:.3g} to {size[-1]:.3g}, median {float(np.median(size)):.3g}, "
            "level FLOAT",
        ]
        if self.guaranteed is not None:
            sure = int(self.guaranteed.sum())
            lines.append(f"guaranteed   {sure:,} of {count:,} decisions are the original's")
        void = int(self.vacuous.sum())
        if void:
            lines.append(f"VACUOUS      {void:,} of {count:,} bounds are above the answer itself")
        per_input = self.seconds / len(self.prediction)
        lines.append(
            f"cost         {1e3 * per_input:.3g} ms for each input, {self.cost:.0f} times the "
            f"prediction; {self.preparation:.2g} s once"
        )
        return "\n".join(lines)


class BoundedPredictor:
    """Predict with error bounds; what depends on the two networks alone is computed once.

    Parameters
    ----------
    original, reduced : nn.Module
        Two networks in eval mode that differ in their state-space layers alone.
    """

    def __init__(self, original: nn.Module, reduced: nn.Module) -> None:
        self.original, self.reduced = original, reduced
        self._chains: dict[tuple[int, ...], tuple[ObservedChain, float]] = {}

    def predict(self, inputs: Any, *, progress: bool = False) -> Predictions:
        """Return predictions and bounds; see `ReductionResult.predict`."""
        x = as_tensor(inputs, self.reduced).detach()
        chain, preparation = self._chain(x)
        with torch.no_grad():
            self.reduced(x[:1])  # what a first run sets up is not its cost
            started = time.perf_counter()
            prediction = self.reduced(x)
            plain = time.perf_counter() - started
        started = time.perf_counter()
        outputs, errors = [], []
        with Progress(progress) as bars:
            advance = bars.stage("bounding errors", len(x))
            for sample in x.cpu().numpy():
                found = chain.bound(sample)
                outputs.append(found.output)
                errors.append(found.error)
                advance(1)
        seconds = time.perf_counter() - started
        exact, error = np.stack(outputs), np.stack(errors)
        guaranteed = None
        if exact.shape[-1] > 1:
            decided = prediction.detach().cpu().numpy().argmax(axis=-1)
            guaranteed = torch.from_numpy(_guaranteed(exact, error, decided))
        size = np.linalg.norm(exact, axis=-1)
        return Predictions(
            prediction,
            torch.from_numpy(error),
            guaranteed,
            torch.from_numpy(~(error <= size)),
            seconds,
            plain,
            preparation,
        )

    def _chain(self, x: torch.Tensor) -> tuple[ObservedChain, float]:
        """Return the chain for inputs of this shape, and what it took to make it."""
        shape = tuple(x.shape[1:])
        if shape not in self._chains:
            started = time.perf_counter()
            options: dict[str, Any] = {
                "horizon": shape[0],
                "example_shape": shape,
                "tokens": not x.is_floating_point(),
            }
            graphs = (trace(model, **options) for model in (self.original, self.reduced))
            chain = ObservedChain(*graphs, shape[0])
            self._chains[shape] = chain, time.perf_counter() - started
        return self._chains[shape]


def _guaranteed(outputs: np.ndarray, error: np.ndarray, decided: np.ndarray) -> np.ndarray:
    """Tell where the margin exceeds ``sqrt(2) * error`` and the decision is the one of float64."""
    second, first = np.moveaxis(np.partition(outputs, -2, axis=-1)[..., -2:], -1, 0)
    margin = (first - second) * (1.0 - 4.0 * np.finfo(np.float64).eps)
    clear = margin > math.sqrt(2.0) * error * (1.0 + 4.0 * np.finfo(np.float64).eps)
    return clear & (outputs.argmax(axis=-1) == decided)
