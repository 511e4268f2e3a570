"""Recompute a worst-case certificate in ball arithmetic, and raise it to level RIGOROUS.

From three things alone: the certificate, the stored original and the stored reduced network.
What a rigorous certificate says is in docs/certificates.md; how every quantity is enclosed in
``theory/ball-arithmetic.md``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssmred.errors import (
    AccuracyError,
    CertificateError,
    UnsupportedOperationError,
    message,
)
from ssmred.rigour.architecture import describe, wiring_sha256
from ssmred.rigour.balls import (
    arb,
    flint_version,
    middle,
    upper_float,
    working_precision,
)
from ssmred.rigour.chain import Bound, LayerBound, Progress, network_bound
from ssmred.rigour.reading import read_json, read_network
from ssmred.rigour.statement import (
    PRECISIONS,
    WORDS,
    faults,
    number,
    render,
    seal,
    sealed_by,
    write,
)

__all__ = ["Check", "Enclosure", "verify"]

AGREEMENT = 1e-9
"""Relative; a FLOAT number is a rounded evaluation of what is enclosed."""

MARGIN = 2.0**-40
"""By which a rigorous number is stated above its enclosure, so that a machine whose LAPACK proposes
other eigenvectors confirms it too."""

SCALE_MARGIN = arb(1e-13)
"""Of the output scale: by which relative bounds above 0 are raised, at every level."""

ACCURACY = 60
"""Bits that every enclosed number has to have; else the precision is doubled."""

NUMBERS = ("error", "relative_error", "gain_error", "weight", "contribution")


@dataclass(frozen=True)
class Check:
    """Hold one comparison: what the certificate says and what was enclosed."""

    name: str
    passed: bool
    stated: str
    found: str


@dataclass(frozen=True)
class Enclosure:
    """Report a rigorous verification that found no difference.

    Parameters
    ----------
    checks : tuple of Check
    certificate : dict
        The certificate at level RIGOROUS, as plain data.
    precision : int
        Bits of the arithmetic.
    absolute_bound, relative_bound : float
        On the 2-norm of the output's change; the first is rigorous by itself, the second relative
        to the recorded scale.
    not_recomputed : tuple of str
        What rests on something else than the two networks, in words.
    """

    checks: tuple[Check, ...]
    certificate: dict[str, Any]
    precision: int
    absolute_bound: float
    relative_bound: float
    not_recomputed: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{'check':<36}{'stated':>24}  enclosed", "-" * 88]
        lines += [f"{c.name[:35]:<36}{c.stated[:22]:>24}  {c.found[:26]}" for c in self.checks]
        lines += [
            "",
            f"absolute bound {self.absolute_bound:.9g}, relative {self.relative_bound:.9g}"
            + (" (VACUOUS)" if self.certificate["vacuous"] else ""),
            *(f"not recomputed: {text}" for text in self.not_recomputed),
            f"{len(self.checks)} checks in ball arithmetic at {self.precision} bits, all confirmed",
        ]
        return "\n".join(lines)

    def to_json(self) -> str:
        """Return the certificate at level RIGOROUS."""
        return render(self.certificate)

    def save(self, path: str | Path) -> Path:
        """Write the certificate at level RIGOROUS; an older file stays until it is complete."""
        return write(self.certificate, Path(path))


def verify(
    certificate: str | Path,
    original: str | Path,
    reduced: str | Path,
    *,
    progress: Progress = lambda stage, done, total: None,
) -> Enclosure:
    """Recompute a stored worst-case certificate in ball arithmetic.

    Parameters
    ----------
    certificate : path-like
        File of level FLOAT, or RIGOROUS already.
    original, reduced : path-like
        Folders of the two stored networks.
    progress : callable, optional
        Called with a stage's name, what is done of it and how much there is.

    Returns
    -------
    Enclosure
        With the certificate at level RIGOROUS.

    Raises
    ------
    CertificateError
        If anything differs, with every reason.
    CheckpointError
        If a stored network is damaged.
    UnsupportedOperationError
        If the network does something that has no rigorous rule, or the horizon is infinite.
    AccuracyError
        If the enclosures stay wide at the largest precision.

    Notes
    -----
    Certificate level RIGOROUS: all numbers are balls of Arb with outward rounding, from the stored
    bits on. Every stated number of a RIGOROUS certificate is at least its enclosure; a FLOAT number
    has to agree with it to a relative 1e-9. Theory: ``theory/ball-arithmetic.md``.
    """
    path = Path(certificate)
    data = read_json(path)
    wrong = faults(data)
    if not wrong and data["content_sha256"] != sealed_by(data):
        wrong.append("content_sha256 is not that of its content: something in it was changed")
    if not wrong and path.read_bytes() != render(data).encode():
        wrong.append("the file is not written as certificates are: a byte of it was changed")
    if wrong:
        raise _refusal(path, wrong)
    first, second = read_network(Path(original)), read_network(Path(reduced))
    checks = [
        _equal("original weights", data["original_sha256"], first.weights_sha256()),
        _equal("reduced weights", data["reduced_sha256"], second.weights_sha256()),
    ]
    _raise_differences(path, checks)  # other networks are not worth the work
    horizon = data["horizon"]
    if horizon is None:
        raise UnsupportedOperationError(
            message(
                "rigour.verify",
                "the statement is for every length",
                expected="a finite horizon",
                cure="Reduce with horizon=<the sequence length>, or verify in float64.",
            )
        )
    least = data["enclosure"]["precision"] if data["enclosure"] else PRECISIONS[0]
    for bits in (bits for bits in PRECISIONS if bits >= least):
        with working_precision(bits):
            steps = describe(first, horizon), describe(second, horizon)
            bound = network_bound(*steps, data["inputs"], horizon, progress)
            found = _Found(bound, data, bits, wiring_sha256(steps[0]))
            if found.accurate:
                checks += found.checks()
                _raise_differences(path, checks)
                return found.enclosure(tuple(checks))
    raise AccuracyError(
        message("rigour.verify", "the enclosures stay wide", got=f"{PRECISIONS[-1]} bits")
    )


def _refusal(path: Path, problems: list[str]) -> CertificateError:
    return CertificateError(
        message(
            "rigour.verify",
            f"{path} does not hold: {'; '.join(problems)}",
            cure="Pass the certificate and the two networks as they were saved, or reduce again. "
            "(A file of an older version: ssmred.Certificate.load(path).save(path).)",
        )
    )


def _equal(name: str, stated: Any, found: Any) -> Check:
    return Check(name, stated == found, str(stated), str(found))


def _raise_differences(path: Path, checks: list[Check]) -> None:
    wrong = [f"{c.name}: stated {c.stated}, found {c.found}" for c in checks if not c.passed]
    if wrong:
        raise _refusal(path, wrong)


class _Found:
    """Hold what was enclosed beside what is stated, and compare the two.

    Made and used inside a working precision.
    """

    def __init__(self, bound: Bound, data: dict[str, Any], bits: int, wiring: str) -> None:
        self.data, self.bits, self.wiring = data, bits, wiring
        self.absolute, self.layers = bound.bound, bound.layers
        self.rigorous = data["level"] == "RIGOROUS"
        scale = arb(float(data["scale"]))
        above = bound.bound / scale + SCALE_MARGIN
        self.relative = arb(0) if bound.bound.is_zero() else above
        stated = {layer["name"]: layer for layer in data["layers"]}
        self.weights = {
            layer.name: self._weight(layer, stated.get(layer.name)) for layer in bound.layers
        }

    def _weight(self, layer: LayerBound, stated: dict[str, Any] | None) -> arb:
        # a FLOAT certificate weighs a layer whose import is its reduction by a tiny error
        unreduced = stated is not None and stated["gain_error"] == 0 and not self.rigorous
        return layer.tiny_weight() if unreduced else layer.weight

    @property
    def accurate(self) -> bool:
        """Whether all balls are narrow."""
        balls = [self.absolute, *(getattr(layer, key) for layer in self.layers for key in NUMBERS)]
        return all(
            ball.is_zero() or not ball.is_finite() or ball.rel_accuracy_bits() >= ACCURACY
            for ball in balls
        )

    def checks(self) -> list[Check]:
        """Return all comparisons."""
        stated = self.data["layers"]
        names = [layer.name for layer in self.layers]
        checks = [_equal("layer names", [layer["name"] for layer in stated], names)]
        if not checks[0].passed:
            return checks
        slack = math.fsum(layer.rounding["contribution"] for layer in self.layers)
        for layer, said in zip(self.layers, stated, strict=True):
            for key, value in zip(("states_full", "states_kept"), layer.states, strict=True):
                checks.append(_equal(f"{layer.name}: {key}", said[key], value))
            for key in NUMBERS:
                ball = self.weights[layer.name] if key == "weight" else getattr(layer, key)
                off = layer.rounding.get(key, 0.0)
                checks.append(self._number(f"{layer.name}: {key}", said[key], ball, off))
        # a bound of 0 is not raised, and one that import alone keeps above 0 is
        raised = middle(SCALE_MARGIN) if self.data["bound"] == 0 else 0.0
        slack = slack / float(self.data["scale"]) + raised
        checks.append(self._number("bound", self.data["bound"], self.relative, slack))
        if self.rigorous:
            record = self.data["enclosure"]
            checks.append(_equal("wiring", record["wiring_sha256"], self.wiring))
            checks.append(
                self._number("absolute bound", record["absolute_bound"], self.absolute, 0.0)
            )
        return checks

    def _number(self, name: str, stated: Any, found: arb, off: float) -> Check:
        """Compare a number; what float64 import may have done is allowed to a FLOAT one alone."""
        said, top = number(stated), upper_float(found)
        if math.isinf(said) or math.isinf(top):
            passed = said == top
        elif self.rigorous:
            passed = top <= said <= top * (1.0 + AGREEMENT)
        else:
            passed = abs(said - middle(found)) <= AGREEMENT * max(said, top) + off
        return Check(name, passed, f"{said:.12g}", found.str(12, radius=False))

    def _stated(self, ball: arb) -> float:
        """Return the number that a RIGOROUS certificate states for a ball."""
        top = upper_float(ball)
        return upper_float(arb(top) * (1 + arb(MARGIN))) if math.isfinite(top) else math.inf

    def enclosure(self, checks: tuple[Check, ...]) -> Enclosure:
        """Return the report, with the certificate at level RIGOROUS."""
        certificate = self.data if self.rigorous else self._raised()
        absolute = number(certificate["enclosure"]["absolute_bound"])
        return Enclosure(
            checks,
            certificate,
            self.bits,
            absolute,
            number(certificate["bound"]),
            (
                f"the output scale, {self.data['scale']:.9g} ({self.data['scale_source']}): it "
                "comes from inference; the absolute bound does not rest on it",
                "how the reduction came about (metric, tol, scale_sampling, version, date)",
            ),
        )

    def _raised(self) -> dict[str, Any]:
        relative = self._stated(self.relative)
        layers = [
            {
                "name": layer.name,
                "states_full": layer.states[0],
                "states_kept": layer.states[1],
                **{key: _stored(self._stated(getattr(layer, key))) for key in NUMBERS},
            }
            for layer in self.layers
        ]
        changes = {
            "level": "RIGOROUS",
            "bound": _stored(relative),
            "vacuous": not relative <= 1.0,
            "layers": layers,
            "enclosure": {
                "precision": self.bits,
                "python_flint": flint_version(),
                "absolute_bound": _stored(self._stated(self.absolute)),
                "wiring_sha256": self.wiring,
            },
            **{key: list(texts) for key, texts in WORDS["RIGOROUS"].items()},
        }
        return seal(self.data | changes)


def _stored(value: float) -> float | str:
    return "inf" if math.isinf(value) else value
