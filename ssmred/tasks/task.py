"""A task: parts of data, what is scored, and a test part that stays shut until the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

import torch

from ssmred.checks import check_integer
from ssmred.errors import DataError, RequestError, ShapeError, message
from ssmred.tasks.sample import Sample, check_sample, sequences_of
from ssmred.tasks.scores import answers, class_loss, label_loss, macro_f1, share_of_right

__all__ = ["KINDS", "METRICS", "Task"]

KINDS = ("classes", "multi-label", "two-stream")
METRICS = ("accuracy", "macro-f1")
SELECTION = ("train", "val")


@dataclass(frozen=True, eq=False, repr=False)
class Task:
    """Hold what a network is trained for, chosen by and, once, tested on.

    Parameters
    ----------
    name : str
    train, val : Sample
        What is trained on; what everything is chosen by.
    classes : int
        At least 2; at least 1 for "multi-label".
    test : callable
        Makes the test part, a Sample. Called by `open_test` and `check_test` alone.
    kind : {"classes", "multi-label", "two-stream"}
        One class per sequence, several at once, or one per pair of sequences.
    metric : {"accuracy", "macro-f1"}
        What `score` returns, in percent.
    vocabulary : int, optional
        Number of tokens. None where steps are vectors.
    augment : callable, optional
        ``augment(inputs, generator)`` returns other inputs of the same classes; for training only.
    split : mapping, optional
        How the parts were made, for the record: source, seed, sizes.
    repeats : float
        Share of the validation (and of the test) sequences that may be training sequences too.
        0 for one's own data; collections from the field do repeat themselves a little.

    Raises
    ------
    DataError
        If a part is missing or empty, has labels, tokens or numbers that cannot be, or repeats
        training sequences.
    ShapeError
        If shapes or dtypes do not fit.
    RequestError
        If there is no such kind or metric.

    Notes
    -----
    A copy that was pickled, for another process, or a deep copy has no test part: candidates are
    trained there, and none of them may see it.

    Examples
    --------
    >>> x, y = torch.randn(8, 20, 1), torch.arange(8) % 2
    >>> task = Task("noise", Sample(x[:4], y[:4]), Sample(x[4:6], y[4:6]), 2,
    ...             lambda: Sample(x[6:], y[6:]))
    >>> task.score(torch.tensor([[0.0, 1.0], [0.0, 1.0]]), task.val.labels)
    50.0
    """

    name: str
    train: Sample
    val: Sample
    classes: int
    test: Callable[[], Sample]
    kind: Literal["classes", "multi-label", "two-stream"] = "classes"
    metric: Literal["accuracy", "macro-f1"] = "accuracy"
    vocabulary: int | None = None
    augment: Callable[[torch.Tensor, torch.Generator | None], torch.Tensor] | None = None
    split: Mapping[str, Any] = field(default_factory=dict)
    repeats: float = 0.0
    _opened: list[str] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        """Check everything but the test part."""
        where = self._where
        for value, choices, what in ((self.kind, KINDS, "kind"), (self.metric, METRICS, "metric")):
            if value not in choices:
                raise RequestError(
                    message(
                        where,
                        f"no {what} {value!r}",
                        expected=f"one of {', '.join(map(repr, choices))}",
                    )
                )
        check_integer(self.classes, "classes", where, low=1 if self.kind == "multi-label" else 2)
        if self.vocabulary is not None:
            check_integer(self.vocabulary, "vocabulary", where, low=1)
        if not 0.0 <= self.repeats < 1.0:
            raise DataError(
                message(
                    where,
                    "repeats is not usable",
                    expected="a share in [0, 1)",
                    got=f"{self.repeats!r}",
                )
            )
        if self.val is None:
            raise DataError(
                message(
                    where,
                    "there is no validation part",
                    expected="a Sample that is neither trained nor tested on",
                    cure="Keep a part of the training data for it; the test part cannot be it.",
                )
            )
        if not callable(self.test):
            raise DataError(
                message(
                    where,
                    "test is no callable",
                    expected="a function that makes the test Sample",
                    got=type(self.test).__name__,
                    cure="Pass lambda: sample.",
                )
            )
        self._checked(self.train, "train")
        self._checked(self.val, "val")
        self._check_apart(self.val, "val", self.train, "train")

    @property
    def length(self) -> int:
        """Number of steps of a sequence."""
        return self.train.inputs.shape[2 if self.kind == "two-stream" else 1]

    @property
    def features(self) -> int:
        """Numbers per step; 1 for tokens."""
        return 1 if self.vocabulary is not None else self.train.inputs.shape[-1]

    @property
    def opened(self) -> bool:
        """Whether the test part was opened."""
        return bool(self._opened)

    def loss(
        self, outputs: torch.Tensor, labels: torch.Tensor, *, smoothing: float = 0.0
    ) -> torch.Tensor:
        """Return the cross entropy, binary with logits for "multi-label".

        Parameters
        ----------
        outputs : torch.Tensor, (n, classes)
        labels : torch.Tensor
        smoothing : float
            Share of a label that goes to all classes alike.

        Raises
        ------
        ShapeError
            If outputs are not (n, classes).
        """
        self._check_outputs(outputs, labels)
        several = self.kind == "multi-label"
        return (label_loss if several else class_loss)(outputs, labels, smoothing)

    def score(self, outputs: torch.Tensor, labels: torch.Tensor) -> float:
        """Return the metric in percent.

        Parameters
        ----------
        outputs : torch.Tensor, (n, classes)
        labels : torch.Tensor

        Raises
        ------
        ShapeError
            If outputs are not (n, classes).

        Notes
        -----
        For "multi-label" an output of at least 0, probability 1/2, is a yes, and "accuracy" counts
        sequences of which every class is right. Outputs that are not finite are never right.
        """
        self._check_outputs(outputs, labels)
        pair = answers(outputs.detach(), labels)
        return share_of_right(*pair) if self.metric == "accuracy" else macro_f1(*pair)

    def part(self, name: str) -> Sample:
        """Return a part that decisions may be made by, "train" or "val".

        Raises
        ------
        RequestError
            For the test part, and for parts that there are not.
        """
        if name not in SELECTION:
            sealed = name == "test"
            raise RequestError(
                message(
                    self._where,
                    "test data do not choose anything" if sealed else f"no part {name!r}",
                    expected="'train' or 'val'",
                    cure="Open it once, at the very end, with open_test()." if sealed else "",
                )
            )
        return getattr(self, name)

    def check_test(self) -> None:
        """Make the test part, check it and throw it away, so that no fault shows at the end only.

        Raises
        ------
        RequestError, DataError, ShapeError
            As `open_test`.
        """
        self._checked_test()

    def open_test(self, purpose: str = "the final scores") -> Sample:
        """Return the test part, once.

        Parameters
        ----------
        purpose : str
            What it is opened for; the refusal of a second call says so.

        Raises
        ------
        RequestError
            If it was opened before, or this copy of the task has none.
        DataError, ShapeError
            If the part does not fit the task, or repeats training or validation sequences.
        """
        if self._opened:
            raise RequestError(
                message(
                    self._where,
                    f"the test part was opened before, for {self._opened[0]}",
                    cure="Keep what open_test() returned, or make the task again for another run.",
                )
            )
        sample = self._checked_test()
        self._opened.append(purpose)
        return sample

    @property
    def _where(self) -> str:
        return f"Task {self.name!r}"

    def _checked(self, sample: Sample, name: str) -> Sample:
        check_sample(
            sample,
            name,
            self._where,
            classes=self.classes,
            kind=self.kind,
            vocabulary=self.vocabulary,
        )
        steps, wanted = sample.inputs.shape[1:], self.train.inputs.shape[1:]
        if steps != wanted:
            raise ShapeError(
                message(
                    self._where,
                    f"sequences of {name} are not like those of train",
                    expected=f"(n, {', '.join(map(str, wanted))})",
                    got=f"{tuple(sample.inputs.shape)}",
                )
            )
        return sample

    def _checked_test(self) -> Sample:
        sample = self._checked(self.test(), "test")
        for other in SELECTION:
            self._check_apart(sample, "test", getattr(self, other), other)
        return sample

    def _check_apart(self, sample: Sample, name: str, other: Sample, other_name: str) -> None:
        known = set(sequences_of(other))
        again = sum(number in known for number in sequences_of(sample))
        if again > self.repeats * len(sample):
            raise DataError(
                message(
                    self._where,
                    f"{again} of {len(sample)} sequences of {name} are also in {other_name}",
                    expected=f"at most {self.repeats:.3g} of them",
                    cure="Remove them from one part; or say repeats=, if the collection repeats "
                    "itself.",
                )
            )

    def _check_outputs(self, outputs: torch.Tensor, labels: torch.Tensor) -> None:
        wanted = (len(labels), self.classes)
        if tuple(outputs.shape) != wanted:
            raise ShapeError(
                message(
                    self._where,
                    "the network's outputs do not fit the classes",
                    expected=f"{wanted}",
                    got=f"{tuple(outputs.shape)}",
                )
            )

    def __repr__(self) -> str:
        """Return one line."""
        sizes = f"{len(self.train):,} training and {len(self.val):,} validation sequences"
        return f"Task({self.name!r}, {sizes} of {self.length} steps, {self.classes} classes)"

    def __getstate__(self) -> dict[str, Any]:
        """Leave the test part behind."""
        return self.__dict__ | {"test": _left_behind}


def _left_behind() -> NoReturn:
    raise RequestError(
        message(
            "Task",
            "a copy from another process has no test part",
            cure="Open it where the task was made.",
        )
    )
