"""Run the recurrence of diagonal systems along whole sequences."""

from __future__ import annotations

from numba import njit, prange

__all__ = ["scan_states"]

TOGETHER = 4  # modes in one loop: a step waits for the step before it, other modes do not


@njit(cache=True, nogil=True)
def _scan_four(poles, states):
    """Run four modes, (4, 2) and (4, T, 2)."""
    a0, b0, a1, b1 = poles[0, 0], poles[0, 1], poles[1, 0], poles[1, 1]
    a2, b2, a3, b3 = poles[2, 0], poles[2, 1], poles[3, 0], poles[3, 1]
    r0 = r1 = r2 = r3 = i0 = i1 = i2 = i3 = 0.0
    for k in range(states.shape[1]):
        new0 = a0 * r0 - b0 * i0 + states[0, k, 0]
        new1 = a1 * r1 - b1 * i1 + states[1, k, 0]
        new2 = a2 * r2 - b2 * i2 + states[2, k, 0]
        new3 = a3 * r3 - b3 * i3 + states[3, k, 0]
        i0 = a0 * i0 + b0 * r0 + states[0, k, 1]
        i1 = a1 * i1 + b1 * r1 + states[1, k, 1]
        i2 = a2 * i2 + b2 * r2 + states[2, k, 1]
        i3 = a3 * i3 + b3 * r3 + states[3, k, 1]
        r0, r1, r2, r3 = new0, new1, new2, new3
        states[0, k, 0], states[0, k, 1] = r0, i0
        states[1, k, 0], states[1, k, 1] = r1, i1
        states[2, k, 0], states[2, k, 1] = r2, i2
        states[3, k, 0], states[3, k, 1] = r3, i3


@njit(cache=True, nogil=True)
def _scan_one(a, b, states):
    """Run one mode, (T, 2)."""
    re, im = 0.0, 0.0
    for k in range(states.shape[0]):
        new_re = a * re - b * im + states[k, 0]
        im = a * im + b * re + states[k, 1]
        re = new_re
        states[k, 0], states[k, 1] = re, im


@njit(cache=True, nogil=True, parallel=True)
def scan_states(poles, states):
    """Turn what drives the states into the states, in place: ``x_k = l x_{k-1} + v_k``.

    Parameters
    ----------
    poles : (n, 2) float64
        Real and imaginary parts, as of the states.
    states : (S, n, T, 2) float64 or float32
        ``v`` on entry, ``x`` afterwards. What is carried along is float64 in either case.
    """
    n = poles.shape[0]
    groups = (n + TOGETHER - 1) // TOGETHER
    for row in prange(states.shape[0] * groups):
        stream, first = row // groups, TOGETHER * (row % groups)
        if first + TOGETHER <= n:
            modes = slice(first, first + TOGETHER)
            _scan_four(poles[modes], states[stream, modes])
        else:
            for mode in range(first, n):
                _scan_one(poles[mode, 0], poles[mode, 1], states[stream, mode])
