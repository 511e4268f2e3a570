"""Fill one streaming step of ragged diagonal systems."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def fill_step(
    poles: np.ndarray,
    residues: np.ndarray,
    D: np.ndarray,
    offsets: np.ndarray,
    u: np.ndarray,
    state: np.ndarray,
    new_state: np.ndarray,
    y: np.ndarray,
) -> None:
    """Fill the next state and the output: ``x = l x + u``, ``y = Re(sum r x) + D u``.

    Parameters
    ----------
    poles, residues : (K, 2) float64
        Real and imaginary parts, channel after channel.
    D : (H,) float64
    offsets : (H + 1,) int64
        Channel h owns the modes ``offsets[h]`` to ``offsets[h + 1]``.
    u : (S, H) float
        Inputs of S independent streams.
    state, new_state : (S, K, 2) float64
        May be one array.
    y : (S, H) float
    """
    for stream in range(u.shape[0]):
        for channel in range(D.size):
            value = np.float64(u[stream, channel])
            answer = D[channel] * value
            for mode in range(offsets[channel], offsets[channel + 1]):
                old_re, old_im = state[stream, mode, 0], state[stream, mode, 1]
                pole_re, pole_im = poles[mode, 0], poles[mode, 1]
                re = pole_re * old_re - pole_im * old_im + value
                im = pole_re * old_im + pole_im * old_re
                new_state[stream, mode, 0] = re
                new_state[stream, mode, 1] = im
                answer += residues[mode, 0] * re - residues[mode, 1] * im
            y[stream, channel] = answer
