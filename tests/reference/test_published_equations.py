"""Published solutions of Lyapunov, Stein and Sylvester equations."""

from __future__ import annotations

import numpy as np
import pytest
from published import CASES, as_floats, exact, exact_lyapunov, numbers, parts

from ssmred.gramians import (
    discrete_sylvester,
    lyapunov,
    lyapunov_factor,
    stein,
    sylvester,
)

EXACT = 1e-11  # relative; what float64 leaves of the well-conditioned examples
BACKENDS = ("ssmred", "scipy", "slycot")


@pytest.mark.parametrize("backend", BACKENDS)
def test_slicot_sb03md_discrete_lyap(backend):
    """``A^T X A - X = C`` with an unstable A: the equation is solvable, the Gramian is not."""
    data, expected, tolerance = parts(CASES["slicot_sb03md_discrete_lyap"])
    A, C = numbers(data["A"]), numbers(data["C"])
    solution = stein(A.T, -C, backend=backend)
    np.testing.assert_allclose(solution.X, expected["X"], rtol=0, atol=tolerance["atol"])
    assert (
        np.abs(solution.X - np.array(expected["X"])).max()
        <= solution.error_bound * np.abs(solution.X).max()
        or solution.error_bound == 0
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_matlab_lyap(backend):
    data, expected, tolerance = parts(CASES["matlab_lyap"])
    X = lyapunov(numbers(data["A"]), numbers(data["Q"]), backend=backend).X
    np.testing.assert_allclose(X, expected["X"], rtol=0, atol=tolerance["atol"])
    eigenvalues = np.linalg.eigvalsh((X + X.T) / 2)
    np.testing.assert_allclose(eigenvalues, expected["eig_X"], rtol=0, atol=tolerance["atol"])
    recomputed = exact_lyapunov(
        exact(numbers(data["A"])), exact(numbers(data["Q"])), discrete=False
    )
    np.testing.assert_allclose(X, as_floats(recomputed), rtol=EXACT)


def test_slicot_sb03od_cholesky():
    """``A^T X + X A = -B^T B``; the factor is unique up to a unitary matrix."""
    data, expected, tolerance = parts(CASES["slicot_sb03od_cholesky"])
    A, B = numbers(data["A"]), numbers(data["B"])
    L = lyapunov_factor(A.T, B.T)
    atol = tolerance["atol"]
    np.testing.assert_allclose(L @ L.T, expected["X"], rtol=0, atol=atol)
    triangle = np.linalg.qr(L.T)[1]
    triangle *= np.sign(np.diag(triangle))[:, None]
    np.testing.assert_allclose(triangle, expected["U_upper"], rtol=0, atol=10 * atol)
    X = lyapunov(A.T, B.T @ B).X
    np.testing.assert_allclose(X, expected["X"], rtol=0, atol=atol)


def test_slicot_sg03ad_generalized_lyap():
    """``A^T X E + E^T X A = Y``."""
    data, expected, tolerance = parts(CASES["slicot_sg03ad_generalized_lyap"])
    A, E, Y = (numbers(data[name]) for name in ("A", "E", "Y"))
    X = lyapunov(A.T, -Y, E=E.T).X
    np.testing.assert_allclose(X, expected["X"], rtol=0, atol=tolerance["atol"])


def test_slicot_sg03bd_generalized_cholesky():
    """``A^T X E + E^T X A = -B^T B``, ``X = U^T U``."""
    data, expected, tolerance = parts(CASES["slicot_sg03bd_generalized_cholesky"])
    A, E, B = (numbers(data[name]) for name in ("A", "E", "B"))
    X = lyapunov(A.T, B.T @ B, E=E.T).X
    U = np.array(expected["U_upper"])
    np.testing.assert_allclose(X, U.T @ U, rtol=0, atol=tolerance["X_atol"])
    triangle = np.linalg.cholesky((X + X.T) / 2).T
    np.testing.assert_allclose(triangle, U, rtol=0, atol=tolerance["atol"])
    L = lyapunov_factor(A.T, B.T, E=E.T)
    np.testing.assert_allclose(L @ L.T, X, rtol=0, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_slicot_sb04qd_discrete_sylvester(backend):
    """``X + A X B = C``."""
    data, expected, tolerance = parts(CASES["slicot_sb04qd_discrete_sylvester"])
    A, B, C = (numbers(data[name]) for name in "ABC")
    X = discrete_sylvester(-A, B, C, backend=backend).X
    np.testing.assert_allclose(X, expected["X"], rtol=0, atol=tolerance["atol"])


@pytest.mark.parametrize("backend", BACKENDS)
def test_slicot_sb04md_continuous_sylvester(backend):
    data, expected, tolerance = parts(CASES["slicot_sb04md_continuous_sylvester"])
    A, B, C = (numbers(data[name]) for name in "ABC")
    X = sylvester(A, B, C, backend=backend).X
    np.testing.assert_allclose(X, expected["X"], rtol=0, atol=tolerance["atol"])
    np.testing.assert_allclose(A @ X + X @ B, C, atol=EXACT)
