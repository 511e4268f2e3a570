"""Generate ListOps: nested lists of digits under MIN, MAX, MED and SM, and what they come to.

``[MAX 2 9 [MIN 4 7 ] 0 ]`` is 9. The grammar is the published one (Nangia and Bowman,
arXiv 1804.06028): below the largest depth a node is an operator with probability 1/4 and otherwise
a digit; an operator has 2 to `max_args` arguments; MED is the median rounded down, SM the sum
modulo 10. Long Range Arena (arXiv 2011.04006) keeps the expressions of 500 to 2,000 tokens.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch

from ssmred.errors import DataError, RequestError, message
from ssmred.tasks.task import Sample, Task

__all__ = [
    "LONG",
    "OPERATORS",
    "SHORT",
    "VOCABULARY",
    "ListOps",
    "decode",
    "listops_parts",
    "listops_task",
]

OPERATORS = ("[MIN", "[MAX", "[MED", "[SM")
END = "]"
PADDING = "<pad>"
VOCABULARY = (PADDING, *map(str, range(10)), *OPERATORS, END)
"""Tokens by their numbers; 0 is padding."""

OPERATOR_SHARE = 0.25
PATIENCE = 100_000
"""Draws in a row without a new expression after which a request is refused."""

_NUMBERS = {token: number for number, token in enumerate(VOCABULARY)}


@dataclass(frozen=True)
class ListOps:
    """Describe a distribution of expressions.

    Parameters
    ----------
    max_depth : int
        Depth of the deepest digit; the outermost operator has depth 1.
    max_args : int
        Largest number of arguments of an operator.
    min_length, max_length : int
        Expressions with other numbers of tokens are thrown away.

    Raises
    ------
    RequestError
        If no expression fits.

    Examples
    --------
    >>> tokens, answers = ListOps(3, 3, 5, 12).sample(2, seed=0)
    >>> print(decode(tokens[0]), "=", answers[0])
    [MAX [MAX 1 5 2 ] 8 0 ] = 8
    """

    max_depth: int = 10
    max_args: int = 10
    min_length: int = 500
    max_length: int = 2000

    def __post_init__(self) -> None:
        """Check that some expressions fit."""
        if self.max_depth < 2 or self.max_args < 2 or not 1 <= self.min_length <= self.max_length:
            raise RequestError(
                message(
                    "ListOps",
                    "no expression fits",
                    expected="max_depth >= 2, max_args >= 2, 1 <= min_length <= max_length",
                    got=f"{self}",
                )
            )

    def sample(
        self, count: int, *, seed: int, without: Collection[bytes] = ()
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw different expressions.

        Parameters
        ----------
        count : int
        seed : int
            The same seed gives the same expressions, everywhere.
        without : collection of bytes
            ``row.tobytes()`` of expressions that must not appear: those of another part.

        Returns
        -------
        tokens : (count, max_length) uint8
            Padded in front, so that every expression ends with the last step.
        answers : (count,) int64
            0 to 9.

        Raises
        ------
        DataError
            If there are not so many expressions, or they are too rare.
        """
        generator = random.Random(seed)
        tokens = np.zeros((count, self.max_length), dtype=np.uint8)
        answers = np.zeros(count, dtype=np.int64)
        seen = set(without)
        found = misses = 0
        while found < count:
            expression: list[int] = []
            value = self._grow(generator, 1, expression)
            row = tokens[found]
            if value is not None and len(expression) >= self.min_length:
                row[:] = 0
                row[-len(expression) :] = expression
                key = row.tobytes()
                if key not in seen:
                    seen.add(key)
                    answers[found] = value
                    found, misses = found + 1, -1
            misses += 1
            if misses >= PATIENCE:
                raise DataError(
                    message(
                        "ListOps.sample",
                        f"only {found} of {count} expressions found",
                        cure="Ask for fewer, or allow other lengths or depths.",
                    )
                )
        return tokens, answers

    def _grow(self, generator: random.Random, depth: int, into: list[int]) -> int | None:
        """Append the tokens of one node and return its value, None where it grew too long."""

        # only random() is promised to give the same numbers in every version of Python
        def below(limit: int) -> int:
            return int(generator.random() * limit)

        if len(into) >= self.max_length:
            return None
        if depth >= self.max_depth or generator.random() >= OPERATOR_SHARE:
            digit = below(10)
            into.append(_NUMBERS[str(digit)])
            return digit
        operator = OPERATORS[below(len(OPERATORS))]
        into.append(_NUMBERS[operator])
        values = []
        for _ in range(2 + below(self.max_args - 1)):
            value = self._grow(generator, depth + 1, into)
            if value is None:
                return None
            values.append(value)
        into.append(_NUMBERS[END])
        return _applied(operator, values) if len(into) <= self.max_length else None


LONG = ListOps()
"""As in Long Range Arena."""

SHORT = ListOps(max_depth=5, max_args=5, min_length=16, max_length=96)
"""Short enough to train on with a CPU."""


def decode(tokens: np.ndarray) -> str:
    """Return one row of tokens as text, without padding."""
    return " ".join(VOCABULARY[number] for number in tokens if number)


TEST, HELD_OUT, TRAINING = 10_000, 2_000, 200_000
SEEDS = {"test": 1, "held_out": 2, "training": 3}


def listops_parts(
    training: int, *, held_out: int = HELD_OUT, test: int = TEST, kind: ListOps = SHORT
) -> dict[str, Sample]:
    """Return ``"test"``, ``"held_out"`` and ``"training"`` expressions, all different.

    Parameters
    ----------
    training, held_out, test : int
        Sizes; a smaller training part is the beginning of a larger one.
    kind : ListOps
    """
    counts = {"test": test, "held_out": held_out, "training": training}
    parts: dict[str, Sample] = {}
    used: set[bytes] = set()
    for part, count in counts.items():
        tokens, answers = kind.sample(count, seed=SEEDS[part], without=used)
        used |= {row.tobytes() for row in tokens}
        parts[part] = Sample(torch.from_numpy(tokens).long(), torch.from_numpy(answers))
    return parts


def listops_task(
    *,
    training: int = TRAINING,
    held_out: int = HELD_OUT,
    test: int = TEST,
    max_depth: int = SHORT.max_depth,
    max_args: int = SHORT.max_args,
    min_length: int = SHORT.min_length,
    max_length: int = SHORT.max_length,
) -> Task:
    """Return generated expressions as a task of ten classes; `ListOps` explains the sizes."""
    kind = ListOps(max_depth, max_args, min_length, max_length)
    parts = listops_parts(training, held_out=held_out, test=test, kind=kind)
    split = {"source": "generated", "seeds": SEEDS, "sizes": [training, held_out, test],
             "distribution": vars(kind)}  # fmt: skip
    return Task(
        "listops",
        parts["training"],
        parts["held_out"],
        10,
        lambda: parts["test"],
        vocabulary=len(VOCABULARY),
        split=split,
    )


def _applied(operator: str, values: list[int]) -> int:
    if operator == "[MIN":
        return min(values)
    if operator == "[MAX":
        return max(values)
    if operator == "[SM":
        return sum(values) % 10
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(values) % 2 else (ordered[half - 1] + ordered[half]) // 2
