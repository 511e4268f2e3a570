"""Scores of single modes from the literature, and the masks they make: what to compare with.

Theory: ``theory/state-scores.md``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ssmred.checks import check_choice, check_horizon, check_integer
from ssmred.errors import OrderError, ShapeError, UnsupportedOperationError, message
from ssmred.gramians.square_root import check_diagonal
from ssmred.norms import h2_norm
from ssmred.reductors.reduction import ErrorBound, Reduction
from ssmred.reductors.subset_path import packed
from ssmred.systems import DiagonalSystem
from ssmred.systems.stability import check_stable, stability_margins

__all__ = ["aire_scores", "last_scores", "score_masks", "truncation"]


def last_scores(system: DiagonalSystem) -> np.ndarray:
    """Return the LAST score of every mode: its squared gain over that of all larger ones.

    ``g_i = ||c_i|| ||b_i|| / (1 - |l_i|)``, the H-infinity norm of the mode alone, and
    ``score_i = g_i**2 / sum_j g_j**2`` over all modes j of the layer that are not smaller, itself
    included.

    Parameters
    ----------
    system : DiagonalSystem
        One layer: the sum is over all channels of a batch. Discrete and stable.

    Returns
    -------
    (..., n) float64
        Between 0 and 1; the largest mode of a layer has 1.

    Raises
    ------
    UnstableSystemError, UnsupportedOperationError
        If a pole is not stable, or for other kinds of systems.

    Notes
    -----
    Source: [GwakLAST2024], arXiv 2411.02824. Checked against the code the authors published for S5
    (one direction): squared norms, sorted, over cumulative sums from the largest down. That code
    adds 1e-8 to ``(1 - |l|)**2``, which is left out here. It takes C without the factor 2 of the
    half spectrum, which cancels. Of equal modes the earlier counts as larger. How the paper sums
    over the channels of S4D was not checked.
    Theory: ``theory/state-scores.md``.

    Examples
    --------
    Gains 8, 4 and 2:

    >>> system = DiagonalSystem([0.5, 0.75, 0.0], [1.0, 1.0, 1.0], [4.0, 1.0, 2.0])
    >>> last_scores(system).tolist() == [1.0, 16 / 80, 4 / 84]
    True
    """
    margins = _margins(system, "last_scores")  # 1 - |l|**2 = (1 - |l|) (1 + |l|)
    return _over_larger((_sizes(system) * (1.0 + np.abs(system.poles)) / margins) ** 2)


def aire_scores(system: DiagonalSystem) -> np.ndarray:
    """Return the AIRE score of every mode: its energy over that of all larger ones.

    ``e_i = ||c_i||**2 ||b_i||**2 / (1 - |l_i|**2)``, the energy of the mode's impulse response, and
    ``score_i = e_i / sum_j e_j`` over all modes j of the layer that are not smaller, itself
    included.

    Parameters
    ----------
    system : DiagonalSystem
        One layer: the sum is over all channels of a batch. Discrete and stable.

    Returns
    -------
    (..., n) float64

    Raises
    ------
    UnstableSystemError, UnsupportedOperationError
        If a pole is not stable, or for other kinds of systems.

    Notes
    -----
    Source: [PadhyAIRE2026], arXiv 2602.00534. Checked against the code the authors published for
    S5 (one direction), which adds 1e-8 to ``1 - |l|**2``; left out here. Theory:
    ``theory/state-scores.md``.

    Examples
    --------
    Energies 16, 4 and 5:

    >>> system = DiagonalSystem([0.5, 0.0, 0.6], [1.0, 1.0, 1.0], [12**0.5, 2.0, 3.2**0.5])
    >>> np.allclose(aire_scores(system), [1.0, 4 / 25, 5 / 21])
    True
    """
    margins = _margins(system, "aire_scores")
    return _over_larger(_sizes(system) ** 2 / margins)


SCORES = {"last": last_scores, "aire": aire_scores}


def score_masks(
    systems: Sequence[DiagonalSystem], *, states: int, score: str = "last"
) -> list[np.ndarray]:
    """Return which modes of each layer stay if the modes of lowest score go, over all layers.

    Parameters
    ----------
    systems : sequence of DiagonalSystem
        One per layer.
    states : int
        Keep at most so many real states, all layers together.
    score : {"last", "aire"}

    Returns
    -------
    list of (..., n) bool
        For :meth:`SubsetPath.keeping` (read-out fitted again) or :func:`truncation` (as published).

    Notes
    -----
    The published methods mask what lies below a global threshold; this is the threshold that leaves
    so many states. Theory: ``theory/state-scores.md``.
    """
    where = "score_masks"
    check_choice(score, SCORES, "score", where)
    budget = check_integer(states, "states", where)
    if not systems:
        raise OrderError(message(where, "no systems were given"))
    values = np.concatenate([SCORES[score](system).ravel() for system in systems])
    sizes = [np.full(s.poles.size, s.states // s.order if s.order else 1) for s in systems]
    order = np.argsort(-values, kind="stable")
    kept = np.zeros(values.size, bool)
    kept[order] = np.cumsum(np.concatenate(sizes)[order]) <= budget
    parts = np.split(kept, np.cumsum([s.poles.size for s in systems])[:-1])
    return [part.reshape(s.poles.shape) for part, s in zip(parts, systems, strict=True)]


def truncation(
    system: DiagonalSystem, mask: npt.ArrayLike, *, horizon: int | None = None
) -> Reduction:
    """Return the system without the modes outside a mask, all else as it was.

    Parameters
    ----------
    system : DiagonalSystem
    mask : (..., n) bool
        Modes to keep.
    horizon : int, optional
        Number of samples over which the error is evaluated; None is infinite.

    Returns
    -------
    Reduction
        With the h2 norm of the error, evaluated: that of the modes that go.

    Raises
    ------
    ShapeError
        If the mask does not fit.
    """
    where = "truncation"
    check_diagonal(system, where)
    length = check_horizon(horizon, where)
    values = np.asarray(mask)
    if values.dtype != bool or values.shape != system.poles.shape:
        raise ShapeError(
            message(
                where,
                "the mask does not fit the modes",
                expected=f"{system.poles.shape} of bool",
                got=f"{values.shape} of {values.dtype}",
            )
        )
    gone = system.replace(
        B=system.B * ~values[..., None], C=system.C * ~values[..., None, :], D=0 * system.D
    )
    metric = "h2" if length is None else f"h2, horizon {length}"
    error, norm = (np.asarray(h2_norm(part, horizon=length)) for part in (gone, system))
    return Reduction(
        full=system,
        system=packed(system, values),
        orders=np.asarray(np.sum(values, axis=-1)),
        method="truncation",
        claim=ErrorBound(error, norm, metric, "h2-norm", exact=True),
        kept=values,
    )


def _sizes(system: DiagonalSystem) -> np.ndarray:
    return np.linalg.norm(system.C, axis=-2) * np.linalg.norm(system.B, axis=-1)


def _margins(system: DiagonalSystem, where: str) -> np.ndarray:
    """Return ``1 - |l|**2`` of a discrete stable system."""
    check_diagonal(system, where)
    if not system.is_discrete:
        raise UnsupportedOperationError(
            message(where, "the score is defined in discrete time", cure="Discretise the system.")
        )
    check_stable(system, where)
    return stability_margins(system)


def _over_larger(values: np.ndarray) -> np.ndarray:
    """Return every value over the sum of all that are not smaller; 0 for zeros."""
    flat = values.ravel()
    order = np.argsort(-flat, kind="stable")
    sums = np.empty_like(flat)
    sums[order] = np.cumsum(flat[order])
    return np.where(flat > 0, flat / np.where(flat > 0, sums, 1), 0.0).reshape(values.shape)
