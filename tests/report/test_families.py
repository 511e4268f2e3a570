"""The picture of a family: what it shows, and that an unopened test part stays out of it."""

from __future__ import annotations

from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from ssmred.errors import RequestError, ShapeError
from ssmred.report import plot_family


def member(rate: float, ratio: float, before: float, after: float, test: bool) -> SimpleNamespace:
    return SimpleNamespace(
        rate=rate,
        removed=round(100 * rate),
        weights=f"rate-{rate:g}",
        relative=SimpleNamespace(lower=0.9 * ratio, median=ratio, upper=1.2 * ratio),
        scores={
            "val_before": before,
            "val_after": after,
            "test_before": before - 1.0 if test else None,
            "test_after": after - 1.0 if test else None,
        },
    )


def family(*, test: bool = True) -> SimpleNamespace:
    parent = member(0.0, 1.0, 90.0, 90.0, test)
    members = (
        member(0.3, 0.8, 88.0, 91.0, test),
        member(0.5, 0.6, 70.0, 80.0, test),
        member(0.7, 0.4, 50.0, 85.0, test),
    )
    return SimpleNamespace(
        parent=parent,
        members=members,
        metric="macro-f1",
        task="ecg5000",
        pareto=lambda x, y: (members[2], members[0]),
    )


def drawn(figure: Figure) -> str:
    figure.canvas.draw()
    return "\n".join(t.get_text() for t in figure.findobj(mpl.text.Text) if t.get_text())


def test_both_scores_of_every_rate_and_the_parent_are_drawn():
    left, _ = plot_family(family()).axes
    line, after, before = left.lines
    assert set(line.get_ydata()) == {89.0}
    np.testing.assert_array_equal(after.get_xdata(), [30.0, 50.0, 70.0])
    np.testing.assert_array_equal(after.get_ydata(), [90.0, 79.0, 84.0])
    np.testing.assert_array_equal(before.get_ydata(), [87.0, 69.0, 49.0])


def test_the_front_and_the_quartiles_are_drawn():
    figure = plot_family(family(), part="val")
    _, right = figure.axes
    front = right.lines[0]
    assert front.get_drawstyle() == "steps-post"
    np.testing.assert_array_equal(front.get_xdata(), [0.4, 0.8])
    np.testing.assert_array_equal(front.get_ydata(), [85.0, 91.0])
    on_it, beaten = right.containers
    np.testing.assert_allclose(on_it.lines[0].get_xdata(orig=False), [0.8, 0.4])
    np.testing.assert_allclose(beaten.lines[0].get_ydata(orig=False), [90.0, 80.0])
    bars = on_it.lines[2][0].get_segments()
    np.testing.assert_allclose(bars[1][:, 0], [0.9 * 0.4, 1.2 * 0.4])
    text = drawn(figure)
    for part in ("parent", "30 %", "70 %", "ecg5000", "macro-f1, validation part (%)"):
        assert part in text


def test_an_unopened_test_part_is_left_out():
    assert "validation part" in drawn(plot_family(family(test=False)))
    assert "test part" in drawn(plot_family(family()))
    with pytest.raises(RequestError, match="not opened"):
        plot_family(family(test=False), part="test")
    with pytest.raises(ShapeError, match="part is not known"):
        plot_family(family(), part="train")


def test_the_picture_is_saved(tmp_path):
    plot_family(family(), tmp_path / "family.png")
    assert (tmp_path / "family.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(tmp_path.iterdir())) == 1
