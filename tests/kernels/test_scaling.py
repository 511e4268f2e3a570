"""Diagonal scaling is exact, undoes units, and stays away where it does not pay."""

from __future__ import annotations

import numpy as np
import pytest

from ssmred.gramians.triangular import balancing_scales

SUMMED = 1e-14  # sums of a few positive numbers


def scaled(A, d):
    return A / d[..., :, None] * d[..., None, :]


@pytest.mark.parametrize("dtype", [float, complex])
def test_units_are_undone_exactly(dtype):
    rng = np.random.default_rng(0)
    A = rng.normal(size=(5, 6, 6)) + (1j * rng.normal(size=(5, 6, 6)) if dtype is complex else 0)
    units = 2.0 ** rng.integers(-60, 61, (5, 6))
    given = A * units[:, :, None] / units[:, None, :]
    d = balancing_scales(given)
    assert (np.frexp(d)[0] == 0.5).all()  # powers of two
    back = scaled(given, d)
    np.testing.assert_array_equal(back / d[:, None, :] * d[:, :, None], given)
    off = np.abs(back) * (1 - np.eye(6))
    ratio = off.sum(axis=-1) / off.sum(axis=-2)
    assert ratio.max() < 8
    assert ratio.min() > 1 / 8
    for h in range(5):
        np.testing.assert_array_equal(balancing_scales(given[h]), d[h])


@pytest.mark.theorem("schur-equations")
@pytest.mark.parametrize("dtype", [float, complex])
@pytest.mark.parametrize("n", [2, 3, 9])
def test_sums_of_rows_and_columns_end_within_seven_thirds(n, dtype):
    rng = np.random.default_rng(n)
    A = rng.normal(size=(200, n, n)) * 10.0 ** rng.uniform(-2, 2, (200, n, n))
    A = A * (np.exp(1j * rng.uniform(0, 6, A.shape)) if dtype is complex else 1)
    units = 2.0 ** rng.integers(-40, 41, (200, n))
    A = A * units[:, :, None] / units[:, None, :]
    d = balancing_scales(A)
    used = (d != 1).any(axis=-1)
    assert used.mean() > 0.5
    back = scaled(A, d)[used]
    moduli = (np.abs(back.real) + np.abs(back.imag)) * (1 - np.eye(n))
    ratio = moduli.sum(axis=-1) / moduli.sum(axis=-2)
    assert ratio.max() <= 7 / 3 * (1 + SUMMED)
    assert ratio.min() >= 3 / 7 * (1 - SUMMED)


def test_even_matrices_are_left_alone():
    rng = np.random.default_rng(1)
    for A in (rng.normal(size=(8, 8)), np.diag([1e-9, 1.0, 1e9]), np.triu(np.ones((4, 4))),
              np.zeros((3, 3)), np.eye(2) * 1e200):  # fmt: skip
        np.testing.assert_array_equal(balancing_scales(A), np.ones(len(A)))


def test_scaling_that_does_not_lower_the_norm_is_not_used():
    """The diagonal is the largest part, whatever the units: nothing would be gained."""
    cycle = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1e-12, 0.0, 0.0]])
    np.testing.assert_array_equal(balancing_scales(cycle + 1e6 * np.eye(3)), np.ones(3))
    assert (balancing_scales(cycle) != 1).any()


def test_empty_batches():
    assert balancing_scales(np.zeros((0, 3, 3))).shape == (0, 3)
    assert balancing_scales(np.zeros((2, 0, 0))).shape == (2, 0)
