"""Elimination with a carried inverse against the one that finds it anew, and against QR."""

from __future__ import annotations

import numpy as np
import pytest
from independent_errors import energy, energy_over, sizes

from ssmred.gramians import basis_coefficients, basis_square_root
from ssmred.kernels.elimination import fill_removals
from ssmred.kernels.shared_elimination import fill_shared_removals
from ssmred.kernels.single_removals import fill_root_removals
from ssmred.reductors import SubsetReductor, single_removal_errors
from ssmred.systems import DiagonalSystem

SAME = 1e-12  # of the norm: two ways of rounding the same errors
CHOICE = 1e-5  # carried rows are right to 1e-6 of themselves, a cost is a quotient of two squares
FLOOR = 1e-14  # of the norm: below it a cost is rounding
TRUE = 1e-9  # relative; conditioning (1e3) times rounding, for errors far above the floor


def layer(rng, n, m, p, *, poles=None, batch=(2,), real_output=True, recurrence="post-update"):
    def normal(*shape):
        return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)

    if poles is None:
        radii = np.sqrt(rng.uniform(0.5, 0.998, (*batch, n)))
        poles = radii * np.exp(1j * rng.uniform(0, 3.1, (*batch, n)))
    D = rng.standard_normal((*batch, p, m))
    return DiagonalSystem(
        np.broadcast_to(poles, (*batch, n)),
        normal(*batch, n, m),
        normal(*batch, p, n),
        D,
        recurrence=recurrence,
        real_output=real_output,
    )


def problem(system, horizon=None):
    factor = np.ascontiguousarray(basis_square_root(system, horizon=horizon))
    return factor, factor @ basis_coefficients(system), factor.shape[-1] - 2 * system.order


def both(factor, target, fixed):
    found = []
    for fill in (fill_removals, fill_shared_removals):
        modes = (factor.shape[-1] - fixed) // 2
        order = np.empty((len(factor), modes), np.int64)
        errors = np.zeros((len(factor), modes + 1))
        fill(factor, target, fixed, order, errors)
        found.append((order, errors))
    return found


@pytest.mark.theorem("shared-elimination")
@pytest.mark.parametrize(("n", "m", "p"), [(5, 2, 3), (16, 1, 1), (20, 8, 4), (30, 3, 20)])
@pytest.mark.parametrize("real_output", [True, False])
def test_both_eliminations_take_the_same_path(n, m, p, real_output):
    rng = np.random.default_rng(1)
    system = layer(rng, n, m, p, real_output=real_output)
    one, two = both(*problem(system))
    assert np.array_equal(one[0], two[0])
    assert np.allclose(one[1], two[1], rtol=0, atol=SAME * one[1].max())


HARD = {
    "small steps": np.exp(1e-2 * (-0.5 + 1j * np.pi * np.arange(24))),
    "clusters": np.repeat(0.9 * np.exp(1j * np.arange(1, 9) / 3), 3) * (1 + 1e-7 * np.arange(24)),
    "real": np.concatenate([1 - np.logspace(-1, -9, 12), -1 + np.logspace(-1, -6, 12)]),
    "repeated": np.repeat(0.8 * np.exp(1j * np.arange(1, 13) / 4), 2),
}


@pytest.mark.theorem("shared-elimination")
@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize("horizon", [100, None])
def test_every_step_takes_the_cheapest_mode(name, horizon):
    """What each step adds, against the costs of all candidates from a fresh QR of what is left."""
    for seed in range(10):
        for m in (1, 2):
            rng = np.random.default_rng(seed)
            system = layer(rng, 24, m, 3, poles=HARD[name], batch=(1,))
            if name == "real" and m == 1:
                # with a complex B their two columns are parallel, and rounding, which no two
                # algorithms share, picks a direction for the second one
                system = system.replace(B=system.B.real)
            check_choices(system, horizon)


def fresh_costs(columns, target, fixed):
    """Cost of every candidate from a QR of what is left."""
    size = columns.shape[1]
    stack = np.linalg.qr(np.concatenate([columns, target], 1), mode="r")
    costs = np.empty((1, (size - fixed) // 2))
    fill_root_removals(
        np.ascontiguousarray(stack[None, :size, :size]),
        np.ascontiguousarray(stack[None, :size, size:]),
        fixed,
        costs,
    )
    return costs[0]


def check_choices(system, horizon):
    factor, target, fixed = problem(system, horizon)
    order = np.empty((1, 24), np.int64)
    errors = np.zeros((1, 25))
    fill_shared_removals(factor, target, fixed, order, errors)
    norm = np.linalg.norm(target)
    rng = np.random.default_rng(0)
    left = list(range(24))
    for step, mode in enumerate(order[0].tolist()):
        columns = list(range(fixed))
        for e in left:
            columns += [fixed + 2 * e, fixed + 2 * e + 1]
        exact = factor[0][:, columns]
        costs = fresh_costs(exact, target[0], fixed)
        # The factor that is carried along was made triangular anew at every step, and each time a
        # column may move by a rounding per column. Poles that nearly coincide (condition 4e15)
        # turn such a move into any cost below a level that differs from mode to mode: it is
        # measured, by moving the columns so.
        size = len(columns)
        move = (step + 1) * size * np.finfo(float).eps * np.linalg.norm(exact, axis=0)
        unsure = np.zeros(len(left))
        for _ in range(4):
            way = rng.standard_normal(exact.shape)
            moved = exact + way / np.linalg.norm(way, axis=0) * move
            unsure = np.maximum(unsure, np.abs(fresh_costs(moved, target[0], fixed) - costs))
        place, least = left.index(mode), int(costs.argmin())
        taken = costs[place]
        assert taken - unsure[place] <= costs[least] * (1 + CHOICE) + unsure[least] + FLOOR * norm
        added = np.sqrt(max(errors[0, step + 1] ** 2 - errors[0, step] ** 2, 0.0))
        if errors[0, step + 1] < 10 * added:  # else the difference of squares has lost it
            assert abs(added - taken) <= CHOICE * taken + FLOOR * norm + unsure[place]
        left.remove(mode)


@pytest.mark.theorem("removal-cost")
@pytest.mark.parametrize("recurrence", ["standard", "post-update"])
@pytest.mark.parametrize(("m", "p"), [(4, 4), (2, 6), (6, 1)])
def test_errors_of_shared_layers_in_sixty_digits(recurrence, m, p):
    rng = np.random.default_rng(3)
    poles = np.concatenate([0.95 * np.exp(1j * np.arange(1, 7)), [0.5, 1 - 1e-9]])
    system = layer(rng, 8, m, p, poles=poles, batch=(), recurrence=recurrence)
    for horizon in (15, None):
        path = SubsetReductor(horizon=horizon).path(system)
        for order in (0, 3, 7):
            reduction = path.reduction(order)
            if horizon is None:
                true = energy(system, reduction.system)
            else:
                true = energy_over(system, reduction.system, horizon)
            noise = FLOOR * (sizes(system) + sizes(reduction.system))
            assert abs(reduction.bound.value - true) <= TRUE * true + noise
            assert abs(path.errors[8 - order] - true) <= TRUE * true + noise
        singles = single_removal_errors(system, horizon=horizon)
        assert np.isclose(singles.min(), path.errors[1], rtol=TRUE)


def test_layers_of_real_size_take_a_moment():
    """256 modes, 64 inputs and outputs: the path is a matter of a second, not of minutes."""
    rng = np.random.default_rng(4)
    system = layer(rng, 256, 64, 64, batch=(1,))
    path = SubsetReductor(horizon=256).path(system)
    assert np.all(np.diff(path.errors[0]) >= 0)
    reduction = path.reduction(64)
    assert np.isclose(reduction.bound.value[0], path.errors[0, 192], rtol=TRUE)
