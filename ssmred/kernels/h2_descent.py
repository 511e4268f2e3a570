"""Descent of the h2 error over poles that stay stable, one small model per channel.

Theory: ``theory/h2-optimality.md``.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

from ssmred.kernels.gramian import fill_energies_of, kernel_gap, stable_gap

__all__ = ["fill_descended_models"]

MEMORY = 10  # pairs of the limited-memory quasi-Newton matrix
FIRST_MOVE = 0.1  # largest change of a parameter in the first step
LONGEST_MOVE = 1.0  # and in any later one
SUFFICIENT = 1e-4  # share of the promised decrease that a step has to bring
HALVINGS = 30
FLAT = 4e-16  # relative decrease of the squared error below which a step is idle
SETTLED = 1e-10  # gradient, relative to the squared error, below which it is 0
IDLE = 3  # idle steps in a row after which there is nothing to gain
STATIONARY = 1e-5  # gradient, relative to the squared error, at which a failed step is no failure
CURVED = 1e-14  # cosine of a step and the change of the gradient, above which the pair is used
SINGULAR = 1e-15  # share of a mode that the modes before it leave, below which they are dependent
NOISE = 1e-13  # rounding of the gradient, relative to the squared norm of the system


@njit(cache=True, error_model="numpy")
def _placed(x, start, rates, turns, continuous, poles, rows):
    """Fill poles (q,) and rows (q, m) for the parameters x; tell whether all poles are stable.

    A pole is ``exp(-rate e^x) e^{i (angle + rate x')}`` or ``-rate e^x + i (angle + rate x')``,
    without the angle where it stays real; rows follow in x for several inputs only.
    """
    q, m = rows.shape
    k = 0
    for j in range(q):
        rate, turn = rates[j] * math.exp(x[k]), 0.0
        k += 1
        if turns[j]:
            turn = rates[j] * x[k]
            k += 1
        if continuous:
            poles[j] = complex(-rate, start[j].imag + turn if turns[j] else 0.0)
        elif turns[j]:
            angle = math.atan2(start[j].imag, start[j].real) + turn
            radius = math.exp(-rate)
            poles[j] = complex(radius * math.cos(angle), radius * math.sin(angle))
        else:
            poles[j] = complex(math.copysign(math.exp(-rate), start[j].real), 0.0)
        if m > 1:
            for a in range(m):
                rows[j, a] = complex(x[k], x[k + 1] if turns[j] else 0.0)
                k += 2 if turns[j] else 1
        if not kernel_gap(poles[j], poles[j], continuous).real > 0.0:
            return False
    return True


@njit(cache=True, error_model="numpy")
def _divide(G, X):
    """Overwrite X (r, p) by ``G^{-1} X``, G positive definite and destroyed; tell if it is that."""
    r, p = X.shape
    for j in range(r):
        pivot = G[j, j].real
        for k in range(j):
            pivot -= G[j, k].real ** 2 + G[j, k].imag ** 2
        if not pivot > SINGULAR * G[j, j].real:
            return False
        root = math.sqrt(pivot)
        G[j, j] = root
        for i in range(j + 1, r):
            total = G[i, j]
            for k in range(j):
                total -= G[i, k] * G[j, k].conjugate()
            G[i, j] = total / root
    for a in range(p):
        for i in range(r):
            for k in range(i):
                X[i, a] -= G[i, k] * X[k, a]
            X[i, a] /= G[i, i]
        for i in range(r - 1, -1, -1):
            for k in range(i + 1, r):
                X[i, a] -= G[k, i].conjugate() * X[k, a]
            X[i, a] /= G[i, i]
    return True


@njit(cache=True, error_model="numpy")
def _evaluated(x, start, rates, turns, real, continuous, full, full_rows, full_columns, out):
    """Return the squared error of the best read-out for the parameters x, inf where unstable.

    ``full`` (N,), full_rows (N, m), full_columns (N, p): the system, written out. out: poles (q,),
    rows (q, m), columns (q, p) of the model and the gradient (P,).
    """
    poles, rows, columns, gradient = out
    q, m, p, N = poles.shape[0], rows.shape[1], columns.shape[1], full.shape[0]
    if not _placed(x, start, rates, turns, continuous, poles, rows):
        return np.inf
    r = q
    for j in range(q):
        r += 1 if real and turns[j] else 0
    # the system with a minus sign, then the model, pairs written out
    every, b = np.empty(N + r, np.complex128), np.empty((N + r, m), np.complex128)
    c = np.empty((N + r, p), np.complex128)
    every[:N], b[:N], c[:N] = full, full_rows, -full_columns
    every[N : N + q], b[N : N + q] = poles, rows
    other = N + q
    for j in range(q):
        if real and turns[j]:
            every[other], b[other] = poles[j].conjugate(), rows[j].conj()
            other += 1
    # K_ej = b_e b_j^* / gap(l_e, m_j)
    K, margins = np.empty((N + r, r), np.complex128), np.empty(r)
    for j in range(r):
        pole = every[N + j]
        margins[j] = kernel_gap(pole, pole, continuous).real
        for e in range(N + r):
            gap = stable_gap(every[e], pole, margins[j], continuous)
            K[e, j] = np.vdot(b[N + j], b[e]) / gap
    # sum_e c_e K_ej = 0: the read-out is the best one
    c[N:] = -(K[:N].T.copy() @ c[:N])
    if not _divide(K[N:].T.copy(), c[N:]):
        return np.inf
    other = N + q
    for j in range(q):
        if real and turns[j]:
            c[N + j] = 0.5 * (c[N + j] + c[other].conj())
            c[other] = c[N + j].conj()
            other += 1
        elif real:
            c[N + j] = c[N + j].real + 0j
    columns[:] = c[N : N + q]
    weights = np.empty((N + r, p * m), np.complex128)
    for e in range(N + r):
        for i in range(p):
            for a in range(m):
                weights[e, i * m + a] = c[e, i] * b[e, a]
    energies = np.empty(p * m)
    fill_energies_of(every, weights, continuous, energies)
    k = 0
    for j in range(q):
        slope, row = 0j, np.zeros(m, np.complex128)
        for e in range(N + r):
            gap = stable_gap(every[e], poles[j], margins[j], continuous)
            seen = np.vdot(columns[j], c[e])
            slope += seen * K[e, j] / gap * (1.0 if continuous else every[e])
            if m > 1:
                row += seen / gap * b[e]
        times = 4.0 if real and turns[j] else 2.0
        rate = rates[j] * math.exp(x[k])
        move = -rate + 0j if continuous else -rate * poles[j]
        gradient[k] = times * (slope * move.conjugate()).real
        k += 1
        if turns[j]:
            move = rates[j] * 1j if continuous else rates[j] * 1j * poles[j]
            gradient[k] = times * (slope * move.conjugate()).real
            k += 1
        if m > 1:
            for a in range(m):
                gradient[k] = times * row[a].real
                k += 1
                if turns[j]:
                    gradient[k] = times * row[a].imag
                    k += 1
    return energies.sum()


@njit(cache=True, error_model="numpy")
def _direction(gradient, moves, changes, count):
    """Return the quasi-Newton direction from the last ``count`` pairs (two-loop recursion)."""
    d = -gradient
    used = min(count, MEMORY)
    shares = np.empty(used)
    for back in range(used):
        i = (count - 1 - back) % MEMORY
        shares[back] = (moves[i] @ d) / (moves[i] @ changes[i])
        d -= shares[back] * changes[i]
    if used:
        i = (count - 1) % MEMORY
        d *= (moves[i] @ changes[i]) / (changes[i] @ changes[i])
    for back in range(used - 1, -1, -1):
        i = (count - 1 - back) % MEMORY
        d += (shares[back] - (changes[i] @ d) / (moves[i] @ changes[i])) * moves[i]
    return d


@njit(cache=True, error_model="numpy")
def _descended(start, rows, turns, real, continuous, full, full_rows, full_columns, steps, out):
    """Fill ``out`` (poles, rows, columns); return the squared error, and whether it settled."""
    q, m, p = start.shape[0], rows.shape[1], full_columns.shape[1]
    rates, size = np.empty(q), 0
    for j in range(q):
        rates[j] = -start[j].real if continuous else -math.log(abs(start[j]))
        size += (2 if turns[j] else 1) * (1 + (m if m > 1 else 0))
    x, k = np.zeros(size), 0
    for j in range(q):
        k += 2 if turns[j] else 1
        if m > 1:
            for a in range(m):
                x[k] = rows[j, a].real
                k += 1
                if turns[j]:
                    x[k] = rows[j, a].imag
                    k += 1
    moves, changes = np.empty((MEMORY, size)), np.empty((MEMORY, size))
    best_poles, best_rows, best_columns = out
    best_rows[:] = rows
    gradient = np.empty(size)
    value = _evaluated(
        x,
        start,
        rates,
        turns,
        real,
        continuous,
        full,
        full_rows,
        full_columns,
        (best_poles, best_rows, best_columns, gradient),
    )
    norm = 0.0
    energies = np.empty(p * m)
    weights = np.empty((full.shape[0], p * m), np.complex128)
    for e in range(full.shape[0]):
        for i in range(p):
            for a in range(m):
                weights[e, i * m + a] = full_columns[e, i] * full_rows[e, a]
    fill_energies_of(full, weights, continuous, energies)
    norm = energies.sum()
    poles, new_rows = np.empty(q, np.complex128), rows.copy()
    columns, new_gradient = np.empty((q, p), np.complex128), np.empty(size)
    count, idle = 0, 0
    for _ in range(steps):
        steepest = np.abs(gradient).max()
        if not np.isfinite(value) or not np.isfinite(steepest):
            return value, False
        if steepest <= SETTLED * value:
            return value, True
        d = _direction(gradient, moves, changes, count)
        slope = gradient @ d
        if not slope < 0.0:
            count, d = 0, -gradient
            slope = gradient @ d
        longest = np.abs(d).max()
        limit = LONGEST_MOVE if count else FIRST_MOVE
        if longest > limit or not count:
            d *= limit / longest
            slope *= limit / longest
        length, found = 1.0, np.inf
        for _half in range(HALVINGS):
            found = _evaluated(
                x + length * d,
                start,
                rates,
                turns,
                real,
                continuous,
                full,
                full_rows,
                full_columns,
                (poles, new_rows, columns, new_gradient),
            )
            if found <= value + SUFFICIENT * length * slope:
                break
            length *= 0.5
        if not found <= value + SUFFICIENT * length * slope:
            if count:
                count = 0  # once more along the gradient
                continue
            return value, steepest <= STATIONARY * value + NOISE * norm
        move, change = length * d, new_gradient - gradient
        if move @ change > CURVED * math.sqrt((move @ move) * (change @ change)):
            moves[count % MEMORY], changes[count % MEMORY] = move, change
            count += 1
        x += move
        idle = idle + 1 if value - found <= FLAT * value else 0
        value = found
        gradient[:] = new_gradient
        best_poles[:], best_rows[:], best_columns[:] = poles, new_rows, columns
        if idle == IDLE:
            return value, True
    return value, False


@njit(cache=True, parallel=True, error_model="numpy")
def fill_descended_models(
    full,
    full_rows,
    full_columns,
    start,
    start_rows,
    counts,
    turns,
    real,
    continuous,
    steps,
    poles,
    rows,
    columns,
    squares,
    converged,
):
    """Fill models whose h2 error no small change of poles, rows and columns lowers.

    full (H, N), full_rows (H, N, m), full_columns (H, N, p): the system, pairs of a real one
    written out. start (H, q) stable and not 0, start_rows (H, q, m), of which counts (H,) are in
    use; turns (H, q) bool: which poles have an angle (all of a complex system; for a real one they
    stand for pairs). poles, rows, columns (H, q, p): as start, the columns as those of written-out
    pairs; squares (H,) float64: squared errors; converged (H,) bool.
    """
    for h in prange(full.shape[0]):
        q = counts[h]
        poles[h], rows[h], columns[h] = 0.0, 0.0, 0.0
        out = (poles[h, :q], rows[h, :q], columns[h, :q])
        squares[h], converged[h] = _descended(
            start[h, :q],
            start_rows[h, :q],
            turns[h, :q],
            real,
            continuous,
            full[h],
            full_rows[h],
            full_columns[h],
            steps,
            out,
        )
