"""Systems that the benchmarks solve, and their answers to 60 digits."""

from __future__ import annotations

from functools import cache
from typing import Any

import mpmath as mp
import numpy as np
from subset_numpy import s4d_layer

from ssmred.systems import DenseSystem, DiagonalSystem, QuadraticOutputSystem

DIGITS = 200  # working precision: 60 digits are left after Gramians of condition 1e140


def layer(channels: int, states: int, seed: int = 0) -> DiagonalSystem:
    """Return S4D-Lin channels: half spectra, discrete, standard recurrence."""
    return s4d_layer(channels, states // 2, seed).replace(recurrence="standard")


def modal(system: DiagonalSystem, sample: int) -> DenseSystem:
    """Return the first channels as real matrices of 2 x 2 blocks."""
    names = ("poles", "B", "C", "D")
    first = system.replace(**{name: getattr(system, name)[:sample] for name in names})
    return first.realified()


def turned(system: DenseSystem, seed: int = 1) -> DenseSystem:
    """Return the same systems in random orthogonal coordinates, one for each."""
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.standard_normal(system.A.shape))[0]
    Qt = np.swapaxes(Q, -1, -2)
    return system.replace(A=Q @ system.A @ Qt, B=Q @ system.B, C=system.C @ Qt)


def dense(order: int, seed: int = 0, *, continuous: bool = False) -> tuple[np.ndarray, ...]:
    """Return A, B, C of a random real stable system with one input and one output."""
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((order, order)) / np.sqrt(order)  # circular law: |eigenvalue| < 1.1
    A = A - 1.5 * np.eye(order) if continuous else 0.8 * A
    return A, rng.standard_normal((order, 1)), rng.standard_normal((1, order))


def hard_cases() -> dict[str, DiagonalSystem]:
    """Return ill-conditioned diagonal systems, one input and one output."""
    ones = np.ones(20)
    close = 0.9 + 1e-6 * np.arange(6)
    edge = np.array([1 - 1e-12, 1 - 1e-9, 0.5, -0.3])
    channel = layer(1, 34)
    half = slice(1, None)  # without the real pole, which a full spectrum would hold twice
    return {
        "diag(-1..-20), continuous": DiagonalSystem(-np.arange(1.0, 21.0), ones, ones, dt=0),
        "six poles 1e-6 apart": DiagonalSystem(close, np.ones(6), np.ones(6)),
        "poles up to 1 - 1e-12": DiagonalSystem(edge, np.ones(4), np.ones(4)),
        "S4D-Lin channel, 32 states": channel.replace(
            poles=channel.poles[0, half],
            B=channel.B[0, half],
            C=channel.C[0][:, half],
            D=channel.D[0],
        ).full_spectrum(),
    }


def _exact(values: np.ndarray) -> list[Any]:
    return [mp.mpc(v.real, v.imag) for v in values]


def quadratic(order: int, channels: int) -> QuadraticOutputSystem:
    """Return complex poles at random, as many quadratic outputs of rank 2 as inputs."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)

    poles = rng.uniform(0.5, 0.99, order) * np.exp(1j * rng.uniform(-np.pi, np.pi, order))
    factors = normal(channels, order, 2), normal(channels, order, 2)
    return QuadraticOutputSystem(poles, normal(order, channels), normal(channels, order), factors)


@cache
def reference(name: str) -> tuple[Any, np.ndarray, list[Any]]:
    """Return the Gramian P, the h2 errors of single removals, and the Hankel values of a case.

    In the errors a conjugate pair goes as one. The Hankel values are the roots of the eigenvalues
    of ``L^* Q L``, L the Cholesky factor of P.
    """
    system = hard_cases()[name]
    mp.mp.dps = DIGITS
    n, poles = system.order, _exact(system.poles)
    b, c = _exact(system.B[:, 0]), _exact(system.C[0])
    P, Q = mp.matrix(n, n), mp.matrix(n, n)
    for i in range(n):
        for j in range(n):
            far = poles[i] * mp.conj(poles[j])
            gap = 1 - far if system.is_discrete else -(poles[i] + mp.conj(poles[j]))
            P[i, j] = b[i] * mp.conj(b[j]) / gap
            Q[i, j] = mp.conj(c[i]) * c[j] / mp.conj(gap)
    inverse = P**-1
    errors = []
    for i in range(n):
        group = [j for j in range(n) if poles[j] in (poles[i], mp.conj(poles[i]))]
        block, own = mp.matrix(len(group)), mp.matrix(len(group), 1)
        for k, row in enumerate(group):
            own[k] = mp.conj(c[row])
            for m, column in enumerate(group):
                block[k, m] = inverse[row, column]
        errors.append(mp.sqrt(mp.re((own.H * mp.lu_solve(block, own))[0])))
    L = mp.cholesky(P)
    H = L.H * Q * L
    values = mp.eigh((H + H.H) / 2, eigvals_only=True)
    return P, np.array(errors), sorted((mp.sqrt(v) for v in values), reverse=True)


def relative_errors(values: np.ndarray, exact: object) -> np.ndarray:
    """Return ``|value - exact| / |exact|`` entry by entry; inf for nan."""
    flat = [mp.mpc(v.real, v.imag) for v in np.asarray(values, dtype=complex).ravel()]
    pairs = zip(flat, list(exact), strict=True)  # type: ignore[call-overload]
    errors = np.array([float(abs(v - e) / abs(e)) if e != 0 else float(abs(v)) for v, e in pairs])
    return np.where(np.isfinite(errors), errors, np.inf)
