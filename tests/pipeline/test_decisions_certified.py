"""Changed decisions in the certificates of `ssmred.reduce`, and their verification."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from small_networks import classifier, sequences

import ssmred
from ssmred.certify import DecisionChanges, decision_changes, split_indices
from ssmred.errors import CertificateError
from ssmred.networks.deep import DeepSSM
from ssmred.pipeline import ReductionResult

DATA = sequences(400)


@pytest.fixture(scope="module", params=[{"tol": 0.2}, {"states": 0.1}])
def result(request: pytest.FixtureRequest) -> ReductionResult:
    return ssmred.reduce(classifier(), data=DATA, progress=False, **request.param)


def decisions(result: ReductionResult) -> DecisionChanges:
    return DecisionChanges.from_json((result.certificate.statistics or {})["decisions"])


def altered(result: ReductionResult, **changes: Any) -> ssmred.Certificate:
    facts = (result.certificate.statistics or {}) | changes
    return dataclasses.replace(result.certificate, statistics=facts)


@pytest.mark.theorem("decision-changes")
def test_the_counts_are_those_of_the_held_out_half(result: ReductionResult) -> None:
    stated = decisions(result)
    held_out = DATA[split_indices(len(DATA), 0)[1]]
    with torch.no_grad():
        before, after = (m(held_out).argmax(dim=-1) for m in (result.original, result.model))
    assert stated.inputs == len(held_out) == 200
    assert stated.changes == int((before != after).sum())
    for entry in stated.by_class:
        chosen = before == entry.label
        assert entry.inputs == int(chosen.sum())
        assert entry.changes == int((before != after)[chosen].sum())
    facts = result.certificate.statistics or {}
    if result.certificate.tol is None:
        assert stated.cuts == 1
    else:
        assert stated.cuts >= len(facts["sequence"]) >= 2
    assert "decision-changes" in result.certificate.theorems


def test_the_certificate_says_so_and_where_it_ends(result: ReductionResult) -> None:
    page = str(result.certificate)
    assert f"{decisions(result).changes:,} of 200 held-out inputs get another class" in page
    assert "Covariate shift" in page
    assert "drawn like the held-out ones" in page


def test_verification_counts_again(result: ReductionResult) -> None:
    original, reduced = result.original, result.model
    assert ssmred.verify(result.certificate, original, reduced).passed
    report = ssmred.verify(result.certificate, original, reduced, data=DATA)
    assert report.passed
    assert {"decisions: changes", "decisions: by class"} <= {c.name for c in report.checks}
    stated = decisions(result)
    # as many changes, but told of another class; every bound follows from its counts
    labels = np.repeat(
        [e.label for e in stated.by_class], [e.inputs for e in stated.by_class]
    )  # all of one class changed first
    forged = np.eye(3)[labels], np.eye(3)[np.r_[(labels[: stated.changes] + 1) % 3,
                                                labels[stated.changes :]]]  # fmt: skip
    other = decision_changes(*forged, stated.confidence, cuts=stated.cuts)
    fewer = decision_changes(forged[0], forged[0], stated.confidence, cuts=stated.cuts)
    for lie in (other, fewer):
        if lie == stated:
            continue
        certificate = altered(result, decisions=lie.to_json())
        assert ssmred.verify(certificate, original, reduced).passed  # nothing to compare with
        with pytest.raises(CertificateError, match="decisions"):
            ssmred.verify(certificate, original, reduced, data=DATA)


def test_forgeries_are_refused_without_data(result: ReductionResult) -> None:
    original, reduced = result.original, result.model
    half = np.eye(3)[np.zeros(100, dtype=int)]
    confidence = (result.certificate.statistics or {})["confidence"]
    for lie in (
        decision_changes(half, half, confidence, cuts=decisions(result).cuts),  # fewer inputs
        decision_changes(np.vstack([half, half]), np.vstack([half, half]), 0.5, cuts=99),
    ):
        with pytest.raises(CertificateError, match="decisions"):
            ssmred.verify(altered(result, decisions=lie.to_json()), original, reduced)
    with pytest.raises(CertificateError, match="changes of decisions"):
        altered(result, decisions=decisions(result).to_json() | {"bound": 1e-9})
    without = tuple(t for t in result.certificate.theorems if t != "decision-changes")
    with pytest.raises(CertificateError, match="theorems"):
        ssmred.verify(dataclasses.replace(result.certificate, theorems=without), original, reduced)


def test_a_walk_cannot_be_told_to_have_had_fewer_cuts() -> None:
    result = ssmred.reduce(classifier(), tol=0.2, data=DATA, progress=False)
    stated = decisions(result)
    outputs = np.eye(3)[np.zeros(200, dtype=int)]
    lie = decision_changes(outputs, outputs, stated.confidence, cuts=1)
    with pytest.raises(CertificateError, match="decisions: cuts"):
        ssmred.verify(altered(result, decisions=lie.to_json()), result.original, result.model)


def test_an_older_certificate_without_decisions_still_verifies(result: ReductionResult) -> None:
    facts = dict(result.certificate.statistics or {})
    del facts["decisions"]
    theorems = tuple(t for t in result.certificate.theorems if t != "decision-changes")
    older = dataclasses.replace(result.certificate, statistics=facts, theorems=theorems)
    assert ssmred.verify(older, result.original, result.model, data=DATA).passed
    assert "another class" not in str(older)


def test_a_network_with_one_output_decides_nothing() -> None:
    torch.manual_seed(0)
    model = DeepSSM(2, 1, channels=4, states=8, layers=1, mixing="linear").eval()
    result = ssmred.reduce(model, states=0.5, data=sequences(200), progress=False)
    assert "decisions" not in (result.certificate.statistics or {})
    assert ssmred.verify(result.certificate, model, result.model, data=sequences(200)).passed
