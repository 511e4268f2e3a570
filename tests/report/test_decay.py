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


def test_refusals():
    with pytest.raises(DataError, match="no Hankel singular values"):
        plot_hankel_decay([])
    with pytest.raises(ShapeError, match="the values of one"):
        plot_hankel_decay([("one", np.ones(3))])
