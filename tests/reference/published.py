"""The published cases: reading them, and the few equations that give their answers at 60 digits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mpmath
import numpy as np

from ssmred.systems import DenseSystem

FILE = Path(__file__).with_name("cases.json")
CASES: dict[str, dict[str, Any]] = {
    case["id"]: case for case in json.loads(FILE.read_text(encoding="utf-8"))["cases"]
}
DIGITS = 60


def numbers(value: Any) -> np.ndarray:
    """Return a number, a nested list, or ``{re, im}`` of these, as an array."""
    if isinstance(value, dict):
        return np.asarray(value["re"], float) + 1j * np.asarray(value["im"], float)
    return np.asarray(value, float)


def parts(case: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return input, expected and tolerance of a case."""
    return case["input"], case["expected"], case["tolerance"]


def system_of(case_id: str, **changes: Any) -> DenseSystem:
    """Return the system of a case; continuous unless the case has a dt or says otherwise."""
    data = CASES[case_id]["input"] | changes
    arrays = [numbers(data[name]) for name in "ABC"]
    D = None if data.get("D") in (None, "zeros") else numbers(data["D"])
    return DenseSystem(*arrays, D, data.get("time_step", 0))


def value_at(system: DenseSystem, s: complex) -> np.ndarray:
    """Return ``C (s I - A)^{-1} B + D``."""
    gap = s * np.eye(system.order) - system.A
    return system.C @ np.linalg.solve(gap, system.B) + system.D


def assert_same_system(one: DenseSystem, two: DenseSystem, atol: float, points: list) -> None:
    """Check poles and transfer matrices, which do not depend on the choice of states."""
    assert one.order == two.order
    poles = [np.sort_complex(np.round(x.poles, 12)) for x in (one, two)]
    gaps = np.abs(poles[0][:, None] - poles[1][None, :])
    assert max(gaps.min(axis=0).max(), gaps.min(axis=1).max()) <= atol
    for s in points:
        np.testing.assert_allclose(value_at(one, s), value_at(two, s), rtol=0, atol=atol)


# --- 60 digits ------------------------------------------------------------------------------------


def exact(array: np.ndarray) -> mpmath.matrix:
    """Return the same numbers as an mpmath matrix."""
    array = np.asarray(array)
    return mpmath.matrix([[mpmath.mpmathify(x) for x in row] for row in array.tolist()])


def exact_lyapunov(A: mpmath.matrix, W: mpmath.matrix, *, discrete: bool) -> mpmath.matrix:
    """Return X of ``A X + X A^* + W = 0`` or ``X - A X A^* = W`` by one linear system."""
    n = A.rows
    big = mpmath.zeros(n * n)
    for i in range(n):
        for j in range(n):
            for k in range(n):
                if not discrete:
                    big[i * n + j, k * n + j] += A[i, k]
                    big[i * n + j, i * n + k] += mpmath.conj(A[j, k])
                    continue
                for l in range(n):
                    big[i * n + j, k * n + l] -= A[i, k] * mpmath.conj(A[j, l])
            if discrete:
                big[i * n + j, i * n + j] += 1
    sign = 1 if discrete else -1
    right = mpmath.matrix([sign * W[i, j] for i in range(n) for j in range(n)])
    flat = mpmath.lu_solve(big, right)
    return mpmath.matrix([[flat[i * n + j] for j in range(n)] for i in range(n)])


def exact_gramians(system: DenseSystem) -> tuple[mpmath.matrix, mpmath.matrix]:
    """Return both Gramians of a small system at the working precision of mpmath."""
    A, B, C = exact(system.A), exact(system.B), exact(system.C)
    discrete = system.is_discrete
    P = exact_lyapunov(A, B * B.H, discrete=discrete)
    return P, exact_lyapunov(A.H, C.H * C, discrete=discrete)


def exact_hankel_values(system: DenseSystem) -> np.ndarray:
    """Return the Hankel singular values, rounded to float64 only at the end."""
    with mpmath.workdps(2 * DIGITS):
        P, Q = exact_gramians(system)
        product = P * Q
        # mpmath's eig does not take a single number
        squares = mpmath.eig(product, left=False, right=False) if P.rows > 1 else [product[0, 0]]
        values = sorted((mpmath.sqrt(abs(mpmath.re(s))) for s in squares), reverse=True)
        return np.array([float(v) for v in values])


def as_floats(X: mpmath.matrix) -> np.ndarray:
    """Return an mpmath matrix rounded to float64 or complex128."""
    values = np.array(X.tolist(), dtype=complex)
    return values.real if not np.any(values.imag) else values
