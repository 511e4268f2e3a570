"""Two processes that share every batch end with the weights of one process."""

import pytest
import torch
from toys import Bias, all_right, state, wave_network, waves

from ssmred.errors import DivergenceError
from ssmred.prune import Training, evaluate, train

AGREEMENT = 1e-5
"""Weights up to 1 in float32 after 12 steps of Adam at rates up to 1e-2, gradients summed in
another order; without a shared gradient weights end 1e-2 apart."""

RECIPE = Training(epochs=2, rate=1e-2, batch=25, keep_start=False)


def both(strategy, monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    task = waves(count=200, held_out=61)  # 139 sequences, 61 to score: nothing divides evenly
    results = []
    for options in ({}, {"devices": 2, "strategy": strategy}):
        model = wave_network()
        history = train(model, task, Training(**vars(RECIPE) | options), seed=0)
        assert history.best_score == evaluate(model, task.val, task)
        results.append((history, model))
    return results


def assert_agree(results):
    (one, alone), (two, shared) = results
    assert one.scores == two.scores
    assert (one.best, one.steps, one.samples) == (two.best, two.steps, two.samples)
    assert one.losses == pytest.approx(two.losses, abs=AGREEMENT)
    apart = [(a - b).abs().max() for a, b in zip(*map(_tensors, (alone, shared)), strict=True)]
    assert float(max(apart)) < AGREEMENT


def _tensors(model):
    return list(state(model).values())


def test_forked_processes(monkeypatch):
    assert_agree(both("ddp_fork", monkeypatch))


@pytest.mark.slow
def test_spawned_processes(monkeypatch):
    """By default; each starts Python anew."""
    assert_agree(both("auto", monkeypatch))


def test_marks_arrive_in_other_processes(monkeypatch):
    """A parameter that may not move at all, by a mark that pickling loses."""
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    model = Bias()
    model.bias._optim = {"lr": 0.0, "weight_decay": 0.0}
    recipe = Training(epochs=1, rate=0.1, devices=2, strategy="ddp_fork", keep_start=False)
    train(model, all_right(), recipe, seed=0)
    assert model.bias.tolist() == [0.0, 0.0]


def test_divergence_is_told_across_processes(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    model = Bias((float("inf"), 0.0))
    with pytest.raises(DivergenceError, match="not finite after epoch 1"):
        train(model, all_right(), Training(devices=2, strategy="ddp_fork"), seed=0)
    assert torch.equal(model.bias.detach(), torch.tensor([float("inf"), 0.0]))
