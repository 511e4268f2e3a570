"""Affine rules: zero slack against random and adversarial signals, and hand formulas."""

import math

import numpy as np
import pytest
from certify_reference import WIDE, assert_facts, climb, evaluate_node, random_pair, run_rule

from ssmred.certify import Node, Value
from ssmred.certify.rules_affine import spectral_norm
from ssmred.certify.rules_table import apply_rule
from ssmred.errors import ShapeError, UnsupportedOperationError

pytestmark = pytest.mark.theorem("error-rules")
FT, TF = ("feature", "time"), ("time", "feature")


def test_spectral_norm_is_an_upper_bound_to_rounding():
    rng = np.random.default_rng(0)
    for shape in ((1, 1), (5, 2), (3, 40), (64, 64)):
        W = rng.standard_normal(shape) * 10.0 ** rng.uniform(-100, 100)
        exact = np.linalg.svd(W, compute_uv=False)[0]
        assert exact * (1 - 1e-14) <= spectral_norm(W) <= exact * (1 + 1e-10)
    # an exact case in which the float64 value itself has no error to hide behind
    W = np.array([[3.0, 0.0], [0.0, 5.0], [0.0, 0.0]])
    assert spectral_norm(W) >= 5.0
    assert spectral_norm(np.zeros((2, 3))) == 0.0


@pytest.mark.parametrize("seed", range(40))
def test_linear_and_conv_hold_for_random_pairs(seed):
    rng = np.random.default_rng(seed)
    n, m, T = rng.integers(1, 6, 3)
    W = rng.standard_normal((m, n)).astype(np.float32) * rng.choice([1e-3, 1.0, 1e3])
    W[rng.random(W.shape) < 0.2] = 0.0
    b = rng.standard_normal(m) if seed % 2 else None
    node = Node("y", "linear", ("x",), {"weight": W, "bias": b}, TF)
    pair = random_pair(rng, (T, n), TF)
    assert_facts(*run_rule(node, pair, axes=[TF]))
    node = Node("y", "conv1d", ("x",), {"weight": W[:, :, None], "bias": b}, FT)
    pair = random_pair(rng, (n, T), FT)
    assert_facts(*run_rule(node, pair, axes=[FT]))
    heads = ("time", "feature", "feature")
    node = Node("y", "linear", ("x",), {"weight": W, "bias": b}, heads)
    pair = random_pair(rng, (T, 3, n), heads)
    assert_facts(*run_rule(node, pair, axes=[heads]))


@pytest.mark.parametrize("seed", range(6))
def test_linear_holds_for_adversarial_differences_and_is_nearly_attained(seed):
    rng = np.random.default_rng(seed)
    n, m, T = 4, 3, 3
    W = rng.standard_normal((m, n))
    node = Node("y", "linear", ("x",), {"weight": W}, TF)
    far = np.full((1, n), 1.0)
    scale = rng.uniform(0.1, 1.0, n)
    boxed = Value(-far, far, TF, float(T), error_sup=scale[None])
    balled = Value(-far, far, TF, float(T), error_l2=0.7)

    def worst(shape_up):
        def objective(z):
            delta = shape_up(z.astype(WIDE))
            out = evaluate_node(node, [delta])
            return np.sqrt((out**2).sum(axis=(1, 2)))

        return climb(objective, (T, n), rng)

    assert worst(lambda z: z * scale) <= apply_rule(node, boxed).error_l2

    def on_sphere(z):
        return 0.7 * z / np.sqrt((z**2).sum(axis=(1, 2), keepdims=True)) * (1 - WIDE(1e-18))

    found, bound = worst(on_sphere), apply_rule(node, balled).error_l2
    assert 0.6 * bound <= found <= bound
    # the ball's extreme point is known: the right singular vector
    v = np.linalg.svd(W)[2][0]
    assert 0.7 * np.sqrt(((W @ v) ** 2).sum()) <= bound


def test_correlated_rows_are_seen():
    # delta of equal size in both features cancels in the difference, not in the sum
    W = np.array([[1.0, 1.0], [1.0, -1.0]])
    x = Value(np.zeros((1, 2)), np.zeros((1, 2)), TF, 1.0, error_features=np.ones((1, 2)))
    y = apply_rule(Node("y", "linear", ("x",), {"weight": W}, TF), x)
    assert y.error_l2 == pytest.approx(2.0)  # not norm(|W| e) = 2.83
    assert y.error_sup == pytest.approx(np.array([[2.0, 2.0]]))


def test_a_weighted_ball_passes_gains_into_the_matrix():
    gains = np.array([100.0, 1.0])
    W = np.array([[0.001, 0.0], [0.0, 1.0]])
    x = Value(np.zeros((1, 2)), np.zeros((1, 2)), TF, 1.0, error_l2=1.0)
    x = apply_rule(Node("g", "affine", ("x",), {"scale": gains}, TF), x)
    y = apply_rule(Node("y", "linear", ("g",), {"weight": W}, TF), x)
    assert y.error_l2 == pytest.approx(1.0)  # not ||W|| max(gain) = 100


@pytest.mark.parametrize("seed", range(20))
def test_batchnorm_holds_with_negative_gamma_and_tiny_variance(seed):
    rng = np.random.default_rng(seed)
    C, T = 4, 5
    params = {
        "weight": rng.standard_normal(C).astype(np.float32),
        "bias": rng.standard_normal(C),
        "mean": rng.standard_normal(C) * 10,
        "var": np.array([0.0, 1e-12, 1.0, 50.0]),
    }
    if seed % 3 == 0:
        del params["weight"], params["bias"]
    node = Node("y", "batchnorm", ("x",), params, FT)
    assert_facts(*run_rule(node, random_pair(rng, (C, T), FT), axes=[FT]))
    node = Node("y", "batchnorm", ("x",), params, ("feature",))
    assert_facts(*run_rule(node, random_pair(rng, (C,), ("feature",)), axes=[("feature",)]))


def test_batchnorm_hand_formula():
    params = {"weight": np.array([-2.0]), "bias": np.array([1.0]), "mean": np.array([3.0]),
              "var": np.array([4.0]), "eps": 0.0}  # fmt: skip
    x = Value(np.array([[1.0]]), np.array([[7.0]]), FT, 2.0, error_sup=np.array([[0.5]]))
    y = apply_rule(Node("y", "batchnorm", ("x",), params, FT), x)
    assert (y.lo[0, 0], y.hi[0, 0]) == (pytest.approx(-3.0), pytest.approx(3.0))
    assert y.error_sup[0, 0] == pytest.approx(0.5)
    with pytest.raises(UnsupportedOperationError, match="running statistics"):
        apply_rule(Node("y", "batchnorm", ("x",), {"mean": None, "var": None}, FT), x)
    with pytest.raises(ShapeError, match="channel axis"):
        apply_rule(Node("y", "batchnorm", ("x",), {**params, "axis": 1}, FT), x)


@pytest.mark.parametrize("seed", range(20))
def test_sums_differences_and_scalings_hold(seed):
    rng = np.random.default_rng(seed)
    C, T = 3, 4
    first, second = random_pair(rng, (C, T), FT), random_pair(rng, (C, T), FT, spread=3.0)
    for op in ("add", "sub"):
        node = Node("z", op, ("x", "y"), {}, FT)
        assert_facts(*run_rule(node, first, second, axes=[FT, FT]))
        assert_facts(*run_rule(node, first, first, axes=[FT, FT]))  # the very same signal
        pooled = random_pair(rng, (C, 1), ("feature", "feature"))
        assert_facts(*run_rule(node, first, pooled, axes=[FT, ("feature", "feature")]))
    scale = rng.standard_normal((C, 1)) * (rng.random((C, 1)) < 0.7)
    for params in ({"scale": scale, "shift": rng.standard_normal((C, 1))}, {"shift": -2.5},
                   {"scale": -0.25}):  # fmt: skip
        node = Node("z", "affine", ("x",), params, FT)
        assert_facts(*run_rule(node, first, axes=[FT]))


def test_subtracting_a_signal_from_itself_is_sound_though_loose():
    x = Value(-np.ones((1, 1)), np.ones((1, 1)), FT, 2.0, error_sup=np.array([[0.1]]))
    y = apply_rule(Node("y", "sub", ("x", "x"), {}, FT), x, x)
    assert y.lo[0, 0] <= -2.0
    assert y.error_sup[0, 0] >= 0.2


def test_embedding_covers_every_token_sequence():
    rng = np.random.default_rng(0)
    table = rng.standard_normal((7, 3)).astype(np.float32)
    table[2] = [9.0, -8.0, 0.0]  # a padding row like any other
    unknown = np.full((1,), np.inf)
    tokens = Value(-unknown, unknown, ("time",), 5.0, error_sup=np.zeros(1))
    y = apply_rule(Node("e", "embedding", ("t",), {"weight": table}, TF), tokens)
    for _ in range(50):
        x = table.astype(WIDE)[rng.integers(0, 7, (4, 5))]
        assert_facts(y, x, x)
    x = table.astype(WIDE)[np.full((1, 5), 2)]
    assert_facts(y, x, x)
    assert y.l2 == pytest.approx(math.sqrt(5 * 145.0))
    moved = Value(-unknown, unknown, ("time",), 5.0, error_sup=np.ones(1))
    with pytest.raises(UnsupportedOperationError, match="tokens"):
        apply_rule(Node("e", "embedding", ("t",), {"weight": table}, TF), moved)


def test_constants_are_known_exactly():
    rng = np.random.default_rng(0)
    signal = rng.standard_normal((6, 2))
    y = apply_rule(Node("c", "constant", (), {"value": signal}, TF))
    assert_facts(y, signal.astype(WIDE)[None], signal.astype(WIDE)[None])
    assert y.length == 6.0
    assert y.l2 == pytest.approx(np.linalg.norm(signal))


def test_misfits_and_kernels_over_time_are_refused():
    x = Value(np.zeros((2, 1)), np.ones((2, 1)), FT, 4.0)
    with pytest.raises(ShapeError, match="feature axis"):
        apply_rule(Node("y", "linear", ("x",), {"weight": np.ones((2, 1))}, FT), x)  # over time
    with pytest.raises(ShapeError):
        apply_rule(Node("y", "conv1d", ("x",), {"weight": np.ones((2, 3))}, FT), x)
    with pytest.raises(UnsupportedOperationError, match="kernel"):
        apply_rule(Node("y", "conv1d", ("x",), {"weight": np.ones((2, 2, 3))}, FT), x)
    other = Value(np.zeros((1, 1)), np.ones((1, 1)), TF, 4.0)
    with pytest.raises(ShapeError, match="line up"):
        apply_rule(Node("y", "add", ("x", "z"), {}, FT), x, other)


def test_infinite_ranges_pass_without_nan():
    far = np.array([[np.inf], [1.0]])
    x = Value(-far, far, FT, math.inf, error_sup=far)
    W = np.array([[0.0, 2.0], [1.0, 1.0]])
    y = apply_rule(Node("y", "conv1d", ("x",), {"weight": W}, FT), x)
    assert y.hi[0, 0] == pytest.approx(2.0)
    assert y.hi[1, 0] == math.inf
    assert y.error_sup[0, 0] == pytest.approx(2.0)
    params = {"weight": np.array([0.0, -1.0]), "mean": np.zeros(2), "var": np.ones(2)}
    y = apply_rule(Node("y", "batchnorm", ("x",), params, FT), x)
    assert y.hi[0, 0] == 0.0
