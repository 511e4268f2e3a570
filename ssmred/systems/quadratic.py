"""Systems with outputs that are linear and quadratic in the state (LQO systems).

Theory: ``theory/quadratic-output.md``.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

import numpy as np

from ssmred.checks import check_array, check_choice, check_horizon, is_complex_data
from ssmred.errors import OrderError, ShapeError, UnsupportedOperationError, message
from ssmred.systems.dense import DenseSystem, _interleave
from ssmred.systems.diagonal import DiagonalSystem
from ssmred.systems.linear import LinearSystem, adjoint, check_system
from ssmred.systems.quadratic_forms import (
    CONVENTIONS,
    HERMITIAN,
    check_forms,
    conjugate_pairs,
    real_factors,
)

__all__ = ["AnySystem", "QuadraticOutputSystem"]

BLOCK_ENTRIES = 2**22  # quadratic outputs are evaluated in blocks of about 64 MiB


@dataclass(frozen=True, eq=False, repr=False)
class QuadraticOutputSystem:
    """Describe a linear system whose outputs have a quadratic part, or a batch of such systems.

    The state is that of a :class:`DiagonalSystem` or a :class:`DenseSystem`; output j is
    ``y_j = (C x + D u)_j + x^* M_j x`` (hermitian) or ``(C x + D u)_j + x^T M_j x`` (transpose),
    or the real part of it with ``real_output``.

    Parameters
    ----------
    A : (..., n) or (..., n, n)
        Poles of a diagonal A, or A itself.
    B : (..., n, m)
        Its shape tells which of the two A is; leading axes are a batch.
    C : (..., p, n) or None
        None where the outputs are purely quadratic.
    M : (..., p, n, n), or (U, V) with U and V (..., p, n, r), or (U,)
        Hermitian (hermitian) or symmetric (transpose) matrices, to rounding, of which the
        Hermitian or symmetric part is stored; or factors: ``M_j = (U_j V_j^* + V_j U_j^*) / 2``,
        with ``^T`` for transpose, and V = U where it is left out. ``(n, n)`` and ``(n, r)`` are
        accepted for one output.
    D : (..., p, m), optional
        Zero by default.
    dt : float
        Sampling time > 0, or 0 for continuous time.
    recurrence : {"standard", "post-update"}
        Which state the outputs see, as in docs/conventions.md.
    real_output : bool
        Whether inputs are real and outputs are the real part (a stored half spectrum).
    convention : {"hermitian", "transpose"}
        The two differ where states are complex. Nothing converts silently.

    Raises
    ------
    ShapeError, DataError
        If shapes do not fit, M is not Hermitian or symmetric, or a value is nan or inf.

    Notes
    -----
    Factors are never multiplied out: everything but :meth:`matrices` costs O(n r) per output.
    Theory: ``theory/quadratic-output.md``.

    Examples
    --------
    The energy of a state, ``y = x^2``, with ``x = 1, 1/2, 1/4, ...``:

    >>> system = QuadraticOutputSystem([0.5], [[1.0]], None, [[1.0]], recurrence="post-update")
    >>> system.simulate([[1.0], [0.0], [0.0]])[:, 0].tolist()
    [1.0, 0.25, 0.0625]
    >>> from ssmred.norms import h2_norm
    >>> round(h2_norm(system), 12)  # P = 4/3, tr(P M P M) = 16/9
    1.333333333333
    """

    A: np.ndarray
    B: np.ndarray
    C: np.ndarray | None
    M: Any
    D: np.ndarray = None  # type: ignore[assignment]  # becomes zeros
    dt: float = 1.0
    recurrence: str = field(default="standard", kw_only=True)
    real_output: bool = field(default=False, kw_only=True)
    convention: str = field(default=HERMITIAN, kw_only=True)

    def __post_init__(self) -> None:
        """Check, complete and freeze the data."""
        where = "QuadraticOutputSystem"
        check_choice(self.convention, CONVENTIONS, "convention", where)
        A, B = check_array(self.A, "A", where), check_array(self.B, "B", where)
        if B.ndim < 2:
            raise ShapeError(
                message(where, "B has the wrong shape", expected="(..., n, m)", got=f"{B.shape}")
            )
        if A.shape not in (B.shape[:-1], (*B.shape[:-1], B.shape[-2])):
            raise ShapeError(
                message(
                    where,
                    "A fits B neither as poles nor as a matrix",
                    expected=f"{B.shape[:-1]} or {(*B.shape[:-1], B.shape[-2])}",
                    got=f"{A.shape}",
                )
            )
        kind = DiagonalSystem if A.shape == B.shape[:-1] else DenseSystem
        parts = check_forms(self.M, self.convention, (*B.shape[:-2], B.shape[-2]), where)
        outputs = parts[0].shape[-3]
        C = self.C
        if C is None:
            C = np.zeros((*B.shape[:-2], outputs, B.shape[-2]))
        linear = kind(
            A, B, C, self.D, self.dt, recurrence=self.recurrence, real_output=self.real_output
        )
        if linear.outputs != outputs:
            raise ShapeError(
                message(
                    where,
                    "C and M differ in their numbers of outputs",
                    expected=f"{linear.outputs} matrices",
                    got=f"{outputs}",
                )
            )
        first = linear.poles if isinstance(linear, DiagonalSystem) else linear.A  # type: ignore[attr-defined]
        names = ("B", "C", "D", "dt", "recurrence", "real_output")
        values = {name: getattr(linear, name) for name in names}
        stored = parts[0] if len(parts) == 1 else parts
        for name, value in (values | {"A": first, "M": stored}).items():
            object.__setattr__(self, name, value)

    @classmethod
    def of(cls, linear: LinearSystem, M: Any, *, convention: str = HERMITIAN) -> Self:
        """Return a linear system with quadratic outputs beside its own.

        Parameters
        ----------
        linear : DiagonalSystem or DenseSystem
        M, convention
            As in the constructor.

        Examples
        --------
        >>> linear = DiagonalSystem([0.5], [1.0], [2.0])
        >>> QuadraticOutputSystem.of(linear, [[3.0]]).kernels(2)[1].ravel().tolist()
        [0.0, 0.0, 0.0, 3.0]
        """
        check_system(linear, "QuadraticOutputSystem.of")
        A = linear.poles if isinstance(linear, DiagonalSystem) else linear.A  # type: ignore[attr-defined]
        return cls(
            A,
            linear.B,
            linear.C,
            M,
            linear.D,
            linear.dt,
            recurrence=linear.recurrence,
            real_output=linear.real_output,
            convention=convention,
        )

    # What it is ----------------------------------------------------------------------------------

    @cached_property
    def linear(self) -> LinearSystem:
        """The same system without its quadratic outputs."""
        kind = DiagonalSystem if self.A.ndim == self.B.ndim - 1 else DenseSystem
        return kind(
            self.A, self.B, self.C, self.D, self.dt,
            recurrence=self.recurrence, real_output=self.real_output,
        )  # fmt: skip

    @property
    def factors(self) -> tuple[np.ndarray, np.ndarray] | None:
        """U and V, (..., p, n, r), where M was given by factors."""
        return self.M if isinstance(self.M, tuple) else None

    @property
    def order(self) -> int:
        """Number of (possibly complex) state variables."""
        return self.linear.order

    @property
    def states(self) -> int:
        """Real state dimension: a complex state variable counts as two."""
        real = not self.real_output and not is_complex_data(self.A, self.B)
        return self.order if real else 2 * self.order

    @property
    def inputs(self) -> int:
        """Number of inputs, ``m``."""
        return self.linear.inputs

    @property
    def outputs(self) -> int:
        """Number of outputs, ``p``."""
        return self.linear.outputs

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the batch of independent systems, ``()`` for a single one."""
        return self.linear.batch_shape

    @property
    def is_discrete(self) -> bool:
        """Whether time is discrete."""
        return self.linear.is_discrete

    @property
    def is_post_update(self) -> bool:
        """Whether the outputs see the state after the update."""
        return self.linear.is_post_update

    @property
    def is_real(self) -> bool:
        """Whether real inputs give real outputs exactly (real data, or ``real_output``)."""
        parts = self.factors or (self.M,)
        return self.real_output or (self.linear.is_real and not is_complex_data(*parts))

    def matrices(self) -> np.ndarray:
        """Return the matrices M_j, multiplied out, (..., p, n, n)."""
        if self.factors is None:
            return self.M
        U, V = self.factors
        product = U @ (adjoint(V) if self.convention == HERMITIAN else np.swapaxes(V, -1, -2))
        other = adjoint(product) if self.convention == HERMITIAN else np.swapaxes(product, -1, -2)
        return (product + other) / 2

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields replaced; all others, dt included, are kept."""
        return dataclasses.replace(self, **changes)

    # What it does --------------------------------------------------------------------------------

    def simulate(self, u: np.ndarray, initial_state: np.ndarray | None = None) -> np.ndarray:
        """Return the outputs for an input sequence by running the recurrence.

        Parameters and errors are those of :meth:`LinearSystem.simulate`.

        Returns
        -------
        (..., T, p) float64 or complex128

        Notes
        -----
        Cost O(T n p r) with factors of rank r; O(T n^2 p) with matrices, where the states of the
        whole sequence are held in memory.
        """
        y = self.linear.simulate(u, initial_state)
        q = self._quadratic(u, initial_state)
        if self.real_output or (np.isrealobj(y) and self.is_real):
            return y + q.real
        return y + q

    def kernels(self, horizon: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the first samples of the linear and the quadratic kernel.

        ``y_k = sum_i h1(i) u_{k-i} + sum_{i,l} u_{k-i}^* h2(i, l) u_{k-l}`` (``^T`` for transpose),
        with ``h2_j(i, l) = b_i^* M_j b_l``, ``b_i = A^i B`` (post-update) or ``A^{i-1} B``,
        ``b_0 = 0`` (standard). With ``real_output`` the symmetric real part, which is all that
        real inputs see.

        Returns
        -------
        h1 : (..., T, p, m), h2 : (..., T, T, p, m, m)
        """
        length = check_horizon(horizon, "kernels")
        if length is None:
            raise OrderError(
                message("kernels", "horizon is missing", expected="an integer >= 1", got="None")
            )
        eye = np.broadcast_to(np.eye(self.order), (*self.batch_shape, self.order, self.order))
        silent = np.zeros((*self.batch_shape, self.order, self.inputs))
        observer = self.linear.replace(C=eye, D=silent, real_output=False)
        b = observer.impulse_response(length)  # (..., T, n, m)
        left = b.conj() if self.convention == HERMITIAN else b
        right = self.matrices()[..., None, :, :, :] @ b[..., :, None, :, :]  # (..., T, p, n, m)
        h2 = np.einsum("...inm,...lpnq->...ilpmq", left, right)
        if self.real_output:
            swapped = np.swapaxes(np.swapaxes(h2, -5, -4), -2, -1)
            h2 = (h2.real + swapped.real) / 2
        return self.linear.impulse_response(length), h2

    def _quadratic(self, u: np.ndarray, initial_state: np.ndarray | None) -> np.ndarray:
        """Return the quadratic outputs (..., T, p) complex128 for an input sequence."""
        hermitian = self.convention == HERMITIAN
        if self.factors is not None:
            one, two = (
                self._read(M.conj() if hermitian else M, u, initial_state) for M in self.factors
            )
            values = np.sum((one.conj() if hermitian else one) * two, axis=-1)
            return values.real + 0j if hermitian else values
        x = self._read(np.eye(self.order)[None], u, initial_state)[..., 0, :]
        step = max(1, BLOCK_ENTRIES // max(1, self.outputs * self.order))
        out = np.empty((*x.shape[:-1], self.outputs), dtype=np.complex128)
        for start in range(0, x.shape[-2], step):
            part = x[..., None, start : start + step, :]  # (..., 1, T, n)
            moved = part @ np.swapaxes(self.M, -1, -2)  # rows (M x)^T
            values = np.sum((part.conj() if hermitian else part) * moved, axis=-1)
            out[..., start : start + step, :] = np.swapaxes(values, -1, -2)
        return out

    def _read(self, M: np.ndarray, u: np.ndarray, initial_state: np.ndarray | None) -> np.ndarray:
        """Return ``M_j^T x`` (..., T, p, r) for matrices (..., p, n, r)."""
        *_, p, n, r = M.shape
        rows = np.swapaxes(M, -1, -2).reshape(*M.shape[:-3], p * r, n)
        rows = np.broadcast_to(rows, (*self.batch_shape, p * r, n))
        silent = np.zeros((*self.batch_shape, p * r, self.inputs))
        reader = self.linear.replace(C=rows, D=silent, real_output=False)
        read = reader.simulate(u, initial_state)
        return read.reshape(*read.shape[:-1], p, r)

    # Other forms ---------------------------------------------------------------------------------

    def to_dense(self) -> QuadraticOutputSystem:
        """Return the same system with a dense A."""
        return type(self).of(self.linear.to_dense(), self.M, convention=self.convention)

    def realified(self) -> QuadraticOutputSystem:
        """Return real matrices with the same outputs, states ``(Re x_1, Im x_1, Re x_2, ...)``.

        Factors stay factors, of twice the rank. States that are real already stay as they are.

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
                    cure="Set real_output=True if only the real part is used.",
                )
            )
        linear = self.linear.realified()
        hermitian = self.convention == HERMITIAN
        if not self.real_output:
            parts = (self.M,) if self.factors is None else self.factors
            M = tuple(part.real for part in parts)
        elif self.factors is None:
            # x = E (Re x, Im x): E^* M E, or E^T M E
            R, S = self.M.real, self.M.imag
            M = (_interleave([[R, -S], [S, R]] if hermitian else [[R, -S], [-S, -R]]),)
        else:
            M = real_factors(*self.factors, self.convention)
        forms: Any = M[0] if len(M) == 1 else M
        return type(self).of(linear, forms, convention=self.convention)

    def full_spectrum(self) -> QuadraticOutputSystem:
        """Return a system with real outputs with its conjugate modes written out.

        Diagonal A only. A system without ``real_output`` is returned as it is.
        """
        if not self.real_output:
            return self
        linear = self._diagonal("full_spectrum").full_spectrum()
        if self.factors is None:
            M: Any = conjugate_pairs(self.M) / 2
        else:
            M = tuple(conjugate_pairs(part) / np.sqrt(2.0) for part in self.factors)
        return type(self).of(linear, M, convention=self.convention)

    def with_convention(self, convention: str) -> QuadraticOutputSystem:
        """Return a system with the same outputs in the other convention.

        Real states: nothing but the name changes. Real outputs of a half spectrum: written out by
        its conjugate modes, ``(x, conj x)``, whose conjugate is a permutation of them.

        Raises
        ------
        UnsupportedOperationError
            For complex states without their conjugates, where ``x^* M x`` is no ``x^T N x``.
        """
        check_choice(convention, CONVENTIONS, "convention", "with_convention")
        if convention == self.convention:
            return self
        parts = (self.M,) if self.factors is None else self.factors
        if not self.real_output:
            if is_complex_data(self.A, self.B, *parts):
                raise UnsupportedOperationError(
                    message(
                        "with_convention",
                        "states are complex and their conjugates are not among them",
                        cure="Set real_output=True if only the real part is used.",
                    )
                )
            return self.replace(convention=convention)
        full = self.full_spectrum()
        swapped = np.roll(np.arange(full.order), self.order)
        if full.factors is None:
            M: Any = full.M[..., swapped, :]
        else:
            U, V = full.factors
            M = (U[..., swapped, :], V.conj())
        return type(self).of(full.linear, M, convention=convention)

    def _diagonal(self, where: str) -> DiagonalSystem:
        if isinstance(self.linear, DiagonalSystem):
            return self.linear
        raise UnsupportedOperationError(
            message(where, "A is dense", expected="poles", cure="Use realified().")
        )

    def __repr__(self) -> str:
        """Return one line: kind, batch, sizes, rank, time, recurrence, convention."""
        inner = repr(self.linear).split("(", 1)[1]
        rank = "" if self.factors is None else f", rank={self.factors[0].shape[-1]}"
        return f"QuadraticOutputSystem({inner[:-1]}{rank}, convention={self.convention!r})"


AnySystem = LinearSystem | QuadraticOutputSystem
