"""State-space matrices of transfer functions, without a root or a coefficient changed.

Polynomials become companion matrices whose entries are their coefficients; zeros and poles become
a chain of sections whose eigenvalues are the given poles. Going from roots to coefficients and
back, as conversions usually do, loses digits that no later step returns.
"""

from __future__ import annotations

import numpy as np

from ssmred.errors import ShapeError, message

__all__ = ["cascade_form", "companion_form"]

Matrices = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def companion_form(numerators: list, denominators: list, where: str) -> Matrices:
    """Return (A, B, C, D) of a matrix of proper rational functions.

    Parameters
    ----------
    numerators, denominators : list of p lists of m coefficient arrays
        Highest power first; leading zeros are stripped if they are exactly zero.

    Returns
    -------
    A (n, n), B (n, m), C (p, n), D (p, m) : float64 or complex128
        One controllable companion block for each input and each different denominator in its
        column: n is the sum of their degrees. Common factors are kept.

    Raises
    ------
    ShapeError
        If a function is not proper, or a denominator is zero.
    """
    p, m = len(numerators), len(numerators[0])
    blocks: dict[tuple, np.ndarray] = {}  # (input, denominator) -> read-outs (p, degree)
    kinds = [np.result_type(a) for rows in (numerators, denominators) for row in rows for a in row]
    dtype = np.result_type(np.float64, *kinds)
    D = np.zeros((p, m), dtype)
    for j in range(m):
        for i in range(p):
            num, den = (_stripped(rows[i][j]) for rows in (numerators, denominators))
            if den.size == 0:
                raise ShapeError(message(where, f"denominator ({i}, {j}) is zero"))
            if num.size > den.size:
                raise ShapeError(
                    message(
                        where,
                        f"transfer function ({i}, {j}) is improper: it has no state space",
                        expected="degree of the numerator <= degree of the denominator",
                        got=f"{num.size - 1} > {den.size - 1}",
                    )
                )
            num, den = num / den[0], den / den[0]
            degree = den.size - 1
            num = np.concatenate([np.zeros(den.size - num.size), num])
            D[i, j] = num[0]
            if degree and np.any(num):
                rows = blocks.setdefault((j, *den[1:].tolist()), np.zeros((p, degree), dtype))
                rows[i] = num[1:] - den[1:] * num[0]
    n = sum(len(key) - 1 for key in blocks)
    A, B, C = np.zeros((n, n), dtype), np.zeros((n, m), dtype), np.zeros((p, n), dtype)
    start = 0
    for (j, *den), rows in blocks.items():
        stop = start + len(den)
        A[start, start:stop] = -np.asarray(den)
        A[range(start + 1, stop), range(start, stop - 1)] = 1.0
        B[start, j] = 1.0
        C[:, start:stop] = rows
        start = stop
    return A, B, C, D


def cascade_form(zeros: np.ndarray, poles: np.ndarray, gain: complex, where: str) -> Matrices:
    """Return (A, B, C, D) of ``gain prod(s - z_i) / prod(s - p_i)`` as a chain of sections.

    Parameters
    ----------
    zeros, poles : (k,), (n,) float64 or complex128
        k <= n. Sets that are closed under conjugation, exactly, with a real gain give real
        matrices.
    gain : float or complex

    Returns
    -------
    A (n, n), B (n, 1), C (1, n), D (1, 1) : float64 or complex128
        A is block lower triangular with the poles in its blocks: real poles and complex data as
        entries, conjugate pairs as ``[[Re, Im], [-Im, Re]]``.

    Raises
    ------
    ShapeError
        If there are more zeros than poles.
    """
    zeros, poles = np.atleast_1d(zeros).ravel(), np.atleast_1d(poles).ravel()
    if zeros.size > poles.size:
        raise ShapeError(
            message(
                where,
                "the transfer function is improper: it has no state space",
                expected="at most as many zeros as poles",
                got=f"{zeros.size} > {poles.size}",
            )
        )
    real = np.imag(gain) == 0 and all(_is_conjugate(roots) for roots in (zeros, poles))
    if real:
        sections = _real_sections(_in_twos(zeros), _in_twos(poles))
    else:
        padded = [*zeros, *([None] * (poles.size - zeros.size))]
        sections = [_first_order(z, p) for z, p in zip(padded, poles, strict=True)]
    gain = np.real(gain) if real else gain
    if not sections:
        none = np.zeros((0, 0))
        return none, np.zeros((0, 1)), np.zeros((1, 0)), np.array([[gain]])
    # in equal parts, so that the states in between neither under- nor overflow
    share = abs(gain) ** (1.0 / len(sections))
    turn = gain / abs(gain) if gain else 0.0
    A, B, C, D = _scaled(sections[0], share)
    for section in sections[1:]:
        a, b, c, d = _scaled(section, share)
        A = np.block([[A, np.zeros((len(A), len(a)))], [b @ C, a]])
        B, C, D = np.vstack([B, b @ D]), np.hstack([d @ C, c]), d @ D
    return A, B, turn * C, turn * D


def _stripped(coefficients: np.ndarray) -> np.ndarray:
    """Return the coefficients without leading zeros."""
    return np.trim_zeros(np.atleast_1d(coefficients).ravel(), "f")


def _is_conjugate(roots: np.ndarray) -> bool:
    """Tell whether a list of roots equals its conjugate, as a multiset."""
    upper, lower = roots[np.imag(roots) > 0], roots[np.imag(roots) < 0]
    return upper.size == lower.size and bool(
        np.array_equal(np.sort_complex(upper), np.sort_complex(np.conj(lower)))
    )


def _in_twos(roots: np.ndarray) -> list[tuple]:
    """Return conjugate pairs, then real roots two by two, the odd one last."""
    upper = np.sort_complex(roots[np.imag(roots) > 0])
    real = np.sort(np.real(roots[np.imag(roots) == 0]))
    twos: list[tuple] = [(complex(l), complex(np.conj(l))) for l in upper]
    twos += [tuple(real[i : i + 2].tolist()) for i in range(0, real.size, 2)]
    return twos


def _real_sections(zeros: list[tuple], poles: list[tuple]) -> list[Matrices]:
    """Return sections of one or two states; every pair of poles gets the zeros next to it."""
    left = list(zeros)
    odd = bool(poles) and len(poles[-1]) == 1  # then the single pole waits for a single zero
    sections = []
    for some in poles:
        room = [z for z in left if len(z) == len(some)] if odd else left
        near = min(room, key=lambda z, at=some[0]: abs(z[0] - at), default=())
        if near:
            left.remove(near)
        sections.append(_section(near, some))
    return sections


def _section(zeros: tuple, poles: tuple) -> Matrices:
    if len(poles) == 1:
        return _first_order(zeros[0] if zeros else None, poles[0])
    one, two = poles
    if np.imag(one):
        centre, width = one.real, one.imag
        A = np.array([[centre, width], [-width, centre]])
        if len(zeros) == 2 and np.imag(zeros[0]):
            z = zeros[0]
            rest = (centre - z.real) ** 2 + (z.imag - width) * (z.imag + width)
        elif len(zeros) == 2:
            rest = (centre - zeros[0]) * (centre - zeros[1]) - width**2
        else:
            rest = centre - zeros[0] if zeros else 1.0
        first = rest / width
        total = 2 * centre - np.real(sum(zeros))
    else:
        A = np.array([[one, 1.0], [0.0, two]])
        first = float(np.real(np.prod([one - z for z in zeros]))) if zeros else 1.0
        total = one + two - np.real(sum(zeros))
        if len(zeros) == 2 and not np.imag(zeros[0]):
            total = (one - zeros[0]) + (two - zeros[1])
    second = (0.0, 1.0, total)[len(zeros)]
    direct = 1.0 if len(zeros) == 2 else 0.0
    return A, np.array([[0.0], [1.0]]), np.array([[first, second]]), np.array([[direct]])


def _first_order(zero: complex | None, pole: complex) -> Matrices:
    read_out, direct = (1.0, 0.0) if zero is None else (pole - zero, 1.0)
    return np.array([[pole]]), np.ones((1, 1)), np.array([[read_out]]), np.array([[direct]])


def _scaled(section: Matrices, share: float) -> Matrices:
    A, B, C, D = section
    return A, B, share * C, share * D
