"""Bilinear gates in networks: found, exported as systems, trained, reduced, bounded."""

import numpy as np
import pytest
import torch
from foreign_layers import settle
from layer_cases import CAUSAL, TWO_WAYS, WIDTH, made
from test_streaming import assert_streams
from torch import nn

import ssmred
import ssmred.networks.bilinear as exporting
from ssmred.certify import InputSet
from ssmred.errors import OrderError, RequestError, UnsupportedOperationError
from ssmred.networks import (
    SharedSSM,
    export_bilinear,
    export_plain,
    find_layers,
    import_network,
    trace,
)
from ssmred.networks.deep import DeepSSM
from ssmred.networks.layers import LRU, S4D, BilinearGate, Gate, parameter_groups
from ssmred.norms import h2_error, h2_norm
from ssmred.reductors import QuadraticBalancedReductor, QuadraticH2Reductor, with_best_read_out
from ssmred.systems import gated_system

T = 40
EXACT = 1e-12

FAMILIES = ("s4d", "s4", "s5", "lru")

FILTERS = [
    name for name in CAUSAL
    if name.startswith(("s5", "lru")) or "filter" in name or "made for less" in name
]  # fmt: skip
"""Layers that do not mix what they filter."""


def network(seed, layer="lru", *, channels=4, states=12, layers=2, norm="batch", pooling="mean"):
    torch.manual_seed(seed)
    options = {"r_min": 0.3, "r_max": 0.95} if layer == "lru" else None
    model = DeepSSM(
        2, 3, layer=layer, channels=channels, states=states, layers=layers, norm=norm,
        mixing="bilinear", pooling=pooling, layer_options=options,
    )  # fmt: skip
    model.double().train()
    with torch.no_grad():
        model(torch.randn(20, T, 2, dtype=torch.float64))  # running averages of the norms
    return model.eval()


def inputs(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def watched(model, x, fed, answered):
    """Run a model; return what some modules were fed, and what others answered."""
    seen = {}
    handles = [
        module.register_forward_pre_hook(lambda _, args, i=i: seen.__setitem__(("u", i), args[0]))
        for i, module in enumerate(fed)
    ] + [
        module.register_forward_hook(lambda _, __, y, i=i: seen.__setitem__(("y", i), y))
        for i, module in enumerate(answered)
    ]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return [(seen["u", i].mT.numpy(), seen["y", i].numpy()) for i in range(len(fed))]


def assert_same(gate, u, y):
    got = gate.simulate(u)
    assert got.shape == y.shape
    assert np.abs(got - y).max() <= EXACT * np.abs(y).max()


# --- modules of users ----------------------------------------------------------------------------


class Block(nn.Module):
    """A residual block of a user: channels last, a filter, then whatever `gate` does."""

    def __init__(self, layer):
        super().__init__()
        self.ssm = layer
        self.w1, self.w2 = nn.Linear(WIDTH, 3), nn.Linear(WIDTH, 3, bias=False)
        self.both = nn.Linear(WIDTH, 2 * WIDTH)
        self.norm = nn.BatchNorm1d(WIDTH)
        self.last = nn.Identity()

    def forward(self, x):
        y = self.ssm(x.mT)
        return self.last(self.gate(y[0] if isinstance(y, tuple) else y, x))


class TwoLinear(Block):
    def gate(self, y, x):
        y = y.mT
        return self.w1(y) * self.w2(y)


class Halves(Block):
    def gate(self, y, x):
        one, two = self.both(y.mT).chunk(2, dim=-1)
        return one * two


class Heads(Block):
    """Norm, shift, a fixed scale, heads taken apart, their order turned around."""

    def gate(self, y, x):
        y = (2.0 * self.norm(y) - 0.3).mT
        z = self.both(y).reshape(y.shape[0], -1, WIDTH, 2).permute(0, 2, 3, 1)
        return (z[:, :, 0] * (y.mT - z[:, :, 1])).mT


class Itself(Block):
    def gate(self, y, x):
        return (y * self.both(y.mT)[..., WIDTH:].mT).mT


class Squared(Block):
    def gate(self, y, x):
        return (y * y).mT


class OneForAll(Block):
    """One factor for all features, and features averaged."""

    def gate(self, y, x):
        y = y.mT
        return y.mean(dim=-1, keepdim=True) * torch.cat([self.w1(y), y[..., :1]], dim=-1)


GATED = [TwoLinear, Halves, Heads, Itself, Squared, OneForAll]


@pytest.mark.theorem("bilinear-gate")
@pytest.mark.parametrize("form", ["diagonal", "dense"])
@pytest.mark.parametrize("block", GATED)
def test_gates_of_users_are_found(block, form):
    model = settle(block(made(lambda: S4D(WIDTH, 8, mixing="none"), 0, torch.float64)))
    model = model.double().eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    (gate,) = export_bilinear(model, form=form).values()
    for u, y in watched(model, inputs(2, T, WIDTH), [model.ssm], [model.last]):
        assert_same(gate, u, y)
    assert (gate.system.linear.is_real, gate.system.order) == (form == "dense", 8 * WIDTH + WIDTH)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.theorem("bilinear-gate")
@pytest.mark.parametrize("name", FILTERS)
def test_every_family(name):
    model = TwoLinear(made(CAUSAL[name], 1, torch.float64)).double().eval()
    (gate,) = export_bilinear(model).values()
    for u, y in watched(model, inputs(2, T, WIDTH), [model.ssm], [model.last]):
        assert_same(gate, u, y)


@pytest.mark.theorem("bilinear-gate")
@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
@pytest.mark.parametrize("layer", FAMILIES)
def test_every_layer_of_a_network(layer, norm):
    model = network(0, layer, norm=norm)
    gates = export_bilinear(model)
    assert list(gates) == ["layers.0", "layers.1"]
    assert all(gate.offset.any() for gate in gates.values())
    seen = watched(model, inputs(3, T, 2), model.layers, model.gates)
    for gate, (u, y) in zip(gates.values(), seen, strict=True):
        assert_same(gate, u, np.swapaxes(y, -1, -2))


@pytest.mark.theorem("bilinear-gate")
@pytest.mark.parametrize("layer", ["s4d", "lru"])
def test_reduced_and_imported_networks_too(layer):
    model = network(1, layer)
    small = ssmred.reduce(model, states=0.4, horizon=T, guarantee="layer", progress=False).model
    x = inputs(3, T, 2)
    for one in (small, import_network(model).model):
        gates = export_bilinear(one)
        cores = [one.get_submodule(found.path) for found in find_layers(one)]
        for gate, (u, y) in zip(gates.values(), watched(one, x, cores, one.gates), strict=True):
            assert_same(gate, u, np.swapaxes(y, -1, -2))
    full, less = (sum(g.system.order for g in export_bilinear(m).values()) for m in (model, small))
    assert less < full


def test_single_precision_and_tokens():
    torch.manual_seed(2)
    model = DeepSSM(
        11, 2, layer="s5", encoder="embedding", channels=4, states=6, layers=1, mixing="bilinear"
    ).eval()
    (gate,) = export_bilinear(model).values()
    double = model.double()
    u = inputs(1, T, 4)
    with torch.no_grad():
        wanted = double.gates[0](double.layers[0](u.mT)).mT.numpy()
    assert np.abs(gate.simulate(u.numpy()) - wanted).max() <= 1e-6 * np.abs(wanted).max()


# --- what is refused -----------------------------------------------------------------------------


class Activated(Block):
    def gate(self, y, x):
        y = torch.nn.functional.silu(y.mT)
        return self.w1(y) * self.w2(y)


class Sigmoid(Block):
    def gate(self, y, x):
        return torch.nn.functional.glu(self.both(y.mT), dim=-1)


class WithInput(Block):
    def gate(self, y, x):
        return y.mT * x


class WithSkip(Block):
    def gate(self, y, x):
        y = y.mT + x
        return self.w1(y) * self.w2(y)


class Elsewhere(Block):
    def gate(self, y, x):
        return self.w1(y.mT) * self.w2(y.mT) + y.mT[..., :3]


class Cubed(Block):
    def gate(self, y, x):
        y = y.mT
        return (self.w1(y) * self.w1(y)) + (self.w2(y) * self.w2(y))


class Returned(Block):
    def gate(self, y, x):
        return self.w1(y.mT)


class Pooled(Block):
    def gate(self, y, x):
        y = y.mT.mean(dim=1)
        return self.w1(y) * self.w2(y)


class Unknown(Block):
    def gate(self, y, x):
        return y.mT**3


class Shifted(Block):
    def gate(self, y, x):
        return y[..., 1:] * y[..., 1:]


REFUSED = {
    Activated: r"ssm: it goes into 'silu' \(silu\)",
    Sigmoid: r"ssm: it goes into 'glu' \(glu\)",
    WithInput: r"ssm: it goes into 'multiply' \(mul\) with another signal",
    WithSkip: r"ssm: it goes into 'add' \(add\) with another signal",
    Elsewhere: r"ssm: it goes elsewhere too, into 'add' \(add\) with another signal",
    Cubed: "ssm: it goes into 2 products",
    Returned: "ssm: the network returns its outputs without a product",
    Pooled: r"ssm: it goes into 'mean' \(mean",
    Unknown: r"ssm: it goes into an operation without a rule \(pow",
    Shifted: "depends on the sequence length",
}


@pytest.mark.parametrize("block", REFUSED)
def test_other_blocks_are_refused_by_name(block):
    model = block(made(lambda: LRU(WIDTH, 8), 3, torch.float64)).double().eval()
    with pytest.raises(UnsupportedOperationError, match=REFUSED[block]):
        export_bilinear(model)


def test_pieces_of_time_are_refused_where_the_length_is_known_too():
    model = Shifted(made(lambda: LRU(WIDTH, 8), 3, torch.float64)).double().eval()
    with pytest.raises(UnsupportedOperationError, match=r"ssm: it goes into 'slice'"):
        export_bilinear(model, horizon=T)


def test_filters_that_run_backwards_are_refused():
    model = TwoLinear(made(TWO_WAYS["s5"], 3, torch.float64)).double().eval()
    with pytest.raises(UnsupportedOperationError, match=r"2 of 2 layers.*with another signal"):
        export_bilinear(model)


def test_layers_that_have_a_gate_can_be_asked_for():
    model = network(3)
    model.gates[0] = Gate(4, "gelu").double()
    with pytest.raises(
        UnsupportedOperationError, match=r"1 of 2 layers.*layers\.0.*gelu.*layers=\['layers\.1'\]"
    ):
        export_bilinear(model)
    assert list(export_bilinear(model, layers=["layers.1"])) == ["layers.1"]
    with pytest.raises(RequestError, match=r"there are no layers \['layers\.7'\]"):
        export_bilinear(model, layers=["layers.7"])
    with pytest.raises(RequestError, match="unknown form"):
        export_bilinear(model, form="modal")
    with pytest.raises(UnsupportedOperationError, match="no state-space layer"):
        export_bilinear(nn.Linear(2, 2))


def test_delayed_filters_with_a_direct_term_are_refused():
    rng = np.random.default_rng(4)
    parts = rng.normal(size=(4, WIDTH)), rng.normal(size=(WIDTH, 4))
    poles = 0.7 * np.exp(1j * np.arange(1, 5))
    with_direct = SharedSSM(poles, *parts, rng.normal(size=(WIDTH, WIDTH)), delayed=True)
    with pytest.raises(UnsupportedOperationError, match=r"layer ssm: .*standard recurrence"):
        export_bilinear(TwoLinear(with_direct).double().eval())
    model = TwoLinear(SharedSSM(poles, *parts, delayed=True)).double().eval()
    (gate,) = export_bilinear(model).values()
    for u, y in watched(model, inputs(2, T, WIDTH), [model.ssm], [model.last]):
        assert_same(gate, u, y)


def test_a_system_that_answers_otherwise_is_refused(monkeypatch):
    model = network(5)

    def wrong(filtered, W1, W2, b1, b2):
        return gated_system(filtered, W1, W2, b1, b2 + 1e-6)

    monkeypatch.setattr(exporting, "gated_system", wrong)
    with pytest.raises(UnsupportedOperationError, match=r"layers\.0 and its gate do not compute"):
        export_bilinear(model)


def test_sizes_of_gates():
    gate = BilinearGate(4, 2, bias=False).double()
    y = inputs(3, 4, T)
    W1, W2 = gate.mixing.weight[..., 0].split(2)
    with torch.no_grad():
        assert (gate(y) - (W1 @ y) * (W2 @ y)).abs().max() <= EXACT
    assert gate.mixing.bias is None
    for sizes in ((0,), (4, 0), (4.0,), (4, True)):
        with pytest.raises(OrderError, match="channels_"):
            BilinearGate(*sizes)


# --- networks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", FAMILIES)
def test_networks_trace_stream_and_are_stored(layer, tmp_path):
    model = network(6, layer, pooling="last")
    x = inputs(2, 20, 2)
    assert [node.op for node in trace(model)].count("multiply") == 2
    assert_streams(model, x)
    result = ssmred.reduce(model, states=0.5, horizon=T, guarantee="layer", progress=False)
    assert_streams(result.model, x)
    result.save(tmp_path / "small")
    again = ssmred.load(tmp_path / "small")
    with torch.no_grad():
        assert torch.equal(again.model(x), result.model(x))
    plain = export_plain(model, result.model)
    with torch.no_grad():
        wanted, got = result.model(x), plain(x)
    assert (wanted - got).abs().max() <= 1e-8 * wanted.abs().max()
    assert isinstance(plain.gates[0].output_linear, BilinearGate)


def test_it_learns_a_product():
    """Of the last input and the one before: nothing that a linear layer explains."""
    torch.manual_seed(7)
    model = DeepSSM(
        1, 1, layer="lru", channels=8, states=16, layers=1, norm="none", mixing="bilinear",
        pooling=None,
    )  # fmt: skip
    optimiser = torch.optim.AdamW(parameter_groups(model, 1e-2))
    u = torch.randn(64, 30, 1)
    wanted = (u.roll(1, 1) * u)[:, 1:]
    for _ in range(400):
        loss = ((model(u)[:, 1:] - wanted) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.1 * wanted.var().item()


@pytest.mark.theorem("bilinear-gate")
@pytest.mark.parametrize("layer", ["s4d", "s5", "lru"])
@pytest.mark.parametrize("method", ["subset", "balanced"])
def test_networks_are_reduced_with_the_best_gates(layer, method):
    """No other quadratic outputs of the states that are left, and the inputs, are nearer."""
    model = network(8, layer, layers=1)
    result = ssmred.reduce(
        model, states=0.5, horizon=T, method=method, guarantee="layer", progress=False
    )
    (full,) = export_bilinear(model, form="dense").values()
    (small,) = export_bilinear(result.model, form="dense").values()
    np.testing.assert_array_equal(full.offset, small.offset)
    best = with_best_read_out(full.system, small.system.linear, horizon=T)
    error, least = (h2_error(full.system, s, horizon=T) for s in (small.system, best))
    assert least > 1e-6 * h2_norm(full.system, horizon=T)
    assert abs(error - least) <= 1e-6 * least


@pytest.mark.parametrize("reductor", [QuadraticBalancedReductor(), QuadraticH2Reductor()])
def test_the_gate_is_reduced_as_one_system(reductor):
    model = network(9, layers=1)
    (gate,) = export_bilinear(model, form="dense").values()
    reduction = reductor.reduce(gate.system, order=10)
    u = inputs(1, T, 4).numpy()
    one, two = gate.system.simulate(u), reduction.system.simulate(u)
    error, energy = float(reduction.bound.value), np.linalg.norm(u)
    assert 0 < error < 0.5 * h2_norm(gate.system)
    assert np.linalg.norm(one - two, axis=-1).max() <= error * energy * np.sqrt(1 + energy**2)


# --- bounds --------------------------------------------------------------------------------------


def corners(rng, count, low=-1.0, high=1.0):
    """Return noise, corners, resonant squares and constants within a box."""
    kinds = [
        rng.uniform(low, high, (count, T, 2)),
        rng.choice([low, high], (count, T, 2)),
        np.where(
            np.sin(rng.uniform(0, 3.1, (count, 1, 2)) * np.arange(T)[None, :, None]) < 0, low, high
        ),
        np.full((1, T, 2), high),
    ]
    return torch.from_numpy(np.concatenate(kinds))


def check_bound(seed):
    rng = np.random.default_rng(seed)
    layers, pooling = int(rng.integers(1, 4)), ["mean", "last", None][int(rng.integers(3))]
    model = network(
        seed, str(rng.choice(["s4d", "s5", "lru"])), layers=layers, pooling=pooling,
        norm=["batch", "none"][int(rng.integers(2))],
    )  # fmt: skip
    result = ssmred.reduce(
        model, states=0.5, horizon=T, inputs=InputSet.box(-1.0, 1.0), guarantee="worst-case",
        method=str(rng.choice(["subset", "balanced"])), progress=False,
    )  # fmt: skip
    u = corners(rng, 20)
    with torch.no_grad():
        gaps = (model(u) - result.model(u)).flatten(1).norm(dim=-1)
    assert 0 < float(gaps.max()) <= result.certificate.bound * result.certificate.scale


@pytest.mark.theorem("bilinear-gate")
@pytest.mark.parametrize("seed", range(12))
def test_worst_case_bounds_hold(seed):
    check_bound(seed)


@pytest.mark.slow
@pytest.mark.theorem("bilinear-gate")
@pytest.mark.parametrize("start", range(12, 112, 25))
def test_worst_case_bounds_of_a_hundred_networks_hold(start):
    for seed in range(start, start + 25):
        check_bound(seed)


def test_guarantees_from_data():
    model = network(10, layers=1)
    x = inputs(600, T, 2, seed=1).clamp(-2, 2)
    result = ssmred.reduce(
        model, states=0.7, data=x, guarantee="worst-case", inputs="data", progress=False
    )
    ssmred.verify(result.certificate, model, result.model, data=x)
    low, high = (np.asarray(result.certificate.inputs[name]) for name in ("low", "high"))
    with torch.no_grad():
        for u in (x, corners(np.random.default_rng(2), 20, low.min(), high.max())):
            gap = (model(u) - result.model(u)).flatten(1).norm(dim=-1).max()
            assert 0 < float(gap) <= result.certificate.bound * result.certificate.scale
    result = ssmred.reduce(model, states=0.5, data=x, guarantee="statistical", progress=False)
    fresh = inputs(1000, T, 2, seed=3).clamp(-2, 2)
    with torch.no_grad():
        gaps = (model(fresh) - result.model(fresh)).flatten(1).norm(dim=-1)
    bound = result.certificate.bound * result.certificate.scale
    coverage = result.certificate.statistics["coverage"]
    assert float((gaps <= bound).double().mean()) >= coverage
