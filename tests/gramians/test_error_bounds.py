"""Error bounds of matrix equations: above the true errors with zero slack, and not far above."""

from __future__ import annotations

import numpy as np
import pytest
from exact_equations import (
    BACKWARD_STABLE,
    adjoint,
    dyadic,
    exact_solution,
    spectral_error,
    true_error,
)

from ssmred.errors import AccuracyError
from ssmred.gramians import discrete_sylvester, lyapunov, stein, sylvester
from ssmred.gramians.error_bounds import general_bounds, gramian_bound, majorant_bound
from ssmred.gramians.residuals import general_terms, residual_sizes


@pytest.mark.theorem("residual-bound")
@pytest.mark.parametrize("backend", ["ssmred", "scipy"])
@pytest.mark.parametrize("kind", ["real", "complex"])
@pytest.mark.parametrize("gap", [0.5, 1e-4, 1e-9, 1e-12])
def test_error_bounds_hold_with_zero_slack(gap, kind, backend):
    """Near-singular and far from normal: eigenvalues 1 - gap, couplings up to 100."""
    rng = np.random.default_rng(int(-np.log10(gap)))
    n, finite = 5, 0
    for coupling in (0.1, 1.0, 100.0):
        A = coupling * np.triu(rng.standard_normal((n, n)), 1)
        if kind == "complex":
            A = A * np.exp(1j * rng.uniform(0, 6, (n, n)))
        A = A + np.diag((1 - gap) * rng.choice([-1.0, 1.0], n) * rng.uniform(0, 1, n) ** 0.1)
        A[0, 0] = 1 - gap
        Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
        A = Q @ A @ Q.T
        W = rng.standard_normal((n, n))
        W = W + W.T
        shifted = A - np.eye(n)
        cases = (
            (stein, A, ((1.0, None, None), (-1.0, A, adjoint(A)))),
            (lyapunov, shifted, ((-1.0, shifted, None), (-1.0, None, adjoint(shifted)))),
        )
        for equation, coefficient, terms in cases:
            try:
                solution = equation(coefficient, W, backend=backend)
            except AccuracyError:
                continue
            error = true_error(exact_solution(terms, W), solution.X)
            # the bound is on the spectral norm, which is at least ||.||_F / sqrt(n)
            bound = solution.error_bound * np.linalg.norm(solution.X)
            assert error / np.sqrt(n) <= bound
            finite += bool(np.isfinite(bound))
    assert finite > 0 or gap < 1e-6


@pytest.mark.theorem("residual-bound")
@pytest.mark.parametrize("size", [1e-250, 1e-160, 1e160, 1e250])
def test_bounds_of_tiny_and_huge_right_hand_sides(size):
    """The squares of these numbers underflow or overflow; the bounds must not say 0 or nan."""
    A = np.array([[0.3, 0.2], [-0.1, 0.6]])
    W = np.array([[1.0, 0.3], [0.3, 0.7]])
    for equation, matrix, terms in (
        (stein, A, ((1.0, None, None), (-1.0, A, A.T))),
        (lyapunov, A - np.eye(2), ((-1.0, A - np.eye(2), None), (-1.0, None, A.T - np.eye(2)))),
    ):
        solution = equation(matrix, size * W)
        error = true_error(exact_solution(terms, size * W), solution.X)
        length = np.hypot(*np.hypot(solution.X[0], solution.X[1]))
        assert 0 < error / np.sqrt(2) <= solution.error_bound * length
        assert solution.error_bound <= 1e-13
        assert solution.residual <= BACKWARD_STABLE


@pytest.mark.theorem("residual-bound")
@pytest.mark.parametrize("kind", ["real", "complex"])
def test_stable_sylvester_equations_have_sharp_bounds(kind):
    """Where both coefficients are stable, or both anti-stable, and a majorant says little."""
    rng = np.random.default_rng(12)
    n, m = 90, 80
    A, B = dyadic(rng, (n, n), 10, 80, kind), dyadic(rng, (m, m), 10, 80, kind)
    X = dyadic(rng, (n, m), 0, 8, kind)
    size = np.linalg.norm(X)
    cases = [(discrete_sylvester, A, B, True)]
    cases += [(sylvester, s * (A - 2 * np.eye(n)), s * (B - 2 * np.eye(m)), False) for s in (1, -1)]
    for equation, left, right, discrete in cases:
        W = X - left @ X @ right if discrete else left @ X + X @ right  # exact
        solution = equation(left, right, W)
        assert spectral_error(solution.X, X) <= solution.error_bound * np.linalg.norm(solution.X)
        assert solution.error_bound <= 1e-9
        computed, rounding, _ = residual_sizes(general_terms(left, right, discrete), solution.X, W)
        residual = float(computed + rounding)
        majorant = majorant_bound(left, adjoint(right), residual, discrete=discrete)
        assert majorant > 100 * solution.error_bound * size


@pytest.mark.theorem("residual-bound")
def test_bound_is_about_the_true_error():
    """A solution spoilt by a known amount: the bound is above it by little more than the norm."""
    A = np.diag([0.5, 0.25])
    exact = stein(A, np.eye(2)).X
    spoilt = exact + 1e-3 * np.eye(2)
    G = np.diag([4 / 3, 16 / 15])
    terms = ((1.0, None, None), (-1.0, A, A.T))
    residual = np.linalg.norm(np.eye(2) - (spoilt - A @ spoilt @ A.T))
    bound = gramian_bound(terms, np.array(residual), G, np.array(0.5), np.ones(2))
    assert 1e-3 <= bound <= 2e-3
    assert 1e-3 * np.sqrt(2) <= majorant_bound(A, A, float(residual), discrete=True) <= 6e-3


@pytest.mark.theorem("residual-bound")
@pytest.mark.parametrize("discrete", [True, False])
def test_spoilt_sylvester_solutions_in_any_units(discrete):
    """Worst errors for the geometric mean: along the largest directions of both Gramians."""
    rng = np.random.default_rng(17)
    shift = 0.0 if discrete else 1.0
    ratios = []
    for _ in range(20):
        n, m = 4, 3
        A, B = (rng.standard_normal((k, k)) + 1j * rng.standard_normal((k, k)) for k in (n, m))
        A, B = (0.8 * M / np.abs(np.linalg.eigvals(M)).max() - shift * np.eye(len(M))
                for M in (A, B))  # fmt: skip
        d, e = 2.0 ** rng.integers(-30, 31, n), 2.0 ** rng.integers(-30, 31, m)
        A, B = A * d[:, None] / d, B / e[:, None] * e  # B^* has the units e
        x, y = d * (rng.standard_normal(n) + 1j), e * (rng.standard_normal(m) - 1j)
        W, spoilt = np.zeros((n, m), complex), 1e-3 * np.outer(x, y)  # the solution is 0
        bound = general_bounds(A[None], B[None], spoilt[None], W[None], discrete)[0]
        error = np.linalg.norm(spoilt, 2)
        assert error <= bound < np.inf
        ratios.append(bound / error)
    assert np.median(ratios) < 1e3  # the units range over 2^60


@pytest.mark.theorem("residual-bound")
@pytest.mark.parametrize("discrete", [True, False])
def test_geometric_mean_is_sharp_for_equal_coefficients(discrete):
    A = np.array([[[0.5]]]) if discrete else np.array([[[-0.25]]])
    bound = general_bounds(A, A, np.array([[[4.001]]]), 4.0 * (1 - A * A if discrete else 2 * A),
                           discrete)  # fmt: skip
    assert 1e-3 * (1 - 1e-9) <= bound[0] <= 1e-3 * (1 + 1e-5)


@pytest.mark.theorem("residual-bound")
def test_gramian_bound_is_never_given_without_stability():
    """For A = 2 the solution for W = I is negative; its norm says nothing by itself."""
    A = np.array([[2.0]])
    terms = ((1.0, None, None), (-1.0, A, A))
    G = np.array([[-1 / 3]])
    assert np.isinf(gramian_bound(terms, np.array(1e-3), G, np.array(0.5), np.ones(1)))
    assert np.isfinite(stein(A, [[1.0]]).error_bound)  # by the majorant
