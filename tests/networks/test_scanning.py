"""The compiled recurrence against convolution by FFT, and where it must not run."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad

from ssmred.kernels.scan import scan_states
from ssmred.networks.layers import LRU, S5, LQOLayer, shared_state
from ssmred.networks.scanning import can_scan, scan
from ssmred.networks.shared import SharedSSM

LAYERS = {
    "s5": lambda: S5(6, 16),
    "s5, both ways": lambda: S5(6, 16, bidirectional=True),
    "lru": lambda: LRU(6, 18),
    "lqo": lambda: LQOLayer(6, 10, rank=2),
    "lqo, one mode": lambda: LQOLayer(3, 2),
}
ROUNDING = {torch.float32: 1e-6, torch.float64: 1e-14}
FIRST_ROUNDING = {torch.float32: 3e-5, torch.float64: 1e-12}
"""Of gradients, relative to the largest entry of each."""


def by_convolution(monkeypatch, layer, u):
    with monkeypatch.context() as patch:
        patch.setattr(shared_state, "can_scan", lambda *_: False)
        return layer(u)


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("name", LAYERS)
def test_recurrence_and_convolution_agree(name, dtype, monkeypatch):
    torch.manual_seed(0)
    layer = LAYERS[name]().to(dtype)
    u = torch.randn(3, layer.D.numel(), 700, dtype=dtype)
    kept = u.clone()
    with torch.no_grad():
        recurrence = layer(u)
        convolution = by_convolution(monkeypatch, layer, u)
    learning = layer(u).detach()
    assert torch.equal(u, kept)
    scale = convolution.abs().max()
    assert (recurrence - convolution).abs().max() <= ROUNDING[dtype] * scale
    assert (learning - recurrence).abs().max() <= ROUNDING[dtype] * scale


@pytest.mark.parametrize("dtype", FIRST_ROUNDING)
@pytest.mark.parametrize("name", LAYERS)
def test_gradients_of_recurrence_and_convolution_agree(name, dtype, monkeypatch):
    torch.manual_seed(0)
    layer = LAYERS[name]().to(dtype)
    u = torch.randn(3, layer.D.numel(), 300, dtype=dtype, requires_grad=True)
    weights = torch.randn_like(u)
    wanted = (u, *layer.parameters())
    found = torch.autograd.grad((layer(u) * weights).sum(), wanted)
    expected = torch.autograd.grad((by_convolution(monkeypatch, layer, u) * weights).sum(), wanted)
    for one, other in zip(found, expected, strict=True):
        assert (one - other).abs().max() <= FIRST_ROUNDING[dtype] * other.abs().max()


@pytest.mark.parametrize("modes", [1, 4, 6])
@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
def test_gradients_and_theirs_against_finite_differences(modes, batch):
    torch.manual_seed(modes)
    poles = (torch.rand(modes, 2, dtype=torch.float64) - 0.5).requires_grad_()
    drive = torch.randn(*batch, 2, modes, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(scan, (poles, drive))
    assert torch.autograd.gradgradcheck(scan, (poles, drive))


@pytest.mark.parametrize("steps", [0, 1])
def test_gradients_of_short_sequences(steps):
    layer = SharedSSM([0.5, 0.2j], [[1.0], [2.0]], [[4.0, 1.0]])
    u = torch.ones(2, 1, steps, dtype=torch.float64, requires_grad=True)
    y = layer(u)
    y.sum().backward()
    assert y.shape == (2, 1, steps)
    np.testing.assert_array_equal(u.grad, np.full((2, 1, steps), 6.0))
    np.testing.assert_array_equal(layer.poles.grad, np.zeros((2, 2)))


@pytest.mark.parametrize("modes", range(1, 10))
def test_states_against_the_recurrence_written_out(modes):
    rng = np.random.default_rng(modes)
    poles = rng.uniform(-0.7, 0.7, (modes, 2))
    drive = rng.standard_normal((2, 2, modes, 30))
    kept, states = drive.copy(), np.empty_like(drive)
    scan_states(poles, drive, states)
    np.testing.assert_array_equal(drive, kept)
    expected = np.zeros((2, modes), complex)
    for k in range(30):
        expected = poles @ [1, 1j] * expected + drive[:, 0, :, k] + 1j * drive[:, 1, :, k]
        found = states[:, 0, :, k] + 1j * states[:, 1, :, k]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14)
    scan_states(poles, drive, drive)
    np.testing.assert_array_equal(drive, states)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_transforms_look_through_a_layer():
    """Under vmap, jvp and a tracer tensors have no memory that a compiled loop could read."""
    torch.manual_seed(0)
    layer = LQOLayer(3, 8).double()
    u, v = torch.randn(2, 4, 3, 20, dtype=torch.float64)
    with torch.no_grad():
        whole = layer(u)
        each = torch.vmap(lambda row: layer(row[None])[0])(u)
        torch.testing.assert_close(each, whole, rtol=1e-12, atol=1e-12)
        _, slope = torch.func.jvp(layer, (u,), (v,))
        with forward_ad.dual_level():
            dual = layer(forward_ad.make_dual(u, v))
            same = forward_ad.unpack_dual(dual).tangent
        step = 1e-6
        quotient = (layer(u + step * v) - layer(u - step * v)) / (2 * step)
        for found in (slope, same):
            torch.testing.assert_close(found, quotient, rtol=1e-6, atol=1e-6)
        program = torch.export.export(layer, (u,)).module()
        torch.testing.assert_close(program(v), layer(v), rtol=1e-12, atol=1e-12)


def test_derivatives_by_the_parameters_look_through_a_layer():
    torch.manual_seed(0)
    layer = LQOLayer(3, 8).double()
    u = torch.randn(2, 3, 20, dtype=torch.float64)
    weights = dict(layer.named_parameters())

    def loss(weights):
        return torch.func.functional_call(layer, weights, (u,)).square().sum()

    slopes = torch.func.grad(loss)(weights)
    layer(u).square().sum().backward()
    for name, slope in slopes.items():
        torch.testing.assert_close(slope, weights[name].grad, rtol=1e-10, atol=1e-10)


def test_other_devices_and_dtypes_go_by_convolution():
    poles = torch.zeros(2, 2, dtype=torch.float64)
    assert can_scan(poles, torch.zeros(1, 2, 2, 5, requires_grad=True))
    assert not can_scan(poles, torch.zeros(1, 2, 2, 5, device="meta"))
    assert not can_scan(poles, torch.zeros(1, 2, 2, 5, dtype=torch.float16))
