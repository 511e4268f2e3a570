"""The L2 norm of systems with poles on both sides of the stability boundary.

Theory: ``theory/h2-norm.md``.
"""

from __future__ import annotations

import math

import numpy as np

from ssmred.errors import UnstableSystemError, message
from ssmred.gramians.spectral_split import CONDITION_LIMIT, split_at
from ssmred.norms.h2 import h2_of
from ssmred.systems.dense import flat_matrices
from ssmred.systems.diagonal import DiagonalSystem
from ssmred.systems.linear import LinearSystem, check_system
from ssmred.systems.stability import is_stable, stability_margins

__all__ = ["l2_norm"]


def l2_norm(system: LinearSystem) -> np.ndarray | float:
    """Return the L2 norm, ``(1 / (2 pi) int ||H||_F^2 dw)^(1/2)`` over all frequencies.

    Equals :func:`h2_norm` for stable systems. The stable and the anti-stable part are orthogonal;
    the anti-stable one has the norm of its mirror image, running backwards in time.

    Parameters
    ----------
    system : DiagonalSystem or DenseSystem
        No pole on the stability boundary.

    Returns
    -------
    float or (...) float64
        Infinite in continuous time where D is not zero.

    Raises
    ------
    UnstableSystemError
        If a pole lies on the stability boundary.
    AccuracyError
        If a pole of a dense system is within rounding of it.

    Notes
    -----
    Level FLOAT. Poles outside the circle are mirrored as ``1 / l``, which moves one at a distance g
    by ``eps / g`` of that distance. Theory: ``theory/h2-norm.md``.

    Examples
    --------
    ``1 / (z - 2)``, expanded in z: ``-1/2, -1/4, ...``, squares ``1/4 + 1/16 + ... = 1/3``.

    >>> from ssmred.systems import DiagonalSystem
    >>> round(l2_norm(DiagonalSystem([2.0], [1.0], [1.0])) ** 2, 12)
    0.333333333333
    """
    where = "l2_norm"
    check_system(system, where)
    if is_stable(system):
        return h2_of(system, None, where)
    if (stability_margins(system) == 0).any():
        raise UnstableSystemError(
            message(
                where,
                "a pole lies on the stability boundary, so the norm is infinite",
                cure="h2_norm(system, horizon=T) is finite for every discrete system.",
            )
        )
    if system.is_discrete:
        system = system.with_recurrence("standard")
    if isinstance(system, DiagonalSystem):
        return _combined(*_diagonal_parts(system), where)
    norms = np.empty(math.prod(system.batch_shape))
    flat = flat_matrices(system.to_dense())
    for h in range(len(norms)):
        one = system.replace(**{k: a[h] for k, a in zip("ABCD", flat, strict=True)})
        inside, outside = split_at(one, None, CONDITION_LIMIT, where)
        if outside.order == 0:
            norms[h] = h2_of(one, None, where)
            continue
        norms[h] = _combined(inside, outside, where)
    return float(norms[0]) if system.batch_shape == () else norms.reshape(system.batch_shape)


def _diagonal_parts(system: DiagonalSystem) -> tuple[DiagonalSystem, DiagonalSystem]:
    """Return both parts with all modes, those of the other part without input and output."""
    inner = stability_margins(system) > 0
    rest = 0.0 if system.is_discrete else -1.0
    mirror = 2.0 if system.is_discrete else 1.0
    parts = []
    for mask, pole in ((inner, rest), (~inner, mirror)):
        parts.append(
            system.replace(
                poles=np.where(mask, system.poles, pole),
                B=np.where(mask[..., None], system.B, 0.0),
                C=np.where(mask[..., None, :], system.C, 0.0),
            )
        )
    return parts[0], parts[1].replace(D=np.zeros_like(system.D))


def _combined(inside: LinearSystem, outside: LinearSystem, where: str) -> np.ndarray | float:
    """Return the norm of the sum of a stable and an anti-stable system, both standard."""
    if not inside.is_discrete:
        back = {"poles": -outside.poles} if isinstance(outside, DiagonalSystem) else {}
        back = back or {"A": -outside.A}  # type: ignore[attr-defined]
        outside = outside.replace(**back)
        norm = np.hypot(h2_of(inside, None, where), h2_of(outside, None, where))
    else:
        mirrored, direct = _mirror(outside)
        inside = inside.replace(D=inside.D + direct)
        norm = np.hypot(h2_of(inside, None, where), h2_of(mirrored, None, where))
    return float(norm) if np.ndim(norm) == 0 else norm


def _mirror(system: LinearSystem) -> tuple[LinearSystem, np.ndarray]:
    """Return ``(A^{-1}, A^{-1} B, C A^{-1})`` and the term ``-C A^{-1} B`` of z^0."""
    if isinstance(system, DiagonalSystem):
        poles = 1.0 / system.poles
        B = poles[..., None] * system.B
        direct = -system.C @ B
        if system.is_real:
            direct = direct.real
        return system.replace(poles=poles, B=B, C=system.C * poles[..., None, :]), direct
    inverse = np.linalg.inv(system.A)  # type: ignore[attr-defined]
    B = inverse @ system.B
    direct = -system.C @ B
    return system.replace(A=inverse, B=B, C=system.C @ inverse), (
        direct.real if system.is_real else direct
    )
