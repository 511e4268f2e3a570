"""Products of two linear outputs: a filter and a bilinear gate after it, as one system.

What control theory calls a bilinear system, with products of states and inputs in the state
equation, is something else. Theory: ``theory/bilinear-gate.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ssmred.checks import check_real_array
from ssmred.errors import ShapeError, UnsupportedOperationError, message
from ssmred.systems.diagonal import DiagonalSystem
from ssmred.systems.linear import LinearSystem, check_system
from ssmred.systems.quadratic import QuadraticOutputSystem
from ssmred.systems.quadratic_forms import block_diagonal

__all__ = ["GatedSystem", "gated_system"]


@dataclass(frozen=True, eq=False)
class GatedSystem:
    """Hold a system with quadratic outputs, and the constant that a gate with biases adds.

    Attributes
    ----------
    system : QuadraticOutputSystem
        One system; M in factors of rank 1.
    offset : (p,) float64
        What the gate answers to silence, ``b1 * b2``. It has no kernel, so no norm and no error
        sees it.
    """

    system: QuadraticOutputSystem
    offset: np.ndarray

    def simulate(self, u: np.ndarray) -> np.ndarray:
        """Return the gate's outputs (..., T, p) float64 for real inputs (..., T, m), from rest."""
        u = check_real_array(u, "u", "GatedSystem.simulate")
        return self.system.simulate(u).real + self.offset


def gated_system(
    filtered: LinearSystem, W1: Any, W2: Any, b1: Any = None, b2: Any = None
) -> GatedSystem:
    """Return ``(W1 y + b1) * (W2 y + b2)``, entry by entry, of a filter's outputs y.

    On the states of the filter, ``y = C x``: ``M_j = (w1_j^T w2_j + w2_j^T w1_j) / 2`` with the
    rows w of ``W1 C`` and ``W2 C``, linear outputs ``b2 W1 C + b1 W2 C``. Where a direct term D
    reaches a factor, states that hold its inputs, ``xi_k = u_k`` (pole 0), come last, and the rows
    are those of ``W (C, D)``.

    Parameters
    ----------
    filtered : DiagonalSystem or DenseSystem
        Real outputs. A batch (H,) is H filters side by side: their inputs, states and outputs
        follow one another. States that never move (padding of ragged channels) are left out.
    W1, W2 : (p, q) float64
        Of all q outputs of the filter; ``numpy.eye(q)`` where a factor is y itself.
    b1, b2 : (p,) float64, optional
        Zero by default.

    Returns
    -------
    GatedSystem
        Same time and recurrence. A half spectrum (``real_output``) comes back diagonal with its
        conjugate modes written out; pass ``filtered.realified()`` for real matrices.

    Raises
    ------
    ShapeError, DataError
        If shapes do not fit, or a weight is complex, nan or inf.
    UnsupportedOperationError
        If the filter's outputs are complex, or a direct term reaches a factor in continuous time or
        in the standard recurrence.

    Notes
    -----
    Exact: no more than the rounding of the products. Cost O(p q n); M is never formed. Theory:
    ``theory/bilinear-gate.md``.

    Examples
    --------
    With ``x = 1, 1/2, 1/4`` and ``y = (x, u)``, ``y_1 (y_1 + y_2)``:

    >>> filtered = DiagonalSystem(
    ...     [0.5], [[1.0]], [[1.0], [0.0]], [[0.0], [1.0]], recurrence="post-update")
    >>> gate = gated_system(filtered, [[1.0, 0.0]], [[1.0, 1.0]])
    >>> gate.system.order, gate.simulate([[1.0], [0.0], [0.0]])[:, 0].tolist()
    (2, [2.0, 0.25, 0.0625])
    """
    where = "gated_system"
    joint = _side_by_side(filtered, where)
    W1, b1 = _factor(W1, b1, "1", joint.outputs, where)
    W2, b2 = _factor(W2, b2, "2", joint.outputs, where)
    if W1.shape != W2.shape:
        raise ShapeError(
            message(where, "W1 and W2 differ in shape", expected=f"{W1.shape}", got=f"{W2.shape}")
        )
    D1, D2 = W1 @ joint.D.real, W2 @ joint.D.real
    states, C1, C2 = joint, W1 @ joint.C, W2 @ joint.C
    linear = b2[:, None] * C1 + b1[:, None] * C2
    seen = np.any(D1, axis=0) | np.any(D2, axis=0)
    if seen.any():
        states = _with_inputs(joint, seen, where)
        C1, C2 = np.hstack([C1, D1[:, seen]]), np.hstack([C2, D2[:, seen]])
        linear = np.hstack([linear, np.zeros((len(W1), int(seen.sum())))])  # D does that part
    direct = b2[:, None] * D1 + b1[:, None] * D2
    system = QuadraticOutputSystem.of(
        states.replace(C=linear, D=direct), (C1.conj()[..., None], C2.conj()[..., None])
    )
    offset = b1 * b2
    offset.setflags(write=False)
    return GatedSystem(system, offset)


def _side_by_side(filtered: LinearSystem, where: str) -> LinearSystem:
    """Return the filters of a batch as one system, whose states include their conjugates."""
    check_system(filtered, where)
    if len(filtered.batch_shape) > 1:
        raise ShapeError(
            message(
                where,
                "the filter is a batch with several axes",
                expected="batch shape () or (H,)",
                got=f"{filtered.batch_shape}",
            )
        )
    if not filtered.is_real:
        raise UnsupportedOperationError(
            message(
                where,
                "the filter's outputs are complex",
                cure="Set real_output=True if only the real part is used.",
            )
        )
    diagonal = isinstance(filtered, DiagonalSystem)
    written = filtered.full_spectrum() if diagonal else filtered.realified()
    B, C, D = (_joined(matrices) for matrices in (written.B, written.C, written.D))
    if isinstance(written, DiagonalSystem):
        moves = np.any(B, axis=-1)
        rest: dict[str, np.ndarray] = {"poles": written.poles.ravel()[moves]}
    else:
        A = _joined(written.A)
        moves = np.any(A, axis=-1) | np.any(B, axis=-1)
        rest = {"A": A[np.ix_(moves, moves)]}
    return written.replace(B=B[moves], C=C[:, moves], D=D, **rest)


def _joined(blocks: np.ndarray) -> np.ndarray:
    """Return the block diagonal matrix of (H, a, b), or the matrix (a, b) itself."""
    if blocks.ndim == 2:
        return blocks
    H, a, b = blocks.shape
    out = np.zeros((H, a, H, b), blocks.dtype)
    out[np.arange(H), :, np.arange(H)] = blocks
    return out.reshape(H * a, H * b)


def _factor(W: Any, b: Any, name: str, outputs: int, where: str) -> tuple[np.ndarray, np.ndarray]:
    W = check_real_array(W, f"W{name}", where)
    if W.ndim != 2 or W.shape[1] != outputs:
        raise ShapeError(
            message(
                where,
                f"W{name} does not fit the filter",
                expected=f"(p, {outputs}), one column per output",
                got=f"{W.shape}",
            )
        )
    b = np.zeros(len(W)) if b is None else check_real_array(b, f"b{name}", where)
    if b.shape != W.shape[:1]:
        raise ShapeError(
            message(
                where, f"b{name} does not fit W{name}", expected=f"{W.shape[:1]}", got=f"{b.shape}"
            )
        )
    return W, b


def _with_inputs(system: LinearSystem, seen: np.ndarray, where: str) -> LinearSystem:
    """Return a system whose last states are some of its present inputs."""
    if not system.is_post_update:
        time = "the standard recurrence" if system.is_discrete else "continuous time"
        raise UnsupportedOperationError(
            message(
                where,
                f"a direct term reaches a factor in {time}, where no state is the present input",
                expected="W1 D = 0 and W2 D = 0, or the post-update recurrence",
                cure='filtered.with_recurrence("post-update") has the same outputs where no pole '
                "is 0."
                if system.is_discrete
                else "Discretise the filter first.",
            )
        )
    held = np.eye(system.inputs)[seen]
    B = np.vstack([system.B, held])
    C = np.zeros((0, len(B)))
    D = np.zeros((0, system.inputs))
    if isinstance(system, DiagonalSystem):
        return system.replace(poles=np.append(system.poles, np.zeros(len(held))), B=B, C=C, D=D)
    A = block_diagonal(system.A, np.zeros((len(held), len(held))))
    return system.replace(A=A, B=B, C=C, D=D)
