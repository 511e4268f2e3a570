"""Every misuse of `ssmred.reduce` gets an error that names the cure."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from small_networks import HORIZON, TokenNetwork, WithoutRule, classifier, sequences
from torch import nn

import ssmred
from ssmred.errors import (
    CheckpointError,
    DataError,
    OrderError,
    ToleranceError,
    UnstableSystemError,
    UnsupportedOperationError,
)
from ssmred.networks import ReducedSSM


def test_model_without_a_state_space_layer() -> None:
    with pytest.raises(UnsupportedOperationError, match="no state-space layer"):
        ssmred.reduce(nn.Linear(2, 2).eval(), horizon=4, progress=False)


def test_not_a_model() -> None:
    with pytest.raises(TypeError, match=r"torch\.nn\.Module"):
        ssmred.reduce("model", progress=False)


def test_unstable_poles_with_an_infinite_horizon() -> None:
    layer = ReducedSSM([2], poles=[1.01, 0.5], residues=[1.0, 1.0], D=[0.0])
    model = nn.Sequential(layer, nn.GELU()).eval()
    with pytest.raises(UnstableSystemError, match="horizon"):
        ssmred.reduce(model, guarantee="layer", progress=False)
    result = ssmred.reduce(model, guarantee="layer", horizon=HORIZON, progress=False)
    assert result.certificate.bound <= 1e-3


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite(value: float) -> None:
    model = classifier()
    with torch.no_grad():
        model.layers[1].kernel.C[0, 0, 0] = value
    with pytest.raises(CheckpointError, match=r"layers\.1\.kernel\.C"):
        ssmred.reduce(model, horizon=HORIZON, progress=False)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (sequences(200).double(), "Cast it yourself"),
        (sequences(200)[..., :1], "does not run on data of shape"),
        (sequences(200)[0, 0], "batch of sequences"),
        (sequences(0), "non-empty"),
        (torch.full((200, HORIZON, 2), math.nan), "nan or inf"),
        (sequences(200).to(torch.complex64), "real numbers"),
        (np.array([["a"]], dtype=object), "objects"),
        ("file.npy", "tensor, an array or a DataLoader"),
        ([], "empty"),
        ([sequences(100), sequences(100)[:, :7]], "differ in shape"),
        ((sequences(200), torch.zeros(200)), "without labels"),
    ],
)
def test_data_that_does_not_fit(data: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        ssmred.reduce(classifier(), data=data, progress=False)


def test_too_little_data_says_how_much_is_needed() -> None:
    with pytest.raises(DataError, match="at least 118"):
        ssmred.reduce(classifier(), data=sequences(100), progress=False)
    with pytest.raises(DataError, match="at least 918"):
        ssmred.reduce(
            classifier(), data=sequences(200), coverage=0.99, confidence=0.99, progress=False
        )


@pytest.mark.parametrize("tol", [0.0, -1.0, math.nan, math.inf, "small", True])
def test_tolerances_that_mean_nothing(tol: object) -> None:
    with pytest.raises(ToleranceError, match="tol must be"):
        ssmred.reduce(classifier(), tol, horizon=HORIZON, progress=False)


@pytest.mark.parametrize("states", [-0.1, 1.1, 30, "half", math.nan])
def test_shares_that_mean_nothing(states: object) -> None:
    with pytest.raises(OrderError, match="share"):
        ssmred.reduce(classifier(), states=states, horizon=HORIZON, progress=False)


def test_both_tol_and_states() -> None:
    with pytest.raises(ToleranceError, match="not both"):
        ssmred.reduce(classifier(), tol=1e-3, states=0.5, horizon=HORIZON, progress=False)


def test_dropout_in_training_mode() -> None:
    with pytest.raises(ValueError, match=r"model\.eval\(\)"):
        ssmred.reduce(classifier(dropout=0.1).train(), horizon=HORIZON, progress=False)


def test_half_precision_is_refused() -> None:
    with pytest.raises(CheckpointError, match="float32 or float64"):
        ssmred.reduce(classifier().half(), horizon=HORIZON, progress=False)


def test_input_set_of_the_wrong_kind() -> None:
    with pytest.raises(DataError, match=r"InputSet\.box"):
        ssmred.reduce(
            classifier(), horizon=HORIZON, inputs=ssmred.InputSet.tokens(), progress=False
        )
    with pytest.raises(DataError, match=r"InputSet\.tokens"):
        ssmred.reduce(
            TokenNetwork().eval(), horizon=9, inputs=ssmred.InputSet.box(-1, 1), progress=False
        )


def test_operation_without_a_rule_is_named_with_the_cure() -> None:
    with pytest.raises(UnsupportedOperationError, match="erfinv") as caught:
        ssmred.reduce(WithoutRule().eval(), horizon=HORIZON, progress=False)
    assert "statistical" in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"guarantee": "certain"}, ValueError),
        ({"metric": "l2"}, ValueError),
        ({"guarantee": "statistical"}, DataError),
        ({"metric": "calibrated"}, DataError),
        ({"inputs": "data"}, DataError),
        ({"inputs": (-1, 1)}, TypeError),
        ({"horizon": 0}, OrderError),
        ({"horizon": 2.5}, OrderError),
        ({"horizon": HORIZON + 1, "data": sequences(200)}, DataError),
        ({"data": sequences(200), "coverage": 1.0}, ToleranceError),
        ({"data": sequences(200), "confidence": 0.0}, ToleranceError),
    ],
)
def test_arguments_that_contradict(arguments: dict, error: type[Exception]) -> None:
    with pytest.raises(error, match="reduce"):
        ssmred.reduce(classifier(), progress=False, **arguments)
