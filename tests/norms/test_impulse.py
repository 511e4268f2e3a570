"""Gains of raw responses are upper bounds, rounding included: zero slack."""

from __future__ import annotations

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssmred.errors import DataError, ShapeError
from ssmred.norms import impulse_l1_gain, impulse_l2_gain

TIGHT = 1e-12  # what the a priori rounding terms may add, relative


@pytest.mark.theorem("l1-gain")
@given(
    st.lists(
        st.floats(min_value=-1e6, max_value=1e6, allow_subnormal=False), min_size=1, max_size=300
    )
)
def test_l1_is_not_below_the_exact_sum(values):
    exact = sum(abs(Fraction(v)) for v in values)
    gain = impulse_l1_gain(values)
    assert Fraction(gain) >= exact
    assert Fraction(gain) <= exact * (1 + Fraction(TIGHT)) + Fraction(1, 10**300)


@pytest.mark.theorem("l1-gain")
def test_l1_of_complex_and_batched_responses():
    rng = np.random.default_rng(0)
    h = rng.normal(size=(3, 2, 100)) + 1j * rng.normal(size=(3, 2, 100))
    gain = impulse_l1_gain(h)
    assert gain.shape == (3, 2)
    with mpmath.workdps(40):
        exact = mpmath.fsum(abs(mpmath.mpc(complex(v))) for v in h[1, 1])
        assert mpmath.mpf(float(gain[1, 1])) >= exact
        assert float(gain[1, 1]) <= float(exact) * (1 + TIGHT)


def exact_modulus(h: np.ndarray, omega: mpmath.mpf) -> mpmath.mpf:
    z = mpmath.expj(-omega)
    return abs(mpmath.polyval([mpmath.mpc(complex(v)) for v in h[::-1]], z))


def refined_peak(h: np.ndarray) -> mpmath.mpf:
    """Return |H| in 40 digits at a point next to its maximum: a lower bound of the maximum."""
    grid = 64 * h.size
    values = np.abs(np.fft.fft(h, grid))
    best = int(values.argmax())
    with mpmath.workdps(40):
        step = 2 * mpmath.pi / grid
        low, high = (best - 1) * step, (best + 1) * step
        for _ in range(60):  # golden-section search
            third = (high - low) * mpmath.mpf("0.381966")
            if exact_modulus(h, low + third) < exact_modulus(h, high - third):
                low += third
            else:
                high -= third
        return exact_modulus(h, (low + high) / 2)


@pytest.mark.theorem("finite-horizon-gain")
@pytest.mark.parametrize("oversampling", [1, 1.5, 2, 8, 64])
@pytest.mark.parametrize("horizon", [1, 2, 3, 17, 64])
@pytest.mark.parametrize("is_complex", [False, True])
def test_l2_is_an_upper_bound_and_as_tight_as_promised(oversampling, horizon, is_complex):
    rng = np.random.default_rng(horizon)
    for _ in range(2):
        h = rng.normal(size=horizon) + 1j * is_complex * rng.normal(size=horizon)
        h = h if is_complex else h.real
        peak = refined_peak(h)
        gain = impulse_l2_gain(h, oversampling)
        assert mpmath.mpf(gain) >= peak
        assert mpmath.mpf(gain) <= peak / mpmath.cos(mpmath.pi / (2 * oversampling)) * (1 + TIGHT)


@pytest.mark.theorem("finite-horizon-gain")
@pytest.mark.parametrize("shift", [0.0, 0.25, 0.5])
def test_the_worst_polynomial_between_grid_points_stays_below(shift):
    # Extremal case: energy in the two end samples only, maximum halfway between grid points.
    for horizon in (2, 5, 33):
        h = np.zeros(horizon, complex)
        angle = math.pi * shift / horizon
        h[0], h[-1] = 1.0, np.exp(1j * angle * (horizon - 1))
        gain = impulse_l2_gain(h, 1)
        assert gain >= 2.0 - 4e-16  # |1 + e^{j(...)}| reaches 2 where the phases meet
        assert gain <= 2.0 + 1e-14  # capped by the l1 sum


@pytest.mark.theorem("finite-horizon-gain")
@given(seed=st.integers(min_value=0, max_value=10**6))
def test_no_signal_is_amplified_more(seed):
    rng = np.random.default_rng(seed)
    h, u = rng.normal(size=40), rng.normal(size=40)
    y = np.convolve(h, u)[:40]
    assert np.linalg.norm(y) <= impulse_l2_gain(h) * np.linalg.norm(u)
    # The exact gain of the T-sample operator is the largest singular value of its matrix.
    matrix = np.array([np.concatenate([np.zeros(i), h[: 40 - i]]) for i in range(40)]).T
    assert np.linalg.norm(matrix, 2) <= impulse_l2_gain(h)


def test_radius_is_added():
    h = np.array([[1.0, -1.0], [0.0, 2.0]])
    for gain in (impulse_l1_gain, impulse_l2_gain):
        plain = gain(h)
        assert (gain(h, radius=0.5) >= plain + 0.5).all()
        assert (gain(h, radius=np.array([0.0, 1.0])) >= plain + np.array([0.0, 1.0])).all()
        with pytest.raises(ShapeError, match="radius"):
            gain(h, radius=-1.0)
        with pytest.raises(ShapeError, match="radius"):
            gain(h, radius=np.zeros(3))


def test_zero_and_static_responses():
    assert impulse_l2_gain(np.zeros(5)) <= 1e-300
    assert impulse_l1_gain(np.zeros((0, 5))).shape == (0,)
    assert impulse_l2_gain(np.zeros((0, 5))).shape == (0,)
    assert 3.0 <= impulse_l2_gain([3.0]) <= 3.0 * (1 + 1e-14)


@pytest.mark.parametrize("gain", [impulse_l1_gain, impulse_l2_gain])
def test_bad_input(gain):
    for bad in (np.zeros(0), np.zeros((3, 0)), 1.0):
        with pytest.raises(ShapeError, match=gain.__name__):
            gain(bad)
    with pytest.raises(DataError, match="nan"):
        gain([1.0, np.nan])
    for bad in (0.5, 0, np.nan, np.inf):
        with pytest.raises(DataError, match="oversampling"):
            impulse_l2_gain([1.0], bad)
