"""Diagonal systems: one pole, one input row and one read-out column per state."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ssmred.checks import check_array, check_real_array, is_complex_data
from ssmred.errors import ShapeError, UnsupportedOperationError, message
from ssmred.kernels.response import exponential_sums, fill_diagonal_outputs
from ssmred.systems.dense import DenseSystem, check_off_poles, points_of
from ssmred.systems.linear import LinearSystem, _flat

__all__ = ["DiagonalSystem"]

BLOCK_ENTRIES = 2**22  # frequency responses are evaluated in blocks of about 64 MiB


@dataclass(frozen=True, eq=False, repr=False)
class DiagonalSystem(LinearSystem):
    """Describe a linear system with diagonal A, or a batch of independent ones.

    ``x_{k+1} = diag(poles) x_k + B u_k`` (standard) or ``x_k = diag(poles) x_{k-1} + B u_k``
    (post-update), ``y_k = C x_k + D u_k``, or ``y_k = Re(C x_k) + D u_k`` with ``real_output``.

    Parameters
    ----------
    poles : (..., n) complex128
        Leading axes are a batch of independent systems (the channels of a layer).
    B : (..., n, m) complex128
        ``(..., n)`` is accepted for one input.
    C : (..., p, n) complex128
        ``(..., n)`` is accepted for one output. With ``real_output`` any factor 2 of a half
        spectrum is already in C.
    D : (..., p, m) float64 or complex128, optional
        Zero by default; ``(...)`` or a scalar is accepted for one input and one output.
    dt : float
        Sampling time > 0; True counts as 1.0; 0 is continuous time.
    recurrence : {"standard", "post-update"}
        See docs/conventions.md. Nothing converts it silently.
    real_output : bool
        Whether the output is ``Re(C x) + D u`` (a stored half spectrum).

    Raises
    ------
    ShapeError, DataError
        If shapes do not fit, or a value is nan or inf.

    Notes
    -----
    Arrays are copied, complex128 and read-only (D is float64 where it is real).

    Examples
    --------
    >>> system = DiagonalSystem([0.5], [1.0], [2.0], 3.0)
    >>> system.impulse_response(4)[:, 0, 0].tolist()
    [3.0, 2.0, 1.0, 0.5]
    >>> system.replace(recurrence="post-update").impulse_response(3)[:, 0, 0].tolist()
    [5.0, 1.0, 0.5]
    >>> layer = DiagonalSystem([0.5j], [1.0], [2.0], recurrence="post-update", real_output=True)
    >>> layer.states, layer.impulse_response(4)[:, 0, 0].tolist()
    (2, [2.0, 0.0, -0.5, 0.0])
    """

    poles: np.ndarray
    B: np.ndarray
    C: np.ndarray
    D: np.ndarray = None  # type: ignore[assignment]  # becomes zeros
    dt: float = 1.0
    recurrence: str = field(default="standard", kw_only=True)
    real_output: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        """Check, complete and freeze the data."""
        poles = check_array(self.poles, "poles", "DiagonalSystem").astype(np.complex128)
        if poles.ndim == 0:
            raise ShapeError(
                message("DiagonalSystem", "poles is a scalar", expected="(..., n)", got="()")
            )
        self._set(poles=poles)
        self._finish("DiagonalSystem", poles.shape[:-1])
        self._set(B=self.B.astype(np.complex128), C=self.C.astype(np.complex128))

    def frequency_response(self, omega: np.ndarray) -> np.ndarray:
        """Return ``H(z) = C (z I - A)^{-1} B + D`` at ``z = exp(1j omega dt)`` (or ``1j omega``).

        Post-update: ``C z (z I - A)^{-1} B + D``. With ``real_output`` the transfer matrix of the
        real system, poles and their conjugates together.

        Parameters
        ----------
        omega : (W,) float64
            Angular frequencies in rad per unit of time.

        Returns
        -------
        (..., W, p, m) complex128

        Raises
        ------
        DataError
            If a pole lies on an evaluation point.

        Notes
        -----
        Cost O(W n p m), in blocks of bounded memory.
        """
        if self.real_output:
            return self.full_spectrum().frequency_response(omega)
        omega = check_real_array(omega, "omega", "frequency_response")
        z = points_of(self, omega)
        residues = self.C[..., :, :, None] * self.B[..., None, :, :]  # (..., p, n, m)
        width = self.outputs * self.inputs
        residues = np.swapaxes(residues, -3, -2).reshape(*self.batch_shape, self.order, width)
        out = np.empty((*self.batch_shape, z.size, width), dtype=np.complex128)
        block = max(1, BLOCK_ENTRIES // max(1, self.poles.size))
        for start in range(0, z.size, block):
            part = z[start : start + block, None]
            gap = part - self.poles[..., None, :]
            check_off_poles(gap, "frequency_response")
            kernel = part / gap if self.is_post_update else 1.0 / gap
            out[..., start : start + block, :] = kernel @ residues
        return out.reshape(*out.shape[:-1], self.outputs, self.inputs) + self.D[..., None, :, :]

    def full_spectrum(self) -> DiagonalSystem:
        """Return a system with real outputs with its conjugate modes written out.

        ``Re(C x) = (C x + conj(C) conj(x)) / 2``: poles ``(l, conj(l))``, B ``(b, conj(b))``, C
        ``(c, conj(c)) / 2``. A system without ``real_output`` is returned as it is.
        """
        if not self.real_output:
            return self
        return self.replace(
            poles=np.concatenate([self.poles, self.poles.conj()], axis=-1),
            B=np.concatenate([self.B, self.B.conj()], axis=-2),
            C=np.concatenate([self.C, self.C.conj()], axis=-1) / 2,
            real_output=False,
        )

    def to_dense(self) -> DenseSystem:
        """Return the same system with a dense, diagonal A; real matrices where the data is real."""
        A = self.poles[..., :, None] * np.eye(self.order)
        arrays = (A, self.B, self.C, self.D)
        if not self._has_complex_data():
            arrays = tuple(a.real for a in arrays)
        return DenseSystem(
            *arrays, self.dt, recurrence=self.recurrence, real_output=self.real_output
        )

    def realified(self) -> DenseSystem:
        """Return real matrices with the same input-output map, states ``(Re x_1, Im x_1, ...)``.

        A becomes block diagonal with ``[[Re l, -Im l], [Im l, Re l]]``, B stacks ``(Re b, Im b)``,
        C is ``(Re c, -Im c)``. A system whose data is real already only becomes dense.

        Raises
        ------
        UnsupportedOperationError
            If the outputs are complex.

        Examples
        --------
        >>> layer = DiagonalSystem([0.5j], [1.0], [2.0 + 1.0j], real_output=True)
        >>> dense = layer.realified()
        >>> dense.A.tolist(), dense.B.tolist(), dense.C.tolist()
        ([[0.0, -0.5], [0.5, 0.0]], [[1.0], [0.0]], [[2.0, -1.0]])
        """
        if not self.is_real:
            raise UnsupportedOperationError(
                message(
                    "realified",
                    "the outputs are complex",
                    cure="Set real_output=True if only Re(C x) is used.",
                )
            )
        return self.to_dense().realified()

    def _has_complex_data(self) -> bool:
        return is_complex_data(self.poles, self.B, self.C, self.D)

    def _leading_order(self) -> int:
        return self.poles.shape[-1]

    def _markov_parameters(self, count: int) -> np.ndarray:
        # (..., p, n, m) -> (..., p m, n)
        residues = self.C[..., :, :, None] * self.B[..., None, :, :]
        residues = np.swapaxes(residues, -1, -2).reshape(
            *self.batch_shape, self.outputs * self.inputs, self.order
        )
        sums = exponential_sums(self.poles, residues, count, real=self.is_real)
        return np.ascontiguousarray(np.swapaxes(sums, -1, -2)).reshape(
            *self.batch_shape, count, self.outputs, self.inputs
        )

    def _read_out_times_a(self) -> np.ndarray:
        return self.C * self.poles[..., None, :]

    def _read_out_over_a(self) -> np.ndarray:
        if np.any(self.poles == 0):
            raise UnsupportedOperationError(
                message(
                    "with_recurrence",
                    "a pole is 0, so A has no inverse",
                    cure="Remove modes with pole 0 first; post-update cannot delay an input.",
                )
            )
        return self.C / self.poles[..., None, :]

    def _fill_outputs(
        self, u: np.ndarray, x: np.ndarray, y: np.ndarray, lead: tuple[int, ...]
    ) -> None:
        fill_diagonal_outputs(
            _flat(self.poles, lead, 1),
            _flat(self.B, lead, 2),
            _flat(self.C, lead, 2),
            _flat(self.D, lead, 2),
            self.is_post_update,
            u,
            x,
            y,
        )
