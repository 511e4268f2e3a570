"""Stein, Lyapunov and Sylvester equations by Schur forms and back substitution.

Theory: ``theory/schur-equations.md``.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange, types
from numba.extending import overload

from ssmred.kernels.lapack import fill_schur
from ssmred.kernels.powers import one_minus_product

__all__ = ["fill_majorant", "fill_solutions", "fill_triangular_solution"]


REFINED = 1e-3  # a correction that is larger, relative to the solution, is not to be trusted


def _gap(a, b):
    """Return ``1 - a b``, accurate also for a and b near 1 or -1."""
    return 1.0 - a * b  # compiled code takes one of the two below


@overload(_gap)
def _typed_gap(a, b):
    if isinstance(a, types.Complex):
        return lambda a, b: one_minus_product(
            (a.real, 0.0, a.imag, 0.0), (b.real, 0.0, b.imag, 0.0)
        )
    return lambda a, b: (1.0 - a) + a * (1.0 - b) if a > 0.0 else (1.0 + a) - a * (1.0 + b)


@njit(cache=True, nogil=True)
def _block_starts(T, starts):
    """Fill the first index of each diagonal block of a Schur form, stored transposed."""
    n, i, count = T.shape[0], 0, 0
    while i < n:
        starts[count] = i
        count += 1
        i += 2 if i + 1 < n and T[i, i + 1] != 0.0 else 1
    starts[count] = n
    return count


@njit(cache=True, nogil=True)
def _eliminate(M, r, size):
    """Solve ``M x = r`` in place, complete pivoting; return the last pivot over the first."""
    order = np.arange(size)
    first, last = 1.0, 1.0
    for k in range(size):
        best, row, column = -1.0, k, k
        for i in range(k, size):
            for j in range(k, size):
                if abs(M[i, j]) > best:
                    best, row, column = abs(M[i, j]), i, j
        if k == 0:
            first = best
        last = best
        if best == 0.0:
            return 0.0
        for j in range(size):
            M[k, j], M[row, j] = M[row, j], M[k, j]
        r[k], r[row] = r[row], r[k]
        for i in range(size):
            M[i, k], M[i, column] = M[i, column], M[i, k]
        order[k], order[column] = order[column], order[k]
        for i in range(k + 1, size):
            ratio = M[i, k] / M[k, k]
            for j in range(k, size):
                M[i, j] -= ratio * M[k, j]
            r[i] -= ratio * r[k]
    x = np.empty_like(r)
    for i in range(size - 1, -1, -1):
        total = r[i]
        for j in range(i + 1, size):
            total -= M[i, j] * x[order[j]]
        x[order[i]] = total / M[i, i]
    r[:size] = x[:size]
    return last / first


@njit(cache=True, nogil=True)
def fill_triangular_solution(S, T, X, discrete):
    """Overwrite X by the solution of ``X - S X T^* = X_0`` (or ``S X + X T^* = X_0``).

    S (n, n) and T (m, m) are upper (quasi-)triangular, X is n x m, all three stored transposed.
    Returns the smallest pivot relative to the terms it comes from: 0 where the equation is
    singular, and then X is worthless.
    """
    n, m = S.shape[0], T.shape[0]
    rows, columns = np.empty(n + 1, np.int64), np.empty(m + 1, np.int64)
    row_count, column_count = _block_starts(S, rows), _block_starts(T, columns)
    M, r = np.empty((4, 4), S.dtype), np.empty(4, S.dtype)
    carried = np.empty(n, S.dtype)
    smallest = 1.0
    for J in range(column_count - 1, -1, -1):
        j, wide = columns[J], columns[J + 1] - columns[J]
        for b in range(wide):  # what later columns add
            if j + wide == m:
                break
            target = X[j + b]
            carried[:] = 0.0
            for l in range(j + wide, m):
                factor, source = np.conj(T[l, j + b]), X[l]
                if factor != 0.0:
                    for i in range(n):
                        carried[i] += factor * source[i]
            if not discrete:
                for i in range(n):
                    target[i] -= carried[i]
                continue
            for k in range(n):
                value, source = carried[k], S[k]
                for i in range(min(k + 2, n)):  # one below the diagonal in a 2 x 2 block
                    target[i] += source[i] * value
        for I in range(row_count - 1, -1, -1):
            i, high = rows[I], rows[I + 1] - rows[I]
            if high * wide == 1:
                s, t = S[i, i], np.conj(T[j, j])
                pivot = _gap(s, t) if discrete else s + t
                scale = 1.0 + abs(s) * abs(t) if discrete else abs(s) + abs(t)
                if pivot == 0.0:
                    return 0.0
                smallest = min(smallest, abs(pivot) / scale)
                X[j, i] /= pivot
            else:
                scale = 1.0 if discrete else 0.0
                for a in range(high):
                    for b in range(wide):
                        r[a + high * b] = X[j + b, i + a]
                        for c in range(high):
                            for d in range(wide):
                                s, t = S[i + c, i + a], np.conj(T[j + d, j + b])
                                if discrete:
                                    same = 1.0 if a == c and b == d else 0.0
                                    M[a + high * b, c + high * d] = same - s * t
                                    scale = max(scale, abs(s) * abs(t))
                                else:
                                    left = s if b == d else 0.0
                                    right = t if a == c else 0.0
                                    M[a + high * b, c + high * d] = left + right
                                    scale = max(scale, abs(left), abs(right))
                largest = 0.0
                for a in range(high * wide):
                    for b in range(high * wide):
                        largest = max(largest, abs(M[a, b]))
                pivot = _eliminate(M, r, high * wide)
                if pivot == 0.0:
                    return 0.0
                smallest = min(smallest, pivot * largest / scale)
                for a in range(high):
                    for b in range(wide):
                        X[j + b, i + a] = r[a + high * b]
            for b in range(wide):  # what the rows above get
                for c in range(high):
                    if discrete:
                        value = X[j, i + c] * np.conj(T[j, j + b])
                        if wide == 2:
                            value += X[j + 1, i + c] * np.conj(T[j + 1, j + b])
                    else:
                        value = -X[j + b, i + c]
                    source, target = S[i + c], X[j + b]
                    for k in range(i):
                        target[k] += source[k] * value
    return smallest


@njit(cache=True, nogil=True)
def _schur(gees, A):
    """Return the transposed Schur form, its transposed vectors, and LAPACK's info."""
    n = A.shape[0]
    T, Z = np.ascontiguousarray(A.T), np.empty((n, n), A.dtype)
    eigenvalues = np.empty(n, A.dtype)
    info = fill_schur(
        gees, T, Z, eigenvalues, np.empty(n), np.empty(40 * n + 8, A.dtype), np.empty(n, np.int32)
    )
    return T, Z, info


@njit(cache=True, nogil=True)
def _largest(M):
    """Return the largest modulus of a real or imaginary part; inf where one is nan."""
    size = 0.0
    for value in M.flat:
        part = max(abs(value.real), abs(value.imag))
        if not part <= size:
            size = part if part > size else np.inf
    return size


@njit(cache=True, parallel=True, nogil=True)
def fill_solutions(gees, A, B, same, W, discrete, X, pivots):
    """Fill X of ``X - A X B^* = W`` (or ``A X + X B^* = W``), one system per channel.

    A (H, n, n), B (H, m, m), W and X (H, n, m) of one dtype; ``same``: B is A. pivots (H,) float64
    holds what :func:`fill_triangular_solution` returns, -1 where a Schur form failed.
    """
    for h in prange(A.shape[0]):
        S, U, failure = _schur(gees, A[h])
        T, V = S, U
        if not same:
            T, V, other = _schur(gees, B[h])
            failure += other
        if failure != 0:
            pivots[h] = -1.0
            X[h] = np.nan
            continue
        # All stored transposed, with A = U S U^* and B = V T V^*: Y = U^* X V.
        U_adjoint, V_adjoint = np.ascontiguousarray(U.conj().T), np.ascontiguousarray(V.conj().T)
        Y = np.dot(np.dot(V, np.ascontiguousarray(W[h].T)), U_adjoint)
        pivots[h] = fill_triangular_solution(S, T, Y, discrete)
        Z = np.dot(np.dot(V_adjoint, Y), U)
        if pivots[h] > 0.0:  # one step of refinement, with the residual of the given matrices
            left, right = np.ascontiguousarray(A[h].T), np.ascontiguousarray(B[h].conj())
            R = np.ascontiguousarray(W[h].T)
            if discrete:
                R = R - Z + np.dot(np.dot(right, Z), left)
            else:
                R = R - np.dot(Z, left) - np.dot(right, Z)
            R = np.dot(np.dot(V, R), U_adjoint)
            fill_triangular_solution(S, T, R, discrete)
            R = np.dot(np.dot(V_adjoint, R), U)
            if _largest(R) <= REFINED * _largest(Z):
                Z += R
        X[h] = Z.T


@njit(cache=True, nogil=True)
def fill_majorant(left, right, S, T, discrete, out):
    """Fill ``out >= |Y|`` for every Y with ``|Y - S Y T^*| <= 1`` (or ``|S Y + Y T^*| <= 1``).

    left (n,) and right (m,) complex128 are the diagonals, S (n, n) and T (m, m) float64 the moduli
    of the upper triangular matrices, S stored transposed; out (m, n) float64 holds the transpose.
    Back substitution with every off-diagonal term taken as an increase. The last bits are lost to
    rounding: sums of n + m positive numbers.
    """
    n, m = S.shape[0], T.shape[0]
    carried, total = np.empty(n), np.empty(n)
    for j in range(m - 1, -1, -1):
        carried[:] = 0.0
        for l in range(j + 1, m):
            _add_multiple(carried, T[j, l], out[l])
        if discrete:
            total[:] = 1.0
            for k in range(n):
                _add_multiple(total[: k + 1], carried[k], S[k, : k + 1])
        else:
            total[:] = 1.0 + carried
        factor = abs(right[j]) if discrete else 1.0
        for i in range(n - 1, -1, -1):
            t = right[j].conjugate()
            gap = abs(_gap(left[i], t) if discrete else left[i] + t)
            out[j, i] = total[i] / gap if gap > 0.0 else np.inf
            _add_multiple(total[:i], factor * out[j, i], S[i, :i])


@njit(cache=True, nogil=True)
def _add_multiple(out, factor, row):
    """Add a multiple of a row; a factor 0 adds nothing, whatever the row."""
    if factor != 0.0:
        for k in range(row.shape[0]):
            out[k] += factor * row[k]
