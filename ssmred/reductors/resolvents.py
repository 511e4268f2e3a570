"""Solutions of the Sylvester equations between full systems and small models in modal form.

For a model with poles ``l_j``, rows ``b_j`` and read-outs ``c_j`` these are the columns

    ``x_j = (I - conj(l_j) A)^{-1} B b_j^*``,   ``y_j = (I - l_j A^*)^{-1} C^* c_j``,

in continuous time ``-(A + conj(l_j) I)^{-1} B b_j^*`` and ``-(A^* + l_j I)^{-1} C^* c_j``.
Theory: ``theory/h2-optimality.md``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from scipy.linalg import schur

from ssmred.kernels.shifted import fill_shifted_solutions
from ssmred.systems.dense import DenseSystem
from ssmred.systems.diagonal import DiagonalSystem
from ssmred.systems.linear import LinearSystem, adjoint

__all__ = ["Resolvent", "pole_gaps", "resolvent_of"]


class Resolvent(ABC):
    """Hold a flat batch (H,) of stable systems in N states, real ones for real systems.

    Attributes
    ----------
    B, C : (H, N, m), (H, p, N) float64 or complex128
    """

    B: np.ndarray
    C: np.ndarray

    @abstractmethod
    def part(self, which: np.ndarray) -> Resolvent:
        """Return some channels."""

    @abstractmethod
    def solutions(
        self, poles: np.ndarray, rows: np.ndarray, columns: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return X and Y, (H, N, r) each, for poles (H, r), rows (H, r, m), columns (H, p, r).

        For a real system the poles are closed under conjugation and X and Y are real: of a pair
        the real part stands in the column of the upper pole, the imaginary part in the other.
        """

    @abstractmethod
    def times_a(self, V: np.ndarray) -> np.ndarray:
        """Return ``A V`` for V (H, N, r)."""


def resolvent_of(system: LinearSystem) -> Resolvent:
    """Return the resolvent of a flat batch of standard or continuous systems."""
    if isinstance(system, DiagonalSystem):
        if system.real_output:
            return _HalfSpectrum(system.poles, system.B, system.C, system.is_discrete)
        arrays = system.poles, system.B, system.C
        if system.is_real:
            arrays = tuple(array.real for array in arrays)
        return _Diagonal(*arrays, system.is_discrete)
    return _Dense.of(system.realified() if system.is_real else system.to_dense())


class _Diagonal(Resolvent):
    """Modes that are the states."""

    def __init__(self, poles: np.ndarray, B: np.ndarray, C: np.ndarray, discrete: bool) -> None:
        self.poles, self.B, self.C, self.discrete = poles, B, C, discrete

    def part(self, which: np.ndarray) -> Resolvent:
        return type(self)(self.poles[which], self.B[which], self.C[which], self.discrete)

    def solutions(
        self, poles: np.ndarray, rows: np.ndarray, columns: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        gaps = pole_gaps(self.poles, poles, self.discrete)
        X = (self.B @ adjoint(rows)) / gaps
        Y = (adjoint(self.C) @ columns) / gaps.conj()
        return (X, Y) if np.iscomplexobj(self.B) else _real_or_imaginary(X, Y, poles)

    def times_a(self, V: np.ndarray) -> np.ndarray:
        return self.poles[..., None] * V


class _HalfSpectrum(Resolvent):
    """Real systems ``Re(C x)``; the states are ``(Re x, Im x)``."""

    def __init__(self, poles: np.ndarray, B: np.ndarray, C: np.ndarray, discrete: bool) -> None:
        self.poles, self.modal_b, self.modal_c, self.discrete = poles, B, C, discrete
        self.B = np.concatenate([B.real, B.imag], axis=-2)
        self.C = np.concatenate([C.real, -C.imag], axis=-1)

    def part(self, which: np.ndarray) -> Resolvent:
        return _HalfSpectrum(
            self.poles[which], self.modal_b[which], self.modal_c[which], self.discrete
        )

    def solutions(
        self, poles: np.ndarray, rows: np.ndarray, columns: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        # of a complex vector v in the real states, ``v_Re + i v_Im`` and ``v_Re - i v_Im``
        own, other = (
            pole_gaps(modes, poles, self.discrete) for modes in (self.poles, self.poles.conj())
        )
        B, C = self.modal_b, np.swapaxes(self.modal_c, -1, -2)
        X = B @ adjoint(rows) / own, B.conj() @ adjoint(rows) / other
        Y = C.conj() @ columns / own.conj(), C @ columns / other.conj()
        upper = (poles.imag >= 0)[:, None, :]
        return _real_columns(*X, upper), _real_columns(*Y, upper)

    def times_a(self, V: np.ndarray) -> np.ndarray:
        n = self.poles.shape[-1]
        moved = self.poles[..., None] * (V[:, :n] + 1j * V[:, n:])
        return np.concatenate([moved.real, moved.imag], axis=-2)


class _Dense(Resolvent):
    """Any A, by one complex Schur form ``A = Q T Q^*``."""

    def __init__(self, arrays: dict[str, np.ndarray], discrete: bool) -> None:
        self.arrays, self.discrete = arrays, discrete
        self.B, self.C = arrays["B"], arrays["C"]

    @classmethod
    def of(cls, system: DenseSystem) -> _Dense:
        T, Q = schur(system.A.astype(np.complex128), output="complex")[:2]
        flipped = np.ascontiguousarray(adjoint(T)[:, ::-1, ::-1])
        A, B, C = (M.real if system.is_real else M + 0j for M in (system.A, system.B, system.C))
        arrays = {"A": A, "B": B, "C": C, "T": T, "Q": Q, "flipped": flipped}
        return cls(arrays, system.is_discrete)

    def part(self, which: np.ndarray) -> Resolvent:
        arrays = {name: array[which] for name, array in self.arrays.items()}
        return _Dense(arrays, self.discrete)

    def solutions(
        self, poles: np.ndarray, rows: np.ndarray, columns: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        Q = self.arrays["Q"]
        X = adjoint(Q) @ (self.B @ adjoint(rows))
        Y = (adjoint(Q) @ (adjoint(self.C) @ columns))[:, ::-1]
        X = Q @ self._solved(self.arrays["T"], poles, X)
        Y = Q @ self._solved(self.arrays["flipped"], poles.conj(), Y)[:, ::-1]
        return (X, Y) if np.iscomplexobj(self.B) else _real_or_imaginary(X, Y, poles)

    def _solved(self, T: np.ndarray, poles: np.ndarray, W: np.ndarray) -> np.ndarray:
        W = np.ascontiguousarray(W, dtype=np.complex128)
        out = np.empty_like(W)
        fill_shifted_solutions(T, np.ascontiguousarray(poles), W, self.discrete, out)
        return out

    def times_a(self, V: np.ndarray) -> np.ndarray:
        return self.arrays["A"] @ V


def pole_gaps(full: np.ndarray, poles: np.ndarray, discrete: bool) -> np.ndarray:
    """Return ``1 - l_i conj(m_j)``, or ``-(l_i + conj(m_j))``, (H, n, r)."""
    left, right = full[..., :, None], poles.conj()[..., None, :]
    if not discrete:
        return -(left + right)
    # (1 - |m|^2) - (l - m) conj(m): near the circle 1 - l conj(m) alone loses its digits
    size = np.abs(right)
    return (1 - size) * (1 + size) - (left - right.conj()) * right


def _real_or_imaginary(
    X: np.ndarray, Y: np.ndarray, poles: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the real parts of the columns of upper poles, the imaginary parts of the others."""
    upper = (poles.imag >= 0)[:, None, :]
    return np.where(upper, X.real, X.imag), np.where(upper, Y.real, Y.imag)


def _real_columns(plus: np.ndarray, minus: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Return real (imaginary) parts of vectors v given as ``v_Re + i v_Im``, ``v_Re - i v_Im``."""
    mirrored = minus.conj()
    column = 0.5 * np.where(upper, plus + mirrored, (plus - mirrored) / 1j)
    return np.concatenate([column.real, column.imag], axis=-2)
