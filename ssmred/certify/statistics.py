"""Say what held-out inputs prove about inputs to come: exact, for every distribution.

``theory/statistical-certificate.md`` and ``theory/fixed-sequence-testing.md`` hold the proofs. The
inputs have to be independent draws from the distribution the statement is about, and must not have
taken part in choosing the networks.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import betainc, betaincc, betaincinv

from ssmred.checks import check_fraction, check_integer, check_tolerance
from ssmred.errors import DataError, message

__all__ = [
    "SequenceStep",
    "SequenceTest",
    "binomial_p_value",
    "data_sha256",
    "exceedance_upper_bound",
    "fixed_sequence_test",
    "order_statistic_bound",
    "required_samples",
    "shared_confidence",
    "split_indices",
]

NUDGE = 1e-10  # relative; SciPy's incomplete beta functions err by less than 1e-12 up to n = 10^6
UNDERFLOW = 1e-300  # absolute; below it relative accuracy ends


def exceedance_upper_bound(k: int, n: int, confidence: float) -> float:
    """Return the Clopper-Pearson upper bound on a probability from k events in n trials.

    The largest p with ``P(Binomial(n, p) <= k) >= 1 - confidence``.

    Parameters
    ----------
    k, n : int
        Events and trials, ``0 <= k <= n``, ``n >= 1``.
    confidence : float
        In (0, 1).

    Returns
    -------
    float
        With probability at least ``confidence`` over the trials, the true probability is at most
        this.

    Notes
    -----
    Theory: ``theory/statistical-certificate.md``. Source: Clopper and Pearson 1934.

    Examples
    --------
    No event in 59 trials: ``p <= 1 - 0.05**(1/59)``.

    >>> round(exceedance_upper_bound(0, 59, 0.95), 6) == round(1 - 0.05 ** (1 / 59), 6)
    True
    """
    n = check_integer(n, "n", "exceedance_upper_bound", low=1)
    k = check_integer(k, "k", "exceedance_upper_bound")
    confidence = check_fraction(confidence, "confidence", "exceedance_upper_bound")
    if k > n:
        raise DataError(
            message("exceedance_upper_bound", "more events than trials", got=f"k={k}, n={n}")
        )
    if k == n:
        return 1.0
    p, step = float(betaincinv(k + 1.0, n - k, confidence)), NUDGE
    while p < 1.0:  # the inverse is a guess, the distribution function decides
        p, step = p * (1.0 + step), 2.0 * step
        # P(Bin(n, p) <= k), rounded up
        if float(betaincc(k + 1.0, n - k, p)) * (1.0 + NUDGE) <= 1.0 - confidence:
            return p
    return 1.0


def binomial_p_value(violations: int, n: int, coverage: float) -> float:
    """Return ``P(Binomial(n, 1 - coverage) <= violations)``, rounded up.

    The exact p-value of the hypothesis that more than ``1 - coverage`` of all inputs are
    violations, as the incomplete beta function ``I_coverage(n - violations, violations + 1)``: the
    number ``1 - coverage`` is never formed, so never rounded.

    Parameters
    ----------
    violations, n : int
        Inputs above the bound; all inputs.
    coverage : float
        In (0, 1).

    Returns
    -------
    float

    Examples
    --------
    >>> round(binomial_p_value(0, 2, 0.9), 9)
    0.81
    """
    return float(_tail(n - violations, n, coverage)) if violations < n else 1.0


def _tail(successes: npt.ArrayLike, n: int, p: float) -> np.ndarray:
    """Return ``P(Binomial(n, p) >= successes)`` for ``1 <= successes <= n``, rounded up."""
    successes = np.asarray(successes, dtype=np.float64)
    return np.minimum(betainc(successes, n - successes + 1.0, p) * (1.0 + NUDGE) + UNDERFLOW, 1.0)


def order_statistic_bound(
    errors: npt.ArrayLike, coverage: float, confidence: float
) -> float | None:
    """Return the smallest order statistic that bounds a fraction ``coverage`` of inputs to come.

    Parameters
    ----------
    errors : (n,) float64
        Errors on held-out inputs, inf allowed.
    coverage, confidence : float
        In (0, 1).

    Returns
    -------
    float or None
        b such that with probability at least ``confidence`` over the held-out inputs a new error
        is at most b with probability at least ``coverage``; None if n is too small for that.

    Notes
    -----
    Holds for every distribution, ties included. Theory: ``theory/statistical-certificate.md``.
    Source: Wilks 1941.

    Examples
    --------
    >>> order_statistic_bound(range(1, 60), 0.95, 0.95)
    59.0
    >>> order_statistic_bound(range(58), 0.95, 0.95) is None
    True
    """
    values = np.sort(_errors(errors, "order_statistic_bound").reshape(-1))
    coverage = check_fraction(coverage, "coverage", "order_statistic_bound")
    confidence = check_fraction(confidence, "confidence", "order_statistic_bound")
    n = values.size
    ranks = np.arange(1, n + 1)
    # P(at least r of n errors fall below the coverage quantile) <= 1 - confidence
    valid = _tail(ranks, n, coverage) <= 1.0 - confidence
    return float(values[np.argmax(valid)]) if valid.any() else None


def required_samples(coverage: float, confidence: float, violations: int = 0) -> int:
    """Return how many held-out inputs a statement needs if some of them are violations.

    The smallest n with ``P(Binomial(n, 1 - coverage) <= violations) <= 1 - confidence``; fewer
    prove nothing. Without violations that is ``coverage**n <= 1 - confidence``.

    Parameters
    ----------
    coverage, confidence : float
        In (0, 1).
    violations : int
        Inputs among them whose error is above the bound.

    Returns
    -------
    int

    Notes
    -----
    Theory: ``theory/statistical-certificate.md``. The probability is rounded up, so n may be one
    too large where the two sides are equal to ten digits.

    Examples
    --------
    >>> required_samples(0.95, 0.95), required_samples(0.99, 0.99)
    (59, 459)
    >>> required_samples(0.999, 0.95), required_samples(0.95, 0.95, violations=3)
    (2995, 153)
    """
    coverage = check_fraction(coverage, "coverage", "required_samples")
    confidence = check_fraction(confidence, "confidence", "required_samples")
    violations = check_integer(violations, "violations", "required_samples")
    allowed = 1.0 - confidence
    too_few, enough = violations, violations + 1  # the p-value falls as n grows
    while binomial_p_value(violations, enough, coverage) > allowed:
        too_few, enough = enough, 2 * enough
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if binomial_p_value(violations, middle, coverage) > allowed:
            too_few = middle
        else:
            enough = middle
    return enough


def shared_confidence(confidence: float, statements: int) -> float:
    """Return the confidence of each of some statements that shall hold at once (Bonferroni).

    Parameters
    ----------
    confidence : float
        Of all together, in (0, 1).
    statements : int
        How many.

    Returns
    -------
    float
        Rounded towards 1; 1 itself, which no sample reaches, where the share of the error
        probability is below rounding.

    Examples
    --------
    >>> shared_confidence(0.95, 1), round(shared_confidence(0.95, 5), 12)
    (0.95, 0.99)
    """
    confidence = check_fraction(confidence, "confidence", "shared_confidence")
    statements = check_integer(statements, "statements", "shared_confidence", low=1)
    if statements == 1:
        return confidence
    return float(np.nextafter(1.0 - (1.0 - confidence) / statements, 1.0))


@dataclass(frozen=True)
class SequenceStep:
    """Hold one test of a fixed sequence: cut, violations, p-value and whether it was accepted."""

    cut: int
    violations: int
    p_value: float
    accepted: bool


@dataclass(frozen=True)
class SequenceTest:
    """Hold the outcome of :func:`fixed_sequence_test`.

    Parameters
    ----------
    accepted : int or None
        Index of the last accepted cut, None if the first one failed.
    stopped_at : int or None
        Index of the cut that failed, None if all were accepted.
    steps : tuple of SequenceStep
        Every test that was made, in order.
    n : int
        Held-out inputs.
    tolerance, coverage, confidence : float
        What was tested.
    """

    accepted: int | None
    stopped_at: int | None
    steps: tuple[SequenceStep, ...]
    n: int
    tolerance: float
    coverage: float
    confidence: float


def fixed_sequence_test(
    errors: npt.ArrayLike, tolerance: float, coverage: float, confidence: float
) -> SequenceTest:
    """Test a sequence of cuts, the most cautious first, and stop at the first failure.

    The null hypothesis of a cut is ``P(error > tolerance) > 1 - coverage``; its exact p-value with
    k violations among n inputs is ``P(Binomial(n, 1 - coverage) <= k)``. With probability at least
    ``confidence`` *every* accepted cut has ``P(error <= tolerance) >= coverage``.

    Parameters
    ----------
    errors : (cuts, n) float64
        Errors of every cut on the same held-out inputs; the order of the cuts must not depend on
        these inputs. nan counts as a violation.
    tolerance : float
        Largest error that is no violation.
    coverage, confidence : float
        In (0, 1).

    Returns
    -------
    SequenceTest

    Raises
    ------
    DataError
        If n is too small to accept anything.

    Notes
    -----
    Theory: ``theory/fixed-sequence-testing.md``. Source: Angelopoulos et al., arXiv 2110.01052.

    Examples
    --------
    >>> test = fixed_sequence_test([[0.1] * 59, [9.0] * 59, [0.1] * 59], 1.0, 0.95, 0.95)
    >>> test.accepted, test.stopped_at, len(test.steps)
    (0, 1, 2)
    """
    where = "fixed_sequence_test"
    values = np.asarray(errors, dtype=np.float64)
    if values.ndim != 2:
        raise DataError(
            message(where, "errors is not a table", expected="(cuts, n)", got=f"{values.shape}")
        )
    tolerance = check_tolerance(tolerance, where, name="tolerance")
    n = values.shape[1]
    needed = required_samples(coverage, confidence)
    if n < needed:
        raise DataError(
            message(
                where,
                "too few held-out inputs for this coverage and confidence",
                expected=f"at least {needed}",
                got=f"{n}",
                cure="Pass more data, or lower coverage or confidence.",
            )
        )
    steps: list[SequenceStep] = []
    for cut, row in enumerate(values):
        violations = int(np.count_nonzero(~(row <= tolerance)))  # nan is a violation
        p_value = binomial_p_value(violations, n, coverage)
        accepted = p_value <= 1.0 - confidence
        steps.append(SequenceStep(cut, violations, p_value, accepted))
        if not accepted:
            break
    failed = bool(steps) and not steps[-1].accepted
    last = len(steps) - 1 - int(failed)
    return SequenceTest(
        accepted=last if last >= 0 else None,
        stopped_at=steps[-1].cut if failed else None,
        steps=tuple(steps),
        n=n,
        tolerance=tolerance,
        coverage=float(coverage),
        confidence=float(confidence),
    )


def split_indices(count: int, seed: int, *, fraction: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Return a random split of ``range(count)``: to weigh and to certify, both sorted.

    Parameters
    ----------
    count, seed : int
        Number of inputs; seed of the split, recorded in the certificate.
    fraction : float
        Part that goes to the certificate.

    Examples
    --------
    >>> weigh, certify = split_indices(5, seed=0)
    >>> sorted([*weigh.tolist(), *certify.tolist()])
    [0, 1, 2, 3, 4]
    """
    count = check_integer(count, "count", "split_indices", low=2)
    fraction = check_fraction(fraction, "fraction", "split_indices")
    order = np.random.default_rng(seed).permutation(count)
    cut = min(max(1, round(count * (1.0 - fraction))), count - 1)
    return np.sort(order[:cut]), np.sort(order[cut:])


def data_sha256(data: npt.ArrayLike) -> str:
    """Return the SHA-256 of an array: dtype, shape and values."""
    values = np.ascontiguousarray(data)
    digest = hashlib.sha256(f"{values.dtype.str} {values.shape}".encode())
    digest.update(values)
    return digest.hexdigest()


def _errors(errors: npt.ArrayLike, where: str) -> np.ndarray:
    values = np.asarray(list(errors) if isinstance(errors, range) else errors, dtype=np.float64)
    if values.size == 0 or np.isnan(values).any():
        raise DataError(message(where, "errors is empty or holds nan"))
    return values
