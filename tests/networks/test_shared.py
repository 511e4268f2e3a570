"""The core with one shared state: against the recurrence, many digits, and itself step by step."""

import copy

import mpmath
import numpy as np
import pytest
import torch

from ssmred.errors import CheckpointError, OrderError, ShapeError
from ssmred.networks import DenseSSM, ReducedSSM, SharedSSM, core_for
from ssmred.systems import DenseSystem, DiagonalSystem

# float64, relative to the sizes of the terms that are summed
AGREEMENT = 1e-12
FLOAT32 = 1e-5
RADII = (0.0, 0.5, 0.97, 1 - 1e-6, 1 - 1e-12)


def numbers(rng, *shape):
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def shared(seed=0, *, n=5, m=3, p=4, late=False, diagonal=False, radii=RADII):
    rng = np.random.default_rng(seed)
    poles = rng.choice(radii, n) * np.exp(1j * rng.uniform(-np.pi, np.pi, n))
    D = rng.standard_normal(p) if diagonal else rng.standard_normal((p, m))
    return SharedSSM(poles, numbers(rng, n, m), numbers(rng, p, n), D, delayed=late)


def size_of(layer, length):
    """Return what rounding is relative to: the sum of the moduli of all terms of an output."""
    system = layer.to_system()
    return length * float((abs(system.C[0]) @ abs(system.B[0]) + abs(system.D[0])).sum(1).max())


def stepped(layer, u):
    state, outputs = layer.initial_state(len(u)), []
    for k in range(u.shape[-1]):
        y, state = layer.step(u[..., k], state)
        outputs.append(y)
    return torch.stack(outputs, dim=-1)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("seed", range(100))
def test_convolution_and_steps_are_the_recurrence(seed, late):
    rng = np.random.default_rng(seed)
    n, m, p, T = (int(k) for k in rng.integers(1, 7, 4))
    T = int(rng.choice([1, 2, 3, 50]))
    diagonal = seed % 3 == 0
    layer = shared(seed, n=n, m=m, p=m if diagonal else p, late=late, diagonal=diagonal)
    u = rng.uniform(-1, 1, (2, m, T))
    wanted = layer.to_system().simulate(np.swapaxes(u, 1, 2)).swapaxes(1, 2)
    margin = AGREEMENT * size_of(layer, T)
    with torch.no_grad():
        x = torch.from_numpy(u)
        assert np.abs(layer(x).numpy() - wanted).max() <= margin
        assert np.abs(stepped(layer, x).numpy() - wanted).max() <= margin
        kernel = layer.kernel(T).numpy()
    response = np.moveaxis(layer.to_system().impulse_response(T)[0], 0, -1)
    assert kernel.shape == (layer.outputs, layer.inputs, T)
    assert np.abs(kernel - response).max() <= margin


@pytest.mark.parametrize("late", [False, True])
def test_kernel_against_fifty_digits(late):
    layer = shared(3, n=3, m=2, p=2, late=late)
    kernel = layer.kernel(70).detach().numpy()
    system = layer.to_system()
    with mpmath.workdps(50):
        for k in (0, 1, 2, 69):
            for i in range(2):
                for j in range(2):
                    total, size = mpmath.mpf(0), mpmath.mpf(0)
                    for q in range(3):
                        power = mpmath.mpc(system.poles[0, q]) ** (k - late if k or not late else 0)
                        term = mpmath.mpc(system.C[0, i, q]) * mpmath.mpc(system.B[0, q, j]) * power
                        if late and k == 0:
                            term = mpmath.mpc(0)
                        total, size = total + mpmath.re(term), size + abs(term)
                    direct = float(system.D[0, i, j]) if k == 0 else 0.0
                    gap = abs(kernel[i, j, k] - total - direct)
                    assert gap <= AGREEMENT * (size + abs(direct) + mpmath.mpf(1e-30))


def test_steps_with_gradients_in_place_and_in_float32():
    layer = shared(1)
    u = torch.randn(2, 3, dtype=torch.float64)
    state = torch.randn(2, 5, 2, dtype=torch.float64)
    y, after = layer.step(u, state)
    assert y.requires_grad
    with torch.no_grad():
        fast, fast_after = layer.step(u, state)
        assert (y - fast).abs().max() <= 1e-13
        assert (after - fast_after).abs().max() <= 1e-13
        kept = state.clone()
        assert layer.step(u, kept, in_place=True)[1] is kept
        assert torch.equal(kept, fast_after)
        assert layer.step(u.float(), state)[0].dtype == torch.float32
    with pytest.raises(ShapeError, match=r"SharedSSM\.step"):
        layer.step(u[:, :2], state)
    with pytest.raises(ShapeError, match=r"SharedSSM\.step"):
        layer.step(u, state.float())


def test_float32_signals_are_filtered_in_float64():
    layer = shared(2, radii=(0.9,))
    huge = SharedSSM(
        np.array([0.9, 0.9 + 1e-9]), np.ones((2, 1)), 1e6 * np.array([[1.0, -1.0]])
    )  # two modes that cancel
    u = torch.randn(1, 1, 60)
    with torch.no_grad():
        exact = huge(u.double())
        assert (huge(u) - exact).abs().max() <= FLOAT32 * exact.abs().max()
        x = torch.randn(2, 3, 60)
        assert layer.float()(x).dtype == torch.float32
        assert (layer(x) - layer(x.double())).abs().max() <= FLOAT32 * size_of(layer, 1)
    assert layer.poles.dtype == torch.float64


def test_gradients_of_the_convolution():
    layer = shared(4, n=2, m=2, p=2, radii=(0.7,))
    u = torch.randn(1, 2, 6, dtype=torch.float64)
    names = [name for name, _ in layer.named_parameters()]

    def output(*values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (u,))

    values = tuple(p.detach().clone().requires_grad_() for p in layer.parameters())
    assert torch.autograd.gradcheck(output, values)


def test_what_is_kept_follows_every_change():
    layer = shared(5).eval()
    u = torch.randn(1, 3, 20, dtype=torch.float64)
    with torch.no_grad():
        before = layer(u)
        layer.poles.mul_(0.5)
        after = layer(u)
        assert not torch.equal(before, after)
        fresh = SharedSSM.from_system(layer.to_system(), kept=np.ones(5, bool))
        assert (fresh(u) - after).abs().max() <= 1e-13
    assert copy.deepcopy(layer)._kept == {}


def test_conversions():
    layer = shared(6, late=True)
    system = layer.to_system()
    assert system.recurrence == "standard"
    again = SharedSSM.from_system(system)
    assert again.delayed
    assert all(
        torch.equal(a, b) for a, b in zip(again.parameters(), layer.parameters(), strict=True)
    )
    assert layer.states == 10 == system.states
    assert SharedSSM.from_system(system, orders=2).states == 4
    assert SharedSSM.from_system(system, orders=[2]).states == 4
    assert SharedSSM.from_system(system, orders=0).kernel(3).shape == (4, 3, 3)
    mask = np.array([True, False, True, False, False])
    picked = SharedSSM.from_system(system, kept=mask).to_system()
    assert np.array_equal(picked.poles, system.poles[:, mask])
    padded = system.replace(
        poles=np.pad(system.poles, ((0, 0), (0, 1))),
        B=np.pad(system.B, ((0, 0), (0, 1), (0, 0))),
        C=np.pad(system.C, ((0, 0), (0, 0), (0, 1))),
    )
    assert SharedSSM.from_system(padded).states == 10
    for wrong in ({"orders": 7}, {"orders": [1, 1]}, {"kept": mask[:3]}, {"orders": 1.5}):
        with pytest.raises(OrderError, match="from_system"):
            SharedSSM.from_system(system, **wrong)
    with pytest.raises(ShapeError, match="both"):
        SharedSSM.from_system(system, orders=1, kept=mask)
    for bad in (system.replace(real_output=False), "no system"):
        with pytest.raises(ShapeError, match="shared state"):
            SharedSSM.from_system(bad)
    with pytest.raises(ShapeError, match="fit each other"):
        SharedSSM([0.5], [[1.0]], [[1.0, 2.0]])
    with pytest.raises(ShapeError, match="fit each other"):
        SharedSSM([0.5], [[1.0, 1.0]], [[1.0]], [1.0])


def test_a_diagonal_direct_term_is_stored_as_one():
    layer = shared(7, m=3, p=3, diagonal=True)
    system = layer.to_system()
    assert SharedSSM.from_system(system).D.shape == (3,)
    full = system.replace(D=system.D + 1.0)
    assert SharedSSM.from_system(full).D.shape == (3, 3)
    layer.load_state_dict(SharedSSM.from_system(full, orders=2).state_dict())
    assert (layer.states, tuple(layer.D.shape)) == (4, (3, 3))


def test_broken_state_dicts_name_the_key():
    layer = shared(8)
    good = {k: v.clone() for k, v in layer.state_dict().items()}
    for key, value in {
        "B": good["B"][:, :2],
        "C": good["C"].float(),
        "poles": good["poles"] * float("nan"),
        "D": good["D"][:, 0],
    }.items():
        with pytest.raises(CheckpointError, match=rf"SharedSSM: .*{key}"):
            copy.deepcopy(layer).load_state_dict(good | {key: value})


def test_the_right_core_for_every_system():
    ones = np.ones
    wide = DiagonalSystem(
        0.5 * ones((1, 2)), ones((1, 2, 3)), ones((1, 1, 2)),
        recurrence="post-update", real_output=True,
    )  # fmt: skip
    assert type(core_for(wide)) is SharedSSM
    single = DiagonalSystem(
        0.5 * ones((3, 2)), ones((3, 2)), ones((3, 2)), recurrence="post-update", real_output=True
    )
    assert type(core_for(single)) is ReducedSSM
    assert core_for(single, orders=[0, 1, 2]).states == 6
    one = single.replace(**{k: getattr(single, k)[:1] for k in ("poles", "B", "C", "D")})
    assert type(core_for(one)) is ReducedSSM
    assert type(core_for(one.replace(recurrence="standard"))) is SharedSSM
    assert type(core_for(single.replace(recurrence="standard"))) is ReducedSSM
    assert type(core_for(single.realified())) is DenseSSM
    for wrong in (
        DenseSystem(0.5 * np.eye(2)[None], ones((1, 2, 2)), ones((1, 1, 2))),
        single.replace(real_output=False, B=1j * single.B),
        "no system",
    ):
        with pytest.raises(ShapeError, match="core_for"):
            core_for(wrong)


@pytest.mark.parametrize("diagonal", [False, True])
def test_without_modes_only_the_direct_term_is_left(diagonal):
    layer = shared(n=0, p=3, diagonal=diagonal)
    u = torch.randn(2, 3, 20, dtype=torch.float64)
    D = torch.diag(layer.D) if diagonal else layer.D
    assert (layer(u) - D @ u).abs().max() < AGREEMENT
    assert (stepped(layer, u) - D @ u).abs().max() < AGREEMENT


@pytest.mark.parametrize("delayed", [False, True])
@pytest.mark.parametrize("outputs", [3, 6])
def test_sequences_are_the_same_with_gradients_and_without(delayed, outputs):
    """A convolution by FFT there, the recurrence in a compiled loop here; D a diagonal."""
    rng = np.random.default_rng(0)
    poles = np.array([0.9 * np.exp(0.5j), 1 - 1e-6, -0.3, 0.0])
    B, C = (rng.normal(size=s) + 1j * rng.normal(size=s) for s in ((4, 3), (outputs, 4)))
    layer = SharedSSM(poles, B, C, rng.normal(size=3), delayed=delayed)
    u = torch.from_numpy(rng.normal(size=(2, 3, 300)))
    kept = u.clone()
    learned = layer(u)
    with torch.no_grad():
        plain = layer(u)
    assert learned.requires_grad
    assert torch.equal(u, kept)
    assert (learned - plain).abs().max() <= 1e-12 * plain.abs().max()
    state, steps = layer.initial_state(2), []
    for k in range(300):
        y, state = layer.step(u[..., k], state)
        steps.append(y)
    assert (torch.stack(steps, -1) - plain).abs().max() <= 1e-12 * plain.abs().max()
    assert torch.equal(layer.kernel(5)[3:, :, 0].new_tensor(layer.to_system().D[0, 3:]),
                       torch.zeros(outputs - 3, 3, dtype=torch.float64))  # fmt: skip
