"""Families: what they say, what they refuse, and that their folders are read strictly."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from typing import Any

import numpy as np
import pytest
import torch
from families import OPERATORS, family, member, members, networks, parent, spread

from ssmred.deploy import Spread
from ssmred.errors import CheckpointError, DataError, RequestError, ShapeError, SsmredError
from ssmred.networks import save_network
from ssmred.prune import Family, Member

INPUTS = torch.linspace(-1.0, 1.0, 6).reshape(2, 3)


def same_outputs(one: torch.nn.Module, two: torch.nn.Module) -> bool:
    return torch.equal(one(INPUTS), two(INPUTS))


# Members -----------------------------------------------------------------------------------------


def test_a_ratio_of_latencies_by_hand():
    assert members()[2].latency_ratio == 0.25
    assert members()[2].relative.upper == pytest.approx(1.1 * 0.25, rel=1e-15)
    paired = dataclasses.replace(members()[2], ratio=Spread(0.2, 0.3, 0.4))
    assert (paired.latency_ratio, paired.relative.upper) == (0.3, 0.4)
    stored = json.loads(json.dumps(paired.to_dict()))
    assert Member.from_dict(stored) == paired
    del stored["ratio"]  # as older records have none
    assert Member.from_dict(stored).latency_ratio == 0.25
    assert parent().latency_ratio == 1.0


def test_a_member_survives_its_record():
    for one in (parent(), *members()):
        stored = json.loads(json.dumps(one.to_dict(), allow_nan=False))
        assert Member.from_dict(stored) == one
        assert stored["latency_ratio"] == one.latency_ratio


def test_numpy_numbers_and_infinity_are_stored():
    one = member(
        [[0, 1, 3], [0, 1, 3]],
        latency=6e-3,
        scores=(np.float64(88), 91, None, None),
        weights="w",
        error={"bound": math.inf, "guarantee": "worst-case", "layers": np.array([1.0, 2.0])},
    )
    stored = json.loads(json.dumps(one.to_dict(), allow_nan=False))
    assert stored["error"] == {"bound": "inf", "guarantee": "worst-case", "layers": [1.0, 2.0]}
    assert Member.from_dict(stored).bound == math.inf
    assert stored["scores"]["test_after"] is None


SCORES = parent().scores


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"removed": 1}, "the mask and the numbers disagree"),
        ({"rate": 0.07}, "the rate is not that of the mask"),
        ({"rate": -0.1}, "rate"),
        ({"kept": {}}, "no mask"),
        ({"kept": {"a": [0, 0, 1, 2], "b": [0, 1, 2, 3]}}, "does not rise"),
        ({"kept": {"a": "0123", "b": [0, 1, 2, 3]}}, "is no list"),
        ({"latency": Spread(3.0, 2.0, 1.0)}, "latency is no latency"),
        ({"latency": Spread(1.0, math.nan, 3.0)}, "latency is no latency"),
        ({"ratio": 0.5}, "ratio is no latency"),
        ({"parent_latency": None}, "parent_latency is no latency"),
        ({"error": {"bound": 0.1}}, "no certificate"),
        ({"error": {"bound": -0.1, "guarantee": "layer"}}, "no bound"),
        ({"error": {"bound": math.nan, "guarantee": "layer"}}, "no nan"),
        ({"scores": SCORES | {"val_after": None}}, "val_after is no score"),
        ({"scores": SCORES | {"val_after": "inf"}}, "val_after is no score"),
        ({"scores": SCORES | {"train": 1.0}}, "other keys"),
        ({"scores": SCORES | {"candidates": [object()]}}, "cannot be stored"),
        ({"weights": "/etc"}, "no place in the folder"),
        ({"weights": "a/../../b"}, "no place in the folder"),
        ({"weights": "."}, "no place in the folder"),
        ({"bytes": 1.5}, "bytes"),
        ({"seconds": math.nan}, "seconds"),
    ],
)
def test_a_member_that_cannot_be_is_refused(wrong, text):
    with pytest.raises(SsmredError, match=text):
        dataclasses.replace(parent(), **wrong)


# Families ----------------------------------------------------------------------------------------


def test_members_by_rate_and_their_networks():
    made = family()
    assert made.member(0) is made.parent
    assert made.member(0.1 + 0.4) is made.members[1]
    assert made.model(0.75) is made.held["rate-75"]
    assert not made.model(0.75).training
    # To half an operator: 0.3 of 8 operators are 2.4, which are 2.
    assert made.member(0.3) is made.members[0]
    with pytest.raises(RequestError, match=r"one of 0, 0.25, 0.5, 0.75, got 0.35"):
        made.model(0.35)
    again = dataclasses.replace(made.members[0], weights="again")  # nothing more had to go
    assert family(members=(made.members[0], again)).member(0.25) is again


def test_the_front_by_hand():
    made = family()
    # 50 % is beaten by 75 %, the parent by 25 % on the validation part.
    assert [m.rate for m in made.pareto()] == [0.75, 0.25]
    assert [m.rate for m in made.pareto(y="test")] == [0.75, 0.25, 0.0]
    assert [m.rate for m in made.pareto("parameters")] == [0.75, 0.25]
    assert [m.rate for m in made.pareto("bytes", "test")] == [0.75, 0.25, 0.0]
    # Equal in both respects: neither beats the other.
    twins = tuple(dataclasses.replace(m, scores=SCORES, latency=spread(8e-3)) for m in members())
    assert len(family(members=twins).pareto()) == 4


def test_the_front_uses_ratios_because_runs_differ():
    # Measured in a slower hour: more seconds than the parent's, in an hour when the parent took 4x.
    slow = member(
        [[0, 1, 3], [0, 1, 3]],
        latency=16e-3,
        scores=(80, 80, 80, 80),
        weights="slow",
        parent_latency=spread(32e-3),
    )
    assert [m.rate for m in family(members=(slow,)).pareto()] == [0.25, 0.0]


def test_wrong_questions_to_the_front_are_refused():
    with pytest.raises(ShapeError, match="x is not known"):
        family().pareto("seconds")
    with pytest.raises(ShapeError, match="y is not known"):
        family().pareto(y="train")
    closed = tuple(
        dataclasses.replace(m, scores=m.scores | {"test_before": None, "test_after": None})
        for m in members()
    )
    with pytest.raises(RequestError, match="not opened"):
        family(members=closed).pareto(y="test")
    assert family(members=closed).pareto()


def test_the_table_by_hand():
    page = str(family()).splitlines()
    assert page[2].split() == [
        *("none", "(parent)", "8", "of", "8", "180", "720", "B", "8", "ms", "[7.2", "ms,"),
        *("8.8", "ms]", "1.00", "-", "90.00", "90.00", "89.00", "89.00"),
    ]
    assert page[5].split() == [
        *("75", "%", "2", "of", "8", "120", "480", "B", "2", "ms", "[1.8", "ms,"),
        *("2.2", "ms]", "0.25", "1.25e-01", "50.00", "85.00", "49.00", "84.00"),
    ]
    assert page[7].startswith("listops: accuracy in percent")
    assert page[-1] == "a machine"
    assert "20 ms where every pass makes the kernels anew" in page[-2]
    assert "bound (statistical)" in page[-3]


def renamed(one: Member) -> Member:
    return dataclasses.replace(one, kept={f"x.{name}": live for name, live in one.kept.items()})


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"parent": members()[0]}, "the parent has lost 2"),
        ({"members": members()[::-1]}, "rates fall"),
        ({"members": (renamed(members()[0]),)}, "other layers"),
        (
            {
                "members": (
                    members()[1],
                    member([[2], [1]], latency=2e-3, scores=(50, 85, 49, 84), weights="back"),
                )
            },
            "layers.0 come back at rate 0.75",
        ),
        ({"members": (dataclasses.replace(members()[0], weights="parent"),)}, "in one place"),
        ({"options": {"noise": math.nan}}, "no nan"),
    ],
)
def test_what_is_no_family_is_refused(wrong, text):
    with pytest.raises(DataError, match=text):
        family(**wrong)


# Folders -----------------------------------------------------------------------------------------


@pytest.fixture
def stored(tmp_path):
    """Return the folder of a family."""
    family().save(tmp_path / "family")
    return tmp_path / "family"


def test_a_family_survives_its_folder(stored):
    made, read = family(), Family.load(stored)
    expected = made.to_dict() | {"digests": read.to_dict()["digests"]}
    assert read.to_dict() == expected
    assert str(read) == str(made)
    for rate in (0, 0.25, 0.5, 0.75):
        assert same_outputs(read.model(rate), made.model(rate))


def test_networks_are_read_when_they_are_asked_for(stored):
    asked = []

    def read(path):
        asked.append(path.name)
        return torch.nn.Linear(3, 2)

    made = Family.load(stored, read=read)
    assert asked == []
    made.model(0.5)
    assert asked == ["rate-50"]


def test_saving_twice_replaces_and_saving_elsewhere_copies(stored, tmp_path):
    (stored / "rate-25" / "more.txt").write_text("to be gone")
    short = family(members=members()[:1]).save(stored)
    assert {entry.name for entry in stored.iterdir()} == {"family.json", "parent", "rate-25"}
    assert not (stored / "rate-25" / "more.txt").exists()
    assert short.folder == stored
    elsewhere = Family.load(stored).save(tmp_path / "a" / "copy")
    shutil.rmtree(stored)
    assert same_outputs(elsewhere.model(0.25), networks()["rate-25"])
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]  # nothing is left beside


def test_a_family_in_its_own_folder_writes_what_is_missing(tmp_path):
    made = family(folder=tmp_path, members=members()[:1])
    save_network(made.held["parent"], tmp_path / "parent")
    (tmp_path / "state.json").write_text("{}")
    before = (tmp_path / "parent" / "weights.safetensors").stat().st_mtime_ns
    made.save()
    assert (tmp_path / "parent" / "weights.safetensors").stat().st_mtime_ns == before
    assert same_outputs(Family.load(tmp_path).model(0.25), made.model(0.25))
    assert (tmp_path / "state.json").exists()


def test_an_interrupted_save_leaves_the_older_family(stored):
    def interrupted(model, path):
        raise KeyboardInterrupt

    before = (stored / "family.json").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        family(machine="another").save(stored, write=interrupted)
    assert (stored / "family.json").read_bytes() == before
    assert Family.load(stored).model(0.5)
    assert [entry.name for entry in stored.parent.iterdir()] == ["family"]


def test_other_folders_are_not_replaced(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(CheckpointError, match="holds no earlier family"):
        family().save(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(CheckpointError, match="holds no earlier family"):
        family().save(tmp_path / "thesis.tex")


def test_weights_that_are_nowhere_are_refused(tmp_path):
    with pytest.raises(RequestError, match="no folder"):
        family().save()
    with pytest.raises(CheckpointError, match="rate-25 are nowhere"):
        family(held={"parent": networks()["parent"]}).save(tmp_path / "family")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(CheckpointError, match="neither in memory"):
        family(held={}).model(0.25)


def test_exchanged_and_missing_weights_are_refused(stored):
    made = Family.load(stored)
    shutil.rmtree(stored / "rate-25")
    shutil.copytree(stored / "rate-50", stored / "rate-25")
    with pytest.raises(CheckpointError, match="not hold the weights"):
        made.model(0.25)
    shutil.rmtree(stored / "rate-25")
    with pytest.raises(CheckpointError, match="there is no"):
        made.model(0.25)
    with pytest.raises(CheckpointError, match="lacks rate-25"):
        Family.load(stored)


def edit(record: Any, path: str, value: object) -> None:
    """Put a value at a place in a record; None takes away what is there."""
    first, _, rest = path.partition("/")
    key = int(first) if isinstance(record, list) else first
    if rest:
        edit(record[key], rest, value)
    elif value is None:
        del record[key]
    else:
        record[key] = value


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        ("format", "ssmred-network", "it is no family"),
        ("schema", 2, "another schema"),
        ("schema", None, "another schema"),
        ("split", None, "missing or unknown: split"),
        ("note", "mine", "missing or unknown: note"),
        ("machine", 3, "another type: machine"),
        ("members", {}, "another type: members"),
        ("members/0/rate", None, "no member"),
        ("members/0/rate", "0.25", "rate"),
        ("members/0/colour", 1, "no member"),
        ("members/0/removed", 3, "disagree"),
        ("members/0/operators", OPERATORS + 1, "disagree"),
        ("members/0/latency", 1.0, "no latency"),
        ("members/0/latency/median", "fast", "no latency"),
        ("members/0/weights", "../elsewhere", "no place"),
        ("members/0/kept", [1, 2], "no mask"),
        ("members/1/kept/layers.1", [2], "come back"),
        ("members/1", 7, "no member"),
        ("digests/parent", None, "digests"),
    ],
)
def test_damaged_records_are_refused(stored, path, value, text):
    record = json.loads((stored / "family.json").read_text())
    edit(record, path, value)
    (stored / "family.json").write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match=text):
        Family.load(stored)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null"])
def test_what_is_no_json_object_is_refused(stored, content):
    (stored / "family.json").write_bytes(content)
    with pytest.raises(CheckpointError, match="cannot be read"):
        Family.load(stored)


def test_a_folder_without_a_family_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be read"):
        Family.load(tmp_path / "absent")


def test_every_cut_of_the_file_is_refused(stored):
    text = (stored / "family.json").read_text()
    for end in range(0, len(text.rstrip()), 97):
        (stored / "family.json").write_text(text[:end])
        with pytest.raises(CheckpointError):
            Family.load(stored)
