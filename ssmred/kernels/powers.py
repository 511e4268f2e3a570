"""Powers of poles to a few units in the last place, for every exponent.

Repeated multiplication loses ``k`` units in ``pole**k``, and ``exp(k log(pole))`` loses as many in
the phase. Here every table entry is made in double-double arithmetic (error-free sums and
products, Dekker 1971), and one power is the product of two table entries. With ``u = 2**-53`` the
relative error is at most ``(2 + sqrt(5)) u < 4.3 u`` (two roundings to double and one complex
product, Brent, Percival and Zimmermann 2007) for every exponent that neither overflows nor
underflows.

Theory: ``theory/diagonal-gramian.md`` uses the same arithmetic for ``1 - a b``.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

__all__ = [
    "accurate_powers",
    "fill_power_tables",
    "fill_powers",
    "fill_powers_at",
    "one_minus_product",
    "power_tables",
    "zdd_add",
    "zdd_multiply",
    "zdd_power",
]

SPLITTER = 134217729.0  # 2**27 + 1, Veltkamp's splitting constant
SPLIT_LIMIT = 1e299  # beyond it the splitting overflows and the error term is dropped


@njit(cache=True, inline="always")
def two_sum(a, b):
    """Return ``(s, e)`` with ``s + e = a + b`` exactly."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


@njit(cache=True, inline="always")
def two_product(a, b):
    """Return ``(p, e)`` with ``p + e = a * b`` exactly, barring underflow."""
    p = a * b
    if abs(a) > SPLIT_LIMIT or abs(b) > SPLIT_LIMIT or abs(p) > SPLIT_LIMIT:
        return p, 0.0
    t = SPLITTER * a
    ah = t - (t - a)
    al = a - ah
    t = SPLITTER * b
    bh = t - (t - b)
    bl = b - bh
    return p, ((ah * bh - p) + ah * bl + al * bh) + al * bl


@njit(cache=True, inline="always")
def dd_add(ah, al, bh, bl):
    """Return the double-double sum of two double-doubles."""
    s, e = two_sum(ah, bh)
    t, f = two_sum(al, bl)
    s, e = two_sum(s, e + t)
    return two_sum(s, e + f)


@njit(cache=True, inline="always")
def dd_multiply(ah, al, bh, bl):
    """Return the double-double product of two double-doubles."""
    p, e = two_product(ah, bh)
    return two_sum(p, e + (ah * bl + al * bh))


@njit(cache=True)
def zdd_add(a, b):
    """Return the sum of two complex double-doubles ``(re, re_low, im, im_low)``."""
    rh, rl = dd_add(a[0], a[1], b[0], b[1])
    ih, il = dd_add(a[2], a[3], b[2], b[3])
    return rh, rl, ih, il


@njit(cache=True)
def zdd_multiply(a, b):
    """Return the product of two complex double-doubles ``(re, re_low, im, im_low)``."""
    ph, pl = dd_multiply(a[0], a[1], b[0], b[1])
    qh, ql = dd_multiply(a[2], a[3], b[2], b[3])
    rh, rl = dd_add(ph, pl, -qh, -ql)
    ph, pl = dd_multiply(a[0], a[1], b[2], b[3])
    qh, ql = dd_multiply(a[2], a[3], b[0], b[1])
    ih, il = dd_add(ph, pl, qh, ql)
    return rh, rl, ih, il


@njit(cache=True)
def zdd_power(pole, exponent):
    """Return ``pole ** exponent`` (exponent >= 0) as a complex double-double."""
    result = (1.0, 0.0, 0.0, 0.0)
    square = (pole.real, 0.0, pole.imag, 0.0)
    while exponent > 0:
        if exponent & 1:
            result = zdd_multiply(result, square)
        exponent >>= 1
        if exponent > 0:
            square = zdd_multiply(square, square)
    return result


@njit(cache=True)
def one_minus_product(a, b):
    """Return ``1 - a b`` for complex double-doubles, rounded once to complex128.

    The absolute error is about ``1e-31``, so the relative one stays at rounding level even for
    ``|a b|`` within ``1e-15`` of one, where the plain difference has no digit left.
    """
    rh, rl, ih, il = zdd_multiply(a, b)
    rh, rl = dd_add(1.0, 0.0, -rh, -rl)
    return complex(rh + rl, -(ih + il))


@njit(cache=True)
def _fill_geometric_row(base, row):
    """Fill ``row[k] = base**k`` for a complex double-double base, rounded once."""
    value = (1.0, 0.0, 0.0, 0.0)
    for k in range(row.shape[0]):
        row[k] = complex(value[0], value[2])
        value = zdd_multiply(value, base)


@njit(cache=True, parallel=True)
def fill_power_tables(poles, fine, coarse):
    """Fill ``fine[i, r] = l_i**r`` and ``coarse[i, q] = l_i**(q S)``, S the length of a fine row.

    ``poles`` (N,), ``fine`` (N, S) and ``coarse`` (N, Q) are complex128. Every entry is correct
    to one rounding.
    """
    for i in prange(poles.shape[0]):
        pole = poles[i]
        _fill_geometric_row((pole.real, 0.0, pole.imag, 0.0), fine[i])
        if coarse.shape[1] > 1:
            _fill_geometric_row(zdd_power(pole, fine.shape[1]), coarse[i])
        elif coarse.shape[1] == 1:
            coarse[i, 0] = 1.0


@njit(cache=True, parallel=True)
def fill_powers(poles, out):
    """Fill ``out[i, k] = poles[i]**k``; poles (N,) and out (N, T) complex128."""
    horizon = out.shape[1]
    size = max(1, int(np.ceil(np.sqrt(horizon))))
    blocks = (horizon + size - 1) // size
    for i in prange(poles.shape[0]):
        pole = poles[i]
        fine = np.empty(size, np.complex128)
        coarse = np.empty(blocks, np.complex128)
        _fill_geometric_row((pole.real, 0.0, pole.imag, 0.0), fine)
        _fill_geometric_row(zdd_power(pole, size), coarse)
        for q in range(blocks):
            start = q * size
            jump = coarse[q]
            for r in range(min(size, horizon - start)):
                out[i, start + r] = jump * fine[r]


@njit(cache=True, parallel=True)
def fill_powers_at(poles, exponents, out):
    """Fill ``out[i, j] = poles[i]**exponents[j]`` to one rounding; exponents (K,) int64 >= 0."""
    for i in prange(poles.shape[0]):
        for j in range(exponents.shape[0]):
            value = zdd_power(poles[i], exponents[j])
            out[i, j] = complex(value[0], value[2])


def power_tables(poles, horizon):
    """Return the tables of :func:`fill_power_tables` for ``horizon`` powers of any array of poles.

    Parameters
    ----------
    poles : (...) complex128
    horizon : int

    Returns
    -------
    fine : (..., S) complex128
    coarse : (..., Q) complex128
        ``Q S >= horizon`` and ``pole**(q S + r) = coarse[..., q] * fine[..., r]``. A sum of
        exponentials is then one matrix product of the two tables.
    """
    poles = np.ascontiguousarray(poles, dtype=np.complex128)
    size = max(1, int(np.ceil(np.sqrt(horizon))))
    blocks = max(1, -(-horizon // size))
    fine = np.empty((poles.size, size), dtype=np.complex128)
    coarse = np.empty((poles.size, blocks), dtype=np.complex128)
    fill_power_tables(poles.reshape(-1), fine, coarse)
    return fine.reshape(*poles.shape, size), coarse.reshape(*poles.shape, blocks)


def accurate_powers(poles, exponents):
    """Return ``poles[..., None] ** exponents`` to a few units in the last place.

    Parameters
    ----------
    poles : (...) complex128
    exponents : int or (K,) int64
        An int T asks for the exponents ``0, 1, ..., T - 1``.

    Returns
    -------
    (..., K) complex128

    Examples
    --------
    >>> accurate_powers(np.array([0.5, 1j]), 3).tolist()
    [[(1+0j), (0.5+0j), (0.25+0j)], [(1+0j), 1j, (-1+0j)]]
    >>> float(accurate_powers(np.array([0.5]), np.array([10]))[0, 0].real) == 2.0**-10
    True
    """
    poles = np.ascontiguousarray(poles, dtype=np.complex128)
    flat = poles.reshape(-1)
    if np.ndim(exponents) == 0:
        out = np.empty((flat.size, int(exponents)), dtype=np.complex128)
        fill_powers(flat, out)
    else:
        wanted = np.ascontiguousarray(exponents, dtype=np.int64)
        out = np.empty((flat.size, wanted.size), dtype=np.complex128)
        fill_powers_at(flat, wanted, out)
    return out.reshape(*poles.shape, out.shape[1])
