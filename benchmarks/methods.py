"""Compare all methods of `ssmred.reduce` on the bundled network, and write docs/methods.md.

Accuracy on the test images and the layer error that a layer certificate states (horizon 196), at
equal numbers of states: data-free with the read-out that a method gives, data-free with the best
read-out for its poles (what `ssmred.reduce` does), and calibrated. Nothing is retrained; the
original's accuracy stands above the table. Deterministic: the only random numbers are the
seeded projections of the calibrated metric. Prints the tables; writes the picture and the tables
of docs/methods.md unless told otherwise.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from figures import BEGIN, END, markdown
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torch import nn

from ssmred import zoo
from ssmred.certify import layer_bounds, layer_records
from ssmred.networks import ImportedNetwork, import_network
from ssmred.pipeline.methods import ALTERNATING, LAYER_METHODS, RANDOM, SUBSET
from ssmred.pipeline.progress import Progress
from ssmred.pipeline.removal import (
    CalibratedMove,
    CalibratedRemoval,
    Cut,
    DataFreeRemoval,
    Removal,
)
from ssmred.report import table
from ssmred.report.figures import BLUE, GREY, ORANGE, clean, save_figure, style

NAME = "fashion-mnist-s4d"
HORIZON = 196
SEED = 0
SHARES = (0.7, 0.5, 0.3, 0.2, 0.1)
BATCH = 100
"""Images per forward pass; twice as fast as 500, whose signals do not fit the cache."""
DOCS = Path(__file__).parents[1] / "docs"
PAGE, PICTURE = DOCS / "methods.md", DOCS / "images" / "methods.png"

COMPARED = tuple(method for method in LAYER_METHODS if method not in (ALTERNATING, RANDOM))
"""In channels with one input and one output B and C are one number per mode; chance needs no
picture."""

OWN, FITTED, CALIBRATED = "data-free, own read-out", "data-free", "calibrated"
LOOKS = {
    "subset": (BLUE, "o"),
    "balanced": (ORANGE, "s"),
    "residualised": ("#009E73", "^"),
    "modal": (GREY, "v"),
    "h2_optimal": ("#56B4E9", "P"),
    "hankel": ("#CC79A7", "D"),
}
"""Colour and marker of every method: the marker alone tells them apart in a grey print."""


@dataclass
class Row:
    """Hold what one method reached, by share of the states that was allowed."""

    method: str
    kind: str
    accuracy: dict[float, float] = field(default_factory=dict)
    error: dict[float, float] = field(default_factory=dict)
    states: dict[float, int] = field(default_factory=dict)


def removals(network: ImportedNetwork, calibration: torch.Tensor) -> Iterator[tuple[Row, Removal]]:
    """Yield a row for every method and kind, and what cuts for it."""
    for method in COMPARED:
        free = DataFreeRemoval(network, HORIZON, method=method)
        if method != SUBSET:
            own = copy.copy(free)
            own.fit = False
            yield Row(method, OWN), own
        yield Row(method, FITTED), free
        yield (
            Row(method, CALIBRATED),
            CalibratedRemoval(network, calibration, seed=SEED)
            if method == SUBSET
            else CalibratedMove(network, calibration, method=method, horizon=HORIZON, seed=SEED),
        )


def accuracy(model: nn.Module, test: zoo.Sample) -> float:
    """Return the share of right classes in percent."""
    with torch.no_grad():
        answers = torch.cat([model(x).argmax(-1) for x in test.inputs.split(BATCH)])
    return 100.0 * float((answers == test.labels).double().mean())


def layer_error(network: ImportedNetwork, cut: Cut) -> float:
    """Return the largest relative h2 error of a layer, as a layer certificate states it."""
    full = Cut(network, ()).systems
    records = layer_records(layer_bounds(full, cut.systems, HORIZON))
    return max(record.relative_error for record in records)


def measure(images: int, shares: Sequence[float]) -> tuple[list[Row], float]:
    """Return all rows and the accuracy of the original."""
    model, data = zoo.load(NAME)
    test = zoo.Sample(data.test.inputs[:images], data.test.labels[:images])
    network = import_network(model)
    full = sum(layer.states for layer in network.layers)
    threads = torch.get_num_threads()
    rows = []
    with Progress(True) as bars:
        advance = bars.stage("reducing and testing", (3 * len(COMPARED) - 1) * len(shares))
        for row, removal in removals(network, data.calibration.inputs):
            for share in shares:
                cut = removal.cut(int(share * full))
                row.states[share] = cut.states
                row.error[share] = layer_error(network, cut)
                torch.set_num_threads(threads)  # compiled parallel loops change torch's pool
                row.accuracy[share] = accuracy(cut.model, test)
                advance(1)
            rows.append(row)
    return rows, accuracy(model, test)


def headers(shares: Sequence[float], *more: str) -> list[str]:
    """Return the columns of a table."""
    return ["method", "", *(f"{100 * s:.0f} % kept" for s in shares), *more]


def accuracies(rows: list[Row], shares: Sequence[float]) -> list[list[str]]:
    """Return the cells of the table of accuracies."""
    return [[row.method, row.kind, *(f"{row.accuracy[s]:.2f}" for s in shares)] for row in rows]


def errors(rows: list[Row], shares: Sequence[float]) -> list[list[str]]:
    """Return the cells of the table of layer errors, with the states kept at the last share."""
    return [
        [
            row.method,
            row.kind,
            *(f"{row.error[s]:.3f}" for s in shares),
            f"{row.states[shares[-1]]:,}",
        ]
        for row in rows
    ]


def draw(rows: list[Row], original: float, images: int, path: Path) -> None:
    """Draw accuracy (data-free, calibrated) and certified layer error against states kept."""
    panels = (
        ("Accuracy, data-free", FITTED, "accuracy"),
        ("Accuracy, calibrated", CALIBRATED, "accuracy"),
        ("Certified layer error, data-free", FITTED, "error"),
    )
    with style():
        figure = Figure(figsize=(12.0, 4.0), layout="constrained")
        for axes, (title, kind, name) in zip(figure.subplots(1, 3), panels, strict=True):
            draw_panel(axes, title, [row for row in rows if row.kind == kind], name)
            if name == "accuracy":
                axes.axhline(original, color=GREY, linestyle=(0, (4, 2)), label="original network")
                axes.set_ylabel(f"right answers (%), {images:,} test images")
            else:
                axes.set_yscale("log")
                axes.set_ylabel(f"largest relative h2 error of a layer, {HORIZON} steps")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8)
        save_figure(figure, path)


def draw_panel(axes: Axes, title: str, rows: list[Row], name: str) -> None:
    """Draw one line per method."""
    axes.set_title(title)
    for row in rows:
        colour, marker = LOOKS[row.method]
        values = getattr(row, name)
        axes.plot(
            [100 * share for share in values],
            list(values.values()),
            color=colour,
            marker=marker,
            markersize=5,
            markeredgecolor="black",
            markeredgewidth=0.5,
            linewidth=1.4,
            label=row.method,
        )
    axes.set_xlabel("states kept")
    axes.xaxis.set_major_formatter(PercentFormatter(decimals=0))
    clean(axes, grid="both")


def main() -> None:
    """Measure, print, and write docs/methods.md and its picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000, help="test images")
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES, help="states kept")
    parser.add_argument("--dry", action="store_true", help="print only, write nothing")
    wish = parser.parse_args()
    shares = tuple(wish.shares)
    rows, original = measure(wish.images, shares)
    sections = []
    for title, cells, names in (
        (
            f"Accuracy (%) on {wish.images:,} test images; the original has {original:.2f}.",
            accuracies(rows, shares),
            headers(shares),
        ),
        (
            f"Largest relative h2 error of a layer over {HORIZON} steps, as certified.",
            errors(rows, shares),
            headers(shares, "states at the last"),
        ),
    ):
        print(f"\n{title}\n\n{table(cells, names)}", flush=True)
        sections.append(f"{title}\n\n{markdown(cells, names)}")
    if wish.dry:
        return
    draw(rows, original, wish.images, PICTURE)
    text = PAGE.read_text()
    start, stop = text.index(BEGIN) + len(BEGIN), text.index(END)
    PAGE.write_text(f"{text[:start]}\n\n" + "\n\n".join(sections) + f"\n\n{text[stop:]}")


if __name__ == "__main__":
    main()
