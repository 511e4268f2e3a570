"""States of diagonal systems along signals, written where the signals stand.

Theory: ``theory/shared-metric.md``.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

__all__ = ["fill_states"]


@njit(cache=True, error_model="numpy")
def _fill_states(poles, delay, rows):
    """Fill one signal of :func:`fill_states`."""
    modes = poles.shape[0]
    state = np.zeros(2 * modes)
    for k in range(rows.shape[0]):
        row = rows[k]
        for i in range(modes):
            a = poles[i].real
            b = poles[i].imag
            x = state[2 * i]
            y = state[2 * i + 1]
            state[2 * i] = a * x - b * y + row[2 * i]
            state[2 * i + 1] = b * x + a * y + row[2 * i + 1]
            if delay == 1:
                row[2 * i] = x
                row[2 * i + 1] = y
            else:
                row[2 * i] = state[2 * i]
                row[2 * i + 1] = state[2 * i + 1]


@njit(cache=True, error_model="numpy", parallel=True)
def fill_states(poles, delay, rows):
    """Turn what drives the states, ``rows[s, k] = (Re Bu, Im Bu)``, into the states.

    ``poles`` (n,) complex128, ``delay`` 1 where the output sees the state before the update, else
    0, ``rows`` (S, T, 2 n) float64, any strides: (Re, Im) of every mode.
    """
    for s in prange(rows.shape[0]):
        _fill_states(poles, delay, rows[s])
