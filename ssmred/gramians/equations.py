"""Stein, Lyapunov and Sylvester equations with dense coefficients.

Theory: ``theory/schur-equations.md``, ``theory/residual-bound.md``.
"""

from __future__ import annotations

import numpy as np

from ssmred.checks import check_array, check_choice, check_shape
from ssmred.errors import AccuracyError, ShapeError, message
from ssmred.gramians.dense import dense_factor
from ssmred.gramians.error_bounds import general_bounds, gramian_bound, symmetric_bounds
from ssmred.gramians.residuals import (
    Terms,
    frobenius_norms,
    general_terms,
    residual_sizes,
    symmetric_terms,
)
from ssmred.gramians.solution import Solution
from ssmred.gramians.solvers import BACKENDS, SINGULAR, solved_equation
from ssmred.systems.linear import adjoint

__all__ = [
    "discrete_sylvester",
    "lyapunov",
    "lyapunov_factor",
    "stein",
    "stein_factor",
    "sylvester",
    "symmetric_solution",
]


def stein(
    A: np.ndarray, W: np.ndarray, *, E: np.ndarray | None = None, backend: str = "ssmred"
) -> Solution:
    """Return the solution of ``X - A X A^* = W``, or ``E X E^* - A X A^* = W``.

    Parameters
    ----------
    A : (..., n, n) float64 or complex128
        Any matrix with no two eigenvalues ``l_i conj(l_j) = 1``; stability is not needed.
    W : (..., n, n) float64 or complex128
    E : (..., n, n) float64 or complex128, optional
        Non-singular.
    backend : {"ssmred", "scipy", "slycot"}
        The latter two solve one system after the other; slycot takes real A and symmetric W.

    Returns
    -------
    Solution

    Raises
    ------
    AccuracyError
        If the equation is singular within rounding, or E is.
    MissingDependencyError
        If slycot is asked for and not installed.

    Notes
    -----
    Level FLOAT. Squaring of A where it converges quickly, else Schur form (real for real data),
    O(n^3). Up to order 128 a batch is shared out over the threads. States in very different units
    are scaled first, by powers of two.

    Examples
    --------
    >>> solution = stein([[0.5]], [[3.0]])
    >>> solution.X.tolist()
    [[4.0]]
    >>> bool(solution.error_bound < 1e-14)
    True
    """
    return symmetric_solution(A, W, E, backend, "stein", discrete=True)


def lyapunov(
    A: np.ndarray, W: np.ndarray, *, E: np.ndarray | None = None, backend: str = "ssmred"
) -> Solution:
    """Return the solution of ``A X + X A^* + W = 0``, or ``A X E^* + E X A^* + W = 0``.

    Parameters
    ----------
    A : (..., n, n) float64 or complex128
        Any matrix with no two eigenvalues ``l_i + conj(l_j) = 0``; stability is not needed.
    W, E, backend
        As in :func:`stein`.

    Returns
    -------
    Solution

    Raises
    ------
    AccuracyError
        If the equation is singular within rounding, or E is.
    MissingDependencyError
        If slycot is asked for and not installed.

    Notes
    -----
    Level FLOAT. Schur form, real for real data, O(n^3); above order 128 squaring of the bilinear
    image of A where it converges quickly.

    Examples
    --------
    >>> lyapunov([[-0.5]], [[3.0]]).X.tolist()
    [[3.0]]
    """
    return symmetric_solution(A, W, E, backend, "lyapunov", discrete=False)


def sylvester(A: np.ndarray, B: np.ndarray, W: np.ndarray, *, backend: str = "ssmred") -> Solution:
    """Return the solution of ``A X + X B = W``.

    Parameters
    ----------
    A : (..., n, n) float64 or complex128
    B : (..., m, m) float64 or complex128
        No eigenvalue of A may be minus one of B.
    W : (..., n, m) float64 or complex128
    backend : {"ssmred", "scipy", "slycot"}

    Returns
    -------
    Solution

    Raises
    ------
    AccuracyError
        If the equation is singular within rounding.
    MissingDependencyError
        If slycot is asked for and not installed.

    Notes
    -----
    Level FLOAT. Schur forms, O(n^3 + m^3 + n m (n + m)).

    Examples
    --------
    >>> sylvester([[1.0]], [[2.0]], [[6.0]]).X.tolist()
    [[2.0]]
    """
    return _general(A, B, W, backend, "sylvester", discrete=False)


def discrete_sylvester(
    A: np.ndarray, B: np.ndarray, W: np.ndarray, *, backend: str = "ssmred"
) -> Solution:
    """Return the solution of ``X - A X B = W``; see :func:`sylvester`.

    No eigenvalue of A may be the inverse of one of B. ``backend="scipy"`` solves the linear system
    of order ``n m``, as SciPy has no solver for this equation.

    Examples
    --------
    >>> discrete_sylvester([[0.5]], [[1.0]], [[3.0]]).X.tolist()
    [[6.0]]
    """
    return _general(A, B, W, backend, "discrete_sylvester", discrete=True)


def stein_factor(A: np.ndarray, B: np.ndarray, *, E: np.ndarray | None = None) -> np.ndarray:
    """Return L with ``X = L L^*``, ``E X E^* - A X A^* = B B^*``, never forming X.

    Parameters
    ----------
    A : (..., n, n) float64 or complex128
        Stable: all eigenvalues (of ``E^-1 A``) inside the unit circle.
    B : (..., n, m) float64 or complex128
    E : (..., n, n) float64 or complex128, optional

    Returns
    -------
    (..., n, n) float64 or complex128

    Raises
    ------
    UnstableSystemError
        If X is not positive semidefinite, because an eigenvalue is not stable.
    AccuracyError
        If E is singular within rounding.

    Examples
    --------
    >>> stein_factor([[0.6]], [[4.0]]).tolist()
    [[5.0]]
    """
    return _equation_factor(A, B, E, "stein_factor", continuous=False)


def lyapunov_factor(A: np.ndarray, B: np.ndarray, *, E: np.ndarray | None = None) -> np.ndarray:
    """Return L with ``X = L L^*``, ``A X E^* + E X A^* + B B^* = 0``; see :func:`stein_factor`.

    Examples
    --------
    >>> lyapunov_factor([[-0.5]], [[2.0]]).tolist()
    [[2.0]]
    """
    return _equation_factor(A, B, E, "lyapunov_factor", continuous=True)


def symmetric_solution(A, W, E, backend: str, where: str, *, discrete: bool) -> Solution:
    """Return :func:`stein` or :func:`lyapunov`; errors name the function ``where``."""
    check_choice(backend, BACKENDS, "backend", where)
    A, W = check_array(A, "A", where), check_array(W, "W", where)
    matrices = [A, W] if E is None else [A, W, check_array(E, "E", where)]
    n = _order(A, "A", where)
    for matrix, name in zip(matrices[1:], "WE", strict=False):
        check_shape(matrix, (n, n), name, where)
    A, W, *rest = _aligned(matrices, where)
    E = rest[0] if rest else None
    terms = symmetric_terms(A, E, discrete)
    standard = A if E is None else _divided(E, A, where)

    def solved(right: np.ndarray, solver: str) -> np.ndarray:
        weight = right
        if E is not None:
            weight = adjoint(_divided(E, adjoint(_divided(E, right, where)), where))
        hermitian = (right == adjoint(right)).all(axis=(-1, -2))[..., None, None]
        if E is not None:
            weight = np.where(hermitian, (weight + adjoint(weight)) / 2, weight)
        signed = weight if discrete else -weight
        options = {"same": True, "discrete": discrete, "balanced": E is None}
        X = solved_equation(standard, standard, signed, solver, where, **options)
        return np.where(hermitian, (X + adjoint(X)) / 2, X)

    X = solved(W, backend)
    batch = X.shape[:-2]

    def bound() -> np.ndarray:
        if n == 0:
            return np.zeros(batch)
        if E is None:
            return symmetric_bounds(A, X, W, discrete)
        size_E, size_A = frobenius_norms(E), frobenius_norms(A)
        with np.errstate(divide="ignore"):
            shift = 0.5 / size_E**2 if discrete else 0.25 / (size_A * size_E)
        try:
            G = solved(np.broadcast_to(np.eye(n, dtype=A.dtype), A.shape), "ssmred")
        except AccuracyError:
            return np.full(batch, np.inf)
        computed, rounding, _ = residual_sizes(terms, X, W)
        return gramian_bound(terms, computed + rounding, G, shift, np.ones((*batch, n)))

    return Solution(X, backend, lambda: _relative_residual(terms, X, W), bound)


def _general(A, B, W, backend: str, where: str, *, discrete: bool) -> Solution:
    check_choice(backend, BACKENDS, "backend", where)
    A, B, W = (check_array(M, name, where) for M, name in ((A, "A"), (B, "B"), (W, "W")))
    n, m = _order(A, "A", where), _order(B, "B", where)
    check_shape(W, (n, m), "W", where)
    A, B, W = _aligned([A, B, W], where)
    B_adjoint = np.ascontiguousarray(adjoint(B))
    X = solved_equation(A, B_adjoint, W, backend, where, same=False, discrete=discrete)
    terms = general_terms(A, B, discrete)

    def bound() -> np.ndarray:
        if n == 0 or m == 0:
            return np.zeros(X.shape[:-2])
        return general_bounds(A, B, X, W, discrete)

    return Solution(X, backend, lambda: _relative_residual(terms, X, W), bound)


def _equation_factor(A, B, E, where: str, *, continuous: bool) -> np.ndarray:
    A, B = check_array(A, "A", where), check_array(B, "B", where)
    n = _order(A, "A", where)
    check_shape(B, (n, None), "B", where)
    matrices = [A, B]
    if E is not None:
        matrices.append(check_array(E, "E", where))
        check_shape(matrices[2], (n, n), "E", where)
    A, B, *rest = _aligned(matrices, where)
    if rest:
        A, B = _divided(rest[0], A, where), _divided(rest[0], B, where)
    cure = f"Use {where.removesuffix('_factor')} for the solution itself."
    return dense_factor(A, B, horizon=None, continuous=continuous, where=where, cure=cure)


def _divided(E: np.ndarray, M: np.ndarray, where: str) -> np.ndarray:
    """Return ``E^-1 M`` or raise AccuracyError; rows of E may be of any size."""
    size = np.abs(E).max(axis=-1, initial=0.0)
    if E.size and (size > 0).all():
        rows = np.ldexp(1.0, -np.frexp(size)[1])[..., None]  # powers of two: exact
        E, M = rows * E, rows * M
        if (np.linalg.cond(E, 1) < 1 / SINGULAR).all():
            return np.linalg.solve(E, M)
    elif not E.size:
        return M
    raise AccuracyError(
        message(
            where,
            "E is singular within rounding",
            cure="Eliminate the algebraic equations (the null space of E) first.",
        )
    )


def _order(A: np.ndarray, name: str, where: str) -> int:
    if A.ndim < 2 or A.shape[-1] != A.shape[-2]:
        raise ShapeError(
            message(where, f"{name} is not square", expected="(..., n, n)", got=f"{A.shape}")
        )
    return A.shape[-1]


def _aligned(matrices: list[np.ndarray], where: str) -> list[np.ndarray]:
    """Return the matrices with one batch shape and one dtype."""
    try:
        batch = np.broadcast_shapes(*(M.shape[:-2] for M in matrices))
    except ValueError as error:
        raise ShapeError(
            message(
                where,
                "the batch shapes do not fit together",
                expected="leading axes that broadcast",
                got=", ".join(str(M.shape[:-2]) for M in matrices),
            )
        ) from error
    dtype = np.result_type(*matrices)
    return [np.broadcast_to(M.astype(dtype, copy=False), (*batch, *M.shape[-2:])) for M in matrices]


def _relative_residual(terms: Terms, X: np.ndarray, W: np.ndarray) -> np.ndarray:
    computed, _, scale = residual_sizes(terms, X, W)
    return np.divide(computed, scale, out=np.zeros_like(computed), where=scale > 0)
