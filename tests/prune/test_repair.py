"""Mixings fitted in the place of operators: against least squares, and what the theorem says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ssmred.networks.deep import DeepSSM
from ssmred.prune import operators_of, repaired
from ssmred.prune.repair import mixings

pytestmark = pytest.mark.theorem("mixing-refit")

STEPS = 20


def network(mixing: str = "linear"):
    torch.manual_seed(0)
    model = DeepSSM(2, 3, channels=5, states=4, layers=2, mixing=mixing, norm="none").double()
    found = operators_of(model.eval())
    found.model.eval()
    return found


def inputs() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(9, STEPS, 2, dtype=torch.float64, generator=generator)


def seen(model, module, x):
    kept = []
    handle = module.register_forward_hook(lambda _m, args, out: kept.append((args[0], out)))
    with torch.no_grad():
        model(x)
    handle.remove()
    return tuple(t.transpose(1, 2).reshape(-1, t.shape[1]).numpy() for t in kept[0])


def test_the_first_mixing_is_the_least_squares_fit():
    whole, x = network(), inputs()
    first = whole.layers[0]
    pruned = whole.pruned({first: {0: 0.5, 3: -0.5}})
    fitted = repaired(pruned, whole, x, ridge=0.0)
    features, _ = seen(pruned.model, mixings(pruned)[first], x)
    _, wanted = seen(whole.model, mixings(whole)[first], x)
    design = np.column_stack([features, np.ones(len(features))])
    best = np.linalg.lstsq(design, wanted, rcond=None)[0]
    mixing = mixings(fitted)[first]
    np.testing.assert_allclose(mixing.weight.detach().numpy()[..., 0].T, best[:-1], atol=1e-7)
    np.testing.assert_allclose(mixing.bias.detach().numpy(), best[-1], atol=1e-7)


@pytest.mark.parametrize("mixing", ["linear", "glu"])
def test_no_fit_makes_its_own_mixing_worse(mixing):
    whole, x = network(mixing), inputs()
    first = whole.layers[0]
    pruned = whole.pruned({first: {c: 1.0 for c in range(4)}})
    fitted = repaired(pruned, whole, x)
    wanted = seen(whole.model, mixings(whole)[first], x)[1]
    before = seen(pruned.model, mixings(pruned)[first], x)[1]
    after = seen(fitted.model, mixings(fitted)[first], x)[1]
    assert ((after - wanted) ** 2).sum() <= ((before - wanted) ** 2).sum()


def test_nothing_pruned_nothing_moved():
    whole, x = network("glu"), inputs()
    fitted = repaired(whole, whole, x)
    with torch.no_grad():
        gap = (fitted.model(x) - whole.model(x)).abs().max()
    assert gap == 0.0


def test_neither_network_is_changed():
    whole, x = network(), inputs()
    pruned = whole.pruned({whole.layers[1]: {1: 0.0}})
    before = {k: t.clone() for k, t in pruned.model.state_dict().items()}
    repaired(pruned, whole, x)
    assert all(torch.equal(before[k], t) for k, t in pruned.model.state_dict().items())
