"""Networks for pairs run every layer once, and see each sequence alone."""

import pytest
import torch
from torch import nn

from ssmred.errors import OrderError, ShapeError
from ssmred.networks.deep import DeepSSM
from ssmred.tasks import TwoStream

ROUNDING = 1e-5
"""Float32 sums in another order, of numbers about one."""


def network(**options):
    torch.manual_seed(0)
    trunk = DeepSSM(
        20, 6, encoder="embedding", channels=8, states=8, layers=2, norm="layer", **options
    )
    return TwoStream(trunk, 6, 3).eval()


def pairs(count=5):
    return torch.randint(0, 20, (count, 2, 30), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_head_by_hand():
    model, x = network(), pairs()
    u, v = model.trunk(x[:, 0]), model.trunk(x[:, 1])
    first, second = model.head[0], model.head[2]
    hidden = torch.cat([u, v, u * v, u - v], 1) @ first.weight.T + first.bias
    wanted = hidden.clamp(min=0) @ second.weight.T + second.bias
    assert (model(x) - wanted).abs().max() <= ROUNDING * wanted.abs().max()


def test_layers_run_once():
    model, calls = network(), []
    for layer in model.trunk.layers:
        layer.register_forward_hook(lambda module, *_: calls.append(module))
    model(pairs())
    assert calls == list(model.trunk.layers)


def test_vectors_as_steps():
    trunk = nn.Sequential(nn.Flatten(), nn.Linear(30, 4))
    assert TwoStream(trunk, 4, 2, hidden=7)(torch.randn(5, 2, 10, 3)).shape == (5, 2)


def test_gradients_reach_both_streams():
    trunk = nn.Sequential(nn.Flatten(), nn.Linear(10, 4))
    x = torch.randn(3, 2, 10, 1, requires_grad=True)
    TwoStream(trunk, 4, 2)(x).sum().backward()
    assert bool((x.grad.abs().sum(dim=(2, 3)) > 0).all())


def test_no_pairs():
    with pytest.raises(ShapeError, match="no pairs"):
        network()(torch.zeros(4, 30, dtype=torch.int64))
    with pytest.raises(ShapeError, match="no pairs"):
        network()(torch.zeros(4, 3, 30, dtype=torch.int64))


def test_trunk_that_gives_no_features():
    model = network(pooling=None)
    with pytest.raises(ShapeError, match=r"no features.*\(10, 6\).*\(10, 30, 6\)"):
        model(pairs())


def test_sizes():
    with pytest.raises(OrderError, match="features"):
        TwoStream(nn.Identity(), 0, 2)
    with pytest.raises(OrderError, match="hidden"):
        TwoStream(nn.Identity(), 4, 2, hidden=0)
