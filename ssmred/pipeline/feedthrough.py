"""A diagonal direct term for layers whose own is diagonal, instead of the full one that is best.

Theory: ``theory/diagonal-feedthrough.md``; for outputs that are squared ``theory/lqo-layer.md``.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import scipy.linalg

from ssmred.gramians.square_root import SquareRoot, basis_coefficients, change_read_out
from ssmred.networks import ImportedLayer
from ssmred.reductors import Reduction
from ssmred.systems import DiagonalSystem
from ssmred.systems.linear import LinearSystem, of_kind

__all__ = [
    "DIAGONAL",
    "FEEDTHROUGHS",
    "FULL",
    "has_diagonal",
    "moved_modes",
    "shapes_direct",
    "with_diagonal",
]

FULL, DIAGONAL = "full", "diagonal"
FEEDTHROUGHS = (FULL, DIAGONAL)
"""Shapes of D in reduced layers with several inputs and outputs."""


def has_diagonal(system: LinearSystem) -> bool:
    """Tell whether D is a diagonal matrix, of several outputs and at most as many inputs."""
    if system.outputs == 1 or system.inputs > system.outputs:
        return False
    return not np.any(system.D * (1.0 - np.eye(system.outputs, system.inputs)))


def shapes_direct(layer: ImportedLayer, feedthrough: str) -> bool:
    """Tell whether the D of a reduced layer is to stay diagonal; with squares it always is."""
    return (feedthrough != FULL or layer.squared) and has_diagonal(layer.system)


def moved_modes(reduction: Reduction) -> np.ndarray:
    """Return which modes of :func:`ssmred.pipeline.measured.united` the reduced system has."""
    orders = np.asarray(reduction.orders)
    own = np.zeros((*orders.shape, reduction.full.order), bool)
    return np.concatenate([own, np.arange(reduction.system.order) < orders[..., None]], axis=-1)


def with_diagonal(reduction: Reduction, root: SquareRoot, modes: np.ndarray) -> Reduction:
    """Return a reduction whose D is diagonal, with the best D and C of this shape.

    Parameters
    ----------
    reduction : Reduction
        Of a diagonal system (H,) with real outputs, m inputs and at least as many outputs, of which
        D reaches the first m; C and D are the best ones in the metric.
    root : SquareRoot
        The metric.
    modes : (H, n) bool
        Which modes of the root the reduced system has, in its order.

    Notes
    -----
    The claim grows to the error with this D, exactly. Level: FLOAT. Cost O(K**3 + m**3) a channel.
    """
    system = of_kind(reduction.system, DiagonalSystem, "with_diagonal")
    change = np.zeros_like(basis_coefficients(system))
    lost = np.zeros(len(change))
    for h, D in enumerate(system.D.real):
        columns = root.fixed + np.flatnonzero(modes[h].repeat(2))
        L = np.eye(D.shape[0]) if root.mixing is None else root.mixing[h]
        X, followers, lost[h] = _project(root.factor[h], root.fixed, columns, D, L)
        change[h, : D.shape[1]] = -X
        change[h, D.shape[1] : D.shape[1] + len(columns)] = followers
    claim = reduction.claim
    if claim is not None:
        value = np.hypot(claim.value, lost)
        claim = replace(claim, value=value, theorem="diagonal-feedthrough")
    system = change_read_out(system, change)
    system = system.replace(
        D=system.D * np.eye(system.outputs, system.inputs)
    )  # rounding of X off the diagonal
    return replace(reduction, system=system, claim=claim)


def _project(
    R: np.ndarray, inputs: int, columns: np.ndarray, D: np.ndarray, L: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return what D^T loses, what the read-out of the modes gains for it, and the error of both."""
    lengths = np.linalg.norm(R[:, columns], axis=0)
    alive = lengths > 0
    states = R[:, columns[alive]] / lengths[alive]
    upper = scipy.linalg.qr(np.hstack([states, R[:, :inputs]]), mode="r")[0]
    k = int(alive.sum())
    direct = upper[k:, k:]  # what the inputs add to the modes
    m = D.shape[1]
    M, S = direct.T @ direct, L @ L.T
    X = D.T * (1.0 - np.eye(*D.T.shape))
    own = np.linalg.lstsq(M * S[:m, :m], np.diagonal(M @ X @ S), rcond=None)[0]
    X[:, :m] -= np.diag(own)
    followers = np.zeros((len(columns), len(D)))
    solved = scipy.linalg.solve_triangular(upper[:k, :k], upper[:k, k:] @ X)
    followers[alive] = solved / lengths[alive, None]
    return X, followers, float(np.linalg.norm(direct @ X @ L))
