"""Trainable layers: whole sequences against steps, systems, sums written out and derivatives."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from layer_cases import CAUSAL, TWO_WAYS, WIDTH, answer, filtered, made, stepped

from ssmred.errors import OrderError, RequestError, ShapeError, UnsupportedOperationError
from ssmred.networks.layers import LRU, S4, S4D, S5, S4Kernel, parameter_groups
from ssmred.networks.layers.hippo import hippo_legs, hippo_modes
from ssmred.networks.layers.optimisation import SLOW_RATE
from ssmred.systems import DenseSystem

# Largest difference relative to the largest output; asked of the layers as such. The recurrence
# rounds once per step, the FFT about log2(T) times.
AGREEMENT = {torch.float32: 1e-5, torch.float64: 1e-12}
RESPONSE = 1e-12
LENGTHS = (1, 2, 17, 200)


def signal(seed, dtype=torch.float64, *, batch=3, length=50):
    generator = torch.Generator().manual_seed(100 + seed)
    return torch.randn(batch, WIDTH, length, generator=generator, dtype=torch.float64).to(dtype)


def gap(one, two):
    return float((one - two).abs().max() / two.abs().max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", CAUSAL)
@torch.no_grad()
def test_whole_sequences_and_steps_agree(name, dtype):
    for seed in range(3):
        layer = made(CAUSAL[name], seed, dtype)
        for length in LENGTHS:
            u = signal(seed, dtype, length=length)
            whole, one_by_one = answer(layer, u), stepped(layer, u)
            assert whole.dtype == one_by_one.dtype == dtype
            assert whole.shape == one_by_one.shape
            assert gap(one_by_one, whole) <= AGREEMENT[dtype]


@pytest.mark.parametrize("name", CAUSAL)
@torch.no_grad()
def test_the_system_responds_as_the_layer_does(name):
    layer, length = made(CAUSAL[name], 0, torch.float64), 120
    system = layer.to_system()
    assert system.recurrence == "post-update"
    impulses = torch.zeros(WIDTH, WIDTH, length, dtype=torch.float64)
    impulses[range(WIDTH), range(WIDTH), 0] = 1.0
    got = filtered(layer, impulses).numpy()  # (driven feature, output feature, time)
    response = system.impulse_response(length)
    if system.batch_shape == (1,):
        expected = response[0].transpose(2, 1, 0)
    else:  # independent channels, copy by copy
        copies = system.batch_shape[0] // WIDTH
        expected = np.zeros((WIDTH, copies, WIDTH, length))
        for h in range(WIDTH):
            expected[h, :, h] = response[..., 0, 0].reshape(copies, WIDTH, length)[:, h]
        expected = expected.reshape(WIDTH, -1, length)
    assert np.abs(got - expected).max() <= RESPONSE * np.abs(expected).max()


@pytest.mark.parametrize("name", TWO_WAYS)
@torch.no_grad()
def test_bidirectional_layers_are_sums_over_past_and_future(name):
    length = 40
    for seed in range(3):
        layer = made(TWO_WAYS[name], seed, torch.float64)
        systems = layer.to_systems()
        u = signal(seed, length=length).numpy()
        shared = systems["core"].batch_shape == (1,)
        copies = 1 if shared else systems["core"].batch_shape[0] // WIDTH
        h = {core: system.impulse_response(length) for core, system in systems.items()}
        expected = np.zeros((3, copies * WIDTH, length))
        drive = np.tile(u, (1, copies, 1))
        for t in range(length):
            for s in range(length):
                core, lag = ("core", t - s) if s <= t else ("backward", s - t - (not shared))
                for which, k in {
                    core: lag,
                    **({"backward": 0} if shared and s == t else {}),
                }.items():
                    taken = h[which][0, k] if shared else h[which][:, k, 0, 0]
                    now = drive[..., s]
                    expected[..., t] += now @ taken.T if shared else taken * now
        got = filtered(layer, torch.from_numpy(u)).numpy()
        assert np.abs(got - expected).max() <= RESPONSE * np.abs(expected).max()
        with pytest.raises(UnsupportedOperationError, match="bidirectional"):
            layer.step(torch.zeros(1, WIDTH), layer.initial_state())
        with pytest.raises(UnsupportedOperationError, match="to_systems"):
            layer.to_system()


@torch.no_grad()
def test_bidirectional_layers_agree_in_float32():
    for build in TWO_WAYS.values():
        layer = made(build, 0, torch.float32)
        u = signal(0, torch.float32, length=200)
        exact = filtered(copy.deepcopy(layer).double(), u.double())
        assert gap(filtered(layer, u), exact) <= AGREEMENT[torch.float32]


@pytest.mark.parametrize("length", [0, 1, 2, 31, 64, 500])
@torch.no_grad()
def test_cauchy_sums_are_matrix_powers(length):
    """Whatever length C is made for, shorter or longer than what is asked for."""
    for seed, options in enumerate(({}, {"rows": 3, "systems": 2}, {"states": 64})):
        kernel = made(lambda o=options: S4Kernel(6, **{"states": 8} | o), seed, torch.float64)
        expected = {T: kernel.by_powers(T) for T in (1, 2, 33, 300)}
        kernel.make_for(length)
        assert int(kernel.l_kernel) == length
        for T, wanted in expected.items():
            got, _ = kernel(L=T)
            assert gap(got, wanted) <= RESPONSE
            assert gap(kernel.by_powers(T), wanted) <= RESPONSE


@torch.no_grad()
def test_low_rank_terms_of_other_ranks():
    kernel = made(lambda: S4Kernel(4, 8), 0, torch.float64)
    kernel.P = torch.nn.Parameter(0.5 * torch.randn(3, 1, 4, 2, dtype=torch.float64))
    assert gap(kernel(L=80)[0], kernel.by_powers(80)) <= RESPONSE


@pytest.fixture
def in_float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@torch.no_grad()
def test_s4_is_the_bilinear_step_of_hippo(in_float64):
    """At first A is HiPPO-LegS itself, in other coordinates."""
    layer = S4(2, 16, mixing="none")
    step = layer.layer.kernel.inv_dt.exp().numpy()
    A, _, B = (tensor.numpy() for tensor in hippo_legs(16))
    modes = hippo_modes(16)
    V = torch.cat([modes.V, modes.V.conj()], dim=-1).numpy()
    C = layer.layer.kernel.C.numpy() @ [1, 1j]
    C = np.concatenate([C, C.conj()], axis=-1)[0] @ V.conj().T
    for h in range(2):
        left, right = np.eye(16) - step[h] / 2 * A, np.eye(16) + step[h] / 2 * A
        whole = DenseSystem(
            np.linalg.solve(left, right),
            np.linalg.solve(left, step[h] * B),
            C[h].real,
            recurrence="post-update",
        ).impulse_response(200)[:, 0, 0]
        own = layer.layer.kernel(L=200)[0][0, h].numpy()
        assert np.abs(own - whole).max() <= RESPONSE * np.abs(whole).max()


def test_hippo_modes_diagonalise_the_normal_part():
    for N in (2, 8, 64):
        A, P, _ = hippo_legs(N)
        modes = hippo_modes(N)
        V, poles = (
            torch.cat([modes.V, modes.V.conj()], -1),
            torch.cat([modes.poles, modes.poles.conj()]),
        )
        rebuilt = V @ torch.diag(poles) @ V.conj().T - P[:, None] * P
        assert float((rebuilt - A).abs().max()) <= 1e-13 * N**2
        assert float((V.conj().T @ V - torch.eye(N)).abs().max()) <= 1e-14 * N
        assert bool((modes.B.real > 0).all())
        assert float(modes.B.imag.abs().max()) <= 1e-13 * N


@pytest.mark.parametrize(
    "build",
    [
        lambda: S4D(2, 4, mixing="none"),
        lambda: S4(2, 4, mixing="none", bidirectional=True),
        lambda: S4(2, 4, mixing="none", length=5),
        lambda: S5(2, 4, bidirectional=True),
        lambda: S5(2, 4, discretisation="bilinear", conj_sym=False),
        lambda: LRU(2, 4),
    ],
)
def test_derivatives(build):
    """Of all parameters, by finite differences."""
    torch.manual_seed(0)
    layer = build().double()
    names = [name for name, _ in layer.named_parameters()]
    u = torch.randn(1, 2, 6, dtype=torch.float64)

    def output(*values):
        out = torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (u,))
        return out[0] if isinstance(out, tuple) else out

    values = tuple(p.detach().clone().requires_grad_() for p in layer.parameters())
    assert torch.autograd.gradcheck(output, values)


@torch.no_grad()
def test_hard_poles():
    """On the circle but for 1e-12, 0, repeated, a zero angle: as the exact sums say."""
    layer = made(lambda: LRU(WIDTH, 10), 0, torch.float64)
    layer.nu_log.copy_(torch.tensor([1e-12, 800.0, 0.5, 0.5, 0.5]).double().log())
    layer.theta_log.copy_(torch.tensor([-math.inf, -1.0, 0.3, 0.3, -math.inf]).double())
    assert torch.exp(-torch.exp(layer.nu_log[1])) == 0.0
    u = signal(0, length=300)
    whole = layer(u)
    assert gap(stepped(layer, u), whole) <= RESPONSE
    expected = layer.to_system().simulate(u.transpose(-1, -2).numpy())
    assert gap(torch.from_numpy(expected).transpose(-1, -2), whole) <= RESPONSE


def test_clipped_eigenvalues():
    layer = S5(2, 4).double()
    with torch.no_grad():
        layer.Lambda_re.copy_(torch.tensor([0.5, -0.25]))
    rate = np.log(layer.to_system().poles[0]) / layer.log_step.exp().detach().numpy()[:, 0]
    np.testing.assert_allclose(rate.real, [-1e-4, -0.25], rtol=1e-10)


# Training --------------------------------------------------------------------------------------


def test_parameter_groups_follow_the_marks():
    torch.manual_seed(0)
    model = torch.nn.ModuleDict({"a": S4D(2, 4), "b": S4(2, 4), "c": S5(2, 4), "d": LRU(2, 4)})
    slow = {
        *(f"a.kernel.{n}" for n in ("log_dt", "log_A_real", "A_imag")),
        *(f"b.layer.kernel.{n}" for n in ("inv_dt", "A_real", "A_imag", "B", "P")),
        *(f"c.{n}" for n in ("Lambda_re", "Lambda_im", "B", "log_step")),
        *(f"d.{n}" for n in ("nu_log", "theta_log", "gamma_log", "B_re", "B_im")),
    }
    assigned = copy.deepcopy(model)
    assigned.load_state_dict(model.state_dict(), assign=True)
    copies = (model, copy.deepcopy(model), assigned, pickle.loads(pickle.dumps(model)).double())
    for other in copies:
        names = {id(p): name for name, p in other.named_parameters()}
        rest, marked = parameter_groups(other, lr=4e-3, weight_decay=0.05)
        assert {names[id(p)] for p in marked["params"]} == slow
        assert {names[id(p)] for p in rest["params"]} == set(names.values()) - slow
        assert (marked["lr"], marked["weight_decay"]) == (SLOW_RATE, 0.0)
        assert (rest["lr"], rest["weight_decay"]) == (4e-3, 0.05)
    model["a"].kernel.log_dt.requires_grad_(False)
    groups = parameter_groups(model, lr=1e-4, weight_decay=0.0)
    assert [g["lr"] for g in groups] == [1e-4]
    assert len(groups[0]["params"]) == len(list(model.parameters())) - 1


@pytest.mark.parametrize("name", ["s4d", "s4", "s5", "lru"])
def test_steps_see_changed_parameters(name):
    layer, u = made(CAUSAL[name], 0, torch.float64), signal(0, length=9)
    with torch.no_grad():
        stepped(layer, u)
        next(layer.parameters()).mul_(1.5)
        assert gap(stepped(layer, u), answer(layer, u)) <= RESPONSE
    y, _ = layer.step(u[..., 0], layer.initial_state(3))  # with gradients
    assert y.requires_grad


# Refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [S4D, S4, S5, LRU])
def test_refusals(family):
    for states in (7, 0, -2):
        with pytest.raises(OrderError, match="even"):
            family(3, states)
    layer = family(3, 4)
    with pytest.raises(ShapeError, match="3 channels before time"):
        layer(torch.zeros(2, 4, 9))
    with pytest.raises(ShapeError, match="int64"):
        layer(torch.zeros(2, 3, 9, dtype=torch.int64))
    for u, state in (
        (torch.zeros(2, 4), layer.initial_state(2)),
        (torch.zeros(2, 3), layer.initial_state(1)),
        (torch.zeros(2, 3), layer.initial_state(2).real.to(torch.float32)),
        (torch.zeros(3), layer.initial_state(3)),
    ):
        with pytest.raises(ShapeError, match="initial_state"):
            layer.step(u, state)


def test_refused_options():
    for build in (
        lambda: S4D(3, 4, mixing="half-glu"),
        lambda: S4(3, 4, mixing="gelu"),
        lambda: S5(3, 4, discretisation="foh"),
    ):
        with pytest.raises(RequestError, match="expected one of"):
            build()
    with pytest.raises(OrderError, match="multiple of 6"):
        S5(3, 8, blocks=3)
    with pytest.raises(OrderError, match="multiple of 12"):
        S5(3, 18, blocks=3, conj_sym=False)
