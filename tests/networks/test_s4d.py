import copy

import mpmath
import numpy as np
import pytest
import torch
from foreign_layers import (
    BilinearBank,
    DiagonalMixer,
    ExponentialBank,
    UnusualNames,
    WithShortcut,
    settle,
)
from torch import nn

from ssmred.errors import CheckpointError, OrderError
from ssmred.networks import ReducedSSM, adapter_for
from ssmred.networks.adapters.s4d_parts import find_parts
from ssmred.networks.layers import S4D
from ssmred.systems import DiagonalSystem

# rounding of exp and expm1 in float64, relative to the largest term
SYSTEM_ROUNDING = 1e-13
# float32 forward of a layer whose outputs are of size one
FLOAT32_FORWARD = 2e-5
FROZEN = ("log_dt", "log_A_real", "A_imag")


def read(layer):
    return adapter_for(layer).to_systems(layer)["core"]


@pytest.mark.parametrize(
    "layer",
    [
        S4D(5, 8),
        S4D(5, 8, mixing="linear", dropout=0.1),
        DiagonalMixer(5, 8),
        DiagonalMixer(5, 8, dropout=0.2, frozen=FROZEN),
        DiagonalMixer(5, 8, frozen=("log_dt",), gated=False, transposed=False),
        UnusualNames(5, 4),
        DiagonalMixer(1, 2),
    ],
)
def test_recognised_whatever_it_is_called(layer):
    assert adapter_for(layer).family == "s4d"
    assert adapter_for(copy.deepcopy(layer).double()) is not None


def test_other_structures_are_not_recognised():
    layer = DiagonalMixer(4, 8)
    assert adapter_for(layer.kernel) is None
    assert adapter_for(nn.Linear(3, 3)) is None
    assert adapter_for(ReducedSSM([1])) is None
    assert adapter_for(nn.Sequential(layer)) is None
    for change in (
        lambda m: m.register_parameter("extra", nn.Parameter(torch.zeros(1))),
        lambda m: m.add_module("norm", nn.LayerNorm(4)),
        lambda m: setattr(m, "D", nn.Parameter(torch.zeros(3))),
        lambda m: setattr(m, "output_linear", nn.Conv1d(4, 4, 3)),
        lambda m: setattr(m.kernel, "C", nn.Parameter(torch.zeros(4, 3, 2))),
    ):
        other = DiagonalMixer(4, 8)
        change(other)
        assert find_parts(other) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_system_against_fifty_digits(dtype):
    layer = settle(DiagonalMixer(3, 8), dtype)
    response = read(layer).impulse_response(200)[..., 0, 0]
    stored = {k: v.detach().double().numpy() for k, v in layer.kernel.state_dict().items()}
    D = layer.D.detach().double().numpy()
    with mpmath.workdps(50):
        for h in range(3):
            step = mpmath.exp(mpmath.mpf(stored["log_dt"][h]))
            for k in (0, 1, 199):
                total, size = mpmath.mpf(0), mpmath.mpf(0)
                for i in range(4):
                    A = mpmath.mpc(-mpmath.exp(stored["log_A_real"][h, i]), stored["A_imag"][h, i])
                    C = mpmath.mpc(*stored["C"][h, i])
                    pole = mpmath.exp(step * A)
                    term = 2 * C * (pole - 1) / A * pole**k
                    total, size = total + mpmath.re(term), size + abs(term)
                total += D[h] if k == 0 else 0
                assert abs(response[h, k] - total) <= SYSTEM_ROUNDING * (size + abs(D[h]) + 1e-300)


def test_real_mode_and_tiny_step():
    layer = DiagonalMixer(2, 4)
    with torch.no_grad():
        layer.kernel.A_imag.zero_()
        layer.kernel.log_dt[0] = -12.0  # exp(dt A) - 1 cancels eleven bits of float32
    system = read(layer)
    assert (system.poles.imag == 0).all()


def block_of(layer):
    adapter = adapter_for(layer)
    system = adapter.to_systems(layer)["core"]
    return adapter.to_block(layer, {"core": ReducedSSM.from_system(system)}).eval()


@pytest.mark.parametrize("transposed", [True, False])
@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_block_is_a_drop_in(transposed, gated, dtype):
    layer = settle(DiagonalMixer(6, 8, dropout=0.2, transposed=transposed, gated=gated), dtype)
    block = block_of(layer)
    u = torch.randn(2, 6, 33, dtype=dtype) if transposed else torch.randn(2, 33, 6, dtype=dtype)
    with torch.no_grad():
        wanted, none = layer(u, mask=None)
        got, nothing = block(u, mask=None)
    assert none is None
    assert nothing is None
    assert got.dtype == dtype
    tolerance = FLOAT32_FORWARD if dtype == torch.float32 else 1e-12
    assert (wanted - got).abs().max() <= tolerance


def test_functional_activation_and_single_output_are_found():
    layer = settle(UnusualNames(5, 4), torch.float64)
    block = block_of(layer)
    u = torch.randn(2, 5, 20, dtype=torch.float64)
    with torch.no_grad():
        assert (layer(u) - block(u)).abs().max() <= 1e-12


def test_another_discretisation_is_an_error():
    layer = DiagonalMixer(4, 8, bank=BilinearBank)
    with pytest.raises(CheckpointError, match="kernel of DiagonalMixer is not the response"):
        read(layer)


def test_another_forward_is_an_error():
    layer = WithShortcut(4, 8)
    system = read(layer)
    with pytest.raises(CheckpointError, match="computes something else"):
        adapter_for(layer).to_block(layer, {"core": ReducedSSM.from_system(system)})


@pytest.mark.parametrize(("sign", "factor"), [(-1.0, 1.0), (1.0, 2.0), (1.0, 1.0 + 1e-4)])
def test_sign_and_factor_slips_are_errors(sign, factor):
    class Slip(ExponentialBank):
        def forward(self, L):
            self = copy.copy(self)
            self._parameters = dict(self._parameters)
            self._parameters["A_imag"] = nn.Parameter(sign * self._parameters["A_imag"])
            return factor * super().forward(L)

    with pytest.raises(CheckpointError, match="not the response"):
        read(DiagonalMixer(4, 8, bank=Slip))


@pytest.mark.parametrize("name", ["C", "log_dt", "log_A_real", "A_imag"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_weights_name_the_key(name, value):
    layer = DiagonalMixer(4, 8)
    with torch.no_grad():
        getattr(layer.kernel, name).view(-1)[1] = value
    with pytest.raises(CheckpointError, match=f"kernel.{name}"):
        read(layer)
    layer = DiagonalMixer(4, 8)
    with torch.no_grad():
        layer.D[0] = value
    with pytest.raises(CheckpointError, match="D holds"):
        read(layer)


def test_extreme_weights_are_refused_not_propagated():
    layer = DiagonalMixer(4, 8)
    with torch.no_grad():
        layer.kernel.log_dt[0] = 800.0
    with pytest.raises(CheckpointError, match="out of range"):
        read(layer)


# Writing back ---------------------------------------------------------------------------------


def reduced_system(layer, orders, seed=0):
    """Return a ragged subset of the layer's modes with new read-outs."""
    system = read(layer)
    rng = np.random.default_rng(seed)
    width = max(max(orders), 1)
    poles, B, C = (np.zeros((len(orders), width), complex) for _ in range(3))
    for h, order in enumerate(orders):
        kept = np.sort(rng.permutation(system.poles.shape[1])[:order])
        poles[h, :order] = system.poles[h, kept]
        B[h, :order] = system.B[h, kept, 0]
        C[h, :order] = rng.standard_normal(order) + 1j * rng.standard_normal(order)
    return DiagonalSystem(
        poles, B, C, rng.standard_normal(len(orders)), recurrence="post-update", real_output=True
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("frozen", [(), FROZEN])
def test_padded_layer_loads_into_its_own_class(dtype, frozen):
    layer = settle(DiagonalMixer(4, 16, frozen=frozen), dtype)
    system = reduced_system(layer, [3, 0, 1, 5])
    plain = adapter_for(layer).from_systems(layer, {"core": system})
    assert type(plain) is DiagonalMixer
    assert plain.n == 10
    fresh = DiagonalMixer(4, 10, frozen=frozen).to(dtype)
    fresh.load_state_dict(plain.state_dict())
    kernel = fresh.kernel(L=100).double().detach().numpy()
    wanted = system.replace(D=0 * system.D).impulse_response(100)[..., 0, 0]
    scale = np.abs(system.B[..., 0] * system.C[:, 0]).sum(axis=1, keepdims=True) + 1e-300
    tolerance = 2e-3 if dtype == torch.float32 else 1e-12  # phases up to 60 rad in float32
    assert (np.abs(kernel - wanted) <= tolerance * scale).all()
    stored = {k.item() for k in layer.kernel.A_imag.flatten()}
    used = plain.kernel.C.abs().sum(-1) > 0
    assert {k.item() for k in plain.kernel.A_imag[used]} <= stored  # bit for bit
    assert sum(used.sum(1).tolist()) == 9
    again = adapter_for(plain).to_systems(plain)["core"]
    assert again.poles.shape == (4, 5)


def test_wider_padding_and_bad_sizes():
    layer = settle(DiagonalMixer(4, 16), torch.float64)
    system = reduced_system(layer, [3, 0, 1, 5])
    adapter = adapter_for(layer)
    assert adapter.from_systems(layer, {"core": system}, states=16).n == 16
    for states in (8, 11):
        with pytest.raises(OrderError, match="even number >= 10"):
            adapter.from_systems(layer, {"core": system}, states=states)
    with pytest.raises(OrderError, match="4 channels"):
        adapter.from_systems(layer, {"core": reduced_system(DiagonalMixer(2, 16), [1, 1])})
    assert adapter.from_systems(layer, {"core": reduced_system(layer, [0, 0, 0, 0])}).n == 2


@pytest.mark.parametrize("pole", [0.0, 1.0, 1.2j])
def test_poles_without_parameters_are_refused(pole):
    layer = settle(DiagonalMixer(1, 4), torch.float64)
    system = DiagonalSystem(
        [[pole]], [[1.0]], [[1.0]], [0.0], recurrence="post-update", real_output=True
    )
    with pytest.raises(CheckpointError, match=r"0 < \|pole\| < 1"):
        adapter_for(layer).from_systems(layer, {"core": system})


def test_poles_that_moved_are_written():
    layer = settle(DiagonalMixer(2, 4), torch.float64)
    system = DiagonalSystem(
        [[0.5 + 0.2j, -0.3], [0.999j, 0.1]],
        np.ones((2, 2)),
        [[1j, 2.0], [1.0, -1.0]],
        [0.5, 0.0],
        recurrence="post-update",
        real_output=True,
    )
    plain = adapter_for(layer).from_systems(layer, {"core": system})
    kernel = plain.kernel(L=50).detach().numpy()
    wanted = system.replace(D=0 * system.D).impulse_response(50)[..., 0, 0]
    assert np.abs(kernel - wanted).max() <= 1e-11  # a pole taken through log, / dt, exp
    assert plain.D.tolist() == [0.5, 0.0]


def test_writing_leaves_the_layer_alone():
    layer = settle(DiagonalMixer(4, 16), torch.float32)
    before = copy.deepcopy(layer.state_dict())
    adapter_for(layer).from_systems(layer, {"core": reduced_system(layer, [1, 1, 1, 1])})
    assert all(torch.equal(before[k], v) for k, v in layer.state_dict().items())
