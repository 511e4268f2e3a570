"""Say in plain words what a certificate promises, to whom, how surely, and what it leaves open.

The words are those of docs/certificates.md; the numbers are the certificate's, bounds rounded up.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ssmred.certify import ASSUMPTIONS, ENCLOSED_ASSUMPTIONS, Certificate, InputSet, rounded_up

__all__ = ["Alert", "Promise", "assumptions_of", "evidence", "not_covered", "promise_of"]


@dataclass(frozen=True)
class Alert:
    """Hold what has to be read first: ``kind`` is "vacuous", "limited" or "note"."""

    kind: str
    title: str
    text: str


@dataclass(frozen=True)
class Promise:
    """Hold what is promised.

    Attributes
    ----------
    sentence : str
        The certificate's own statement.
    answers : tuple of (str, str)
        Question and answer: for which inputs, how surely, how far, on what evidence.
    alerts : tuple of Alert
    """

    sentence: str
    answers: tuple[tuple[str, str], ...]
    alerts: tuple[Alert, ...]


_LEVELS: Mapping[str, str] = {
    "FLOAT": "FLOAT: theorems evaluated in double precision, with an allowance for rounding. "
    "Careful, but not interval arithmetic, and not called rigorous.",
    "RIGOROUS": "RIGOROUS: theorems, with every quantity enclosed in ball arithmetic from the "
    "stored weights alone.",
    "ESTIMATE": "ESTIMATE: no theorem stands behind the number.",
}

_EXACT_TEST = (
    "FLOAT: an exact binomial test; its probabilities are rounded up by more than they err. "
    "The errors themselves were measured with the networks as they ran."
)


def promise_of(certificate: Certificate) -> Promise:
    """Return what a certificate promises, in words.

    Parameters
    ----------
    certificate : Certificate

    Returns
    -------
    Promise
    """
    ask = {
        "worst-case": _worst_case,
        "statistical": _statistical,
        "layer": _layer,
    }[certificate.guarantee]
    level = _LEVELS[certificate.level]
    if (certificate.guarantee, certificate.level) == ("statistical", "FLOAT"):
        level = _EXACT_TEST
    asked = (
        f"An error of at most {float(certificate.tol)!r}, and as few states as that allows."
        if certificate.tol is not None
        else "A number of states; the bound is what came of it."
    )
    answers = (*ask(certificate), ("What was asked for?", asked), ("On what evidence?", level))
    return Promise(certificate.statement(), answers, tuple(_alerts(certificate)))


def _worst_case(certificate: Certificate) -> list[tuple[str, str]]:
    inputs = InputSet.from_json(certificate.inputs or {}).describe()
    return [
        ("For which inputs?", f"Every one of the declared set: {inputs}; {_length(certificate)}."),
        ("How surely?", "For all of them. No chance is involved, if the assumptions below hold."),
        ("How far can the output move?", _in_units(certificate)),
    ]


def _statistical(certificate: Certificate) -> list[tuple[str, str]]:
    facts = certificate.statistics or {}
    coverage, confidence = facts.get("coverage"), facts.get("confidence")
    n, above = facts.get("n"), facts.get("violations")
    return [
        (
            "For which inputs?",
            f"At least a fraction {coverage} of the inputs that come from where the {n} held-out "
            f"ones came from; {_length(certificate)}. Which ones is not said.",
        ),
        (
            "How surely?",
            f"With confidence {confidence}: a procedure that errs at most a fraction "
            f"{_rest(confidence)} of the time gave this answer. {above} of the {n} held-out inputs "
            "were above the bound.",
        ),
        ("How far can the output move?", _in_units(certificate)),
        ("And the other inputs?", "They may move the output by any amount."),
    ]


def _layer(certificate: Certificate) -> list[tuple[str, str]]:
    bound = rounded_up(certificate.bound)
    return [
        (
            "About what?",
            "Every state-space layer by itself, given the same input before and after; "
            f"{_length(certificate)}. Not about the network.",
        ),
        ("How surely?", "Without chance, if the assumptions below hold."),
        (
            "How far can a layer's response move?",
            f"By at most {bound} of its own h2 norm, in the 2-norm over all of its impulse "
            "responses together.",
        ),
    ]


def _length(certificate: Certificate) -> str:
    steps = certificate.horizon
    return "sequences of every length" if steps is None else f"sequences of {steps:,} steps"


def _in_units(certificate: Certificate) -> str:
    """Return a bound relative to the scale and in the output's own units."""
    bound, scale = certificate.bound, certificate.scale
    return (
        f"By at most {rounded_up(bound)} of the output scale, which is {scale:.6g} "
        f"({certificate.scale_source}); so by at most {rounded_up(bound * scale)} in the output's "
        "own units, in the 2-norm over its features, at every time."
    )


def _rest(share: Any) -> str:
    return f"{1.0 - share:.4g}" if isinstance(share, (int, float)) else "that is not recorded"


def _alerts(certificate: Certificate) -> list[Alert]:
    alerts = []
    if certificate.vacuous:
        alerts.append(
            Alert(
                "vacuous",
                "This bound is vacuous",
                f"At {rounded_up(certificate.bound)} it is larger than what it is compared with: "
                "an output (or a response) replaced by zero is, on average, no further away. The "
                "bound is true and proves nothing. Do not rely on it.",
            )
        )
    if certificate.guarantee == "layer":
        alerts.append(
            Alert(
                "limited",
                "Nothing is said about the network's output",
                "What stands between the layers can amplify a small error of a layer without "
                "any limit.",
            )
        )
    if certificate.level == "ESTIMATE":
        alerts.append(
            Alert(
                "limited",
                "This number is an estimate",
                "No theorem stands behind it. It is no guarantee.",
            )
        )
    kept, full = certificate.states
    if kept == full:
        alerts.append(Alert("note", "Nothing was removed", "All states were kept."))
    return alerts


def assumptions_of(certificate: Certificate) -> tuple[tuple[str, bool], ...]:
    """Return every assumption, word by word, and whether it is one that ssmred states.

    A certificate may hold more than those its guarantee needs. They carry no weight.
    """
    enclosed = certificate.level == "RIGOROUS"
    known = ENCLOSED_ASSUMPTIONS if enclosed else ASSUMPTIONS[certificate.guarantee]
    return tuple((text, text in known) for text in certificate.assumptions)


def not_covered(certificate: Certificate) -> tuple[tuple[str, str], ...]:
    """Return what a certificate says nothing about: title and reason."""
    kind = certificate.guarantee
    steps = certificate.horizon
    items: list[tuple[str, str]] = []
    if kind == "worst-case":
        items.append(
            (
                "Inputs outside the declared set",
                "Of an input outside it, or of another length, nothing is known. Whether "
                "deployment stays inside is for the system around the network to check.",
            )
        )
    elif kind == "statistical":
        items += [
            (
                "Inputs from elsewhere",
                "If deployment drifts away from where the held-out inputs came from, the "
                "statement does not follow. Nor does it for inputs chosen by an adversary.",
            ),
            (
                "The rest of the inputs",
                "The statement leaves a fraction of inputs out, and says neither which nor how "
                "far they move the output.",
            ),
            (
                "A second look at the held-out inputs",
                "If they were used to choose anything, the confidence is gone. No file can show "
                "that they were not.",
            ),
        ]
    else:
        items.append(
            (
                "The network's output",
                "Small errors of layers can be amplified by what stands between the layers.",
            )
        )
    if kind != "worst-case" and steps is not None:
        items.append(("Other lengths", f"The statement is about {_length(certificate)}."))
    if kind == "statistical":
        items.append(
            (
                "Another way of running the networks",
                "Errors were measured as the networks ran. Another precision, export or "
                "accelerator adds errors of its own.",
            )
        )
    else:
        items.append(
            (
                "Rounding in use (float32 inference)",
                "The statement is about the stored weights in exact arithmetic. What inference "
                "in float32, or less, adds is outside: measure it where it matters.",
            )
        )
    items += [
        (
            "The original's own mistakes",
            "The reduced network is compared with the original, not with the truth. Where the "
            "original is wrong, so is its reduction.",
        ),
        ("Decisions and accuracy", _about_decisions(certificate)),
        (
            "Other weights",
            "It is about the two networks with the hashes below, in eval mode. Fine-tuned, "
            "quantised or rewritten ones are others.",
        ),
    ]
    if kind != "layer":
        items.append(
            (
                "The output scale",
                "It is a measurement, and makes the bound comparable. The bound in the output's "
                "own units does not rest on it.",
            )
        )
    if certificate.level != "RIGOROUS":
        items.append(
            (
                "Faults of the machine and of this software",
                "The numbers were computed in floating point by the code that issued them; "
                "recomputing finds edits and mix-ups, not a mistake that both share.",
            )
        )
    return tuple(items)


def _about_decisions(certificate: Certificate) -> str:
    if (certificate.statistics or {}).get("decisions") is None:
        return (
            "A class can change wherever the margin between the two largest outputs is below "
            "the square root of 2 times the error. The certificate does not look at decisions."
        )
    return (
        "How often the class changes is bounded; whether it changes for better or for worse is "
        "not looked at."
    )


def evidence(certificate: Certificate) -> tuple[tuple[str, str], ...]:
    """Return the certificate's remaining fields, every digit of them, by name."""
    rows: list[tuple[str, Any]] = [
        ("guarantee", certificate.guarantee),
        ("level", certificate.level),
        ("bound", repr(float(certificate.bound))),
        ("vacuous", "yes" if certificate.vacuous else "no"),
        (
            "tolerance asked for",
            "none" if certificate.tol is None else repr(float(certificate.tol)),
        ),
        ("output scale", f"{float(certificate.scale)!r}: {certificate.scale_source}"),
        ("horizon", "any length" if certificate.horizon is None else str(certificate.horizon)),
        ("metric of the removals", certificate.metric),
    ]
    if certificate.inputs is not None:
        rows.append(("declared inputs", json.dumps(certificate.inputs)))
    if certificate.scale_sampling is not None:
        rows.append(("how the scale can be repeated", json.dumps(certificate.scale_sampling)))
    for name, value in sorted((certificate.statistics or {}).items()):
        if name != "sequence":
            rows.append((f"statistics: {name}", json.dumps(value)))
    return tuple((name, str(text)) for name, text in rows)
