"""How removals are divided: the published table, hand cases, bad rates."""

from __future__ import annotations

import numpy as np
import pytest

from ssmred.errors import RequestError
from ssmred.prune.allocation import check_rates, exponential, removals_by_layer, uniform

PUBLISHED = {  # arXiv 2606.18096: depth 6, 128 channels
    0.1: (0, 2, 5, 10, 20, 40),
    0.3: (0, 7, 15, 30, 59, 119),
    0.5: (0, 18, 37, 75, 127, 127),
    0.7: (0, 52, 105, 127, 127, 127),
    0.9: (56, 127, 127, 127, 127, 127),
}


@pytest.mark.parametrize("rate", PUBLISHED)
def test_the_published_allocation(rate):
    assert exponential(rate, (128,) * 6) == PUBLISHED[rate]


def test_one_layer_is_pruned_too():
    assert exponential(0.5, (64,)) == (32,)


@pytest.mark.parametrize("channels", [(64,) * 4, (3, 5, 7), (2,) * 8, (1, 1, 9)])
def test_totals_are_those_of_the_rate_and_a_layer_keeps_one(channels):
    total = sum(channels)
    most = total - len(channels)
    for target in range(1, most + 1):
        rate = target / total
        for gone in (exponential(rate, channels), uniform(rate, channels)):
            assert sum(gone) == round(rate * total)
        kept = np.array(channels) - exponential(rate, channels)
        assert (kept >= 1).all()


def test_a_rate_that_would_empty_a_layer_is_refused():
    with pytest.raises(RequestError, match="would empty a layer"):
        exponential(0.99, (4, 4))


@pytest.mark.parametrize("rates", [(), (0.3, 0.1), (0.2, 0.2), (0.0,), (1.0,), (-0.1,), (0.5, 1.5)])
def test_rates_rise_between_0_and_1(rates):
    with pytest.raises(RequestError):
        check_rates(rates)


def test_one_queue_takes_the_cheapest_of_all_layers():
    scores = {"a": np.array([5.0, 1.0, 4.0]), "b": np.array([2.0, 3.0, 9.0])}
    live = {"a": [0, 1, 2], "b": [0, 1, 2]}
    assert removals_by_layer("global", 0.5, scores, live) == {"a": [1], "b": [0, 1]}
    slow = {"a": 10.0, "b": 1.0}  # an operator of a saves ten times as much
    assert removals_by_layer("latency", 0.5, scores, live, seconds=slow) == {
        "a": [0, 1, 2],
        "b": [],
    }


def test_what_is_gone_counts():
    scores = {"a": np.array([np.inf, 1.0, 4.0]), "b": np.array([2.0, 3.0, 9.0])}
    live = {"a": [1, 2], "b": [0, 1, 2]}
    assert removals_by_layer("global", 0.5, scores, live) == {"a": [1], "b": [0]}
    assert removals_by_layer("uniform", 0.34, scores, live) == {"a": [], "b": [0]}
