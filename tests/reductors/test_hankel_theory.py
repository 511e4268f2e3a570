"""What theory says of optimal Hankel-norm approximation, on complex data and by hand."""

from __future__ import annotations

import mpmath as mp
import numpy as np
import pytest
from scipy.linalg import block_diag

from ssmred.gramians import hankel_singular_values
from ssmred.norms import hankel_error
from ssmred.reductors import BalancedReductor, HankelReductor, SubsetReductor
from ssmred.reductors.all_pass import embedding_bounds, multiplicity_groups
from ssmred.systems import DenseSystem, DiagonalSystem, cayley

DIGITS = 60
FLAT = 1e-11  # modulus of an all-pass error, relative: eigenvalues of an 8 x 8 matrix in float64
SAME = 1e-9  # Hankel values of a difference of two systems by a plain dense method, relative to s_1
STORED = 1e-14  # rounding of stored poles and residues, relative to s_1
ROOT = 1e-7  # y at a mirrored pole, relative to its terms: the pole is an eigenvalue in float64
METHODS = ["glover", "con-eigenvalues"]


def complex_normal(rng, *shape):
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def single(seed, *, n=6, continuous=False, real=False):
    """Return a random diagonal system, one input and one output; a real one has n / 2 pairs."""
    rng = np.random.default_rng(seed)
    n = n // 2 if real else n
    if continuous:
        poles = -rng.uniform(0.1, 2, n) + 3j * rng.standard_normal(n)
    else:
        poles = 0.95 * np.sqrt(rng.random(n)) * np.exp(2j * np.pi * rng.random(n))
    B, C = complex_normal(rng, n), complex_normal(rng, n)
    dt = 0.0 if continuous else 1.0
    system = DiagonalSystem(poles, B, C, 0.3, dt=dt, real_output=real)
    return system.full_spectrum() if real else system


def balanced(seed, sigma, m, p, *, real=False):
    """Return a random balanced system with these Hankel values, equal ones included."""
    rng, n = np.random.default_rng(seed), len(sigma)
    normal = (
        (lambda *shape: rng.standard_normal(shape))
        if real
        else (lambda *shape: complex_normal(rng, *shape))
    )
    sigma = np.array(sigma, float)
    B, C, skew = normal(n, m), normal(p, n), normal(n, n)
    for value in np.unique(sigma):
        group = sigma == value  # B and C of a group have the same Gramian
        one = np.linalg.cholesky(B[group] @ B[group].conj().T)
        two = np.linalg.cholesky(C[:, group].conj().T @ C[:, group])
        C[:, group] = C[:, group] @ np.linalg.inv(two).conj().T @ one.conj().T
    BB, CC = B @ B.conj().T, C.conj().T @ C
    row, column = sigma[:, None], sigma[None, :]
    same = row == column
    gaps = np.where(same, 1.0, column**2 - row**2)
    A = np.where(same, -BB / (2 * row) + skew - skew.conj().T, (row * CC - column * BB) / gaps)
    return DenseSystem(A, B, C, normal(p, m), dt=0)


def frequencies(*systems):
    """Return frequencies between, at and beside the poles (rad per sample or per second)."""
    poles = np.concatenate([np.linalg.eigvals(s.to_dense().A) for s in systems])
    if systems[0].is_discrete:
        poles = poles[poles != 0]
        width, centre = 1 - abs(poles), np.angle(poles)
        grid = np.linspace(-np.pi, np.pi, 41)
    else:
        width, centre = -poles.real, poles.imag
        grid = np.concatenate([[0.0], np.logspace(-3, 4, 20), -np.logspace(-3, 4, 20)])
    return np.concatenate([grid, centre, centre + width, centre - width])


def error_response(full, reduced):
    """Return the sampled frequency response (W, p, m) of the error."""
    omega = frequencies(full, reduced)
    return full.frequency_response(omega) - reduced.frequency_response(omega)


def sampled_norm(full, reduced):
    return np.linalg.norm(error_response(full, reduced), 2, axis=(-2, -1)).max()


@pytest.mark.theorem("hankel-norm-approximation")
@pytest.mark.theorem("aak-con-eigenvalues")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("continuous", [False, True])
def test_one_mode_by_hand(method, continuous):
    """The circle of ``r / (z - l)`` has centre ``r conj(l) / (1 - |l|^2)`` or ``-r / (2 Re l)``."""
    pole, r = (-0.4 + 2.0j, 3.0 - 1.0j) if continuous else (0.6 + 0.3j, 3.0 - 1.0j)
    system = DiagonalSystem([pole], [r], [1.0], 0.5j, dt=0.0 if continuous else 1.0)
    centre = -r / (2 * pole.real) if continuous else r * np.conj(pole) / (1 - abs(pole) ** 2)
    radius = -abs(r) / (2 * pole.real) if continuous else abs(r) / (1 - abs(pole) ** 2)
    reduction = HankelReductor(method=method).reduce(system, order=0)
    assert reduction.system.order == 0
    assert reduction.system.D[0, 0] == pytest.approx(0.5j + centre, rel=FLAT)
    assert reduction.claim.value == pytest.approx(radius, rel=FLAT)


@pytest.mark.theorem("hankel-norm-approximation")
@pytest.mark.theorem("aak-con-eigenvalues")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("real", [False, True])
def test_error_of_the_last_order_is_flat(method, continuous, real):
    system = single(1, continuous=continuous, real=real)
    values = hankel_singular_values(system)
    reduced = HankelReductor(method=method).reduce(system, order=5).system
    sizes = abs(error_response(system, reduced)[:, 0, 0])
    np.testing.assert_allclose(sizes, values[-1], rtol=0, atol=FLAT * values[0])


@pytest.mark.theorem("hankel-norm-approximation")
@pytest.mark.theorem("aak-con-eigenvalues")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("real", [False, True])
def test_every_order_is_optimal_and_within_its_bound(method, continuous, real):
    """Items 3 to 5: r poles, Hankel values of the error, H-infinity bound without slack."""
    system = single(4 + 2 * continuous + real, n=4, continuous=continuous, real=real)
    values = hankel_singular_values(system)
    for r in range(4):
        reduction = HankelReductor(method=method).reduce(system, order=r)
        reduced = reduction.system
        assert reduced.order == r
        margins = -reduced.poles.real if continuous else 1 - abs(reduced.poles)
        assert np.all(margins > 0)
        assert np.all(abs(reduced.B[:, 0] * reduced.C[0]) > 0)
        assert hankel_error(system, reduced) == pytest.approx(values[r], rel=SAME)
        left = hankel_singular_values(difference(system, reduced))
        np.testing.assert_allclose(left[: 2 * r + 1], values[r], atol=SAME * values[0])
        assert np.all(left[2 * r + 1 :] <= values[r + 1 :] + SAME * values[0])
        assert reduction.claim.value == pytest.approx(values[r:].sum(), rel=FLAT)
        assert sampled_norm(system, reduced) <= reduction.bound.value


def difference(full, reduced):
    """Return the strictly proper part of the error with the states of both."""
    full, reduced = full.to_dense(), reduced.to_dense()
    return DenseSystem(
        block_diag(full.A, reduced.A),
        np.concatenate([full.B, reduced.B]),
        np.concatenate([full.C, -reduced.C], axis=1),
        dt=full.dt,
    )


@pytest.mark.theorem("hankel-norm-approximation")
@pytest.mark.parametrize(("m", "p"), [(2, 2), (3, 2), (2, 3)])
@pytest.mark.parametrize("real", [False, True])
def test_systems_of_any_shape(m, p, real):
    sigma = [5.0, 3.0, 1.5, 1.0, 0.25]
    system = balanced(m + 10 * p, sigma, m, p, real=real)
    for r in range(5):
        reduction = HankelReductor().reduce(system, order=r)
        reduced = reduction.system
        assert reduction.method == "hankel, glover"
        assert reduced.order == r
        assert np.all(np.linalg.eigvals(reduced.A).real < 0)
        assert reduced.A.dtype == system.A.dtype
        assert hankel_error(system, reduced) == pytest.approx(sigma[r], rel=SAME)
        assert sampled_norm(system, reduced) <= reduction.bound.value
        assert reduction.claim.value == pytest.approx(sum(sigma[r:]), rel=SAME)


@pytest.mark.theorem("hankel-norm-approximation")
def test_no_system_of_that_order_is_better():
    """The optimum is sigma_{r+1}: whatever else has r states, or moves from it, is above."""
    rng = np.random.default_rng(0)
    for seed in range(3):
        system = single(seed)
        values = hankel_singular_values(system)
        for r in (1, 3, 5):
            best = HankelReductor().reduce(system, order=r).system
            others = [
                BalancedReductor().reduce(system, order=r).system,
                SubsetReductor().reduce(system, order=r).system,
                best.replace(C=best.C * (1 + 0.01 * complex_normal(rng, 1, r))),
                best.replace(poles=best.poles * (1 - 0.01 * rng.random(r))),
                best.replace(C=0 * best.C),
            ]
            for other in others:
                assert values[r] <= hankel_error(system, other)


@pytest.mark.theorem("hankel-norm-approximation")
@pytest.mark.parametrize("real", [False, True])
def test_equal_values_go_together(real):
    system = balanced(3, [3.0, 1.0, 1.0, 0.2], 2, 2, real=real)
    for order in (1, 2):
        reduction = HankelReductor().reduce(system, order=order)
        assert reduction.system.order == 1
        assert reduction.claim.value == pytest.approx(1.2, rel=SAME)
        assert hankel_error(system, reduction.system) == pytest.approx(1.0, rel=SAME)
        assert sampled_norm(system, reduction.system) <= reduction.bound.value


@pytest.mark.theorem("hankel-norm-approximation")
def test_equal_values_behind_the_removed_one_count_one_by_one():
    """Counting them once, 2 + 1, would not be a bound."""
    system = balanced(0, [3.0, 2.0, 1.0, 1.0], 2, 2)
    reduction = HankelReductor().reduce(system, order=1)
    error = sampled_norm(system, reduction.system)
    assert error > 3.5
    assert error <= reduction.claim.value
    assert reduction.claim.value == pytest.approx(4.0, rel=SAME)


@pytest.mark.theorem("hankel-norm-approximation")
def test_bounds_of_every_order():
    assert embedding_bounds(np.array([3.0, 2.0, 1.0, 1.0])).tolist() == [7, 4, 1, 1, 0]
    assert embedding_bounds(np.array([[2.0, 2.0, 0.5], [1.0, 0.0, 0.0]])).tolist() == [
        [2.5, 2.5, 0.5, 0],
        [1, 0, 0, 0],
    ]
    assert multiplicity_groups(np.array([1.0, 1 - 1e-12, 1 - 1e-8, 0.0])).tolist() == [0, 0, 1, 2]


def con_eigenvector(system, r):
    """Return sigma, a, and the roots w of the residues, in 60 digits: ``P conj(a) = sigma a``."""
    poles = [mp.mpc(x) for x in system.poles]
    w = [mp.sqrt(mp.mpc(b) * mp.mpc(c)) for b, c in zip(system.B[:, 0], system.C[0], strict=True)]
    n = len(poles)
    P = mp.matrix(n, n)
    for i in range(n):
        for j in range(n):
            a, b = poles[i], mp.conj(poles[j])
            P[i, j] = w[i] * mp.conj(w[j]) / ((1 - a * b) if system.is_discrete else -(a + b))
    squares, vectors = mp.eig(P * P.apply(mp.conj))
    k = sorted(range(n), key=lambda i: -mp.re(squares[i]))[r]
    x, sigma = vectors[:, k], mp.sqrt(mp.re(squares[k]))
    image = P * x.apply(mp.conj)
    big = max(range(n), key=lambda i: abs(x[i]))
    x = x * mp.sqrt(image[big] / (sigma * x[big]))
    assert mp.norm(P * x.apply(mp.conj) - sigma * x) <= mp.mpf(10) ** -30 * sigma * mp.norm(x)
    return sigma, x, w, poles


@pytest.mark.theorem("aak-con-eigenvalues")
@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("real", [False, True])
def test_poles_are_zeros_of_the_con_eigenvector(continuous, real):
    """Item 4, with residues: ``H - sigma y / u`` at 60 digits against the stored system."""
    for seed in range(2):
        system = single(seed, continuous=continuous, real=real)
        values = hankel_singular_values(system)
        for r in (1, 2, 4, 5):
            reduced = HankelReductor(method="con-eigenvalues").reduce(system, order=r).system
            with mp.workdps(DIGITS):
                sigma, a, w, poles = con_eigenvector(system, r)
                assert abs(values[r] / sigma - 1) <= FLAT
                assert reduced.order == r
                for pole, residue in zip(
                    reduced.poles, reduced.B[:, 0] * reduced.C[0], strict=True
                ):
                    p = mp.mpc(pole)
                    weights = [x * y for x, y in zip(w, a, strict=True)]
                    y = mp.fsum(x / (p - q) for x, q in zip(weights, poles, strict=True))
                    if continuous:
                        gaps, inner = [-p - mp.conj(q) for q in poles], [1] * len(poles)
                    else:
                        gaps = [1 - p * mp.conj(q) for q in poles]
                        inner = [mp.conj(q) for q in poles]
                    terms = [mp.conj(x) / g for x, g in zip(weights, gaps, strict=True)]
                    slope = mp.fsum(t * i / g for t, i, g in zip(terms, inner, gaps, strict=True))
                    assert abs(mp.fsum(terms)) <= ROOT * mp.fsum(abs(t) for t in terms)
                    expected = complex(-sigma * y / slope)
                    assert residue == pytest.approx(expected, rel=ROOT)


@pytest.mark.theorem("aak-con-eigenvalues")
@pytest.mark.parametrize("continuous", [False, True])
def test_order_zero_of_a_real_system_is_the_mean_of_two_values(continuous):
    """``(H(1) + H(-1)) / 2`` or ``(H(0) + H(inf)) / 2``, whatever the Hankel values are."""
    for seed in range(3):
        system = single(seed, continuous=continuous, real=True)
        omega = np.array([0.0] if continuous else [0.0, np.pi])
        ends = system.frequency_response(omega)[:, 0, 0]
        mean = (ends.sum() + (system.D[0, 0] if continuous else 0)) / 2
        reduction = HankelReductor().reduce(system, order=0)
        assert reduction.method == "hankel, con-eigenvalues"
        assert reduction.system.D[0, 0] == pytest.approx(mean, rel=FLAT)
        assert sampled_norm(system, reduction.system) <= reduction.bound.value


@pytest.mark.theorem("aak-con-eigenvalues")
@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_only_storing_the_result_costs_digits(spread):
    """Eight values over eleven decades: each order is optimal up to what float64 can store."""
    rng = np.random.default_rng(0)
    poles = -np.arange(1.0, 9.0) + 1j * spread * rng.standard_normal(8)
    residues = np.ones(8) + 1j * spread * rng.standard_normal(8)
    system = DiagonalSystem(poles, np.ones(8), residues, dt=0)
    values = hankel_singular_values(system)
    assert values[-1] < 1e-10 * values[0]
    for r in range(8):
        reduced = HankelReductor(method="con-eigenvalues").reduce(system, order=r).system
        assert abs(hankel_error(system, reduced) - values[r]) <= STORED * values[0]


@pytest.mark.theorem("aak-con-eigenvalues")
@pytest.mark.parametrize("continuous", [False, True])
def test_all_pass_systems_have_one_multiple_value(continuous):
    """All values of ``prod (1 - conj(a) z) / (z - a)`` are 1: every order below n is order 0."""
    poles = np.array([0.5, -0.3 + 0.6j, 0.1 - 0.8j])
    residues = [
        np.prod([(1 - np.conj(a) * p) / ((p - a) if a != p else 1) for a in poles]) for p in poles
    ]
    direct = np.prod(-poles.conj())
    system = DiagonalSystem(poles, np.ones(3), residues, direct)
    if continuous:
        system = cayley(system)
    for order in range(3):
        reduction = HankelReductor().reduce(system, order=order)
        assert reduction.orders == 0
        np.testing.assert_allclose(reduction.hankel, 1, rtol=FLAT)
        assert hankel_error(system, reduction.system) == pytest.approx(1, rel=FLAT)
        assert sampled_norm(system, reduction.system) <= reduction.bound.value
