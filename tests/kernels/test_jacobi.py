"""One-sided Jacobi and the vectors taken from it: real, complex, graded, clustered, of any size."""

import mpmath as mp
import numpy as np
import pytest

from ssmred.kernels.jacobi import (
    fill_decompositions,
    fill_singular_values,
    fill_vectors,
    orthogonalise,
)

SIZES = [1, 2, 3, 4, 5, 15, 16, 17, 33, 64]
KINDS = ["plain", "graded", "clustered", "parallel"]


def matrix(kind: str, n: int, complex_: bool) -> np.ndarray:
    """Return rows that are hard for a rotation in one way or another."""
    rng = np.random.default_rng(n)
    M = rng.standard_normal((n, n)) + (1j * rng.standard_normal((n, n)) if complex_ else 0)
    if kind == "graded":
        return 10.0 ** -np.linspace(0, 60, n)[:, None] * M
    if kind == "clustered":  # all values the same but for rounding
        return np.linalg.qr(M)[0] * (1 + 1e-9 * rng.standard_normal((n, 1)))
    if kind == "parallel":
        return np.ones((n, n)) + 1e-3 * M
    return M


@pytest.mark.theorem("hankel-values")
@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", SIZES)
def test_rows_end_orthogonal(kind, n, complex_):
    rows = matrix(kind, n, complex_)
    W = np.zeros((n + n % 2, (n + 7) // 8 * 8), rows.dtype)
    W[:n, :n] = rows
    assert orthogonalise(W)
    precise = W.astype(np.clongdouble if complex_ else np.longdouble)
    gram = precise.conj() @ precise.T
    lengths = np.sqrt(np.diag(gram).real)[:n]
    cosines = np.abs(gram[:n, :n]) / np.outer(lengths, lengths)
    np.fill_diagonal(cosines, 0)
    # the page's 2.1 sqrt(m) 2^-52, the last rotation of a pair being right to 4 units
    assert cosines.max() <= 2.1 * np.sqrt(W.shape[1]) * 2.0**-52 + 4 * 2.0**-52
    assert not W[n:].any()


@pytest.mark.theorem("hankel-values")
@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (5, 9), (9, 5), (20, 20)])
def test_small_values_of_graded_matrices_are_relatively_accurate(shape, complex_):
    rng = np.random.default_rng(sum(shape))
    m, n = shape
    M = rng.standard_normal(shape) + (1j * rng.standard_normal(shape) if complex_ else 0)
    G = 10.0 ** -np.linspace(0, 30, m)[:, None] * M * 10.0 ** -np.linspace(0, 30, n)
    found = np.empty((1, min(shape)))
    fill_singular_values(np.ascontiguousarray(G)[None], found)
    with mp.workdps(120):
        exact = mp.svd(mp.matrix(G.tolist()), compute_uv=False)
        errors = [
            abs(mp.mpf(float(x)) / mp.mpf(y) - 1) for x, y in zip(found[0], exact, strict=True)
        ]
    assert max(errors) < 1e-12


@pytest.mark.theorem("hankel-values")
@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize(("shape", "count"), [((6, 6), 6), ((9, 5), 3), ((5, 9), 5), ((30, 30), 7)])
def test_vectors_take_the_matrix_apart(shape, count, complex_):
    rng = np.random.default_rng(sum(shape))
    m, n = shape
    r = min(shape)
    G = rng.standard_normal((2, m, n)) + (1j * rng.standard_normal((2, m, n)) if complex_ else 0)
    parts = (
        np.empty((2, n, m), G.dtype),
        np.empty((2, r)),
        np.empty((2, m), np.int64),
        np.empty((2, n), np.int64),
        np.empty((2, r, n), G.dtype),
        np.empty((2, r), np.int64),
    )
    values, ranks, dropped = np.empty((2, r)), np.empty(2, np.int64), np.empty(2)
    fill_decompositions(G, 1e-40, *parts, values, ranks, dropped)
    U, V = np.empty((2, m, count), G.dtype), np.empty((2, n, count), G.dtype)
    fill_vectors(np.arange(2), *parts, ranks, U, V)
    np.testing.assert_allclose(values, np.linalg.svd(G, compute_uv=False), rtol=1e-12)
    for found, other, product in ((U, V, G), (V, U, np.swapaxes(G, -1, -2).conj())):
        gram = np.swapaxes(found, -1, -2).conj() @ found
        np.testing.assert_allclose(gram, np.broadcast_to(np.eye(count), gram.shape), atol=1e-12)
        np.testing.assert_allclose(product @ other, found * values[:, None, :count], atol=1e-11)
