"""Splitting: what is particular to it; the battery is in test_conformance.py."""

from __future__ import annotations

import numpy as np
import pytest
from conformance import entries
from hard_systems import CASES, UNSTABLE, dense, diagonal, unstable
from independent_errors import energy, sampled_gain

from ssmred.errors import (
    AccuracyError,
    DataError,
    OrderError,
    UnstableSystemError,
    UnsupportedOperationError,
)
from ssmred.gramians import hankel_singular_values, spectral_split
from ssmred.reductors import (
    BalancedReductor,
    FrequencyWeightedReductor,
    HankelReductor,
    ModalReductor,
    ResidualisedReductor,
    SplitReductor,
    SubsetReductor,
)
from ssmred.systems import DenseSystem, DiagonalSystem, is_stable

EXACT = 1e-12

pytestmark = pytest.mark.theorem("spectral-split")


def three_modes():
    """Return ``1 / (z - 1/2) + (1/4) / z + 5 / (z - 2)``."""
    return DiagonalSystem([0.5, 0.0, 2.0], [1.0, 1.0, 1.0], [1.0, 0.25, 5.0])


def integrators():
    """Return a discrete system with a double integrator and four random states, mixed."""
    rng = np.random.default_rng(3)
    inner = dense(4, n=4, m=1, p=1)
    A = np.zeros((6, 6))
    A[:2, :2], A[2:, 2:] = [[1.0, 1.0], [0.0, 1.0]], inner.A
    A[:2, 2:] = rng.standard_normal((2, 4))
    X = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    B, C = rng.standard_normal((6, 1)), rng.standard_normal((1, 6))
    return DenseSystem(X @ A @ X.T, X @ B, C @ X.T, 0.3)


@pytest.mark.parametrize("reductor", [ModalReductor(), SubsetReductor()])
def test_by_hand(reductor):
    """What goes is ``(1/4) / z``, of gain 1/4 at all frequencies and energy 1/16.

    The mode at 1/2 can take over 3/16 of it, which leaves the energy 1/64.
    """
    reduction = SplitReductor(reductor).reduce(three_modes(), order=2)
    if isinstance(reductor, ModalReductor):
        assert reduction.hinf_error.lower <= 0.25 <= reduction.hinf_error.upper
        np.testing.assert_array_equal(reduction.system.poles, [0.5, 2.0])
        assert reduction.claim.value == pytest.approx(0.25, rel=1e-12)
        assert reduction.h2_error == pytest.approx(0.25, rel=1e-12)
    else:
        assert reduction.bound.value == pytest.approx(1 / 8, rel=1e-12)
    assert not is_stable(reduction.system)
    assert reduction.method == f"split, {reductor.reduce(three_modes_inside(), order=1).method}"


def three_modes_inside():
    return spectral_split(three_modes())[0]


@pytest.mark.parametrize(
    "reductor", [BalancedReductor(), ResidualisedReductor(), HankelReductor(), ModalReductor()]
)
@pytest.mark.parametrize(
    "name", ["complex, m < p", "complex, post-update", "half spectrum", "dense, complex"]
)
def test_errors_and_bounds_are_those_of_the_part_inside(name, reductor):
    system = unstable(CASES[name]())
    split = SplitReductor(reductor).reduce(system, order=3)
    inside = spectral_split(system)[0]
    outer = system.order - inside.order
    inner = reductor.reduce(inside, order=3 - outer)
    np.testing.assert_allclose(split.claim.value, inner.claim.value, rtol=EXACT)
    np.testing.assert_allclose(split.claim.reference, inner.claim.reference, rtol=EXACT)
    np.testing.assert_allclose(split.bound.value, inner.bound.value, rtol=1e-6)
    np.testing.assert_allclose(split.hinf_error.upper, inner.hinf_error.upper, rtol=1e-6)
    np.testing.assert_allclose(split.h2_error, inner.h2_error, rtol=1e-9)
    assert split.claim.theorem == inner.claim.theorem
    largest = hankel_singular_values(inside)[..., 0]
    np.testing.assert_allclose(split.bound.reference, largest, rtol=1e-9)


@pytest.mark.parametrize("boundary", [0.3, 0.6])
def test_slow_poles_stay_and_errors_are_those_of_the_stored_systems(boundary):
    system = CASES["complex, m < p"]()
    slow = system.poles[np.abs(system.poles) >= boundary]
    reductor = SplitReductor(BalancedReductor(), boundary=boundary)
    with pytest.raises(OrderError, match=f"order >= {slow.size}"):
        reductor.reduce(system, order=slow.size - 1)
    reduction = reductor.reduce(system, order=slow.size)
    np.testing.assert_array_equal(np.sort(reduction.system.poles), np.sort(slow))
    assert reduction.compared is None
    assert sampled_gain(system, reduction.system) <= reduction.bound.value
    assert energy(system, reduction.system) == pytest.approx(reduction.h2_error, rel=1e-10)


def test_a_batch_with_stable_and_unstable_channels():
    system = UNSTABLE["batch, unstable"]()
    stable = np.array([is_stable(one) for one in entries(system)]).reshape(system.batch_shape)
    poles = system.poles.copy()
    poles[0, 1] = 0.5 * np.exp(1j * np.arange(5))
    system, stable[0, 1] = system.replace(poles=poles), True
    assert 0 < stable.sum() < stable.size
    reductor = SplitReductor(BalancedReductor())
    reduction = reductor.reduce(system, order=3)
    before, after = reduction.compared
    assert is_stable(before)
    assert is_stable(after)
    for h, one in enumerate(entries(system)):
        alone = reductor.reduce(one, order=3)
        for name in ("lower", "upper"):
            got = getattr(reduction.hinf_error, name).ravel()[h]
            np.testing.assert_allclose(got, getattr(alone.hinf_error, name), rtol=1e-6)
        np.testing.assert_allclose(reduction.h2_error.ravel()[h], alone.h2_error, rtol=1e-9)
        assert (alone.compared is None) == stable.ravel()[h]
        if stable.ravel()[h]:
            np.testing.assert_array_equal(list(entries(before))[h].poles, one.poles)


def test_tolerances_are_relative_to_the_part_inside():
    system = unstable(CASES["complex"]())
    reductor = SplitReductor(BalancedReductor())
    values = hankel_singular_values(spectral_split(system)[0])
    tol = 2.001 * values[2] / values[0]
    reduction = reductor.reduce(system, tol=float(tol))
    assert reduction.system.order == 2 + 2  # two stay inside, two are outside
    assert reduction.bound.relative <= tol
    whole = reductor.reduce(system, tol=1e-300)
    assert whole.system is not None
    assert np.all(whole.bound.value == 0)


def test_modes_that_a_reductor_keeps_are_told_by_their_numbers():
    system = unstable(CASES["complex"]())  # modes 1 and 3 are outside
    reduction = SplitReductor(SubsetReductor()).reduce(system, order=3)
    assert reduction.kept[[1, 3]].all()
    assert reduction.kept.sum() == 3
    kept = system.poles[reduction.kept]
    np.testing.assert_array_equal(np.sort(reduction.system.poles), np.sort(kept))


@pytest.mark.parametrize("form", ["input", "dense"])
def test_integrators_stay(form):
    """A double pole at 1, which rounding separates, and no norm of the whole exists."""
    system = integrators()
    reductor = SplitReductor(BalancedReductor(form=form), boundary=0.95)
    reduction = reductor.reduce(system, order=4)
    poles = reduction.system.poles
    assert np.sum(np.abs(poles - 1) < 1e-6) == 2
    assert np.sum(np.abs(poles) < 0.95) == 2
    assert np.isfinite(reduction.bound.value)
    assert reduction.hinf_error.upper <= reduction.bound.value
    before, after = reduction.compared
    assert sampled_gain(before, after) <= reduction.bound.value
    modal = SplitReductor(BalancedReductor(form="diagonal"), boundary=0.95)
    assert modal.reduce(system, order=4).condition > 1e6  # of the two poles next to each other


def test_a_pair_on_both_sides_of_the_boundary():
    """Conjugate up to an ulp: reducing one of them would make a real system complex."""
    theta = next(
        t for t in np.linspace(0.1, 3, 500) if abs(0.9 * np.exp(1j * t)) < 0.9
    )  # rounded inwards
    pole = 0.9 * np.exp(1j * theta)
    partner = pole.conjugate() * (1 + 4e-16)
    assert abs(pole) < 0.9 <= abs(partner)
    system = DiagonalSystem([pole, partner, 0.3], [1.0, 1.0, 1.0], [1 + 1j, 1 - 1j, 2.0])
    with pytest.raises(AccuracyError, match="pair"):
        SplitReductor(BalancedReductor(), boundary=0.9).reduce(system, order=2)
    assert SplitReductor(BalancedReductor(), boundary=0.8).reduce(system, order=2).system.order == 2


def test_one_split_within_another():
    system = unstable(CASES["complex, m < p"]())
    slow = SplitReductor(BalancedReductor(), boundary=0.5)
    reduction = SplitReductor(slow).reduce(system, order=4)
    outside = system.poles[np.abs(system.poles) >= 0.5]
    for pole in outside:
        assert pole in reduction.system.poles
    assert reduction.system.order == 4
    assert np.isfinite(reduction.bound.value)


def test_unstable_poles_inside_the_boundary():
    system = unstable(CASES["complex"]())
    reductor = SplitReductor(BalancedReductor(), boundary=3.0)
    for refuses in (
        lambda: reductor.reduce(system, order=2),
        lambda: reductor.check_accepts(system),
    ):
        with pytest.raises(UnstableSystemError, match="pole"):
            refuses()
    over = SplitReductor(BalancedReductor(horizon=20), boundary=3.0).reduce(system, order=4)
    assert over.bound.norm == "h2, horizon 20"


def test_a_reductor_without_a_bound():
    system = unstable(CASES["dense"]())
    reductor = SplitReductor(FrequencyWeightedReductor())
    reduction = reductor.reduce(system, order=4)
    assert reduction.bound is None
    assert np.isfinite(reduction.hinf_error.upper)
    with pytest.raises(UnsupportedOperationError, match="tol"):
        reductor.reduce(system, tol=0.1)


@pytest.mark.parametrize("boundary", ["0.5", np.nan, np.inf, 0.5j, [0.5], True])
def test_bad_boundaries(boundary):
    with pytest.raises((DataError, ValueError), match="boundary"):
        SplitReductor(BalancedReductor(), boundary=boundary)


def test_a_boundary_of_the_other_time():
    with pytest.raises(DataError, match="boundary"):
        SplitReductor(BalancedReductor(), boundary=-0.6).reduce(CASES["complex"](), order=2)
    system = CASES["continuous"]()
    assert (
        SplitReductor(BalancedReductor(), boundary=-0.6).reduce(system, order=4).system.order == 4
    )


@pytest.mark.parametrize(
    ("thing", "text"),
    [(None, "a Reductor, got NoneType"), (BalancedReductor, "BalancedReductor()")],
)
def test_bad_reductors(thing, text):
    with pytest.raises(UnsupportedOperationError) as error:
        SplitReductor(thing)
    assert text in str(error.value)


def test_everything_outside_or_nothing_at_all():
    system = diagonal(50)
    outside = system.replace(poles=2 / system.poles.conj())
    reduction = SplitReductor(BalancedReductor()).reduce(outside, order=5)
    assert reduction.bound.value == 0
    assert reduction.hinf_error.upper == 0
    np.testing.assert_array_equal(np.sort(reduction.system.poles), np.sort(outside.poles))
    with pytest.raises(OrderError, match="order >= 5"):
        SplitReductor(BalancedReductor()).reduce(outside, order=4)
