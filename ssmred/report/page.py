"""The safety report: one page that says what was removed, what is promised and what is not.

One HTML file that loads nothing from anywhere: pictures lie inside it, there is no script. Names
of layers come from a user's network and texts from a file, so all of them are escaped.
"""

from __future__ import annotations

import datetime
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from matplotlib.figure import Figure

from ssmred._version import __version__
from ssmred.certify import (
    Certificate,
    DecisionChanges,
    LayerRecord,
    Verification,
    percent_up,
    rounded_up,
)
from ssmred.errors import DataError, RequestError, message
from ssmred.report.decay import plot_hankel_decay
from ssmred.report.figures import embedded
from ssmred.report.picture import ReductionPicture
from ssmred.report.plots import plot_latency, plot_layers
from ssmred.report.reproduction import call_text
from ssmred.report.statements import assumptions_of, evidence, not_covered, promise_of

__all__ = ["LayerDecay", "SafetyPage", "render", "save_page"]

SUFFIXES = (".html", ".htm")


@dataclass(frozen=True, eq=False)
class LayerDecay:
    """Hold how the Hankel singular values of a layer fall, and where it was cut.

    Attributes
    ----------
    name : str
    values : (H, n) float64 or None
        Of the original layer, falling.
    kept : (H,) int or None
        States kept of every channel, where they are told apart.
    problem : str
        Why there are no values.
    wide : bool
        Whether it has more outputs than inputs, some of which the layer squares.
    """

    name: str
    values: np.ndarray | None
    kept: np.ndarray | None
    problem: str = ""
    wide: bool = False


@dataclass(frozen=True, eq=False)
class SafetyPage:
    """Hold everything that the safety report shows.

    Attributes
    ----------
    title : str
        What was reduced.
    certificate : Certificate
    verification : Verification
        What was recomputed of it when the page was made.
    picture : ReductionPicture
        States and error budget, layer by layer.
    decays : sequence of LayerDecay
    states, parameters : (int, int)
        Kept and full, of the network.
    layer_parameters : (int, int)
        Kept and full, of the state-space layers alone.
    method : str
        How the layers' systems were made smaller.
    seconds : float
        Wall time of the reduction.
    machine : str
        Where it was made.
    request : dict or None
        Arguments that ask for it again; None where they were not recorded.
    command : str
        The command that did, where it was one.
    folder : str
        Where the result lies; "" where it was not saved.
    latency : dict or None
        ``LatencyReport.to_dict()``; None where nothing was measured.
    """

    title: str
    certificate: Certificate
    verification: Verification
    picture: ReductionPicture
    decays: Sequence[LayerDecay]
    states: tuple[int, int]
    parameters: tuple[int, int]
    layer_parameters: tuple[int, int]
    method: str
    seconds: float
    machine: str
    request: Mapping[str, Any] | None
    command: str = ""
    folder: str = ""
    latency: Mapping[str, Any] | None = None


def save_page(page: SafetyPage, path: str | os.PathLike[str]) -> Path:
    """Write the report to a file; an interrupted write leaves an older file as it was.

    Parameters
    ----------
    page : SafetyPage
    path : path-like
        A ``.html`` file; its folder is made.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    RequestError
        If the file has another suffix.
    """
    from ssmred.networks.writing import write_text  # its room needs torch, figures do not

    target = checked_path(path)
    text = render(page)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_text(target, text)
    return target


def checked_path(path: str | os.PathLike[str]) -> Path:
    """Return the path of a report, or refuse what is no page's name."""
    target = Path(path)
    if target.suffix.lower() not in SUFFIXES:
        raise RequestError(
            message(
                "report",
                "the report is a page",
                expected=f"a file that ends in {' or '.join(SUFFIXES)}",
                got=repr(str(target)),
                cure="For a PDF print the page from a browser.",
            )
        )
    return target


def render(page: SafetyPage) -> str:
    """Return the report as HTML.

    Parameters
    ----------
    page : SafetyPage

    Returns
    -------
    str
    """
    certificate = page.certificate
    channels = page.picture.channel_states or [None] * len(certificate.layers)
    facts = {
        "page": page,
        "certificate": certificate,
        "promise": promise_of(certificate),
        "assumptions": assumptions_of(certificate),
        "uncovered": not_covered(certificate),
        "evidence": evidence(certificate),
        "rows": [_layer_row(*pair) for pair in zip(certificate.layers, channels, strict=True)],
        "total": sum(layer.contribution or 0.0 for layer in certificate.layers),
        "walk": (certificate.statistics or {}).get("sequence") or [],
        "decisions": _decisions(certificate),
        "sizes": _sizes(page),
        "layers_picture": embedded(plot_layers(page.picture)),
        "decay_picture": _decay_picture(page.decays),
        "latency": None if page.latency is None else _latency(page.latency),
        "call": None if page.request is None else call_text(_complete(page.request, certificate)),
        "version": __version__,
        "today": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    return _templates().get_template("page.html").render(facts)


def _decisions(certificate: Certificate) -> dict[str, Any] | None:
    """Return what a statistical certificate says of changed classes, where it says something."""
    facts = certificate.statistics or {}
    if facts.get("decisions") is None:
        return None
    changes = DecisionChanges.from_json(facts["decisions"])
    return {
        "changes": changes,
        "coverage": facts["coverage"],
        "needed": changes.needed(facts["coverage"]),
        "unseen": changes.classes - len(changes.by_class),
    }


def _complete(request: Mapping[str, Any], certificate: Certificate) -> dict[str, Any]:
    """Return a request with the input set that was declared, or was taken where none was."""
    return {**request, "inputs": certificate.inputs or request.get("inputs")}


def _templates() -> jinja2.Environment:
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {
        "visible": _visible,
        "quoted": shlex.quote,
        "share": _share,
        "number": _number,
        "up": rounded_up,
        "percent": percent_up,
    }
    return found


def _visible(text: object) -> str:
    """Return a text whose invisible signs (control, direction) are written out."""
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in str(text)
    )


def _share(pair: tuple[int, int]) -> str:
    kept, full = pair
    return f"{100.0 * kept / full:.1f} %" if full else "-"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3e}"


def _sizes(page: SafetyPage) -> list[tuple[str, tuple[int, int]]]:
    return [
        ("States", page.states),
        ("Numbers in state-space layers", page.layer_parameters),
        ("Numbers in the whole network", page.parameters),
    ]


def _layer_row(layer: LayerRecord, channels: np.ndarray | None) -> dict[str, Any]:
    kept, full = layer.states_kept, layer.states_full
    empty = None if channels is None else int(np.count_nonzero(channels == 0))
    return {
        "record": layer,
        "share": 100.0 * kept / full if full else 0.0,
        "channels": None if channels is None else f"{empty:,} of {len(channels):,}",
    }


def _decay_picture(decays: Sequence[LayerDecay]) -> str | None:
    shown = [one for one in decays if one.values is not None and one.values.shape[1]]
    if not shown:
        return None
    curves = [(one.name, one.values) for one in shown if one.values is not None]
    kept = [np.zeros(0) if one.kept is None else one.kept for one in shown]
    return embedded(plot_hankel_decay(curves, kept=kept, columns=2 if len(curves) < 5 else 3))


def _latency(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the measurements as texts, and their picture."""
    from ssmred.deploy.quantities import quantity  # its room needs torch, figures do not

    def cell(spread: Mapping[str, float] | None, unit: str) -> dict[str, str]:
        if spread is None:
            return {"median": "-", "range": ""}
        low, high = (quantity(spread[key], unit) for key in ("lower", "upper"))
        spread_out = spread["lower"] != spread["upper"]
        return {
            "median": quantity(spread["median"], unit),
            "range": f"{low} to {high}" if spread_out else "",
        }

    try:
        rows = [
            {
                "name": one["name"],
                "original": cell(one["original"], one["unit"]),
                "imported": cell(one["imported"], one["unit"]),
                "reduced": cell(one["reduced"], one["unit"]),
                "ratio": "-" if one["original"] is None else f"{one['ratio']:.2f}",
                "ratio_to_imported": f"{one['ratio_to_imported']:.2f}",
            }
            for one in report["measurements"]
        ]
        figure: Figure = plot_latency(report)
        facts = {name: report[name] for name in ("repeats", "threads", "horizon", "machine")}
        return {
            "rows": rows,
            "picture": embedded(figure),
            "notes": list(report["notes"]),
            **facts,
        }
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            message(
                "report",
                f"latency holds no measurements ({error!r})",
                expected="what ssmred.deploy.latency returns, or its to_dict()",
                cure="Measure again.",
            )
        ) from error
