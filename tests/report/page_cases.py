"""Certificates and pages for the tests of the safety report, and how a page is read."""

from __future__ import annotations

import dataclasses
from html.parser import HTMLParser
from typing import Any

import numpy as np

from ssmred.certify import Certificate, InputSet, LayerRecord, Verification
from ssmred.report.page import LayerDecay, SafetyPage
from ssmred.report.picture import ReductionPicture

HASH = "0123456789abcdef" * 4

GUARANTEES = ("worst-case", "statistical", "layer")


def certificate(guarantee: str, **changes: Any) -> Certificate:
    """Return a certificate of two layers with numbers that no other line has."""
    worst = guarantee == "worst-case"
    layers = tuple(
        LayerRecord(
            name=f"layers.{k}",
            states_full=16 + k,
            states_kept=5 + k,
            error=0.1234 + k,
            relative_error=0.0456 + k / 100,
            gain_error=0.7891 + k if worst else None,
            weight=2.345 + k if worst else None,
            contribution=1.8504 + k if worst else None,
        )
        for k in range(2)
    )
    statistics = {
        "coverage": 0.9,
        "confidence": 0.975,
        "n": 321,
        "violations": 17,
        "sequence": [
            {"states": 33, "violations": 0, "p_value": 1.5e-9, "accepted": True},
            {"states": 11, "violations": 17, "p_value": 0.00417, "accepted": True},
        ],
        "stopped_at": None,
    }
    facts: dict[str, Any] = {
        "guarantee": guarantee,
        "tol": 0.05,
        "bound": 0.0300123,
        "scale": 2.5,
        "scale_source": "root mean square over 64 samples",
        "horizon": 196,
        "metric": "h2, horizon 196",
        "layers": layers,
        "original_sha256": HASH,
        "reduced_sha256": HASH[::-1],
        "ssmred_version": "0.1.0",
        "inputs": InputSet.box(-1, 2).to_json() if worst else None,
        "statistics": statistics if guarantee == "statistical" else None,
        "created": "2025-01-02",
    }
    return Certificate(**(facts | changes))


def page(stated: Certificate, **changes: Any) -> SafetyPage:
    """Return a page around a certificate."""
    picture = ReductionPicture(
        curve_states=np.array([33, 11, 0]),
        curve_error=np.array([0.0, 0.1, 1.0]),
        kept=11,
        full=33,
        layers=[layer.name for layer in stated.layers],
        layer_states=[(layer.states_kept, layer.states_full) for layer in stated.layers],
        layer_errors=[layer.relative_error for layer in stated.layers],
        channel_states=[np.array([5, 0]), np.array([4, 2])],
    )
    values = 0.1 ** np.arange(8) * np.ones((2, 1))
    facts: dict[str, Any] = {
        "title": "A network",
        "certificate": stated,
        "verification": Verification((), ("the weather",)),
        "picture": picture,
        "decays": [LayerDecay(layer.name, values, np.array([5, 0])) for layer in stated.layers],
        "states": (11, 33),
        "layer_parameters": (120, 480),
        "parameters": (1_020, 1_380),
        "method": "subset",
        "seconds": 12.3,
        "machine": "a machine of 1843",
        "request": {"tol": 0.05, "states": None, "guarantee": stated.guarantee, "seed": 0},
    }
    return SafetyPage(**(facts | changes))


def renamed(stated: Certificate, name: str) -> Certificate:
    """Return a certificate whose first layer has another name."""
    first, *others = stated.layers
    return dataclasses.replace(stated, layers=(dataclasses.replace(first, name=name), *others))


def latency() -> dict[str, Any]:
    """Return a latency report as JSON types."""

    def spread(value: float) -> dict[str, float]:
        return {"lower": 0.9 * value, "median": value, "upper": 1.25 * value}

    return {
        "machine": "another machine",
        "repeats": 15,
        "threads": 1,
        "horizon": 196,
        "notes": ["the network does not stream: <b>it waits</b>"],
        "measurements": [
            {
                "name": "whole sequence, batch 1",
                "unit": "s",
                "original": spread(8e-3),
                "imported": spread(4e-3),
                "reduced": spread(2e-3),
                "ratio": 0.25,
                "ratio_to_imported": 0.5,
            },
            {
                "name": "streaming step, network",
                "unit": "s",
                "original": None,
                "imported": spread(4e-6),
                "reduced": spread(3e-6),
                "ratio": 0.75,
                "ratio_to_imported": 0.75,
            },
        ],
    }


VOID = {"br", "hr", "img", "input", "link", "meta"}


class Reader(HTMLParser):
    """Read a page: its text, its tags with their attributes; refuse tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.pieces: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.pieces.append(data)

    @property
    def text(self) -> str:
        """Everything that is read, in one line."""
        return " ".join("".join(self.pieces).split())

    def having(self, name: str) -> list[dict[str, str]]:
        """Return the attributes of every tag of a name."""
        return [attributes for tag, attributes in self.tags if tag == name]
