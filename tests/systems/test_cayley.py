"""The isometric bilinear map: SLICOT, equal transfer functions, equal Gramians, and back."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import slycot
from hypothesis import given
from hypothesis import strategies as st
from scipy import linalg

from ssmred.errors import AccuracyError, DataError, UnsupportedOperationError
from ssmred.systems import DenseSystem, DiagonalSystem, cayley, is_stable

ROUNDING = 1e-11  # relative to the largest value; the resolvents have condition below 100
ENTRY = 8 * np.finfo(float).eps


def dense(seed: int, dt: float, shape: tuple = (), real: bool = False) -> DenseSystem:
    rng = np.random.default_rng(seed)

    def values(*size):
        one = rng.normal(size=(*shape, *size))
        return one if real else one + 1j * rng.normal(size=(*shape, *size))

    A = values(4, 4)
    radius = np.abs(np.linalg.eigvals(A)).max()
    A = 0.9 * A / radius if dt else A - 1.2 * radius * np.eye(4)
    return DenseSystem(A, values(4, 2), values(3, 4), values(3, 2), dt)


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (1.0, 3.0), (0.7, 2.0)])
def test_slicot_ab04md_agrees(alpha, beta):
    for dt, kind in ((0, "C"), (1, "D")):
        system = dense(2, dt, real=True)
        n, m, p = system.order, system.inputs, system.outputs
        arrays = [np.array(a) for a in (system.A, system.B, system.C, system.D)]
        expected = slycot.ab04md(kind, n, m, p, *arrays, alpha=alpha, beta=beta)
        got = cayley(system, alpha=alpha, beta=beta)
        for name, values in zip("ABCD", expected, strict=False):
            np.testing.assert_allclose(
                getattr(got, name), values, atol=ROUNDING * np.abs(values).max(), rtol=0
            )


@pytest.mark.theorem("cayley-transform")
@pytest.mark.parametrize("shape", [(), (3, 2)])
@pytest.mark.parametrize("dt", [0, 0.1])
def test_transfer_functions_agree_point_by_point(dt, shape):
    alpha, beta = 0.8, 2.5
    system = dense(3, dt, shape)
    got = cayley(system, alpha=alpha, beta=beta)
    assert got.batch_shape == shape
    assert got.is_discrete != system.is_discrete
    for point in (0.3 + 1.1j, 1.7 - 0.4j):
        z, s = point, beta * (point - alpha) / (point + alpha)
        old, new = (z, s) if dt else (s, z)
        values = [
            x.C @ np.linalg.solve(at * np.eye(4) - x.A, x.B) + x.D
            for x, at in ((system, old), (got, new))
        ]
        np.testing.assert_allclose(*values, atol=ROUNDING * np.abs(values[0]).max())


@pytest.mark.theorem("cayley-transform")
@given(st.integers(0, 10**6), st.floats(0.1, 10))
def test_gramians_and_stability_are_kept(seed, beta):
    system = dense(seed, 0)
    sampled = cayley(system, beta=beta)
    assert is_stable(sampled)
    direct = (system.A, system.B, sampled.A, sampled.B)
    dual = [a.conj().T for a in (system.A, system.C, sampled.A, sampled.C)]
    for A, B, Ad, Bd in (direct, dual):
        P = linalg.solve_continuous_lyapunov(A, -B @ B.conj().T)
        Pd = linalg.solve_discrete_lyapunov(Ad, Bd @ Bd.conj().T)
        # the equations lose a digit for each power of ten that the map is slow: beta / |poles|
        np.testing.assert_allclose(Pd, P, atol=1e-8 * np.abs(P).max())


@pytest.mark.parametrize("real_output", [False, True])
@pytest.mark.parametrize("dt", [0, 1.0])
def test_diagonal_systems_map_like_dense_ones_and_come_back(dt, real_output):
    rng = np.random.default_rng(8)
    shape, n = (2, 3), 4
    poles = rng.uniform(0.1, 0.9, (*shape, n)) * np.exp(2j * rng.normal(size=(*shape, n)))
    if not dt:
        poles = poles - 1
    B, C, D = (
        rng.normal(size=(*shape, *s)) + 1j * rng.normal(size=(*shape, *s))
        for s in ((n, 2), (3, n), (3, 2))
    )
    system = DiagonalSystem(poles, B, C, D.real if real_output else D, dt, real_output=real_output)
    got, other = cayley(system, beta=2.0), cayley(system.to_dense(), beta=2.0)
    assert isinstance(got, DiagonalSystem)
    assert got.real_output == real_output
    for name in "BCD":
        np.testing.assert_allclose(getattr(got, name), getattr(other, name), rtol=0, atol=1e-10)
    back = cayley(got, beta=2.0)
    for name in ("poles", "B", "C", "D"):
        expected = getattr(system, name)
        np.testing.assert_allclose(
            getattr(back, name), expected, atol=ROUNDING * np.abs(expected).max()
        )


def test_post_update_systems_keep_their_map():
    layer = DiagonalSystem(
        [0.5j, 0.9], [1.0, 2.0], [1.0, -1.0], 0.5, recurrence="post-update", real_output=True
    )
    back = cayley(cayley(layer))
    assert back.recurrence == "standard"
    np.testing.assert_allclose(back.impulse_response(12), layer.impulse_response(12), atol=ROUNDING)


def test_poles_are_mapped_to_a_few_units_in_the_last_place():
    poles = np.array([-1e-12 + 1j, -1e-300, -1e12, 0.999 + 1e-9j, -1 + 1e-8j])
    got = cayley(DiagonalSystem(poles, np.ones(5), np.ones(5), dt=0))
    with mpmath.workdps(50):
        for pole, value in zip(poles, got.poles, strict=True):
            s = mpmath.mpmathify(complex(pole))
            exact = (1 + s) / (1 - s)
            assert abs(mpmath.mpmathify(complex(value)) - exact) <= ENTRY * abs(exact)


def test_points_at_infinity_are_refused_by_name():
    with pytest.raises(DataError, match="pole is exactly 2,"):
        cayley(DiagonalSystem([2.0], [1.0], [1.0], dt=0), beta=2.0)
    with pytest.raises(DataError, match="pole is exactly -1,"):
        cayley(DiagonalSystem([-1.0], [1.0], [1.0]))
    for system in (
        DenseSystem(np.eye(2), np.ones((2, 1)), np.ones((1, 2)), dt=0),
        DenseSystem(-np.eye(2), np.ones((2, 1)), np.ones((1, 2))),
        DenseSystem([[1.0, 1.0], [0.0, 1.0 + 1e-16]], np.ones((2, 1)), np.ones((1, 2)), dt=0),
    ):
        with pytest.raises(AccuracyError, match="singular"):
            cayley(system)
    system = DiagonalSystem([-1.0], [1.0], [1.0], dt=0)
    for name in ("alpha", "beta", "dt"):
        for value in (0, -1.0, np.nan, np.inf):
            with pytest.raises(DataError, match=name):
                cayley(system, **{name: value})
    with pytest.raises(UnsupportedOperationError, match="not a system"):
        cayley(None)


def test_systems_without_states():
    static = DiagonalSystem(np.zeros(0), np.zeros((0, 1)), np.zeros((1, 0)), 3.0, dt=0)
    for system in (static, static.to_dense()):
        assert cayley(system, dt=0.5).dt == 0.5
        assert cayley(system).D.tolist() == [[3.0]]
