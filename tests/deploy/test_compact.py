"""Compact networks against the networks they were made from."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import ssmred
from ssmred import zoo
from ssmred.deploy import compacted
from ssmred.deploy.compact import CompactBlock, CompactNorm
from ssmred.errors import UnsupportedOperationError
from ssmred.networks import load_network, save_network
from ssmred.networks.deep import DeepSSM
from ssmred.prune.network import operators_of

ROUNDING = {torch.float32: 2e-5, torch.float64: 1e-12}


def network(layer, dtype=torch.float64, **options):
    torch.manual_seed(0)
    return DeepSSM(3, 5, layer=layer, channels=6, states=8, layers=3, **options).to(dtype).eval()


def blocks(model):
    return [m for m in model.modules() if isinstance(m, CompactBlock)]


def agree(model, small, x):
    with torch.no_grad():
        expected, found = model(x), small(x)
    tolerance = ROUNDING[expected.dtype] * expected.abs().max()
    assert (found - expected).abs().max() <= tolerance


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize(
    ("layer", "mixing"),
    [("s4d", "glu"), ("s4d", "linear"), ("s4d", "bilinear"), ("s4", "glu"), ("s4", "linear")],
)
def test_originals(layer, mixing, dtype):
    model = network(layer, dtype, mixing=mixing, dropout=0.2)
    kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    small = compacted(model.train())
    assert model.training
    assert not small.training
    assert len(blocks(small)) == 3
    for length in (1, 2, 17, 40, 17):
        agree(model.eval(), small, torch.randn(4, length, 3, dtype=dtype))
    assert all(torch.equal(kept[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("gains", [0.0, 0.7, [0.0, 0.7]])
@pytest.mark.parametrize("layer", ["s4d", "s4"])
def test_pruned_networks(layer, gains):
    """Channels without operator, those with gain 0 among them, and a layer that has none left."""
    full = operators_of(network(layer))
    values = gains if isinstance(gains, list) else [gains]
    gone = {"layers.0": [1, 4, 5], "layers.1": range(6), "layers.2": [0]}
    pruned = full.pruned(
        {k: {h: values[h % len(values)] for h in channels} for k, channels in gone.items()}
    ).model.eval()
    small = compacted(pruned)
    agree(pruned, small, torch.randn(2, 33, 3, dtype=torch.float64))
    widths = [len(block.order) for block in blocks(small)]
    assert [block.filtered for block in blocks(small)] == [3, 0, 5]
    if gains == 0.0:
        assert widths == [3, 0, 5]
    elif gains == 0.7:
        assert widths == [6, 6, 6]


@pytest.mark.parametrize("activation", [nn.Sigmoid(), nn.Softplus(), nn.Tanh()])
def test_what_is_constant_is_counted_in_the_bias(activation):
    full = operators_of(network("s4d"))
    pruned = full.pruned({"layers.1": {2: 0.0, 3: 0.0}}).model.eval()
    pruned.get_submodule("layers.1").activation = activation
    small = compacted(pruned)
    assert [len(block.order) for block in blocks(small)] == [6, 4, 6]
    agree(pruned, small, torch.randn(2, 21, 3, dtype=torch.float64))


def test_reduced_networks():
    model = network("s4d", torch.float32)
    result = ssmred.reduce(model, states=0.4, horizon=64, guarantee="layer", progress=False)
    small = compacted(result.model)
    assert len(blocks(small)) == 3
    agree(result.model, small, torch.randn(3, 30, 3))


@pytest.mark.parametrize("name", ["fashion-mnist-s4d", "listops-s4"])
def test_bundled_networks(name):
    model, data = zoo.load(name)
    small = compacted(model)
    assert len(blocks(small)) == 4
    agree(model, small, data.test.inputs[:8])


@pytest.mark.parametrize(
    ("layer", "options"),
    [
        ("s5", {}),
        ("lru", {}),
        ("s4", {"bidirectional": True}),
        ("s4d", {"mixing": "tanh"}),
        ("s4", {"mixing": "half-glu"}),
    ],
)
def test_other_layers_stay(layer, options):
    model = network(layer, **options)
    small = compacted(model)
    assert not blocks(small)
    agree(model, small, torch.randn(2, 16, 3, dtype=torch.float64))


def test_a_layer_alone_and_sequences_features_last():
    torch.manual_seed(0)
    layer = ssmred.networks.layers.S4D(4, 8, transposed=False).double().eval()
    small = compacted(layer)
    u = torch.randn(2, 12, 4, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(small(u)[0], layer(u)[0], rtol=0, atol=1e-12)
    assert small(u)[1] is None


def test_few_lengths_are_kept():
    small = compacted(network("s4d"))
    with torch.no_grad():
        for length in range(10, 20):
            small(torch.randn(1, length, 3, dtype=torch.float64))
    assert all(len(block._terms) <= 4 for block in blocks(small))


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("prenorm", [True, False])
def test_batch_norms(prenorm, affine):
    """Folded into the block where nothing else sees what they answer, one pass elsewhere."""
    model = network("s4d", norm="batch", prenorm=prenorm)
    for k in range(3):
        model.norms[k] = nn.BatchNorm1d(6, affine=affine).double()
    model.train()
    for _ in range(3):  # running means of what they see
        model(3.0 + 2.0 * torch.randn(8, 20, 3, dtype=torch.float64))
    if affine:
        for norm in model.norms:
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
    pruned = operators_of(model.eval()).pruned({"layers.1": {0: 0.5, 1: 0.0}}).model.eval()
    small = compacted(pruned)
    assert sum(isinstance(m, CompactNorm) for m in small.modules()) == (0 if prenorm else 3)
    assert not any(isinstance(m, nn.BatchNorm1d) for m in small.modules())
    for length in (1, 25):
        agree(pruned, small, torch.randn(2, length, 3, dtype=torch.float64))


def test_norms_that_others_see_or_without_running_means_stay():
    class Two(nn.Module):
        def __init__(self, **options):
            super().__init__()
            self.norm = nn.BatchNorm1d(4, **options).double()
            self.layer = ssmred.networks.layers.S4D(4, 8).double()

        def forward(self, x):
            y = self.norm(x)
            return y + self.layer(y)[0], self.norm(x[..., 0])

    torch.manual_seed(0)
    model = Two()
    model(torch.randn(5, 4, 9, dtype=torch.float64))
    model.eval()
    small, x = compacted(model), torch.randn(5, 4, 9, dtype=torch.float64)
    assert isinstance(small.norm, CompactNorm)
    for one, two in zip(small(x), model(x), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)
    assert type(compacted(Two(track_running_stats=False)).norm) is nn.BatchNorm1d


@pytest.mark.parametrize("layer", ["s4d", "s4"])
def test_stored_networks(layer, tmp_path):
    pruned = operators_of(network(layer, torch.float32)).pruned({"layers.0": {1: 0.5, 2: 0.0}})
    save_network(pruned.model.eval(), tmp_path / "net")
    loaded = load_network(tmp_path / "net")
    small = compacted(loaded)
    assert [len(block.order) for block in blocks(small)] == [5, 6, 6]
    agree(loaded, small, torch.randn(2, 19, 3))


def test_what_only_looks_like_a_layer_stays():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = ssmred.networks.layers.S4D(4, 8, mixing="none").double()
            self.act, self.mix = nn.GELU(), nn.Conv1d(4, 4, 3, padding=1).double()

        def forward(self, x):
            y = self.act(self.layer(x)[0])
            return self.mix(y) + y

    model = Odd().eval()
    small, x = compacted(model), torch.randn(2, 4, 15, dtype=torch.float64)
    assert not blocks(small)
    torch.testing.assert_close(small(x), model(x), rtol=0, atol=1e-12)


def test_networks_that_cannot_be_traced_are_refused():
    class Moody(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = ssmred.networks.layers.S4D(4, 8)

        def forward(self, x):
            return self.layer(x)[0] if x.sum() > 0 else x

    with pytest.raises(UnsupportedOperationError, match="cannot be traced"):
        compacted(Moody())
