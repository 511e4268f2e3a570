"""What every linear time-invariant system object has in common."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np

from ssmred.checks import (
    RECURRENCES,
    check_array,
    check_choice,
    check_horizon,
    check_shape,
    check_time_step,
    is_complex_data,
)
from ssmred.errors import AccuracyError, ShapeError, UnsupportedOperationError, message

if TYPE_CHECKING:
    from ssmred.systems.dense import DenseSystem

__all__ = ["LinearSystem", "adjoint", "check_system", "of_kind"]

Kind = TypeVar("Kind", bound="LinearSystem")


class LinearSystem(ABC):
    """Hold what diagonal and dense systems share; see docs/conventions.md.

    ``standard``: ``x_{k+1} = A x_k + B u_k``, ``y_k = C x_k + D u_k``; ``post-update``:
    ``x_k = A x_{k-1} + B u_k`` with the same output equation. With ``real_output`` the output is
    ``Re(C x) + D u`` for real ``u`` and ``D``. ``dt > 0`` is discrete time, ``dt = 0`` continuous.
    """

    B: np.ndarray
    C: np.ndarray
    D: np.ndarray
    dt: float
    recurrence: str
    real_output: bool

    @property
    def order(self) -> int:
        """Number of (possibly complex) state variables."""
        return self.B.shape[-2]

    @property
    def states(self) -> int:
        """Real state dimension: a complex state variable counts as two."""
        return self.order if self.is_real and not self.real_output else 2 * self.order

    @property
    def inputs(self) -> int:
        """Number of inputs, ``m``."""
        return self.B.shape[-1]

    @property
    def outputs(self) -> int:
        """Number of outputs, ``p``."""
        return self.C.shape[-2]

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the batch of independent systems, ``()`` for a single one."""
        return self.B.shape[:-2]

    @property
    def is_discrete(self) -> bool:
        """Whether time is discrete."""
        return self.dt > 0

    @property
    def is_post_update(self) -> bool:
        """Whether the output sees the state after the update."""
        return self.recurrence == "post-update"

    @property
    def is_real(self) -> bool:
        """Whether real inputs give real outputs exactly (real data, or ``real_output``)."""
        return self.real_output or not self._has_complex_data()

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields replaced; all others, dt included, are kept."""
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]

    def with_recurrence(self, recurrence: str) -> Self:
        """Return the same input-output map in the other recurrence.

        To standard: ``C' = C A``, ``D' = D + C B``; to post-update the inverse,
        ``C' = C A^{-1}``, ``D' = D - C' B`` (``Re`` where outputs are real).

        Raises
        ------
        UnsupportedOperationError
            In continuous time, or to post-update where A is singular.
        """
        check_choice(recurrence, RECURRENCES, "recurrence", "with_recurrence")
        if recurrence == self.recurrence:
            return self
        self._require_discrete("with_recurrence", "Leave it as it is: it has one recurrence only")
        if recurrence == "standard":
            C = self._read_out_times_a()
            D = self.D + self._output_part(self.C @ self.B)
        else:
            C = self._read_out_over_a()
            D = self.D - self._output_part(C @ self.B)
        return self.replace(C=C, D=D, recurrence=recurrence)

    def impulse_response(self, horizon: int) -> np.ndarray:
        """Return the first ``horizon`` samples of the response to a unit impulse.

        ``h_0 = D``, ``h_k = C A^{k-1} B`` (standard) or ``h_k = C A^k B + D [k = 0]``
        (post-update); the real part of it where outputs are real.

        Parameters
        ----------
        horizon : int
            Number of samples, at least 1.

        Returns
        -------
        (..., horizon, p, m) float64 or complex128
            Real for a real system.

        Raises
        ------
        AccuracyError
            If an unstable response overflows.
        """
        length = check_horizon(horizon, "impulse_response")
        if length is None:
            raise ShapeError(
                message(
                    "impulse_response",
                    "horizon is missing",
                    expected="an integer >= 1",
                    got="None",
                    cure="Say how many samples you want.",
                )
            )
        self._require_discrete("impulse_response", "Discretise it first")
        with np.errstate(all="ignore"):
            if self.is_post_update:
                first, later = np.split(self._markov_parameters(length), [1], axis=-3)
                response = np.concatenate([first + self.D[..., None, :, :], later], axis=-3)
            else:
                later = self._markov_parameters(length - 1)
                response = np.concatenate([self.D[..., None, :, :], later], axis=-3)
        if not np.isfinite(response).all():
            raise AccuracyError(
                message(
                    "impulse_response",
                    f"the response overflows float64 within {length} samples",
                    cure="Shorten the horizon.",
                )
            )
        return response

    def simulate(self, u: np.ndarray, initial_state: np.ndarray | None = None) -> np.ndarray:
        """Return the outputs for an input sequence by running the recurrence.

        Parameters
        ----------
        u : (..., T, m) float64 or complex128
            Leading axes broadcast against the batch of the system. Real where outputs are real.
        initial_state : (..., n), optional
            The state before the first step (``x_0`` for standard, ``x_{-1}`` for post-update);
            zero by default.

        Returns
        -------
        (..., T, p) float64 or complex128
        """
        self._require_discrete("simulate", "Discretise it first")
        u = check_array(u, "u", "simulate")
        check_shape(u, (None, self.inputs), "u", "simulate")
        if self.real_output and is_complex_data(u):
            raise ShapeError(
                message(
                    "simulate",
                    "u is complex but the system has real outputs",
                    expected="real u: y = Re(C x) + D u",
                    got=f"dtype {u.dtype}",
                    cure="Simulate u.real and u.imag, or full_spectrum().",
                )
            )
        try:
            lead = np.broadcast_shapes(u.shape[:-2], self.batch_shape)
        except ValueError as error:
            raise ShapeError(
                message(
                    "simulate",
                    "the leading axes of u do not fit the batch of the system",
                    expected=f"axes that broadcast against {self.batch_shape}",
                    got=f"{u.shape}",
                )
            ) from error
        x = np.zeros((*lead, self.order), dtype=np.complex128)
        if initial_state is not None:
            start = check_array(initial_state, "initial_state", "simulate")
            check_shape(start, (self.order,), "initial_state", "simulate")
            x[...] = start
        y = np.empty((*lead, u.shape[-2], self.outputs), dtype=np.complex128)
        self._fill_outputs(_flat(u, lead, 2), _rows(x, 1), _rows(y, 2), lead)
        real = self.real_output or (
            self.is_real and not is_complex_data(u) and not is_complex_data(x)
        )
        return y.real.copy() if real else y

    @abstractmethod
    def frequency_response(self, omega: np.ndarray) -> np.ndarray:
        """Return the transfer matrix on the imaginary axis or the unit circle."""

    @abstractmethod
    def to_dense(self) -> DenseSystem:
        """Return the same system with a dense A."""

    @abstractmethod
    def realified(self) -> DenseSystem:
        """Return a dense system with real matrices and the same input-output map."""

    def to_control(self) -> Any:
        """Return a ``control.StateSpace``; see :func:`ssmred.systems.to_control`."""
        from ssmred.systems.conversions import to_control

        return to_control(self)

    def to_scipy(self) -> Any:
        """Return a ``scipy.signal.StateSpace``; see :func:`ssmred.systems.to_scipy`."""
        from ssmred.systems.conversions import to_scipy

        return to_scipy(self)

    @abstractmethod
    def _has_complex_data(self) -> bool: ...

    @abstractmethod
    def _markov_parameters(self, count: int) -> np.ndarray:
        """Return ``C A^k B`` (real part where outputs are real) for k < count."""

    @abstractmethod
    def _read_out_times_a(self) -> np.ndarray: ...

    @abstractmethod
    def _read_out_over_a(self) -> np.ndarray: ...

    @abstractmethod
    def _fill_outputs(
        self, u: np.ndarray, x: np.ndarray, y: np.ndarray, lead: tuple[int, ...]
    ) -> None: ...

    def _output_part(self, values: np.ndarray) -> np.ndarray:
        return values.real if self.real_output else values

    def _require_discrete(self, where: str, cure: str) -> None:
        if not self.is_discrete:
            raise UnsupportedOperationError(
                message(where, "the system is in continuous time (dt = 0)", cure=f"{cure}.")
            )

    def _set(self, **values: Any) -> None:
        """Set fields of the frozen dataclass; arrays become read-only."""
        for name, value in values.items():
            if isinstance(value, np.ndarray):
                value.setflags(write=False)
            object.__setattr__(self, name, value)

    def _finish(self, where: str, batch: tuple[int, ...]) -> None:
        """Check and store what both kinds share, after the first array told batch and order."""
        order = self._leading_order()
        B = check_array(self.B, "B", where)
        C = check_array(self.C, "C", where)
        if B.ndim == len(batch) + 1:  # single-input shorthand
            B = B[..., None]
        if C.ndim == len(batch) + 1:  # single-output shorthand
            C = C[..., None, :]
        for name, array, shape in (("B", B, (*batch, order, "m")), ("C", C, (*batch, "p", order))):
            axis = shape.index("m" if name == "B" else "p")
            free = array.shape[axis] if array.ndim > axis else -1
            want = (*shape[:axis], free, *shape[axis + 1 :])
            if array.shape != want:
                raise ShapeError(
                    message(
                        where,
                        f"{name} has the wrong shape",
                        expected="(" + ", ".join(map(str, shape)) + ")",
                        got=f"{array.shape}",
                    )
                )
        full = (*batch, C.shape[-2], B.shape[-1])
        D = np.zeros(full) if self.D is None else check_array(self.D, "D", where)
        if full[-2:] == (1, 1) and D.shape in ((), batch):  # single-input single-output shorthand
            D = np.broadcast_to(D[..., None, None], full).copy()
        if D.shape != full:
            raise ShapeError(
                message(where, "D has the wrong shape", expected=f"{full}", got=f"{D.shape}")
            )
        if not isinstance(self.real_output, (bool, np.bool_)):
            raise ShapeError(
                message(
                    where,
                    "real_output is not a bool",
                    expected="True or False",
                    got=f"{self.real_output!r}",
                )
            )
        if self.real_output and is_complex_data(D):
            raise ShapeError(
                message(
                    where,
                    "D is complex but real_output is set",
                    cure="y = Re(C x) + D u needs a real D.",
                )
            )
        dt = check_time_step(self.dt, where)
        recurrence = check_choice(self.recurrence, RECURRENCES, "recurrence", where)
        if dt == 0 and recurrence != "standard":
            raise UnsupportedOperationError(
                message(
                    where,
                    "a continuous-time system has no post-update recurrence",
                    expected='recurrence="standard" where dt is 0',
                )
            )
        self._set(
            B=B,
            C=C,
            D=D.real.copy() if self.real_output else D,
            dt=dt,
            recurrence=recurrence,
            real_output=bool(self.real_output),
        )

    @abstractmethod
    def _leading_order(self) -> int: ...

    def __repr__(self) -> str:
        """Return one line: kind, batch, sizes, time, recurrence."""
        batch = f"batch={self.batch_shape}, " if self.batch_shape else ""
        real = ", real_output=True" if self.real_output else ""
        return (
            f"{type(self).__name__}({batch}order={self.order}, inputs={self.inputs}, "
            f"outputs={self.outputs}, dt={self.dt:g}, recurrence={self.recurrence!r}{real})"
        )


def check_system(system: Any, where: str) -> None:
    """Raise UnsupportedOperationError unless this is a system object."""
    if not isinstance(system, LinearSystem):
        raise UnsupportedOperationError(
            message(
                where,
                "not a system",
                expected="DiagonalSystem or DenseSystem",
                got=type(system).__name__,
                cure="Make one from its matrices, or by from_control or from_scipy.",
            )
        )


def adjoint(matrices: np.ndarray) -> np.ndarray:
    """Return the conjugate transposes of matrices (..., n, m)."""
    return np.swapaxes(matrices, -1, -2).conj()


def _rows(array: np.ndarray, trailing: int) -> np.ndarray:
    """Return a view with all leading axes merged into one."""
    shape = array.shape[array.ndim - trailing :]
    return array.reshape(int(np.prod(array.shape[: array.ndim - trailing])), *shape)


def _flat(array: np.ndarray, lead: tuple[int, ...], trailing: int) -> np.ndarray:
    """Return a complex128 copy broadcast to the leading axes ``lead``, these merged into one."""
    shape = array.shape[array.ndim - trailing :]
    full = np.broadcast_to(array, (*lead, *shape))
    return _rows(np.ascontiguousarray(full, dtype=np.complex128), trailing)


def of_kind(system: object, kind: type[Kind], where: str) -> Kind:
    """Return a system that must be of one kind.

    Raises
    ------
    UnsupportedOperationError
        If it is of another.
    """
    if isinstance(system, kind):
        return system
    raise UnsupportedOperationError(
        message(
            where,
            "this kind of system does not fit",
            expected=f"a {kind.__name__}",
            got=type(system).__name__,
        )
    )
