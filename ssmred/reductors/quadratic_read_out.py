"""The best linear and quadratic read-out of given states.

Theory: ``theory/quadratic-read-out.md``.
"""

from __future__ import annotations

import numpy as np

from ssmred.errors import ShapeError, message
from ssmred.gramians.gramian import gramian_factor
from ssmred.systems.diagonal import DiagonalSystem
from ssmred.systems.linear import LinearSystem, adjoint
from ssmred.systems.quadratic import QuadraticOutputSystem
from ssmred.systems.quadratic_forms import HERMITIAN
from ssmred.systems.stability import check_horizon_of
from ssmred.systems.stacking import stacked_states

__all__ = ["projected_forms", "read_out_roots", "with_best_read_out"]


def with_best_read_out(
    full: QuadraticOutputSystem,
    states: LinearSystem,
    *,
    horizon: int | None = None,
    direct: bool = True,
) -> QuadraticOutputSystem:
    """Return the system on given states whose C, D and M have the least h2 error.

    Parameters
    ----------
    full : QuadraticOutputSystem
        What is approximated: one system.
    states : DiagonalSystem or DenseSystem
        Whose A and B are taken; its C and D are not. Same time, inputs and recurrence, without
        ``real_output``; for a ``full`` with real outputs real, or with all conjugates.
    horizon : int or None
        Number of samples of the kernels that are compared.
    direct : bool
        Whether D is free too; else it is the full system's.

    Returns
    -------
    QuadraticOutputSystem
        M in factors, of the same rank, where the full one is.

    Raises
    ------
    ShapeError
        If the states differ from the system in time, batch, inputs or recurrence, or have
        ``real_output``.
    UnstableSystemError
        If a pole of either is not stable and the horizon is infinite.

    Notes
    -----
    ``C = C_1 W``, ``M_j = W^* M_1j W`` with ``W = X P^{-1}``: a least-squares problem in square
    roots. Level FLOAT. Cost O((n + r)^3). Theory: ``theory/quadratic-read-out.md``, 1.

    Examples
    --------
    Of two equal modes one is enough:

    >>> from ssmred.systems import DiagonalSystem
    >>> full = QuadraticOutputSystem([0.5, 0.5], [[1.0], [1.0]], None, [[1.0, 0.0], [0.0, 3.0]])
    >>> one = with_best_read_out(full, DiagonalSystem([0.5], [1.0], [0.0]))
    >>> one.M.round(12).tolist()
    [[[4.0]]]
    """
    where = "with_best_read_out"
    for name in ("dt", "batch_shape", "inputs", "recurrence"):
        wanted, got = getattr(full.linear, name), getattr(states, name)
        if wanted != got:
            raise ShapeError(
                message(where, f"states differ in {name}", expected=f"{wanted}", got=f"{got}")
            )
    if states.real_output or full.batch_shape:
        raise ShapeError(
            message(
                where,
                "this is not one plain set of states",
                expected="one system, without real_output",
                got=f"{states!r}",
                cure="Write a half spectrum out: full_spectrum() or realified().",
            )
        )
    work = full.realified() if full.real_output else full
    first, second = read_out_roots(work, states, horizon, where, direct=direct)
    W, C_map = (_map(L, work.order) for L in (second, first))
    C = work.C @ C_map
    D = work.D
    if work.is_post_update and direct:  # D makes the first sample equal
        D = work.D + work.C @ work.B - C @ states.B
    return QuadraticOutputSystem.of(
        states.replace(C=C, D=D), projected_forms(work, W), convention=work.convention
    )


def read_out_roots(
    full: QuadraticOutputSystem,
    states: LinearSystem | None,
    horizon: int | None,
    where: str,
    *,
    direct: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Return square roots (n + r, K) of what C, and of what M, is fitted in.

    Of the states of both, one above the other (states None: of the full system alone). The first
    sample of a post-update response is no matter of C where D is free: D makes it right.
    """
    length = check_horizon_of(full.linear, horizon, where)
    if states is not None:
        check_horizon_of(states, horizon, where)
    joint = full.linear if states is None else stacked_states(full.linear, states)
    later = None if length is None else length - 1
    if not (full.is_post_update and direct):
        both = _root(joint, length if full.is_post_update else later, where)
        return both, both
    first = _root(joint, later, where)
    second = first if length is None else _root(joint, length, where)
    A = joint.poles[:, None] * first if isinstance(joint, DiagonalSystem) else joint.A @ first  # type: ignore[attr-defined]
    return A, second


def projected_forms(
    system: QuadraticOutputSystem, W: np.ndarray
) -> np.ndarray | tuple[np.ndarray, ...]:
    """Return ``W^* M_j W`` (``W^T`` for transpose), in factors where they are."""
    left = adjoint(W) if system.convention == HERMITIAN else np.swapaxes(W, -1, -2)
    if system.factors is not None:
        return tuple(left @ part for part in system.factors)
    M = left @ system.M @ W
    other = adjoint(M) if system.convention == HERMITIAN else np.swapaxes(M, -1, -2)
    return (M + other) / 2  # its two halves round differently


def _root(joint: LinearSystem, terms: int | None, where: str) -> np.ndarray:
    if terms == 0:
        return np.zeros((joint.order, 1))
    return gramian_factor(joint, where, terms, dual=False)


def _map(L: np.ndarray, n: int) -> np.ndarray:
    """Return the W with the least ``||L_1 - W L_2||``, L_1 the first n rows of L."""
    sizes = np.linalg.norm(L[n:], axis=1)
    sizes = np.where(sizes > 0, sizes, 1.0)
    scaled = adjoint(L[n:] / sizes[:, None])
    W = adjoint(np.linalg.lstsq(scaled, adjoint(L[:n]), rcond=None)[0])
    return W / sizes
