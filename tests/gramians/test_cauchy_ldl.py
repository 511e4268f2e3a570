"""Factors of Cauchy-like Gramians, entry by entry against elimination at 200 digits."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest

from ssmred.errors import ShapeError, UnstableSystemError, UnsupportedOperationError
from ssmred.gramians import cauchy_ldl, controllability_gramian, observability_gramian
from ssmred.gramians.closed_form import pivoted_factor
from ssmred.systems import DenseSystem, DiagonalSystem

DIGITS = 200
UNIT = 2.0**-53
ENTRY = 8 * UNIT  # per mode: one quotient, one product and one difference for every pivot before
TURNED = 512 * UNIT  # several inputs: a reflection for every pivot, pivots and |L| <= 1


def exact_ldl(poles, rows, order, continuous):
    """Return L and d of ``P[order][:, order]`` by elimination, and the diagonal of P."""
    n = len(poles)
    l = [mpmath.mpc(complex(pole)) for pole in poles[order]]
    b = [[mpmath.mpc(complex(x)) for x in rows[i]] for i in order]
    P = mpmath.matrix(n, n)
    for i in range(n):
        for j in range(n):
            weight = sum(x * mpmath.conj(y) for x, y in zip(b[i], b[j], strict=True))
            gap = -(l[i] + mpmath.conj(l[j])) if continuous else 1 - l[i] * mpmath.conj(l[j])
            P[i, j] = weight / gap
    L, d = mpmath.eye(n), []
    for k in range(n):
        pivot = P[k, k].real
        d.append(pivot)
        for i in range(k + 1, n):
            L[i, k] = P[i, k] / pivot if pivot > 0 else mpmath.mpf(0)
        for i in range(k + 1, n):
            for j in range(k + 1, n):
                P[i, j] -= L[i, k] * pivot * mpmath.conj(L[j, k])
    return L, d


def hard_poles(rng, n, kind, continuous):
    gap = 10.0 ** rng.uniform(-12, -0.3, n)
    if kind == "clustered":
        poles = 0.5 + 1e-6 * np.arange(n) + 0j
        return poles - 1 if continuous else poles
    if kind == "graded":
        return -np.arange(1.0, n + 1) + 0j if continuous else np.linspace(0.1, 0.9, n) + 0j
    poles = -gap + 1j * rng.normal(size=n)
    poles = poles if continuous else (1 - gap) * np.exp(1j * rng.uniform(-3, 3, n))
    if kind == "near pairs":
        poles[n // 2 :] = poles[: n - n // 2] * (1 + 1e-13)
    return poles


@pytest.mark.theorem("cauchy-ldl")
@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("kind", ["slow", "clustered", "graded", "near pairs"])
def test_every_entry_of_one_input_is_right(kind, continuous):
    """The condition of P reaches 1e120; L and d keep their digits one by one."""
    rng = np.random.default_rng(3)
    n = 10
    poles = hard_poles(rng, n, kind, continuous)
    B = (rng.normal(size=n) + 1j * rng.normal(size=n)) * 10.0 ** rng.uniform(-30, 30, n)
    system = DiagonalSystem(poles, B, np.ones(n), dt=0 if continuous else 1)
    L, d, perm = cauchy_ldl(system)
    assert sorted(perm) == list(range(n))
    assert (np.diff(d) <= 0).all()
    assert np.abs(L).max() <= 1 + ENTRY * n
    with mpmath.workdps(DIGITS):
        exact_L, exact_d = exact_ldl(poles, B[:, None], perm, continuous)
        for k in range(n):
            assert abs(mpmath.mpf(d[k]) - exact_d[k]) <= ENTRY * n * exact_d[k]
            for i in range(k, n):
                error = abs(mpmath.mpc(complex(L[i, k])) - exact_L[i, k])
                assert error <= ENTRY * n * abs(exact_L[i, k])
        # complete pivoting up to rounding: no diagonal entry left is larger
        left = [exact_d[k] for k in range(n)]
        assert all(left[k + 1] <= left[k] * (1 + ENTRY * n) for k in range(n - 1))


@pytest.mark.theorem("cauchy-ldl")
@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("kind", ["slow", "clustered", "graded", "near pairs"])
@pytest.mark.parametrize(("m", "unequal"), [(2, 0), (3, 0), (3, 12), (11, 0)])
def test_several_inputs_keep_pivots_and_rows(kind, m, unequal, continuous):
    """Modes of any size, inputs up to ``10^unequal`` apart."""
    rng = np.random.default_rng(m)
    n = 8
    poles = hard_poles(rng, n, kind, continuous)
    B = rng.normal(size=(n, m)) + 1j * rng.normal(size=(n, m))
    B *= 10.0 ** rng.uniform(-30, 30, (n, 1)) * 10.0 ** -np.linspace(0, unequal, m)
    L, d, perm = cauchy_ldl(DiagonalSystem(poles, B, np.ones((1, n)), dt=0 if continuous else 1))
    assert (np.diff(d) <= 0).all()
    with mpmath.workdps(DIGITS):
        exact_L, exact_d = exact_ldl(poles, B, perm, continuous)
        for k in range(n):
            assert abs(mpmath.mpf(d[k]) - exact_d[k]) <= TURNED * n * exact_d[k]
            for i in range(k, n):
                error = abs(mpmath.mpc(complex(L[i, k])) - exact_L[i, k])
                assert error <= TURNED * n  # entries are at most 1


@pytest.mark.theorem("cauchy-ldl")
@pytest.mark.parametrize("continuous", [False, True])
def test_many_modes_and_inputs_give_back_the_gramian(continuous):
    """``|L d L^* - P| <= 2 n eps (P_ii P_jj)^(1/2)``, the bound with eps of a step."""
    rng = np.random.default_rng(5)
    n, m = 120, 40
    poles = (1 - 10 ** rng.uniform(-9, -0.3, n)) * np.exp(1j * rng.uniform(-3, 3, n))
    poles[:40] = poles[40:80] + 1e-9  # what is left shrinks to 1e-18 there
    poles = np.log(poles) if continuous else poles
    B = rng.normal(size=(n, m)) + 1j * rng.normal(size=(n, m))
    B[:, 3:] = B[:, :3] @ rng.normal(size=(3, m - 3))  # of rank 3
    B *= 10.0 ** rng.uniform(-8, 8, (n, 1))
    system = DiagonalSystem(poles, B, np.ones((1, n)), dt=0 if continuous else 1)
    L, d, perm = cauchy_ldl(system)
    P = controllability_gramian(system)[np.ix_(perm, perm)]  # entry by entry accurate
    size = np.sqrt(np.diag(P).real)
    error = np.abs((L * d) @ L.conj().T - P)
    assert (error <= 2 * n * (m + 11) * UNIT * size[:, None] * size).all()


@pytest.mark.parametrize("m", [1, 3])
@pytest.mark.parametrize("exponent", [-1000, 900])
def test_the_size_of_b_does_not_matter(m, exponent):
    """Squares of B are out of range."""
    rng = np.random.default_rng(6)
    poles, B = rng.uniform(0.1, 0.9, 4), rng.normal(size=(4, m))
    wanted, order = pivoted_factor(poles, B, continuous=False)
    factor, again = pivoted_factor(poles, np.ldexp(B, exponent), continuous=False)
    np.testing.assert_array_equal(factor.real, np.ldexp(wanted.real, exponent))
    np.testing.assert_array_equal(again, order)


@pytest.mark.theorem("cauchy-ldl")
@pytest.mark.parametrize("m", [1, 2])
def test_equal_poles_and_silent_modes_end_the_elimination(m):
    """k equal poles span min(k, m) directions; a mode without input has no pivot."""
    rng = np.random.default_rng(7)
    B = rng.normal(size=(6, m)) + 1j * rng.normal(size=(6, m))
    B[4] = 0.0
    system = DiagonalSystem([0.5j, 0.0, 0.5j, 0.5j, 0.9, -0.3], B, np.ones((1, 6)))
    L, d, perm = cauchy_ldl(system)
    rank = 2 + min(3, m)  # 0.0, -0.3 and the directions of 0.5j
    assert (d[:rank] > 0).all()
    assert (d[rank:] <= TURNED**2 * d[0]).all()
    assert perm[-1] == 4 or d[-1] == 0
    P = controllability_gramian(system)[np.ix_(perm, perm)]
    size = np.sqrt(np.diag(P).real)
    error = np.abs(L @ np.diag(d) @ L.conj().T - P)
    assert (error <= TURNED * 6 * size[:, None] * size).all()
    assert np.isfinite(L).all()
    np.testing.assert_array_equal(np.diag(L), np.ones(6))


@pytest.mark.parametrize("dt", [1.0, 0.0])
def test_batches_real_data_and_observability(dt):
    rng = np.random.default_rng(1)
    poles = rng.uniform(0.1, 0.9, (3, 2, 5)) - (0.0 if dt else 1.0)
    B, C = rng.normal(size=(3, 2, 5, 2)), rng.normal(size=(3, 2, 1, 5))
    system = DiagonalSystem(poles, B, C, dt=dt)
    for of, gramian in (
        ("controllability", controllability_gramian(system)),
        ("observability", observability_gramian(system)),
    ):
        L, d, perm = cauchy_ldl(system, of=of)
        assert L.dtype == np.float64
        assert L.shape == (3, 2, 5, 5)
        assert d.shape == perm.shape == (3, 2, 5)
        for k in np.ndindex(3, 2):
            P = gramian[k][np.ix_(perm[k], perm[k])]
            size = np.sqrt(np.diag(P))
            error = np.abs(L[k] @ np.diag(d[k]) @ L[k].T - P)
            assert (error <= TURNED * 5 * size[:, None] * size).all()


def test_the_observability_factors_of_complex_systems():
    """A missing conjugate would show: P and Q of a system with complex poles differ."""
    rng = np.random.default_rng(2)
    poles = 0.8 * np.exp(1j * rng.uniform(0, 3, 4))
    C = rng.normal(size=(1, 4)) + 1j * rng.normal(size=(1, 4))
    system = DiagonalSystem(poles, np.ones(4), C)
    L, d, perm = cauchy_ldl(system, of="observability")
    Q = observability_gramian(system)[np.ix_(perm, perm)]
    np.testing.assert_allclose(L @ np.diag(d) @ L.conj().T, Q, rtol=0, atol=1e-14 * abs(Q).max())


def test_nothing_to_factor():
    none = DiagonalSystem(np.zeros((2, 0)), np.zeros((2, 0, 1)), np.zeros((2, 1, 0)))
    L, d, perm = cauchy_ldl(none)
    assert L.shape == (2, 0, 0)
    assert d.shape == perm.shape == (2, 0)
    deaf = DiagonalSystem([0.5, 0.1], np.zeros((2, 0)), np.ones((1, 2)))
    L, d, perm = cauchy_ldl(deaf)
    assert L.tolist() == np.eye(2).tolist()
    assert d.tolist() == [0.0, 0.0]
    assert sorted(perm) == [0, 1]


def test_bad_input():
    with pytest.raises(UnstableSystemError, match="cauchy_ldl: 1 poles"):
        cauchy_ldl(DiagonalSystem([1.0, 0.5], [1, 1], [1, 1]))
    with pytest.raises(UnsupportedOperationError, match=r"cauchy_ldl: .*controllability_factor"):
        cauchy_ldl(DenseSystem([[0.5]], [[1]], [[1]]))
    with pytest.raises(ShapeError, match="cauchy_ldl: of is not known"):
        cauchy_ldl(DiagonalSystem([0.5], [1], [1]), of="both")
