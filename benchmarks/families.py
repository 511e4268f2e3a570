"""Remove states of every bundled network, and write docs/families.md.

Accuracy by family and method. Beside the calibrated and data-free removals of `ssmred.reduce`, the
scores of LAST and AIRE-Prune: modes with the lowest score go, over all layers, and what is left
stays as it was, as published. Nothing is retrained; calibration sees 512 training samples, accuracy
all test samples. Deterministic up to the rounding of another number of threads. Takes an hour; the
rows of every network are kept in results/families.json as they come; `--networks` measures some.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from figures import BEGIN, END, markdown
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from methods import accuracy
from torch import nn

from ssmred import zoo
from ssmred.networks import ImportedNetwork, find_layers, import_network
from ssmred.pipeline.feedthrough import DIAGONAL, has_diagonal
from ssmred.pipeline.progress import Progress
from ssmred.pipeline.reduction import count, in_modal_form
from ssmred.pipeline.removal import CalibratedMove, CalibratedRemoval, Cut, DataFreeRemoval
from ssmred.reductors import score_masks, truncation
from ssmred.report import table
from ssmred.report.figures import BLUE, GREY, ORANGE, clean, save_figure, style

SHARES = ("0.6", "0.4", "0.2")
SEED = 0
KEPT = [f"{100 * float(share):.0f} % kept" for share in SHARES]
HEADERS = ["network", "original", "method", *KEPT]
DOCS = Path(__file__).parents[1] / "docs"
PAGE, PICTURE = DOCS / "families.md", DOCS / "images" / "families.png"
RESULTS = Path(__file__).with_name("results") / "families.json"

BALANCED = "calibrated, balanced"
LOOKS = {
    "calibrated": (BLUE, "o"),
    BALANCED: ("#009E73", "^"),
    f"{BALANCED}, diagonal D": ("#56B4E9", "P"),
    "data-free": (ORANGE, "s"),
    "LAST": (GREY, "v"),
    "AIRE": ("#CC79A7", "D"),
}
"""Colour and marker of every method."""

Cutter = Callable[[int], Cut]


@dataclass
class Row:
    """Hold what one method reached on one network, by share of the states that was allowed.

    Shares that are left: of the states, of the numbers in the state-space layers, of all numbers.
    The shares allowed are keys as JSON has them, ``"0.6"``.
    """

    network: str
    method: str
    original: float
    accuracy: dict[str, float] = field(default_factory=dict)
    states: dict[str, float] = field(default_factory=dict)
    ssm: dict[str, float] = field(default_factory=dict)
    parameters: dict[str, float] = field(default_factory=dict)


def scored(network: ImportedNetwork, horizon: int, score: str) -> Cutter:
    """Return what removes the modes of lowest score and leaves the others as they are."""
    systems = [layer.system for layer in network.layers]

    def cut(states: int) -> Cut:
        masks = score_masks(systems, states=states, score=score)
        pairs = zip(systems, masks, strict=True)
        return Cut(network, tuple(truncation(s, m, horizon=horizon) for s, m in pairs))

    return cut


def cutters(network: ImportedNetwork, data: torch.Tensor) -> Iterator[tuple[str, Cutter]]:
    """Yield the methods."""
    horizon = data.shape[1]
    yield "calibrated", CalibratedRemoval(network, data, seed=SEED).cut
    moving = {"method": "balanced", "horizon": horizon, "seed": SEED}
    yield BALANCED, CalibratedMove(network, data, **moving).cut
    if any(has_diagonal(layer.system) for layer in network.layers):
        yield (
            f"{BALANCED}, diagonal D",
            CalibratedMove(network, data, feedthrough=DIAGONAL, **moving).cut,
        )
    yield "data-free", DataFreeRemoval(network, horizon).cut
    yield "LAST", scored(network, horizon, "last")
    yield "AIRE", scored(network, horizon, "aire")


def ssm_numbers(original: nn.Module, network: ImportedNetwork) -> int:
    """Return how many numbers the original's layers hold that their filters stand for."""
    filters = sum(count(network.core(layer.name)) for layer in network.layers)
    blocks = 0
    for found in find_layers(original):
        blocks += count(network.model.get_submodule(found.path)) - count(found.module)
    return filters - blocks


def measure(name: str, samples: int, advance: Callable[[int], None]) -> list[Row]:
    """Return the rows of one network."""
    rows, threads = [], torch.get_num_threads()
    model, data = zoo.load(name)
    test = zoo.Sample(data.test.inputs[:samples], data.test.labels[:samples])
    imported = import_network(model)
    network = in_modal_form(imported, data.test.inputs.shape[1], Progress(False))
    full = sum(layer.states for layer in network.layers)
    whole = count(model), ssm_numbers(model, imported)
    original = accuracy(model, test)
    for method, cutter in cutters(network, data.calibration.inputs):
        row = Row(name, method, original)
        for share in SHARES:
            cut = cutter(int(float(share) * full))
            torch.set_num_threads(threads)  # compiled parallel loops change torch's pool
            filters = sum(count(network.core(at.name, cut.model)) for at in network.layers)
            row.accuracy[share] = accuracy(cut.model, test)
            row.states[share] = cut.states / full
            row.ssm[share] = filters / whole[1]
            row.parameters[share] = count(cut.model) / whole[0]
            advance(1)
        rows.append(row)
    return rows


def kept_rows() -> dict[str, list[Row]]:
    """Return the rows of earlier runs by network."""
    if not RESULTS.exists():
        return {}
    stored = json.loads(RESULTS.read_text())
    return {name: [Row(**row) for row in rows] for name, rows in stored.items()}


def keep(rows: dict[str, list[Row]]) -> None:
    """Store rows: beside, then in place."""
    RESULTS.parent.mkdir(exist_ok=True)
    beside = RESULTS.with_suffix(".new")
    stored = {name: [asdict(row) for row in rows[name]] for name in sorted(rows)}
    beside.write_text(json.dumps(stored, indent=1) + "\n")
    beside.replace(RESULTS)


def cells(rows: list[Row]) -> list[list[str]]:
    """Return the cells of the table of accuracies."""
    return [
        [r.network, f"{r.original:.2f}", r.method, *(f"{r.accuracy[s]:.2f}" for s in SHARES)]
        for r in rows
    ]


def shares_left(rows: list[Row]) -> list[list[str]]:
    """Return what the calibrated methods leave of states, SSM numbers and all numbers."""
    return [
        [
            r.network,
            r.method,
            *(
                f"{100 * r.states[s]:.0f} / {100 * r.ssm[s]:.0f} / {100 * r.parameters[s]:.0f} %, "
                f"{r.accuracy[s] - r.original:+.2f}"
                for s in SHARES
            ),
        ]
        for r in rows
        if r.method.startswith("calibrated")
    ]


def draw(rows: list[Row], path: Path) -> None:
    """Draw accuracy against states kept, one panel per network."""
    names = list(dict.fromkeys(row.network for row in rows))
    lines = -(-len(names) // 4)
    with style():
        figure = Figure(figsize=(12.0, 3.2 * lines + 0.5), layout="constrained")
        panels = figure.subplots(lines, 4, squeeze=False).ravel()
        for axes in panels[len(names) :]:
            axes.set_axis_off()
        for axes, name in zip(panels, names, strict=False):
            draw_panel(axes, [row for row in rows if row.network == name])
        found = {}
        for axes in panels:
            handles, labels = axes.get_legend_handles_labels()
            found |= dict(zip(labels, handles, strict=True))
        shown = {"handles": [*found.values()], "labels": [*found], "ncols": len(found)}
        figure.legend(loc="outside lower center", fontsize=8, **shown)
        save_figure(figure, path)


def draw_panel(axes: Axes, rows: list[Row]) -> None:
    """Draw one line per method."""
    axes.set_title(rows[0].network, fontsize=9)
    for row in rows:
        colour, marker = LOOKS[row.method]
        axes.plot(
            [100 * float(share) for share in row.accuracy],
            list(row.accuracy.values()),
            color=colour,
            marker=marker,
            markersize=5,
            markeredgecolor="black",
            markeredgewidth=0.5,
            linewidth=1.4,
            label=row.method,
        )
    axes.axhline(rows[0].original, color=GREY, linestyle=(0, (4, 2)), label="original network")
    axes.set_xlabel("states kept")
    axes.set_ylabel("right answers (%)")
    axes.xaxis.set_major_formatter(PercentFormatter(decimals=0))
    clean(axes, grid="both")


def main() -> None:
    """Measure, print, and write docs/families.md and its picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [name for name in zoo.names() if not name.endswith("gelu")]
    parser.add_argument("--networks", nargs="*", default=names, choices=zoo.names())
    parser.add_argument("--samples", type=int, default=10_000, help="test samples")
    parser.add_argument("--dry", action="store_true", help="print only, write nothing")
    wish = parser.parse_args()
    found = {} if wish.dry else kept_rows()
    with Progress(True) as bars:
        for name in wish.networks:
            advance = bars.stage(name, len(LOOKS) * len(SHARES))
            rows = measure(name, wish.samples, advance)
            print(table(cells(rows), HEADERS), flush=True)
            found = rows_of(name, rows, wish.dry, found)
    rows = [row for name in sorted(found) for row in found[name]]
    sections = []
    for title, body, headers in (
        (
            f"Accuracy (%) on {wish.samples:,} test samples by share of the states kept.",
            cells(rows),
            HEADERS,
        ),
        (
            "What is left of the states, of the numbers in the state-space layers and of all "
            "numbers, and the change of accuracy (points).",
            shares_left(rows),
            ["network", "method", *KEPT],
        ),
    ):
        print(f"\n{title}\n\n{table(body, headers)}", flush=True)
        sections.append(f"{title}\n\n{markdown(body, headers)}")
    if wish.dry:
        return
    draw(rows, PICTURE)
    text = PAGE.read_text()
    start, stop = text.index(BEGIN) + len(BEGIN), text.index(END)
    PAGE.write_text(f"{text[:start]}\n\n" + "\n\n".join(sections) + f"\n\n{text[stop:]}")


def rows_of(
    name: str, rows: list[Row], dry: bool, found: dict[str, list[Row]]
) -> dict[str, list[Row]]:
    """Return all rows with those of one more network, stored unless nothing is to be written."""
    if dry:
        return found | {name: rows}
    found = kept_rows() | {name: rows}  # another process may have measured others meanwhile
    keep(found)
    return found


if __name__ == "__main__":
    main()
