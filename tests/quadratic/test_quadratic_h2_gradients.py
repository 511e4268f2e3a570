"""The squared h2 error with the best quadratic read-out, and its gradient."""

import numpy as np
import pytest
from quadratic_cases import FORMS, TIMES, in_time, normal, plain

from ssmred.kernels.quadratic_descent import fill_pole_sums
from ssmred.norms import h2_error
from ssmred.reductors import with_best_read_out
from ssmred.reductors.quadratic_descent import Parameters
from ssmred.reductors.quadratic_modes import ModalStates
from ssmred.reductors.quadratic_objective import QuadraticObjective


def modes_for(system, seed=1):
    """Return random states for a system: two pairs and a real pole, or three complex ones."""
    rng = np.random.default_rng(seed)
    poles = np.array([0.5 + 0.3j, 0.2 - 0.6j, -0.4])
    if not system.is_discrete:
        poles = poles - 1.0
    rows = normal(rng, 3, system.inputs)
    if system.is_real:
        poles[1] = poles[1].conj()
        rows[2] = rows[2].real
    return ModalStates(poles, rows / np.linalg.norm(rows, axis=1, keepdims=True), system.is_real)


def difference_quotient(function, step=1e-4):
    """Return the derivative of a function of t at 0, to fourth order."""
    one, two = (function(k * step) - function(-k * step) for k in (1, 2))
    return (8 * one - two) / (12 * step)


@pytest.mark.theorem("quadratic-h2")
@pytest.mark.parametrize("continuous", [False, True])
def test_sums_over_poles_are_what_they_say(continuous):
    rng = np.random.default_rng(0)
    left, right = 0.9 * normal(rng, 4) / 2, 0.9 * normal(rng, 3) / 2
    left[0], right[0] = 1.25, 0.8  # a product of 1
    left[1] = 1.5j
    if continuous:
        left, right = left - 3, right - 3
        found = np.empty((2, 4, 3), complex)
        fill_pole_sums(left, right, True, 0, found[0], found[1])
        gaps = -(left[:, None] + right.conj())
        np.testing.assert_allclose(found, [1 / gaps, 1 / gaps**2], rtol=1e-14)
        return
    z = left[:, None] * right.conj()
    for terms in (1, 2, 3, 7, 8, 37):
        found = np.empty((2, 4, 3), complex)
        fill_pole_sums(left, right, False, terms, found[0], found[1])
        powers = [z**k for k in range(terms)]
        slopes = [k * z ** (k - 1) * left[:, None] for k in range(1, terms)]
        sizes = sum(np.abs(power) for power in powers)
        np.testing.assert_allclose(found[0], sum(powers), rtol=1e-12, atol=1e-13 * sizes.max())
        np.testing.assert_allclose(found[1], sum(slopes) + 0 * z, rtol=1e-11, atol=1e-12)
    found = np.empty((2, 4, 3), complex)
    left[:2] = 0.5, -0.3j
    fill_pole_sums(left, right, False, 0, found[0], found[1])
    long = np.empty((2, 4, 3), complex)
    fill_pole_sums(left, right, False, 2000, long[0], long[1])
    np.testing.assert_allclose(found, long, rtol=1e-12)


@pytest.mark.theorem("quadratic-h2")
@pytest.mark.parametrize(("time", "horizon"), TIMES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("direct", [True, False])
def test_objective_and_gradient(form, time, horizon, direct):
    """J is the squared error of the best read-out; its derivatives are difference quotients."""
    full = in_time(3, form, time, horizon, n=5)
    objective = QuadraticObjective(full, horizon, direct=direct)
    states = modes_for(full)
    poles, rows = states.written_out()
    found = objective(poles, rows)
    model = with_best_read_out(
        plain(full), states.system(full.linear), horizon=horizon, direct=direct
    )
    assert direct or np.array_equal(model.D, plain(full).D)
    error = h2_error(plain(full), model, horizon=horizon)
    np.testing.assert_allclose(found.value, error**2, rtol=1e-9)
    rng = np.random.default_rng(2)
    for _ in range(3):
        dp, dr = normal(rng, 3), normal(rng, 3, 2)
        if full.is_real:
            dp[2], dr[2] = dp[2].real, dr[2].real
        moved = ModalStates(dp, dr, full.is_real)
        pairs = states.pairs
        dp = np.concatenate([dp, dp[pairs].conj()])
        dr = np.concatenate([dr, dr[pairs].conj()])
        claimed = 2 * np.sum(found.by_poles * dp.conj()).real
        claimed += 2 * np.sum(found.by_rows * dr.conj()).real
        quotient = difference_quotient(lambda t: objective(poles + t * dp, rows + t * dr).value)  # noqa: B023
        np.testing.assert_allclose(claimed, quotient, rtol=1e-7)
        folded = states.folded(found.by_poles), states.folded(found.by_rows)
        again = 2 * np.sum(folded[0] * moved.poles.conj()).real
        again += 2 * np.sum(folded[1] * moved.rows.conj()).real
        np.testing.assert_allclose(again, claimed, rtol=1e-9)


@pytest.mark.theorem("quadratic-h2")
@pytest.mark.parametrize("inputs", [1, 2])
@pytest.mark.parametrize(("time", "horizon"), TIMES)
@pytest.mark.parametrize("form", FORMS[:4])
def test_parameters(form, time, horizon, inputs):
    """Every derivative by a parameter, stable parametrisations and the free one."""
    full = in_time(4, form, time, horizon, n=5, m=inputs)
    objective = QuadraticObjective(full, horizon)
    assert objective.stable == (horizon is None)
    states = modes_for(full)
    parameters = Parameters(states, continuous=objective.continuous, stable=objective.stable)
    x = parameters.first
    np.testing.assert_allclose(parameters.states(x).poles, states.poles, rtol=1e-14)
    np.testing.assert_allclose(parameters.states(x).rows, states.rows, rtol=1e-14)
    x = x + 0.1 * np.random.default_rng(0).standard_normal(x.shape)
    moved = parameters.states(x)
    assert not np.any(moved.poles[~parameters.turns].imag)

    def value(y):
        return objective(*parameters.states(y).written_out()).value

    found = objective(*moved.written_out())
    gradient = parameters.gradient(x, moved, found.by_poles, found.by_rows)
    quotients = [difference_quotient(lambda t: value(x + t * e)) for e in np.eye(len(x))]  # noqa: B023
    np.testing.assert_allclose(gradient, quotients, rtol=1e-7, atol=1e-7 * np.abs(gradient).max())
    if objective.stable:  # wherever the parameters go
        far = parameters.states(np.clip(1e3 * x, *np.array(_finite(parameters.bounds())).T))
        assert np.all(far.margins(objective.continuous) > 0)


def _finite(bounds):
    return [(-1e3 if low is None else low, 1e3 if high is None else high) for low, high in bounds]
