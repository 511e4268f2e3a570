"""Random systems, responses and Gramians for the tests of theory pages, without the project's code.

Gramians come from SciPy and responses from linear solves.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import linalg

from ssmred.systems import DenseSystem, DiagonalSystem

ROUNDING = 1e-12  # of responses and bases of a few states, relative to their size
GRAMIANS = 1e-9  # of Hankel values from Gramians that were formed and multiplied, relative
POINTS = 201
TIMES = pytest.mark.parametrize("discrete", [True, False], ids=["discrete", "continuous"])


def normal(rng, *shape):
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def adjoint(M):
    return M.conj().T


def random_system(seed, *, discrete, n=5, m=2, p=3, **options):
    """Return a dense complex system that is close to the boundary and far from normal."""
    rng = np.random.default_rng(seed)
    A = normal(rng, n, n) + 2 * np.triu(normal(rng, n, n), 1)
    poles = linalg.eigvals(A)
    A = 0.95 * A / abs(poles).max() if discrete else A - (poles.real.max() + 0.1) * np.eye(n)
    D = normal(rng, p, m)
    dt = 1.0 if discrete else 0.0
    return DenseSystem(A, normal(rng, n, m), normal(rng, p, n), D, dt, **options)


def boundary(discrete):
    """Return points of the unit circle, or of the imaginary axis, more of them near zero."""
    angles = np.linspace(-np.pi, np.pi, POINTS)[:-1] + 1e-3
    return np.exp(1j * angles) if discrete else 1j * np.tan(angles / 2)


def response(A, B, C, D, z):
    """Return ``D + C (z - A)^{-1} B`` at many points."""
    resolvents = z[:, None, None] * np.eye(len(A)) - A
    return D + C @ np.linalg.solve(resolvents, np.broadcast_to(B, (z.size, *B.shape)))


def response_of(system, z):
    if isinstance(system, DiagonalSystem):
        system = system.to_dense()
    if system.is_post_update:
        system = system.with_recurrence("standard")
    return response(system.A, system.B, system.C, system.D, z)


def sampled_error(full, reduced):
    z = boundary(full.is_discrete)
    gaps = response_of(full, z) - response_of(reduced, z)
    return np.linalg.norm(gaps, 2, axis=(-2, -1)).max()


def gramians(A, B, C, discrete):
    if discrete:
        P = linalg.solve_discrete_lyapunov(A, B @ adjoint(B))
        return P, linalg.solve_discrete_lyapunov(adjoint(A), adjoint(C) @ C)
    P = linalg.solve_continuous_lyapunov(A, -B @ adjoint(B))
    return P, linalg.solve_continuous_lyapunov(adjoint(A), -adjoint(C) @ C)


def hankel_values(P, Q):
    """Return the roots of the eigenvalues of ``P Q``, descending."""
    return np.sqrt(np.sort(np.maximum(linalg.eigvals(P @ Q).real, 0))[::-1])


def balanced_with(values, seed, *, discrete):
    """Return A, B, C whose Gramians are both ``diag(values)``, repeated values included."""
    rng = np.random.default_rng(seed)
    n, S = len(values), np.diag(values)
    A = normal(rng, n, n)
    if discrete:
        # both S - A S A^* and S - A^* S A have to be positive
        root = np.sqrt(values)
        sizes = [linalg.norm(A * root / root[:, None], 2), linalg.norm(A * root[:, None] / root, 2)]
        A = 0.99 * A / max(sizes)
        reach, see = S - A @ S @ adjoint(A), S - adjoint(A) @ S @ A
    else:
        # S > 0, so a large shift makes both A S + S A^* and A^* S + S A negative
        shift = linalg.eigvalsh(A @ S + S @ adjoint(A), 2 * S)[-1]
        shift = max(shift, linalg.eigvalsh(S @ A + adjoint(A) @ S, 2 * S)[-1])
        A = A - 1.01 * shift * np.eye(n)
        reach, see = -(A @ S + S @ adjoint(A)), -(adjoint(A) @ S + S @ A)
    return A, linalg.cholesky(reach, lower=True), adjoint(linalg.cholesky(see, lower=True))


def gap_of_blocks(A, B, C, r, discrete):
    """Return the largest sampled ``C (z - A)^{-1} B - C_1 (z - A_11)^{-1} B_1``."""
    z = boundary(discrete)
    gaps = response(A, B, C, 0, z) - response(A[:r, :r], B[:r], C[:, :r], 0, z)
    return np.linalg.norm(gaps, 2, axis=(-2, -1)).max()
