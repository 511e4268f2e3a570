"""Singular values of graded matrices to high relative accuracy: pivoted QR and one-sided Jacobi.

Everything is stored transposed, columns as contiguous rows. Real and complex by the same code.

Theory: ``theory/hankel-values.md``.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

from ssmred.kernels.pivoted_qr import (
    FAST,
    VECTOR,
    inner,
    reflect_four,
    square_of,
    triangularise,
)

__all__ = [
    "fill_compressed",
    "fill_decomposition_of",
    "fill_decompositions",
    "fill_singular_values",
    "fill_values_of",
    "fill_vectors",
    "fill_vectors_of",
]

LONGEST = 60  # sweeps; ten are many
BLOCK = 8  # pairs of rows that rotate with each other, or with another block, in the nearest cache
LEAST = 1e-280
"""Columns shorter than 1e-140 of the largest entry count as zero, because products underflow."""


@njit(cache=True, fastmath=FAST)
def _rotate(x, y, cosine, sine, conjugate_sine):
    for k in range(x.shape[0]):
        a, b = x[k], y[k]
        x[k] = cosine * a - conjugate_sine * b
        y[k] = sine * a + cosine * b


@njit(cache=True, fastmath=FAST)
def _products_of_four(W, a, c):
    """Return the products x^* y of rows a, a + 1, c, c + 1: ac, bd, ad, bc, ab, cd."""
    zero = W[0, 0] * 0.0
    ac, bd, ad, bc, ab, cd = zero, zero, zero, zero, zero, zero
    for k in range(W.shape[1]):
        p, q, r, s = W[a, k], W[a + 1, k], W[c, k], W[c + 1, k]
        ac += p.conjugate() * r
        bd += q.conjugate() * s
        ad += p.conjugate() * s
        bc += q.conjugate() * r
        ab += p.conjugate() * q
        cd += r.conjugate() * s
    return ac, bd, ad, bc, ab, cd


@njit(cache=True, fastmath=FAST)
def _rotate_four(W, a, c, c0, c1, c2, c3, s0, s1, s2, s3):
    """Rotate rows a and c, b = a + 1 and d = c + 1, then a and d, b and c."""
    z0, z1, z2, z3 = s0.conjugate(), s1.conjugate(), s2.conjugate(), s3.conjugate()
    for k in range(W.shape[1]):
        p, q, r, s = W[a, k], W[a + 1, k], W[c, k], W[c + 1, k]
        p, r = c0 * p - z0 * r, s0 * p + c0 * r
        q, s = c1 * q - z1 * s, s1 * q + c1 * s
        W[a, k], W[c + 1, k] = c2 * p - z2 * s, s2 * p + c2 * s
        W[a + 1, k], W[c, k] = c3 * q - z3 * r, s3 * q + c3 * r


@njit(cache=True)
def _rounds(n):
    """Return all pairs of n things in rounds: left and right (n (n - 1) / 2,), starts of rounds.

    The pairs of a round have nothing in common. Pairs inside a block meet as in a tournament, two
    blocks shift past each other: the nearest cache holds both meanwhile.
    """
    left = np.empty(n * (n - 1) // 2, np.int64)
    right, starts = np.empty_like(left), np.zeros(left.size + 1, np.int64)
    pairs, rounds = 0, 0
    seat = np.empty(BLOCK, np.int64)
    for low in range(0, n, BLOCK):
        count = min(BLOCK, n - low)
        seats = count + count % 2  # with an odd number, one rests in each round
        for k in range(seats):
            seat[k] = k
        for _ in range(seats - 1):
            for k in range(seats // 2):
                i, j = seat[k], seat[seats - 1 - k]
                if max(i, j) < count:
                    left[pairs], right[pairs] = low + i, low + j
                    pairs += 1
            last = seat[seats - 1]
            for k in range(seats - 1, 1, -1):
                seat[k] = seat[k - 1]
            seat[1] = last
            rounds += 1
            starts[rounds] = pairs
        for other in range(low + BLOCK, n, BLOCK):
            for shift in range(BLOCK):
                for k in range(BLOCK):
                    j = other + (k + shift) % BLOCK
                    if j < n:
                        left[pairs], right[pairs] = low + k, j
                        pairs += 1
                rounds += 1
                starts[rounds] = pairs
    return left, right, starts[: rounds + 1]


@njit(cache=True, error_model="numpy", fastmath={"contract", "nsz"})
def _fill_angles(sizes, first, second, limit, cosines, tangents, aligned, turns):
    """Fill the rotations of pairs with ``|x^* y|`` = sizes and the squares first and second.

    All (k,). First and second become the squares after the rotation; pairs whose squared cosine
    is not above the limit stay. Largest so far: ``aligned`` the squared cosine, ``turns`` the
    square of what a rotation adds to the shorter one, relative to it. Without branches, so that it
    runs in vectors.
    """
    for k in range(sizes.shape[0]):
        size, a, b = sizes[k], first[k], second[k]
        over_a, over_b = 1.0 / a, 1.0 / b
        share = (size * over_a) * (size * over_b)  # a product of the squares would underflow
        share = share if share > limit else 0.0
        zeta = (b - a) / (2.0 * size)
        tangent = 1.0 / (abs(zeta) + math.sqrt(1.0 + zeta * zeta))
        tangent = -tangent if zeta < 0.0 else tangent
        tangent = tangent if share > 0.0 else 0.0
        turn = tangent * tangent * max(a * over_b, b * over_a)
        cosines[k] = 1.0 / math.sqrt(1.0 + tangent * tangent)
        tangents[k] = tangent
        aligned[k] = max(aligned[k], share)
        turns[k] = turn if turn > turns[k] else turns[k]
        first[k] = a - tangent * size
        second[k] = b + tangent * size


@njit(cache=True)
def _sine(cosine, tangent, product, size):
    return cosine * tangent * (product / size) if tangent != 0.0 else product * 0.0


@njit(cache=True, inline="always")
def _turn_twos(W, limit, squares, room):
    """Make rows 0 and 1, 2 and 3, ... orthogonal, and fill the squares of all rows."""
    sizes, first, second, cosines, tangents, aligned, turns, _, products, _ = room
    pairs = W.shape[0] // 2
    for k in range(pairs):
        x, y = W[2 * k], W[2 * k + 1]
        products[k, 0] = inner(x, y, 0)
        sizes[k] = abs(products[k, 0])
        first[k], second[k] = square_of(x, 0), square_of(y, 0)
    _fill_angles(sizes[:pairs], first, second, limit, cosines, tangents, aligned, turns)
    for k in range(pairs):
        squares[2 * k], squares[2 * k + 1] = first[k], second[k]
        if tangents[k] != 0.0:
            sine = _sine(cosines[k], tangents[k], products[k, 0], sizes[k])
            _rotate(W[2 * k], W[2 * k + 1], cosines[k], sine, sine.conjugate())


@njit(cache=True, inline="always")
def _turn_fours(W, left, right, starts, limit, squares, room):
    """Rotate the rows of all pairs of twos, round by round, as :func:`_rounds` has it.

    A pair are the rows a, b = a + 1 and c, d = c + 1: a and c, b and d turn, then a and d, b and c.
    """
    sizes, first, second, cosines, tangents, aligned, turns, straight, products, sines = room
    for turn in range(starts.size - 1):
        start = starts[turn]
        count = starts[turn + 1] - start
        for k in range(count):
            a, c = 2 * left[start + k], 2 * right[start + k]
            ac, bd, ad, bc, ab, cd = _products_of_four(W, a, c)
            products[k, 0], products[k, 1], products[k, 2] = ac, bd, ad
            products[k, 3], products[k, 4], products[k, 5] = bc, ab, cd
            sizes[k], first[k], second[k] = abs(ac), squares[a], squares[c]
            sizes[count + k] = abs(bd)
            first[count + k], second[count + k] = squares[a + 1], squares[c + 1]
        _fill_angles(sizes[: 2 * count], first, second, limit, cosines, tangents, aligned, turns)
        for k in range(count):
            a, c, other = 2 * left[start + k], 2 * right[start + k], count + k
            squares[a], squares[c] = first[k], second[k]
            squares[a + 1], squares[c + 1] = first[other], second[other]
            p, q = cosines[k], cosines[other]
            s = _sine(p, tangents[k], products[k, 0], sizes[k])
            t = _sine(q, tangents[other], products[k, 1], sizes[other])
            straight[k, 0], straight[k, 1], sines[k, 0], sines[k, 1] = p, q, s, t
            # the products of the rows that these two rotations make
            ad, bc, ab, cd = products[k, 2], products[k, 3], products[k, 4], products[k, 5]
            ad, bc = (
                p * (t * ab + q * ad) - s * (t * bc.conjugate() + q * cd),
                q * (s * ab.conjugate() + p * bc) - t * (s * ad.conjugate() + p * cd.conjugate()),
            )
            products[k, 2], products[k, 3] = ad, bc
            sizes[k], first[k], second[k] = abs(ad), squares[a], squares[c + 1]
            sizes[other], first[other], second[other] = abs(bc), squares[a + 1], squares[c]
        _fill_angles(sizes[: 2 * count], first, second, limit, cosines, tangents, aligned, turns)
        for k in range(count):
            a, c, other = 2 * left[start + k], 2 * right[start + k], count + k
            squares[a], squares[c + 1] = first[k], second[k]
            squares[a + 1], squares[c] = first[other], second[other]
            s, t = sines[k, 0], sines[k, 1]
            v = _sine(cosines[k], tangents[k], products[k, 2], sizes[k])
            w = _sine(cosines[other], tangents[other], products[k, 3], sizes[other])
            if s != 0.0 or t != 0.0 or v != 0.0 or w != 0.0:
                p, q = straight[k, 0], straight[k, 1]
                _rotate_four(W, a, c, p, q, cosines[k], cosines[other], s, t, v, w)


@njit(cache=True)
def orthogonalise(W):
    """Make the rows of W orthogonal by rotations of pairs, in place; tell if it succeeded.

    W (n, m), n even, may have rows of zeros. Afterwards ``|x^* y| <= 2.1 sqrt(m) 2^-52 ||x||
    ||y||``, by what the last sweep met and how far it turned. Rows go in twos: four are in
    registers while four pairs rotate.
    """
    n, m = W.shape
    left, right, starts = _rounds(n // 2)
    most = max(2 * BLOCK, n // 2)
    aligned, turns = np.empty(most), np.empty(most)
    room = (
        np.empty(most),  # sizes
        np.empty(most),  # first
        np.empty(most),  # second
        np.empty(most),  # cosines
        np.empty(most),  # tangents
        aligned,
        turns,
        np.empty((most, 2)),  # straight
        np.empty((most, 6), W.dtype),  # products
        np.empty((most, 2), W.dtype),  # sines
    )
    squares = np.empty(n)
    limit = m * 2.0**-104
    for _ in range(LONGEST):
        aligned[:], turns[:] = 0.0, 0.0
        _turn_twos(W, limit, squares, room)
        _turn_fours(W, left, right, starts, limit, squares, room)
        # 4 n tau c <= sqrt(limit)
        if 16.0 * n * n * aligned.max() * turns.max() <= limit:
            return True
    return False


@njit(cache=True)
def _padded(count):
    return (count + VECTOR - 1) // VECTOR * VECTOR


@njit(cache=True)
def _scaled_columns(G, rows):
    """Return the columns of G as rows, rows of G sorted by size, and the scale they lost.

    As everywhere here, zeros fill the rows up to whole vectors: loops over them have no slow rest.
    """
    m, n = G.shape
    sizes = np.zeros(m)
    for i in range(m):
        for j in range(n):
            sizes[i] = max(sizes[i], abs(G[i, j].real), abs(G[i, j].imag))
    rows[:] = np.argsort(-sizes)
    scale = sizes[rows[0]] if m else 0.0
    scale = 1.0 if scale == 0.0 or not np.isfinite(scale) else scale
    W = np.zeros((n, _padded(m)), G.dtype)
    for i in range(m):
        for j in range(n):
            W[j, i] = G[rows[i], j] / scale
    return W, scale


@njit(cache=True)
def _adjoint_of_triangle(W, r):
    """Return the columns of ``R^*`` as rows, r made even; W from :func:`triangularise`."""
    n = W.shape[0]
    X = np.zeros((r + r % 2, _padded(n)), W.dtype)
    for i in range(r):
        for j in range(i, n):
            X[i, j] = W[j, i].conjugate()
    return X


@njit(cache=True, fastmath=FAST)
def _solve_four(W, i, Z, j):
    """Fill entry i of ``z``, ``R^* z = x``, in rows j to j + 3 of Z; from there on they hold x."""
    a, b, c, d = Z[j, i], Z[j + 1, i], Z[j + 2, i], Z[j + 3, i]
    for k in range(i):
        r = W[i, k].conjugate()
        a -= r * Z[j, k]
        b -= r * Z[j + 1, k]
        c -= r * Z[j + 2, k]
        d -= r * Z[j + 3, k]
    r = 1.0 / W[i, i].conjugate()
    Z[j, i], Z[j + 1, i], Z[j + 2, i], Z[j + 3, i] = a * r, b * r, c * r, d * r


@njit(cache=True)
def fill_values_of(G, values):
    """Fill the singular values of one matrix, nan if they do not converge; see the batched one."""
    m, n = G.shape
    values[: min(m, n)] = 0.0
    if min(m, n) == 0:
        return
    rows, place = np.empty(m, np.int64), np.empty(n, np.int64)
    W, scale = _scaled_columns(G, rows)
    r, _ = triangularise(W, m, LEAST, place, np.empty(min(m, n)))
    X = _adjoint_of_triangle(W, r)
    done = orthogonalise(X)
    for i in range(r):
        values[i] = scale * math.sqrt(square_of(X[i], 0)) if done else math.nan
    order = np.sort(values[:r])
    for i in range(r):
        values[i] = order[r - 1 - i]


@njit(cache=True)
def fill_decomposition_of(G, least, W, tau, rows, place, X, order, values):
    """Fill everything from which :func:`fill_vectors_of` takes singular vectors of one matrix.

    G (m, n); W (n, m), tau (min(m, n),), rows (m,) int64, place (n,) int64: the pivoted QR; X
    (min(m, n), n): orthogonal rows, order (min(m, n),) int64 from the largest to the smallest;
    values (min(m, n),). The arrays may be larger. Returns the number of rows in use and the norm of
    what was dropped.
    """
    m, n = G.shape
    most = min(m, n)
    values[:] = 0.0
    if most == 0:
        return 0, 0.0
    start, scale = _scaled_columns(G, rows[:m])
    r, remainder = triangularise(start, m, least, place[:n], tau[:most])
    local = _adjoint_of_triangle(start, r)  # contiguous: the loops over it run in vectors
    done = orthogonalise(local)
    sizes = np.empty(r)
    for i in range(r):
        sizes[i] = math.sqrt(square_of(local[i], 0))
        X[i, :n] = local[i, :n]
    order[:r] = np.argsort(-sizes)
    for j in range(n):
        W[j, :m] = start[j, :m]
    for k in range(r):
        values[k] = scale * sizes[order[k]] if done else math.nan
    return r, scale * remainder


@njit(cache=True)
def fill_vectors_of(W, tau, rows, place, X, order, rank, m, n, U, V):
    """Fill leading singular vectors U (m, k), V (n, k); those beyond the rank are 0.

    ``R^* Z = Y S``: the columns of Y are the rows of X scaled, and ``A = Q Z S Y^*``. Z comes from
    a triangular solve, in which the grading of R cancels.
    """
    U[:, :] = 0.0
    V[:, :] = 0.0
    count = min(U.shape[1], rank)
    Z = np.zeros(((count + 3) // 4 * 4, _padded(m)), W.dtype)
    for k in range(count):
        x = X[order[k]]
        size = math.sqrt(square_of(x[:n], 0))
        if size == 0.0:
            continue
        for i in range(n):
            V[place[i], k] = x[i] / size
        for i in range(rank):
            Z[k, i] = x[i]
    for i in range(rank):
        for j in range(0, count, 4):
            _solve_four(W, i, Z, j)
    reflector = np.zeros(Z.shape[1], W.dtype)
    for k in range(rank - 1, -1, -1):
        reflector[k] = 1.0
        for i in range(k + 1, m):
            reflector[i] = W[k, i]
        for j in range(0, count, 4):
            reflect_four(reflector, tau[k], Z, j, k // VECTOR * VECTOR)
    for i in range(m):
        for k in range(count):
            U[rows[i], k] = Z[k, i]


@njit(cache=True, parallel=True)
def fill_singular_values(G, values):
    """Fill the singular values of every matrix in descending order.

    G (H, m, n) float64 or complex128, values (H, min(m, n)) float64; nan where the rotations do
    not converge. Rows are sorted, columns pivoted, so that a matrix ``D1 M D2`` with D1 and D2
    graded and M well-conditioned keeps the relative accuracy of its small values.
    """
    for h in prange(G.shape[0]):
        fill_values_of(G[h], values[h])


@njit(cache=True, parallel=True)
def fill_decompositions(G, least, W, tau, rows, place, X, order, values, ranks, dropped):
    """Fill the arrays of :func:`fill_decomposition_of` for every matrix, one more axis in front.

    Columns whose square is below ``least``, relative to the largest entry, are dropped: their
    values are 0, and dropped (H,) float64 is the Frobenius norm of their part of the matrix. nan
    stands in values where the rotations do not converge.
    """
    for h in prange(G.shape[0]):
        ranks[h], dropped[h] = fill_decomposition_of(
            G[h], least, W[h], tau[h], rows[h], place[h], X[h], order[h], values[h]
        )


@njit(cache=True, parallel=True)
def fill_vectors(channels, W, tau, rows, place, X, order, ranks, U, V):
    """Fill U (c, m, k) and V (c, n, k) for the matrices with the numbers channels (c,) int64."""
    for i in prange(channels.shape[0]):
        h = channels[i]
        fill_vectors_of(
            W[h],
            tau[h],
            rows[h],
            place[h],
            X[h],
            order[h],
            ranks[h],
            U.shape[1],
            V.shape[1],
            U[i],
            V[i],
        )


@njit(cache=True, parallel=True)
def fill_compressed(F, out, order):
    """Fill a square L with ``L L^* = F F^*``, by a pivoted QR of ``F^*`` with sorted rows.

    F (H, n, K) with K >= n, out (H, n, n) of the same type, order (H, n) int64: ``L[order]`` is
    lower triangular, its pivots in descending order.
    """
    for h in prange(F.shape[0]):
        n, m = F.shape[1], F.shape[2]
        rows = np.empty(m, np.int64)
        W, scale = _scaled_columns(F[h].T.conj(), rows)
        count, _ = triangularise(W, m, 0.0, order[h], np.empty(n))
        out[h] = 0.0
        for j in range(n):
            for i in range(min(j + 1, count)):
                out[h, order[h, j], i] = scale * W[j, i].conjugate()
