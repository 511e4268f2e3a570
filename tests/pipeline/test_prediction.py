"""Predictions with error bounds: every family, trained networks, decisions, cost."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from small_networks import TokenNetwork, WithoutRule, classifier, sequences
from torch import nn

import ssmred
from ssmred import zoo
from ssmred.errors import DataError, UnsupportedOperationError
from ssmred.networks.deep import DeepLQO, DeepSSM
from ssmred.pipeline import BoundedPredictor, ReductionResult

pytestmark = pytest.mark.theorem("observed-bound")
T = 24

FAMILIES: dict[str, dict[str, Any]] = {
    "s4d": {"layer": "s4d", "norm": "layer", "prenorm": False},
    "s4": {"layer": "s4", "layer_options": {"length": T}},
    "s4, both ways": {"layer": "s4", "bidirectional": True, "layer_options": {"length": T}},
    "s5": {"layer": "s5", "norm": "layer", "mixing": "half-glu"},
    "s5, both ways": {"layer": "s5", "bidirectional": True, "mixing": "gelu"},
    "lru": {"layer": "lru", "pooling": "last"},
    "lqo": {"layer": "lqo", "norm": "none", "mixing": "linear"},
    "bilinear": {"layer": "lru", "mixing": "bilinear", "pooling": "max"},
    "sequence": {"layer": "s4d", "pooling": None, "mixing": "tanh"},
}


def network(**options: Any) -> nn.Module:
    torch.manual_seed(3)
    return DeepSSM(2, 3, channels=4, states=12, layers=2, **options).double().eval()


def reduced(model: nn.Module, share: float) -> ReductionResult:
    result = ssmred.reduce(model, states=share, horizon=T, guarantee="layer", progress=False)
    assert result.states[0] < result.states[1]
    return result


def outputs(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(x)


@pytest.mark.parametrize("share", [0.3, 0.8])
@pytest.mark.parametrize("name", FAMILIES)
def test_no_error_exceeds_its_bound(name: str, share: float) -> None:
    model = network(**FAMILIES[name])
    result = reduced(model, share)
    x = torch.cat([sequences(6, seed=5), sequences(6, seed=6).sign()])[:, :T].double()
    found = result.predict(x)
    prediction, bound = found
    truth = outputs(model, x)
    assert torch.equal(prediction, outputs(result.model, x))
    errors = (truth - prediction).norm(dim=-1)
    assert bound.shape == errors.shape
    assert float(errors.max()) > 0
    assert bool((errors <= bound).all())
    assert found.guaranteed is not None
    same = truth.argmax(dim=-1) == prediction.argmax(dim=-1)
    assert bool(same[found.guaranteed].all())


def test_layers_that_square_their_outputs() -> None:
    torch.manual_seed(0)
    model = DeepLQO(2, 3, channels=3, states=12, layers=2).double().eval()
    result = ssmred.reduce(model, states=0.5, horizon=T, method="lqo-h2", progress=False)
    x = sequences(8)[:, :T].double()
    prediction, bound = result.predict(x)
    errors = (outputs(model, x) - prediction).norm(dim=-1)
    assert bool((errors <= bound).all())


def test_tokens() -> None:
    torch.manual_seed(0)
    model = TokenNetwork().double().eval()
    result = reduced(model, 0.5)
    tokens = torch.randint(0, 11, (20, T))
    prediction, bound = result.predict(tokens)
    assert bool(((outputs(model, tokens) - prediction).norm(dim=-1) <= bound).all())


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("fashion-mnist-s4d-gelu", "balanced"),
        ("fashion-mnist-lru", "subset"),
        ("listops-s4d", "subset"),
    ],
)
def test_trained_networks_on_test_data(name: str, method: str) -> None:
    model, data = zoo.load(name)
    x = data.test.inputs[:4]
    steps = x.shape[1]
    result = ssmred.reduce(
        model, states=0.9, horizon=steps, guarantee="layer", method=method, progress=False
    )
    exact, small = copy.deepcopy(model).double(), copy.deepcopy(result.model).double()
    inputs = x.double() if x.is_floating_point() else x
    prediction, bound = BoundedPredictor(exact, small).predict(inputs)
    truth = outputs(exact, inputs)
    errors = (truth - prediction).norm(dim=-1)
    assert float(errors.max()) > 0
    assert bool((errors <= bound).all())
    found = result.predict(x)  # in the network's own precision
    assert torch.allclose(found.error_bound, bound, rtol=1e-3)
    assert found.guaranteed is not None
    decided = outputs(model, x).argmax(dim=-1)
    assert bool((decided == found.prediction.argmax(dim=-1))[found.guaranteed].all())


def test_decisions_are_guaranteed_where_little_is_removed() -> None:
    model = classifier(gated=False).double()
    result = ssmred.reduce(model, tol=1e-5, horizon=48, progress=False)
    assert result.removed > 0
    found = result.predict(sequences(20).double())
    assert found.guaranteed is not None
    assert int(found.guaranteed.sum()) >= 15
    assert not bool(found.vacuous.any())
    assert "decisions are the original's" in str(found)


def test_what_says_nothing_is_called_vacuous() -> None:
    model = classifier(layers=4)
    result = ssmred.reduce(model, states=0.05, horizon=48, guarantee="layer", progress=False)
    found = result.predict(10 * sequences(3))
    assert bool(found.vacuous.all())
    assert found.guaranteed is not None
    assert not bool(found.guaranteed.any())
    assert "VACUOUS" in str(found)


def test_keeping_everything_costs_nothing() -> None:
    model = classifier().double()
    result = ssmred.reduce(model, states=1.0, data=sequences(200).double(), progress=False)
    found = result.predict(sequences(3).double())
    assert float(found.error_bound.max()) < 1e-9  # the layers are stored in another form


def test_lengths_arrays_and_cost(capsys: pytest.CaptureFixture[str]) -> None:
    result = reduced(network(), 0.5)
    for length in (1, 7, 2 * T):
        found = result.predict(np.ones((2, length, 2)), progress=True)
        assert found.error_bound.shape == (2,)
        assert found.cost > 0.0
    assert "bounding errors" in capsys.readouterr().err
    again = result.predict(np.ones((2, 7, 2)))
    assert again.preparation > 0.0
    assert set(result._predictor._chains) == {(1, 2), (7, 2), (2 * T, 2)}


def test_numbers_have_bounds_and_no_decisions() -> None:
    torch.manual_seed(0)
    model = DeepSSM(2, 1, channels=4, states=8, layers=1, mixing="linear").double().eval()
    result = reduced(model, 0.5)
    x = sequences(5)[:, :T].double()
    found = result.predict(x)
    assert found.guaranteed is None
    assert bool(((outputs(model, x) - found.prediction).norm(dim=-1) <= found.error_bound).all())


def test_a_loaded_result_predicts_the_same(tmp_path: Any) -> None:
    result = reduced(network(), 0.5)
    again = ssmred.load(result.save(tmp_path / "small"))
    x = sequences(3)[:, :T].double()
    assert torch.equal(again.predict(x).error_bound, result.predict(x).error_bound)


def test_bad_inputs_and_networks_are_refused() -> None:
    result = reduced(network(), 0.5)
    with pytest.raises(DataError, match="does not run"):
        result.predict(torch.ones(3, T, 5, dtype=torch.float64))
    with pytest.raises(DataError, match="nan"):
        result.predict(torch.full((3, T, 2), torch.nan, dtype=torch.float64))
    torch.manual_seed(0)
    model = WithoutRule().eval()
    unruly = ssmred.reduce(model, states=0.5, data=sequences(200), progress=False)
    with pytest.raises(UnsupportedOperationError, match="rule"):
        unruly.predict(sequences(3))
