"""Figure of an inspection: how Hankel singular values fall, layer by layer."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssmred.errors import DataError, ShapeError, message
from ssmred.report.figures import BLUE, GREY, ORANGE, clean, drawable, save_figure, style

__all__ = ["plot_hankel_decay"]

COLUMNS = 4

SMALLEST = 1e-16
"""Relative values below this are rounding of float64 and are not drawn."""


def plot_hankel_decay(
    curves: Sequence[tuple[str, np.ndarray]],
    path: str | os.PathLike[str] | None = None,
    *,
    kept: Sequence[np.ndarray] | None = None,
    columns: int = COLUMNS,
) -> Figure:
    """Draw ``sigma_k / sigma_1`` against k, one panel per filter.

    The line is the median over channels, the band reaches from the 10th to the 90th percentile.

    Parameters
    ----------
    curves : sequence of (str, (H, n) float64)
        Title and Hankel singular values of every channel, falling.
    path : path, optional
        Where to save the figure too (png, pdf, svg by the suffix); the write is atomic.
    kept : sequence of (H,) int, optional
        States that a reduction kept of every channel: the cut is drawn at their median, and a
        bright band from their 10th to their 90th percentile.
    columns : int
        Panels in a row.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    DataError
        If there is nothing to draw.
    ShapeError
        If values are no table, or there are not as many cuts as curves.
    """
    if not curves:
        raise DataError(message("plot_hankel_decay", "there are no Hankel singular values to draw"))
    for name, values in curves:
        if np.ndim(values) != 2:
            raise ShapeError(
                message(
                    "plot_hankel_decay",
                    f"the values of {name} are no table",
                    expected="(H, n)",
                    got=f"{np.shape(values)}",
                )
            )
    cuts = [None] * len(curves) if kept is None else list(kept)
    if len(cuts) != len(curves):
        raise ShapeError(
            message(
                "plot_hankel_decay",
                "kept has the wrong length",
                expected=f"{len(curves)}",
                got=f"{len(cuts)}",
            )
        )
    columns = min(columns, len(curves))
    rows = -(-len(curves) // columns)
    with style():
        width = 3.0 if columns > 2 else 4.5
        figure = Figure(figsize=(width * columns + 0.6, 2.3 * rows + 0.5), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False, sharey=True)
        bottom = min(float(_bands(values)[0].min(initial=1.0)) for _, values in curves)
        for index, panel in enumerate(panels.flat):
            if index < len(curves):
                _draw(panel, *curves[index], cuts[index])
                panel.set_ylim(max(0.5 * bottom, SMALLEST), 2.0)
            else:
                panel.set_visible(False)
        for panel in panels[:, 0]:
            panel.set_ylabel(r"$\sigma_k / \sigma_1$")
        for panel in panels.flat[max(len(curves) - columns, 0) : len(curves)]:
            panel.set_xlabel("k")
        if path is not None:
            save_figure(figure, path)
    return figure


def _draw(panel: Axes, name: str, values: np.ndarray, kept: np.ndarray | None) -> None:
    panel.set_title(drawable(name), fontsize=8.5, parse_math=False)
    panel.set_yscale("log")
    clean(panel, grid="both")
    low, middle, high = _bands(values)
    if not low.size:
        panel.text(0.5, 0.5, "no response", transform=panel.transAxes, ha="center", color=GREY)
        return
    orders = np.arange(1, values.shape[1] + 1)
    panel.fill_between(orders, low, high, color=BLUE, alpha=0.25, linewidth=0)
    panel.plot(orders, middle, color=BLUE, marker="." if len(orders) < 40 else None)
    if kept is not None and np.size(kept):
        few, cut, many = np.quantile(kept, (0.1, 0.5, 0.9))
        panel.axvspan(few + 0.5, many + 0.5, color=ORANGE, alpha=0.2, linewidth=0)
        panel.axvline(cut + 0.5, color=ORANGE, linestyle=(0, (4, 2)), linewidth=1.6)
        text = f"{cut:.0f} kept" if np.ptp(kept) == 0 else f"median {cut:.0f} kept"
        panel.set_title(text, fontsize=7.5, loc="right", fontweight="normal")


def _bands(values: np.ndarray) -> np.ndarray:
    """Return the 10th, 50th and 90th percentile over channels that respond, (3, n) or (3, 0)."""
    alive = values[values[:, 0] > 0]
    if not len(alive):
        return np.zeros((3, 0))
    shares = np.maximum(alive / alive[:, :1], SMALLEST / 10.0)
    return np.quantile(shares, (0.1, 0.5, 0.9), axis=0)
