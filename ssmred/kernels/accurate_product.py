"""Products of complex matrices, every entry rounded about once.

Theory: ``theory/hinf-enclosure.md``, item 5.
"""

from __future__ import annotations

from numba import njit, prange

from ssmred.kernels.powers import two_product, two_sum

__all__ = ["fill_accurate_product"]


@njit(cache=True, inline="always")
def _add_product(total, rest, a, b):
    """Add a b to the sum ``total + rest``: the compensated dot product of Ogita, Rump, Oishi."""
    product, low = two_product(a, b)
    total, error = two_sum(total, product)
    return total, rest + (low + error)


@njit(cache=True, parallel=True)
def fill_accurate_product(X, Y, out):
    """Fill out (n, m) with X Y, X (n, k) and Y (k, m) complex128.

    Parts of entries are wrong by ``u`` of themselves and ``(2 k u)^2 sum |x| |y|``, to first order.
    """
    for i in prange(X.shape[0]):
        for j in range(Y.shape[1]):
            real, real_low, imag, imag_low = 0.0, 0.0, 0.0, 0.0
            for k in range(X.shape[1]):
                x, y = X[i, k], Y[k, j]
                real, real_low = _add_product(real, real_low, x.real, y.real)
                real, real_low = _add_product(real, real_low, -x.imag, y.imag)
                imag, imag_low = _add_product(imag, imag_low, x.real, y.imag)
                imag, imag_low = _add_product(imag, imag_low, x.imag, y.real)
            out[i, j] = complex(real + real_low, imag + imag_low)
