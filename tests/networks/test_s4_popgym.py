"""popgym's copy of S4, version 3, and convolutions that leave out the conjugate modes."""

import copy
import warnings

import numpy as np
import pytest
import torch
from foreign_s4 import BlockV4
from published_classes import popgym_s4
from test_s4_block import (
    ACCURACY,
    FLOAT32_FORWARD,
    FLOAT64_FORWARD,
    drop_in,
    worst_error,
)

from ssmred.errors import CheckpointError
from ssmred.networks.adapters.s4_block import S4Adapter
from ssmred.networks.adapters.s4_settings import S4Settings
from ssmred.networks.dense_core import DenseSSM
from ssmred.systems import DenseSystem


def popgym_layer(dtype, **options):
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layer = popgym_s4().S4(8, d_state=16, **options).to(dtype).eval()
        if options["mode"] == "nplr":
            with torch.no_grad():
                layer(torch.randn(1, 8, 64, dtype=dtype))  # makes C for 64 steps, or l_max
    return layer


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "options",
    [
        {"disc": "zoh"},
        {"disc": "zoh", "real_type": "softplus", "transposed": False},
        {"disc": "bilinear", "real_type": "relu", "n_ssm": 2, "channels": 2},
        {"disc": "bilinear", "bidirectional": True, "channels": 2},
        {"disc": "dss", "real_type": "none"},
        {"disc": "zoh", "gate": 2},
        {"disc": "zoh", "bottleneck": 2},
        {"disc": "zoh", "gate": 1, "bottleneck": 4, "postact": "gelu"},
    ],
)
def test_diagonal_layers_of_popgym(options, dtype):
    layer = popgym_layer(dtype, mode="diag", measure="diag-lin", **options)
    length = 60
    adapter = S4Adapter(S4Settings(length=length if options["disc"] == "dss" else None))
    systems = adapter.to_systems(layer)
    new = drop_in(layer, adapter)
    shape = (2, 8, length) if options.get("transposed", True) else (2, length, 8)
    u = torch.randn(*shape, dtype=dtype)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        difference = (layer(u)[0] - new(u)[0]).abs().max()
    single = dtype == torch.float32 or options["disc"] == "dss"  # it casts that kernel to float32
    assert difference <= (FLOAT32_FORWARD if single else FLOAT64_FORWARD)
    if not single:
        assert worst_error(layer, systems, length) <= ACCURACY


LOW_RANK = [
    {"measure": "legs", "l_max": 128},
    {"measure": "legt", "rank": 2},
    {"measure": "legs", "rank": 3, "real_type": "none", "bidirectional": True},
    {"measure": "fourier", "n_ssm": 2, "channels": 2},
]


@pytest.mark.parametrize("options", LOW_RANK)
def test_convolution_without_conjugates_is_named_and_the_user_asked(options):
    layer = popgym_layer(torch.float32, mode="nplr", **options)
    with pytest.raises(
        CheckpointError, match=r"leaves out the conjugate modes.*trust=\"matrices\""
    ):
        S4Adapter().to_systems(layer)


@pytest.mark.parametrize("options", LOW_RANK)
def test_trusting_the_matrices(options):
    """They are what the package's own step mode computes."""
    layer = popgym_layer(torch.float64, mode="nplr", **options)
    adapter = S4Adapter(S4Settings(trust="matrices"))
    systems = adapter.to_systems(layer)
    assert isinstance(systems["core"], DenseSystem)
    new = drop_in(layer, adapter).eval()
    assert isinstance(new.core, DenseSSM)
    if options.get("bidirectional"):
        return  # no step mode
    generator = layer.kernel.kernel
    with torch.no_grad():
        dA, dB = generator._setup_state()
        C = torch.view_as_complex(generator.C)
        C = torch.cat([C, C.conj()], dim=-1)
        rest = torch.eye(dA.shape[-1]) - torch.matrix_power(dA, int(generator.L)).mT
        C = torch.linalg.solve(rest, C.unsqueeze(-1)).squeeze(-1)
        steps, x = [], dB
        for _ in range(64):
            steps.append((C * x).sum(-1).real)
            x = (dA @ x.unsqueeze(-1)).squeeze(-1)
    wanted = torch.stack(steps, -1).reshape(-1, 64).numpy()
    plain = systems["core"].replace(D=0 * systems["core"].D)
    got = plain.impulse_response(64)[..., 0, 0]
    assert np.abs(got - wanted).max() <= 1e-10 * np.abs(wanted).max()  # its dA is complex and slow


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("options", LOW_RANK)
def test_trusting_the_convolution(options, dtype):
    """The drop-in computes what the class computes here, at that length."""
    layer = popgym_layer(dtype, mode="nplr", **options)
    adapter = S4Adapter(S4Settings(trust="convolution"))
    systems = adapter.to_systems(layer)
    new = drop_in(layer, adapter).eval()
    u = torch.randn(2, 8, 64, dtype=dtype)
    with torch.no_grad():
        difference = (layer(u)[0] - new(u)[0]).abs().max()
    assert difference <= (FLOAT32_FORWARD if dtype == torch.float32 else FLOAT64_FORWARD)
    with pytest.raises(CheckpointError, match="no parameters give these systems"):
        adapter.from_systems(layer, systems)
    fresh = popgym_s4().S4(8, d_state=16, mode="nplr", **(options | {"l_max": None})).to(dtype)
    with pytest.raises(CheckpointError, match="do not tell length"):
        adapter.to_systems(fresh)


def test_trust_changes_nothing_where_both_agree():
    block = BlockV4(4, mode="dplr")
    plain = S4Adapter().to_systems(block)["core"]
    for trust in ("matrices", "convolution"):
        system = S4Adapter(S4Settings(trust=trust)).to_systems(block)["core"]
        np.testing.assert_array_equal(system.A, plain.A)


def test_own_reference_without_conjugates_is_found_too():
    block = BlockV4(4, mode="dplr", rank=2, whole=False, systems=2)
    with pytest.raises(CheckpointError, match="leaves out the conjugate modes"):
        S4Adapter().to_systems(block)
    whole = copy.deepcopy(block)
    whole.layer.kernel.whole = True
    trusted = S4Adapter(S4Settings(trust="matrices")).to_systems(block)
    assert worst_error(whole, trusted, 60) <= ACCURACY


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_weights_name_the_key(value):
    for name in ("layer.D", "layer.kernel.C", "layer.kernel.P", "layer.kernel.inv_dt"):
        block = BlockV4(3, mode="dplr")
        with torch.no_grad():
            block.get_parameter(name).view(-1)[0] = value
        with pytest.raises(CheckpointError, match=f"{name} holds nan or inf"):
            S4Adapter().to_systems(block)
