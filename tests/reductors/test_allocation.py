"""Allocation of removals to channels."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssmred.errors import DataError, OrderError, ShapeError
from ssmred.reductors import (
    BalancedReductor,
    SplitReductor,
    SubsetReductor,
    allocate,
    removal_curve,
)
from ssmred.systems import DiagonalSystem


def random_path(rng, channels=3, modes=3, horizon=20):
    shape = (channels, modes)
    poles = np.sqrt(rng.random(shape)) * np.exp(2j * np.pi * rng.random(shape))
    C = np.exp(rng.uniform(-3, 0, (channels, 1))) * rng.standard_normal(shape)
    system = DiagonalSystem(
        poles, np.ones(shape), C, np.zeros(channels), recurrence="post-update", real_output=True
    )
    return SubsetReductor(horizon=horizon).path(system)


def total(paths, weights, kept):
    return sum(
        float(np.sum(w * path.reduction(k).bound.value ** 2))
        for path, w, k in zip(paths, weights, kept, strict=True)
    )


@pytest.mark.theorem("nested-pythagoras")
@given(st.integers(0, 2**32 - 1))
def test_against_exhaustive_search(seed):
    """No division beats the convex hull, and where the hull has its corners it is reached."""
    rng = np.random.default_rng(seed)
    path = random_path(rng)
    w = rng.random(3)
    costs = w[:, None] * path.errors**2
    best = np.full(10, np.inf)
    for removed in itertools.product(range(4), repeat=3):
        cost = sum(costs[c, k] for c, k in enumerate(removed))
        best[sum(removed)] = min(best[sum(removed)], cost)
    states, error = removal_curve([path], [w])
    assert states.tolist() == list(range(0, 20, 2))
    assert np.all(error >= best * (1 - 1e-12))
    for k in range(10):  # a point below all chords of the optimum is a corner of its hull
        chords = [
            (best[a] * (b - k) + best[b] * (k - a)) / (b - a)
            for a in range(k)
            for b in range(k + 1, 10)
        ]
        if all(best[k] < chord * (1 - 1e-9) for chord in chords):
            assert np.isclose(error[k], best[k], rtol=1e-9, atol=1e-25)


@pytest.mark.theorem("nested-pythagoras")
def test_curve_is_the_error_of_the_reduced_systems():
    rng = np.random.default_rng(1)
    paths = [random_path(rng), random_path(rng, channels=2, modes=5)]
    weights = [rng.random(3), rng.random(2)]
    states, error = removal_curve(paths, weights)
    assert states[-1] == 2 * (9 + 10)
    for removed, expected in zip(states, error, strict=True):
        kept = allocate(paths, weights, states=int(states[-1] - removed))
        assert 2 * sum(int(k.sum()) for k in kept) == states[-1] - removed
        assert np.isclose(total(paths, weights, kept), expected, rtol=1e-9, atol=1e-28)


def test_states_are_an_upper_limit():
    rng = np.random.default_rng(2)
    paths = [random_path(rng)]
    for states in range(20):
        (kept,) = allocate(paths, [np.ones(3)], states=states)
        assert 2 * kept.sum() == 2 * (min(states, 18) // 2)
        assert kept.dtype == np.int64


def test_threshold_and_budget():
    rng = np.random.default_rng(3)
    paths = [random_path(rng), random_path(rng)]
    weights = [rng.random(3), rng.random(3)]
    _, error = removal_curve(paths, weights)
    for k in range(len(error) - 1):
        kept = allocate(paths, weights, budget=float(error[k] + 1e-3 * (error[k + 1] - error[k])))
        assert sum(int(part.sum()) for part in kept) == 18 - k
        assert total(paths, weights, kept) <= error[k + 1]
    none = allocate(paths, weights, threshold=0.0)
    assert all(np.all(part == 3) for part in none)
    everything = allocate(paths, weights, threshold=np.inf)
    assert all(np.all(part == 0) for part in everything)
    previous = 0
    for threshold in np.geomspace(1e-12, 10, 30):
        removed = 18 - sum(int(p.sum()) for p in allocate(paths, weights, threshold=threshold))
        assert removed >= previous
        previous = removed


def test_a_channel_that_does_not_matter_goes_first():
    rng = np.random.default_rng(4)
    (kept,) = allocate([random_path(rng)], [[1.0, 0.0, 1.0]], states=12)
    assert kept.tolist() == [3, 0, 3]


def test_a_single_system():
    rng = np.random.default_rng(5)
    system = DiagonalSystem([0.5, 0.3, 0.1], np.ones(3), rng.standard_normal(3))
    path = SubsetReductor().path(system)
    (kept,) = allocate([path], [1.0], states=2)  # real data: one state per mode
    assert kept.shape == ()
    assert path.reduction(kept).orders == 2


def test_paths_of_methods_that_move_poles_take_part():
    """Their errors are bounds, so what is divided bounds the errors of what comes out."""
    rng = np.random.default_rng(7)
    subset = random_path(rng, modes=5)
    moved = BalancedReductor().path(random_path(rng, modes=5).system)
    weights = [rng.random(3), rng.random(3)]
    states, error = removal_curve([subset, moved], weights)
    assert states[-1] == 2 * 30
    for removed, expected in zip(states, error, strict=True):
        kept = allocate([subset, moved], weights, states=int(states[-1] - removed))
        reductions = [path.reduction(k) for path, k in zip((subset, moved), kept, strict=True)]
        assert 2 * sum(int(k.sum()) for k in kept) == states[-1] - removed
        assert np.all(reductions[1].orders <= kept[1])
        found = np.sum(weights[0] * reductions[0].bound.value ** 2)
        found += np.sum(weights[1] * np.asarray(reductions[1].h2_error) ** 2)
        assert found <= expected * (1 + 1e-9) + 1e-20


def test_refusals():
    path = random_path(np.random.default_rng(6))
    ones = np.ones(3)
    with pytest.raises(OrderError, match="exactly one"):
        allocate([path], [ones])
    with pytest.raises(OrderError, match="exactly one"):
        allocate([path], [ones], states=3, budget=1.0)
    with pytest.raises(OrderError, match="states"):
        allocate([path], [ones], states=-1)
    with pytest.raises(DataError, match="budget"):
        allocate([path], [ones], budget=np.nan)
    with pytest.raises(DataError, match="negative"):
        allocate([path], [-ones], states=3)
    with pytest.raises(DataError, match="nan"):
        allocate([path], [ones * np.nan], states=3)
    with pytest.raises(ShapeError, match="shape"):
        allocate([path], [np.ones(2)], states=3)
    with pytest.raises(ShapeError, match="match"):
        allocate([path, path], [ones], states=3)
    with pytest.raises(ShapeError, match="match"):
        removal_curve([], [])


def test_modes_that_cannot_go_stay():
    """Three channels with one, none and two modes outside the circle."""
    poles = np.array([[2.0, 0.5, 0.4j], [0.1, 0.5, 0.4j], [1.5, -3.0, 0.4j]])
    system = DiagonalSystem(poles, np.ones((3, 3)), np.ones((3, 3)))
    path = SplitReductor(SubsetReductor()).path(system)
    states, error = removal_curve([path], [np.ones(3)])
    assert states.tolist() == list(range(0, 20, 2))
    assert np.isfinite(error[:7]).all()
    assert np.isinf(error[7:]).all()
    (kept,) = allocate([path], [np.ones(3)], states=6)
    assert kept.tolist() == [1, 0, 2]
    assert path.reduction(kept).orders.tolist() == [1, 0, 2]
    (kept,) = allocate([path], [np.ones(3)], threshold=np.finfo(float).max)
    assert kept.tolist() == [1, 0, 2]
    with pytest.raises(OrderError, match="outside"):
        path.reduction(allocate([path], [np.ones(3)], states=4)[0])
