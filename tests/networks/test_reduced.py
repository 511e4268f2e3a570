import copy
import itertools

import mpmath
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ssmred.errors import CheckpointError, OrderError, ShapeError
from ssmred.networks import ReducedSSM
from ssmred.systems import DiagonalSystem

EPS = np.finfo(np.float64).eps
# a table entry and one product per mode, then a sum over at most 8 modes
KERNEL_ROUNDING = 16 * EPS
# float64 FFT of a few hundred points against a direct sum, relative to the sum of sizes
CONVOLUTION_ROUNDING = 1e-13


def random_layer(orders, seed=0):
    rng = np.random.default_rng(seed)
    modes = int(np.sum(orders))
    radius, angle = rng.uniform(0.7, 0.999, modes), rng.uniform(-np.pi, np.pi, modes)
    poles = radius * np.exp(1j * angle)
    residues = rng.standard_normal(modes) + 1j * rng.standard_normal(modes)
    return ReducedSSM(orders, poles, residues, rng.standard_normal(len(orders))).eval()


def exact_kernel(layer, channel, steps):
    """Return Re sum r l^k + D [k = 0] with 50 digits from the stored numbers."""
    low, high = layer.offsets[channel], layer.offsets[channel + 1]
    with mpmath.workdps(50):
        modes = [
            (mpmath.mpc(*p.tolist()), mpmath.mpc(*r.tolist()))
            for p, r in zip(layer.poles[low:high], layer.residues[low:high], strict=True)
        ]
        values = [mpmath.re(mpmath.fsum(r * p**k for p, r in modes)) for k in steps]
        direct = mpmath.mpf(layer.D[channel].item())
        return [v + (direct if k == 0 else 0) for v, k in zip(values, steps, strict=True)]


@pytest.mark.parametrize("T", [1, 2, 3, 17, 64, 65, 1000])
def test_kernel_against_fifty_digits(T):
    layer = random_layer([3, 0, 1, 8])
    with torch.no_grad():
        kernel = layer.kernel(T).numpy()
    sizes = [float(np.abs(_complex(layer.residues)[a:b]).sum()) for a, b in _pairs(layer.offsets)]
    steps = sorted({0, 1 % T, T // 2, T - 1})
    for channel, size in enumerate(sizes):
        for k, value in zip(steps, exact_kernel(layer, channel, steps), strict=True):
            assert abs(kernel[channel, k] - float(value)) <= KERNEL_ROUNDING * (
                size + abs(layer.D[channel].item())
            )


def test_slow_and_repeated_and_zero_poles():
    pole = (1 - 1e-12) * np.exp(0.3j)
    layer = ReducedSSM([2, 2, 1], [pole, pole, 0.5, 0.5, 0.0], [1, 2j, 1e8, -1e8, 3.0], [0, 0, 1])
    with torch.no_grad():
        kernel = layer.kernel(100_000).numpy()
    for k in (0, 1, 99_999):
        (value,) = exact_kernel(layer, 0, [k])
        assert abs(kernel[0, k] - float(value)) <= 3 * KERNEL_ROUNDING
    assert np.abs(kernel[1]).max() == 0.0
    assert kernel[2, :3].tolist() == [4.0, 0.0, 0.0]


def _complex(pairs):
    return pairs.detach().numpy().view(np.complex128)[:, 0]


def _pairs(offsets):
    return list(itertools.pairwise(offsets.tolist()))


@pytest.mark.parametrize("T", [1, 2, 50, 199])
def test_forward_is_the_causal_convolution(T):
    layer = random_layer([3, 0, 2])
    u = torch.randn(4, 3, T, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        y, kernel = layer(u), layer.kernel(T)
    for batch in range(4):
        for channel in range(3):
            direct = np.convolve(kernel[channel].numpy(), u[batch, channel].numpy())[:T]
            scale = float(kernel[channel].abs().sum() * u[batch, channel].abs().max())
            assert np.abs(y[batch, channel].numpy() - direct).max() <= CONVOLUTION_ROUNDING * scale
    assert torch.equal(layer(u[0]), y[0]) or (layer(u[0]) - y[0]).abs().max() <= 1e-12


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_signals_keep_their_dtype_and_parameters_stay_float64(dtype):
    layer = random_layer([2, 1]).to(dtype)
    assert {p.dtype for p in layer.parameters()} == {torch.float64}
    y = layer(torch.ones(1, 2, 9, dtype=dtype))
    assert y.dtype == dtype
    assert torch.isfinite(y).all()


def test_casts_lose_no_digit():
    layer = random_layer([3, 2])
    before = copy.deepcopy(layer.state_dict())
    nn.Sequential(layer).half().float().double()
    assert all(torch.equal(before[k], v) for k, v in layer.state_dict().items())
    assert layer.offsets.dtype == torch.int64


def test_step_by_step_equals_the_whole_sequence():
    layer = random_layer([3, 0, 2, 8])
    u = torch.randn(2, 4, 60, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        whole = layer(u)
        state, steps = layer.initial_state(2), []
        for k in range(60):
            y, state = layer.step(u[:, :, k], state)
            steps.append(y)
    scale = float(layer.residues.detach().abs().sum()) * 60
    assert (torch.stack(steps, -1) - whole).abs().max() <= CONVOLUTION_ROUNDING * scale


def test_compiled_step_and_torch_step_agree_and_leave_the_state_alone():
    layer = random_layer([3, 0, 2])
    u, state = torch.randn(2, 3), layer.initial_state(2).normal_()
    kept = state.clone()
    with torch.no_grad():
        fast = layer.step(u, state)
    slow = layer.step(u, state)  # gradients are wanted here
    assert slow[0].requires_grad
    assert torch.equal(state, kept)
    with torch.no_grad():
        y, same = layer.step(u, kept, in_place=True)
    assert same is kept
    assert torch.equal(same, fast[1])
    assert torch.equal(y, fast[0])
    assert torch.allclose(fast[0], slow[0], rtol=1e-6, atol=1e-6)
    assert torch.allclose(fast[1], slow[1], rtol=1e-14, atol=1e-14)


def test_gradients_by_finite_differences():
    layer = random_layer([2, 0, 1]).train()
    u = torch.randn(1, 3, 7, dtype=torch.float64, requires_grad=True)

    def run(u, poles, residues, D):
        return torch.func.functional_call(
            layer, {"poles": poles, "residues": residues, "D": D}, (u,)
        )

    inputs = (u, *(p.detach().clone().requires_grad_() for p in layer.parameters()))
    assert torch.autograd.gradcheck(run, inputs)


def test_input_gradients_through_a_frozen_layer():
    layer = random_layer([2, 1]).requires_grad_(False)
    u = torch.randn(1, 2, 9, dtype=torch.float64, requires_grad=True)
    layer(u).sum().backward()
    with torch.no_grad():
        expected = layer.kernel(9).cumsum(-1).flip(-1)
    assert torch.allclose(u.grad[0], expected, rtol=1e-12, atol=1e-12)


def test_cached_kernel_follows_every_change():
    layer = random_layer([2, 1])
    u = torch.ones(1, 2, 9, dtype=torch.float64)

    def fresh():
        return ReducedSSM(
            layer.orders, _complex(layer.poles), _complex(layer.residues), layer.D.detach()
        ).eval()(u)

    with torch.no_grad():
        layer(u)
        layer.residues.mul_(2.0)
        assert torch.equal(layer(u), fresh())
        layer.load_state_dict(random_layer([2, 1], seed=5).state_dict())
        assert torch.equal(layer(u), fresh())
        layer.D.data = layer.D.data + 1.0
        assert torch.equal(layer(u), fresh())
        torch.optim.SGD(layer.parameters(), 0.1)
        layer.poles.data.mul_(0.5)  # hidden from torch
        layer.clear_cache()
        assert torch.equal(layer(u), fresh())
        layer(u[..., :4])
        assert torch.equal(layer(u), fresh())
    assert copy.deepcopy(layer)._kept == {}


def test_cache_is_used_and_bounded():
    layer = random_layer([2, 1])
    with torch.no_grad():
        for T in range(1, 30):
            layer(torch.ones(1, 2, T))
        first = layer._spectrum(29, 60, torch.complex64)
        assert layer._spectrum(29, 60, torch.complex64) is first
    assert len(layer._kept) <= 8


def test_state_dict_of_another_size_through_safetensors(tmp_path):
    source, target = random_layer([3, 0, 2]), random_layer([1, 1])
    network, other = nn.Sequential(target), nn.Sequential(source)
    save_file(other.state_dict(), tmp_path / "weights.safetensors")
    network.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    u = torch.randn(1, 3, 5)
    with torch.no_grad():
        assert torch.equal(network(u), other(u))
    assert target.states == 10
    assert target.orders.tolist() == [3, 0, 2]


def test_damaged_state_dicts_name_the_key():
    state = nn.Sequential(random_layer([3, 2])).state_dict()
    damages = {
        "0.offsets": torch.tensor([0, 4, 3]),
        "0.poles": torch.zeros(4, 2, dtype=torch.float64),
        "0.D": torch.zeros(2),
        "0.residues": torch.full((5, 2), float("nan"), dtype=torch.float64),
    }
    for key, tensor in damages.items():
        with pytest.raises(CheckpointError, match=key):
            nn.Sequential(random_layer([1])).load_state_dict(state | {key: tensor})
    with pytest.raises(RuntimeError, match="residues"):  # torch's own message
        nn.Sequential(random_layer([1])).load_state_dict(
            {k: v for k, v in state.items() if k != "0.residues"}
        )


def test_system_round_trip_and_padding():
    layer = random_layer([3, 0, 2])
    system = layer.to_system()
    assert system.poles.shape == (3, 3)
    assert system.recurrence == "post-update"
    again = ReducedSSM.from_system(system)
    assert again.orders.tolist() == [3, 0, 2]
    assert all(
        torch.equal(a, b) for a, b in zip(layer.parameters(), again.parameters(), strict=True)
    )
    response = system.impulse_response(20)[..., 0, 0]
    with torch.no_grad():
        assert np.abs(layer.kernel(20).numpy() - response).max() <= 1e-13
    empty = random_layer([0, 0])
    assert ReducedSSM.from_system(empty.to_system()).states == 0
    assert empty(torch.ones(1, 2, 4)).shape == (1, 2, 4)


def test_from_system_keeps_what_it_is_told():
    rng = np.random.default_rng(3)
    poles = 0.9 * np.exp(1j * rng.uniform(0, 3, (2, 4)))
    B, C = rng.standard_normal((2, 2, 4)) + 1j * rng.standard_normal((2, 2, 4))
    system = DiagonalSystem(
        poles, B, C, rng.standard_normal(2), recurrence="post-update", real_output=True
    )
    by_orders = ReducedSSM.from_system(system, orders=[1, 3])
    assert np.array_equal(_complex(by_orders.poles), np.r_[poles[0, :1], poles[1, :3]])
    mask = np.array([[False, True, False, True], [False] * 4])
    by_mask = ReducedSSM.from_system(system, kept=mask)
    assert np.array_equal(_complex(by_mask.residues), (C * B)[mask])
    standard = system.with_recurrence("standard")
    with torch.no_grad():
        same = ReducedSSM.from_system(standard).kernel(9).numpy()
    assert np.allclose(same, system.impulse_response(9)[..., 0, 0], rtol=1e-12, atol=1e-12)
    for wrong in ({"orders": [5, 1]}, {"orders": [1]}, {"kept": mask[:1]}, {"kept": mask * 1.0}):
        with pytest.raises(ShapeError, match="from_system"):
            ReducedSSM.from_system(system, **wrong)
    with pytest.raises(ShapeError, match="real_output"):
        ReducedSSM.from_system(system.replace(real_output=False))


def test_bad_arguments():
    with pytest.raises(OrderError, match="orders"):
        ReducedSSM([1, -1])
    with pytest.raises(OrderError, match="poles"):
        ReducedSSM([2], poles=[0.5])
    with pytest.raises(ShapeError, match="D"):
        ReducedSSM([1, 1], D=[1.0])
    layer = random_layer([2, 1])
    for u in (torch.ones(1, 3, 5), torch.ones(1, 5, 2), torch.ones(1, 2, 5, dtype=torch.int64)):
        with pytest.raises(ShapeError, match="batch, 2, T"):
            layer(u)
    with pytest.raises(ShapeError, match="step"):
        layer.step(torch.ones(2, 2), layer.initial_state(1))
