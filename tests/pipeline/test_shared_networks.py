"""Layers with one shared state in the pipeline's parts, on systems and arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

import ssmred
from ssmred.gramians import InputMoments, OutputMetric, OutputSensitivity
from ssmred.networks.deep import DeepSSM
from ssmred.norms import h2_error, h2_norm
from ssmred.pipeline import removal as module
from ssmred.pipeline.measured import h2_root, united, with_read_out
from ssmred.pipeline.methods import ALTERNATING, LAYER_METHODS
from ssmred.pipeline.removal import CalibratedRemoval, Cut, data_free_path, relative_to_layer
from ssmred.reductors import SubsetReductor, allocate, removal_curve
from ssmred.systems import DiagonalSystem

EVALUATED = 1e-9  # two ways to evaluate one error
T = 40


def layer(rng, H, n, m, p, recurrence="post-update"):
    def normal(*shape):
        return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)

    poles = np.sqrt(rng.uniform(0.1, 0.9, (H, n))) * np.exp(1j * rng.uniform(0.05, 3.1, (H, n)))
    return DiagonalSystem(
        poles,
        normal(H, n, m),
        normal(H, p, n),
        rng.standard_normal((H, p, m)),
        recurrence=recurrence,
        real_output=True,
    )


@pytest.mark.theorem("optimal-readout")
@pytest.mark.parametrize("method", LAYER_METHODS)
@pytest.mark.parametrize("horizon", [None, T])
def test_every_method_takes_a_shared_state(method, horizon):
    rng = np.random.default_rng(1)
    system = layer(rng, 1, 5, 3, 2)
    path = data_free_path(system, horizon, method)
    assert path.errors.shape == (1, 6)
    assert np.isclose(path.norms[0], h2_norm(system, horizon=horizon)[0], rtol=EVALUATED)
    assert path.states_per_mode == 2
    reduction = path.reduction(np.array([3]))
    error = h2_error(system, reduction.system, horizon=horizon)[0]
    if method == ALTERNATING:  # the path is that of the subset, whose errors it lowers
        assert error < path.errors[0, 2]
    else:
        assert np.isclose(path.errors[0, 2], error, rtol=EVALUATED)
    assert reduction.states == 2 * reduction.orders.sum() <= 6
    fitted = with_read_out(reduction, h2_root(united(reduction), horizon), "h2")
    better = h2_error(system, fitted.system, horizon=horizon)[0]
    assert better <= error * (1 + EVALUATED)
    assert np.isclose(fitted.bound.value[0], better, rtol=EVALUATED)


@pytest.mark.theorem("nested-pythagoras")
def test_channels_and_shared_states_share_a_budget():
    rng = np.random.default_rng(2)
    systems = [layer(rng, 4, 6, 1, 1), layer(rng, 1, 8, 3, 2), layer(rng, 2, 4, 2, 2)]
    paths = [SubsetReductor(horizon=T).path(system) for system in systems]
    weights = relative_to_layer(paths)
    assert [w.shape for w in weights] == [(4,), (1,), (2,)]
    full = sum(system.states * len(system.poles) for system in systems)
    for states in (0, 11, 30, full):
        kept = allocate(paths, weights, states=states)
        reductions = [path.reduction(k) for path, k in zip(paths, kept, strict=True)]
        assert sum(r.states for r in reductions) <= states
        assert sum(r.states for r in reductions) > states - 2
    removed, error = removal_curve(paths, weights)
    assert removed[-1] == full
    assert np.all(np.diff(error) >= -1e-12 * error[-1])


@dataclass
class Layer:
    name: str
    system: DiagonalSystem
    squared: bool = False

    @property
    def states(self):
        return self.system.states * len(self.system.poles)


class Chain:
    """Stands for an imported network: linear layers in a row, tanh between them."""

    def __init__(self, systems):
        self.layers = [Layer(f"layer{i}", system) for i, system in enumerate(systems)]
        self.systems = {at.name: at.system for at in self.layers}

    def inputs(self, systems, V):
        """Return what every layer sees, (S, H m, T)."""
        seen = []
        for system in systems:
            seen.append(V)
            U = V.reshape(len(V), len(system.poles), system.inputs, T).swapaxes(2, 3)
            V = np.tanh(system.simulate(U).swapaxes(2, 3).reshape(len(V), -1, T) / 10)
        return seen, V


@pytest.mark.theorem("shared-metric")
def test_calibrated_removal_of_mixed_layers(monkeypatch):
    rng = np.random.default_rng(3)
    systems = [layer(rng, 4, 6, 1, 1), layer(rng, 1, 8, 4, 3), layer(rng, 1, 6, 3, 5)]
    network = Chain(systems)
    V = rng.standard_normal((25, 4, T)).cumsum(axis=-1)
    seen, wanted = network.inputs(systems, V)

    def metrics(_network, systems, _data, _seed):
        made = {}
        for (name, system), signals in zip(systems.items(), seen, strict=True):
            outputs = len(system.poles) * system.outputs
            moments = InputMoments(*signals.shape[1:], system=system)
            sensitivity = OutputSensitivity(system, T)
            moments.update(signals)
            sensitivity.update(signals, rng.standard_normal((25, outputs, T)))
            made[name] = OutputMetric(moments, sensitivity)
        return made

    def moments_of(cut, at, system, _data):
        reduced = [r.system for r in cut.reductions] + systems[len(cut.reductions) :]
        index = [other.name for other in network.layers].index(at.name)
        signals = network.inputs(reduced, V)[0][index]
        moments = InputMoments(*signals.shape[1:], system=system)
        moments.update(signals)
        return moments

    monkeypatch.setattr(module, "output_metrics", metrics)
    monkeypatch.setattr(module, "moments_of", moments_of)
    removal = CalibratedRemoval(network, torch.zeros(0), seed=0)
    full = sum(at.states for at in network.layers)
    errors = []
    for share in (1.0, 0.8, 0.5, 0.2):
        cut = removal.cut(round(share * full))
        assert cut.states <= share * full
        assert cut.states == 2 * sum(int(r.kept.sum()) for r in cut.reductions)
        found = network.inputs([r.system for r in cut.reductions], V)[1]
        errors.append(np.sqrt(np.mean((found - wanted) ** 2)))
    assert errors[0] == 0
    assert errors[1] < errors[2] < errors[3]
    untouched = Cut(network, cut.reductions[:1])
    assert untouched.states == cut.reductions[0].states + 2 * 8 + 2 * 6


def test_fitting_the_input_map_too_lowers_the_error_of_every_layer():
    torch.manual_seed(2)
    network = DeepSSM(2, 3, layer="lru", channels=5, states=16, layers=2, norm="layer").eval()
    wish = {"states": 0.5, "horizon": T, "guarantee": "layer", "progress": False}
    plain, both = (
        ssmred.reduce(network, method=method, **wish) for method in ("subset", ALTERNATING)
    )
    assert plain.states == both.states
    pairs = zip(plain.certificate.layers, both.certificate.layers, strict=True)
    for one, other in pairs:
        assert 0 < other.relative_error < one.relative_error
