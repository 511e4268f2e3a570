"""Plans against the test itself, against exact sums, and by hand."""

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from ssmred.certify import (
    allowed_violations,
    certifiable_confidence,
    certifiable_coverage,
    fixed_sequence_test,
    required_samples,
    sample_plan,
)
from ssmred.certify.statistics import binomial_p_value, shared_confidence
from ssmred.errors import DataError, OrderError

SHARES = st.floats(0.01, 0.999)


def exact_p_value(k, n, coverage):
    """Return P(Binomial(n, 1 - coverage) <= k) to 40 digits, term by term."""
    with mpmath.workdps(40):
        a = 1 - mpmath.mpf(coverage)
        return mpmath.fsum(mpmath.binomial(n, j) * a**j * (1 - a) ** (n - j) for j in range(k + 1))


@pytest.mark.theorem("statistical-certificate")
@pytest.mark.parametrize("coverage", [0.5, 0.9, 0.95, 0.999, 1 - 1e-6])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.999])
@pytest.mark.parametrize("k", [0, 1, 5])
def test_the_fewest_inputs_by_exact_sums(coverage, confidence, k):
    n = required_samples(coverage, confidence, k)
    assert exact_p_value(k, n, coverage) <= 1 - mpmath.mpf(confidence)
    assert exact_p_value(k, n - 1, coverage) > 1 - mpmath.mpf(confidence)


@pytest.mark.theorem("statistical-certificate")
@given(coverage=SHARES, confidence=SHARES, k=st.integers(0, 12))
def test_a_plan_keeps_its_promise(coverage, confidence, k):
    """With as many inputs as planned the test accepts k violations; with one fewer it does not."""
    n = required_samples(coverage, confidence, k)
    errors = np.zeros((1, n))
    errors[0, :k] = 2.0
    assert fixed_sequence_test(errors, 1.0, coverage, confidence).accepted == 0
    if n - 1 >= max(required_samples(coverage, confidence), k):
        assert fixed_sequence_test(errors[:, : n - 1], 1.0, coverage, confidence).accepted is None


@pytest.mark.theorem("statistical-certificate")
@given(n=st.integers(1, 3000), coverage=SHARES, confidence=SHARES)
def test_the_converse_says_what_the_test_accepts(n, coverage, confidence):
    most = allowed_violations(n, coverage, confidence)
    accepted = [binomial_p_value(k, n, coverage) <= 1 - confidence for k in range(min(n, 40) + 1)]
    if most is None:
        assert not accepted[0]
    else:
        assert binomial_p_value(most, n, coverage) <= 1 - confidence
        assert binomial_p_value(most + 1, n, coverage) > 1 - confidence
        assert n >= required_samples(coverage, confidence, most)


@pytest.mark.theorem("statistical-certificate")
@given(n=st.integers(1, 3000), k=st.integers(0, 20), confidence=SHARES)
def test_the_largest_coverage_is_accepted_and_hardly_more(n, k, confidence):
    k = min(k, n)
    coverage = certifiable_coverage(n, confidence, k)
    if coverage == 0.0:
        assert k == n or exact_p_value(k, n, 1e-9) > 1 - mpmath.mpf(confidence)
        return
    assert exact_p_value(k, n, coverage) <= 1 - mpmath.mpf(confidence)
    if coverage > 1e-6:
        more = 1 - (1 - coverage) * (1 - 1e-6)
        assert exact_p_value(k, n, more) > 1 - mpmath.mpf(confidence)


@given(n=st.integers(1, 3000), k=st.integers(0, 20), coverage=SHARES)
def test_the_largest_confidence(n, k, coverage):
    found = certifiable_confidence(n, coverage, min(k, n))
    exact = 1 - exact_p_value(min(k, n), n, coverage) if k < n else mpmath.mpf(0)
    assert 0 <= found <= max(exact, 0)
    assert found == pytest.approx(float(exact), abs=1e-9)


def test_by_hand():
    # 0.95**59 = 0.0485, 0.95**58 = 0.0510; 2 inputs, none fails: coverage sqrt(0.05)
    assert (allowed_violations(59, 0.95, 0.95), allowed_violations(58, 0.95, 0.95)) == (0, None)
    assert certifiable_coverage(2, 0.95) == pytest.approx(math.sqrt(0.05), rel=1e-9)
    assert certifiable_confidence(2, 0.9) == pytest.approx(1 - 0.81, rel=1e-9)
    assert certifiable_coverage(3, 0.95, 3) == 0.0
    assert shared_confidence(0.9, 4) == pytest.approx(0.975, rel=1e-15)


def test_plan_for_several_statements_is_a_plan_for_each():
    together = sample_plan(0.95, 0.95, statements=10)
    assert [row.inputs for row in together.rows] == [
        required_samples(0.95, shared_confidence(0.95, 10), k) for k in range(6)
    ]
    assert "10 statements at once" in str(together)
    given_inputs = sample_plan(0.95, 0.95, inputs=104, statements=10)
    assert given_inputs.rows[0].coverage >= 0.95
    assert given_inputs.rows[0].confidence >= 0.95


def test_likely_to_pass_is_what_it_says():
    for row in sample_plan(0.99, 0.95).rows:
        assert binom.cdf(row.violations, row.inputs, row.likely) == pytest.approx(0.9, abs=1e-9)


def test_every_row_is_printed():
    for plan in (sample_plan(0.999, 0.95), sample_plan(inputs=500), sample_plan(inputs=2)):
        page = str(plan)
        assert all(f"{row.violations:>10,}" in page for row in plan.rows)
        assert max(map(len, page.splitlines())) <= 100


def test_bad_wishes_are_refused():
    with pytest.raises(DataError, match="coverage"):
        sample_plan(1.0)
    with pytest.raises(DataError, match="confidence"):
        sample_plan(0.9, 0.0)
    with pytest.raises(DataError, match="more violations"):
        sample_plan(inputs=3, violations=4)
    with pytest.raises(OrderError, match="violations"):
        required_samples(0.9, 0.9, -1)
    with pytest.raises(OrderError, match="statements"):
        sample_plan(statements=0)
