"""Frequencies spaced evenly in the Blaschke phase of the poles, and transfer values there.

Theory: ``theory/finite-horizon-gain.md``.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from ssmred.kernels.powers import one_minus_product

__all__ = ["fill_phase_grid", "fill_transfer_values"]

STACK = 256  # pending arcs; one bisection adds one, so depth is the limit
ANGLE_SLACK = 1e-15  # rounding of one subtended angle


@njit(cache=True, inline="always")
def _excess(z):
    """Return ``|z| - 1`` for z near the circle, to relative accuracy."""
    gap = one_minus_product((z.real, 0.0, z.imag, 0.0), (z.real, 0.0, -z.imag, 0.0)).real
    return -gap / (1.0 + abs(z))


@njit(cache=True, inline="always")
def _offset(z, excess, pole):
    """Return ``z/|z| - pole`` times ``|z|``: the distance from the circle, not from the float z."""
    return (z - pole) - excess * pole


@njit(cache=True)
def _phase_gap(za, ea, zb, eb, poles, count):
    """Return an upper bound of the growth of the half Blaschke phase from za to zb.

    Sum over the poles of the angle under which the arc is seen from the pole, minus half the arc.
    """
    turn = zb * za.conjugate()
    arc = np.arctan2(turn.imag, turn.real)
    total = 0.0
    for i in range(count):
        seen = _offset(zb, eb, poles[i]) * _offset(za, ea, poles[i]).conjugate()
        angle = np.arctan2(seen.imag, seen.real)
        if angle < -1.0:  # an inner point sees an arc of at most pi/2 under less than 5 pi / 4
            angle += 2.0 * np.pi
        total += max(angle, 0.5 * arc) - 0.5 * arc + ANGLE_SLACK
    return total


@njit(cache=True)
def _expand(poles, count, real, out):
    """Fill ``out`` with the poles in use and their conjugates (real systems); return how many."""
    full = 0
    for i in range(count):
        out[full] = poles[i]
        full += 1
        if real and poles[i].imag != 0.0:
            out[full] = poles[i].conjugate()
            full += 1
    return full


@njit(cache=True, parallel=True)
def fill_phase_grid(poles, counts, real, target, grid, used, gaps):
    """Fill points of the circle whose neighbours are at most ``target`` apart in half phase.

    poles (H, n) complex128, counts (H,) int64, grid (H, G) complex128 (half the circle for real
    systems), used (H,) int64 points (more than G if G is too small), gaps (H,) float64 the largest
    gap met. Arcs are bisected until they fit or float64 has no point between.
    """
    quarters = np.array([1.0 + 0.0j, 1.0j, -1.0 + 0.0j, -1.0j, 1.0 + 0.0j])
    for h in prange(poles.shape[0]):
        full_poles = np.empty(2 * poles.shape[1], np.complex128)
        full = _expand(poles[h], counts[h], real, full_poles)
        pending = np.empty(STACK, np.complex128)
        grid[h, 0] = quarters[0]
        number = 1
        largest = 0.0
        for quarter in range(2 if real else 4):
            left = quarters[quarter]
            left_excess = 0.0
            pending[0] = quarters[quarter + 1]
            top = 1
            while top > 0:
                right = pending[top - 1]
                right_excess = _excess(right)
                gap = _phase_gap(left, left_excess, right, right_excess, full_poles, full)
                if gap > target and top < STACK:
                    middle = left + right
                    middle = middle / abs(middle)
                    if middle != left and middle != right:
                        pending[top] = middle
                        top += 1
                        continue
                largest = max(largest, gap)
                if number < grid.shape[1]:
                    grid[h, number] = right
                number += 1
                left, left_excess = right, right_excess
                top -= 1
        used[h] = number
        gaps[h] = largest


@njit(cache=True, parallel=True)
def fill_transfer_values(poles, residues, direct, counts, real, grid, used, values, sizes):
    """Fill ``H(z) = d + sum_i r_i / (z - l_i)`` on the circle points z/|z| of a grid.

    poles (H, n), residues (H, n, K), direct (H, K), grid (H, G) complex128; values (H, G, K)
    complex128 and sizes (H, G, K) float64, the sums of moduli that bound the rounding. Slots
    beyond ``used`` are zero.
    """
    outputs = direct.shape[1]
    for h in prange(poles.shape[0]):
        for g in range(grid.shape[1]):
            if g >= used[h]:
                values[h, g, :] = 0.0
                sizes[h, g, :] = 0.0
                continue
            z = grid[h, g]
            excess = _excess(z)
            for a in range(outputs):
                values[h, g, a] = direct[h, a]
                sizes[h, g, a] = abs(direct[h, a])
            for i in range(counts[h]):
                pole = poles[h, i]
                one = 1.0 / _offset(z, excess, pole)
                if real and pole.imag != 0.0:
                    two = 1.0 / _offset(z, excess, pole.conjugate())
                    for a in range(outputs):
                        r = 0.5 * residues[h, i, a]
                        values[h, g, a] += r * one + r.conjugate() * two
                        sizes[h, g, a] += abs(r) * (abs(one) + abs(two))
                else:
                    for a in range(outputs):
                        values[h, g, a] += residues[h, i, a] * one
                        sizes[h, g, a] += abs(residues[h, i, a]) * abs(one)
