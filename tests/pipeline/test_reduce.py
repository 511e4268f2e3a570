"""`ssmred.reduce`, end to end, on small networks."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from small_networks import HORIZON, TokenNetwork, WithoutRule, classifier, sequences

import ssmred
from ssmred.certify import exceedance_upper_bound
from ssmred.errors import CertificateError
from ssmred.networks import ReducedSSM, import_network, weights_sha256

FLOAT32_INFERENCE = 1e-4
"""Two float32 networks that compute the same agree to this, relative to outputs of size one."""


def exact(model: torch.nn.Module) -> torch.nn.Module:
    """Return the network in float64, where statements about exact arithmetic can be tested."""
    return copy.deepcopy(model).double()


@pytest.mark.theorem("network-bound")
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("share", [0.2, 0.6, 0.9])
def test_no_input_of_the_set_exceeds_the_worst_case_bound(gated: bool, share: float) -> None:
    model = exact(classifier(gated=gated))
    result = ssmred.reduce(
        model, states=share, horizon=HORIZON, guarantee="worst-case", progress=False
    )
    bound = result.certificate.bound * result.certificate.scale
    x = torch.from_numpy(
        ssmred.InputSet.box(-1, 1).sample(np.random.default_rng(0), 200, HORIZON, 2)
    )
    x = torch.cat([x, torch.ones(1, HORIZON, 2, dtype=x.dtype)])
    with torch.no_grad():
        errors = (model(x) - result.model(x)).norm(dim=-1)
    assert float(errors.max()) > 0
    assert bool((errors <= bound).all())


def test_a_tolerance_is_kept_and_something_goes_without_a_gate() -> None:
    model = exact(classifier(gated=False))
    result = ssmred.reduce(model, tol=1e-3, horizon=HORIZON, progress=False)
    assert result.certificate.guarantee == "worst-case"
    assert result.certificate.bound <= 1e-3
    assert not result.certificate.vacuous
    assert result.removed > 0
    x = sequences(50).double()
    with torch.no_grad():
        errors = (model(x) - result.model(x)).norm(dim=-1)
    assert bool((errors <= result.certificate.bound * result.certificate.scale).all())


@pytest.mark.theorem("layer-guarantee")
def test_layer_guarantee_holds_for_every_layer_by_direct_summation() -> None:
    model = classifier()
    result = ssmred.reduce(model, tol=1e-2, horizon=HORIZON, guarantee="layer", progress=False)
    full, reduced = import_network(model), import_network(result.model)
    assert result.removed > 0
    for before, after in zip(full.layers, reduced.layers, strict=True):
        h = before.system.impulse_response(HORIZON)
        gap = np.linalg.norm(h - after.system.impulse_response(HORIZON))
        assert gap <= 1e-2 * np.linalg.norm(h)


@pytest.mark.theorem("fixed-sequence-testing")
def test_statistical_guarantee_is_backed_by_the_held_out_half() -> None:
    model, data = classifier(), sequences(400)
    result = ssmred.reduce(model, tol=0.05, data=data, progress=False)
    certificate = result.certificate
    assert certificate.guarantee == "statistical"
    assert certificate.bound == 0.05
    assert result.removed > 0
    facts = certificate.statistics
    assert exceedance_upper_bound(facts["violations"], facts["n"], 0.95) <= 0.05
    report = ssmred.verify(certificate, model, result.model, data=data)
    assert report.passed
    forged = dataclasses.replace(certificate, scale=1.01 * certificate.scale)
    with pytest.raises(CertificateError, match="output scale"):
        ssmred.verify(forged, model, result.model, data=data)
    with torch.no_grad():
        fresh = sequences(2_000, seed=1)
        errors = (model(fresh) - result.model(fresh)).norm(dim=-1)
    assert float((errors <= 0.05 * certificate.scale).double().mean()) >= 0.95


def test_share_of_states_is_an_upper_limit() -> None:
    model, data = classifier(), sequences(200)
    for share in (0.0, 0.1, 0.37, 1.0):
        for arguments in ({"data": data}, {"horizon": HORIZON, "guarantee": "layer"}):
            result = ssmred.reduce(model, states=share, progress=False, **arguments)
            kept, full = result.states
            assert full == 2 * 6 * 16
            assert kept <= share * full
            assert (
                sum(m.states for m in result.model.modules() if isinstance(m, ReducedSSM)) == kept
            )


def test_keeping_everything_changes_nothing_but_rounding() -> None:
    model, data = classifier(), sequences(200)
    result = ssmred.reduce(model, states=1.0, data=data, progress=False)
    with torch.no_grad():
        gap = (model(data) - result.model(data)).abs().max()
    assert float(gap) < FLOAT32_INFERENCE


def test_calibration_beats_the_data_free_cut_on_the_data() -> None:
    model, data = classifier(), sequences(400)
    errors = {}
    for name, arguments in {"h2": {"metric": "h2"}, "calibrated": {}}.items():
        result = ssmred.reduce(model, states=0.3, data=data, progress=False, **arguments)
        with torch.no_grad():
            errors[name] = float((model(data) - result.model(data)).square().mean())
    assert errors["calibrated"] < errors["h2"]


def test_the_model_is_never_modified_and_the_cut_is_reproducible() -> None:
    model, data = classifier(), sequences(300)
    before = weights_sha256(model)
    first = ssmred.reduce(model, tol=0.1, data=data, progress=False)
    second = ssmred.reduce(model, tol=0.1, data=data, progress=False)
    assert weights_sha256(model) == before
    assert first.certificate.reduced_sha256 == second.certificate.reduced_sha256


def test_tokens_are_the_default_set_behind_an_embedding() -> None:
    torch.manual_seed(0)
    model = TokenNetwork().double().eval()
    result = ssmred.reduce(model, states=0.5, horizon=12, guarantee="worst-case", progress=False)
    assert result.certificate.inputs["kind"] == "tokens"
    tokens = torch.randint(0, 11, (300, 12))
    with torch.no_grad():
        errors = (model(tokens) - result.model(tokens)).norm(dim=-1)
    assert bool((errors <= result.certificate.bound * result.certificate.scale).all())


def test_box_of_the_data_is_a_smaller_set() -> None:
    model, data = classifier(gated=False), 0.25 * sequences(100)
    bounds = {}
    for name, inputs in {"data": "data", "unit": ssmred.InputSet.box(-1, 1)}.items():
        result = ssmred.reduce(
            model,
            states=0.5,
            data=data,
            metric="h2",
            inputs=inputs,
            guarantee="worst-case",
            progress=False,
        )
        bounds[name] = result.certificate.bound * result.certificate.scale
    assert bounds["data"] < bounds["unit"]


def test_nothing_removable_is_an_answer_with_alternatives() -> None:
    model = classifier()
    result = ssmred.reduce(model, tol=1e-17, horizon=HORIZON, progress=False)
    assert result.states[0] == result.states[1]
    assert "Nothing can be removed" in result.summary()
    assert any(row.guarantee == "layer" for row in result.alternatives)
    assert any(row.guarantee == "worst-case" and row.removed > 0 for row in result.alternatives)


def test_layer_tolerance_below_rounding_keeps_everything() -> None:
    result = ssmred.reduce(
        classifier(), tol=1e-40, horizon=HORIZON, guarantee="layer", progress=False
    )
    assert result.states[0] == result.states[1]


def test_tolerance_that_no_cut_meets_certifies_what_rounding_costs() -> None:
    result = ssmred.reduce(classifier(), tol=1e-9, data=sequences(200), progress=False)
    assert result.states[0] == result.states[1]
    assert 1e-9 < result.certificate.bound < FLOAT32_INFERENCE


def test_data_without_a_rule_still_reduces_statistically() -> None:
    torch.manual_seed(0)
    model = WithoutRule().eval()
    result = ssmred.reduce(model, states=0.5, data=sequences(200), progress=False)
    assert result.removed >= 0.5


def test_loader_and_array_give_what_the_tensor_gives() -> None:
    model, data = classifier(), sequences(200)
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(data, torch.zeros(200)), batch_size=64
    )
    hashes = {
        ssmred.reduce(model, states=0.4, data=kind, progress=False).certificate.reduced_sha256
        for kind in (data, data.numpy(), loader)
    }
    assert len(hashes) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        {"tol": 1e-9, "horizon": HORIZON},
        {"tol": 1e-3, "horizon": HORIZON, "guarantee": "layer"},
        {"states": 1.0, "horizon": HORIZON},
        {"states": 0.9, "horizon": HORIZON},
        {"states": 0.5},
        {"states": 0.5, "guarantee": "layer"},
        {"tol": 1e-9, "data": sequences(200)},
        {"states": 0.7, "data": sequences(200), "guarantee": "worst-case"},
    ],
)
@pytest.mark.parametrize("gated", [False, True])
def test_every_fresh_certificate_verifies_before_and_after_the_folder(
    arguments: dict, gated: bool, tmp_path: Path
) -> None:
    model = classifier(gated=gated, dropout=0.1)
    result = ssmred.reduce(model, progress=False, **arguments)
    assert ssmred.verify(result.certificate, model, result.model).passed
    again = ssmred.load(result.save(tmp_path / "reduced"))
    assert ssmred.verify(again.certificate, again.original, again.model).passed
    assert ssmred.verify(again.certificate, model, again.model).passed


def test_weights_changed_after_certification_are_refused() -> None:
    model, data = classifier(), sequences(200)
    result = ssmred.reduce(model, states=0.4, data=data, progress=False)
    with torch.no_grad():
        result.model.decoder.bias[0] += 1e-6
    with pytest.raises(CertificateError, match="reduced weights"):
        ssmred.verify(result.certificate, model, result.model)


def test_the_curve_runs_from_everything_to_nothing() -> None:
    result = ssmred.reduce(classifier(), states=0.4, data=sequences(200), progress=False)
    assert result.path.states[0] == result.states[1]
    assert result.path.states[-1] == 0
    assert np.all(np.diff(result.path.error) >= -1e-12)
    assert result.path.error[-1] == 1.0
