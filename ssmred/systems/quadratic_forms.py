"""Matrices of quadratic outputs, whole or in factors: checks and changes of form.

Theory: ``theory/quadratic-output.md``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ssmred.checks import check_array
from ssmred.errors import ShapeError, message
from ssmred.systems.linear import adjoint

__all__ = [
    "CONVENTIONS",
    "HERMITIAN",
    "TRANSPOSE",
    "block_diagonal",
    "check_forms",
    "conjugate_pairs",
    "real_factors",
]

HERMITIAN, TRANSPOSE = "hermitian", "transpose"
CONVENTIONS = (HERMITIAN, TRANSPOSE)
"""What the quadratic output is: ``x^* M x`` or ``x^T M x``."""

SYMMETRIC = 8 * np.finfo(float).eps
"""Largest ``|M - M^*|``, relative to ``|M|``, that counts as rounding."""


def check_forms(
    M: Any, convention: str, states: tuple[int, ...], where: str
) -> tuple[np.ndarray, ...]:
    """Return the matrices (..., p, n, n), or the factors U and V (..., p, n, r), read-only.

    Parameters
    ----------
    M : array_like, or tuple of one or two of them
    convention : {"hermitian", "transpose"}
    states : (..., n)
        Batch shape and number of states.
    where : str

    Raises
    ------
    ShapeError, DataError
        If shapes do not fit, a matrix is not Hermitian or symmetric, or a value is nan or inf.
    """
    parts = _factors(M, where) if isinstance(M, tuple) else (_symmetric(M, convention, where),)
    for part in parts:
        if (*part.shape[:-3], part.shape[-2]) != states:
            wanted = ", ".join(map(str, (*states[:-1], "p", states[-1], "...")))
            raise ShapeError(
                message(
                    where,
                    "M does not fit the states",
                    expected=f"({wanted})",
                    got=f"{part.shape}",
                )
            )
        part.setflags(write=False)
    return parts


def block_diagonal(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Return the matrices diag(one, two)."""
    (a, b), (c, d) = one.shape[-2:], two.shape[-2:]
    out = np.zeros((*one.shape[:-2], a + c, b + d), np.result_type(one, two))
    out[..., :a, :b], out[..., a:, b:] = one, two
    return out


def conjugate_pairs(part: np.ndarray) -> np.ndarray:
    """Return a matrix for the states ``(x, conj x)``: itself and its conjugate."""
    return block_diagonal(part, part.conj())


def real_factors(U: np.ndarray, V: np.ndarray, convention: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the factors (..., 2 n, 2 r) for the states ``(Re x_1, Im x_1, ...)``."""
    if convention == HERMITIAN:  # Re(conj(a) b) = Re a Re b + Im a Im b
        return _maps(U.conj()), _maps(V.conj())
    return _maps(U), _maps(V, -1.0)  # Re(a b) = Re a Re b - Im a Im b


def _maps(part: np.ndarray, sign: float = 1.0) -> np.ndarray:
    """Return the maps to the real parts of ``part^T x``, then to its imaginary parts, signed."""
    R, S = part.real, part.imag
    shape = (*part.shape[:-2], 2 * part.shape[-2], part.shape[-1])
    real = np.stack([R, -S], axis=-2).reshape(shape)
    imag = sign * np.stack([S, R], axis=-2).reshape(shape)
    return np.concatenate([real, imag], axis=-1)


def _factors(M: tuple[Any, ...], where: str) -> tuple[np.ndarray, np.ndarray]:
    if len(M) not in (1, 2):
        raise ShapeError(
            message(where, "M is a tuple", expected="(U, V) or (U,)", got=f"{len(M)} entries")
        )
    U, V = (_with_outputs(M[i], "UV"[i], where) for i in (0, len(M) - 1))
    if U.shape != V.shape:
        raise ShapeError(
            message(where, "U and V differ in shape", expected=f"{U.shape}", got=f"{V.shape}")
        )
    return U, V


def _symmetric(M: Any, convention: str, where: str) -> np.ndarray:
    """Return the Hermitian or symmetric part of M, which must be all of it."""
    M = _with_outputs(M, "M", where)
    if M.shape[-1] != M.shape[-2]:
        raise ShapeError(
            message(where, "M is not square", expected="(..., p, n, n)", got=f"{M.shape}")
        )
    hermitian = convention == HERMITIAN
    other = adjoint(M) if hermitian else np.swapaxes(M, -1, -2)
    gap = np.abs(M - other).max(initial=0.0)
    if gap > SYMMETRIC * np.abs(M).max(initial=0.0):
        kind, star = ("Hermitian", "^*") if hermitian else ("symmetric", "^T")
        raise ShapeError(
            message(
                where,
                f"M is not {kind}",
                expected=f"M = M{star} in x{star} M x",
                got=f"a difference of {gap:.3g}",
                cure=f"Pass (M + M{star}) / 2: all that a real output x{star} M x sees of M.",
            )
        )
    return (M + other) / 2


def _with_outputs(array: Any, name: str, where: str) -> np.ndarray:
    values = check_array(array, name, where)
    if values.ndim == 2:  # one output
        values = values[None]
    if values.ndim < 3:
        wanted = "(..., p, n, n)" if name == "M" else "(..., p, n, r)"
        raise ShapeError(
            message(where, f"{name} has the wrong shape", expected=wanted, got=f"{values.shape}")
        )
    return values
