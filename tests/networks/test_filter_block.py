"""The drop-in block: two directions, copies, layouts, gates; traced, stored, streamed, bounded."""

import json

import numpy as np
import pytest
import torch
from own_layers import ResonatorsAdapter, Ring, RingAdapter
from torch import nn
from torch.nn import functional as F

import ssmred
from ssmred.certify import (
    Certificate,
    InputSet,
    layer_bounds,
    layer_records,
    network_bound,
    output_errors,
    relative_bound,
)
from ssmred.certify.evaluate import evaluate
from ssmred.certify.guarantees import ASSUMPTIONS, THEOREMS
from ssmred.errors import CertificateError, UnsupportedOperationError
from ssmred.networks import (
    DenseSSM,
    FilterBlock,
    ReducedSSM,
    SharedSSM,
    StreamingNetwork,
    find_layers,
    import_network,
    load_network,
    load_weights_into,
    register_adapter,
    save_network,
    trace,
    weights_sha256,
)
from ssmred.networks.adapters import _ADAPTERS
from ssmred.networks.adapters.drop_in import cast_module
from ssmred.networks.reversal import OneStepDelay

# float64 networks of a few layers, outputs of size one to ten
ROUNDING = 1e-11


@pytest.fixture(autouse=True)
def own_families():
    before = list(_ADAPTERS)
    register_adapter(ResonatorsAdapter())
    register_adapter(RingAdapter())
    yield
    _ADAPTERS[:] = before


def exact(model):
    """Cast a network to float64 and complex128; torch's own .double() leaves complex numbers."""
    return cast_module(model, torch.float64).eval()


def numbers(rng, *shape):
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def channels(seed, H, n=3):
    rng = np.random.default_rng(seed)
    poles = rng.uniform(0.3, 0.95, H * n) * np.exp(1j * rng.uniform(-3, 3, H * n))
    return ReducedSSM([n] * H, poles, numbers(rng, H * n) / n, rng.standard_normal(H))


def shared(seed, m, p, n=4):
    rng = np.random.default_rng(seed)
    poles = rng.uniform(0.3, 0.95, n) * np.exp(1j * rng.uniform(-3, 3, n))
    return SharedSSM(poles, numbers(rng, n, m), numbers(rng, p, n) / n, rng.standard_normal((p, m)))


def dense(seed, H, n=3):
    rng = np.random.default_rng(seed)
    A = 0.4 * rng.standard_normal((H, n, n))
    return DenseSSM(A, rng.standard_normal((H, n)), rng.standard_normal((H, n)), np.ones(H))


def signal(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def by_sums(forward, backward, u, first):
    """``sum_{s <= t} k_{t-s} u_s + sum_{s >= t + first} k~_{s-t-first} u_s``, term by term."""
    T = u.shape[-1]
    y = torch.zeros(*u.shape[:-2], len(forward), T, dtype=u.dtype)
    for t in range(T):
        for s in range(T):
            lag = t - s if s <= t else None
            if lag is not None:
                y[..., t] += torch.einsum("pm,bm->bp", forward[..., lag], u[..., s])
            if s >= t + first:
                y[..., t] += torch.einsum("pm,bm->bp", backward[..., s - t - first], u[..., s])
    return y


@pytest.mark.parametrize("delayed", [True, False])
@pytest.mark.parametrize("kind", ["channels", "shared", "dense"])
def test_both_directions(kind, delayed):
    make = {
        "channels": lambda seed: channels(seed, 3),
        "shared": lambda seed: shared(seed, 3, 2),
        "dense": lambda seed: dense(seed, 3),
    }[kind]
    core, backward = make(0), make(1)
    block = FilterBlock(core, backward=backward, delayed=delayed, paired=False).eval()
    u = signal(2, 3, 9)
    with torch.no_grad():
        kernels = [c.kernel(9) for c in (core, backward)]
        if kind != "shared":
            kernels = [torch.diag_embed(k.T).permute(1, 2, 0) for k in kernels]
        wanted = by_sums(*kernels, u, int(delayed))
        assert (block(u) - wanted).abs().max() <= ROUNDING
        last = FilterBlock(core, backward=backward, delayed=delayed, transposed=False).eval()
        y, nothing = last(u.mT, state=None)
        assert nothing is None
        assert (y.mT - wanted).abs().max() <= ROUNDING


@pytest.mark.parametrize("interleaved", [True, False])
def test_copies_of_the_channels(interleaved):
    core = channels(2, 6)
    block = FilterBlock(core, copies=2, interleaved=interleaved, paired=False).eval()
    u = signal(2, 3, 8)
    copied = u.repeat_interleave(2, dim=1) if interleaved else u.repeat(1, 2, 1)
    with torch.no_grad():
        assert torch.equal(block(u), core(copied))
    assert block.width == 3


@pytest.mark.parametrize("last", [True, False])
def test_gates_and_what_comes_before(last):
    torch.manual_seed(0)
    linear = nn.Linear if last else (lambda a, b: nn.Conv1d(a, b, 1))
    before, gate, after, mix = linear(4, 3), linear(4, 5), linear(3, 5), linear(5, 4)
    core = channels(3, 3)
    block = FilterBlock(
        core, nn.GELU(), nn.Identity(), mix, before=before, gate=gate, after=after,
        features_last=last, paired=False,
    ).double().eval()  # fmt: skip
    u = signal(2, 4, 8)

    def on(module, x):
        return module(x.mT).mT if last else module(x)

    with torch.no_grad():
        y = F.gelu(core(on(before, u)))
        assert (block(u) - on(mix, on(after, y) * on(gate, u))).abs().max() <= ROUNDING
    assert block.width is None


@pytest.mark.parametrize(
    "options",
    [{"rate": 2.0}, {"state": torch.zeros(2)}, {"lengths": torch.tensor([3, 4])}, {"rate": "2"}],
)
def test_arguments_that_would_change_the_output_are_refused(options):
    block = FilterBlock(channels(0, 3))
    with pytest.raises(UnsupportedOperationError, match=f"{next(iter(options))} would change"):
        block(signal(2, 3, 8), **options)
    with pytest.raises(UnsupportedOperationError, match="a further argument would change"):
        block(signal(2, 3, 8), next(iter(options.values())))
    at_rest = dict.fromkeys(options) | ({"rate": 1.0} if "rate" in options else {})
    with torch.no_grad():
        block(signal(2, 3, 8), **at_rest)
        FilterBlock(channels(0, 3), heeds_options=False)(signal(2, 3, 8), **options)  # as S4D does


class Network(nn.Module):
    """Encoder, a layer or block, a residual, mean, decoder."""

    def __init__(self, layer, width=3, inside=3):
        super().__init__()
        self.encoder = nn.Linear(2, width)
        self.layer = layer
        self.decoder = nn.Linear(inside, 2)

    def forward(self, x):
        y = self.layer(self.encoder(x))
        y = y[0] if isinstance(y, tuple) else y
        return self.decoder(y.mean(1))


def networks():
    torch.manual_seed(0)
    options = {"transposed": False}
    yield "shared", Network(FilterBlock(shared(0, 3, 3), nn.GELU(), **options))
    yield "wide", Network(FilterBlock(shared(0, 3, 5), nn.GELU(), **options), inside=5)
    yield "both", Network(FilterBlock(shared(0, 3, 3), backward=shared(1, 3, 3), **options))
    late = {"backward": channels(1, 3), "delayed": True}
    yield "late", Network(FilterBlock(channels(0, 3), nn.GELU(), **late, **options))
    yield "dense", Network(FilterBlock(dense(0, 3), nn.GELU(), **options))
    copies = FilterBlock(channels(0, 6), nn.GELU(), copies=2, interleaved=True, **options)
    yield "copies", Network(copies, inside=6)
    gated = FilterBlock(
        channels(0, 3), nn.GELU(), None, nn.Linear(3, 3), features_last=True,
        gate=nn.Sequential(nn.Linear(3, 3), nn.SiLU()), **options,
    )  # fmt: skip
    yield "gated", Network(gated)
    standard = shared(2, 3, 3)
    standard.delayed = True
    yield "standard", Network(FilterBlock(standard, nn.GELU(), **options))


NETWORKS = {name: model.double().eval() for name, model in networks()}
BOTH_WAYS = ("both", "late")


@pytest.mark.parametrize("name", NETWORKS)
def test_traces_compute_what_the_network_does(name):
    model = NETWORKS[name]
    graph = trace(model, horizon=12)
    assert ("reverse" in [node.op for node in graph]) == (name in BOTH_WAYS)
    x = signal(1, 12, 2)
    with torch.no_grad():
        assert np.abs(evaluate(graph, x[0].numpy()) - model(x)[0].numpy()).max() <= ROUNDING


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_stored_and_loaded(name, tmp_path):
    model = NETWORKS[name]
    save_network(model, tmp_path)
    loaded = load_network(tmp_path)
    x = signal(2, 12, 2)
    with torch.no_grad():
        assert torch.equal(loaded(x), model(x))
        assert torch.equal(load_weights_into(model, tmp_path)(x), model(x))
    assert weights_sha256(loaded) == weights_sha256(model)
    assert [f.name for f in find_layers(loaded)] == [f.name for f in find_layers(model)]
    record = json.loads((tmp_path / "network.json").read_text())
    assert record["declared"] is not None


@pytest.mark.parametrize("name", NETWORKS)
def test_streaming_step_by_step_or_a_reason(name):
    model = NETWORKS[name]
    if name in BOTH_WAYS:
        with pytest.raises(UnsupportedOperationError, match="reads the sequence backwards"):
            StreamingNetwork(model)
        return
    stream = StreamingNetwork(model)
    x = signal(2, 15, 2)
    with torch.no_grad():
        for k in range(15):
            answer = stream.step(x[:, k])
        assert (answer - model(x)).abs().max() <= ROUNDING


def test_a_delay_in_a_causal_network_streams():
    class Late(nn.Module):
        def __init__(self):
            super().__init__()
            self.delay, self.core, self.out = OneStepDelay(), channels(0, 2), nn.Linear(2, 2)

        def forward(self, x):
            x = x.transpose(1, 2)
            return self.out((self.core(self.delay(x)) + self.delay(x)).mean(-1))

    model = Late().double().eval()
    stream = StreamingNetwork(model)
    x = signal(3, 11, 2)
    with torch.no_grad():
        for k in range(11):
            answer = stream.step(x[:, k])
        assert (answer - model(x)).abs().max() <= ROUNDING
        stream.reset(3)
        assert (stream.step(x[:, 0]) - model(x[:, :1])).abs().max() <= ROUNDING


def smaller(model):
    """Return the imported network and one that keeps half of the states of every filter."""
    network = import_network(model)
    cuts = {}
    for layer in network.layers:
        orders = np.maximum(np.asarray(network.core(layer.name).orders) // 2, 1)
        cuts[layer.name] = (layer.system, orders)
    return network, network.with_systems(cuts).eval()


def certificate(guarantee, model, reduced, horizon, inputs):
    common = {
        "guarantee": guarantee,
        "tol": None,
        "horizon": horizon,
        "metric": "h2",
        "original_sha256": weights_sha256(model),
        "reduced_sha256": weights_sha256(reduced),
        "ssmred_version": ssmred.__version__,
        "created": "2026-01-01",
        "scale_source": "one",
        "theorems": THEOREMS[guarantee],
        "assumptions": ASSUMPTIONS[guarantee],
    }
    first, second = (import_network(m) for m in (model, reduced))
    if guarantee == "layer":
        records = layer_records(layer_bounds(first.systems, second.systems, horizon))
        worst = max(record.relative_error for record in records)
        return Certificate(bound=worst, scale=1.0, layers=records, **common)
    graphs = [trace(m, horizon=horizon, inputs=inputs) for m in (model, reduced)]
    chain = network_bound(*graphs, inputs, horizon)
    return Certificate(
        bound=relative_bound(chain.bound, 1.0),
        scale=1.0,
        layers=layer_records(chain),
        inputs=inputs.to_json(),
        scale_sampling={"data_sha256": "0" * 64},
        **common,
    )


@pytest.mark.parametrize("guarantee", ["worst-case", "layer"])
@pytest.mark.parametrize("name", NETWORKS)
def test_certificates_are_recomputed(name, guarantee):
    model = NETWORKS[name]
    _, reduced = smaller(model)
    inputs = InputSet.box(-1.0, 1.0)
    made = certificate(guarantee, model, reduced, 16, inputs)
    report = ssmred.verify(made, model, reduced)
    assert report.passed
    names = {check.name for check in report.checks}
    assert {"bound", "layer: states_kept", "layer: error"} <= names
    if name in BOTH_WAYS:
        assert "layer.backward: error" in names
    with pytest.raises(CertificateError):
        ssmred.verify(made, model, model)
    if guarantee == "worst-case":
        x = 2 * torch.rand(400, 16, 2, dtype=torch.float64) - 1
        x[:200] = torch.sign(x[:200])
        with torch.no_grad():
            errors = output_errors(model(x).numpy(), reduced(x).numpy())
        assert errors.max() <= made.bound
        assert errors.max() > 0.0


def test_layers_that_run_both_ways_are_imported():
    for delayed in (True, False):
        model = exact(Network(Ring(delayed=delayed)))
        network = import_network(model)
        assert [(x.name, x.core, x.states) for x in network.layers] == [
            ("layer", "layer.core", 8),
            ("layer.backward", "layer.backward", 8),
        ]
        assert type(network.core("layer.backward")) is SharedSSM
        x = signal(2, 20, 2)
        with torch.no_grad():
            assert (model(x) - network.model(x)).abs().max() <= ROUNDING
        again = import_network(network.model)
        assert [(x.name, x.core) for x in again.layers] == [
            (x.name, x.core) for x in network.layers
        ]
        _, reduced = smaller(model)
        assert [x.states for x in import_network(reduced).layers] == [4, 4]
    alone = import_network(exact(Ring()))
    assert [layer.name for layer in alone.layers] == ["model", "model.backward"]
    again = import_network(alone.model)
    assert [layer.name for layer in again.layers] == ["model", "model.backward"]


def test_dense_layers_may_become_diagonal(tmp_path):
    model = NETWORKS["dense"]
    network = import_network(model)
    reduced = network.with_systems({"layer": channels(0, 3)}).eval()
    assert type(network.core("layer", reduced)) is ReducedSSM
    save_network(reduced, tmp_path)
    loaded = load_weights_into(model, tmp_path)
    x = signal(2, 9, 2)
    with torch.no_grad():
        assert torch.equal(loaded(x), reduced(x))
    bound = network_bound(trace(model), trace(reduced), InputSet.box(-1.0, 1.0), 12).bound
    x = torch.sign(signal(300, 12, 2))
    with torch.no_grad():
        assert output_errors(model(x).numpy(), reduced(x).numpy()).max() <= bound
