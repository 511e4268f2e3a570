"""Stein equations by squaring (squared Smith method).

Theory: ``theory/schur-equations.md``.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

__all__ = ["fill_doubled_solutions", "is_hopeless"]

NEGLIGIBLE = 2.0**-27  # ||A^t||_F below this: the terms left are below 2^-54 of the sum


@njit(cache=True, nogil=True)
def is_hopeless(size, previous, done, rounds):
    """Tell whether ``||A^(2^k)||`` at this rate will not be negligible after all the rounds.

    size and previous: the norms for ``k = done`` and ``done - 1``. Early rounds tell nothing.
    """
    steps = 2.0 ** (rounds - done) - 2.0
    return done >= 6 and size * (size / previous) ** steps > NEGLIGIBLE


@njit(cache=True, nogil=True)
def _size(M):
    """Return the Frobenius norm."""
    total = 0.0
    for value in M.flat:
        total += value.real * value.real + value.imag * value.imag
    return np.sqrt(total)


@njit(cache=True, parallel=True, nogil=True)
def fill_doubled_solutions(A, W, rounds, growth, tolerance, X, done):
    """Fill X of ``X - A X A^* = W``, one system per channel, where squaring A converges.

    A, W, X (H, n, n) of one dtype. done (H,) bool: False where ``||A^(2^k)||_F`` is above
    ``growth ||I||_F`` for some k, or not negligible after ``rounds`` squarings (or will not be),
    or where the residual exceeds ``tolerance (||W|| + ||X|| + ||A||^2 ||X||)``, Frobenius norms.
    """
    for h in prange(A.shape[0]):
        n = A.shape[1]
        power, square, step = A[h].copy(), np.empty_like(A[h]), np.empty_like(A[h])
        total, adjoint = W[h].copy(), np.empty_like(A[h])
        limit = growth * np.sqrt(n)
        done[h] = False
        previous = np.inf
        for k in range(rounds):
            size = _size(power)
            if not size <= limit or is_hopeless(size, previous, k, rounds):
                break
            previous = size
            adjoint[:] = power.conj().T
            np.dot(power, total, square)
            np.dot(square, adjoint, step)
            total += step
            if size < NEGLIGIBLE:
                done[h] = True
                break
            np.dot(power, power, square)
            power, square = square, power
        X[h] = total
        if done[h]:
            adjoint[:] = A[h].conj().T
            np.dot(A[h], total, square)
            np.dot(square, adjoint, step)
            step += W[h]
            step -= total
            scale = _size(W[h]) + (1.0 + _size(A[h]) ** 2) * _size(total)
            done[h] = _size(step) <= tolerance * scale
