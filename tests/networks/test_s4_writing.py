"""Reduced systems written back as S4 layers of the original's class."""

import copy
import warnings

import numpy as np
import pytest
import torch
from foreign_s4 import BlockV4
from published_classes import popgym_s4
from test_s4_block import TRANSFORMS, own_kernels

from ssmred.errors import CheckpointError, OrderError
from ssmred.networks.adapters.s4_block import S4Adapter
from ssmred.networks.adapters.s4_settings import S4Settings
from ssmred.networks.held_poles import held_poles
from ssmred.systems import DenseSystem, DiagonalSystem

# poles that stay keep their parameters, so only the read-outs are rounded
ACCURACY = {torch.float32: 1e-6, torch.float64: 1e-12}
# a pole that moved has its parameters rounded too: 6e-8 |dt A| in float32, times 60 steps
MOVED = {torch.float32: 1e-5, torch.float64: 1e-12}


def kept_modes(system, keep, rng):
    """Return a system with some modes of each channel, others in every channel, new read-outs."""
    rows = [np.sort(rng.permutation(system.order)[:keep]) for _ in range(len(system.poles))]
    rows = np.array(rows)
    take = np.arange(len(rows))[:, None]
    C = system.C[take, 0, rows] * (1.0 + rng.normal(size=rows.shape))
    return system.replace(
        poles=system.poles[take, rows], B=system.B[take, rows], C=C, D=system.D + 0.5
    )


def errors(layer, systems, length):
    found = []
    for core, kernels in zip(("core", "backward"), own_kernels(layer, length), strict=False):
        system = systems[core]
        wanted = system.replace(D=0 * system.D).impulse_response(length)[..., 0, 0]
        scale = np.maximum(np.abs(wanted).max(axis=-1), 1e-300)
        found.append((np.abs(kernels - wanted).max(axis=-1) / scale).max())
    return max(found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("transforms", TRANSFORMS)
@pytest.mark.parametrize("disc", ["zoh", "bilinear", "dss"])
def test_hundred_reduced_heads(disc, transforms, dtype):
    real, imag, step = transforms
    options = {"real_transform": real, "imag_transform": imag, "dt_transform": step, "disc": disc}
    block = BlockV4(100, states=12, **options).to(dtype)
    adapter = S4Adapter(S4Settings(length=80))
    system = adapter.to_systems(block)["core"]
    reduced = kept_modes(system, 2, np.random.default_rng(0))
    plain = adapter.from_systems(block, {"core": reduced})
    assert plain.layer.kernel.C.shape == (1, 100, 2, 2)
    assert errors(plain, {"core": reduced}, 80) <= ACCURACY[dtype]
    D = plain.layer.D.detach().double().numpy()[0]
    np.testing.assert_allclose(D, reduced.D[:, 0, 0], rtol=ACCURACY[dtype])
    assert torch.equal(plain.output_linear[0].weight, block.output_linear[0].weight)
    again = adapter.to_systems(plain)["core"]  # poles that stay keep their parameters
    known = np.isin(np.round(again.poles, 12), np.round(system.poles, 12))
    assert known.all()
    fresh = BlockV4(100, states=4, **options).to(dtype)
    fresh.load_state_dict(plain.state_dict())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "options",
    [
        {"systems": 2},
        {"channels": 2, "swap_channels": True},
        {"bidirectional": True, "systems": 3},
        {"bidirectional": True, "channels": 2},
        {"tied": False},
    ],
)
def test_heads_share_the_modes_of_their_channels(options, dtype):
    block = BlockV4(6, states=8, **options).to(dtype)
    adapter = S4Adapter()
    rng = np.random.default_rng(1)
    systems = {n: kept_modes(s, 2, rng) for n, s in adapter.to_systems(block).items()}
    if "backward" in systems:
        systems["backward"] = systems["backward"].replace(D=0 * systems["backward"].D)
    plain = adapter.from_systems(block, systems, states=8)
    assert plain.layer.kernel.C.shape[2] == 4
    assert plain.layer.kernel.n_ssm == 6
    assert errors(plain, systems, 70) <= ACCURACY[dtype]
    assert plain.layer.kernel.inv_dt.shape == (6, 4 if options.get("tied") is False else 1)
    again = adapter.to_systems(plain)
    for core, system in systems.items():
        np.testing.assert_allclose(
            again[core].impulse_response(70), system.impulse_response(70), atol=ACCURACY[dtype]
        )


def new_system(heads, rng, *, real_pole=False):
    radius = rng.uniform(0.3, 0.98, (heads, 3))
    poles = radius * np.exp(
        1j * rng.uniform(0.05, 3.0, (heads, 3)) * rng.choice([-1, 1], (heads, 3))
    )
    if real_pole:
        poles[:, 0] = radius[:, 0]
    C = rng.normal(size=(heads, 3)) + 1j * rng.normal(size=(heads, 3))
    return DiagonalSystem(
        poles, rng.normal(size=(heads, 3)), C, rng.normal(size=heads),
        recurrence="post-update", real_output=True,
    )  # fmt: skip


@pytest.mark.parametrize("mode", ["zoh", "bilinear", "dss", "dplr", "dplr made for 60"])
@pytest.mark.parametrize("imag", ["none", "exp", "relu"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_poles_that_moved(mode, imag, dtype):
    low_rank = mode.startswith("dplr")
    options = {"mode": "dplr", "rank": 2} if low_rank else {"disc": mode}
    block = BlockV4(20, states=4, imag_transform=imag, **options).to(dtype)
    if mode.endswith("60"):
        block.layer.kernel.make_for(60)
    adapter = S4Adapter(S4Settings(length=60))
    system = new_system(20, np.random.default_rng(2), real_pole=imag == "none")
    plain = adapter.from_systems(block, {"core": system})
    assert errors(plain, {"core": system}, 60) <= MOVED[dtype]
    if low_rank:
        assert not plain.layer.kernel.P.any()
        assert plain.layer.kernel.l_kernel == block.layer.kernel.l_kernel


@pytest.mark.parametrize("mode", ["zoh", "bilinear", "dss", "dplr", "dplr made for 60"])
@pytest.mark.parametrize("imag", ["none", "exp", "relu"])
def test_a_hundred_heads_with_poles_that_float32_holds(mode, imag):
    """What `reduce` fits its read-outs to: then they alone are rounded."""
    options = {"mode": "dplr", "rank": 2} if mode.startswith("dplr") else {"disc": mode}
    block = BlockV4(100, states=4, imag_transform=imag, **options)
    if mode.endswith("60"):
        block.layer.kernel.make_for(60)
    adapter = S4Adapter(S4Settings(length=60))
    wanted = new_system(100, np.random.default_rng(11), real_pole=imag == "none")
    system = held_poles(adapter, block, "core", wanted)
    np.testing.assert_allclose(system.poles, wanted.poles, rtol=1e-5)
    assert (system.poles != wanted.poles).any()
    np.testing.assert_allclose(
        held_poles(adapter, block, "core", system).poles, system.poles, rtol=1e-14
    )
    plain = adapter.from_systems(block, {"core": system})
    assert errors(plain, {"core": system}, 60) <= ACCURACY[torch.float32]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("made_for", [0, 64])
def test_a_reduced_dense_system(made_for, dtype):
    """Modes of a balanced-like projection; a diagonal system is a low-rank one with P = 0."""
    block = BlockV4(10, states=8, mode="dplr", bidirectional=True).to(dtype)
    if made_for:
        block.layer.kernel.make_for(made_for)
    adapter = S4Adapter()
    rng = np.random.default_rng(3)
    systems = {}
    for core, full in adapter.to_systems(block).items():
        basis = np.linalg.qr(rng.normal(size=(10, 8, 5)))[0]
        turned = np.swapaxes(basis, -1, -2)
        systems[core] = DenseSystem(
            turned @ full.A @ basis, turned @ full.B, full.C @ basis, full.D,
            recurrence="post-update",
        )  # fmt: skip
    plain = adapter.from_systems(block, systems)
    assert errors(plain, systems, 64) <= ACCURACY[dtype]
    assert plain.layer.kernel.P.shape[:2] == (1, 10)


@pytest.mark.parametrize("mode", ["zoh", "bilinear", "dplr"])
def test_hard_poles(mode):
    """Next to the circle, next to 0, real, twice the same, a single one in a channel."""
    options = {"mode": "dplr"} if mode == "dplr" else {"disc": mode}
    block = BlockV4(3, states=4, **options).double()
    # with a low-rank term the class works with 1 - pole^60, which has no digits left at 1 - 1e-12
    edge = 1.0 - (1e-4 if mode == "dplr" else 1e-12)
    poles = [[edge * np.exp(0.3j), edge, -0.5], [0.6 + 0.1j, 0.6 + 0.1j, 1e-6], [0.9j, 0.0, 0.0]]
    C = np.array([[1.0, 1.0, 2.0], [1.0, -2.0, 1.0], [1.0j, 0.0, 0.0]])
    B = np.where(C == 0, 0.0, 1.0)
    system = DiagonalSystem(poles, B, C, recurrence="post-update", real_output=True)
    plain = S4Adapter().from_systems(block, {"core": system})
    assert errors(plain, {"core": system}, 60) <= MOVED[torch.float64]


@pytest.mark.parametrize("options", [{}, {"channels": 2, "swap_channels": True}, {"systems": 2}])
def test_own_matrices_stay_where_only_the_read_out_changes(options):
    """A HiPPO layer has no well-conditioned modes; its C and D can change all the same."""
    block = BlockV4(4, states=16, mode="dplr", **options).double()
    block.layer.kernel.make_for(50)
    adapter = S4Adapter()
    full = adapter.to_systems(block)["core"]
    rng = np.random.default_rng(4)
    changed = full.replace(C=rng.normal(size=full.C.shape), D=rng.normal(size=full.D.shape))
    plain = adapter.from_systems(block, {"core": changed})
    for name in ("P", "B", "A_real", "A_imag", "inv_dt"):
        assert torch.equal(getattr(plain.layer.kernel, name), getattr(block.layer.kernel, name))
    assert errors(plain, {"core": changed}, 60) <= ACCURACY[torch.float64]
    same = adapter.from_systems(block, {"core": full})
    for name, tensor in block.state_dict().items():
        torch.testing.assert_close(same.state_dict()[name], tensor, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("options", [{"disc": "zoh"}, {"disc": "bilinear", "n_ssm": 2}])
def test_popgym_loads_what_was_written(options, dtype):
    layer = popgym_s4().S4(6, d_state=12, mode="diag", measure="diag-lin", **options).to(dtype)
    adapter = S4Adapter()
    system = adapter.to_systems(layer)["core"]
    reduced = kept_modes(system, 3, np.random.default_rng(5))
    plain = adapter.from_systems(layer, {"core": reduced})
    assert errors(plain, {"core": reduced}, 60) <= ACCURACY[dtype]
    fresh = popgym_s4().S4(6, d_state=6, mode="diag", measure="diag-lin", disc=options["disc"])
    fresh = fresh.to(dtype)
    stored = plain.state_dict()
    key = "kernel.kernel.A"  # its initial modes, which it stores and never reads
    stored[key] = fresh.state_dict()[key]
    fresh.load_state_dict(stored)
    assert errors(fresh, {"core": reduced}, 60) <= ACCURACY[dtype]


def test_popgym_low_rank_layer_is_read_back_by_its_matrices():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layer = popgym_s4().S4(6, d_state=12, mode="nplr", measure="legs", l_max=40).double()
        layer(torch.randn(1, 6, 40, dtype=torch.float64))
    adapter = S4Adapter(S4Settings(trust="matrices"))
    system = new_system(6, np.random.default_rng(6), real_pole=True)
    plain = adapter.from_systems(layer, {"core": system})
    again = adapter.to_systems(plain)["core"].impulse_response(40)
    np.testing.assert_allclose(again, system.impulse_response(40), atol=1e-11)


def test_the_layer_is_left_alone():
    for mode in ("diag", "dplr"):
        block = BlockV4(4, mode=mode)
        before = copy.deepcopy(block.state_dict())
        adapter = S4Adapter()
        adapter.from_systems(block, {"core": new_system(4, np.random.default_rng(7))})
        assert all(torch.equal(before[n], t) for n, t in block.state_dict().items())


# --- what cannot be written ----------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["diag", "dplr"])
@pytest.mark.parametrize("pole", [0.0, 1.0, -1.0 + 1e-18, 1.2j])
def test_poles_without_parameters(mode, pole):
    block = BlockV4(3, mode=mode, disc="zoh") if mode == "diag" else BlockV4(3, mode=mode)
    system = new_system(3, np.random.default_rng(8))
    poles = system.poles.copy()
    poles[1, 2] = pole
    with pytest.raises(CheckpointError, match=r"head 1\).*0 < \|pole\| < 1"):
        S4Adapter().from_systems(block, {"core": system.replace(poles=poles)})


def test_ranges_of_transforms():
    system = new_system(3, np.random.default_rng(9), real_pole=True)
    with pytest.raises(CheckpointError, match="within the range of the transforms"):
        S4Adapter().from_systems(BlockV4(3, imag_transform="exp"), {"core": system})
    fast = new_system(3, np.random.default_rng(9))
    fast = fast.replace(poles=fast.poles * 1e-3)
    with pytest.raises(CheckpointError, match="within the range of the transforms"):
        S4Adapter().from_systems(BlockV4(3, real_transform="sigmoid"), {"core": fast})
    with pytest.raises(CheckpointError, match="a real pole"):
        S4Adapter().from_systems(
            BlockV4(3, real=True), {"core": new_system(3, np.random.default_rng(9))}
        )


def test_states_and_names_must_fit():
    block = BlockV4(4, states=8, bidirectional=True)
    adapter = S4Adapter()
    systems = adapter.to_systems(block)
    for states in (3, 2, 6):
        with pytest.raises(OrderError, match="an even number >= 8"):
            adapter.from_systems(block, systems, states=states)
    with pytest.raises(CheckpointError, match="not the layer's"):
        adapter.from_systems(block, {"core": systems["core"]})
    with pytest.raises(CheckpointError, match="backward system has a D"):
        adapter.from_systems(block, systems | {"backward": systems["core"]})
    few = new_system(3, np.random.default_rng(10))
    with pytest.raises(OrderError, match="do not have the layer's channels"):
        adapter.from_systems(BlockV4(4), {"core": few})


def test_dense_systems_without_good_modes_are_refused():
    A = np.array([[0.5, 1.0], [0.0, 0.5]])
    system = DenseSystem(
        np.stack([A] * 3), np.ones((3, 2, 1)), np.ones((3, 1, 2)), recurrence="post-update"
    )
    with pytest.raises(CheckpointError, match="badly conditioned"):
        S4Adapter().from_systems(BlockV4(3, mode="dplr"), {"core": system})


def test_channels_without_modes():
    block = BlockV4(3, states=4)
    zeros = np.zeros((3, 1))
    system = DiagonalSystem(
        zeros, zeros, zeros, np.array([1.0, 0.0, 2.0]), recurrence="post-update", real_output=True
    )
    plain = S4Adapter().from_systems(block, {"core": system})
    assert plain.layer.kernel.C.shape[2] == 1
    assert not plain.layer.kernel.C.any()
    assert plain.layer.D.tolist() == [[1.0, 0.0, 2.0]]
