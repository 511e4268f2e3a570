"""Square roots of the Gramian of everything a read-out can use.

One channel's response is ``h = Phi theta``: the columns of Phi are a unit impulse for every entry
of D and, for every mode, the real and the imaginary part of its response; theta holds D and the
read-out. All questions about read-outs are least-squares problems in Phi, and R with
``R^T R = Phi^T Phi`` answers them without forming squares.

Theory: ``theory/square-root-doubling.md``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ssmred.checks import check_horizon
from ssmred.errors import AccuracyError, UnstableSystemError, UnsupportedOperationError, message
from ssmred.gramians.closed_form import conjugate_factor
from ssmred.kernels.square_root import (
    INFINITE,
    fill_merged_roots,
    fill_regularised_roots,
    fill_response_roots,
)
from ssmred.systems import DiagonalSystem, stability_margins

__all__ = [
    "SquareRoot",
    "basis_coefficients",
    "basis_square_root",
    "change_read_out",
    "check_diagonal",
    "power_root",
]

ROUNDING = 4 * np.finfo(float).eps
"""Length, relative to its mode, of what stands for the rounding error of a column of R.

The read-out then balances what a large coefficient gains against what its rounding costs.
"""


@dataclass(frozen=True, eq=False)
class SquareRoot:
    """Hold the least-squares problems ``min ||(target + R (theta_0 - theta)) L||`` of all channels.

    Attributes
    ----------
    factor : (H, K, K) float64
        R, upper triangular; ``K = fixed + 2 n``. A zero column has a zero diagonal.
    fixed : int
        Number of leading columns that stand for D.
    extra : (H, K, p) float64
        Target beyond what the system itself produces, in the coordinates of R.
    residual : (H,) float64
        Norm of the part of the target that no read-out can reach.
    norms : (H,) float64
        Norm of the target.
    mixing : (H, p, p) float64, optional
        L, how errors of the outputs count together; the identity where it is None. The best
        read-out does not depend on it, the errors do.
    """

    factor: np.ndarray
    fixed: int
    extra: np.ndarray
    residual: np.ndarray
    norms: np.ndarray
    mixing: np.ndarray | None = None

    def mixed(self, columns: np.ndarray) -> np.ndarray:
        """Return errors of the outputs (H, K, p) as they count together."""
        return columns if self.mixing is None else columns @ self.mixing


def basis_square_root(system: DiagonalSystem, *, horizon: int | None = None) -> np.ndarray:
    """Return the triangular R with ``R^T R = Phi^T Phi`` for the read-out basis of a system.

    Phi has one column per entry of a row of D (for complex outputs two: real and imaginary part)
    and two per mode, so that ``Phi @ basis_coefficients(system)`` are the outputs' impulse
    responses over the horizon.

    Parameters
    ----------
    system : DiagonalSystem
        Batched or not; discrete time, or continuous time with an infinite horizon.
    horizon : int, optional
        Number of samples; None is infinite.

    Returns
    -------
    (..., K, K) float64
        Upper triangular, ``K = f + 2 n``; ``f = inputs`` for real outputs, twice that for complex
        ones.

    Raises
    ------
    UnstableSystemError
        If the horizon is infinite and a driven mode does not decay.
    AccuracyError
        If an unstable mode overflows within the horizon.

    Notes
    -----
    Level: FLOAT. Column j is exact for a basis column moved by a few ``eps * ||phi_j||``; mode
    columns carry, besides, an orthogonal part of their own, ``4 eps`` times as long as the mode, so
    that no coefficient can use rounding errors. Cost ``O(n**3 log T)`` per channel; in continuous
    time O(n**3), from the factor of the Cauchy-like Gramian. Theory:
    ``theory/square-root-doubling.md``.
    Source: doubling as in [Smith1968], QR of stacked triangles as in [GolubVanLoan2013].

    Examples
    --------
    >>> system = DiagonalSystem([0.5], [1.0], [1.0], real_output=True)
    >>> R = basis_square_root(system)  # columns: direct term, 0.5**(k - 1), 0
    >>> np.allclose(R.T @ R, np.diag([1.0, 1 / (1 - 0.25), 0.0]))
    True
    """
    where = "basis_square_root"
    check_diagonal(system, where)
    horizon = check_horizon(horizon, where)
    modes = system.order
    channels = int(np.prod(system.batch_shape))
    _check_decay(system, np.any(system.B != 0, axis=-1), horizon, where)
    poles = np.ascontiguousarray(system.poles.reshape(channels, modes))
    B = system.B.reshape(channels, modes, system.inputs)
    alive = np.any(B != 0, axis=-1)
    roots = _roots_of_powers(system, poles, alive, horizon)
    # With one input its weight is part of the coefficients.
    weights = np.ones((channels, modes, 1)) if system.inputs == 1 else B
    turns = _turns(weights * alive[..., None], system.real_output)
    fixed = turns.shape[1]
    if fixed > 1:
        merged = np.empty_like(roots)
        fill_merged_roots(roots, turns, merged)
        roots = merged
    top = np.zeros((channels, fixed, 2 * modes))
    if system.is_post_update:
        top[:] = turns[..., 0, :].reshape(channels, fixed, 2 * modes)
    factors = np.empty((channels, fixed + 2 * modes, fixed + 2 * modes))
    fill_regularised_roots(roots, top, ROUNDING, factors)
    if not np.isfinite(factors).all():
        raise AccuracyError(
            message(
                where,
                "an unstable mode overflows within the horizon",
                got=f"largest |pole| {np.abs(system.poles).max():.6g}, horizon {horizon}",
                cure="Shorten the horizon or remove that mode first.",
            )
        )
    return factors.reshape(*system.batch_shape, *factors.shape[1:])


def power_root(system: DiagonalSystem, *, horizon: int | None, where: str) -> np.ndarray:
    """Return R with ``R^T R = Phi^T Phi`` for the powers of the poles that a read-out sees.

    Columns of Phi are ``Re l_i**k`` and ``Im l_i**k`` (``e**(l_i t)`` in continuous time): without
    weights, without what stands for the direct term, and without regularisation; zero for modes
    that no input drives.

    Returns
    -------
    (H, 2 n, 2 n) float64
        Upper triangular.

    Raises
    ------
    UnstableSystemError, AccuracyError
        As :func:`basis_square_root`.
    """
    channels = int(np.prod(system.batch_shape))
    poles = np.ascontiguousarray(system.poles.reshape(channels, system.order))
    driven = np.any(system.B != 0, axis=-1)
    _check_decay(system, driven, horizon, where)
    roots = _roots_of_powers(system, poles, driven.reshape(poles.shape), horizon)
    if not np.isfinite(roots).all():
        raise AccuracyError(
            message(
                where,
                "an unstable mode overflows within the horizon",
                cure="Shorten the horizon or remove that mode first.",
            )
        )
    return np.swapaxes(roots, -1, -2)


def _roots_of_powers(
    system: DiagonalSystem, poles: np.ndarray, alive: np.ndarray, horizon: int | None
) -> np.ndarray:
    """Return the same (H, 2 n, 2 n), stored by columns, for flat poles (H, n)."""
    if not system.is_discrete:
        return _continuous_roots(poles, alive)
    channels, modes = poles.shape
    samples = INFINITE if horizon is None else horizon - 1
    roots = np.empty((channels, 2 * modes, 2 * modes))
    fill_response_roots(poles, alive, samples, int(system.is_post_update), roots)
    return roots


def basis_coefficients(system: DiagonalSystem) -> np.ndarray:
    """Return the coefficients theta of a system in its read-out basis.

    ``h = Phi theta``: the entries of D, then for every mode ``(Re c b, -Im c b)`` (one input) or
    ``(Re c, -Im c)`` (several); for complex outputs ``(Re, Im)`` of each instead.

    Parameters
    ----------
    system : DiagonalSystem

    Returns
    -------
    (..., K, p) float64

    Examples
    --------
    >>> system = DiagonalSystem([0.5j], [2.0], [3.0 + 1.0j], 5.0, real_output=True)
    >>> basis_coefficients(system)[:, 0].tolist()
    [5.0, 6.0, -2.0]
    """
    check_diagonal(system, "basis_coefficients")
    D = np.swapaxes(system.D, -1, -2)  # (..., m, p)
    C = np.swapaxes(system.C, -1, -2) * _folded(system)[..., None]  # (..., n, p)
    if system.real_output:
        modes = np.stack([C.real, -C.imag], axis=-2)
    else:
        rows = 2 * system.inputs
        D = np.stack([D.real, D.imag], axis=-2).reshape(*system.batch_shape, rows, system.outputs)
        modes = np.stack([C.real, C.imag], axis=-2)
    modes = modes.reshape(*system.batch_shape, 2 * system.order, system.outputs)
    return np.concatenate([D, modes], axis=-2)


def change_read_out(system: DiagonalSystem, change: np.ndarray) -> DiagonalSystem:
    """Return the system whose coefficients are those of ``system`` plus ``change``.

    The inverse of :func:`basis_coefficients` for differences. Modes that no input drives, and
    zero columns of the basis, keep their read-out.
    """
    batch, n, p = system.batch_shape, system.order, system.outputs
    fixed = system.inputs * (1 if system.real_output else 2)
    D, modes = change[..., :fixed, :], change[..., fixed:, :].reshape(*batch, n, 2, p)
    if system.real_output:
        modes = modes[..., 0, :] - 1j * modes[..., 1, :]
    else:
        D = D.reshape(*batch, system.inputs, 2, p)
        D = D[..., 0, :] + 1j * D[..., 1, :]
        modes = modes[..., 0, :] + 1j * modes[..., 1, :]
    folded = _folded(system)[..., None]
    driven = folded != 0
    modes = np.where(driven, modes / np.where(driven, folded, 1), 0)
    C = system.C + np.swapaxes(modes, -1, -2)
    D = system.D + np.swapaxes(D, -1, -2)
    if system.is_real:
        D = D.real
        C = C if system.real_output else C.real
    return system.replace(C=C, D=D)


def check_diagonal(system: object, where: str) -> None:
    """Raise UnsupportedOperationError unless ``system`` is a DiagonalSystem."""
    if not isinstance(system, DiagonalSystem):
        raise UnsupportedOperationError(
            message(
                where,
                "this kind of system has no modes to keep",
                expected="a DiagonalSystem",
                got=type(system).__name__,
                cure="Diagonalise it first (ssmred.systems).",
            )
        )


def _check_decay(
    system: DiagonalSystem, driven: np.ndarray, horizon: int | None, where: str
) -> None:
    """Raise an error if there is no Gramian of this horizon."""
    if horizon is not None:
        if not system.is_discrete:
            raise UnsupportedOperationError(
                message(
                    where,
                    "a finite horizon needs discrete time",
                    cure="Discretise the system, or pass horizon=None.",
                )
            )
        return
    lasting = driven & ~(stability_margins(system) > 0)
    if lasting.any():
        raise UnstableSystemError(
            message(
                where,
                "a driven mode does not decay, so its infinite-horizon Gramian does not exist",
                expected="|pole| < 1" if system.is_discrete else "Re(pole) < 0",
                got=f"{int(lasting.sum())} other modes",
                cure="Pass a finite horizon." if system.is_discrete else "",
            )
        )


def _continuous_roots(poles: np.ndarray, alive: np.ndarray) -> np.ndarray:
    """Return R (H, 2 n, 2 n), stored by columns, for the functions ``Re, Im e^{l t}`` on t > 0."""
    ones = alive[..., None].astype(np.complex128)
    factor = conjugate_factor(np.where(alive, poles, -1.0), ones, continuous=True)
    upper = np.linalg.qr(np.swapaxes(factor, -1, -2), mode="r")
    triangle = np.ascontiguousarray(np.swapaxes(upper, -1, -2))
    # once more by the kernel, which leaves the rows of columns of zeros empty
    same = np.broadcast_to(np.eye(2), (len(poles), 1, poles.shape[1], 2, 2)).copy()
    roots = np.empty_like(triangle)
    fill_merged_roots(triangle, same, roots)
    return roots


def _folded(system: DiagonalSystem) -> np.ndarray:
    """Return the (..., n) factors between C and the coefficients of the modes."""
    return np.ones_like(system.poles) if system.inputs != 1 else system.B[..., 0]


def _turns(weights: np.ndarray, real_output: bool) -> np.ndarray:
    """Return the 2 x 2 forms (H, V, n, 2, 2) of the weights (H, n, m), one view per real output.

    A column pair ``(Re x, Im x)`` times the form is the pair of the weighted mode: ``(Re wx,
    Im wx)`` for real outputs; for complex ones ``(Re wx, -Im wx)`` and ``(Im wx, Re wx)``.
    """
    w = np.moveaxis(weights, -1, 1)  # (H, m, n)
    re, im = w.real, w.imag
    if real_output:
        forms = [[[re, im], [-im, re]]]
    else:
        forms = [[[re, -im], [-im, -re]], [[im, re], [re, -im]]]
    turns = np.moveaxis(np.array(forms), (0, 1, 2), (2, 4, 5))  # (H, m, V, n, 2, 2)
    views = w.shape[1] * len(forms)
    return np.ascontiguousarray(turns.reshape(w.shape[0], views, w.shape[2], 2, 2))
