"""Errors of single removals: closed form against 80 digits and against square roots."""

from __future__ import annotations

import mpmath as mp
import numpy as np
import pytest

from ssmred.errors import UnstableSystemError, UnsupportedOperationError
from ssmred.gramians.square_root import basis_coefficients, basis_square_root
from ssmred.kernels.single_removals import fill_root_removals
from ssmred.reductors import SubsetReductor
from ssmred.reductors.single_removals import single_removal_errors
from ssmred.systems import DenseSystem, DiagonalSystem

ROUNDING = 1e-12  # products of 20 factors, a few roundings each, data of condition 1e2
SQUARE_ROOT = 1e-11  # of the norm: QR of the responses, and the 4 eps that it adds on purpose

pytestmark = pytest.mark.theorem("removal-cost")


def complex_normal(rng, *shape):
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def random_system(rng, batch, n, m, p, dt, **options):
    if dt:
        poles = 0.95 * np.sqrt(rng.random((*batch, n)))
        poles = poles * np.exp(2j * np.pi * rng.random((*batch, n)))
        D = rng.standard_normal((*batch, p, m))
    else:
        poles = -rng.random((*batch, n)) - 0.1 + 1j * rng.standard_normal((*batch, n))
        D = np.zeros((*batch, p, m))
    B, C = complex_normal(rng, *batch, n, m), complex_normal(rng, *batch, p, n)
    return DiagonalSystem(poles, B, C, D, dt, **options)


def by_roots(system):
    """Return the errors from triangular square roots of the Gramian."""
    theta, R = basis_coefficients(system), basis_square_root(system)
    K, q = theta.shape[-2:]
    errors = np.empty(system.poles.shape).reshape(-1, system.order)
    factor = np.ascontiguousarray(R.reshape(-1, K, K))
    target = np.ascontiguousarray((R @ theta).reshape(-1, K, q))
    fill_root_removals(factor, target, K - 2 * system.order, errors)
    return errors.reshape(system.poles.shape)


@pytest.mark.parametrize("real_output", [False, True])
@pytest.mark.parametrize(
    ("dt", "recurrence"), [(1.0, "standard"), (1.0, "post-update"), (0.0, "standard")]
)
@pytest.mark.parametrize("outputs", [1, 2])
def test_closed_form_agrees_with_square_roots(dt, recurrence, real_output, outputs):
    rng = np.random.default_rng(5)
    options = {"recurrence": recurrence, "real_output": real_output}
    system = random_system(rng, (3, 2), 5, 1, outputs, dt, **options)
    poles, B = system.poles.copy(), system.B.copy()
    poles[0, 0, 1] = poles[0, 0, 1].real  # a real mode in a half spectrum
    B[1, 0, 2] = 0  # a mode that nothing drives
    system = system.replace(poles=poles, B=B)
    errors, expected = single_removal_errors(system), by_roots(system)
    assert errors[1, 0, 2] == 0
    assert errors.max() > 0.1
    np.testing.assert_allclose(errors, expected, rtol=0, atol=SQUARE_ROOT * expected.max())


def exact_errors(system):
    """Return ``sqrt(|c_e|^2 / (P^-1)_ee)`` to 80 digits."""
    n = system.order
    with mp.workdps(200):
        l = [mp.mpc(v.real, v.imag) for v in system.poles]
        b = [mp.mpc(v.real, v.imag) for v in system.B[:, 0]]
        P = mp.matrix(n, n)
        for i in range(n):
            for j in range(n):
                gap = 1 - l[i] * mp.conj(l[j]) if system.is_discrete else -l[i] - mp.conj(l[j])
                P[i, j] = b[i] * mp.conj(b[j]) / gap
        X = mp.inverse(P)
        return [mp.sqrt(mp.mpf(abs(system.C[0, e]) ** 2) / mp.re(X[e, e])) for e in range(n)]


@pytest.mark.parametrize(
    ("poles", "dt"),
    [
        (-np.arange(1.0, 21.0), 0.0),
        (0.9 + 1e-6 * np.arange(6) + 1e-6j * np.arange(6) ** 2, 1.0),
        (np.array([1 - 1e-12, 1 - 1e-9, 0.5, -0.3, 1j * (1 - 1e-12)]), 1.0),
        (np.array([0.0, 0.25, -0.5j]), 1.0),
    ],
)
def test_right_in_relative_terms_where_the_gramian_is_singular(poles, dt):
    n = len(poles)
    b = np.linspace(1.0, 2.0, n) * np.exp(0.5j * np.arange(n))
    system = DiagonalSystem(poles, b, np.ones(n), dt=dt)
    errors = single_removal_errors(system)
    for error, exact in zip(errors, exact_errors(system), strict=True):
        assert abs(mp.mpf(float(error)) / exact - 1) < ROUNDING


@pytest.mark.parametrize("horizon", [None, 30])
def test_first_step_of_the_path_is_the_cheapest_removal(horizon):
    rng = np.random.default_rng(8)
    system = random_system(rng, (4,), 5, 2, 2, 1.0, real_output=True)
    errors = single_removal_errors(system, horizon=horizon)
    path = SubsetReductor(horizon=horizon).path(system)
    np.testing.assert_array_equal(errors.argmin(axis=-1), path.removal[:, 0])
    atol = SQUARE_ROOT * path.norms.max()
    np.testing.assert_allclose(errors.min(axis=-1), path.errors[:, 1], rtol=0, atol=atol)


def test_conjugate_pairs_go_as_one():
    rng = np.random.default_rng(9)
    half = random_system(rng, (3,), 4, 1, 1, 1.0, real_output=True)
    errors = single_removal_errors(half.full_spectrum())
    expected = np.sort(np.repeat(single_removal_errors(half), 2, axis=-1), axis=-1)
    np.testing.assert_allclose(np.sort(errors, axis=-1), expected, rtol=ROUNDING)


def test_repeated_poles_cost_nothing_and_empty_is_empty():
    twice = DiagonalSystem([0.5, 0.5, 0.1], np.ones(3), np.ones(3))
    errors = single_removal_errors(twice)
    assert errors[0] == errors[1] == 0 < errors[2]
    empty = DiagonalSystem(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros((0, 3)))
    assert single_removal_errors(empty).shape == (0, 3)
    one = DiagonalSystem([0.6], [4.0], [1.0])
    np.testing.assert_allclose(single_removal_errors(one), [5.0], rtol=ROUNDING)


def test_refusals():
    with pytest.raises(UnstableSystemError):
        single_removal_errors(DiagonalSystem([1.0], [1.0], [1.0]))
    with pytest.raises(UnsupportedOperationError):
        single_removal_errors(DenseSystem([[0.5]], [[1.0]], [[1.0]]))
    with pytest.raises(UnsupportedOperationError):
        single_removal_errors(DiagonalSystem([-1.0], [1.0], [1.0], dt=0), horizon=4)
