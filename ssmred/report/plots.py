"""Figures of a reduction and of a latency run, drawn from plain numbers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ssmred.errors import ShapeError, message
from ssmred.report.figures import BLUE, GREY, LIGHT, ORANGE, clean, save_figure, style
from ssmred.report.layer_panels import draw_budget, draw_states
from ssmred.report.picture import ReductionPicture, picture_of

__all__ = ["plot_latency", "plot_layers", "plot_reduction", "plot_weights"]


_VARIANTS = (
    ("original", "original", LIGHT, "s"),
    ("imported", "full order in ssmred's layers", ORANGE, "D"),
    ("reduced", "reduced", BLUE, "o"),
)
"""Key, label, colour and marker: the marker alone tells them apart in a grey print."""


_ROUNDING = 1e-17
"""Relative errors below this are rounding of float64 and are not drawn."""


def plot_reduction(result: Any, path: str | os.PathLike[str] | None = None) -> Figure:
    """Draw error against states, states kept per channel, and the error budget of the layers.

    Parameters
    ----------
    result : ReductionPicture or ReductionResult
        The numbers, or a result whose numbers are taken.
    path : path, optional
        Where to save the figure too (png, pdf, svg by the suffix); the write is atomic.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ShapeError
        If the curve's two arrays, or the layers' entries, differ in length.
    """
    picture = _checked(result, "plot_reduction")
    states = np.asarray(picture.curve_states, dtype=np.float64).ravel()
    errors = np.asarray(picture.curve_error, dtype=np.float64).ravel()
    with style():
        figure = Figure(figsize=(12.0, 3.8), layout="constrained")
        if picture.title:
            figure.suptitle(picture.title, fontsize=10.5, x=0.01, ha="left")
        left, middle, right = figure.subplots(1, 3, width_ratios=(1.15, 1.0, 1.0))
        _draw_curve(left, picture, states, errors)
        draw_states(figure, middle, picture)
        draw_budget(right, picture)
        if path is not None:
            save_figure(figure, path)
    return figure


def plot_layers(result: Any, path: str | os.PathLike[str] | None = None) -> Figure:
    """Draw states kept per channel and the error budget: `plot_reduction` without its curve.

    Parameters
    ----------
    result : ReductionPicture or ReductionResult
        The numbers, or a result whose numbers are taken.
    path : path, optional
        Where to save the figure too; the write is atomic.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ShapeError
        If the layers' entries differ in length.
    """
    picture = _checked(result, "plot_layers")
    with style():
        height = 1.6 + 0.22 * min(max(len(picture.layers), 5), 20)
        figure = Figure(figsize=(9.6, height), layout="constrained")
        left, right = figure.subplots(1, 2)
        draw_states(figure, left, picture)
        draw_budget(right, picture)
        if path is not None:
            save_figure(figure, path)
    return figure


def _checked(result: Any, where: str) -> ReductionPicture:
    """Return the numbers of a picture; refuse those whose lengths do not fit."""
    picture = result if isinstance(result, ReductionPicture) else picture_of(result)
    count = len(picture.layers)
    lengths = {
        "curve_error": (np.size(picture.curve_error), np.size(picture.curve_states)),
        "layer_states": (len(picture.layer_states), count),
        "layer_errors": (len(picture.layer_errors), count),
    }
    if picture.channel_states is not None:
        lengths["channel_states"] = (len(picture.channel_states), count)
    for name, (got, expected) in lengths.items():
        if got != expected:
            raise ShapeError(
                message(where, f"{name} has the wrong length", expected=f"{expected}", got=f"{got}")
            )
    return picture


def plot_weights(
    bound: Any, path: str | os.PathLike[str] | None = None, *, names: Sequence[str] | None = None
) -> Figure:
    """Draw what each layer's error is worth at the output, and what each adds to the bound.

    Parameters
    ----------
    bound : QuadraticChainBound
        See :func:`ssmred.quadratic_bound`.
    path : path, optional
        Where to save the figure too; the write is atomic.
    names : sequence of str, optional
        Of the layers, front to back; their numbers by default.

    Returns
    -------
    matplotlib.figure.Figure
        Logarithmic bars; what is 0 or infinite has none.

    Raises
    ------
    ShapeError
        If there are not as many names as layers.
    """
    labels = [str(k + 1) for k in range(len(bound.weights))] if names is None else list(names)
    if len(labels) != len(bound.weights):
        raise ShapeError(
            message(
                "plot_weights",
                "names has the wrong length",
                expected=f"{len(bound.weights)}",
                got=f"{len(labels)}",
            )
        )
    panels = [("Output error per unit of h2 error", bound.weights, BLUE)]
    if any(bound.errors):
        panels.append((f"Contribution to the bound {bound.bound:.2g}", bound.contributions, ORANGE))
    with style():
        figure = Figure(figsize=(4.2 * len(panels), 3.0), layout="constrained")
        for axes, (title, values, colour) in zip(
            np.ravel(figure.subplots(1, len(panels))), panels, strict=True
        ):
            heights = np.asarray(values, dtype=np.float64)
            drawn = np.isfinite(heights) & (heights > 0)
            axes.bar(np.flatnonzero(drawn), heights[drawn], color=colour, width=0.6)
            axes.set_xticks(range(len(labels)), labels)
            axes.set_yscale("log")
            axes.set_title(title)
            axes.set_xlabel("layer, from the input")
            clean(axes, grid="y")
        if path is not None:
            save_figure(figure, path)
    return figure


def plot_latency(report: Any, path: str | os.PathLike[str] | None = None) -> Figure:
    """Draw times (medians with quartiles) and bytes of the original and the reduced network.

    Parameters
    ----------
    report : LatencyReport or dict
        The report, or its ``to_dict()``.
    path : path, optional
        Where to save the figure too; the write is atomic.

    Returns
    -------
    matplotlib.figure.Figure
    """
    plain: Mapping[str, Any] = report if isinstance(report, Mapping) else report.to_dict()
    measured = plain["measurements"]
    panels = [
        ("Time per call", "milliseconds", 1e3, [m for m in measured if m["unit"] == "s"]),
        ("Memory", "MiB", 2.0**-20, [m for m in measured if m["unit"] == "B"]),
    ]
    panels = [panel for panel in panels if panel[3]]
    if not panels:
        raise ShapeError(message("plot_latency", "the report holds no measurements"))
    with style():
        rows = max(len(panel[3]) for panel in panels)
        figure = Figure(figsize=(11.0, 1.5 + 0.55 * rows), layout="constrained")
        for axes, panel in zip(np.ravel(figure.subplots(1, len(panels))), panels, strict=True):
            _draw_measurements(axes, *panel)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=len(labels), fontsize=8)
        figure.text(
            0.01,
            0.005,
            f"medians and quartiles; x: reduced over original (over full order, where the original "
            f"has no step). {plain['machine']}",
            fontsize=6.5,
            color=GREY,
        )
        figure.get_layout_engine().set(rect=(0.0, 0.04, 1.0, 0.96))  # type: ignore[union-attr]
        if path is not None:
            save_figure(figure, path)
    return figure


def _draw_curve(
    axes: Axes, picture: ReductionPicture, states: np.ndarray, errors: np.ndarray
) -> None:
    axes.set_title("Error against states kept")
    order = np.argsort(states)
    states, errors = states[order], errors[order]
    shown = np.isfinite(errors) & (errors > 0)  # a logarithmic axis has no place for 0
    if shown.any():
        axes.plot(states[shown], errors[shown], color=BLUE, linewidth=1.6, label="path of cuts")
        axes.set_yscale("log")
        axes.set_ylim(bottom=max(errors[shown].min() / 3.0, min(_ROUNDING, errors[shown].max())))
    else:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no positive error", transform=axes.transAxes, ha="center", color=GREY)
    share = f" ({picture.kept / picture.full:.0%})" if picture.full else ""
    axes.axvline(
        picture.kept,
        color=GREY,
        linestyle=(0, (4, 2)),
        linewidth=1.1,
        label=f"chosen: {picture.kept:,} of {picture.full:,}{share}",
    )
    if shown.any() and picture.kept > 0:
        nearest = np.argmin(np.abs(states[shown] - picture.kept))
        axes.plot(
            states[shown][nearest],
            errors[shown][nearest],
            marker="o",
            color=ORANGE,
            markeredgecolor="black",
            markersize=7,
            linestyle="none",
        )
    if picture.tol is not None and shown.any():
        axes.axhline(
            picture.tol,
            color=ORANGE,
            linestyle=":",
            linewidth=1.4,
            label=f"tol = {picture.tol:.3g}",
        )
    axes.set_xlim(0, max(picture.full, 1) * 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axes.set_xlabel("real states kept (a conjugate pair is two)")
    axes.set_ylabel(picture.curve_label)
    axes.legend(loc="best", fontsize=8, frameon=True, framealpha=0.9, edgecolor="none")
    clean(axes, grid="both")


def _draw_measurements(
    axes: Axes, title: str, unit: str, factor: float, measured: Sequence[Mapping[str, Any]]
) -> None:
    axes.set_title(title)
    for offset, (key, label, colour, marker) in enumerate(_VARIANTS):
        rows = [(place, m[key]) for place, m in enumerate(measured) if m[key] is not None]
        middle = np.array([spread["median"] for _, spread in rows]) * factor
        low = np.array([spread["lower"] for _, spread in rows]) * factor
        high = np.array([spread["upper"] for _, spread in rows]) * factor
        axes.errorbar(
            middle,
            [place + (offset - 1) * 0.22 for place, _ in rows],
            xerr=np.maximum([middle - low, high - middle], 0.0) if rows else None,
            fmt=marker,
            color=colour,
            ecolor=GREY,
            markeredgecolor="black",
            markeredgewidth=0.6,
            markersize=7,
            elinewidth=1.0,
            capsize=2.5,
            label=label,
        )
    for place, m in enumerate(measured):
        axes.annotate(
            f"{m['ratio']:.2f}x",
            (m["reduced"]["upper"] * factor, place + 0.22),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    values = [m[key]["median"] * factor for m in measured for key, *_ in _VARIANTS if m[key]]
    if min(values) > 0:
        axes.set_xscale("log")
        axes.set_xlim(min(values) / 2.0, max(values) * 2.5)
    axes.set_yticks(
        range(len(measured)), [m["name"].replace(", batch", "\nbatch") for m in measured]
    )
    axes.set_ylim(len(measured) - 0.5, -0.5)
    axes.set_xlabel(unit)
    clean(axes, grid="x")
