"""Turn a number of states into a reduced network: data-free, or calibrated front to back."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import nn

from ssmred.gramians import InputMoments, OutputMetric, OutputSensitivity
from ssmred.networks import ImportedLayer, ImportedNetwork
from ssmred.networks.sensing import inputs_of, sensitivities
from ssmred.reductors import Reduction, SubsetPath, SubsetReductor, allocate
from ssmred.systems import DiagonalSystem

Weigher = Callable[[Sequence[SubsetPath]], Sequence[np.ndarray]]
"""Maps removal paths to the weight of every channel's squared error, one (H,) array per layer."""

Advance = Callable[[int], None]
"""Called with the number of layers done since the last call."""


@dataclass(frozen=True, eq=False)
class Cut:
    """Hold what was done to the layers of a network, and the reduced network.

    Attributes
    ----------
    network : ImportedNetwork
        The network that is cut.
    reductions : tuple of Reduction
        Of its first layers, in execution order; the others stay as they are.
    """

    network: ImportedNetwork
    reductions: tuple[Reduction, ...]

    @cached_property
    def model(self) -> nn.Module:
        """The network with reduced layers, in eval mode."""
        layers = zip(self.network.layers, self.reductions, strict=False)
        return self.network.with_systems({at.name: (r.system, r.orders) for at, r in layers}).eval()

    @property
    def systems(self) -> dict[str, DiagonalSystem]:
        """The systems that the reduced network stores, by layer."""
        network = self.network
        return {at.name: network.core(at.name, self.model).to_system() for at in network.layers}

    @property
    def states(self) -> int:
        """Real states kept."""
        untouched = self.network.layers[len(self.reductions) :]
        return sum(2 * int(r.orders.sum()) for r in self.reductions) + sum(
            layer.states for layer in untouched
        )


class Removal(Protocol):
    """A way of choosing what to remove."""

    @property
    def paths(self) -> Sequence[SubsetPath]:
        """Removal paths of the layers, scored on the original network."""
        ...

    @property
    def weights(self) -> Sequence[np.ndarray]:
        """Weight of every channel's squared error, one (H,) array per layer."""
        ...

    def cut(self, states: int) -> Cut:
        """Return the network that keeps at most so many states."""
        ...


class DataFreeRemoval:
    """Remove states by the h2 error of the layers alone.

    Parameters
    ----------
    network : ImportedNetwork
        The network with its systems.
    horizon : int or None
        Length over which responses are compared.
    weigh : callable, optional
        Weighs the channels; by default every layer counts relative to its own h2 norm.
    advance : callable, optional
        Reports progress.
    """

    def __init__(
        self,
        network: ImportedNetwork,
        horizon: int | None,
        *,
        weigh: Weigher | None = None,
        advance: Advance = lambda _: None,
    ) -> None:
        self.network = network
        self.paths: list[SubsetPath] = []
        for layer in network.layers:
            self.paths.append(SubsetReductor(horizon=horizon).path(layer.system))
            advance(1)
        self.weights = list((weigh or relative_to_layer)(self.paths))

    def weighed(self, weigh: Weigher) -> DataFreeRemoval:
        """Return the same removal with other weights."""
        other = copy.copy(self)
        other.weights = list(weigh(self.paths))
        return other

    def cut(self, states: int) -> Cut:
        """Return the network that keeps at most so many states."""
        return self.cut_to(allocate(self.paths, self.weights, states=states))

    def cut_to(self, kept: Sequence[np.ndarray]) -> Cut:
        """Return the network whose channels keep these numbers of modes."""
        reductions = (path.reduction(modes) for path, modes in zip(self.paths, kept, strict=True))
        return Cut(self.network, tuple(reductions))


class CalibratedRemoval:
    """Remove states by the error they cause on signals the layers really see.

    A first pass over the original network scores every removal and divides the states among the
    layers; each cut then goes front to back, and every layer is scored again on the signals that
    reach it through the reduced layers before it.

    Parameters
    ----------
    network : ImportedNetwork
        The network with its systems.
    data : torch.Tensor, (S, T, ...)
        Calibration inputs.
    seed : int
        Seed of the random projections that measure sensitivities.
    advance : callable, optional
        Reports progress.
    """

    def __init__(
        self,
        network: ImportedNetwork,
        data: torch.Tensor,
        *,
        seed: int,
        advance: Advance = lambda _: None,
    ) -> None:
        self.network, self.data = network, data
        cores = {layer.name: network.core(layer.name) for layer in network.layers}
        self.sensitivities: dict[str, OutputSensitivity] = {}
        moments: dict[str, InputMoments] = {}
        for batch in sensitivities(network.model, cores, data, seed=seed):
            for name, signals in batch.items():
                V, G = signals.inputs.double().numpy(), signals.sensitivities.double().numpy()
                if name not in moments:
                    system = network.systems[name]
                    moments[name] = InputMoments(*V.shape[1:], system=system)
                    self.sensitivities[name] = OutputSensitivity(system, V.shape[-1])
                moments[name].update(V)
                self.sensitivities[name].update(V, G)
        self.paths: list[SubsetPath] = []
        for layer in network.layers:
            self.paths.append(self._path(layer, moments[layer.name]))
            advance(1)
        self.weights = [np.ones(path.norms.shape) for path in self.paths]

    def cut(self, states: int) -> Cut:
        """Return the network that keeps at most so many states."""
        budget = allocate(self.paths, self.weights, states=states)
        return self.cut_to([2 * int(modes.sum()) for modes in budget])

    def cut_to(self, budget: Sequence[int]) -> Cut:
        """Return the network whose layers keep at most so many states each."""
        (kept,) = allocate(self.paths[:1], self.weights[:1], states=budget[0])
        cut = Cut(self.network, (self.paths[0].reduction(kept),))  # sees what it always saw
        for index, layer in enumerate(self.network.layers[1:], start=1):
            core = self.network.core(layer.name, cut.model)
            moments = None
            for inputs in inputs_of(cut.model, layer.name, core, self.data):
                V = inputs.double().numpy()
                moments = moments or InputMoments(*V.shape[1:], system=layer.system)
                moments.update(V)
            path = self._path(layer, moments)
            (kept,) = allocate([path], [self.weights[index]], states=budget[index])
            cut = Cut(self.network, (*cut.reductions, path.reduction(kept)))
        return cut

    def _path(self, layer: ImportedLayer, moments: InputMoments) -> SubsetPath:
        metric = OutputMetric(moments, self.sensitivities[layer.name])
        return SubsetReductor(metric=metric).path(layer.system)


def relative_to_layer(paths: Sequence[SubsetPath]) -> list[np.ndarray]:
    """Weigh the squared errors of every layer by one over its squared norm."""
    return [np.full(len(path.norms), 1.0 / max((path.norms**2).sum(), 1e-300)) for path in paths]
