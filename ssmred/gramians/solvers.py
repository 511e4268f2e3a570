"""Solutions of batches of linear matrix equations: which method for which order, and scaling.

Theory: ``theory/schur-equations.md``.
"""

from __future__ import annotations

import math
from contextlib import suppress

import numpy as np

from ssmred.errors import AccuracyError, message
from ssmred.gramians.peers import scipy_solution, singular_cure, slycot_solution
from ssmred.gramians.residuals import general_terms, residual_sizes
from ssmred.gramians.triangular import (
    balancing_scales,
    bilinear_pair,
    doubled_solution,
    schur_solution,
)
from ssmred.kernels.blas import with_blas_threads
from ssmred.kernels.doubling import fill_doubled_solutions
from ssmred.kernels.lapack import schur_address
from ssmred.kernels.sylvester import fill_solutions
from ssmred.systems.linear import adjoint

__all__ = ["BACKENDS", "SINGULAR", "solved_equation"]

BACKENDS = ("ssmred", "scipy", "slycot")

BATCHED_ORDER = 128
"""Up to this order one thread solves one system; above, all threads share it."""

SMALL_ORDER = 16
"""Up to this order squaring is no faster than the Schur form."""

ROUNDS = 14
GROWTH = 10.0
"""Squaring is used while ``||A^t||_F <= 10 ||I||_F``, t up to 2^13, else it may lose digits: at
spectral radius 1 - 1e-6 its error is 1e3 times that of the Schur form in unlucky cases."""

SMALL_RESIDUAL = 1e-14
"""A solution by squaring, or of balanced matrices, with a larger relative residual is not used."""

SINGULAR = 2.0**-52
"""A pivot smaller than this, relative to its terms, is rounding error."""


@with_blas_threads
def solved_equation(
    A, B, W, backend: str, where: str, *, same: bool, discrete: bool, balanced: bool = True
) -> np.ndarray:
    """Return X of ``X - A X B^* = W`` or ``A X + X B^* = W``; batches agree, one dtype."""
    batch, (n, m) = W.shape[:-2], W.shape[-2:]
    X = np.empty_like(W)
    if X.size == 0:
        return X
    count = math.prod(batch)
    A, B, W = (
        np.ascontiguousarray(M, dtype=X.dtype).reshape(count, *M.shape[-2:]) for M in (A, B, W)
    )
    flat = X.reshape(count, n, m)
    if backend != "ssmred":
        solution = scipy_solution if backend == "scipy" else slycot_solution
        for h in range(count):
            flat[h] = solution(A[h], B[h], W[h], where, same=same, discrete=discrete)
        return _check_solution(X, where)
    options = {"where": where, "same": same, "discrete": discrete}
    d = balancing_scales(A) if balanced else np.ones((count, n))
    e = d if same else balancing_scales(B)
    uneven = (d != 1).any(axis=-1) | (e != 1).any(axis=-1)
    if not uneven.any():
        _fill_solutions(A, B, W, flat, **options)
        return _check_solution(X, where)
    left = A / d[:, :, None] * d[:, None, :]
    right = left if same else B / e[:, :, None] * e[:, None, :]
    _fill_solutions(left, right, W / d[:, :, None] / e[:, None, :], flat, **options)
    flat *= d[:, :, None] * e[:, None, :]
    doubtful = np.flatnonzero(uneven)
    terms = general_terms(A[doubtful], adjoint(B[doubtful]), discrete)
    computed, _, scale = residual_sizes(terms, flat[doubtful], W[doubtful])
    doubtful = doubtful[~(computed <= SMALL_RESIDUAL * scale)]
    for h in doubtful:  # balancing brought out what is only rounding error in A
        one = slice(h, h + 1)
        again = np.empty_like(flat[one])
        with suppress(AccuracyError):  # singular without balancing: the first answer stands
            _fill_solutions(A[one], B[one], W[one], again, **options)
            flat[one] = again
    return _check_solution(X, where)


def _fill_solutions(A, B, W, X, *, where: str, same: bool, discrete: bool) -> None:
    """Fill X (H, n, m) for coefficients that are used as they are."""
    todo = np.ones(len(A), dtype=bool)
    if same and discrete and SMALL_ORDER < A.shape[-1] <= BATCHED_ORDER:
        done = np.zeros(len(A), dtype=bool)
        fill_doubled_solutions(A, W, ROUNDS, GROWTH, SMALL_RESIDUAL, X, done)
        todo = ~done
    elif same and A.shape[-1] > BATCHED_ORDER:
        todo = ~_fill_doubled(A, W, X, discrete)
    _fill_by_schur(A, B, W, X, np.flatnonzero(todo), where, same=same, discrete=discrete)


def _check_solution(X: np.ndarray, where: str) -> np.ndarray:
    """Return X or raise AccuracyError where it overflowed."""
    if not np.isfinite(X).all():
        raise AccuracyError(
            message(
                where,
                "the solution overflows float64",
                cure="Scale W down; X is proportional to it.",
            )
        )
    return X


def _fill_doubled(A: np.ndarray, W: np.ndarray, X: np.ndarray, discrete: bool) -> np.ndarray:
    """Fill X of large equations by squaring; return where (H,) that gave a small residual."""
    done = np.zeros(A.shape[0], dtype=bool)
    for h in range(A.shape[0]):
        power, weight = A[h], W[h]
        if not discrete:  # A X + X A^* = W
            pair = bilinear_pair(A[h])
            if pair is None:
                continue
            power, weight = pair[0], -pair[1] @ W[h] @ adjoint(pair[1])
        answer = doubled_solution(power, weight, rounds=ROUNDS, growth=GROWTH)
        if answer is not None:
            terms = general_terms(A[h], adjoint(A[h]), discrete)
            computed, _, scale = residual_sizes(terms, answer, W[h])
            X[h], done[h] = answer, computed <= SMALL_RESIDUAL * scale
    return done


def _fill_by_schur(A, B, W, X, chosen, where: str, *, same: bool, discrete: bool) -> None:
    if chosen.size == 0:
        return
    pivots = np.empty(chosen.size)
    if max(A.shape[-1], B.shape[-1]) <= BATCHED_ORDER:
        part = np.empty((chosen.size, *X.shape[1:]), dtype=X.dtype)
        left = A[chosen]
        right = left if same else B[chosen]
        address = schur_address(np.iscomplexobj(X))
        fill_solutions(address, left, right, same, W[chosen], discrete, part, pivots)
        X[chosen] = part
    else:
        for position, h in enumerate(chosen):
            try:
                answer = schur_solution(A[h], B[h], W[h], same=same, discrete=discrete)
            except np.linalg.LinAlgError:
                answer = np.nan, -1.0
            X[h], pivots[position] = answer
    bad = ~(pivots > SINGULAR)
    if not bad.any():
        return
    first = int(np.flatnonzero(bad)[0])
    cure = singular_cure(where, discrete=discrete)
    if pivots[first] < 0:
        problem, cure = "the QR algorithm failed on a coefficient", "Scale the matrices."
    elif discrete:
        problem = "the equation is singular: two eigenvalues have product 1 within rounding"
    else:
        problem = "the equation is singular: two eigenvalues have sum 0 within rounding"
    raise AccuracyError(
        message(
            where,
            problem,
            expected=f"a relative gap above {SINGULAR:.1e}",
            got=f"{pivots[first]:.1e} in batch entry {int(chosen[first])}",
            cure=cure,
        )
    )
