"""H-infinity enclosures hold with zero slack, and are narrow."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from exact_peak import exact_peak
from scipy.linalg import eigvals

from ssmred.errors import (
    AccuracyError,
    ToleranceError,
    UnstableSystemError,
    UnsupportedOperationError,
)
from ssmred.norms import hinf_error, hinf_norm, l2_gain, linf_norm
from ssmred.systems import DenseSystem, DiagonalSystem, difference

RTOL = 1e-6  # the default, asked of every enclosure
ROUNDING = 1e-12  # what is left of the width where only rounding widens it
FORMS = [
    {"recurrence": recurrence, "real_output": real}
    for recurrence in ("standard", "post-update")
    for real in (False, True)
]


def random_poles(rng, n, *, discrete, slowest):
    gap = 10.0 ** rng.uniform(np.log10(slowest), -0.2, n)
    if discrete:
        poles = (1 - gap) * np.exp(1j * rng.uniform(-np.pi, np.pi, n))
        if rng.random() < 0.2:
            poles[rng.integers(n)] = 0.0
        if rng.random() < 0.2:
            poles[rng.integers(n)] = -0.5
    else:
        poles = 10.0 ** rng.uniform(-1, 1, n) * (-gap + 1j * rng.uniform(-2, 2, n))
    if n > 1 and rng.random() < 0.2:
        poles[1] = poles[0]
    return poles


def random_system(seed: int) -> DiagonalSystem | DenseSystem:
    """Complex or real, any shape, repeated poles, poles at 0, with and without D."""
    rng = np.random.default_rng(seed)
    n, m, p = (int(k) for k in (rng.integers(1, 7), *rng.choice([1, 1, 2, 3], 2)))
    discrete, dense = rng.random() < 0.6, rng.random() < 0.4
    slowest = 10.0 ** rng.uniform(-8 if dense else -12, -1)
    poles = random_poles(rng, n, discrete=discrete, slowest=slowest)
    normal = lambda *shape: rng.normal(size=shape) + 1j * rng.normal(size=shape)  # noqa: E731
    B, C = normal(n, m), normal(p, n)
    if rng.random() < 0.2:
        B[:, 0] = 0.0
    D = rng.normal(size=(p, m)) * rng.choice([0.0, 1.0, 10.0])
    dt = float(rng.choice([1.0, 0.1])) if discrete else 0.0
    real = rng.random() < 0.5
    recurrence = "post-update" if discrete and rng.random() < 0.4 else "standard"
    if not dense:
        return DiagonalSystem(poles, B, C, D, dt, recurrence=recurrence, real_output=real)
    if rng.random() < 0.5:  # real matrices
        system = DiagonalSystem(poles, B, C, D, dt, real_output=True).realified()
        T = np.eye(system.order) + 0.3 * rng.normal(size=(system.order,) * 2)
        A, B, C = np.linalg.solve(T, system.A) @ T, np.linalg.solve(T, system.B), system.C @ T
        return DenseSystem(A, B, C, D, dt, recurrence=recurrence)
    T = np.eye(n) + 0.3 * normal(n, n)
    A = np.linalg.solve(T, np.diag(poles)) @ T
    return DenseSystem(A, B, C, D, dt, recurrence=recurrence, real_output=real)


def check(seed: int) -> None:
    system = random_system(seed)
    rate = system.dt if system.is_discrete else 1.0
    got = hinf_norm(system)
    peak = exact_peak(system, got.frequency * rate)
    assert got.lower <= peak, seed
    assert peak <= got.upper, seed
    assert got.upper - got.lower <= RTOL * got.upper, seed


@pytest.mark.theorem("hinf-enclosure")
@pytest.mark.parametrize("block", range(4))
def test_the_exact_peak_lies_in_the_enclosure(block):
    for seed in range(75 * block, 75 * (block + 1)):
        check(seed)


@pytest.mark.slow
@pytest.mark.theorem("hinf-enclosure")
@pytest.mark.parametrize("block", range(20))
def test_the_exact_peaks_of_ten_thousand_systems_lie_in_the_enclosures(block):
    for seed in range(500 * block + 1000, 500 * (block + 1) + 1000):
        check(seed)


@pytest.mark.theorem("hinf-enclosure")
def test_enclosures_of_peaks_that_are_hit_exactly():
    for pole in (0.5, -0.5, 0.5j, 1 - 1e-12, -1 + 2.0**-53, 0.0):
        got = hinf_norm(DiagonalSystem([pole], [1.0], [1.0]))
        exact = exact_peak(DiagonalSystem([pole], [1.0], [1.0]), float(np.angle(pole)))
        assert got.lower < exact < got.upper
        assert got.width <= RTOL
    got = hinf_norm(DiagonalSystem([-2.0], [3.0], [4.0], 1.0, dt=0))
    assert got.lower < 7.0 < got.upper
    assert got.frequency == pytest.approx(0.0, abs=1e-3)
    high = hinf_norm(DiagonalSystem([-2.0], [1.0], [-2.0], 1.0, dt=0))  # s / (s + 2)
    assert high.lower <= 1.0 < high.upper
    assert high.frequency > 1000.0


@pytest.mark.theorem("hinf-enclosure")
@pytest.mark.parametrize("rtol", [1e-2, 1e-4, 1e-6, 1e-9, 1e-11])
def test_all_pass_systems_are_the_worst_case_and_still_narrow(rtol):
    rng = np.random.default_rng(4)
    pole = 0.9 * np.exp(2j)
    one = DiagonalSystem([pole], [1.0], [1 - abs(pole) ** 2], -np.conj(pole))
    cases = [one]
    if rtol >= 1e-6:
        poles = -rng.uniform(0.1, 3, 6) + 1j * rng.uniform(-3, 3, 6)
        # prod (s + conj(l)) / (s - l) by partial fractions
        top = lambda l: np.prod(l + poles.conj())  # noqa: E731
        residues = [
            top(l) / np.prod(l - np.delete(poles, i)) for i, l in enumerate(poles)
        ]  # fmt: skip
        cases.append(DiagonalSystem(poles, np.ones(6), residues, 1.0, dt=0))
    for system in cases:
        got = hinf_norm(system, rtol=rtol)
        assert got.lower <= 1.0 + ROUNDING
        assert got.upper >= 1.0 - ROUNDING
        assert got.upper - got.lower <= rtol * got.upper + ROUNDING


@pytest.mark.theorem("hinf-enclosure")
@pytest.mark.parametrize("form", FORMS)
def test_batches_equal_single_systems_and_the_dense_form(form):
    rng = np.random.default_rng(8)
    shape = (3, 2)
    poles = rng.uniform(0.2, 0.999, (*shape, 5)) * np.exp(1j * rng.uniform(-3, 3, (*shape, 5)))
    B, C = (rng.normal(size=(*shape, *k)) * (1 + 0.5j) for k in ((5, 2), (3, 5)))
    system = DiagonalSystem(poles, B, C, rng.normal(size=(*shape, 3, 2)), 0.25, **form)
    got, dense = hinf_norm(system), hinf_norm(system.to_dense())
    gain = l2_gain(system, horizon=None, oversampling=64)
    assert got.lower.shape == got.upper.shape == got.frequency.shape == shape
    assert (got.lower <= dense.upper).all()
    assert (dense.lower <= got.upper).all()
    assert (got.lower <= gain).all()
    assert (gain <= got.upper / math.cos(math.pi / 128) * (1 + 1e-9)).all()
    for k in np.ndindex(shape):
        one = hinf_norm(DiagonalSystem(poles[k], B[k], C[k], system.D[k], 0.25, **form))
        assert (one.lower, one.upper) == (got.lower[k], got.upper[k])
        assert one.frequency == got.frequency[k]


def symplectic_has_unit_eigenvalue(A, B, C, D, gamma, tol):
    """Tell whether gamma is a singular value of H somewhere on the unit circle."""
    n, m = B.shape
    p = len(C)
    # z x = A x + B u,  w = z (A^* w + C^* v),  gamma v = C x + D u,  gamma u = B^* w + D^* v
    M = np.block([
        [A, np.zeros((n, n)), B, np.zeros((n, p))],
        [np.zeros((n, n)), np.eye(n), np.zeros((n, m + p))],
        [C, np.zeros((p, n)), D, -gamma * np.eye(p)],
        [np.zeros((m, n)), B.conj().T, -gamma * np.eye(m), D.conj().T],
    ])  # fmt: skip
    N = np.block([
        [np.eye(n), np.zeros((n, n + m + p))],
        [np.zeros((n, n)), A.conj().T, np.zeros((n, m)), C.conj().T],
        [np.zeros((m + p, 2 * n + m + p))],
    ])  # fmt: skip
    alpha, beta = eigvals(M, N, homogeneous_eigvals=True)
    unit = np.abs(np.abs(alpha) - np.abs(beta)) < tol * np.hypot(np.abs(alpha), np.abs(beta))
    return bool((unit & (np.abs(beta) > 1e-8)).any())


@pytest.mark.theorem("hinf-enclosure")
def test_the_symplectic_pencil_agrees():
    """gamma is a singular value of H on the circle exactly where the pencil has |z| = 1."""
    rng = np.random.default_rng(12)
    for _ in range(20):
        n, m, p = rng.integers(2, 7), rng.integers(1, 4), rng.integers(1, 4)
        A = rng.normal(size=(n, n)) + 1j * rng.normal(size=(n, n))
        A *= 0.9 / np.abs(np.linalg.eigvals(A)).max()
        B, C, D = rng.normal(size=(n, m)), rng.normal(size=(p, n)), rng.normal(size=(p, m))
        got = hinf_norm(DenseSystem(A, B, C, D))
        assert not symplectic_has_unit_eigenvalue(A, B, C, D, got.upper * (1 + 1e-5), 1e-6)
        assert symplectic_has_unit_eigenvalue(A, B, C, D, got.lower * (1 - 1e-4), 1e-9)


def test_slycot_agrees():
    slycot = pytest.importorskip("slycot")
    rng = np.random.default_rng(13)
    for kind, shift in (("C", 1.0), ("D", 0.0)):
        for n in (1, 4, 20):
            A = rng.normal(size=(n, n)) / np.sqrt(n)
            A = A - (np.linalg.eigvals(A).real.max() + 0.1) * np.eye(n) if shift else 0.6 * A
            A = A if shift else A / max(1.0, np.abs(np.linalg.eigvals(A)).max() / 0.9)
            B, C, D = rng.normal(size=(n, 2)), rng.normal(size=(3, n)), rng.normal(size=(3, 2))
            got = hinf_norm(DenseSystem(A, B, C, D, dt=0 if shift else 1))
            peak, _ = slycot.ab13dd(
                kind, "I", "N", "D", n, 2, 3, A, np.eye(n), B, C, D, tol=1e-12
            )  # fmt: skip
            assert got.lower <= peak * (1 + 1e-10)
            assert peak * (1 - 1e-10) <= got.upper


@pytest.mark.theorem("hinf-enclosure")
@pytest.mark.parametrize("size", [1e-2, 1e-8, 1e-14])
def test_enclosures_of_tiny_errors_are_as_narrow(size):
    rng = np.random.default_rng(14)
    poles = (1 - 10.0 ** rng.uniform(-6, -1, 8)) * np.exp(1j * rng.uniform(0, 3, 8))
    full = DiagonalSystem(poles, np.ones(8), rng.normal(size=8) + 1j, real_output=True)
    reduced = full.replace(C=full.C * (1 + size * rng.normal(size=8)))
    got = hinf_error(full, reduced)
    assert got.width <= RTOL
    exact = hinf_norm(full.replace(C=full.C - reduced.C))  # exact differences
    assert got.lower <= exact.upper
    assert exact.lower <= got.upper
    zero = hinf_error(full, full)
    assert (zero.lower, zero.upper < 1e-300) == (0.0, True)


@pytest.mark.theorem("hinf-enclosure")
def test_triangular_blocks_of_dense_systems_are_as_exact_as_diagonal_ones():
    """Poles at 1 - 1e-12 beside a full block of order 3, which alone has a backward error."""
    rng = np.random.default_rng(16)
    slow = DiagonalSystem([1 - 1e-12, 0.6 + 0.8j * (1 - 1e-12)], [1e-6, 1e-6], [1e-6, 1e-6])
    block = rng.normal(size=(3, 3))
    block *= 0.8 / np.abs(np.linalg.eigvals(block)).max()
    full = DenseSystem(block + 0j, rng.normal(size=(3, 1)), rng.normal(size=(1, 3)))
    got = hinf_error(full, slow)
    assert got.width <= RTOL
    exact = exact_peak(difference(full, slow), got.frequency)
    assert got.lower <= exact <= got.upper


@pytest.mark.theorem("hinf-enclosure")
def test_linf_norm_mirrors_poles():
    """A pole mirrored at the circle, with the all-pass factor, leaves the modulus as it is."""
    stable = DiagonalSystem([0.5, 0.8j], [1.0, 1.0], [1.0, -2.0])
    mixed = DiagonalSystem([0.5, 1.25j], [1.0, 1.0], [1.0, -2.0], 0.3)
    same = linf_norm(stable)
    assert (same.lower, same.upper) == (hinf_norm(stable).lower, hinf_norm(stable).upper)
    for system in (mixed, mixed.to_dense()):
        got = linf_norm(system)
        peak = exact_peak(mixed, got.frequency)
        assert got.lower <= peak <= got.upper
        assert got.width <= RTOL
    rng = np.random.default_rng(15)
    for _ in range(30):
        poles = rng.normal(size=5) + 3j * rng.normal(size=5)
        B, C = rng.normal(size=(5, 2)), rng.normal(size=(2, 5)) + 1j * rng.normal(size=(2, 5))
        system = DiagonalSystem(poles, B, C, rng.normal(size=(2, 2)), dt=0)
        got = linf_norm(system)
        assert got.lower <= exact_peak(system, got.frequency) <= got.upper


def test_orders_zero_and_empty_batches():
    for dt in (1.0, 0.0):
        empty = np.zeros((2, 0))
        static = DiagonalSystem(empty, np.zeros((2, 0, 1)), np.zeros((2, 1, 0)), [1, -3], dt=dt)
        for system in (static, static.to_dense()):
            got = hinf_norm(system)
            assert (got.lower <= [1, 3]).all()
            assert (got.upper >= [1, 3]).all()
            assert (got.width <= ROUNDING).all()
    none = DiagonalSystem(np.zeros((0, 2)), np.zeros((0, 2, 1)), np.zeros((0, 1, 2)))
    assert hinf_norm(none).upper.shape == (0,)
    silent = hinf_norm(DiagonalSystem([0.5], [0.0], [1.0]))
    assert (silent.lower, silent.upper) == (0.0, 0.0)


def test_bad_input():
    for system in (DiagonalSystem([2.0], [1], [1]), DenseSystem([[1.0]], [[1]], [[1]], dt=0)):
        with pytest.raises(UnstableSystemError, match=r"hinf_norm: .*linf_norm"):
            hinf_norm(system)
    for system in (DiagonalSystem([1.0], [1], [1]), DenseSystem([[0.0]], [[1]], [[1]], dt=0)):
        with pytest.raises(UnstableSystemError, match=r"linf_norm: .*boundary"):
            linf_norm(system)
    c, s = 0.6 * (1 - 1e-15), 0.8 * (1 - 1e-15)
    with pytest.raises(AccuracyError, match="within rounding"):
        hinf_norm(DenseSystem([[c, -s], [s, c]], [[1], [0]], [[1, 0]]))
    for rtol in (0.0, -1.0, np.nan):
        with pytest.raises(ToleranceError, match="rtol"):
            hinf_norm(DiagonalSystem([0.5], [1], [1]), rtol=rtol)
    with pytest.raises(UnsupportedOperationError, match="not a system"):
        hinf_norm(np.eye(2))


@pytest.mark.theorem("hinf-enclosure")
@pytest.mark.parametrize(("m", "p"), [(1, 1), (2, 1), (1, 2)])
def test_post_update_read_outs_that_cancel_to_rounding_are_not_rounded(m, p):
    """``C A = [e^2 / 2, 0]`` and ``D + C B = e^2`` are both 0 in rounded arithmetic."""
    e = 2.0**-30
    A = np.array([[(1 + e) / 2, 0.0], [(1 + 2 * e) / 2, 0.0]])
    B, C, D = np.zeros((2, m)), np.zeros((p, 2)), np.zeros((p, m))
    B[0, 0], C[0], D[0, 0] = 1 + e, [1 + e, -1.0], -(1 + 2 * e)
    system = DenseSystem(A, B, C, D, 1.0, recurrence="post-update")
    a, b, c, d = (Fraction(float(x)) for x in (A[0, 0], A[1, 0], B[0, 0], D[0, 0]))
    first, second = (Fraction(float(x)) for x in C[0])
    read = first * a + second * b  # C A = [read, 0]; |1 - a|^-1 is the largest resolvent
    sizes = [abs(d + first * c + sign * read * c / (1 - sign * a)) for sign in (1, -1)]
    got = hinf_norm(system)
    assert max(sizes) > 0
    assert got.lower <= max(sizes) <= got.upper
