"""The Hankel norm is the gain from the past to the future."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from scipy import linalg

from ssmred.errors import UnstableSystemError, UnsupportedOperationError
from ssmred.norms import hankel_error, hankel_norm, hinf_norm
from ssmred.systems import DenseSystem, DiagonalSystem

SINGULAR = 1e-10  # of a Hankel matrix of 400 blocks against the Gramians, relative
KEPT = 1e-13  # 4 to 8 modes, relative to the error itself
FORMS = [
    {"recurrence": recurrence, "real_output": real}
    for recurrence in ("standard", "post-update")
    for real in (False, True)
]


def random_system(seed, *, batch=(), n=4, m=1, p=1, **form) -> DiagonalSystem:
    rng = np.random.default_rng(seed)
    poles = rng.uniform(0.1, 0.9, (*batch, n)) * np.exp(1j * rng.uniform(-3, 3, (*batch, n)))
    B = rng.normal(size=(*batch, n, m)) + 1j * rng.normal(size=(*batch, n, m))
    C = rng.normal(size=(*batch, p, n)) + 1j * rng.normal(size=(*batch, p, n))
    return DiagonalSystem(poles, B, C, rng.normal(size=(*batch, p, m)), **form)


def hankel_matrix(system, size):
    """Return the block Hankel matrix of h_1, h_2, ... with ``size`` blocks on a side."""
    h = system.impulse_response(2 * size)
    return np.block([[h[i + k + 1] for k in range(size)] for i in range(size)])


@pytest.mark.theorem("hankel-norm")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("m", "p"), [(1, 1), (2, 3)])
def test_norm_of_the_hankel_matrix(form, m, p):
    system = random_system(m, m=m, p=p, **form)
    exact = linalg.norm(hankel_matrix(system, 400 // max(m, p)), 2)
    for one in (system, system.to_dense()):
        assert hankel_norm(one) == pytest.approx(exact, rel=SINGULAR)
        finite = linalg.norm(hankel_matrix(system, 5), 2)
        assert hankel_norm(one, horizon=5) == pytest.approx(finite, rel=SINGULAR)


@pytest.mark.theorem("hankel-norm")
@pytest.mark.parametrize("form", FORMS)
def test_at_most_the_h_infinity_norm_whatever_the_constant(form):
    for seed in range(20):
        system = random_system(seed, m=2, p=2, **form)
        for D in (system.D, -system.D, 3 + system.D):
            assert hankel_norm(system) <= hinf_norm(system.replace(D=D)).upper


@pytest.mark.theorem("hankel-norm")
@pytest.mark.parametrize("size", [1.0, 1e-8, 1e-14])
def test_small_errors_keep_their_digits(size):
    """Difference in one residue: ``size r / (z - l)``, norm ``size |r| / (1 - |l|^2)``."""
    full = random_system(3, n=6)
    step = np.zeros((1, 6), complex)
    step[0, 2] = 2.0**-3 * size
    reduced = full.replace(C=full.C - step)
    exact = abs((full.C - reduced.C)[0, 2] * full.B[2, 0]) / (1 - abs(full.poles[2]) ** 2)
    assert hankel_error(full, reduced) == pytest.approx(exact, rel=1e-12)


def exact_hankel_norm(poles, B, C) -> mpmath.mpf:
    """Return the root of the largest eigenvalue of P Q at 80 digits, discrete time."""
    n = len(poles)
    l = [mpmath.mpc(complex(pole)) for pole in poles]
    B, C = (mpmath.matrix([[mpmath.mpc(x) for x in row] for row in M]) for M in (B, C))
    P, Q = B * B.H, C.H * C
    for i in range(n):
        for j in range(n):
            P[i, j] /= 1 - l[i] * mpmath.conj(l[j])
            Q[i, j] /= 1 - mpmath.conj(l[i]) * l[j]
    return mpmath.sqrt(max(x.real for x in mpmath.eig(P * Q, left=False, right=False)))


@pytest.mark.theorem("hankel-norm")
@pytest.mark.parametrize("size", [1e-2, 1e-8, 1e-14])
@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize(("m", "p"), [(3, 2), (1, 3), (2, 1)])
def test_small_errors_of_several_inputs_keep_their_digits(m, p, real, size):
    rng = np.random.default_rng(m + 3 * p)
    full = random_system(m, m=m, p=p, real_output=real)
    reduced = full.replace(C=full.C * (1 + size * rng.normal(size=full.C.shape)))
    one, two = full.full_spectrum(), reduced.full_spectrum()
    with mpmath.workdps(80):
        C = [
            [mpmath.mpc(complex(a)) - mpmath.mpc(complex(b)) for a, b in zip(*rows, strict=True)]
            for rows in zip(one.C, two.C, strict=True)
        ]
        exact = exact_hankel_norm(one.poles, one.B.tolist(), C)
        error = abs(mpmath.mpf(hankel_error(full, reduced)) - exact)
        assert error <= KEPT * exact
    assert hankel_error(full, full) == 0.0
    finite = hankel_error(full, reduced, horizon=2000)  # the slowest pole has died by then
    assert finite == pytest.approx(float(exact), rel=1e-9)


def test_continuous_time_and_shapes():
    system = DiagonalSystem([-2.0], [3.0], [4.0], 7.0, dt=0)
    for one in (system, system.to_dense()):
        assert hankel_norm(one) == pytest.approx(3.0, rel=1e-14)
    assert hankel_norm(random_system(1, batch=(3, 2))).shape == (3, 2)
    batch, other = random_system(1, batch=(2,)), random_system(2, batch=(2,), n=2)
    got = hankel_error(batch, other)
    dense = hankel_error(batch.to_dense(), other.to_dense())
    assert got == pytest.approx(dense, rel=1e-10)
    empty = DiagonalSystem(np.zeros((2, 0)), np.zeros((2, 0, 1)), np.zeros((2, 1, 0)), [1, 2])
    assert hankel_norm(empty).tolist() == [0.0, 0.0]
    assert hankel_error(empty, empty).tolist() == [0.0, 0.0]


def test_bad_input():
    for system in (DiagonalSystem([1.0], [1], [1]), DenseSystem([[1.0]], [[1]], [[1]])):
        with pytest.raises(UnstableSystemError):
            hankel_norm(system)
        with pytest.raises(UnstableSystemError):
            hankel_error(system, system.replace(D=2.0 * np.ones((1, 1))))
    with pytest.raises(UnsupportedOperationError):
        hankel_norm(DiagonalSystem([-1.0], [1], [1], dt=0), horizon=4)
