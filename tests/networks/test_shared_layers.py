"""One battery for S5 and LRU layers of every kind: read, replaced, reduced, written, stored."""

import copy

import numpy as np
import pytest
import torch
from shared_layers import KINDS, MODES, WIDTH, Kind, Residual, forward, gated_block, impulses
from torch import nn

import ssmred
from ssmred.errors import CheckpointError, OrderError, UnsupportedOperationError
from ssmred.networks import export_plain, find_layers, load_network, save_network
from ssmred.networks.adapters.shared_checks import respond
from ssmred.networks.adapters.shared_probing import in_double
from ssmred.networks.cores import full_core
from ssmred.reductors import BalancedReductor, SubsetReductor

LENGTH, AT = 20, 3
ACCURACY = {False: 1e-6, True: 1e-12}
"""Of impulse responses, relative, in float32 modules and in double."""

INSTANCES = 100
NARROW = {"LRU-pytorch, 5 outputs", "neural-ssm, start", "lru-reduction", "lru-reduction, doubled"}
"""Kinds with another number of outputs than inputs, which no residual block has."""

WRITTEN = 3e-7
"""Of a response after its parameters were rounded to float32."""


@pytest.fixture(params=KINDS)
def kind(request) -> Kind:
    torch.manual_seed(3)
    return KINDS[request.param]


def answered(systems) -> np.ndarray:
    """Return what systems answer to an impulse in each input at step `AT`."""
    u = np.zeros((WIDTH, LENGTH, WIDTH))
    u[np.arange(WIDTH), AT, np.arange(WIDTH)] = 1.0
    return respond(systems, u)


def distance(one: np.ndarray, two: np.ndarray) -> float:
    return float(np.linalg.norm(one - two) / np.linalg.norm(one))


def test_hundred_instances(kind):
    for seed in range(INSTANCES):
        torch.manual_seed(seed)
        module = kind.make(MODES).eval()
        assert kind.adapter.recognises(module)
        got = answered(kind.adapter.to_systems(module))
        for double, limit in ACCURACY.items():
            assert distance(impulses(kind, module, AT, LENGTH, double=double), got) <= limit


def test_modules_in_double(kind):
    module = in_double(kind.make(MODES))
    with torch.no_grad():
        for tensor in module.parameters():
            tensor.mul_(1.0 + 1e-9)  # no float32 number any more
    systems = kind.adapter.to_systems(module)
    assert distance(impulses(kind, module, AT, LENGTH), answered(systems)) <= ACCURACY[True]
    plain = kind.adapter.from_systems(module, systems, states=2 * MODES + 4)
    assert {t.dtype for t in plain.parameters()} == {t.dtype for t in module.parameters()}
    # s5-pytorch rounds B to single precision whenever it runs
    limit = (
        WRITTEN
        if "Lambda" in dict(getattr(module, "seq", nn.Identity()).named_parameters())
        else 1e-11
    )
    assert distance(impulses(kind, plain, AT, LENGTH), answered(systems)) <= limit


@pytest.mark.parametrize("reductor", [SubsetReductor(horizon=LENGTH), BalancedReductor()])
def test_reduced_written_back_and_loaded_by_the_class(kind, reductor):
    module = kind.make(MODES).eval()
    systems = kind.adapter.to_systems(module)
    reduced = {
        name: reductor.reduce(system, order=2 if isinstance(reductor, SubsetReductor) else 4).system
        for name, system in systems.items()
    }
    needed = kind.adapter.states_needed(module, reduced)
    plain = kind.adapter.from_systems(module, reduced)
    wanted = answered(reduced)
    assert distance(impulses(kind, plain, AT, LENGTH), wanted) <= WRITTEN
    fresh = kind.make(needed // 2).eval()
    fresh.load_state_dict(plain.state_dict())
    assert distance(impulses(kind, fresh, AT, LENGTH), wanted) <= WRITTEN
    again = kind.adapter.to_systems(fresh)
    assert distance(answered(again), wanted) <= WRITTEN
    for states in (needed - 2, needed + 1):
        with pytest.raises(OrderError, match=f"an even number >= {needed}"):
            kind.adapter.from_systems(module, reduced, states=states)


def test_drop_in_answers_as_the_layer(kind):
    module = kind.make(MODES).eval()
    cores = {name: full_core(s) for name, s in kind.adapter.to_systems(module).items()}
    block = kind.adapter.to_block(module, cores)
    u = np.random.default_rng(0).standard_normal((2, 30, WIDTH))
    assert distance(forward(kind, module, u), forward(kind, block, u)) <= ACCURACY[True]
    x = torch.zeros(1, 30, WIDTH) if kind.time_first else torch.zeros(1, WIDTH, 30)
    with pytest.raises(UnsupportedOperationError, match="would change the output"):
        block(x, state=torch.ones(1, MODES))


@pytest.mark.parametrize("name", sorted(KINDS.keys() - NARROW))
def test_network_is_reduced_certified_exported_and_stored(name, tmp_path):
    torch.manual_seed(3)
    kind = KINDS[name]
    network = Residual([kind.make(MODES), kind.make(MODES)], kind).eval()
    before = copy.deepcopy(network.decoder.state_dict())
    result = ssmred.reduce(network, states=0.5, horizon=LENGTH, progress=False)
    assert 0 < result.states[0] <= result.states[1] / 2
    x = torch.randn(64, LENGTH, 2).clamp(-1, 1)
    with torch.no_grad():
        wanted, got = network(x), result.model(x)
    error = float((wanted - got).norm(dim=-1).max())
    assert 0.0 < error <= result.certificate.bound * result.certificate.scale
    plain = export_plain(network, result.model)
    assert {type(m) for m in plain.layers} == {type(m) for m in network.layers}
    assert (plain(x) - got).abs().max() <= 1e-5 * got.abs().max()
    save_network(result.model, tmp_path / "kept")
    stored = load_network(tmp_path / "kept")
    assert torch.equal(stored(x), got)
    assert all(torch.equal(before[k], v) for k, v in network.decoder.state_dict().items())


def test_data_free_of_the_class_calibrated_is_closer():
    kind = KINDS["s5-pytorch"]
    torch.manual_seed(0)
    network = Residual([kind.make(8), kind.make(8)], kind).eval()
    x = torch.randn(240, LENGTH, 2).cumsum(1) / 5
    free = ssmred.reduce(network, states=0.25, horizon=LENGTH, progress=False)
    fitted = ssmred.reduce(network, states=0.25, data=x, coverage=0.9, progress=False)
    with torch.no_grad():
        errors = [(network(x) - r.model(x)).norm() for r in (free, fitted)]
    assert errors[1] < errors[0]


def test_gated_blocks_of_the_package_are_reduced():
    torch.manual_seed(0)
    blocks = [gated_block(8) for _ in range(2)]
    network = nn.Sequential(*blocks, nn.Flatten()).eval()
    assert [found.path for found in find_layers(network)] == ["0.s5", "1.s5"]
    result = ssmred.reduce(network, states=0.5, horizon=LENGTH, guarantee="layer", progress=False)
    assert result.states == (16, 32)
    x = torch.randn(2, LENGTH, WIDTH)
    with torch.no_grad():
        assert (network(x) - result.model(x)).norm() < 0.1 * network(x).norm()


# --- what is refused ------------------------------------------------------------------------------


def test_liquid_layers_are_refused():
    layer = KINDS["s5-pytorch"].make(MODES)
    layer.seq.liquid = True
    with pytest.raises(UnsupportedOperationError, match="its poles move with the input"):
        KINDS["s5-pytorch"].adapter.to_systems(layer)


def test_layers_that_depend_on_their_input_are_refused_by_what_they_do():
    kind = KINDS["lru-reduction"]
    layer = kind.make(MODES)
    plain = layer.forward
    layer.forward = lambda u: plain(u) * (1.0 + u.abs().mean())
    with pytest.raises(CheckpointError, match="not linear in its input"):
        kind.adapter.to_systems(layer)


def test_layers_that_compute_otherwise_are_refused():
    kind = KINDS["lru-reduction"]
    layer = kind.make(MODES)
    plain = layer.forward
    layer.forward = lambda u: 1.001 * plain(u)
    with pytest.raises(CheckpointError, match="is not the response of its weights"):
        kind.adapter.to_systems(layer)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_are_named(kind, value):
    module = kind.make(MODES)
    name, tensor = next(iter(module.named_parameters()))
    with torch.no_grad():
        tensor.view(-1)[1] = value
    with pytest.raises(CheckpointError, match=name.rpartition(".")[2]):
        kind.adapter.to_systems(module)


def test_a_learnt_start_is_refused():
    kind = KINDS["neural-ssm, start"]
    layer = kind.make(MODES)
    with torch.no_grad():
        layer.x0_param.fill_(0.5)
    with pytest.raises(UnsupportedOperationError, match="x0_param starts the layer"):
        kind.adapter.to_systems(layer)


@pytest.mark.parametrize("name", ["LRU-pytorch", "neural-ssm", "LRU", "lru-reduction"])
def test_lru_poles_on_the_circle_are_refused_and_angles_of_zero_are_read(name):
    kind = KINDS[name]
    layer = kind.make(MODES).eval()
    with torch.no_grad():
        layer.theta_log[1] = -torch.inf
    system = kind.adapter.to_systems(layer)["core"]
    assert system.poles[0, 1].imag == 0.0
    plain = kind.adapter.from_systems(layer, {"core": system})
    assert torch.isfinite(plain.theta_log).all()
    assert distance(impulses(kind, plain, AT, LENGTH), answered({"core": system})) <= WRITTEN
    with torch.no_grad():
        layer.nu_log[2] = -90.0
    with pytest.raises(CheckpointError, match="nu_log is out of range"):
        kind.adapter.to_systems(layer)


def test_unstable_poles_cannot_be_written_into_an_lru_nor_reduced_for_ever():
    kind = KINDS["S5, not clipped"]
    layer = kind.make(MODES).eval()
    with torch.no_grad():
        layer.Lambda_re[0] = 0.5
    systems = kind.adapter.to_systems(layer)
    assert np.abs(systems["core"].poles).max() > 1
    with pytest.raises(ssmred.errors.UnstableSystemError):
        SubsetReductor().reduce(systems["core"], order=2)
    other = KINDS["LRU"]
    with pytest.raises(CheckpointError, match="inside the unit circle"):
        other.adapter.from_systems(other.make(MODES), systems)
