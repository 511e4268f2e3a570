"""The figure of an inspection."""

from __future__ import annotations

import numpy as np
import pytest

from ssmred.errors import DataError, ShapeError
from ssmred.report import plot_hankel_decay


def values(channels=3, n=6):
    return 0.1 ** np.arange(n) * np.arange(1, channels + 1)[:, None]


def test_median_and_panels():
    figure = plot_hankel_decay([(f"layers.{i}", values(n=i + 2)) for i in range(6)])
    shown = [panel for panel in figure.axes if panel.get_visible()]
    assert [panel.get_title(loc="left") for panel in shown] == [f"layers.{i}" for i in range(6)]
    line = shown[3].lines[0]
    assert np.allclose(line.get_ydata(), 0.1 ** np.arange(5))
    assert line.get_xdata().tolist() == [1, 2, 3, 4, 5]


def test_channels_without_response_are_left_out():
    silent = np.vstack([values(2), np.zeros((2, 6))])
    line = plot_hankel_decay([("one", silent)]).axes[0].lines[0]
    assert np.allclose(line.get_ydata(), 0.1 ** np.arange(6))
    panel = plot_hankel_decay([("none", np.zeros((2, 6)))]).axes[0]
    assert [text.get_text() for text in panel.texts] == ["no response"]


def test_values_below_rounding_do_not_stretch_the_axis(tmp_path):
    steep = 1e-40 ** np.arange(3) * np.ones((2, 1))
    figure = plot_hankel_decay([("steep", steep)], tmp_path / "steep.svg")
    assert figure.axes[0].get_ylim()[0] >= 1e-16
    assert (tmp_path / "steep.svg").stat().st_size > 0


def test_the_cut_is_marked():
    kept = [np.array([2, 2, 2]), np.array([0, 1, 5])]
    figure = plot_hankel_decay([("same", values()), ("some", values())], kept=kept)
    same, some = figure.axes
    assert (same.get_title(loc="right"), some.get_title(loc="right")) == ("2 kept", "median 1 kept")
    assert [panel.lines[-1].get_xdata()[0] for panel in (same, some)] == [2.5, 1.5]
    bands = [panel.patches[0].get_bbox() for panel in (same, some)]
    assert bands[0].width == 0
    assert np.allclose([bands[1].x0, bands[1].x1], np.quantile(kept[1], [0.1, 0.9]) + 0.5)
    unknown = plot_hankel_decay([("one", values())], kept=[np.zeros(0)], columns=3)
    assert len(unknown.axes[0].lines) == 1


def test_refusals():
    with pytest.raises(DataError, match="no Hankel singular values"):
        plot_hankel_decay([])
    with pytest.raises(ShapeError, match="the values of one"):
        plot_hankel_decay([("one", np.ones(3))])
    with pytest.raises(ShapeError, match="kept has the wrong length"):
        plot_hankel_decay([("one", values())], kept=[])
