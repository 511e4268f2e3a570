"""Discretisation: published numbers, closed forms at 50 digits, and sampled solutions."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import signal
from scipy.integrate import solve_ivp

from ssmred.errors import AccuracyError, DataError, ShapeError, UnsupportedOperationError
from ssmred.systems import DenseSystem, DiagonalSystem, discretise
from ssmred.systems.discretisation import first_phi, second_phi

ROUNDING = 1e-12  # relative to the largest value
ENTRY = 8 * np.finfo(float).eps  # closed forms: a few units in the last place
METHODS = ("zoh", "foh", "impulse", "bilinear", "backward", "euler")


def diagonal(seed: int = 0, shape: tuple = (), n: int = 5, real_output: bool = False):
    rng = np.random.default_rng(seed)

    def values(*size):
        return rng.normal(size=(*shape, *size)) + 1j * rng.normal(size=(*shape, *size))

    poles = -rng.uniform(0, 2, (*shape, n)) + 1j * rng.normal(size=(*shape, n)) * 3
    D = values(3, 2)
    return DiagonalSystem(
        poles,
        values(n, 2),
        values(3, n),
        D.real if real_output else D,
        dt=0,
        real_output=real_output,
    )


def largest(*arrays) -> float:
    return max(float(np.abs(a).max()) for a in arrays)


@pytest.mark.parametrize("real_output", [False, True])
@pytest.mark.parametrize("shape", [(), (3, 2)])
@pytest.mark.parametrize("method", METHODS)
def test_diagonal_and_dense_systems_agree(method, shape, real_output):
    system = diagonal(1, shape, real_output=real_output)
    if method == "impulse":
        system = system.replace(D=0 * system.D)
    one = discretise(system, 0.3, method)
    two = discretise(system.to_dense(), 0.3, method)
    assert isinstance(one, DiagonalSystem)
    assert isinstance(two, DenseSystem)
    assert one.dt == two.dt == 0.3
    assert one.real_output == two.real_output == real_output
    assert one.batch_shape == two.batch_shape == shape
    responses = one.impulse_response(20), two.impulse_response(20)
    np.testing.assert_allclose(*responses, atol=ROUNDING * largest(responses[0]))


@pytest.mark.parametrize(
    "z", [1e-300, -1e-12, 1e-3j, 0.5 - 0.1j, 0.999, 1.001, -3 + 4j, -40, 6.25j, 2 - 30j]
)
def test_phi_functions_hold_every_digit(z):
    with mpmath.workdps(700):  # (1e-300)^2 beside 1
        z = mpmath.mpmathify(z)
        first = (mpmath.exp(z) - 1) / z
        second = (mpmath.exp(z) - 1 - z) / z**2
        for function, exact in ((first_phi, first), (second_phi, second)):
            got = complex(function(np.array([complex(z)]))[0])
            assert abs(mpmath.mpmathify(got) - exact) <= ENTRY * abs(exact)


def test_phi_functions_at_zero():
    assert first_phi(np.zeros(1))[0] == 1.0
    assert second_phi(np.zeros(1))[0] == 0.5


@pytest.mark.parametrize("method", METHODS)
def test_tiny_zero_and_stiff_poles_to_a_few_units(method):
    """Against the definitions at 60 digits; expm of a dense matrix would lose the tiny poles."""
    poles = np.array([0.0, -1e-14 + 1e-15j, -1e-3 + 2j, -50.0, 3j])
    B = np.array([[1.0], [2 - 1j], [0.5j], [1.0], [-1.0]])
    system = DiagonalSystem(poles, B, B.T, dt=0)
    got = discretise(system, 0.25, method)
    with mpmath.workdps(60):
        h = mpmath.mpf(0.25)
        for i, pole in enumerate(poles):
            l, b = mpmath.mpmathify(complex(pole)), mpmath.mpmathify(complex(B[i, 0]))
            e = mpmath.exp(l * h)
            one = h if l == 0 else (e - 1) / l
            two = h / 2 if l == 0 else (e - 1 - l * h) / (l * l * h)
            w = {"bilinear": mpmath.mpf(0.5), "backward": 1, "euler": 0}.get(method, 0)
            gap = 1 - w * h * l
            pole_and_input = {
                "zoh": (e, one * b),
                "foh": (e, (one + two * (e - 1)) * b),
                "impulse": (e, h * e * b),
            }.get(method, ((1 + (1 - w) * h * l) / gap, h * b / gap))
            for value, exact in zip((got.poles[i], got.B[i, 0]), pole_and_input, strict=True):
                # e^(l h) inherits the rounding of l h once
                slack = ENTRY * max(1, abs(l * h))
                assert abs(mpmath.mpmathify(complex(value)) - exact) <= slack * abs(exact)


def test_zoh_samples_the_solution_for_a_held_input():
    system = diagonal(3).replace(D=np.ones((3, 2)))
    u = np.random.default_rng(4).normal(size=(6, 2))
    h = 0.4
    outputs = []
    x = np.zeros(system.order, complex)
    for step in u:
        outputs.append(system.C @ x + system.D @ step)
        flow = solve_ivp(
            lambda _, x, step=step: system.poles * x + system.B @ step,
            (0, h),
            x,
            rtol=1e-11,
            atol=1e-13,
        )
        x = flow.y[:, -1]
    got = discretise(system, h).simulate(u)
    np.testing.assert_allclose(got, outputs, atol=1e-8)  # the integrator's accuracy


def test_foh_samples_the_solution_for_a_ramp():
    """By hand: the integral of a ramp is exact under foh, not under zoh."""
    integrator = DiagonalSystem([0.0], [1.0], [1.0], dt=0)
    times = 0.5 * np.arange(8)
    got = discretise(integrator, 0.5, "foh").simulate(times[:, None])[:, 0]
    np.testing.assert_allclose(got, times**2 / 2, atol=ROUNDING)
    held = discretise(integrator, 0.5).simulate(times[:, None])[:, 0]
    assert abs(held[-1] - times[-1] ** 2 / 2) > 0.5


def test_impulse_samples_the_impulse_response():
    system = diagonal(5)
    system = system.replace(D=0 * system.D)
    h = 0.2
    response = discretise(system, h, "impulse").impulse_response(10)
    for k in range(10):
        exact = h * (system.C * np.exp(system.poles * k * h)) @ system.B
        np.testing.assert_allclose(response[k], exact, atol=ROUNDING * largest(response))


@given(
    st.floats(1e-3, 10),
    st.sampled_from(["bilinear", "backward"]),
    st.integers(0, 100),
    st.floats(0.5, 1),
)
def test_substitutions_are_exact_in_the_transfer_function(h, method, seed, alpha):
    system = diagonal(seed)
    for name, weight, options in (
        (method, {"bilinear": 0.5, "backward": 1.0}[method], {}),
        ("gbt", alpha, {"alpha": alpha}),
    ):
        sampled = discretise(system, h, name, **options)
        z = np.exp(0.7j)
        s = (z - 1) / (h * (weight * z + 1 - weight))
        exact = system.C @ ((system.B.T / (s - system.poles)).T) + system.D
        got = sampled.frequency_response(np.array([0.7 / h]))[0]
        np.testing.assert_allclose(got, exact, atol=1e3 * ROUNDING * largest(exact))


def test_half_spectrum_is_the_real_system():
    half = diagonal(6, real_output=True)
    for method in ("zoh", "foh", "bilinear"):
        one = discretise(half, 0.1, method)
        two = discretise(half.realified(), 0.1, method)
        assert one.D.dtype == np.float64
        response = two.impulse_response(15)
        np.testing.assert_allclose(
            one.impulse_response(15), response, atol=ROUNDING * largest(response)
        )


def test_scipy_gives_the_same_for_a_complex_dense_system():
    system = diagonal(7).to_dense()
    A, B, C, D, _ = signal.cont2discrete((system.A, system.B, system.C, system.D), 0.2, "foh")
    got = discretise(system, 0.2, "foh")
    for name, expected in zip("ABCD", (A, B, C, D), strict=True):
        np.testing.assert_array_equal(getattr(got, name), expected)


def test_systems_without_states_and_empty_batches():
    static = DiagonalSystem(np.zeros(0), np.zeros((0, 1)), np.zeros((1, 0)), 3.0, dt=0)
    for system in (static, static.to_dense()):
        for method in ("zoh", "bilinear"):
            got = discretise(system, 0.5, method)
            assert got.dt == 0.5
            assert got.D.tolist() == [[3.0]]
    none = DenseSystem(np.zeros((0, 2, 2)), np.zeros((0, 2, 1)), np.zeros((0, 1, 2)), dt=0)
    assert discretise(none, 0.5).batch_shape == (0,)
    assert discretise(none, 0.5, "bilinear").batch_shape == (0,)


def test_bad_requests_are_refused():
    system = DiagonalSystem([-1.0], [1.0], [1.0], dt=0)
    with pytest.raises(UnsupportedOperationError, match="discrete time already"):
        discretise(discretise(system, 0.1), 0.1)
    with pytest.raises(UnsupportedOperationError, match="not a system"):
        discretise(np.eye(2), 0.1)
    with pytest.raises(ShapeError, match="'zoh', 'foh'"):
        discretise(system, 0.1, "tustin")
    for dt in (0, -1.0, np.nan, np.inf, None):
        with pytest.raises(DataError, match="dt"):
            discretise(system, dt)
    for alpha in (None, -0.1, 1.1, np.nan, True, "half"):
        with pytest.raises(DataError, match="alpha"):
            discretise(system, 0.1, "gbt", alpha=alpha)
    with pytest.raises(DataError, match="belongs to method='gbt'"):
        discretise(system, 0.1, "bilinear", alpha=0.5)
    with pytest.raises(UnsupportedOperationError, match="D delta"):
        discretise(system.replace(D=[[1e-9]]), 0.1, "impulse")  # SciPy lets it vanish


def test_divisions_by_zero_and_overflow_are_named():
    unstable = DiagonalSystem([4.0], [1.0], [1.0], dt=0)
    with pytest.raises(DataError, match="divides by zero"):
        discretise(unstable, 0.5, "bilinear")
    with pytest.raises(AccuracyError, match="singular"):
        discretise(unstable.to_dense(), 0.5, "bilinear")
    with pytest.raises(DataError, match="discretised system"):
        discretise(unstable, 1e3)
    with pytest.raises(DataError, match="discretised system"):
        discretise(unstable.to_dense(), 1e3)
