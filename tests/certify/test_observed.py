"""Bounds on single inputs: zero slack on random networks of every wiring, and by hand."""

import numpy as np
import pytest
from certify_reference import (
    WIDE,
    classifier,
    evaluate,
    impulse_response,
    layer,
    merged,
    random_dense,
    random_layer,
    random_shared,
    sequence_input,
)
from hypothesis import given
from hypothesis import strategies as st

from ssmred.certify import (
    InputSet,
    NetworkGraph,
    Node,
    ObservedChain,
    network_bound,
    rule,
)
from ssmred.certify.observed import Response
from ssmred.certify.rules_table import RULES
from ssmred.errors import DataError, ShapeError, UnsupportedOperationError

pytestmark = pytest.mark.theorem("observed-bound")
FT, TF, F = ("feature", "time"), ("time", "feature"), ("feature",)
EVALUATION_NOISE = 1e-13  # of the largest signal: the reference erf is float64


def vectors(gap, axes):
    """Return the 2-norm of every output vector of (batch, ...): features last."""
    gap = gap[..., None] if not axes else gap
    return np.sqrt((gap**2).sum(axis=-1))


def check(original, reduced, u, T, *, every_node=True):
    """Hold the bounds of nodes against true differences on every input; return true / bound."""
    graph = merged(original, reduced)
    first, second = evaluate(graph, u), evaluate(graph, u, reduced=True)
    noise = EVALUATION_NOISE * max(float(np.abs(v).max(initial=0.0)) for v in second.values())
    ratio = 0.0
    for node in graph:
        if node.op in ("input", "constant") or not (every_node or node.name == graph.output):
            continue
        chain = ObservedChain(
            NetworkGraph(original.nodes, node.name), NetworkGraph(reduced.nodes, node.name), T
        )
        gaps = vectors(first[node.name] - second[node.name], node.axes)
        for sample, gap, output in zip(u, gaps, second[node.name], strict=True):
            found = chain.bound(sample)
            assert found.error.shape == gap.shape
            count = 1 if not node.axes else output.shape[-1]
            assert (gap - 2 * noise * np.sqrt(count) <= found.error).all(), node.name
            np.testing.assert_allclose(
                found.output.reshape(output.shape), output.astype(float), atol=1e-9 + 1e3 * noise
            )
            if node.name == graph.output and np.any(gap > 100 * noise):
                assert (found.error > 0.0).any()
                ratio = max(ratio, float((gap / np.where(found.error > 0, found.error, 1)).max()))
    return ratio


def random_options(rng):
    return {
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
        "perturb": float(10.0 ** rng.uniform(-8, 0)),
    }


@pytest.mark.parametrize("block", range(8))
def test_random_classifiers(block):
    ratios = []
    for seed in range(5 * block, 5 * block + 5):
        rng = np.random.default_rng(seed)
        options = random_options(rng)
        original, reduced = classifier(rng, **options)
        T = int(rng.integers(1, 20))
        u = 10.0 ** rng.uniform(-1, 1) * rng.standard_normal((3, T, options["features"]))
        ratios.append(check(original, reduced, u, T, every_node=seed % 5 == 0))
    assert 0.0 < max(ratios) <= 1.0


def wired(rng, kind, wiring, perturb):
    """Return (original, reduced) graphs with two layers of a kind in a wiring, and their input."""
    m = 2
    nodes = [sequence_input(2, time_first=False)]
    reductions = {}

    def add(name, op, inputs, params=None, axes=FT):
        nodes.append(Node(name, op, inputs, params or {}, axes))
        return name

    def layer_node(name, source, inputs, outputs):
        if kind == "channels":
            assert inputs == outputs
            pair = random_layer(rng, inputs, 3, perturb=perturb)
        elif kind == "dense":
            pair = random_dense(rng, inputs, 3, perturb=perturb, late=bool(rng.random() < 0.5))
        else:
            late = bool(rng.random() < 0.5)
            pair = random_shared(rng, inputs, outputs, 3, perturb=perturb, late=late)
        reductions[name] = pair[1]
        return add(name, "ssm", (source,), {"system": pair[0]})

    def matrix(out, into):
        return {"weight": rng.standard_normal((out, into)), "bias": rng.standard_normal(out)}

    wide = 3 if kind == "shared" else m
    a = layer_node("s0", "u", m, wide)
    if wiring == "two ways":
        back = add("r0", "reverse", ("u",), {"axis": 1})
        back = layer_node("s1", back, m, wide)
        back = add("r1", "reverse", (back,), {"axis": 1})
        late = add("d", "delay", (back,), {"axis": 1, "steps": int(rng.integers(1, 3))})
        a = add("cat", "concat", (a, late), {"axis": 0})
        a = add("mix", "conv1d", (a,), matrix(m, 2 * wide))
        a = add("act", "gelu", (a,), {"approximate": "tanh"})
    elif wiring == "squares":
        part = add("p", "slice", (a,), {"axis": 0, "start": 0, "stop": 1})
        rest = add("q", "slice", (a,), {"axis": 0, "start": 1})
        square = add("sq", "multiply", (part, part))
        a = add("prod", "multiply", (rest, square))
        a = add("sum", "sub", (a, part))
        a = add("mix", "conv1d", (a,), matrix(m, wide - 1))
        a = layer_node("s1", a, m, wide)
    elif wiring == "gate":
        t = add("t", "permute", (a,), {"order": (1, 0)}, TF)
        t = add("w", "linear", (t,), matrix(4, wide), TF)
        gate = add("g", "sigmoid", (t,), {}, TF)
        t = add("gated", "multiply", (t, gate), {}, TF)
        t = add("ln", "layernorm", (t,), {"weight": rng.standard_normal(4)}, TF)
        t = add("glu", "glu", (t,), {"axis": -1}, TF)
        a = add("b", "permute", (t,), {"order": (1, 0)})
        a = layer_node("s1", a, m, m)
        a = add("scaled", "affine", (a,), {"scale": rng.standard_normal((m, 1)), "shift": 0.3})
        a = add("res", "add", ("u", a))
    end = str(rng.choice(["sequence", "pool", "both", "thirds"]))
    rows = m if wiring != "squares" else wide
    if end == "sequence":
        out = add("y", "permute", (a,), {"order": (1, 0)}, TF)
    elif end == "pool":
        out = add("y", "mean", (a,), {"axis": 1}, F)
    elif end == "both":
        out = add("y", "mean", (a,), {"axis": (0, 1)}, ())
    else:
        half = add("half", "slice", (a,), {"axis": 1, "stop": None, "step": 2})
        top = add("top", "max", (half,), {"axis": 1, "keepdim": True}, FT)
        out = add("y", "reshape", (top,), {"shape": (1, rows), "full_shape": (1, rows)}, TF)
    graph = NetworkGraph(tuple(nodes), out)
    return graph, graph.with_systems(reductions)


@pytest.mark.parametrize("kind", ["channels", "shared", "dense"])
@pytest.mark.parametrize("wiring", ["two ways", "squares", "gate"])
@pytest.mark.parametrize("seed", range(4))
def test_every_family_and_wiring(kind, wiring, seed):
    rng = np.random.default_rng([seed, len(kind), len(wiring)])
    original, reduced = wired(rng, kind, wiring, 10.0 ** rng.uniform(-6, -0.5))
    T = int(rng.integers(3, 16))
    u = 10.0 ** rng.uniform(-1, 0.5) * rng.standard_normal((3, 2, T))
    assert check(original, reduced, u, T) <= 1.0


@pytest.mark.parametrize("seed", range(6))
def test_tokens_constants_and_time_that_becomes_features(seed):
    rng = np.random.default_rng(seed)
    T, width = 6, 3
    system, small = random_layer(rng, width, 3, perturb=0.1)
    nodes = [
        Node("u", "input", (), {"shape": (1,), "tokens": True}, ("time",)),
        Node("e", "embedding", ("u",), {"weight": rng.standard_normal((7, width))}, TF),
        Node("c", "constant", (), {"value": rng.standard_normal((T, width))}, TF),
        Node("a", "add", ("e", "c"), {}, TF),
        Node("t", "permute", ("a",), {"order": (1, 0)}, FT),
        Node("s", "ssm", ("t",), {"system": system}, FT),
        Node("f", "reshape", ("s",), {"shape": (width * T,), "full_shape": (width * T,)}, F),
        Node("y", "linear", ("f",), {"weight": rng.standard_normal((2, width * T))}, F),
    ]
    graph = NetworkGraph(tuple(nodes), "y")
    tokens = rng.integers(0, 7, (3, T))
    assert check(graph, graph.with_systems({"s": small}), tokens, T) <= 1.0


def test_layers_that_see_a_part_of_the_sequence():
    rng = np.random.default_rng(0)
    pairs = {name: random_layer(rng, 2, 3, perturb=0.1) for name in ("s0", "s1")}
    nodes = [
        sequence_input(2, time_first=False),
        Node("s0", "ssm", ("u",), {"system": pairs["s0"][0]}, FT),
        Node("half", "slice", ("s0",), {"axis": 1, "start": 3}, FT),
        Node("again", "concat", ("half", "s0", "half"), {"axis": 1}, FT),
        Node("s1", "ssm", ("again",), {"system": pairs["s1"][0]}, FT),
        Node("y", "permute", ("s1",), {"order": (1, 0)}, TF),
    ]
    graph = NetworkGraph(tuple(nodes), "y")
    reduced = graph.with_systems({name: pair[1] for name, pair in pairs.items()})
    assert check(graph, reduced, rng.standard_normal((4, 2, 8)), 8) <= 1.0


@given(seed=st.integers(0, 2**32 - 1))
def test_any_network(seed):
    rng = np.random.default_rng(seed)
    options = random_options(rng)
    original, reduced = classifier(rng, **options)
    T = int(rng.integers(1, 12))
    graph = merged(original, reduced)
    u = 10.0 ** rng.uniform(-2, 1) * rng.standard_normal((1, T, options["features"]))
    first, second = evaluate(graph, u), evaluate(graph, u, reduced=True)
    noise = EVALUATION_NOISE * max(float(np.abs(v).max()) for v in second.values())
    gap = vectors(first[graph.output] - second[graph.output], F)[0]
    assert gap - 4 * noise <= ObservedChain(original, reduced, T).bound(u[0]).error


def one_layer(original, reduced):
    nodes = [
        sequence_input(1, time_first=False),
        Node("s", "ssm", ("u",), {"system": original}, FT),
        Node("y", "permute", ("s",), {"order": (1, 0)}, TF),
    ]
    graph = NetworkGraph(tuple(nodes), "y")
    return graph, graph.with_systems({"s": reduced})


def test_one_layer_is_exact():
    """Behind one layer nothing is lost: the bound is the error itself, at every step."""
    original = layer(np.array([[0.5]]), np.ones((1, 1)), np.ones((1, 1)), np.zeros(1))
    reduced = layer(np.zeros((1, 0)), np.zeros((1, 0)), np.zeros((1, 0)), np.zeros(1))
    found = ObservedChain(*one_layer(original, reduced), 4).bound([[1.0, -1.0, 1.0, 0.0]])
    exact = np.array([1.0, 0.5, 0.75, 0.375])  # x <- x / 2 + u, of which nothing is left
    assert (found.error >= exact).all()
    assert found.error == pytest.approx(exact, rel=1e-7)
    assert (found.output == 0.0).all()


def test_nothing_reduced_costs_nothing():
    original, _ = classifier(np.random.default_rng(0), gated=True, norm="layer")
    found = ObservedChain(original, original, 9).bound(np.ones((9, 2)))
    assert found.error == 0.0


def test_it_is_sharper_than_a_bound_over_a_box_around_the_input():
    gains = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        original, reduced = classifier(rng, perturb=1e-2, norm="layer", gated=seed % 2 == 0)
        u = rng.standard_normal((30, 2))
        alone = float(ObservedChain(original, reduced, 30).bound(u).error)
        around = network_bound(original, reduced, InputSet.box_of(u, slack=0.0), 30).bound
        gains.append(around / alone)
    assert min(gains) > 1.0
    assert np.median(gains) > 3.0


@pytest.mark.parametrize("kind", ["channels", "shared"])
@pytest.mark.parametrize("T", [1, 2, 37, 500])
def test_convolutions_lose_less_than_they_say(kind, T):
    rng = np.random.default_rng(T)
    pair = random_layer(rng, 3, 4) if kind == "channels" else random_shared(rng, 3, 2, 4)
    h = impulse_response(pair[0], T)
    stored = h.astype(np.float64)
    response = Response(stored, np.abs(h - stored).sum(axis=-1).astype(float) * (1 + 1e-9))
    u = 10.0 ** rng.uniform(-3, 3, (3, 1)) * rng.standard_normal((3, T))
    exact = np.zeros((len(h), T), dtype=WIDE)
    for k in range(T):
        part = h[..., k]
        late = u[:, : T - k].astype(WIDE)
        exact[:, k:] += part[:, None] * late if h.ndim == 2 else part @ late
    lost = np.abs(exact - response.of(u)).max(axis=-1)
    doubt = response.doubt(u, np.zeros(3))
    assert (lost <= doubt).all()
    assert (doubt <= 1e-10 * np.abs(exact).max()).all()


def test_errors_beyond_floating_point_are_infinite_not_wrong():
    """An overflow in a product of signals leaves nothing known, in words: inf."""
    poles, ones = np.full((1, 1), 0.5), np.ones((1, 1))
    original = layer(poles, 1e150 * ones, ones, np.zeros(1))
    reduced = layer(poles, 1e150 * ones, 0.5 * ones, np.zeros(1))
    nodes = [
        sequence_input(1, time_first=False),
        Node("s", "ssm", ("u",), {"system": original}, FT),
        Node("p", "multiply", ("s", "s"), {}, FT),
        Node("q", "multiply", ("p", "s"), {}, FT),
        Node("y", "mean", ("q",), {"axis": 1}, F),
    ]
    graph = NetworkGraph(tuple(nodes), "y")
    found = ObservedChain(graph, graph.with_systems({"s": reduced}), 3).bound(np.ones((1, 3)))
    assert found.error == np.inf


def test_bad_inputs_are_refused():
    original, reduced = classifier(np.random.default_rng(0))
    chain = ObservedChain(original, reduced, 5)
    with pytest.raises(ShapeError, match=r"\(5, 2\)"):
        chain.bound(np.ones((6, 2)))
    with pytest.raises(DataError, match="nan"):
        chain.bound(np.full((5, 2), np.nan))
    with pytest.raises(ValueError, match="steps"):
        ObservedChain(original, reduced, 0)


def test_own_operations_are_refused_by_name():
    class Half:
        pass

    @rule(Half)
    def half(node, x):
        return x.pointwise(0.5 * x.lo, 0.5 * x.hi, slope=0.5, gain=0.5)

    try:
        original, reduced = classifier(np.random.default_rng(0))
        nodes = (*original.nodes, Node("z", Half, (original.output,)))
        graph = NetworkGraph(nodes, "z")
        with pytest.raises(UnsupportedOperationError, match="Half"):
            ObservedChain(graph, NetworkGraph((*reduced.nodes, nodes[-1]), "z"), 5)
    finally:
        del RULES[next(name for name in RULES if name.endswith("Half"))]
