"""Exchange with python-control and SciPy, and the difference of two systems.

Both libraries know one recurrence only, the standard one, and real matrices; a system is brought
to that form with its input-output map unchanged, or refused.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ssmred.errors import ShapeError, UnsupportedOperationError, message
from ssmred.systems.dense import DenseSystem
from ssmred.systems.diagonal import DiagonalSystem
from ssmred.systems.linear import LinearSystem

__all__ = ["difference", "from_control", "from_scipy", "to_control", "to_scipy"]


def to_control(system: LinearSystem) -> Any:
    """Return the ``control.StateSpace`` with the same input-output map.

    Parameters
    ----------
    system : DiagonalSystem or DenseSystem
        Unbatched, with real outputs. The standard recurrence is written out; a ``real_output``
        system gets its real form.

    Returns
    -------
    control.StateSpace

    Raises
    ------
    UnsupportedOperationError
        For a batch, or complex outputs (python-control would drop the imaginary parts).

    Examples
    --------
    >>> system = DiagonalSystem([0.5], [1.0], [2.0], dt=0.1)
    >>> to_control(system).dt
    0.1
    """
    import control

    return control.StateSpace(*_exchange_matrices(system, "to_control"), system.dt)


def from_control(system: Any) -> DenseSystem:
    """Return the standard-form DenseSystem of a ``control.StateSpace`` or ``TransferFunction``.

    Raises
    ------
    ShapeError
        If the time base is unspecified (``dt=None``).
    UnsupportedOperationError
        If it is no python-control LTI system.
    """
    import control

    if not isinstance(system, (control.StateSpace, control.TransferFunction)):
        raise UnsupportedOperationError(
            message(
                "from_control",
                "this is no python-control state-space or transfer-function system",
                got=type(system).__name__,
            )
        )
    if system.dt is None:
        raise ShapeError(
            message(
                "from_control",
                "dt is None, so continuous and discrete time cannot be told apart",
                cure="Give the python-control system a dt (0 for continuous time).",
            )
        )
    if isinstance(system, control.TransferFunction):
        system = control.ss(system)
    return DenseSystem(system.A, system.B, system.C, system.D, system.dt)


def to_scipy(system: LinearSystem) -> Any:
    """Return the ``scipy.signal.StateSpace`` with the same input-output map.

    Raises
    ------
    UnsupportedOperationError
        For a batch, or complex outputs.
    """
    from scipy import signal

    matrices = _exchange_matrices(system, "to_scipy")
    if system.is_discrete:
        return signal.StateSpace(*matrices, dt=system.dt)
    return signal.StateSpace(*matrices)


def from_scipy(system: Any) -> DenseSystem:
    """Return the standard-form DenseSystem of a ``scipy.signal`` ``lti`` or ``dlti`` system.

    Raises
    ------
    UnsupportedOperationError
        If it is no scipy.signal system.

    Examples
    --------
    >>> from scipy import signal
    >>> from_scipy(signal.StateSpace([[0.5]], [[1.0]], [[2.0]], [[0.0]], dt=0.1)).dt
    0.1
    """
    from scipy import signal

    if not isinstance(system, (signal.lti, signal.dlti)):
        raise UnsupportedOperationError(
            message("from_scipy", "this is no scipy.signal lti or dlti", got=type(system).__name__)
        )
    dt = system.dt if isinstance(system, signal.dlti) else 0.0
    space = system.to_ss()
    return DenseSystem(space.A, space.B, space.C, space.D, dt)


def difference(full: LinearSystem, reduced: LinearSystem) -> LinearSystem:
    """Return the system ``full - reduced``: same input, difference of the outputs.

    States are stacked, ``A = diag(A_1, A_2)``, ``B = (B_1, B_2)``, ``C = (C_1, -C_2)``,
    ``D = D_1 - D_2``.

    Parameters
    ----------
    full, reduced : DiagonalSystem or DenseSystem
        Same dt, batch, inputs and outputs. Different recurrences are brought to the standard one;
        a diagonal and a dense system give a dense one.

    Returns
    -------
    DiagonalSystem or DenseSystem

    Raises
    ------
    ShapeError
        If the systems do not match.

    Notes
    -----
    Norms of the result merge equal poles exactly before anything is rounded.
    """
    _check_match(full, reduced)
    if full.recurrence != reduced.recurrence:
        full, reduced = full.with_recurrence("standard"), reduced.with_recurrence("standard")
    if isinstance(full, DiagonalSystem) and isinstance(reduced, DiagonalSystem):
        if full.real_output != reduced.real_output:
            full, reduced = full.full_spectrum(), reduced.full_spectrum()
        return full.replace(
            poles=np.concatenate([full.poles, reduced.poles], axis=-1), **_stacked(full, reduced)
        )
    one, two = full.to_dense(), reduced.to_dense()
    if one.real_output != two.real_output:
        one, two = (s.realified() if s.real_output else s for s in (one, two))
    n, extra = one.order, two.order
    A = np.zeros((*one.batch_shape, n + extra, n + extra), np.result_type(one.A, two.A))
    A[..., :n, :n], A[..., n:, n:] = one.A, two.A
    return one.replace(A=A, **_stacked(one, two))


def _stacked(one: LinearSystem, two: LinearSystem) -> dict[str, np.ndarray]:
    return {
        "B": np.concatenate([one.B, two.B], axis=-2),
        "C": np.concatenate([one.C, -two.C], axis=-1),
        "D": one.D - two.D,
    }


def _check_match(full: Any, reduced: Any) -> None:
    for system in (full, reduced):
        if not isinstance(system, LinearSystem):
            raise UnsupportedOperationError(
                message(
                    "difference",
                    "not a system",
                    expected="DiagonalSystem or DenseSystem",
                    got=type(system).__name__,
                )
            )
    for name in ("dt", "batch_shape", "inputs", "outputs"):
        one, two = getattr(full, name), getattr(reduced, name)
        if one != two:
            raise ShapeError(
                message(
                    "difference", f"the systems differ in {name}", expected=f"{one}", got=f"{two}"
                )
            )


def _exchange_matrices(system: LinearSystem, where: str) -> tuple[np.ndarray, ...]:
    """Return real standard-form (A, B, C, D) of one system, or refuse."""
    if not isinstance(system, LinearSystem):
        raise UnsupportedOperationError(message(where, "not a system", got=type(system).__name__))
    if system.batch_shape:
        raise UnsupportedOperationError(
            message(
                where,
                f"the system is a batch of shape {system.batch_shape}",
                expected="one system",
                cure="Convert one entry at a time.",
            )
        )
    if not system.is_real:
        raise UnsupportedOperationError(
            message(
                where,
                "the outputs are complex and the imaginary parts would be dropped",
                cure="Set real_output=True if only Re(C x) is used.",
            )
        )
    dense = system.realified().with_recurrence("standard")
    return dense.A, dense.B, dense.C, dense.D
