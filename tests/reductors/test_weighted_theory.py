"""Balancing with frequency weights: the statements of its theory page on random complex data."""

from __future__ import annotations

import numpy as np
import pytest
from theory_systems import (
    GRAMIANS,
    ROUNDING,
    TIMES,
    boundary,
    hankel_values,
    random_system,
    response_of,
)

from ssmred.reductors import (
    FrequencyWeightedReductor,
)
from ssmred.systems import DenseSystem


def weighted_gramians(system, input_weight, output_weight):
    """Return ``P_i`` and ``Q_o`` as means over the circle; the rule converges exponentially."""
    z = np.exp(2j * np.pi * np.arange(1024) / 1024)
    n = system.order
    inverses = np.linalg.inv(z[:, None, None] * np.eye(n) - system.A)
    right, left = inverses @ system.B, system.C @ inverses
    if input_weight is not None:
        right = right @ response_of(input_weight, z)
    if output_weight is not None:
        left = response_of(output_weight, z) @ left
    P = np.mean(right @ np.swapaxes(right, -1, -2).conj(), axis=0)
    return P, np.mean(np.swapaxes(left, -1, -2).conj() @ left, axis=0)


@pytest.mark.theorem("weighted-balancing")
@pytest.mark.parametrize("recurrence", ["standard", "post-update"])
@pytest.mark.parametrize("which", ["input", "output", "both"])
def test_weighted_hankel_values_are_those_of_the_integrals(which, recurrence):
    system = random_system(3, discrete=True, n=4, recurrence=recurrence)
    weights = {
        "input_weight": random_system(4, discrete=True, n=3, m=2, p=2, recurrence=recurrence),
        "output_weight": random_system(5, discrete=True, n=2, m=3, p=3),
    }
    if which != "both":
        weights = {name: weight for name, weight in weights.items() if name.startswith(which)}
    both = [weights.get(name) for name in ("input_weight", "output_weight")]
    reduction = FrequencyWeightedReductor(**weights).reduce(system, order=2)
    sigma = hankel_values(*weighted_gramians(system, *both))
    np.testing.assert_allclose(reduction.hankel, sigma, rtol=0, atol=GRAMIANS * sigma[0])
    assert reduction.bound is None


@pytest.mark.theorem("weighted-balancing")
@pytest.mark.parametrize("which", ["input_weight", "output_weight"])
@pytest.mark.parametrize("seed", range(5))
def test_one_weight_keeps_truncations_stable_in_discrete_time(seed, which):
    system = random_system(seed, discrete=True, m=2, p=2)
    weight = random_system(seed + 50, discrete=True, n=3, m=2, p=2)
    path = FrequencyWeightedReductor(**{which: weight}).path(system)
    for order in range(1, system.order):
        assert abs(path.reduction(order).system.poles).max() < 1


@pytest.mark.theorem("weighted-balancing")
@TIMES
@pytest.mark.parametrize("residualised", [False, True])
@pytest.mark.parametrize("which", ["input_weight", "output_weight"])
def test_one_weight_never_takes_poles_beyond_the_boundary(which, residualised, discrete):
    for seed in range(2):
        system = random_system(seed, discrete=discrete, m=2, p=2)
        weight = random_system(seed + 50, discrete=discrete, n=3, m=2, p=2)
        reductor = FrequencyWeightedReductor(residualised=residualised, **{which: weight})
        path = reductor.path(system)
        for order in range(1, system.order):
            poles = path.reduction(order).system.poles
            assert (abs(poles) <= 1 if discrete else poles.real <= 0).all()


@pytest.mark.theorem("weighted-balancing")
@pytest.mark.parametrize("which", ["input_weight", "output_weight"])
def test_one_weight_may_leave_a_pole_on_the_axis(which):
    """An oscillator whose position counts for more than its velocity at low frequencies."""
    k, d = 1.0, 0.2
    system = DenseSystem([[0.0, 1.0], [-k, -d]], [0.0, 1.0], [0.0, 1.0], dt=0)
    slow = DenseSystem([[-0.05]], [[1.0]], [[1.0]], dt=0)
    reduction = FrequencyWeightedReductor(**{which: slow}).reduce(system, order=1)
    assert reduction.hankel[0] > 2 * reduction.hankel[1]
    reduced = reduction.system
    for matrix in (reduced.A, reduced.B, reduced.C):
        np.testing.assert_allclose(matrix, 0, atol=ROUNDING)


@pytest.mark.theorem("weighted-balancing")
def test_two_weights_may_make_it_unstable():
    system = DenseSystem([[-0.1, -0.8], [0.3, 0.6]], [2.0, -3.0], [-2.0, 1.0])
    W_i = DenseSystem([[-0.9]], [[1.0]], [[1.0]])
    W_o = DenseSystem([[-0.8]], [[1.0]], [[1.0]], [[-1.0]])
    assert abs(system.poles).max() < 1
    reductor = FrequencyWeightedReductor(input_weight=W_i, output_weight=W_o)
    reduction = reductor.reduce(system, order=1)
    np.testing.assert_allclose(reduction.system.A, [[1.139]], atol=5e-4)
    np.testing.assert_allclose(reduction.hankel, [8.87, 5.03], atol=5e-3)
    sigma = hankel_values(*weighted_gramians(system, W_i, W_o))
    np.testing.assert_allclose(reduction.hankel, sigma, rtol=GRAMIANS)


@pytest.mark.theorem("weighted-balancing")
def test_twice_the_tail_does_not_bound_the_weighted_error():
    system = DenseSystem([[-0.9, 0.3], [0.0, -0.9]], [2.0, -2.0], [1.0, 0.0])
    weight = DenseSystem([[0.3]], [[1.0]], [[1.0]], [[1.0]])
    reduction = FrequencyWeightedReductor(input_weight=weight).reduce(system, order=1)
    z = boundary(True)
    gap = response_of(system, z) - response_of(reduction.system, z)
    error = np.abs(gap * response_of(weight, z)).max()
    assert error > 3.8 * reduction.hankel[1]
    assert reduction.bound is None
