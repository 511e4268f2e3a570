"""The search for broken bounds of `benchmarks/soundness_systems.py`, a short run of it."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ssmred.norms import hinf_norm
from ssmred.reductors import BalancedReductor
from ssmred.systems import DiagonalSystem

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import soundness_systems as soundness

SYSTEMS = 210
REFUSED = 0.02
"""Share of random systems, many of them at 1e-12 from the boundary, that may be refused."""


class Optimist(BalancedReductor):
    """Claims half of what balanced truncation can."""

    def finished(self, reduction, core):
        claim = replace(reduction.claim, value=reduction.claim.value / 2, exact=True)
        return replace(super().finished(reduction, core), claim=claim)


@pytest.mark.slow
@pytest.mark.parametrize("name", soundness.METHODS)
def test_no_bound_is_violated(name):
    row = soundness.search(name, SYSTEMS, seed=1)
    assert row.violations == 0, row.remarks
    assert row.systems + row.refused == SYSTEMS
    assert row.refused <= REFUSED * SYSTEMS, row.remarks
    assert row.worst > 0.1  # the lower bounds come close to the bounds


def test_every_method_with_a_bound_is_searched():
    from ssmred import reductors

    made = {type(method.make()).__name__ for method in soundness.METHODS.values()}
    unbounded = {"FrequencyWeightedReductor"}
    unbounded |= {  # of other systems
        "QuadraticBalancedReductor",
        "QuadraticH2Reductor",
        "QuadraticSubsetReductor",
    }
    concrete = {name for name in reductors.__all__ if name.endswith("Reductor")} - {"Reductor"}
    assert made == concrete - unbounded


def test_a_bound_that_is_too_small_is_found(monkeypatch):
    monkeypatch.setitem(soundness.METHODS, "optimist", soundness.Method(Optimist))
    row = soundness.search("optimist", 84, seed=0)
    assert row.violations > 10
    assert row.worst > 1.2
    assert len(row.remarks) == row.violations


def test_a_search_is_determined_by_its_seed():
    first, again, other = (soundness.search("modal", 42, seed) for seed in (3, 3, 4))
    assert first.worst == again.worst
    assert first.worst != other.worst


@pytest.mark.parametrize("family", soundness.FAMILIES)
def test_samples_are_below_the_norm_and_close_to_it(family):
    system = soundness.FAMILIES[family](np.random.default_rng(5), 12)
    strictly_proper = system.replace(D=0 * system.D)
    norm = hinf_norm(strictly_proper)
    none = strictly_proper.replace(C=0 * system.C)
    sampled = soundness.sampled_error(strictly_proper, none)
    assert np.all(sampled <= norm.upper)
    assert np.all(sampled >= 0.9 * norm.lower)


def test_energies_by_hand():
    """``h = 2, 3, 3/2, 3/4, ...`` has energy ``4 + 9 / (1 - 1/4) = 16``."""
    system = DiagonalSystem([[0.5]], [[1.0]], [[3.0]], [2.0])
    none = system.replace(C=0 * system.C, D=0 * system.D)
    for form in (system, system.to_dense(), system.with_recurrence("post-update")):
        assert soundness.energies(form, none.with_recurrence(form.recurrence)).tolist() == [4.0]
    error, rounding = soundness.energies_over(system, none, 3)
    assert error[0] == pytest.approx(np.sqrt(4 + 9 + 2.25), rel=1e-15)
    assert 0 < rounding[0] < 1e-12
