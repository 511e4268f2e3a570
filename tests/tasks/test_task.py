"""Tasks check their parts, score by hand formulae, and open their test part once."""

import math
import pickle
from dataclasses import replace

import pytest
import torch
from task_cases import classes_of, sequences, small_task

from ssmred.errors import DataError, OrderError, RequestError, ShapeError
from ssmred.tasks import Sample, Task

ROUNDING = 1e-6
"""Float32 losses of a few terms."""


def labels_of(*rows):
    return torch.tensor(rows, dtype=torch.float32)


# --- scores and losses -----------------------------------------------------------------------


def outputs_for(answers, classes):
    return torch.nn.functional.one_hot(torch.tensor(answers), classes).float()


def test_accuracy_is_the_share_of_right_classes():
    task = small_task(classes=3)
    outputs = outputs_for([0, 1, 2, 2], 3)
    assert task.score(outputs, torch.tensor([0, 1, 2, 0])) == 75.0


def test_macro_f1_by_hand():
    """Class 0: 2 TP, 1 FP; class 1: 1 TP, 1 FN, 1 FP; class 2: 1 FN and nothing else."""
    task = small_task(classes=3, metric="macro-f1")
    outputs = outputs_for([0, 0, 0, 1, 1], 3)
    wanted = (4 / 5 + 2 / 4 + 0) / 3
    assert task.score(outputs, torch.tensor([0, 0, 1, 1, 2])) == pytest.approx(100 * wanted)


def test_macro_f1_leaves_out_classes_that_do_not_occur():
    task = small_task(classes=5, metric="macro-f1")
    assert task.score(outputs_for([0, 1], 5), torch.tensor([0, 1])) == 100.0


def several(metric="macro-f1"):
    x = sequences(6, 10, 1)
    y = labels_of(*([1, 0, 1], [0, 1, 0]) * 3)
    return Task(
        "several",
        Sample(x[:3], y[:3]),
        Sample(x[3:5], y[3:5]),
        3,
        lambda: Sample(x[5:], y[5:]),
        kind="multi-label",
        metric=metric,
    )


def test_macro_f1_of_several_labels_cuts_at_one_half():
    """Class 0: 1 TP, 1 FN; class 1: probability exactly 1/2 is a yes, 1 TP; class 2: 1 FP."""
    outputs = torch.tensor([[3.0, -1.0, 2.0], [-3.0, 0.0, -2.0]])
    wanted = (2 / 3 + 1 + 0) / 3
    found = several().score(outputs, labels_of([1, 0, 0], [1, 1, 0]))
    assert found == pytest.approx(100 * wanted)


def test_macro_f1_of_nothing_to_find_and_nothing_found():
    assert several().score(-torch.ones(2, 3), torch.zeros(2, 3)) == 100.0


def test_accuracy_of_several_labels_wants_all_of_them():
    outputs = torch.tensor([[3.0, -1.0, 2.0], [-3.0, 1.0, 2.0]])
    found = several("accuracy").score(outputs, labels_of([1, 0, 1], [0, 1, 0]))
    assert found == 50.0


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_outputs_that_are_not_finite_are_never_right(broken):
    outputs = torch.tensor([[broken, 0.0], [1.0, 0.0]])
    assert small_task().score(outputs, torch.tensor([0, 0])) == 50.0
    assert small_task(metric="macro-f1").score(outputs, torch.tensor([0, 0])) == pytest.approx(
        100 * 2 / 3
    )  # one right, one not found
    broken_rows = torch.full((2, 3), broken)
    assert several().score(broken_rows, labels_of([1, 0, 1], [0, 1, 0])) == 0.0


def test_cross_entropy_by_hand():
    outputs, labels = torch.tensor([[1.0, 0.0], [0.0, 3.0]]), torch.tensor([0, 0])
    rows = [math.log(1 + math.exp(-1)), math.log(1 + math.exp(3))]
    assert float(small_task().loss(outputs, labels)) == pytest.approx(sum(rows) / 2, abs=ROUNDING)
    other = [rows[0] + 1, rows[1] - 3]  # the loss of class 1
    smoothed = sum(0.9 * own + 0.1 * (own + out) / 2 for own, out in zip(rows, other, strict=True))
    found = float(small_task().loss(outputs, labels, smoothing=0.1))
    assert found == pytest.approx(smoothed / 2, abs=ROUNDING)


def test_binary_cross_entropy_by_hand():
    outputs, labels = torch.tensor([[2.0, -1.0, 0.5]]), labels_of([1, 0, 0])
    yes, no = (lambda z: math.log(1 + math.exp(-z))), (lambda z: math.log(1 + math.exp(z)))
    plain = (yes(2) + no(-1) + no(0.5)) / 3
    assert float(several().loss(outputs, labels)) == pytest.approx(plain, abs=ROUNDING)
    half = sum((yes(z) + no(z)) / 2 for z in (2, -1, 0.5)) / 3
    found = float(several().loss(outputs, labels, smoothing=0.2))
    assert found == pytest.approx(0.8 * plain + 0.2 * half, abs=ROUNDING)


@pytest.mark.parametrize("judge", ["loss", "score"])
def test_outputs_of_other_classes_are_refused(judge):
    with pytest.raises(ShapeError, match=r"do not fit the classes.*\(4, 2\).*\(4, 3\)"):
        getattr(small_task(), judge)(torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64))


# --- parts -----------------------------------------------------------------------------------


def test_sizes():
    task = small_task()
    assert (task.length, task.features, task.vocabulary) == (10, 1, None)
    assert "8 training and 4 validation sequences of 10 steps, 2 classes" in repr(task)


def test_sizes_of_tokens_in_pairs():
    tokens, y = torch.arange(8 * 2 * 7).reshape(8, 2, 7), classes_of(8)
    task = small_task(
        train=Sample(tokens[:4], y[:4]),
        val=Sample(tokens[4:].int(), y[4:]),
        kind="two-stream",
        vocabulary=8 * 2 * 7,
    )
    assert (task.length, task.features) == (7, 1)


def test_no_validation_part():
    with pytest.raises(DataError, match="no validation part"):
        small_task(val=None)


def test_parts_are_samples():
    with pytest.raises(DataError, match="train is no Sample"):
        small_task(train=(sequences(2, 10, 1), classes_of(2)))


def test_test_part_is_made_on_demand():
    with pytest.raises(DataError, match="test is no callable"):
        small_task(test=Sample(sequences(2, 10, 1), classes_of(2)))


@pytest.mark.parametrize("part", ["train", "val"])
def test_empty_parts(part):
    with pytest.raises(DataError, match=f"{part} is empty"):
        small_task(**{part: Sample(torch.zeros(0, 10, 1), torch.zeros(0, dtype=torch.int64))})


@pytest.mark.parametrize(
    "inputs",
    [sequences(4, 10), sequences(4, 10, 1).double(), torch.zeros(4, 10, 1, dtype=torch.int64)],
    ids=["no features", "float64", "integers"],
)
def test_inputs_of_another_form(inputs):
    with pytest.raises(ShapeError, match=r"inputs of val.*\(n, T, features\) float32"):
        small_task(val=Sample(inputs, classes_of(4)))


def test_lengths_agree():
    with pytest.raises(ShapeError, match=r"val are not like those of train.*\(n, 10, 1\)"):
        small_task(val=Sample(sequences(4, 9, 1), classes_of(4)))


def test_inputs_are_finite():
    x = sequences(4, 10, 1)
    x[2, 3] = math.nan
    with pytest.raises(DataError, match="inputs of val are not finite"):
        small_task(val=Sample(x, classes_of(4)))


@pytest.mark.parametrize("wrong", [-1, 2])
def test_labels_are_classes(wrong):
    with pytest.raises(DataError, match="labels of val are outside the 2 classes"):
        small_task(val=Sample(sequences(4, 10, 1), torch.tensor([0, 1, 0, wrong])))


def test_labels_have_their_form():
    with pytest.raises(ShapeError, match=r"labels of val.*\(4,\) int64.*\(4, 2\) float32"):
        small_task(val=Sample(sequences(4, 10, 1), torch.zeros(4, 2)))
    with pytest.raises(ShapeError, match=r"labels of val.*\(4,\) int64.*\(3,\)"):
        small_task(val=Sample(sequences(4, 10, 1), classes_of(3)))


def test_several_labels_are_zero_or_one():
    with pytest.raises(DataError, match="not all 0 or 1"):
        replace(several(), val=Sample(sequences(2, 10, 1, seed=1), labels_of([1, 0, 2], [0, 0, 0])))


@pytest.mark.parametrize("wrong", [-1, 5])
def test_tokens_are_in_the_vocabulary(wrong):
    tokens = torch.arange(20).reshape(4, 5) % 5
    tokens[3, 3] = wrong
    parts = {"train": Sample(tokens[:2], classes_of(2)), "val": Sample(tokens[2:], classes_of(2))}
    with pytest.raises(DataError, match=r"tokens of val are outside.*expected 0 to 4"):
        small_task(vocabulary=5, **parts)


def test_pairs_are_two():
    with pytest.raises(ShapeError, match=r"\(n, 2, T, features\)"):
        small_task(kind="two-stream", train=Sample(sequences(4, 3, 10, 1), classes_of(4)))


@pytest.mark.parametrize("wrong", [{"kind": "regression"}, {"metric": "auc"}])
def test_kinds_and_metrics(wrong):
    with pytest.raises(RequestError, match=r"no (kind|metric)"):
        small_task(**wrong)


def test_numbers():
    with pytest.raises(OrderError, match="classes"):
        small_task(classes=1)
    with pytest.raises(OrderError, match="vocabulary"):
        small_task(vocabulary=0)
    with pytest.raises(DataError, match="repeats"):
        small_task(repeats=1.0)


def test_validation_repeats_training():
    task = small_task()
    x = torch.cat([task.val.inputs[:3], task.train.inputs[:1]])
    with pytest.raises(DataError, match="1 of 4 sequences of val are also in train"):
        replace(task, val=Sample(x, classes_of(4)))
    assert replace(task, val=Sample(x, classes_of(4)), repeats=0.25).repeats == 0.25


# --- the test part ---------------------------------------------------------------------------


def test_test_part_opens_once():
    made = []
    task = small_task()
    shut = replace(task, test=lambda: made.append(1) or task.test())
    assert (shut.opened, made) == (False, [])
    assert len(shut.open_test("a table")) == 6
    assert (shut.opened, made) == (True, [1])
    with pytest.raises(RequestError, match="opened before, for a table"):
        shut.open_test()
    assert made == [1]


def test_faults_of_the_test_part_show_without_opening_it():
    task = small_task()
    assert task.check_test() is None
    assert not task.opened
    with pytest.raises(DataError, match="sequences of test are also in train"):
        replace(task, test=lambda: task.train).check_test()


def test_another_task_is_another_run():
    task = small_task()
    task.open_test()
    assert not replace(task).opened


def test_test_data_choose_nothing():
    task = small_task()
    assert task.part("val") is task.val
    with pytest.raises(RequestError, match="test data do not choose"):
        task.part("test")
    with pytest.raises(RequestError, match="no part 'held_out'"):
        task.part("held_out")
    assert not task.opened


@pytest.mark.parametrize("part", ["train", "val"])
def test_test_part_repeats_nothing(part):
    task = small_task()
    leaking = replace(task, test=lambda: getattr(task, part))
    with pytest.raises(DataError, match=f"sequences of test are also in {part}"):
        leaking.open_test()


def test_test_part_is_checked():
    task = small_task(test=lambda: Sample(sequences(3, 10, 1, seed=4), torch.tensor([0, 1, 2])))
    with pytest.raises(DataError, match="labels of test are outside"):
        task.open_test()


def test_copies_for_other_processes_have_no_test_part():
    task = replace(small_task(), test=Forbidden())
    copy = pickle.loads(pickle.dumps(task))
    assert torch.equal(copy.train.inputs, task.train.inputs)
    with pytest.raises(RequestError, match="no test part"):
        copy.open_test()


class Forbidden:
    """A test part that must not travel."""

    def __call__(self):
        raise AssertionError

    def __reduce__(self):
        raise AssertionError
