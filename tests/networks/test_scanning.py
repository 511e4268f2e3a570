"""The compiled recurrence against convolution by FFT, and where it must not run."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad

from ssmred.kernels.scan import scan_states
from ssmred.networks.layers import LRU, S5, LQOLayer
from ssmred.networks.scanning import can_scan

LAYERS = {
    "s5": lambda: S5(6, 16),
    "s5, both ways": lambda: S5(6, 16, bidirectional=True),
    "lru": lambda: LRU(6, 18),
    "lqo": lambda: LQOLayer(6, 10, rank=2),
    "lqo, one mode": lambda: LQOLayer(3, 2),
}
ROUNDING = {torch.float32: 1e-6, torch.float64: 1e-14}


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("name", LAYERS)
def test_recurrence_and_convolution_agree(name, dtype):
    torch.manual_seed(0)
    layer = LAYERS[name]().to(dtype)
    u = torch.randn(3, layer.D.numel(), 700, dtype=dtype)
    kept = u.clone()
    with torch.no_grad():
        recurrence = layer(u)
    convolution = layer(u.requires_grad_()).detach()
    assert torch.equal(u, kept)
    scale = convolution.abs().max()
    assert (recurrence - convolution).abs().max() <= ROUNDING[dtype] * scale


@pytest.mark.parametrize("modes", range(1, 10))
def test_states_against_the_recurrence_written_out(modes):
    rng = np.random.default_rng(modes)
    poles = rng.uniform(-0.7, 0.7, (modes, 2))
    drive = rng.standard_normal((2, modes, 30, 2))
    expected = np.zeros((2, modes), complex)
    states = drive.copy()
    scan_states(poles, states)
    for k in range(30):
        expected = poles @ [1, 1j] * expected + drive[:, :, k] @ [1, 1j]
        np.testing.assert_allclose(states[:, :, k] @ [1, 1j], expected, rtol=0, atol=1e-14)


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


def test_gradients_and_other_devices_go_by_convolution():
    poles = torch.zeros(2, 2, dtype=torch.float64)
    assert can_scan(poles, torch.zeros(1, 2, 5, 2))
    assert not can_scan(poles, torch.zeros(1, 2, 5, 2, requires_grad=True))
    assert not can_scan(poles, torch.zeros(1, 2, 5, 2, device="meta"))
