"""Exchange with python-control and SciPy, and the difference of two systems.

Both libraries know one recurrence only, the standard one, and real matrices; a system is brought
to that form with its input-output map unchanged, or refused. Systems that come from there keep
their numbers: no root is turned into coefficients, no coefficient into roots.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ssmred.errors import ShapeError, UnsupportedOperationError, message
from ssmred.systems.dense import DenseSystem
from ssmred.systems.diagonal import DiagonalSystem
from ssmred.systems.linear import LinearSystem, check_system
from ssmred.systems.quadratic import AnySystem, QuadraticOutputSystem
from ssmred.systems.stacking import quadratic_difference
from ssmred.systems.transfer_functions import cascade_form, companion_form

__all__ = ["difference", "difference_of", "from_control", "from_scipy", "to_control", "to_scipy"]


CURES = {
    "dt": "Discretise both alike, or correct dt with replace(dt=...).",
    "batch_shape": "Compare systems with the same number of channels.",
    "inputs": "Compare systems with the same inputs.",
    "outputs": "Compare systems with the same outputs.",
}


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
        For a batch, complex outputs (python-control would drop the imaginary parts), or a system
        without inputs or outputs.

    Examples
    --------
    >>> system = DiagonalSystem([0.5], [1.0], [2.0], dt=0.1)
    >>> to_control(system).dt
    0.1
    """
    import control

    matrices = _exchange_matrices(system, "to_control")
    if not (system.inputs and system.outputs):
        raise UnsupportedOperationError(
            message(
                "to_control",
                "python-control has no systems without inputs or outputs",
                expected="at least one input and one output",
                got=f"{system.inputs} and {system.outputs}",
                cure="Add an input or output of zeros.",
            )
        )
    return control.StateSpace(*matrices, system.dt, remove_useless_states=False)


def from_control(system: Any) -> DenseSystem:
    """Return the standard-form DenseSystem of a ``control.StateSpace`` or ``TransferFunction``.

    Parameters
    ----------
    system : control.StateSpace or control.TransferFunction
        Its names of states, inputs and outputs are not kept. ``dt=True`` counts as 1.0.

    Returns
    -------
    DenseSystem
        A transfer function becomes companion matrices that hold its coefficients as they are, one
        block per input and denominator; common factors are not cancelled.

    Raises
    ------
    ShapeError
        If the time base is unspecified (``dt=None``), or a transfer function is improper.
    UnsupportedOperationError
        If it is neither of the two: frequency response data, a nonlinear system.

    Examples
    --------
    >>> import control
    >>> from_control(control.tf([2.0], [1.0, 3.0], 0)).A.tolist()
    [[-3.0]]
    """
    import control

    if not isinstance(system, (control.StateSpace, control.TransferFunction)):
        raise UnsupportedOperationError(
            message(
                "from_control",
                "this is no python-control state-space or transfer-function system",
                got=type(system).__name__,
                cure="Fit a model to frequency response data first; linearise nonlinear systems.",
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
        matrices = companion_form(system.num, system.den, "from_control")
        return DenseSystem(*matrices, system.dt)
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

    Parameters
    ----------
    system : scipy.signal.StateSpace, TransferFunction or ZerosPolesGain
        Complex data stays complex; ``dt=True`` counts as 1.0.

    Returns
    -------
    DenseSystem
        A transfer function becomes a companion matrix of its coefficients; zeros and poles a chain
        of sections whose eigenvalues are the given poles (SciPy goes through the coefficients).

    Raises
    ------
    UnsupportedOperationError
        If it is no scipy.signal system, or has zeros and poles of several outputs.
    ShapeError
        If a transfer function is improper.

    Examples
    --------
    >>> from scipy import signal
    >>> from_scipy(signal.StateSpace([[0.5]], [[1.0]], [[2.0]], [[0.0]], dt=0.1)).dt
    0.1
    """
    from scipy import signal

    where = "from_scipy"
    if not isinstance(system, (signal.lti, signal.dlti)):
        raise UnsupportedOperationError(
            message(where, "this is no scipy.signal lti or dlti", got=type(system).__name__)
        )
    dt = system.dt if isinstance(system, signal.dlti) else 0.0
    if isinstance(system, signal.ZerosPolesGain):
        if np.ndim(system.zeros) > 1 or np.size(system.gain) != 1:
            raise UnsupportedOperationError(
                message(
                    where,
                    "zeros and poles of several outputs are not supported",
                    expected="one list of zeros and one gain",
                    got=f"zeros {np.shape(system.zeros)}, gain {np.shape(system.gain)}",
                    cure="Convert one output at a time, or system.to_ss() by SciPy.",
                )
            )
        matrices = cascade_form(system.zeros, system.poles, system.gain, where)
    elif isinstance(system, signal.TransferFunction):
        num = np.atleast_2d(system.num)  # one row per output
        matrices = companion_form([[row] for row in num], [[system.den]] * len(num), where)
    else:
        matrices = (system.A, system.B, system.C, system.D)
    return DenseSystem(*matrices, dt)


def difference(full: AnySystem, reduced: AnySystem) -> AnySystem:
    """Return the system ``full - reduced``: same input, difference of the outputs.

    States are stacked, ``A = diag(A_1, A_2)``, ``B = (B_1, B_2)``, ``C = (C_1, -C_2)``,
    ``D = D_1 - D_2``. Dense systems that share A and B, or A and C, keep one copy of the states,
    with ``C_1 - C_2`` or ``B_1 - B_2``: nothing is left to cancel. Quadratic outputs:
    ``M = diag(M_1, -M_2)``, or ``M_1 - M_2`` where A and B are shared.

    Parameters
    ----------
    full, reduced : DiagonalSystem, DenseSystem or QuadraticOutputSystem
        Same dt, batch, inputs and outputs. Different recurrences are brought to the standard one;
        a diagonal and a dense system give a dense one.

    Returns
    -------
    DiagonalSystem, DenseSystem or QuadraticOutputSystem

    Raises
    ------
    ShapeError
        If the systems do not match. Quadratic outputs are not brought to another recurrence.

    Notes
    -----
    Norms of diagonal results merge equal poles exactly before anything is rounded. Other dense
    systems differ by what rounding leaves of two large responses.
    """
    where = "difference"
    if isinstance(full, QuadraticOutputSystem) or isinstance(reduced, QuadraticOutputSystem):
        return quadratic_difference(full, reduced, where)
    return difference_of(full, reduced, where)


def difference_of(full: LinearSystem, reduced: LinearSystem, where: str) -> LinearSystem:
    """Return :func:`difference` of linear systems; errors name the function ``where``."""
    _check_match(full, reduced, where)
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
    if np.array_equal(one.A, two.A):
        D = one.D - two.D
        if np.array_equal(one.B, two.B):
            return one.replace(C=one.C - two.C, D=D)
        if np.array_equal(one.C, two.C):
            return one.replace(B=one.B - two.B, D=D)
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


def _check_match(full: Any, reduced: Any, where: str) -> None:
    for system in (full, reduced):
        check_system(system, where)
    for name in ("dt", "batch_shape", "inputs", "outputs"):
        one, two = getattr(full, name), getattr(reduced, name)
        if one != two:
            raise ShapeError(
                message(
                    where,
                    f"the systems differ in {name}",
                    expected=f"{one}",
                    got=f"{two}",
                    cure=CURES[name],
                )
            )


def _exchange_matrices(system: LinearSystem, where: str) -> tuple[np.ndarray, ...]:
    """Return real standard-form (A, B, C, D) of one system, or refuse."""
    check_system(system, where)
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
