"""Descent of the h2 error for many channels at once, across the real axis where poles meet.

Theory: ``theory/h2-optimality.md``.
"""

from __future__ import annotations

import numpy as np

from ssmred.kernels.h2_descent import fill_descended_models
from ssmred.reductors.moving import taken
from ssmred.reductors.real_blocks import real_blocks
from ssmred.systems.dense import DenseSystem
from ssmred.systems.diagonal import DiagonalSystem
from ssmred.systems.diagonalisation import CONDITION_LIMIT, diagonalised

__all__ = ["descended", "moved_across"]

TINY = 1e-8
"""Least modulus of a pole in discrete time: at 0 the logarithm has no value, and the post-update
form needs an inverse."""

MET = 0.02
"""Pseudo-hyperbolic distance of two poles of a real model below which they are meeting."""

APART = 0.05
"""Half the distance of the poles that replace them, on the axis or off it."""

ROUNDS = 4
"""Descents, each from where the one before got stuck."""


def descended(
    modes: DiagonalSystem, start: DenseSystem, *, steps: int
) -> tuple[DenseSystem, np.ndarray, np.ndarray]:
    """Return models that descend from a start, their squared errors, and where they settled.

    Parameters
    ----------
    modes : DiagonalSystem
        The systems (H,), standard recurrence, pairs of real ones written out.
    start : DenseSystem
        Stable models (H,) of order r >= 1, real for real systems.
    steps : int
        Quasi-Newton steps, at most, of each descent.

    Returns
    -------
    DenseSystem
        The start where its eigenvectors are no use, or the descent failed.
    squares : (H,) float64
        Squared errors, sums of squares; inf there.
    settled : (H,) bool
        Where no small change of the model lowers the error.

    Notes
    -----
    Level FLOAT. The angle of a pair reaches 0 only in the limit, and two real poles cannot leave
    the axis. Where a descent ends with two poles that meet, it goes on with two real poles in place
    of the pair, or the other way round. A real pole that reaches 0 in discrete time goes on with
    the other sign.
    """
    real, channels = start.is_real, np.arange(start.B.shape[0])
    squares, settled = np.full(len(channels), np.inf), np.zeros(len(channels), bool)
    usable = np.linalg.cond(np.linalg.eig(start.A)[1]) <= CONDITION_LIMIT
    todo = channels[usable]
    if todo.size == 0:
        return start, squares, settled
    half = diagonalised(taken(start, todo), half=real)
    now, counts = half.system, half.modes
    model = {name: getattr(start, name).copy() for name in "ABC"}
    for _ in range(ROUNDS):
        now, found, done = _one_descent(taken(modes, todo), now, counts, real, steps)
        better = found < squares[todo]
        dense = real_blocks(now, start.order) if real else now.to_dense()
        for name, array in model.items():
            array[todo[better]] = getattr(dense, name)[better]
        squares[todo[better]], settled[todo[better]] = found[better], done[better]
        if not real:
            break
        now, counts, crossed = moved_across(now, counts)
        going = np.flatnonzero(crossed & better & ~done)
        if going.size == 0:
            break
        todo, now, counts = todo[going], taken(now, going), counts[going]
    return start.replace(**model), squares, settled


def _one_descent(
    modes: DiagonalSystem, start: DiagonalSystem, counts: np.ndarray, real: bool, steps: int
) -> tuple[DiagonalSystem, np.ndarray, np.ndarray]:
    """Return models (a half spectrum for a real system), squared errors, and what settled."""
    poles = np.where(np.abs(start.poles) < TINY, TINY, start.poles)
    turns = poles.imag != 0 if real else np.ones(poles.shape, bool)
    shape = poles.shape
    out, rows, columns = (
        np.empty((*shape, *size), np.complex128) for size in ((), (start.inputs,), (start.outputs,))
    )
    found, done = np.empty(len(poles)), np.empty(len(poles), bool)
    fill_descended_models(
        np.ascontiguousarray(modes.poles),
        np.ascontiguousarray(modes.B),
        np.ascontiguousarray(np.swapaxes(modes.C, -1, -2)),
        np.ascontiguousarray(poles),
        np.ascontiguousarray(start.B),
        counts,
        turns,
        real,
        not start.is_discrete,
        steps,
        out,
        rows,
        columns,
        found,
        done,
    )
    found = np.where(np.isfinite(found), found, np.inf)
    if start.is_discrete:
        direction = np.where(out == 0, poles, out)
        out = np.where(np.abs(out) < TINY, TINY * direction / np.abs(direction), out)
    filled = np.isfinite(found)[:, None] & (np.arange(shape[1]) < counts[:, None])
    C = np.swapaxes(columns, -1, -2) * np.where(turns & real, 2, 1)[:, None, :]
    model = start.replace(
        poles=np.where(filled, out, 0.0 if start.is_discrete else -1.0),
        B=np.where(filled[..., None], rows, 0),
        C=np.where(filled[:, None, :], C, 0),
    )
    return model, found, done & np.isfinite(found)


def moved_across(
    half: DiagonalSystem, counts: np.ndarray
) -> tuple[DiagonalSystem, np.ndarray, np.ndarray]:
    """Return starts with the closest poles that meet moved across the real axis, and where.

    Where none meet and a real pole of a discrete model has come to 0, it changes its sign.
    """
    poles, B = half.poles, half.B
    channels, width = poles.shape
    used = np.arange(width) < counts[:, None]
    own = used & (poles.imag == 0)
    # distance of a pair to its conjugate, and of a real pole to the next one above it
    pair = np.where(used & ~own, _distances(poles, poles.conj(), half.is_discrete), np.inf)
    places = np.argsort(np.where(own, poles.real, np.inf), axis=-1)
    ranked = np.take_along_axis(poles, places, axis=-1)
    near = np.full((channels, width), np.inf)
    both = np.take_along_axis(own, places, axis=-1)
    gaps = _distances(ranked[:, 1:], ranked[:, :-1], half.is_discrete)
    near[:, :-1] = np.where(both[:, 1:] & both[:, :-1], gaps, np.inf)
    first, second = pair.argmin(axis=-1), near.argmin(axis=-1)
    rows = np.arange(channels)
    splits = (pair[rows, first] < MET) & (pair[rows, first] <= near[rows, second])
    joins = (near[rows, second] < MET) & ~splits
    least = np.where(own, np.abs(poles), np.inf).argmin(axis=-1)
    lowest = np.where(own, np.abs(poles), np.inf)[rows, least]
    flips = (lowest < MET) & ~splits & ~joins & half.is_discrete
    wide = width + 1
    poles = np.pad(poles, ((0, 0), (0, 1)), constant_values=0.0 if half.is_discrete else -1.0)
    B = np.pad(B, ((0, 0), (0, 1), (0, 0)))
    new = counts.copy()
    poles[rows[flips], least[flips]] = -np.copysign(APART, poles[rows[flips], least[flips]].real)
    for h in np.flatnonzero(splits | joins):
        if splits[h]:  # one pair becomes two real poles
            i, j = first[h], counts[h]
            centre, b = poles[h, i].real, B[h, i].copy()
            step = APART * _scale(centre, half.is_discrete)
            poles[h, i], poles[h, j] = centre - step, centre + step
            B[h, i], B[h, j] = b.real, b.real + b.imag
            new[h] += 1
        else:
            i, j = places[h, second[h]], places[h, second[h] + 1]
            centre = 0.5 * (poles[h, i] + poles[h, j]).real
            poles[h, i] = centre + 1j * APART * _scale(centre, half.is_discrete)
            B[h, i] = B[h, i] + 1j * (B[h, j] - B[h, i])
            last = counts[h] - 1
            poles[h, j], B[h, j] = poles[h, last], B[h, last]
            B[h, last] = 0
            new[h] -= 1
    C = np.zeros((channels, half.outputs, wide))
    return half.replace(poles=poles, B=B, C=C), new, splits | joins | flips


def _distances(one: np.ndarray, two: np.ndarray, discrete: bool) -> np.ndarray:
    """Return the pseudo-hyperbolic distances of poles."""
    with np.errstate(divide="ignore", invalid="ignore"):
        gaps = 1 - one * two.conj() if discrete else one + two.conj()
        return np.abs(one - two) / np.abs(gaps)


def _scale(centre: float, discrete: bool) -> float:
    """Return how far a pole on the real axis is from its mirror image, about."""
    return 1 - centre**2 if discrete else -2 * centre
