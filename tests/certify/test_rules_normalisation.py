"""LayerNorm: biased variance, eps, local and global slope, ranges."""

import math

import numpy as np
import pytest
from certify_reference import WIDE, assert_facts, climb, evaluate_node, random_pair, run_rule

from ssmred.certify import Node, Value
from ssmred.certify.rules_normalisation import smallest_variance
from ssmred.certify.rules_table import apply_rule
from ssmred.errors import UnsupportedOperationError

pytestmark = pytest.mark.theorem("error-rules")
TF = ("time", "feature")


def layernorm(rng, d, eps=1e-5, affine=True):
    params = {"eps": eps}
    if affine:
        params |= {"weight": rng.standard_normal(d).astype(np.float32),
                   "bias": rng.standard_normal(d)}  # fmt: skip
    return Node("y", "layernorm", ("x",), params, TF)


@pytest.mark.parametrize("seed", range(80))
def test_holds_for_random_pairs(seed):
    rng = np.random.default_rng(seed)
    T, d = int(rng.integers(1, 4)), int(rng.integers(1, 6))
    node = layernorm(rng, d, float(rng.choice([1e-5, 1e-2, 1.0])), affine=bool(seed % 3))
    pair = random_pair(rng, (T, d), TF, spread=10.0 ** rng.uniform(-3, 1))
    assert_facts(*run_rule(node, pair, axes=[TF]))


def test_smallest_variance_is_a_lower_bound_and_attained():
    rng = np.random.default_rng(0)
    for _ in range(200):
        d = int(rng.integers(1, 6))
        lo = rng.standard_normal(d) * 3
        hi = lo + rng.uniform(0, 2, d) * (rng.random(d) < 0.8)
        bound = float(smallest_variance(lo, hi))
        # the point of the box nearest to the best mean, by an independent search over it
        means = np.linspace(lo.min(), hi.max(), 20001)[:, None]
        values = np.mean((np.clip(means, lo, hi) - means) ** 2, axis=1)
        assert bound <= values.min()
        assert bound >= values.min() * (1 - 1e-3) - 1e-6
        points = rng.uniform(lo, hi, (500, d)).astype(WIDE)
        assert bound <= points.var(axis=1).min()
    assert smallest_variance(np.array([-np.inf, 3.0]), np.array([1.0, 4.0])) == 0.0


@pytest.mark.parametrize("eps", [1e-5, 1e-2])
def test_the_global_slope_is_attained_at_constant_inputs(eps):
    # around x = const the map is x / sqrt(eps): no constant below 1 / sqrt(eps) holds globally
    d = 4
    node = Node("y", "layernorm", ("x",), {"eps": eps}, TF)
    radius = 1e-6 * math.sqrt(eps)
    x = Value(np.full((1, d), 2.0), np.full((1, d), 2.0), TF, 1.0, error_l2=radius)
    y = apply_rule(node, x)
    reduced = np.full((1, 1, d), 2.0, dtype=WIDE)
    step = np.array([1, -1, 0, 0], dtype=WIDE) / np.sqrt(WIDE(2)) * WIDE(radius) * (1 - WIDE(1e-15))
    gap = evaluate_node(node, [reduced + step]) - evaluate_node(node, [reduced])
    found = np.sqrt((gap**2).sum())
    assert found <= y.error_l2
    assert found >= 0.999999 * y.error_l2


@pytest.mark.parametrize("seed", range(8))
def test_holds_for_adversarial_pairs(seed):
    rng = np.random.default_rng(seed)
    d, T = 4, 1
    node = layernorm(rng, d, 1e-3)
    middle = rng.uniform(-2, 2, (1, d)) * (seed % 2)  # with and without a variance of its own
    size, gap = 0.05, 10.0 ** rng.uniform(-4, 0)
    x = Value(middle - size, middle + size, TF, 1.0, error_l2=gap)
    y = apply_rule(node, x)

    def outputs(z):
        reduced = (middle + size * z[:, :1]).astype(WIDE)
        delta = z[:, 1:].astype(WIDE)
        delta = gap * (1 - WIDE(1e-15)) * delta / np.sqrt((delta**2).sum(axis=2, keepdims=True))
        return evaluate_node(node, [reduced + delta]) - evaluate_node(node, [reduced])

    def whole(z):
        return np.sqrt((outputs(z) ** 2).sum(axis=(1, 2)))

    def entries(z):
        return (np.abs(outputs(z)) / y.error_sup).reshape(len(z), -1).max(axis=1)

    assert climb(whole, (2, d), rng, rounds=60) <= y.error_l2
    assert climb(entries, (2, d), rng, rounds=60) <= 1.0
    assert T == 1


def test_local_slope_uses_the_variance():
    middle = np.array([[-3.0, 3.0]])
    x = Value(middle, middle, TF, 5.0, error_sup=np.full((1, 2), 1e-9))
    y = apply_rule(Node("y", "layernorm", ("x",), {}, TF), x)
    assert y.error_l2 / x.error_l2 == pytest.approx(1.0 / 3.0, rel=1e-4)  # not 1 / sqrt(1e-5) = 316


def test_outputs_are_bounded_whatever_comes_in():
    far = np.full((1, 5), np.inf)
    x = Value(-far, far, TF, 7.0)
    y = apply_rule(Node("y", "layernorm", ("x",), {"weight": np.full(5, -2.0)}, TF), x)
    assert y.hi == pytest.approx(np.full((1, 5), 4.0))
    assert y.l2 == pytest.approx(2.0 * math.sqrt(35.0))
    assert y.error_l2 <= 2 * y.l2 * (1 + 1e-12)
    spike = np.array([[[1e9, 0, 0, 0, 0]]], dtype=WIDE)
    out = evaluate_node(Node("y", "layernorm", ("x",), {}, TF), [spike])
    assert out.max() <= 2.0
    assert out.max() > 1.9999


def test_one_feature_and_zero_eps():
    x = Value(np.zeros((1, 1)), np.ones((1, 1)), TF, 3.0, error_sup=np.ones((1, 1)))
    y = apply_rule(Node("y", "layernorm", ("x",), {"bias": np.array([2.0])}, TF), x)
    assert y.lo[0, 0] == pytest.approx(2.0)
    assert y.error_l2 == 0.0
    x = Value(np.zeros((1, 3)), np.ones((1, 3)), TF, 3.0, error_sup=np.full((1, 3), 0.1))
    y = apply_rule(Node("y", "layernorm", ("x",), {"eps": 0.0}, TF), x)
    assert np.isfinite(y.error_l2)  # two points of a bounded set


def test_several_trailing_axes_and_time():
    axes = ("time", "feature", "feature")
    rng = np.random.default_rng(0)
    for _ in range(20):
        params = {"dims": 2, "weight": rng.standard_normal((2, 3)), "eps": 1e-2}
        node = Node("y", "layernorm", ("x",), params, axes)
        assert_facts(*run_rule(node, random_pair(rng, (3, 2, 3), axes), axes=[axes]))
        node = Node("y", "layernorm", ("x",), {"weight": rng.standard_normal(3)}, axes)
        assert_facts(*run_rule(node, random_pair(rng, (3, 2, 3), axes), axes=[axes]))
    x = Value(np.zeros((2, 1)), np.ones((2, 1)), ("feature", "time"), 3.0)
    with pytest.raises(UnsupportedOperationError, match="feature axes"):
        apply_rule(Node("y", "layernorm", ("x",), {}, ("feature", "time")), x)
