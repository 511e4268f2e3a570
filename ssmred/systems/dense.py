"""Dense systems: a full matrix A."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ssmred.checks import check_array, check_real_array, is_complex_data
from ssmred.errors import DataError, ShapeError, UnsupportedOperationError, message
from ssmred.kernels.response import fill_dense_outputs
from ssmred.systems.linear import LinearSystem, _flat

__all__ = ["DenseSystem", "check_off_poles", "flat_matrices", "points_of"]


@dataclass(frozen=True, eq=False, repr=False)
class DenseSystem(LinearSystem):
    """Describe a linear system with a full A, or a batch of independent ones.

    ``x_{k+1} = A x_k + B u_k`` (standard) or ``x_k = A x_{k-1} + B u_k`` (post-update),
    ``y_k = C x_k + D u_k``, or ``y_k = Re(C x_k) + D u_k`` with ``real_output``.

    Parameters
    ----------
    A : (..., n, n) float64 or complex128
    B : (..., n, m) float64 or complex128
    C : (..., p, n) float64 or complex128
    D : (..., p, m) float64 or complex128, optional
        Zero by default. The shorthands of :class:`DiagonalSystem` for one input or one output
        are accepted.
    dt : float
        Sampling time > 0; True counts as 1.0; 0 is continuous time.
    recurrence : {"standard", "post-update"}
    real_output : bool

    Raises
    ------
    ShapeError, DataError
        If shapes do not fit, or a value is nan or inf.

    Examples
    --------
    >>> system = DenseSystem([[0.0, 1.0], [0.0, 0.0]], [[0.0], [1.0]], [[1.0, 0.0]])
    >>> system.impulse_response(4)[:, 0, 0].tolist()
    [0.0, 0.0, 1.0, 0.0]
    """

    A: np.ndarray
    B: np.ndarray
    C: np.ndarray
    D: np.ndarray = None  # type: ignore[assignment]  # becomes zeros
    dt: float = 1.0
    recurrence: str = field(default="standard", kw_only=True)
    real_output: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        """Check, complete and freeze the data."""
        A = check_array(self.A, "A", "DenseSystem")
        if A.ndim < 2 or A.shape[-1] != A.shape[-2]:
            raise ShapeError(
                message("DenseSystem", "A is not square", expected="(..., n, n)", got=f"{A.shape}")
            )
        self._set(A=A)
        self._finish("DenseSystem", A.shape[:-2])

    @classmethod
    def from_control(cls, system: Any) -> DenseSystem:
        """Return the DenseSystem of a python-control system; see :func:`from_control`."""
        from ssmred.systems.conversions import from_control

        return from_control(system)

    @classmethod
    def from_scipy(cls, system: Any) -> DenseSystem:
        """Return the DenseSystem of a scipy.signal system; see :func:`from_scipy`."""
        from ssmred.systems.conversions import from_scipy

        return from_scipy(system)

    @cached_property
    def poles(self) -> np.ndarray:
        """Eigenvalues of A, (..., n) complex128, read-only; computed when first read."""
        poles = np.linalg.eigvals(self.A).astype(np.complex128)
        poles.setflags(write=False)
        return poles

    def frequency_response(self, omega: np.ndarray) -> np.ndarray:
        """Return ``H(z) = C (z I - A)^{-1} B + D`` at ``z = exp(1j omega dt)`` (or ``1j omega``).

        Parameters
        ----------
        omega : (W,) float64
            Angular frequencies in rad per unit of time.

        Returns
        -------
        (..., W, p, m) complex128

        Notes
        -----
        One linear solve per frequency, O(W n^3).
        """
        if self.real_output:
            return self.realified().frequency_response(omega)
        omega = check_real_array(omega, "omega", "frequency_response")
        z = points_of(self, omega)
        resolvent = z[:, None, None] * np.eye(self.order) - self.A[..., None, :, :]
        B = np.broadcast_to(
            self.B[..., None, :, :], (*self.batch_shape, z.size, *self.B.shape[-2:])
        )
        try:
            states = np.linalg.solve(resolvent, B)
        except np.linalg.LinAlgError as error:
            raise DataError(_on_a_pole("frequency_response")) from error
        if self.is_post_update:
            states = states * z[:, None, None]
        return self.C[..., None, :, :] @ states + self.D[..., None, :, :]

    def to_dense(self) -> DenseSystem:
        """Return the system itself."""
        return self

    def realified(self) -> DenseSystem:
        """Return real matrices with the same input-output map, states ``(Re x_1, Im x_1, ...)``.

        Raises
        ------
        UnsupportedOperationError
            If the outputs are complex.
        """
        if not self.is_real:
            raise UnsupportedOperationError(
                message(
                    "realified",
                    "the outputs are complex",
                    cure="Set real_output=True if only Re(C x) is used.",
                )
            )
        if not self.real_output:
            if not any(map(np.iscomplexobj, (self.A, self.B, self.C, self.D))):
                return self
            # real data, though the dtype is complex
            return self.replace(A=self.A.real, B=self.B.real, C=self.C.real, D=self.D.real)
        return self.replace(
            A=_interleave([[self.A.real, -self.A.imag], [self.A.imag, self.A.real]]),
            B=_interleave([[self.B.real], [self.B.imag]]),
            C=_interleave([[self.C.real, -self.C.imag]]),
            real_output=False,
        )

    def _has_complex_data(self) -> bool:
        return is_complex_data(self.A, self.B, self.C, self.D)

    def _leading_order(self) -> int:
        return self.A.shape[-1]

    def _markov_parameters(self, count: int) -> np.ndarray:
        dtype = np.result_type(self.A, self.B, self.C)
        out = np.empty((*self.batch_shape, count, self.outputs, self.inputs), dtype=dtype)
        states = self.B
        for k in range(count):
            out[..., k, :, :] = self.C @ states
            states = self.A @ states
        return np.ascontiguousarray(out.real) if self.is_real else out

    def _read_out_times_a(self) -> np.ndarray:
        return self.C @ self.A

    def _read_out_over_a(self) -> np.ndarray:
        transpose = np.swapaxes(self.A, -1, -2)
        try:
            solution = np.linalg.solve(transpose, np.swapaxes(self.C, -1, -2))
        except np.linalg.LinAlgError as error:
            raise UnsupportedOperationError(
                message(
                    "with_recurrence",
                    "A is singular, so post-update form does not exist",
                    cure="Remove the modes with pole 0; post-update cannot delay an input.",
                )
            ) from error
        return np.swapaxes(solution, -1, -2)

    def _fill_outputs(
        self, u: np.ndarray, x: np.ndarray, y: np.ndarray, lead: tuple[int, ...]
    ) -> None:
        fill_dense_outputs(
            _flat(self.A, lead, 2),
            _flat(self.B, lead, 2),
            _flat(self.C, lead, 2),
            _flat(self.D, lead, 2),
            self.is_post_update,
            u,
            x,
            y,
        )


def flat_matrices(system: DenseSystem) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return A, B, C, D with one batch axis: (H, n, n), (H, n, m), (H, p, n), (H, p, m)."""
    count = math.prod(system.batch_shape)
    A, B, C, D = (M.reshape(count, *M.shape[-2:]) for M in (system.A, system.B, system.C, system.D))
    return A, B, C, D


def points_of(system: LinearSystem, omega: np.ndarray) -> np.ndarray:
    """Return the points ``exp(1j omega dt)`` or ``1j omega`` of a one-dimensional omega."""
    if omega.ndim != 1:
        raise ShapeError(
            message(
                "frequency_response", "omega is not flat", expected="(W,)", got=f"{omega.shape}"
            )
        )
    return np.exp(1j * omega * system.dt) if system.is_discrete else 1j * omega


def check_off_poles(gap: np.ndarray, where: str) -> None:
    """Raise DataError if a point minus a pole is zero."""
    if np.any(gap == 0):
        raise DataError(_on_a_pole(where))


def _on_a_pole(where: str) -> str:
    return message(where, "a frequency lies on a pole of the system", cure="Leave it out.")


def _interleave(blocks: list[list[np.ndarray]]) -> np.ndarray:
    """Return the block matrix whose rows and columns alternate between the blocks."""
    grid = np.stack([np.stack(row, axis=-1) for row in blocks], axis=-3)  # (..., a, R, b, K)
    rows, columns = grid.shape[-4] * grid.shape[-3], grid.shape[-2] * grid.shape[-1]
    return np.ascontiguousarray(grid).reshape(*grid.shape[:-4], rows, columns)
