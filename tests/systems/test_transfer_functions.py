"""Transfer functions in: coefficients and roots are kept, and the responses are right."""

from __future__ import annotations

import control
import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import signal

from ssmred.errors import ShapeError, UnsupportedOperationError
from ssmred.systems import (
    DenseSystem,
    DiagonalSystem,
    difference,
    from_control,
    from_scipy,
    stability_margins,
    to_control,
    to_scipy,
)

ROUNDING = 1e-12  # relative to the largest value
CHAIN = 1e-11  # the response of up to sixteen sections, each right to a few units


def product_form(zeros, poles, gain, s: complex) -> complex:
    """Return the value of a transfer function from its roots, at 50 digits."""
    with mpmath.workdps(50):
        value = mpmath.mpmathify(complex(gain))
        for z in zeros:
            value *= mpmath.mpmathify(complex(s)) - mpmath.mpmathify(complex(z))
        for p in poles:
            value /= mpmath.mpmathify(complex(s)) - mpmath.mpmathify(complex(p))
        return complex(value)


def value_at(system, s: complex) -> np.ndarray:
    dense = system.to_dense()
    return dense.C @ np.linalg.solve(s * np.eye(dense.order) - dense.A, dense.B) + dense.D


@pytest.mark.parametrize("dt", [0, 0.1, True])
def test_matrices_of_transfer_functions(dt):
    num = [[[1, 2], [3.0]], [[1], [1, 1]], [[0.0], [5.0, 1.0, 2.0]]]
    den = [[[1, 2, 3], [2, 8]], [[1, 2, 3], [1, 4]], [[1, 7], [1, 0, 2]]]
    system = from_control(control.tf(num, den, dt))
    assert system.dt == float(dt)
    assert system.order == 5  # (1, 2, 3) once; s + 4 once; s^2 + 2; the zero entry none
    s = 0.3 + 1.7j
    expected = [
        [np.polyval(num[i][j], s) / np.polyval(den[i][j], s) for j in range(2)] for i in range(3)
    ]
    np.testing.assert_allclose(value_at(system, s), expected, rtol=ROUNDING)


def test_common_factors_are_not_cancelled():
    """(s - 1) / ((s - 1)(s + 2)) has an unstable mode; dropping it would be a decision."""
    system = from_control(control.tf([1, -1], [1, 1, -2], 0))
    assert system.order == 2
    assert (stability_margins(system) < 0).sum() == 1
    np.testing.assert_allclose(value_at(system, 1j), [[1 / (1j + 2)]], rtol=ROUNDING)


def test_coefficients_are_kept_bit_by_bit():
    den = [1.0, -0.8999999999999999, 0.02801000000000009, 0.364005]
    system = from_control(control.tf([1, 0, 0, 0], den, 0.05))
    assert system.A[0].tolist() == [-a for a in den[1:]]
    assert system.D.tolist() == [[1.0]]
    scaled = from_scipy(signal.TransferFunction([2.0], [2.0, 1.0]))
    assert scaled.A.tolist() == [[-0.5]]


def test_scipy_transfer_functions_complex_and_with_several_outputs():
    s = 0.4 - 0.9j
    num, den = [[1.0, 2j], [0.0, 1.0]], [1.0, 0.5 + 1j]
    system = from_scipy(signal.TransferFunction(num, den, dt=0.5))
    assert system.outputs == 2
    expected = [[np.polyval(row, s) / np.polyval(den, s)] for row in num]
    np.testing.assert_allclose(value_at(system, s), expected, rtol=ROUNDING)


def test_improper_and_broken_functions_are_refused():
    with pytest.raises(ShapeError, match=r"\(1, 0\) is improper"):
        from_control(control.tf([[[1]], [[1, 0, 0]]], [[[1, 1]], [[1, 1]]], 0))
    with pytest.raises(ShapeError, match="improper"):
        from_scipy(signal.TransferFunction([1.0, 0.0, 0.0], [1.0, 1.0]))
    with pytest.raises(ShapeError, match="as many zeros as poles"):
        from_scipy(signal.ZerosPolesGain([1.0, 2.0], [3.0], 1.0))
    with pytest.raises(UnsupportedOperationError, match="Fit a model"):
        from_control(control.frd([1.0, 0.5], [1.0, 2.0]))


def test_static_gains():
    for foreign in (
        signal.ZerosPolesGain([], [], -2.5),
        signal.TransferFunction([-5.0], [2.0]),
    ):
        system = from_scipy(foreign)
        assert system.order == 0
        assert system.D.tolist() == [[-2.5]]
    assert from_control(control.tf([0], [1], 0)).D.tolist() == [[0.0]]


def roots(rng, pairs: int, singles: int) -> np.ndarray:
    upper = rng.normal(size=pairs) + 1j * rng.uniform(0.1, 3, pairs)
    return np.concatenate([upper, rng.normal(size=singles), upper.conj()])


@given(st.integers(0, 10**6), st.integers(0, 3), st.integers(0, 3), st.booleans())
def test_zeros_and_poles_of_every_kind(seed, pairs, singles, real):
    rng = np.random.default_rng(seed)
    poles = roots(rng, pairs, singles)
    n = poles.size
    zero_pairs = int(rng.integers(0, n // 2 + 1))
    zeros = roots(rng, zero_pairs, int(rng.integers(0, n - 2 * zero_pairs + 1)))
    gain = float(rng.normal())
    if not real:
        poles = poles + 0.1j
    system = from_scipy(signal.ZerosPolesGain(zeros, poles, gain))
    assert system.order == n
    assert system.is_real == (real or n == 0)
    s = 0.7 + 4j  # away from all roots
    expected = product_form(zeros, poles, gain, s)
    scale = max(abs(expected), abs(gain))
    np.testing.assert_allclose(value_at(system, s), [[expected]], atol=1e3 * CHAIN * scale)


def test_a_filter_of_order_sixteen_keeps_its_poles():
    """Sixteen poles near z = 1: through the coefficients the filter is unstable."""
    zeros, poles, gain = signal.butter(16, 0.01, output="zpk")
    filtered = signal.ZerosPolesGain(zeros, poles, gain, dt=1.0)
    with pytest.warns(signal.BadCoefficients):
        through_coefficients = filtered.to_ss()
    assert np.abs(np.linalg.eigvals(through_coefficients.A)).max() > 1
    system = from_scipy(filtered)
    assert system.is_real
    assert (stability_margins(system) > 0).all()
    for angle in (0.0, 0.005, 0.03):
        z = complex(np.exp(1j * angle))
        expected = product_form(zeros, poles, gain, z)
        got = system.frequency_response(np.array([angle]))[0, 0, 0]
        assert abs(got - expected) <= CHAIN * abs(product_form(zeros, poles, gain, 1.0))


@pytest.mark.parametrize("kind", ["to_tf", "to_zpk", "to_ss"])
@pytest.mark.parametrize("dt", [0, 0.25])
def test_round_trips_through_every_form_of_scipy(kind, dt):
    rng = np.random.default_rng(11)
    A = rng.normal(size=(3, 3)) / 3
    system = DenseSystem(A, rng.normal(size=(3, 1)), rng.normal(size=(1, 3)), 0.5, dt)
    back = from_scipy(getattr(to_scipy(system), kind)())
    assert back.dt == dt
    s = 0.6 + 1.9j
    np.testing.assert_allclose(value_at(back, s), value_at(system, s), rtol=1e-10)


@pytest.mark.parametrize("dt", [0, 0.25])
def test_round_trip_through_a_transfer_function_of_control(dt):
    poles = np.array([0.5j, -0.4])
    system = DiagonalSystem(poles, [1.0, 1.0], [2 - 1j, 0.5], 0.3, dt, real_output=True)
    back = from_control(control.tf(to_control(system)))
    assert back.dt == dt
    s = 0.6 + 1.9j
    np.testing.assert_allclose(
        value_at(back, s), value_at(system.realified(), s), rtol=1e-10
    )  # control.tf computes coefficients from eigenvalues


@pytest.mark.parametrize("convert", [(to_control, from_control), (to_scipy, from_scipy)])
def test_post_update_half_spectra_come_back_as_the_same_map(convert):
    there, back = convert
    layer = DiagonalSystem(
        [0.5j, 0.9, 0.2 + 0.1j],
        [1.0, 2.0, 1j],
        [1.0, -1.0, 2 - 3j],
        [[0.7]],
        0.1,
        recurrence="post-update",
        real_output=True,
    )
    got = back(there(layer))
    assert got.recurrence == "standard"
    assert got.is_real
    np.testing.assert_allclose(got.impulse_response(20), layer.impulse_response(20), atol=ROUNDING)
    assert np.abs(difference(layer, got).impulse_response(20)).max() <= ROUNDING


def test_states_that_do_nothing_stay(monkeypatch):
    """python-control can be configured to drop them; an exchange never does."""
    monkeypatch.setitem(control.config.defaults, "statesp.remove_useless_states", True)
    system = DenseSystem(np.diag([0.5, 0.0]), [[1.0], [0.0]], [[1.0, 0.0]])
    assert to_control(system).nstates == 2


def test_scipy_systems_with_complex_matrices_stay_complex():
    foreign = signal.StateSpace([[0.5j]], [[1.0]], [[2.0]], [[0.0]], dt=True)
    system = from_scipy(foreign)
    assert system.dt == 1.0
    assert system.A.tolist() == [[0.5j]]
    with pytest.raises(UnsupportedOperationError, match="complex"):
        to_scipy(system)


def test_foreign_arrays_are_copied():
    A = np.array([[0.5]])
    system = from_scipy(signal.StateSpace(A, [[1.0]], [[2.0]], [[0.0]], dt=0.1))
    A[0, 0] = 7.0
    assert system.A[0, 0] == 0.5
