"""Figures of a reduction and of a latency run, drawn from plain numbers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ssmred.errors import ShapeError, message
from ssmred.report.figures import BLUE, GREY, LIGHT, ORANGE, clean, save_figure, style

__all__ = ["ReductionPicture", "picture_of", "plot_latency", "plot_reduction", "plot_weights"]


_VARIANTS = (
    ("original", "original", LIGHT, "s"),
    ("imported", "full order in ssmred's layers", ORANGE, "D"),
    ("reduced", "reduced", BLUE, "o"),
)
"""Key, label, colour and marker: the marker alone tells them apart in a grey print."""


_ROUNDING = 1e-17
"""Relative errors below this are rounding of float64 and are not drawn."""


@dataclass(frozen=True, eq=False)
class ReductionPicture:
    """Hold the numbers that `plot_reduction` draws.

    Attributes
    ----------
    curve_states, curve_error : (K,) array_like
        The whole path: real states kept and the error there.
    kept, full : int
        Real states of the reduced and of the original network.
    layers : sequence of str
        Names of the layers.
    layer_states : sequence of (kept, full)
        Real states of every layer.
    layer_errors : (L,) array_like
        What every layer adds to the bound, or its relative error; inf where nothing is known.
    layer_label : str
        What `layer_errors` are, for the axis.
    channel_states : sequence of (H,) array_like, optional
        Real states kept in every channel of every layer.
    tol : float, optional
        The tolerance that was asked for.
    curve_label : str
        What `curve_error` is, for the axis.
    title : str
        One line above the panels.
    """

    curve_states: Any
    curve_error: Any
    kept: int
    full: int
    layers: Sequence[str]
    layer_states: Sequence[tuple[int, int]]
    layer_errors: Any
    layer_label: str = "relative layer error"
    channel_states: Sequence[Any] | None = None
    tol: float | None = None
    curve_label: str = "relative error"
    title: str = ""


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
    picture = result if isinstance(result, ReductionPicture) else picture_of(result)
    states = np.asarray(picture.curve_states, dtype=np.float64).ravel()
    errors = np.asarray(picture.curve_error, dtype=np.float64).ravel()
    lengths = {
        "curve_error": (errors.size, states.size),
        "layer_states": (len(picture.layer_states), len(picture.layers)),
        "layer_errors": (len(picture.layer_errors), len(picture.layers)),
    }
    if picture.channel_states is not None:
        lengths["channel_states"] = (len(picture.channel_states), len(picture.layers))
    for name, (got, expected) in lengths.items():
        if got != expected:
            raise ShapeError(
                message(
                    "plot_reduction",
                    f"{name} has the wrong length",
                    expected=f"{expected}",
                    got=f"{got}",
                )
            )
    with style():
        figure = Figure(figsize=(12.0, 3.8), layout="constrained")
        if picture.title:
            figure.suptitle(picture.title, fontsize=10.5, x=0.01, ha="left")
        left, middle, right = figure.subplots(1, 3, width_ratios=(1.15, 1.0, 1.0))
        _draw_curve(left, picture, states, errors)
        if picture.channel_states is None:
            _draw_layer_states(middle, picture)
        else:
            _draw_channels(figure, middle, picture, picture.channel_states)
        _draw_budget(right, picture)
        if path is not None:
            save_figure(figure, path)
    return figure


def picture_of(result: Any) -> ReductionPicture:
    """Return the numbers of a `ReductionResult` that its figure shows.

    The layers' panel shows what each layer adds to the bound where the certificate bounds the
    output layer by layer (worst-case), and relative h2 errors otherwise.
    """
    certificate = result.certificate
    layers = certificate.layers
    added = [layer.contribution for layer in layers]
    bounded = certificate.guarantee == "worst-case" and all(value is not None for value in added)
    kept, full = result.states
    vacuous = ", vacuous" if certificate.vacuous else ""
    method = getattr(result, "method", "subset")
    moved = "" if method == "subset" else f" (method {method})"
    return ReductionPicture(
        curve_states=result.path.states,
        curve_error=result.path.error,
        kept=kept,
        full=full,
        layers=[layer.name for layer in layers],
        layer_states=[(layer.states_kept, layer.states_full) for layer in layers],
        layer_errors=added if bounded else [layer.relative_error for layer in layers],
        layer_label="contribution to the bound" if bounded else "relative h2 error of the layer",
        channel_states=_channel_states(result.model, layers),
        curve_label="error of the layers, relative to removing all",
        title=f"{kept:,} of {full:,} states kept{moved}; {certificate.guarantee} certificate, "
        f"bound {certificate.bound:.2e}{vacuous}",
    )


def _channel_states(model: Any, layers: Sequence[Any]) -> list[np.ndarray] | None:
    # Reduced layers are told by their attribute, so that figures need no torch.
    cores = {path: m for path, m in model.named_modules() if hasattr(m, "orders")}
    rows = []
    for layer in layers:
        inside = [
            2 * np.asarray(core.orders, dtype=np.int64)
            for path, core in cores.items()
            if len(layers) == len(cores) == 1 or f"{path}.".startswith(f"{layer.name}.")
        ]
        if len(inside) != 1 or int(inside[0].sum()) != layer.states_kept:
            return None  # the layer's channels are not told apart here: bars per layer instead
        rows += inside
    return rows


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


def _draw_channels(
    figure: Figure, axes: Axes, picture: ReductionPicture, channels: Sequence[Any]
) -> None:
    axes.set_title("States kept per channel")
    rows = [np.sort(np.asarray(row, dtype=np.float64).ravel())[::-1] for row in channels]
    width = max((row.size for row in rows), default=0)
    grid = np.full((len(rows), width), np.nan)
    for index, row in enumerate(rows):
        grid[index, : row.size] = row
    most = max([1.0, *(row.max() for row in rows if row.size)])
    image = axes.imshow(
        grid, aspect="auto", cmap="cividis", vmin=0.0, vmax=most, interpolation="nearest"
    )
    pairs = zip(picture.layer_states, rows, strict=True)
    orders = {total // row.size for (_, total), row in pairs if row.size}
    bar = figure.colorbar(image, ax=axes, pad=0.02)
    bar.set_label("states kept" + (f" (of {orders.pop()})" if len(orders) == 1 else ""))
    bar.outline.set_visible(False)  # type: ignore[operator]
    _name_layers(axes, picture)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    axes.set_xlabel("channels, sorted in each layer")
    axes.spines[:].set_visible(False)


def _draw_layer_states(axes: Axes, picture: ReductionPicture) -> None:
    axes.set_title("States kept per layer")
    places = np.arange(len(picture.layers))
    kept = [layer[0] for layer in picture.layer_states]
    full = [layer[1] for layer in picture.layer_states]
    axes.barh(places, full, color=LIGHT, edgecolor=GREY, hatch="////", label="original")
    axes.barh(places, kept, color=BLUE, label="kept")
    for place, (few, many) in zip(places, picture.layer_states, strict=True):
        share = f"{few / many:.0%}" if many else "-"
        axes.annotate(
            share, (many, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8
        )
    _name_layers(axes, picture)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("real states")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=8)
    clean(axes, grid="x")


def _draw_budget(axes: Axes, picture: ReductionPicture) -> None:
    axes.set_title("Error budget of the layers")
    errors = np.asarray(picture.layer_errors, dtype=np.float64).ravel()
    places = np.arange(errors.size)
    shown = np.isfinite(errors) & (errors > 0)
    if shown.any():
        # Dots, not bars: a bar on a logarithmic axis has no honest length.
        low = errors[shown].min() / 3.0
        axes.hlines(places[shown], low, errors[shown], color=LIGHT, linewidth=2.0)
        axes.plot(errors[shown], places[shown], "o", color=BLUE, markersize=6)
        axes.set_xscale("log")
        axes.set_xlim(low, errors[shown].max() * 3.0)
    else:
        axes.set_xticks([])
    for place in places[~shown]:
        text = "0 (nothing removed)" if errors[place] == 0 else "no finite bound"
        axes.text(
            0.03,
            place,
            text,
            transform=axes.get_yaxis_transform(),
            va="center",
            fontsize=8,
            color=GREY,
        )
    axes.set_ylim(errors.size - 0.5, -0.5)
    _name_layers(axes, picture)
    axes.set_xlabel(picture.layer_label)
    clean(axes, grid="x")


def _name_layers(axes: Axes, picture: ReductionPicture) -> None:
    count = len(picture.layers)
    step = max(1, count // 16)  # a deep network: every k-th name, so that they stay readable
    axes.set_yticks(range(0, count, step), list(picture.layers)[::step])


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
