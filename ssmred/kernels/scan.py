"""Run the recurrence of diagonal systems along whole sequences."""

from __future__ import annotations

import numpy as np
from numba import njit, prange

__all__ = ["scan_states"]


@njit(cache=True, nogil=True, parallel=True)
def scan_states(poles: np.ndarray, states: np.ndarray) -> None:
    """Turn what drives the states into the states, in place: ``x_k = l x_{k-1} + v_k``.

    Parameters
    ----------
    poles : (n, 2) float64
        Real and imaginary parts, as of the states.
    states : (S, n, T, 2) float64
        ``v`` on entry, ``x`` afterwards.
    """
    n = poles.shape[0]
    for row in prange(states.shape[0] * n):
        stream, mode = row // n, row % n
        a, b = poles[mode, 0], poles[mode, 1]
        re, im = 0.0, 0.0
        for k in range(states.shape[2]):
            new_re = a * re - b * im + states[stream, mode, k, 0]
            im = a * im + b * re + states[stream, mode, k, 1]
            re = new_re
            states[stream, mode, k, 0] = re
            states[stream, mode, k, 1] = im
