"""Tasks are found by name, and options that do not exist are named."""

import pytest

from ssmred import tasks, zoo
from ssmred.errors import DataError, RequestError
from ssmred.tasks import catalogue


def test_names():
    assert {"listops", "fashion-mnist", "ecg5000", "fetal-ecg", "ford-a", "imdb"} <= set(
        tasks.NAMES
    )
    assert sum(name.startswith("lra-") for name in tasks.NAMES) == 5


def test_unknown_task():
    with pytest.raises(RequestError, match="no task 'mnist'; expected one of listops, "):
        tasks.load("mnist")


def test_unknown_option():
    with pytest.raises(RequestError, match=r"listops has no option 'depth'.*max_depth"):
        tasks.load("listops", depth=3)


def test_options_are_handed_on(monkeypatch):
    def maker(*, one=1, two=2):
        return one, two

    monkeypatch.setitem(catalogue._MAKERS, "made up", maker)
    assert tasks.load("made up", two=3) == (1, 3)


@pytest.mark.parametrize("name", [name for name in tasks.NAMES if name.startswith("lra-")])
def test_official_files_are_asked_for(name, tmp_path):
    with pytest.raises(DataError, match=r"do(es)? not come with ssmred.*Get "):
        tasks.load(name)
    with pytest.raises(DataError, match=str(tmp_path)):
        tasks.load(name, source=tmp_path)


def test_samples_of_the_zoo_are_those_of_tasks():
    assert zoo.Sample is tasks.Sample
