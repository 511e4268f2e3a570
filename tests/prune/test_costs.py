"""Costs of removals against hand formulae and against the removal itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from ssmred.networks.deep import DeepSSM
from ssmred.prune import operators_of
from ssmred.prune.observation import observe
from ssmred.prune.replacement import Replacement
from ssmred.prune.selection import costs_of

pytestmark = pytest.mark.theorem("operator-removal")

ROUNDING = 1e-10
"""Sums of a few hundred products in double precision."""

STEPS = 20


class Affine(nn.Module):
    """A layer, then nothing that is not affine."""

    def __init__(self, family: str = "s4d") -> None:
        super().__init__()
        torch.manual_seed(0)
        options = {"length": STEPS} if family == "s4" else {}
        deep = DeepSSM(
            2,
            3,
            layer=family,
            channels=5,
            states=4,
            layers=1,
            mixing="none",
            norm="none",
            layer_options=options,
        )
        self.net = deep.double().eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


def inputs(count: int = 7) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, STEPS, 2, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("family", ["s4d", "s4"])
def test_behind_an_affine_network_the_first_order_change_is_the_change(family):
    model, x = Affine(family), inputs()
    network = operators_of(model)
    network.model.eval()
    (name,) = network.layers
    seen = observe(network, x, seed=3)[name]
    gains = np.linspace(-1.0, 1.0, 5)
    changes = seen.output_change(gains)
    signs = torch.randint(0, 2, (7, 3), generator=torch.Generator().manual_seed(3)).double() * 2 - 1
    for channel in range(5):
        pruned = network.pruned({name: {channel: float(gains[channel])}})
        with torch.no_grad():
            wanted = (signs * (model(x) - pruned.model(x))).sum(-1).numpy()
        np.testing.assert_allclose(changes[:, channel], wanted, atol=ROUNDING)


def test_energies_and_gains_are_those_of_the_signals():
    network, x = operators_of(Affine()), inputs()
    network.model.eval()
    (name,) = network.layers
    seen = observe(network, x, seed=0)[name]
    u = network.model.net.encoder(x).transpose(1, 2).detach()
    y = network.banks[name](u).detach()
    best = ((u * y).sum((0, 2)) / (u * u).sum((0, 2))).numpy()
    np.testing.assert_allclose(seen.gains, best, rtol=ROUNDING)
    for gain in (0.0, 1.0, 0.3):
        left = ((y - gain * u) ** 2).sum((0, 2)).numpy()
        np.testing.assert_allclose(seen.residual_energy(np.full(5, gain)), left, rtol=1e-8)
        assert (seen.residual_energy(best) <= left + ROUNDING * left).all()


@pytest.mark.parametrize(
    ("kind", "gain"), [("static_gain", None), ("zero", 0.0), ("identity", 1.0)]
)
def test_h2_costs_are_sums_over_the_response(kind, gain):
    network = operators_of(Affine())
    (name,) = network.layers
    costs = costs_of(network, "h2", Replacement(kind), inputs(), horizon=STEPS, seed=0)
    h = network.banks[name].kernel(STEPS).detach().numpy()
    d = h[:, 0] if gain is None else np.full(5, gain)
    wanted = ((h[:, 0] - d) ** 2 + (h[:, 1:] ** 2).sum(1)) / (h**2).sum()
    np.testing.assert_allclose(costs.scores[name], wanted, rtol=ROUNDING)
    np.testing.assert_allclose(costs.gains[name], d)


def test_what_is_gone_is_never_asked_for():
    network = operators_of(Affine())
    (name,) = network.layers
    pruned = network.pruned({name: {2: 1.0}})
    for selection in ("h2", "random", "calibrated"):
        costs = costs_of(pruned, selection, Replacement(), inputs(), horizon=STEPS, seed=0)
        assert np.isinf(costs.scores[name][2])
        assert np.isfinite(np.delete(costs.scores[name], 2)).all()


def test_few_states_cost_no_more_than_a_gain():
    network = operators_of(Affine())
    (name,) = network.layers
    few, none = (
        costs_of(network, "h2", Replacement(kind, 2), inputs(), horizon=STEPS, seed=0)
        for kind in ("low_order", "static_gain")
    )
    assert (few.scores[name] <= none.scores[name] * (1 + ROUNDING)).all()
