"""Exact statistics against scipy.stats, by hand, and by simulation of their coverage."""

import mpmath
import numpy as np
import pytest
from scipy.stats import beta, binom

from ssmred.certify import (
    data_sha256,
    exceedance_upper_bound,
    fixed_sequence_test,
    order_statistic_bound,
    required_samples,
    split_indices,
)
from ssmred.certify.statistics import binomial_p_value
from ssmred.errors import DataError

SIMULATED = 4000
# three standard deviations of the observed failure rate: a correct method fails this 1 in 700
MARGIN = 3 * np.sqrt(0.1 * 0.9 / SIMULATED)


def exact_cdf(k, n, p):
    """Return P(Binomial(n, p) <= k) to 30 digits, as an incomplete beta function."""
    with mpmath.workdps(30):
        return mpmath.betainc(n - k, k + 1, 0, 1 - mpmath.mpf(p), regularized=True)


@pytest.mark.theorem("statistical-certificate")
@pytest.mark.parametrize("n", [1, 5, 59, 300, 5000])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_clopper_pearson_against_beta_and_binomial(n, confidence):
    for k in sorted({0, 1, n // 7, n // 2, n - 1, n} & set(range(n + 1))):
        p = exceedance_upper_bound(k, n, confidence)
        if k == n:
            assert p == 1.0
            continue
        assert p == pytest.approx(beta.ppf(confidence, k + 1, n - k), rel=1e-9)
        assert exact_cdf(k, n, p) <= 1 - mpmath.mpf(confidence)
        assert exact_cdf(k, n, p * (1 - 1e-9)) > 1 - mpmath.mpf(confidence)


@pytest.mark.theorem("statistical-certificate")
@pytest.mark.parametrize("n", [1, 59, 1000, 30_000, 300_000])
@pytest.mark.parametrize("coverage", [0.1, 0.3, 0.9, 0.95, 0.999])
def test_p_values_are_upper_bounds(n, coverage):
    """Against exact sums of binomial terms, at the coverage as it is stored: no slack."""
    mean, spread = n * (1 - coverage), np.sqrt(n * coverage * (1 - coverage))
    for k in {int(mean - step * spread) for step in (0, 1, 1.6, 3)} | {0, n - 1}:
        if not 0 <= k < n:
            continue
        got = binomial_p_value(k, n, coverage)
        with mpmath.workdps(40):
            a = 1 - mpmath.mpf(coverage)
            term = mpmath.binomial(n, k) * a**k * (1 - a) ** (n - k)
            exact, j = term, k
            while j > 0 and term > exact * mpmath.mpf(10) ** -35:
                term *= j * (1 - a) / ((n - j + 1) * a)
                exact, j = exact + term, j - 1
            assert exact - term * mpmath.mpf(10) ** -30 <= got or exact >= 1 == got
            assert got <= exact * (1 + mpmath.mpf("2e-10")) + mpmath.mpf("2e-300")
    assert binomial_p_value(n, n, coverage) == 1.0


@pytest.mark.theorem("statistical-certificate")
@pytest.mark.parametrize("n", [59, 1000, 100_000])
def test_the_three_statements_accept_the_same(n):
    for k in range(0, 8):
        accepted = binomial_p_value(k, n, 0.95) <= 1 - 0.95
        assert accepted == (exceedance_upper_bound(k, n, 0.95) <= 1 - 0.95)
        errors = np.r_[np.zeros(n - k), np.ones(k)]
        assert accepted == (order_statistic_bound(errors, 0.95, 0.95) == 0.0)


@pytest.mark.theorem("statistical-certificate")
def test_rule_of_three_by_hand():
    assert exceedance_upper_bound(0, 100, 0.95) == pytest.approx(1 - 0.05**0.01, rel=1e-9)


@pytest.mark.theorem("statistical-certificate")
@pytest.mark.parametrize(("coverage", "confidence"), [(0.95, 0.95), (0.99, 0.9), (0.5, 0.999)])
def test_required_samples_are_the_fewest(coverage, confidence):
    n = required_samples(coverage, confidence)
    assert coverage**n <= 1 - confidence < coverage ** (n - 1)
    errors = np.arange(n, dtype=float)
    assert order_statistic_bound(errors, coverage, confidence) == n - 1
    assert order_statistic_bound(errors[1:], coverage, confidence) is None


@pytest.mark.theorem("statistical-certificate")
@pytest.mark.parametrize("n", [60, 200, 1000])
def test_the_order_statistic_is_the_smallest_valid_one(n):
    bound = order_statistic_bound(np.arange(1, n + 1), 0.9, 0.95)
    r = int(bound)
    assert binom.sf(r - 1, n, 0.9) <= 0.05 < binom.sf(r - 2, n, 0.9)
    # the same statement by counting exceedances
    assert exceedance_upper_bound(n - r, n, 0.95) <= 0.1 + 1e-12
    assert exceedance_upper_bound(n - r + 1, n, 0.95) > 0.1


@pytest.mark.theorem("statistical-certificate")
@pytest.mark.parametrize("kind", ["continuous", "atoms"])
def test_coverage_of_the_order_statistic(kind):
    rng = np.random.default_rng(0)
    draws = rng.random((SIMULATED, 80))
    if kind == "atoms":
        draws = np.floor(draws * 7) / 7
    failures = 0
    for row in draws:
        bound = order_statistic_bound(row, 0.9, 0.9)
        covered = bound if kind == "continuous" else (np.floor(bound * 7 + 1e-9) + 1) / 7
        failures += covered < 0.9
    assert failures / SIMULATED <= 0.1 + MARGIN


@pytest.mark.theorem("statistical-certificate")
def test_coverage_of_the_binomial_bound():
    rng = np.random.default_rng(1)
    for p in (0.02, 0.1, 0.5):
        counts = rng.binomial(60, p, SIMULATED)
        table = np.array([exceedance_upper_bound(k, 60, 0.9) for k in range(61)])
        assert np.mean(table[counts] < p) <= 0.1 + MARGIN


@pytest.mark.theorem("fixed-sequence-testing")
def test_family_wise_error_of_the_sequence():
    """Cuts around and beyond the allowed exceedance: any bad one accepted is a failure."""
    rng = np.random.default_rng(2)
    levels = np.array([0.02, 0.05, 0.1001, 0.1001, 0.3])  # allowed: 0.1
    bad = 0
    for _ in range(SIMULATED):
        u = rng.random((1, 80))
        errors = np.where(u < levels[:, None], 2.0, 0.5)  # nested, as cuts of one path are
        test = fixed_sequence_test(errors, 1.0, 0.9, 0.9)
        bad += test.accepted is not None and levels[test.accepted] > 0.1
    assert bad / SIMULATED <= 0.1 + MARGIN


@pytest.mark.theorem("fixed-sequence-testing")
def test_sequence_stops_at_the_first_failure():
    n = 100
    table = np.zeros((4, n))
    table[1, :2] = 5.0
    table[2, :40] = 5.0
    test = fixed_sequence_test(table, 1.0, 0.9, 0.9)
    assert (test.accepted, test.stopped_at) == (1, 2)
    assert [step.violations for step in test.steps] == [0, 2, 40]
    for step in test.steps:
        assert step.p_value == pytest.approx(binom.cdf(step.violations, n, 0.1), rel=1e-9)
        assert step.accepted == (step.p_value <= 0.1)
    assert fixed_sequence_test(table[2:], 1.0, 0.9, 0.9).accepted is None
    assert fixed_sequence_test(table[:2], 1.0, 0.9, 0.9).stopped_at is None
    table[0, 0] = np.nan  # what cannot be compared is a violation
    assert fixed_sequence_test(table, 1.0, 0.9, 0.9).steps[0].violations == 1
    table[0, :] = np.nan
    assert fixed_sequence_test(table, 1.0, 0.9, 0.9).accepted is None


def test_bad_arguments_are_refused():
    with pytest.raises(DataError, match="more events"):
        exceedance_upper_bound(3, 2, 0.9)
    for confidence in (0.0, 1.0, np.nan):
        with pytest.raises(DataError):
            exceedance_upper_bound(0, 5, confidence)
    with pytest.raises(DataError, match="nan"):
        order_statistic_bound([1.0, np.nan], 0.9, 0.9)
    with pytest.raises(DataError, match="nan"):
        order_statistic_bound([], 0.9, 0.9)
    with pytest.raises(DataError, match="at least 59"):
        fixed_sequence_test(np.zeros((2, 58)), 1.0, 0.95, 0.95)
    with pytest.raises(DataError, match="table"):
        fixed_sequence_test(np.zeros(60), 1.0, 0.95, 0.95)
    with pytest.raises(ValueError, match="tolerance"):
        fixed_sequence_test(np.zeros((1, 60)), np.nan, 0.95, 0.95)


def test_infinite_errors_are_ranked_last():
    assert order_statistic_bound([0.0] * 100 + [np.inf], 0.9, 0.9) == 0.0
    assert order_statistic_bound([np.inf] * 100, 0.9, 0.9) == np.inf


def test_splits_are_disjoint_complete_and_repeatable():
    weigh, certify = split_indices(101, 7, fraction=0.4)
    assert sorted([*weigh, *certify]) == list(range(101))
    assert len(certify) == 40
    assert np.array_equal(split_indices(101, 7, fraction=0.4)[1], certify)
    assert not np.array_equal(split_indices(101, 8, fraction=0.4)[1], certify)
    assert [len(part) for part in split_indices(2, 0, fraction=0.99)] == [1, 1]


def test_data_hash_sees_values_shape_and_type():
    a = np.arange(6.0)
    hashes = {data_sha256(x) for x in (a, a.reshape(2, 3), a.astype(np.float32), a + 1e-12)}
    assert len(hashes) == 4
    assert data_sha256(a[::2]) == data_sha256(a[::2].copy())
