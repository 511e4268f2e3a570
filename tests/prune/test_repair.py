"""Mixings fitted in the place of operators: against least squares, and what the theorem says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ssmred.deploy import compacted
from ssmred.deploy.compact import CompactBlock
from ssmred.errors import DataError, RequestError
from ssmred.networks.deep import DeepSSM
from ssmred.prune import operators_of, repaired
from ssmred.prune.options import Options
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


def ridge_problem(pruned, whole, x, ridge):
    """Design, target and prior of the first mixing, and the weight of the ridge."""
    first = whole.layers[0]
    features, _ = seen(pruned.model, mixings(pruned)[first], x)
    _, wanted = seen(whole.model, mixings(whole)[first], x)
    design = np.column_stack([features, np.ones(len(features))])
    mixing = mixings(pruned)[first]
    prior = np.vstack([mixing.weight.detach().numpy()[..., 0].T, mixing.bias.detach().numpy()])
    return design, wanted, prior, ridge * (features**2).sum(0).mean()


def fit_without(columns, design, wanted, prior, weight):
    """The least value without some columns, and where, by least squares with rows for the ridge."""
    stays = [k for k in range(design.shape[1]) if k not in columns]
    root = np.sqrt(weight)
    rows = np.vstack([design, root * np.eye(design.shape[1])])[:, stays]
    right = np.vstack([wanted, root * prior])
    best = np.zeros_like(prior)
    best[stays] = np.linalg.lstsq(rows, right, rcond=None)[0]
    return ((np.vstack([design, root * np.eye(len(prior))]) @ best - right) ** 2).sum(), best


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_silenced_channels_are_the_cheapest_and_the_rest_is_the_best_fit(share):
    whole, x = network(), inputs()
    first = whole.layers[0]
    pruned = whole.pruned({first: {0: 0.5, 1: 1.0, 2: -0.3, 3: -0.5}})
    problem = ridge_problem(pruned, whole, x, 1e-3)
    fitted = repaired(pruned, whole, x, ridge=1e-3, silence=share)
    wanted: list[int] = []
    for _ in range(round(4 * share)):
        left = [h for h in range(4) if h not in wanted]
        wanted.append(min(left, key=lambda h: fit_without([*wanted, h], *problem)[0]))
    best = fit_without(wanted, *problem)[1]
    bank, mixing = fitted.banks[first], mixings(fitted)[first]
    assert (bank.D == 0).nonzero()[:, 0].tolist() == sorted(wanted)
    weights = mixing.weight.detach().numpy()[..., 0].T
    assert not weights[wanted].any()
    np.testing.assert_allclose(weights, best[:-1], rtol=0, atol=1e-9)
    np.testing.assert_allclose(mixing.bias.detach().numpy(), best[-1], rtol=0, atol=1e-9)


def test_only_channels_without_operator_are_silenced_and_stay_so():
    whole, x = network("glu"), inputs()
    gone = {whole.layers[0]: {0: 0.5, 1: 1.0, 4: -0.3}, whole.layers[1]: {2: 1.0}}
    once = repaired(whole.pruned(gone), whole, x, silence=0.4)
    silent = {n: set((b.D == 0).nonzero()[:, 0].tolist()) for n, b in once.banks.items()}
    assert [len(found) for found in silent.values()] == [1, 0]
    twice = repaired(once.pruned({whole.layers[0]: {2: 0.1}}), whole, x, silence=0.7)
    for name, bank in twice.banks.items():
        found = set((bank.D == 0).nonzero()[:, 0].tolist())
        assert silent[name] <= found <= set(range(5)) - set(bank.live.tolist())
        assert not mixings(twice)[name].weight[:, sorted(found)].any()
    assert int((twice.banks[whole.layers[0]].D == 0).sum()) == 3


def test_training_leaves_the_silent_silent():
    whole, x = network("glu"), inputs()
    first = whole.layers[0]
    small = repaired(whole.pruned({first: dict.fromkeys(range(4), 0.5)}), whole, x, silence=0.5)
    silent = (small.banks[first].D == 0).nonzero()[:, 0]
    small.model.train()
    optimiser = torch.optim.AdamW(small.model.parameters(), 1e-2, weight_decay=0.1)
    for _ in range(5):
        optimiser.zero_grad()
        small.model(x).square().sum().backward()
        optimiser.step()
    assert len(silent) == 2
    assert not small.banks[first].D[silent].any()
    assert not mixings(small)[first].weight[:, silent].any()
    widths = [len(m.order) for m in compacted(small.model).modules() if isinstance(m, CompactBlock)]
    assert widths == [3, 5]


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_shares_that_are_none(share):
    whole, x = network(), inputs()
    with pytest.raises(DataError, match="silence"):
        repaired(whole, whole, x, silence=share)


def test_nothing_is_silenced_where_nothing_is_fitted():
    with pytest.raises(DataError, match="ridge"):
        repaired(network(), network(), inputs(), ridge=0.0, silence=0.5)
    with pytest.raises(RequestError, match="repair"):
        Options(repair=False, silence=0.5)
