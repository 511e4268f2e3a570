"""Live S4 layers: import, settings found by comparing, drop-ins, wrong convolutions."""

import copy
import itertools
import warnings

import numpy as np
import pytest
import torch
from foreign_s4 import BlockV4, Convolver
from published_classes import popgym_s4
from torch import nn

from ssmred.errors import CheckpointError
from ssmred.networks import ReducedSSM
from ssmred.networks.adapters.s4_block import S4Adapter
from ssmred.networks.adapters.s4_parts import find_parts
from ssmred.networks.adapters.s4_settings import S4Settings
from ssmred.networks.cores import core_for, full_core
from ssmred.systems import DenseSystem, DiagonalSystem

# relative error of an imported response asked for; float32 modules are compared in float64 too,
# where their own rounding does not hide anything
ACCURACY = 1e-12
# float32 forward of a layer whose outputs are of size one
FLOAT32_FORWARD = 2e-5
FLOAT64_FORWARD = 1e-11

TRANSFORMS = [
    ("exp", "none", "exp"),
    ("softplus", "exp", "softplus"),
    ("sigmoid", "softplus", "none"),
    ("relu", "relu", "relu"),
    ("none", "sigmoid", "sigmoid"),
]


def own_kernels(block, length):
    """Return what the layer's own class computes in float64, core by core, (rows, length)."""
    layer = copy.deepcopy(block).double()
    inner = getattr(layer, "layer", layer)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kernels = inner.kernel(L=length, rate=1.0)[0].numpy()
    channels = inner.D.shape[0]
    parts = [kernels[:channels], kernels[channels:]]
    if getattr(inner, "swap_channels", False):
        parts = [np.swapaxes(part, 0, 1) for part in parts]
    return [part.reshape(-1, length) for part in parts if part.size]


def worst_error(block, systems, length):
    errors = []
    for system, kernels in zip(systems.values(), own_kernels(block, length), strict=True):
        got = system.replace(D=0 * system.D).impulse_response(length)[..., 0, 0]
        scale = np.abs(kernels).max(axis=-1)
        errors.append((np.abs(got - kernels).max(axis=-1) / scale).max())
    return max(errors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("transforms", TRANSFORMS)
@pytest.mark.parametrize("disc", ["zoh", "bilinear", "dss"])
def test_hundred_diagonal_heads(disc, transforms, dtype):
    """Every head is a random instance of its own."""
    real, imag, step = transforms
    block = BlockV4(
        100, states=6, disc=disc, real_transform=real, imag_transform=imag, dt_transform=step
    ).to(dtype)
    adapter = S4Adapter(S4Settings(length=150))
    assert adapter.recognises(block)
    systems = adapter.to_systems(block)
    system = systems["core"]
    assert isinstance(system, DiagonalSystem)
    assert system.poles.shape == (100, 3)
    assert system.is_post_update
    assert system.real_output
    assert worst_error(block, systems, 150) <= ACCURACY


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("transforms", TRANSFORMS)
@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("made_for", [0, 150])
def test_hundred_low_rank_heads(rank, transforms, dtype, made_for):
    real, imag, step = transforms
    block = BlockV4(
        100, states=6, mode="dplr", rank=rank, real_transform=real, imag_transform=imag,
        dt_transform=step,
    ).to(dtype)  # fmt: skip
    if made_for:
        block.layer.kernel.make_for(made_for)
    before = {name: tensor.clone() for name, tensor in block.state_dict().items()}
    systems = S4Adapter().to_systems(block)
    assert all(torch.equal(before[n], t) for n, t in block.state_dict().items())
    system = systems["core"]
    assert isinstance(system, DenseSystem)
    assert system.A.shape == (100, 6, 6)
    assert system.A.dtype == np.float64
    assert worst_error(block, systems, 150) <= ACCURACY


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("measure", "rank"), [("legs", 1), ("legt", 2), ("fourier", 1)])
def test_layers_as_they_are_initialised(measure, rank, dtype):
    """HiPPO matrices of 64 states, badly conditioned in modes, over 1000 steps."""
    torch.manual_seed(0)
    source = popgym_s4().S4(8, d_state=64, mode="nplr", measure=measure, rank=rank).kernel.kernel
    block = BlockV4(8, states=64, mode="dplr", rank=rank)
    kernel = block.layer.kernel
    with torch.no_grad():
        kernel.A_real.copy_(source.inv_w_real)
        kernel.A_imag.copy_(-source.w_imag)
        kernel.inv_dt.copy_(source.log_dt[:, None])
        for name in ("B", "C", "P"):
            getattr(kernel, name).copy_(getattr(source, name))
    block = block.to(dtype)
    for made_for in (0, 1024):
        if made_for:
            block.layer.kernel.make_for(made_for)
        systems = S4Adapter().to_systems(block)
        assert worst_error(block, systems, 1000) <= ACCURACY
        assert worst_error(S4Adapter().from_systems(block, systems), systems, 1000) <= (
            ACCURACY if dtype == torch.float64 else 1e-6
        )


@pytest.mark.parametrize("mode", ["diag", "dplr"])
@pytest.mark.parametrize(
    "options",
    [
        {"systems": 3},
        {"systems": 1, "channels": 2},
        {"channels": 3, "swap_channels": True},
        {"bidirectional": True},
        {"bidirectional": True, "channels": 2, "systems": 2, "swap_channels": True},
    ],
)
def test_shapes_of_layers(mode, options):
    block = BlockV4(6, mode=mode, **options)
    systems = S4Adapter().to_systems(block)
    assert set(systems) == ({"core", "backward"} if options.get("bidirectional") else {"core"})
    assert worst_error(block, systems, 60) <= ACCURACY
    D = block.layer.D.detach().numpy()
    D = D.T if options.get("swap_channels") else D
    np.testing.assert_array_equal(systems["core"].D.reshape(-1), D.reshape(-1))
    if "backward" in systems:
        assert not systems["backward"].D.any()


@pytest.mark.parametrize(
    "options",
    [{"bandlimit": 0.3}, {"tied": False}, {"real": True}, {"real": True, "disc": "bilinear"}],
)
def test_rare_options(options):
    block = BlockV4(8, **options)
    assert worst_error(block, S4Adapter().to_systems(block), 80) <= ACCURACY


def drop_in(block, adapter=None):
    adapter = adapter or S4Adapter()
    systems = adapter.to_systems(block)
    return adapter.to_block(block, {n: full_core(s) for n, s in systems.items()})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"transposed": False, "final": "none"},
        {"mode": "dplr", "l_max": 40},
        {"mode": "dplr", "channels": 2, "bidirectional": True, "transposed": False},
        {"channels": 2, "swap_channels": True, "systems": 2},
        {"bidirectional": True, "activation": "glu", "dropout": 0.1},
        {"dropout": 0.2, "tie": True},
    ],
)
def test_block_is_a_drop_in(options, dtype):
    block = BlockV4(6, **options).to(dtype).eval()
    new = drop_in(block).eval()
    transposed = options.get("transposed", True)
    u = torch.randn(2, 6, 33, dtype=dtype) if transposed else torch.randn(2, 33, 6, dtype=dtype)
    with torch.no_grad():
        got, nothing = new(u, lengths=None)
        wanted, state = copy.deepcopy(block)(u)
    assert nothing is None
    assert state is None
    assert (wanted - got).abs().max() <= (
        FLOAT32_FORWARD if dtype == torch.float32 else FLOAT64_FORWARD
    )
    mixing = {n for n in block.state_dict() if n.startswith("output_linear")}
    assert mixing <= set(new.state_dict())  # what is fine-tuned there is found again


@pytest.mark.parametrize("transposed", [True, False])
@pytest.mark.parametrize("activation", ["gelu", "glu"])
def test_inner_layer_alone_is_recognised(transposed, activation):
    layer = Convolver(5, transposed=transposed, activation=activation, bidirectional=True)
    new = drop_in(layer)
    u = torch.randn(2, 5, 21, dtype=torch.float64)
    u = u if transposed else u.mT
    with torch.no_grad():
        assert (layer(u)[0] - new(u)[0]).abs().max() <= FLOAT64_FORWARD


def test_a_gated_block_is_recognised_by_its_inner_layer():
    block = BlockV4(4)
    block.input_gate = nn.Linear(4, 4)
    assert find_parts(block) is None
    assert find_parts(block.layer) is not None


def test_training_masks_whole_channels_as_the_layer_does():
    new = drop_in(BlockV4(6, dropout=0.5, tie=True)).train()
    x = torch.ones(3, 6, 40, dtype=torch.float64)
    dropped = new.dropout(x)
    assert dropped.dtype == torch.float64
    assert (dropped.std(dim=-1) == 0).all()
    assert (dropped == 0).any()


def test_dropout_before_the_activation_stays_before_it():
    new = drop_in(BlockV4(6, dropout=0.5)).train()
    kinds = [type(part) for part in new.activation]
    assert kinds == [nn.Dropout, nn.GELU]
    assert type(new.dropout) is nn.Dropout


def test_other_structures_are_not_recognised():
    block = BlockV4(4)
    assert find_parts(block.layer.kernel) is None
    assert find_parts(nn.Linear(3, 3)) is None
    assert find_parts(ReducedSSM([1])) is None
    assert find_parts(nn.Sequential(block)) is None
    other = copy.deepcopy(block)
    other.register_parameter("extra", nn.Parameter(torch.zeros(1)))
    assert find_parts(other) is None
    other = copy.deepcopy(block)
    other.norm = nn.LayerNorm(4)
    assert find_parts(other) is None


# --- settings ------------------------------------------------------------------------------------


def test_only_the_right_setting_agrees():
    """All of them are tried; attributes that lie are not believed."""
    for real, imag, step in itertools.product(
        ("exp", "relu"), ("none", "relu"), ("exp", "softplus")
    ):
        block = BlockV4(3, real_transform=real, imag_transform=imag, dt_transform=step)
        assert worst_error(block, S4Adapter().to_systems(block), 40) <= ACCURACY
    block = BlockV4(3, disc="bilinear")
    kernel = block.layer.kernel
    forward = type(kernel).forward

    class Liar(type(kernel)):
        def forward(self, L, **options):
            self.disc = "bilinear"
            answer = forward(self, L, **options)
            self.disc = "zoh"
            return answer

    kernel.__class__ = Liar
    kernel.disc = "zoh"
    systems = S4Adapter().to_systems(block)
    kernel.__class__, kernel.disc = Liar.__mro__[1], "bilinear"
    assert worst_error(block, systems, 40) <= ACCURACY
    with pytest.raises(CheckpointError, match="not the response of its tensors"):
        S4Adapter(S4Settings(disc="zoh")).to_systems(block)


class Silent(nn.Module):
    """A kernel without attributes that name its transforms: none, none, exp, zoh."""

    def __init__(self, bank, dtype):
        super().__init__()
        self.answers = dtype
        for name, tensor in bank.named_parameters():
            self.register_parameter(name, tensor)

    def forward(self, L, state=None, rate=1.0):
        A = -self.A_real - 1j * self.A_imag
        B, C = torch.view_as_complex(self.B), torch.view_as_complex(self.C)
        x = A * torch.exp(self.inv_dt)
        waves = torch.exp(x[..., None] * torch.arange(L))
        kernels = 2 * torch.einsum("chn,hnl->chl", C * B * (x.exp() - 1) / A, waves).real
        return kernels.to(self.answers), None


def test_settings_that_agree_and_differ_are_asked_for():
    """The floor of a relu, 1e-4, beside 300 is below what float32 shows."""
    block = BlockV4(2, states=2, real_transform="none")
    block.layer.kernel = Silent(block.layer.kernel, torch.float32)
    with torch.no_grad():
        block.layer.kernel.A_real.fill_(300.0)
        block.layer.kernel.A_imag.fill_(300.0)
        block.layer.kernel.inv_dt.fill_(-12.0)
    with pytest.raises(CheckpointError, match=r"more than one setting.*Pass S4Settings\("):
        S4Adapter().to_systems(block)
    told = S4Settings(real_transform="none", imag_transform="none", dt_transform="exp", disc="zoh")
    system = S4Adapter(told).to_systems(block)["core"]
    assert system.poles.shape == (2, 1)
    block.layer.kernel.real_transform = block.layer.kernel.imag_transform = "none"
    block.layer.kernel.disc, block.layer.kernel.dt_transform = "zoh", "exp"
    hinted = S4Adapter().to_systems(block)["core"]  # attributes decide between what agrees
    np.testing.assert_array_equal(hinted.poles, system.poles)


def test_settings_that_mean_the_same_are_no_question():
    """Softplus is the identity above 20."""
    block = BlockV4(2, states=2, real_transform="none")
    block.layer.kernel = Silent(block.layer.kernel, torch.float64)
    with torch.no_grad():
        block.layer.kernel.A_real.fill_(30.0)
        block.layer.kernel.A_imag.fill_(30.0)
    given = S4Settings(disc="zoh", dt_transform="exp")
    for transform in (None, "none", "softplus"):
        system = S4Adapter(given.replace(real_transform=transform)).to_systems(block)["core"]
        assert system.poles.shape == (2, 1)


def test_a_softmax_layer_asks_for_its_length():
    block = BlockV4(4, disc="dss").double()
    with pytest.raises(CheckpointError, match="do not tell length"):
        S4Adapter().to_systems(block)
    one, two = (S4Adapter(S4Settings(length=n)).to_systems(block)["core"] for n in (30, 60))
    assert np.abs(one.C * one.B[..., 0][:, None] - two.C * two.B[..., 0][:, None]).max() > 1e-3
    new = drop_in(block, S4Adapter(S4Settings(length=60)))
    u = torch.randn(1, 4, 60, dtype=torch.float64)
    with torch.no_grad():
        assert (block(u)[0] - new(u)[0]).abs().max() <= FLOAT64_FORWARD


def test_odd_numbers_of_states_are_refused():
    layer = popgym_s4().S4(4, d_state=7, mode="diag", measure="diag-lin")
    with pytest.raises(CheckpointError, match=r"3 pairs .* built with 7 states.*even number"):
        S4Adapter().to_systems(layer)


def test_another_forward_is_an_error():
    class Shortcut(BlockV4):
        def forward(self, x, **options):
            return super().forward(x, **options)[0] + x, None

    block = Shortcut(4)
    systems = S4Adapter().to_systems(block)
    with pytest.raises(CheckpointError, match="computes something else"):
        S4Adapter().to_block(block, {n: core_for(s) for n, s in systems.items()})


@pytest.mark.parametrize("slip", ["sign", "factor", "delay", "conjugate"])
@pytest.mark.parametrize("mode", ["diag", "dplr"])
def test_slips_of_a_kernel_are_errors(slip, mode):
    block = BlockV4(3, mode=mode)
    kernel = block.layer.kernel
    base = type(kernel)

    class Slip(base):
        def forward(self, L, **options):
            if slip == "conjugate":
                self = copy.deepcopy(self)
                self.B.data[..., 1] *= -1
            k, none = base.forward(self, L=L, **options)
            return {"sign": -k, "factor": k * (1 + 1e-6), "delay": k.roll(1, -1)}.get(slip, k), none

    kernel.__class__ = Slip
    with pytest.raises(CheckpointError, match="not the response of its tensors"):
        S4Adapter().to_systems(block)
