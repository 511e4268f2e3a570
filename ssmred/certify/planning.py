"""Plan how many held-out inputs a statistical statement needs, and what given ones can state.

Exact binomial, the same probabilities as the test itself: ``theory/statistical-certificate.md``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv

from ssmred.certify.statistics import (
    binomial_p_value,
    exceedance_upper_bound,
    required_samples,
    shared_confidence,
)
from ssmred.checks import check_fraction, check_integer
from ssmred.errors import DataError, message

__all__ = [
    "PlanRow",
    "SamplePlan",
    "allowed_violations",
    "certifiable_confidence",
    "certifiable_coverage",
    "sample_plan",
]

LIKELY = 0.9
"""How often a plan is called likely to pass."""

ROWS = 6
"""Numbers of violations that a plan shows where none is asked for."""


def allowed_violations(n: int, coverage: float, confidence: float) -> int | None:
    """Return the most violations among n held-out inputs that the test still accepts.

    Parameters
    ----------
    n : int
        Held-out inputs.
    coverage, confidence : float
        In (0, 1).

    Returns
    -------
    int or None
        None where n inputs are too few even without a violation.

    Notes
    -----
    Theory: ``theory/statistical-certificate.md``.

    Examples
    --------
    >>> allowed_violations(58, 0.95, 0.95), allowed_violations(153, 0.95, 0.95)
    (None, 3)
    """
    where = "allowed_violations"
    n = check_integer(n, "n", where, low=1)
    coverage = check_fraction(coverage, "coverage", where)
    allowed = 1.0 - check_fraction(confidence, "confidence", where)
    fine, too_many = -1, n  # the p-value rises with the violations, to 1 at n
    while too_many - fine > 1:
        middle = (fine + too_many) // 2
        if binomial_p_value(middle, n, coverage) <= allowed:
            fine = middle
        else:
            too_many = middle
    return None if fine < 0 else fine


def certifiable_coverage(n: int, confidence: float, violations: int = 0) -> float:
    """Return the largest coverage that n held-out inputs with some violations can state.

    Parameters
    ----------
    n, violations : int
        Held-out inputs, and those above the bound.
    confidence : float
        In (0, 1).

    Returns
    -------
    float
        0 where every input is a violation.

    Notes
    -----
    Rounded down until the test itself accepts it. Theory: ``theory/statistical-certificate.md``.

    Examples
    --------
    >>> 0.95 < certifiable_coverage(59, 0.95) < 0.9505
    True
    """
    exceedance = exceedance_upper_bound(violations, n, confidence)
    coverage, step = 1.0 - exceedance, float(np.finfo(np.float64).eps)
    while coverage > 0.0 and binomial_p_value(violations, n, coverage) > 1.0 - confidence:
        coverage, step = coverage - step, 2.0 * step
    return max(coverage, 0.0)


def certifiable_confidence(n: int, coverage: float, violations: int = 0) -> float:
    """Return the largest confidence with which n held-out inputs can state a coverage.

    Parameters
    ----------
    n, violations : int
        Held-out inputs, and those above the bound.
    coverage : float
        In (0, 1).

    Returns
    -------
    float

    Examples
    --------
    >>> certifiable_confidence(58, 0.95) < 0.95 < certifiable_confidence(59, 0.95)
    True
    """
    where = "certifiable_confidence"
    n = check_integer(n, "n", where, low=1)
    violations = check_integer(violations, "violations", where)
    coverage = check_fraction(coverage, "coverage", where)
    p_value = binomial_p_value(violations, n, coverage)
    return max(0.0, math.nextafter(1.0 - p_value, 0.0))


@dataclass(frozen=True)
class PlanRow:
    """Hold one line of a plan.

    Parameters
    ----------
    inputs, violations : int
        Held-out inputs, and how many of them may be violations.
    coverage, confidence : float
        What may be stated then.
    likely : float
        True share of violations up to which so few turn up in 9 of 10 samples.
    """

    inputs: int
    violations: int
    coverage: float
    confidence: float
    likely: float


@dataclass(frozen=True)
class SamplePlan:
    """Hold what :func:`sample_plan` found; prints as a table.

    Parameters
    ----------
    rows : tuple of PlanRow
        One for every number of violations.
    coverage, confidence : float
        What was asked for.
    inputs : int or None
        Held-out inputs at hand; None if their number was the question.
    statements : int
        Statements that shall hold at once; each is tested at a share of the error probability.
    """

    rows: tuple[PlanRow, ...]
    coverage: float
    confidence: float
    inputs: int | None
    statements: int

    def __str__(self) -> str:
        share = f"{100.0 * self.coverage:.6g} %"
        at_once = f", {self.statements} statements at once" if self.statements > 1 else ""
        if self.inputs is None:
            head = [
                f"To state with confidence {self.confidence:g}{at_once} that at least {share} of "
                "inputs keep a bound:",
                "",
                f"{'violations':>10}{'held-out inputs':>17}{'in data':>12}"
                f"{'likely to pass up to':>23}",
            ]
            lines = [
                f"{row.violations:>10,}{row.inputs:>17,}{2 * row.inputs:>12,}"
                f"{100.0 * row.likely:>21.3g} %"
                for row in self.rows
            ]
            tail = ["in data: what ssmred.reduce needs, which weighs the states on one half."]
        else:
            possible = allowed_violations(self.inputs, self.coverage, self._each)
            fit = "do not suffice" if possible is None else f"allow {possible:,} violations"
            head = [
                f"{self.inputs:,} held-out inputs {fit} for {share} at confidence "
                f"{self.confidence:g}{at_once}. What they can state:",
                "",
                f"{'violations':>10}{'coverage':>13}"
                f"{f'confidence for {share}':>28}{'likely to pass up to':>23}",
            ]
            lines = [
                f"{row.violations:>10,}{_percent_down(row.coverage):>11} %{row.confidence:>28.6g}"
                f"{100.0 * row.likely:>21.3g} %"
                for row in self.rows
            ]
            tail = [f"coverage: at confidence {self.confidence:g}{at_once}."]
        tail.append(
            "likely to pass up to: true share of violations at which 9 samples in 10 show so few."
        )
        return "\n".join([*head, "-" * len(head[-1]), *lines, "", *tail])

    @property
    def _each(self) -> float:
        return shared_confidence(self.confidence, self.statements)


def _percent_down(share: float) -> str:
    return f"{math.floor(1e5 * share) / 1e3:.3f}"


def sample_plan(
    coverage: float = 0.95,
    confidence: float = 0.95,
    *,
    violations: int | None = None,
    inputs: int | None = None,
    statements: int = 1,
) -> SamplePlan:
    """Say how many held-out inputs a statement needs, or what given ones can state.

    Parameters
    ----------
    coverage, confidence : float
        Share of inputs that the statement is about, and its confidence; in (0, 1).
    violations : int, optional
        Plan for so many violations; by default for 0 to 5.
    inputs : int, optional
        Held-out inputs at hand: then the plan says what these can state.
    statements : int
        Statements that shall hold at once, each at a share of the error probability: classes, or
        cuts that are chosen among by other means than the walk.

    Returns
    -------
    SamplePlan

    Raises
    ------
    DataError, OrderError
        If a share is not between 0 and 1, or there are more violations than inputs.

    Notes
    -----
    Exact. The walk of cuts that ``ssmred.reduce`` makes needs no more inputs than one cut. Theory:
    ``theory/statistical-certificate.md``.

    Examples
    --------
    >>> plan = sample_plan(0.999, 0.95)
    >>> [(row.violations, row.inputs) for row in plan.rows][:3]
    [(0, 2995), (1, 4742), (2, 6294)]
    >>> round(sample_plan(inputs=2995, violations=0).rows[0].coverage, 6)
    0.999
    """
    where = "sample_plan"
    coverage = check_fraction(coverage, "coverage", where)
    each = shared_confidence(confidence, statements)
    counts = range(ROWS)
    if violations is not None:
        counts = [check_integer(violations, "violations", where)]
    if inputs is not None:
        inputs = check_integer(inputs, "inputs", where, low=1)
        if violations is not None and violations > inputs:
            raise DataError(
                message(where, "more violations than inputs", got=f"{violations} of {inputs}")
            )
    rows = []
    for k in counts:
        n = required_samples(coverage, each, k) if inputs is None else inputs
        if k >= n:
            break
        stated = coverage, confidence
        if inputs is not None:
            error = statements * (1.0 - certifiable_confidence(n, coverage, k))
            stated = certifiable_coverage(n, each, k), max(0.0, 1.0 - error)
        rows.append(PlanRow(n, k, *stated, float(betaincinv(k + 1.0, n - k, 1.0 - LIKELY))))
    return SamplePlan(tuple(rows), coverage, float(confidence), inputs, int(statements))
