"""Transfer values at boundary points, with their rounding and the half Blaschke phase.

Theory: ``theory/hinf-enclosure.md``.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from ssmred.kernels.boundary_points import distance

__all__ = ["dense_value", "diagonal_value", "fill_pole_turns"]

UNIT = 2.0**-53
SMALLEST, LARGEST = 1e-280, 1e280  # squares of distances that a plain division handles


@njit(cache=True)
def fill_pole_turns(poles, count, continuous, turns):
    """Fill ``exp(-j phi / 2)``, phi the angle of the pole from -pi/2 on; 1 for the axis."""
    for i in range(count):
        if continuous or poles[i] == 0.0:
            turns[i] = 1.0
            continue
        phi = np.arctan2(poles[i].imag, poles[i].real)
        if phi < -0.5 * np.pi:
            phi += 2.0 * np.pi
        turns[i] = complex(np.cos(0.5 * phi), -np.sin(0.5 * phi))


@njit(cache=True, inline="always")
def _phase(re, im, turn, outside):
    """Return the half Blaschke phase of one pole, of its mirror image if it is outside."""
    along = re * turn.real - im * turn.imag
    across = re * turn.imag + im * turn.real
    return np.arctan2(across, -along if outside else along)


@njit(cache=True)
def _spectral_norm(values, p, m):
    """Return the largest singular value of values (p m,) and a bound of its relative error."""
    size = 0.0
    for a in range(p * m):
        size = max(size, abs(values[a]))
    if size == 0.0 or not np.isfinite(size):
        return size, 0.0
    if p == 1 and m == 1:
        return size, 4.0 * UNIT
    if p == 1 or m == 1:
        total = 0.0
        for a in range(p * m):
            re, im = values[a].real / size, values[a].imag / size
            total += re * re + im * im
        return size * np.sqrt(total), (p * m + 8.0) * UNIT
    matrix = (values / size).reshape((p, m))
    return size * np.linalg.norm(matrix, 2), 64.0 * max(p, m) * UNIT


@njit(cache=True)
def diagonal_value(point, poles, turns, outside, count, residues, direct, p, m, values):
    """Return ``||H||``, a bound of its error, and the half phase, for ``d + sum r / (z - l)``."""
    outputs = p * m
    phase = 0.0
    size = 0.0
    turn = complex(point[5], point[6])
    for a in range(outputs):
        values[a] = direct[a]
        size += abs(direct[a])
    if np.isinf(point[2]):
        norm, relative = _spectral_norm(values, p, m)
        return norm, relative * norm, 0.5 * np.pi * count
    if outputs == 1:
        re_sum, im_sum = direct[0].real, direct[0].imag
    else:
        re_sum, im_sum = 0.0, 0.0
    for i in range(count):
        re, im = distance(point, poles[i])
        phase += _phase(re, im, turn * turns[i], outside[i])
        square = re * re + im * im
        if SMALLEST < square < LARGEST:
            inverse = 1.0 / square
            one = complex(re * inverse, -im * inverse)
        else:
            one = 1.0 / complex(re, im)
        if outputs == 1:
            term = residues[i, 0] * one
            re_sum += term.real
            im_sum += term.imag
            size += abs(term.real) + abs(term.imag)
        else:
            length = abs(one)
            for a in range(outputs):
                values[a] += residues[i, a] * one
                size += abs(residues[i, a]) * length
    if outputs == 1:
        values[0] = complex(re_sum, im_sum)
    norm, relative = _spectral_norm(values, p, m)
    return norm, relative * norm + (2.0 * count + 24.0) * UNIT * size, phase


@njit(cache=True)
def dense_value(point, poles, turns, outside, T, sizes, B, C, direct, weights, x, y, load, values):
    """Return ``||H||``, bounds of its rounding and its sensitivity, the half phase, and norms.

    T (N, N) upper triangular complex128 with diagonal ``poles``, sizes its moduli; B (N, m),
    C (p, N), direct (p m,); x (N, m), y (p, N), load (N, m) and values (p m,) are work space.
    ``x = (z - T)^{-1} B``, ``y = C (z - T)^{-1}``. Return norm, error, phase, ``||W x||`` and
    ``||y W||``, W the weights (N,) on the diagonal.
    """
    count, m, p = T.shape[0], B.shape[1], C.shape[0]
    turn = complex(point[5], point[6])
    for a in range(p * m):
        values[a] = direct[a]
    if np.isinf(point[2]):
        norm, relative = _spectral_norm(values, p, m)
        return norm, relative * norm, 0.5 * np.pi * count, 0.0, 0.0
    phase = 0.0
    for i in range(count - 1, -1, -1):
        re, im = distance(point, poles[i])
        phase += _phase(re, im, turn * turns[i], outside[i])
        gap = complex(re, im)
        for b in range(m):
            total, heavy = B[i, b], 0.0
            for k in range(i + 1, count):
                total += T[i, k] * x[k, b]
                heavy += sizes[i, k] * (abs(x[k, b].real) + abs(x[k, b].imag))
            x[i, b] = total / gap
            load[i, b] = heavy + abs(gap) * abs(x[i, b])
    x_square, y_square, error_square, direct_size = 0.0, 0.0, 0.0, 0.0
    for a in range(p):
        for k in range(count):
            y[a, k] = C[a, k]
        for i in range(count):
            re, im = distance(point, poles[i])
            y[a, i] = y[a, i] / complex(re, im)
            value = y[a, i]
            for k in range(i + 1, count):
                y[a, k] += value * T[i, k]
    for i in range(count):
        for b in range(m):
            x_square += (weights[i] * x[i, b].real) ** 2 + (weights[i] * x[i, b].imag) ** 2
        for a in range(p):
            y_square += (weights[i] * y[a, i].real) ** 2 + (weights[i] * y[a, i].imag) ** 2
    for a in range(p):
        for b in range(m):
            error = 0.0
            for i in range(count):
                values[a * m + b] += C[a, i] * x[i, b]
                error += abs(y[a, i]) * load[i, b] + abs(C[a, i]) * abs(x[i, b])
            direct_size += abs(direct[a * m + b])
            error_square += error * error
    norm, relative = _spectral_norm(values, p, m)
    x_norm, y_norm = np.sqrt(x_square), np.sqrt(y_square)
    rounding = (count + 16.0) * UNIT * (np.sqrt(error_square) + direct_size)
    return norm, relative * norm + rounding, phase, x_norm, y_norm
