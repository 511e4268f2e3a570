"""The picture of a family of pruned networks: what is lost at each rate, and what it buys."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssmred.checks import check_choice
from ssmred.errors import RequestError, message
from ssmred.report.figures import BLUE, GREY, LIGHT, ORANGE, clean, save_figure, style

__all__ = ["plot_family"]

_PARTS = {"val": "validation part", "test": "test part"}


def plot_family(
    family: Any, path: str | os.PathLike[str] | None = None, *, part: str | None = None
) -> Figure:
    """Draw score against the rate of removal, and score against latency with the Pareto front.

    Parameters
    ----------
    family : Family
        What ``ssmred.prune.progressive`` returns.
    path : path, optional
        Where to save the figure too (png, pdf, svg by the suffix); the write is atomic.
    part : {"val", "test"}, optional
        Whose scores; by default those of the test part where it was opened.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ShapeError
        If `part` is none of these.
    RequestError
        If the test part is asked for and was not opened.
    """
    everyone = [family.parent, *family.members]
    opened = all(member.scores["test_after"] is not None for member in everyone)
    if part is None:
        part = "test" if opened else "val"
    check_choice(part, tuple(_PARTS), "part", "plot_family")
    if part == "test" and not opened:
        raise RequestError(message("plot_family", "the test part was not opened"))
    label = f"{family.metric}, {_PARTS[part]} (%)"
    with style():
        figure = Figure(figsize=(9.6, 3.8), layout="constrained")
        if family.task:
            figure.suptitle(family.task, fontsize=10.5, x=0.01, ha="left")
        left, right = figure.subplots(1, 2)
        _draw_rates(left, everyone, part)
        _draw_latency(right, everyone, family.pareto("latency", part), part)
        left.set_ylabel(label)
        right.set_ylabel(label)
        if path is not None:
            save_figure(figure, path)
    return figure


def _draw_rates(axes: Axes, everyone: list[Any], part: str) -> None:
    axes.set_title("What pruning costs")
    parent, *members = everyone
    rates = [100.0 * member.rate for member in members]
    axes.axhline(
        parent.scores[f"{part}_after"],
        color=GREY,
        linestyle=":",
        linewidth=1.4,
        label="nothing removed",
    )
    for when, text, colour, marker, line in (
        ("after", "after fine-tuning", BLUE, "o", "-"),
        ("before", "before fine-tuning", ORANGE, "D", "--"),
    ):
        scores = [member.scores[f"{part}_{when}"] for member in members]
        known = [(r, s) for r, s in zip(rates, scores, strict=True) if s is not None]
        axes.plot(
            [rate for rate, _ in known],
            [score for _, score in known],
            linestyle=line,
            marker=marker,
            color=colour,
            markeredgecolor="black",
            markeredgewidth=0.6,
            label=text,
        )
    axes.set_xlim(0.0, 100.0)
    axes.set_xlabel("operators removed (%)")
    axes.legend(loc="lower left", fontsize=8)
    clean(axes, grid="both")


def _draw_latency(axes: Axes, everyone: list[Any], front: tuple[Any, ...], part: str) -> None:
    axes.set_title("What it buys")
    # Ratios, because every member was measured beside the parent in a run of its own.
    places = [(member.relative.median, member.scores[f"{part}_after"]) for member in front]
    axes.step(
        [x for x, _ in places],
        [y for _, y in places],
        where="post",
        color=LIGHT,
        linewidth=3.0,
        label="Pareto front",
    )
    kept = [member.weights for member in front]
    for chosen, face, text in ((True, BLUE, "not beaten"), (False, "white", "beaten")):
        shown = [member for member in everyone if (member.weights in kept) == chosen]
        if not shown:
            continue
        ratios = np.array([member.relative.median for member in shown])
        low = ratios - np.array([member.relative.lower for member in shown])
        high = np.array([member.relative.upper for member in shown]) - ratios
        axes.errorbar(
            ratios,
            [member.scores[f"{part}_after"] for member in shown],
            xerr=[low, high],
            fmt="o",
            color=face,
            ecolor=GREY,
            markeredgecolor="black",
            markeredgewidth=0.6,
            elinewidth=1.0,
            capsize=2.5,
            label=text,
        )
    for member in everyone:
        axes.annotate(
            f"{100.0 * member.rate:.3g} %" if member.removed else "parent",
            (member.relative.median, member.scores[f"{part}_after"]),
            xytext=(5, 5),
            textcoords="offset points",
            fontsize=8,
        )
    axes.set_xlim(left=0.0)
    axes.set_xlabel("latency of one sequence, batch 1, relative to the parent")
    axes.legend(loc="best", fontsize=8)
    clean(axes, grid="both")
