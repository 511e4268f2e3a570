"""Every rule in balls against the rule in float64: the same theorem, evaluated twice."""

import numpy as np
import pytest

from ssmred import certify
from ssmred.certify.rules_normalisation import smallest_variance
from ssmred.certify.rules_table import apply_rule
from ssmred.rigour.architecture import Step
from ssmred.rigour.balls import (
    ZERO,
    arb,
    exact,
    filled,
    lower_float,
    upper_float,
    working_precision,
)
from ssmred.rigour.rules import Mixing, _smallest_variance, rule_of
from ssmred.rigour.values import Ball, Value

pytestmark = pytest.mark.theorem("ball-arithmetic")

T, D = 7, 6
AGREEMENT = 1e-9  # float64 rounds up by a count of its roundings, far below this


@pytest.fixture(autouse=True)
def precision():
    with working_precision(128):
        yield


def pair_of_values(rng, d=D, far=1.0, error=1e-3, weighted=True):
    """Return the same facts as a value of `certify` and as one in balls."""
    lo, width = rng.normal(size=d) * far, rng.uniform(0.0, 2.0, d) * far
    facts = {"sup": rng.uniform(0.0, error, d), "each": rng.uniform(0.0, 2 * error, d)}
    whole = float(rng.uniform(error, 4 * error))
    scale = rng.uniform(0.5, 2.0, d) if weighted else np.ones(d)
    radius = float(rng.uniform(error, 3 * error))
    first = certify.Value(
        lo[:, None], (lo + width)[:, None], ("feature", "time"), float(T),
        error_sup=facts["sup"][:, None], error_features=facts["each"][:, None], error_l2=whole,
        error_ball=certify.ErrorBall(scale[:, None], radius),
    )  # fmt: skip
    second = Value(
        exact(lo), exact(lo + width), T, sup=exact(facts["sup"]), each=exact(facts["each"]),
        error=arb(whole), ball=Ball(exact(scale), arb(radius)),
    )  # fmt: skip
    return first, second


def assert_agree(plain, balls):
    """Every bound in balls is within the float64 one, and not far below it."""

    reach = np.maximum(
        plain.magnitude.reshape(-1), 1e-3
    )  # ends of an interval are rounded by its own size

    def near(stated, found, up=True, size=None):
        stated = np.asarray(stated, dtype=float).reshape(-1)
        ends = [upper_float(b) if up else lower_float(b) for b in np.atleast_1d(found)]
        size = np.maximum(np.abs(stated), 1e-3) if size is None else size
        excess = (np.array(ends) - stated) / size * (1 if up else -1)
        assert (excess <= 1e-13).all()
        assert (excess >= -AGREEMENT).all()

    near(plain.hi, balls.hi, size=reach)
    near(plain.lo, balls.lo, up=False, size=reach)
    near(plain.l2, balls.l2)
    near(plain.l2_features, balls.l2_each)
    near(plain.error_sup, balls.sup)
    near(plain.error_features, balls.each)
    near(plain.error_l2, balls.error)
    near(plain.error_ball.scale * plain.error_ball.radius, balls.ball.scale * balls.ball.radius)


def node(op, axes=("feature", "time"), inputs=("x",), **params):
    return certify.Node("y", op, inputs, params, axes)


rng = np.random.default_rng(5)
W, b = rng.standard_normal((4, D)), rng.standard_normal(4)
NORM = {"weight": rng.standard_normal(D), "bias": rng.standard_normal(D),
        "mean": rng.standard_normal(D), "var": rng.uniform(0.1, 2.0, D), "eps": 1e-5}  # fmt: skip
LAYER_NORM = {key: NORM[key] for key in ("weight", "bias", "eps")}

UNARY = {
    "convolution": ("conv1d", {"weight": W, "bias": b}, "affine", None),
    "batch norm": ("batchnorm", NORM, "batchnorm", NORM),
    "gelu": ("gelu", {}, "pointwise", {"function": "gelu"}),
    "tanh gelu": ("gelu", {"approximate": "tanh"}, "pointwise", {"function": "tanh-gelu"}),
    "silu": ("silu", {}, "pointwise", {"function": "silu"}),
    "relu": ("relu", {}, "pointwise", {"function": "relu"}),
    "tanh": ("tanh", {}, "pointwise", {"function": "tanh"}),
    "sigmoid": ("sigmoid", {}, "pointwise", {"function": "sigmoid"}),
    "glu": ("glu", {"axis": 0}, "glu", {}),
    "slice": ("slice", {"axis": 0, "start": 2, "stop": 5}, "take", {"piece": (2, 5)}),
}


@pytest.mark.parametrize("name", UNARY)
@pytest.mark.parametrize("far", [1.0, 30.0])
def test_rules_of_one_signal(name, far):
    op, params, other, settings = UNARY[name]
    settings = {"mixing": Mixing(W, b)} if settings is None else settings
    for seed in range(5):
        plain, balls = pair_of_values(np.random.default_rng(seed), far=far)
        assert_agree(apply_rule(node(op, **params), plain), rule_of(Step(other, (0,), settings))(
            Step(other, (0,), settings), balls))  # fmt: skip


@pytest.mark.parametrize("far", [1.0, 30.0])
def test_layer_norm(far):
    for seed in range(8):
        plain, balls = pair_of_values(np.random.default_rng(seed), far=far)
        turned = apply_rule(node("permute", ("time", "feature"), order=(1, 0)), plain)
        wanted = apply_rule(node("layernorm", ("time", "feature"), **LAYER_NORM), turned)
        step = Step("layernorm", (0,), LAYER_NORM)
        assert_agree(wanted, rule_of(step)(step, balls))


@pytest.mark.parametrize("op", ["add", "multiply"])
def test_rules_of_two_signals(op):
    for seed in range(5):
        draw = np.random.default_rng(seed)
        (x, u), (y, v) = pair_of_values(draw), pair_of_values(draw, far=3.0)
        step = Step(op, (0, 1))
        assert_agree(apply_rule(node(op, inputs=("x", "z")), x, y), rule_of(step)(step, u, v))


@pytest.mark.parametrize(("op", "kind"), [("mean", "mean"), ("max", "max"), ("last", "last")])
def test_pooling(op, kind):
    for seed in range(5):
        plain, balls = pair_of_values(np.random.default_rng(seed))
        params = {"axis": 1} if op != "last" else {}
        step = Step("pool", (0,), {"kind": kind})
        assert_agree(
            apply_rule(node(op, ("feature",), **params), plain), rule_of(step)(step, balls)
        )


def test_the_square_of_a_signal_is_not_negative():
    _, balls = pair_of_values(np.random.default_rng(0))
    step = Step("multiply", (3, 3))
    assert all(ball >= 0 for ball in rule_of(step)(step, balls, balls).lo)


def test_embedding():
    table = rng.standard_normal((5, D))
    step = Step("embedding", (0,), {"table": table, "steps": T})
    y = rule_of(step)(step)
    assert [upper_float(ball) for ball in y.hi] == table.max(axis=0).tolist()
    assert [lower_float(ball) for ball in y.lo] == table.min(axis=0).tolist()
    assert upper_float(y.l2) >= np.sqrt(T) * np.linalg.norm(table, axis=1).max() * (1 - 1e-15)
    assert y.error.is_zero()


def test_the_least_variance_by_hand():
    """Within [0, 1] and [2, 3] the least variance is that of 1 and 2: a quarter."""
    found = _smallest_variance(exact([0.0, 2.0]), exact([1.0, 3.0]))
    assert found <= 0.25
    assert found > arb("0.2499999999999")
    assert _smallest_variance(exact([0.0, 0.5]), exact([1.0, 3.0])).is_zero()


def test_the_least_variance_is_below_every_point():
    for seed in range(20):
        draw = np.random.default_rng(seed)
        lo = draw.normal(size=D) * 10.0 ** draw.integers(-3, 4)
        hi = lo + draw.uniform(0, 1, D)
        found = upper_float(_smallest_variance(exact(lo), exact(hi)))
        points = draw.uniform(lo, hi, (200, D))
        corners = np.where(draw.random((200, D)) < 0.5, lo, hi)
        assert found <= np.var([*points, *corners], axis=1).min() * (1 + 1e-12)
        assert found >= smallest_variance(lo, hi) - 1e-15


def test_lemma_0_keeps_zero_errors_zero():
    x = Value(exact([-1.0]), exact([1.0]), T, sup=filled(1, ZERO), error=ZERO)
    assert x.error.is_zero()
    assert x.each[0].is_zero()
    root = upper_float(x.l2)  # of 7: the first float64 whose square is not below it
    assert arb(root) * arb(root) >= T > arb(np.nextafter(root, 0)) * arb(np.nextafter(root, 0))
