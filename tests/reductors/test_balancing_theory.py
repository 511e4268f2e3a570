"""Balanced truncation and its kin: the statements of their theory pages on random complex data.

Gramians come from SciPy and responses from linear solves here, so only the reduced systems are
the project's. Errors are sampled, which never exceeds their norm: bounds have no slack.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import linalg

from ssmred.norms import hankel_norm, hinf_norm
from ssmred.reductors import (
    BalancedReductor,
    FrequencyWeightedReductor,
    ModalReductor,
    ResidualisedReductor,
)
from ssmred.systems import DenseSystem, DiagonalSystem
from ssmred.systems.diagonalisation import diagonalised

ROUNDING = 1e-12  # of responses and bases of a few states, relative to their size
GRAMIANS = 1e-9  # of Hankel values from Gramians that were formed and multiplied, relative
POINTS = 201
TIMES = pytest.mark.parametrize("discrete", [True, False], ids=["discrete", "continuous"])


def normal(rng, *shape):
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def adjoint(M):
    return M.conj().T


def random_system(seed, *, discrete, n=5, m=2, p=3, **options):
    """Return a dense complex system that is close to the boundary and far from normal."""
    rng = np.random.default_rng(seed)
    A = normal(rng, n, n) + 2 * np.triu(normal(rng, n, n), 1)
    poles = linalg.eigvals(A)
    A = 0.95 * A / abs(poles).max() if discrete else A - (poles.real.max() + 0.1) * np.eye(n)
    D = normal(rng, p, m)
    dt = 1.0 if discrete else 0.0
    return DenseSystem(A, normal(rng, n, m), normal(rng, p, n), D, dt, **options)


def boundary(discrete):
    """Return points of the unit circle, or of the imaginary axis, more of them near zero."""
    angles = np.linspace(-np.pi, np.pi, POINTS)[:-1] + 1e-3
    return np.exp(1j * angles) if discrete else 1j * np.tan(angles / 2)


def response(A, B, C, D, z):
    """Return ``D + C (z - A)^{-1} B`` at many points."""
    resolvents = z[:, None, None] * np.eye(len(A)) - A
    return D + C @ np.linalg.solve(resolvents, np.broadcast_to(B, (z.size, *B.shape)))


def response_of(system, z):
    if isinstance(system, DiagonalSystem):
        system = system.to_dense()
    if system.is_post_update:
        system = system.with_recurrence("standard")
    return response(system.A, system.B, system.C, system.D, z)


def sampled_error(full, reduced):
    z = boundary(full.is_discrete)
    gaps = response_of(full, z) - response_of(reduced, z)
    return np.linalg.norm(gaps, 2, axis=(-2, -1)).max()


def gramians(A, B, C, discrete):
    if discrete:
        P = linalg.solve_discrete_lyapunov(A, B @ adjoint(B))
        return P, linalg.solve_discrete_lyapunov(adjoint(A), adjoint(C) @ C)
    P = linalg.solve_continuous_lyapunov(A, -B @ adjoint(B))
    return P, linalg.solve_continuous_lyapunov(adjoint(A), -adjoint(C) @ C)


def hankel_values(P, Q):
    """Return the roots of the eigenvalues of ``P Q``, descending."""
    return np.sqrt(np.sort(np.maximum(linalg.eigvals(P @ Q).real, 0))[::-1])


def balanced_with(values, seed, *, discrete):
    """Return A, B, C whose Gramians are both ``diag(values)``, repeated values included."""
    rng = np.random.default_rng(seed)
    n, S = len(values), np.diag(values)
    A = normal(rng, n, n)
    if discrete:
        # both S - A S A^* and S - A^* S A have to be positive
        root = np.sqrt(values)
        sizes = [linalg.norm(A * root / root[:, None], 2), linalg.norm(A * root[:, None] / root, 2)]
        A = 0.99 * A / max(sizes)
        reach, see = S - A @ S @ adjoint(A), S - adjoint(A) @ S @ A
    else:
        # S > 0, so a large shift makes both A S + S A^* and A^* S + S A negative
        shift = linalg.eigvalsh(A @ S + S @ adjoint(A), 2 * S)[-1]
        shift = max(shift, linalg.eigvalsh(S @ A + adjoint(A) @ S, 2 * S)[-1])
        A = A - 1.01 * shift * np.eye(n)
        reach, see = -(A @ S + S @ adjoint(A)), -(adjoint(A) @ S + S @ A)
    return A, linalg.cholesky(reach, lower=True), adjoint(linalg.cholesky(see, lower=True))


def gap_of_blocks(A, B, C, r, discrete):
    """Return the largest sampled ``C (z - A)^{-1} B - C_1 (z - A_11)^{-1} B_1``."""
    z = boundary(discrete)
    gaps = response(A, B, C, 0, z) - response(A[:r, :r], B[:r], C[:, :r], 0, z)
    return np.linalg.norm(gaps, 2, axis=(-2, -1)).max()


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
    for measure in ("hinf", "h2"):
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


# frequency weights


def weighted_gramians(system, input_weight, output_weight):
    """Return ``P_i`` and ``Q_o`` as means over the circle; the rule converges exponentially."""
    z = np.exp(2j * np.pi * np.arange(1024) / 1024)
    n = system.order
    inverses = np.linalg.inv(z[:, None, None] * np.eye(n) - system.A)
    right, left = inverses @ system.B, system.C @ inverses
    if input_weight is not None:
        right = right @ response_of(input_weight, z)
    if output_weight is not None:
        left = response_of(output_weight, z) @ left
    P = np.mean(right @ np.swapaxes(right, -1, -2).conj(), axis=0)
    return P, np.mean(np.swapaxes(left, -1, -2).conj() @ left, axis=0)


@pytest.mark.theorem("weighted-balancing")
@pytest.mark.parametrize("recurrence", ["standard", "post-update"])
@pytest.mark.parametrize("which", ["input", "output", "both"])
def test_weighted_hankel_values_are_those_of_the_integrals(which, recurrence):
    system = random_system(3, discrete=True, n=4, recurrence=recurrence)
    weights = {
        "input_weight": random_system(4, discrete=True, n=3, m=2, p=2, recurrence=recurrence),
        "output_weight": random_system(5, discrete=True, n=2, m=3, p=3),
    }
    if which != "both":
        weights = {name: weight for name, weight in weights.items() if name.startswith(which)}
    both = [weights.get(name) for name in ("input_weight", "output_weight")]
    reduction = FrequencyWeightedReductor(**weights).reduce(system, order=2)
    sigma = hankel_values(*weighted_gramians(system, *both))
    np.testing.assert_allclose(reduction.hankel, sigma, rtol=0, atol=GRAMIANS * sigma[0])
    assert reduction.bound is None


@pytest.mark.theorem("weighted-balancing")
@pytest.mark.parametrize("which", ["input_weight", "output_weight"])
@pytest.mark.parametrize("seed", range(5))
def test_one_weight_keeps_truncations_stable_in_discrete_time(seed, which):
    system = random_system(seed, discrete=True, m=2, p=2)
    weight = random_system(seed + 50, discrete=True, n=3, m=2, p=2)
    path = FrequencyWeightedReductor(**{which: weight}).path(system)
    for order in range(1, system.order):
        assert abs(path.reduction(order).system.poles).max() < 1


@pytest.mark.theorem("weighted-balancing")
@TIMES
@pytest.mark.parametrize("residualised", [False, True])
@pytest.mark.parametrize("which", ["input_weight", "output_weight"])
def test_one_weight_never_takes_poles_beyond_the_boundary(which, residualised, discrete):
    for seed in range(2):
        system = random_system(seed, discrete=discrete, m=2, p=2)
        weight = random_system(seed + 50, discrete=discrete, n=3, m=2, p=2)
        reductor = FrequencyWeightedReductor(residualised=residualised, **{which: weight})
        path = reductor.path(system)
        for order in range(1, system.order):
            poles = path.reduction(order).system.poles
            assert (abs(poles) <= 1 if discrete else poles.real <= 0).all()


@pytest.mark.theorem("weighted-balancing")
@pytest.mark.parametrize("which", ["input_weight", "output_weight"])
def test_one_weight_may_leave_a_pole_on_the_axis(which):
    """An oscillator whose position counts for more than its velocity at low frequencies."""
    k, d = 1.0, 0.2
    system = DenseSystem([[0.0, 1.0], [-k, -d]], [0.0, 1.0], [0.0, 1.0], dt=0)
    slow = DenseSystem([[-0.05]], [[1.0]], [[1.0]], dt=0)
    reduction = FrequencyWeightedReductor(**{which: slow}).reduce(system, order=1)
    assert reduction.hankel[0] > 2 * reduction.hankel[1]
    reduced = reduction.system
    for matrix in (reduced.A, reduced.B, reduced.C):
        np.testing.assert_allclose(matrix, 0, atol=ROUNDING)


@pytest.mark.theorem("weighted-balancing")
def test_two_weights_may_make_it_unstable():
    system = DenseSystem([[-0.1, -0.8], [0.3, 0.6]], [2.0, -3.0], [-2.0, 1.0])
    W_i = DenseSystem([[-0.9]], [[1.0]], [[1.0]])
    W_o = DenseSystem([[-0.8]], [[1.0]], [[1.0]], [[-1.0]])
    assert abs(system.poles).max() < 1
    reductor = FrequencyWeightedReductor(input_weight=W_i, output_weight=W_o)
    reduction = reductor.reduce(system, order=1)
    np.testing.assert_allclose(reduction.system.A, [[1.139]], atol=5e-4)
    np.testing.assert_allclose(reduction.hankel, [8.87, 5.03], atol=5e-3)
    sigma = hankel_values(*weighted_gramians(system, W_i, W_o))
    np.testing.assert_allclose(reduction.hankel, sigma, rtol=GRAMIANS)


@pytest.mark.theorem("weighted-balancing")
def test_twice_the_tail_does_not_bound_the_weighted_error():
    system = DenseSystem([[-0.9, 0.3], [0.0, -0.9]], [2.0, -2.0], [1.0, 0.0])
    weight = DenseSystem([[0.3]], [[1.0]], [[1.0]], [[1.0]])
    reduction = FrequencyWeightedReductor(input_weight=weight).reduce(system, order=1)
    z = boundary(True)
    gap = response_of(system, z) - response_of(reduction.system, z)
    error = np.abs(gap * response_of(weight, z)).max()
    assert error > 3.8 * reduction.hankel[1]
    assert reduction.bound is None
