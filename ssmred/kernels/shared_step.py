"""Fill one streaming step of a diagonal system with many inputs and outputs."""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["fill_shared_step"]


# sums may be taken in any order, so that they run in vector registers
@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def fill_shared_step(
    poles: np.ndarray,
    B: np.ndarray,
    C: np.ndarray,
    D: np.ndarray,
    delayed: bool,
    u: np.ndarray,
    state: np.ndarray,
    new_state: np.ndarray,
    y: np.ndarray,
) -> None:
    """Fill the next state and the output: ``x = l x + B u``, ``y = Re(C x) + D u``.

    Parameters
    ----------
    poles : (n, 2) float64
        Real and imaginary parts, as of B, C and the states.
    B : (n, m, 2) float64
    C : (p, n, 2) float64
    D : (p, m) or (p, 1) float64
        A diagonal is given as a column, with zeros for outputs beyond the m-th; it is told from a
        full matrix by its shape.
    delayed : bool
        The output sees the state before the update.
    u : (S, m) float
        Inputs of S independent streams.
    state, new_state : (S, n, 2) float64
        May be one array.
    y : (S, p) float
    """
    n, m = B.shape[0], B.shape[1]
    p = C.shape[0]
    diagonal = D.shape[1] == 1 and m > 1
    drive = np.empty(m)
    seen = np.empty((n, 2))
    for stream in range(u.shape[0]):
        for j in range(m):
            drive[j] = np.float64(u[stream, j])
        for mode in range(n):
            re, im = 0.0, 0.0
            for j in range(m):
                re += B[mode, j, 0] * drive[j]
                im += B[mode, j, 1] * drive[j]
            old_re, old_im = state[stream, mode, 0], state[stream, mode, 1]
            re += poles[mode, 0] * old_re - poles[mode, 1] * old_im
            im += poles[mode, 0] * old_im + poles[mode, 1] * old_re
            if delayed:
                seen[mode, 0], seen[mode, 1] = old_re, old_im
            else:
                seen[mode, 0], seen[mode, 1] = re, im
            new_state[stream, mode, 0] = re
            new_state[stream, mode, 1] = im
        for i in range(p):
            answer = 0.0
            for mode in range(n):
                answer += C[i, mode, 0] * seen[mode, 0] - C[i, mode, 1] * seen[mode, 1]
            if diagonal:
                if i < m:
                    answer += D[i, 0] * drive[i]
            else:
                for j in range(m):
                    answer += D[i, j] * drive[j]
            y[stream, i] = answer
