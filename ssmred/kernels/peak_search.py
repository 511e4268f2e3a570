"""Branch and bound for the largest transfer value on the stability boundary.

Cells between neighbouring points are bounded from their two ends; a cell that cannot hold more
than the best value so far (times ``1 + rtol``) is dropped, the others are cut. Depth first, so the
memory does not depend on the number of points.

Theory: ``theory/hinf-enclosure.md``.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from ssmred.kernels.boundary_points import angle_of, fill_anchors, middle
from ssmred.kernels.boundary_values import dense_value, diagonal_value, fill_pole_turns

__all__ = ["WIDEST", "fill_dense_peaks", "fill_diagonal_peaks"]

UNIT = 2.0**-53
WIDEST = 1.5  # half phase of the widest cell that may be dropped, below pi / 2
STACK = 2048  # pending cells; one cut adds one, so depth is the limit
STEPS = 60  # cuts of the local search for the first lower bound
FINE = 1e-6  # half phase at which it stops
CLEARLY = 1.0 + 256.0 * UNIT  # a peak at 0 or pi is left for a gain, not for a rounding
STRANDS = 16  # shares of the cells of one dense system


@njit(cache=True)
def _cell_bound(a, b, width):
    """Bound the maximum of a cell of half phase ``width`` <= WIDEST from the values at its ends."""
    cosine = np.cos(width)
    if a < b * cosine:
        return a / cosine * (1.0 + 8.0 * UNIT)
    if b < a * cosine:
        return b / cosine * (1.0 + 8.0 * UNIT)
    half = np.sin(0.5 * width)
    largest = max(a, b)
    if largest == 0.0 or half == 0.0 or not np.isfinite(largest):
        return largest * (1.0 + 8.0 * UNIT)
    # |circle through both ends|: ((a - b)^2 + 4 a b sin^2(w / 2)) / sin^2 w
    skew, even = (a - b) / largest, np.sqrt((a / largest) * (b / largest))
    radius = largest * np.hypot(skew, 2.0 * even * half) / np.sin(width)
    return max(radius, largest) * (1.0 + 32.0 * UNIT)


@njit(cache=True)
def _point(row):
    return row[0], row[1], row[2], row[3], row[4], row[5], row[6]


@njit(cache=True)
def _sample(point, data):
    """Return norm, error, half phase, ||x||, ||y|| at a point."""
    poles, turns, outside, residues, direct, p, m, values, T, sizes, B, C, weights, x, y, load = (
        data
    )
    if T.shape[0] > 0:
        return dense_value(
            point, poles, turns, outside, T, sizes, B, C, direct, weights, x, y, load, values
        )
    count = poles.shape[0]
    norm, error, phase = diagonal_value(
        point, poles, turns, outside, count, residues, direct, p, m, values
    )
    return norm, error, phase, 0.0, 0.0


@njit(cache=True)
def _climb(anchors, samples, filled, continuous, data):
    """Return the best value less its error near the best anchor, and its point."""
    best = 0
    for k in range(filled):
        if samples[k, 0] - samples[k, 1] > samples[best, 0] - samples[best, 1]:
            best = k
    left, right = max(best - 1, 0), min(best + 1, filled - 1)
    a, b, c = _point(anchors[left]), _point(anchors[best]), _point(anchors[right])
    phase_a, phase_b, phase_c = samples[left, 2], samples[best, 2], samples[right, 2]
    value = samples[best, 0] - samples[best, 1]
    for _ in range(STEPS):
        if phase_c - phase_a < FINE:
            break
        if phase_b - phase_a > phase_c - phase_b:
            trial = middle(a, b, continuous)
            norm, error, phase, _, _ = _sample(trial, data)
            if norm - error > value * CLEARLY:
                c, phase_c, b, phase_b, value = b, phase_b, trial, phase, norm - error
            else:
                a, phase_a = trial, phase
        else:
            trial = middle(b, c, continuous)
            norm, error, phase, _, _ = _sample(trial, data)
            if norm - error > value * CLEARLY:
                a, phase_a, b, phase_b, value = b, phase_b, trial, phase, norm - error
            else:
                c, phase_c = trial, phase
    return value, b


@njit(cache=True)
def _search(anchors, samples, first, step, filled, lower, rtol, slack, continuous, data):
    """Search cells first, first + step, ...; return lower, upper, best point, max ||x||, ||y||."""
    best = _point(anchors[first if first < filled else 0])
    found, upper, x_max, y_max = lower, 0.0, 0.0, 0.0
    pending = np.empty((STACK, 9))
    floor = np.sqrt(rtol)
    for k in range(first, filled - 1, step):
        left, left_value = _point(anchors[k]), samples[k, 0] + samples[k, 1]
        left_phase = samples[k, 2]
        pending[0, :7] = anchors[k + 1]
        pending[0, 7] = samples[k + 1, 0] + samples[k + 1, 1]
        pending[0, 8] = samples[k + 1, 2]
        top = 1
        while top > 0:
            right_value, right_phase = pending[top - 1, 7], pending[top - 1, 8]
            width = max(right_phase - left_phase, 0.0) + slack
            bound = np.inf
            if width <= WIDEST:
                bound = _cell_bound(left_value, right_value, width)
            if not bound <= found * (1.0 + rtol) and (width > floor or width > WIDEST):
                right = _point(pending[top - 1])
                point = middle(left, right, continuous)
                same = point[0] == right[0] and point[1] == right[1]
                same = same and point[2] == right[2] and point[3] == right[3]
                if top < STACK and not same:
                    norm, error, phase, x_norm, y_norm = _sample(point, data)
                    x_max, y_max = max(x_max, x_norm), max(y_max, y_norm)
                    if norm - error > found:
                        found, best = norm - error, point
                    for c in range(7):
                        pending[top, c] = point[c]
                    pending[top, 7], pending[top, 8] = norm + error, phase
                    top += 1
                    continue
            if bound > upper or np.isnan(bound):
                upper = bound
            left, left_value = _point(pending[top - 1]), right_value
            left_phase = right_phase
            top -= 1
    return found, upper, best, x_max, y_max


@njit(cache=True)
def _outside(poles, continuous):
    out = np.empty(poles.shape[0], np.bool_)
    for i in range(poles.shape[0]):
        out[i] = poles[i].real > 0.0 if continuous else abs(poles[i]) > 1.0
    return out


@njit(cache=True)
def _phase_slack(count):
    """Bound the rounding of the difference of two half phases of ``count`` poles."""
    return count * (4e-15 + 3.0 * count * UNIT) + 1e-15


@njit(cache=True, parallel=True)
def fill_diagonal_peaks(
    poles, residues, direct, counts, p, m, halves, continuous, rtol, lower, upper, frequency
):
    """Fill enclosures of ``max ||d + sum_i r_i / (z - l_i)||_2`` over the stability boundary.

    poles (H, N) none of them on the boundary, residues (H, N, p m), direct (H, p m) complex128,
    counts (H,) int64, halves 1 (the map is real: upper half only) or 2; lower, upper, frequency
    (H,) float64, the frequency in rad per sample or unit time, negative on the lower half.
    """
    for h in prange(poles.shape[0]):
        count = counts[h]
        none = np.empty((0, 0), np.complex128)
        low, high, at = 0.0, 0.0, 0.0
        for half in range(halves):
            own = poles[h, :count].copy()
            weights = residues[h, :count].copy()
            through = direct[h].copy()
            if half == 1:
                own, weights, through = np.conj(own), np.conj(weights), np.conj(through)
            turns = np.empty(count, np.complex128)
            fill_pole_turns(own, count, continuous, turns)
            data = (
                own, turns, _outside(own, continuous), weights, through, p, m,
                np.empty(p * m, np.complex128), none, np.empty((0, 0)), none, none, np.empty(0),
                none, none, np.empty((0, 0)),
            )  # fmt: skip
            anchors = np.empty((3 * count + 3, 7))
            filled = fill_anchors(own, count, continuous, anchors)
            samples = np.empty((filled, 3))
            for k in range(filled):
                samples[k, 0], samples[k, 1], samples[k, 2], _, _ = _sample(
                    _point(anchors[k]), data
                )
            value, point = _climb(anchors, samples, filled, continuous, data)
            sign = 1.0 if half == 0 else -1.0
            if value > low or half == 0:
                low, at = max(value, 0.0), sign * angle_of(point, continuous)
            value, bound, point, _, _ = _search(
                anchors, samples, 0, 1, filled, low, rtol, _phase_slack(count), continuous, data
            )
            if value > low:
                low, at = value, sign * angle_of(point, continuous)
            if bound > high or np.isnan(bound):
                high = bound
        lower[h], upper[h], frequency[h] = low, max(high, low), at


@njit(cache=True)
def _dense_data(T, sizes, B, C, direct, weights, turns, outside):
    """Return what ``_sample`` needs, with work space of its own."""
    count, m, p = T.shape[0], B.shape[1], C.shape[0]
    poles = np.empty(count, np.complex128)
    for i in range(count):
        poles[i] = T[i, i]
    return (
        poles, turns, outside, np.empty((0, 0), np.complex128), direct, p, m,
        np.empty(p * m, np.complex128), T, sizes, B, C, weights,
        np.empty((count, m), np.complex128), np.empty((p, count), np.complex128),
        np.empty((count, m)),
    )  # fmt: skip


@njit(cache=True, parallel=True)
def _fill_dense_samples(anchors, filled, T, sizes, B, C, direct, weights, turns, outside, samples):
    """Fill norm, error, half phase, ||x||, ||y|| at the anchors."""
    for strand in prange(STRANDS):
        work = _dense_data(T, sizes, B, C, direct, weights, turns, outside)
        for k in range(np.int64(strand), filled, STRANDS):
            norm, error, phase, x_norm, y_norm = _sample(_point(anchors[k]), work)
            samples[k, 0], samples[k, 1], samples[k, 2] = norm, error, phase
            samples[k, 3], samples[k, 4] = x_norm, y_norm


@njit(cache=True, parallel=True)
def _fill_dense_search(
    anchors,
    filled,
    samples,
    lower,
    rtol,
    continuous,
    T,
    sizes,
    B,
    C,
    direct,
    weights,
    turns,
    outside,
    found,
):
    """Fill lower, upper, frequency, max ||x||, max ||y|| of each strand."""
    for strand in prange(STRANDS):
        work = _dense_data(T, sizes, B, C, direct, weights, turns, outside)
        slack = _phase_slack(T.shape[0])
        value, bound, point, x_norm, y_norm = _search(
            anchors,
            samples,
            np.int64(strand),
            STRANDS,
            filled,
            lower,
            rtol,
            slack,
            continuous,
            work,
        )
        found[strand, 0], found[strand, 1] = value, bound
        found[strand, 2] = angle_of(point, continuous)
        found[strand, 3], found[strand, 4] = x_norm, y_norm


@njit(cache=True)
def fill_dense_peaks(T, B, C, direct, weights, continuous, rtol, out):
    """Fill the same for ``C (z - T)^{-1} B + D`` on the upper half of the boundary.

    T (N, N) upper triangular, N > 0, no diagonal entry on the boundary, B (N, m), C (p, N),
    direct (p m,) complex128, weights W (N,) float64; out (5,) float64: lower, upper, frequency, and
    the largest ``||W (z - T)^{-1} B||_F`` and ``||C (z - T)^{-1} W||_F``. ``out[0]`` comes in as a
    value that the maximum is known to reach elsewhere.
    """
    count = T.shape[0]
    sizes = np.abs(T)
    turns = np.empty(count, np.complex128)
    poles = np.diag(T).copy()
    fill_pole_turns(poles, count, continuous, turns)
    outside = _outside(poles, continuous)
    anchors = np.empty((3 * count + 3, 7))
    filled = fill_anchors(poles, count, continuous, anchors)
    samples, found = np.empty((filled, 5)), np.empty((STRANDS, 5))
    _fill_dense_samples(anchors, filled, T, sizes, B, C, direct, weights, turns, outside, samples)
    data = _dense_data(T, sizes, B, C, direct, weights, turns, outside)
    value, point = _climb(anchors, samples, filled, continuous, data)
    known, out[1] = out[0], 0.0
    out[0], out[2] = max(value, 0.0), angle_of(point, continuous)
    out[3], out[4] = np.max(samples[:, 3]), np.max(samples[:, 4])
    start = max(known, out[0])
    _fill_dense_search(
        anchors, filled, samples, start, rtol, continuous, T, sizes, B, C, direct, weights, turns,
        outside, found,
    )  # fmt: skip
    for strand in range(STRANDS):
        if found[strand, 0] > start and found[strand, 0] > out[0]:
            out[0], out[2] = found[strand, 0], found[strand, 2]
        for c in (1, 3, 4):
            if found[strand, c] > out[c] or np.isnan(found[strand, c]):
                out[c] = found[strand, c]
    out[1] = max(out[1], out[0])
