"""The network bound: zero slack on random networks, random inputs and gradient-free attacks."""

import math

import numpy as np
import pytest
from certify_reference import (
    WIDE,
    assert_facts,
    classifier,
    climb,
    evaluate,
    layer,
    merged,
    random_layer,
    sequence_input,
)

from ssmred.certify import (
    InputSet,
    NetworkGraph,
    Node,
    Value,
    check_rules,
    layer_bounds,
    network_bound,
    rule,
)
from ssmred.certify.rules_table import RULES
from ssmred.errors import (
    CertificateError,
    DataError,
    ShapeError,
    UnstableSystemError,
    UnsupportedOperationError,
)

pytestmark = pytest.mark.theorem("network-bound")
EVALUATION_NOISE = 1e-13  # of the output's size: the reference erf is float64
FT = ("feature", "time")


def output_error(graph, u):
    """Return the output differences and a bound on their rounding, for inputs (batch, T, F)."""
    first = evaluate(graph, u)
    second = evaluate(graph, u, reduced=True)
    gap = first[graph.output] - second[graph.output]
    noise = EVALUATION_NOISE * max(float(np.abs(v).max()) for v in second.values())
    return np.sqrt((gap.reshape(len(u), -1) ** 2).sum(axis=1)), noise


def random_network(seed):
    rng = np.random.default_rng(seed)
    options = {
        "features": int(rng.integers(1, 3)),
        "channels": int(rng.integers(1, 5)),
        "modes": int(rng.integers(1, 4)),
        "layers": int(rng.integers(1, 4)),
        "gated": bool(rng.random() < 0.4),
        "norm": str(rng.choice(["batch", "layer", "none"])),
        "pool": str(rng.choice(["mean", "max", "last"])),
        "activation": str(rng.choice(["gelu", "relu", "silu", "tanh"])),
        "post_norm": bool(rng.random() < 0.3),
        "gain": float(rng.choice([0.3, 1.0])),
        "perturb": float(10.0 ** rng.uniform(-6, 0)),
    }
    original, reduced = classifier(rng, **options)
    T = int(rng.integers(1, 13))
    if rng.random() < 0.3:
        inputs = InputSet.ball(float(10.0 ** rng.uniform(-2, 1)))
    else:
        center = rng.standard_normal(options["features"])
        inputs = InputSet.box(center - rng.uniform(0, 2), center + rng.uniform(0, 2))
    return rng, original, reduced, inputs, T, options["features"]


def check_network(seed):
    rng, original, reduced, inputs, T, features = random_network(seed)
    chain = network_bound(original, reduced, inputs, T, weights=False)
    graph = merged(original, reduced)
    u = inputs.sample(rng, 8, T, features)
    assert inputs.contains(u).all()
    errors, noise = output_error(graph, u)
    assert (errors - noise <= chain.bound).all()
    outputs = evaluate(graph, u, reduced=True)[graph.output]
    assert (outputs >= chain.output.lo - noise).all()
    assert (outputs <= chain.output.hi + noise).all()
    return errors.max() / max(chain.bound, 1e-300) if errors.max() > noise else 0.0


@pytest.mark.parametrize("block", range(10))
def test_random_networks_and_inputs(block):
    ratios = [check_network(seed) for seed in range(20 * block, 20 * block + 20)]
    assert max(ratios) <= 1.0 + 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("block", range(10))
def test_a_thousand_random_networks(block):
    for seed in range(1000 + 100 * block, 1100 + 100 * block):
        check_network(seed)


@pytest.mark.parametrize("seed", range(12))
def test_attacks(seed):
    rng, original, reduced, inputs, T, features = random_network(5000 + seed)
    chain = network_bound(original, reduced, inputs, T, weights=False)
    graph = merged(original, reduced)

    def signals(z):
        if inputs.kind == "ball":
            size = np.sqrt((z**2).sum(axis=(1, 2), keepdims=True)) + 1e-30
            return inputs.radius * (1 - 1e-12) * z / size
        half = (inputs.high - inputs.low) / 2
        return np.clip(inputs.low + half * (1 + z), inputs.low, inputs.high)

    noise = output_error(graph, signals(np.ones((1, T, features))))[1]
    found = climb(lambda z: output_error(graph, signals(z))[0], (T, features), rng, rounds=20)
    assert found - 10 * noise <= chain.bound


@pytest.mark.parametrize("seed", range(15))
def test_every_node_holds(seed):
    rng, original, reduced, inputs, T, features = random_network(300 + seed)
    graph = merged(original, reduced)
    u = inputs.sample(rng, 10, T, features)
    first, second = evaluate(graph, u), evaluate(graph, u, reduced=True)
    for node in graph:
        part_original = NetworkGraph(original.nodes, node.name)
        part_reduced = NetworkGraph(reduced.nodes, node.name)
        value = network_bound(part_original, part_reduced, inputs, T, weights=False).output
        noise = EVALUATION_NOISE * max(1.0, *(float(np.abs(v).max()) for v in first.values()))
        assert_facts(value, second[node.name], first[node.name], noise)


def one_layer(original, reduced, features=1):
    nodes = [
        sequence_input(features, time_first=False),
        Node("layer", "ssm", ("u",), {"system": original}, FT),
        Node("y", "select", ("layer",), {"axis": 1, "index": -1}, ("feature",)),
    ]
    graph = NetworkGraph(tuple(nodes), "y")
    return graph, graph.with_systems({"layer": reduced})


def test_one_layer_by_hand():
    # h - h^ = 0.25^k - 0 for k < 3, |u| <= 2: error 2 (1 + 1/4 + 1/16)
    original = layer(np.array([[0.25]]), np.ones((1, 1)), np.ones((1, 1)), np.zeros(1))
    reduced = layer(np.zeros((1, 0)), np.zeros((1, 0)), np.zeros((1, 0)), np.zeros(1))
    chain = network_bound(*one_layer(original, reduced), InputSet.box(-2, 2), 3)
    assert chain.bound == pytest.approx(2.625)
    (record,) = chain.layers
    assert (record.name, record.states_full, record.states_kept) == ("layer", 2, 0)
    assert record.relative_error == pytest.approx(1.0)
    assert record.h2_error == pytest.approx(math.sqrt(1 + 1 / 16 + 1 / 256))
    assert record.error == pytest.approx(1.3125 * 2 * math.sqrt(3), rel=0.02)  # gain is 1.3125
    assert record.weight <= 1.0 + 1e-9
    assert record.contribution == pytest.approx(record.weight * record.error)


def test_no_reduction_gives_a_bound_of_zero():
    original, _ = classifier(np.random.default_rng(0), gated=True, norm="layer")
    chain = network_bound(original, original, InputSet.box(-1, 1), 9)
    assert chain.bound == 0.0
    assert all(record.error == 0.0 and record.weight > 0.0 for record in chain.layers)


def test_weights_are_first_order():
    """A small reduction of one layer at a time is bounded by its contribution."""
    rng = np.random.default_rng(1)
    original, reduced = classifier(rng, layers=3, perturb=1e-7, kept=4)
    inputs = InputSet.box(-1, 1)
    whole = network_bound(original, reduced, inputs, 16)
    for record in whole.layers:
        system = reduced[record.name].params["system"]
        alone = original.with_systems({record.name: system})
        bound = network_bound(original, alone, inputs, 16, weights=False).bound
        assert bound == pytest.approx(record.contribution, rel=1e-3)
    total = sum(record.contribution for record in whole.layers)
    assert 0.9 * total <= whole.bound <= total * (1 + 1e-12)
    for record in whole.layers:
        assert record.contribution == pytest.approx(record.weight * record.error)


def test_the_bound_is_continuous_and_grows_with_the_input_set():
    original, reduced = classifier(np.random.default_rng(2), gated=True)
    bounds = [
        network_bound(original, reduced, InputSet.box(-r, r), 8, weights=False).bound
        for r in (0.1, 0.2, 0.4)
    ]
    assert bounds[0] < bounds[1] < bounds[2]


@pytest.mark.parametrize("pool", ["mean", "max", "last"])
def test_infinite_horizon_holds_for_every_length(pool):
    rng = np.random.default_rng(3)
    original, reduced = classifier(rng, channels=3, modes=2, pool=pool, activation="relu")
    inputs = InputSet.box(-1, 1)
    chain = network_bound(original, reduced, inputs, None)
    assert np.isfinite(chain.bound)
    assert all(record.error == math.inf for record in chain.layers)
    assert all(0.0 < record.contribution < math.inf for record in chain.layers)
    assert all(record.weight > 0.0 for record in chain.layers)
    assert all(np.isfinite(record.relative_error) for record in chain.layers)
    graph = merged(original, reduced)
    for T in (1, 5, 60):
        errors, noise = output_error(graph, inputs.sample(rng, 6, T, 2))
        assert (errors - noise <= chain.bound).all()
        assert network_bound(original, reduced, inputs, T, weights=False).bound <= chain.bound * 1.1


def test_token_networks_cover_every_sequence():
    rng = np.random.default_rng(4)
    system, smaller = random_layer(rng, 3, 3)
    table = rng.standard_normal((5, 3))
    nodes = (
        Node("t", "input", (), {"shape": (1,), "tokens": True}, ("time",)),
        Node("e", "embedding", ("t",), {"weight": table}, ("time", "feature")),
        Node("p", "permute", ("e",), {"order": (1, 0)}, FT),
        Node("s", "ssm", ("p",), {"system": system}, FT),
        Node("r", "add", ("s", "p"), {}, FT),
        Node("y", "mean", ("r",), {"axis": 1}, ("feature",)),
    )
    original = NetworkGraph(nodes, "y")
    reduced = original.with_systems({"s": smaller})
    chain = network_bound(original, reduced, InputSet.tokens(), 7)
    u = InputSet.tokens().sample(rng, 60, 7, 5)
    errors, noise = output_error(merged(original, reduced), u)
    assert (errors - noise <= chain.bound).all()
    with pytest.raises(DataError, match="does not fit"):
        network_bound(original, reduced, InputSet.box(-1, 1), 7)


def test_sequence_outputs_are_bounded_at_every_time():
    rng = np.random.default_rng(5)
    original, reduced = classifier(rng, channels=3, layers=1)
    original = NetworkGraph(original.nodes, "sum0")
    reduced = NetworkGraph(reduced.nodes, "sum0")
    chain = network_bound(original, reduced, InputSet.box(-1, 1), 10)
    graph = merged(original, reduced)
    u = InputSet.box(-1, 1).sample(rng, 20, 10, 2)
    gap = evaluate(graph, u)["sum0"] - evaluate(graph, u, reduced=True)["sum0"]
    assert (np.sqrt((gap**2).sum(axis=1)).max(axis=1) <= chain.bound + 1e-12).all()


def test_a_user_rule_and_a_missing_one():
    class Wave:
        pass

    rng = np.random.default_rng(6)
    system, smaller = random_layer(rng, 2, 2)
    nodes = (
        sequence_input(2, time_first=False),
        Node("s", "ssm", ("u",), {"system": system}, FT),
        Node("w", Wave, ("s",), {"rate": 3.0}, FT),
        Node("y", "mean", ("w",), {"axis": 1}, ("feature",)),
    )
    original = NetworkGraph(nodes, "y")
    reduced = original.with_systems({"s": smaller})
    with pytest.raises(UnsupportedOperationError, match=r"Wave.*certify\.rule"):
        network_bound(original, reduced, InputSet.box(-1, 1), 5)

    @rule(Wave)
    def wave(node, x):
        return x.pointwise(-np.ones(x.shape), np.ones(x.shape), node.params["rate"])

    try:
        check_rules(original)
        chain = network_bound(original, reduced, InputSet.box(-1, 1), 5)
        assert 0.0 < chain.bound < math.inf
        assert chain.output.hi == pytest.approx(np.ones(2))
    finally:
        del RULES[original["w"].op]


def test_a_rule_with_wrong_axes_is_caught():
    @rule("test-wrong")
    def wrong(node, x):
        return x

    try:
        nodes = (
            sequence_input(1, time_first=False),
            Node("w", "test-wrong", ("u",), {}, ("time", "feature")),
        )
        graph = NetworkGraph(nodes, "w")
        with pytest.raises(ShapeError, match="axes of the node"):
            network_bound(graph, graph, InputSet.box(-1, 1), 5)
    finally:
        del RULES["test-wrong"]


def test_networks_that_differ_elsewhere_are_refused():
    rng = np.random.default_rng(7)
    original, reduced = classifier(rng, channels=3)
    nodes = list(reduced.nodes)
    at = next(i for i, node in enumerate(nodes) if node.name == "decoder")
    weight = nodes[at].params["weight"].copy()
    weight[0, 0] = np.nextafter(weight[0, 0], np.inf)  # one bit is enough
    nodes[at] = nodes[at].with_params(weight=weight)
    with pytest.raises(CertificateError, match="decoder"):
        network_bound(original, NetworkGraph(tuple(nodes), "decoder"), InputSet.box(-1, 1), 5)
    with pytest.raises(CertificateError, match="operations"):
        network_bound(
            original, NetworkGraph(reduced.nodes[:-1], "pool"), InputSet.box(-1, 1), 5
        )  # fmt: skip
    with pytest.raises(CertificateError, match="outputs"):
        network_bound(
            original, NetworkGraph(reduced.nodes, "pool"), InputSet.box(-1, 1), 5
        )  # fmt: skip


@pytest.mark.theorem("layer-guarantee")
def test_layer_bounds_against_extended_precision():
    from certify_reference import impulse_response

    rng = np.random.default_rng(8)
    first, second = random_layer(rng, 3, 4, perturb=1e-9)
    for horizon in (1, 30, None):
        (record,) = layer_bounds([first], [second], horizon)
        length = horizon or 20000
        h = impulse_response(first, length)
        gap = h - impulse_response(second, length)
        truth = np.sqrt((gap**2).sum() / (h**2).sum())
        assert record.relative_error == pytest.approx(float(truth), rel=1e-9)
        if horizon:
            assert truth <= record.relative_error
            assert np.sqrt((gap**2).sum()) <= record.error
        assert record.name == "0"
    zero = layer(np.zeros((1, 1)), np.zeros((1, 1)), np.zeros((1, 1)), np.zeros(1))
    assert layer_bounds({"a": zero}, {"a": zero}, 5)[0].relative_error == 0.0
    with pytest.raises(CertificateError, match="different layers"):
        layer_bounds({"a": first}, {"b": second}, 5)
    wild = layer(np.array([[1.01]]), np.ones((1, 1)), np.ones((1, 1)), np.zeros(1))
    with pytest.raises(UnstableSystemError):
        layer_bounds([wild], [wild], None)


def test_overflowing_gates_end_in_infinity_not_in_nan():
    nodes = [sequence_input(1, time_first=False)]
    system, smaller = random_layer(np.random.default_rng(9), 1, 2)
    nodes.append(Node("s", "ssm", ("u",), {"system": system}, FT))
    at = "s"
    for i in range(12):
        nodes.append(Node(f"m{i}", "multiply", (at, at), {}, FT))
        at = f"m{i}"
    nodes.append(Node("big", "affine", (at,), {"scale": 1e300}, FT))
    graph = NetworkGraph(tuple(nodes), "big")
    chain = network_bound(graph, graph.with_systems({"s": smaller}), InputSet.box(-1e3, 1e3), 4)
    assert chain.bound == math.inf


def test_float32_weights_are_taken_exactly():
    weight = np.array([[0.1]], dtype=np.float32)
    node = Node("y", "linear", ("x",), {"weight": weight}, ("feature",))
    assert node.params["weight"].dtype == np.float64
    assert node.params["weight"][0, 0] == np.float64(np.float32(0.1)) != 0.1
    x = Value(np.ones(1), np.ones(1), ("feature",))
    y = RULES["linear"](node, x)
    exact = WIDE(weight[0, 0])
    assert y.lo[0] <= exact <= y.hi[0]
