"""Name the three guarantees, the theorems each stands on and what each takes for granted.

Worst-case: ``theory/network-bound.md``; statistical: ``theory/statistical-certificate.md``; layer:
``theory/layer-guarantee.md``.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = [
    "ASSUMPTIONS",
    "DECISION_THEOREMS",
    "ENCLOSED_ASSUMPTIONS",
    "GUARANTEES",
    "LEVELS",
    "THEOREMS",
    "WARNINGS",
]

GUARANTEES = ("worst-case", "statistical", "layer")
LEVELS = ("ESTIMATE", "FLOAT", "RIGOROUS")

THEOREMS: Mapping[str, tuple[str, ...]] = {
    "worst-case": (
        "network-bound",
        "error-rules",
        "h2-norm",
        "h2-sup-bound",
        "finite-horizon-gain",
        "l1-gain",
    ),
    "statistical": ("statistical-certificate", "fixed-sequence-testing", "h2-norm"),
    "layer": ("layer-guarantee", "h2-norm"),
}
"""Theory pages that each guarantee stands on."""

DECISION_THEOREMS = ("decision-changes",)
"""Those that a statistical certificate stands on besides where it speaks of decisions."""

_ALWAYS = (
    "The statement is about the stored weights in exact arithmetic; what float32 inference adds "
    "is outside it.",
    "The networks are in eval mode.",
)
ASSUMPTIONS: Mapping[str, tuple[str, ...]] = {
    "worst-case": (
        "Every input lies in the declared set and has the declared length.",
        "Each layer of the original is its import: poles and residues in float64.",
        "Level FLOAT: the bound is evaluated in float64 with a-priori rounding terms, not in "
        "ball arithmetic.",
        *_ALWAYS,
    ),
    "statistical": (
        "The held-out inputs and the inputs to come are independent draws from one distribution.",
        "The held-out inputs took no part in choosing the cuts or their order.",
        "Errors were measured with the networks as they run, in their own precision.",
        "The networks are in eval mode.",
    ),
    "layer": (
        "The statement is about each layer by itself, not about the network's output.",
        "Each layer of the original is its import: poles and residues in float64.",
        *_ALWAYS,
    ),
}
"""What each guarantee takes for granted, in plain words."""

ENCLOSED_ASSUMPTIONS = (
    ASSUMPTIONS["worst-case"][0],
    "Each layer is the exact function of its stored parameters.",
    "Level RIGOROUS: every bound is enclosed in ball arithmetic from the stored weights alone.",
    "The output scale is a recorded measurement: the absolute bound does not rest on it, the "
    "relative bound is relative to it.",
    *_ALWAYS,
)
"""The same of a worst-case certificate at level RIGOROUS."""

WARNINGS: Mapping[str, tuple[str, ...]] = {
    "worst-case": (
        "Inputs outside the declared set or of another length are outside the statement.",
    ),
    "statistical": (
        "Covariate shift: all of this holds for inputs drawn like the held-out ones. For others "
        "(another sensor, site, season, preprocessing, mix of cases) it says nothing, and nothing "
        "in the network tells that they have changed: compare them from time to time "
        "(ssmred.certify.input_drift), and certify again on new data where they have.",
    ),
    "layer": (
        "The layers' errors can be amplified without limit by what stands between the layers.",
    ),
}
"""Where each statement ends, in plain words; printed with every certificate."""
