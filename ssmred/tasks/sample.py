"""Labelled sequences, and what one part of a task must look like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ssmred.errors import DataError, ShapeError, message

__all__ = ["Sample", "check_sample", "sequences_of"]


@dataclass(frozen=True, eq=False)
class Sample:
    """Hold labelled sequences.

    Attributes
    ----------
    inputs : torch.Tensor, (n, T, features) float32, or tokens (n, T) int64
        With a second axis of two, (n, 2, T, features) or (n, 2, T), for pairs of sequences. Tokens
        may be int32 where there are very many.
    labels : torch.Tensor, (n,) int64, or (n, classes) float32
        Class of each sequence; ones and zeros where a sequence can have several classes.
    """

    inputs: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        """Return the number of sequences."""
        return len(self.labels)


def check_sample(
    sample: Any,
    name: str,
    where: str,
    *,
    classes: int,
    kind: str,
    vocabulary: int | None,
) -> Sample:
    """Return the sample if a task can use it.

    Parameters
    ----------
    sample : Sample
    name, where : str
        What it is called in messages, and the function that refuses.
    classes : int
    kind : {"classes", "multi-label", "two-stream"}
    vocabulary : int or None
        Number of tokens; None where steps are vectors.

    Raises
    ------
    ShapeError
        If shapes or dtypes do not fit.
    DataError
        If the sample is empty, or holds labels, tokens or numbers that cannot be.
    """
    if not isinstance(sample, Sample):
        raise DataError(
            message(where, f"{name} is no Sample", expected="a Sample", got=type(sample).__name__)
        )
    _check_inputs(sample.inputs, name, where, kind, vocabulary)
    _check_labels(sample, name, where, classes, kind)
    return sample


def _check_inputs(
    inputs: torch.Tensor, name: str, where: str, kind: str, vocabulary: int | None
) -> None:
    streams = ("2",) if kind == "two-stream" else ()
    tokens = vocabulary is not None
    shape = ("n", *streams, "T") if tokens else ("n", *streams, "T", "features")
    dtypes = (torch.int64, torch.int32) if tokens else (torch.float32,)
    fits = (
        inputs.ndim == len(shape)
        and inputs.dtype in dtypes
        and (not streams or inputs.shape[1] == len(("u", "v")))
    )
    if not fits:
        raise ShapeError(
            message(
                where,
                f"inputs of {name} do not fit",
                expected=f"({', '.join(shape)}) {'int64' if tokens else 'float32'}",
                got=f"{tuple(inputs.shape)} {_short(inputs.dtype)}",
            )
        )
    if not inputs.numel():
        raise DataError(message(where, f"{name} is empty", got=f"{tuple(inputs.shape)}"))
    if tokens:
        low, high = int(inputs.min()), int(inputs.max())
        if low < 0 or high >= vocabulary:
            raise DataError(
                message(
                    where,
                    f"tokens of {name} are outside the vocabulary",
                    expected=f"0 to {vocabulary - 1}",
                    got=f"{low} to {high}",
                )
            )
    elif not bool(torch.isfinite(inputs).all()):
        raise DataError(
            message(
                where, f"inputs of {name} are not finite", cure="Repair or remove these sequences."
            )
        )


def _check_labels(sample: Sample, name: str, where: str, classes: int, kind: str) -> None:
    labels, count = sample.labels, len(sample.inputs)
    several = kind == "multi-label"
    shape = (count, classes) if several else (count,)
    dtype = torch.float32 if several else torch.int64
    if tuple(labels.shape) != shape or labels.dtype != dtype:
        raise ShapeError(
            message(
                where,
                f"labels of {name} do not fit",
                expected=f"{shape} {_short(dtype)}",
                got=f"{tuple(labels.shape)} {_short(labels.dtype)}",
            )
        )
    if several:
        if not bool(((labels == 0) | (labels == 1)).all()):
            raise DataError(message(where, f"labels of {name} are not all 0 or 1"))
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise DataError(
            message(
                where,
                f"labels of {name} are outside the {classes} classes",
                expected=f"0 to {classes - 1}",
                got=f"{low} to {high}",
            )
        )


def sequences_of(sample: Sample) -> list[int]:
    """Return a number for every input; equal inputs have equal numbers within one process."""
    rows = sample.inputs.detach().cpu().contiguous().flatten(1).numpy()
    return [hash(row.tobytes()) for row in rows]


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
