"""Reshapes, selections and pooling: zero slack, and time that dissolves or appears."""

import math

import numpy as np
import pytest
from certify_reference import assert_facts, evaluate_node, random_pair, run_rule, value_of

from ssmred.certify import Node, Value
from ssmred.certify.rules_table import apply_rule
from ssmred.errors import ShapeError, UnsupportedOperationError

pytestmark = pytest.mark.theorem("error-rules")
FT, TF, F = ("feature", "time"), ("time", "feature"), ("feature",)
FFT = ("feature", "feature", "time")

CASES = [
    ("mean", {"axis": 1}, FT, F),
    ("mean", {"axis": -1, "keepdim": True}, FT, FT),
    ("mean", {"axis": 0}, FT, ("time",)),
    ("mean", {"axis": (0, 1)}, FT, ()),
    ("mean", {"axis": (1, 2)}, FFT, F),
    ("max", {"axis": 1}, FT, F),
    ("max", {"axis": 0, "keepdim": True}, FT, FT),
    ("max", {"axis": (0, 1)}, FT, ()),
    ("select", {"axis": 1, "index": -1}, FT, F),
    ("select", {"axis": 1, "index": 0}, FT, F),
    ("select", {"axis": 0, "index": 1}, FT, ("time",)),
    ("last", {"axis": 0}, TF, F),
    ("slice", {"axis": 0, "start": 1}, FT, FT),
    ("slice", {"axis": 1, "start": 1, "step": 2}, FT, FT),
    ("slice", {"axis": 1, "stop": -1}, FT, FT),
    ("permute", {"order": (1, 0)}, FT, TF),
    ("permute", {"order": (2, 0, 1)}, FFT, ("time", "feature", "feature")),
    ("unsqueeze", {"axis": 1}, FT, ("feature", "feature", "time")),
    ("unsqueeze", {"axis": -1}, FT, ("feature", "time", "feature")),
    ("identity", {}, FT, FT),
    ("reverse", {"axis": 1}, FT, FT),
    ("reverse", {"axis": 0}, FT, FT),
    ("delay", {"axis": 1, "steps": 1}, FT, FT),
]


@pytest.mark.parametrize(("op", "params", "before", "after"), CASES)
def test_hold_for_random_pairs(op, params, before, after):
    rng = np.random.default_rng(0)
    for _ in range(15):
        shape = tuple(int(size) for size in rng.integers(2, 5, len(before)))
        pair = random_pair(rng, shape, before)
        value, reduced, original, noise = run_rule(
            Node("y", op, ("x",), params, after), pair, axes=[before]
        )
        if op == "mean" and "keepdim" in params:  # a kept time axis is a unit axis of features
            after = ("feature", "feature")
            value = apply_rule(Node("y", op, ("x",), params, after), value_of(*pair, before))
        if op == "max" and params.get("axis") == 0:
            after = FT
        assert_facts(value, reduced, original, noise)


def test_kept_pooled_time_is_a_unit_feature():
    rng = np.random.default_rng(1)
    pair = random_pair(rng, (3, 4), FT)
    node = Node("y", "mean", ("x",), {"axis": 1, "keepdim": True}, ("feature", "feature"))
    value, reduced, original, noise = run_rule(node, pair, axes=[FT])
    assert value.steps == 1.0
    assert_facts(value, reduced, original, noise)
    scaled = apply_rule(
        Node("z", "multiply", ("x", "y"), {}, FT), value_of(*pair, FT), value
    )  # squeeze and excite: a pooled gate on the whole sequence
    assert_facts(scaled, pair[0] * reduced, pair[1] * original, 10 * noise)


RESHAPES = [
    ((4, 6), FT, (2, 2, 6), ("feature", "feature", "time"), (2, 2, 1)),
    ((6, 4), TF, (6, 2, 2), ("time", "feature", "feature"), (1, 2, 2)),
    ((4, 6), FT, (24,), F, (24,)),
    ((6, 4), TF, (24,), F, (24,)),
    ((24,), F, (6, 4), TF, (1, 4)),
    ((24,), F, (4, 6), FT, (4, 1)),
    ((2, 3), ("feature", "feature"), (6,), F, (6,)),
]


@pytest.mark.parametrize(("shape", "before", "full", "after", "collapsed"), RESHAPES)
def test_reshapes_hold(shape, before, full, after, collapsed):
    rng = np.random.default_rng(0)
    for _ in range(15):
        reduced, original = random_pair(rng, shape, before)
        node = Node("y", "reshape", ("x",), {"shape": collapsed, "full_shape": full}, after)
        value = apply_rule(node, value_of(reduced, original, before))
        assert value.shape == collapsed
        assert_facts(value, reduced.reshape(-1, *full), original.reshape(-1, *full))


def test_entries_must_not_cross_time():
    x = Value(np.zeros((4, 1)), np.ones((4, 1)), FT, 6.0)
    node = Node("y", "reshape", ("x",), {"shape": (1, 4)}, TF)
    with pytest.raises(UnsupportedOperationError, match="cross the time axis"):
        apply_rule(node, x)
    endless = Value(np.zeros((4, 1)), np.ones((4, 1)), FT, math.inf)
    with pytest.raises(UnsupportedOperationError, match="horizon"):
        apply_rule(Node("y", "reshape", ("x",), {"shape": (4,)}, F), endless)
    with pytest.raises(ShapeError, match="time"):
        apply_rule(Node("y", "squeeze", ("x",), {"axis": 1}, F), x)
    with pytest.raises(ShapeError, match="axes"):  # a tag that the rule contradicts
        apply_rule(Node("y", "permute", ("x",), {"order": (1, 0)}, FT), x)


def test_squeeze_and_concat():
    rng = np.random.default_rng(2)
    reduced, original = random_pair(rng, (1, 4), FT)
    value = apply_rule(
        Node("y", "squeeze", ("x",), {"axis": 0}, ("time",)), value_of(reduced, original, FT)
    )
    assert_facts(value, reduced[:, 0], original[:, 0])
    first, second = random_pair(rng, (2, 4), FT), random_pair(rng, (3, 4), FT)
    node = Node("z", "concat", ("x", "y"), {"axis": 0}, FT)
    assert_facts(*run_rule(node, first, second, axes=[FT, FT]))
    other = random_pair(rng, (2, 3), FT)
    node = Node("z", "concat", ("x", "y"), {"axis": 1}, FT)
    value, *rest = run_rule(node, first, other, axes=[FT, FT])
    assert value.length == 7.0
    assert_facts(value, *rest)
    node = Node("z", "concat", ("x", "y"), {"axis": 0}, FT)
    with pytest.raises(ShapeError, match="time steps"):
        apply_rule(node, value_of(*first, FT), value_of(*other, FT))


def test_mean_over_time_divides_the_two_norm_by_root_t():
    x = Value(-np.ones((1, 1)), np.ones((1, 1)), FT, 100.0, error_l2=1.0)
    y = apply_rule(Node("y", "mean", ("x",), {"axis": 1}, F), x)
    assert y.error_l2 == pytest.approx(0.1)
    endless = Value(-np.ones((1, 1)), np.ones((1, 1)), FT, math.inf, error_l2=1.0)
    y = apply_rule(Node("y", "mean", ("x",), {"axis": 1}, F), endless)
    assert y.error_l2 == pytest.approx(1.0)  # the length may be 1


def test_max_pooling_moves_no_more_than_its_entries():
    rng = np.random.default_rng(3)
    reduced, original = random_pair(rng, (2, 5), FT)
    node = Node("y", "max", ("x",), {"axis": 1}, F)
    y = apply_rule(node, value_of(reduced, original, FT))
    outputs = evaluate_node(node, [reduced]), evaluate_node(node, [original])
    assert_facts(y, *outputs)
    assert (y.error_sup <= value_of(reduced, original, FT).error_sup[:, 0]).all()


def test_a_delay_puts_zeros_in_front_and_drops_the_end():
    x = Value(np.full((1, 1), 2.0), np.full((1, 1), 3.0), FT, 4.0, l2=7.0).without_error()
    y = apply_rule(Node("y", "delay", ("x",), {"axis": 1, "steps": 1}, FT), x)
    assert (y.lo[0, 0], y.hi[0, 0], y.l2) == (0.0, 3.0, x.l2)
    z = apply_rule(Node("y", "reverse", ("x",), {"axis": 1}, FT), x)
    assert (z.lo[0, 0], z.hi[0, 0], z.l2, z.length) == (2.0, 3.0, x.l2, 4.0)
