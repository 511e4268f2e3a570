"""Two processes that share every batch end with the weights of one process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toys import Bias, all_right, state, wave_network, waves

from ssmred.errors import DivergenceError
from ssmred.prune import Training, evaluate, train

AGREEMENT = 1e-5
"""Weights up to 1 in float32 after 12 steps of Adam at rates up to 1e-2, gradients summed in
another order; without a shared gradient weights end 1e-2 apart."""

RECIPE = Training(epochs=2, rate=1e-2, batch=25, keep_start=False)

SCRIPT = """
import json, os, sys
sys.path.insert(0, {toys!r})
from toys import wave_network, waves
from ssmred.prune import Training, train

recipe = Training(epochs=2, rate=1e-2, batch=25, keep_start=False, devices=2, strategy=sys.argv[1])
task = waves(count=200, held_out=61)
losses = [train(wave_network(), task, recipe, seed=0).losses for _ in range(2)]
with open(os.path.join({folder!r}, os.environ["LOCAL_RANK"] + ".json"), "w") as file:
    json.dump(losses, file)
"""


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


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [(), ("-m", "torch.distributed.run", "--nproc-per-node=2")])
def test_scripts_with_a_process_per_device(launcher, tmp_path):
    """By "ddp", which runs a script again, and by torchrun: two trainings, one after the other."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(toys=str(Path(__file__).parent), folder=str(tmp_path)))
    environment = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "MASTER_PORT")}
    command = [sys.executable, *launcher, str(script), "auto" if launcher else "ddp"]
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=300)
    task, model = waves(count=200, held_out=61), wave_network()
    history = train(model, task, RECIPE, seed=0)
    for rank in range(2):
        for losses in json.loads((tmp_path / f"{rank}.json").read_text()):
            assert losses == pytest.approx(history.losses, abs=AGREEMENT)


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
