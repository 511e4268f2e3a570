"""State-space layers: gains, differences, ranges and the error that a reduction makes."""

import math

import mpmath
import numpy as np
import pytest
from certify_reference import (
    WIDE,
    assert_facts,
    climb,
    convolve,
    impulse_response,
    layer,
    random_layer,
    random_pair,
    value_of,
)

from ssmred.certify import Node, Value
from ssmred.certify.layer_forms import count_states
from ssmred.certify.responses import h2_sizes, layer_gains, reduction_gains
from ssmred.certify.rules_ssm import local_error
from ssmred.certify.rules_table import apply_rule
from ssmred.errors import ShapeError, UnstableSystemError
from ssmred.systems import DiagonalSystem

pytestmark = pytest.mark.theorem("network-bound")
FT = ("feature", "time")


def node_of(original, reduced=None):
    params = {"system": original} if reduced is None else {"system": original, "reduced": reduced}
    return Node("s", "ssm", ("x",), params, FT)


@pytest.mark.theorem("error-rules")
@pytest.mark.parametrize("seed", range(60))
def test_holds_for_random_pairs(seed):
    rng = np.random.default_rng(seed)
    H, n, T = (int(size) for size in rng.integers(1, 5, 3))
    original, reduced = random_layer(
        rng, H, n, kept=int(rng.integers(0, n + 1)), perturb=10.0 ** rng.uniform(-8, 0)
    )
    pair = random_pair(rng, (H, T), FT)
    value = apply_rule(node_of(original, reduced), value_of(*pair, FT))
    h, h_reduced = impulse_response(original, T), impulse_response(reduced, T)
    outputs = convolve(h_reduced, pair[0]), convolve(h, pair[1])
    noise = (T + 16) * 2.0**-63 * max(float(np.abs(o).max()) for o in (*outputs, *pair))
    noise *= 1.0 + float(np.abs(h).sum(axis=1).max())
    assert_facts(value, *outputs, noise)


@pytest.mark.parametrize("seed", range(10))
def test_gains_are_upper_bounds_and_nearly_attained(seed):
    rng = np.random.default_rng(seed)
    H, n, T = 3, 4, 24
    original, reduced = random_layer(rng, H, n)
    h = impulse_response(original, T)
    gains = layer_gains(original, T)
    gap, alone = reduction_gains(original, reduced, T)
    h_reduced = impulse_response(reduced, T)
    for response, got in ((h, gains), (h - h_reduced, gap), (h_reduced, alone)):
        l1 = np.abs(response).sum(axis=1)
        assert (l1 <= got.l1).all()
        assert got.l1 == pytest.approx(l1.astype(float), rel=1e-12)
        h2 = np.sqrt((response**2).sum(axis=1))
        assert (h2 <= got.h2).all()
        assert got.h2 == pytest.approx(h2.astype(float), rel=1e-12)
        w = np.exp(-2j * np.pi * np.outer(np.arange(T), np.linspace(0, 1, 3001)))
        peak = np.abs(response.astype(float) @ w).max(axis=1)
        assert (peak * (1 - 1e-12) <= got.l2).all()
        assert (got.l2 <= peak * 1.03).all()
        steps = np.cumsum(response, axis=1)
        assert (steps.min(axis=1) >= got.step_lo).all()
        assert (steps.max(axis=1) <= got.step_hi).all()
        assert (np.sqrt((steps**2).sum(axis=1)) <= got.step_l2).all()


def test_differences_far_below_rounding_of_the_responses_are_real():
    rng = np.random.default_rng(0)
    H, n, T = 2, 16, 196
    poles = np.exp(0.01 * (-0.5 + 1j * np.pi * np.arange(n))) * np.ones((H, 1))
    C = rng.standard_normal((H, n)) + 1j * rng.standard_normal((H, n))
    original = layer(poles, np.ones((H, n)), C, np.zeros(H))
    change = 1e-13 * (rng.standard_normal((H, n)) + 1j * rng.standard_normal((H, n)))
    reduced = layer(poles, np.ones((H, n)), C * (1 + change), np.zeros(H))
    exact = layer(poles, np.ones((H, n)), C - reduced.C[:, 0, :], np.zeros(H))
    gap, _ = reduction_gains(original, reduced, T)
    l1 = np.abs(impulse_response(exact, T)).sum(axis=1)
    assert (l1 <= gap.l1).all()
    assert gap.l1 == pytest.approx(l1.astype(float), rel=1e-12)
    size, error = h2_sizes(original, reduced, T)
    assert 1e-15 < error / size < 1e-12


@pytest.mark.parametrize("seed", range(6))
def test_layer_norms_are_lower_bounds_where_coefficients_cancel(seed):
    """Two modes that nearly share a pole, with huge opposite coefficients: the norm is tiny."""
    rng = np.random.default_rng(seed)
    T, H = 12, 2
    big = 2.0 ** rng.integers(60, 100)
    poles = np.array([[0.5, 0.5 + 2.0**-50]] * H)
    C = np.array([[big, -big]] * H)
    original = layer(poles, np.ones((H, 2)), C, np.zeros(H))
    reduced = layer(poles, np.ones((H, 2)), 0 * C, np.zeros(H))
    size, error = h2_sizes(original, reduced, T)
    with mpmath.workdps(80):
        h = [big * (mpmath.mpf(0.5) ** k - mpmath.mpf(0.5 + 2.0**-50) ** k) for k in range(T)]
        exact = mpmath.sqrt(H * sum(x * x for x in h))
        assert 0.0 <= size <= exact <= error
    # coefficients that cancel to the last bit leave a layer of norm 0
    nothing = layer(np.array([[0.5, 0.5]]), np.ones((1, 2)), np.array([[big, -big]]), np.zeros(1))
    none = layer(np.array([[0.5]]), np.ones((1, 1)), np.zeros((1, 1)), np.zeros(1))
    size, error = h2_sizes(nothing, none, T)
    assert size == 0.0 <= error
    # without cancellation the lower bound is a tight one
    plain, _ = random_layer(rng, 3, 4)
    zero = plain.replace(C=0 * plain.C, D=0 * plain.D)
    size, error = h2_sizes(plain, zero, T)
    assert size <= error <= size * (1 + 1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_the_sup_bound_is_attained_by_the_matched_input(seed):
    rng = np.random.default_rng(seed)
    original, reduced = random_layer(rng, 1, 3)
    T = 12
    x = Value(-np.ones((1, 1)), np.ones((1, 1)), FT, float(T)).without_error()
    y = apply_rule(node_of(original, reduced), x)
    gap = impulse_response(original, T) - impulse_response(reduced, T)
    u = np.sign(gap[:, ::-1])[None]  # the last output collects every sample with its sign
    reached = convolve(gap, u)[0, 0, -1]
    assert reached <= y.error_sup[0, 0] <= reached * (1 + 1e-12)
    u = np.sign(impulse_response(reduced, T)[:, ::-1])[None]
    reached = convolve(impulse_response(reduced, T), u)[0, 0, -1]
    assert reached <= y.hi[0, 0] <= reached * (1 + 1e-12)


def test_a_constant_part_is_measured_by_the_step_response():
    # alternating difference: large l1 norm, small step response
    original = layer(np.array([[-0.9]]), np.ones((1, 1)), np.ones((1, 1)), np.zeros(1))
    reduced = layer(np.array([[-0.9]]), np.ones((1, 1)), np.zeros((1, 1)), np.zeros(1))
    x = Value(np.full((1, 1), 5.0), np.full((1, 1), 5.1), FT, 50.0).without_error()
    y = apply_rule(node_of(original, reduced), x)
    assert y.error_sup[0, 0] < 5.1 + 0.5
    u = (5.05 + 0.05 * np.sign(np.random.default_rng(0).standard_normal((40, 1, 50)))).astype(WIDE)
    out = convolve(impulse_response(original, 50), u)
    assert (np.abs(out) <= y.error_sup[0, 0]).all()


@pytest.mark.parametrize("seed", range(5))
def test_holds_for_adversarial_inputs_of_a_ball(seed):
    rng = np.random.default_rng(seed)
    H, T = 2, 6
    original, reduced = random_layer(rng, H, 3)
    far = np.full((H, 1), np.inf)
    x = Value(-far, far, FT, float(T), l2=2.0).without_error()
    sup, features = local_error(node_of(original, reduced), x)
    gap = impulse_response(original, T) - impulse_response(reduced, T)

    def outputs(z):
        u = z.astype(WIDE)
        size = np.sqrt((u**2).sum(axis=(1, 2), keepdims=True)) + WIDE(1e-30)
        return convolve(gap, 2 * u / size)

    def whole(z):
        return np.sqrt((outputs(z) ** 2).sum(axis=2)).max(axis=1)

    assert climb(whole, (H, T), rng) <= features.max()
    peak = climb(lambda z: np.abs(outputs(z)).max(axis=(1, 2)), (H, T), rng)
    assert peak <= sup.max()


def test_infinite_horizon_covers_every_length():
    rng = np.random.default_rng(3)
    original, reduced = random_layer(rng, 2, 3)
    x = Value(-np.ones((2, 1)), np.ones((2, 1)), FT, math.inf).without_error()
    y = apply_rule(node_of(original, reduced), x)
    assert y.l2 == y.error_l2 == math.inf
    assert np.isfinite(y.error_sup).all()
    for T in (1, 7, 400):
        gap = impulse_response(original, T) - impulse_response(reduced, T)
        assert (np.abs(gap).sum(axis=1) <= y.error_sup[:, 0]).all()
        assert (np.abs(impulse_response(reduced, T)).sum(axis=1) <= y.hi[:, 0]).all()
    far = np.full((2, 1), np.inf)
    ball = Value(-far, far, FT, math.inf, l2=1.0).without_error()
    y = apply_rule(node_of(original, reduced), ball)
    assert np.isfinite(y.error_l2)
    assert (np.sqrt((gap**2).sum(axis=1)) <= y.error_sup[:, 0]).all()
    assert (np.sqrt((gap**2).sum(axis=1)) <= y.error_features[:, 0]).all()


def test_unstable_poles_only_on_finite_horizons():
    original = layer(np.array([[1.05]]), np.ones((1, 1)), np.ones((1, 1)), np.zeros(1))
    x = Value(-np.ones((1, 1)), np.ones((1, 1)), FT, 10.0).without_error()
    y = apply_rule(node_of(original), x)
    assert y.hi[0, 0] == pytest.approx((1.05**10 - 1) / 0.05)
    endless = Value(-np.ones((1, 1)), np.ones((1, 1)), FT, math.inf).without_error()
    with pytest.raises(UnstableSystemError):
        apply_rule(node_of(original), endless)


def test_nothing_reduced_makes_no_error_at_all():
    original, _ = random_layer(np.random.default_rng(0), 2, 3)
    for length in (9.0, math.inf):
        x = Value(-np.ones((2, 1)), np.ones((2, 1)), FT, length).without_error()
        for other in (original, original.replace()):
            y = apply_rule(node_of(original, other), x)
            assert y.error_l2 == 0.0
            assert (y.error_sup == 0.0).all()


def test_order_zero_is_a_static_gain():
    original, reduced = random_layer(np.random.default_rng(0), 2, 3, kept=0)
    assert count_states(original) == 12
    assert count_states(reduced) == 0
    for horizon in (5, None):
        gap, alone = reduction_gains(original, reduced, horizon)
        assert alone.l1 == pytest.approx(np.abs(reduced.D[:, 0, 0]))
        assert (gap.l1 > 0).all()


def test_padding_is_not_counted():
    poles = np.array([[0.5j, 0.0], [0.5, 0.3]])
    B = np.array([[1.0, 0.0], [1.0, 1.0]])
    C = np.array([[1.0, 0.0], [0.0, 1.0]])  # a zero read-out of a live pole still counts
    assert count_states(layer(poles, B, C, np.zeros(2))) == 6


def test_wrong_forms_are_refused():
    x = Value(-np.ones((2, 1)), np.ones((2, 1)), FT, 10.0)
    ones = np.ones((2, 1, 1))
    standard = DiagonalSystem(0.5 * ones[..., 0], ones, ones, real_output=True)
    with pytest.raises(ShapeError, match="wrong form"):
        apply_rule(node_of(standard), x)
    good = standard.replace(recurrence="post-update")
    wide = Value(-np.ones((3, 1)), np.ones((3, 1)), FT, 10.0)
    with pytest.raises(ShapeError, match="channels"):
        apply_rule(node_of(good), wide)
