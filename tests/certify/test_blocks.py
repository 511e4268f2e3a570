"""Blocks of a traced network and their Lipschitz constants."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from ssmred.certify import InputSet, network_blocks, signal_energies
from ssmred.errors import UnsupportedOperationError
from ssmred.networks import import_network, trace
from ssmred.networks.deep import DeepLQO, DeepSSM
from ssmred.networks.layers import LQOLayer

pytestmark = pytest.mark.theorem("quadratic-chain")
T = 12


def made(**options):
    torch.manual_seed(0)
    model = DeepSSM(
        2, 3, layer="lqo", channels=4, states=8, layers=2,
        **{"mixing": "tanh", "layer_options": {"r_max": 0.9}} | options,
    ).double()  # fmt: skip
    model.train()
    with torch.no_grad():
        model(3 * torch.randn(30, T, 2, dtype=torch.float64))
    return model.eval()


def graph_of(model):
    return trace(import_network(model).model, horizon=T, inputs=InputSet.box(-1, 1))


@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
@pytest.mark.parametrize("pooling", ["mean", "last", "max", None])
def test_constants_hold_and_are_met_where_they_can_be(norm, pooling):
    model = made(norm=norm, pooling=pooling)
    blocks = network_blocks(graph_of(model), T)
    assert [one.name for one in blocks.blocks] == ["layers.0", "layers.1"]
    rng = np.random.default_rng(1)
    for k, one in enumerate(blocks.blocks):
        assert (one.after, one.skip) == (pytest.approx(1.0), pytest.approx(1.0))

        @torch.no_grad()
        def before(z, k=k):
            return model._normalised(model.norms[k], z)

        seen = 0.0
        for _ in range(200):
            z = torch.randn(1, 4, T, dtype=torch.float64) * 10 ** float(rng.uniform(-3, 1))
            other = z + z.abs().max() * torch.randn_like(z) * 10 ** float(rng.uniform(-2, 0))
            ratio = float((before(other) - before(z)).norm() / (other - z).norm())
            assert ratio <= one.before
            seen = max(seen, ratio)
        # one feature alone meets the constant of a batch norm
        if norm == "batch":
            norms = model.norms[k]
            gains = norms.weight.detach() / (norms.running_var + 1e-5).sqrt()
            assert one.before == pytest.approx(float(gains.abs().max()), rel=1e-9)
        assert seen > (0.05 if norm == "layer" else 0.5) * one.before
    z, d = (torch.randn(200, 4, T, dtype=torch.float64) for _ in range(2))

    @torch.no_grad()
    def end(z):
        if pooling is None:
            return model.decoder(z.transpose(1, 2))
        return model.decoder(model._pooled(z))

    gaps = (end(z + d) - end(z)).flatten(1).norm(dim=1)
    if pooling is None:  # at any one time
        gaps = (end(z + d) - end(z)).norm(dim=2).max(dim=1).values
    assert float((gaps / d.flatten(1).norm(dim=1)).max()) <= blocks.last


def test_norms_behind_the_sum():
    blocks = network_blocks(graph_of(made(norm="layer", prenorm=False)), T).blocks
    assert blocks[0].before == pytest.approx(1.0)
    assert blocks[0].skip == pytest.approx(1.0)
    steep = pytest.approx(1 / math.sqrt(1e-5))  # of a LayerNorm at 0; the next block begins with it
    assert (blocks[1].before, blocks[1].skip) == (steep, steep)


def test_gates_have_no_constant():
    blocks = network_blocks(graph_of(made(mixing="glu")), T).blocks
    assert blocks[0].after == math.inf
    assert blocks[0].before < math.inf


def test_energies_bound_what_layers_see():
    model = made(norm="batch")
    graph = graph_of(model)
    energies = signal_energies(graph, InputSet.box(-1, 1), T)
    u = torch.rand(50, T, 2, dtype=torch.float64).mul(2).sub(1)
    with torch.no_grad():
        z = model.encoder(u).transpose(1, 2)
        for k, name in enumerate(energies):
            v = model.norms[k](z)
            assert float(v.flatten(1).norm(dim=1).max()) <= energies[name] < math.inf
            z = z + torch.tanh(model.layers[k](v))


class Beside(nn.Module):
    """Two layers beside each other."""

    def __init__(self):
        super().__init__()
        self.one, self.two = LQOLayer(2, 4), LQOLayer(2, 4)

    def forward(self, x):
        x = x.transpose(1, 2)
        return (self.one(x) + self.two(x)).transpose(1, 2)


def test_what_is_no_chain_is_refused():
    with pytest.raises(UnsupportedOperationError, match="stands beside another one"):
        network_blocks(graph_of(Beside().double()), T)
    plain = DeepSSM(2, 3, layer="s5", channels=4, states=8, mixing="gelu", norm="none", layers=1)
    graph = graph_of(plain.double().eval())
    assert network_blocks(graph, T).blocks[0].after > 1.0  # no squares: a layer all the same
    assert DeepLQO(2, 2, channels=2, states=4).layers[0].rank == 1
