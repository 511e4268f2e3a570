"""Bounds of one signal: how they sharpen each other, and arithmetic with infinity."""

import math

import numpy as np
import pytest
from certify_reference import assert_facts, in_ball, random_pair, value_of

from ssmred.certify.values import ErrorBall, Value, norm, outward, times, up, weighted_sum
from ssmred.errors import AccuracyError, ShapeError

FT = ("feature", "time")


@pytest.mark.theorem("error-rules")
def test_facts_sharpen_each_other_without_losing_a_signal():
    rng = np.random.default_rng(0)
    for _ in range(200):
        shape = (rng.integers(1, 5), rng.integers(1, 9))
        reduced, original = random_pair(rng, shape, FT)
        value = value_of(reduced, original, FT)
        assert_facts(value, reduced, original)
        only_sup = Value(value.lo, value.hi, FT, value.length, error_sup=value.error_sup)
        assert_facts(only_sup, reduced, original)
        far = np.full(value.shape, np.inf)
        only_l2 = Value(-far, far, FT, value.length, l2=value.l2, error_l2=value.error_l2)
        assert_facts(only_l2, reduced, original)


def test_hand_formulas():
    x = Value(np.array([[-1.0], [-3.0]]), np.array([[2.0], [1.0]]), FT, 4.0, error_l2=0.5)
    assert x.l2_features == pytest.approx(np.array([[4.0], [6.0]]))
    assert x.l2 == pytest.approx(math.sqrt(52.0))
    assert x.error_sup.tolist() == [[0.5], [0.5]]
    assert x.original_lo == pytest.approx(np.array([[-1.5], [-3.5]]))


def test_what_is_not_given_is_unknown_and_never_zero():
    x = Value(np.zeros((1, 1)), np.ones((1, 1)), FT, math.inf)
    assert x.l2 == x.error_l2 == math.inf
    assert np.isinf(x.error_sup).all()
    assert np.isinf(x.error_features).all()


def test_no_difference_stays_none_over_an_infinite_horizon():
    x = Value(np.zeros((2, 1)), np.ones((2, 1)), FT, math.inf, error_sup=np.zeros((2, 1)))
    assert x.error_l2 == 0.0
    assert (x.error_features == 0.0).all()


@pytest.mark.parametrize("a", [0.0, 1.0, math.inf])
def test_products_with_infinity(a):
    assert times(0.0, a) == 0.0
    assert not np.isnan(times(a, math.inf))


def test_weighted_sum_with_infinity():
    weights = np.array([[0.0, 1.0], [2.0, 0.0]])
    assert weighted_sum(weights, np.array([math.inf, 3.0])).tolist() == [
        pytest.approx(3.0),
        math.inf,
    ]


def test_norm_is_an_upper_bound_and_survives_extremes():
    rng = np.random.default_rng(1)
    for scale in (1e-300, 1e-160, 1.0, 1e160, 1e300):
        x = rng.uniform(0, 1, (3, 7)).astype(np.longdouble) * scale
        x = x.astype(np.float64)
        wide = x.astype(np.longdouble)
        assert norm(x) >= np.sqrt((wide**2).sum())
        assert (norm(x, axis=1) >= np.sqrt((wide**2).sum(axis=1))).all()
        assert norm(x) <= np.sqrt((wide**2).sum()) * (1 + 1e-13)
    assert norm([]) == 0.0
    assert norm([1.0, math.inf]) == math.inf
    assert norm(np.array([[1.0, math.inf], [3.0, 4.0]]), axis=1)[1] == pytest.approx(5.0)
    assert norm(np.array([[1.0, math.inf], [3.0, 4.0]]), axis=1)[0] == math.inf


def test_norm_scales_every_slice_by_itself():
    x = np.array([[3e-200, 4e-200], [3e200, 4e200], [0.0, 0.0], [5e-324, 5e-324], [3e-310, 4e-310]])
    exact = [np.sqrt((row.astype(np.longdouble) ** 2).sum()) for row in x]
    for got in (norm(x, axis=1), norm(x.T, axis=0), norm(x[:, None], axis=(1, 2))):
        assert (got >= np.array(exact)).all()
        assert got[2] == 0.0
        assert got[:2] == pytest.approx([5e-200, 5e200], rel=1e-14)
    assert np.isnan(norm([1.0, math.nan]))


def test_products_and_sums_of_what_is_not_zero_are_not_zero():
    assert times(1e-200, 1e-200) > 0.0
    assert times(1e-300, math.inf) == math.inf
    weights = np.array([[1e-200, 0.0], [0.0, 1.0]])
    got = weighted_sum(weights, np.array([[1e-200, 0.0], [0.0, 0.0], [math.inf, 1e-320]]))
    assert got[0, 0] > 0.0
    assert got[0, 1] == 0.0
    assert got[1].tolist() == [0.0, 0.0]
    assert got[2, 0] == math.inf
    assert got[2, 1] >= 1e-320
    lo, hi = outward(np.array([1e-320]), np.array([1e-320]))
    assert lo[0] < 1e-320 < hi[0]


def test_up_and_outward_round_away():
    assert up(1.0) > 1.0
    assert up(0.0) == 0.0
    lo, hi = outward(np.array([1.0, -math.inf]), np.array([2.0, 5.0]))
    assert lo[0] < 1.0
    assert hi[0] > 2.0
    assert lo[1] == -math.inf


@pytest.mark.theorem("error-rules")
def test_sums_of_balls_and_boxes_hold_every_sum():
    rng = np.random.default_rng(2)
    for _ in range(300):
        f = rng.integers(1, 6)
        balls, points = [], []
        for _ in range(2):
            scale = rng.uniform(0, 2, f) * (rng.random(f) < 0.8)
            radius = float(rng.choice([0.0, 1e-9, 1.0, 30.0]))
            direction = rng.standard_normal((20, f))
            direction /= np.sqrt((direction**2).sum(axis=1, keepdims=True))
            points.append(np.abs(direction) * scale * radius * (1 - 1e-12))
            balls.append(ErrorBall(scale, radius))
        assert in_ball(balls[0] + balls[1], points[0] + points[1]).all()
        box = rng.uniform(0, 1, f) * 10.0 ** rng.uniform(-8, 2)
        assert in_ball(balls[0].plus_box(box), points[0] + box * (1 - 1e-12)).all()
    infinite = ErrorBall(np.ones(2), math.inf) + ErrorBall(np.ones(2), 1.0)
    assert infinite.radius == math.inf


def test_proportional_balls_add_without_loss():
    a = ErrorBall(np.array([1.0, 2.0]), 3.0)
    total = a + ErrorBall(np.array([2.0, 4.0]), 0.5)
    assert total.scale * total.radius == pytest.approx(np.array([4.0, 8.0]))


def test_wrong_values_are_refused():
    one = np.ones((1, 1))
    with pytest.raises(AccuracyError, match="nan or negative"):
        Value(one, 0 * one, FT)
    with pytest.raises(AccuracyError):
        Value(one, one, FT, error_l2=math.nan)
    with pytest.raises(AccuracyError):
        Value(one, one, FT, error_sup=np.full((1, 1), -1.0))
    with pytest.raises(ShapeError, match="axes"):
        Value(one, one, ("feature",))
    with pytest.raises(ShapeError):
        Value(np.ones((1, 2)), np.ones((1, 2)), FT)
