"""The search for the boldest admissible cut, on error curves that are known."""

from __future__ import annotations

import math

import pytest

from ssmred.pipeline.search import boldest


def search(curve, *, limit: float, rounds: int = 12, full: int = 1000):
    return boldest(lambda states: states, curve, full=full, limit=limit, rounds=rounds)


@pytest.mark.parametrize("limit", [1e-9, 1e-6, 1e-3, 0.5])
def test_exponential_curve_is_met_to_the_resolution(limit: float) -> None:
    def curve(states: int) -> float:
        return math.exp(-states / 30)

    trials = search(curve, limit=limit)
    best = min(t.states for t in trials if t.error <= limit)
    exact = -30 * math.log(limit)
    assert exact <= best <= exact + 0.01 * 1000
    assert [t.states for t in trials] == sorted((t.states for t in trials), reverse=True)
    assert all(t.error == curve(t.cut) for t in trials)


def test_a_cliff_is_found_by_halving() -> None:
    trials = search(lambda states: 1.0 if states < 737 else 1e-12, limit=1e-6)
    best = min(t.states for t in trials if t.error <= 1e-6)
    assert 737 <= best <= 747


def test_hopeless_limit_gives_up_after_the_most_cautious_cut() -> None:
    trials = search(lambda states: 1e20 * (1001 - states), limit=1e-3)
    assert len(trials) == 2
    assert trials[0].states == 995
    assert not any(t.error <= 1e-3 for t in trials)


def test_infinite_errors_and_few_rounds() -> None:
    trials = search(lambda states: math.inf if states < 900 else 1e-9, limit=1e-3, rounds=4)
    assert len(trials) == 4
    assert min(t.states for t in trials if t.error <= 1e-3) >= 900
