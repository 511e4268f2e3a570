"""The tables and pictures of docs/prune.md, from what benchmarks/prune_families.py measured."""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from figures import markdown
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from ssmred.report.figures import BLUE, GREY, ORANGE, clean, save_figure, style

__all__ = ["FAMILIES", "METHODS", "RESULTS", "TASKS", "name_of", "write"]

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "prune"
PAGE = HERE.parent / "docs" / "prune.md"
TASKS = ("fashion-mnist", "listops", "ecg5000", "ford-a")
FAMILIES = ("s4d", "s4")
METHODS = {
    "s4op": ("S4oP, 25 fine-tunings", GREY, "s"),
    "ours": ("ours, as many steps", BLUE, "o"),
    "ours-fifth": ("ours, a fifth of the steps", ORANGE, "D"),
    "ours-none": ("ours, no fine-tuning", "#009E73", "^"),
    "ours-silent": ("ours, no fine-tuning, 60 % of the gains silent", "#CC79A7", "v"),
}
CONFIDENCE = 0.95

Record = dict[str, Any]
Records = dict[tuple[str, str, str], list[Record]]


def name_of(task: str, family: str, method: str, seed: int) -> str:
    """Return the name of a family's folder and record."""
    return f"{task}-{family}-{method}-{seed}"


def records(folder: Path) -> Records:
    """Return the stored families by task, family and method, seed by seed."""
    found: Records = {}
    for key in product(TASKS, FAMILIES, METHODS):
        paths = sorted(folder.glob(f"{name_of(*key, 0)[:-1]}[0-9]*.json"))
        if paths:
            found[key] = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    return found


def losses(families: list[Record], when: str = "after") -> np.ndarray:
    """Return points of the metric that are lost on the test part, (seeds, rates)."""
    return np.array([
        [family["parent"]["scores"]["test_after"] - member["scores"][f"test_{when}"]
         for member in family["members"]]
        for family in families
    ])  # fmt: skip


def halves(values: np.ndarray) -> np.ndarray:
    """Return half the width of Student's interval for the mean of the rows; nan for one row."""
    count = len(values)
    if count < 2:
        return np.full(values.shape[1], np.nan)
    quantile = stats.t.ppf(0.5 + CONFIDENCE / 2, count - 1)
    return quantile * values.std(axis=0, ddof=1) / np.sqrt(count)


def write(options: argparse.Namespace) -> None:
    """Write the section of the page, and a picture per task."""
    found = records(options.results)
    times = {
        key: json.loads(path.read_text(encoding="utf-8"))
        for key in product(TASKS, FAMILIES)
        if (path := options.results / "latency" / f"{'-'.join(key)}.json").exists()
    }
    sections = [
        "Points lost on the test part by share of the operators removed: mean of the seeds ± half "
        "of the 95 % interval for it (Student). Negative: better than the parent.",
        table({key: _losses(families) for key, families in found.items()}, found),
    ]
    if times:
        ratios = {key: _ratios(times[key[:2]], key[2]) for key in found if key[:2] in times}
        sections += [
            "Time of one whole sequence at batch 1 over that of the parent, kernels cached in "
            "both, all networks of a task and family in alternation: medians, mean of the seeds. "
            "In brackets: in compact form (`ssmred.deploy.compacted`), over the parent as it is.",
            table(ratios, found),
            "\n".join(_time_of_parent(key, record) for key, record in times.items()),
        ]
    by_length = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in (options.results / "latency").glob("length-*.json")
    ]
    if by_length:
        sections += [
            "By length, one network (S4D, four layers of 64 operators, 64 states each) with 70 % "
            "of its operators gone, one thread; over the parent as it is, kernels cached. Silent: "
            "60 % of the gains are gone too.",
            _by_length(sorted(by_length, key=lambda record: record["length"])),
        ]
    for task in TASKS:
        if any(key[0] == task for key in found):
            draw(task, found, PAGE.parent / "images" / f"prune-{task}.png")
            sections.append(f"![Points lost on {task}](images/prune-{task}.png)")
    body = "\n\n".join(sections)
    print(body)
    text = PAGE.read_text(encoding="utf-8")
    begin, end = "<!-- measured -->", "<!-- /measured -->"
    start, stop = text.index(begin) + len(begin), text.index(end)
    PAGE.write_text(f"{text[:start]}\n\n{body}\n\n{text[stop:]}", encoding="utf-8")


def table(cells: dict[tuple[str, str, str], list[str]], found: Records) -> str:
    """Return a table with a line per task, family and method and a column per rate."""
    rates = next(iter(found.values()))[0]["options"]["rates"]
    lines = [
        [*key[:2], METHODS[key[2]][0], str(len(found[key])), *row] for key, row in cells.items()
    ]
    return markdown(
        lines, ["task", "layers", "method", "seeds", *(f"{rate:.0%}" for rate in rates)]
    )


def _losses(families: list[Record]) -> list[str]:
    values = losses(families)
    pairs = zip(values.mean(axis=0), halves(values), strict=True)
    return [f"{m:.2f}" + ("" if np.isnan(half) else f" ± {half:.2f}") for m, half in pairs]


def _ratios(record: Record, method: str) -> list[str]:
    """Return the ratio of every rate, as it is and in brackets in compact form."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    for name, spread in record["ratios"].items():
        own, *rest = name.removeprefix("compact ").split()
        if own == method:
            found.setdefault(rest[1], ([], []))[name.startswith("compact")].append(spread["median"])
    pairs = [found[rate] for rate in sorted(found, key=float)]
    return [f"{np.mean(plain):.2f} ({np.mean(compact):.2f})" for plain, compact in pairs]


def _time_of_parent(key: tuple[str, str], record: Record) -> str:
    names = ("parent", "compact parent", "uncached")
    plain, compact, anew = (1e3 * record["seconds"][name]["median"] for name in names)
    return (
        f"- {key[0]}, {key[1]}, {record['length']} steps: the parent takes {plain:.2f} ms, "
        f"{compact:.2f} ms in compact form, and {anew:.1f} ms where every pass makes the kernels "
        f"anew ({record['machine']})"
    )


def _by_length(found: list[Record]) -> str:
    """Return a table of times, of ratios to the parent as it is and to its compact form."""
    lines, compact = [], ("compact parent", "compact pruned", "compact silent")
    for record in found:
        seconds = {name: spread["median"] for name, spread in record["seconds"].items()}
        ratios = {name: spread["median"] for name, spread in record["ratios"].items()}
        lines.append([
            f"{record['length']:,}",
            f"{1e3 * seconds['parent']:.2f} ms",
            *(f"{ratios[name]:.2f}" for name in ("pruned", *compact)),
            f"{seconds[compact[1]] / seconds[compact[0]]:.2f}",
            f"{seconds[compact[2]] / seconds[compact[0]]:.2f}",
        ])  # fmt: skip
    titles = ["steps", "parent", "pruned", *compact]
    return markdown(lines, [*titles, "pruned over parent, both compact", "the same, silent"])


def draw(task: str, found: Records, path: Path) -> None:
    """Draw what every method loses on a task, before and after fine-tuning."""
    with style():
        figure = Figure(figsize=(9.6, 3.8), layout="constrained")
        figure.suptitle(task, fontsize=10.5, x=0.01, ha="left")
        panels = figure.subplots(1, len(FAMILIES), sharey=True)
        for axes, family in zip(panels, FAMILIES, strict=True):
            draw_family(
                axes, {m: found[key] for m in METHODS if (key := (task, family, m)) in found}
            )
            axes.set_title(family.upper())
            axes.set_xlabel("operators removed (%)")
        panels[0].set_ylabel("points lost on the test part")
        panels[0].legend(fontsize=8)
        save_figure(figure, path)


def draw_family(axes: Axes, found: dict[str, list[Record]]) -> None:
    """Draw the loss of every method against the share that is removed."""
    for method, families in found.items():
        label, colour, marker = METHODS[method]
        removed = [100 * member["rate"] for member in families[0]["members"]]
        values = losses(families)
        half = np.nan_to_num(halves(values))
        look = {"color": colour, "marker": marker, "markeredgecolor": "black", "capsize": 2}
        axes.errorbar(removed, values.mean(axis=0), half, label=label, **look)
        if method == "s4op":
            before = losses(families, "before").mean(axis=0)
            axes.plot(removed, before, ":", color=colour, label="S4oP before fine-tuning")
    axes.axhline(0.0, color=GREY, linestyle=(0, (4, 2)))
    axes.set_yscale("symlog", linthresh=1.0)
    clean(axes, grid="both")
