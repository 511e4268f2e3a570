"""Diagonal forms of dense systems: poles right to one rounding, whatever their condition."""

from __future__ import annotations

from fractions import Fraction

import flint
import numpy as np
import pytest
from exact_peak import exact_peak

from ssmred.kernels.accurate_product import fill_accurate_product
from ssmred.norms import hinf_norm
from ssmred.norms.dense_form import modal_form, schur_form
from ssmred.systems import DenseSystem
from ssmred.systems.modes import LARGEST_MODAL

UNIT = 2.0**-53
BITS = 240


def dense(seed: int, *, gap: float, twice: bool = False) -> tuple[np.ndarray, ...]:
    """Return A, B, C with poles at distance ``gap`` and farther, far from normal."""
    rng = np.random.default_rng(seed)
    n = 6
    poles = (1 - gap * 10.0 ** rng.uniform(0, 4, n)) * np.exp(2j * np.pi * rng.random(n))
    poles[0] = (1 - gap) * np.exp(1j)
    if twice:
        poles[1] = poles[0]
    T = np.eye(n) + 0.3 * (rng.normal(size=(n, n)) + 1j * rng.normal(size=(n, n)))
    A = np.linalg.solve(T, poles[:, None] * T)
    return A, rng.normal(size=(n, 2)) + 0j, rng.normal(size=(1, n)) + 0j


def exact_poles(A: np.ndarray) -> np.ndarray:
    """Return the eigenvalues of the stored matrix, each rounded once."""
    n = len(A)
    old, flint.ctx.prec = flint.ctx.prec, BITS
    try:
        entries = [flint.acb(float(x.real), float(x.imag)) for x in A.ravel()]
        found = flint.acb_mat(n, n, entries).eig(algorithm="approx")
        return np.array([complex(x) for x in found])
    finally:
        flint.ctx.prec = old


@pytest.mark.theorem("hinf-enclosure")
def test_products_are_rounded_about_once():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3, 40)) + 1j * rng.normal(size=(3, 40))
    Y = rng.normal(size=(40, 2)) + 1j * rng.normal(size=(40, 2))
    X[:, 20:], Y[20:] = X[:, :20] * (1 + 1e-13), -Y[:20]  # 13 digits cancel
    out = np.empty((3, 2), np.complex128)
    fill_accurate_product(X, Y, out)
    parts = lambda z: (Fraction(float(z.real)), Fraction(float(z.imag)))  # noqa: E731
    for i in range(3):
        for j in range(2):
            real = imag = Fraction(0)
            for x, y in zip(X[i], Y[:, j], strict=True):
                (a, b), (c, d) = parts(x), parts(y)
                real, imag = real + a * c - b * d, imag + a * d + b * c
            slack = (2 * 40 * UNIT) ** 2 * float(np.abs(X[i]) @ np.abs(Y[:, j]))
            assert abs(out[i, j].real - real) <= 1.01 * UNIT * abs(real) + slack
            assert abs(out[i, j].imag - imag) <= 1.01 * UNIT * abs(imag) + slack


@pytest.mark.theorem("hinf-enclosure")
@pytest.mark.parametrize("seed", range(5))
def test_poles_are_those_of_the_stored_matrix(seed):
    A, B, C = dense(seed, gap=1e-6)
    form = modal_form(A, B, C, continuous=False)
    assert form is not None
    exact = exact_poles(A)
    for pole, error in zip(np.diagonal(form.T), form.backward, strict=True):
        assert np.abs(exact - pole).min() <= error
    # a Schur form moves them by more
    assert form.backward.max() <= 4 * UNIT
    assert schur_form(A, B, C).backward.max() > 20 * form.backward.max()


@pytest.mark.theorem("hinf-enclosure")
@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("gap", [1e-5, 1e-7, 1e-8])
def test_enclosures_next_to_the_boundary_are_as_narrow_as_asked(gap, twice):
    for seed in range(4):
        A, B, C = dense(seed, gap=gap, twice=twice)
        system = DenseSystem(A, B, C)
        got = hinf_norm(system)
        peak = exact_peak(system, got.frequency)
        assert got.lower <= peak <= got.upper
        assert got.upper - got.lower <= 1e-6 * got.upper


def test_large_systems_have_no_diagonal_form():
    large = np.diag(np.linspace(0.1, 0.9, LARGEST_MODAL + 1))
    wide = np.ones((1, len(large)))
    assert modal_form(large, wide.T, wide, continuous=False) is None


@pytest.mark.theorem("hinf-enclosure")
@pytest.mark.parametrize("gap", [1e-3, 1e-4])
def test_modes_that_do_not_separate_cannot_spoil_the_enclosure(gap):
    """A defective pole: eigenvectors are parallel, the Schur form is what holds."""
    rng = np.random.default_rng(2)
    Q = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    A = Q @ ((1 - gap) * np.eye(3) + np.diag([1.0, 1.0], 1)) @ Q.T
    system = DenseSystem(A, rng.normal(size=(3, 1)), rng.normal(size=(1, 3)))
    got = hinf_norm(system, rtol=1e-12)  # narrower than the Schur form can be
    assert got.lower <= exact_peak(system, got.frequency) <= got.upper
