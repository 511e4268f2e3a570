"""How often statistical statements come true: 500 splits of the test images of bundled networks.

The errors and the decisions of a network and its reduction are known on a pool of 10,000 inputs.
500 times some of them are drawn as held-out inputs, statements are made from these alone, and
checked on the pool, the distribution that the statements are about. How often a statement about
one number comes true has an exact probability (hypergeometric); the range is that of 500 trials
with it. The table goes into `docs/benchmarks.md` too, unless `--dry`. Exits 1 where a count lies
outside.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
from rich.progress import track
from scipy.stats import binom, hypergeom
from timing import markdown, written

import ssmred
from ssmred import zoo
from ssmred.certify import (
    decision_changes,
    exceedance_upper_bound,
    order_statistic_bound,
    output_errors,
)
from ssmred.networks.sensing import outputs
from ssmred.report import table

NETWORKS = ("fashion-mnist-s4d", "fashion-mnist-lru")
STATES = 0.1
SPLITS, HELD_OUT = 500, 500
CONFIDENCE = 0.95
RARE = 1e-3  # chance of a count below the range, and of one above it
HEADERS = ["network", "statement", "came true", "stated", "exact", "range of 500 trials"]


def outcome(name: str, statement: str, hits: int, stated: float, exact: float | None) -> list[str]:
    """Return a row; without an exact probability the range is that of the stated one, one-sided."""
    low = binom.ppf(RARE, SPLITS, stated if exact is None else exact)
    high = SPLITS if exact is None else binom.ppf(1.0 - RARE, SPLITS, exact)
    shown = f"{100 * low / SPLITS:.1f} to {100 * high / SPLITS:.1f} %"
    return [
        name,
        statement,
        f"{100 * hits / SPLITS:.1f} %" + ("" if low <= hits <= high else " OUTSIDE"),
        f"{100 * stated:.0f} %",
        "at least that" if exact is None else f"{100 * exact:.1f} %",
        shown,
    ]


def errors_covered(name: str, errors: np.ndarray, coverage: float, seed: int) -> list[str]:
    """Return how often the bound on a share of the errors holds on the pool."""
    rng, pool = np.random.default_rng(seed), np.sort(errors)
    hits = 0
    for _ in range(SPLITS):
        held_out = rng.choice(pool, HELD_OUT, replace=False)
        bound = order_statistic_bound(held_out, coverage, CONFIDENCE)
        hits += np.searchsorted(pool, bound, side="right") >= coverage * len(pool)
    rank = order_statistic_bound(np.arange(1, HELD_OUT + 1), coverage, CONFIDENCE)
    quantile = pool[int(np.ceil(coverage * len(pool) - 1e-9)) - 1]
    below = int(np.searchsorted(pool, quantile, side="left"))
    exact = float(hypergeom.cdf(rank - 1, len(pool), below, HELD_OUT))
    return outcome(name, f"{coverage:.0%} of the errors below the bound", hits, CONFIDENCE, exact)


def changes_covered(name: str, before: np.ndarray, after: np.ndarray, seed: int) -> list[list[str]]:
    """Return how often the bounds on changed decisions hold on the pool."""
    rng, n = np.random.default_rng(seed), len(before)
    labels, changed = before.argmax(1), before.argmax(1) != after.argmax(1)
    truth = changed.mean()
    by_class = {c: changed[labels == c].mean() for c in np.unique(labels)}
    overall = classes = 0
    for _ in range(SPLITS):
        held_out = rng.choice(n, HELD_OUT, replace=False)
        found = decision_changes(before[held_out], after[held_out], CONFIDENCE)
        overall += truth <= found.bound
        classes += all(by_class[entry.label] <= entry.bound for entry in found.by_class)
    counts = np.arange(HELD_OUT + 1)
    bounds = np.array([exceedance_upper_bound(k, HELD_OUT, CONFIDENCE) for k in counts])
    exact = float(hypergeom.pmf(counts, n, changed.sum(), HELD_OUT)[bounds >= truth].sum())
    return [
        outcome(name, f"the class changes ({100 * truth:.1f} %)", overall, CONFIDENCE, exact),
        outcome(name, "the same in all classes at once", classes, CONFIDENCE, None),
    ]


def measure() -> list[list[str]]:
    """Return the rows of all networks."""
    rows = []
    for seed, name in enumerate(track(NETWORKS, description="networks")):
        model, data = zoo.load(name)
        reduced = ssmred.reduce(
            model, states=STATES, data=data.calibration.inputs, progress=False
        ).model
        before, after = (outputs(net, data.test.inputs) for net in (model, reduced))
        errors = output_errors(before, after)
        rows += [errors_covered(name, errors, share, seed) for share in (0.9, 0.95, 0.99)]
        rows += changes_covered(name, before, after, seed)
    return rows


def main() -> None:
    """Measure, print, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dry", action="store_true", help="leave docs/benchmarks.md as it is")
    dry = parser.parse_args().dry
    rows = measure()
    print(table(rows, HEADERS))
    if not dry:
        written("realised-coverage", markdown(rows, HEADERS))
    sys.exit(any("OUTSIDE" in row[2] for row in rows))


if __name__ == "__main__":
    main()
