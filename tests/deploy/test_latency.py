"""Latency reports: what is measured, on what, and that the caller's models stay as they are."""

from __future__ import annotations

import json

import numba
import numpy as np
import pytest
import torch
from torch import nn

from ssmred.deploy import LatencyReport, Measurement, Spread, latency
from ssmred.deploy.memory import parameter_bytes
from ssmred.errors import DataError, OrderError, ShapeError, UnsupportedOperationError
from ssmred.networks import import_network
from ssmred.networks.deep import DeepSSM

STEPS = 24


@pytest.fixture(scope="module")
def original() -> DeepSSM:
    torch.manual_seed(0)
    return DeepSSM(1, 3, channels=4, states=8, layers=2).eval()


@pytest.fixture(scope="module")
def inputs() -> np.ndarray:
    return np.random.default_rng(0).uniform(-1.0, 1.0, (3, STEPS, 1))


@pytest.fixture(scope="module")
def report(original, inputs) -> LatencyReport:
    # The full-order import stands for a reduced network: same interface, and comparable in size.
    return latency(original, import_network(original).model, inputs, repeats=3, batches=(1, 4))


def spread(value: float) -> Spread:
    return Spread(value, value, value)


def test_quartiles_by_hand():
    assert Spread.of([4.0, 1.0, 3.0, 2.0]) == Spread(1.75, 2.5, 3.25)
    assert Spread.of([7.0]) == Spread(7.0, 7.0, 7.0)


def test_ratios_by_hand():
    whole = Measurement("whole", "s", spread(8.0), spread(4.0), spread(2.0))
    step = Measurement("step", "s", None, spread(4.0), spread(1.0))
    assert (whole.ratio, whole.ratio_to_imported) == (0.25, 0.5)
    assert (step.ratio, step.ratio_to_imported) == (0.25, 0.25)


def test_the_page_by_hand():
    measurements = (
        Measurement("whole", "s", Spread(7e-3, 8e-3, 9e-3), spread(4e-3), spread(2e-3)),
        Measurement("step", "s", None, spread(4e-5), spread(1e-5)),
        Measurement("bytes", "B", spread(2048.0), spread(1024.0), spread(100.0)),
    )
    page = str(LatencyReport(measurements, 196, (1,), 15, 2, "a machine")).splitlines()
    assert page[0].split() == [
        *("original", "full", "order", "reduced", "reduced/original", "reduced/full")
    ]
    assert page[2].split() == ["whole", "8", "ms", "4", "ms", "2", "ms", "0.25", "0.50"]
    assert page[3].split()[:4] == ["[7", "ms,", "9", "ms]"]
    assert page[4].split() == ["step", "-", "40", "us", "10", "us", "-", "0.25"]
    assert page[5].split() == ["bytes", "2", "KiB", "1", "KiB", "100", "B", "0.05", "0.10"]
    assert page[-1] == "a machine"
    assert "196 steps; threads: 2" in page[-3]


def test_everything_that_was_promised_is_measured(report):
    assert [m.name for m in report.measurements] == [
        "whole sequence, batch 1",
        "whole sequence, batch 4",
        "streaming step, network, batch 1",
        "streaming step, network, batch 4",
        "streaming step, systems only, batch 1",
        "streaming step, systems only, batch 4",
        "parameters and buffers",
        "peak memory, batch 4, first pass",
        "peak memory, batch 4, later passes",
    ]
    assert (report.horizon, report.batches, report.repeats) == (STEPS, (1, 4), 3)
    for m in report.measurements:
        for variant in (m.original, m.imported, m.reduced):
            if variant is not None:
                assert 0.0 < variant.lower <= variant.median <= variant.upper < np.inf
    without_original = [m.name for m in report.measurements if m.original is None]
    assert all(name.startswith("streaming step") for name in without_original)
    assert len(without_original) == 4
    assert "processors" in report.machine
    assert "torch" in report.machine


def test_bytes_are_those_of_the_models(report, original):
    measured = report["parameters and buffers"]
    assert measured.original.median == parameter_bytes(original)
    assert measured.reduced.median == parameter_bytes(import_network(original).model)


def test_a_later_pass_finds_the_kernel_and_takes_less(report):
    first = report["peak memory, batch 4, first pass"].reduced.median
    assert report["peak memory, batch 4, later passes"].reduced.median < first


def test_a_report_is_plain_data_and_finds_by_name(report):
    stored = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert stored["measurements"][0]["ratio"] == report["whole sequence, batch 1"].ratio
    assert stored["threads"] == report.threads
    with pytest.raises(KeyError, match="no measurement 'x'"):
        report["x"]


def test_threads_are_set_recorded_and_restored(original, inputs):
    before = torch.get_num_threads(), numba.get_num_threads()
    measured = latency(original, original, inputs, repeats=1, batches=(1,), threads=1)
    assert measured.threads == 1
    assert (torch.get_num_threads(), numba.get_num_threads()) == before


def test_the_callers_models_stay_as_they_are(original, inputs):
    model = import_network(original).model
    model.train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    latency(original, model, inputs, repeats=1, batches=(2,))
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_tokens_are_inputs_too():
    torch.manual_seed(0)

    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(5, 3)
            self.body = DeepSSM(3, 2, channels=4, states=4, layers=1)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.body(self.embedding(tokens))

    model = Tagger().eval()
    tokens = np.random.default_rng(0).integers(0, 5, (2, STEPS))
    assert latency(model, import_network(model).model, tokens, repeats=1, batches=(1,)).horizon


def test_a_network_that_cannot_stream_has_its_other_figures(original, inputs):
    class Deciding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = original

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.body(x) if bool(x.mean() < 9.0) else self.body(-x)

    model = Deciding().eval()
    measured = latency(model, import_network(model).model, inputs, repeats=1, batches=(1,))
    assert not any("step, network" in m.name for m in measured.measurements)
    assert measured["streaming step, systems only, batch 1"].reduced.median > 0.0
    assert "does not stream" in measured.notes[0]
    assert measured.notes[0] in str(measured)


@pytest.mark.parametrize(
    ("wrong", "error", "text"),
    [
        (np.zeros((2, STEPS)), ShapeError, "not a batch of sequences"),
        (np.zeros((0, STEPS, 1)), DataError, "empty"),
        (np.full((1, STEPS, 1), np.nan), DataError, "nan or inf"),
    ],
)
def test_wrong_inputs_are_refused(original, wrong, error, text):
    with pytest.raises(error, match=text):
        latency(original, original, wrong)


def test_wrong_models_and_numbers_are_refused(original, inputs):
    with pytest.raises(UnsupportedOperationError, match="reduced is not a network"):
        latency(original, "model", inputs)
    other = DeepSSM(1, 5, channels=4, states=8, layers=2).eval()
    with pytest.raises(ShapeError, match="outputs of the models differ"):
        latency(original, other, inputs)
    for wrong in ({"repeats": 0}, {"batches": (0,)}, {"threads": 0}, {"threads": 1.5}):
        with pytest.raises(OrderError):
            latency(original, original, inputs, **wrong)
    with pytest.raises(DataError, match="batches is empty"):
        latency(original, original, inputs, batches=())
