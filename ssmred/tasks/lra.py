"""Long Range Arena from its official files: ListOps and text, one and two at a time.

Tay et al., arXiv 2011.04006; ``lra_release.gz`` of github.com/google-research/long-range-arena.
Each maker takes the folder of its task. What the files are is not checked beyond their form: they
are other people's, and scores can be compared with published ones only if they are the real ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ssmred.checks import check_integer
from ssmred.errors import DataError, message
from ssmred.tasks.imdb import VOCABULARY as BYTES
from ssmred.tasks.imdb import as_bytes, imdb
from ssmred.tasks.listops import VOCABULARY
from ssmred.tasks.sample import Sample
from ssmred.tasks.task import Task

__all__ = ["ABSENT", "REPEATS", "folder_of", "lra_listops", "lra_retrieval", "lra_text"]

REPEATS = 0.05
"""Official parts are taken as they are."""

ABSENT = "Get lra_release.gz of github.com/google-research/long-range-arena and name the folder."


def lra_listops(*, source: str | Path | None = None, length: int = 2048) -> Task:
    """Return official ListOps: what an expression comes to, 10 classes.

    Parameters
    ----------
    source : path
        Folder of ``basic_train.tsv``, ``basic_val.tsv`` and ``basic_test.tsv``.
    length : int
        Tokens; shorter expressions are padded in front.

    Raises
    ------
    DataError
        If files are missing, hold other tokens, or longer expressions.

    Notes
    -----
    Round brackets, which repeat what the square ones say, are left out, as in the original.
    """
    where = "lra_listops"
    check_integer(length, "length", where, low=1)
    folder = folder_of(source, "basic_train.tsv", where)

    def part(name: str) -> Sample:
        return _expressions(folder / f"basic_{name}.tsv", length)

    train, val = part("train"), part("val")
    return Task(
        "lra-listops",
        train=train,
        val=val,
        classes=10,
        test=lambda: part("test"),
        vocabulary=len(VOCABULARY),
        split=_official("ListOps", train, val),
        repeats=REPEATS,
    )


def lra_text(*, source: str | Path | None = None, length: int = 4096) -> Task:
    """Return official byte-level text: the folder ``aclImdb`` as `ssmred.tasks.imdb` reads it.

    Parameters
    ----------
    source : path
    length : int
        Bytes of a review.

    Raises
    ------
    DataError
        If reviews are missing.

    Notes
    -----
    The original validates on its test part; here 1,000 training reviews are held out for that.
    """
    folder = folder_of(source, "train", "lra_text")
    return replace(imdb(length=length, source=folder), name="lra-text")


def lra_retrieval(
    *, source: str | Path | None = None, length: int = 4000, training: int | None = None
) -> Task:
    """Return official retrieval (AAN): does one paper cite the other, byte by byte.

    Parameters
    ----------
    source : path
        Folder of ``new_aan_pairs.train.tsv``, ``.eval.tsv`` and ``.test.tsv``.
    length : int
        Bytes of each paper, cut or padded at the end.
    training : int, optional
        Keep the first training pairs only; all 147,086 take 4.7 GB.

    Raises
    ------
    DataError
        If files are missing, or have lines without label and two texts.
    """
    where = "lra_retrieval"
    check_integer(length, "length", where, low=1)
    if training is not None:
        check_integer(training, "training", where, low=1)
    folder = folder_of(source, "new_aan_pairs.train.tsv", where)

    def part(name: str, most: int | None = None) -> Sample:
        return _pairs(folder / f"new_aan_pairs.{name}.tsv", length, most)

    train, val = part("train", training), part("eval")
    return Task(
        "lra-retrieval",
        train=train,
        val=val,
        classes=2,
        test=lambda: part("test"),
        kind="two-stream",
        vocabulary=BYTES,
        split=_official("AAN retrieval", train, val),
        repeats=REPEATS,
    )


def folder_of(source: str | Path | None, entry: str, where: str) -> Path:
    """Return the folder if it has an entry, else raise DataError."""
    if source is None:
        raise DataError(message(where, "the official files do not come with ssmred", cure=ABSENT))
    folder = Path(source)
    if not (folder / entry).exists():
        raise DataError(message(where, f"no {entry} in {folder}", cure=ABSENT))
    return folder


def _official(name: str, train: Sample, val: Sample) -> dict[str, object]:
    return {
        "source": f"Long Range Arena, {name}",
        "how": "official parts",
        "train": len(train),
        "val": len(val),
    }


def _lines(path: Path, where: str) -> Iterator[list[bytes]]:
    """Give the fields of the lines of a tab-separated file without quotes."""
    if not path.is_file():
        raise DataError(message(where, f"{path} is missing", cure=ABSENT))
    with path.open("rb") as file:
        for line in file:
            yield line.rstrip(b"\r\n").split(b"\t")


def _expressions(path: Path, length: int) -> Sample:
    numbers = {token.encode(): number for number, token in enumerate(VOCABULARY)}
    rows: list[list[int]] = []
    answers: list[int] = []
    lines = _lines(path, "lra_listops")
    next(lines, None)  # Source, Target
    for line, fields in enumerate(lines, start=2):
        if len(fields) != 2 or not fields[1].strip().isdigit():
            raise DataError(
                message("lra_listops", f"line {line} of {path} is no expression with an answer")
            )
        tokens = [token for token in fields[0].split() if token not in (b"(", b")")]
        unknown = [token.decode("latin-1") for token in tokens if token not in numbers]
        if unknown:
            raise DataError(
                message(
                    "lra_listops", f"line {line} of {path} has another token", got=repr(unknown[0])
                )
            )
        if len(tokens) > length:
            raise DataError(
                message(
                    "lra_listops",
                    f"line {line} of {path} is too long",
                    expected=f"at most {length} tokens",
                    got=f"{len(tokens)}",
                    cure="Raise length.",
                )
            )
        rows.append([numbers[token] for token in tokens])
        answers.append(int(fields[1]))
    inputs = np.zeros((len(rows), length), dtype=np.int64)
    for line, row in zip(inputs, rows, strict=True):
        line[length - len(row) :] = row
    return Sample(torch.from_numpy(inputs), torch.tensor(answers, dtype=torch.int64))


def _pairs(path: Path, length: int, most: int | None) -> Sample:
    pieces: list[torch.Tensor] = []
    labels: list[int] = []
    for line, fields in enumerate(_lines(path, "lra_retrieval"), start=1):
        if len(fields) != 5 or fields[0] not in (b"0", b"1", b"0.0", b"1.0"):
            raise DataError(
                message(
                    "lra_retrieval",
                    f"line {line} of {path} is no pair",
                    expected="label, two numbers, two texts",
                )
            )
        pieces.append(as_bytes(fields[3:], length).int())
        labels.append(int(float(fields[0])))
        if len(labels) == most:
            break
    if not pieces:
        raise DataError(message("lra_retrieval", f"{path} is empty"))
    return Sample(torch.stack(pieces), torch.tensor(labels))
