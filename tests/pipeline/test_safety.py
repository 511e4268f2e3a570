"""The safety report of real results: every guarantee, every kind of layer, what is recomputed."""

from __future__ import annotations

import ast
import dataclasses
import json

import numpy as np
import pytest
import torch

import ssmred
from ssmred.errors import CertificateError, RequestError
from ssmred.gramians import hankel_singular_values
from ssmred.networks.deep import DeepLQO, DeepSSM
from ssmred.pipeline.safety import decay_of, layer_numbers, safety_page
from ssmred.systems import DiagonalSystem
from tests.pipeline.small_networks import HORIZON, TokenNetwork, classifier, sequences
from tests.report.page_cases import Reader, latency

DATA = {"data": sequences(200)}
FREE = {"horizon": HORIZON}


@pytest.fixture(autouse=True)
def _without_pictures(monkeypatch):
    monkeypatch.setattr("ssmred.report.page.embedded", lambda _: "data:image/svg+xml;base64,")


def reduced(model, **wish):
    return ssmred.reduce(model, progress=False, **wish)


def shared(layer: str) -> DeepSSM:
    torch.manual_seed(3)
    return DeepSSM(2, 3, layer=layer, channels=4, states=8, layers=2).eval()


def squared() -> DeepLQO:
    torch.manual_seed(0)
    return DeepLQO(2, 3, channels=3, states=8, layers=2, r_min=0.3, r_max=0.9).double().eval()


CASES = {
    "statistical": lambda: reduced(classifier(), states=0.4, **DATA),
    "worst-case": lambda: reduced(classifier(gated=False), states=0.5, **FREE),
    "worst-case on data": lambda: reduced(
        classifier(), states=0.5, guarantee="worst-case", inputs="data", **DATA
    ),
    "layer": lambda: reduced(classifier(), tol=1e-2, guarantee="layer", **FREE),
    "every length": lambda: reduced(classifier(), tol=1e-2, guarantee="layer"),
    "nothing removed": lambda: reduced(classifier(), tol=1e-30, guarantee="layer", **FREE),
    "tokens": lambda: reduced(TokenNetwork().eval(), states=0.5, horizon=12),
    "one state for all": lambda: reduced(shared("lru"), states=0.5, guarantee="layer", **FREE),
    "dense": lambda: reduced(shared("s4"), states=0.5, guarantee="layer", **FREE),
    "squares": lambda: reduced(
        squared(), states=0.5, guarantee="layer", method="lqo-bound", **FREE
    ),
}


@pytest.fixture(scope="module", params=CASES)
def case(request):
    return request.param, CASES[request.param]()


def needs_data(result) -> bool:
    plan = result.certificate.scale_sampling or {}
    return result.certificate.statistics is not None or "data_sha256" in plan


def test_the_page_says_what_the_result_says(case, tmp_path):
    name, result = case
    given = DATA if needs_data(result) else {}
    target = result.report(tmp_path / "report.html", title=name, **given)
    text = Reader(target.read_text(encoding="utf-8")).text
    stated = result.certificate
    kept, full = result.states
    assert stated.statement() in text
    assert f"{kept:,} of {full:,} kept" in text
    assert ("This bound is vacuous" in text) == stated.vacuous
    assert ("Nothing was removed" in text) == (name == "nothing removed")
    assert stated.reduced_sha256 in text
    assert result.machine in text
    assert "all agree" in text
    assert "no Hankel singular values" not in text
    assert ("count as outputs here" in text) == (name == "squares")


def test_cuts_and_values_are_those_of_the_layers(case):
    _, result = case
    page = safety_page(result)
    records = {record.name: record for record in result.certificate.layers}
    systems = dict(ssmred.export(result.original).layers)
    assert [one.name for one in page.decays] == list(systems)
    for one in page.decays:
        assert int(one.kept.sum()) == records[one.name].states_kept
        system = systems[one.name].replace(recurrence="standard")
        values = hankel_singular_values(system, horizon=result.certificate.horizon)
        assert np.allclose(one.values, values.reshape(one.values.shape))


def test_numbers_in_layers_add_up_with_the_rest(case):
    _, result = case
    kept, full = layer_numbers(result)
    assert 0 < full < result.parameters[1]
    assert 0 < kept < result.parameters[0]
    assert result.parameters[0] - kept == result.parameters[1] - full


def test_numbers_in_layers_are_those_of_their_tensors():
    result = CASES["statistical"]()
    own = [
        parameter.numel()
        for name, parameter in result.original.named_parameters()
        if ".kernel." in name or name.endswith(".D")
    ]
    assert layer_numbers(result)[1] == sum(own)


def test_the_call_makes_the_same_network_again(case, tmp_path):
    _, result = case
    stored = ssmred.load(result.save(tmp_path / "folder"))
    page = Reader(stored.report(tmp_path / "report.html").read_text(encoding="utf-8"))
    (call,) = [text for text in page.pieces if text.startswith("import ssmred")]
    names = {"model": result.original, "data": sequences(200)}
    tree = ast.parse(call)
    tree.body[-1].value.keywords.append(ast.keyword("progress", ast.Constant(value=False)))
    exec(compile(ast.fix_missing_locations(tree), "call", "exec"), names)
    again = names["result"].certificate
    assert again.reduced_sha256 == result.certificate.reduced_sha256
    assert again.bound == pytest.approx(result.certificate.bound, rel=1e-9)
    assert again.inputs == result.certificate.inputs


def test_unstable_layers_have_values_over_a_horizon_only():
    options = {"recurrence": "post-update", "real_output": True}
    system = DiagonalSystem([[1.02]], [[[1.0]]], [[[1.0]]], **options)
    endless = decay_of("layers.0", system, None, np.array([2]))
    assert endless.values is None
    assert endless.problem
    assert decay_of("layers.0", system, 8, np.array([2])).values.shape == (1, 2)


def test_there_is_no_report_of_a_certificate_that_does_not_hold(tmp_path):
    result = CASES["layer"]()
    forged = dataclasses.replace(
        result, certificate=dataclasses.replace(result.certificate, bound=1e-9)
    )
    with pytest.raises(CertificateError, match="bound"):
        forged.report(tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


def test_data_left_out_are_said_to_be(tmp_path):
    result = CASES["statistical"]()
    path = tmp_path / "report.html"
    text = Reader(result.report(path).read_text(encoding="utf-8")).text
    assert "Not recomputed: the statistical part" in text
    text = Reader(result.report(path, **DATA).read_text(encoding="utf-8")).text
    assert "the statistical part" not in text
    with pytest.raises(CertificateError):
        result.report(path, data=sequences(200, seed=1))


def test_latency_is_handed_through(tmp_path):
    result = CASES["layer"]()
    path = result.report(tmp_path / "report.html", latency=latency())
    assert "another machine" in path.read_text(encoding="utf-8")


def test_the_name_is_looked_at_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr("ssmred.pipeline.safety.verify", pytest.fail)
    with pytest.raises(RequestError, match="html"):
        CASES["layer"]().report(tmp_path / "report.pdf")


def test_older_results_have_no_call_and_no_machine(tmp_path):
    folder = CASES["layer"]().save(tmp_path / "folder")
    record = folder / "result.json"
    stored = json.loads(record.read_text())
    del stored["request"], stored["machine"]
    record.write_text(json.dumps(stored))
    result = ssmred.load(folder)
    assert (result.request, result.machine) == (None, "")
    text = Reader(result.report(tmp_path / "report.html").read_text(encoding="utf-8")).text
    assert "made by an older version" in text
