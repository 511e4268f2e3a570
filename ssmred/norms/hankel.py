"""The Hankel norm: gain from past inputs to future outputs.

Theory: ``theory/hankel-norm.md``.
"""

from __future__ import annotations

import numpy as np

from ssmred.gramians.hankel import hankel_values
from ssmred.norms.response_form import response_form
from ssmred.systems.conversions import difference_of
from ssmred.systems.diagonal import DiagonalSystem
from ssmred.systems.linear import LinearSystem
from ssmred.systems.stability import check_horizon_of

__all__ = ["hankel_error", "hankel_norm"]


def hankel_norm(system: LinearSystem, *, horizon: int | None = None) -> np.ndarray | float:
    """Return the Hankel norm, the largest singular value of the Hankel operator.

    ``sup (sum_{k > 0} |y_k|^2)^(1/2) / ||u||`` over inputs that end at k = 0. It does not see D.

    Parameters
    ----------
    system : DiagonalSystem or DenseSystem
    horizon : int or None
        With a horizon, from the Gramians of that horizon: ``horizon`` past inputs to as many future
        outputs.

    Returns
    -------
    float or (...) float64

    Raises
    ------
    UnstableSystemError
        If a pole is not stable and the horizon is infinite.
    UnsupportedOperationError
        For a finite horizon in continuous time.

    Notes
    -----
    Level FLOAT. At most the H-infinity norm, and at least the H-infinity norm of the strictly
    proper part over ``2 n``. Cost O(n^3) per channel. Theory: ``theory/hankel-norm.md``.

    Examples
    --------
    ``h = 0, 4, 4 (0.6), ...``: ``4 / (1 - 0.36) = 6.25``.

    >>> from ssmred.systems import DiagonalSystem
    >>> round(hankel_norm(DiagonalSystem([0.6], [4.0], [1.0], 100.0)), 12)
    6.25
    """
    return _hankel_norm(system, horizon, "hankel_norm")


def _hankel_norm(system: LinearSystem, horizon: int | None, where: str) -> np.ndarray | float:
    values = hankel_values(system, horizon, where)
    largest = values[..., 0] if values.shape[-1] else np.zeros(values.shape[:-1])
    return float(largest) if largest.ndim == 0 else largest


def hankel_error(
    full: LinearSystem, reduced: LinearSystem, *, horizon: int | None = None
) -> np.ndarray | float:
    """Return the Hankel norm of ``full - reduced``; see :func:`hankel_norm`.

    Notes
    -----
    Equal poles of two diagonal systems are merged first, so the residues are differenced before
    anything is squared: an error of 1e-14 of the system keeps its digits.

    Examples
    --------
    >>> from ssmred.systems import DiagonalSystem
    >>> full = DiagonalSystem([0.6, 0.5], [4.0, 1.0], [1.0, 1.0])
    >>> round(hankel_error(full, DiagonalSystem([0.5], [1.0], [1.0])), 12)
    6.25
    """
    system = difference_of(full, reduced, "hankel_error")
    if isinstance(system, DiagonalSystem):
        check_horizon_of(system, horizon, "hankel_error")
        system = _merged(system)
    return _hankel_norm(system, horizon, "hankel_error")


def _merged(system: DiagonalSystem) -> DiagonalSystem:
    """Return the same map in the standard recurrence with the states of every pole once.

    The merged residue of a pole, p x m, is written as ``C_i B_i`` by its singular vectors:
    ``min(p, m)`` states.
    """
    form = response_form(system)
    batch, (p, m), channels = form.batch_shape, form.entries, form.poles.shape[0]
    width, rank = int(form.counts.max(initial=0)), min(p, m)
    alive = np.arange(width) < form.counts[:, None]
    poles = np.where(alive, form.poles[:, :width], -1.0 if form.continuous else 0.0)
    residues = form.residues[:, :width].reshape(channels, width, p, m)
    ones = np.where(alive, 1.0, 0.0)[..., None, None]
    if p == 1:
        columns, rows = ones, residues
    elif m == 1:
        columns, rows = residues, ones
    else:
        columns, sizes, rows = np.linalg.svd(residues, full_matrices=False)
        roots = np.sqrt(sizes)
        columns, rows = columns * roots[..., None, :], roots[..., None] * rows
    states = width * rank
    return DiagonalSystem(
        np.repeat(poles, rank, axis=-1).reshape(*batch, states),
        rows.reshape(*batch, states, m),
        columns.transpose(0, 2, 1, 3).reshape(*batch, p, states),
        (form.direct.real if form.real else form.direct).reshape(*batch, p, m),
        dt=system.dt,
        real_output=form.real,
    )
