"""What the removal of each single mode costs, all modes at once.

Theory: ``theory/removal-cost.md``.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from ssmred.kernels.elimination import _fill_inverse, _removal_cost
from ssmred.kernels.powers import one_minus_product

__all__ = ["fill_blaschke_removals", "fill_root_removals"]


@njit(cache=True, inline="always")
def _gap(a, b, continuous):
    """Return ``1 - a conj(b)``, or ``-(a + conj(b))`` in continuous time."""
    if continuous:
        return complex(-(a.real + b.real), b.imag - a.imag)
    return one_minus_product((a.real, 0.0, a.imag, 0.0), (b.real, 0.0, -b.imag, 0.0))


@njit(cache=True, error_model="numpy", inline="always")
def _near_gap(a, b, a_margin, b_margin):
    """Return ``1 - a conj(b)`` from the margins ``1 - |a|^2``, ``1 - |b|^2``, without cancellation.

    With a the larger one, ``1 - a conj(b) = (1 - |a|^2) + a conj(a - b)``, and neither term is
    larger than the sum, as ``|1 - a conj(b)|^2 = (1 - |a|^2) (1 - |b|^2) + |a - b|^2``.
    """
    if a_margin <= b_margin:
        return a_margin + a * (a - b).conjugate()
    return b_margin + b.conjugate() * (b - a)


@njit(cache=True, error_model="numpy", inline="always")
def _over(a, b):
    """Return a / b for b of ordinary size."""
    return a * b.conjugate() * (1.0 / (b.real * b.real + b.imag * b.imag))


@njit(cache=True, error_model="numpy")
def _fill_products(poles, counts, real, continuous, margins, products):
    """Fill the Blaschke product of all other poles at each pole of one channel."""
    n = poles.shape[0]
    for e in range(n):
        products[e] = 1.0
    for e in range(n):
        if not counts[e]:
            continue
        own = poles[e]
        for j in range(e + 1, n):
            if not counts[j]:
                continue
            other = poles[j]
            apart = own - other
            if continuous:
                gap = _gap(own, other, True)
                products[e] *= apart / gap
                products[j] *= -apart / gap.conjugate()
            else:
                gap = _near_gap(own, other, margins[e], margins[j])
                products[e] *= _over(apart, gap)
                products[j] *= -_over(apart, gap.conjugate())
            if not real:
                continue
            mirror = other.conjugate()
            apart = own - mirror
            if continuous:
                gap = _gap(own, mirror, True)
                first, second = apart / gap, -apart.conjugate() / gap
            else:
                gap = _near_gap(own, mirror, margins[e], margins[j])
                first, second = _over(apart, gap), -_over(apart.conjugate(), gap)
            if other.imag != 0.0:
                products[e] *= first
            if own.imag != 0.0:
                products[j] *= second


@njit(cache=True, error_model="numpy")
def _mode_norm(own, margin, residues, turn, real, continuous):
    """Return the h2 norm of one mode with its residues times `turn`, or of the real part of it."""
    scale = 0.0
    for o in range(residues.shape[0]):
        scale = max(scale, abs(residues[o]))
    if scale == 0.0:
        return 0.0
    mirror = own.conjugate()
    blaschke = complex(0.0, 0.0)
    if real:  # of the pole, at its conjugate
        blaschke = (mirror - own) / _gap(mirror, own, continuous)
    lever = blaschke if continuous else mirror * blaschke
    total = 0.0
    for o in range(residues.shape[0]):
        g = residues[o] / scale * turn
        if real:  # both entries of the row of coefficients times the orthonormal factor
            first = 2.0 * g.real + g.conjugate() * lever
            second = abs(g) * abs(blaschke)
            total += 0.25 * (first.real * first.real + first.imag * first.imag + second * second)
        else:
            total += g.real * g.real + g.imag * g.imag
    return scale * np.sqrt(total / margin)


@njit(cache=True, error_model="numpy", parallel=True, nogil=True)
def fill_blaschke_removals(poles, residues, counts, real, continuous, errors):
    """Fill the h2 norm that is lost with each mode when the others' read-out is fitted again.

    It is the norm of the mode alone, its residue times the Blaschke product of all other poles at
    its own. poles (H, n), residues (H, n, p) complex128, counts (H, n) bool: whether an input
    drives the mode; real: modes stand for themselves and their conjugates, ``y = Re(...)``. errors
    (H, n) float64. Cost O(n^2 + n p) per channel.
    """
    channels, n = poles.shape
    for h in prange(channels):
        margins = np.empty(n)
        products = np.empty(n, np.complex128)
        for e in range(n):
            margins[e] = _gap(poles[h, e], poles[h, e], continuous).real
        _fill_products(poles[h], counts[h], real, continuous, margins, products)
        for e in range(n):
            size = abs(products[e])
            errors[h, e] = 0.0
            if counts[h, e] and size > 0.0:
                turn = products[e] / size
                errors[h, e] = size * _mode_norm(
                    poles[h, e], margins[e], residues[h, e], turn, real, continuous
                )


@njit(cache=True, error_model="numpy", parallel=True, nogil=True)
def fill_root_removals(factors, targets, fixed, errors):
    """Fill the same from triangular square roots, as :func:`fill_removals` takes them.

    factors (H, K, K), targets (H, K, q), errors (H, n). Cost O(K^3) per channel.
    """
    for h in prange(factors.shape[0]):
        size = factors.shape[1]
        R = factors[h].copy()
        for j in range(size):
            if R[j, j] == 0.0:
                R[j, j] = 1.0
        Z = np.ascontiguousarray(targets[h].T)
        X = np.empty((size, size))
        _fill_inverse(R, size, fixed, X)
        for e in range(errors.shape[1]):
            column = fixed + 2 * e
            cost = _removal_cost(X[column, column:size], X[column + 1, column:size], Z, column)
            errors[h, e] = np.sqrt(cost)
