"""Input sets: what they hold, how they are stored, sampled and turned into values."""

import json
import math

import numpy as np
import pytest

from ssmred.certify import InputSet, Node
from ssmred.errors import CertificateError, DataError, ShapeError

SETS = [
    InputSet.box(-1, 2),
    InputSet.box([0.0, -3.0], [1.0, 5.0]),
    InputSet.ball(0.5),
    InputSet.tokens(),
]


def node(features=2, tokens=False):
    if tokens:
        return Node("t", "input", (), {"shape": (1,), "tokens": True}, ("time",))
    return Node("u", "input", (), {"shape": (1, features)}, ("time", "feature"))


@pytest.mark.parametrize("inputs", SETS)
def test_json_round_trip_and_words(inputs):
    text = json.dumps(inputs.to_json())
    assert InputSet.from_json(json.loads(text)) == inputs
    assert hash(inputs) == hash(InputSet.from_json(json.loads(text)))
    assert inputs.describe().startswith("every ")


@pytest.mark.parametrize("inputs", SETS)
@pytest.mark.parametrize("horizon", [1, 9])
def test_samples_lie_in_the_set_and_within_its_value(inputs, horizon):
    rng = np.random.default_rng(0)
    samples = inputs.sample(rng, 40, horizon, 2)
    assert inputs.contains(samples).all()
    if inputs.kind == "tokens":
        assert samples.dtype.kind == "i"
        assert set(np.unique(samples)) <= {0, 1}
        return
    value = inputs.value(node(), horizon)
    assert (samples >= value.lo).all()
    assert (samples <= value.hi).all()
    size = np.sqrt((samples**2).sum(axis=(1, 2)))
    assert (size <= value.l2).all()
    assert value.error_l2 == 0.0
    assert (np.sqrt((samples**2).sum(axis=1)) <= value.l2_features[0]).all()


def test_slow_inputs_are_among_the_samples():
    samples = InputSet.box(-1, 1).sample(np.random.default_rng(0), 200, 100, 1)
    changes = (np.diff(samples[..., 0], axis=1) != 0).sum(axis=1)
    assert changes.min() <= 2
    assert changes.max() >= 95


def test_contains_refuses_what_is_outside():
    box = InputSet.box([0, 0], [1, 2])
    u = np.zeros((2, 3, 2))
    u[1, 2, 0] = 1.0 + 1e-15
    assert box.contains(u).tolist() == [True, False]
    assert InputSet.ball(1.0).contains(np.full((1, 4, 1), 0.5)).all()
    assert not InputSet.ball(0.99).contains(np.full((1, 4, 1), 0.5)).any()


def test_box_of_data():
    data = np.array([[[0.0, 5.0], [1.0, 5.0]]])
    assert InputSet.box_of(data, slack=0.0) == InputSet.box([0.0, 5.0], [1.0, 5.0])
    assert InputSet.box_of(data).low[0] == pytest.approx(-0.1)
    assert InputSet.box_of(data).high[1] == 5.0
    with pytest.raises(DataError, match="no sequences"):
        InputSet.box_of([])
    with pytest.raises(DataError):
        InputSet.box_of(data * math.nan)


def test_values_over_an_infinite_horizon():
    box = InputSet.box(-1, 2).value(node(), None)
    assert box.l2 == math.inf
    assert box.error_l2 == 0.0
    ball = InputSet.ball(2.0).value(node(), None)
    assert ball.l2 == 2.0
    assert ball.hi.max() == 2.0
    tokens = InputSet.tokens().value(node(tokens=True), 4)
    assert tokens.error_l2 == 0.0


def test_features_first_networks_take_the_box_along_features():
    turned = Node("u", "input", (), {"shape": (2, 1)}, ("feature", "time"))
    value = InputSet.box([0, -1], [1, 4]).value(turned, 5)
    assert value.hi.tolist() == [[1.0], [4.0]]


def test_bad_sets_are_refused():
    for make in (
        lambda: InputSet.box(1, 0),
        lambda: InputSet.box(math.nan, 1),
        lambda: InputSet.box(-math.inf, math.inf),
        lambda: InputSet.ball(-1),
        lambda: InputSet.ball(math.inf),
        lambda: InputSet("cone"),
    ):
        with pytest.raises(DataError):
            make()
    with pytest.raises(ShapeError):
        InputSet.box([0, 0], [1, 1, 1])
    with pytest.raises(ShapeError):
        InputSet.box([[0.0]], [[1.0]])
    with pytest.raises(ShapeError, match="features"):
        InputSet.box([0, 0, 0], [1, 1, 1]).value(node(), 5)
    with pytest.raises(DataError, match="does not fit"):
        InputSet.tokens().value(node(), 5)
    with pytest.raises(DataError, match="does not fit"):
        InputSet.box(0, 1).value(node(tokens=True), 5)


@pytest.mark.parametrize(
    "data",
    [{}, {"kind": "cone"}, {"kind": "ball"}, {"kind": "ball", "radius": "x"},
     {"kind": "tokens", "radius": 1}, {"kind": "box", "low": 1, "high": 0}],
)  # fmt: skip
def test_bad_descriptions_are_refused(data):
    with pytest.raises(CertificateError, match="input set"):
        InputSet.from_json(data)
