"""Entrywise rules: constants proved in ball arithmetic, zero slack over signals and intervals."""

import math

import numpy as np
import pytest
from certify_reference import assert_facts, random_pair, run_rule
from flint import arb, ctx

from ssmred.certify import Node, Value
from ssmred.certify import rules_pointwise as rules
from ssmred.certify.rules_table import apply_rule
from ssmred.errors import UnsupportedOperationError

pytestmark = pytest.mark.theorem("error-rules")
FT = ("feature", "time")
KINDS = [("gelu", {}), ("gelu", {"approximate": "tanh"}), ("silu", {}), ("relu", {}),
         ("tanh", {}), ("sigmoid", {})]  # fmt: skip


@pytest.fixture(autouse=True)
def precision():
    old = ctx.prec
    ctx.prec = 120
    yield
    ctx.prec = old


def ball(lo, hi):
    return arb.union(lo, hi)


def upper(function, lo, hi, limit, depth=0):
    """Prove function(x) <= limit on [lo, hi] by subdivision in ball arithmetic."""
    lo, hi = arb(lo), arb(hi)
    if function(ball(lo, hi)) <= arb(limit):
        return True
    if depth > 45:
        return False
    middle = (lo + hi) / 2
    return upper(function, lo, middle, limit, depth + 1) and upper(
        function, middle, hi, limit, depth + 1
    )


def phi(x):
    return (-x * x / 2).exp() / (2 * arb.pi()).sqrt()


def normal_cdf(x):
    return (-x / arb(2).sqrt()).erfc() / 2


def logistic(x):
    return 1 / (1 + (-x).exp())


def tanh_gelu(x):
    return x * logistic(2 * (2 / arb.pi()).sqrt() * (x + arb("0.044715") * x**3))


def tanh_gelu_slope(x):
    inner = 2 * (2 / arb.pi()).sqrt() * (x + arb("0.044715") * x**3)
    growth = 2 * (2 / arb.pi()).sqrt() * (1 + 3 * arb("0.044715") * x**2)
    s = logistic(inner)
    return s + x * s * (1 - s) * growth


def extreme(function, derivative, place):
    """Return a ball that holds the extreme value near ``place``, where the derivative vanishes.

    The derivative changes its sign within 1e-12 of ``place``, and by the mean value theorem the
    function changes by at most its derivative there times that distance.
    """
    near = arb("1e-12")
    first, second = derivative(arb(place) - near), derivative(arb(place) + near)
    assert first * second < 0
    reach = abs(derivative(arb(place) + near * arb(0, 1))) * near
    return function(arb(place)) + reach * arb(0, 1)


def test_extreme_values_at_the_exact_positions():
    root = arb(2).sqrt()
    assert normal_cdf(root) + root * phi(root) <= arb(rules.GELU_SLOPE[1])
    gelu_slope = lambda x: normal_cdf(x) + x * phi(x)  # noqa: E731
    place, value = rules.GELU_MINIMUM
    assert arb(value) <= extreme(lambda x: x * normal_cdf(x), gelu_slope, place)
    silu_slope = lambda x: logistic(x) * (1 + x * (1 - logistic(x)))  # noqa: E731
    place, value = rules.SILU_MINIMUM
    assert arb(value) <= extreme(lambda x: x * logistic(x), silu_slope, place)
    place, value = rules.SILU_SLOPE
    bend = lambda x: logistic(x) * logistic(-x) * (2 - x * (x / 2).tanh())  # noqa: E731
    assert extreme(silu_slope, bend, place) <= arb(value)


def test_tanh_gelu_constants_by_subdivision():
    assert upper(tanh_gelu_slope, -6.0, 6.0, rules.TANH_GELU_SLOPE)
    assert upper(lambda x: -tanh_gelu_slope(x), -6.0, 6.0, rules.TANH_GELU_SLOPE)
    assert upper(lambda x: -tanh_gelu(x), -6.0, 0.0, -rules.TANH_GELU_MINIMUM)
    # beyond 6: |slope - (0 or 1)| <= (1 + 3 z) exp(-z) and |value| <= z exp(-z), both falling
    z = 2 * (2 / arb.pi()).sqrt() * (6 + arb("0.044715") * 216)
    assert (1 + 3 * z) * (-z).exp() < 1e-8


def test_the_gelu_in_torch_is_the_one_bounded():
    torch = pytest.importorskip("torch")
    x = torch.linspace(-5, 5, 101, dtype=torch.float64)
    exact = torch.nn.functional.gelu(x).numpy()
    assert exact == pytest.approx(rules._gelu(x.numpy()), abs=1e-15)
    rough = torch.nn.functional.gelu(x, approximate="tanh").numpy()
    assert rough == pytest.approx(rules._tanh_gelu(x.numpy()), abs=1e-15)


@pytest.mark.parametrize(("op", "params"), KINDS)
def test_hold_for_random_pairs(op, params):
    rng = np.random.default_rng(0)
    node = Node("y", op, ("x",), params, FT)
    for _ in range(60):
        shape = tuple(rng.integers(1, 6, 2))
        pair = random_pair(rng, shape, FT, spread=10.0 ** rng.uniform(-4, 1.5))
        value, reduced, original, noise = run_rule(node, pair, axes=[FT])
        if op == "gelu" and not params:
            noise = 1e-15 * float(np.abs(pair).max())  # the reference erf is float64
        assert_facts(value, reduced, original, noise)


def exact_functions(op, params):
    if op == "gelu":
        return tanh_gelu if params else lambda x: x * normal_cdf(x)
    return {
        "silu": lambda x: x * logistic(x),
        "relu": lambda x: arb.max(x, arb(0)),
        "tanh": lambda x: x.tanh(),
        "sigmoid": logistic,
    }[op]


@pytest.mark.parametrize(("op", "params"), KINDS)
def test_ranges_and_slopes_hold_against_ball_arithmetic(op, params):
    """Intervals placed on and beside the extrema; exact values at 120 bits, no slack."""
    rng = np.random.default_rng(1)
    f = exact_functions(op, params)
    node = Node("y", op, ("x",), params, ("feature",))
    places = [
        0.0,
        -0.7517915246935646,
        -1.2784645427610738,
        math.sqrt(2),
        -math.sqrt(2),
        2.3993572805154677,
        -2.3993572805154677,
        -0.7524614220710163,
        40.0,
        -40.0,
        6.0,
        -9.0,
    ]
    for place in places:
        for width in (0.0, 1e-12, 1e-6, 0.1, 3.0):
            for shift in (-1.0, 0.0, 1.0):
                lo = place + shift * width
                hi = lo + width
                e = float(rng.choice([0.0, 1e-9, 0.5]))
                x = Value(np.array([lo]), np.array([hi]), ("feature",), error_sup=np.array([e]))
                y = apply_rule(node, x)
                points = [lo, hi, *rng.uniform(lo, hi, 6), *(p for p in places if lo <= p <= hi)]
                for point in points:
                    value = f(arb(point))
                    assert not value < arb(y.lo[0])
                    assert not value > arb(y.hi[0])
                    for other in (point - e, point + e, point + e * rng.uniform(-1, 1)):
                        gap = abs(f(arb(other)) - value)
                        if abs(other - point) <= e:
                            assert not gap > arb(y.error_sup[0])


@pytest.mark.parametrize("place", [-690.0, -745.2, -800.0, -1e5, 800.0])
def test_sigmoids_that_underflow_keep_an_allowance(place):
    """exp(-800) is no float64, but it is not 0: range and slope hold in exact arithmetic."""
    lo, hi = np.array([place - 1.0]), np.array([place])
    low, high = rules.sigmoid_range(lo, hi)
    slope = rules.sigmoid_slope(lo, hi)
    for point in (place - 1.0, place):
        value, other = logistic(arb(point)), logistic(arb(-point))
        assert arb(low[0]) <= value
        assert arb(high[0]) >= value or high[0] == 1.0
        assert arb(slope[0]) >= value * other
    assert slope[0] > 0.0
    assert high[0] > 0.0


def test_local_slopes_are_sharp():
    def slope(op, lo, hi):
        x = Value(np.array([lo]), np.array([hi]), ("feature",), error_sup=np.array([1e-9]))
        return apply_rule(Node("y", op, ("x",), {}, ("feature",)), x).error_sup[0] / 1e-9

    assert slope("gelu", 5.0, 6.0) == pytest.approx(1.0, abs=1e-4)
    assert slope("gelu", -9.0, -8.0) < 1e-11
    assert slope("gelu", -1.0, 3.0) == pytest.approx(1.12890415)
    assert slope("relu", -3.0, -1.0) == 0.0
    assert slope("sigmoid", 2.0, 3.0) == pytest.approx(0.10499358)
    assert slope("tanh", -3.0, -1.0) == pytest.approx(0.41997434)
    assert slope("silu", 0.0, 5.0) == pytest.approx(1.09983932)


def test_infinite_ranges_stay_sound():
    x = Value(np.array([-np.inf, -np.inf, 0.0]), np.array([np.inf, -3.0, np.inf]), ("feature",))
    for op, params in KINDS:
        y = apply_rule(Node("y", op, ("x",), params, ("feature",)), x)
        assert y.hi[0] >= 1.0 or op in ("tanh", "sigmoid")
        assert y.hi[0] == (1.0 if op in ("tanh", "sigmoid") else np.inf)
        assert np.isinf(y.error_sup).all() or op in ("relu",)


def test_unknown_approximation_is_refused():
    x = Value(np.zeros(1), np.ones(1), ("feature",))
    with pytest.raises(UnsupportedOperationError, match="approximation"):
        apply_rule(Node("y", "gelu", ("x",), {"approximate": "quick"}, ("feature",)), x)
