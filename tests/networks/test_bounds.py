"""Bounds evaluated on traced networks hold for the networks themselves: zero slack."""

import numpy as np
import pytest
import torch
from foreign_layers import ExampleNetwork, PooledNetwork, Positional, TokenNetwork, settle
from test_tracing import PLAIN, Wiring

from ssmred.certify.chain import network_bound
from ssmred.certify.inputs import InputSet
from ssmred.networks import import_network, trace

T = 16
NETWORKS = {
    "post-norm": lambda: ExampleNetwork(),
    "pre-norm": lambda: ExampleNetwork(prenorm=True, gated=False),
    "tokens": TokenNetwork,
    "pooled": PooledNetwork,
    "positional": lambda: Positional(T),
} | {name: (lambda name=name: Wiring(*PLAIN[name])) for name in PLAIN}


@pytest.mark.parametrize("name", NETWORKS)
def test_no_input_exceeds_the_bound(name):
    model = settle(NETWORKS[name](), torch.float64)
    imported = import_network(model)
    reduced = imported.with_systems(
        {
            layer: (system, np.arange(len(system.poles)) % (system.poles.shape[1] + 1))
            for layer, system in imported.systems.items()
        }
    )
    full, small = trace(imported.model, horizon=T), trace(reduced, horizon=T)
    tokens = full.input.param("tokens", False)
    inputs = InputSet.tokens() if tokens else InputSet.box(-1.0, 1.0)
    bound = network_bound(full, small, inputs, T).bound
    features = 11 if tokens else full.input.params["shape"][-1]
    x = torch.from_numpy(inputs.sample(np.random.default_rng(0), 64, T, features))
    x = x.squeeze(-1) if full.input.axes == ("time",) and not tokens else x
    with torch.no_grad():
        error = (imported.model(x) - reduced(x)).reshape(len(x), -1).norm(dim=1)
    assert 0.0 < float(error.max()) <= bound
