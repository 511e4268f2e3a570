import copy

import numpy as np
import pytest
import torch
from foreign_layers import DiagonalMixer, ExampleNetwork, TokenNetwork, settle
from torch import nn

from ssmred.errors import CheckpointError, OrderError, UnsupportedOperationError
from ssmred.networks import (
    ReducedSSM,
    export_plain,
    find_layers,
    import_network,
    with_systems,
)
from ssmred.networks.deep import DeepSSM
from ssmred.networks.discovery import is_imported

# float32 networks of a few layers, outputs of size one
FLOAT32_NETWORK = 5e-5


class Backwards(nn.Module):
    """Layers are used in the reverse of the order they were made in."""

    def __init__(self):
        super().__init__()
        self.last = DiagonalMixer(4, 8)
        self.first = DiagonalMixer(4, 4)

    def forward(self, x):
        return self.last(self.first(x.transpose(1, 2))[0])[0].mean(-1)


class Untraceable(Backwards):
    def forward(self, x):
        return super().forward(x) if x.sum() > 0 else super().forward(-x)


def test_execution_order_where_traceable():
    assert [found.name for found in find_layers(Backwards())] == ["first", "last"]
    assert [found.name for found in find_layers(Untraceable())] == ["last", "first"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (lambda: ExampleNetwork(prenorm=True), (2, 40, 3)),
        (lambda: ExampleNetwork(gated=False, frozen=("log_dt", "A_imag")), (2, 40, 3)),
        (lambda: DeepSSM(3, 5, channels=8, states=8, layers=2), (2, 40, 3)),
        (Untraceable, (2, 40, 4)),
    ],
)
def test_imported_network_computes_the_same(build, shape, dtype):
    model = settle(build(), dtype)
    before = copy.deepcopy(model.state_dict())
    imported = import_network(model)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
    with torch.no_grad():
        wanted, got = model(x), imported.model(x)
    assert (wanted - got).abs().max() <= (FLOAT32_NETWORK if dtype == torch.float32 else 1e-11)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert not is_imported(model)
    assert is_imported(imported.model)
    for layer in imported.layers:
        core = imported.model.get_submodule(layer.core)
        assert core is imported.core(layer.name)
        assert core.states == layer.states == 2 * layer.system.poles.size
    assert imported.systems.keys() == {layer.name for layer in imported.layers}


def test_importing_twice_changes_nothing():
    model = settle(ExampleNetwork())
    once = import_network(model)
    twice = import_network(once.model)
    assert [(a.name, a.core, a.states) for a in once.layers] == [
        (b.name, b.core, b.states) for b in twice.layers
    ]


def test_training_mode_survives():
    imported = import_network(ExampleNetwork().train())
    assert all(module.training for module in imported.model.modules())


def test_a_layer_used_twice_is_imported_once():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = DiagonalMixer(3, 4)
            self.alias = self.layer

        def forward(self, x):
            return self.alias(self.layer(x.transpose(1, 2))[0])[0]

    model = settle(Twice(), torch.float64)
    imported = import_network(model)
    assert [layer.name for layer in imported.layers] == ["layer"]
    x = torch.randn(2, 9, 3, dtype=torch.float64)
    with torch.no_grad():
        assert (model(x) - imported.model(x)).abs().max() <= 1e-12
    assert imported.model.alias is imported.model.layer


def test_a_network_that_is_one_layer():
    model = settle(DiagonalMixer(3, 4), torch.float64)
    imported = import_network(model)
    assert [(layer.name, layer.core) for layer in imported.layers] == [("model", "core")]
    x = torch.randn(2, 3, 9, dtype=torch.float64)
    with torch.no_grad():
        assert (model(x)[0] - imported.model(x)[0]).abs().max() <= 1e-12


def test_reduced_layers_are_put_in():
    model = settle(ExampleNetwork(), torch.float64)
    imported = import_network(model)
    system = imported.systems["blocks.1"]
    orders = np.arange(8)
    reduced = with_systems(imported, {"blocks.1": (system, orders)})
    assert imported.core("blocks.1").states == 128
    assert imported.core("blocks.1", reduced).orders.tolist() == orders.tolist()
    assert imported.core("blocks.0", reduced).states == 128
    bare = imported.with_systems({"blocks.0": ReducedSSM([0] * 8)})
    assert imported.core("blocks.0", bare).states == 0
    x = torch.randn(2, 9, 3, dtype=torch.float64)
    assert bare(x).shape == (2, 5)
    with pytest.raises(CheckpointError, match="no layer"):
        with_systems(imported, {"blocks.7": system})
    with pytest.raises(CheckpointError, match="width"):
        with_systems(imported, {"blocks.0": ReducedSSM([1])})


def test_a_core_that_computes_something_else_is_an_error():
    class Doubled(ReducedSSM):
        def kernel(self, T):
            return 2.0 * super().kernel(T)

    imported = import_network(settle(ExampleNetwork()))
    wrong = Doubled([1] * 8, [0.5] * 8, [1.0] * 8)
    with pytest.raises(CheckpointError, match=r"kernel of layer blocks\.0"):
        with_systems(imported, {"blocks.0": wrong})


def test_networks_without_layers_are_refused():
    with pytest.raises(UnsupportedOperationError, match=r"no state-space layer.*Linear"):
        find_layers(nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(UnsupportedOperationError, match="Module"):
        find_layers("a path")


def test_broken_weights_anywhere_name_the_key():
    model = ExampleNetwork()
    with torch.no_grad():
        model.norms[1].weight[0] = float("nan")
    with pytest.raises(CheckpointError, match=r"norms\.1\.weight"):
        import_network(model)


def test_export_writes_a_state_dict_the_original_class_loads():
    model = settle(ExampleNetwork(), torch.float32)
    imported = import_network(model)
    systems = {name: (system, np.arange(8) % 4) for name, system in imported.systems.items()}
    reduced = imported.with_systems(systems)
    with torch.no_grad():
        reduced.decoder.bias.add_(1.0)  # fine-tuned after the reduction
    plain = export_plain(model, reduced)
    fresh = ExampleNetwork(n=6)
    fresh.load_state_dict(plain.state_dict())
    x = torch.randn(2, 50, 3)
    with torch.no_grad():
        assert (fresh.eval()(x) - reduced(x)).abs().max() <= FLOAT32_NETWORK
    assert export_plain(model, reduced, states=16).blocks[0].n == 16
    with pytest.raises(OrderError):
        export_plain(model, reduced, states=4)
    with pytest.raises(CheckpointError, match="same layers"):
        export_plain(settle(TokenNetwork()), reduced)
