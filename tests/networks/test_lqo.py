"""Layers with quadratic outputs: sequences, steps, systems, reduction and writing back."""

import copy

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import ssmred
from ssmred.certify import InputSet
from ssmred.errors import CheckpointError, OrderError, RequestError
from ssmred.networks import (
    SharedSSM,
    StreamingNetwork,
    adapter_for,
    export,
    export_plain,
    import_network,
    read_lqo,
)
from ssmred.networks.deep import DeepLQO
from ssmred.networks.layers import LRU, LQOLayer, parameter_groups
from ssmred.networks.layers.lqo import quadratic_system
from ssmred.norms import h2_error, h2_norm
from ssmred.pipeline.feedthrough import has_diagonal
from ssmred.pipeline.removal import CalibratedMove, CalibratedRemoval, DataFreeRemoval
from ssmred.reductors import BalancedReductor, QuadraticBalancedReductor
from ssmred.systems import QuadraticOutputSystem

T = 40


def made(seed, *, channels=3, states=8, rank=1, dtype=torch.float64):
    torch.manual_seed(seed)
    layer = LQOLayer(channels, states, rank=rank, r_min=0.3, r_max=0.95).to(dtype)
    return layer.eval()


def network(seed, *, layers=2, norm="batch", pooling="mean", channels=4, rank=1):
    torch.manual_seed(seed)
    model = DeepLQO(
        2, 3, channels=channels, states=12, layers=layers, rank=rank, norm=norm, pooling=pooling,
        r_min=0.3, r_max=0.95,
    )  # fmt: skip
    model.double().train()
    with torch.no_grad():
        model(torch.randn(20, T, 2, dtype=torch.float64))  # running averages of the norms
        for layer in model.layers:
            layer.U_re.mul_(0.5), layer.U_im.mul_(0.5)
    return model.eval()


# --- the layer -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rank", [1, 3])
@torch.no_grad()
def test_sequences_steps_and_the_sum_written_out(rank, dtype):
    layer = made(0, rank=rank, dtype=dtype)
    u = torch.randn(2, 3, T, dtype=dtype)
    whole, state, steps = layer(u), layer.initial_state(2), []
    for k in range(T):
        y, state = layer.step(u[..., k], state)
        steps.append(y)
    scale = whole.abs().max()
    limit = 1e-12 if dtype == torch.float64 else 1e-5
    assert (torch.stack(steps, -1) - whole).abs().max() <= limit * scale
    nu, theta = layer.nu_log.double().numpy(), layer.theta_log.double().numpy()
    poles = np.exp(-np.exp(nu) + 1j * np.exp(theta))
    B = np.exp(layer.gamma_log.double().numpy())[:, None] * (layer.B_re + 1j * layer.B_im).numpy()
    C, U = (
        (getattr(layer, f"{n}_re").double() + 1j * getattr(layer, f"{n}_im").double()).numpy()
        for n in "CU"
    )
    x, D = np.zeros(4, complex), layer.D.double().numpy()
    for k in range(T):
        now = u[0, :, k].double().numpy()
        x = poles * x + B @ now
        wanted = (C @ x).real + D * now + ((U @ x).real ** 2).sum(axis=0)
        assert np.abs(whole[0, :, k].numpy() - wanted).max() <= limit * float(scale)


def test_the_layer_learns():
    torch.manual_seed(0)
    u = torch.randn(64, 1, 30)
    wanted = ((u.roll(1, -1) + u) ** 2)[..., 5:]
    layer = LQOLayer(1, 16, rank=2)
    optimiser = torch.optim.AdamW(parameter_groups(layer, 1e-2))
    for _ in range(300):
        loss = ((layer(u)[..., 5:] - wanted) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.1 * wanted.var().item()  # what no linear layer explains is all of it


def start(seed, **options):
    """Return poles and input gains of a new layer, in float64."""
    torch.manual_seed(seed)
    torch.set_default_dtype(torch.float64)
    layer = LQOLayer(3, 16, **options)
    torch.set_default_dtype(torch.float32)
    logs = (layer.nu_log, layer.theta_log, layer.gamma_log)
    decay, angle, gain = (np.exp(log.detach().numpy()) for log in logs)
    return np.exp(-decay + 1j * angle), gain


def legs(states):
    """Return the eigenvalues of ``A + P P^T`` in the upper half plane, entry by entry."""
    n = np.arange(states)
    A = -np.sqrt(np.outer(2 * n + 1, 2 * n + 1)) * (n[:, None] > n) - np.diag(n + 1.0)
    rates = np.linalg.eigvals(A + np.sqrt(np.outer(n + 0.5, n + 0.5)))
    return np.array(sorted(rates[rates.imag > 0], key=lambda rate: rate.imag))


def test_poles_start_at_hippo_legs():
    """With one step all poles are exp(dt a); with many every pole lies on the curve of its a."""
    rates = legs(16)
    poles, gains = start(0, initial="legs", dt_min=0.05, dt_max=0.05)
    assert np.abs(poles - np.exp(0.05 * rates)).max() <= 1e-12
    assert np.abs(gains - np.sqrt(1 - np.exp(-0.05))).max() <= 1e-12
    poles, gains = start(1, initial="legs")
    steps = np.log(np.abs(poles)) / rates.real
    assert (steps >= 1e-3).all()
    assert (steps <= 1e-1).all()
    assert len(np.unique(steps)) == 8
    assert np.abs(poles - np.exp(steps * rates)).max() <= 1e-11
    assert np.abs(gains**2 + np.abs(poles) ** 2 - 1).max() <= 1e-14


def test_steps_are_log_uniform():
    torch.manual_seed(0)
    nu = torch.cat([LQOLayer(1, 256, initial="legs").nu_log for _ in range(20)]).detach()
    share = (nu - np.log(0.5e-3)) / np.log(100)  # -log|l| = dt / 2
    for level in (0.25, 0.5, 0.75):
        assert abs(float((share < level).double().mean()) - level) <= 4 * 0.5 / len(nu) ** 0.5


def test_poles_start_on_a_ring_unless_asked():
    """The same numbers as ever: those of an LRU layer of this seed, and no others drawn."""
    torch.manual_seed(0)
    one = LQOLayer(3, 16).state_dict()
    torch.manual_seed(0)
    two = LQOLayer(3, 16, initial="ring").state_dict()
    torch.manual_seed(0)
    lru = LRU(3, 16).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    same = [name for name in lru if name != "D"]
    assert all(torch.equal(one[name], lru[name]) for name in same)


def test_networks_of_either_kind_are_known(tmp_path):
    torch.manual_seed(0)
    model = DeepLQO(2, 3, channels=4, states=8, layers=2, initial="legs").eval()
    torch.manual_seed(0)
    ring = DeepLQO(2, 3, channels=4, states=8, layers=2).eval()
    shapes = {name: tensor.shape for name, tensor in ring.state_dict().items()}
    assert {name: tensor.shape for name, tensor in model.state_dict().items()} == shapes
    save_file(model.state_dict(), tmp_path / "legs.safetensors")
    found = ssmred.inspect(tmp_path / "legs.safetensors")
    assert [layer.family for layer in found.layers] == ["lqo", "lqo"]
    for layer in model.layers:
        poles = layer.discrete()[0].detach().numpy()
        np.testing.assert_array_equal(export(layer).poles[0], poles)
        (system,) = read_lqo(layer.state_dict()).values()
        np.testing.assert_allclose(system.poles[0], poles, rtol=1e-15)
        assert (np.abs(poles) >= np.exp(-0.5e-1 - 1e-6)).all()  # as slow as HiPPO, no ring


@pytest.mark.theorem("lqo-layer")
@pytest.mark.parametrize("rank", [1, 2])
def test_the_system_answers_as_the_layer(rank):
    layer = made(1, rank=rank)
    u = torch.randn(1, 3, T, dtype=torch.float64)
    system = layer.to_system()
    assert isinstance(system, QuadraticOutputSystem)
    assert (system.order, system.outputs, system.factors[0].shape) == (8, 3, (3, 8, rank))
    y = system.simulate(u[0].numpy().T)
    wanted = layer(u)[0].detach().numpy().T
    assert np.abs(y - wanted).max() <= 1e-12 * np.abs(wanted).max()
    assert (np.linalg.eigvalsh(system.matrices()) >= -1e-12).all()
    assert export(layer).outputs == (1 + rank) * 3  # the filter, as for every layer


def test_arguments():
    with pytest.raises(OrderError, match="even"):
        LQOLayer(3, 7)
    with pytest.raises(OrderError, match="rank >= 1"):
        LQOLayer(3, 8, rank=0)
    with pytest.raises(RequestError, match="unknown initial; expected one of ring, legs"):
        DeepLQO(2, 2, initial="hippo")
    with pytest.raises(RequestError, match="norm"):
        DeepLQO(2, 2, norm="group")
    system = made(0).to_systems()["core"]
    with pytest.raises(OrderError, match=r"4 times as many outputs as channels.*got 6"):
        quadratic_system(system, 3)
    with pytest.raises(OrderError, match="no filter before squares"):
        quadratic_system(system.replace(D=np.ones_like(system.D)), 1)


# --- theory --------------------------------------------------------------------------------------


def reduced_by_the_pipeline(layer, removal):
    """Return the filter that a removal makes of a layer, and the full one."""
    net = import_network(torch.nn.Sequential(layer))
    cut = removal(net)
    (reduction,) = cut.reductions
    return net.layers[0].system, reduction


@pytest.mark.theorem("lqo-layer")
@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("method", ["subset", "balanced", "modal"])
def test_the_best_linear_read_out_of_the_filter_is_the_best_of_the_layer(method, rank):
    """Against any other read-out of the same states, and the one fitted to the quadratic error."""
    layer = made(2, rank=rank)
    full, reduction = reduced_by_the_pipeline(
        layer, lambda net: DataFreeRemoval(net, T, method=method).cut(4)
    )
    system = reduction.system
    assert not system.D[:, 3:].any()
    assert has_diagonal(system)
    one, two = (quadratic_system(s, rank) for s in (full, system))
    error = h2_error(one, two, horizon=T)
    rng = np.random.default_rng(0)
    for size in (1e-3, 1e-2, 0.1):
        for _ in range(10):
            C = system.C.copy()
            shift = rng.normal(size=C[:, 3:].shape) + 1j * rng.normal(size=C[:, 3:].shape)
            C[:, 3:] += size * shift
            assert h2_error(one, quadratic_system(system.replace(C=C), rank), horizon=T) >= error


@pytest.mark.theorem("lqo-layer")
def test_balancing_with_quadratic_gramians_is_balancing_of_scaled_rows():
    layer = made(3)
    full = layer.to_systems()["core"]
    p = 3
    rows = [h2_norm(full.replace(C=full.C[:, [j]], D=full.D[:, [j]]))[0] for j in range(p, 2 * p)]
    scale = np.concatenate([np.ones(p), rows])[:, None]
    scaled = full.replace(C=scale * full.C, D=scale * full.D)
    reduced = BalancedReductor(form="dense").reduce(scaled, order=2).system
    wanted = QuadraticBalancedReductor().reduce(layer.to_system(), order=4).system
    back = reduced.replace(C=reduced.C / scale, D=reduced.D / scale)
    C, U = back.C[0, :p], back.C[0, p:]
    got = QuadraticOutputSystem(
        back.A[0], back.B[0], C, (U[:, :, None],), back.D[0, :p], recurrence="post-update"
    )
    u = np.random.default_rng(0).normal(size=(T, 3))
    one, two = got.simulate(u), wanted.simulate(u)
    assert np.abs(one - two).max() <= 1e-8 * np.abs(two).max()


@pytest.mark.theorem("lqo-layer")
def test_squares_of_moduli_are_not_closed_under_the_best_read_out():
    """Rank 2 rows u, -i u on two modes, of which one is kept."""
    layer = made(4, channels=1, states=4, rank=2)
    with torch.no_grad():  # z_2 = Re(-i u x)
        layer.U_re[1], layer.U_im[1] = layer.U_im[0], -layer.U_re[0]
    _, reduction = reduced_by_the_pipeline(
        layer, lambda net: DataFreeRemoval(net, None, method="subset").cut(2)
    )
    one, two = reduction.system.C[0, 1:]
    used = np.abs(one) > 0
    assert used.sum() == 1
    form = [[one.real @ one.real, -one.real @ one.imag], [0, one.imag @ one.imag]]
    other = [[two.real @ two.real, -two.real @ two.imag], [0, two.imag @ two.imag]]
    M = np.add(form, other)
    assert abs(M[0, 0] - M[1, 1]) > 1e-3 * np.abs(M).max()  # a modulus gives a multiple of 1


# --- networks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [1, 2])
def test_drop_ins_answer_as_the_network(rank):
    model = network(0, rank=rank)
    x = torch.randn(5, T, 2, dtype=torch.float64)
    imported = import_network(model)
    with torch.no_grad():
        wanted, got = model(x), imported.model(x)
    assert (wanted - got).abs().max() <= 1e-12 * wanted.abs().max()
    core = imported.core("layers.0")
    assert core.D.shape == (4,)  # no zeros are stored for the squared rows
    assert sum(p.numel() for p in core.parameters()) == 12 // 2 * 2 * (1 + 4 + 4 + 4 * rank) + 4


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("method", ["subset", "balanced"])
@pytest.mark.parametrize("calibrated", [True, False])
def test_reduced_networks_come_back_in_their_classes(method, calibrated, channels):
    model = network(1, channels=channels)
    x = torch.randn(60, T, 2, dtype=torch.float64)
    sight = {"data": x} if calibrated else {"horizon": T}
    result = ssmred.reduce(
        model, states=0.5, method=method, guarantee="layer", progress=False, **sight
    )
    assert result.states[0] <= 12
    plain = export_plain(model, result.model)
    assert all(isinstance(layer, LQOLayer) for layer in plain.layers)
    with torch.no_grad():
        wanted, got = result.model(x), plain(x)
    assert (wanted - got).abs().max() <= 1e-9 * wanted.abs().max()
    core = import_network(result.model).layers[0].system
    assert not core.D[:, channels:].any()


def test_keeping_everything_changes_nothing():
    model = network(2)
    x = torch.randn(60, T, 2, dtype=torch.float64)
    for removal in (
        DataFreeRemoval(import_network(model), T),
        CalibratedRemoval(import_network(model), x, seed=0),
        CalibratedMove(import_network(model), x, method="balanced", horizon=T, seed=0),
    ):
        with torch.no_grad():
            assert (removal.cut(24).model(x) - model(x)).abs().max() <= 1e-10


def test_steps_stream():
    model = network(3, pooling=None)
    result = ssmred.reduce(model, states=0.5, horizon=T, guarantee="layer", progress=False)
    x = torch.randn(1, T, 2, dtype=torch.float64)
    stream = StreamingNetwork(result.model)
    with torch.no_grad():
        whole = result.model(x)
        steps = torch.stack([stream.step(x[:, k]) for k in range(T)], dim=1)
    assert (steps - whole).abs().max() <= 1e-10 * whole.abs().max()


def test_saved_networks_load(tmp_path):
    model = network(4)
    result = ssmred.reduce(model, states=0.5, horizon=T, guarantee="layer", progress=False)
    result.save(tmp_path / "small")
    again = ssmred.load(tmp_path / "small")
    x = torch.randn(3, T, 2, dtype=torch.float64)
    with torch.no_grad():
        assert (again.model(x) - result.model(x)).abs().max() == 0


def corners(rng, count):
    """Return noise, corners, resonant sines and constants within [-1, 1]."""
    kinds = [
        rng.uniform(-1, 1, (count, T, 2)),
        rng.choice([-1.0, 1.0], (count, T, 2)),
        np.sign(np.sin(rng.uniform(0, 3.1, (count, 1, 2)) * np.arange(T)[None, :, None])),
        np.ones((1, T, 2)),
    ]
    return torch.from_numpy(np.concatenate(kinds))


def check_bound(seed):
    rng = np.random.default_rng(seed)
    layers, pooling = int(rng.integers(1, 4)), ["mean", "last", None][int(rng.integers(3))]
    norm = ["batch", "none"][int(rng.integers(2))]
    model = network(seed, layers=layers, norm=norm, pooling=pooling, rank=int(rng.integers(1, 3)))
    result = ssmred.reduce(
        model, states=0.5, horizon=T, inputs=InputSet.box(-1.0, 1.0), guarantee="worst-case",
        method=str(rng.choice(["subset", "balanced"])), progress=False,
    )  # fmt: skip
    inputs = corners(rng, 20)
    with torch.no_grad():
        gaps = (model(inputs) - result.model(inputs)).flatten(1).norm(dim=-1)
    bound = result.certificate.bound * result.certificate.scale
    assert float(gaps.max()) > 0
    assert float(gaps.max()) <= bound


@pytest.mark.theorem("lqo-layer")
@pytest.mark.parametrize("seed", range(12))
def test_worst_case_bounds_hold(seed):
    check_bound(seed)


@pytest.mark.slow
@pytest.mark.theorem("lqo-layer")
@pytest.mark.parametrize("start", range(12, 500, 61))
def test_worst_case_bounds_of_five_hundred_networks_hold(start):
    for seed in range(start, start + 61):
        check_bound(seed)


# --- bad input -----------------------------------------------------------------------------------


def test_damaged_layers_are_named():
    layer = made(0)
    adapter = adapter_for(layer)
    assert adapter.family == "lqo"
    broken = copy.deepcopy(layer)
    with torch.no_grad():
        broken.U_re[0, 0, 0] = float("nan")
    with pytest.raises(CheckpointError, match="U_re holds nan or inf"):
        adapter.to_systems(broken)
    with torch.no_grad():
        layer.nu_log[2] = -50.0
    with pytest.raises(CheckpointError, match="nu_log is out of range"):
        adapter.to_systems(layer)


def test_what_cannot_be_written():
    layer = made(0)
    adapter = adapter_for(layer)
    system = adapter.to_systems(layer)["core"]
    with pytest.raises(OrderError, match="an even number >= 8"):
        adapter.from_systems(layer, {"core": system}, states=6)
    with pytest.raises(CheckpointError, match="cannot hold this system"):
        adapter.from_systems(layer, {"core": system.replace(D=np.ones_like(system.D))})
    with pytest.raises(CheckpointError, match="other filters"):
        adapter.from_systems(layer, {"backward": system})
    with pytest.raises(CheckpointError, match="has no parameters"):
        adapter.from_systems(
            layer, {"core": system.replace(poles=1.5 * system.poles / abs(system.poles))}
        )
    wide = adapter.from_systems(layer, {"core": system}, states=12)
    u = torch.randn(1, 3, T, dtype=torch.float64)
    with torch.no_grad():
        assert (wide(u) - layer(u)).abs().max() <= 1e-12 * layer(u).abs().max()
    assert wide.nu_log.shape == (6,)


def test_files_are_known_without_the_class(tmp_path):
    model = network(5, rank=2)
    path = tmp_path / "lqo.safetensors"
    save_file(model.state_dict(), path)
    found = ssmred.inspect(path)
    assert [(layer.name, layer.family) for layer in found.layers] == [
        ("layers.0", "lqo"), ("layers.1", "lqo"),
    ]  # fmt: skip
    tensors = {k: t for k, t in model.state_dict().items() if k.startswith("layers.1.")}
    (system,) = read_lqo(tensors).values()
    wanted = model.layers[1].to_systems()["core"].impulse_response(T)
    np.testing.assert_allclose(system.impulse_response(T), wanted, atol=1e-13)
    with pytest.raises(CheckpointError, match=r"U_re has the wrong shape"):
        read_lqo(tensors | {"layers.1.U_re": tensors["layers.1.U_re"][:, :2]})


def test_only_squares_are_kept_from_a_direct_term():
    """A filter with more outputs than inputs and D = 0, nothing squared: the best D is full."""
    torch.manual_seed(0)
    layer = made(6)
    system = layer.to_systems()["core"]
    system = system.replace(D=0 * system.D)
    net = import_network(SharedSSM.from_system(system))
    assert not net.layers[0].squared
    assert import_network(torch.nn.Sequential(layer)).layers[0].squared
    again = import_network(import_network(torch.nn.Sequential(layer)).model)
    assert again.layers[0].squared  # known of a drop-in too
    (reduction,) = DataFreeRemoval(net, T).cut(4).reductions
    assert np.abs(reduction.system.D[:, 3:]).max() > 1e-3
