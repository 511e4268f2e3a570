"""Recompute the statistical part of a certificate: counts, tests, the walk, decisions.

What verification says, and does not say, is in docs/certificates.md.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ssmred.certify.certificate import Certificate
from ssmred.certify.comparison import Check, ModelReader, check_number
from ssmred.certify.decisions import DecisionChanges, decision_changes
from ssmred.certify.scale import output_errors
from ssmred.certify.statistics import binomial_p_value, data_sha256, split_indices
from ssmred.checks import check_fraction, check_integer
from ssmred.errors import DataError, ShapeError

__all__ = ["check_statistics"]


def check_statistics(
    certificate: Certificate,
    reader: ModelReader,
    original: Any,
    reduced: Any,
    data: Any,
    checks: list[Check],
    left: list[str],
) -> Any:
    """Compare the statistics; return the inputs that the scale was measured on, if at hand."""
    facts = certificate.statistics or {}
    try:
        n = check_integer(facts["n"], "n", "verify", low=1)
        violations = check_integer(facts["violations"], "violations", "verify")
        coverage = check_fraction(facts["coverage"], "coverage", "verify")
        confidence = check_fraction(facts["confidence"], "confidence", "verify")
        if facts.get("sequence") is not None:
            _check_sequence(certificate, facts, checks)
        stated = None
        if facts.get("decisions") is not None:
            stated = _check_decisions(facts, n, checks)
    except (KeyError, TypeError, ValueError) as error:
        checks.append(Check("statistics", False, str(facts), f"not understood ({error})"))
        return None
    p_value = binomial_p_value(violations, n, coverage)
    checks.append(
        Check(
            "binomial test",
            violations <= n and p_value <= 1.0 - confidence,
            f"{violations} of {n} above the bound",
            f"p-value {p_value:.6g}, allowed {1.0 - confidence:.6g}",
        )
    )
    if data is None:
        left.append(
            "the statistical part: pass data= to recompute the errors on the held-out inputs"
        )
        return None
    inputs, deciding = _halves(facts, data)
    if inputs is None:
        checks.append(
            Check("held-out inputs", False, str(facts.get("data_sha256")), "another hash")
        )
        return None
    outputs = reader.outputs(original, inputs), reader.outputs(reduced, inputs)
    errors = output_errors(*outputs)
    found = int(np.count_nonzero(~(errors <= certificate.bound * certificate.scale)))
    checks.append(Check("held-out inputs", len(errors) == n, str(n), str(len(errors))))
    checks.append(Check("violations", found == violations, str(violations), str(found)))
    if stated is not None:
        _compare_decisions(stated, outputs, checks)
    left.append("the earlier cuts of the tested sequence: their networks are not at hand")
    return deciding


def _check_decisions(facts: dict[str, Any], n: int, checks: list[Check]) -> DecisionChanges:
    """Compare the bounds on changed decisions with what their own counts say."""
    stated = DecisionChanges.from_json(facts["decisions"])  # refuses bounds that do not follow
    checks.append(Check("decisions: inputs", stated.inputs == n, str(stated.inputs), str(n)))
    asked = facts["confidence"]
    same = stated.confidence == asked
    checks.append(Check("decisions: confidence", same, str(stated.confidence), str(asked)))
    walked = len(facts.get("sequence") or [None])
    enough = stated.cuts >= walked
    checks.append(Check("decisions: cuts", enough, str(stated.cuts), f"at least {walked}"))
    return stated


def _compare_decisions(
    stated: DecisionChanges, outputs: tuple[np.ndarray, np.ndarray], checks: list[Check]
) -> None:
    """Compare the counts of changed decisions, overall and in every class."""
    try:
        found = decision_changes(*outputs, stated.confidence, cuts=stated.cuts)
    except ShapeError as error:
        checks.append(Check("decisions", False, str(stated.changes), str(error)))
        return
    for name in ("changes", "classes"):
        a, b = getattr(stated, name), getattr(found, name)
        checks.append(Check(f"decisions: {name}", a == b, str(a), str(b)))
    counts = [
        [(entry.label, entry.inputs, entry.changes) for entry in one.by_class]
        for one in (stated, found)
    ]
    differing = [str(a) for a, b in zip(*counts, strict=False) if a != b]
    checks.append(
        Check(
            "decisions: by class",
            counts[0] == counts[1],
            f"{len(counts[0])} classes",
            f"{len(counts[1])} classes; differing {', '.join(differing)}"
            if counts[0] != counts[1]
            else "equal counts",
        )
    )


def _check_sequence(certificate: Certificate, facts: dict[str, Any], checks: list[Check]) -> None:
    """Compare the record of the walk with what its violations say; the networks are not needed."""
    n, allowed = facts["n"], 1.0 - facts["confidence"]
    steps = [dict(step) for step in facts["sequence"]]
    accepted: list[bool] = []
    for at, step in enumerate(steps):
        violations = check_integer(step["violations"], "violations", "verify")
        p_value = binomial_p_value(violations, n, facts["coverage"])
        accepted.append(violations <= n and p_value <= allowed)
        check_number(checks, f"cut {at}: p-value", float(step["p_value"]), p_value)
        stated = step["accepted"]
        passed = stated is accepted[-1]
        checks.append(Check(f"cut {at}: accepted", passed, str(stated), str(accepted[-1])))
    walked = bool(steps) and all(accepted[:-1])
    checks.append(
        Check("walk", walked, f"{len(steps)} cuts", "at least one, all but the last accepted")
    )
    if not walked:
        return
    stop = None if accepted[-1] else len(steps) - 1
    stated = facts.get("stopped_at")
    checks.append(Check("walk: stopped at", stated == stop, str(stated), str(stop)))
    last = max(0, len(steps) - (1 if accepted[-1] else 2))  # the last accepted, else the first cut
    kept, cut = certificate.states[0], steps[last]["states"]
    checks.append(Check("walk: kept cut", kept == cut, f"{kept} states", f"{cut} states"))
    if certificate.tol is None or kept != cut:
        return
    bound, tol = certificate.bound, certificate.tol
    if not accepted[0]:  # an order statistic of the first cut, above the tolerance it failed
        checks.append(Check("bound", bound > tol, f"{bound:.12g}", f"above {tol:.12g}"))
        return
    checks.append(Check("bound", bound == tol, f"{bound:.12g}", f"{tol:.12g}, as was tested"))
    tested, stated = steps[last]["violations"], facts["violations"]
    checks.append(Check("violations", stated == tested, str(stated), f"{tested} in the walk"))


def _halves(facts: dict[str, Any], data: Any) -> tuple[Any, Any]:
    """Return the held-out inputs within ``data`` and the deciding ones, None where not found."""
    values = np.asarray(data)
    if data_sha256(values) == facts.get("data_sha256"):
        return data, None
    seed, fraction = facts.get("split_seed"), facts.get("split_fraction", 0.5)
    if seed is None or len(values) < 2:
        return None, None
    try:
        decide, certify = split_indices(len(values), int(seed), fraction=float(fraction))
    except (DataError, TypeError, ValueError):
        return None, None
    if data_sha256(values[certify]) != facts.get("data_sha256"):
        return None, None
    return data[certify], data[decide]
