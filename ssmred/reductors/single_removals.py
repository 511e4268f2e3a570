"""Errors of the removal of every single mode.

Theory: ``theory/removal-cost.md``.
"""

from __future__ import annotations

import numpy as np

from ssmred.checks import check_horizon
from ssmred.errors import AccuracyError, message
from ssmred.gramians.square_root import basis_coefficients, basis_square_root, check_diagonal
from ssmred.kernels.single_removals import fill_blaschke_removals, fill_root_removals
from ssmred.reductors.conjugation import find_conjugate_pairs
from ssmred.systems import DiagonalSystem
from ssmred.systems.stability import check_stable

__all__ = ["single_removal_errors"]


def single_removal_errors(system: DiagonalSystem, *, horizon: int | None = None) -> np.ndarray:
    """Return, for every mode, the h2 error of removing it alone, the others' read-out fitted again.

    C of the other modes and D are the best ones. A conjugate pair of a real system goes as one, so
    both modes of the pair carry its error.

    Parameters
    ----------
    system : DiagonalSystem
        Batched or not, any numbers of inputs and outputs.
    horizon : int, optional
        Number of samples; None is infinite.

    Returns
    -------
    (..., n) float64

    Raises
    ------
    UnstableSystemError
        If a pole is not stable and the horizon is infinite.
    UnsupportedOperationError
        For a dense system, or a finite horizon in continuous time.
    AccuracyError
        If responses leave the range of float64.

    Notes
    -----
    Level FLOAT. One input, infinite horizon: the norm of the mode alone, its residue times the
    Blaschke product of the other poles at its own; products of accurate numbers, so that errors
    are right in relative terms however close the poles, O(n^2) per channel. Otherwise from the
    square root of the Gramian, O(n^3 log T); real down to about ``1e-15`` of the modes. Theory:
    ``theory/removal-cost.md``.

    Examples
    --------
    ``P = [[4/3, 1], [1, 1]]``, ``[(P^-1)_00]^-1 = 1/3``:

    >>> system = DiagonalSystem([0.5, 0.0], [1.0, 1.0], [3.0, 1.0])
    >>> (single_removal_errors(system) ** 2).round(12).tolist()
    [3.0, 0.25]
    """
    where = "single_removal_errors"
    check_diagonal(system, where)
    length = check_horizon(horizon, where)
    if length is None:
        check_stable(system, where)
    pairs = find_conjugate_pairs(system)
    if pairs is not None:
        return pairs.spread(single_removal_errors(pairs.half, horizon=length))
    errors = np.empty(system.poles.shape).reshape(-1, system.order)
    if length is None and system.inputs == 1:
        _fill_closed_form(system, errors)
    else:
        theta = basis_coefficients(system)
        theta = theta.reshape(-1, *theta.shape[-2:])
        factor = basis_square_root(system, horizon=length)
        factor = np.ascontiguousarray(factor.reshape(-1, *factor.shape[-2:]))
        fixed = factor.shape[-1] - 2 * system.order
        fill_root_removals(factor, np.ascontiguousarray(factor @ theta), fixed, errors)
    if not np.isfinite(errors).all():
        raise AccuracyError(
            message(
                where,
                "responses overflow float64 when squared",
                cure="Scale B and C to a common size.",
            )
        )
    return errors.reshape(system.poles.shape)


def _fill_closed_form(system: DiagonalSystem, errors: np.ndarray) -> None:
    """Fill the errors (H, n) of a system with one input, infinite horizon."""
    channels, n = errors.shape
    B = system.B.reshape(channels, n)
    residues = np.swapaxes(system.C.reshape(channels, system.outputs, n), -1, -2) * B[..., None]
    poles = np.ascontiguousarray(system.poles.reshape(channels, n))
    if system.is_post_update:  # h_0 belongs to D; what follows is c l b, c l^2 b, ...
        residues = residues * poles[..., None]
    fill_blaschke_removals(
        poles,
        np.ascontiguousarray(residues),
        B != 0,
        system.real_output,
        not system.is_discrete,
        errors,
    )
