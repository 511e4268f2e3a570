"""Matrix equations against solutions known exactly, Arb at 300 bits, SciPy and slycot."""

from __future__ import annotations

import warnings
from fractions import Fraction

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
from scipy.linalg import solve_sylvester

from ssmred.errors import AccuracyError
from ssmred.gramians import (
    discrete_sylvester,
    lyapunov,
    lyapunov_factor,
    stein,
    stein_factor,
    sylvester,
)
from ssmred.gramians.residuals import general_terms, residual_sizes
from ssmred.gramians.triangular import bilinear_pair, doubled_solution, schur_solution
from ssmred.kernels.blas import blas_threads

BALANCED = 1e-12  # relative error of 5 states in balanced units, condition up to 1e3
FORMULA = 1e-15  # a few roundings of numbers of order one


@pytest.mark.theorem("schur-equations")
@pytest.mark.theorem("residual-bound")
@pytest.mark.parametrize("kind", ["real", "complex"])
@pytest.mark.parametrize("n", [1, 2, 7, 64, 150])
@pytest.mark.parametrize("largest", [16, 400])  # stable with a small norm, and unstable
def test_solutions_that_are_known_exactly(n, kind, largest):
    rng = np.random.default_rng(n)
    A = dyadic(rng, (n, n), 10, largest, kind) + np.eye(n) / 64
    X = dyadic(rng, (n, n), 0, 8, kind)
    X = X + adjoint(X)
    for equation, W in (
        (stein, X - A @ X @ adjoint(A)),  # exact: below 2^53 units
        (lyapunov, -(A @ X + X @ adjoint(A))),
    ):
        solution = equation(A, W)
        assert solution.residual <= BACKWARD_STABLE
        assert np.array_equal(solution.X, adjoint(solution.X))
        assert spectral_error(solution.X, X) <= solution.error_bound * np.linalg.norm(solution.X)


@pytest.mark.theorem("schur-equations")
@pytest.mark.theorem("residual-bound")
@pytest.mark.parametrize("kind", ["real", "complex"])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 5), (6, 3), (40, 64), (140, 30)])
def test_sylvester_solutions_that_are_known_exactly(n, m, kind):
    rng = np.random.default_rng(n + m)
    A = dyadic(rng, (n, n), 10, 100, kind) + np.eye(n) / 2
    B = dyadic(rng, (m, m), 10, 100, kind) + np.eye(m) / 2
    X = dyadic(rng, (n, m), 0, 8, kind)
    for equation, W in ((discrete_sylvester, X - A @ X @ B), (sylvester, A @ X + X @ B)):
        solution = equation(A, B, W)
        assert solution.residual <= BACKWARD_STABLE
        assert spectral_error(solution.X, X) <= solution.error_bound * np.linalg.norm(solution.X)


def graded(rng, n, kind, discrete):
    """Return a matrix of states in units 1e-6 to 1e6, and the units."""
    A = rng.standard_normal((n, n)) * (1 if kind == "real" else np.exp(0.7j))
    A *= 0.9 / np.abs(np.linalg.eigvals(A)).max()
    units = 2.0 ** rng.integers(-20, 21, n)
    return units[:, None] * (A if discrete else A - np.eye(n)) / units, units


@pytest.mark.theorem("schur-equations")
@pytest.mark.theorem("residual-bound")
@pytest.mark.parametrize("kind", ["real", "complex"])
def test_states_in_different_units_keep_their_digits(kind):
    """Without balancing these have errors of 1e-8, or are called singular."""
    rng = np.random.default_rng(4)
    n, m = 5, 3
    for _ in range(12):
        rows = rng.standard_normal((n, n))
        for equation, discrete in ((stein, True), (lyapunov, False)):
            A, units = graded(rng, n, kind, discrete)
            for W in (rows @ rows.T, units[:, None] * (rows @ rows.T) * units):
                terms = (
                    ((1.0, None, None), (-1.0, A, adjoint(A)))
                    if discrete
                    else ((-1.0, A, None), (-1.0, None, adjoint(A)))
                )
                solution = equation(A, W)
                error = true_error(exact_solution(terms, W), solution.X)
                size = np.linalg.norm(solution.X)
                assert error / np.sqrt(n) <= solution.error_bound * size
                assert error <= BALANCED * size
                assert solution.error_bound <= 1e-10
            factor = (stein_factor if discrete else lyapunov_factor)(A, rows)
            X = equation(A, rows @ rows.T).X
            scale = np.sqrt(np.diag(X).real)
            assert (np.abs(factor @ adjoint(factor) - X) <= BALANCED * scale[:, None] * scale).all()
        (A, _), (B, _) = graded(rng, n, kind, True), graded(rng, m, kind, True)
        W = rng.standard_normal((n, m))
        solution = discrete_sylvester(A, B, W)
        exact = exact_solution(((1.0, None, None), (-1.0, A, B)), W)
        error = true_error(exact, solution.X)
        assert error <= BALANCED * np.linalg.norm(solution.X)
        assert error / np.sqrt(m) <= solution.error_bound * np.linalg.norm(solution.X)


def test_rounding_errors_in_a_are_not_blown_up():
    """``E^-1 (E A)`` has rounding errors below the diagonal, which invite a scaling that would make
    them as large as the rest; the solutions stay backward stable in the given units.
    """
    rng = np.random.default_rng(11)
    for _ in range(40):
        n = 5
        A = np.diag(np.full(n, 0.9)) + np.diag(10.0 ** rng.uniform(1, 4, n - 1), 1)
        E = rng.standard_normal((n, n)) + 2 * np.eye(n)
        noisy = np.linalg.solve(E, E @ A)
        W = rng.standard_normal((n, n))
        W = W + W.T
        for matrix, mass in ((noisy, None), (E @ A, E)):
            assert lyapunov(matrix - (np.eye(n) if mass is None else mass), W, E=mass).residual <= (
                BACKWARD_STABLE
            )


def test_hippo_lyapunov_equation():
    """LegS: ``A + A^T = -(I + b b^T)``, so X = I solves ``A X + X A^T + W = 0`` exactly."""
    n = 64
    root = np.sqrt(2 * np.arange(n) + 1.0)
    A = -np.tril(np.outer(root, root), -1) - np.diag(np.arange(n) + 1.0)
    W = -(A + A.T)  # no rounding: one of the two entries is zero
    solution = lyapunov(A, W)
    error = spectral_error(solution.X, np.eye(n))
    assert error <= solution.error_bound * np.linalg.norm(solution.X) < 1e-9
    assert error <= 1e-12


def test_diagonal_coefficients_keep_their_digits_near_the_circle():
    poles = np.array([1 - 1e-12, -(1 - 1e-12), 0.3])
    gaps = np.array([1e-12 * (2 - 1e-12)] * 2 + [0.91])
    gaps[:2] = (1 - poles[0]) * (1 + poles[0])  # 1 - pole carries no rounding
    X = stein(np.diag(poles), np.eye(3)).X
    np.testing.assert_allclose(np.diag(X), 1 / gaps, rtol=FORMULA)
    turned = poles * np.exp(0.7j)
    X = stein(np.diag(turned), np.eye(3)).X
    gaps = np.array([float(1 - Fraction(l.real) ** 2 - Fraction(l.imag) ** 2) for l in turned])
    np.testing.assert_allclose(np.diag(X), 1 / gaps, rtol=FORMULA)


@pytest.mark.theorem("schur-equations")
def test_squaring_and_schur_form_agree():
    rng = np.random.default_rng(3)
    A = rng.standard_normal((80, 80)) + 1j * rng.standard_normal((80, 80))
    A *= 0.9 / np.abs(np.linalg.eigvals(A)).max()
    W = A @ adjoint(A)
    squared = doubled_solution(A, W, rounds=14, growth=10.0)
    by_schur, pivot = schur_solution(A, A, W, same=True, discrete=True)
    assert pivot > 1e-3
    np.testing.assert_allclose(squared, by_schur, rtol=0, atol=1e-12 * np.abs(by_schur).max())
    assert doubled_solution(A / 0.9, W, rounds=14, growth=10.0) is None
    assert doubled_solution(2 * A, W, rounds=14, growth=10.0) is None


@pytest.mark.theorem("schur-equations")
@pytest.mark.theorem("residual-bound")
@pytest.mark.parametrize("kind", ["real", "complex"])
def test_large_lyapunov_equations_go_through_the_bilinear_map(kind):
    """The solution is known exactly; squaring is used, and loses no digit to the Schur form.

    That one is refined once, so it may be a few times better.
    """
    rng = np.random.default_rng(8)
    n = 150
    A = dyadic(rng, (n, n), 10, 60, kind) - np.eye(n)
    X = dyadic(rng, (n, n), 0, 8, kind)
    X = X + adjoint(X)
    W = -(A @ X + X @ adjoint(A))  # exact: below 2^53 units
    with blas_threads(n):  # as the solver does: the same roundings
        F, V = bilinear_pair(A)
        squared = doubled_solution(F, V @ W @ adjoint(V), rounds=14, growth=10.0)
    by_schur, _ = schur_solution(A, A, -W, same=True, discrete=False)
    assert squared is not None
    assert spectral_error(squared, X) <= 10 * spectral_error(by_schur, X)
    solution = lyapunov(A, W)
    assert solution.residual <= BACKWARD_STABLE
    assert spectral_error(solution.X, X) <= solution.error_bound * np.linalg.norm(X)
    np.testing.assert_array_equal(solution.X, (squared + adjoint(squared)) / 2)


@pytest.mark.theorem("schur-equations")
@pytest.mark.parametrize("kind", ["real", "complex"])
def test_bilinear_pair_keeps_the_equation_and_shrinks_the_spectrum(kind):
    """The identity of the residuals for any X, and the radius for its choice of the shift."""
    rng = np.random.default_rng(10)
    for n in (2, 5, 30):
        A = rng.standard_normal((n, n)) * (1 if kind == "real" else np.exp(0.3j))
        A -= (np.linalg.eigvals(A).real.max() + 0.1) * np.eye(n)
        F, V = bilinear_pair(A)
        gap = np.linalg.inv(V)  # (b I - A) / sqrt(2 b)
        X, W = rng.standard_normal((2, n, n)) + 1j * rng.standard_normal((2, n, n))
        turned = gap @ (X - F @ X @ adjoint(F) - V @ W @ adjoint(V)) @ adjoint(gap)
        plain = A @ X + X @ adjoint(A) + W
        np.testing.assert_allclose(turned, -plain, rtol=0, atol=BALANCED * np.abs(plain).max())
        size = lambda M: np.sqrt(np.linalg.norm(M, 1) * np.linalg.norm(M, np.inf))  # noqa: E731
        ratio = np.sqrt(size(A) * size(np.linalg.inv(A)))
        s, poles = (ratio + 1 / ratio) / 2, np.linalg.eigvals(A)
        cosine = (-poles.real / np.abs(poles)).min()
        radius = np.abs(np.linalg.eigvals(F)).max()
        assert radius <= np.sqrt((s - cosine) / (s + cosine)) * (1 + BALANCED)
    pair = -np.array([[5.0, 4.0], [4.0, 5.0]])  # eigenvalues -1 and -9: attained
    assert np.abs(np.linalg.eigvals(bilinear_pair(pair)[0])).max() == pytest.approx(0.5, rel=1e-14)


@pytest.mark.theorem("schur-equations")
@pytest.mark.parametrize(("n", "m"), [(40, 64), (140, 90)])
def test_refinement_leaves_only_the_rounding_of_the_residual(n, m):
    """SciPy solves the same triangular equations, without the step that follows them here."""
    rng = np.random.default_rng(n)
    A, B, W = (rng.standard_normal(k) for k in ((n, n), (m, m), (n, m)))
    terms = general_terms(A, B, discrete=False)
    plain, _, scale = residual_sizes(terms, solve_sylvester(A, B, W), W)
    assert sylvester(A, B, W).residual <= 0.3 * plain / scale


def test_the_bilinear_map_is_left_where_it_cannot_help():
    """Triangular and singular matrices; lightly damped ones, whose powers fall slowly."""
    rng = np.random.default_rng(9)
    n = 140
    full = rng.standard_normal((n, n))
    assert bilinear_pair(np.tril(full)) is None
    assert bilinear_pair(np.triu(full)) is None
    singular = full * (np.arange(n) > 0)
    assert bilinear_pair(singular) is None
    with pytest.raises(AccuracyError, match="sum 0"):
        lyapunov(singular, np.eye(n))
    Q = np.linalg.qr(full)[0]
    turns = 10.0 ** rng.uniform(-1, 3, n // 2)
    A = np.zeros((n, n))
    for k, turn in enumerate(turns):
        A[2 * k : 2 * k + 2, 2 * k : 2 * k + 2] = turn * np.array([[-1e-3, 1], [-1, -1e-3]])
    A = Q @ A @ Q.T
    B = rng.standard_normal((n, 2))
    solution = lyapunov(A, B @ B.T)
    assert solution.residual <= BACKWARD_STABLE
    factor = lyapunov_factor(A, B)
    size = np.linalg.norm(solution.X)
    assert np.linalg.norm(factor @ factor.T - solution.X) <= 1e-9 * size


@pytest.mark.parametrize("n", [3, 40])
def test_batches_are_solved_one_by_one(n):
    rng = np.random.default_rng(n)
    A = rng.standard_normal((3, 2, n, n)) / n
    A[1, 1] *= (1 - 1e-7) / np.abs(np.linalg.eigvals(A[1, 1])).max()  # too slow for squaring
    A[2, 0] *= 1.5 / np.abs(np.linalg.eigvals(A[2, 0])).max()  # unstable
    W = np.eye(n) * (1 + 0j)
    B, rows = rng.standard_normal((2, 4, 4)), rng.standard_normal((n, 4))
    for got in (stein(A, W), lyapunov(A, W), discrete_sylvester(A, B, rows)):
        assert got.X.shape[:2] == got.residual.shape == got.error_bound.shape == (3, 2)
    assert stein(A, W).X.dtype == np.complex128
    assert stein(A, W.real).X.dtype == np.float64
    together = stein(A, W)
    size = np.abs(together.X).max(axis=(-1, -2))
    for index in np.ndindex(3, 2):
        alone = stein(A[index], W)
        np.testing.assert_allclose(alone.X, together.X[index], rtol=0, atol=1e-12 * size[index])
        np.testing.assert_allclose(alone.error_bound, together.error_bound[index], rtol=0.1)


def test_nothing_to_solve():
    assert stein(np.zeros((0, 0)), np.zeros((0, 0))).X.shape == (0, 0)
    assert stein(np.zeros((0, 0)), np.zeros((0, 0))).error_bound == 0
    assert lyapunov(np.zeros((0, 3, 3)), np.zeros((3, 3))).error_bound.shape == (0,)
    assert sylvester(np.zeros((0, 0)), np.eye(2), np.zeros((0, 2))).X.shape == (0, 2)
    zero = stein(np.diag([0.5, 0.1]), np.zeros((2, 2)))
    assert not zero.X.any()
    assert zero.residual == zero.error_bound == 0


def test_any_array_that_holds_numbers_is_accepted():
    """Lists, integers, float32, Fortran order, read-only views; nothing is changed in place."""
    rng = np.random.default_rng(2)
    A = (rng.integers(-3, 4, (2, 4, 4)) / 8).astype(np.float32)
    W = np.eye(4, dtype=int)
    plain = stein(A.astype(float), W.astype(float))
    fortran = np.asfortranarray(A)
    fortran.setflags(write=False)
    kept = fortran.copy()
    for matrix, right in ((A, W), (fortran, W), (A.tolist(), W.tolist()), (A[:, ::1], W > 0)):
        solution = stein(matrix, right)
        assert solution.X.dtype == np.float64
        np.testing.assert_array_equal(solution.X, plain.X)
    np.testing.assert_array_equal(fortran, kept)
    flipped = np.swapaxes(A, -1, -2)  # neither order
    np.testing.assert_allclose(lyapunov(flipped - 2 * W, W).X[0],
                               lyapunov(flipped[0].copy() - 2 * W, W).X, rtol=1e-14)  # fmt: skip


def test_hermitian_right_hand_sides_have_hermitian_solutions_in_mixed_batches():
    rng = np.random.default_rng(3)
    A = 0.3 * rng.standard_normal((3, 3)) * np.exp(0.5j)
    W = rng.standard_normal((2, 3, 3)) + 1j * rng.standard_normal((2, 3, 3))
    W[0] += adjoint(W[0])
    for E in (None, np.diag([1.0, 2.0, 3.0])):
        X = stein(A, W, E=E).X
        np.testing.assert_array_equal(X[0], adjoint(X[0]))
        assert not np.array_equal(X[1], adjoint(X[1]))


def test_rows_of_e_may_have_any_size():
    """E = diag(1, 1e-20) is as regular as the identity: the second equation is in other units."""
    E, A, W = np.diag([1.0, 1e-20]), np.diag([0.5, 0.25e-20]), np.diag([3.0, 1e-40])
    np.testing.assert_allclose(stein(A, W, E=E).X, np.diag([4.0, 16 / 15]), rtol=1e-15)
    assert stein(np.zeros((0, 0)), np.zeros((0, 0)), E=np.zeros((0, 0))).X.shape == (0, 0)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "kind"), [(2000, "real"), (800, "complex")])
def test_up_to_two_thousand_states(n, kind):
    rng = np.random.default_rng(1)
    A = rng.standard_normal((n, n)) * (0.9 / np.sqrt(n)) * (1 if kind == "real" else np.exp(0.4j))
    B = rng.standard_normal((n, 2))
    W = B @ B.T
    for equation, factor, matrix in (
        (stein, stein_factor, A),
        (lyapunov, lyapunov_factor, A - 1.5 * np.eye(n)),
    ):
        X = equation(matrix, W)
        assert X.residual <= BACKWARD_STABLE
        L = factor(matrix, B)
        difference = np.linalg.norm(L @ adjoint(L) - X.X)
        assert difference <= 1e-11 * np.linalg.norm(X.X)


@pytest.mark.parametrize("backend", ["scipy", "slycot"])
def test_back_ends_agree(backend):
    rng = np.random.default_rng(8)
    A, B = rng.standard_normal((2, 6, 6)) / 4, rng.standard_normal((3, 3)) / 4
    W, S = rng.standard_normal((6, 3)), np.diag(np.arange(6.0))
    E = np.eye(6) + rng.standard_normal((6, 6)) / 10
    for equation, arguments, options in (
        (stein, (A, S), {}),
        (lyapunov, (A, S), {}),
        (stein, (A, S), {"E": E}),
        (sylvester, (A, B, W), {}),
        (discrete_sylvester, (A, B, W), {}),
    ):
        own = equation(*arguments, **options)
        peer = equation(*arguments, **options, backend=backend)
        assert peer.backend == backend
        error = np.linalg.norm(own.X - peer.X, ord=2, axis=(-1, -2))
        sizes = np.linalg.norm(own.X, axis=(-1, -2))
        peer_sizes = np.linalg.norm(peer.X, axis=(-1, -2))
        # holds for inf too; the agreement below is what is asked of every equation
        assert (error <= own.error_bound * sizes + peer.error_bound * peer_sizes).all()
        assert (error <= 1e-10 * sizes).all()


@pytest.mark.theorem("residual-bound")
@pytest.mark.parametrize("kind", ["real", "complex"])
def test_generalised_equations(kind):
    rng = np.random.default_rng(5)
    n = 4
    E = rng.standard_normal((n, n)) + 2 * np.eye(n)
    A = 0.5 * E @ (np.diag([0.9, -0.5, 0.3, 0.1]) + np.triu(rng.standard_normal((n, n)), 1))
    if kind == "complex":
        E, A = E * np.exp(0.3j), A * np.exp(1.1j)
    W = np.diag(np.arange(1.0, n + 1))
    for equation, matrix, terms in (
        (stein, A, ((1.0, E, adjoint(E)), (-1.0, A, adjoint(A)))),
        (lyapunov, A - E, ((-1.0, A - E, adjoint(E)), (-1.0, E, adjoint(A - E)))),
    ):
        solution = equation(matrix, W, E=E)
        error = true_error(exact_solution(terms, W), solution.X)
        bound = solution.error_bound * np.linalg.norm(solution.X)
        assert error / np.sqrt(n) <= bound < 1e-8
        factor = (stein_factor if equation is stein else lyapunov_factor)(matrix, np.sqrt(W), E=E)
        np.testing.assert_allclose(factor @ adjoint(factor), solution.X, atol=1e-10)


@pytest.mark.parametrize("n", [1, 20, 160])
@pytest.mark.parametrize("kind", ["real", "complex"])
def test_factors_square_to_the_solution(n, kind):
    rng = np.random.default_rng(n)
    A = rng.standard_normal((n, n)) * (1 if kind == "real" else np.exp(0.4j))
    A *= 0.8 / np.abs(np.linalg.eigvals(A)).max()
    B = rng.standard_normal((n, 2))
    L = stein_factor(A, B)
    assert L.shape == (n, n)
    assert np.iscomplexobj(L) == (kind == "complex")
    X = stein(A, B @ B.T).X
    np.testing.assert_allclose(L @ adjoint(L), X, rtol=0, atol=1e-13 * np.abs(X).max())
    L = lyapunov_factor(A - np.eye(n), B)
    X = lyapunov(A - np.eye(n), B @ B.T).X
    np.testing.assert_allclose(L @ adjoint(L), X, rtol=0, atol=1e-12 * np.abs(X).max())


def test_scipy_does_not_perturb_singular_equations_behind_our_back():
    """SciPy only warns; with warnings off the perturbed solution would come through."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(AccuracyError, match="lyapunov: SciPy finds the equation singular"):
            lyapunov(np.diag([1.0, -1.0]), np.eye(2), backend="scipy")
        order = 12  # beyond 10 SciPy solves Stein equations through a Lyapunov equation
        with pytest.raises(AccuracyError, match="stein: SciPy finds the equation singular"):
            stein(np.diag([2.0, 0.5, *[0.1] * order]), np.eye(order + 2), backend="scipy")


def test_singular_rotations_are_refused():
    """Poles on the circle in a 2 x 2 block, and in a large matrix."""
    turn = np.array([[0.6, 0.8], [-0.8, 0.6]])
    with pytest.raises(AccuracyError, match="product 1"):
        stein(turn, np.eye(2))
    with pytest.raises(AccuracyError, match="sum 0"):
        lyapunov([[0.0, 1.0], [-1.0, 0.0]], np.eye(2))
    with pytest.raises(AccuracyError, match="batch entry 1"):
        stein(np.stack([turn / 2, turn]), np.eye(2))
    with pytest.raises(AccuracyError, match="product 1"):
        stein(np.eye(140), np.eye(140))
