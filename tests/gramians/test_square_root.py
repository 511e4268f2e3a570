"""Square roots of the read-out basis: doubling, near the unit circle, and beyond it."""

from __future__ import annotations

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssmred.errors import (
    AccuracyError,
    OrderError,
    UnstableSystemError,
    UnsupportedOperationError,
)
from ssmred.gramians import basis_coefficients, basis_square_root
from ssmred.gramians.square_root import ROUNDING, change_read_out
from ssmred.systems import DenseSystem, DiagonalSystem

ALGEBRA = 1e-13  # random well-scaled data of size about 10, a few hundred operations
LONG = 2000  # samples that stand for an infinite horizon when |pole| <= 0.95: 0.95**2000 = 3e-45


def complex_normal(rng, *shape):
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def random_system(rng, *, batch=(), n=4, m=1, p=1, radius=0.95, **options):
    poles = radius * np.sqrt(rng.random((*batch, n))) * np.exp(2j * np.pi * rng.random((*batch, n)))
    real = options.get("real_output", False)
    D = rng.standard_normal((*batch, p, m)) + (0 if real else 1j) * rng.standard_normal(
        (*batch, p, m)
    )
    B, C = complex_normal(rng, *batch, n, m), complex_normal(rng, *batch, p, n)
    return DiagonalSystem(poles, B, C, D, **options)


def responses(system, horizon):
    """Return the basis responses Phi as (..., rows, K), from one impulse response per column."""
    theta = np.zeros_like(basis_coefficients(system))
    zero = system.replace(C=np.zeros_like(system.C), D=np.zeros_like(system.D))
    columns = []
    for j in range(theta.shape[-2]):
        change = theta.copy()
        change[..., j, 0] = 1
        h = change_read_out(zero, change).impulse_response(horizon)[..., 0, :]  # (..., T, m)
        h = h.reshape(*h.shape[:-2], -1)
        columns.append(np.concatenate([h.real, h.imag], axis=-1))
    return np.stack(columns, axis=-1)


def gram(R):
    return np.swapaxes(R, -1, -2) @ R


@pytest.mark.theorem("square-root-doubling")
@pytest.mark.parametrize("recurrence", ["standard", "post-update"])
@pytest.mark.parametrize("real_output", [True, False])
@pytest.mark.parametrize(("m", "p"), [(1, 1), (2, 3)])
@pytest.mark.parametrize("horizon", [1, 2, 3, 63, 64, 65, 66, 127, 200, 257, None])
def test_square_root_of_sampled_responses(recurrence, real_output, m, p, horizon):
    rng = np.random.default_rng(7)
    system = random_system(
        rng, batch=(2,), m=m, p=p, recurrence=recurrence, real_output=real_output
    )
    R = basis_square_root(system, horizon=horizon)
    assert np.all(np.tril(R, -1) == 0)
    Phi = responses(system, horizon or LONG)
    scale = np.maximum(np.linalg.norm(Phi, axis=-2), 1e-2)  # Phi itself has rounding: c b != 1
    difference = np.abs(gram(R) - gram(Phi))
    assert np.all(difference <= ALGEBRA * scale[..., :, None] * scale[..., None, :])


@pytest.mark.theorem("square-root-doubling")
def test_infinite_horizon_has_the_closed_form():
    rng = np.random.default_rng(8)
    system = random_system(rng, n=6, real_output=True)  # standard: Phi does not see D
    poles = system.poles
    W = 1 / (1 - poles[:, None] * poles.conj())
    U = 1 / (1 - poles[:, None] * poles)
    G = gram(basis_square_root(system))[1:, 1:]
    assert np.allclose(G[0::2, 0::2], (W + U).real / 2, rtol=0, atol=1e-11)
    assert np.allclose(G[1::2, 1::2], (W - U).real / 2, rtol=0, atol=1e-11)
    assert np.allclose(G[0::2, 1::2], (U - W).imag / 2, rtol=0, atol=1e-11)


@pytest.mark.theorem("square-root-doubling")
@pytest.mark.parametrize("gap", [1e-3, 1e-6, 1e-9, 1e-12, 2.0**-52])
@pytest.mark.parametrize("angle", [0.0, 0.3, np.pi])
def test_column_norms_next_to_the_unit_circle(gap, angle):
    pole = (1 - gap) * np.exp(1j * angle)
    pole = pole.real if angle in (0.0, np.pi) else pole
    assert abs(pole) < 1
    system = DiagonalSystem([pole], [1.0], [1.0], real_output=True)
    R = basis_square_root(system)
    with mp.workdps(60):
        exact = mp.mpc(pole.real, pole.imag if angle not in (0.0, np.pi) else 0)
        energy = (1 / (1 - abs(exact) ** 2) + (1 / (1 - exact**2)).real) / 2
        error = abs(mp.sqrt(mp.fsum(mp.mpf(float(r)) ** 2 for r in R[:, 1])) / mp.sqrt(energy) - 1)
    # 2**52 samples: each of 60 doublings may add a unit of rounding
    assert error < 100 * np.finfo(float).eps


@pytest.mark.parametrize("pole", [1.0, -1.0, 1j, 1.05 * np.exp(0.4j), -1.2])
@pytest.mark.parametrize("horizon", [5, 100, 333])
def test_unstable_modes_at_a_finite_horizon(pole, horizon):
    system = DiagonalSystem(
        [pole, 0.5], [1.0, 1.0], [1.0, 1.0], recurrence="post-update", real_output=True
    )
    R = basis_square_root(system, horizon=horizon)
    with mp.workdps(60):
        powers = [mp.mpc(complex(pole)) ** k for k in range(horizon)]
        mode = mp.sqrt(mp.fsum(abs(z) ** 2 for z in powers))  # both columns round relative to it
        for j, part in ((1, mp.re), (2, mp.im)):
            exact = mp.sqrt(mp.fsum(part(z) ** 2 for z in powers))
            assert abs(np.linalg.norm(R[:, j]) - exact) <= 30 * np.finfo(float).eps * mode


@pytest.mark.theorem("square-root-doubling")
@pytest.mark.parametrize("horizon", [196, 4096])
def test_cancelling_combinations_are_seen(horizon):
    """Differences of close modes: response norms down to 1e-15 of their parts, against mpmath."""
    modes, spacing = 8, 2e-4
    poles = np.exp(-2e-3 + 1j * (0.3 + spacing * np.arange(modes)))
    for degree in range(1, modes):
        theta = np.zeros((2 * modes + 1, 1))
        weights = [(-1.0) ** j * float(mp.binomial(degree, j)) for j in range(degree + 1)]
        theta[1 : 2 * degree + 3 : 2, 0] = weights
        system = DiagonalSystem(
            poles, np.ones(modes), np.ones(modes), recurrence="post-update", real_output=True
        )
        R = basis_square_root(system, horizon=horizon)
        with mp.workdps(50):
            exact = [mp.mpc(z) for z in poles]
            state = [mp.mpf(w) for w in weights]
            energy = mp.mpf(0)
            for _ in range(horizon):
                energy += mp.re(mp.fsum(state)) ** 2
                state = [s * z for s, z in zip(state, exact, strict=False)]
            true = float(mp.sqrt(energy))
        parts = float(np.abs(theta[:, 0]) @ np.linalg.norm(R, axis=0))
        assert abs(np.linalg.norm(R @ theta) - true) <= 2 * ROUNDING * parts
        if degree == 1:
            assert true < 0.1 * parts


@pytest.mark.theorem("square-root-doubling")
@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 2**32 - 1))
def test_any_splitting_of_the_horizon_gives_the_same_gramian(first, second, seed):
    rng = np.random.default_rng(seed)
    system = random_system(rng, n=3, radius=1.0, real_output=True)
    later = system.replace(B=system.B * system.poles[:, None] ** first)
    form = np.array([[np.ones(3), np.zeros(3)], [np.zeros(3), np.ones(3)]])
    powers = system.poles**first
    form = np.array([[powers.real, powers.imag], [-powers.imag, powers.real]])
    G1 = gram(basis_square_root(system, horizon=first + 1))[1:, 1:]
    G2 = gram(basis_square_root(later, horizon=second + 1))[1:, 1:]
    whole = gram(basis_square_root(system, horizon=first + second + 1))[1:, 1:]
    T = np.zeros((6, 6))
    for i in range(3):
        T[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = form[:, :, i]
    scale = np.sqrt(np.diag(whole))
    assert np.all(np.abs(G1 + T.T @ G2 @ T - whole) <= 1e-12 * np.outer(scale, scale) + 1e-300)


def test_continuous_time_has_the_closed_form():
    rng = np.random.default_rng(9)
    poles = -np.exp(rng.uniform(-3, 3, 5)) + 1j * 5 * rng.standard_normal(5)
    B = complex_normal(rng, 5, 2)
    system = DiagonalSystem(poles, B, complex_normal(rng, 1, 5), dt=0.0)
    R = basis_square_root(system)[4:, 4:]
    P = -(B @ B.conj().T) / (poles[:, None] + poles.conj())
    G = gram(R)
    scale = np.sqrt(np.outer(np.diag(P).real, np.diag(P).real))
    assert np.all(np.abs(G[0::2, 0::2] - P.real) <= 1e-12 * scale)
    assert np.all(np.abs(np.abs(G[0::2, 1::2]) - np.abs(P.imag)) <= 1e-12 * scale)


@pytest.mark.parametrize("distance", [1e-12, 1e-18])
def test_continuous_time_next_to_the_axis(distance):
    """Neighbours closer to each other than rounding of ``(a + l) / (a - l)`` could tell apart."""
    poles = distance * np.array([-1.0, -2.0, -3.0 + 1j, -0.5]) + np.array([3j, 3j, 3j, -1.0])
    system = DiagonalSystem(poles, np.ones(4), np.ones(4), dt=0.0)
    G = gram(basis_square_root(system)[2:, 2:])
    P = -1 / (poles[:, None] + poles.conj())
    scale = np.sqrt(np.outer(np.diag(P).real, np.diag(P).real))
    assert np.all(np.abs(G[0::2, 0::2] - P.real) <= 1e-12 * scale)


def test_padding_of_a_continuous_time_batch_changes_nothing():
    rng = np.random.default_rng(4)
    poles = -np.exp(rng.uniform(-3, 3, 3)) + 1j * rng.standard_normal(3)
    B, C = complex_normal(rng, 3, 1), complex_normal(rng, 1, 3)
    alone = DiagonalSystem(poles, B, C, dt=0.0)
    padded = DiagonalSystem(
        np.append(poles, 0), np.append(B, [[0]], axis=0), np.append(C, [[0]], axis=1), dt=0.0
    )
    R = basis_square_root(padded)
    G, wanted = gram(R)[:-2, :-2], gram(basis_square_root(alone))
    assert np.abs(G - wanted).max() <= 1e-13 * np.abs(wanted).max()  # twenty sums of rounded terms


def test_redundant_and_dead_columns():
    system = DiagonalSystem(
        [0.9j, 0.9j, 0.9j, 0.5, 0.0],
        [1.0, 2.0, 0.0, 1.0, 1.0],
        np.ones(5),
        recurrence="post-update",
        real_output=True,
    )
    R = basis_square_root(system, horizon=50)
    norms = np.linalg.norm(R, axis=0)
    pairs = np.hypot(norms[1::2], norms[2::2]).repeat(2)  # norm of the mode, for both columns
    zero = np.zeros(11, dtype=bool)
    zero[[5, 6]] = True  # no input
    assert np.array_equal(norms == 0, zero)
    assert np.all(norms[[8, 10]] <= 2 * ROUNDING * pairs[[7, 9]])  # Im of a real pole, of pole 0
    diagonal = np.abs(np.diag(R))
    assert np.all(diagonal[1:][~zero[1:]] >= 0.9 * ROUNDING * pairs[~zero[1:]])
    assert diagonal[3] <= 3 * ROUNDING * pairs[2]  # the repeated pole
    assert diagonal[9] <= 3 * ROUNDING * pairs[8]  # pole 0 is the direct term


def test_order_zero_and_an_undriven_unstable_mode():
    empty = DiagonalSystem(np.zeros(0), np.zeros((0, 1)), np.zeros((1, 0)), 2.0)
    assert np.array_equal(basis_square_root(empty), np.eye(2))
    idle = DiagonalSystem([2.0, 0.5], [0.0, 1.0], [1.0, 1.0], real_output=True)
    R = basis_square_root(idle)
    assert np.isfinite(R).all()
    assert np.all(R[:, 1:3] == 0)


@given(st.booleans(), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_coefficients_and_read_out_are_inverse(real_output, m, p, seed):
    rng = np.random.default_rng(seed)
    system = random_system(rng, batch=(2,), m=m, p=p, real_output=real_output)
    other = system.replace(C=complex_normal(rng, 2, p, 4), D=system.D * 2 + 1)
    change = basis_coefficients(other) - basis_coefficients(system)
    back = change_read_out(system, change)
    assert np.allclose(back.C, other.C, rtol=0, atol=1e-12 * np.abs(other.C).max())
    assert np.allclose(back.D, other.D, rtol=0, atol=1e-12)


def test_refusals():
    system = DiagonalSystem([1.0, 0.5], [1.0, 1.0], [1.0, 1.0], real_output=True)
    with pytest.raises(UnstableSystemError, match="finite horizon"):
        basis_square_root(system)
    with pytest.raises(AccuracyError, match="overflows"):
        basis_square_root(system.replace(poles=np.array([1e10, 0.5])), horizon=100)
    with pytest.raises(OrderError, match="horizon"):
        basis_square_root(system, horizon=0)
    with pytest.raises(UnsupportedOperationError, match="DiagonalSystem"):
        basis_square_root(DenseSystem([[0.5]], [[1.0]], [[1.0]]))
    continuous = DiagonalSystem([-1.0], [1.0], [1.0], dt=0.0)
    with pytest.raises(UnsupportedOperationError, match="discrete"):
        basis_square_root(continuous, horizon=10)
    with pytest.raises(UnstableSystemError, match="Re"):
        basis_square_root(continuous.replace(poles=np.array([0.0])))
