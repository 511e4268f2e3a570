"""Banks of operators: masks equal removals, and they are filters like all others."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ssmred.errors import CheckpointError, OrderError, UnsupportedOperationError
from ssmred.networks import StreamingNetwork, import_network, load_network, save_network
from ssmred.networks.deep import DeepSSM
from ssmred.networks.layers.free_kernels import DenseKernel, ModalKernel
from ssmred.networks.operator_bank import OperatorBank
from ssmred.prune import operators_of

STEPS, CHANNELS = 30, 6
ROUNDING = 1e-5
"""A few layers in single precision."""


def network(family: str, **options) -> DeepSSM:
    torch.manual_seed(0)
    extra = {"length": STEPS} if family == "s4" else {}
    return DeepSSM(
        1, 3, layer=family, channels=CHANNELS, states=8, layers=2, layer_options=extra, **options
    ).eval()


def signal(count: int = 3) -> torch.Tensor:
    return torch.randn(count, STEPS, 1, generator=torch.Generator().manual_seed(2))


def gains(found) -> dict:
    first, second = found.layers
    return {first: {0: 1.0, 4: -0.5}, second: {c: 0.25 for c in range(CHANNELS)}}


@pytest.mark.parametrize("family", ["s4d", "s4"])
def test_the_bank_computes_what_the_layers_compute(family):
    model, x = network(family), signal()
    with torch.no_grad():
        gap = (operators_of(model).model(x) - model(x)).abs().max()
    assert gap <= ROUNDING * model(x).abs().max()


@pytest.mark.parametrize("family", ["s4d", "s4"])
def test_a_mask_equals_the_removal_and_only_the_removal_is_smaller(family):
    found, x = operators_of(network(family)), signal()
    pruned, masked = found.pruned(gains(found)), found.masked(gains(found))
    with torch.no_grad():
        assert torch.equal(pruned.model.eval()(x), masked.model.eval()(x))
    size = {n: sum(p.numel() for p in net.model.parameters()) for n, net in
            (("pruned", pruned), ("masked", masked), ("whole", found))}  # fmt: skip
    assert size["pruned"] < size["masked"] == size["whole"]
    assert pruned.operators == found.operators - 2 - CHANNELS
    assert pruned.live[pruned.layers[1]] == []


def test_no_kernel_is_made_for_what_is_gone():
    found = operators_of(network("s4d"))
    first, second = (found.pruned(gains(found)).banks[name] for name in found.layers)
    assert first._responses(STEPS).shape == (CHANNELS - 2, STEPS)
    assert len(second.kernels) == 0


@pytest.mark.parametrize("family", ["s4d", "s4"])
def test_pruned_networks_are_stored_imported_and_streamed(family, tmp_path):
    found, x = operators_of(network(family)), signal()
    model = found.pruned(gains(found)).model.eval()
    with torch.no_grad():
        wanted = model(x)
        save_network(model, tmp_path / "net")
        assert torch.equal(load_network(tmp_path / "net")(x), wanted)
        assert torch.equal(import_network(model).model(x), wanted)
    stream = StreamingNetwork(model, example_shape=(STEPS, 1))
    stream.reset(len(x))
    for k in range(STEPS):
        answer = stream.step(x[:, k])
    assert (answer - wanted).abs().max() <= ROUNDING * wanted.abs().max()


def test_the_system_of_a_bank_has_its_kernel():
    rng = np.random.default_rng(0)
    poles = 0.9 * rng.uniform(size=(2, 3)) * np.exp(1j * rng.uniform(0, 3, (2, 3)))
    bank = OperatorBank(
        rng.normal(size=4), [ModalKernel(poles, rng.normal(size=(2, 3)) + 1j)], [3, 1]
    )
    response = bank.to_system().impulse_response(9)[..., 0, 0]
    np.testing.assert_allclose(bank.kernel(9).detach().numpy(), response, atol=1e-13)
    dense = DenseKernel(rng.normal(size=(1, 2, 2)) / 3, rng.normal(size=(1, 2)), [[1.0, 2.0]])
    mixed = bank.replaced(dense, {1: 0.5})
    assert mixed.live.tolist() == [3, 1]
    response = mixed.to_system().impulse_response(9)[..., 0, 0]
    np.testing.assert_allclose(mixed.kernel(9).detach().numpy(), response, atol=1e-13)


def test_wrong_channels_are_refused():
    kernel = ModalKernel([[0.5]], [[1.0]])
    for live in ([2], [-1], [0, 1], []):
        with pytest.raises(OrderError, match="live does not fit"):
            OperatorBank([1.0, 2.0], [kernel], live)
    bank = OperatorBank([1.0, 2.0], [kernel], [1])
    with pytest.raises(OrderError, match="no operator to remove"):
        bank.pruned({0: 1.0})


def test_stored_places_are_checked():
    bank = OperatorBank([1.0, 2.0, 3.0], [ModalKernel([[0.5], [0.1]], [[1.0], [1.0]])], [0, 2])
    state = bank.state_dict()
    for live in ([0, 0], [0, 3], [-1, 1]):
        with pytest.raises(CheckpointError, match="live does not fit"):
            bank.load_state_dict(state | {"live": torch.tensor(live)})


@pytest.mark.parametrize("family", ["s5", "lru"])
def test_layers_that_share_a_state_are_refused(family):
    with pytest.raises(UnsupportedOperationError, match="share one state"):
        operators_of(network(family))
