"""Expressions are worth what another reading of them says; parts share none."""

import numpy as np
import pytest
import torch

from ssmred import tasks, zoo
from ssmred.errors import DataError, OrderError, RequestError
from ssmred.tasks.listops import LONG, SHORT, VOCABULARY, ListOps, decode, listops_parts


def worth(words):
    """Return value, depth and largest number of arguments; takes the words it reads."""
    word = words.pop(0)
    if word.isdigit():
        return int(word), 1, 0
    values, depths, widths = [], [], []
    while words[0] != "]":
        value, depth, width = worth(words)
        values.append(value)
        depths.append(depth)
        widths.append(width)
    words.pop(0)
    rules = {
        "[MIN": min,
        "[MAX": max,
        "[MED": lambda v: int(np.floor(np.median(v))),
        "[SM": lambda v: int(np.sum(v)) % 10,
    }
    return rules[word](values), 1 + max(depths), max(len(values), *widths)


@pytest.mark.parametrize("grammar", [ListOps(3, 3, 4, 20), SHORT, LONG])
def test_answers(grammar):
    tokens, answers = grammar.sample(60, seed=5)
    assert tokens.shape == (60, grammar.max_length)
    for row, answer in zip(tokens, answers, strict=True):
        words = decode(row).split()
        assert grammar.min_length <= len(words) <= grammar.max_length
        value, depth, width = worth(words)
        assert not words
        assert value == answer
        assert depth <= grammar.max_depth
        assert width <= grammar.max_args
        assert row[-1]


def small(**options):
    return tasks.load("listops", **({"training": 300, "held_out": 60, "test": 80} | options))


def test_parts_share_nothing():
    task = small(max_depth=3, max_args=3, min_length=4, max_length=8)  # few expressions
    parts = [task.train, task.val, task.open_test()]
    rows = [row.tobytes() for part in parts for row in part.inputs.numpy()]
    assert len(set(rows)) == len(rows) == 440


def test_sizes_and_split():
    task = small(max_length=64)
    assert (task.vocabulary, task.classes, task.length) == (len(VOCABULARY), 10, 64)
    assert [task.split[name] for name in ("train", "val", "test")] == [300, 60, 80]
    assert task.split["grammar"]["max_length"] == 64


def test_fewer_are_the_beginning_of_more():
    few, many = (listops_parts(n, held_out=20, test=20)["training"].inputs for n in (50, 90))
    assert torch.equal(few, many[:50])


def test_default_parts_are_those_of_the_bundled_networks():
    task, (_, data) = tasks.load("listops", training=600), zoo.load("listops-s4d")
    test = task.open_test()
    assert torch.equal(test.inputs, data.test.inputs)
    assert torch.equal(test.labels, data.test.labels)
    assert torch.equal(task.train.inputs[:512], data.calibration.inputs)


def test_no_room_for_expressions():
    with pytest.raises(RequestError, match="no expression fits"):
        small(max_depth=1)
    with pytest.raises(DataError, match=r"only 360 of 500 expressions"):  # 4 x 10 x 10 in all
        small(
            max_depth=2, max_args=2, min_length=4, max_length=4, training=500, held_out=20, test=20
        )
    with pytest.raises(OrderError, match="held_out"):
        small(held_out=0)
