"""DeepSSM: every option runs, traces, streams and trains."""

import copy
import itertools
import math

import pytest
import torch
from foreign_layers import settle
from test_streaming import assert_streams
from torch.nn import functional

from ssmred.errors import RequestError, UnsupportedOperationError
from ssmred.networks import StreamingNetwork, find_layers, import_network, trace
from ssmred.networks.capture import capture
from ssmred.networks.deep import FAMILIES, DeepSSM
from ssmred.networks.layers import Gate, parameter_groups
from ssmred.networks.layers.layer import StateSpaceLayer

MIXINGS = ("glu", "half-glu", "bilinear", "linear", "gelu", "none")
SMALL = {"channels": 6, "states": 8, "layers": 2}
EXACT = 1e-12

LEARNT = 0.2
"""Share of the first loss that is left after `STEPS` steps; log 3 at first, by chance."""
STEPS = 60


def inputs(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("layer", FAMILIES)
@pytest.mark.parametrize("pooling", ["mean", "last", "max", None])
def test_outputs_and_graphs(layer, pooling):
    """Captured with its layers as leaves, a network computes what it computes."""
    torch.manual_seed(0)
    for mixing, norm, prenorm in itertools.product(MIXINGS, ("batch", "layer", "none"), (0, 1)):
        options = {"mixing": mixing, "norm": norm, "prenorm": bool(prenorm), "pooling": pooling}
        model = DeepSSM(3, 5, layer=layer, dropout=0.2, **SMALL, **options).double()
        x = inputs(4, 12, 3)
        model.train()(x)
        model.eval()
        with torch.no_grad():
            y = model(x)
            graph = capture(model, is_leaf=lambda m: isinstance(m, StateSpaceLayer))
            assert torch.equal(graph(x), y)
        assert y.shape == ((4, 12, 5) if pooling is None else (4, 5))
        calls = [str(n.target) for n in graph.graph.nodes if n.op == "call_module"]
        assert [c for c in calls if c in ("layers.0", "layers.1")] == ["layers.0", "layers.1"]


@torch.no_grad()
def test_blocks_are_what_they_say():
    """Written out for one block each."""
    torch.manual_seed(1)
    x = inputs(2, 9, 3)
    for prenorm, mixing in itertools.product((True, False), MIXINGS):
        model = DeepSSM(
            3, 5, layer="lru", channels=4, states=4, layers=1, norm="layer",
            prenorm=prenorm, mixing=mixing, pooling="last",
        ).double().eval()  # fmt: skip
        z = model.encoder(x)
        y = model.layers[0]((model.norms[0](z) if prenorm else z).mT).mT
        if mixing != "none":
            y = y if mixing == "bilinear" else functional.gelu(y)
            weights = list(model.gates[0].parameters())
            mixed = functional.linear(y, weights[0][..., 0], weights[1]) if weights else y
            if mixing == "glu":
                y = mixed[..., :4] * torch.sigmoid(mixed[..., 4:])
            elif mixing == "bilinear":
                y = mixed[..., :4] * mixed[..., 4:]
            else:
                y = y * torch.sigmoid(mixed) if mixing == "half-glu" else mixed
        z = z + y
        z = z if prenorm else model.norms[0](z)
        assert float((model.decoder(z[:, -1]) - model(x)).abs().max()) <= EXACT


@pytest.mark.parametrize("prenorm", [True, False])
@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_s4d_networks_trace_and_stream(norm, prenorm):
    for mixing, pooling in (("glu", "mean"), ("half-glu", "last"), ("bilinear", "mean"),
                            ("linear", "max"), ("gelu", "mean"), ("none", "last")):  # fmt: skip
        torch.manual_seed(2)
        model = DeepSSM(
            3, 5, norm=norm, prenorm=prenorm, mixing=mixing, pooling=pooling, dropout=0.1, **SMALL
        )
        model = settle(model, torch.float64)
        assert [found.name for found in find_layers(model)] == ["layers.0", "layers.1"]
        x = inputs(2, 20, 3)
        with torch.no_grad():
            imported = import_network(model).model(x)
            assert float((imported - model(x)).abs().max()) <= EXACT * float(imported.abs().max())
        assert [n.name for n in trace(model).nodes if n.op == "ssm"] == ["layers.0", "layers.1"]
        assert_streams(model, x)


def test_tokens_and_sequences_stream():
    torch.manual_seed(3)
    model = settle(DeepSSM(11, 4, encoder="embedding", norm="layer", **SMALL), torch.float64)
    tokens = torch.randint(0, 11, (3, 17), generator=torch.Generator().manual_seed(1))
    assert_streams(model, tokens)
    model = settle(DeepSSM(3, 4, pooling=None, **SMALL), torch.float64)
    stream, x = StreamingNetwork(model), inputs(2, 12, 3)
    answers = torch.stack([stream.step(x[:, k]) for k in range(12)], dim=1)
    with torch.no_grad():
        assert float((answers - model(x)).abs().max()) <= 1e-10


@pytest.mark.parametrize("layer", ["s4", "s5"])
def test_bidirectional_networks_see_what_is_to_come(layer):
    torch.manual_seed(4)
    one, two = (
        DeepSSM(3, 5, layer=layer, pooling=None, bidirectional=b, **SMALL).double().eval()
        for b in (False, True)
    )
    x = inputs(1, 12, 3)
    changed = x.clone()
    changed[:, 8] += 1.0
    with torch.no_grad():
        assert float((one(x) - one(changed))[:, :8].abs().max()) <= EXACT
        assert float((two(x) - two(changed))[:, :8].abs().max()) > 1e-6


@pytest.mark.parametrize("layer", FAMILIES)
def test_networks_learn(layer):
    """Which of three pulses came first, by the end of a noisy sequence."""
    torch.manual_seed(5)
    options = {"s4": {"length": 32}, "lru": {"r_min": 0.9}}.get(layer)
    model = DeepSSM(
        1, 3, layer=layer, channels=16, states=16, layers=2, norm="layer", pooling="last",
        layer_options=options,
    )  # fmt: skip
    optimiser = torch.optim.AdamW(parameter_groups(model, lr=1e-2))
    losses = []
    for _ in range(STEPS):
        target = torch.randint(0, 3, (32,))
        x = 0.1 * torch.randn(32, 32, 1)
        x[:, :4, 0] += target[:, None] - 1.0
        loss = functional.cross_entropy(model(x), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
    assert losses[0] > 0.5 * math.log(3)
    assert sum(losses[-5:]) / 5 <= LEARNT * losses[0]


def test_copies_do_not_share_weights():
    torch.manual_seed(6)
    model = DeepSSM(3, 5, **SMALL).eval()
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.layers[0].kernel.log_dt.add_(1.0)
    assert not torch.equal(model.layers[0].kernel.log_dt, other.layers[0].kernel.log_dt)


def test_refusals():
    for options in (
        {"layer": "s6"},
        {"mixing": "swiglu"},
        {"norm": "rms"},
        {"pooling": "median"},
        {"encoder": "conv"},
    ):
        with pytest.raises(RequestError, match=str(next(iter(options.values())))):
            DeepSSM(3, 5, **SMALL, **options)
    for layer in ("s4d", "lru"):
        with pytest.raises(RequestError, match="cannot be bidirectional"):
            DeepSSM(3, 5, layer=layer, bidirectional=True, **SMALL)
    with pytest.raises(RequestError, match="gate"):
        Gate(3, "sigmoid")
    with pytest.raises(UnsupportedOperationError, match="no state-space layer"):
        find_layers(torch.nn.Linear(2, 2))
