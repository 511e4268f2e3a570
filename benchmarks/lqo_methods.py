"""The methods that benchmarks/lqo_networks.py compares, each as a maker of cuts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ssmred.networks import ImportedNetwork
from ssmred.norms import h2_norm
from ssmred.pipeline.measured import h2_root, usable
from ssmred.pipeline.measured_division import MeasuredDivision
from ssmred.pipeline.methods import reductor_of
from ssmred.pipeline.quadratic_bound import NetworkChain
from ssmred.pipeline.quadratic_removal import QuadraticRemoval
from ssmred.pipeline.removal import CalibratedMove, CalibratedRemoval, Cut, DataFreeRemoval
from ssmred.reductors import SubsetPath, SubsetReductor, allocate

__all__ = ["METHODS", "SEEDS", "SHARES", "Making"]

Making = Callable[[ImportedNetwork, torch.Tensor, int, int], Callable[[int], Cut]]
"""Takes a network, calibration inputs, their length and a seed; the result takes the states."""

SEEDS = (0, 1, 2)
SHARES = (0.4, 0.6, 0.7, 0.8, 0.9)
"""Shares of all trainable parameters to be removed."""


def row_norms(system: Any, horizon: int) -> np.ndarray:
    """Return what the rows of a filter before squares are scaled by: 1, or their h2 norms.

    Balancing and removal then see the Gramian of the quadratic outputs for white inputs of unit
    variance, which is what a batch norm lets through (theory/lqo-layer.md, 3).
    """
    p = system.inputs
    rows = [
        h2_norm(system.replace(C=system.C[:, [j]], D=system.D[:, [j]]), horizon=horizon)
        for j in range(p, system.outputs)
    ]
    return np.concatenate([np.ones(p), np.ravel(rows)])


def _rows_scaled(system: Any, scale: np.ndarray) -> Any:
    return system.replace(C=scale[:, None] * system.C, D=scale[:, None] * system.D)


def by_layers_alone(method: str, *, squares: bool) -> Making:
    """Reduce without data, squares weighed or not.

    States are divided by the errors of removals, whatever the method.
    """

    def making(
        network: ImportedNetwork, data: torch.Tensor, horizon: int, seed: int
    ) -> Callable[[int], Cut]:
        scales = [
            row_norms(layer.system, horizon) if squares else np.ones(layer.system.outputs)
            for layer in network.layers
        ]
        pairs = zip(network.layers, scales, strict=True)
        layers = [replace(at, system=_rows_scaled(at.system, scale)) for at, scale in pairs]
        removal = DataFreeRemoval(replace(network, layers=tuple(layers)), horizon)
        removal.fit = method != "subset"
        sources = removal.paths
        if removal.fit:
            sources = [reductor_of(method, at.system, horizon).path(at.system) for at in layers]

        def cut(states: int) -> Cut:
            kept = allocate(removal.paths, removal.weights, states=states)
            reductions = []
            for at, source, modes, scale, layer in zip(
                network.layers, sources, kept, scales, layers, strict=True
            ):
                found = removal.finished(layer, usable(source, modes))
                system = _rows_scaled(found.system, 1.0 / scale)
                reductions.append(replace(found, full=at.system, system=system))
            return Cut(network, tuple(reductions))

        return cut

    return making


def divided_without_data(
    network: ImportedNetwork, data: torch.Tensor, horizon: int, seed: int
) -> Callable[[int], Cut]:
    """Remove by the data, but divide the states among the layers by the layers alone.

    Sensitivities hold for small changes; divided by them, the last layers lose all their states.
    """
    calibrated = CalibratedRemoval(network, data, seed=seed)
    alone = DataFreeRemoval(network, horizon)

    def cut(states: int) -> Cut:
        kept = allocate(alone.paths, alone.weights, states=states)
        return calibrated.cut_to([2 * int(modes.sum()) for modes in kept])

    return cut


def random_modes(
    network: ImportedNetwork, data: torch.Tensor, horizon: int, seed: int
) -> Callable[[int], Cut]:
    """Keep random modes, as many in every layer, with their best read-out.

    ``ssmred.reduce(method="random")`` divides the states by the errors instead.
    """
    rng = np.random.default_rng(seed)
    paths = []
    for layer in network.layers:
        system = layer.system
        greedy = SubsetReductor(horizon=horizon).path(system)
        removal = rng.permutation(system.order)[None]
        root = h2_root(system, horizon)
        paths.append(
            SubsetPath(system, removal, np.zeros_like(greedy.errors), root.norms, "h2", root)
        )

    def cut(states: int) -> Cut:
        kept = np.array([states // (2 * len(paths))])
        shaped = DataFreeRemoval(network, horizon)
        pairs = zip(network.layers, paths, strict=True)
        return Cut(network, tuple(shaped.finished(layer, p.reduction(kept)) for layer, p in pairs))

    return cut


METHODS: dict[str, Making] = {
    "subset, calibrated": lambda n, x, T, seed: CalibratedRemoval(n, x, seed=seed).cut,
    "subset, calibrated, divided without data": divided_without_data,
    "balanced, calibrated": lambda n, x, T, seed: (
        CalibratedMove(n, x, method="balanced", horizon=T, seed=seed).cut
    ),
    "balanced, calibrated, measured division": lambda n, x, T, seed: (
        MeasuredDivision(
            CalibratedMove(n, x, method="balanced", horizon=T, seed=seed), n, x, horizon=T
        ).cut
    ),
    "subset, quadratic h2": by_layers_alone("subset", squares=True),
    "balanced, quadratic Gramians": by_layers_alone("balanced", squares=True),
    "subset, linear h2": by_layers_alone("subset", squares=False),
    "balanced, linear Gramians": by_layers_alone("balanced", squares=False),
    "h2-optimal, layer by layer": lambda n, x, T, seed: QuadraticRemoval(n, T, method="lqo-h2").cut,
    "h2-optimal, time-limited": lambda n, x, T, seed: (
        QuadraticRemoval(n, T, method="lqo-limited").cut
    ),
    "h2-optimal, network bound": lambda n, x, T, seed: (
        QuadraticRemoval(n, T, method="lqo-bound", chain=NetworkChain(n, T, data=x)).cut
    ),
    "modal": by_layers_alone("modal", squares=False),
    "random": random_modes,
}
