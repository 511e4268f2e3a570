"""Gates and products: correlated signals, original and reduced ranges, adversarial corners."""

import numpy as np
import pytest
from certify_reference import WIDE, assert_facts, climb, evaluate_node, random_pair, run_rule

from ssmred.certify import Node, Value
from ssmred.certify.rules_table import apply_rule
from ssmred.errors import ShapeError

pytestmark = pytest.mark.theorem("error-rules")
FT = ("feature", "time")


@pytest.mark.parametrize("seed", range(40))
def test_products_hold_for_random_and_correlated_pairs(seed):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 5, 2))
    first = random_pair(rng, shape, FT)
    second = random_pair(rng, shape, FT, spread=2.0)
    node = Node("z", "multiply", ("x", "y"), {}, FT)
    assert_facts(*run_rule(node, first, second, axes=[FT, FT]))
    assert_facts(*run_rule(node, first, first, axes=[FT, FT]))
    assert_facts(*run_rule(node, first, (-first[0], -first[1]), axes=[FT, FT]))
    square = Node("z", "multiply", ("x", "x"), {}, FT)
    assert_facts(*run_rule(square, first, first, axes=[FT, FT]))
    gate = random_pair(rng, (shape[0], 1), ("feature", "feature"))
    assert_facts(*run_rule(node, first, gate, axes=[FT, ("feature", "feature")]))


@pytest.mark.parametrize("seed", range(60))
def test_glu_holds_for_random_pairs(seed):
    rng = np.random.default_rng(seed)
    half, T = rng.integers(1, 4, 2)
    spread = 10.0 ** rng.uniform(-2, 1.5)
    node = Node("y", "glu", ("x",), {"axis": 0}, FT)
    assert_facts(*run_rule(node, random_pair(rng, (2 * half, T), FT, spread=spread), axes=[FT]))
    TF = ("time", "feature")
    node = Node("y", "glu", ("x",), {}, TF)
    assert_facts(*run_rule(node, random_pair(rng, (T, 2 * half), TF, spread=spread), axes=[TF]))


@pytest.mark.parametrize("seed", range(8))
def test_glu_holds_for_adversarial_pairs_and_is_not_far_off(seed):
    rng = np.random.default_rng(seed)
    half, T = 2, 2
    size = rng.uniform(0.1, 4.0, (2 * half, 1))
    middle = rng.uniform(-3.0, 3.0, (2 * half, 1))
    gap = rng.uniform(0.01, 2.0, (2 * half, 1))
    x = Value(middle - size, middle + size, FT, float(T), error_sup=gap)
    y = apply_rule(Node("y", "glu", ("x",), {"axis": 0}, FT), x)
    node = Node("y", "glu", ("x",), {"axis": 0}, FT)

    def signals(z):
        reduced = (middle + size * z[:, 0]).astype(WIDE)
        return reduced, reduced + gap * z[:, 1]

    def objective(z):
        reduced, original = signals(z)
        out = evaluate_node(node, [original]) - evaluate_node(node, [reduced])
        return np.sqrt((out**2).sum(axis=(1, 2)))

    def entries(z):
        reduced, original = signals(z)
        out = evaluate_node(node, [original]) - evaluate_node(node, [reduced])
        return (np.abs(out) / y.error_sup).reshape(len(z), -1).max(axis=1)

    found = climb(objective, (2, 2 * half, T), rng, rounds=60)
    assert 0.3 * y.error_l2 <= found <= y.error_l2
    assert climb(entries, (2, 2 * half, T), rng, rounds=60) <= 1.0


def test_glu_uses_the_ranges_of_both_networks():
    # a^ is small in the reduced network and a large in the original one: da carries the rest
    x = Value(np.array([0.1, 0.0]), np.array([0.1, 0.0]), ("feature",),
              error_sup=np.array([10.0, 1.0]))  # fmt: skip
    y = apply_rule(Node("y", "glu", ("x",), {}, ("feature",)), x)
    truth = 10.1 / (1 + np.exp(-1.0)) - 0.05
    assert truth <= y.error_sup[0] <= 10 / (1 + np.exp(-1.0)) + 0.1 * 0.25 + 1e-9


def test_saturated_gates_pass_little():
    x = Value(np.array([1.0, 30.0]), np.array([2.0, 40.0]), ("feature",),
              error_sup=np.array([0.0, 1.0]))  # fmt: skip
    y = apply_rule(Node("y", "glu", ("x",), {}, ("feature",)), x)
    assert y.error_sup[0] < 1e-12
    x = Value(np.array([-50.0, -40.0]), np.array([50.0, -30.0]), ("feature",),
              error_sup=np.array([1.0, 1.0]))  # fmt: skip
    y = apply_rule(Node("y", "glu", ("x",), {}, ("feature",)), x)
    assert y.error_sup[0] < 1e-10


def test_infinite_ranges_stay_sound():
    x = Value(np.array([-np.inf, -1.0]), np.array([np.inf, 1.0]), ("feature",))
    y = apply_rule(Node("y", "glu", ("x",), {}, ("feature",)), x)
    assert y.hi[0] == np.inf
    zero = Value(np.zeros(1), np.zeros(1), ("feature",), error_sup=np.zeros(1))
    wide = Value(np.array([-np.inf]), np.array([np.inf]), ("feature",), error_sup=np.ones(1))
    y = apply_rule(Node("y", "multiply", ("a", "b"), {}, ("feature",)), zero, wide)
    assert y.lo[0] == y.hi[0] == y.error_sup[0] == 0.0


def test_closed_gates_do_not_make_an_unknown_error_vanish():
    # sigmoid(-800) is not 0: a times it is unknown where a is
    x = Value(np.array([-1.0, -900.0]), np.array([1.0, -800.0]), ("feature",),
              error_sup=np.array([np.inf, 0.0]))  # fmt: skip
    y = apply_rule(Node("y", "glu", ("x",), {}, ("feature",)), x)
    assert y.hi[0] > 0.0 > y.lo[0]
    assert y.error_sup[0] == np.inf
    x = Value(x.lo, x.hi, ("feature",), error_sup=np.array([1e-9, 1e-9]))
    y = apply_rule(Node("y", "glu", ("x",), {}, ("feature",)), x)
    assert 0.0 < y.error_sup[0] < 1e-300


def test_products_of_tiny_ranges_keep_their_ends():
    x = Value(np.array([1e-200]), np.array([2e-200]), ("feature",), error_sup=np.array([1e-200]))
    y = apply_rule(Node("y", "multiply", ("a", "b"), {}, ("feature",)), x, x)
    assert y.hi[0] > 0.0
    assert y.error_sup[0] > 0.0


def test_odd_or_temporal_halves_are_refused():
    x = Value(np.zeros((3, 1)), np.ones((3, 1)), FT, 4.0)
    for axis in (0, 1):
        with pytest.raises(ShapeError, match="halved"):
            apply_rule(Node("y", "glu", ("x",), {"axis": axis}, FT), x)
