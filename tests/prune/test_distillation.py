"""Distillation: losses by hand, and students that follow their teacher."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from toys import Bias, all_right, numbered, same, state, wave_network, waves

from ssmred.errors import RequestError, ShapeError
from ssmred.prune import Training, train
from ssmred.prune.losses import divergence, mixed_loss
from ssmred.prune.scoring import outputs_of

ROUNDING = 1e-6
"""Some ten operations on numbers near 1 in float32."""

CLOSE = 0.02
"""Of outputs to a teacher's after 300 steps at rates that fall from 0.05 to 0."""


def test_divergence_by_hand():
    """tau = 2: a teacher of odds 3 : 1 and a student of 1 : 1, and one that is right."""
    teacher = torch.tensor([[2.0 * math.log(3.0), 0.0], [1.0, 5.0]])
    student = torch.tensor([[4.0, 4.0], [1.0, 5.0]])
    one = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    value = divergence(student, teacher, 2.0, several=False)
    assert float(value) == pytest.approx(4.0 * one / 2.0, abs=ROUNDING)


def test_divergence_of_several_labels_by_hand():
    teacher = torch.tensor([[3.0 * math.log(4.0)]])  # probability 4 / 5 at tau = 3
    student = torch.tensor([[-3.0 * math.log(3.0)]])  # probability 1 / 4
    value = divergence(student, teacher, 3.0, several=True)
    wanted = -9.0 * (0.8 * math.log(0.25) + 0.2 * math.log(0.75))
    assert float(value) == pytest.approx(wanted, abs=10 * ROUNDING)  # near 11


def test_shares_of_the_loss():
    task = all_right()
    outputs, labels = torch.tensor([[0.0, math.log(3.0)]]), torch.tensor([0])
    teacher = torch.tensor([[math.log(3.0), 0.0]])
    apart = 0.75 * math.log(3.0) + 0.25 * math.log(1.0 / 3.0)
    for share in (0.0, 0.25, 1.0):
        loss = mixed_loss(
            outputs, labels, teacher, task, share=share, temperature=1.0, smoothing=0.0
        )
        wanted = (1.0 - share) * math.log(4.0) + share * apart
        assert float(loss) == pytest.approx(wanted, abs=ROUNDING)
    without = mixed_loss(outputs, labels, None, task, share=1.0, temperature=1.0, smoothing=0.0)
    assert float(without) == pytest.approx(math.log(4.0), abs=ROUNDING)


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_students_follow_their_teacher(share):
    """All labels are 0. The best outputs have p = 1/3 by the teacher alone, 2/3 if it counts half.

    The minimum of ``-(1 - a) log p + a KL((1/3, 2/3) || (p, 1 - p))`` is at p = 1 - 2 a / 3.
    """
    task, student, teacher = all_right(), Bias(), Bias((0.0, math.log(2.0)))
    recipe = Training(
        epochs=300,
        rate=0.05,
        weight_decay=0.0,
        patience=None,
        distillation=share,
        temperature=1.0,
        keep_start=False,
    )
    seen = []
    train(
        student,
        task,
        recipe,
        seed=0,
        teacher=teacher,
        progress=lambda _: seen.append(student.bias.detach().clone()),
    )
    found = seen[-1].softmax(0)[0]  # the last epoch, which validation need not choose
    assert abs(float(found) - (1.0 - 2.0 * share / 3.0)) < CLOSE
    assert torch.equal(teacher.bias.detach(), torch.tensor([0.0, math.log(2.0)]))


def test_the_loss_tells_apart_what_the_score_does_not():
    """Every epoch answers 0, which is right, until the teacher's 1 wins: all scores are 100 %."""
    task, teacher = all_right(), Bias((0.0, math.log(2.0)))
    recipe = Training(epochs=5, rate=0.05, patience=None, distillation=1.0, temperature=1.0)
    by_score = train(Bias((1.0, 0.0)), task, recipe, seed=0, teacher=teacher)
    assert by_score.best == 0
    assert by_score.val_losses == ()
    student = Bias((1.0, 0.0))
    recipe = replace(recipe, judge="loss")
    by_loss = train(student, task, recipe, seed=0, teacher=teacher)
    assert by_loss.scores == by_score.scores
    assert by_loss.best == 5
    assert by_loss.val_losses == tuple(sorted(by_loss.val_losses, reverse=True))
    p = student.bias.detach().softmax(0)
    found = sum(q * math.log(q / float(p[k])) for k, q in enumerate((1 / 3, 2 / 3)))
    assert abs(by_loss.val_losses[-1] - found) < 1e-6


def test_stored_outputs_teach_what_their_network_teaches():
    task, teacher = waves(), wave_network(channels=8, dropout=0.3)
    recipe = Training(epochs=2, rate=1e-2, distillation=0.5)
    outputs = outputs_of(teacher, task.train.inputs)
    results = []
    for source in (teacher, outputs):
        student = wave_network()
        train(student, task, recipe, seed=0, teacher=source)
        results.append(state(student))
    assert same(*results)


def test_a_teacher_sees_the_augmented_sequences():
    """Its outputs cannot be computed once and for all, so it runs in every step."""

    class Recording(Bias):
        def forward(self, x):
            seen.append((x.flatten().tolist(), self.training))
            return super().forward(x)

    seen = []
    task = numbered(augment=lambda x, _: x + 100.0)
    recipe = Training(epochs=1, batch=5, distillation=1.0)
    train(Bias(), task, recipe, seed=0, teacher=Recording())
    assert sorted(number for row, _ in seen for number in row) == [100.0 + k for k in range(10)]
    assert not any(training for _, training in seen)


def test_a_teacher_is_not_asked_where_it_does_not_count():
    class Refusing(Bias):
        def forward(self, x):
            raise AssertionError

    train(Bias(), all_right(), Training(epochs=1), seed=0, teacher=Refusing())


def test_teachers_that_cannot_be():
    task, model = numbered(), Bias()
    recipe = Training(epochs=1, distillation=0.5)
    with pytest.raises(RequestError, match="no teacher"):
        train(model, task, recipe, seed=0)
    with pytest.raises(RequestError, match="the teacher is the network itself"):
        train(model, task, recipe, seed=0, teacher=model)
    with pytest.raises(ShapeError, match=r"expected \(10, 2\), got \(9, 2\)"):
        train(model, task, recipe, seed=0, teacher=torch.zeros(9, 2))
    with pytest.raises(RequestError, match="outputs on the validation part are not known"):
        train(model, task, replace(recipe, judge="loss"), seed=0, teacher=torch.zeros(10, 2))
    mirrored = replace(task, augment=lambda x, _: -x)
    with pytest.raises(RequestError, match="augmented"):
        train(model, mirrored, recipe, seed=0, teacher=torch.zeros(10, 2))
    train(model, task, recipe, seed=0, teacher=copy.deepcopy(model))
