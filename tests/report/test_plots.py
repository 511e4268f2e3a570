"""Figures: what they show, hard data, saving, and that they need no torch."""

from __future__ import annotations

import base64
import dataclasses
import io
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from ssmred.certify import QuadraticBlock, quadratic_chain_bound
from ssmred.errors import ShapeError, UnsupportedOperationError
from ssmred.report import figures, plot_latency, plot_layers, plot_reduction, plot_weights
from ssmred.report.picture import ReductionPicture, channel_states, picture_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def picture() -> ReductionPicture:
    states = np.arange(64, -1, -2)
    return ReductionPicture(
        curve_states=states,
        curve_error=1e-8 + (1.0 - states / 64.0) ** 3,
        kept=20,
        full=64,
        layers=["layers.0", "layers.1"],
        layer_states=[(14, 32), (6, 32)],
        layer_errors=[1e-3, 2e-2],
        channel_states=[np.array([8, 2, 4, 0]), np.array([2, 2, 2, 0])],
        tol=0.1,
        title="a title",
    )


@pytest.fixture
def report() -> dict:
    def spread(value: float) -> dict:
        return {"lower": 0.9 * value, "median": value, "upper": 1.2 * value}

    def measurement(name: str, unit: str, original: float | None) -> dict:
        return {
            "name": name,
            "unit": unit,
            "original": original and spread(original),
            "imported": spread(2e-3),
            "reduced": spread(1e-3),
            "ratio": 0.25,
            "ratio_to_imported": 0.5,
        }

    return {
        "machine": "a machine",
        "measurements": [
            measurement("whole sequence, batch 1", "s", 4e-3),
            measurement("streaming step, network", "s", None),
            measurement("parameters and buffers", "B", 4000.0),
        ],
    }


def drawn(figure: Figure) -> str:
    """Return every text in a figure."""
    figure.canvas.draw()
    return "\n".join(t.get_text() for t in figure.findobj(mpl.text.Text) if t.get_text())


def test_reduction_shows_curve_cut_channels_and_budget(picture):
    figure = plot_reduction(picture)
    curve, channels, budget, bar = figure.axes
    np.testing.assert_array_equal(curve.lines[0].get_xdata(), picture.curve_states[::-1])
    assert curve.get_yscale() == "log"
    upright = [set(line.get_xdata()) for line in curve.lines if len(set(line.get_xdata())) == 1]
    assert upright[0] == {20}
    np.testing.assert_array_equal(
        channels.images[0].get_array(), [[8.0, 4.0, 2.0, 0.0], [2.0, 2.0, 2.0, 0.0]]
    )
    assert bar.get_ylabel() == "states kept (of 8)"
    np.testing.assert_array_equal(budget.lines[0].get_xdata(), [1e-3, 2e-2])
    text = drawn(figure)
    for part in ("a title", "chosen: 20 of 64 (31%)", "tol = 0.1", "layers.0", "layers.1"):
        assert part in text


def test_without_channels_the_layers_are_bars(picture):
    figure = plot_reduction(dataclasses.replace(picture, channel_states=None))
    bars = figure.axes[1]
    assert [patch.get_width() for patch in bars.patches] == [32, 32, 14, 6]
    assert "44%" in drawn(figure)
    assert "19%" in drawn(figure)


def test_channels_of_different_widths_are_padded(picture):
    ragged = [np.array([14]), np.array([2, 2, 2])]
    figure = plot_reduction(dataclasses.replace(picture, channel_states=ragged))
    shown = np.ma.filled(figure.axes[1].images[0].get_array(), np.nan)
    np.testing.assert_array_equal(shown, [[14.0, np.nan, np.nan], [2.0, 2.0, 2.0]])


@pytest.mark.parametrize("error", [0.0, np.inf, np.nan])
def test_errors_without_a_logarithm_are_said_not_drawn(picture, error):
    figure = plot_reduction(
        dataclasses.replace(
            picture, curve_error=np.full(33, error), layer_errors=[error, error], kept=64
        )
    )
    text = drawn(figure)
    assert "no positive error" in text
    assert ("nothing removed" if error == 0.0 else "no finite bound") in text


def test_an_empty_network_of_states_still_draws(picture):
    empty = dataclasses.replace(
        picture,
        curve_states=[0],
        curve_error=[0.0],
        kept=0,
        full=0,
        layers=["only"],
        layer_states=[(0, 0)],
        layer_errors=[0.0],
        channel_states=None,
    )
    assert "chosen: 0 of 0" in drawn(plot_reduction(empty))


@pytest.mark.parametrize("field", ["curve_error", "layer_states", "layer_errors", "channel_states"])
def test_lengths_that_do_not_fit_are_refused(picture, field):
    wrong = dataclasses.replace(picture, **{field: [(1, 2)] * 5})
    with pytest.raises(ShapeError, match=rf"{field} has the wrong length"):
        plot_reduction(wrong)


def result(guarantee: str, orders: list[np.ndarray]) -> SimpleNamespace:
    layers = [
        SimpleNamespace(
            name=f"layers.{i}",
            states_kept=kept,
            states_full=8,
            relative_error=0.1 * (i + 1),
            contribution=0.01 * (i + 1),
        )
        for i, kept in enumerate((6, 2))
    ]
    # As in a model: a root without orders, and modules registered in another order than they run.
    modules = {f"layers.{i}.core": SimpleNamespace(orders=row) for i, row in enumerate(orders)}
    named = [("", SimpleNamespace()), *reversed(modules.items())]
    return SimpleNamespace(
        model=SimpleNamespace(named_modules=lambda: named),
        states=(8, 16),
        path=SimpleNamespace(states=np.array([16, 8, 0]), error=np.array([0.0, 0.1, 1.0])),
        certificate=SimpleNamespace(guarantee=guarantee, layers=layers, bound=np.inf, vacuous=True),
    )


def test_a_result_gives_states_of_its_channels_and_the_budget_of_its_guarantee():
    orders = [np.array([2, 1]), np.array([0, 1])]
    shown = picture_of(result("worst-case", orders))
    np.testing.assert_array_equal(shown.channel_states, [[4, 2], [0, 2]])
    assert shown.layer_errors == [0.01, 0.02]
    assert "vacuous" in shown.title
    shown = picture_of(result("statistical", orders))
    assert shown.layer_errors == [0.1, 0.2]
    drawn(plot_reduction(result("layer", orders)))


def test_layers_alone_are_the_last_two_panels(picture, tmp_path):
    figure = plot_layers(picture, tmp_path / "layers.svg")
    channels, budget, _ = figure.axes
    assert channels.images[0].get_array().shape == (2, 4)
    np.testing.assert_array_equal(budget.lines[0].get_xdata(), [1e-3, 2e-2])
    assert (tmp_path / "layers.svg").stat().st_size > 1000
    with pytest.raises(ShapeError, match="plot_layers: layer_errors has the wrong length"):
        plot_layers(dataclasses.replace(picture, layer_errors=[1.0]))


@pytest.mark.parametrize(
    "name", ["$\\frac{", "a$b$", "Schicht \N{SNOWMAN} \U0001f600\x00\n", 90 * "x"]
)
def test_names_are_drawn_as_they_are_and_not_as_mathematics(picture, name):
    figure = plot_layers(dataclasses.replace(picture, layers=[name, "other"]))
    text = drawn(figure)
    figure.savefig(io.BytesIO(), format="svg")
    assert figures.drawable(name) in text
    assert len(figures.drawable(name)) <= 28
    assert ("$" in figures.drawable(name)) == ("$" in name)


def test_filters_of_both_directions_and_states_of_dense_layers_are_told_apart():
    modules = {
        "a.core": SimpleNamespace(orders=np.array([1, 2])),
        "a.backward": SimpleNamespace(orders=np.array([3, 0])),
        "core": SimpleNamespace(orders=np.array([5])),
        "backward": SimpleNamespace(orders=np.array([2])),
    }
    model = SimpleNamespace(named_modules=lambda: modules.items())
    layers = [
        SimpleNamespace(name="a", states_kept=6),
        SimpleNamespace(name="a.backward", states_kept=6),
        SimpleNamespace(name="model", states_kept=5),  # states, not pairs: a dense layer
        SimpleNamespace(name="model.backward", states_kept=4),
    ]
    rows = channel_states(model, layers)
    assert [row.tolist() for row in rows] == [[2, 4], [6, 0], [5], [4]]
    assert channel_states(model, [SimpleNamespace(name="b", states_kept=6)]) is None


def test_an_embedded_figure_is_the_same_every_time(picture):
    one, two = (figures.embedded(plot_layers(picture)) for _ in range(2))
    assert one == two
    assert b"<svg" in base64.b64decode(one.removeprefix("data:image/svg+xml;base64,"))


def test_channels_that_do_not_add_up_to_the_layers_are_left_out():
    assert picture_of(result("layer", [np.array([0, 1]), np.array([2, 1])])).channel_states is None


def test_a_single_layer_that_is_the_whole_network_is_found():
    alone = result("layer", [np.array([2, 1])])
    alone.model = SimpleNamespace(
        named_modules=lambda: [("core", SimpleNamespace(orders=np.array([2, 1])))]
    )
    alone.certificate.layers = alone.certificate.layers[:1]
    alone.certificate.layers[0].name = "model"
    np.testing.assert_array_equal(picture_of(alone).channel_states, [[4, 2]])


def test_latency_shows_medians_ratios_and_the_machine(report):
    figure = plot_latency(report)
    times, memory = figure.axes
    assert [float(c.lines[0].get_xdata()[0]) for c in times.containers] == [4.0, 2.0, 1.0]
    assert len(times.containers[0].lines[0].get_xdata()) == 1  # the original has no step
    assert memory.get_xlabel() == "MiB"
    text = drawn(figure)
    assert "0.25x" in text
    assert "a machine" in text


def test_latency_takes_the_report_itself(report):
    assert plot_latency(SimpleNamespace(to_dict=lambda: report)).axes


def test_an_empty_report_is_refused():
    with pytest.raises(ShapeError, match="no measurements"):
        plot_latency({"machine": "", "measurements": []})


@pytest.mark.parametrize("name", ["a.png", "b.svg", "c.pdf", "bare"])
def test_figures_are_saved_where_asked(picture, tmp_path, name):
    plot_reduction(picture, tmp_path / "new" / name)
    (written,) = (tmp_path / "new").iterdir()
    assert written.name == (name if "." in name else name + ".png")
    assert written.stat().st_size > 1000


def test_an_interrupted_write_leaves_the_old_file(picture, tmp_path, monkeypatch):
    old = tmp_path / "figure.png"
    old.write_bytes(b"old")

    def torn(_figure: Figure, stream, **_options) -> None:
        stream.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Figure, "savefig", torn)
    with pytest.raises(KeyboardInterrupt):
        plot_reduction(picture, old)
    assert old.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [old]


def test_an_unknown_format_is_refused(picture, tmp_path):
    with pytest.raises(UnsupportedOperationError, match="png"):
        plot_reduction(picture, tmp_path / "figure.docx")


def test_the_callers_settings_neither_matter_nor_change(picture):
    with mpl.rc_context({"font.size": 31.0, "axes.grid": True}):
        figure = plot_reduction(picture)
        assert mpl.rcParams["font.size"] == 31.0
    assert figure.axes[0].xaxis.label.get_size() < 12.0


def test_the_colours_differ_in_grey():
    # Rec. 709 luminance of a grey print, and how far apart two of the three variants must be.
    levels = sorted(
        float(np.dot(to_rgb(c), (0.2126, 0.7152, 0.0722)))
        for c in (figures.BLUE, figures.ORANGE, figures.LIGHT)
    )
    assert min(np.diff(levels)) > 0.15


def test_figures_need_no_torch():
    code = "import sys, ssmred.report; print('torch' in sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == "False"


def test_weights_of_layers(tmp_path):
    blocks = [QuadraticBlock(f"layers.{k}", 1.0, 1.0, 1.0, 1.0, 0.5) for k in range(3)]
    bound = quadratic_chain_bound(blocks, [0.1, 0.0, 0.2], [0.5] * 3, 16)
    figure = plot_weights(bound, tmp_path / "weights.png")
    weights, parts = figure.axes
    assert [bar.get_height() for bar in weights.patches] == list(bound.weights)
    heights = [bar.get_height() for bar in parts.patches]
    assert heights == [c for c in bound.contributions if c]  # 0 has no logarithm
    assert weights.get_yscale() == "log"
    assert (tmp_path / "weights.png").stat().st_size > 1000
    none = quadratic_chain_bound(blocks, [0.0] * 3, [0.5] * 3, 16)
    assert len(plot_weights(none, names=["a", "b", "c"]).axes) == 1
    with pytest.raises(ShapeError, match="expected 3, got 2"):
        plot_weights(none, names=["a", "b"])
