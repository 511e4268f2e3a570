"""What is observed at a layer, against the network itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from ssmred.errors import DataError
from ssmred.networks import ReducedSSM, import_network
from ssmred.networks.deep import DeepSSM
from ssmred.networks.sensing import inputs_of, lengths_seen, outputs, sensitivities

STEP = 1e-5
SECOND_ORDER = 1e-7
"""A central difference of this step misses third derivatives times its square."""


def network() -> tuple[nn.Module, dict[str, nn.Module], torch.Tensor]:
    torch.manual_seed(0)
    imported = import_network(DeepSSM(2, 3, channels=4, states=6, layers=2).double().eval())
    cores = {layer.name: imported.core(layer.name) for layer in imported.layers}
    return imported.model, cores, torch.randn(5, 20, 2, dtype=torch.float64)


@pytest.mark.theorem("output-metric")
@pytest.mark.parametrize("frozen", [False, True])
def test_sensitivities_are_derivatives_of_the_projected_output(frozen: bool) -> None:
    model, cores, data = network()
    for parameter in model.parameters():
        parameter.requires_grad_(not frozen)
    (batch,) = sensitivities(model, cores, data, seed=3)
    with torch.no_grad():
        shape = model(data).shape
    signs = torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(3)) * 2 - 1
    for name, core in cores.items():
        direction = torch.randn_like(batch[name].sensitivities)
        answers = []
        for side in (STEP, -STEP):
            handle = core.register_forward_hook(lambda _m, _a, y, s=side, d=direction: y + s * d)
            with torch.no_grad():
                answers.append((signs * model(data)).sum(dim=1))
            handle.remove()
        difference = (answers[0] - answers[1]) / (2 * STEP)
        product = (batch[name].sensitivities * direction).sum(dim=(1, 2))
        assert torch.allclose(product, difference, atol=SECOND_ORDER)


def test_inputs_are_those_of_the_whole_run() -> None:
    model, cores, data = network()
    (batch,) = sensitivities(model, cores, data, seed=0)
    for name, core in cores.items():
        (seen,) = inputs_of(model, name, core, data)
        assert torch.allclose(seen, batch[name].inputs, rtol=1e-12)  # kernel cached or not


def test_hooks_are_gone_afterwards() -> None:
    model, cores, data = network()
    list(sensitivities(model, cores, data, seed=0))
    with pytest.raises(RuntimeError, match="shape"):
        list(inputs_of(model, "layers.0", cores["layers.0"], data[..., :1]))
    assert not any(core._forward_hooks for core in cores.values())


def test_lengths_and_outputs() -> None:
    model, cores, data = network()
    assert lengths_seen(model, cores, data) == [20, 20]
    with torch.no_grad():
        assert np.array_equal(outputs(model, data), model(data).numpy())


def test_layer_that_runs_twice_is_refused() -> None:
    layer = ReducedSSM([1], poles=[0.5], residues=[1.0])
    model = nn.Sequential(layer, nn.GELU(), layer)
    with pytest.raises(DataError, match="runs 2 times"):
        lengths_seen(model, {"0": layer}, torch.randn(2, 1, 5))
