"""`ssmred.reduce(method="lqo-...")`: search, division, certificates."""

import itertools
import math

import numpy as np
import pytest
import torch
from small_networks import classifier

import ssmred
from ssmred.certify import InputSet, QuadraticBlock, quadratic_chain_bound
from ssmred.errors import CertificateError, RequestError, UnsupportedOperationError
from ssmred.networks import export_plain, import_network
from ssmred.networks.deep import DeepLQO, DeepSSM
from ssmred.norms import h2_error, h2_norm
from ssmred.pipeline.methods import QUADRATIC
from ssmred.pipeline.quadratic_bound import NetworkChain
from ssmred.pipeline.quadratic_division import least_bound_division
from ssmred.pipeline.quadratic_layers import QuadraticLayerPath, quadratic_layer
from ssmred.pipeline.quadratic_removal import QuadraticRemoval
from ssmred.reductors import QuadraticH2Reductor
from ssmred.reductors.quadratic_modes import modal_states

T = 32


def network(seed=0, *, layers=2, states=12, rank=1):
    torch.manual_seed(seed)
    model = DeepLQO(
        2, 3, channels=3, states=states, layers=layers, rank=rank, r_min=0.3, r_max=0.95
    ).double()
    model.train()
    with torch.no_grad():
        model(torch.randn(20, T, 2, dtype=torch.float64))
        for layer in model.layers:
            layer.U_re.mul_(0.5), layer.U_im.mul_(0.5)
    return model.eval()


def data(count=200, seed=1):
    return torch.randn(count, T, 2, dtype=torch.float64, generator=torch.manual_seed(seed))


# --- layers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("unit", [1.0, 3.0])
def test_the_real_system_answers_as_the_layer(rank, unit):
    layer = network(rank=rank).layers[0]
    system = quadratic_layer(layer.to_systems()["core"], unit)
    u = torch.randn(3, T, dtype=torch.float64)
    wanted = layer(unit * u[None])[0].detach().numpy().T
    got = system.simulate(u.numpy().T)
    assert np.abs(got - wanted).max() <= 1e-12 * np.abs(wanted).max()
    assert float(h2_norm(system, horizon=T)) > 0


@pytest.mark.theorem("quadratic-h2")
@pytest.mark.parametrize("search", ["h2", "balanced", "limited"])
def test_paths_hold_errors_that_the_states_have(search):
    layer = import_network(network()).layers[0]
    path = QuadraticLayerPath(layer, T, search=search)
    assert path.errors.shape == (1, 7)
    assert (np.diff(path.errors[0]) >= 0).all()
    assert path.errors[0, 0] == 0
    before = path.least.copy()
    searched = [path.improve(modes) for modes in range(1, 6)]
    assert any(searched) == (search != "balanced")
    assert (path.least <= before).all()
    assert not any(path.improve(modes) for modes in range(1, 6))  # each order once
    for modes in range(7):
        reduction = path.reduction(modes)
        assert reduction.states <= 2 * modes
        if 0 < modes < 6:
            # of all diagonal D, the best one: not worse than the full system's
            small = quadratic_layer(reduction.system)
            error = float(h2_error(path.full, small, horizon=T))
            assert error <= (1 + 1e-6) * path.least[modes]
            assert error >= 0.5 * path.least[modes]


def test_searched_states_are_those_of_the_reductor():
    layer = import_network(network()).layers[0]
    path = QuadraticLayerPath(layer, T)
    path.improve(3)
    for order in range(6, 0, -1):  # the largest with at most three modes: a real pole is one, too
        alone = QuadraticH2Reductor(method="tsia", steps=20, direct=False).reduce(
            path.full, order=order
        )
        linear = alone.system.linear
        states = modal_states(linear.A, linear.B, True)
        if len(states.poles) <= 3:
            break
    assert path.least[3] == pytest.approx(float(alone.bound.value), rel=1e-6)


# --- division ------------------------------------------------------------------------------------


def random_chain(seed, layers=3, modes=5):
    rng = np.random.default_rng(seed)
    blocks, errors = [], []
    for k in range(layers):
        curve = np.sort(rng.uniform(0, 1, modes + 1))[::-1] * 10.0 ** rng.uniform(-3, 0)
        curve[-1] = 0.0
        norm = math.hypot(curve[0], 10.0 ** rng.uniform(-2, 0))
        blocks.append(
            QuadraticBlock(str(k), *rng.uniform(0.1, 1.5, 2), rng.choice([0.0, 1.0]),
                           10.0 ** rng.uniform(-1, 1), norm)
        )  # fmt: skip
        errors.append(curve)
    return blocks, errors


@pytest.mark.theorem("quadratic-chain")
@pytest.mark.parametrize("seed", range(20))
def test_no_division_has_a_smaller_bound(seed):
    """Against all divisions, each by the bound itself."""
    blocks, errors = random_chain(seed)

    def bound(kept):
        found = [curve[k] for curve, k in zip(errors, kept, strict=True)]
        norms = [math.sqrt(b.norm**2 - e**2) for b, e in zip(blocks, found, strict=True)]
        return quadratic_chain_bound(blocks, found, norms, T).bound

    for modes in (0, 4, 9, 14, 15, 16):
        kept, log_bound = least_bound_division(blocks, errors, T, modes)
        assert sum(kept) <= modes
        assert all(0 <= k <= 5 for k in kept)
        divisions = itertools.product(range(6), repeat=3)
        least = min(bound(one) for one in divisions if sum(one) <= modes)
        assert bound(kept) == pytest.approx(least, rel=1e-9)
        if least:
            assert log_bound == pytest.approx(math.log(least), rel=1e-9, abs=1e-9)


@pytest.mark.theorem("quadratic-chain")
def test_bounds_beyond_the_largest_number_are_compared_too():
    blocks = [QuadraticBlock(str(k), 1e40, 1e40, 1.0, 1e40, 2e40) for k in range(3)]
    curve = 1e40 * 2.0 ** -np.arange(6.0)
    curve[-1] = 0.0
    kept, log_bound = least_bound_division(blocks, [curve] * 3, T, 8)
    assert log_bound > math.log(1e308)
    assert kept == [5, 3, 0]  # from the front


def at_rest(seed):
    """Return chain, objectives and states that the search rests at in every layer, or None.

    Whether it comes to rest in so many steps depends on rounding, and so on the processor.
    """
    model = network(seed)
    with torch.no_grad():
        for layer in model.layers:  # where errors are small the bound does grow with them
            for tensor in (layer.C_re, layer.C_im, layer.U_re, layer.U_im):
                tensor[..., 4:] *= 3e-3
    net = import_network(model)
    chain = NetworkChain(net, T, data=data())
    objectives, points = [], []
    for layer, block in zip(net.layers, chain.blocks, strict=True):
        full = quadratic_layer(layer.system, block.unit)
        path = QuadraticH2Reductor(method="both", steps=500).path(full)
        found = path.reduced(8)
        if not found.converged:
            return None
        linear = found.system.linear.to_dense()
        points.append(modal_states(linear.A, linear.B, True))
        objectives.append(path.objective)
    return chain, objectives, points


@pytest.mark.theorem("quadratic-chain")
def test_joint_descent_finds_nothing_more_at_fixed_orders():
    """3b: at layerwise minima the bound is stationary in all poles and rows at once."""
    found = next((rest for rest in map(at_rest, range(3, 13)) if rest is not None), None)
    assert found is not None, "the search rests in none of ten networks"
    chain, objectives, points = found

    def bound(layer, poles, rows):
        errors = []
        for k, (objective, point) in enumerate(zip(objectives, points, strict=True)):
            place = (poles, rows) if k == layer else point.written_out()
            errors.append(math.sqrt(max(objective(*place).value, 0.0)))
        norms = [math.sqrt(b.norm**2 - e**2) for b, e in zip(chain.blocks, errors, strict=True)]
        return quadratic_chain_bound(chain.blocks, errors, norms, T).bound

    rng = np.random.default_rng(0)
    for k, point in enumerate(points):
        least = bound(k, *point.written_out())
        shorter = point.__class__(point.poles[:-1], point.rows[:-1], point.real)
        assert bound(k, *shorter.written_out()) > least  # it does grow with the errors
        for _ in range(30):
            size = 10.0 ** rng.uniform(-4, -1)
            move = size * (rng.standard_normal(point.poles.shape) * (1 - np.abs(point.poles)))
            turn = size * rng.standard_normal(point.rows.shape)
            other = point.__class__(point.poles + move, point.rows + turn, point.real)
            assert bound(k, *other.written_out()) >= least * (1 - 1e-12)


# --- networks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", QUADRATIC)
@pytest.mark.parametrize("guarantee", ["statistical", "layer", "worst-case"])
def test_every_method_makes_a_certificate_that_verifies(method, guarantee):
    model = network()
    inputs = {"inputs": InputSet.box(-1, 1), "horizon": T}
    wish = {"data": data()} if guarantee == "statistical" else inputs
    result = ssmred.reduce(
        model, states=0.5, method=method, guarantee=guarantee, progress=False, **wish
    )
    kept, full = result.states
    assert full == 24
    assert 8 <= kept <= 12
    assert result.certificate.metric.endswith(f"method {method}")
    assert result.certificate.metric.startswith("h2, linear and quadratic outputs, horizon 32")
    given = {"data": data()} if guarantee == "statistical" else {}
    assert ssmred.verify(result.certificate, model, result.model, **given).passed
    plain = export_plain(result.model, model)
    x = data(5, seed=2)
    with torch.no_grad():
        wanted = result.model(x)
        assert (plain(x) - wanted).abs().max() <= 1e-9 * wanted.abs().max()
    assert result.path.error[0] == 0.0


def test_tolerances_are_searched():
    model = network()
    result = ssmred.reduce(model, tol=0.3, data=data(), method="lqo-bound", progress=False)
    assert result.certificate.bound <= 0.3
    assert result.states[0] < result.states[1]
    none = ssmred.reduce(model, tol=1e-9, data=data(), method="lqo-bound", progress=False)
    assert none.states[0] == none.states[1]


@pytest.mark.theorem("quadratic-chain")
def test_the_bound_of_networks_holds_and_is_what_the_division_made_small():
    for seed in range(6):
        model = network(seed)
        x = data(200, seed)
        bounds = {}
        for method in ("lqo-bound", "lqo-h2"):
            result = ssmred.reduce(model, states=0.5, data=x, method=method, progress=False)
            found = ssmred.quadratic_bound(model, result.model, data=x)
            with torch.no_grad():
                gaps = (model(x) - result.model(x)).norm(dim=-1)
            assert 0 < float(gaps.max()) <= found.bound
            bounds[method] = found.bound
        assert bounds["lqo-bound"] < 0.1 * bounds["lqo-h2"]


def test_better_states_never_make_the_bound_worse():
    net = import_network(network(5))
    chain = NetworkChain(net, T, data=data())
    removal = QuadraticRemoval(net, T, method="lqo-bound", chain=chain)
    before = least_bound_division(chain.blocks, [p.least for p in removal.paths], T, 10)[1]
    cut = removal.cut(20)
    after = least_bound_division(chain.blocks, [p.least for p in removal.paths], T, 10)[1]
    assert after < before
    assert cut.states <= 20


def test_the_bound_of_a_set_covers_that_of_its_inputs():
    model = network()
    x = torch.rand(50, T, 2, dtype=torch.float64)
    on_data = ssmred.quadratic_bound(model, data=x)
    on_set = ssmred.quadratic_bound(model, horizon=T, inputs=InputSet.box(0, 1))
    assert on_data.bound == on_set.bound == 0.0
    for weights in (on_data.weights, on_set.weights):
        assert weights[0] > weights[1] > 0.0
    small = ssmred.reduce(model, states=0.5, horizon=T, guarantee="layer", progress=False).model
    with torch.no_grad():
        gap = float((model(x) - small(x)).norm(dim=-1).max())
    on_data = ssmred.quadratic_bound(model, small, data=x)
    on_set = ssmred.quadratic_bound(model, small, horizon=T, inputs=InputSet.box(0, 1))
    assert gap <= on_data.bound
    assert gap <= on_set.bound


# --- bad input -----------------------------------------------------------------------------------


def test_what_cannot_be_bounded_is_refused():
    model = network()
    with pytest.raises(RequestError, match=r"needs a horizon.*Pass horizon= or data="):
        ssmred.reduce(model, states=0.5, method="lqo-bound", guarantee="layer", progress=False)
    with pytest.raises(RequestError, match="needs a horizon"):
        ssmred.quadratic_bound(model)
    with pytest.raises(RequestError, match=r"metric='calibrated'. Leave metric out"):
        ssmred.reduce(
            model, states=0.5, data=data(), method="lqo-h2", metric="calibrated", progress=False
        )
    with pytest.raises(UnsupportedOperationError, match="layers without quadratic outputs"):
        ssmred.reduce(classifier(gated=False), states=0.5, method="lqo-h2", progress=False)
    torch.manual_seed(0)
    gated = DeepSSM(2, 3, layer="lqo", channels=3, states=8, layers=1, mixing="glu").eval()
    with pytest.raises(UnsupportedOperationError, match=r"infinite at layer.*what follows it"):
        ssmred.quadratic_bound(gated, horizon=T)
    with pytest.raises(CertificateError, match="different layers"):
        ssmred.quadratic_bound(model, network(layers=1), horizon=T)
