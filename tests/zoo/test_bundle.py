"""The bundled networks do what their records say, and reduce as far as the README says."""

from __future__ import annotations

from importlib.resources import files

import pytest
import torch

import ssmred
from ssmred import zoo
from ssmred.errors import CheckpointError
from ssmred.networks import export_plain, import_network

ROUNDING_OF_THE_RECORD = 0.02
"""Two of 10,000 samples may change class with another build of torch, in percent points."""


def accuracy(model: torch.nn.Module, test: zoo.Sample) -> float:
    with torch.no_grad():
        answers = torch.cat([model(x).argmax(-1) for x in test.inputs.split(200)])
    return 100 * float((answers == test.labels).double().mean())


PART = 1_000
"""Test samples that every network is tried on; all of them take minutes."""

LIKELY = 4.0
"""Standard deviations that a part may be away from the whole."""


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.names())
def test_recorded_accuracy_on_all_test_samples(name: str) -> None:
    model, data = zoo.load(name)
    assert abs(accuracy(model, data.test) - zoo.record(name)["test_accuracy"]) <= (
        ROUNDING_OF_THE_RECORD
    )


@pytest.mark.parametrize("name", ["fashion-mnist-s4d", "fashion-mnist-s4d-gelu", "listops-s4d"])
def test_recorded_accuracy_of_imported_networks(name: str) -> None:
    model, data = zoo.load(name)
    found = accuracy(import_network(model).model, data.test)  # same network, kernel cached
    assert abs(found - zoo.record(name)["test_accuracy"]) <= ROUNDING_OF_THE_RECORD


@pytest.mark.parametrize("name", zoo.names())
def test_accuracy_on_a_part_is_likely(name: str) -> None:
    model, data = zoo.load(name)
    part = zoo.Sample(data.test.inputs[:PART], data.test.labels[:PART])
    recorded = zoo.record(name)["test_accuracy"]
    deviation = (recorded * (100 - recorded) / PART) ** 0.5
    assert abs(accuracy(model, part) - recorded) <= LIKELY * deviation


@pytest.mark.parametrize("name", zoo.names())
def test_imported_networks_answer_as_the_original(name: str) -> None:
    model, data = zoo.load(name)
    model, x = model.double(), data.test.inputs[:20]
    x = x.double() if x.is_floating_point() else x
    with torch.no_grad():
        wanted, got = model(x), import_network(model).model(x)
    assert (wanted - got).abs().max() <= 1e-9 * wanted.abs().max()  # four layers with gates


def test_main_network_is_as_large_and_as_good_as_promised() -> None:
    model, data = zoo.load("fashion-mnist-s4d")
    recipe = zoo.record("fashion-mnist-s4d")["recipe"]
    assert (recipe["layers"], recipe["channels"], recipe["states"]) == (4, 64, 64)
    assert zoo.record("fashion-mnist-s4d")["test_accuracy"] >= 87
    assert not model.training
    assert len(data.calibration) >= 512
    assert len(data.test) == 10_000
    assert data.test.inputs.shape[1:] == (196, 1)
    assert float(data.test.inputs.abs().max()) <= 1


def test_bundle_is_small() -> None:
    folder = files("ssmred.zoo") / "data"
    assert sum(len(f.read_bytes()) for f in folder.iterdir() if f.is_file()) < 5_000_000


def test_unknown_name() -> None:
    with pytest.raises(CheckpointError, match="fashion-mnist-s4d"):
        zoo.load("mnist")


def test_copies_are_independent() -> None:
    first, _ = zoo.load("fashion-mnist-s4d-gelu")
    with torch.no_grad():
        first.decoder.bias.zero_()
    second, _ = zoo.load("fashion-mnist-s4d-gelu")
    assert bool(second.decoder.bias.detach().any())


@pytest.mark.slow
@pytest.mark.parametrize(("removed", "lost"), [(0.7, 0.3), (0.8, 0.8), (0.9, 2.0)])
def test_calibrated_removal_keeps_the_accuracy(removed: float, lost: float) -> None:
    model, data = zoo.load("fashion-mnist-s4d")
    result = ssmred.reduce(model, states=1 - removed, data=data.calibration.inputs, progress=False)
    assert result.removed >= removed - 1e-9
    before = zoo.record("fashion-mnist-s4d")["test_accuracy"]
    assert accuracy(result.model, data.test) >= before - lost


@pytest.mark.slow
def test_data_free_removal_of_half_keeps_the_accuracy() -> None:
    model, data = zoo.load("fashion-mnist-s4d")
    result = ssmred.reduce(model, states=0.5, horizon=196, progress=False)
    before = zoo.record("fashion-mnist-s4d")["test_accuracy"]
    assert accuracy(result.model, data.test) >= before - 1.0


def test_layer_guarantee_lets_a_quarter_go() -> None:
    model, _ = zoo.load("fashion-mnist-s4d")
    result = ssmred.reduce(model, tol=1e-3, horizon=196, guarantee="layer", progress=False)
    assert result.removed >= 0.25
    assert result.certificate.bound <= 1e-3


def test_worst_case_lets_a_fifth_go_without_a_gate() -> None:
    model, data = zoo.load("fashion-mnist-s4d-gelu")
    result = ssmred.reduce(model, tol=1e-3, horizon=196, progress=False)
    assert result.certificate.guarantee == "worst-case"
    assert result.removed >= 0.2
    assert result.certificate.bound <= 1e-3
    exact, reduced = import_network(model).model.double(), result.model.double()
    x = data.test.inputs[:200].double()
    with torch.no_grad():
        errors = (exact(x) - reduced(x)).norm(dim=-1)
    assert bool((errors <= result.certificate.bound * result.certificate.scale).all())


def reduced_and_written(name: str, method: str, *, calibrated: bool) -> tuple[torch.nn.Module, ...]:
    model, data = zoo.load(name)
    sight = (
        {"data": data.calibration.inputs[:128]}
        if calibrated
        else {"horizon": data.test.inputs.shape[1]}
    )
    wish = {"states": 0.4, "guarantee": "layer", "method": method, "feedthrough": "diagonal"}
    result = ssmred.reduce(model, progress=False, **wish, **sight)
    return result.model, export_plain(model, result.model)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["s4", "s4d", "s5", "lru"])
@pytest.mark.parametrize("method", ["subset", "balanced"])
def test_written_back_networks_answer_as_the_reduced_ones(family: str, method: str) -> None:
    """In the classes' float32 parameters; run in float64, as the S4D class convolves less well.

    Each layer is within 1e-6 of its system (the next test), and what they are off by adds up.
    """
    name = f"fashion-mnist-{family}"
    reduced, plain = reduced_and_written(name, method, calibrated=True)
    x = zoo.load(name)[1].test.inputs[:64].double()
    with torch.no_grad():
        wanted, found = reduced.double()(x), plain.double()(x)
    allowed = 1e-6 * len(plain.layers)
    assert (found - wanted).abs().max() <= allowed * wanted.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("fashion-mnist-s4", "subset"),  # its low-rank layers come back with other poles
        ("fashion-mnist-s5", "subset"),
        ("fashion-mnist-lru", "subset"),
        ("fashion-mnist-s5", "balanced"),
        ("fashion-mnist-lru", "balanced"),
        ("fashion-mnist-s4d", "subset"),
    ],
)
def test_written_back_layers_answer_as_the_reduced_ones(name: str, method: str) -> None:
    """Float32 parameters of poles that moved, over the steps that the network sees."""
    steps = zoo.load(name)[1].test.inputs.shape[1]
    reduced, plain = reduced_and_written(name, method, calibrated=False)
    pairs = zip(import_network(plain).layers, import_network(reduced).layers, strict=True)
    for written, drop_in in pairs:
        wanted = drop_in.system.impulse_response(steps)
        found = written.system.impulse_response(steps)
        assert abs(found - wanted).max() <= 1e-6 * abs(wanted).max()


@pytest.mark.slow
def test_modes_that_cancel_beyond_float32_are_not_written_into_it() -> None:
    """Balanced without data, one channel has residues of 2e4 for a response of 0.3."""
    model, _ = zoo.load("fashion-mnist-s4d")
    wish = {"states": 0.4, "horizon": 196, "guarantee": "layer", "method": "balanced"}
    result = ssmred.reduce(model, progress=False, **wish)
    with pytest.raises(CheckpointError, match=r"layers.1.*channel 23 cancel beyond .*float32"):
        export_plain(model, result.model)
    written = export_plain(model.double(), result.model)
    pairs = zip(import_network(written).layers, import_network(result.model).layers, strict=True)
    for one, other in pairs:
        wanted = other.system.impulse_response(196)
        assert abs(one.system.impulse_response(196) - wanted).max() <= 1e-9 * abs(wanted).max()
