import numpy as np
import pytest
import torch
from foreign_layers import ExampleNetwork, TokenNetwork, settle

from ssmred.certify.inputs import InputSet
from ssmred.certify.verifier import model_reader
from ssmred.errors import DataError
from ssmred.networks import TorchReader, import_network, weights_sha256


def test_reader_says_what_the_networks_say():
    model = settle(ExampleNetwork()).train()
    reader = TorchReader()
    assert reader.accepts(model)
    assert not reader.accepts(np.zeros(3))
    imported = import_network(model)
    reduced = imported.with_systems({"blocks.0": (imported.systems["blocks.0"], [2] * 8)})
    assert list(reader.systems(model)) == list(reader.systems(reduced)) == ["blocks.0", "blocks.1"]
    assert reader.systems(reduced)["blocks.0"].poles.shape == (8, 2)
    assert reader.weights_sha256(model) == weights_sha256(model)
    graph = reader.graph(reduced, 20, InputSet.box(-1.0, 1.0))
    assert [node.name for node in graph.ssm_nodes] == ["blocks.0", "blocks.1"]
    assert graph.input.params["shape"] == (1, 3)
    assert model.training


def test_outputs_are_those_of_eval_mode_in_float64():
    model = settle(ExampleNetwork())
    data = np.random.default_rng(0).standard_normal((300, 11, 3))
    with torch.no_grad():
        wanted = model(torch.from_numpy(data).float()).double().numpy()
    got = TorchReader().outputs(model.train(), data)
    assert got.dtype == np.float64
    assert np.abs(got - wanted).max() <= 1e-6  # batches of another size round otherwise
    assert model.training
    tokens = np.random.default_rng(0).integers(0, 11, (5, 7))
    assert TorchReader().outputs(settle(TokenNetwork()), tokens).shape == (5, 4)


def test_outputs_refuse_data_that_do_not_fit():
    with pytest.raises(DataError, match="does not run"):
        TorchReader().outputs(settle(ExampleNetwork()), np.zeros((2, 5, 4)))
    with pytest.raises(DataError):
        TorchReader().outputs(settle(TokenNetwork()), np.zeros((2, 5, 4)))


def test_the_verifier_knows_the_reader():
    assert isinstance(model_reader(), TorchReader)
