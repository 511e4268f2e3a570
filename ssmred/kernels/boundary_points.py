"""Points of the upper half of the stability boundary, and distances from them to poles.

A point is ``(re, re_low, im, im_low, excess, rot_re, rot_im)``: a complex double-double z,
``|z| - 1``, and ``exp(-j w / 2)``. On the circle it stands for ``z / |z|``, so poles one unit in
the last place from the circle have as many points next to them as any other. On the imaginary axis
excess is 0 and the rotation is 1; infinity is a point.

Theory: ``theory/hinf-enclosure.md``.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from ssmred.kernels.powers import dd_add, one_minus_product, two_product, two_sum

__all__ = ["angle_of", "axis_point", "circle_point", "distance", "fill_anchors", "middle"]


@njit(cache=True)
def axis_point(high, low):
    """Return the point ``j (high + low)`` of the imaginary axis."""
    return 0.0, 0.0, high, low, 0.0, 1.0, 0.0


@njit(cache=True)
def circle_point(re, re_low, im, im_low):
    """Return the point z / |z| of the upper half circle, for z within rounding of it."""
    gap = one_minus_product((re, re_low, im, im_low), (re, re_low, -im, -im_low)).real
    excess = -gap / (1.0 + np.sqrt(re * re + im * im))
    if re >= 0.0:
        cosine = np.sqrt(0.5 * (1.0 + re))
        sine = 0.5 * im / cosine
    else:
        sine = np.sqrt(0.5 * (1.0 - re))
        cosine = 0.5 * im / sine
    return re, re_low, im, im_low, excess, cosine, -sine


@njit(cache=True, inline="always")
def distance(point, pole):
    """Return the vector from the pole to the point, accurate relative to its length."""
    re = (point[0] - pole.real) + (point[1] - point[4] * pole.real)
    im = (point[2] - pole.imag) + (point[3] - point[4] * pole.imag)
    return re, im


@njit(cache=True)
def _scaled(high, low, factor):
    """Return the double-double (high + low) * factor."""
    product, error = two_product(high, factor)
    return two_sum(product, error + low * factor)


@njit(cache=True)
def middle(a, b, continuous):
    """Return a point strictly between two neighbours, or b itself where there is none."""
    if not continuous:
        re, re_low = dd_add(a[0], a[1], b[0], b[1])
        im, im_low = dd_add(a[2], a[3], b[2], b[3])
        factor = 1.0 / np.sqrt(re * re + im * im)
        re, re_low = _scaled(re, re_low, factor)
        im, im_low = _scaled(im, im_low, factor)
        between = circle_point(re, re_low, im, im_low)
    elif np.isinf(b[2]):
        if a[2] > 1e290:
            return b
        between = axis_point(4.0 * a[2] if a[2] > 0.0 else 1.0, 0.0)
    elif b[2] > 4.0 * a[2] and a[2] > 0.0:
        between = axis_point(np.sqrt(a[2]) * np.sqrt(b[2]), 0.0)
    else:
        high, low = dd_add(a[2], a[3], b[2], b[3])
        between = axis_point(0.5 * high, 0.5 * low)
    same_a = between[0] == a[0] and between[1] == a[1] and between[2] == a[2] and between[3] == a[3]
    return b if same_a else between


@njit(cache=True)
def angle_of(point, continuous):
    """Return the frequency of a point, rad per sample or rad per unit time, at least 0."""
    if continuous:
        return point[2]
    return np.arctan2(point[2], point[0])


@njit(cache=True)
def fill_anchors(poles, count, continuous, anchors):
    """Fill points from one end of the half boundary to the other, next to the poles.

    poles (N,) complex128, anchors (3 N + 3, 7) float64; return how many were filled.
    """
    keys = np.empty(3 * count + 3)
    raw = np.empty((3 * count + 3, 2))
    number = 0
    if continuous:
        raw[0, 0], raw[1, 0] = 0.0, np.inf
        number = 2
        for i in range(count):
            centre, width = poles[i].imag, abs(poles[i].real)
            if centre >= 0.0:
                for shift in (-width, 0.0, width):
                    if centre + shift > 0.0:
                        raw[number, 0] = centre + shift
                        number += 1
        for k in range(number):
            keys[k] = raw[k, 0]
    else:
        raw[0], raw[1], raw[2] = (1.0, 0.0), (0.0, 1.0), (-1.0, 0.0)
        number = 3
        for i in range(count):
            radius = abs(poles[i])
            if poles[i].imag < 0.0 or radius == 0.0 or radius > 1e150:
                continue
            unit = poles[i] / radius
            gap = abs(1.0 - radius)
            steps = 1 if 4.0 * count * gap < 1.0 else 0
            for k in range(-steps, steps + 1):
                z = unit * complex(1.0, k * gap)
                z = z / abs(z)
                if z.imag >= 0.0:
                    raw[number, 0], raw[number, 1] = z.real, z.imag
                    number += 1
        for k in range(number):
            side = max(np.arctan2(raw[k, 1], abs(raw[k, 0])), 1e-300)
            keys[k] = -1.0 / side if raw[k, 0] >= 0.0 else 1.0 / side
    filled = 0
    for k in np.argsort(keys[:number]):
        if continuous:
            point = axis_point(raw[k, 0], 0.0)
        else:
            point = circle_point(raw[k, 0], 0.0, raw[k, 1], 0.0)
        if filled > 0 and anchors[filled - 1, 0] == point[0] and anchors[filled - 1, 2] == point[2]:
            continue
        for c in range(7):
            anchors[filled, c] = point[c]
        filled += 1
    return filled
