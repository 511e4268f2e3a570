"""What an inspection answers: margins, time constants, spare states, and the page it makes."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import mpmath
import numpy as np
import pytest
import torch
from torch import nn

import ssmred
from ssmred import pipeline
from ssmred.errors import CheckpointError, RequestError, ShapeError, UnsupportedOperationError
from ssmred.networks import DenseSSM, ReducedSSM, SharedSSM
from ssmred.networks.deep import DeepSSM
from ssmred.networks.layers import LRU, S4, S4D, S5
from ssmred.norms import hinf_error
from ssmred.pipeline.spare_states import LEVELS, answers_of, needed_orders
from ssmred.reductors import BalancedReductor
from ssmred.systems import DenseSystem, DiagonalSystem

# one logarithm, one division, one rounding of the pole
ROUNDING = 1e-15
# eigenvalues of a small normal matrix
EIGENVALUES = 1e-13


def channels(poles, weights=None, **options):
    """Return single-input channels with real outputs, (H, n) poles."""
    poles = np.asarray(poles, dtype=np.complex128)
    weights = np.ones(poles.shape) if weights is None else np.asarray(weights)
    options = {"recurrence": "post-update", "real_output": True} | options
    return DiagonalSystem(poles, np.ones((*poles.shape, 1)), weights[:, None, :], **options)


def random_channels(seed, H=6, n=5):
    rng = np.random.default_rng(seed)
    radii, angles = rng.uniform(0.2, 0.98, (H, n)), rng.uniform(0, np.pi, (H, n))
    weights = rng.standard_normal((H, n, 2)) @ [1, 1j] * 10.0 ** rng.uniform(-5, 0, (H, n))
    return channels(radii * np.exp(1j * angles), weights)


# Margins and time constants ----------------------------------------------------------------------


@pytest.mark.parametrize("radius", [0.5, 0.999, 1 - 1e-8, 1 - 1e-12, 1 - 2.0**-53])
@pytest.mark.parametrize("angle", [0.0, 1.0, math.pi])
def test_margin_and_time_constant_of_one_pole(radius, angle):
    pole = radius * np.exp(1j * angle)
    answers = answers_of(channels([[pole, 0.25]]), np.array([4]))
    mpmath.mp.dps = 40
    exact = abs(mpmath.mpc(pole))
    assert answers.margin == pytest.approx(float(1 - exact), rel=ROUNDING, abs=2.0**-200)
    assert answers.slowest == pytest.approx(float(-1 / mpmath.log(exact)), rel=ROUNDING)
    assert answers.fastest == pytest.approx(1 / math.log(4), rel=ROUNDING)


def test_dense_systems_by_their_eigenvalues():
    turn = 0.9 * np.array([[math.cos(1), -math.sin(1)], [math.sin(1), math.cos(1)]])
    A = np.stack([turn, np.diag([0.5, 0.0])])
    system = DenseSystem(A, np.ones((2, 2, 1)), np.ones((2, 1, 2)), recurrence="post-update")
    answers = answers_of(system, np.array([2, 1]))
    assert answers.margin == pytest.approx(0.1, rel=EIGENVALUES)
    assert answers.slowest == pytest.approx(-1 / math.log(0.9), rel=EIGENVALUES)
    assert answers.fastest == pytest.approx(1 / math.log(2), rel=EIGENVALUES)  # 0 is padding


def test_pole_zero_forgets_at_once():
    answers = answers_of(channels([[0.0]]), np.array([2]))
    assert (answers.margin, answers.slowest) == (1.0, 0.0)


@pytest.mark.parametrize("radius", [1.0, 1.25])
def test_unstable_layers_have_no_hankel_values(radius):
    answers = answers_of(channels([[radius, 0.5]]), np.array([4]))
    assert answers.margin == 1.0 - radius
    assert answers.slowest == math.inf
    assert (answers.spare, answers.hankel) == (None, None)
    assert "unstable" in answers.problem


def test_a_layer_without_states():
    system = channels(np.zeros((3, 1)), np.zeros((3, 1)))
    answers = answers_of(system, np.zeros(3, dtype=np.int64))
    assert (answers.margin, answers.slowest) == (None, None)
    assert answers.spare == {1e-3: 0, 1e-6: 0}


# Spare states ------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [1e-6, 1e-3, 0.5, 1.0, 3.0])
def test_orders_against_a_loop(level):
    rng = np.random.default_rng(3)
    values = -np.sort(-(10.0 ** rng.uniform(-9, 0, (40, 12))), axis=1)
    values[:3] = 0.0
    values[3, 1:] = 0.0
    for row, order in zip(values, needed_orders(values, level), strict=True):
        fits = [r for r in range(13) if 2 * math.fsum(row[r:]) <= level * row[0]]
        assert order == min(fits)


def test_orders_of_no_table():
    assert needed_orders(np.zeros((3, 0)), 1e-3).tolist() == [0, 0, 0]
    with pytest.raises(ShapeError):
        needed_orders(np.ones(3), 1e-3)


@pytest.mark.theorem("balanced-truncation")
@pytest.mark.parametrize("level", LEVELS)
def test_spare_states_can_be_left_out(level):
    """The system that balanced truncation leaves has an error within the level."""
    full = random_channels(0)
    answers = answers_of(full, np.full(6, 10))
    assert answers.hankel is not None
    orders = needed_orders(answers.hankel, level)
    assert answers.spare is not None
    assert answers.spare[level] == int((10 - orders).sum()) > 0
    for row, order in enumerate(orders):
        one = DiagonalSystem(
            full.poles[row], full.B[row], full.C[row], recurrence="post-update", real_output=True
        )
        reduced = BalancedReductor().reduce(one.realified(), order=int(order)).system
        error = hinf_error(one.realified(), reduced)
        assert error.upper <= level * answers.hankel[row, 0]


def test_known_redundancy():
    """Twice the same mode, a mode that nothing reads, and a real pole stored as a pair."""
    double = channels([[0.5 + 0.2j, 0.5 + 0.2j, 0.1j]], [[1.0, 2.0, 0.0]])
    assert answers_of(double, np.array([6])).spare == {1e-3: 4, 1e-6: 4}
    real = channels([[0.9]])
    assert answers_of(real, np.array([2])).spare == {1e-3: 1, 1e-6: 1}
    silent = channels([[0.9], [0.5]], [[0.0], [1.0]])
    assert answers_of(silent, np.array([2, 2])).spare == {1e-3: 3, 1e-6: 3}


def test_shared_states_are_judged_as_one_system():
    rng = np.random.default_rng(1)
    poles = 0.9 * np.exp(1j * np.array([0.3, 1.0, 1.0]))
    B = rng.standard_normal((3, 4)) + 1j * rng.standard_normal((3, 4))
    C = rng.standard_normal((2, 3)) + 1j * rng.standard_normal((2, 3))
    B[2] = B[1]  # the same mode again
    system = DiagonalSystem(poles[None], B[None], C[None], recurrence="post-update",
                            real_output=True)  # fmt: skip
    assert answers_of(system, np.array([6])).spare == {1e-3: 2, 1e-6: 2}


# Whole inspections -------------------------------------------------------------------------------


def network(**options):
    torch.manual_seed(0)
    return DeepSSM(2, 3, **({"channels": 4, "states": 8, "layers": 2} | options)).eval()


def test_counts_are_those_of_the_module():
    model = network()
    found = ssmred.inspect(model.state_dict())
    floating = [t for t in model.state_dict().values() if t.is_floating_point()]
    assert found.numbers == sum(t.numel() for t in floating)
    kernel = sum(p.numel() for p in model.layers[0].kernel.parameters()) + 4
    assert [layer.numbers for layer in found.layers] == [kernel, kernel]
    assert found.numbers - found.rest_numbers == 2 * kernel
    assert found.states == 2 * 4 * 8
    assert found.families == {"s4d": 2}
    assert "encoder.weight" in found.rest
    assert "layers.0.D" not in found.rest


@pytest.mark.parametrize("build", [
    lambda: S4D(4, 8), lambda: S4(4, 8, copies=2), lambda: S4(4, 8, bidirectional=True),
    lambda: S5(4, 8), lambda: S5(4, 8, bidirectional=True), lambda: LRU(4, 8),
])  # fmt: skip
def test_live_layers(build):
    torch.manual_seed(0)
    layer = build().eval()
    found = ssmred.inspect(layer)
    (one,) = found.layers
    systems = layer.to_systems()
    assert len(one.filters) == len(systems)
    assert one.bidirectional == (len(systems) > 1)
    for got, system in zip(one.filters, systems.values(), strict=True):
        assert got.assumed == {}
        batch = math.prod(system.batch_shape)
        assert got.states == batch * system.states
        worst = max(np.abs(system.poles).ravel())
        assert got.answers.margin == pytest.approx(1 - worst, abs=1e-15)
        assert got.inputs == 4
    assert found.numbers == sum(t.numel() for t in layer.parameters())


def test_live_networks_agree_with_their_files():
    model = network()
    live, stored = ssmred.inspect(model), ssmred.inspect(model.state_dict())
    for one, other in zip(live.layers, stored.layers, strict=True):
        assert one.name == other.name
        first, second = one.filters[0].answers, other.filters[0].answers
        assert first.margin == second.margin
        assert first.spare == second.spare


def test_mixed_networks_of_stored_filters():
    rng = np.random.default_rng(0)

    def draw(*shape):
        return 0.5 * (rng.uniform(-1, 1, shape) + 1j * rng.uniform(-1, 1, shape))

    model = nn.ModuleDict({
        "one": ReducedSSM([2, 0, 1], draw(3), draw(3)),
        "two": SharedSSM(draw(4), draw(4, 3), draw(2, 4)),
        "three": DenseSSM(0.3 * rng.standard_normal((2, 3, 3)), rng.standard_normal((2, 3)),
                          rng.standard_normal((2, 3))),
    })  # fmt: skip
    found = {layer.name: layer for layer in ssmred.inspect(model.state_dict()).layers}
    assert found["one"].filters[0].per_channel == (0, 4)
    assert (found["two"].filters[0].inputs, found["two"].filters[0].outputs) == (3, 2)
    assert [one.assumed["delayed"] for one in found["two"].filters] == [False, True]
    assert found["three"].states == 6
    for name, layer in found.items():
        assert layer.filters[0].answers.hankel.shape[0] == {"one": 3, "two": 1, "three": 2}[name]


def test_page_and_json():
    torch.manual_seed(0)
    model = nn.ModuleDict({"a": S4D(4, 8), "b": S4(4, 8), "c": nn.Linear(4, 4)})
    tensors = dict(model.state_dict())
    for key in list(tensors):  # a diagonal layer, whose discretisation is open
        if key.endswith(("kernel.P", "l_kernel")):
            del tensors[key]
    found = ssmred.inspect({"state_dict": tensors, "epoch": 3})
    text = str(found)
    for words in (
        "entry 'state_dict'", "2 state-space layers (1 x s4d, 1 x s4)", "left alone, no tensors: "
        "epoch", "disc=zoh", "disc=bilinear", "disc: assumed zoh and bilinear; --option disc=",
        "balanced-truncation.md", "c.weight", "training length", "Not in the file:",
    ):  # fmt: skip
        assert words in text
    content = json.loads(found.to_json())
    assert content == found.to_dict()
    assert content["layers"][1]["not_in_the_file"]["assumed"]["disc"] == ["zoh", "bilinear"]
    answers = content["layers"][0]["filters"][0]
    assert set(answers["spare_states"]) == {"0.001", "1e-06"}
    assert content["parameters"]["all"] == found.numbers
    settled = ssmred.inspect(tensors, options={"disc": "bilinear"})
    assert settled.given == {"disc": "bilinear"}
    assert "disc=" not in str(settled).partition("Not in the file:")[0]


def test_unstable_layers_are_shown_and_kept_json():
    model = ReducedSSM([1, 1], [1.1, 0.5], [1.0, 1.0])
    found = ssmred.inspect(model.state_dict())
    assert "no Hankel singular values" in str(found)
    filters = json.loads(found.to_json())["layers"][0]["filters"][0]
    assert filters["time_constants"]["slowest"] == "inf"
    assert filters["spare_states"] is None
    assert filters["stability_margin"] == pytest.approx(-0.1)


def test_picture(tmp_path):
    found = ssmred.inspect(network().state_dict())
    figure = found.plot(tmp_path / "decay.png")
    assert [panel.get_title() for panel in figure.axes] == ["", ""]
    assert [panel.get_title(loc="left") for panel in figure.axes] == ["layers.0", "layers.1"]
    assert (tmp_path / "decay.png").read_bytes().startswith(b"\x89PNG")


def test_folder_of_a_reduction(tmp_path):
    model = network()
    pipeline.reduce(model, states=0.5, horizon=32, guarantee="layer").save(tmp_path / "small")
    found = ssmred.inspect(tmp_path / "small")
    assert found.families == {"ssmred ReducedSSM": 2}
    assert found.states <= 32
    assert found.hints["horizon of the certificate"] == 32
    assert "64 states" in found.hints["reduced from"]
    original = ssmred.inspect(found.hints["original"])
    assert original.families == {"s4d": 2}
    assert original.states == 64


def test_progress_bars_show_every_layer(capsys):
    ssmred.inspect(network().state_dict(), progress=True)
    shown = capsys.readouterr().err
    assert "reading layers" in shown
    assert "2/2" in shown


# Refusals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_tensors_outside_of_layers_are_checked_too(value):
    tensors = dict(network().state_dict())
    tensors["decoder.weight"] = torch.full((3, 4), value)
    with pytest.raises(CheckpointError, match=r"decoder\.weight holds nan or inf"):
        ssmred.inspect(tensors)


def test_live_networks_with_nan():
    model = network()
    with torch.no_grad():
        model.layers[1].kernel.C[0, 0, 0] = math.nan
    with pytest.raises(CheckpointError, match=r"layers\.1\.kernel\.C"):
        ssmred.inspect(model)


def test_requests_that_make_no_sense():
    with pytest.raises(RequestError, match="options are for tensors"):
        ssmred.inspect(network(), options={"disc": "zoh"})
    with pytest.raises(RequestError, match="given twice"):
        ssmred.inspect(network().state_dict(), norm="pre", options={"norm": "post"})
    with pytest.raises(UnsupportedOperationError, match="nothing to look at"):
        ssmred.inspect(SimpleNamespace())
