"""The l1 gain is an upper bound with zero slack, and tight for decaying systems."""

from __future__ import annotations

from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import expm

from ssmred.errors import AccuracyError, UnstableSystemError, UnsupportedOperationError
from ssmred.gramians import lyapunov
from ssmred.norms import l1_gain, l1_gain_error
from ssmred.systems import DenseSystem, DiagonalSystem, discretise

TIGHT = 1e-11  # rounding terms and a tail of 2**-40, relative


def random_system(seed, *, batch=(), n=5, m=2, p=3, **form) -> DiagonalSystem:
    rng = np.random.default_rng(seed)
    poles = rng.uniform(0.1, 0.97, (*batch, n)) * np.exp(1j * rng.uniform(-3, 3, (*batch, n)))
    B = rng.normal(size=(*batch, n, m)) + 1j * rng.normal(size=(*batch, n, m))
    C = rng.normal(size=(*batch, p, n)) + 1j * rng.normal(size=(*batch, p, n))
    return DiagonalSystem(poles, B, C, rng.normal(size=(*batch, p, m)), **form)


FORMS = [
    {"recurrence": recurrence, "real_output": real}
    for recurrence in ("standard", "post-update")
    for real in (False, True)
]


@pytest.mark.theorem("l1-gain")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("horizon", [None, 1, 2, 50])
def test_row_sums_of_the_samples(form, horizon):
    system = random_system(1, batch=(2,), **form)
    h = system.impulse_response(horizon or 3000)
    rows = np.abs(h).sum(axis=(1, 3)).max(axis=1)
    for one in (system, system.to_dense()):
        gain = l1_gain(one, horizon=horizon)
        assert gain.shape == (2,)
        assert (gain >= rows).all()
        assert (gain <= rows * (1 + (TIGHT if one is system else 1e-5))).all()


@pytest.mark.theorem("l1-gain")
@pytest.mark.parametrize("gap", [0.5, 1e-3, 1e-6, 1e-12, 2.0**-52])
def test_a_single_real_pole_is_exact_at_any_distance(gap):
    pole = 1 - gap
    with mpmath.workdps(40):
        exact = 1 / (1 - mpmath.mpf(pole)) + 2
        for sign in (1, -1):
            gain = l1_gain(DiagonalSystem([sign * pole], [1.0], [1.0], -2.0))
            assert mpmath.mpf(gain) >= exact
            assert gain <= float(exact) * (1 + TIGHT)


@pytest.mark.theorem("l1-gain")
def test_a_slow_pair_is_bounded_within_pi_half():
    pole = (1 - 1e-9) * np.exp(0.7j)
    gain = l1_gain(DiagonalSystem([pole], [1.0], [1.0], real_output=True))
    mean = 2 / np.pi / 1e-9  # mean of |cos| times the geometric sum
    assert mean * (1 - 1e-3) <= gain <= np.pi / 2 * mean * (1 + 1e-3)


@pytest.mark.theorem("l1-gain")
@given(seed=st.integers(min_value=0, max_value=10**6), post=st.booleans())
def test_no_peak_is_amplified_more(seed, post):
    rng = np.random.default_rng(seed)
    form = {"recurrence": "post-update" if post else "standard", "real_output": True}
    system, other = random_system(seed, **form), random_system(seed + 1, **form)
    u = rng.uniform(-1, 1, (60, 2))
    y, z = system.simulate(u), other.simulate(u)
    for horizon in (60, None):
        assert np.abs(y).max() <= l1_gain(system, horizon=horizon) * np.abs(u).max()
        bound = l1_gain_error(system, other, horizon=horizon)
        assert np.abs(y - z).max() <= bound * np.abs(u).max()


@pytest.mark.theorem("l1-gain")
def test_the_sign_input_reaches_the_gain():
    system = random_system(3, m=1, p=1, **FORMS[3])
    h = system.impulse_response(80)[:, 0, 0]
    peak = system.simulate(np.sign(h[::-1, None]))[-1, 0]
    gain = l1_gain(system, horizon=80)
    assert peak <= gain <= peak * (1 + TIGHT)


@pytest.mark.theorem("l1-gain")
def test_finite_horizon_outside_the_circle():
    system = DiagonalSystem([1.0, -1.01, 1j], [1, 1, 1], [1, 1, 1])
    h = system.impulse_response(300)[:, 0, 0]
    for one in (system, system.to_dense()):
        gain = l1_gain(one, horizon=300)
        assert np.abs(h).sum() <= gain <= np.abs(h).sum() * (1 + 1e-9)


@pytest.mark.theorem("l1-gain")
@pytest.mark.parametrize("horizon", [None, 2, 60])
def test_rounding_of_the_read_out_is_covered_where_it_cancels(horizon):
    """Post-update: ``C A`` and ``D + C B`` are 0 in float64 and ``2^-61``, ``2^-60`` in truth."""
    e = 2.0**-30
    A = np.array([[(1 + e) / 2, 0.0], [(1 + 2 * e) / 2, 0.0]])
    C, D = np.array([[1 + e, -1.0]]), -(1 + 2 * e)
    system = DenseSystem(A, [[1 + e], [0.0]], C, [[D]], recurrence="post-update")
    assert not (C @ A).any()
    x, exact = [Fraction(1 + e), Fraction(0)], Fraction(0)
    for k in range(horizon or 60):
        y = sum(Fraction(c) * v for c, v in zip(C[0], x, strict=True))
        exact += abs(y + Fraction(D) if k == 0 else y)
        x = [sum(Fraction(a) * v for a, v in zip(row, x, strict=True)) for row in A]
    assert 0 < exact <= Fraction(l1_gain(system, horizon=horizon))


def test_order_zero_and_bad_input():
    static = DiagonalSystem(np.zeros(0), np.zeros((0, 1)), np.zeros((1, 0)), -3.0)
    for system in (static, static.to_dense()):
        for horizon in (None, 1, 4):
            assert 3.0 <= l1_gain(system, horizon=horizon) <= 3.0 * (1 + TIGHT)
    unstable = DiagonalSystem([1.0], [1], [1])
    with pytest.raises(UnstableSystemError, match="l1_gain"):
        l1_gain(unstable)
    with pytest.raises(AccuracyError, match="not decayed"):
        l1_gain(DenseSystem([[1 - 1e-9]], [[1]], [[1]]))
    with pytest.raises(AccuracyError, match="overflow"):
        l1_gain(DiagonalSystem([2.0], [1], [1]), horizon=3000)


@pytest.mark.theorem("l1-gain")
@pytest.mark.parametrize("real", [False, True])
def test_continuous_time_bounds_the_integrals_of_the_moduli(real):
    for seed in range(8):
        rng = np.random.default_rng(seed)
        n, m, p = 4, 2, 3
        poles = -rng.uniform(0.2, 2, (2, n)) + 1j * rng.uniform(-4, 4, (2, n))
        B, C = (rng.normal(size=(2, *k)) * (1 + 1j) for k in ((n, m), (p, n)))
        D = rng.normal(size=(2, p, m))
        system = DiagonalSystem(poles, B, C, D, dt=0, real_output=real)
        step = 1e-3  # midpoint sums of |h|, which is smooth between its zeros
        t = step * (np.arange(60000) + 0.5)
        modes = np.exp(poles[:, :, None] * t)
        h = np.einsum("hpn,hnm,hnt->hpmt", C, B, modes)
        sums = step * np.abs(h.real if real else h).sum(axis=-1) + np.abs(D)
        rows = sums.sum(axis=-1).max(axis=-1)
        scale = np.einsum("hpn,hnm,hn->hpm", np.abs(C), np.abs(B), -1 / poles.real)
        scale = scale.sum(axis=-1).max(axis=-1)
        gain = l1_gain(system)
        assert (gain >= rows * (1 - 1e-6)).all()  # of the midpoint rule
        assert (gain <= rows + CONTINUOUS * scale).all()


CONTINUOUS = 1e-3  # excess relative to the moduli of the modes


@pytest.mark.theorem("l1-gain")
@pytest.mark.parametrize("rate", [1e-6, 1.0, 1e6])
def test_continuous_time_by_hand(rate):
    one = l1_gain(DiagonalSystem([-rate], [1.0], [-3.0], -2.0, dt=0))
    assert 2 + 3 / rate <= one <= (2 + 3 / rate) * (1 + CONTINUOUS)
    # exp(-a t) cos(b t): a / (a^2 + b^2) + 2 b exp(-a pi / 2 b) / ((a^2 + b^2)(1 - exp(-a pi / b)))
    for turns in (0.1, 1.0, 10.0, 1e4):
        a, b = mpmath.mpf(rate), mpmath.mpf(rate) * mpmath.mpf(turns)
        swing = mpmath.exp(-a * mpmath.pi / (2 * b)) / (1 - mpmath.exp(-a * mpmath.pi / b))
        exact = (a + 2 * b * swing) / (a**2 + b**2)
        pair = DiagonalSystem([complex(-rate, rate * turns)], [1.0], [1.0], dt=0, real_output=True)
        with mpmath.workdps(30):
            gain = mpmath.mpf(l1_gain(pair))
            assert gain >= exact
            assert gain <= exact * (1 + (CONTINUOUS * 3 if turns <= 10 else np.pi / 2 - 1))
    twice = l1_gain_error(pair, pair.replace(C=2 * pair.C))
    assert twice == pytest.approx(l1_gain(pair), rel=1e-12)


def turned(system, rng, spread=0.0) -> DenseSystem:
    """Return the same map in other coordinates, up to rounding."""
    dense = system.to_dense()
    n = dense.order
    T = np.eye(n) + 0.3 * rng.normal(size=(n, n))
    T = T * 2.0 ** np.round(rng.uniform(-spread, spread, n))
    solve = np.linalg.solve
    return dense.replace(A=solve(T, dense.A) @ T, B=solve(T, dense.B), C=dense.C @ T)


@pytest.mark.theorem("l1-gain")
@pytest.mark.parametrize("n", [1, 2, 4, 7])
def test_dense_chains_of_equal_poles(n):
    """``1 / (s + 1)^n`` has a positive impulse response: the gain is its value at 0, which is 1.

    A is defective, so no method through eigenvectors could answer.
    """
    A = np.diag(np.ones(n - 1), 1) - np.eye(n)
    gain = l1_gain(DenseSystem(A, np.eye(n)[:, -1:], np.eye(n)[:1], [[-3.0]], dt=0))
    assert 4.0 <= gain <= 4.0 * (1 + CONTINUOUS)
    scaled = l1_gain(DenseSystem(1e5 * A, np.eye(n)[:, -1:] * 1e5, np.eye(n)[:1], dt=0))
    assert 1.0 <= scaled <= 1 + 2 * CONTINUOUS


@pytest.mark.theorem("l1-gain")
@pytest.mark.parametrize("coupling", [2.0**-3, 1.0, 2.0**12, 2.0**18])
def test_coupled_chains_in_turned_coordinates(coupling):
    """``k / (s + 1)^2``, gain k, turned by exact numbers: rounding of L is the largest error."""
    turn = np.array([[1.0, 1.0], [1.0, -1.0]])
    A = turn @ np.array([[-1.0, coupling], [0.0, -1.0]]) @ turn / 2
    system = DenseSystem(A, turn[:, 1:], turn[:1] / 2, dt=0)
    assert coupling <= l1_gain(system) <= coupling * 1.01
    with pytest.raises(AccuracyError, match="rounding of an unstable one"):
        l1_gain(system.replace(A=turn @ np.array([[-1.0, 2.0**30], [0.0, -1.0]]) @ turn / 2))


ROUNDED = 1e-12  # of Lyapunov solutions and exponentials with condition up to 1e3


@pytest.mark.theorem("l1-gain")
@pytest.mark.parametrize("kind", ["real", "complex"])
def test_lyapunov_coordinates_never_let_the_state_grow(kind):
    """``||exp(L^-1 A L t)|| <= exp(-rho t)``, and what a perturbation E adds to its integral."""
    rng = np.random.default_rng(14)
    n, grown = 5, 0
    for _ in range(5):
        A = rng.normal(size=(n, n)) * (1 if kind == "real" else np.exp(0.8j))
        A = A + np.triu(rng.normal(size=(n, n)), 1)
        slowest = 0.2 + rng.uniform()
        A -= (np.linalg.eigvals(A).real.max() + slowest) * np.eye(n)
        shift = 0.5 * slowest
        P = lyapunov(A + shift * np.eye(n), np.eye(n)).X
        L = np.linalg.cholesky(P)
        M = np.linalg.solve(L, A @ L)
        rho = shift + 0.5 / np.linalg.norm(P, 2)
        for t in (0.01, 0.1, 1.0, 10.0):
            assert np.linalg.norm(expm(M * t), 2) <= np.exp(-rho * t) * (1 + ROUNDED)
            grown += np.linalg.norm(expm(A * t), 2) > np.exp(-rho * t) * 1.01
        E = rng.normal(size=(n, n))
        E *= 0.5 * rho / np.linalg.norm(E, 2)
        step = 0.1 / np.linalg.norm(M, 2)
        t = step * np.arange(1, int(10 / (rho * step)))
        change = expm(t[:, None, None] * (M + E)) - expm(t[:, None, None] * M)
        total = step * np.linalg.norm(change, 2, axis=(1, 2)).sum()
        assert 0 < total <= 0.5 * rho / (rho * 0.5 * rho)
    assert grown > 0  # in the given coordinates


def lower_bound(system, step, count) -> float:
    """Return the largest row sum of ``|D| + sum |int over a cell of h|``: below the gain exactly.

    From the antiderivative ``sum r_i e^(l_i t) / l_i``; cells without a change of sign are exact.
    """
    edges = np.abs(system.D)
    before = None
    for start in range(0, count, 50_000):
        t = step * np.arange(start, start + 50_001)
        modes = np.exp(system.poles[:, None] * t) / system.poles[:, None]
        whole = np.einsum("pn,nm,nt->pmt", system.C, system.B, modes)
        whole = whole.real if system.real_output else whole
        assert before is None or np.array_equal(before, whole[..., 0])
        edges = edges + np.abs(np.diff(whole, axis=-1)).sum(axis=-1)
        before = whole[..., -1]
    return float(edges.sum(axis=-1).max())


@pytest.mark.theorem("l1-gain")
@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize("spread", [0, 15])
def test_dense_systems_in_continuous_time_bound_the_integrals(real, spread):
    """Rates over two decades, states in units 2^-15 to 2^15; zero slack."""
    for seed in range(8):
        rng = np.random.default_rng(seed)
        n, m, p = 4, 2, 3
        poles = -(10.0 ** rng.uniform(-0.5, 1.5, n)) + 1j * rng.uniform(-4, 4, n)
        B, C = (rng.normal(size=k) * (1 + 1j) for k in ((n, m), (p, n)))
        system = DiagonalSystem(poles, B, C, rng.normal(size=(p, m)), dt=0, real_output=real)
        exact = lower_bound(system, 5e-4, 200_000)
        gain = l1_gain(turned(system, rng, spread))
        assert exact <= gain <= exact * (1 + 2 * CONTINUOUS)
        assert exact <= l1_gain(system)


@pytest.mark.theorem("l1-gain")
def test_no_peak_of_a_dense_continuous_system_is_amplified_more():
    """Inputs that hold for a step: the sampled system has the same outputs at the samples."""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        n = 5
        A = rng.normal(size=(n, n)) * (1 + 0.5j)
        A -= (np.linalg.eigvals(A).real.max() + 0.3) * np.eye(n)
        system = DenseSystem(A, rng.normal(size=(n, 2)), rng.normal(size=(1, n)), dt=0)
        sampled = discretise(system, 0.05)
        h = sampled.impulse_response(1000)[:, 0, :]  # the worst input: unit moduli, turned back
        u = (np.conj(h) / np.abs(np.where(h == 0, 1, h)))[::-1]
        peak = np.abs(sampled.simulate(u)[-1, 0])
        assert peak <= l1_gain(system) <= peak * 1.1


@pytest.mark.theorem("l1-gain")
def test_slow_and_stiff_dense_systems_are_bounded_all_the_same():
    """Rates 1e-2 to 1e3 with many turns: 1e5 between the slowest and the fastest."""
    rng = np.random.default_rng(5)
    poles = np.array([-1e-2 + 1j, -0.5 + 3j, -1e3])
    system = DiagonalSystem(poles, np.ones(3), [1.0, 2.0, 3e3], dt=0, real_output=True)
    gain, diagonal = l1_gain(turned(system, rng)), l1_gain(system)
    mean = 2 / np.pi * 1e2  # of |cos|, over the decay of the slow pair alone
    assert mean - 10 <= gain <= 1.1 * diagonal
    error = l1_gain_error(turned(system, rng), system)
    assert 0 < error < 0.1 * gain


@pytest.mark.parametrize("rate", [1e-250, 1e-30, 1e30, 1e250])
@pytest.mark.parametrize("size", [1e-150, 1.0, 1e150])
def test_dense_continuous_systems_of_any_size(rate, size):
    """One real pole: ``|b c| / rate``; nothing under- or overflows on the way."""
    system = DenseSystem([[-rate]], [[size]], [[-1.0]], dt=0)
    exact = mpmath.mpf(size) / mpmath.mpf(rate)
    if exact > 1e308:
        with pytest.raises(AccuracyError, match=r"l1_gain: the gain overflows.*Scale"):
            l1_gain(system)
    elif exact > 1e-300:
        assert exact <= mpmath.mpf(l1_gain(system)) <= exact * (1 + CONTINUOUS)


def test_dense_continuous_shapes():
    rng = np.random.default_rng(6)
    A = -np.eye(3) + 0.2 * rng.normal(size=(2, 2, 3, 3))
    system = DenseSystem(A, rng.normal(size=(2, 2, 3, 2)), rng.normal(size=(2, 2, 1, 3)), dt=0)
    gains = l1_gain(system)
    assert gains.shape == (2, 2)
    for k in np.ndindex(2, 2):
        one = DenseSystem(A[k], system.B[k], system.C[k], dt=0)
        assert l1_gain(one) == pytest.approx(gains[k], rel=1e-12)
    silent = DenseSystem(A[0, 0], np.zeros((3, 1)), np.ones((1, 3)), [[2.0]], dt=0)
    assert 2.0 <= l1_gain(silent) <= 2.0 * (1 + TIGHT)
    static = DenseSystem(np.zeros((0, 0)), np.zeros((0, 1)), np.zeros((1, 0)), [[-3.0]], dt=0)
    assert 3.0 <= l1_gain(static) <= 3.0 * (1 + TIGHT)
    assert l1_gain(DenseSystem(np.zeros((0, 2, 2)), np.zeros((0, 2, 1)), np.zeros((0, 1, 2)),
                               dt=0)).shape == (0,)  # fmt: skip


def test_continuous_time_refusals():
    for system in (
        DiagonalSystem([-1.0], [1], [1], dt=0),
        DenseSystem([[-1.0]], [[1]], [[1]], dt=0),
    ):
        with pytest.raises(UnsupportedOperationError, match="l1_gain: a finite horizon"):
            l1_gain(system, horizon=3)
    for system in (DiagonalSystem([0.0], [1], [1], dt=0), DenseSystem([[0.0]], [[1]], [[1]], dt=0)):
        with pytest.raises(UnstableSystemError, match="l1_gain"):
            l1_gain(system)
    for A in ([[-1e-18, 1.0], [0.0, -1.0]], [[-1e-12, 1e3], [0.0, -1.0]]):
        with pytest.raises(
            AccuracyError, match=r"l1_gain: .*rounding of an unstable one.*Diagonal"
        ):
            l1_gain(DenseSystem(A, [[1], [1]], [[1, 1]], dt=0))
