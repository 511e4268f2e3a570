"""Differences of systems with quadratic outputs: their states side by side.

Theory: ``theory/quadratic-output.md``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ssmred.errors import ShapeError, UnsupportedOperationError, message
from ssmred.systems.diagonal import DiagonalSystem
from ssmred.systems.linear import LinearSystem
from ssmred.systems.quadratic import QuadraticOutputSystem
from ssmred.systems.quadratic_forms import block_diagonal

__all__ = ["check_alike", "quadratic_difference", "stacked_states"]


def quadratic_difference(
    full: QuadraticOutputSystem, reduced: QuadraticOutputSystem, where: str
) -> QuadraticOutputSystem:
    """Return the system ``full - reduced``, states stacked, ``M = diag(M_1, -M_2)``.

    Systems with the same A and B keep one copy of the states.

    Raises
    ------
    ShapeError
        If the systems differ in time, batch, inputs, outputs, recurrence or convention.
    """
    check_alike(full, reduced, where)
    full, reduced = _alike(full, reduced)
    same = np.array_equal(full.A, reduced.A) and np.array_equal(full.B, reduced.B)
    D = full.D - reduced.D
    if full.factors is None or reduced.factors is None:
        forms = full.matrices(), reduced.matrices()
        M: Any = forms[0] - forms[1] if same else block_diagonal(forms[0], -forms[1])
    else:  # M_1 - M_2 has the factors (U_1, U_2) and (V_1, -V_2)
        join = _side_by_side if same else block_diagonal
        sides = zip(full.factors, reduced.factors, (1.0, -1.0), strict=True)
        M = tuple(join(one, sign * two) for one, two, sign in sides)
    if same:
        return full.replace(C=full.C - reduced.C, D=D, M=M)
    states = stacked_states(full.linear, reduced.linear)
    C = np.concatenate([full.C, -reduced.C], axis=-1)
    return QuadraticOutputSystem.of(states.replace(C=C, D=D), M, convention=full.convention)


def _side_by_side(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    return np.concatenate([one, two], axis=-1)


def check_alike(full: QuadraticOutputSystem, reduced: QuadraticOutputSystem, where: str) -> None:
    """Raise an error unless two systems can be compared.

    Raises
    ------
    UnsupportedOperationError
        If one has no quadratic outputs.
    ShapeError
        If they differ in time, batch, inputs, outputs, recurrence or convention.
    """
    for system in (full, reduced):
        if not isinstance(system, QuadraticOutputSystem):
            raise UnsupportedOperationError(
                message(
                    where,
                    "a system has no quadratic outputs",
                    expected="a QuadraticOutputSystem",
                    got=type(system).__name__,
                    cure="QuadraticOutputSystem.of(linear, zeros) has some that are 0.",
                )
            )
    names = ("dt", "batch_shape", "inputs", "outputs", "recurrence", "convention")
    for name in names:
        one, two = getattr(full, name), getattr(reduced, name)
        if one != two:
            cure = "Use with_convention." if name == "convention" else ""
            raise ShapeError(
                message(
                    where, f"the systems differ in {name}", expected=f"{one}", got=f"{two}",
                    cure=cure,
                )
            )  # fmt: skip


def stacked_states(one: LinearSystem, two: LinearSystem) -> LinearSystem:
    """Return the linear system with the states of both, one after the other, and no outputs.

    Of two kinds it is dense; real states are written out where only one has ``real_output``.
    """
    if one.real_output != two.real_output:
        one, two = one.realified(), two.realified()
    B = np.concatenate([one.B, two.B], axis=-2)
    C, D = np.zeros((*B.shape[:-2], 0, B.shape[-2])), np.zeros((*B.shape[:-2], 0, B.shape[-1]))
    if isinstance(one, DiagonalSystem) and isinstance(two, DiagonalSystem):
        poles = np.concatenate([one.poles, two.poles], axis=-1)
        return one.replace(poles=poles, B=B, C=C, D=D)
    first, second = one.to_dense(), two.to_dense()
    return first.replace(A=block_diagonal(first.A, second.A), B=B, C=C, D=D)


def _alike(
    one: QuadraticOutputSystem, two: QuadraticOutputSystem
) -> tuple[QuadraticOutputSystem, QuadraticOutputSystem]:
    """Return two systems of one kind, both diagonal or both dense."""
    if one.real_output != two.real_output:
        if one.is_real and two.is_real:
            one, two = one.realified(), two.realified()
        else:  # a spectrum with its conjugates is complex data
            one, two = (_written_out(system) for system in (one, two))
    if (one.A.ndim == one.B.ndim) != (two.A.ndim == two.B.ndim):
        one, two = one.to_dense(), two.to_dense()
    return one, two


def _written_out(system: QuadraticOutputSystem) -> QuadraticOutputSystem:
    """Return the same without ``real_output``."""
    if system.real_output and not isinstance(system.linear, DiagonalSystem):
        return system.realified()
    return system.full_spectrum()
