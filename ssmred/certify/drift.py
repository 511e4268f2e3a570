"""Compare new inputs with the held-out ones, to notice when they drift from what was certified.

A check, not a guarantee: it can find a shift, it cannot exclude one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import ks_2samp

from ssmred.checks import check_finite, check_fraction
from ssmred.errors import DataError, message

__all__ = ["DriftTest", "InputDrift", "input_drift"]

SUMMARIES = ("mean", "spread", "largest size", "mean step")


@dataclass(frozen=True)
class DriftTest:
    """Hold the comparison of one number per input.

    Parameters
    ----------
    summary : str
        What the number is.
    feature : int
        Of which feature.
    distance : float
        Largest difference of the two distribution functions, 0 to 1.
    p_value : float
        Two-sample Kolmogorov-Smirnov test, without correction.
    """

    summary: str
    feature: int
    distance: float
    p_value: float


@dataclass(frozen=True)
class InputDrift:
    """Hold what :func:`input_drift` found; prints as a table.

    Parameters
    ----------
    tests : tuple of DriftTest
        The smallest p-value first.
    p_value : float
        Of all tests together (Bonferroni).
    level : float
        Below it a drift is reported.
    outside : float
        Share of the new inputs with a value beyond all held-out ones.
    """

    tests: tuple[DriftTest, ...]
    p_value: float
    level: float
    outside: float

    @property
    def found(self) -> bool:
        """Whether the new inputs differ from the held-out ones."""
        return self.p_value <= self.level

    def __str__(self) -> str:
        verdict = (
            "The new inputs DIFFER from the held-out ones: the certificate does not speak of them."
            if self.found
            else "No drift was found. That does not show that there is none."
        )
        rows = [
            f"{test.summary:<20}{test.feature:>8}{test.distance:>12.3f}{test.p_value:>12.2e}"
            for test in self.tests[:5]
        ]
        return "\n".join(
            [
                f"{verdict} (p-value {self.p_value:.2e} of {len(self.tests)} tests together)",
                f"{100.0 * self.outside:.3g} % of the new inputs have a value beyond all held-out "
                "ones.",
                "",
                f"{'per input':<20}{'feature':>8}{'distance':>12}{'p-value':>12}",
                "-" * 52,
                *rows,
            ]
        )


def input_drift(held_out: npt.ArrayLike, new: npt.ArrayLike, *, level: float = 0.01) -> InputDrift:
    """Test whether new inputs are drawn like the held-out ones, by numbers of every input.

    For every feature: mean, standard deviation and largest absolute value over time, mean absolute
    step, each compared by a two-sample Kolmogorov-Smirnov test; the smallest p-value counts, times
    the number of tests.

    Parameters
    ----------
    held_out, new : (n, T, F) or (n, T) array
        Inputs that a certificate was made with, and inputs of the deployment. Without labels.
    level : float
        Probability of a false alarm; in (0, 1).

    Returns
    -------
    InputDrift

    Raises
    ------
    DataError
        If the arrays do not hold inputs of the same features, or fewer than two each.

    Notes
    -----
    Certificate level: none. A shift that leaves these numbers alone is not seen. For tokens the
    numbers mean little: compare counts of tokens instead.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).standard_normal((200, 50, 1))
    >>> input_drift(x[:100], x[100:]).found, input_drift(x[:100], 1.2 * x[100:]).found
    (False, True)
    """
    where = "input_drift"
    level = check_fraction(level, "level", where)
    first, second = _sequences(held_out, "held_out"), _sequences(new, "new")
    if first.shape[2] != second.shape[2]:
        raise DataError(
            message(
                where,
                "the inputs have different features",
                expected=f"{first.shape[2]}",
                got=f"{second.shape[2]}",
            )
        )
    tests = []
    for name, one, two in zip(SUMMARIES, _numbers(first), _numbers(second), strict=True):
        for feature in range(first.shape[2]):
            test = ks_2samp(one[:, feature], two[:, feature])
            tests.append(DriftTest(name, feature, float(test.statistic), float(test.pvalue)))
    tests.sort(key=lambda test: test.p_value)
    low, high = first.min(axis=(0, 1)), first.max(axis=(0, 1))
    beyond = np.any((second < low) | (second > high), axis=(1, 2))
    together = min(1.0, len(tests) * tests[0].p_value)
    return InputDrift(tuple(tests), together, level, float(beyond.mean()))


def _sequences(values: npt.ArrayLike, name: str) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    array = array[..., None] if array.ndim == 2 else array
    if array.ndim != 3 or len(array) < 2 or array.size == 0:
        raise DataError(
            message(
                "input_drift",
                f"{name} holds no inputs to compare",
                expected="at least two, (n, T, features) or (n, T)",
                got=f"shape {np.shape(values)}",
            )
        )
    return check_finite(array, name, "input_drift")


def _numbers(x: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return numbers of every input and feature, (n, F) each."""
    step = np.abs(np.diff(x, axis=1)).mean(axis=1) if x.shape[1] > 1 else np.zeros(x[:, 0].shape)
    return x.mean(axis=1), x.std(axis=1), np.abs(x).max(axis=1), step
