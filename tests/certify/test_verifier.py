"""Verification: everything recomputed from two models, and any difference refused."""

import dataclasses
import hashlib

import numpy as np
import pytest
from certify_reference import classifier, evaluate

from ssmred.certify import (
    Certificate,
    InputSet,
    data_sha256,
    fixed_sequence_test,
    layer_bounds,
    layer_records,
    network_bound,
    output_errors,
    output_scale,
    register_model_reader,
    relative_bound,
    split_indices,
    verifier,
    verify,
)
from ssmred.certify.statistics import binomial_p_value
from ssmred.errors import CertificateError, MissingDependencyError, ShapeError

T = 8
SAMPLING = {"seed": 3, "count": 16, "features": 2}


class Reader:
    """Reads network graphs, as another reader reads torch models."""

    def graph(self, model, horizon, inputs):
        return model

    def systems(self, model):
        return {node.name: node.params["system"] for node in model.ssm_nodes}

    def weights_sha256(self, model):
        digest = hashlib.sha256()
        for node in model:
            for key, value in sorted(node.params.items()):
                if key == "system":
                    value = np.concatenate([value.poles.ravel(), value.C.ravel(), value.D.ravel()])
                digest.update(
                    value.tobytes() if isinstance(value, np.ndarray) else b"%r" % (value,)
                )
        return digest.hexdigest()

    def outputs(self, model, data):
        return evaluate(model, np.asarray(data))[model.output].astype(np.float64)


@pytest.fixture(autouse=True)
def reader(monkeypatch):
    monkeypatch.setattr(verifier, "_readers", [])
    register_model_reader(Reader())


@pytest.fixture
def models():
    return classifier(np.random.default_rng(0), perturb=1e-3, kept=4)


def hashes(original, reduced):
    read = Reader()
    return {"original_sha256": read.weights_sha256(original),
            "reduced_sha256": read.weights_sha256(reduced)}  # fmt: skip


def common(original, reduced):
    return {"tol": None, "scale_source": "samples of the input set", "horizon": T, "metric": "h2",
            "ssmred_version": "0.1.0", **hashes(original, reduced)}  # fmt: skip


def worst_case(original, reduced, *, horizon=T, length=None, data=None):
    inputs = InputSet.box(-1, 1)
    chain = network_bound(original, reduced, inputs, horizon)
    plan = SAMPLING | ({"length": length} if length else {})
    if data is not None:
        plan, samples = {"data_sha256": data_sha256(data)}, data
    else:
        samples = inputs.sample(np.random.default_rng(SAMPLING["seed"]), 16, length or horizon, 2)
    scale = output_scale(Reader().outputs(original, samples))
    return Certificate(
        guarantee="worst-case", bound=relative_bound(chain.bound, scale), scale=scale,
        scale_sampling=plan,
        layers=layer_records(chain), inputs=inputs.to_json(),
        **(common(original, reduced) | {"horizon": horizon}),
    )  # fmt: skip


def layer_only(original, reduced):
    read = Reader()
    records = layer_records(layer_bounds(read.systems(original), read.systems(reduced), T))
    return Certificate(
        guarantee="layer", bound=max(r.relative_error for r in records), scale=1.0,
        layers=records, **common(original, reduced),
    )  # fmt: skip


def statistical(original, reduced, data, tol=0.5):
    read = Reader()
    _, held_out = split_indices(len(data), 5)
    inputs = data[held_out]
    decide, _ = split_indices(len(data), 5)
    scale = output_scale(read.outputs(original, data[decide]))
    errors = output_errors(read.outputs(original, inputs), read.outputs(reduced, inputs)) / scale
    test = fixed_sequence_test(errors[None], tol, 0.9, 0.9)
    records = layer_records(layer_bounds(read.systems(original), read.systems(reduced), T))
    return Certificate(
        guarantee="statistical", bound=tol, scale=scale, layers=records,
        statistics={"coverage": 0.9, "confidence": 0.9, "n": test.n,
                    "violations": test.steps[0].violations, "split_seed": 5,
                    "split_fraction": 0.5, "data_sha256": data_sha256(inputs)},
        **common(original, reduced),
    )  # fmt: skip


def test_honest_certificates_pass(models):
    report = verify(worst_case(*models), *models)
    assert report.passed
    names = {check.name for check in report.checks}
    assert {"original weights", "bound", "vacuity", "output scale", "layer0: weight"} <= names
    assert report.not_recomputed == ()
    assert "all agree" in str(report)
    report = verify(layer_only(*models), *models)
    assert report.passed
    assert "bound" in {check.name for check in report.checks}


def test_loading_changes_nothing(models, tmp_path):
    path = worst_case(*models).save(tmp_path / "certificate.json")
    assert verify(Certificate.load(path), *models).passed


def replace_record(certificate, **changes):
    first = dataclasses.replace(certificate.layers[0], **changes)
    return dataclasses.replace(certificate, layers=(first, *certificate.layers[1:]))


TAMPERED = [
    ("bound", lambda c: dataclasses.replace(c, bound=c.bound * (1 - 1e-8))),
    ("bound", lambda c: dataclasses.replace(c, scale=c.scale * 1.001)),
    ("scale", lambda c: dataclasses.replace(c, scale=c.scale * 1.001, bound=c.bound / 1.001)),
    ("bound", lambda c: dataclasses.replace(c, inputs=InputSet.box(-0.9, 1).to_json())),
    ("bound", lambda c: dataclasses.replace(c, horizon=T - 1)),
    ("original weights", lambda c: dataclasses.replace(c, original_sha256="0" * 64)),
    ("reduced weights", lambda c: dataclasses.replace(c, reduced_sha256="0" * 64)),
    ("theorems", lambda c: dataclasses.replace(c, theorems=c.theorems[1:])),
    ("assumptions", lambda c: dataclasses.replace(c, assumptions=("None.",))),
    ("level", lambda c: dataclasses.replace(c, level="RIGOROUS")),
    ("states_kept", lambda c: replace_record(c, states_kept=2)),
    ("states_full", lambda c: replace_record(c, states_full=640)),
    ("relative_error", lambda c: replace_record(c, relative_error=1e-9)),
    ("gain_error", lambda c: replace_record(c, gain_error=0.0)),
    ("weight", lambda c: replace_record(c, weight=1e-3)),
    ("layer names", lambda c: replace_record(c, name="other")),
    ("layer names", lambda c: dataclasses.replace(c, layers=c.layers[:1])),
]


def moved(certificate, **changes):
    """Return a certificate whose bound looks 1024 times smaller: the scale carries the rest."""
    return dataclasses.replace(
        certificate, bound=certificate.bound / 1024, scale=certificate.scale * 1024, **changes
    )


PLANS = [
    None, {}, {"seed": 3}, SAMPLING | {"count": 0}, SAMPLING | {"count": 16.0},
    SAMPLING | {"seed": -1}, SAMPLING | {"seed": True}, SAMPLING | {"features": 3},
    SAMPLING | {"features": "2"}, SAMPLING | {"length": T + 1}, SAMPLING | {"length": None},
    SAMPLING | {"count": 2**40}, SAMPLING | {"more": 1}, {"data_sha256": 5},
    {"data_sha256": "0" * 63}, {"data_sha256": "0" * 64, "count": 3},
]  # fmt: skip


@pytest.mark.parametrize("plan", PLANS)
def test_worst_case_scales_have_to_be_repeatable(models, plan):
    with pytest.raises(CertificateError, match="scale sampling"):
        verify(moved(worst_case(*models), scale_sampling=plan), *models)


def test_scales_moved_out_of_the_bound_are_refused(models):
    certificate = worst_case(*models)
    with pytest.raises(CertificateError, match="output scale"):
        verify(moved(certificate), *models)
    longer = dataclasses.replace(certificate, scale_sampling=SAMPLING | {"length": T})
    assert verify(longer, *models).passed
    with pytest.raises(CertificateError, match="output scale"):
        verify(moved(longer), *models)


def test_scales_over_an_infinite_horizon_are_repeated_at_the_recorded_length(models):
    certificate = worst_case(*models, horizon=None, length=12)
    report = verify(certificate, *models)
    assert "output scale" in {check.name for check in report.checks}
    assert report.not_recomputed == ()
    with pytest.raises(CertificateError, match="output scale"):
        verify(moved(certificate), *models)
    for plan in (None, SAMPLING, SAMPLING | {"length": 0}):
        with pytest.raises(CertificateError, match="scale sampling"):
            verify(moved(certificate, scale_sampling=plan), *models)


def test_scales_from_data_are_repeated_on_these_data(models):
    data = np.random.default_rng(4).uniform(-1, 1, (20, T, 2))
    certificate = worst_case(*models, data=data)
    report = verify(certificate, *models, data=data)
    assert "output scale" in {check.name for check in report.checks}
    assert report.not_recomputed == ()
    with pytest.raises(CertificateError, match="output scale"):
        verify(moved(certificate), *models, data=data)
    with pytest.raises(CertificateError, match="scale data"):
        verify(certificate, *models, data=data[::-1])
    report = verify(certificate, *models)
    assert "output scale" not in {check.name for check in report.checks}
    (text,) = report.not_recomputed
    assert "output scale" in text
    assert f"{certificate.bound * certificate.scale:.6g}" in text


@pytest.mark.parametrize(("name", "tamper"), TAMPERED)
def test_any_difference_is_refused_by_name(models, name, tamper):
    with pytest.raises(CertificateError, match=name):
        verify(tamper(worst_case(*models)), *models)


def test_changed_weights_are_refused(models):
    certificate = worst_case(*models)
    original, reduced = models
    with pytest.raises(CertificateError, match="reduced weights"):
        verify(certificate, original, original)
    with pytest.raises(CertificateError, match=r"original weights.*reduced weights"):
        verify(certificate, reduced, original)


def test_every_difference_is_listed(models):
    certificate = replace_record(worst_case(*models), states_kept=2, weight=1e-3)
    with pytest.raises(CertificateError, match=r"states_kept.*weight"):
        verify(certificate, *models)


def test_layer_certificates_refuse_another_bound(models):
    certificate = layer_only(*models)
    with pytest.raises(CertificateError, match="bound"):
        verify(dataclasses.replace(certificate, bound=certificate.bound / 2), *models)


@pytest.mark.theorem("statistical-certificate")
def test_statistical_certificates(models):
    data = np.random.default_rng(1).uniform(-1, 1, (80, T, 2))
    certificate = statistical(*models, data)
    report = verify(certificate, *models)
    assert any("data=" in text for text in report.not_recomputed)
    assert "not recomputed: the statistical part" in str(report)
    _, held_out = split_indices(len(data), 5)
    for given in (data, data[held_out]):
        report = verify(certificate, *models, data=given)
        assert "violations" in {check.name for check in report.checks}
    with pytest.raises(CertificateError, match="held-out inputs"):
        verify(certificate, *models, data=data + 1e-9)
    facts = dict(certificate.statistics)
    for changes, name in (
        ({"violations": 1}, "violations"), ({"violations": 40}, "binomial"),
        ({"coverage": 0.99}, "binomial"), ({"confidence": 0.9999}, "binomial"),
        ({"n": None}, "statistics"),
    ):  # fmt: skip
        other = dataclasses.replace(certificate, statistics=facts | changes)
        with pytest.raises(CertificateError, match=name):
            verify(other, *models, data=data)
    with pytest.raises(CertificateError, match="output scale"):
        verify(dataclasses.replace(certificate, scale=certificate.scale * 1.01), *models, data=data)
    # a smaller bound has violations that the certificate does not admit
    with pytest.raises(CertificateError, match="violations"):
        verify(dataclasses.replace(certificate, bound=1e-12), *models, data=data)


def walked(original, reduced, data, tol=0.5):
    """Return a certificate of a walk over two cuts: nothing removed, then ``reduced``."""
    certificate = statistical(original, reduced, data, tol)
    facts = dict(certificate.statistics)
    p = [binomial_p_value(k, facts["n"], 0.9) for k in (0, facts["violations"])]
    kept, full = certificate.states
    facts["sequence"] = [
        {"states": full + 2, "violations": 0, "p_value": p[0], "accepted": True},
        {"states": kept, "violations": facts["violations"], "p_value": p[1], "accepted": True},
    ]
    return dataclasses.replace(certificate, tol=tol, statistics=facts | {"stopped_at": None})


@pytest.mark.theorem("statistical-certificate")
def test_the_record_of_the_walk_follows_from_its_violations(models):
    data = np.random.default_rng(1).uniform(-1, 1, (80, T, 2))
    certificate = walked(*models, data)
    for given in (None, data):
        report = verify(certificate, *models, data=given)
        assert {"cut 0: p-value", "cut 1: accepted", "walk: kept cut"} <= {
            check.name for check in report.checks
        }
    facts = dict(certificate.statistics)

    def step(at, **changes):
        steps = [dict(entry) for entry in facts["sequence"]]
        steps[at] |= changes
        return {"sequence": steps}

    failed = {"violations": 40, "p_value": 1.0, "accepted": False}
    for changes, name in (
        (step(0, p_value=0.001), "cut 0: p-value"), (step(0, accepted=False), "cut 0: accepted"),
        (step(0, violations=30), "cut 0: p-value"), (step(0, violations=3.0), "statistics"),
        (step(0, accepted=1), "cut 0: accepted"), ({"sequence": [1]}, "statistics"),
        (step(0, **failed), "walk"), ({"sequence": []}, "walk"),
        (step(1, **failed), "stopped at"), ({"stopped_at": 1}, "stopped at"),
        (step(1, **failed) | {"stopped_at": 1}, "kept cut"), (step(1, states=2), "kept cut"),
        ({"confidence": 1.5}, "statistics"), ({"n": 40.5}, "statistics"),
    ):  # fmt: skip
        with pytest.raises(CertificateError, match=name):
            verify(dataclasses.replace(certificate, statistics=facts | changes), *models)
    # without data the absolute bound is what is left, but an accepted cut's bound is the tolerance
    with pytest.raises(CertificateError, match="as was tested"):
        verify(moved(certificate), *models)
    report = verify(dataclasses.replace(certificate, tol=None), *models)
    assert report.passed


def test_a_first_cut_that_failed_has_a_bound_above_its_tolerance(models):
    data = np.random.default_rng(1).uniform(-1, 1, (80, T, 2))
    certificate = walked(*models, data)
    n = certificate.statistics["n"]
    kept = certificate.states[0]
    failed = {"states": kept, "violations": n, "p_value": 1.0, "accepted": False}
    facts = certificate.statistics | {"sequence": [failed], "stopped_at": 0}
    for tol, fits in ((1e-9, True), (certificate.bound, False)):
        other = dataclasses.replace(certificate, tol=tol, statistics=facts)
        if fits:
            assert verify(other, *models, data=data).passed
        else:
            with pytest.raises(CertificateError, match="above"):
                verify(other, *models, data=data)


def test_statistical_plans_name_the_deciding_data(models):
    data = np.random.default_rng(1).uniform(-1, 1, (80, T, 2))
    decide, held_out = split_indices(len(data), 5)
    certificate = statistical(*models, data)
    plan = {"data_sha256": data_sha256(data[decide])}
    good = dataclasses.replace(certificate, scale_sampling=plan)
    assert verify(good, *models, data=data).passed
    assert any(
        "output scale" in t for t in verify(good, *models, data=data[held_out]).not_recomputed
    )
    for plan, name in (({"data_sha256": "0" * 64}, "scale data"), (SAMPLING, "scale sampling")):
        with pytest.raises(CertificateError, match=name):
            verify(dataclasses.replace(certificate, scale_sampling=plan), *models, data=data)


def test_scalar_outputs_are_vectors_of_one_feature():
    y, z = np.array([3.0, -4.0, 5.0]), np.array([3.0, -2.0, 5.5])
    assert output_errors(y, z).tolist() == output_errors(y[:, None], z[:, None]).tolist()
    assert output_errors(y, z).tolist() == [0.0, 2.0, 0.5]
    assert output_scale(y) == output_scale(y[:, None]) == np.sqrt(50.0 / 3.0)
    assert np.isnan(output_errors(np.array([np.nan]), np.array([0.0]))).all()
    with pytest.raises(ShapeError, match="different shapes"):
        output_errors(y, z[:2])
    for nothing in (np.float64(1.0), np.zeros(0), np.zeros((0, 3))):
        with pytest.raises(ShapeError, match="no outputs"):
            output_scale(nothing)
        with pytest.raises(ShapeError, match="no outputs"):
            output_errors(nothing, nothing)


def test_errors_are_the_largest_over_time():
    first, second = np.zeros((2, 5, 3)), np.zeros((2, 5, 3))
    second[1, 4] = [0.0, 3.0, 4.0]
    assert output_errors(first, second).tolist() == [0.0, 5.0]


def test_without_a_reader_the_cure_is_named(models, monkeypatch):
    monkeypatch.setattr(verifier, "_readers", [])
    monkeypatch.setattr(verifier.importlib, "import_module", lambda name: None)
    with pytest.raises(MissingDependencyError, match="register_model_reader"):
        verify(worst_case(*models), *models)
