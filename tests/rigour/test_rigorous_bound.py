"""Rigorous certificates of small networks of every wiring: bounds that hold, without slack."""

import copy
import dataclasses
import time

import numpy as np
import pytest
import torch
from rigour_networks import HORIZON, WIRINGS, network, reduced_folder, stored

import ssmred
from ssmred import rigour
from ssmred.certify.guarantees import ASSUMPTIONS, ENCLOSED_ASSUMPTIONS, THEOREMS
from ssmred.errors import CertificateError, UnsupportedOperationError
from ssmred.networks import load_network, save_network
from ssmred.rigour.statement import WORDS, number, seal

pytestmark = pytest.mark.theorem("ball-arithmetic")

FLOAT_ROUNDING = 1e-9
"""By how much a FLOAT bound may be below the enclosed one: its layers are float64 imports."""


@pytest.fixture(scope="module", params=WIRINGS)
def folder(request, tmp_path_factory):
    place = tmp_path_factory.mktemp("wiring") / "result"
    return reduced_folder(place, network(1, **WIRINGS[request.param]))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    place = tmp_path_factory.mktemp("plain") / "result"
    return reduced_folder(place, network(1, **WIRINGS["plain, no norm"]))


def largest_error(first, second, inputs, steps=40):
    """Return the largest change of the output that some inputs of the set make, in float64."""
    first, second = (copy.deepcopy(model).double().eval() for model in (first, second))
    rng = np.random.default_rng(0)
    tokens = inputs.kind == "tokens"
    u = torch.from_numpy(inputs.sample(rng, 64, HORIZON, 5 if tokens else 2))

    def errors(batch):
        size = (first(batch) - second(batch)).square().sum(-1).sqrt()
        return size if size.ndim == 1 else size.amax(dim=1)

    with torch.no_grad():
        found = errors(u).max()
    if tokens:
        return float(found)
    # corners that the gradient points to: resonance with the modes that went
    low, high = (torch.from_numpy(np.broadcast_to(end, (2,)).copy()) for end in
                 (inputs.low, inputs.high))  # fmt: skip
    for _ in range(steps):
        u = u.detach().requires_grad_()
        errors(u).sum().backward()
        u = torch.where(u.grad > 0, high, low)
        with torch.no_grad():
            found = max(found, errors(u).max())
    return float(found)


def test_every_wiring_is_enclosed(folder):
    report = rigour.verify(*folder.places())
    certificate = folder.result.certificate
    enclosed = report.certificate
    absolute = certificate.bound * certificate.scale
    assert report.absolute_bound <= absolute * (1 + FLOAT_ROUNDING)
    assert report.relative_bound <= certificate.bound * (1 + FLOAT_ROUNDING)
    assert report.absolute_bound >= absolute * (1 - 1e-6)
    assert enclosed["level"] == "RIGOROUS"
    assert enclosed["enclosure"]["precision"] == report.precision == 128
    assert all(check.passed for check in report.checks)
    assert "confirmed" in str(report)
    shown = str(ssmred.Certificate.from_json(report.to_json()))
    assert f"absolute_bound: {report.absolute_bound}" in shown
    lower = largest_error(folder.result.original, folder.result.model, inputs_of_folder(folder))
    assert 0.0 < lower <= report.absolute_bound  # no slack


def inputs_of_folder(folder):
    return ssmred.InputSet.from_json(folder.result.certificate.inputs)


def test_a_rigorous_certificate_is_verified_rigorously(folder, tmp_path):
    path = rigour.verify(*folder.places()).save(tmp_path / "rigorous.json")
    again = rigour.verify(path, folder.original, folder.path)
    assert again.to_json() == path.read_text()
    certificate = ssmred.Certificate.load(path)
    assert certificate.level == "RIGOROUS"
    assert f"level {certificate.level}" in str(certificate)
    stages = []
    report = ssmred.verify(
        certificate, folder.result.original, folder.result.model,
        progress=lambda stage, done, total: stages.append((stage, done, total)),
    )  # fmt: skip
    assert report.passed
    assert report.certificate == certificate
    names = {check.name for check in report.checks}
    assert {"absolute bound", "bound", "output scale", "layers.0: weight"} <= names
    assert {stage for stage, _, _ in stages} >= {"enclosing responses", "bounding the network"}
    assert all(0 <= done <= total for _, done, total in stages)


def test_a_float_certificate_can_be_raised_in_memory(plain):
    certificate = plain.result.certificate
    models = plain.result.original, plain.result.model
    report = ssmred.verify(certificate, *models, rigorous=True)
    assert report.certificate.level == "RIGOROUS"
    assert report.certificate.layers[0].name == certificate.layers[0].name
    assert ssmred.verify(certificate, *models).certificate is None


def test_rigour_cannot_be_had_by_saying_so(plain):
    certificate, models = plain.result.certificate, (plain.result.original, plain.result.model)
    with pytest.raises(CertificateError, match="enclosure"):
        dataclasses.replace(certificate, level="RIGOROUS")
    record = {"precision": 128, "python_flint": "0.9.0",
              "absolute_bound": certificate.bound * certificate.scale,
              "wiring_sha256": "0" * 64}  # fmt: skip
    forged = dataclasses.replace(certificate, level="RIGOROUS", enclosure=record)
    with pytest.raises(CertificateError, match="assumptions are not those of level RIGOROUS"):
        ssmred.verify(forged, *models)
    worded = dataclasses.replace(
        forged, assumptions=WORDS["RIGOROUS"]["assumptions"], theorems=WORDS["RIGOROUS"]["theorems"]
    )
    # the float64 numbers are no enclosures of the exact layers, only as good as their import
    halved = dataclasses.replace(
        worded, bound=worded.bound / 2, enclosure=record | {"absolute_bound": 0.0}
    )
    with pytest.raises(CertificateError, match="absolute bound"):
        ssmred.verify(halved, *models)


def test_the_words_are_those_of_the_code_that_makes_certificates():
    assert WORDS["FLOAT"]["theorems"] == THEOREMS["worst-case"]
    assert WORDS["FLOAT"]["assumptions"] == ASSUMPTIONS["worst-case"]
    assert WORDS["RIGOROUS"]["assumptions"] == ENCLOSED_ASSUMPTIONS


def test_a_layer_that_is_not_reduced(tmp_path):
    """Its error is its import's: 0 in float64, and about 1e-16 of it once enclosed."""
    folder = reduced_folder(tmp_path / "full", network(2, norm="none", mixing="linear"), 1.0)
    records = stored(folder.certificate)["layers"]
    assert [record["gain_error"] for record in records] == [0.0, 0.0]
    report = rigour.verify(*folder.places())
    for layer in report.certificate["layers"]:
        assert 0.0 < layer["gain_error"] < 1e-13
        assert layer["states_kept"] == layer["states_full"]
    assert 0.0 < report.absolute_bound < 1e-12


def test_a_network_of_reduced_layers_against_itself(tmp_path, plain):
    """Where both sides store the same modes nothing differs, not even by rounding."""
    model = plain.result.model
    save_network(model, tmp_path)
    save_network(model, tmp_path / "original")
    data = stored(plain.certificate)
    data["original_sha256"] = data["reduced_sha256"]
    data |= {"bound": 0.0, "vacuous": False}
    kept = {record["name"]: record["states_kept"] for record in data["layers"]}
    for record in data["layers"]:
        record |= {"states_full": kept[record["name"]], "error": 0.0, "relative_error": 0.0,
                   "gain_error": 0.0, "contribution": 0.0}  # fmt: skip
    (tmp_path / "certificate.json").write_text(ssmred.rigour.verifier.render(seal(data)))
    with pytest.raises(CertificateError, match="weight") as caught:  # another original's weights
        rigour.verify(tmp_path / "certificate.json", tmp_path / "original", tmp_path)
    assert "contribution" not in str(caught.value)


@pytest.mark.parametrize("inputs", [ssmred.InputSet.ball(2.0), ssmred.InputSet.box(-1, 1)])
def test_balls_and_boxes(tmp_path, inputs):
    model = network(3, norm="none", mixing="linear")
    folder = reduced_folder(tmp_path / "result", model, inputs=inputs)
    report = rigour.verify(*folder.places())
    u = inputs.sample(np.random.default_rng(0), 64, HORIZON, 2)
    first, second = (m.double() for m in map(copy.deepcopy, (model, folder.result.model)))
    with torch.no_grad():
        error = (first(torch.from_numpy(u)) - second(torch.from_numpy(u))).norm(dim=-1).max()
    assert 0.0 < float(error) <= report.absolute_bound


def test_a_network_in_float64(tmp_path):
    folder = reduced_folder(tmp_path / "result", network(4, norm="batch", mixing="glu").double())
    assert rigour.verify(*folder.places()).absolute_bound > 0.0


def test_more_bits_where_balls_are_wide(monkeypatch, plain):
    monkeypatch.setattr(rigour.verifier, "PRECISIONS", (32, 128))
    report = rigour.verify(*plain.places())
    assert report.precision == 128
    assert report.certificate["enclosure"]["precision"] == 128


def test_what_is_not_covered_is_refused_by_name(tmp_path, plain):
    model = network(5, norm="none", mixing="linear")
    endless = reduced_folder(tmp_path / "endless", model, horizon=None)
    with pytest.raises(UnsupportedOperationError, match="every length"):
        rigour.verify(*endless.places())
    for family in ("s5", "lru", "s4"):
        torch.manual_seed(0)
        other = ssmred.networks.deep.DeepSSM(2, 3, layer=family, channels=4, states=4, layers=1)
        folder = reduced_folder(tmp_path / family, other.eval())
        with pytest.raises(UnsupportedOperationError, match=r"SSM \(layers.0.core\)"):
            rigour.verify(*folder.places())


def test_networks_that_differ_outside_their_layers_are_refused(tmp_path, plain):
    """The decoder of the reduced network is another one; hashes and seal are in order."""
    model = load_network(plain.path)
    with torch.no_grad():
        model.get_parameter("decoder.weight")[0, 0] += 1e-6
    save_network(model, tmp_path)
    data = stored(plain.certificate)
    data["reduced_sha256"] = ssmred.networks.weights_sha256(model)
    path = tmp_path / "certificate.json"
    path.write_text(ssmred.rigour.verifier.render(seal(data)))
    with pytest.raises(CertificateError, match=r"decoder .*weight differ"):
        rigour.verify(path, plain.original, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fashion-mnist-s4d", "fashion-mnist-s4d-gelu", "listops-s4d"])
def test_zoo_networks_within_a_minute(name, tmp_path):
    model, _ = ssmred.zoo.load(name)
    tokens = name.startswith("listops")
    inputs = ssmred.InputSet.tokens() if tokens else ssmred.InputSet.box(0, 1)
    folder = reduced_folder(
        tmp_path / name, model, 0.3, inputs=inputs, horizon=96 if tokens else 196
    )
    begin = time.process_time()  # whatever else the machine does
    report = rigour.verify(*folder.places())
    assert time.process_time() - begin < 60.0
    certificate = folder.result.certificate
    assert report.absolute_bound <= certificate.bound * certificate.scale * (1 + FLOAT_ROUNDING)
    assert number(report.certificate["bound"]) == report.relative_bound
