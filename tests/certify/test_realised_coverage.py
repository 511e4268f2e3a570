"""What statistical statements are worth over 500 splits of pools whose truth is known.

Held-out inputs are drawn at random, 500 times, from a pool of known errors and decisions; the pool
is the distribution that the statement is about. How often a statement comes true has an exact
probability, from hypergeometric terms, so the slack is computed and nothing is guessed.
"""

import numpy as np
import pytest
from scipy.stats import binom, hypergeom

from ssmred.certify import (
    certifiable_coverage,
    decision_changes,
    exceedance_upper_bound,
    fixed_sequence_test,
    order_statistic_bound,
)

SPLITS = 500
POOL = 200_000
RARE = 1e-4  # a correct method leaves the binomial range this often at each end; seeds are fixed


def within_binomial_range(hits, probability):
    return binom.ppf(RARE, SPLITS, probability) <= hits <= binom.ppf(1 - RARE, SPLITS, probability)


@pytest.mark.theorem("statistical-certificate")
@pytest.mark.parametrize(
    ("n", "coverage", "confidence"),
    [(59, 0.95, 0.95), (400, 0.95, 0.95), (1000, 0.99, 0.9), (400, 0.5, 0.8)],
)
def test_errors_keep_their_bound_as_often_as_stated_and_hardly_oftener(n, coverage, confidence):
    rng = np.random.default_rng(n)
    pool = np.sort(np.exp(3 * rng.standard_normal(POOL)))  # heavy tail, no ties
    realised = np.empty(SPLITS)
    for split in range(SPLITS):
        held_out = rng.choice(POOL, n, replace=False)
        bound = order_statistic_bound(pool[held_out], coverage, confidence)
        realised[split] = np.searchsorted(pool, bound, side="right") / POOL
    rank = order_statistic_bound(np.arange(1, n + 1), coverage, confidence)
    below = int(np.ceil(coverage * POOL - 1e-6)) - 1  # inputs that lie below the quantile
    probability = hypergeom.cdf(rank - 1, POOL, below, n)
    # the exact probability is at or above the nominal one; the rank below would miss it
    assert confidence <= probability <= confidence + binom.pmf(rank - 1, n, coverage) + n / POOL
    assert within_binomial_range(np.count_nonzero(realised >= coverage), probability)
    # and the coverage itself is that of the order statistic, Beta(rank, n + 1 - rank)
    mean = rank / (n + 1)
    spread = np.sqrt(mean * (1 - mean) / (n + 2) / SPLITS)
    assert abs(realised.mean() - mean) <= 4 * spread


@pytest.mark.theorem("statistical-certificate")
def test_ties_only_add_coverage():
    rng = np.random.default_rng(1)
    pool = np.sort(np.floor(10 * rng.random(POOL)))
    hits = 0
    for _ in range(SPLITS):
        bound = order_statistic_bound(rng.choice(pool, 100, replace=False), 0.9, 0.9)
        hits += np.searchsorted(pool, bound, side="right") >= 0.9 * POOL
    assert hits >= binom.ppf(RARE, SPLITS, 0.9)


def scores(labels, classes):
    return np.eye(classes)[labels]


@pytest.mark.theorem("decision-changes")
@pytest.mark.parametrize("share", [0.003, 0.02, 0.2])
def test_decisions_change_as_rarely_as_stated(share):
    n, classes, confidence = 600, 4, 0.95
    rng = np.random.default_rng(int(1000 * share))
    labels = rng.choice(classes, POOL, p=[0.5, 0.3, 0.15, 0.05])
    changed = rng.random(POOL) < share * np.array([0.2, 1.0, 2.0, 4.0])[labels]
    after = np.where(changed, (labels + 1) % classes, labels)
    truth = changed.mean()
    by_class = np.array([changed[labels == c].mean() for c in range(classes)])
    overall = simultaneous = both = 0
    for _ in range(SPLITS):
        held_out = rng.choice(POOL, n, replace=False)
        found = decision_changes(
            scores(labels[held_out], classes), scores(after[held_out], classes), confidence
        )
        assert found.changes == changed[held_out].sum()
        one = truth <= found.bound
        every = all(by_class[entry.label] <= entry.bound for entry in found.by_class)
        overall, simultaneous, both = overall + one, simultaneous + every, both + (one and every)
    counts = np.arange(n + 1)
    bounds = np.array([exceedance_upper_bound(k, n, confidence) for k in counts])
    exact = hypergeom.pmf(counts, POOL, changed.sum(), n)
    probability = exact[bounds >= truth].sum()
    assert probability >= confidence
    # not above by more than the one count that decides, or below any count: 0 changes hold
    worst = counts[bounds < truth]
    step = exact[worst[-1] + 1] if worst.size else 1.0
    assert probability <= confidence + step + n / POOL
    assert within_binomial_range(overall, min(probability, 1.0))
    assert simultaneous >= binom.ppf(RARE, SPLITS, confidence)
    assert both >= binom.ppf(RARE, SPLITS, 1 - 2 * (1 - confidence))


@pytest.mark.theorem("decision-changes")
def test_a_walk_that_picks_its_cut_by_the_same_inputs():
    """Errors made so that a cut is kept just when it happens to show few changes."""
    n, cuts, confidence, share = 200, 8, 0.9, 0.5
    bounds = np.array([exceedance_upper_bound(k, n, confidence) for k in range(n + 1)])
    few = int(np.flatnonzero(bounds < share)[-1])  # so few changes make the bound too small
    coverage = certifiable_coverage(n, confidence, n - few - 1)
    rng = np.random.default_rng(0)
    naive = corrected = 0
    for _ in range(SPLITS):
        changes = rng.random((cuts, n)) < share
        violated = np.vstack([np.zeros(n, dtype=bool), ~changes[:-1]])
        test = fixed_sequence_test(np.where(violated, 2.0, 0.0), 1.0, coverage, confidence)
        kept = test.accepted
        outputs = scores(np.zeros(n, dtype=int), 2), scores(changes[kept].astype(int), 2)
        naive += share <= decision_changes(*outputs, confidence).bound
        corrected += share <= decision_changes(*outputs, confidence, cuts=cuts).bound
    assert naive <= 0.7 * SPLITS  # far from 90 %: the correction is needed
    assert corrected >= binom.ppf(RARE, SPLITS, confidence)
