"""train: what a step does, what a seed fixes, and which weights a network is left with."""

import math
import sys
from itertools import chain

import pytest
import torch
from torch import nn
from toys import Bias, all_right, numbered, same, state, wave_network, waves

from ssmred.errors import DataError, DivergenceError, MissingDependencyError, RequestError
from ssmred.prune import Training, evaluate, train
from ssmred.prune.recipe import rate_factor
from ssmred.tasks import Sample, Task, TwoStream

LEARNT = 90.0
"""Percent; 33 by chance."""

ROUNDING = 1e-6
"""A few operations in float32 on numbers up to 1, relative."""

ADAM_EPSILON = 1e-8
"""PyTorch's default."""

SHORT = Training(epochs=2, rate=1e-2, batch=35)


@pytest.fixture
def scripted(monkeypatch):
    """Have `Task.score` return given numbers, one after another."""

    def script(*scores):
        rest = iter(scores)
        monkeypatch.setattr(Task, "score", lambda *_: next(rest))

    return script


def test_a_network_learns():
    task, model = waves(), wave_network()
    history = train(model, task, Training(epochs=12, rate=2e-2, batch=10), seed=0)
    assert history.best_score > LEARNT
    assert history.best_score == evaluate(model, task.val, task)
    assert history.scores[history.best] == max(history.scores)
    assert history.losses[-1] < history.losses[0]
    assert len(history.scores) == 1 + len(history.losses)
    assert history.steps == 14 * len(history.losses)
    assert history.samples == 140 * len(history.losses)
    assert history.seconds > 0.0
    assert not task.opened


@pytest.mark.parametrize("kind", ["multi-label", "two-stream", "tokens"])
def test_other_kinds_of_tasks_are_learnt(kind):
    """Labels that the mean of a sequence decides, or that two means are alike."""
    generator = torch.Generator().manual_seed(0)
    high = torch.randint(0, 2, (64, 2), generator=generator)
    torch.manual_seed(0)
    if kind == "tokens":
        x = high[:, :1].repeat(1, 8) * 2 + torch.randint(0, 2, (64, 8), generator=generator)
        x[:, 0], x[:, 1] = torch.arange(64) % 8 // 2 % 4, torch.arange(64) // 4 % 4
        labels, options = high[:, 0], {"vocabulary": 4, "repeats": 0.9}
        model = nn.Sequential(nn.Embedding(4, 2), nn.Flatten(), nn.Linear(16, 2))
    else:
        x = high[:, :, None, None] * 2.0 - 1.0 + 0.3 * torch.randn(64, 2, 8, 1, generator=generator)
        labels, options = (high[:, 0] == high[:, 1]).long(), {"kind": "two-stream"}
        trunk = nn.Sequential(nn.Flatten(), nn.Linear(8, 2))
        model = TwoStream(trunk, 2, 2, hidden=16)
        if kind == "multi-label":
            labels, options = high.float(), {"kind": kind, "metric": "macro-f1"}
            x = x.flatten(1, 2)
            model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    task = Task(kind, Sample(x[:48], labels[:48]), Sample(x[48:], labels[48:]), 2, dict, **options)
    recipe = Training(epochs=40, rate=2e-2, batch=16, patience=None)
    assert train(model, task, recipe, seed=0).best_score > LEARNT


def test_a_seed_fixes_the_weights_whatever_ran_before():
    results = []
    for seed in (3, 3, 4):
        model = wave_network(dropout=0.2)
        torch.manual_seed(len(results))
        torch.rand(5 * len(results))
        before = torch.get_rng_state()
        history = train(model, waves(), SHORT, seed=seed)
        assert torch.equal(torch.get_rng_state(), before)
        results.append((history.losses, state(model)))
    assert results[0][0] == results[1][0]
    assert same(results[0][1], results[1][1])
    assert results[0][0] != results[2][0]


def test_the_first_step_has_the_size_of_the_rate_and_no_mark_is_exceeded():
    """Adam's first step is ``rate g / (|g| + epsilon)``, without weight decay."""
    model = Bias()
    model.slow = nn.Parameter(torch.ones(2))
    model.slow._optim = {"lr": 1e-3, "weight_decay": 0.0}
    model.forward = lambda x: (model.bias * model.slow).expand(len(x), -1)
    with torch.no_grad():
        model.bias.copy_(torch.tensor([1.0, 2.0]))
    before = state(model)
    train(model, all_right(right=1), _one_step(rate=4e-3, weight_decay=0.0), seed=0)
    for name, rate in (("bias", 4e-3), ("slow", 1e-3)):
        moved = state(model)[name] - before[name]
        assert moved.sign().tolist() == [-1.0, 1.0]
        assert torch.allclose(moved.abs(), torch.tensor(rate), rtol=1e-3, atol=0.0)  # float32 at 1


def test_clipping_makes_steps_smaller_where_adam_can_see_it():
    """A gradient clipped to the norm 1e-8, Adam's epsilon: (+, -) of equal size, 1e-8 / sqrt 2."""
    share = (ADAM_EPSILON / math.sqrt(2)) / (ADAM_EPSILON / math.sqrt(2) + ADAM_EPSILON)
    for clip, wanted in ((None, 1.0), (10.0, 1.0), (ADAM_EPSILON, share)):
        model = Bias()
        train(model, all_right(), _one_step(rate=1e-2, clip=clip), seed=0)
        moved = float(model.bias[0].detach()) / 1e-2
        assert moved == pytest.approx(wanted, rel=1e-4)  # torch adds 1e-6 to the norm, here 0.7


def test_only_parameters_without_a_mark_decay():
    """No gradient at all: AdamW leaves ``product of (1 - rate factor decay)``."""

    class Idle(Bias):
        def __init__(self):
            super().__init__()
            self.plain = nn.Parameter(torch.ones(1))
            self.marked = nn.Parameter(torch.ones(1))
            self.marked._optim = {"lr": 1e-3, "weight_decay": 0.0}

        def forward(self, x):
            return super().forward(x) + 0.0 * (self.plain + self.marked)

    model = Idle()
    recipe = Training(epochs=3, rate=0.1, batch=2, weight_decay=0.5, keep_start=False)
    shown = []
    history = train(
        model, all_right(), recipe, seed=0, progress=lambda _: shown.append(state(model))
    )
    wanted = math.prod(1.0 - 0.1 * 0.5 * rate_factor(k, 12, 0.1) for k in range(12))
    assert history.steps == 12
    assert float(shown[-1]["plain"]) == pytest.approx(wanted, rel=10 * ROUNDING)
    assert float(shown[-1]["marked"]) == 1.0


def test_the_best_epoch_is_kept_and_training_stops_early(scripted):
    scripted(50.0, 40.0, 60.0, 60.0, 55.0, 70.0)
    model, shown = Bias(), []
    recipe = Training(epochs=9, rate=0.1, patience=2)
    history = train(
        model, all_right(), recipe, seed=0, progress=lambda _: shown.append(state(model))
    )
    assert history.scores == (50.0, 40.0, 60.0, 60.0, 55.0)
    assert (history.best, history.stopped_early) == (2, True)
    assert same(state(model), shown[1])
    assert not same(shown[1], shown[3])
    assert model.bias.grad is None


def test_no_patience_and_no_better_start(scripted):
    scripted(50.0, 40.0, 30.0, 30.0)
    model = Bias()
    before = state(model)
    history = train(model, all_right(), Training(epochs=3, patience=None), seed=0)
    assert (history.best, history.stopped_early, len(history.losses)) == (0, False, 3)
    assert same(state(model), before)


@pytest.mark.parametrize("keep_start", [True, False])
def test_no_epochs_leave_the_network_as_it_is(keep_start):
    model = wave_network().requires_grad_(False)
    before = state(model)
    history = train(model, waves(), Training(epochs=0, keep_start=keep_start), seed=0)
    assert (history.losses, len(history.scores), history.best) == ((), 1, 0)
    assert same(state(model), before)


def test_a_start_that_does_not_count(scripted):
    scripted(50.0, 40.0, 30.0)
    model, shown = Bias(), []
    history = train(
        model,
        all_right(),
        Training(epochs=2, keep_start=False),
        seed=0,
        progress=lambda _: shown.append(state(model)),
    )
    assert history.best == 1
    assert same(state(model), shown[0])


def test_every_sequence_comes_once_per_epoch():
    seen = []

    def noted(x, generator):
        seen.append(x.flatten().tolist())
        return x

    task = numbered(count=11, augment=noted)
    train(Bias(), task, Training(epochs=2, batch=4, patience=None), seed=0)
    assert [len(batch) for batch in seen] == [4, 4, 3, 4, 4, 3]
    epochs = [list(chain(*seen[:3])), list(chain(*seen[3:]))]
    assert [sorted(epoch) for epoch in epochs] == [list(range(11))] * 2
    assert epochs[0] != epochs[1]


def test_fewer_samples_are_drawn_anew_for_every_epoch():
    def epochs(seed):
        seen = []
        task = numbered(count=100, augment=lambda x, _: seen.append(x.flatten().tolist()) or x)
        recipe = Training(epochs=3, samples=20, batch=20, patience=None)
        history = train(Bias(), task, recipe, seed=seed)
        assert history.samples == 60
        return [frozenset(epoch) for epoch in seen]

    first = epochs(0)
    assert [len(epoch) for epoch in first] == [20, 20, 20]
    assert len(set(first)) == 3
    assert epochs(0) == first
    assert epochs(1) != first
    assert len(frozenset.union(*first)) > 30  # 20 if it were always the same ones


def test_augmentation_draws_from_the_seed():
    draws = []
    for seed in (0, 0, 1):
        augment = lambda x, g: draws.append(torch.rand(3, generator=g)) or x  # noqa: E731
        train(Bias(), numbered(augment=augment), Training(epochs=1), seed=seed)
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_modules_are_projected_after_every_step():
    class Bounded(Bias):
        calls = 0

        def project(self):
            assert not torch.is_grad_enabled()
            self.calls += 1
            self.bias.clamp_(-0.01, 0.01)

    model = nn.Sequential(Bounded())
    recipe = Training(epochs=3, rate=1.0, batch=2, keep_start=False)
    history = train(model, all_right(right=1), recipe, seed=0)
    assert model[0].calls == history.steps == 12
    assert float(model[0].bias.detach().abs().max()) <= 0.01  # the first rate alone is 0.01
    assert float(model[0].bias.detach().abs().max()) > 0.0


def test_modes_are_put_back():
    model = wave_network(norm="batch")
    model.eval()
    model.layers.train()
    train(model, waves(), SHORT, seed=0)
    assert not model.training
    assert not model.norms[0].training
    assert model.layers[0].training


def test_what_is_reported():
    reports = []
    recipe = Training(epochs=2, batch=1, rate=0.1, patience=None)
    train(Bias(), numbered(count=60), recipe, seed=0, progress=reports.append, name="mine")
    assert [(r.epoch, r.step, r.steps, r.epochs) for r in reports] == [
        (1, 50, 60, 2),
        (1, 60, 60, 2),
        (2, 50, 60, 2),
        (2, 60, 60, 2),
    ]
    assert [r.score is None for r in reports] == [True, False, True, False]
    assert {r.name for r in reports} == {"mine"}
    assert all(math.isfinite(r.loss) for r in reports)


def test_a_bar_on_stderr_alone(capsys):
    train(Bias(), numbered(), Training(epochs=1), seed=0, progress=True, name="mine")
    shown = capsys.readouterr()
    assert "mine, epoch 1" in shown.err
    assert shown.out == ""
    train(Bias(), numbered(), Training(epochs=1), seed=0)
    assert capsys.readouterr().err == ""


def test_a_loss_that_is_not_finite_ends_the_training():
    model = Bias()
    before = state(model)
    model.forward = lambda x: model.bias.expand(len(x), -1) * math.inf
    with pytest.raises(DivergenceError, match=r"not finite after epoch 1.*smaller rate"):
        train(model, all_right(), Training(), seed=0)
    assert same(state(model), before)


def test_weights_that_are_not_finite_end_the_training():
    """The loss of the only step is finite, its gradient is not: the slope of a root at 0."""
    model = Bias()
    before = state(model)
    model.forward = lambda x: (model.bias - model.bias.detach()).sqrt().expand(len(x), -1)
    with pytest.raises(DivergenceError, match="not finite after epoch 1"):
        train(model, all_right(), _one_step(rate=1e-3, clip=None), seed=0)
    assert same(state(model), before)


def test_an_interrupt_leaves_the_best_weights(scripted):
    scripted(50.0, 60.0, 55.0)
    model, shown = Bias(), []

    def interrupt(report):
        shown.append(state(model))
        if report.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(model, all_right(), Training(rate=0.1), seed=0, progress=interrupt)
    assert same(state(model), shown[0])
    assert not same(shown[0], shown[1])


def test_mixed_precision_learns_too():
    model = wave_network()
    recipe = Training(epochs=12, rate=2e-2, batch=10, precision="bf16-mixed")
    assert train(model, waves(), recipe, seed=0).best_score > LEARNT
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_refusals(monkeypatch):
    task, frozen = numbered(), Bias().requires_grad_(False)
    with pytest.raises(RequestError, match="no parameter that can be trained"):
        train(frozen, task, SHORT, seed=0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(RequestError, match="not as many GPUs; expected at least 2, got 1"):
        train(Bias(), task, Training(accelerator="cuda", devices=2), seed=0)
    with pytest.raises(DataError, match="fewer training sequences than processes"):
        train(Bias(), numbered(count=3), Training(devices=4, strategy="ddp_fork"), seed=0)
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'ssmred\[prune\]'"):
        train(Bias(), task, SHORT, seed=0)


def _one_step(**options):
    return Training(epochs=1, batch=8, keep_start=False, **options)
