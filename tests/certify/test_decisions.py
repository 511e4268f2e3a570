"""Changes of decisions: counts by hand, bounds by exact sums, what is stored and what is said."""

import dataclasses
import json
import math

import numpy as np
import pytest
from scipy.stats import beta

from ssmred.certify import DecisionChanges, decision_changes, has_decisions
from ssmred.errors import CertificateError, DataError, ShapeError


def example():
    """Return outputs of 3 classes: 100 inputs of class 0, 10 of class 2, none of class 1."""
    labels = np.r_[np.zeros(100, dtype=int), np.full(10, 2)]
    after = labels.copy()
    after[[3, 50]] = 1
    after[-1] = 0
    return np.eye(3)[labels], 0.5 * np.eye(3)[after] + 7.0


@pytest.mark.theorem("decision-changes")
def test_counts_and_bounds():
    found = decision_changes(*example(), 0.95)
    assert (found.inputs, found.changes, found.classes, found.cuts) == (110, 3, 3, 1)
    assert [(e.label, e.inputs, e.changes) for e in found.by_class] == [(0, 100, 2), (2, 10, 1)]
    assert found.bound == pytest.approx(beta.ppf(0.95, 4, 107), rel=1e-8)
    each = 1 - 0.05 / 3
    assert found.by_class[0].bound == pytest.approx(beta.ppf(each, 3, 98), rel=1e-8)
    assert found.by_class[1].bound == pytest.approx(beta.ppf(each, 2, 9), rel=1e-8)


@pytest.mark.theorem("decision-changes")
def test_a_choice_among_cuts_costs_its_share():
    alone, chosen = (decision_changes(*example(), 0.95, cuts=m) for m in (1, 6))
    assert chosen.bound == pytest.approx(beta.ppf(1 - 0.05 / 6, 4, 107), rel=1e-8)
    assert chosen.bound > alone.bound
    each = 1 - 0.05 / 18
    assert chosen.by_class[0].bound == pytest.approx(beta.ppf(each, 3, 98), rel=1e-8)


@pytest.mark.theorem("decision-changes")
def test_too_few_inputs_are_called_so():
    outputs = np.eye(2)[np.r_[np.zeros(200, dtype=int), np.ones(72, dtype=int)]]
    found = decision_changes(outputs, outputs, 0.95)
    # 0.95**n <= 0.025: n = 72
    assert found.needed(0.95) == 72 == math.ceil(math.log(0.025) / math.log(0.95))
    assert "too few" not in str(found)
    assert found.by_class[1].bound <= 0.05
    fewer = decision_changes(outputs[:-1], outputs[:-1], 0.95)
    assert fewer.by_class[1].bound > 0.05
    assert str(fewer).count("too few inputs") == 1
    assert "below 72 inputs" in str(fewer)
    assert "1 of 3 classes had no held-out input" in str(decision_changes(*example(), 0.95))


@pytest.mark.theorem("decision-changes")
def test_other_shares_of_the_classes():
    found = decision_changes(*example(), 0.95)
    first, last = (entry.bound for entry in found.by_class)
    assert found.reweighted([0.5, 0.0, 0.5]) == pytest.approx(0.5 * first + 0.5 * last)
    assert found.reweighted({1: 1.0}) == 1.0  # no input of class 1 was seen
    for wrong in ([0.5, 0.5, 0.5], [1.5, 0.0, -0.5], {3: 1.0}, [math.nan, 0.5, 0.5]):
        with pytest.raises(DataError, match="shares"):
            found.reweighted(wrong)


def test_what_is_not_clear_counts_as_a_change():
    original, reduced = example()
    reduced[0, 0] = math.nan
    original[1, 2] = math.nan
    assert decision_changes(original, reduced).changes == 5


def test_of_equal_scores_the_first_decides():
    found = decision_changes([[1.0, 1.0], [1.0, 1.0]], [[2.0, 2.0], [1.0, 1.5]])
    assert found.changes == 1


def test_only_tables_of_scores_have_decisions():
    assert has_decisions(np.zeros((4, 2)))
    for shape in ((4,), (4, 1), (4, 7, 2), (0, 2)):
        assert not has_decisions(np.zeros(shape))
        with pytest.raises(ShapeError, match="scores"):
            decision_changes(np.zeros(shape), np.zeros(shape))
    with pytest.raises(ShapeError, match=r"\(4, 2\) and \(4, 3\)"):
        decision_changes(np.zeros((4, 2)), np.zeros((4, 3)))


def test_round_trip_and_what_does_not_follow():
    found = decision_changes(*example(), 0.95, cuts=4)
    record = json.loads(json.dumps(found.to_json()))
    assert DecisionChanges.from_json(record) == found
    changes = [
        {"bound": 0.5 * found.bound},
        {"changes": 2},
        {"inputs": 111},
        {"cuts": 1},
        {"confidence": 0.9},
        {"classes": 2},
        {"by_class": record["by_class"][:1]},
        {"by_class": record["by_class"][::-1]},
        {"by_class": [record["by_class"][0] | {"bound": 0.01}, record["by_class"][1]]},
        {"by_class": [record["by_class"][0] | {"changes": 101}, record["by_class"][1]]},
        {"by_class": None},
        {"more": 1},
    ]
    for change in changes:
        with pytest.raises(CertificateError, match="changes of decisions"):
            DecisionChanges.from_json(record | change)
    with pytest.raises(CertificateError):
        DecisionChanges.from_json("nothing")


def test_a_confidence_beyond_floating_point_bounds_nothing():
    found = decision_changes(*example(), 1 - 1e-16, cuts=6)
    assert found.bound == 1.0
    assert "too few" in str(found)


def test_no_bound_without_confidence():
    for confidence in (0.0, 1.0, math.nan):
        with pytest.raises(DataError, match="confidence"):
            decision_changes(*example(), confidence)


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        decision_changes(*example()).bound = 0.0
