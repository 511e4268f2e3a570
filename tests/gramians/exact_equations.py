"""Matrix equations with known solutions, and their solutions at 300 bits."""

from __future__ import annotations

import flint
import numpy as np

BACKWARD_STABLE = 1e-14  # relative residual; about 2 n units in the last place at n = 64


def dyadic(rng, shape, bits, largest, kind):
    """Return multiples of ``2^-bits``: products of three such matrices carry no rounding."""
    numbers = rng.integers(-largest, largest + 1, size=shape) * 2.0**-bits
    if kind == "complex":
        return numbers + 1j * rng.integers(-largest, largest + 1, size=shape) * 2.0**-bits
    return numbers


def adjoint(M):
    return np.swapaxes(M, -1, -2).conj()


def exact_solution(terms, W):
    """Return X of ``sum_t s L X R = W`` from the linear system at 300 bits (dense, n m <= 64)."""
    n, m = W.shape
    old, flint.ctx.prec = flint.ctx.prec, 300
    try:
        operator = flint.acb_mat(n * m, n * m)
        for sign, left, right in terms:
            left = np.eye(n) if left is None else left
            right = np.eye(m) if right is None else right
            for i, j, k, l in np.ndindex(n, m, n, m):
                factor = sign * flint.acb(complex(left[i, k])) * flint.acb(complex(right[l, j]))
                operator[i * m + j, k * m + l] += factor
        column = flint.acb_mat(n * m, 1, [flint.acb(complex(w)) for w in W.ravel()])
        return operator.solve(column)
    finally:
        flint.ctx.prec = old


def true_error(exact, X):
    """Return ``||X - exact||_F``, rounded once at the end."""
    old, flint.ctx.prec = flint.ctx.prec, 300
    try:
        total = flint.arb(0)
        for k, x in enumerate(X.ravel()):
            total += abs(exact[k, 0] - flint.acb(complex(x))) ** 2
        return float(total.sqrt())
    finally:
        flint.ctx.prec = old


def spectral_error(X, exact):
    return np.linalg.norm(X - exact, ord=2)
