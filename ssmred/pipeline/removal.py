"""Turn a number of states into a reduced network: data-free, or calibrated front to back."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import nn

from ssmred.errors import DataError
from ssmred.gramians import InputMoments, OutputMetric, OutputSensitivity
from ssmred.networks import ImportedLayer, ImportedNetwork
from ssmred.networks.sensing import inputs_of, sensitivities
from ssmred.pipeline.feedthrough import FULL, moved_modes, shapes_direct, with_diagonal
from ssmred.pipeline.measured import h2_root, measured, united, usable, with_read_out
from ssmred.pipeline.methods import ALTERNATING, SUBSET, reductor_of
from ssmred.pipeline.original_outputs import OriginalOutputs
from ssmred.reductors import Reduction, ReductionPath, SubsetPath, SubsetReductor, allocate
from ssmred.systems import DiagonalSystem
from ssmred.systems.linear import LinearSystem, of_kind

Weigher = Callable[[Sequence[ReductionPath]], Sequence[np.ndarray]]
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
    def systems(self) -> dict[str, LinearSystem]:
        """The systems that the reduced network stores, by layer."""
        network = self.network
        return {at.name: network.core(at.name, self.model).to_system() for at in network.layers}

    @property
    def states(self) -> int:
        """Real states kept."""
        untouched = self.network.layers[len(self.reductions) :]
        return sum(r.states for r in self.reductions) + sum(layer.states for layer in untouched)


class Removal(Protocol):
    """A way of choosing what to remove."""

    @property
    def paths(self) -> Sequence[ReductionPath]:
        """Removal paths of the layers, scored on the original network."""
        ...

    @property
    def metric(self) -> str:
        """What removals were scored in, for results and certificates."""
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
    method : str
        How systems are made smaller; one of `METHODS`.
    weigh : callable, optional
        Weighs the channels; by default every layer counts relative to its own h2 norm.
    fit : bool
        Where poles move, replace the read-out that the method gives by the best one in this norm;
        the states are divided by the errors of the former.
    feedthrough : {"full", "diagonal"}
        Shape of D where a layer's own is a diagonal matrix; "diagonal" needs the best read-out.
    seed : int
        Of the method "random"; every layer takes a different order from it.
    advance : callable, optional
        Reports progress.
    """

    def __init__(
        self,
        network: ImportedNetwork,
        horizon: int | None,
        *,
        method: str = SUBSET,
        weigh: Weigher | None = None,
        fit: bool = True,
        feedthrough: str = FULL,
        seed: int = 0,
        advance: Advance = lambda _: None,
    ) -> None:
        self.network, self.horizon, self.method = network, horizon, method
        self.feedthrough = feedthrough
        self.fit = fit and method not in (SUBSET, ALTERNATING)  # those end with the best read-out
        self.paths: list[ReductionPath] = []
        for place, layer in enumerate(network.layers):
            path = data_free_path(layer.system, horizon, method, seed=(seed, place))
            self.paths.append(path)
            advance(1)
        self.weights = list((weigh or relative_to_layer)(self.paths))

    @property
    def metric(self) -> str:
        """What removals were scored in."""
        return _labelled(self.paths[0].metric, self.method, self.feedthrough)

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
        reductions = [path.reduction(modes) for path, modes in zip(self.paths, kept, strict=True)]
        layers = zip(self.network.layers, reductions, strict=True)
        return Cut(self.network, tuple(self.finished(layer, one) for layer, one in layers))

    def finished(self, layer: ImportedLayer, reduction: Reduction) -> Reduction:
        """Return a reduction with its last read-out."""
        if self.fit:
            reduction = held(layer, reduction)
        shaped = shapes_direct(layer, self.feedthrough)
        if not (self.fit or shaped):
            return reduction
        root = h2_root(united(reduction), self.horizon)
        if self.fit:
            reduction = with_read_out(reduction, root, self.metric)
        return with_diagonal(reduction, root, moved_modes(reduction)) if shaped else reduction


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
    feedthrough : {"full", "diagonal"}
        Shape of D where a layer's own is a diagonal matrix.
    advance : callable, optional
        Reports progress.
    """

    def __init__(
        self,
        network: ImportedNetwork,
        data: torch.Tensor,
        *,
        seed: int,
        feedthrough: str = FULL,
        advance: Advance = lambda _: None,
    ) -> None:
        self.network, self.data, self.feedthrough = network, data, feedthrough
        self.original = OriginalOutputs(network, data)
        metrics = output_metrics(network, network.systems, data, seed)
        self.sensitivities = {name: metric.sensitivity for name, metric in metrics.items()}
        self.paths: list[SubsetPath] = []
        for layer in network.layers:
            self.paths.append(SubsetReductor(metric=metrics[layer.name]).path(layer.system))
            advance(1)
        self.weights = [np.ones(path.norms.shape) for path in self.paths]

    @property
    def metric(self) -> str:
        """What removals were scored in."""
        return _labelled(self.paths[0].metric, SUBSET, self.feedthrough)

    def cut(self, states: int) -> Cut:
        """Return the network that keeps at most so many states."""
        budget = allocate(self.paths, self.weights, states=states)
        counts = zip(self.paths, budget, strict=True)
        return self.cut_to([path.states_per_mode * int(modes.sum()) for path, modes in counts])

    def cut_to(self, budget: Sequence[int], *, to_original: bool = False) -> Cut:
        """Return the network whose layers keep at most so many states each.

        Read-outs are fitted to what the layer makes of the signals that reach it, or to what it
        made of those that reached it in the original network.
        """
        cut = Cut(self.network, ())
        for index, layer in enumerate(self.network.layers):
            path = self.paths[index]
            if cut.reductions:  # the first layer sees what it always saw
                moments = moments_of(cut, layer, layer.system, self.data)
                metric = OutputMetric(moments, self.sensitivities[layer.name])
                path = SubsetReductor(metric=metric).path(layer.system)
            (kept,) = allocate([path], [self.weights[index]], states=budget[index])
            reduction = self._reduction(layer, path, kept)
            if to_original:
                reduction = fitted_to_original(
                    cut, layer, reduction, self.original, self.feedthrough
                )
            cut = Cut(self.network, (*cut.reductions, reduction))
        return cut

    def _reduction(self, layer: ImportedLayer, path: SubsetPath, kept: np.ndarray) -> Reduction:
        reduction = path.reduction(kept)
        if reduction.kept is None or not shapes_direct(layer, self.feedthrough):
            return reduction
        return with_diagonal(reduction, path.root, reduction.kept)


class CalibratedMove:
    """Move poles, then fit the read-out on the signals the layers really see.

    The calibrated errors of removals divide the states among all channels, as they do for
    `CalibratedRemoval`; the method then reduces each channel to its share. Each cut goes front to
    back, and its read-outs are the best ones for the moved poles in the same metric.

    Parameters
    ----------
    network : ImportedNetwork
        The network with its systems.
    data : torch.Tensor, (S, T, ...)
        Calibration inputs.
    method : str
        How poles move; one of `METHODS` but subset. Balanced truncation moves them by the moments
        of the states on the data, the others know nothing of the data.
    horizon : int or None
        Length over which responses are compared.
    seed : int
        Seed of the random projections that measure sensitivities, and of the method "random".
    feedthrough : {"full", "diagonal"}
        Shape of D where a layer's own is a diagonal matrix.
    advance : callable, optional
        Reports progress.
    """

    def __init__(
        self,
        network: ImportedNetwork,
        data: torch.Tensor,
        *,
        method: str,
        horizon: int | None,
        seed: int,
        feedthrough: str = FULL,
        advance: Advance = lambda _: None,
    ) -> None:
        self.network, self.data, self.method, self.seed = network, data, method, seed
        self.feedthrough = feedthrough
        self.original = OriginalOutputs(network, data)
        metrics = output_metrics(network, network.systems, data, seed)
        self.paths: list[SubsetPath] = []
        self.sources: list[ReductionPath] = []
        for place, layer in enumerate(network.layers):
            system, metric = layer.system, metrics[layer.name]
            self.paths.append(SubsetReductor(metric=metric).path(system))
            reductor = reductor_of(
                method, system, horizon, moments=metric.moments, seed=(seed, place)
            )
            self.sources.append(reductor.path(system))
            advance(1)
        self.weights = [np.ones(path.norms.shape) for path in self.paths]

    @property
    def metric(self) -> str:
        """What removals were scored in."""
        return _labelled(self.paths[0].metric, self.method, self.feedthrough)

    def cut(self, states: int) -> Cut:
        """Return the network that keeps at most so many states."""
        return self._cut(allocate(self.paths, self.weights, states=states), to_original=False)

    def cut_to(self, budget: Sequence[int], *, to_original: bool = False) -> Cut:
        """Return the network whose layers keep at most so many states each.

        Read-outs are fitted as `CalibratedRemoval.cut_to` fits them.
        """
        triples = zip(self.paths, self.weights, budget, strict=True)
        kept = [allocate([path], [w], states=states)[0] for path, w, states in triples]
        return self._cut(kept, to_original=to_original)

    def _cut(self, kept: Sequence[np.ndarray], *, to_original: bool) -> Cut:
        layers = self.network.layers
        moved = [
            held(layer, usable(source, modes))
            for layer, source, modes in zip(layers, self.sources, kept, strict=True)
        ]
        cut = Cut(self.network, ())
        if to_original:
            for layer, reduction in zip(layers, moved, strict=True):
                fitted = fitted_to_original(cut, layer, reduction, self.original, self.feedthrough)
                cut = Cut(self.network, (*cut.reductions, fitted))
            return cut
        unions = {
            layer.name: united(reduction) for layer, reduction in zip(layers, moved, strict=True)
        }
        metrics = output_metrics(self.network, unions, self.data, self.seed)
        for layer, reduction in zip(layers, moved, strict=True):
            union, metric = unions[layer.name], metrics[layer.name]
            if cut.reductions:  # the first layer sees what it always saw
                moments = moments_of(cut, layer, union, self.data)
                metric = OutputMetric(moments, metric.sensitivity)
            root = metric.square_root(union)
            fitted = with_read_out(reduction, root, metric.name)
            if shapes_direct(layer, self.feedthrough):
                fitted = with_diagonal(fitted, root, moved_modes(fitted))
            cut = Cut(self.network, (*cut.reductions, fitted))
        return cut


def held(layer: ImportedLayer, reduction: Reduction) -> Reduction:
    """Return a reduction whose poles are those that the layer's own class holds.

    What is claimed of it is of no use before a read-out is fitted to them.
    """
    system = of_kind(reduction.system, DiagonalSystem, "held")
    return replace(reduction, system=layer.held(system))


def data_free_path(
    system: DiagonalSystem, horizon: int | None, method: str, *, seed: int | Sequence[int] = 0
) -> ReductionPath:
    """Return what every order costs in the h2 norm over the horizon."""
    if method == SUBSET:
        return SubsetReductor(horizon=horizon).path(system)
    if method == ALTERNATING:  # its errors are those of the subset, which it lowers
        return reductor_of(method, system, horizon).path(system)
    return measured(reductor_of(method, system, horizon, seed=seed).path(system), horizon)


def output_metrics(
    network: ImportedNetwork,
    systems: Mapping[str, DiagonalSystem],
    data: torch.Tensor,
    seed: int,
) -> dict[str, OutputMetric]:
    """Return the metric of every layer's read-outs on the signals of the original network.

    The read-outs are those of ``systems``, whose modes need not be the layers' own.
    """
    cores = {layer.name: network.core(layer.name) for layer in network.layers}
    metrics: dict[str, OutputMetric] = {}
    for batch in sensitivities(network.model, cores, data, seed=seed):
        for name, signals in batch.items():
            V, G = signals.inputs.double().numpy(), signals.sensitivities.double().numpy()
            if name not in metrics:
                system = systems[name]
                metrics[name] = OutputMetric(
                    InputMoments(*V.shape[1:], system=system),
                    OutputSensitivity(system, V.shape[-1]),
                )
            metrics[name].moments.update(V)
            metrics[name].sensitivity.update(V, G)
    return metrics


def moments_of(
    cut: Cut, layer: ImportedLayer, system: DiagonalSystem, data: torch.Tensor
) -> InputMoments:
    """Return the moments of what reaches a layer through the reduced layers before it."""
    core = cut.network.core(layer.name, cut.model)
    moments = None
    for inputs in inputs_of(cut.model, layer.name, core, data):
        V = inputs.double().numpy()
        moments = moments or InputMoments(*V.shape[1:], system=system)
        moments.update(V)
    if moments is None:
        raise DataError("reduce: no calibration inputs were given. Pass some in data=.")
    return moments


def fitted_to_original(
    cut: Cut,
    layer: ImportedLayer,
    reduction: Reduction,
    original: OriginalOutputs,
    feedthrough: str = FULL,
) -> Reduction:
    """Return a layer's reduction with the read-out that is nearest to the original's outputs.

    Given what reaches the layer through the reduced layers before it, the outputs wanted are those
    of the original layer on what reached it in the original network: so the read-out makes up for
    errors that came before. Channels that kept all their modes stay as they are. Least squares over
    all samples and times; theory: ``theory/calibrated-metric.md``, 4.
    """
    system = of_kind(reduction.system, DiagonalSystem, "fitted_to_original")
    orders = np.asarray(reduction.orders)
    whole = orders == layer.system.order
    if whole.all():
        return reduction
    core = cut.network.core(layer.name, cut.model)
    given = inputs_of(cut.model, layer.name, core, original.data)
    moments = None
    for inputs, outputs in zip(given, original.of(layer.name), strict=True):
        V, Y = inputs.double().numpy(), outputs.double().numpy()
        moments = moments or InputMoments(*V.shape[1:], system=system)
        moments.update(V, Y)
    if moments is None:
        raise DataError("reduce: no calibration inputs were given. Pass some in data=.")
    root = moments.square_root(system)
    stays = np.arange(system.order) < orders[:, None]
    removal = np.argsort(stays, axis=-1, kind="stable")
    metric = f"outputs of the original on {moments.samples} inputs"
    errors = np.zeros((len(orders), system.order + 1))
    best = SubsetPath(system, removal, errors, root.norms, metric, root).reduction(orders)
    fitted = replace(reduction, system=best.system, claim=best.claim)
    if shapes_direct(layer, feedthrough):
        fitted = with_diagonal(fitted, root, stays)
    C, D = (
        np.where(whole[:, None, None], getattr(system, name), getattr(fitted.system, name))
        for name in "CD"
    )
    return replace(fitted, system=system.replace(C=C, D=D))


def relative_to_layer(paths: Sequence[ReductionPath]) -> list[np.ndarray]:
    """Weigh the squared errors of every layer by one over its squared norm."""
    return [np.full(path.norms.shape, 1.0 / max((path.norms**2).sum(), 1e-300)) for path in paths]


def _labelled(metric: str, method: str, feedthrough: str) -> str:
    """Return a metric with the method and the shape of D, where they are not the usual ones."""
    label = metric if method == SUBSET else f"{metric}, method {method}"
    return label if feedthrough == FULL else f"{label}, {feedthrough} D"
