"""Balanced truncation and its kin: the statements of their theory pages on random complex data.

Gramians come from SciPy and responses from linear solves here, so only the reduced systems are
the project's. Errors are sampled, which never exceeds their norm: bounds have no slack.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import linalg
from theory_systems import (
    GRAMIANS,
    ROUNDING,
    TIMES,
    adjoint,
    balanced_with,
    boundary,
    gap_of_blocks,
    gramians,
    hankel_values,
    normal,
    random_system,
    response,
    response_of,
    sampled_error,
)

from ssmred.norms import hankel_norm, hinf_norm
from ssmred.reductors import (
    BalancedReductor,
    ModalReductor,
    ResidualisedReductor,
)
from ssmred.systems import DenseSystem, DiagonalSystem
from ssmred.systems.diagonalisation import diagonalised

# balanced truncation


@pytest.mark.theorem("balanced-truncation")
@TIMES
@pytest.mark.parametrize("seed", range(3))
def test_twice_the_tail_bounds_the_error(seed, discrete):
    system = random_system(seed, discrete=discrete)
    sigma = hankel_values(*gramians(system.A, system.B, system.C, discrete))
    path = BalancedReductor().path(system)
    for order in range(system.order):
        reduction = path.reduction(order)
        np.testing.assert_array_equal(reduction.system.D, system.D)
        assert sampled_error(system, reduction.system) <= reduction.claim.value
        assert reduction.claim.value == pytest.approx(2 * sigma[order:].sum(), rel=GRAMIANS)


@pytest.mark.theorem("balanced-truncation")
@TIMES
@pytest.mark.parametrize("seed", range(3))
def test_one_step_costs_twice_one_value_however_often_it_occurs(seed, discrete):
    sigma = np.array([3.0, 1.0, 1.0, 1.0, 1.0])
    A, B, C = balanced_with(sigma, seed, discrete=discrete)
    P, Q = gramians(A, B, C, discrete)
    np.testing.assert_allclose(P, np.diag(sigma), atol=GRAMIANS)
    np.testing.assert_allclose(Q, np.diag(sigma), atol=GRAMIANS)
    # one group as a whole, and cuts through it
    for r in (1, 2, 4):
        assert gap_of_blocks(A, B, C, r, discrete) <= 2.0
        # inequalities are enough
        assert gap_of_blocks(A, 0.8 * B, 0.6 * C, r, discrete) <= 2.0


@pytest.mark.theorem("balanced-truncation")
@TIMES
def test_distinct_values_of_the_tail_are_counted_once(discrete):
    sigma = np.array([3.0, 1.0, 1.0, 0.25, 0.25, 0.25])
    A, B, C = balanced_with(sigma, 5, discrete=discrete)
    for r, bound in ((0, 8.5), (1, 2.5), (2, 2.5), (3, 0.5), (5, 0.5)):
        assert gap_of_blocks(A, B, C, r, discrete) <= bound
    # what is claimed counts every value
    system = DenseSystem(A, B, C, dt=1.0 if discrete else 0.0)
    for r, bound in ((1, 5.5), (3, 1.5)):
        reduction = BalancedReductor().reduce(system, order=r)
        assert reduction.claim.value == pytest.approx(bound, rel=GRAMIANS)
        assert sampled_error(system, reduction.system) <= reduction.claim.value


@pytest.mark.theorem("balanced-truncation")
def test_bound_is_attained():
    """``3 / (s + 1)`` against nothing: ``sigma = 3/2``, the error is 3 at s = 0."""
    reduction = BalancedReductor().reduce(DiagonalSystem([-1.0], [1.0], [3.0], dt=0), order=0)
    assert reduction.claim.value == pytest.approx(3.0, rel=ROUNDING)
    assert reduction.hinf_error.lower <= 3.0 <= reduction.bound.value


@pytest.mark.theorem("balanced-truncation")
@pytest.mark.parametrize("seed", range(4))
def test_leading_blocks_are_stable(seed):
    equal = np.ones(4)
    A = balanced_with(equal, seed, discrete=True)[0]
    assert abs(linalg.eigvals(A)).max() < 1
    for r in range(1, 4):  # discrete time needs no gap
        assert abs(linalg.eigvals(A[:r, :r])).max() < 1
    A = balanced_with(np.array([2.0, 1.0, 1.0, 0.5]), seed, discrete=False)[0]
    for r in (1, 3):
        assert linalg.eigvals(A[:r, :r]).real.max() < 0


@pytest.mark.theorem("balanced-truncation")
def test_without_a_gap_poles_may_lie_on_the_axis():
    """``a s / (s^2 + a s + 1)`` has Gramians I/2: the first state alone has its pole at 0."""
    a = 0.5
    A, B, C = np.array([[0, 1], [-1, -a]]), np.array([[0], [np.sqrt(a)]]), np.array([[0, a**0.5]])
    for gramian in gramians(A, B, C, discrete=False):
        np.testing.assert_allclose(gramian, np.eye(2) / 2, atol=ROUNDING)
    assert gap_of_blocks(A, B, C, 1, discrete=False) <= 1.0
    reduction = BalancedReductor().reduce(DenseSystem(A, B, C, dt=0), order=1)
    assert (reduction.system.poles.real <= ROUNDING).all()
    assert sampled_error(reduction.full, reduction.system) <= reduction.bound.value


@pytest.mark.theorem("balanced-truncation")
@TIMES
def test_what_is_neither_reached_nor_observed_goes_without_error(discrete):
    rng = np.random.default_rng(8)
    small = random_system(2, discrete=discrete, n=3)
    zero, other = np.zeros((3, 3)), random_system(3, discrete=discrete, n=3)
    T = linalg.qr(normal(rng, 9, 9))[0]
    # states: reached and observed, reached only, observed only
    A = np.block(
        [
            [small.A, zero, normal(rng, 3, 3)],
            [normal(rng, 3, 3), other.A, normal(rng, 3, 3)],
            [zero, zero, 0.5 * other.A],
        ]
    )
    B = np.vstack([small.B, normal(rng, 3, 2), np.zeros((3, 2))])
    C = np.hstack([small.C, np.zeros((3, 3)), normal(rng, 3, 3)])
    system = DenseSystem(T @ A @ adjoint(T), T @ B, C @ adjoint(T), small.D, small.dt)
    reduced = BalancedReductor().reduce(system, order=3).system
    size = np.linalg.norm(response_of(small, boundary(discrete)), axis=(-2, -1)).max()
    assert sampled_error(small, reduced) <= 100 * ROUNDING * size
    poles, expected = np.sort_complex(reduced.poles), np.sort_complex(small.poles)
    np.testing.assert_allclose(poles, expected, atol=GRAMIANS)


@pytest.mark.theorem("balanced-truncation")
@TIMES
@pytest.mark.parametrize("kind", ["half spectrum", "two inputs", "dense"])
def test_bases_balance_both_gramians(kind, discrete):
    rng = np.random.default_rng(4)
    if kind == "dense":
        system = random_system(7, discrete=discrete)
    else:
        m = 1 if kind == "half spectrum" else 2
        poles = 0.95 * rng.random(3) ** 0.5 * np.exp(1j * rng.uniform(0, 3, 3))
        poles = np.append(poles, 0.4) if discrete else np.append(poles, 0.4) - 1
        D = rng.standard_normal((m, m))
        system = DiagonalSystem(
            poles,
            normal(rng, 4, m),
            normal(rng, m, 4),
            D,
            1.0 if discrete else 0.0,
            real_output=True,
        )
    reduction = BalancedReductor(form="dense").reduce(system, order=2)
    plain = system.realified() if system.real_output else system
    P, Q = gramians(plain.A, plain.B, plain.C, discrete)
    V, W = reduction.projection.V, reduction.projection.W
    sigma = reduction.hankel[: V.shape[-1]]
    scale = np.abs(P).max() * np.abs(W).max() + np.abs(Q).max() * np.abs(V).max()
    np.testing.assert_allclose(adjoint(W) @ V, np.eye(len(sigma)), atol=ROUNDING)
    np.testing.assert_allclose(P @ W, V * sigma, atol=ROUNDING * scale)
    np.testing.assert_allclose(Q @ V, W * sigma, atol=ROUNDING * scale)
    reduced = reduction.system
    np.testing.assert_allclose(reduced.A, adjoint(W) @ plain.A @ V, atol=ROUNDING * scale)
    np.testing.assert_allclose(reduced.B, adjoint(W) @ plain.B, atol=ROUNDING * scale)
    np.testing.assert_allclose(reduced.C, plain.C @ V, atol=ROUNDING * scale)


@pytest.mark.theorem("balanced-truncation")
def test_post_update_systems_have_the_same_bound_and_their_own_hankel_norm():
    system = random_system(1, discrete=True, recurrence="post-update")
    path = BalancedReductor().path(system)
    for order in range(system.order):
        reduction = path.reduction(order)
        assert sampled_error(system, reduction.system) <= reduction.claim.value
        assert reduction.claim.reference == pytest.approx(hankel_norm(system), rel=ROUNDING)
    # D cancels h_0: the Hankel norm of C (z - A)^{-1} B, about 1, exceeds the norm of the system
    poles = np.array([1e-3, 1e-4])
    nearly = DiagonalSystem(poles, [1.0, 1.0], [1.0, 1e-3], -1.001, recurrence="post-update")
    reference = BalancedReductor().reduce(nearly, order=1).claim.reference
    assert reference <= hinf_norm(nearly).upper < 0.01


@pytest.mark.theorem("balanced-truncation")
def test_finite_horizons_have_neither_the_bound_nor_stability():
    system = DenseSystem([[0.5, 2.0], [0.0, 0.5]], [0.0, 1.0], [1.0, 0.5])
    reduction = BalancedReductor(horizon=1).reduce(system, order=1)
    np.testing.assert_allclose(reduction.system.A, [[4.5]], rtol=ROUNDING)
    np.testing.assert_allclose(reduction.hankel, [0.5, 0.0], atol=ROUNDING)
    assert reduction.claim.theorem == "h2-norm"
    assert reduction.claim.value == 0  # h_0 alone


@pytest.mark.theorem("balanced-truncation")
def test_finite_horizons_share_out_the_energy_of_the_response():
    system = random_system(6, discrete=True)
    horizon = 7
    path = BalancedReductor(horizon=horizon).path(system)
    h = system.impulse_response(horizon + 1)[1:]  # T terms of the Gramian are h_1, ..., h_T
    assert path.errors[-1] == pytest.approx(np.linalg.norm(h), rel=ROUNDING)
    for order in (1, 3):
        reduction = path.reduction(order)
        gap = system.impulse_response(horizon) - reduction.system.impulse_response(horizon)
        assert reduction.claim.value == pytest.approx(np.linalg.norm(gap), rel=GRAMIANS)


# residualisation


@pytest.mark.theorem("residualisation")
@TIMES
@pytest.mark.parametrize("seed", range(3))
def test_residualisation_has_the_bound_and_the_static_gain(seed, discrete):
    system = random_system(seed, discrete=discrete)
    sigma = hankel_values(*gramians(system.A, system.B, system.C, discrete))
    at_rest = np.array([1.0 if discrete else 0.0])
    static = response_of(system, at_rest)
    path = ResidualisedReductor().path(system)
    for order in range(system.order):
        reduction = path.reduction(order)
        reduced = reduction.system
        assert sampled_error(system, reduced) <= reduction.claim.value
        assert reduction.claim.value == pytest.approx(2 * sigma[order:].sum(), rel=GRAMIANS)
        gain = response_of(reduced, at_rest)
        np.testing.assert_allclose(gain, static, atol=ROUNDING * np.abs(static).max())
        poles = reduced.poles
        assert (abs(poles) < 1 if discrete else poles.real < 0).all()


@pytest.mark.theorem("residualisation")
@TIMES
def test_residualisation_is_the_equilibrium_of_the_last_states(discrete):
    A, B, C = balanced_with(np.array([3.0, 2.0, 1.0, 0.5]), 9, discrete=discrete)
    z, r = 1.0 if discrete else 0.0, 2
    S = linalg.inv(z * np.eye(2) - A[r:, r:])
    expected = (
        A[:r, :r] + A[:r, r:] @ S @ A[r:, :r],
        B[:r] + A[:r, r:] @ S @ B[r:],
        C[:, :r] + C[:, r:] @ S @ A[r:, :r],
        C[:, r:] @ S @ B[r:],
    )
    reduced = ResidualisedReductor().reduce(DenseSystem(A, B, C, dt=z), order=r).system
    points = boundary(discrete)
    got = response_of(reduced, points)
    np.testing.assert_allclose(got, response(*expected, points), atol=GRAMIANS)
    # its reciprocal is a continuous-time system with the same Gramians
    N = linalg.inv(A - z * np.eye(4))
    shift = 0.5 * np.eye(4) if discrete else 0.0
    for gramian in gramians(N + shift, N @ B, -C @ N, discrete=False):
        np.testing.assert_allclose(gramian, np.diag([3.0, 2.0, 1.0, 0.5]), atol=GRAMIANS)


@pytest.mark.theorem("residualisation")
@pytest.mark.parametrize("real_output", [True, False])
def test_residualisation_of_post_update_systems(real_output):
    rng = np.random.default_rng(2)
    system = DiagonalSystem(
        0.9 * np.exp(1j * rng.uniform(0.3, 2, 4)),
        normal(rng, 4),
        normal(rng, 4),
        0.5,
        recurrence="post-update",
        real_output=real_output,
    )
    reduction = ResidualisedReductor(form="dense").reduce(system, order=2)
    assert reduction.system.is_post_update
    points = np.concatenate([[1.0], boundary(True)])
    plain = system.full_spectrum() if real_output else system
    gaps = np.abs(response_of(plain, points) - response_of(reduction.system, points))
    assert gaps[0] <= ROUNDING * np.abs(response_of(plain, points)).max()
    assert gaps.max() <= reduction.claim.value


@pytest.mark.theorem("residualisation")
@pytest.mark.parametrize("seed", range(4))
def test_residualisation_in_discrete_time_needs_no_gap_to_exist(seed):
    A, _, _ = balanced_with(np.ones(4), seed, discrete=True)
    N = linalg.inv(A - np.eye(4))
    for r in (1, 2, 3):
        assert linalg.eigvals(N[:r, :r]).real.max() <= -0.5


# modal truncation


@pytest.mark.theorem("modal-truncation")
@pytest.mark.parametrize("match_dc", [False, True])
@pytest.mark.parametrize("kind", ["standard", "post-update", "continuous"])
@pytest.mark.parametrize("pole", [0.5, -0.75, 0.6 * np.exp(2j), 0.999j])
def test_bound_of_one_mode_is_attained(pole, kind, match_dc):
    rng = np.random.default_rng(3)
    B, C, D = normal(rng, 1, 2), normal(rng, 3, 1), normal(rng, 3, 2)
    if kind == "continuous":
        pole = pole - 1
        system = DiagonalSystem([pole], B, C, D, dt=0)
        # both ends of the diameter from 0 (at infinity) or -1 / pole (at 0) are on the axis
        centre = -1 / (2 * pole.real)
        start = -1 / pole if match_dc else 0
        peak = 2 * (centre - start)
        distance = np.inf if peak == -start else abs((pole + 1 / (peak + start)).real)
        assert match_dc if np.isinf(distance) else distance <= ROUNDING
    else:
        system = DiagonalSystem([pole], B, C, D, recurrence=kind)
        if match_dc:
            centre = np.conj(pole) / (1 - abs(pole) ** 2)
            z = pole + 1 / (2 * centre - 1 / (1 - pole))
        else:
            z = pole / abs(pole)
        assert abs(abs(z) - 1) <= ROUNDING
        lift = z if kind == "post-update" else 1
        peak = lift / (z - pole) - (1 / (1 - pole) if match_dc else 0)
    reduction = ModalReductor(match_dc=match_dc).reduce(system, order=0)
    exact = abs(peak) * np.linalg.norm(B) * np.linalg.norm(C)
    assert reduction.claim.value == pytest.approx(exact, rel=ROUNDING)
    assert sampled_error(system, reduction.system) <= reduction.claim.value


@pytest.mark.theorem("modal-truncation")
@pytest.mark.parametrize("match_dc", [False, True])
@pytest.mark.parametrize("kind", ["standard", "post-update", "continuous"])
@pytest.mark.parametrize("real_output", [False, True])
def test_bound_and_static_gain_of_many_modes(kind, real_output, match_dc):
    rng = np.random.default_rng(11)
    continuous = kind == "continuous"
    poles = 0.98 * np.sqrt(rng.random(6)) * np.exp(2j * np.pi * rng.random(6)) - continuous
    options = {"dt": 0.0} if continuous else {"recurrence": kind}
    D = rng.standard_normal((3, 2))
    system = DiagonalSystem(
        poles, normal(rng, 6, 2), normal(rng, 3, 6), D, real_output=real_output, **options
    )
    at_rest = np.array([0.0 if continuous else 1.0])
    whole = system.full_spectrum() if real_output else system
    static = response_of(whole, at_rest)
    for measure in ("hinf", "h2", "random"):
        path = ModalReductor(match_dc=match_dc, measure=measure).path(system)
        for order in (0, 1, 3, 5):
            reduction = path.reduction(order)
            reduced = reduction.system.full_spectrum() if real_output else reduction.system
            assert sampled_error(whole, reduced) <= reduction.claim.value
            assert np.isin(reduction.system.poles, poles).all()
            if match_dc:
                gap = response_of(reduced, at_rest) - static
                assert np.abs(gap).max() <= ROUNDING * np.abs(static).max()


@pytest.mark.theorem("modal-truncation")
def test_bound_of_modes_in_phase_is_attained():
    """Positive real poles and residues: all summands have their maximum at z = 1."""
    system = DiagonalSystem([0.9, 0.75, 0.5], [1.0, 1.0, 1.0], [2.0, 1.0, 1.0])
    reduction = ModalReductor().reduce(system, order=1)
    assert reduction.claim.value == pytest.approx(1 / 0.25 + 1 / 0.5, rel=ROUNDING)
    assert reduction.hinf_error.upper >= 6.0


@pytest.mark.theorem("modal-truncation")
def test_modes_of_a_dense_system_are_as_large_as_their_condition_allows():
    for seed in range(10):
        system = random_system(seed, discrete=True)
        result = diagonalised(system)
        modes = result.system
        sizes = np.linalg.norm(modes.C, axis=0) * np.linalg.norm(modes.B, axis=1)
        limit = result.condition * linalg.norm(system.B, 2) * linalg.norm(system.C, 2)
        assert sizes.max() <= limit
