"""export: layers as systems, networks as chains of them."""

import numpy as np
import pytest
import torch
from foreign_layers import DiagonalMixer, ExampleNetwork, settle
from layer_cases import CAUSAL, TWO_WAYS, WIDTH, made

import ssmred
from ssmred.errors import CheckpointError, UnsupportedOperationError
from ssmred.networks import SystemChain, import_network
from ssmred.networks.deep import FAMILIES, DeepSSM
from ssmred.networks.layers import S4D, S5

HORIZON = 60
ROUNDING = 1e-12


def responses(chain):
    return {name: system.impulse_response(HORIZON) for name, system in chain}


@pytest.mark.parametrize("name", CAUSAL)
def test_layers_are_systems(name):
    layer = made(CAUSAL[name], 0, torch.float64)
    system = ssmred.export(layer)
    assert system.batch_shape in ((1,), (WIDTH,), (3 * WIDTH,))
    assert np.array_equal(
        system.impulse_response(HORIZON), layer.to_system().impulse_response(HORIZON)
    )


def test_layers_of_others_come_through_their_adapter():
    layer = settle(DiagonalMixer(6, 8), torch.float64)
    system, core = ssmred.export(layer), import_network(layer).model.core
    assert system.batch_shape == (6,)
    assert np.array_equal(
        system.impulse_response(HORIZON), ssmred.export(core).impulse_response(HORIZON)
    )
    with torch.no_grad():
        layer.kernel.log_dt[0] = torch.nan
    with pytest.raises(CheckpointError, match="log_dt"):
        ssmred.export(layer)


def test_an_adapter_says_what_the_layer_says():
    """Two ways to the same system."""
    layer = made(lambda: S4D(WIDTH, 16), 0, torch.float64)
    own, adapted = ssmred.export(layer), import_network(layer).layers[0].system
    expected = own.impulse_response(HORIZON)
    assert (
        np.abs(adapted.impulse_response(HORIZON) - expected).max() <= ROUNDING * abs(expected).max()
    )


@pytest.mark.parametrize("layer", FAMILIES)
def test_networks_are_chains(layer):
    torch.manual_seed(0)
    model = DeepSSM(3, 5, layer=layer, channels=6, states=8, layers=3).double().eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    chain = ssmred.export(model)
    assert isinstance(chain, SystemChain)
    assert chain.names == ("layers.0", "layers.1", "layers.2")
    assert len(chain) == 3
    assert chain.systems["layers.1"] is chain["layers.1"]
    for number, (_, system) in enumerate(chain):
        expected = model.layers[number].to_systems()["core"].impulse_response(HORIZON)
        assert np.array_equal(system.impulse_response(HORIZON), expected)
    assert str(chain).splitlines()[2].startswith("layers.2  ")
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_chains_follow_the_execution():
    class Crossed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.last = S5(4, 4)
            self.first = S4D(4, 4)
            self.middle = S5(4, 4, bidirectional=True)

        def forward(self, x):
            y, _ = self.first(x)
            return self.last(self.middle(y))

    chain = ssmred.export(Crossed().double())
    assert chain.names == ("first", "middle", "middle.backward", "last")
    assert not chain["middle.backward"].D.any()
    imported = import_network(settle(ExampleNetwork(depth=2), torch.float64)).model
    assert ssmred.export(imported).names == ("blocks.0", "blocks.1")


def test_single_layers_with_two_filters_are_refused():
    for build in TWO_WAYS.values():
        with pytest.raises(UnsupportedOperationError, match="holds 2 systems"):
            ssmred.export(made(build, 0, torch.float64))


def test_networks_without_layers_are_refused():
    with pytest.raises(UnsupportedOperationError, match="no state-space layer"):
        ssmred.export(torch.nn.Linear(2, 2))
