"""A system as the sum of a part with its poles inside a boundary and a part with the others.

Theory: ``theory/spectral-split.md``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.linalg import lapack, schur

from ssmred.checks import check_array, check_positive
from ssmred.errors import AccuracyError, DataError, message
from ssmred.systems.dense import DenseSystem, flat_matrices
from ssmred.systems.diagonal import DiagonalSystem
from ssmred.systems.linear import LinearSystem, check_system
from ssmred.systems.stability import stability_margins

__all__ = ["CONDITION_LIMIT", "decoupled", "schur_form", "spectral_split", "split_at"]

CONDITION_LIMIT = 1e10
"""Beyond it the parts cancel each other and keep fewer than about six digits."""

ROUNDING = 4 * np.finfo(float).eps
"""Backward error of the Schur form, per state and relative to ``||A||_F``."""


def spectral_split(
    system: LinearSystem, boundary: float | None = None, *, limit: float = CONDITION_LIMIT
) -> tuple[Any, Any]:
    """Return the parts with poles strictly inside a boundary and with all the others.

    ``H(z) = [C_1 (z I - A_1)^{-1} B_1 + D] + C_2 (z I - A_2)^{-1} B_2``; D stays with the first.

    Parameters
    ----------
    system : DiagonalSystem or DenseSystem
        In either recurrence.
    boundary : float, optional
        Inside is ``|pole| < boundary`` in discrete time (default 1), ``Re(pole) < boundary`` in
        continuous time (default 0).
    limit : float
        Largest norm of the spectral projection that is accepted for dense systems.

    Returns
    -------
    inside, outside : DiagonalSystem or DenseSystem
        Of the kind of the input, real where it is. In a batch, channels with fewer states are
        padded at the end with B = 0, C = 0 and a stable pole.

    Raises
    ------
    AccuracyError
        If a pole of a dense system lies on the boundary within rounding, or the parts are so close
        to each other that the projection exceeds the limit.
    DataError
        If boundary is not a finite number (> 0 in discrete time).

    Notes
    -----
    Diagonal systems are split exactly. Dense ones by an ordered Schur form and a Sylvester
    equation, O(n^3) for each entry of the batch in a loop; level FLOAT: the parts are those of a
    system whose A, B and C differ by about eps times the norm of the spectral projection, relative
    to theirs.

    Examples
    --------
    >>> system = DiagonalSystem([0.5, 2.0], [1.0, 1.0], [1.0, 3.0], 4.0)
    >>> inside, outside = spectral_split(system)
    >>> inside.poles.real.tolist(), inside.D.tolist(), outside.C.real.tolist(), outside.D.tolist()
    ([0.5], [[4.0]], [[3.0]], [[0.0]])
    """
    return split_at(system, boundary, limit, "spectral_split")


def split_at(
    system: LinearSystem, boundary: float | None, limit: float, where: str
) -> tuple[Any, Any]:
    """Return :func:`spectral_split`; errors name the function ``where``."""
    check_system(system, where)
    limit = check_positive(limit, "limit", where)
    level = _level(system, boundary, where)
    if isinstance(system, DiagonalSystem):
        inner = stability_margins(system) > 0 if boundary is None else _is_inside(system, level)
        return _selected(system, inner, level), _selected(
            system.replace(D=np.zeros_like(system.D)), ~inner, level
        )
    return _dense_split(system, level, limit, where)


def _level(system: LinearSystem, boundary: float | None, where: str) -> float:
    """Return the boundary as a float."""
    if boundary is None:
        return 1.0 if system.is_discrete else 0.0
    if system.is_discrete:
        return check_positive(boundary, "boundary", where)
    value = check_array(boundary, "boundary", where)
    if value.ndim or np.iscomplexobj(value):
        raise DataError(
            message(where, "boundary is not usable", expected="a real number", got=f"{boundary!r}")
        )
    return float(value)


def _is_inside(system: LinearSystem, level: float) -> np.ndarray:
    """Tell which poles (..., n) are inside."""
    poles = system.poles  # type: ignore[attr-defined]
    return np.abs(poles) < level if system.is_discrete else poles.real < level


def _rest(system: LinearSystem, level: float) -> float:
    """Return the pole of padding: stable, and inside where that is possible."""
    return 0.0 if system.is_discrete else min(-1.0, 2.0 * level)


def _selected(system: DiagonalSystem, mask: np.ndarray, level: float) -> DiagonalSystem:
    """Return the modes of a mask, moved to the front."""
    counts = mask.sum(axis=-1)
    width = int(counts.max(initial=0))
    order = np.argsort(~mask, axis=-1, kind="stable")[..., :width]
    filled = np.arange(width) < counts[..., None]
    poles = np.take_along_axis(system.poles, order, axis=-1)
    B = np.take_along_axis(system.B, order[..., None], axis=-2)
    C = np.take_along_axis(system.C, order[..., None, :], axis=-1)
    return system.replace(
        poles=np.where(filled, poles, _rest(system, level)),
        B=np.where(filled[..., None], B, 0),
        C=np.where(filled[..., None, :], C, 0),
    )


def _dense_split(
    system: DenseSystem, level: float, limit: float, where: str
) -> tuple[DenseSystem, DenseSystem]:
    """Split every entry of a batch and pad."""
    batch, n = system.batch_shape, system.order
    A, B, C, _ = flat_matrices(system)
    count = len(A)
    parts = [
        _decoupled(A[h], B[h], C[h], level, system.is_discrete, limit, where) for h in range(count)
    ]
    rest = _rest(system, level)
    results = []
    for side in range(2):
        pieces = [part[side] for part in parts]
        width = max((piece[0].shape[0] for piece in pieces), default=n)
        dtype = np.result_type(system.A, system.B, system.C)
        stacked = (
            np.zeros((count, width, width), dtype),
            np.zeros((count, width, system.inputs), dtype),
            np.zeros((count, system.outputs, width), dtype),
        )
        stacked[0][:, range(width), range(width)] = rest
        for h, (a, b, c) in enumerate(pieces):
            r = a.shape[0]
            stacked[0][h, :r, :r], stacked[1][h, :r], stacked[2][h, :, :r] = a, b, c
        arrays = (array.reshape(*batch, *array.shape[1:]) for array in stacked)
        results.append(dict(zip("ABC", arrays, strict=True)))
    return (
        system.replace(**results[0]),
        system.replace(**results[1], D=np.zeros_like(system.D)),
    )


def _decoupled(
    A: np.ndarray,
    B: np.ndarray,
    C: np.ndarray,
    level: float,
    discrete: bool,
    limit: float,
    where: str,
) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    """Return A, B, C of the inner and of the outer part of one system."""
    n = A.shape[0]
    if n == 0:
        return (A, B, C), (A, B, C)
    T, Q, poles = schur_form(A)
    sizes = np.abs(poles) if discrete else poles.real
    gap = np.abs(sizes - level).min()
    slack = ROUNDING * n * float(np.linalg.norm(A))
    if not gap > slack:
        raise AccuracyError(
            message(
                where,
                "a pole lies on the boundary within rounding",
                expected=f"a distance > {slack:.3g}",
                got=f"{gap:.3g}",
                cure="Pass another boundary.",
            )
        )
    inside, outside, size = decoupled(T, Q, B, C, sizes < level)
    if not size <= limit:
        raise AccuracyError(
            message(
                where,
                "the poles on both sides are too close to be told apart",
                expected=f"a spectral projection of norm <= {limit:.3g}",
                got=f"{size:.3g}",
                cure="Pass another boundary.",
            )
        )
    return inside, outside


def schur_form(A: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return T, Q with ``A = Q T Q^*``, real for real A, and the poles in their places."""
    T, Q = schur(A, output="complex" if np.iscomplexobj(A) else "real")[:2]
    return T, Q, np.diagonal(T) if np.iscomplexobj(A) else _eigenvalues(T)


def decoupled(
    T: np.ndarray, Q: np.ndarray, B: np.ndarray, C: np.ndarray, inner: np.ndarray
) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...], float]:
    """Return A, B, C of two parts of a system and the norm of the projection on the first.

    Parameters
    ----------
    T, Q : (n, n) float64 or complex128
        Schur form of A.
    B, C : (n, m), (p, n) float64 or complex128
    inner : (n,) bool
        Poles of the first part; conjugate pairs together.

    Returns
    -------
    inside, outside : tuple of arrays
    size : float
        inf where the poles cannot be told apart.
    """
    r, n = int(inner.sum()), T.shape[0]
    X, size = np.zeros((r, n - r), T.dtype), 1.0
    if 0 < r < n:
        complex_data = np.iscomplexobj(T)
        reorder = lapack.ztrsen if complex_data else lapack.dtrsen
        solve = lapack.ztrsyl if complex_data else lapack.dtrsyl
        T, Q, *_, info = reorder(inner.astype(np.int32), T, Q, job="N")
        # T11 X - X T22 = -T12
        X, scale, failed = solve(T[:r, :r], T[r:, r:], -T[:r, r:], isgn=-1)
        if info or failed or scale <= 0 or not np.isfinite(X).all():
            X, size = np.zeros_like(X), math.inf
        else:
            X = X / scale
            size = math.hypot(1.0, float(np.linalg.norm(X, 2)))
    B, C = Q.conj().T @ B, C @ Q
    inside = (T[:r, :r], B[:r] - X @ B[r:], C[:, :r])
    outside = (T[r:, r:], B[r:], C[:, r:] + C[:, :r] @ X)
    return inside, outside, size


def _eigenvalues(T: np.ndarray) -> np.ndarray:
    """Return the eigenvalues of a real Schur form in their places."""
    n = T.shape[0]
    poles = np.diagonal(T).astype(np.complex128)
    i = 0
    while i < n - 1:
        if T[i + 1, i] != 0:  # standardised: equal diagonal, off-diagonals of opposite sign
            part = 1j * math.sqrt(abs(T[i + 1, i])) * math.sqrt(abs(T[i, i + 1]))
            poles[i], poles[i + 1] = poles[i] + part, poles[i + 1] - part
            i += 1
        i += 1
    return poles
