"""Latency in the loop: what runs how, what is left as it was, and the model of the layers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from ssmred.deploy import Spread
from ssmred.errors import DataError, OrderError, RequestError, UnsupportedOperationError
from ssmred.networks import ReducedSSM
from ssmred.networks.deep import DeepSSM
from ssmred.prune import (
    LatencyModel,
    LayerLatency,
    Uncached,
    alternating,
    measure_layers,
)
from ssmred.prune.latency import Latencies

STEPS = 16


class Watching(nn.Module):
    """Record in which state a pass finds the network."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple] = []
        self.gain = nn.Linear(1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = (self.training, torch.is_inference_mode_enabled(), torch.get_num_threads())
        self.seen.append((*state, tuple(x.shape)))
        return self.gain(x)


class Counting(ReducedSSM):
    """A filter that counts how often its kernel is made."""

    made = 0

    def kernel(self, T: int) -> torch.Tensor:
        self.made += 1
        return super().kernel(T)


def counting() -> Counting:
    return Counting([2, 2]).eval()


def test_networks_run_in_eval_mode_at_batch_one_without_gradients():
    models = {"parent": Watching().train(), "pruned": Watching().eval()}
    before = torch.get_num_threads()
    measured = alternating(models, np.zeros((5, STEPS, 1), dtype=np.float32), repeats=2, threads=1)
    assert list(measured) == ["parent", "pruned"]
    for spread in measured.values():
        assert 0.0 < spread.lower <= spread.median <= spread.upper
    for model in models.values():
        assert set(model.seen) == {(False, True, 1, (1, STEPS, 1))}
    assert models["parent"].training
    assert not models["pruned"].training
    assert torch.get_num_threads() == before


def test_ratios_are_of_the_same_round_by_hand():
    # The second round was slow for both: the medians' ratio would be 3 / 2.
    measured = Latencies({"small": [1.0, 30.0, 3.0], "parent": [2.0, 60.0, 1.0]})
    assert measured["small"].median == 3.0
    assert measured.ratio("small", "parent") == Spread(0.5, 0.5, 1.75)


def test_modes_come_back_module_by_module():
    model = Watching().train()
    model.gain.eval()  # frozen, as one freezes a part
    alternating({"only": model}, torch.zeros(1, STEPS, 1), repeats=1)
    assert (model.training, model.gain.training) == (True, False)


@pytest.mark.parametrize(
    "inputs",
    [
        torch.zeros(3, STEPS, dtype=torch.int64),
        torch.zeros(3, 2, STEPS, dtype=torch.int64),
        torch.zeros(3, 2, STEPS, 1),
    ],
)
def test_tokens_and_pairs_keep_their_shape(inputs):
    class Taking(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert (x.dtype, x.shape) == (inputs.dtype, (1, *inputs.shape[1:]))
            return x

    assert alternating({"only": Taking()}, inputs, repeats=1)


def test_kernels_are_made_once_and_by_an_uncached_network_every_time():
    core, signal = counting(), torch.zeros(1, 2, STEPS)
    without = Uncached(core)
    alternating({"cached": core, "uncached": without}, signal, repeats=4)
    assert core.made == 1
    passes = without.model.made
    assert passes >= 4
    without(signal)
    assert without.model.made == passes + 1
    assert core.made == 1


def test_an_uncached_network_is_a_copy_with_the_same_outputs():
    torch.manual_seed(0)
    model = DeepSSM(1, 3, channels=4, states=8, layers=2).eval()
    x = torch.randn(2, STEPS, 1)
    without = Uncached(model)
    assert torch.equal(without(x), model(x))
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    assert not torch.equal(without(x), model(x))


def test_what_was_kept_in_inference_mode_does_not_meet_gradients():
    core = counting()
    for parameter in core.parameters():
        parameter.requires_grad_(False)
    alternating({"only": core}, torch.zeros(1, 2, STEPS), repeats=1)
    u = torch.randn(1, 2, STEPS, requires_grad=True)
    core(u).square().sum().backward()
    assert u.grad is not None


def test_the_modes_come_back_when_a_pass_fails():
    class Failing(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise KeyboardInterrupt

    model = Failing().train()
    with pytest.raises(KeyboardInterrupt):
        alternating({"only": model}, torch.zeros(1, STEPS, 1), repeats=1)
    assert model.training


def test_wrong_measurements_are_refused():
    x = torch.zeros(1, STEPS, 1)
    with pytest.raises(DataError, match="no network"):
        alternating({}, x)
    with pytest.raises(DataError, match="empty"):
        alternating({"a": nn.Identity()}, x[:0])
    with pytest.raises(UnsupportedOperationError, match="b is not a network"):
        alternating({"a": nn.Identity(), "b": len}, x)
    with pytest.raises(UnsupportedOperationError, match="not on the CPU"):
        alternating({"a": nn.Linear(1, 1, device="meta")}, x)
    for wrong in ({"repeats": 0}, {"threads": 0}, {"threads": 1.5}):
        with pytest.raises(OrderError):
            alternating({"a": nn.Identity()}, x, **wrong)


# The model of the layers -------------------------------------------------------------------------


def test_the_fit_pools_what_falls_by_hand():
    # 5 and 3 are out of order: both become their mean, by which the squares are least.
    assert LayerLatency.fit([0, 2, 4], [1.0, 5.0, 3.0]).seconds == (1.0, 4.0, 4.0)
    # The number 2 was measured twice, so its mean weighs twice: (2 * 6 + 3) / 3 = 5.
    assert LayerLatency.fit([4, 2, 0, 2], [3.0, 7.0, 1.0, 5.0]).seconds == (1.0, 5.0, 5.0)
    assert LayerLatency.fit([0, 4], [2.0, 1.0]).seconds == (1.5, 1.5)


def test_the_fit_is_the_closest_of_all_rising_curves():
    """Against random rising curves: none is closer."""
    rng = np.random.default_rng(0)
    counts = [0, 1, 8, 16, 24, 32]
    times = np.array([0.1, 1.0, 2.2, 1.9, 4.0, 3.9])
    fitted = np.array(LayerLatency.fit(counts, times).seconds)
    assert (np.diff(fitted) >= 0).all()
    least = np.square(fitted - times).sum()
    others = np.sort(rng.normal(times, 0.3, (2000, 6)), axis=1)
    assert np.square(others - times).sum(axis=1).min() >= least


@pytest.fixture
def model() -> LatencyModel:
    layers = {
        "a": LayerLatency((0, 1, 4), (1.0, 2.0, 8.0)),
        "b": LayerLatency((0, 4), (1.0, 1.0)),
    }
    return LatencyModel(layers, rest=10.0)


def test_predictions_by_hand(model):
    assert model.full == 10.0 + 8.0 + 1.0
    assert model.predict({"a": 2, "b": 0}) == 10.0 + 4.0 + 1.0
    assert model.saved_per_operator("a") == 7.0 / 4.0
    assert model.saved_per_operator("a", live=4) == 2.0
    assert model.saved_per_operator("a", live=1) == 1.0
    assert model.saved_per_operator("b", live=3) == 0.0


def test_a_prediction_never_rises_with_a_removal(model):
    times = [model.predict({"a": n, "b": n}) for n in range(5)]
    assert times == sorted(times)


def test_a_latency_model_survives_its_record(model):
    assert LatencyModel.from_dict(json.loads(json.dumps(model.to_dict()))) == model


@pytest.mark.parametrize("stored", [{}, {"layers": 1, "rest": 0.0}, {"layers": {"a": {}}}, None])
def test_what_is_no_latency_model_is_refused(stored):
    with pytest.raises(DataError, match="no latency model"):
        LatencyModel.from_dict(stored)


@pytest.mark.parametrize(
    ("operators", "seconds"),
    [
        ((0, 4), (2.0, 1.0)),
        ((4, 0), (1.0, 2.0)),
        ((1, 4), (1.0, 2.0)),
        ((0,), (1.0,)),
        ((0, 4), (1.0,)),
        ((0, 4), (-1.0, 2.0)),
        ((0, 4), (1.0, float("nan"))),
    ],
)
def test_what_is_no_curve_is_refused(operators, seconds):
    with pytest.raises(DataError):
        LayerLatency(operators, seconds)


def test_questions_beyond_the_model_are_refused(model):
    with pytest.raises(RequestError, match="no layer 'c'"):
        model.saved_per_operator("c")
    with pytest.raises(RequestError, match="says nothing of b"):
        model.predict({"a": 1})
    with pytest.raises(RequestError, match="no layer 'c'"):
        model.predict({"a": 1, "b": 1, "c": 1})
    with pytest.raises(DataError, match="fewer operators"):
        model.predict({"a": 5, "b": 1})
    with pytest.raises(OrderError):
        model.saved_per_operator("a", live=0)
    with pytest.raises(DataError, match="one finite time"):
        LayerLatency.fit([0, 1], [1.0])


def test_layers_are_measured_at_some_numbers_of_live_operators():
    asked, shapes = [], set()

    class Core(nn.Module):
        def forward(self, u: torch.Tensor) -> torch.Tensor:
            assert not self.training
            shapes.add(tuple(u.shape))
            return u

    def core_with(layer: str, live: int) -> nn.Module:
        asked.append((layer, live))
        return Core()

    widths = {"a": 16, "b": 2}
    model = measure_layers(core_with, widths, STEPS, network=1e3, repeats=2)
    assert asked == [*(("a", n) for n in (0, 1, 4, 8, 12, 16)), *(("b", n) for n in (0, 1, 2))]
    assert shapes == {(1, 16, STEPS), (1, 2, STEPS)}
    assert model.layers["a"].operators == (0, 1, 4, 8, 12, 16)
    # What is not the layers' is the rest: together they are the network again.
    assert model.full == pytest.approx(1e3, rel=1e-12)
    assert measure_layers(core_with, widths, STEPS, repeats=1).rest == 0.0
    assert measure_layers(core_with, widths, STEPS, network=1e-12, repeats=1).rest == 0.0
