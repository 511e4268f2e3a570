"""Upper bounds of ``int |h(t)| dt`` for sums of decaying exponentials.

Theory: ``theory/l1-gain.md``.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

__all__ = ["fill_absolute_integrals"]

UNIT = 2.0**-53


@njit(cache=True, parallel=True)
def fill_absolute_integrals(poles, residues, counts, excess, cells, out):
    """Fill bounds of the integral of ``|sum_i r_i exp(l_i t)|`` over t > 0.

    poles (H, N) with negative real parts, residues (H, N, K) complex128, counts (H,) int64, out
    (H, K) float64. Cells are as wide as ``excess`` allows, at most ``cells`` of them; what is left
    is bounded mode by mode.
    """
    width = residues.shape[2]
    for h in prange(poles.shape[0]):
        count = counts[h]
        value, slope = np.empty(width, np.complex128), np.empty(width, np.complex128)
        bend, size = np.empty(width), np.empty(width)
        start, whole = 0.0, 0.0
        out[h, :] = 0.0
        for i in range(count):
            for k in range(width):
                whole += abs(residues[h, i, k]) / -poles[h, i].real
        for _ in range(cells):
            mass, sharp, tail, fastest = 0.0, 0.0, 0.0, 0.0
            bend[:] = 0.0
            for i in range(count):
                decay, speed = np.exp(poles[h, i].real * start), abs(poles[h, i])
                fastest = max(fastest, speed)
                for k in range(width):
                    weight = abs(residues[h, i, k]) * decay
                    mass += weight
                    bend[k] += weight * speed * speed
                    tail += weight / -poles[h, i].real
            if tail <= 2.0**-44 * whole:
                break
            for k in range(width):
                sharp += bend[k]
            stop = start + 2.0 * np.sqrt(6.0 * excess * mass / sharp)
            centre, half = 0.5 * (start + stop), 0.5 * (stop - start)
            value[:], slope[:], size[:] = 0.0, 0.0, 0.0
            for i in range(count):
                pole = poles[h, i]
                growth = np.exp(pole * centre)
                for k in range(width):
                    term = residues[h, i, k] * growth
                    value[k] += term
                    slope[k] += term * pole
                    size[k] += abs(term) * (1.0 + abs(pole) * half)
            rounding = (4.0 * count + 32.0 + 4.0 * fastest * stop) * UNIT
            for k in range(width):
                left, right = abs(value[k] - half * slope[k]), abs(value[k] + half * slope[k])
                out[h, k] += 0.5 * half * (left + 2.0 * abs(value[k]) + right)
                out[h, k] += 1.001 * bend[k] * half**3 / 3.0 + 2.0 * half * rounding * size[k]
            start = stop
        for i in range(count):
            rate = -poles[h, i].real
            for k in range(width):
                out[h, k] += 1.001 * abs(residues[h, i, k]) * np.exp(-rate * start) / rate
        for k in range(width):
            out[h, k] *= 1.0 + (cells + 64.0) * UNIT
