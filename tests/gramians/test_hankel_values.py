"""Hankel singular values and pivoted Cauchy factors against 60 digits, small ones too."""

from __future__ import annotations

import mpmath as mp
import numpy as np
import pytest

from ssmred.gramians import controllability_gramian, hankel_singular_values
from ssmred.gramians.closed_form import cauchy_ldl, conjugate_factor, pivoted_factor
from ssmred.gramians.hankel import gramian_factors, singular_values
from ssmred.kernels.jacobi import fill_decompositions
from ssmred.systems import DenseSystem, DiagonalSystem

DIGITS = 60
MORE = 160  # digits, where values over 100 decades are found by an algorithm that is not relative
UNIT = 2.0**-53
SMALL = 1e-13  # relative, of each value: sums of 20 products, pivots and rotations
RANDOM = 1e-12  # the same for complex residues, whose squares cancel a little in the Hankel matrix
PLAIN = 1e-12  # relative to the largest value: two dense methods in float64


@pytest.fixture(autouse=True)
def digits():
    with mp.workdps(DIGITS):
        yield


def complex_normal(rng, *shape):
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def random_system(seed, *, n=7, m=1, p=1, dt=1.0, real_output=False):
    """Return a complex system, one pole near the boundary and two poles near each other."""
    rng = np.random.default_rng(seed)
    if dt:
        poles = 0.95 * np.sqrt(rng.random(n)) * np.exp(2j * np.pi * rng.random(n))
        poles[0] = (1 - 1e-9) * np.exp(0.7j)
    else:
        poles = -rng.uniform(0.1, 2, n) + 3j * rng.standard_normal(n)
        poles[0] = -1e-9 + 0.7j
    poles[2] = poles[1] * (1 - 1e-6)
    B, C = complex_normal(rng, n, m), complex_normal(rng, p, n)
    return DiagonalSystem(poles, B, C, dt=dt, real_output=real_output)


def gap(x, a, continuous):
    return -(x + mp.conj(a)) if continuous else 1 - x * mp.conj(a)


def exact_factor(poles, weights, order, continuous):
    """Return F column by column, for the poles in that order."""
    poles, value = [mp.mpc(x) for x in poles], [mp.mpc(x) for x in weights]
    F = mp.zeros(len(poles), len(order))
    for k, p in enumerate(order):
        a = poles[p]
        root = mp.sqrt(mp.re(gap(a, a, continuous)))
        for i, x in enumerate(poles):
            quotient = value[i] / gap(x, a, continuous)
            F[i, k] = root * quotient
            value[i] = quotient * (x - a)
    return F


def exact_values(system):
    """Return the Hankel values of a single-input single-output system from its residues."""
    poles = [mp.mpc(x) for x in system.poles]
    residues = [mp.mpc(b) * mp.mpc(c) for b, c in zip(system.B[:, 0], system.C[0], strict=True)]
    if system.real_output:
        poles = poles + [mp.conj(x) for x in poles]
        residues = [r / 2 for r in (*residues, *(mp.conj(r) for r in residues))]
    roots = [mp.sqrt(r) for r in residues]
    F = exact_factor(poles, roots, range(len(poles)), not system.is_discrete)
    return sorted(mp.svd_c(F.T * F, compute_uv=False), reverse=True)


def relative_errors(got, exact):
    return [float(abs(mp.mpf(x) / y - 1)) for x, y in zip(got, exact, strict=True)]


@pytest.mark.theorem("hankel-values")
@pytest.mark.parametrize("dt", [0.0, 1.0])
def test_every_factor_gives_the_same_values(dt):
    system = random_system(0, m=2, p=3, dt=dt)
    expected = hankel_singular_values(system)
    rng = np.random.default_rng(1)
    Lp, Lq = gramian_factors(system)
    rotations = [np.linalg.qr(complex_normal(rng, 9, 9))[0][:7] for _ in range(2)]
    wide = (Lq @ rotations[0]).conj().T @ (Lp @ rotations[1])
    got = np.linalg.svd(wide, compute_uv=False)[:7]
    np.testing.assert_allclose(got, expected, rtol=0, atol=PLAIN * expected[0])


@pytest.mark.theorem("hankel-values")
@pytest.mark.parametrize("dt", [0.0, 1.0])
@pytest.mark.parametrize("real_output", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_all_values_of_complex_systems_are_accurate(seed, real_output, dt):
    system = random_system(seed, dt=dt, real_output=real_output)
    exact = exact_values(system)
    assert max(relative_errors(hankel_singular_values(system), exact)) <= RANDOM


@pytest.mark.theorem("hankel-values")
def test_all_twenty_values_over_29_decades():
    system = DiagonalSystem(-np.arange(1.0, 21.0), np.ones(20), np.ones(20), dt=0)
    P = mp.matrix(20, 20)
    for i in range(20):
        for j in range(20):
            P[i, j] = mp.mpf(1) / (i + j + 2)
    exact = sorted(mp.eigsy(P, eigvals_only=True), reverse=True)  # P = Q: the values themselves
    assert exact[-1] < 1e-28 * exact[0]
    assert max(relative_errors(hankel_singular_values(system), exact)) <= SMALL


@pytest.mark.theorem("hankel-values")
def test_values_of_an_all_pass_system_are_one():
    """``prod (1 - conj(a) z) / (z - a)`` has as many Hankel values 1 as poles."""
    poles = np.array([0.5, -0.3 + 0.6j, 0.1 - 0.8j, 0.9j])
    residues = [
        np.prod([(1 - np.conj(a) * p) / ((p - a) if a != p else 1) for a in poles]) for p in poles
    ]
    values = hankel_singular_values(DiagonalSystem(poles, np.ones(4), residues))
    np.testing.assert_allclose(values, 1, rtol=SMALL)


@pytest.mark.theorem("hankel-values")
@pytest.mark.parametrize("residue", [-2.0, 3.0 - 4.0j])
def test_real_poles_of_a_real_part_count_once(residue):
    """A real pole has one real state: ``Re(r) / (1 - l^2)``, negative residues too."""
    one = DiagonalSystem([0.5], [1.0], [residue], real_output=True)
    expected = [abs(residue.real) / 0.75, 0.0]
    np.testing.assert_allclose(hankel_singular_values(one), expected, rtol=SMALL, atol=0)


@pytest.mark.theorem("hankel-values")
@pytest.mark.parametrize("size", [1e-3, 1e-9])
def test_small_values_depend_on_a_graded_matrix_continuously(size):
    """Item 4, for two gradings over 40 and 20 decades and a complex M that is not positive."""
    rng, n = np.random.default_rng(0), 5
    lower = np.tril(complex_normal(rng, n, n), -1) + 2 * np.eye(n)
    upper = np.triu(complex_normal(rng, n, n), 1) + 2 * np.eye(n)
    L, U = mp.matrix(lower.tolist()), mp.matrix(upper.tolist())
    left = mp.diag([mp.mpf(10) ** (-10 * k) for k in range(n)])
    right = mp.diag([mp.mpf(10) ** (-5 * k) for k in range(n)])
    ends = [mp.svd_c(X, compute_uv=False) for X in (L, U)]
    change = complex_normal(rng, n, n)
    change *= size / np.linalg.norm(change)
    nu = mp.mnorm(mp.matrix(change.tolist()), "f") / (ends[0][n - 1] * ends[1][n - 1])
    assert nu <= 0.5
    kappas = [s[0] / s[n - 1] for s in ends]
    bound = (1 + 2 * nu * kappas[0]) * (1 + 2 * nu * kappas[1]) - 1
    with mp.workdps(MORE):
        changed = L * U + mp.matrix(change.tolist())
        before = mp.svd_c(left * L * U * right, compute_uv=False)
        after = mp.svd_c(left * changed * right, compute_uv=False)
    moved = [abs(y / x - 1) for x, y in zip(before, after, strict=True)]
    assert max(moved) <= bound
    assert max(moved) > 0


@pytest.mark.theorem("hankel-values")
@pytest.mark.parametrize("complex_data", [False, True])
def test_singular_values_of_graded_columns_and_rows(complex_data):
    """``D1 M D2`` over 100 decades: plain SVD would lose all but the first values."""
    rng, n = np.random.default_rng(2), 6
    M = np.eye(n) + 0.1 * rng.standard_normal((n, n))
    M = M + 0.1j * rng.standard_normal((n, n)) if complex_data else M
    left, right = 10.0 ** (-9.0 * np.arange(n)), 10.0 ** (-11.0 * np.arange(n))
    places = rng.permutation(n), rng.permutation(n)
    G = (left[:, None] * M * right)[places[0]][:, places[1]]
    with mp.workdps(MORE):
        exact = mp.svd_c(mp.matrix(G.tolist()), compute_uv=False)
    assert max(relative_errors(singular_values(G, "test"), exact)) <= SMALL
    plain = np.linalg.svd(G, compute_uv=False)
    assert max(relative_errors(plain, exact)) > 0.1


@pytest.mark.theorem("hankel-values")
def test_dropped_columns_bound_what_is_missing():
    rng, n = np.random.default_rng(3), 6
    G = complex_normal(rng, 1, n, n) * 10.0 ** (-2.0 * np.arange(n))
    r = np.zeros((1, n))
    W, X = np.zeros((2, 1, n, n), complex)
    tau, values = np.zeros((2, 1, n))
    rows, place, order = np.zeros((3, 1, n), np.int64)
    ranks, dropped = np.zeros(1, np.int64), r[:, 0].copy()
    fill_decompositions(G, 1e-11, W, tau, rows, place, X, order, values, ranks, dropped)
    assert ranks[0] == 3
    exact = [float(x) for x in mp.svd_c(mp.matrix(G[0].tolist()), compute_uv=False)]
    missing = np.array(exact) - values[0]
    assert np.all(values[0, 3:] == 0)
    assert np.all(missing >= -PLAIN * exact[0])
    assert np.all(missing <= dropped[0] * (1 + PLAIN) + PLAIN * np.array(exact))


@pytest.mark.theorem("cauchy-ldl")
@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_every_entry_of_the_pivoted_factor(seed, continuous):
    rng, n = np.random.default_rng(seed), 10
    near = 10.0 ** rng.uniform(-12, -0.3, n)
    angles = rng.uniform(-3.1, 3.1, n)
    poles = -near + 1j * angles if continuous else (1 - near) * np.exp(1j * angles)
    poles[3] = poles[2] * (1 - 1e-9)
    weights = complex_normal(rng, n) * 10.0 ** rng.uniform(-4, 4, n)
    F, order = pivoted_factor(poles, weights[:, None], continuous=continuous)
    exact = exact_factor(poles, weights, order, continuous)
    for k in range(n):
        allowed = (11 * (k + 1) + 1) * UNIT
        for i in range(n):
            assert abs(mp.mpc(F[i, k]) - exact[i, k]) <= allowed * abs(exact[i, k])
    # complete pivoting
    pivots = abs(F[order, range(n)])
    assert np.all(np.diff(pivots) <= 0)
    assert np.all(np.triu(F[order], 1) == 0)
    assert np.all(abs(F) <= pivots * (1 + 12 * n * UNIT))


@pytest.mark.theorem("cauchy-ldl")
def test_unit_factor_pivots_and_order():
    """By hand: P = [[1, 1], [1, 4/3]], and a pole three times whose pivots end after one."""
    system = DiagonalSystem([0.0, 0.5], [1.0, 1.0], [1.0, 1.0])
    L, d, order = cauchy_ldl(system)
    assert order.tolist() == [1, 0]
    np.testing.assert_allclose(d, [4 / 3, 1 / 4], rtol=4 * UNIT)
    np.testing.assert_allclose(L, [[1, 0], [3 / 4, 1]], rtol=4 * UNIT)
    pole, b = 0.3 + 0.4j, np.array([1.0, -2.0, 1.0j])
    L, d, order = cauchy_ldl(DiagonalSystem([pole] * 3, b, np.ones(3)))
    assert order[0] == 1
    np.testing.assert_allclose(d, [4 / 0.75, 0, 0], rtol=4 * UNIT)
    np.testing.assert_allclose(L[:, 0], b[order] / -2.0, rtol=4 * UNIT)
    assert L[1:, 1:].tolist() == [[1, 0], [0, 1]]


@pytest.mark.theorem("cauchy-ldl")
def test_ill_conditioned_real_factor_keeps_all_pivots():
    """Pivots of the Hilbert-like Gramian of diag(-1..-20), each to its own size."""
    system = DiagonalSystem(-np.arange(1.0, 21.0), np.ones(20), np.ones(20), dt=0)
    L, d, order = cauchy_ldl(system)
    exact = exact_factor(system.poles, system.B[:, 0], order, True)
    assert d[-1] < 1e-27
    for k in range(20):
        square = abs(exact[order[k], k]) ** 2
        assert abs(mp.mpf(d[k]) - square) <= (2 * (11 * (k + 1) + 1) + 4) * UNIT * square
    assert L.dtype == np.float64
    assert np.linalg.cond(L) < 100


def pair_columns(poles, weights, order, continuous):
    """Return exact columns of the real functions, a list with one block per mode."""
    poles, value = [mp.mpc(x) for x in poles], [mp.mpc(x) for x in weights]
    blocks = []
    for p in order:
        a = poles[p]
        margin, rho, columns = mp.re(gap(a, a, continuous)), abs(a) ** 2, []
        if a.imag == 0:
            columns.append(
                [
                    v * mp.sqrt(margin) / gap(x, a, continuous)
                    for v, x in zip(value, poles, strict=True)
                ]
            )
        else:
            q = [gap(x, a, continuous) * gap(x, mp.conj(a), continuous) for x in poles]
            if continuous:
                tops = [(-x, mp.sqrt(rho)) for x in poles]
                scale = mp.sqrt(2 * margin)
            else:
                b = 2 * a.real / (1 + rho)
                tops = [(x - b, mp.sqrt(1 - b * b)) for x in poles]
                scale = mp.sqrt(margin * (1 + rho))
            for which in range(2):
                columns.append(
                    [scale * v * t[which] / y for v, t, y in zip(value, tops, q, strict=True)]
                )
        blocks.append(columns)
        for point in {a, mp.conj(a)} if a.imag != 0 else {a}:
            value = [
                v * (x - point) / gap(x, point, continuous)
                for v, x in zip(value, poles, strict=True)
            ]
    return blocks


def pivot_order(poles, weights, continuous):
    poles, value = [mp.mpc(x) for x in poles], [mp.mpc(x) for x in weights]
    order = []
    for _ in poles:
        sizes = [
            abs(v) ** 2 / mp.re(gap(x, x, continuous)) for v, x in zip(value, poles, strict=True)
        ]
        best = max(range(len(poles)), key=lambda i: sizes[i])
        order.append(best)
        a = poles[best]
        for point in (a,) if a.imag == 0 else (a, mp.conj(a)):
            value = [
                v * (x - point) / gap(x, point, continuous)
                for v, x in zip(value, poles, strict=True)
            ]
    return order


@pytest.mark.theorem("cauchy-ldl")
@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_every_entry_of_the_real_factor(seed, continuous):
    rng, n = np.random.default_rng(seed), 7
    near = 10.0 ** rng.uniform(-12, -0.3, n)
    angles = rng.uniform(-3.1, 3.1, n)
    poles = -near + 1j * angles if continuous else (1 - near) * np.exp(1j * angles)
    poles[4] = poles[4].real
    weights = complex_normal(rng, n)
    F = conjugate_factor(poles, weights[:, None], continuous=continuous)
    modes = F[0::2] + 1j * F[1::2]
    order = pivot_order(poles, weights, continuous)
    place, last = 0, mp.inf
    for k, block in enumerate(pair_columns(poles, weights, order, continuous)):
        allowed = (17 * (k + 1) + 14) * UNIT
        sizes = [mp.sqrt(sum(abs(column[i]) ** 2 for column in block)) for i in range(n)]
        for column in block:
            for i in range(n):
                error = abs(mp.mpc(modes[i, place]) - column[i])
                assert error <= allowed * sizes[i]
            place += 1
        pivot = sizes[order[k]]
        assert max(sizes) <= pivot * (1 + mp.mpf(10) ** -40)
        assert pivot <= last
        last = pivot
    assert place == 2 * n - 1
    assert np.all(F[:, place:] == 0)


@pytest.mark.theorem("cauchy-ldl")
@pytest.mark.parametrize("continuous", [False, True])
def test_real_factor_has_the_gramian_of_the_real_states(continuous):
    system = random_system(5, dt=0.0 if continuous else 1.0, real_output=True)
    poles, b = system.poles[1:], system.B[1:, 0]  # without the pole at 1e-9: PLAIN is relative
    F = conjugate_factor(poles, b[:, None], continuous=continuous)
    other = poles[:, None] + poles if continuous else 1 - poles[:, None] * poles
    mixed = poles[:, None] + poles.conj() if continuous else 1 - poles[:, None] * poles.conj()
    sign = -1 if continuous else 1
    P, twin = sign * np.outer(b, b.conj()) / mixed, sign * np.outer(b, b) / other
    modes = F[0::2] + 1j * F[1::2]
    for got, exact in ((modes @ modes.conj().T, P), (modes @ modes.T, twin)):
        np.testing.assert_allclose(got, exact, rtol=0, atol=PLAIN * abs(P).max())


@pytest.mark.theorem("cauchy-ldl")
@pytest.mark.parametrize(
    ("pole", "continuous"), [(0.6 + 0.3j, False), (-0.5 + 0.01j, False), (-0.5 - 0.1j, True)]
)
def test_condition_of_the_block_of_a_pair(pole, continuous):
    F = conjugate_factor(np.array([pole]), np.array([[1.3 - 0.4j]]), continuous=continuous)
    size = abs(2 * pole) if continuous else abs(1 - pole**2)
    delta = 2 * abs(pole.imag) / size
    expected = (1 + np.sqrt(1 - delta**2)) / delta
    assert np.linalg.cond(F) == pytest.approx(expected, rel=PLAIN)
    assert expected <= 2 / delta


@pytest.mark.theorem("cauchy-ldl")
@pytest.mark.parametrize("continuous", [False, True])
def test_factor_for_several_inputs(continuous):
    system = random_system(6, m=3, dt=0.0 if continuous else 1.0)
    F, order = pivoted_factor(system.poles, system.B, continuous=continuous)
    P = controllability_gramian(system)  # entry by entry accurate
    sizes = np.sqrt(np.diagonal(P).real)
    # relative to every row, although the rows differ by 1e4
    assert np.all(abs(F @ F.conj().T - P) <= PLAIN * np.outer(sizes, sizes))
    assert np.all(np.triu(F[order], 1) == 0)


@pytest.mark.theorem("hankel-values")
@pytest.mark.parametrize("discrete", [False, True])
def test_small_values_of_dense_systems_come_from_their_modes(discrete):
    """The stored dense matrices determine them; the answer is that of 80-digit arithmetic."""
    rng = np.random.default_rng(4)
    n = 8
    poles = np.linspace(0.1, 0.8, n) if discrete else -np.arange(1.0, n + 1)
    T = np.eye(n) + 0.1 * rng.standard_normal((n, n))
    A = T @ np.diag(poles) @ np.linalg.inv(T)
    B, C = T @ np.ones((n, 1)), np.ones((1, n)) @ np.linalg.inv(T)
    found = hankel_singular_values(DenseSystem(A, B, C, dt=1.0 if discrete else 0.0))
    with mp.workdps(80):
        X, Y = (
            exact_gramian(mp.matrix(F.tolist()), mp.matrix(G.tolist()), discrete)
            for F, G in ((A, B), (A.T, C.T))
        )
        values = mp.eig(X * Y, left=False, right=False)
        exact = sorted((mp.sqrt(mp.re(v)) for v in values), reverse=True)
        errors = [float(abs(mp.mpf(float(x)) / y - 1)) for x, y in zip(found, exact, strict=True)]
    assert float(exact[-1] / exact[0]) < 1e-9
    assert max(errors) < 1e-9


def exact_gramian(A, B, discrete):
    """Return X of ``X - A X A^T = B B^T`` or ``A X + X A^T = -B B^T`` as one linear system."""
    n = A.rows
    M, right = mp.matrix(n * n), mp.matrix(n * n, 1)
    for i in range(n):
        for j in range(n):
            right[i * n + j] = sum(B[i, k] * B[j, k] for k in range(B.cols)) * (
                1 if discrete else -1
            )
            for k in range(n):
                for q in range(n):
                    if discrete:
                        M[i * n + j, k * n + q] = (i == k) * (j == q) - A[i, k] * A[j, q]
                    else:
                        M[i * n + j, k * n + q] = A[i, k] * (j == q) + (i == k) * A[j, q]
    x = mp.lu_solve(M, right)
    return mp.matrix([[x[i * n + j] for j in range(n)] for i in range(n)])
