"""Gramians, factors and Hankel singular values against mpmath, SciPy, slycot and print."""

from __future__ import annotations

import json
from pathlib import Path

import control
import mpmath
import numpy as np
import pytest
import scipy.linalg
from scipy import signal

from ssmred.errors import (
    AccuracyError,
    OrderError,
    ShapeError,
    UnstableSystemError,
    UnsupportedOperationError,
)
from ssmred.gramians import (
    controllability_factor,
    controllability_gramian,
    hankel_singular_values,
    observability_factor,
    observability_gramian,
    pseudo_gramian,
    realified_gramian,
)
from ssmred.systems import DenseSystem, DiagonalSystem

CASES = {
    case["id"]: case
    for case in json.loads(
        (Path(__file__).parents[1] / "reference" / "cases.json").read_text(encoding="utf-8")
    )["cases"]
}
ENTRY_ULPS = 16 * 2.0**-53  # one product of residues, two accurate quotients, one division
ROUNDING = 1e-13  # relative to the largest entry, for dense algorithms on well-scaled data


def random_diagonal(seed: int, *, batch=(), n=6, m=1, p=2, slowest=1e-12, dt=1.0, real=False):
    """Return a system with poles down to ``slowest`` from the circle, two of them equal."""
    rng = np.random.default_rng(seed)
    gap = 10.0 ** rng.uniform(np.log10(slowest), -0.2, (*batch, n))
    gap[..., 0] = slowest
    angle = rng.uniform(-np.pi, np.pi, (*batch, n))
    poles = (1 - gap) * np.exp(1j * angle) if dt else -gap + 5j * angle
    poles[..., -1] = poles[..., -2]
    B = rng.normal(size=(*batch, n, m)) + 1j * rng.normal(size=(*batch, n, m))
    C = rng.normal(size=(*batch, p, n)) + 1j * rng.normal(size=(*batch, p, n))
    return DiagonalSystem(poles, B, C, dt=dt, real_output=real)


def exact_entry(weight: complex, a: complex, b: complex, horizon, discrete: bool) -> mpmath.mpc:
    """Return one entry of the closed form in the working precision of mpmath."""
    a, b, weight = (mpmath.mpc(complex(v)) for v in (a, b, weight))
    if not discrete:
        return -weight / (a + b)
    z = a * b
    if horizon is None:
        return weight / (1 - z)
    return weight * horizon if z == 1 else weight * (1 - z**horizon) / (1 - z)


def assert_entries(got, weights, left, right, horizon, discrete=True):
    with mpmath.workdps(60):
        for i in range(len(left)):
            for j in range(len(right)):
                exact = exact_entry(weights[i, j], left[i], right[j], horizon, discrete)
                error = abs(mpmath.mpc(complex(got[i, j])) - exact)
                assert error <= ENTRY_ULPS * abs(exact)


@pytest.mark.theorem("diagonal-gramian")
@pytest.mark.parametrize("horizon", [None, 1, 2, 196, 100_000])
def test_every_entry_is_accurate_next_to_the_unit_circle(horizon):
    system = random_diagonal(0, m=1)
    B, poles = system.B, system.poles
    got = controllability_gramian(system, horizon=horizon)
    assert_entries(got, B @ B.conj().T, poles, poles.conj(), horizon)
    got = observability_gramian(system, horizon=horizon)
    C = system.C
    assert_entries(got, C.conj().T @ C, poles.conj(), poles, horizon)


@pytest.mark.theorem("diagonal-gramian")
def test_finite_horizon_holds_on_and_outside_the_circle():
    poles = np.array([1.0, -1.0, 1j, 0.6 + 0.8j, 1.01, 1 + 1e-12, 0.5, 0.0])
    system = DiagonalSystem(poles, np.ones(8), np.ones(8))
    for horizon in (1, 2, 7, 500):
        got = controllability_gramian(system, horizon=horizon)
        with mpmath.workdps(60):
            for i in range(8):
                for j in range(8):
                    z = mpmath.mpc(complex(poles[i])) * mpmath.conj(mpmath.mpc(complex(poles[j])))
                    terms, power = mpmath.mpf(0), mpmath.mpf(1)
                    for _ in range(horizon):
                        terms, power = terms + power, power * z
                    # alternating sums cancel, so the scale is the sum of moduli
                    assert abs(complex(got[i, j]) - complex(terms)) <= ENTRY_ULPS * max(
                        1.0, abs(complex(terms))
                    )


@pytest.mark.theorem("diagonal-gramian")
def test_continuous_time_closed_form():
    system = random_diagonal(1, dt=0)
    B, C, poles = system.B, system.C, system.poles
    got = controllability_gramian(system)
    assert_entries(got, B @ B.conj().T, poles, poles.conj(), None, discrete=False)
    got = observability_gramian(system)
    assert_entries(got, C.conj().T @ C, poles.conj(), poles, None, discrete=False)


@pytest.mark.theorem("real-output-gramian")
@pytest.mark.parametrize("horizon", [None, 50])
def test_pseudo_gramian_closed_form(horizon):
    system = random_diagonal(2, m=1, p=1, real=True)
    got = pseudo_gramian(system, horizon=horizon)
    assert_entries(got, system.B @ system.B.T, system.poles, system.poles, horizon)
    got = pseudo_gramian(system, horizon=horizon, of="observability")
    assert_entries(got, system.C.T @ system.C, system.poles, system.poles, horizon)


@pytest.mark.theorem("real-output-gramian")
@pytest.mark.parametrize("horizon", [None, 1, 30])
def test_real_states_have_the_assembled_gramian(horizon):
    system = random_diagonal(3, batch=(2,), m=2, slowest=1e-2, real=True)
    expected = controllability_gramian(system.realified(), horizon=horizon)
    got = realified_gramian(
        controllability_gramian(system, horizon=horizon), pseudo_gramian(system, horizon=horizon)
    )
    assert np.abs(got - expected).max() <= ROUNDING * np.abs(expected).max()


@pytest.mark.theorem("real-output-gramian")
def test_energy_of_a_real_part():
    system = random_diagonal(4, m=1, p=1, slowest=1e-2, real=True)
    c = system.C[0]
    P, pseudo = controllability_gramian(system), pseudo_gramian(system)
    energy = 0.5 * ((c @ P @ c.conj()).real + (c @ pseudo @ c).real)
    response = system.impulse_response(20_000)[:, 0, 0]
    assert energy == pytest.approx((response**2).sum(), rel=1e-12)


@pytest.mark.theorem("diagonal-gramian")
@pytest.mark.parametrize("dt", [1.0, 0.0])
@pytest.mark.parametrize("m", [1, 3])
def test_factors_multiply_to_the_gramian(dt, m):
    system = random_diagonal(5, batch=(2,), m=m, slowest=1e-9, dt=dt)
    for factor, gramian in (
        (controllability_factor, controllability_gramian),
        (observability_factor, observability_gramian),
    ):
        for horizon in (None, 1, 3, 200) if dt else (None,):
            L, P = factor(system, horizon=horizon), gramian(system, horizon=horizon)
            scale = np.sqrt(np.einsum("...ii->...i", P).real)
            error = np.abs(L @ np.swapaxes(L, -1, -2).conj() - P)
            assert (error <= ROUNDING * scale[..., :, None] * scale[..., None, :]).all()


@pytest.mark.theorem("diagonal-gramian")
def test_factor_sees_directions_that_the_gramian_has_lost():
    # Four poles within 1e-5: P has condition number 1e25, its rounded Cholesky factor is noise.
    poles = 0.9 + 1e-5 * np.array([0.0, 1.0, 1j, 1 + 1j])
    L = controllability_factor(DiagonalSystem(poles, np.ones(4), np.ones(4)))
    with mpmath.workdps(80):
        z = [mpmath.mpc(complex(p)) for p in poles]
        P = mpmath.matrix(4, 4)
        for i in range(4):
            for j in range(4):
                P[i, j] = 1 / (1 - z[i] * mpmath.conj(z[j]))
        exact = mpmath.cholesky(P)
        for i in range(4):
            for j in range(i + 1):
                # Cholesky's diagonal is positive: compare moduli, entry by entry.
                ratio = abs(mpmath.mpc(complex(L[i, j]))) / abs(exact[i, j])
                assert abs(float(ratio) - 1) <= 64 * 2.0**-53
    assert abs(L[3, 3]) < 1e-12 * abs(L[0, 0])


@pytest.mark.parametrize("dt", [1.0, 0.0])
def test_dense_gramians_agree_with_scipy(dt):
    rng = np.random.default_rng(6)
    A = rng.normal(size=(7, 7)) + 1j * rng.normal(size=(7, 7))
    values = np.linalg.eigvals(A)
    A = A / (1.05 * np.abs(values).max()) if dt else A - (values.real.max() + 0.1) * np.eye(7)
    B, C = rng.normal(size=(7, 2)) * (1 + 1j), rng.normal(size=(3, 7)) + 0j
    system = DenseSystem(A, B, C, dt=dt)
    if dt:
        P = scipy.linalg.solve_discrete_lyapunov(A, B @ B.conj().T)
        Q = scipy.linalg.solve_discrete_lyapunov(A.conj().T, C.conj().T @ C)
    else:
        P = scipy.linalg.solve_continuous_lyapunov(A, -B @ B.conj().T)
        Q = scipy.linalg.solve_continuous_lyapunov(A.conj().T, -C.conj().T @ C)
    got = controllability_gramian(system)
    assert np.abs(got - P).max() <= ROUNDING * 10 * np.abs(P).max()
    got = observability_gramian(system)
    assert np.abs(got - Q).max() <= ROUNDING * 10 * np.abs(Q).max()


@pytest.mark.parametrize("dt", [1.0, 0.0])
def test_real_dense_gramians_agree_with_slycot_and_control(dt):
    rng = np.random.default_rng(7)
    A = rng.normal(size=(6, 6))
    values = np.linalg.eigvals(A)
    A = A / (1.05 * np.abs(values).max()) if dt else A - (values.real.max() + 0.1) * np.eye(6)
    system = DenseSystem(A, rng.normal(size=(6, 2)), rng.normal(size=(1, 6)), dt=dt)
    for gramian, kind in ((controllability_gramian, "c"), (observability_gramian, "o")):
        got = gramian(system)
        assert got.dtype == np.float64
        scale = np.abs(got).max()
        for backend in ("scipy", "slycot"):
            peer = gramian(system, backend=backend)
            assert np.abs(got - peer).max() <= 10 * ROUNDING * scale
        assert np.abs(got - control.gram(system.to_control(), kind)).max() <= 10 * ROUNDING * scale


@pytest.mark.parametrize("horizon", [1, 2, 3, 64, 101])
def test_dense_finite_horizon_is_the_sum(horizon):
    rng = np.random.default_rng(8)
    A = rng.normal(size=(2, 4, 4))
    A *= 1.02 / np.abs(np.linalg.eigvals(A)).max(axis=-1)[:, None, None]  # unstable
    B, C = rng.normal(size=(2, 4, 1)), rng.normal(size=(2, 2, 4))
    expected = sum(
        (X := np.linalg.matrix_power(A, k) @ B) @ np.swapaxes(X, -1, -2) for k in range(horizon)
    )
    got = controllability_gramian(DenseSystem(A, B, C), horizon=horizon)
    assert np.abs(got - expected).max() <= ROUNDING * np.abs(expected).max()


def test_triangular_equation_with_defective_and_zero_blocks():
    A = np.array([[0.5, 1.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 0.9]])  # a Jordan block
    system = DenseSystem(A, [[0.0], [1.0], [0.0]], np.eye(3))  # the third state is never reached
    P = scipy.linalg.solve_discrete_lyapunov(A, np.diag([0.0, 1.0, 0.0]))
    np.testing.assert_allclose(controllability_gramian(system), P, atol=1e-14)


@pytest.mark.parametrize("seed", range(3))
def test_hankel_singular_values_of_every_form(seed):
    layer = random_diagonal(seed, batch=(2,), n=4, m=1, p=1, slowest=1e-3, real=True)
    layer = layer.replace(recurrence="post-update", D=np.ones((2, 1, 1)))
    expected = hankel_singular_values(layer.realified().with_recurrence("standard"))
    for form in (layer, layer.full_spectrum(), layer.realified(), layer.to_dense()):
        got = hankel_singular_values(form)
        assert got.shape == (2, 8)
        assert np.abs(got - expected).max() <= 1e-12 * expected.max()
    # Independent: the singular values of the Hankel matrix itself.
    fast = layer.replace(poles=layer.poles / np.abs(layer.poles).max() * 0.9)
    h = fast.impulse_response(801)[0, 1:, 0, 0]
    direct = np.linalg.svd(scipy.linalg.hankel(h[:400], h[399:]), compute_uv=False)[:8]
    np.testing.assert_allclose(hankel_singular_values(fast)[0], direct, atol=1e-12 * direct[0])


def dense_case(entry: dict, dt: float = 0.0) -> DenseSystem:
    return DenseSystem(entry["A"], entry["B"], entry["C"], entry.get("D"), dt)


@pytest.mark.parametrize("name", ["slicot_ab09ad_bt", "derived_ab09ad_discrete", "pc_hsvd"])
def test_published_hankel_singular_values(name):
    case = CASES[name]
    system = dense_case(case["input"], 1.0 if case["domain"] == "discrete" else 0.0)
    got = hankel_singular_values(system)
    atol = case["tolerance"].get("atol", 1e-4)
    np.testing.assert_allclose(got, case["expected"]["hsv"], atol=atol, rtol=1e-5)
    recomputed = case["expected"].get("hsv_full_precision_recomputed")
    if recomputed:
        np.testing.assert_allclose(got, recomputed, rtol=1e-12)


def test_published_balreal_example():
    case = CASES["matlab_balreal_zpk"]
    entry = case["input"]
    space = signal.ZerosPolesGain(entry["zeros"], entry["poles"], entry["gain"])
    got = hankel_singular_values(DenseSystem.from_scipy(space))
    np.testing.assert_allclose(got, case["expected"]["hsv"], atol=case["tolerance"]["atol"])


@pytest.mark.parametrize("name", ["pc_gram_mimo", "pc_gram_siso"])
def test_published_gramians_in_both_times(name):
    case = CASES[name]
    entry = case["input"]
    matrices = [np.array(entry[key]) for key in "ABCD"]
    discrete = signal.cont2discrete(matrices, entry["dt"], method=entry["discretisation"])
    atol = case["tolerance"]["atol"]
    for system, expected in (
        (DenseSystem(*matrices, 0), case["expected"]["cont"]),
        (DenseSystem(*discrete[:4], entry["dt"]), case["expected"]["disc_zoh_0p2"]),
    ):
        np.testing.assert_allclose(
            controllability_gramian(system), expected["Wc"], atol=atol, rtol=1e-7
        )
        np.testing.assert_allclose(
            observability_gramian(system), expected["Wo"], atol=atol, rtol=1e-7
        )


def test_published_discrete_observability_gramian():
    case = CASES["pc_issue967_discrete_gramian"]
    got = observability_gramian(dense_case(case["input"], 1.0))
    np.testing.assert_allclose(got, case["expected"]["Wo"], atol=case["tolerance"]["atol"])


def test_published_lyapunov_solutions():
    case = CASES["matlab_lyap"]
    A, Q = np.array(case["input"]["A"]), np.array(case["input"]["Q"])
    system = DenseSystem(A, np.linalg.cholesky(Q), np.ones((1, 2)), dt=0)
    np.testing.assert_allclose(
        controllability_gramian(system), case["expected"]["X"], atol=case["tolerance"]["atol"]
    )
    case = CASES["slicot_sb03od_cholesky"]
    A, B = np.array(case["input"]["A"]), np.array(case["input"]["B"])
    got = observability_gramian(DenseSystem(A, np.ones((len(A), 1)), B, dt=0))
    np.testing.assert_allclose(got, case["expected"]["X"], atol=case["tolerance"]["atol"])


@pytest.mark.parametrize("name", ["C_212", "C_222"])
def test_published_julia_gramians(name):
    case = CASES["cs_gram_norm_cont"]
    entry, expected = case["input"], case["expected"][name]
    system = DenseSystem(entry["A"], entry[f"B_{name}"], entry["C"], dt=0)
    rtol = case["tolerance"]["rtol"]
    np.testing.assert_allclose(controllability_gramian(system), expected["Wc"], rtol=rtol)


@pytest.mark.parametrize("batch", [(), (3,)])
def test_order_zero_and_zero_input(batch):
    empty = DiagonalSystem(
        np.zeros((*batch, 0)), np.zeros((*batch, 0, 1)), np.zeros((*batch, 1, 0))
    )
    for system in (empty, empty.to_dense()):
        assert controllability_gramian(system).shape == (*batch, 0, 0)
        assert controllability_gramian(system, horizon=5).shape == (*batch, 0, 0)
        assert hankel_singular_values(system).shape == (*batch, 0)
    silent = DiagonalSystem(np.full((*batch, 2), 0.5), np.zeros((*batch, 2)), np.ones((*batch, 2)))
    for horizon in (None, 4):
        assert (controllability_factor(silent, horizon=horizon) == 0).all()


def test_bad_input():
    unstable = DiagonalSystem([1.0, 0.5], [1, 1], [1, 1])
    for function in (
        controllability_gramian,
        observability_gramian,
        pseudo_gramian,
        controllability_factor,
        observability_factor,
        hankel_singular_values,
    ):
        name = function.__name__
        with pytest.raises(UnstableSystemError, match=f"{name}: 1 poles.*horizon=T"):
            function(unstable)
        with pytest.raises(OrderError, match=name):
            function(unstable, horizon=0)
        with pytest.raises(UnsupportedOperationError, match=f"{name}: not a system"):
            function(np.eye(2))
        with pytest.raises(UnsupportedOperationError, match=f"{name}: a finite horizon"):
            function(DiagonalSystem([-1.0], [1], [1], dt=0), horizon=3)
        assert np.isfinite(function(unstable, horizon=3)).all()
    with pytest.raises(UnstableSystemError, match="Re"):
        controllability_gramian(DenseSystem([[0.0]], [[1]], [[1]], dt=0))
    with pytest.raises(AccuracyError, match="overflows"):
        controllability_gramian(DiagonalSystem([2.0], [1], [1]), horizon=2000)
    with pytest.raises(AccuracyError, match="overflow"):
        controllability_factor(DiagonalSystem([2.0], [1], [1]), horizon=2000)
    with pytest.raises(AccuracyError, match="overflow"):
        controllability_gramian(DenseSystem([[2.0]], [[1]], [[1]]), horizon=2000)
    with pytest.raises(UnsupportedOperationError, match="dense"):
        pseudo_gramian(DenseSystem([[0.5]], [[1]], [[1]]))
    with pytest.raises(ShapeError, match="backend"):
        controllability_gramian(unstable, horizon=2, backend="matlab")
    with pytest.raises(UnsupportedOperationError, match="slycot"):
        controllability_gramian(DenseSystem([[0.5j]], [[1]], [[1]]), backend="slycot")
