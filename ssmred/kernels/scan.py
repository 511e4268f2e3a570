"""Run the recurrence of diagonal systems along whole sequences, and its adjoint back along them."""

from __future__ import annotations

from numba import njit, prange

__all__ = ["scan_costates", "scan_states"]

TOGETHER = 4  # modes in one loop: a step waits for the step before it, other modes do not


@njit(cache=True, nogil=True)
def _scan_four(poles, re, im, out_re, out_im):
    """Run four modes, (4, 2) and (4, T) each."""
    a0, b0, a1, b1 = poles[0, 0], poles[0, 1], poles[1, 0], poles[1, 1]
    a2, b2, a3, b3 = poles[2, 0], poles[2, 1], poles[3, 0], poles[3, 1]
    r0 = r1 = r2 = r3 = i0 = i1 = i2 = i3 = 0.0
    for k in range(re.shape[1]):
        new0 = a0 * r0 - b0 * i0 + re[0, k]
        new1 = a1 * r1 - b1 * i1 + re[1, k]
        new2 = a2 * r2 - b2 * i2 + re[2, k]
        new3 = a3 * r3 - b3 * i3 + re[3, k]
        i0 = a0 * i0 + b0 * r0 + im[0, k]
        i1 = a1 * i1 + b1 * r1 + im[1, k]
        i2 = a2 * i2 + b2 * r2 + im[2, k]
        i3 = a3 * i3 + b3 * r3 + im[3, k]
        r0, r1, r2, r3 = new0, new1, new2, new3
        out_re[0, k], out_re[1, k], out_re[2, k], out_re[3, k] = r0, r1, r2, r3
        out_im[0, k], out_im[1, k], out_im[2, k], out_im[3, k] = i0, i1, i2, i3


@njit(cache=True, nogil=True)
def _scan_one(a, b, re, im, out_re, out_im):
    """Run one mode, (T,) each."""
    r, i = 0.0, 0.0
    for k in range(re.shape[0]):
        new = a * r - b * i + re[k]
        i = a * i + b * r + im[k]
        r = new
        out_re[k], out_im[k] = r, i


@njit(cache=True, nogil=True, parallel=True)
def scan_states(poles, drive, states):
    """Fill in the states that ``v`` drives: ``x_k = l x_{k-1} + v_k``.

    Parameters
    ----------
    poles : (n, 2) float64
        Real and imaginary parts.
    drive : (S, 2, n, T) float64 or float32
        ``v``, all real parts before all imaginary ones.
    states : (S, 2, n, T)
        Filled with ``x``; may be `drive` itself. What is carried along is float64 in either case.
    """
    n = poles.shape[0]
    groups = (n + TOGETHER - 1) // TOGETHER
    for row in prange(drive.shape[0] * groups):
        stream, first = row // groups, TOGETHER * (row % groups)
        v, x = drive[stream], states[stream]
        if first + TOGETHER <= n:
            modes = slice(first, first + TOGETHER)
            _scan_four(poles[modes], v[0, modes], v[1, modes], x[0, modes], x[1, modes])
        else:
            for mode in range(first, n):
                a, b = poles[mode, 0], poles[mode, 1]
                _scan_one(a, b, v[0, mode], v[1, mode], x[0, mode], x[1, mode])


@njit(cache=True, nogil=True, parallel=True)
def scan_costates(poles, states, gradients, costates, slopes):
    """Fill in the adjoint states: ``p_k = conj(l) p_{k+1} + g_k``, and what they make of the poles.

    Complex gradients are derivatives by the real part plus i times those by the imaginary one: g of
    the states, p of what drives them, ``sum_k p_k conj(x_{k-1})`` of the poles.

    Parameters
    ----------
    poles : (n, 2) float64
    states, gradients, costates : (S, 2, n, T) float64 or float32
        x and g; p is filled in, and may be `gradients` itself.
    slopes : (S, n, 2) float64
        Filled with the gradients of the poles, sequence by sequence.
    """
    n, steps = states.shape[2:]
    for row in prange(states.shape[0] * n):
        stream, mode = row // n, row % n
        a, b = poles[mode, 0], poles[mode, 1]
        x_re, x_im = states[stream, 0, mode], states[stream, 1, mode]
        g_re, g_im = gradients[stream, 0, mode], gradients[stream, 1, mode]
        p_re, p_im = costates[stream, 0, mode], costates[stream, 1, mode]
        r = i = slope_re = slope_im = 0.0
        for k in range(steps - 1, -1, -1):
            new = a * r + b * i + g_re[k]
            i = a * i - b * r + g_im[k]
            r = new
            p_re[k], p_im[k] = r, i
            if k:
                slope_re += r * x_re[k - 1] + i * x_im[k - 1]
                slope_im += i * x_re[k - 1] - r * x_im[k - 1]
        slopes[stream, mode, 0], slopes[stream, mode, 1] = slope_re, slope_im
