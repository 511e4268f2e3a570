"""Real systems given with their full spectrum: pairs leave together, outputs stay real."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from ssmred.errors import ToleranceError, UnstableSystemError
from ssmred.reductors import SubsetReductor, allocate
from ssmred.reductors.conjugation import find_conjugate_pairs
from ssmred.systems import DiagonalSystem

ALGEBRA = 1e-11  # conditioning of random read-out problems (up to 1e3) times rounding
REAL = 1e-13  # imaginary part of a sum of up to 20 conjugate terms, relative to its size
SMALL = 300  # samples; |pole| <= 0.9 leaves 1e-14 of the response after them


def complex_normal(rng, *shape):
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def closed_system(rng, *, batch=(), pairs=3, reals=2, m=1, p=1, shuffle=True, **options):
    """Return a full spectrum, modes in random order, and the same responses as a half spectrum."""
    l = 0.9 * np.sqrt(rng.random((*batch, pairs))) * np.exp(1j * rng.uniform(-3, 3, pairs))
    real = rng.uniform(-0.9, 0.9, (*batch, reals))
    if options.get("dt") == 0:
        l, real = np.log(l), -np.exp(real)
    b, br = complex_normal(rng, *batch, pairs, m), rng.standard_normal((*batch, reals, m))
    c, cr = complex_normal(rng, *batch, p, pairs), rng.standard_normal((*batch, p, reals))
    D = rng.standard_normal((*batch, p, m))
    half = DiagonalSystem(
        np.concatenate([l, real], -1),
        np.concatenate([b, br], -2),
        np.concatenate([2 * c, cr], -1),
        D,
        real_output=True,
        **options,
    )
    order = rng.permutation(2 * pairs + reals) if shuffle else np.arange(2 * pairs + reals)
    full = DiagonalSystem(
        np.concatenate([l, l.conj(), real], -1)[..., order],
        np.concatenate([b, b.conj(), br], -2)[..., order, :],
        np.concatenate([c, c.conj(), cr], -1)[..., order],
        D,
        **options,
    )
    return full, half


def assert_pairs_whole(reduction, full):
    """Check mode by mode that what is kept comes with its conjugate, and the read-outs agree."""
    kept = np.flatnonzero(reduction.kept)
    assert np.array_equal(reduction.system.poles, full.poles[kept])
    assert np.array_equal(reduction.system.B, full.B[kept])
    data = [reduction.system.poles[:, None], reduction.system.B, reduction.system.C.T]
    rows = np.concatenate(data, axis=-1)
    gaps = np.abs(rows[:, None] - rows[None].conj()).max(axis=-1, initial=0)
    assert not kept.size or np.all(gaps.min(axis=-1) <= REAL * np.abs(rows).max())


def best_error(full, kept, horizon, *, free_D):
    """Return the least error over all complex read-outs of the kept modes, by NumPy's lstsq."""
    basis = []
    for j in kept:
        one = DiagonalSystem(
            full.poles[[j]], full.B[[j]], np.ones((1, 1)), recurrence=full.recurrence
        )
        basis.append(one.impulse_response(horizon).ravel())
    for i in range(full.inputs if free_D else 0):
        unit = np.zeros((horizon, full.inputs))
        unit[0, i] = 1
        basis.append(unit.ravel())
    energy = 0.0
    target = full.impulse_response(horizon)
    if not free_D:
        target[0] = 0
    for o in range(full.outputs):
        y = target[:, o].ravel().astype(complex)
        if basis:
            Phi = np.array(basis).T
            y = y - Phi @ np.linalg.lstsq(Phi, y, rcond=None)[0]
        energy += np.sum(np.abs(y) ** 2)
    return np.sqrt(energy)


@pytest.mark.theorem("optimal-readout")
@pytest.mark.parametrize("recurrence", ["standard", "post-update"])
@pytest.mark.parametrize(("m", "p"), [(1, 1), (2, 3)])
@pytest.mark.parametrize("horizon", [40, None])
def test_every_order_is_real_whole_and_optimal_on_its_modes(recurrence, m, p, horizon):
    rng = np.random.default_rng(1)
    full, _ = closed_system(rng, m=m, p=p, recurrence=recurrence, dt=0.5)
    path = SubsetReductor(horizon=horizon).path(full)
    h = full.impulse_response(horizon or SMALL)
    scale = np.linalg.norm(h)
    for order in range(full.order + 1):
        reduction = SubsetReductor(horizon=horizon).reduce(full, order=order)
        assert reduction.orders <= order
        assert reduction.system.order == reduction.orders == reduction.kept.sum()
        assert not reduction.system.real_output
        assert (reduction.system.dt, reduction.system.recurrence) == (0.5, recurrence)
        assert_pairs_whole(reduction, full)
        reduced = reduction.system.impulse_response(horizon or SMALL)
        assert np.abs(reduced.imag).max() <= REAL * scale
        reached = np.linalg.norm(reduced - h)
        kept = np.flatnonzero(reduction.kept)
        free_D = recurrence == "post-update"
        best = best_error(full, kept, horizon or SMALL, free_D=free_D)
        assert abs(reached - best) <= ALGEBRA * scale
        assert abs(reduction.bound.value - reached) <= ALGEBRA * scale
        assert abs(path.errors[full.order - order] - reached) <= ALGEBRA * scale
        assert set(path.removal[full.order - reduction.orders :].tolist()) == set(kept.tolist())
        # the largest set on the path: the next one, by 1 or 2 modes, would be too large
        if order < full.order:
            following = path.reduction(min(int(reduction.orders) + 2, full.order)).orders
            assert following > reduction.orders
            assert reduction.orders >= order - 1


@pytest.mark.theorem("optimal-readout")
@pytest.mark.parametrize("options", [{}, {"recurrence": "post-update"}, {"dt": 0.0}])
@pytest.mark.parametrize(("m", "p"), [(1, 1), (3, 2)])
def test_the_half_spectrum_gives_the_same(options, m, p):
    rng = np.random.default_rng(2)
    full, half = closed_system(rng, pairs=4, reals=2, m=m, p=p, shuffle=False, **options)
    expected = SubsetReductor().path(half)
    path = SubsetReductor().path(full)
    assert np.isclose(path.norms, expected.norms, rtol=1e-14)
    for count in range(7):
        reference = expected.reduction(count)
        kept = np.concatenate([reference.kept[:4], reference.kept])
        reduction = path.reduction(int(kept.sum()))
        assert np.array_equal(reduction.kept, kept)
        assert np.array_equal(reduction.bound.value, reference.bound.value)
        pairs = int(reference.kept[:4].sum())
        C = reference.system.C
        both = np.concatenate([C[:, :pairs] / 2, C[:, :pairs].conj() / 2, C[:, pairs:].real], -1)
        assert np.allclose(reduction.system.C, both, rtol=0, atol=1e-14 * np.abs(C).max(initial=1))
        assert np.array_equal(reduction.system.D, reference.system.D)


@pytest.mark.theorem("removal-cost")
def test_every_step_takes_the_cheapest_pair_or_real_mode():
    rng = np.random.default_rng(3)
    full, _ = closed_system(rng, pairs=3, reals=2, recurrence="post-update")
    partner = find_conjugate_pairs(full).partner
    path = SubsetReductor(horizon=40).path(full)
    left = set(range(full.order))
    removed = 0
    while left:
        groups = {tuple(sorted({i, int(partner[i])})) for i in left}
        costs = {
            group: best_error(full, sorted(left - set(group)), 40, free_D=True) for group in groups
        }
        cheapest = min(groups, key=lambda group: costs[group])
        taken = path.removal[removed : removed + len(cheapest)]
        assert sorted(taken.tolist()) == list(cheapest)
        removed += len(cheapest)
        assert np.isclose(path.errors[removed], costs[cheapest], rtol=1e-9)
        left -= set(cheapest)
    assert np.all(np.diff(path.errors) >= 0)


def test_three_pairs_and_a_real_mode_against_all_closed_subsets():
    """No closed set of one pair has a smaller error than the best; the path finds it here."""
    rng = np.random.default_rng(4)
    l = np.array([0.9 * np.exp(0.3j), 0.5 * np.exp(1j), 0.3 * np.exp(2.5j)])
    c = complex_normal(rng, 3)
    full = DiagonalSystem([*l, *l.conj(), 0.5], np.ones(7), [*c, *c.conj(), 1.0])
    reduction = SubsetReductor().reduce(full, order=3)
    closed = [
        [*pairs, *(i + 3 for i in pairs), *real]
        for count in (0, 1)
        for pairs in itertools.combinations(range(3), count)
        for real in ([], [6])
    ]
    errors = [best_error(full, kept, SMALL, free_D=False) for kept in closed]
    # backward elimination need not be optimal, but no closed set may beat the least of them
    assert min(errors) <= reduction.bound.value * (1 + ALGEBRA)
    assert any(abs(reduction.bound.value - e) <= ALGEBRA for e in errors)
    assert not np.any(SubsetReductor().reduce(full, order=1).system.impulse_response(9).imag)


def test_a_batch_with_different_numbers_of_pairs_is_its_channels_one_by_one():
    rng = np.random.default_rng(5)
    for options in ({"recurrence": "post-update"}, {"dt": 0.0}):
        parts = [
            closed_system(rng, pairs=pairs, reals=6 - 2 * pairs, **options)[0]
            for pairs in (3, 1, 0, 2)
        ]
        stacked = {
            name: np.array([getattr(part, name) for part in parts])
            for name in ("poles", "B", "C", "D")
        }
        batch = DiagonalSystem(**stacked, **options)
        path = SubsetReductor().path(batch)
        kept = np.array([3, 2, 5, 5])
        together = path.reduction(kept)
        assert together.orders.tolist()[:3:2] == [2, 5]
        assert not together.system.real_output
        for i, part in enumerate(parts):
            alone = SubsetReductor().path(part)
            assert np.array_equal(alone.removal, path.removal[i])
            assert np.allclose(alone.errors, path.errors[i], rtol=1e-9, atol=1e-14)
            reduction = alone.reduction(int(kept[i]))
            width = int(reduction.orders)
            assert np.array_equal(reduction.kept, together.kept[i])
            assert np.allclose(
                reduction.system.C, together.system.C[i][:, :width], rtol=1e-9, atol=1e-11
            )
        tol = SubsetReductor().reduce(batch, tol=0.05)
        assert np.all(tol.bound.relative <= 0.05)
        assert np.array_equal(tol.kept.sum(axis=-1), tol.orders)


@pytest.mark.parametrize("tol", [0.5, 1e-2, 1e-6])
def test_tolerance_is_met_by_the_smallest_set_on_the_path(tol):
    rng = np.random.default_rng(6)
    full, _ = closed_system(rng, batch=(8,), pairs=5, reals=1)
    path = SubsetReductor().path(full)
    reduction = SubsetReductor().reduce(full, tol=tol)
    assert np.all(reduction.bound.relative <= tol)
    fewer = np.maximum(reduction.orders - 1, 0)
    assert np.all((path.reduction(fewer).bound.relative > tol) | (reduction.orders == 0))
    with pytest.raises(ToleranceError):
        SubsetReductor().reduce(full, tol=0.0)


def test_allocation_takes_a_path_of_pairs():
    rng = np.random.default_rng(7)
    full, _ = closed_system(rng, batch=(4,), pairs=4, reals=1)
    path = SubsetReductor().path(full)
    (kept,) = allocate([path], [np.ones(4)], states=30)
    reduction = path.reduction(kept)
    assert 2 * reduction.orders.sum() <= 30
    assert np.array_equal(reduction.bound.value, path.reduction(reduction.orders).bound.value)


def test_repeated_poles_and_equal_pairs():
    l = 0.8 * np.exp(0.7j)
    poles = [l, l.conjugate(), l, l, l.conjugate(), l.conjugate(), 0.5, 0.5]
    c = [1 + 2j, 1 - 2j, 1 + 2j, 3j, -3j, 1 - 2j, 1.0, 2.0]
    full = DiagonalSystem(poles, np.ones(8), c)
    pairs = find_conjugate_pairs(full)
    assert pairs.partner.tolist() == [1, 0, 5, 4, 3, 2, 6, 7]
    path = SubsetReductor().path(full)
    reduction = path.reduction(3)
    assert reduction.orders == 3
    assert reduction.bound.relative < 1e-14
    gap = reduction.system.impulse_response(50) - full.impulse_response(50)
    assert np.abs(gap).max() <= 1e-14
    assert np.abs(reduction.system.impulse_response(50).imag).max() <= 1e-15


def test_conjugate_up_to_rounding_and_up_to_the_scale_of_a_state():
    rng = np.random.default_rng(8)
    full, _ = closed_system(rng, m=2, p=2, pairs=4, reals=2)
    exact = SubsetReductor().path(full)
    eps = np.finfo(float).eps
    noisy = {
        name: getattr(full, name) * (1 + eps * complex_normal(rng, *getattr(full, name).shape))
        for name in ("poles", "B", "C")
    }
    scale = complex_normal(rng, full.order)
    for other in (
        full.replace(**noisy),
        full.replace(B=full.B * scale[:, None], C=full.C / scale),
    ):
        path = SubsetReductor().path(other)
        assert np.array_equal(
            find_conjugate_pairs(other).partner, find_conjugate_pairs(full).partner
        )
        assert np.allclose(path.errors, exact.errors, rtol=1e-9, atol=1e-13)
        for order in range(full.order + 1):
            reduction = path.reduction(order)
            kept = np.flatnonzero(reduction.kept)
            assert np.array_equal(reduction.system.B, other.B[kept])
            h = reduction.system.impulse_response(SMALL)
            assert np.abs(h.imag).max() <= REAL * np.abs(h).max()
            gap = np.linalg.norm(h - full.impulse_response(SMALL))
            assert abs(gap - reduction.bound.value) <= ALGEBRA * exact.norms


def test_real_residues_count_as_real_modes():
    full = DiagonalSystem([0.5, 0.2, 0.9], [1j, 1.0, 2.0 + 1j], [-2j, 1.0, 2.0 - 1j])
    pairs = find_conjugate_pairs(full)
    assert pairs.partner.tolist() == [0, 1, 2]
    for order in range(4):
        reduction = SubsetReductor().reduce(full, order=order)
        assert reduction.orders == order
        h = reduction.system.impulse_response(30)
        assert np.abs(h.imag).max() <= 1e-15
        gap = np.linalg.norm(h - full.impulse_response(SMALL)[:30])
        assert np.isclose(gap, reduction.bound.value, rtol=1e-2, atol=1e-14)


def test_undriven_modes_need_no_partner():
    full = DiagonalSystem([0.5j, 0.3j, -0.5j], [1.0, 0.0, 1.0], [1 + 1j, 7j, 1 - 1j])
    reduction = SubsetReductor().reduce(full, order=2)
    assert reduction.kept.tolist() == [True, False, True]
    assert reduction.bound.value == 0
    assert np.array_equal(reduction.system.C, full.C[:, [0, 2]])


def test_keeping_everything_changes_nothing():
    rng = np.random.default_rng(9)
    for m, p in ((1, 1), (2, 3)):
        full, _ = closed_system(rng, m=m, p=p, recurrence="post-update")
        reduction = SubsetReductor().reduce(full, order=full.order)
        for name in ("poles", "B", "C", "D"):
            assert np.array_equal(getattr(reduction.system, name), getattr(full, name))
        assert reduction.bound.value == 0


def test_complex_systems_have_no_pairs():
    rng = np.random.default_rng(10)
    full, half = closed_system(rng, m=2, p=2, reals=1)
    assert find_conjugate_pairs(full) is not None
    assert find_conjugate_pairs(half) is None
    for name, index in (("poles", 0), ("B", (1, 1)), ("C", (1, 2)), ("D", (0, 1))):
        values = getattr(full, name).astype(complex)
        values[index] += 1e-12 * (1 + 1j)
        other = full.replace(**{name: values})
        assert find_conjugate_pairs(other) is None
        assert SubsetReductor().reduce(other, order=1).orders == 1
    # one channel of a batch that is not real makes the batch complex
    batch, _ = closed_system(rng, batch=(3,))
    C = batch.C.copy()
    C[1, 0, 0] *= 2
    assert find_conjugate_pairs(batch) is not None
    assert find_conjugate_pairs(batch.replace(C=C)) is None


def test_unstable_pairs():
    l = 1.1 * np.exp(1j)
    full = DiagonalSystem([l, l.conjugate(), 0.5], np.ones(3), [1j, -1j, 1.0])
    with pytest.raises(UnstableSystemError):
        SubsetReductor().reduce(full, order=1)
    reduction = SubsetReductor(horizon=30).reduce(full, order=2)
    assert reduction.kept.tolist() == [True, True, False]
    error = np.linalg.norm(reduction.system.impulse_response(30) - full.impulse_response(30))
    assert np.isclose(reduction.bound.value, error, rtol=1e-9)
