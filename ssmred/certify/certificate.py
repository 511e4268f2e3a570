"""Hold, print, save and load what was proved about one reduced network.

What the three guarantees say, and do not say, is in docs/certificates.md.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ssmred.certify.certificate_fields import (
    check_json,
    check_number,
    check_text,
    check_whole,
    is_sha256,
)
from ssmred.certify.chain import ChainBound, LayerError
from ssmred.certify.decisions import DecisionChanges
from ssmred.certify.guarantees import ASSUMPTIONS, GUARANTEES, LEVELS, THEOREMS, WARNINGS
from ssmred.certify.inputs import InputSet
from ssmred.certify.rounding import rounded_up
from ssmred.errors import CertificateError, message

__all__ = ["SCHEMA", "Certificate", "LayerRecord", "layer_records"]

SCHEMA = 2
"""Version of the file format; a reader refuses newer ones. Version 1 had no `SEAL`."""

SEAL = "content_sha256"
"""Field of the file that holds the hash of all others."""

FORMAT = "ssmred-certificate"


@dataclass(frozen=True)
class LayerRecord:
    """Record one layer.

    Parameters
    ----------
    name : str
        Name of the layer.
    states_full, states_kept : int
        Real state dimensions, original and reduced.
    error, relative_error : float
        h2 norm of ``S - S^``, absolute and relative to that of S.
    gain_error, weight, contribution : float or None
        Worst-case certificates: ``eps_l``, ``w_l`` and their product.
    """

    name: str
    states_full: int
    states_kept: int
    error: float
    relative_error: float
    gain_error: float | None = None
    weight: float | None = None
    contribution: float | None = None


def layer_records(source: ChainBound | Sequence[LayerError]) -> tuple[LayerRecord, ...]:
    """Return the records of a network bound, or of the layers alone."""
    if isinstance(source, ChainBound):
        return tuple(
            LayerRecord(
                layer.name,
                layer.states_full,
                layer.states_kept,
                layer.h2_error,
                layer.relative_error,
                layer.error,
                layer.weight,
                layer.contribution,
            )
            for layer in source.layers
        )
    return tuple(
        LayerRecord(
            layer.name, layer.states_full, layer.states_kept, layer.error, layer.relative_error
        )
        for layer in source
    )


@dataclass(frozen=True)
class Certificate:
    """State what holds between an original and a reduced network; frozen, printable, storable.

    Parameters
    ----------
    guarantee : {"worst-case", "statistical", "layer"}
        Kind of statement.
    tol : float or None
        Tolerance that was asked for; None if a number of states was.
    bound : float
        Bound on the output error relative to ``scale`` ("layer": largest relative h2 error of a
        layer); may be inf.
    scale : float
        Output scale, the root mean square 2-norm of the original's outputs.
    scale_source : str
        Where the scale comes from, in words.
    horizon : int or None
        Sequence length; None for any.
    metric : str
        Metric that the states were weighed in.
    layers : tuple of LayerRecord
        In execution order.
    original_sha256, reduced_sha256 : str
        Hashes of the two weight sets.
    ssmred_version : str
        Version that issued it.
    inputs : dict or None
        Declared input set, ``InputSet.to_json()``; worst-case only.
    statistics : dict or None
        Coverage, confidence, n, violations and the sequence that was tried; ``decisions``, what
        :class:`DecisionChanges` writes, where outputs are scores of classes. Statistical only.
    scale_sampling : dict or None
        How a verifier can repeat the scale. Over samples of the input set: ``seed``, ``count``,
        ``features`` and ``length`` (may be left out where the horizon is finite, and is that
        horizon). Over data: ``data_sha256``. ``ssmred.verify`` refuses a worst-case certificate
        that does not say it.
    level : {"FLOAT", "RIGOROUS", "ESTIMATE"}
        How the theorem was evaluated. RIGOROUS is what `ssmred.rigour` writes.
    enclosure : dict or None
        Level RIGOROUS only: ``precision`` in bits, ``python_flint`` (version), the enclosed
        ``absolute_bound`` and ``wiring_sha256``, of the original's operations.
    theorems, assumptions : tuple of str
        Slugs of theory pages; sentences. Default: those of the guarantee.
    created : str or None
        ISO date.
    schema : int
        Version of the format.

    Raises
    ------
    CertificateError
        If a field has the wrong type or value; nan never passes.
    """

    guarantee: str
    tol: float | None
    bound: float
    scale: float
    scale_source: str
    horizon: int | None
    metric: str
    layers: tuple[LayerRecord, ...]
    original_sha256: str
    reduced_sha256: str
    ssmred_version: str
    inputs: dict[str, Any] | None = None
    statistics: dict[str, Any] | None = None
    scale_sampling: dict[str, Any] | None = None
    level: str = "FLOAT"
    enclosure: dict[str, Any] | None = None
    theorems: tuple[str, ...] = ()
    assumptions: tuple[str, ...] = ()
    created: str | None = None
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        problems: list[str] = []
        object.__setattr__(self, "layers", tuple(self.layers))
        object.__setattr__(self, "theorems", tuple(self.theorems))
        object.__setattr__(self, "assumptions", tuple(self.assumptions))
        if self.guarantee not in GUARANTEES:
            problems.append(f"guarantee {self.guarantee!r} is not one of {GUARANTEES}")
        if self.level not in LEVELS:
            problems.append(f"level {self.level!r} is not one of {LEVELS}")
        if self.schema != SCHEMA:
            problems.append(f"schema {self.schema!r} is not {SCHEMA}")
        if not problems:
            object.__setattr__(self, "theorems", self.theorems or THEOREMS[self.guarantee])
            object.__setattr__(self, "assumptions", self.assumptions or ASSUMPTIONS[self.guarantee])
        for name in ("metric", "scale_source", "ssmred_version"):
            check_text(getattr(self, name), name, problems)
        for name in ("theorems", "assumptions"):
            for text in getattr(self, name):
                check_text(text, name, problems)
        if self.created is not None:
            check_text(self.created, "created", problems)
        for name in ("original_sha256", "reduced_sha256"):
            text = getattr(self, name)
            if not is_sha256(text):
                problems.append(f"{name} is not a SHA-256 in hexadecimal: {text!r}")
        check_number(self.bound, "bound", problems, infinite=True)
        check_number(self.scale, "scale", problems, positive=True)
        if self.tol is not None:
            check_number(self.tol, "tol", problems, positive=True)
        if self.horizon is not None:
            check_whole(self.horizon, "horizon", problems, low=1)
        if not self.layers:
            problems.append("there is no layer")
        for layer in self.layers:
            if not isinstance(layer, LayerRecord):
                problems.append(f"layer {layer!r} is not a LayerRecord")
                continue
            check_text(layer.name, "layer name", problems)
            for name in ("states_full", "states_kept"):
                check_whole(getattr(layer, name), f"{layer.name}: {name}", problems)
            for name in ("error", "relative_error"):
                number = getattr(layer, name)
                check_number(number, f"{layer.name}: {name}", problems, infinite=True)
            for name in ("gain_error", "weight", "contribution"):
                number = getattr(layer, name)
                if (number is None) == (self.guarantee == "worst-case"):
                    problems.append(
                        f"{layer.name}: {name} belongs to worst-case certificates and only there"
                    )
                elif number is not None:
                    check_number(number, f"{layer.name}: {name}", problems, infinite=True)
        for name, kind in (("inputs", "worst-case"), ("statistics", "statistical")):
            if (getattr(self, name) is None) == (self.guarantee == kind):
                problems.append(f"{name} belongs to {kind} certificates and only there")
        if (self.enclosure is None) == (self.level == "RIGOROUS"):
            problems.append("enclosure belongs to level RIGOROUS and only there")
        for name in ("inputs", "statistics", "scale_sampling", "enclosure"):
            content = getattr(self, name)
            if content is not None:
                check_json(content, name, problems)
        if self.inputs is not None and not problems:
            InputSet.from_json(self.inputs)
        if self.statistics is not None and self.statistics.get("decisions") is not None:
            DecisionChanges.from_json(self.statistics["decisions"])
        if problems:
            raise CertificateError(
                message(
                    "Certificate",
                    "its content is not valid: " + "; ".join(problems),
                    cure="Issue it again with ssmred.reduce.",
                )
            )

    @property
    def vacuous(self) -> bool:
        """Whether it says nothing: the bound is above the output scale, or not finite."""
        return not self.bound <= 1.0

    @property
    def states(self) -> tuple[int, int]:
        """Real states kept and in full."""
        return (
            sum(layer.states_kept for layer in self.layers),
            sum(layer.states_full for layer in self.layers),
        )

    def to_json(self) -> str:
        """Return the certificate as JSON; infinity is the string "inf"."""
        data = _without_infinity({"format": FORMAT, **asdict(self), "vacuous": self.vacuous})
        return _rendered(data | {SEAL: _seal(data)})

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the certificate; an interrupted save leaves an older file as it was.

        Parameters
        ----------
        path : str or path
            File to write, by custom ``certificate.json``.

        Returns
        -------
        pathlib.Path
        """
        path = Path(path)
        text = self.to_json()
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)  # atomic: beside it, then over it
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Certificate:
        """Read a certificate and validate all of it.

        Raises
        ------
        CertificateError
            If the file is truncated, foreign, newer than this version understands, or invalid.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise _refuse(path, "it is not text", "Pass the JSON file that .save wrote.") from error
        return cls.from_json(text, source=str(path))

    @classmethod
    def from_json(cls, text: str, *, source: str = "text") -> Certificate:
        """Return the certificate that :meth:`to_json` wrote; see :meth:`load`."""
        try:
            data = json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise _refuse(
                source,
                f"it is truncated or not JSON ({error})",
                "Copy it again, or issue it again with ssmred.reduce.",
            ) from error
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise _refuse(
                source, "it is not an ssmred certificate", "Pass the JSON file that .save wrote."
            )
        schema = data.get("schema")
        if isinstance(schema, int) and schema > SCHEMA:
            raise _refuse(
                source,
                f"its schema {schema} is newer than {SCHEMA}, the newest this version reads",
                "Upgrade ssmred.",
            )
        seal = None
        if schema == 1:
            data |= {"schema": SCHEMA, "enclosure": None}
        else:
            seal = data.pop(SEAL, "")
        found = _seal(data)
        known = {entry.name for entry in fields(cls)} | {"format", "vacuous"}
        if set(data) != known:
            missing, extra = sorted(known - set(data)), sorted(set(data) - known)
            raise _refuse(
                source,
                f"fields are missing {missing} or unknown {extra}",
                "It was edited or damaged: issue it again.",
            )
        stored_vacuous = data.pop("vacuous")
        del data["format"]
        layer_fields = {entry.name for entry in fields(LayerRecord)}
        layers = data["layers"]
        if not isinstance(layers, list) or any(
            not isinstance(layer, dict) or set(layer) != layer_fields for layer in layers
        ):
            raise _refuse(
                source, "its layers are not records", "It was edited or damaged: issue it again."
            )
        try:
            data["layers"] = tuple(
                LayerRecord(**{key: _with_infinity(key, value) for key, value in layer.items()})
                for layer in layers
            )
            data["bound"] = _with_infinity("bound", data["bound"])
            for key in ("theorems", "assumptions"):
                if not isinstance(data[key], list) or not data[key]:
                    raise CertificateError(f"{key} is not a list of texts")
            certificate = cls(**data)
        except CertificateError as error:
            raise _refuse(source, str(error), "Issue it again with ssmred.reduce.") from error
        if stored_vacuous is not certificate.vacuous:
            raise _refuse(
                source,
                "its word on vacuity contradicts its bound",
                "It was edited or damaged: issue it again.",
            )
        if seal is not None and seal != found:
            raise _refuse(
                source,
                f"its {SEAL} is not that of its content",
                "It was edited or damaged: issue it again.",
            )
        return certificate

    def statement(self) -> str:
        """Return what is claimed, as one sentence."""
        length = "every length" if self.horizon is None else f"length {self.horizon}"
        bound = rounded_up(self.bound)
        if self.guarantee == "layer":
            return (
                f"Every layer's impulse response ({length}) is within a relative h2 error of "
                f"{bound} of the original's. Nothing is said about the network's output."
            )
        if self.guarantee == "statistical":
            facts = self.statistics or {}
            text = (
                f"With confidence {facts.get('confidence')}, at least a fraction "
                f"{facts.get('coverage')} of inputs like the {facts.get('n')} held-out ones move "
                f"the output by at most {bound} of its scale."
            )
            if facts.get("decisions") is None:
                return text
            changes = DecisionChanges.from_json(facts["decisions"])
            return f"{text} {changes.statement()}"
        inputs = InputSet.from_json(self.inputs or {}).describe()
        return f"For {inputs}, {length}, the output moves by at most {bound} of its scale."

    def __str__(self) -> str:
        kept, full = self.states
        removed = 1.0 - kept / full if full else 0.0
        lines = [
            f"ssmred certificate ({self.guarantee}, level {self.level})",
            "=" * 64,
            self.statement(),
        ]
        if self.vacuous:
            lines.append("THIS BOUND IS VACUOUS: it is above the output scale and proves nothing.")
        lines += [
            "",
            f"bound        {self.bound:.6g} (relative)   "
            + (f"asked for {self.tol:g}" if self.tol is not None else "states were asked for"),
            *(f"enclosed     {key}: {fact}" for key, fact in (self.enclosure or {}).items()),
            f"scale        {self.scale:.6g}: {self.scale_source}",
            f"states       {kept} of {full} kept, {100.0 * removed:.1f} % removed",
            f"metric       {self.metric}",
            "",
            *self._layer_table(),
            "",
        ]
        if self.statistics is not None:
            facts = dict(self.statistics)
            decisions = facts.pop("decisions", None)
            told = (f"  {key}: {value}" for key, value in sorted(facts.items()))
            lines += ["statistics", *told, ""]
            if decisions is not None:
                changes = DecisionChanges.from_json(decisions)
                told = changes.lines(facts["coverage"])
                lines += ["decisions", *(f"  {line}" for line in told), ""]
        lines.append("assumptions")
        lines += [f"  - {text}" for text in self.assumptions]
        lines += ["", "beware", *(f"  - {text}" for text in WARNINGS[self.guarantee])]
        lines += [
            "",
            "theorems     " + ", ".join(f"theory/{slug}.md" for slug in self.theorems),
            f"original     sha256 {self.original_sha256}",
            f"reduced      sha256 {self.reduced_sha256}",
            f"issued by    ssmred {self.ssmred_version}"
            + (f" on {self.created}" if self.created else ""),
        ]
        return "\n".join(lines)

    def _layer_table(self) -> list[str]:
        worst = self.guarantee == "worst-case"
        head = f"{'layer':<24}{'states':>12}{'h2 error':>12}{'relative':>12}"
        head += f"{'eps':>12}{'weight':>12}{'part':>12}" if worst else ""
        rows = [head, "-" * len(head)]
        for layer in self.layers:
            states = f"{layer.states_kept}/{layer.states_full}"
            name = layer.name if len(layer.name) < 24 else "..." + layer.name[-20:]
            row = f"{name:<24}{states:>12}{layer.error:>12.3e}{layer.relative_error:>12.3e}"
            if worst:
                row += "".join(
                    f"{number:>12.3e}"
                    for number in (layer.gain_error, layer.weight, layer.contribution)
                    if number is not None
                )
            rows.append(row)
        return rows


def _rendered(data: dict[str, Any]) -> str:
    return json.dumps(data, indent=2, sort_keys=True, allow_nan=False) + "\n"


def _seal(data: dict[str, Any]) -> str:
    """Return the SHA-256 of a certificate's text: it tells damage, not who wrote it."""
    return hashlib.sha256(_rendered(data).encode()).hexdigest()


def _refuse(source: Any, problem: str, cure: str) -> CertificateError:
    return CertificateError(message("Certificate.load", f"{source}: {problem}", cure=cure))


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is not a number of JSON")


def _without_infinity(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_infinity(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_infinity(item) for item in value]
    return "inf" if isinstance(value, float) and math.isinf(value) else value


def _with_infinity(key: str, value: Any) -> Any:
    return math.inf if value == "inf" and key != "name" else value
