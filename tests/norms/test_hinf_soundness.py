"""The search for H-infinity enclosures that fail, bounded; and proof that it would see one."""

from __future__ import annotations

import sys
from pathlib import Path

import flint
import numpy as np
import pytest

from ssmred.norms import Enclosure, hinf_norm
from ssmred.systems import DenseSystem, DiagonalSystem

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import soundness_norms as soundness

TIGHT = 1e-12  # a change of this size of gamma, relative, is told apart


@pytest.fixture(autouse=True)
def precision():
    old, flint.ctx.prec = flint.ctx.prec, soundness.BITS
    yield
    flint.ctx.prec = old


def outcome(case):
    count = soundness.Count()
    soundness.check(case, count)
    return count


@pytest.mark.parametrize("name", soundness.CLASSES)
def test_enclosures_hold(name):
    count = soundness.run(name, 3, 7, visible=False)
    assert count.systems == 3
    assert count.violations == count.undecided == count.unexplained == 0


@pytest.mark.slow
@pytest.mark.theorem("hinf-enclosure")
@pytest.mark.parametrize("name", soundness.CLASSES)
def test_more_enclosures_hold(name):
    count = soundness.run(name, 25, 8, visible=False)
    assert count.violations == count.undecided == count.unexplained == 0


@pytest.mark.parametrize("seed", range(6))
def test_wrong_enclosures_are_seen(seed):
    """Moved by 1e-12 of themselves, below and above the norm, which is known to 1e-13."""
    rng = np.random.default_rng(seed)
    system = soundness.diagonal(rng, slowest=1e-9, real_output=bool(seed % 2))
    narrow = hinf_norm(system, rtol=1e-13)
    assert narrow.width < TIGHT / 4
    for lower, upper, wrong in (
        (narrow.lower, narrow.upper, False),
        (narrow.lower * (1 - TIGHT), narrow.lower * (1 - TIGHT), True),
        (narrow.upper * (1 + TIGHT), narrow.upper * (1 + TIGHT), True),
        (0.0, 0.0, True),
    ):
        fake = Enclosure(lower, upper, narrow.frequency)
        count = outcome((lambda _, fake=fake: fake, (system,)))
        assert count.undecided == 0
        assert (count.violations > 0) == wrong


def test_the_matrix_knows_the_norms_of_textbook_systems():
    """1 / (s + 1) has 1; 1 / (z - 1/2) has 2; 2 (s - 1) / (s + 1) has 2 everywhere."""
    for system, norm in (
        (DiagonalSystem([-1.0], [1.0], [1.0], dt=0), 1.0),
        (DiagonalSystem([0.5], [1.0], [1.0]), 2.0),
        (DiagonalSystem([0.5], [1.0], [0.5], recurrence="post-update"), 1.0),
        (DiagonalSystem([0.5j], [1.0], [1.5], real_output=True), 2.0),
        (DenseSystem([[-1.0]], [[1.0]], [[-4.0]], [[2.0]], dt=0), 2.0),
        (DenseSystem(np.zeros((0, 0)), np.zeros((0, 2)), np.zeros((1, 0)), [[3.0, 4.0]]), 5.0),
    ):
        exact = soundness.Exact.of(system)
        moved = exact.continuous()
        assert soundness.exceeds(moved, norm * (1 + TIGHT)) is True
        assert soundness.exceeds(moved, norm * (1 - TIGHT)) is False
        assert float(soundness.sampled_peak(exact)[0]) == pytest.approx(norm, rel=1e-6)


def test_differences_are_exact():
    full = DiagonalSystem([0.5, 0.25], [1.0, 1.0], [1.0, 5.0])
    reduced = DiagonalSystem([0.25], [1.0], [5.0])
    exact = soundness.Exact.of(full).minus(soundness.Exact.of(reduced)).continuous()
    assert soundness.exceeds(exact, 2.0 * (1 + TIGHT)) is True
    assert soundness.exceeds(exact, 2.0 * (1 - TIGHT)) is False
