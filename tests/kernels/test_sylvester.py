"""Triangular equations and their majorants against plain linear systems."""

from __future__ import annotations

import numpy as np
import pytest

from ssmred.kernels.lapack import schur_address
from ssmred.kernels.sylvester import fill_majorant, fill_solutions

SOLVED = 1e-12  # n = 5, condition up to 1e3
SUMMED = 1e-13  # sums of positive numbers


def operator(A, B, discrete):
    """Return the matrix of ``X - A X B^*`` or ``A X + X B^*`` for X written row by row."""
    n, m = len(A), len(B)
    if discrete:
        return np.eye(n * m) - np.kron(A, B.conj())
    return np.kron(A, np.eye(m)) + np.kron(np.eye(n), B.conj())


@pytest.mark.theorem("schur-equations")
@pytest.mark.parametrize("discrete", [True, False])
@pytest.mark.parametrize("kind", ["real", "complex"])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (5, 5), (5, 2), (2, 5)])
def test_batches_of_solutions(n, m, kind, discrete):
    rng = np.random.default_rng(n + 7 * m)
    make = lambda *k: rng.normal(size=k) + (1j * rng.normal(size=k) if kind == "complex" else 0)  # noqa: E731
    A, B, W = make(4, n, n), make(4, m, m), make(4, n, m)
    X, pivots = np.empty_like(W), np.empty(4)
    fill_solutions(schur_address(kind == "complex"), A, B, False, W, discrete, X, pivots)
    assert (pivots > 0).all()
    for h in range(4):
        matrix = operator(A[h], B[h], discrete)
        exact = np.linalg.solve(matrix, W[h].ravel()).reshape(n, m)
        bound = SOLVED * np.linalg.cond(matrix) * np.abs(exact).max()
        np.testing.assert_allclose(X[h], exact, rtol=0, atol=bound)


@pytest.mark.parametrize("discrete", [True, False])
def test_singular_pairs_have_pivot_zero_and_bad_matrices_minus_one(discrete):
    A = np.array([[[2.0, 1.0], [0.0, 3.0]], [[0.1, 0.0], [0.0, 0.2]]])
    B = np.array([[[0.5]], [[0.5]]]) if discrete else np.array([[[-2.0]], [[0.5]]])
    X, pivots = np.empty((2, 2, 1)), np.empty(2)
    fill_solutions(schur_address(False), A, B, False, np.ones((2, 2, 1)), discrete, X, pivots)
    assert pivots[0] == 0.0
    assert pivots[1] > 0.1


@pytest.mark.theorem("residual-bound")
@pytest.mark.parametrize("discrete", [True, False])
def test_majorant_is_the_solution_for_moduli(discrete):
    """With the moduli of all off-diagonal terms as increases, the bound is a linear system."""
    rng = np.random.default_rng(3)
    n, m = 5, 4
    S, T = (np.triu(rng.normal(size=(k, k)) + 1j * rng.normal(size=(k, k))) for k in (n, m))
    S, T = 0.5 * S, 0.5 * T
    out = np.empty((m, n))
    fill_majorant(
        np.diag(S).copy(), np.diag(T).copy(), np.abs(S.T).copy(), np.abs(T), discrete, out
    )
    if discrete:
        matrix = -np.abs(np.kron(S, T.conj()))
        gaps = np.abs(1 - np.kron(np.diag(S), np.diag(T).conj()))
    else:
        matrix = -np.abs(operator(S, T, False))
        gaps = np.abs(np.add.outer(np.diag(S), np.diag(T).conj()).ravel())
    np.fill_diagonal(matrix, gaps)
    exact = np.linalg.solve(matrix, np.ones(n * m)).reshape(n, m)
    np.testing.assert_allclose(out.T, exact, rtol=SUMMED)
    # and so it bounds every solution with right-hand side at most 1
    for _ in range(20):
        W = np.exp(1j * rng.uniform(0, 6, n * m))
        Y = np.linalg.solve(operator(S, T, discrete), W).reshape(n, m)
        assert (np.abs(Y) <= out.T * (1 + SUMMED)).all()


def test_majorant_of_a_singular_pair_is_infinite():
    out = np.empty((1, 1))
    one = np.array([2.0 + 0j])
    fill_majorant(one, 1 / one, np.array([[2.0]]), np.array([[0.5]]), True, out)
    assert np.isinf(out).all()
