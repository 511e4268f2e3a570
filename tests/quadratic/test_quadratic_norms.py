"""h2 norms of quadratic outputs against sums of kernels, and what they bound."""

import tracemalloc

import mpmath
import numpy as np
import pytest
from quadratic_cases import FORMS, normal, quadratic_system
from scipy import linalg

from ssmred.errors import DataError, UnstableSystemError, UnsupportedOperationError
from ssmred.gramians import (
    controllability_gramian,
    observability_factor,
    observability_gramian,
)
from ssmred.norms import energy_gains, h2_error, h2_inner, h2_norm, peak_bound
from ssmred.reductors import QuadraticSubsetReductor
from ssmred.systems import DiagonalSystem, QuadraticOutputSystem, difference

EXACT = 1e-12  # asked of discrete norms against sums of kernels, relative
T = 7


def by_kernels(one, horizon, two=None):
    """Return the inner product of all samples of both kernels."""
    first, second = one.kernels(horizon), (two or one).kernels(horizon)
    return sum(np.sum(a * np.conj(b)) for a, b in zip(first, second, strict=True))


@pytest.mark.theorem("quadratic-output")
@pytest.mark.parametrize("recurrence", ["standard", "post-update"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("horizon", [1, 2, T])
def test_finite_horizons_against_kernels(form, recurrence, horizon):
    full = quadratic_system(0, form, n=4, recurrence=recurrence, radius=1.05)
    reduced = quadratic_system(1, form, n=2, recurrence=recurrence)
    wanted = np.sqrt(by_kernels(full, horizon).real)
    np.testing.assert_allclose(h2_norm(full, horizon=horizon), wanted, rtol=EXACT)
    inner, by_hand = h2_inner(full, reduced, horizon=horizon), by_kernels(full, horizon, reduced)
    scale = wanted * h2_norm(reduced, horizon=horizon)
    assert abs(inner - by_hand) <= EXACT * scale
    assert np.isrealobj(inner) == full.is_real
    gaps = [a - b for a, b in zip(full.kernels(horizon), reduced.kernels(horizon), strict=True)]
    wanted = np.sqrt(sum(np.sum(np.abs(gap) ** 2) for gap in gaps))
    np.testing.assert_allclose(h2_error(full, reduced, horizon=horizon), wanted, rtol=EXACT)


@pytest.mark.theorem("quadratic-output")
@pytest.mark.parametrize("recurrence", ["standard", "post-update"])
@pytest.mark.parametrize("form", FORMS)
def test_infinite_horizons_against_long_ones(form, recurrence):
    full = quadratic_system(2, form, recurrence=recurrence, radius=0.5)
    reduced = quadratic_system(3, form, n=2, recurrence=recurrence, radius=0.5)
    long = 60  # 0.5^60 is below rounding
    np.testing.assert_allclose(h2_norm(full), h2_norm(full, horizon=long), rtol=EXACT)
    np.testing.assert_allclose(
        h2_error(full, reduced), h2_error(full, reduced, horizon=long), rtol=EXACT
    )
    np.testing.assert_allclose(
        h2_inner(full, reduced), h2_inner(full, reduced, horizon=long), rtol=1e-11
    )
    np.testing.assert_allclose(h2_inner(full, full), h2_norm(full) ** 2, rtol=EXACT)


@pytest.mark.theorem("quadratic-output")
@pytest.mark.parametrize("horizon", [None, T])
@pytest.mark.parametrize("form", [form for form in FORMS if not form[3]])
def test_gramians(form, horizon):
    """``tr(C P C^*) + sum_j tr(P M_j P M_j) = tr(B^* Q B)``, P and Q from their sums."""
    system = quadratic_system(4, form, recurrence="post-update", radius=0.5).replace(D=None)
    A = np.diag(system.A) if form[0] == "diagonal" else system.A
    terms = range(horizon or 80)
    powers = [np.linalg.matrix_power(A, k) for k in terms]
    P = sum(X @ system.B @ (X @ system.B).conj().T for X in powers)
    weigh = P if form[2] == "hermitian" else P.conj()
    R = system.C.conj().T @ system.C
    R = R + sum(M.conj().T @ weigh @ M for M in system.matrices())
    Q = sum(X.conj().T @ R @ X for X in powers)
    np.testing.assert_allclose(
        controllability_gramian(system, horizon=horizon), P, rtol=0, atol=EXACT * np.abs(P).max()
    )
    found = observability_gramian(system, horizon=horizon)
    np.testing.assert_allclose(found, Q, rtol=0, atol=EXACT * np.abs(Q).max())
    L = observability_factor(system, horizon=horizon)
    np.testing.assert_allclose(L @ L.conj().T, Q, rtol=0, atol=EXACT * np.abs(Q).max())
    energy = np.trace(system.B.conj().T @ Q @ system.B).real
    np.testing.assert_allclose(h2_norm(system, horizon=horizon) ** 2, energy, rtol=EXACT)


@pytest.mark.theorem("quadratic-output")
@pytest.mark.parametrize("stored", ["matrices", "factors"])
@pytest.mark.parametrize("kind", ["diagonal", "dense"])
def test_continuous_time_against_lyapunov_equations(kind, stored):
    form = (kind, stored, "hermitian", False)
    full, reduced = (
        quadratic_system(seed, form, n=n, radius=0.5).replace(D=None, dt=0.0)
        for seed, n in ((5, 4), (6, 2))
    )
    A = [np.diag(s.A) if kind == "diagonal" else s.A for s in (full, reduced)]
    full = full.replace(A=full.A - (1.0 if kind == "diagonal" else np.eye(4)))
    reduced = reduced.replace(A=reduced.A - (1.0 if kind == "diagonal" else np.eye(2)))
    A = [a - np.eye(len(a)) for a in A]
    pairs = [(0, 0), (1, 1), (0, 1)]
    systems = (full, reduced)
    values = []
    for i, j in pairs:
        one, two = systems[i], systems[j]
        X = linalg.solve_sylvester(A[i], A[j].conj().T, -one.B @ two.B.conj().T)
        value = np.trace(one.C @ X @ two.C.conj().T)
        for M, N in zip(one.matrices(), two.matrices(), strict=True):
            value += np.trace(M @ X @ N @ X.conj().T)
        values.append(value)
    np.testing.assert_allclose(h2_norm(full) ** 2, values[0].real, rtol=1e-11)
    np.testing.assert_allclose(h2_inner(full, reduced), values[2], rtol=1e-11)
    error = values[0].real + values[1].real - 2 * values[2].real
    np.testing.assert_allclose(h2_error(full, reduced) ** 2, error, rtol=1e-10)
    direct = full.replace(D=np.ones((2, 2)))
    assert h2_norm(direct) == np.inf
    with pytest.raises(UnsupportedOperationError, match="direct terms"):
        h2_inner(direct, direct)


@pytest.mark.parametrize("form", FORMS)
def test_batches(form):
    full = quadratic_system(7, form, batch=(3,))
    reduced = quadratic_system(8, form, batch=(3,), n=2)
    for function in (h2_norm, lambda s: h2_error(s, reduced), lambda s: h2_inner(s, reduced)):
        assert np.shape(function(full)) == (3,)
    M = full.M[1] if full.factors is None else tuple(f[1] for f in full.factors)
    one = full.replace(M=M, **{name: getattr(full, name)[1] for name in ("A", "B", "C", "D")})
    np.testing.assert_allclose(h2_norm(full)[1], h2_norm(one), rtol=EXACT)


def test_poles_next_to_the_boundary_and_small_quadratic_parts():
    """x_k = l^k b: the norm is |M| b^2 / (1 - l^2), to rounding at any distance."""
    for gap in (1e-3, 1e-9, 1e-12):
        pole = 1.0 - gap
        system = QuadraticOutputSystem([pole], [[2.0]], None, [[3.0]], recurrence="post-update")
        np.testing.assert_allclose(
            h2_norm(system), 12.0 / ((1.0 - pole) * (1.0 + pole)), rtol=EXACT
        )
    # V = i U: no quadratic output at all, though both factors are large
    U = np.array([[1.0], [2.0]])
    silent = QuadraticOutputSystem([0.5, 0.2], np.ones((2, 1)), None, (U, 1j * U))
    assert h2_norm(silent) <= 1e-14
    assert not silent.simulate(np.ones((4, 1))).any()


@pytest.mark.theorem("quadratic-output")
@pytest.mark.parametrize("form", [f for f in FORMS if f[:2] == ("diagonal", "factors")])
def test_close_poles_against_many_digits(form):
    """P of condition 1e20 and more; ``tr(C P C^*) + sum_j tr(P M_j P M_j)`` at 80 digits."""
    n, m, p = 6, 3, 2
    system = quadratic_system(11, form, n=n, m=m, p=p).replace(D=None)
    poles = 0.9 * np.exp(1j * (0.3 + 1e-7 * np.arange(n)))
    system = system.replace(A=poles)
    full = system.full_spectrum()
    with mpmath.workdps(80):
        A, B, C = (mpmath.matrix(x.tolist()) for x in (full.A, full.B, full.C))
        weights = B * B.H
        P = mpmath.matrix(full.order, full.order)
        for i in range(full.order):
            for j in range(full.order):
                P[i, j] = weights[i, j] / (1 - A[i] * mpmath.conj(A[j]))
        left = P if form[2] == "hermitian" else P.T
        energy = sum((C * P * C.H)[j, j] for j in range(p))
        for U, V in zip(*full.factors, strict=True):
            U, V = mpmath.matrix(U.tolist()), mpmath.matrix(V.tolist())
            M = (U * V.H + V * U.H if form[2] == "hermitian" else U * V.T + V * U.T) / 2
            product = left * M * P * M.H
            energy += sum(product[i, i] for i in range(full.order))
        wanted = float(mpmath.sqrt(energy.real))
    assert h2_norm(system) == pytest.approx(wanted, rel=1e-13)


def test_factors_are_never_multiplied_out():
    """Norm and removals: memory stays below an array of p n n numbers, half of it."""
    n, p = 96, 96
    system = quadratic_system(12, ("diagonal", "factors", "hermitian", False), n=n, m=48, p=p)
    assert system.factors is not None
    for run in (lambda: h2_norm(system), lambda: QuadraticSubsetReductor().path(system)):
        run()
        tracemalloc.start()
        run()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 0.5 * p * n * n * system.A.itemsize


def test_a_shared_state_map_loses_nothing_to_cancellation():
    """The same A and B: only M and C are subtracted."""
    full = quadratic_system(9, FORMS[0], n=5)
    tiny = 1e-9
    other = full.replace(M=full.M + tiny * np.eye(5))
    unit = full.replace(M=np.stack([np.eye(5)] * 2), C=0 * full.C, D=0 * full.D)
    np.testing.assert_allclose(h2_error(full, other), tiny * h2_norm(unit), rtol=1e-6)
    assert h2_error(full, full) == 0.0


# --- bounds --------------------------------------------------------------------------------------


@pytest.mark.theorem("quadratic-output")
@pytest.mark.parametrize("form", FORMS)
def test_peaks_stay_below_the_bound(form):
    """Zero slack: of systems and of differences, on inputs of many sizes and shapes."""
    rng = np.random.default_rng(0)
    for seed in range(12):
        full = quadratic_system(seed, form, radius=rng.uniform(0.3, 1.1))
        reduced = quadratic_system(seed + 50, form, n=2)
        u = normal(rng, 40, T, 2) * 10 ** rng.uniform(-3, 2, (40, 1, 1))
        u[:20, 2:] *= rng.uniform(0, 1, (20, 1, 1)) ** 3  # bursts
        u = u.real if full.real_output else u
        energy = np.linalg.norm(u, axis=(-2, -1))
        for system, outputs in (
            (full, full.simulate(u)),
            (difference(full, reduced), full.simulate(u) - reduced.simulate(u)),
        ):
            peaks = np.linalg.norm(outputs, axis=-1).max(axis=-1)
            bounds = [peak_bound(system, e, horizon=T) for e in energy]
            assert np.all(peaks <= bounds)


@pytest.mark.slow
@pytest.mark.theorem("quadratic-output")
def test_peaks_of_ten_thousand_systems():
    """Zero slack: unequal sizes, repeated poles, next to the circle and beyond; differences."""
    rng = np.random.default_rng(7)
    for seed in range(10_000):
        form = FORMS[seed % len(FORMS)]
        sizes = {"n": int(rng.integers(1, 6)), "m": int(rng.integers(1, 4))}
        sizes |= {"p": int(rng.integers(1, 4)), "rank": int(rng.integers(1, 3))}
        sizes |= {"recurrence": ("standard", "post-update")[int(rng.integers(2))]}
        radius = float(rng.choice([0.3, 0.9, 1.0 - 1e-9, 1.05]))
        system = quadratic_system(seed, form, radius=radius, **sizes)
        if form[0] == "diagonal" and seed % 3 == 0:
            system = system.replace(A=np.full(system.A.shape, system.A[0]))
        if seed % 2:
            sizes["n"] = int(rng.integers(1, 4))
            system = difference(system, quadratic_system(seed + 1, form, radius=0.8, **sizes))
        u = normal(rng, 4, T, sizes["m"]) * 10 ** rng.uniform(-3, 2, (4, 1, 1))
        u = u.real if system.real_output else u
        peaks = np.linalg.norm(system.simulate(u), axis=-1).max(axis=-1)
        bound = peak_bound(system, 1.0, horizon=T) / np.sqrt(2.0)  # the norm
        e = np.linalg.norm(u, axis=(-2, -1))
        assert np.all(peaks <= bound * e * np.sqrt(1 + e * e)), seed


def test_the_peak_bound_is_sharp_for_one_input():
    """A state that is one input, y = x^2 and no C: y = u^2 against e sqrt(1 + e^2)."""
    system = QuadraticOutputSystem([0.0], [[1.0]], None, [[1.0]])
    assert peak_bound(system, 100.0) / 100.0**2 < 1.0001


@pytest.mark.theorem("quadratic-output")
@pytest.mark.parametrize("stored", ["squares", "matrices"])
@pytest.mark.parametrize("kind", ["diagonal", "dense"])
@pytest.mark.parametrize("real_output", [True, False])
def test_gains_of_positive_outputs(kind, stored, real_output):
    rng = np.random.default_rng(1)
    for seed in range(10):
        system = quadratic_system(seed, (kind, "squares", "hermitian", real_output), radius=0.95)
        system = system.replace(C=None, D=None)
        if stored == "matrices":
            system = system.replace(M=system.matrices())
        gains = energy_gains(system)
        u = normal(rng, 30, 60, 2)
        # near the frequency of the largest gain energies add up longest
        wave = np.exp(1j * rng.uniform(-3, 3, (30, 1, 1)) * np.arange(60)[:, None])
        u[15:] = (wave * normal(rng, 30, 1, 2))[15:]
        u = u.real if real_output else u
        energy = np.sum(np.abs(u) ** 2, axis=(-2, -1))
        y = np.abs(system.simulate(u))
        assert np.all(y.sum(axis=(-2, -1)) <= gains.total * energy)
        assert np.all(y.sum(axis=-1).max(axis=-1) <= gains.peak * energy)
        assert np.all(np.linalg.norm(y, axis=(-2, -1)) <= gains.l2 * energy)


def test_gains_that_do_not_exist():
    system = QuadraticOutputSystem([0.5, 0.3], np.ones((2, 1)), None, np.diag([1.0, -1.0]))
    with pytest.raises(UnsupportedOperationError, match="not positive semidefinite"):
        energy_gains(system)
    with pytest.raises(UnsupportedOperationError, match="linear outputs"):
        energy_gains(system.replace(C=np.ones((1, 2))))
    with pytest.raises(UnstableSystemError):
        energy_gains(system.replace(A=[0.5, 1.0], M=np.eye(2)))
    assert peak_bound(system, 0.0) == 0.0
    for energy in (-1.0, np.nan, np.inf):
        with pytest.raises(DataError):
            peak_bound(system, energy)
    transposed = system.replace(M=np.eye(2), convention="transpose")
    assert energy_gains(transposed).peak == energy_gains(system.replace(M=np.eye(2))).peak


def test_norms_that_do_not_exist():
    system = QuadraticOutputSystem([0.5, 1.0], np.ones((2, 1)), None, np.eye(2))
    for function in (
        h2_norm,
        lambda s: h2_error(s, s.replace(A=[0.1, 0.2])),
        observability_gramian,
    ):
        with pytest.raises(UnstableSystemError):
            function(system)
    assert np.isfinite(h2_norm(system, horizon=5))
    with pytest.raises(UnsupportedOperationError, match="no quadratic outputs"):
        h2_error(system, DiagonalSystem([0.5], [1.0], [1.0]))
