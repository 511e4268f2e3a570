"""Recompute a certificate from the two models, and refuse on any difference.

Torch models reach this room through a reader that ``ssmred.networks`` registers, so that nothing
here imports torch. What verification says, and does not say, is in docs/certificates.md.
"""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssmred.certify.certificate import Certificate, layer_records
from ssmred.certify.chain import layer_bounds, network_bound
from ssmred.certify.comparison import Check, ModelReader, agree, check_number
from ssmred.certify.enclosing import EnclosureProgress, enclose
from ssmred.certify.graph import NetworkGraph
from ssmred.certify.guarantees import ASSUMPTIONS, DECISION_THEOREMS, THEOREMS
from ssmred.certify.inputs import InputSet
from ssmred.certify.scale import fault_of_plan, output_errors, output_scale, relative_bound
from ssmred.certify.statistics import data_sha256
from ssmred.certify.statistics_check import check_statistics
from ssmred.errors import CertificateError, MissingDependencyError, message

__all__ = [
    "Check",
    "ModelReader",
    "Verification",
    "output_errors",
    "output_scale",
    "register_model_reader",
    "verify",
]

RELATIVE_FLOOR = 1e-13  # h2 errors below this part of a layer's norm are rounding on both sides
SCALE_AGREEMENT = 1e-4  # relative; scales come from float32 inference


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
            deciding = check_statistics(certificate, reader, original, reduced, data, checks, left)
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
    theorems = THEOREMS[kind]
    if (certificate.statistics or {}).get("decisions") is not None:
        theorems += DECISION_THEOREMS
    for name, stated, expected in (
        ("theorems", certificate.theorems, theorems),
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
        check_number(checks, "bound", certificate.bound, found)
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
            check_number(checks, "bound", certificate.bound, worst, RELATIVE_FLOOR)
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
                check_number(checks, f"{stated.name}: {key}", a, b, floors.get(key, 0.0))
    return graph


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
    passed = agree(certificate.scale, found, SCALE_AGREEMENT)
    checks.append(Check("output scale", passed, f"{certificate.scale:.9g}", f"{found:.9g}"))


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."
