"""Modal truncation by chance: which modes stay, and that the bound is that of modal truncation."""

from __future__ import annotations

import numpy as np
import pytest
from hard_systems import dense, diagonal, pairs
from theory_systems import sampled_error

from ssmred.errors import OrderError, ShapeError, UnstableSystemError
from ssmred.reductors import ModalReductor
from ssmred.systems import DiagonalSystem

ROUNDING = 1e-14  # of a sum of a few norms, relative

pytestmark = pytest.mark.theorem("modal-truncation")


def reduced(system, kept, **options):
    return ModalReductor(measure="random", **options).path(system).reduction(kept)


def places(system, reduction):
    """Return where the modes that stay are among the full system's, one set per channel."""
    full = system.poles.reshape(-1, system.order)
    kept = reduction.system.poles.reshape(len(full), -1)
    orders = np.ravel(reduction.orders)
    return [
        frozenset(int(np.flatnonzero(a == pole)[0]) for pole in b[:order])
        for a, b, order in zip(full, kept, orders, strict=True)
    ]


@pytest.mark.parametrize("seed", range(20))
def test_the_claim_is_the_sum_of_the_norms_that_went(seed):
    """By hand, without the sorting of the code; and no sampled error exceeds it."""
    system = diagonal(seed, m=2, p=3)
    margins = 1 - np.abs(system.poles)
    norms = np.linalg.norm(system.C, axis=0) * np.linalg.norm(system.B, axis=1) / margins
    for order in range(system.order + 1):
        reduction = reduced(system, order, seed=seed)
        (stays,) = places(system, reduction)
        gone = sum(norms[i] for i in range(system.order) if i not in stays)
        assert len(stays) == order
        assert reduction.claim.value == pytest.approx(gone, rel=ROUNDING)
        assert sampled_error(system, reduction.system) <= reduction.claim.value


def test_every_choice_of_modes_comes_up():
    """Two of five: ten choices of probability 1/10; 500 seeds miss one with 10 * 0.9^500."""
    system = diagonal(0)
    found = [places(system, reduced(system, 2, seed=seed))[0] for seed in range(500)]
    assert len(set(found)) == 10
    most = max(found.count(choice) for choice in set(found))
    assert most <= 100  # 50 are expected; twice as many are 7 standard deviations away


def test_orders_are_nested_and_those_of_the_seed():
    system = diagonal(1, batch=(40,))
    for kept in range(1, system.order):
        fewer, more = (places(system, reduced(system, k, seed=5)) for k in (kept, kept + 1))
        assert all(a < b for a, b in zip(fewer, more, strict=True))
        assert places(system, reduced(system, kept, seed=5)) == fewer
        assert places(system, reduced(system, kept, seed=6)) != fewer
        assert places(system, reduced(system, kept, seed=[5, 1])) != fewer


def test_every_channel_has_an_order_of_its_own():
    one = diagonal(2)
    arrays = {
        name: np.broadcast_to(getattr(one, name), (60, *getattr(one, name).shape))
        for name in ("poles", "B", "C", "D")
    }
    system = DiagonalSystem(**arrays)
    assert len(set(places(system, reduced(system, 2)))) == 10


@pytest.mark.parametrize("kept", range(6))
@pytest.mark.parametrize("seed", range(6))
def test_conjugate_pairs_stay_or_go_as_a_whole(kept, seed):
    system = pairs(3)  # two pairs and a real mode
    poles = reduced(system, kept, seed=seed).system.poles
    assert kept - 1 <= poles.size <= kept
    np.testing.assert_array_equal(np.sort(poles), np.sort(poles.conj()))
    assert np.isin(poles, system.poles).all()
    plant = dense(4, n=6)
    eigenvalues = reduced(plant, kept, seed=seed).system.poles
    wanted = plant.poles[np.argmin(abs(plant.poles[:, None] - eigenvalues), axis=0)]
    np.testing.assert_allclose(eigenvalues, wanted, rtol=1e-9)
    np.testing.assert_allclose(np.sort(eigenvalues), np.sort(eigenvalues.conj()), rtol=1e-9)


def test_modes_without_a_norm_are_the_last_to_be_kept():
    system = diagonal(5, n=6)
    B = system.B.copy()
    B[[0, 3]] = 0.0
    system = system.replace(B=B)
    for seed in range(20):
        assert places(system, reduced(system, 4, seed=seed)) == [frozenset({1, 2, 4, 5})]


def test_the_seed_moves_nothing_where_norms_decide():
    system = diagonal(6, batch=(4,))
    for measure in ("hinf", "h2"):
        one, two = (
            ModalReductor(measure=measure, seed=seed).reduce(system, order=2).system.poles
            for seed in (0, 1)
        )
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("seed", [-1, 0.5, True, "3", None, [1, -1], [2, 0.5]])
def test_seeds_that_are_none_are_refused(seed):
    with pytest.raises(OrderError, match="seed"):
        ModalReductor(measure="random", seed=seed)


def test_other_words_and_unstable_systems_are_refused():
    with pytest.raises(ShapeError, match="'random'"):
        ModalReductor(measure="chance")
    with pytest.raises(UnstableSystemError):
        reduced(DiagonalSystem([1.5, 0.5], [1.0, 1.0], [1.0, 1.0]), 1)
