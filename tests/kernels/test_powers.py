"""Powers of poles against 60-digit arithmetic."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest

from ssmred.kernels.powers import accurate_powers, one_minus_product, power_tables

UNIT = 2.0**-53
POWER_ULPS = 4.3  # two roundings and one complex product: 2 + sqrt(5)
TABLE_ULPS = 1.0  # one rounding of each part


def hard_poles() -> np.ndarray:
    rng = np.random.default_rng(5)
    slow = (1 - 10.0 ** rng.uniform(-12, -3, 12)) * np.exp(1j * rng.uniform(-3.1, 3.1, 12))
    return np.concatenate([slow, [1 - 1e-12, -1.0, 1j, 1.0, 0.7 + 0.1j, 1.00003 - 0.001j]])


def relative_error(value: complex, exact: mpmath.mpc) -> float:
    size = max(abs(exact), mpmath.mpf("1e-270"))  # below, the error terms underflow
    return float(abs(mpmath.mpc(complex(value)) - exact) / size)


@pytest.mark.theorem("diagonal-gramian")
def test_powers_up_to_a_hundred_thousand_are_right_to_a_few_units():
    poles = hard_poles()
    powers = accurate_powers(poles, 100_001)
    with mpmath.workdps(60):
        for i, pole in enumerate(poles):
            for k in (1, 2, 3, 316, 317, 1000, 54_321, 99_999, 100_000):
                exact = mpmath.mpc(complex(pole)) ** k
                assert relative_error(powers[i, k], exact) <= POWER_ULPS * UNIT


def test_single_powers_are_right_to_one_rounding():
    poles = hard_poles()
    exponents = np.array([0, 1, 196, 4096, 10**6])
    powers = accurate_powers(poles[:, None], exponents)
    assert powers.shape == (poles.size, 1, 5)
    with mpmath.workdps(60):
        for i, pole in enumerate(poles):
            for j, k in enumerate(exponents):
                exact = mpmath.mpc(complex(pole)) ** int(k)
                assert relative_error(powers[i, 0, j], exact) <= TABLE_ULPS * UNIT


def test_tables_multiply_to_powers():
    poles = hard_poles().reshape(3, -1)
    fine, coarse = power_tables(poles, 50)
    assert fine.shape[-1] * coarse.shape[-1] >= 50
    products = (coarse[..., :, None] * fine[..., None, :]).reshape(*poles.shape, -1)
    powers = accurate_powers(poles, 50)
    # NumPy may fuse multiplications, so the two products differ by their rounding.
    assert (np.abs(products[..., :50] - powers) <= 4 * UNIT * np.abs(powers)).all()


@pytest.mark.parametrize("horizon", [0, 1, 2])
def test_short_and_empty(horizon):
    assert accurate_powers(np.zeros((2, 0)), horizon).shape == (2, 0, horizon)
    np.testing.assert_array_equal(accurate_powers(np.array([0.0]), 2), [[1.0, 0.0]])


def test_one_minus_product_keeps_its_digits_next_to_one():
    with mpmath.workdps(60):
        for pole in hard_poles():
            if abs(pole) >= 1:
                continue
            value = one_minus_product(
                (pole.real, 0.0, pole.imag, 0.0), (pole.real, 0.0, -pole.imag, 0.0)
            )
            exact = 1 - abs(mpmath.mpc(complex(pole))) ** 2
            assert relative_error(value, exact) <= 4 * UNIT
