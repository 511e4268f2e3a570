"""Recompute a certificate from the two models, and refuse on any difference.

Torch models reach this room through a reader that ``ssmred.networks`` registers, so that nothing
here imports torch. What verification says, and does not say, is in docs/certificates.md.
"""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ssmred.certify.certificate import Certificate, layer_records
from ssmred.certify.chain import layer_bounds, network_bound
from ssmred.certify.enclosing import EnclosureProgress, enclose
from ssmred.certify.graph import NetworkGraph
from ssmred.certify.guarantees import ASSUMPTIONS, THEOREMS
from ssmred.certify.inputs import InputSet
from ssmred.certify.scale import fault_of_plan, output_errors, output_scale, relative_bound
from ssmred.certify.statistics import (
    binomial_p_value,
    data_sha256,
    split_indices,
)
from ssmred.checks import check_fraction, check_integer
from ssmred.errors import (
    CertificateError,
    DataError,
    MissingDependencyError,
    message,
)

__all__ = [
    "Check",
    "ModelReader",
    "Verification",
    "output_errors",
    "output_scale",
    "register_model_reader",
    "verify",
]

AGREEMENT = 1e-9  # relative; another BLAS sums in another order, the same one agrees exactly
RELATIVE_FLOOR = 1e-13  # h2 errors below this part of a layer's norm are rounding on both sides
SCALE_AGREEMENT = 1e-4  # relative; scales come from float32 inference


class ModelReader(Protocol):
    """Translate models for the verifier."""

    def graph(self, model: Any, horizon: int | None, inputs: InputSet) -> Any:
        """Return the model's NetworkGraph."""
        ...

    def systems(self, model: Any) -> Any:
        """Return the model's layers, name to DiagonalSystem, in execution order."""
        ...

    def weights_sha256(self, model: Any) -> str:
        """Return the SHA-256 of the model's weights."""
        ...

    def outputs(self, model: Any, data: Any) -> np.ndarray:
        """Return the model's outputs (samples, ...) in eval mode."""
        ...

    def store(self, model: Any, folder: Path) -> None:
        """Write the model to a folder, as `ssmred.rigour` reads it."""
        ...


_readers: list[ModelReader] = []


def register_model_reader(reader: ModelReader) -> None:
    """Register the translator of models; the last one registered is used.

    Parameters
    ----------
    reader : ModelReader
        Offers ``graph``, ``systems``, ``weights_sha256`` and ``outputs``.
    """
    _readers.append(reader)


def model_reader() -> ModelReader:
    """Return the registered reader, importing ``ssmred.networks`` if there is none yet."""
    if not _readers:
        importlib.import_module("ssmred.networks")
    if not _readers:
        raise MissingDependencyError(
            message(
                "verify",
                "no reader of models is registered",
                cure="Import ssmred.networks, or call register_model_reader.",
            )
        )
    return _readers[-1]


@dataclass(frozen=True)
class Check:
    """Hold one comparison: what the certificate says and what was found."""

    name: str
    passed: bool
    stated: str
    found: str


@dataclass(frozen=True)
class Verification:
    """Report a verification that found no difference.

    Parameters
    ----------
    checks : tuple of Check
        Every comparison that was made.
    not_recomputed : tuple of str
        What the verification could not or did not recompute, in words.
    certificate : Certificate or None
        The certificate at level RIGOROUS, where it was verified rigorously.
    """

    checks: tuple[Check, ...]
    not_recomputed: tuple[str, ...]
    certificate: Certificate | None = None

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    def __str__(self) -> str:
        lines = [f"{'check':<40}{'stated':>24}  found", "-" * 88]
        for check in self.checks:
            mark = "" if check.passed else "   DIFFERS"
            lines.append(
                f"{_short(check.name, 39):<40}{_short(check.stated, 22):>24}  "
                f"{_short(check.found, 22)}{mark}"
            )
        lines.append("")
        lines += [f"not recomputed: {text}" for text in self.not_recomputed]
        lines.append(f"{len(self.checks)} checks, " + ("all agree" if self.passed else "REFUSED"))
        return "\n".join(lines)


def verify(
    certificate: Certificate,
    original: Any,
    reduced: Any,
    *,
    data: Any = None,
    rigorous: bool = False,
    progress: EnclosureProgress | None = None,
) -> Verification:
    """Recompute a certificate from the two models.

    Parameters
    ----------
    certificate : Certificate
        What is claimed.
    original, reduced : model
        The two networks it is claimed of.
    data : array, optional
        For a statistical certificate: the held-out inputs, or all inputs before the split. For a
        worst-case certificate whose scale was measured on data: these data. The inputs are
        recognised by their hash.
    rigorous : bool
        Also recompute a worst-case certificate in ball arithmetic, by `ssmred.rigour.verify`; one
        of level RIGOROUS is recomputed so in any case, and not in float64.
    progress : callable, optional
        Called with a stage of the rigorous part, what is done of it and how much there is.

    Returns
    -------
    Verification
        Prints as a table, and says what was not recomputed.

    Raises
    ------
    CertificateError
        On any difference; the message lists every one.
    MissingDependencyError
        If python-flint is needed and not installed.

    Notes
    -----
    Hashes and integers have to be equal; recomputed bounds have to agree to a relative 1e-9, which
    leaves room for another BLAS but not for another model.
    """
    reader = model_reader()
    checks: list[Check] = []
    left: list[str] = []
    enclosed = certificate.level == "RIGOROUS"
    raised = None

    def compare(name: str, stated: Any, found: Any) -> None:
        checks.append(Check(name, stated == found, str(stated), str(found)))

    compare("original weights", certificate.original_sha256, reader.weights_sha256(original))
    compare("reduced weights", certificate.reduced_sha256, reader.weights_sha256(reduced))
    if not enclosed:
        _check_words(certificate, checks)
    if all(check.passed for check in checks):  # other models are not worth the work
        if rigorous or enclosed:
            report, raised = enclose(certificate, reader, original, reduced, progress)
            checks += [Check(c.name, c.passed, c.stated, c.found) for c in report.checks]
        if enclosed:
            inputs = InputSet.from_json(certificate.inputs or {})
            graph = reader.graph(original, certificate.horizon, inputs)
        else:
            graph = _check_layers(certificate, reader, original, reduced, checks)
        deciding = data
        if certificate.guarantee == "statistical":
            deciding = _check_statistics(certificate, reader, original, reduced, data, checks, left)
        elif data is not None and "data_sha256" not in (certificate.scale_sampling or {}):
            left.append("the data: this guarantee does not rest on any")
        if certificate.guarantee != "layer":
            _check_scale(certificate, reader, original, graph, deciding, checks, left)
    report = Verification(tuple(checks), tuple(left), raised)
    if not report.passed:
        wrong = "; ".join(
            f"{check.name}: stated {check.stated}, found {check.found}"
            for check in checks
            if not check.passed
        )
        raise CertificateError(
            message(
                "verify",
                f"the certificate does not describe these models: {wrong}",
                cure="Pass the two models it was issued for, unchanged, or reduce again.",
            )
        )
    return report


def _check_words(certificate: Certificate, checks: list[Check]) -> None:
    kind = certificate.guarantee
    for name, stated, expected in (
        ("theorems", certificate.theorems, THEOREMS[kind]),
        ("assumptions", certificate.assumptions, ASSUMPTIONS[kind]),
    ):
        missing = [text for text in expected if text not in stated]
        checks.append(
            Check(
                name,
                not missing,
                f"{len(stated)} of them",
                f"missing {missing}" if missing else f"all {len(expected)} that it needs",
            )
        )


def _agree(stated: float, found: float, tolerance: float, floor: float = 0.0) -> bool:
    if math.isinf(stated) or math.isinf(found):
        return stated == found
    return abs(stated - found) <= tolerance * max(abs(stated), abs(found)) + floor


def _check_number(
    checks: list[Check], name: str, stated: float, found: float, floor: float = 0.0
) -> None:
    passed = _agree(stated, found, AGREEMENT, floor)
    checks.append(Check(name, passed, f"{stated:.12g}", f"{found:.12g}"))


def _check_layers(
    certificate: Certificate,
    reader: ModelReader,
    original: Any,
    reduced: Any,
    checks: list[Check],
) -> NetworkGraph | None:
    """Compare all layers, and a worst-case bound; return the graph of the original if made."""
    graph = None
    if certificate.guarantee == "worst-case":
        inputs = InputSet.from_json(certificate.inputs or {})
        horizon = certificate.horizon
        graph = reader.graph(original, horizon, inputs)
        chain = network_bound(graph, reader.graph(reduced, horizon, inputs), inputs, horizon)
        records = layer_records(chain)
        found = relative_bound(chain.bound, certificate.scale)
        vacuous = not found <= 1.0
        _check_number(checks, "bound", certificate.bound, found)
        checks.append(
            Check("vacuity", certificate.vacuous == vacuous, str(certificate.vacuous), str(vacuous))
        )
    else:
        first, second = reader.systems(original), reader.systems(reduced)
        same = len(first) == len(second)
        checks.append(Check("layers of the models", same, str(len(first)), str(len(second))))
        if not same:
            return graph
        renamed = dict(zip(first, second.values(), strict=True))
        records = layer_records(layer_bounds(first, renamed, certificate.horizon))
        if certificate.guarantee == "layer":
            worst = max(record.relative_error for record in records)
            _check_number(checks, "bound", certificate.bound, worst, RELATIVE_FLOOR)
    stated_names = [record.name for record in certificate.layers]
    found_names = [record.name for record in records]
    checks.append(
        Check("layer names", stated_names == found_names, str(stated_names), str(found_names))
    )
    if len(records) != len(certificate.layers):
        return graph
    for stated, found in zip(certificate.layers, records, strict=True):
        for key in ("states_full", "states_kept"):
            a, b = getattr(stated, key), getattr(found, key)
            checks.append(Check(f"{stated.name}: {key}", a == b, str(a), str(b)))
        ratio = stated.error / stated.relative_error if stated.relative_error > 0.0 else 0.0
        size = ratio if math.isfinite(ratio) else 0.0
        floors = {"error": RELATIVE_FLOOR * size, "relative_error": RELATIVE_FLOOR}
        for key in ("error", "relative_error", "gain_error", "weight", "contribution"):
            a, b = getattr(stated, key), getattr(found, key)
            if a is not None and b is not None:
                _check_number(checks, f"{stated.name}: {key}", a, b, floors.get(key, 0.0))
    return graph


def _check_statistics(
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
    errors = output_errors(reader.outputs(original, inputs), reader.outputs(reduced, inputs))
    found = int(np.count_nonzero(~(errors <= certificate.bound * certificate.scale)))
    checks.append(Check("held-out inputs", len(errors) == n, str(n), str(len(errors))))
    checks.append(Check("violations", found == violations, str(violations), str(found)))
    left.append("the earlier cuts of the tested sequence: their networks are not at hand")
    return deciding


def _check_sequence(certificate: Certificate, facts: dict[str, Any], checks: list[Check]) -> None:
    """Compare the record of the walk with what its violations say; the networks are not needed."""
    n, allowed = facts["n"], 1.0 - facts["confidence"]
    steps = [dict(step) for step in facts["sequence"]]
    accepted: list[bool] = []
    for at, step in enumerate(steps):
        violations = check_integer(step["violations"], "violations", "verify")
        p_value = binomial_p_value(violations, n, facts["coverage"])
        accepted.append(violations <= n and p_value <= allowed)
        _check_number(checks, f"cut {at}: p-value", float(step["p_value"]), p_value)
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


def _check_scale(
    certificate: Certificate,
    reader: ModelReader,
    original: Any,
    graph: NetworkGraph | None,
    data: Any,
    checks: list[Check],
    left: list[str],
) -> None:
    """Repeat the scale as the certificate says it was made; ``data`` are the deciding inputs."""
    plan = certificate.scale_sampling
    wrong = fault_of_plan(certificate, graph)
    if wrong:
        checks.append(Check("scale sampling", False, str(plan), wrong))
        return
    if plan is not None and "data_sha256" not in plan:
        inputs = InputSet.from_json(certificate.inputs or {})
        length = plan.get("length", certificate.horizon)
        rng = np.random.default_rng(plan["seed"])
        data = inputs.sample(rng, plan["count"], length, plan["features"])
    elif data is None:
        left.append(
            f"the output scale ({certificate.scale_source}): pass the data it was measured on; "
            f"bound times scale, {certificate.bound * certificate.scale:.6g}, does not rest on it"
        )
        return
    elif plan is not None:
        found = data_sha256(np.asarray(data))
        same = found == plan["data_sha256"]
        checks.append(Check("scale data", same, plan["data_sha256"], found))
        if not same:
            return
    _compare_scale(certificate, output_scale(reader.outputs(original, data)), checks)


def _compare_scale(certificate: Certificate, found: float, checks: list[Check]) -> None:
    passed = _agree(certificate.scale, found, SCALE_AGREEMENT)
    checks.append(Check("output scale", passed, f"{certificate.scale:.9g}", f"{found:.9g}"))


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."
