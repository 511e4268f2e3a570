"""Poles rounded to what the parameters of a layer's class hold."""

import dataclasses

import numpy as np
import pytest
import torch

from ssmred.networks import LayerAdapter, adapter_for, import_network
from ssmred.networks.held_poles import held_poles
from ssmred.networks.layers import LRU, S4, S4D, S5
from ssmred.reductors import modal_form
from ssmred.systems import DiagonalSystem


def shared(module, poles):
    """Return a system on a shared state of four channels with these poles."""
    rng = np.random.default_rng(0)
    n, channels = len(poles), module.D.numel()
    B = rng.normal(size=(1, n, channels)) + 1j * rng.normal(size=(1, n, channels))
    C = rng.normal(size=(1, channels, n)) + 1j * rng.normal(size=(1, channels, n))
    B = np.where(np.imag(poles)[:, None] == 0, B.real, B)
    return DiagonalSystem(
        np.asarray(poles, complex)[None], B, C, np.eye(channels)[None],
        recurrence="post-update", real_output=True,
    )  # fmt: skip


POLES = [0.9 * np.exp(0.3j), 0.7 * np.exp(-2.0j), 0.5, -0.4, 0.99999 * np.exp(1j)]


@pytest.mark.parametrize(
    ("make", "core"),
    [
        (lambda: LRU(4, 16), "core"),
        (lambda: S5(4, 16), "core"),
        (lambda: S5(4, 16, bidirectional=True), "core"),
        (lambda: S5(4, 16, bidirectional=True), "backward"),
    ],
)
def test_shared_states(make, core):
    torch.manual_seed(0)
    layer = make()
    system, adapter = shared(layer, POLES), adapter_for(layer)
    held = held_poles(adapter, layer, core, system)
    assert (held.poles != system.poles).any()
    np.testing.assert_allclose(held.poles, system.poles, rtol=1e-6)
    assert np.array_equal(held.poles.imag == 0, system.poles.imag == 0)  # real ones stay real
    for name in ("B", "C", "D"):
        assert np.array_equal(getattr(held, name), getattr(system, name))
    again = held_poles(adapter, layer, core, held)
    np.testing.assert_allclose(again.poles, held.poles, rtol=1e-14)
    assert held_poles(adapter, layer.double(), core, system) is system


def test_own_poles_stay():
    torch.manual_seed(0)
    layer = S4D(3, 8)
    system = adapter_for(layer).to_systems(layer)["core"]
    held = held_poles(adapter_for(layer), layer, "core", system)
    np.testing.assert_allclose(held.poles, system.poles, rtol=1e-15)


def test_padding_and_poles_without_parameters_stay():
    torch.manual_seed(0)
    layer = S4D(2, 8)
    system = adapter_for(layer).to_systems(layer)["core"]
    poles, B = system.poles * 0.9, system.B.copy()
    poles[1, 2], B[1, 2] = 0.0, 0.0
    padded = system.replace(poles=poles, B=B)
    held = held_poles(adapter_for(layer), layer, "core", padded)
    assert held.poles[1, 2] == 0
    assert (held.poles[0] != poles[0]).all()
    poles = poles.copy()
    poles[0, 0], B = 1.5, system.B
    outside = system.replace(poles=poles, B=B)
    assert held_poles(adapter_for(layer), layer, "core", outside) is outside


def test_layers_that_cannot_be_written_keep_every_pole():
    class ReadOnly(LayerAdapter):
        family = "read only"

        def recognises(self, module):
            return isinstance(module, S4D)

        def to_systems(self, module):
            return adapter_for(module).to_systems(module)

    layer = S4D(2, 8)
    system = adapter_for(layer).to_systems(layer)["core"]
    assert held_poles(ReadOnly(), layer, "core", system) is system


@pytest.mark.theorem("modal-form")
def test_low_rank_layers_keep_their_response():
    torch.manual_seed(0)
    network = import_network(torch.nn.Sequential(S4(8, states=32, length=100)))
    (layer,) = network.layers
    free = modal_form(layer.system, horizon=100)
    form = modal_form(layer.system, horizon=100, held=layer.held)
    assert (form.system.poles != free.system.poles).any()
    assert (form.error <= 1e-6).all()
    moved = np.abs(layer.held(form.system).poles - form.system.poles)
    assert (moved <= 1e-12).all()


@pytest.mark.theorem("modal-form")
def test_channels_that_would_miss_their_response_keep_their_poles():
    torch.manual_seed(0)
    network = import_network(torch.nn.Sequential(S4(8, states=16, length=100)))
    (layer,) = network.layers

    def spoiled(system):
        held = layer.held(system)
        return held.replace(poles=np.concatenate([0.5 * held.poles[:4], held.poles[4:]]))

    free = modal_form(layer.system, horizon=100)
    form = modal_form(layer.system, horizon=100, held=spoiled)
    assert np.array_equal(form.system.poles[:4], free.system.poles[:4])
    assert (form.system.poles[4:] != free.system.poles[4:]).any()
    assert (form.error <= 1e-6).all()


def test_layers_without_a_class_hold_any_pole():
    network = import_network(torch.nn.Sequential(S4D(2, 8)))
    imported = import_network(network.model)
    (layer,) = imported.layers
    assert layer.held(layer.system) is layer.system
    assert dataclasses.replace(layer).held is layer.held
