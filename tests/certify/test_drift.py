"""Drift of inputs: found where it is, rarely reported where it is not."""

import numpy as np
import pytest
from scipy.stats import binom

from ssmred.certify import input_drift
from ssmred.errors import DataError

TRIALS = 300


def walks(rng, count, features=2):
    return np.cumsum(rng.standard_normal((count, 30, features)), axis=1)


@pytest.mark.parametrize(
    "shift",
    [
        lambda x: x + np.array([0.0, 4.0]),  # an offset of one feature
        lambda x: 1.5 * x,  # another gain
        lambda x: x + np.random.default_rng(3).standard_normal(x.shape),  # noise
        lambda x: np.repeat(x[:, ::2], 2, axis=1),  # a slower sensor
    ],
)
def test_drift_is_found(shift):
    rng = np.random.default_rng(0)
    found = input_drift(walks(rng, 300), shift(walks(rng, 300)))
    assert found.found
    assert "DIFFER" in str(found)


def test_false_alarms_are_as_rare_as_asked():
    rng = np.random.default_rng(1)
    alarms = sum(
        input_drift(walks(rng, 40), walks(rng, 60), level=0.05).found for _ in range(TRIALS)
    )
    assert alarms <= binom.ppf(1 - 1e-4, TRIALS, 0.05)


def test_range_and_table():
    x = np.zeros((10, 5))
    x[:, 0] = np.arange(10)
    y = x.copy()
    y[0, 3] = 99.0
    found = input_drift(x, y)
    assert found.outside == 0.1
    assert not found.found
    assert "does not show that there is none" in str(found)
    assert [test.p_value for test in found.tests] == sorted(test.p_value for test in found.tests)
    assert input_drift(x[:, :1], y[:, :1]).p_value == 1.0  # a single step has no difference


def test_bad_input():
    x = np.zeros((5, 4, 2))
    for wrong in (x[:1], x[0, 0], np.full((5, 4, 2), np.nan), x[..., :1]):
        with pytest.raises(DataError, match="input_drift"):
            input_drift(x, wrong)
