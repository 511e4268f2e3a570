"""The diagonal-plus-low-rank form of S4 in real matrices: discretise, twist and untwist C.

With the conjugates written out, ``A = diag(L, conj L) - P P^*`` has N = 2n complex states. In the
coordinates ``sqrt(2) (Re x, Im x)``, a unitary change, everything is real:
``A = [[Re L, -Im L], [Im L, Re L]] - 2 sum_r (Re P_r, Im P_r) (Re P_r, Im P_r)^T``,
``B = sqrt(2) (Re B, Im B)``, ``C = sqrt(2) (Re C, -Im C)``.
"""

from __future__ import annotations

import numpy as np

from ssmred.errors import CheckpointError, message

__all__ = ["dense_heads", "half_read_out", "real_read_out", "twisted", "untwisted"]

ROOT = np.sqrt(2.0)


def dense_heads(
    L: np.ndarray, P: np.ndarray, B: np.ndarray, dt: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return ``(I - dt A / 2)^{-1} (I + dt A / 2)`` and ``(I - dt A / 2)^{-1} dt B``, real.

    Parameters
    ----------
    L, B : (H, n) complex128
    P : (rank, H, n) complex128
    dt : (H,) float64

    Returns
    -------
    A : (H, 2n, 2n) float64
    B : (H, 2n) float64
    """
    n = L.shape[1]
    A = np.zeros((len(L), 2 * n, 2 * n))
    upper, lower = np.arange(n), np.arange(n, 2 * n)
    A[:, upper, upper] = A[:, lower, lower] = L.real
    A[:, upper, lower], A[:, lower, upper] = -L.imag, L.imag
    columns = np.concatenate([P.real, P.imag], axis=-1)  # (rank, H, 2n)
    A -= 2.0 * np.einsum("rhi,rhj->hij", columns, columns)
    half = A * (dt / 2.0)[:, None, None]
    identity = np.eye(2 * n)
    right = np.concatenate(
        [
            identity + half,
            (dt[:, None] * ROOT * np.concatenate([B.real, B.imag], axis=-1))[..., None],
        ],
        axis=-1,
    )
    solved = np.linalg.solve(identity - half, right)
    return solved[..., :-1], solved[..., -1]


def real_read_out(C: np.ndarray) -> np.ndarray:
    """Return the real read-out (..., 2n) of a complex half (..., n)."""
    return ROOT * np.concatenate([C.real, -C.imag], axis=-1)


def half_read_out(C: np.ndarray) -> np.ndarray:
    """Return the complex half (..., n) of a real read-out (..., 2n)."""
    n = C.shape[-1] // 2
    return (C[..., :n] - 1j * C[..., n:]) / ROOT


def untwisted(A: np.ndarray, C: np.ndarray, length: int) -> np.ndarray:
    """Return the read-out of stored coefficients, which are ``C (I - A^length)``.

    Parameters
    ----------
    A : (H, 2n, 2n) float64
    C : (channels, H, n) complex128
        As stored.
    length : int
        0 for coefficients that were never made for a length.

    Returns
    -------
    (channels, H, 2n) float64

    Raises
    ------
    CheckpointError
        If they cannot be recovered: a mode does not decay within the length.
    """
    rows = real_read_out(C)
    if length == 0:
        return rows
    rest = np.eye(A.shape[-1]) - np.linalg.matrix_power(A, length)
    try:
        solved = np.linalg.solve(np.swapaxes(rest, -1, -2), np.moveaxis(rows, 0, -1))
    except np.linalg.LinAlgError as error:
        raise CheckpointError(
            message(
                "read_s4",
                f"C was made for {length} steps and cannot be recovered: a mode does not decay",
                expected="I - A^length regular",
            )
        ) from error
    return np.moveaxis(solved, -1, 0)


def twisted(A: np.ndarray, rows: np.ndarray, length: int) -> np.ndarray:
    """Return the stored coefficients (channels, H, n) of a read-out; undoes `untwisted`."""
    if length:
        power = np.linalg.matrix_power(A, length)
        rows = rows - np.einsum("chi,hij->chj", rows, power)
    return half_read_out(rows)
