"""Panels that show a reduction layer by layer: states kept, and the error budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ssmred.report.figures import BLUE, GREY, LIGHT, clean, drawable
from ssmred.report.picture import ReductionPicture

__all__ = ["draw_budget", "draw_states"]


def draw_states(figure: Figure, axes: Axes, picture: ReductionPicture) -> None:
    """Draw the states kept per channel, or per layer where channels are not told apart."""
    if picture.channel_states is None:
        _draw_layer_states(axes, picture)
    else:
        _draw_channels(figure, axes, picture, picture.channel_states)


def draw_budget(axes: Axes, picture: ReductionPicture) -> None:
    """Draw what every layer adds to the bound, or its own error."""
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


def _name_layers(axes: Axes, picture: ReductionPicture) -> None:
    count = len(picture.layers)
    step = max(1, count // 16)  # a deep network: every k-th name, so that they stay readable
    axes.set_yticks(range(0, count, step), [drawable(name) for name in picture.layers[::step]])
    for label in axes.get_yticklabels():
        label.set_parse_math(False)  # a dollar in a name is a dollar
