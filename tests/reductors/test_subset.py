"""Subset removal: optimal read-outs, exact costs, errors that are real."""

from __future__ import annotations

import itertools

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssmred.errors import (
    OrderError,
    ShapeError,
    ToleranceError,
    UnstableSystemError,
    UnsupportedOperationError,
)
from ssmred.gramians import InputMoments, basis_square_root, controllability_gramian
from ssmred.reductors import SubsetReductor
from ssmred.systems import DenseSystem, DiagonalSystem

ALGEBRA = 1e-11  # conditioning of random read-out problems (up to 1e3) times rounding
SMALL = 300  # samples; |pole| <= 0.9 leaves 1e-14 of the response after them


def complex_normal(rng, *shape):
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def random_system(rng, *, batch=(), n=4, m=1, p=1, radius=0.9, **options):
    poles = radius * np.sqrt(rng.random((*batch, n))) * np.exp(2j * np.pi * rng.random((*batch, n)))
    D = rng.standard_normal((*batch, p, m))
    if not options.get("real_output", False):
        D = D + 1j * rng.standard_normal(D.shape)
    return DiagonalSystem(
        poles, complex_normal(rng, *batch, n, m), complex_normal(rng, *batch, p, n), D, **options
    )


def s4d_lin(rng, channels, modes, low, high):
    """Return the S4D-Lin initialisation with log-uniform steps and random read-outs."""
    step = np.exp(rng.uniform(np.log(low), np.log(high), (channels, 1)))
    A = -0.5 + 1j * np.pi * np.arange(modes)
    poles = np.exp(step * A)
    C = 2 * complex_normal(rng, channels, modes)
    D = rng.standard_normal(channels)
    return DiagonalSystem(poles, (poles - 1) / A, C, D, recurrence="post-update", real_output=True)


def response(system, horizon):
    """Return impulse responses as (..., samples p m), real and imaginary parts apart."""
    h = system.impulse_response(horizon)
    h = h.reshape(*system.batch_shape, -1)
    return np.concatenate([h.real, h.imag], axis=-1)


def best_error(system, keep, horizon, *, free_D):
    """Return the least error over read-outs of the kept modes, by NumPy's SVD-based lstsq."""
    kept = list(keep)
    basis, target = [], system.impulse_response(horizon)
    one = system.replace(
        poles=system.poles[kept],
        B=system.B[kept],
        C=np.zeros((1, len(kept))),
        D=np.zeros((1, system.inputs)),
    )
    if not free_D:
        target = target - system.replace(C=0 * system.C).impulse_response(horizon)
    units = (1,) if system.real_output else (1, 1j)
    for j in range(len(kept)):
        for unit in (1, 1j):
            C = np.zeros((1, len(kept)), dtype=complex)
            C[0, j] = unit
            basis.append(response(one.replace(C=C), horizon))
    for j in range(system.inputs if free_D else 0):
        for unit in units:
            D = np.zeros((1, system.inputs), dtype=complex)
            D[0, j] = unit
            basis.append(response(one.replace(D=D.real if system.real_output else D), horizon))
    energy = 0.0
    for o in range(system.outputs):
        y = target[:, o, :].ravel()
        y = np.concatenate([y.real, y.imag])
        if basis:
            Phi = np.array(basis).T
            y = y - Phi @ np.linalg.lstsq(Phi, y, rcond=None)[0]
        energy += y @ y
    return np.sqrt(energy)


@pytest.mark.theorem("optimal-readout")
@pytest.mark.parametrize("recurrence", ["standard", "post-update"])
@pytest.mark.parametrize("real_output", [True, False])
@pytest.mark.parametrize(("m", "p"), [(1, 1), (2, 3), (3, 1)])
@pytest.mark.parametrize("horizon", [3, 40, None])
def test_read_out_is_the_least_squares_one(recurrence, real_output, m, p, horizon):
    rng = np.random.default_rng(1)
    system = random_system(rng, n=5, m=m, p=p, recurrence=recurrence, real_output=real_output)
    path = SubsetReductor(horizon=horizon).path(system)
    full = response(system, horizon or SMALL)
    scale = np.linalg.norm(full)
    for order in range(6):
        reduction = path.reduction(order)
        reached = np.linalg.norm(response(reduction.system, horizon or SMALL) - full)
        keep = np.flatnonzero(reduction.kept)
        # D of a standard system is seen alone and stays; a short horizon sees it alone too
        best = best_error(system, keep, horizon or SMALL, free_D=recurrence == "post-update")
        assert abs(reached - best) <= ALGEBRA * scale
        assert abs(reduction.bound.value - reached) <= ALGEBRA * scale
        assert abs(path.errors[5 - order] - reached) <= ALGEBRA * scale
        assert np.array_equal(reduction.system.poles, system.poles[keep])
        assert np.array_equal(reduction.system.B, system.B[keep])


@pytest.mark.theorem("optimal-readout")
@pytest.mark.parametrize("horizon", [20, None])
def test_read_out_in_terms_of_the_gramian(horizon):
    rng = np.random.default_rng(2)
    system = random_system(rng, n=6, m=2, p=3)
    reduction = SubsetReductor(horizon=horizon).reduce(system, order=3)
    P = controllability_gramian(system, horizon=None if horizon is None else horizon - 1)
    S = np.flatnonzero(reduction.kept)
    expected = system.C @ P[:, S] @ np.linalg.inv(P[np.ix_(S, S)])
    assert np.allclose(reduction.system.C, expected, rtol=0, atol=1e-11)
    assert np.array_equal(reduction.system.D, system.D)


@pytest.mark.theorem("optimal-readout")
def test_read_out_in_continuous_time():
    rng = np.random.default_rng(3)
    poles = -np.exp(rng.uniform(-2, 2, 6)) + 3j * rng.standard_normal(6)
    system = DiagonalSystem(
        poles, complex_normal(rng, 6, 2), complex_normal(rng, 3, 6), np.ones((3, 2)), dt=0.0
    )
    P = controllability_gramian(system)
    path = SubsetReductor().path(system)
    for order in (0, 2, 5):
        reduction = path.reduction(order)
        S = np.flatnonzero(reduction.kept)
        expected = system.C @ P[:, S] @ np.linalg.inv(P[np.ix_(S, S)])
        assert np.allclose(reduction.system.C, expected, rtol=0, atol=1e-10)
        assert np.array_equal(reduction.system.D, system.D)
        V = np.zeros((3, 6), dtype=complex)
        V[:, S] = expected
        energy = np.trace((system.C - V) @ P @ (system.C - V).conj().T).real
        assert np.isclose(reduction.bound.value, np.sqrt(energy), rtol=1e-9)


@pytest.mark.theorem("removal-cost")
@pytest.mark.parametrize("real_output", [True, False])
@pytest.mark.parametrize("recurrence", ["standard", "post-update"])
def test_every_step_takes_the_cheapest_mode(real_output, recurrence):
    rng = np.random.default_rng(4)
    system = random_system(rng, n=6, recurrence=recurrence, real_output=real_output)
    path = SubsetReductor(horizon=30).path(system)
    left = set(range(6))
    for k, mode in enumerate(path.removal):
        errors = {
            e: best_error(system, sorted(left - {e}), 30, free_D=recurrence == "post-update")
            for e in left
        }
        assert errors[int(mode)] <= min(errors.values()) * (1 + ALGEBRA)
        assert np.isclose(path.errors[k + 1], errors[int(mode)], rtol=1e-9)
        left.remove(int(mode))


@pytest.mark.theorem("removal-cost")
def test_cost_of_one_removal_from_the_inverse_gramian():
    rng = np.random.default_rng(5)
    system = random_system(rng, n=5, p=2)
    inverse = np.linalg.inv(controllability_gramian(system))
    costs = np.sum(np.abs(system.C) ** 2, axis=0) / np.diag(inverse).real
    path = SubsetReductor().path(system)
    assert path.removal[0] == np.argmin(costs)
    assert np.isclose(path.errors[1] ** 2, costs.min(), rtol=1e-9)


@pytest.mark.theorem("nested-pythagoras")
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_squared_errors_add_along_the_path(seed, post_update):
    rng = np.random.default_rng(seed)
    recurrence = "post-update" if post_update else "standard"
    system = random_system(rng, batch=(2,), n=5, recurrence=recurrence, real_output=True)
    path = SubsetReductor(horizon=50).path(system)
    assert np.all(np.diff(path.errors, axis=-1) >= 0)  # zero slack
    previous, sum_of_squares = response(system, 50), np.zeros(2)
    for order in range(4, -1, -1):
        current = response(path.reduction(order).system, 50)
        sum_of_squares += np.sum((current - previous) ** 2, axis=-1)
        scale = path.norms**2
        assert np.all(np.abs(sum_of_squares - path.errors[:, 5 - order] ** 2) <= ALGEBRA * scale)
        previous = current


@pytest.mark.theorem("static-gain")
@pytest.mark.parametrize("recurrence", ["standard", "post-update"])
def test_channel_without_states_becomes_its_best_static_gain(recurrence):
    rng = np.random.default_rng(6)
    system = random_system(rng, batch=(3,), recurrence=recurrence, real_output=True)
    V = rng.standard_normal((10, 3, 25)).cumsum(axis=-1)
    moments = InputMoments(3, 25)
    moments.update(V)
    y = system.simulate(V[..., None])[..., 0]
    gain = np.sum(V * y, axis=(0, 2)) / np.sum(V * V, axis=(0, 2))
    error = np.sqrt(np.mean(np.sum((y - gain[:, None] * V) ** 2, axis=-1), axis=0))
    reduction = SubsetReductor(metric=moments).path(system).reduction(0)
    assert reduction.system.order == 0
    assert np.allclose(reduction.system.D[:, 0, 0], gain, rtol=1e-11)
    assert np.allclose(reduction.bound.value, error, rtol=1e-9)
    # in the h2 metric only the first sample is seen by D
    h2 = SubsetReductor(horizon=25).path(system).reduction(0)
    assert np.allclose(h2.system.D, system.impulse_response(1)[:, 0], rtol=0, atol=1e-14)


@pytest.mark.theorem("square-root-doubling")
@pytest.mark.parametrize("step", [1e-3, 2e-3, 4e-3])
def test_errors_down_to_1e_14_are_real(step):
    """Compare reported errors with 50-digit errors of the stored systems."""
    rng = np.random.default_rng(7)
    system = s4d_lin(rng, 1, 32, step, step)
    path = SubsetReductor(horizon=196).path(system)
    relative = path.errors[0] / path.norms[0]
    norm = path.norms[0]
    seen = 0
    for removed in range(0, 33, 2):
        reduction = path.reduction(32 - removed)
        if not 1e-15 < relative[removed] < 1e-3:
            continue
        with mp.workdps(50):
            full = terms(system, 0)
            cut = [(pole, -residue) for pole, residue in terms(reduction.system, 0)]
            states = [residue for _, residue in full + cut]
            poles = [pole for pole, _ in full + cut]
            energy = mp.mpf(0)
            D = mp.mpf(system.D[0, 0, 0]) - mp.mpf(reduction.system.D[0, 0, 0])
            for k in range(196):
                h = mp.re(mp.fsum(states)) + (D if k == 0 else 0)
                energy += h * h
                states = [s * pole for s, pole in zip(states, poles, strict=True)]
            true = float(mp.sqrt(energy))
        noise = 4e-16 * norm  # rounding of R, and what stands for it
        assert abs(reduction.bound.value[0] - true) <= 1e-3 * true + noise
        assert abs(path.errors[0, removed] - true) <= 1e-3 * true + noise
        seen += 1e-14 < relative[removed] < 1e-9
    assert seen >= 1


def terms(system, channel):
    """Return (pole, residue) of every mode as exact mpmath numbers."""
    return [
        (mp.mpc(pole), mp.mpc(c) * mp.mpc(b))
        for pole, b, c in zip(
            system.poles[channel].tolist(),
            system.B[channel, :, 0].tolist(),
            system.C[channel, 0].tolist(),
            strict=True,
        )
    ]


def test_redundancy_of_small_steps_is_found():
    """S4D-Lin at 196 samples: at least 40 % of the states are redundant to 1e-10."""
    rng = np.random.default_rng(8)
    system = s4d_lin(rng, 64, 32, 1e-3, 1e-2)
    reduction = SubsetReductor(horizon=196).reduce(system, tol=1e-10)
    assert np.all(reduction.bound.relative <= 1e-10)
    assert reduction.orders.sum() <= 0.6 * 64 * 32


def test_redundancy_over_all_steps_is_that_of_the_numerical_rank():
    """Steps up to 0.1: no more modes stay than the rank of the scaled basis, found by an SVD."""
    rng = np.random.default_rng(9)
    system = s4d_lin(rng, 32, 32, 1e-3, 1e-1)
    path = SubsetReductor(horizon=196).path(system)
    kept = path.reduction_to(1e-10).orders
    R = basis_square_root(system, horizon=196)[:, 1:, 1:]
    residues = np.repeat(np.abs(system.C[:, 0] * system.B[..., 0]), 2, axis=-1)
    values = np.linalg.svd(R * residues[:, None, :], compute_uv=False)
    rank = np.sum(values > 1e-10 * path.norms[:, None], axis=-1)
    assert np.all(2 * kept <= rank + 2)


def test_repeated_poles_zero_inputs_and_dead_read_outs():
    system = DiagonalSystem(
        [[0.9j, 0.9j, 0.5, 0.5, 0.3]],
        [[1.0, 2.0, 1.0, 0.0, 1.0]],
        [[1.0 + 1j, 1.0, 2.0, 5.0, 0.0]],
        recurrence="post-update",
        real_output=True,
    )
    for horizon in (20, None):
        path = SubsetReductor(horizon=horizon).path(system)
        assert np.all(path.errors[0, :4] <= 1e-14 * path.norms[0])
        reduction = path.reduction(2)
        assert reduction.kept[0].sum() == 2
        assert reduction.kept[0, 2]
        assert not reduction.kept[0, 3:].any()
        h = system.impulse_response(20) - reduction.system.impulse_response(20)
        assert np.abs(h).max() <= 1e-14


@pytest.mark.parametrize("horizon", [1, 2, 50])
def test_modes_on_and_outside_the_circle(horizon):
    system = DiagonalSystem(
        [[1.0, 1j, 1.1 * np.exp(1j), 0.5]],
        np.ones((1, 4)),
        [[1.0, 2.0, 3.0, 4.0]],
        recurrence="post-update",
        real_output=True,
    )
    path = SubsetReductor(horizon=horizon).path(system)
    full = response(system, horizon)
    for order in range(5):
        reduction = path.reduction(order)
        error = np.linalg.norm(response(reduction.system, horizon) - full)
        assert np.isclose(
            reduction.bound.value[0], error, rtol=1e-9, atol=1e-14 * np.linalg.norm(full)
        )
    with pytest.raises(UnstableSystemError):
        SubsetReductor().path(system)


def test_next_to_the_unit_circle():
    """At an infinite horizon two slow modes differ by a factor of the square root of the gap."""
    gap = 1e-12
    system = DiagonalSystem([1 - gap, 0.5], [1.0, 1.0], [1e-6, 1.0])
    path = SubsetReductor().path(system)
    with mp.workdps(50):
        a, b = mp.mpf(system.poles[0].real), mp.mpf(0.5)
        P = mp.matrix([[1 / (1 - a * a), 1 / (1 - a * b)], [1 / (1 - a * b), 1 / (1 - b * b)]])
        inverse = P**-1
        costs = [mp.mpf(1e-6) ** 2 / inverse[0, 0], 1 / inverse[1, 1]]
        cheapest = min(range(2), key=lambda i: costs[i])
        expected = float(mp.sqrt(costs[cheapest]))
    assert path.removal[0] == cheapest
    assert np.isclose(path.errors[1], expected, rtol=1e-12)


def test_a_batch_is_its_channels_one_by_one():
    rng = np.random.default_rng(10)
    system = random_system(rng, batch=(2, 3), n=4, recurrence="post-update", real_output=True)
    path = SubsetReductor(horizon=30).path(system)
    kept = np.array([[0, 1, 2], [3, 4, 2]])
    together = path.reduction(kept)
    assert together.system.batch_shape == (2, 3)
    assert np.array_equal(together.orders, kept)
    assert np.array_equal(together.kept.sum(axis=-1), kept)
    for i, j in itertools.product(range(2), range(3)):
        alone = system.replace(
            poles=system.poles[i, j], B=system.B[i, j], C=system.C[i, j], D=system.D[i, j]
        )
        single = SubsetReductor(horizon=30).path(alone)
        assert np.array_equal(single.removal, path.removal[i, j])
        assert np.array_equal(single.errors, path.errors[i, j])
        reduction = single.reduction(int(kept[i, j]))
        width = kept[i, j]
        assert np.array_equal(reduction.system.C, together.system.C[i, j][:, :width])
        assert np.array_equal(reduction.system.D, together.system.D[i, j])
        assert not np.any(together.system.C[i, j][:, width:])
        assert not np.any(together.system.poles[i, j][width:])


def test_reducing_a_padded_system_again():
    rng = np.random.default_rng(11)
    system = random_system(rng, batch=(3,), n=6, recurrence="post-update", real_output=True)
    once = SubsetReductor(horizon=40).path(system).reduction([2, 6, 4])
    path = SubsetReductor(horizon=40).path(once.system)
    assert set(path.removal[0, :4].tolist()) == {2, 3, 4, 5}
    assert not np.any(path.errors[0, :5])
    again = path.reduction([2, 6, 4])
    assert np.array_equal(again.system.C, once.system.C)


def test_keeping_everything_changes_nothing():
    rng = np.random.default_rng(12)
    for options in ({"real_output": True}, {"m": 2, "p": 2}):
        system = random_system(rng, n=5, recurrence="post-update", **options)
        reduction = SubsetReductor().reduce(system, order=5)
        assert np.array_equal(reduction.system.C, system.C)
        assert np.array_equal(reduction.system.D, system.D)
        assert reduction.bound.value == 0
        assert reduction.bound.relative == 0


def test_order_zero_system_and_zero_read_out():
    empty = DiagonalSystem(np.zeros(0), np.zeros((0, 1)), np.zeros((1, 0)), 2.0)
    reduction = SubsetReductor().reduce(empty, order=0)
    assert reduction.system.D[0, 0] == 2
    silent = DiagonalSystem([0.5, 0.2], [1.0, 1.0], [0.0, 0.0])
    reduction = SubsetReductor().reduce(silent, tol=1e-6)
    assert reduction.orders == 0
    assert reduction.bound.relative == 0


@pytest.mark.parametrize("tol", [1e-1, 1e-3, 1e-6, 1e-12])
def test_tolerance_is_met_and_the_order_minimal(tol):
    rng = np.random.default_rng(13)
    system = s4d_lin(rng, 16, 24, 1e-3, 1e-2)
    path = SubsetReductor(horizon=100).path(system)
    reduction = SubsetReductor(horizon=100).reduce(system, tol=tol)
    assert np.all(reduction.bound.relative <= tol)  # zero slack
    fewer = np.maximum(reduction.orders - 1, 0)
    over = np.take_along_axis(path.errors, (24 - fewer)[:, None], axis=-1)[:, 0] > tol * path.norms
    assert np.all(over | (reduction.orders == 0))


def test_unreachable_tolerance_names_the_best():
    rng = np.random.default_rng(14)
    system = random_system(rng, batch=(2,), recurrence="post-update", real_output=True)
    V = rng.standard_normal((20, 2, 30))
    moments = InputMoments(2, 30, system=system)
    moments.update(V, V + rng.standard_normal(V.shape))
    reductor = SubsetReductor(metric=moments)
    with pytest.raises(ToleranceError) as caught:
        reductor.reduce(system, tol=1e-3)
    best = caught.value.best
    reduction = reductor.reduce(system, tol=best)
    assert np.all(reduction.bound.relative <= best)


@pytest.mark.theorem("calibrated-metric")
def test_calibrated_error_is_the_error_on_the_signals():
    rng = np.random.default_rng(15)
    system = random_system(rng, batch=(3,), n=5, recurrence="post-update", real_output=True)
    V = rng.standard_normal((12, 3, 40)).cumsum(axis=-1)
    Y = system.simulate(V[..., None])[..., 0]
    Z = Y + 0.01 * rng.standard_normal(Y.shape)
    for target in (None, Z):
        moments = InputMoments(3, 40, system=system)
        moments.update(V, target)
        path = SubsetReductor(metric=moments).path(system)
        reduction = path.reduction([0, 2, 5])
        y = Y if target is None else Z
        missed = reduction.system.simulate(V[..., None])[..., 0] - y
        error = np.sqrt(np.mean(np.sum(missed**2, axis=-1), axis=0))
        scale = np.sqrt(np.mean(np.sum(y**2, axis=-1), axis=0))
        assert np.all(np.abs(reduction.bound.value - error) <= 1e-10 * scale)
        assert np.allclose(path.norms, scale, rtol=1e-11)
        taken = np.array([path.errors[0, 5], path.errors[1, 3], path.errors[2, 0]])
        assert np.all(np.abs(taken - error) <= 1e-10 * scale)


def test_the_input_is_left_alone():
    rng = np.random.default_rng(16)
    system = random_system(rng, batch=(2,), real_output=True)
    before = [getattr(system, name).copy() for name in ("poles", "B", "C", "D")]
    SubsetReductor().reduce(system, order=1)
    for name, value in zip(("poles", "B", "C", "D"), before, strict=True):
        assert np.array_equal(getattr(system, name), value)


def test_refusals():
    system = DiagonalSystem([[0.5, 0.2]], [[1.0, 1.0]], [[1.0, 1.0]], real_output=True)
    reductor = SubsetReductor()
    with pytest.raises(OrderError, match="exactly one"):
        reductor.reduce(system)
    with pytest.raises(OrderError, match="exactly one"):
        reductor.reduce(system, order=1, tol=0.1)
    with pytest.raises(OrderError, match="exceeds"):
        reductor.reduce(system, order=3)
    for tol in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ToleranceError):
            reductor.reduce(system, tol=tol)
    path = reductor.path(system)
    for kept in ([3], [-1], 3):
        with pytest.raises(OrderError, match="outside"):
            path.reduction(kept)
    with pytest.raises(OrderError, match="integer"):
        path.reduction([1.5])
    with pytest.raises(ShapeError, match="shape"):
        path.reduction([1, 1])
    with pytest.raises(UnsupportedOperationError, match="DiagonalSystem"):
        reductor.reduce(DenseSystem([[0.5]], [[1.0]], [[1.0]]), order=1)
    with pytest.raises(ShapeError, match="metric"):
        SubsetReductor(metric="hinf")
    moments = InputMoments(1, 30)
    with pytest.raises(OrderError, match="contradicts"):
        SubsetReductor(metric=moments, horizon=20)
