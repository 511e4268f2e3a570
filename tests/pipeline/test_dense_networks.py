"""`ssmred.reduce` on networks whose layers are dense: S4 with its low-rank part."""

import pytest
import scipy.stats
import torch

import ssmred
from ssmred.networks import export_plain
from ssmred.networks.deep import DeepSSM
from tests.pipeline.small_networks import HORIZON, sequences

UNLIKELY = 1e-6
"""Probability that a certificate that holds fails the test on fresh inputs."""


@pytest.fixture(scope="module")
def network() -> DeepSSM:
    torch.manual_seed(5)
    options = {"length": HORIZON}
    net = DeepSSM(2, 3, layer="s4", channels=4, states=16, layers=2, layer_options=options)
    return net.double().eval()


def outputs_of(model, x):
    with torch.no_grad():
        return model(x)


@pytest.mark.parametrize("method", ["subset", "balanced"])
def test_the_worst_case_bound_holds_on_every_input_tried(network, method):
    result = ssmred.reduce(network, states=0.5, horizon=HORIZON, method=method, progress=False)
    kept, full = result.states
    assert full == 2 * 4 * 16
    assert kept <= full // 2
    x = torch.cat([sequences(50, seed=1), sequences(50, seed=2).sign()]).double()
    error = (outputs_of(network, x) - outputs_of(result.model, x)).norm(dim=-1).max()
    assert 0.0 < float(error) <= result.certificate.bound * result.certificate.scale


def test_a_tolerance_is_kept_on_data(network):
    data = sequences(240).double()
    result = ssmred.reduce(network, 0.05, data=data, progress=False)
    assert result.states[0] < result.states[1] / 2
    fresh = sequences(200, seed=9).double()
    errors = (outputs_of(network, fresh) - outputs_of(result.model, fresh)).norm(dim=-1)
    outside = int((errors > result.certificate.bound * result.certificate.scale).sum())
    assert outside <= scipy.stats.binom.isf(UNLIKELY, len(fresh), 1 - 0.95)


def test_layer_errors_are_those_against_the_dense_system(network):
    result = ssmred.reduce(network, 1e-2, horizon=HORIZON, guarantee="layer", progress=False)
    assert 0.0 < result.certificate.bound <= 1e-2
    kernels = {
        name: (
            full.impulse_response(HORIZON)[..., 0, 0],
            result.model.get_submodule(f"{name}.core").to_system().impulse_response(HORIZON),
        )
        for name, full in ssmred.export(network).layers
    }
    for record in result.certificate.layers:
        full, kept = kernels[record.name]
        error = ((full - kept[..., 0, 0]) ** 2).sum() ** 0.5 / (full**2).sum() ** 0.5
        assert error == pytest.approx(record.relative_error, rel=1e-6)


def test_reduced_layers_go_back_into_the_class_of_the_original(network):
    result = ssmred.reduce(network, states=0.5, horizon=HORIZON, progress=False)
    plain = export_plain(network, result.model)
    x = sequences(4, seed=3).double()
    difference = outputs_of(plain, x) - outputs_of(result.model, x)
    assert float(difference.norm() / outputs_of(result.model, x).norm()) < 1e-9


def test_a_stored_result_is_recomputed_without_the_class(network, tmp_path):
    result = ssmred.reduce(network, 1e-2, horizon=HORIZON, guarantee="layer", progress=False)
    again = ssmred.load(result.save(tmp_path / "reduced"))
    assert ssmred.verify(again.certificate, again.original, again.model).passed
    names = [name for name, _ in ssmred.export(again.original).layers]
    assert names == [record.name for record in result.certificate.layers]
