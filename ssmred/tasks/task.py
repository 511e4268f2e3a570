"""What a network is trained, pruned and judged on: three parts of data, a loss, a metric."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional

from ssmred.checks import check_choice, check_integer
from ssmred.errors import DataError, RequestError, message

__all__ = ["KINDS", "METRICS", "Sample", "Task"]

KINDS = ("classes", "multi-label", "two-stream")
METRICS = ("accuracy", "macro-f1")

Augment = Callable[[torch.Tensor], torch.Tensor]
"""Draws a variation of a batch of training inputs with torch's global generator."""


@dataclass(frozen=True, eq=False)
class Sample:
    """Hold labelled sequences.

    Attributes
    ----------
    inputs : torch.Tensor
        (n, T, features) float32, or (n, T) int64 tokens; with two streams (n, 2, T, features) or
        (n, 2, T).
    labels : torch.Tensor
        Class of each sequence, (n,) int64; for several labels (n, classes) float32 of 0 and 1.
    """

    inputs: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        """Return the number of sequences."""
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Task:
    """Hold the parts of a task. The test part is sealed: it is made when it is opened, once.

    Parameters
    ----------
    name : str
    train, val : Sample
        What is fitted to, and what chooses: epochs, candidates.
    classes : int
        Number of classes or labels, the outputs of a network.
    test : callable
        Returns the test part.
    kind : {"classes", "multi-label", "two-stream"}
        One class per sequence; any number of labels; one class per pair of sequences.
    metric : {"accuracy", "macro-f1"}
        In percent. Of several labels, accuracy counts each; F1 is at probability 1/2.
    vocabulary : int, optional
        Number of tokens; None for real-valued steps.
    augment : callable, optional
        Varies batches of training inputs.
    split : mapping
        How the parts were made: seeds, sizes, source. Recorded with results.

    Raises
    ------
    DataError
        If a part is missing, empty or of another shape, labels are no such classes, inputs hold
        nan, or a validation sequence is a training sequence too.

    Examples
    --------
    >>> sample = Sample(torch.randn(4, 10, 1), torch.tensor([0, 1, 1, 0]))
    >>> other = Sample(torch.randn(2, 10, 1), torch.tensor([0, 1]))
    >>> task = Task("noise", sample, other, 2, lambda: other)
    >>> task.score(torch.tensor([[2.0, 1.0], [0.0, 1.0]]), task.val.labels)
    100.0
    """

    name: str
    train: Sample
    val: Sample
    classes: int
    test: Callable[[], Sample]
    kind: str = "classes"
    metric: str = "accuracy"
    vocabulary: int | None = None
    augment: Augment | None = None
    split: Mapping[str, Any] = field(default_factory=dict)
    _opened: list[bool] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        """Check the parts."""
        check_choice(self.kind, KINDS, "kind", "Task")
        check_choice(self.metric, METRICS, "metric", "Task")
        check_integer(self.classes, "classes", "Task", low=1)
        if not callable(self.test):
            raise DataError(
                message(
                    "Task",
                    "test is not sealed",
                    expected="a function that returns the test part when it is opened",
                    got=type(self.test).__name__,
                    cure="Pass test=lambda: sample.",
                )
            )
        for part in ("train", "val"):
            _check_sample(getattr(self, part), part, self)
        if self.train.inputs.shape[1:] != self.val.inputs.shape[1:]:
            raise DataError(
                message(
                    "Task",
                    "training and validation inputs differ in shape",
                    expected=f"{tuple(self.train.inputs.shape[1:])}",
                    got=f"{tuple(self.val.inputs.shape[1:])}",
                )
            )
        shared = _rows(self.train) & _rows(self.val)
        if shared:
            raise DataError(
                message(
                    "Task",
                    f"{len(shared)} sequences are in the training and in the validation part",
                    expected="parts that share none",
                    cure="Split anew, without duplicates.",
                )
            )

    @property
    def length(self) -> int:
        """Steps of a sequence."""
        return int(self.train.inputs.shape[2 if self.kind == "two-stream" else 1])

    @property
    def features(self) -> int:
        """Features per step, or the size of the vocabulary: the inputs of a network."""
        return self.vocabulary or int(self.train.inputs.shape[-1])

    def open_test(self) -> Sample:
        """Return the test part; once, at the end, when nothing is to be chosen any more.

        Raises
        ------
        RequestError
            If it was opened before.
        """
        if self._opened:
            raise RequestError(
                message(
                    "Task.open_test",
                    f"the test part of {self.name} was opened already",
                    expected="one look, after all choices",
                    cure="Choose by the validation part; make the task anew for another run.",
                )
            )
        sample = self.test()
        _check_sample(sample, "test", self)
        self._opened.append(True)
        return sample

    def loss(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the mean cross entropy of outputs (n, classes), of each label where several."""
        _check_outputs(outputs, self.classes, "loss")
        if self.kind == "multi-label":
            return functional.binary_cross_entropy_with_logits(outputs, labels)
        return functional.cross_entropy(outputs, labels)

    def spread_loss(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return the mean cross entropy with labels that are spread evenly: label smoothing."""
        if self.kind == "multi-label":
            even = torch.full_like(outputs, 0.5)
            return functional.binary_cross_entropy_with_logits(outputs, even)
        return -functional.log_softmax(outputs, -1).mean()

    def score(self, outputs: torch.Tensor, labels: torch.Tensor) -> float:
        """Return the metric of outputs (n, classes), percent."""
        _check_outputs(outputs, self.classes, "score")
        if self.kind == "multi-label":
            found, wanted = outputs > 0, labels > 0.5
            if self.metric == "accuracy":
                return 100.0 * float((found == wanted).double().mean())
        else:
            found = functional.one_hot(outputs.argmax(-1), self.classes).bool()
            wanted = functional.one_hot(labels, self.classes).bool()
            if self.metric == "accuracy":
                return 100.0 * float((outputs.argmax(-1) == labels).double().mean())
        both = (found & wanted).sum(0).double()
        either = found.sum(0).double() + wanted.sum(0).double()
        present = either > 0  # a class that is neither there nor found has no F1
        return 100.0 * float((2 * both[present] / either[present]).mean())


def _check_sample(sample: Any, part: str, task: Task) -> None:
    where = f"Task {task.name!r}"
    if not isinstance(sample, Sample):
        missing = "there is no validation part" if part == "val" else f"{part} is no Sample"
        raise DataError(
            message(where, missing, expected="a Sample of inputs and labels",
                    got=type(sample).__name__, cure="Split one off the training data.")
        )  # fmt: skip
    inputs, labels = sample.inputs, sample.labels
    streams = 1 if task.kind == "two-stream" else 0
    axes = streams + (2 if task.vocabulary else 3)
    fits = isinstance(inputs, torch.Tensor) and isinstance(labels, torch.Tensor)
    fits = fits and inputs.ndim == axes and len(inputs) == len(labels) > 0
    fits = fits and (not streams or inputs.shape[1] == 2)
    fits = fits and (inputs.dtype == torch.int64 if task.vocabulary else inputs.is_floating_point())
    if not fits:
        pair = "(n, 2, " if streams else "(n, "
        shape = f"{pair}T) int64" if task.vocabulary else f"{pair}T, features) floats"
        got = [f"{tuple(t.shape)} {t.dtype}" for t in (inputs, labels) if hasattr(t, "shape")]
        raise DataError(
            message(where, f"the {part} part is empty or of another shape",
                    expected=f"{shape} and as many labels", got=" and ".join(got) or "no tensors")
        )  # fmt: skip
    if task.vocabulary:
        bad = int(inputs.min()) < 0 or int(inputs.max()) >= task.vocabulary
    else:
        bad = not bool(torch.isfinite(inputs).all())
    if bad:
        raise DataError(
            message(where, f"the {part} part holds what is no input",
                    expected=f"tokens below {task.vocabulary}" if task.vocabulary else "no nan")
        )  # fmt: skip
    if task.kind == "multi-label":
        good = labels.shape[1:] == (task.classes,) and labels.is_floating_point()
        good = good and bool(((labels == 0) | (labels == 1)).all())
        expected = f"(n, {task.classes}) floats, 0 or 1"
    else:
        good = labels.ndim == 1 and labels.dtype == torch.int64
        good = good and int(labels.min()) >= 0 and int(labels.max()) < task.classes
        expected = f"(n,) int64, classes 0 to {task.classes - 1}"
    if not good:
        raise DataError(
            message(where, f"the labels of the {part} part are no such classes",
                    expected=expected, got=f"{tuple(labels.shape)} {labels.dtype}")
        )  # fmt: skip


def _check_outputs(outputs: torch.Tensor, classes: int, where: str) -> None:
    if outputs.ndim != 2 or outputs.shape[1] != classes:
        raise DataError(
            message(
                f"Task.{where}",
                "the network's outputs are not those of the classes",
                expected=f"(n, {classes})",
                got=f"{tuple(outputs.shape)}",
            )
        )


def _rows(sample: Sample) -> set[bytes]:
    flat = sample.inputs.reshape(len(sample), -1).contiguous().numpy(force=True)
    return {row.tobytes() for row in flat}
