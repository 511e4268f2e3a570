"""The tables of docs/lqo.md and its picture, from what benchmarks/lqo_networks.py measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from figures import markdown
from lqo_methods import METHODS, SEEDS, SHARES
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ssmred.report.figures import GREY, clean, save_figure, style

__all__ = ["write_imdb", "write_products"]

NETWORKS = Path(__file__).parent / "networks"
DOCS = Path(__file__).parents[1] / "docs"
PAGE, PICTURE = DOCS / "lqo.md", DOCS / "images" / "lqo.png"

TOLD = ("subset, calibrated", "balanced, calibrated, measured division")
"""Methods whose divisions of the states are told in full."""

Rows = list[dict[str, Any]]


def write_imdb(rows: Rows) -> None:
    """Write what is known of the networks trained on reviews, and draw it."""
    cut = _reduced(rows)
    draw(cut, _methods(cut))
    details = [
        [
            r["method"],
            str(r["seed"]),
            *(f"{r[share]:.1%}" for share in ("states_removed", "ssm_removed", "removed")),
            ", ".join(map(str, r["states"])),
            f"{r['change']:+.2f}",
        ]
        for r in cut
        if r["method"] in TOLD
    ]
    _write(
        "measured",
        [
            *_accuracy(rows),
            *_small(rows),
            *_errors(cut, "calibration reviews"),
            "What goes: share of the states, of the numbers in the layers, of all numbers; and the"
            " states that are left in every layer, front to back.",
            markdown(
                details, ["method", "seed", "states", "layers", "all", "states left", "change"]
            ),
        ],
    )


def write_products(rows: Rows) -> None:
    """Write what is known of the networks of the generated task."""
    cut = _reduced(rows)
    _write(
        "measured products",
        [
            *_accuracy(rows),
            *_errors(cut, "calibration sequences"),
            "States that are left in the layers, front and back, seed by seed.",
            _by_share(cut, lambda found: "; ".join(_list(r["states"]) for r in found)),
        ],
    )


def _reduced(rows: Rows) -> Rows:
    return sorted((row for row in rows if row["method"] != "none"), key=lambda row: row["seed"])


def _methods(rows: Rows) -> list[str]:
    return [name for name in METHODS if any(row["method"] == name for row in rows)]


def _accuracy(rows: Rows) -> list[str]:
    """Return the tables of the full networks and of what every method leaves of them."""
    full = {row["seed"]: row for row in rows if row["method"] == "none"}
    return [
        markdown(
            [[str(s), f"{r['parameters']:,}", f"{r['accuracy']:.2f}"] for s, r in full.items()],
            ["seed", "parameters", "right answers (%)"],
        ),
        "Change of the right answers (points) by share of all parameters removed: mean of the seeds"
        " (least to largest).",
        _by_share(_reduced(rows), _spread),
    ]


def _small(rows: Rows) -> list[str]:
    """Return the table of networks that were small from the start, beside the full ones."""
    full = {row["seed"]: row for row in rows if row["method"] == "none"}
    lines = []
    for path in sorted(NETWORKS.glob("imdb-lqo-legs-*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        seed, epochs = (record["options"][name] for name in ("seed", "epochs"))
        right = record["test_accuracy"]
        lines.append(
            [
                str(record["recipe"]["states"]),
                str(seed),
                f"{1 - record['parameters'] / full[seed]['parameters']:.1%}",
                f"{right:.2f}",
                f"{right - full[seed]['accuracy']:+.2f}",
                str(epochs),
            ]
        )
    heads = [
        "states of a layer",
        "seed",
        "fewer parameters",
        "right answers (%)",
        "change",
        "epochs",
    ]
    return [
        "Networks that were small from the start, so many states in each layer, poles those of"
        " HiPPO-LegS; the change is against the full network of the same seed.",
        markdown(lines, heads),
    ]


def _errors(rows: Rows, inputs: str) -> list[str]:
    """Return the table of errors and bounds of those that were measured."""
    return [
        f"Largest output error on the {inputs}, and the bound for them, relative to the output"
        " scale; of each the largest of the seeds that were measured.",
        _by_share([row for row in rows if "bound" in row], _error_and_bound),
    ]


def _by_share(rows: Rows, told: Callable[[Rows], str]) -> str:
    """Return a table of the methods by share, whose cells tell of a method's seeds."""
    found = {
        (name, share): [r for r in rows if (r["method"], r["share"]) == (name, share)]
        for name in _methods(rows)
        for share in SHARES
    }
    lines = [
        [name, *(told(found[name, share]) if found[name, share] else "-" for share in SHARES)]
        for name in _methods(rows)
    ]
    return markdown(lines, ["method", *(f"{share:.0%}" for share in SHARES)])


def _spread(found: Rows) -> str:
    """Return the mean change with its extremes, of as many seeds as there are."""
    changes = [row["change"] for row in found]
    seeds = "" if len(found) == len(SEEDS) else f", {len(found)} of {len(SEEDS)} seeds"
    return f"{np.mean(changes):+.2f} ({min(changes):+.2f} to {max(changes):+.2f}{seeds})"


def _error_and_bound(found: Rows) -> str:
    error, bound = (max(r[name] / r["scale"] for r in found) for name in ("error", "bound"))
    return f"{error:.2g}, {bound:.0e}"


def _list(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))


def _write(mark: str, sections: list[str]) -> None:
    """Print sections and put them between two marks of the page."""
    body = "\n\n".join(sections)
    print(f"{body}\n")
    text = PAGE.read_text(encoding="utf-8")
    begin, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    start, stop = text.index(begin) + len(begin), text.index(end)
    PAGE.write_text(f"{text[:start]}\n\n{body}\n\n{text[stop:]}", encoding="utf-8")


def draw(rows: Rows, methods: list[str]) -> None:
    """Draw the mean change of every method against the share that is removed."""
    with style():
        figure = Figure(figsize=(7.0, 4.6), layout="constrained")
        axes = figure.subplots()
        for name, marker in zip(methods, cycle("osD^v<>PX*hd"), strict=False):
            points = {
                share: [r["change"] for r in rows if (r["method"], r["share"]) == (name, share)]
                for share in SHARES
            }
            known = {share: np.mean(changes) for share, changes in points.items() if changes}
            axes.plot(
                [100 * share for share in known],
                list(known.values()),
                marker=marker,
                markeredgecolor="black",
                markeredgewidth=0.5,
                linewidth=1.4,
                label=name,
            )
        axes.axhline(0.0, color=GREY, linestyle=(0, (4, 2)))
        axes.set_xlabel("all trainable parameters removed")
        axes.set_ylabel("change of right answers (points)")
        axes.xaxis.set_major_formatter(PercentFormatter(decimals=0))
        axes.legend(fontsize=8)
        clean(axes, grid="both")
        save_figure(figure, PICTURE)
