"""Reduced layers whose direct term stays a diagonal matrix."""

import copy

import numpy as np
import pytest
import torch

import ssmred
from ssmred.errors import RequestError
from ssmred.gramians import InputMoments, OutputMetric, OutputSensitivity
from ssmred.gramians.square_root import basis_coefficients
from ssmred.networks import export_plain, find_layers, import_network
from ssmred.networks.deep import DeepSSM
from ssmred.norms import h2_error
from ssmred.pipeline.feedthrough import has_diagonal, moved_modes, with_diagonal
from ssmred.pipeline.measured import h2_root, united, with_read_out
from ssmred.pipeline.methods import ALTERNATING
from ssmred.pipeline.removal import data_free_path
from ssmred.reductors import BalancedReductor, SubsetReductor
from ssmred.systems import DiagonalSystem

T = 40
EVALUATED = 1e-9  # two ways to evaluate one error


def layer(seed, n=6, m=4, recurrence="post-update", more=0):
    """Return a layer of m inputs, and m outputs and some more that D does not reach."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)

    poles = np.sqrt(rng.uniform(0.1, 0.9, (1, n))) * np.exp(1j * rng.uniform(0.05, 3.1, (1, n)))
    return DiagonalSystem(
        poles,
        normal(1, n, m),
        normal(1, m + more, n),
        (np.eye(m + more, m) * rng.standard_normal(m))[None],
        recurrence=recurrence,
        real_output=True,
    )


def least_error(full, reduced):
    """Return the least h2 error over T samples, every output fitted alone, by plain lstsq."""
    m, n = full.inputs, reduced.order
    wanted = full.impulse_response(T)[0]  # (T, p, m)
    ones = reduced.replace(
        C=np.broadcast_to(np.eye(n, dtype=complex), (1, n, n)), D=np.zeros((1, n, m))
    ).replace(real_output=False)
    states = ones.impulse_response(T)[0]  # (T, n, m)
    columns = np.concatenate([states.real, states.imag], axis=1).swapaxes(1, 2).reshape(T * m, -1)
    total = 0.0
    for j in range(full.outputs):
        impulse = np.zeros((T, m))
        impulse[0, j:][:1] = 1.0  # none for outputs that D does not reach
        design = np.column_stack([columns, impulse.ravel()])
        target = wanted[:, j].ravel()
        rest = target - design @ np.linalg.lstsq(design, target, rcond=None)[0]
        total += rest @ rest
    return np.sqrt(total)


@pytest.mark.theorem("diagonal-feedthrough")
@pytest.mark.parametrize("more", [0, 3])
@pytest.mark.parametrize("recurrence", ["post-update", "standard"])
@pytest.mark.parametrize("seed", range(10))
def test_kept_modes_with_the_best_diagonal(seed, recurrence, more):
    full = layer(seed, recurrence=recurrence, more=more)
    path = SubsetReductor(horizon=T).path(full)
    best = path.reduction([3])
    reduction = with_diagonal(best, path.root, best.kept)
    error = h2_error(full, reduction.system, horizon=T)[0]
    assert has_diagonal(reduction.system)
    np.testing.assert_allclose(error, least_error(full, reduction.system), rtol=EVALUATED)
    np.testing.assert_allclose(reduction.bound.value[0], error, rtol=EVALUATED)
    assert reduction.bound.theorem == "diagonal-feedthrough"
    if recurrence == "standard":  # D alone makes the first sample
        np.testing.assert_allclose(reduction.system.D, full.D, atol=1e-12)
    else:
        assert error > best.bound.value[0]


@pytest.mark.theorem("diagonal-feedthrough")
@pytest.mark.parametrize("seed", range(5))
def test_moved_modes_with_the_best_diagonal(seed):
    full = layer(seed)
    moved = BalancedReductor().reduce(full, order=3)
    root = h2_root(united(moved), T)
    reduction = with_diagonal(with_read_out(moved, root, "h2"), root, moved_modes(moved))
    error = h2_error(full, reduction.system, horizon=T)[0]
    np.testing.assert_allclose(error, least_error(full, moved.system), rtol=EVALUATED)
    np.testing.assert_allclose(reduction.bound.value[0], error, rtol=EVALUATED)


@pytest.mark.theorem("diagonal-feedthrough")
@pytest.mark.parametrize("seed", range(3))
def test_an_alternation_ends_with_the_read_out_that_this_starts_from(seed):
    full = layer(seed)
    best = data_free_path(full, T, ALTERNATING).reduction(np.array([3]))
    root = h2_root(united(best), T)
    reduction = with_diagonal(best, root, moved_modes(best))
    error = h2_error(full, reduction.system, horizon=T)[0]
    np.testing.assert_allclose(error, least_error(full, best.system), rtol=EVALUATED)
    np.testing.assert_allclose(reduction.bound.value[0], error, rtol=EVALUATED)


@pytest.mark.theorem("diagonal-feedthrough")
@pytest.mark.parametrize("silent", [(), (1,)])
@pytest.mark.parametrize("more", [0, 3])
def test_outputs_that_count_together(silent, more):
    """Against one least-squares problem with all unknowns, by products of Kronecker."""
    rng = np.random.default_rng(0)
    full = layer(3, more=more)
    m, p = full.inputs, full.outputs
    V = rng.standard_normal((30, m, T)).cumsum(axis=-1)
    V[:, silent] = 0.0
    moments, sensitivity = InputMoments(m, T, system=full), OutputSensitivity(full, T)
    moments.update(V)
    sensitivity.update(V, rng.standard_normal((30, 1, T)) + 0.3 * rng.standard_normal((30, p, T)))
    path = SubsetReductor(metric=OutputMetric(moments, sensitivity)).path(full)
    best = path.reduction([3])
    reduction = with_diagonal(best, path.root, best.kept)
    R, L = path.root.factor[0], path.root.mixing[0]
    assert np.abs(L - np.diag(np.diag(L))).max() > 0.1 * np.abs(L).max()
    states = m + np.flatnonzero(best.kept[0].repeat(2))
    columns = [np.kron(L.T, R[:, [k]]) for k in states]
    columns += [np.outer(R[:, j], L[j]).T.reshape(-1, 1) for j in range(m)]
    design = np.hstack(columns)
    target = (R @ basis_coefficients(full)[0] @ L).T.ravel()
    rest = target - design @ np.linalg.lstsq(design, target, rcond=None)[0]
    np.testing.assert_allclose(reduction.bound.value[0], np.linalg.norm(rest), rtol=EVALUATED)
    C = np.zeros_like(full.C)
    C[:, :, best.kept[0]] = reduction.system.C
    own = full.replace(C=C, D=reduction.system.D)  # the stored system has this error
    missed = R @ (basis_coefficients(full) - basis_coefficients(own))[0] @ L
    np.testing.assert_allclose(np.linalg.norm(missed), np.linalg.norm(rest), rtol=EVALUATED)


def test_whose_direct_term_is_a_diagonal():
    square = layer(0)
    assert has_diagonal(square)
    assert has_diagonal(square.replace(D=0 * square.D))
    assert not has_diagonal(square.replace(D=np.ones_like(square.D)))
    assert not has_diagonal(square.replace(C=square.C[:, :2], D=square.D[:, :2]))
    single = square.replace(B=square.B[..., :1], C=square.C[:, :1], D=square.D[:, :1, :1])
    assert not has_diagonal(single)  # nothing to choose
    wide = layer(0, more=2)
    assert has_diagonal(wide)
    assert has_diagonal(layer(0, m=1, more=1))
    assert not has_diagonal(wide.replace(D=np.ones_like(wide.D)))


def network(family, **options):
    torch.manual_seed(2)
    model = DeepSSM(2, 3, layer=family, channels=5, states=16, layers=2, norm="layer", **options)
    return model.eval()


def signals(count=128):
    return torch.randn(count, T, 2, generator=torch.Generator().manual_seed(0)).cumsum(1)


@pytest.mark.parametrize(
    ("family", "options"), [("lru", {}), ("s5", {}), ("s5", {"bidirectional": True})]
)
@pytest.mark.parametrize("method", ["subset", "balanced"])
@pytest.mark.parametrize("given", [False, True])
def test_the_class_holds_what_is_left(family, options, method, given):
    model = network(family, **options)
    wish = {"data": signals()} if given else {"horizon": T, "guarantee": "layer"}
    wish |= {"states": 0.5, "method": method, "progress": False}
    full = ssmred.reduce(model, **wish)
    result = ssmred.reduce(model, feedthrough="diagonal", **wish)
    assert result.parameters[0] < full.parameters[0]
    assert result.certificate.metric == f"{full.certificate.metric}, diagonal D"
    reduced = import_network(result.model)
    modes = []
    for at in reduced.layers:
        core = reduced.core(at.name)
        assert core.D.shape == (5,)  # stored as a vector
        modes.append(int(core.orders[0]))
    plain = export_plain(model, result.model)
    ways = 2 if options else 1  # both directions share the modes, each brings its own
    held = {at.to_systems()[at.name].order for at in find_layers(plain)}
    assert max(held) <= ways * max(modes)
    with torch.no_grad():
        wanted, found = (copy.deepcopy(net).double()(signals(4).double()) for net in
                         (result.model, plain))  # fmt: skip
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))
    with torch.no_grad():
        lost = (model(signals(4)) - result.model(signals(4))).norm() / model(signals(4)).norm()
    assert lost < 0.5


@pytest.mark.parametrize("family", ["lru", "s5"])
def test_guarantees_hold_for_what_is_stored(family):
    """Every kind of guarantee is about the system with the diagonal D."""
    model = network(family)
    layerwise = ssmred.reduce(
        model, 0.3, horizon=T, guarantee="layer", feedthrough="diagonal", progress=False
    )
    assert layerwise.states[0] < layerwise.states[1]
    before, after = import_network(model), import_network(layerwise.model)
    for one, other in zip(before.layers, after.layers, strict=True):
        error = h2_error(one.system, other.system, horizon=T)[0]
        record = next(r for r in layerwise.certificate.layers if r.name == one.name)
        norm = h2_error(one.system, one.system.replace(C=0 * one.system.C, D=0 * one.system.D),
                        horizon=T)[0]  # fmt: skip
        np.testing.assert_allclose(record.relative_error, error / norm, rtol=1e-6)
        assert record.relative_error <= 0.3
    assert not [a for a in layerwise.alternatives if a.guarantee == "layer"]
    worst = ssmred.reduce(model, states=0.75, horizon=T, feedthrough="diagonal", progress=False)
    data = signals(64).clamp(-1, 1)
    with torch.no_grad():
        errors = (model.double()(data.double()) - worst.model.double()(data.double())).norm(dim=-1)
    assert worst.certificate.guarantee == "worst-case"
    assert float(errors.max()) <= worst.certificate.bound * worst.certificate.scale


def test_shapes_that_do_not_exist():
    with pytest.raises(RequestError, match="feedthrough must be one of full, diagonal"):
        ssmred.reduce(network("lru"), feedthrough="triangular", horizon=T, progress=False)
