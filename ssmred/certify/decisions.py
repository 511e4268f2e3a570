"""Bound how often a reduction changes the decision, from held-out inputs, overall and by class.

The decision is the arg-max of an output vector, so outputs have to be scores of classes. Exact for
every distribution, also for a cut that was chosen on the same inputs:
``theory/decision-changes.md``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ssmred.certify.rounding import percent_up
from ssmred.certify.statistics import (
    exceedance_upper_bound,
    required_samples,
    shared_confidence,
)
from ssmred.checks import check_fraction, check_integer
from ssmred.errors import CertificateError, DataError, ShapeError, message

__all__ = ["ClassChanges", "DecisionChanges", "decision_changes", "has_decisions"]


@dataclass(frozen=True)
class ClassChanges:
    """Hold what is known of the inputs that the original puts into one class.

    Parameters
    ----------
    label : int
        The class: index of the largest output of the original.
    inputs, changes : int
        Held-out inputs of the class, and how many of them the reduced network decides otherwise.
    bound : float
        Upper bound on the probability of a change, given the class.
    """

    label: int
    inputs: int
    changes: int
    bound: float


@dataclass(frozen=True)
class DecisionChanges:
    """Hold how often decisions changed, and bounds on how often they will.

    Parameters
    ----------
    inputs, changes : int
        Held-out inputs, and how many are decided otherwise.
    bound : float
        With probability ``confidence`` over the held-out inputs, an input to come gets another
        decision with at most this probability.
    confidence : float
        Of ``bound``, and of the bounds of all classes together.
    cuts : int
        Networks among which one was chosen with the help of these inputs; 1 if none was.
    classes : int
        Number of classes.
    by_class : tuple of ClassChanges
        Those that held-out inputs fell into, by label. About the others nothing is known.
    """

    inputs: int
    changes: int
    bound: float
    confidence: float
    cuts: int
    classes: int
    by_class: tuple[ClassChanges, ...]

    def needed(self, coverage: float) -> int:
        """Return the inputs of a class that can show that a share ``coverage`` is left alone."""
        each = shared_confidence(self.confidence, self.cuts * self.classes)
        return required_samples(coverage, min(each, math.nextafter(1.0, 0.0)))

    def reweighted(self, shares: Mapping[int, float] | Sequence[float]) -> float:
        """Return the bound where the classes come in other shares than among the held-out inputs.

        Parameters
        ----------
        shares : sequence or mapping of float
            Share of every class of the original's decisions, adding up to 1.

        Returns
        -------
        float
            Bound on the probability of a change, with the confidence of the classes. It holds if
            only the shares differ: inputs of one class have to be as before.

        Raises
        ------
        DataError
            If the shares are negative, do not add up to 1 or name a class that is none.

        Notes
        -----
        Theory: ``theory/decision-changes.md``, 4.
        """
        given = dict(shares) if isinstance(shares, Mapping) else dict(enumerate(shares))
        values = np.array(list(given.values()), dtype=np.float64)
        known = all(label in range(self.classes) for label in given)
        if not known or not np.all(values >= 0.0) or abs(values.sum() - 1.0) > 1e-9:
            raise DataError(
                message(
                    "DecisionChanges.reweighted",
                    "these are not the shares of classes",
                    expected=f"numbers >= 0 that add up to 1, for classes 0 to {self.classes - 1}",
                    got=str(given),
                )
            )
        bounds = {entry.label: entry.bound for entry in self.by_class}
        return min(1.0, sum(share * bounds.get(label, 1.0) for label, share in given.items()))

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return asdict(self) | {"by_class": [asdict(entry) for entry in self.by_class]}

    @classmethod
    def from_json(cls, data: Any) -> DecisionChanges:
        """Return what :meth:`to_json` described.

        Raises
        ------
        CertificateError
            If it describes no such thing, or its bounds do not follow from its counts.
        """
        try:
            entries = [dict(entry) for entry in data["by_class"]]
            labels = [check_integer(e["label"], "label", "DecisionChanges") for e in entries]
            counts = np.array(
                [[check_integer(e[key], key, "DecisionChanges") for key in ("inputs", "changes")]
                 for e in entries]
            ).reshape(-1, 2)  # fmt: skip
            classes = check_integer(data["classes"], "classes", "DecisionChanges", low=2)
            found = _bounded(labels, counts, data["confidence"], data["cuts"], classes)
            if labels != sorted(set(labels)) or any(label >= classes for label in labels):
                raise ValueError("the labels are not in order")
            if not _agree(asdict(found), dict(data)):
                raise ValueError(f"from its counts follows {found.to_json()}")
        except (KeyError, TypeError, ValueError) as error:
            raise CertificateError(
                message(
                    "DecisionChanges.from_json",
                    "this does not describe changes of decisions",
                    got=str(error),
                )
            ) from error
        return found

    def statement(self) -> str:
        """Return what is claimed of all classes together, as one sentence."""
        return (
            f"With confidence {self.confidence:g}, at most {percent_up(self.bound)} of such inputs "
            "get another class (arg-max of the outputs)."
        )

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self, coverage: float = 0.95) -> list[str]:
        """Return the account in words and as a table.

        Parameters
        ----------
        coverage : float
            A class is said to have too few inputs where even without a change they cannot show
            that this share of it is left alone.
        """
        together = max(0.0, 1.0 - 2.0 * (1.0 - self.confidence))
        out = [
            f"{self.changes:,} of {self.inputs:,} held-out inputs get another class. "
            + self.statement(),
            *([f"It holds whichever of {self.cuts} cuts was kept."] if self.cuts > 1 else []),
            f"By class of the original, all bounds at once with confidence {self.confidence:g} "
            f"(Bonferroni); together with the bound above, with {together:.6g}.",
            f"{'class':>7}{'inputs':>10}{'changed':>10}{'at most':>12}",
        ]
        needed, few = self.needed(coverage), 0
        for entry in self.by_class:
            short = entry.inputs < needed
            few += short
            out.append(
                f"{entry.label:>7}{entry.inputs:>10,}{entry.changes:>10,}"
                f"{percent_up(entry.bound):>12}{'  too few inputs' if short else ''}"
            )
        if few:
            out.append(
                f"Too few: below {needed:,} inputs not even a class without a change is shown to "
                f"keep {coverage:.4g} of its decisions."
            )
        unseen = self.classes - len(self.by_class)
        if unseen:
            out.append(
                f"{unseen} of {self.classes} classes had no held-out input: nothing is known of "
                "them."
            )
        return out


def has_decisions(outputs: npt.ArrayLike) -> bool:
    """Tell whether outputs (n, classes) can be read as the scores of at least two classes."""
    shape = np.shape(outputs)
    return len(shape) == 2 and shape[0] > 0 and shape[1] > 1


def changed_decisions(
    original: npt.ArrayLike, reduced: npt.ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    """Return the original's decisions and where the reduced network decides otherwise.

    Parameters
    ----------
    original, reduced : (n, classes) array
        Outputs on the same inputs; of equal largest ones the first decides.

    Returns
    -------
    labels : (n,) int64
    changed : (n,) bool
        True as well where an output is nan.

    Raises
    ------
    ShapeError
        If the outputs are not scores of at least two classes, or their shapes differ.
    """
    first, second = np.asarray(original), np.asarray(reduced)
    if not has_decisions(first) or first.shape != second.shape:
        raise ShapeError(
            message(
                "decision_changes",
                "the outputs are not two tables of scores",
                expected="(n, classes) twice, at least two classes",
                got=f"{first.shape} and {second.shape}",
            )
        )
    unclear = np.isnan(first).any(axis=1) | np.isnan(second).any(axis=1)
    labels = first.argmax(axis=1)
    return labels, (labels != second.argmax(axis=1)) | unclear


def decision_changes(
    original: npt.ArrayLike, reduced: npt.ArrayLike, confidence: float = 0.95, *, cuts: int = 1
) -> DecisionChanges:
    """Bound how often a reduced network decides otherwise than the original.

    With ``k`` changes among n held-out inputs: the largest p with
    ``P(Binomial(n, p) <= k) >= (1 - confidence) / cuts``; the same within every class of the
    original's decisions, with a further division by the number of classes.

    Parameters
    ----------
    original, reduced : (n, classes) array
        Outputs of the two networks on the same held-out inputs, scores of classes.
    confidence : float
        Of the overall bound, and of the bounds of all classes together; in (0, 1).
    cuts : int
        Networks, fixed beforehand, among which these inputs helped to choose the reduced one.

    Returns
    -------
    DecisionChanges
        Prints as a table.

    Raises
    ------
    ShapeError
        If the outputs are not (n, classes).

    Notes
    -----
    Holds for every distribution that the inputs are independent draws from. Probabilities are
    rounded up. Theory: ``theory/decision-changes.md``. Source: Clopper and Pearson 1934.

    Examples
    --------
    No change in 59 inputs, all of one class of two:

    >>> import numpy as np
    >>> found = decision_changes(np.tile([1.0, 0.0], (59, 1)), np.tile([2.0, 1.0], (59, 1)))
    >>> found.changes, found.bound < 0.05, [entry.bound < 0.05 for entry in found.by_class]
    (0, True, [False])
    """
    labels, changed = changed_decisions(original, reduced)
    seen, inputs = np.unique(labels, return_counts=True)
    changes = np.bincount(labels[changed], minlength=int(seen[-1]) + 1)[seen]
    counts = np.stack([inputs, changes], axis=1)
    return _bounded(seen.tolist(), counts, confidence, cuts, np.shape(original)[1])


def _bounded(
    labels: Sequence[int], counts: np.ndarray, confidence: float, cuts: int, classes: int
) -> DecisionChanges:
    """Return the bounds that follow from the inputs and the changes of every class seen."""
    confidence = check_fraction(confidence, "confidence", "decision_changes")
    cuts = check_integer(cuts, "cuts", "decision_changes", low=1)
    inputs, changes = (int(total) for total in counts.sum(axis=0))
    by_class = tuple(
        ClassChanges(int(label), int(n), int(k), _upper(int(k), int(n), confidence, cuts * classes))
        for label, (n, k) in zip(labels, counts, strict=True)
    )
    bound = _upper(changes, inputs, confidence, cuts)
    return DecisionChanges(inputs, changes, bound, confidence, cuts, int(classes), by_class)


def _upper(k: int, n: int, confidence: float, statements: int) -> float:
    each = shared_confidence(confidence, statements)
    return exceedance_upper_bound(k, n, each) if each < 1.0 else 1.0


def _agree(first: Any, second: Any) -> bool:
    """Tell whether two records are equal, numbers to a relative 1e-9 (another SciPy)."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return set(first) == set(second) and all(_agree(first[k], second[k]) for k in first)
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)):
        return len(first) == len(second) and all(map(_agree, first, second))
    if isinstance(first, float) and isinstance(second, (int, float)):
        return math.isclose(first, second, rel_tol=1e-9)
    return type(first) is type(second) and first == second
