"""Empirical Gramians: the metric of the signals that a layer really sees.

Theory: ``theory/calibrated-metric.md``.
"""

from __future__ import annotations

import numpy as np
import scipy.fft

from ssmred.checks import check_integer, check_real_array
from ssmred.errors import (
    DataError,
    ShapeError,
    UnsupportedOperationError,
    message,
)
from ssmred.gramians.features import FeatureRoot
from ssmred.gramians.square_root import (
    ROUNDING,
    SquareRoot,
    basis_coefficients,
    check_diagonal,
)
from ssmred.kernels.moments import (
    fill_displacement_roots,
    fill_state_moments,
    fill_toeplitz_roots,
    fill_transposed_solutions,
)
from ssmred.kernels.powers import accurate_powers, power_tables
from ssmred.systems import DiagonalSystem

__all__ = ["InputMoments"]

LONGEST_TOEPLITZ = 1024  # beyond it T x T moments cost more than moments of the states
LARGEST_TOEPLITZ = 2**29  # bytes of T x T moments of all channels together
BLOCK_BYTES = 2**26  # temporary arrays are kept below this size
TARGET_ROUNDING = 1e-8
"""Regularisation with a target, whose moments are known to ``eps`` and are divided by R once."""


class InputMoments:
    """Accumulate second moments of the inputs of a layer, batch by batch.

    With inputs ``v_s`` the metric is ``||h||^2 = mean_s ||h * v_s||_2^2`` over the first T samples:
    the mean squared error on these inputs of a layer whose impulse response is wrong by h.

    Parameters
    ----------
    channels : int
        Number of input signals: that of the channels H, or ``H m`` for systems with m inputs each
        (m for a layer with one shared state).
    horizon : int
        Length T of the inputs.
    system : DiagonalSystem, optional
        The layer, batch shape (H,). Needed for long inputs, for targets, and for more than one
        input or output.

    Raises
    ------
    UnsupportedOperationError
        If ``T > 1024``, or ``8 H T**2`` bytes exceed 512 MiB, and no system is given.

    Notes
    -----
    Level: FLOAT. Short inputs: the (T, T) moments of every channel, by one batched matrix product
    per update; the square root of their Toeplitz sums keeps the redundancy of the states to
    ``1e-15``. Long inputs: moments of the states by the displacement formula, O(S H T n), accurate
    to about ``1e-7`` of each state. Several inputs or outputs: QR of states and inputs along the
    signals, ``2 S H T (m + 2 n)**2`` operations. All linear in samples. Theory:
    ``theory/calibrated-metric.md``, ``theory/shared-metric.md``.

    Examples
    --------
    An impulse as input gives back the h2 metric:

    >>> moments = InputMoments(1, 4)
    >>> moments.update(np.array([[[1.0, 0.0, 0.0, 0.0]]]))
    >>> system = DiagonalSystem([[0.5]], [[1.0]], [[1.0]], real_output=True)
    >>> R = moments.square_root(system).factor[0]
    >>> np.allclose((R.T @ R)[1, 1], 1 + 1 / 4 + 1 / 16)
    True
    """

    def __init__(
        self, channels: int, horizon: int, *, system: DiagonalSystem | None = None
    ) -> None:
        where = "InputMoments"
        self.channels = check_integer(channels, "channels", where, low=1)
        self.horizon = check_integer(horizon, "horizon", where, low=1)
        self.system = system
        self.samples = 0
        self.has_target: bool | None = None
        self._shared: FeatureRoot | None = None
        self.is_toeplitz = False
        if system is not None:
            _check_layer(system, self.channels, where)
            if (system.inputs, system.outputs) != (1, 1):
                self._shared = FeatureRoot(system)
                return
        size = 8 * self.channels * self.horizon**2
        self.is_toeplitz = self.horizon <= LONGEST_TOEPLITZ and size <= LARGEST_TOEPLITZ
        if self.is_toeplitz:
            self._moments = np.zeros((self.channels, self.horizon, self.horizon))
        elif system is None:
            raise UnsupportedOperationError(
                message(
                    where,
                    "inputs this long need the states they drive",
                    expected=f"horizon <= {LONGEST_TOEPLITZ} and <= 512 MiB of moments",
                    got=f"horizon {self.horizon} with {self.channels} channels",
                    cure="Pass system=.",
                )
            )
        else:
            n = system.order
            self._energy = np.zeros(self.channels)
            self._cross = np.zeros((self.channels, n), dtype=np.complex128)
            self._squares = np.zeros((4, self.channels, n, n), dtype=np.complex128)
        self._correlation = np.zeros((self.channels, self.horizon))
        self._excess_energy = np.zeros(self.channels)
        self._target_energy = np.zeros(self.channels)

    @property
    def name(self) -> str:
        """Description for results and certificates."""
        kind = "outputs wanted" if self.has_target else "own outputs"
        return f"calibrated on {self.samples} inputs, {kind}"

    def update(self, V: np.ndarray, Y: np.ndarray | None = None) -> None:
        """Add a batch of inputs and, optionally, of the outputs wanted for them.

        Parameters
        ----------
        V : (S, H m, T) float32 or float64
            Samples, channels, time: what reaches the layer. The inputs of the first system first.
        Y : (S, H p, T) float32 or float64, optional
            Target outputs of the state-space part. By default the layer's own outputs for V. Given
            for every batch or for none.

        Raises
        ------
        ShapeError, DataError
            If shapes differ, values are nan or inf, or targets come only sometimes.
        """
        where = "InputMoments.update"
        V = self._check_signals(V, "V", self.channels, where)
        if self.has_target not in (None, Y is not None):
            raise DataError(message(where, "a target Y came with some batches and not with others"))
        if Y is not None:
            signals = self.channels
            if self._shared is not None:
                signals = self._shared.channels * self._shared.system.outputs
            Y = self._check_signals(Y, "Y", signals, where)
            if len(Y) != len(V):
                raise ShapeError(
                    message(where, "Y and V differ", expected=f"{len(V)} samples", got=f"{len(Y)}")
                )
            if self._shared is None:
                self._add_target(V, Y)
        self.has_target = Y is not None
        self.samples += V.shape[0]
        if self._shared is not None:
            self._shared.add(V, Y)
        elif self.is_toeplitz:
            W = np.ascontiguousarray(np.swapaxes(V, 0, 1))  # (H, S, T)
            block = max(1, BLOCK_BYTES // (8 * self.horizon**2))
            for start in range(0, self.channels, block):
                part = W[start : start + block]
                self._moments[start : start + block] += np.swapaxes(part, -1, -2) @ part
        else:
            fill_state_moments(V, self._poles(), self._energy, self._cross, *self._squares)

    def square_root(self, system: DiagonalSystem) -> SquareRoot:
        """Return the least-squares problems of the read-outs of ``system`` on these inputs.

        Parameters
        ----------
        system : DiagonalSystem
            Batch of H with real outputs; the one given to the constructor, if one was.

        Returns
        -------
        SquareRoot

        Raises
        ------
        DataError
            If no inputs were added.
        UnsupportedOperationError
            If the system is of another kind, or not the one whose states were accumulated.
        """
        where = "InputMoments.square_root"
        self.check_accepts(system, where)
        if self.samples == 0:
            raise DataError(message(where, "no inputs were added", cure="Call update first."))
        if self._shared is not None:
            return self._shared_root(self._shared)
        poles = system.poles.reshape(self.channels, -1)
        alive = system.B.reshape(self.channels, -1) != 0
        size = 2 * system.order + 1
        factors = np.empty((self.channels, size, size))
        delay = 0 if system.is_post_update else 1
        if self.is_toeplitz:
            powers = accurate_powers(np.where(alive, poles, 0), self.horizon)
            powers *= alive[..., None]
            relative = TARGET_ROUNDING if self.has_target else ROUNDING
            fill_toeplitz_roots(self._moments, powers, delay, relative, factors)
        else:
            fill_displacement_roots(
                poles,
                alive,
                self.horizon,
                self._energy,
                self._cross,
                *self._squares,
                delay,
                factors,
            )
        factors /= np.sqrt(self.samples)
        theta = basis_coefficients(system).reshape(self.channels, size, 1)
        extra = np.zeros_like(theta)
        residual = np.zeros(self.channels)
        norms = np.linalg.norm((factors @ theta)[..., 0], axis=-1)
        if self.has_target:
            fill_transposed_solutions(factors, self._excess_moments(poles, alive, delay), extra)
            reached = np.sum(extra**2, axis=(-2, -1))
            residual = np.sqrt(np.maximum(self._excess_energy / self.samples - reached, 0.0))
            norms = np.sqrt(self._target_energy / self.samples)
        return SquareRoot(factors, 1, extra, residual, norms)

    def check_accepts(self, system: object, where: str = "InputMoments") -> None:
        """Raise UnsupportedOperationError unless these are inputs of the channels of a system."""
        _check_layer(system, self.channels, where)
        if self._shared is None and (system.inputs, system.outputs) != (1, 1):
            raise UnsupportedOperationError(
                message(
                    where,
                    "several inputs or outputs need the states they belong to",
                    cure="Pass system= to InputMoments.",
                )
            )
        self._check_same(system, where)

    def _shared_root(self, shared: FeatureRoot) -> SquareRoot:
        """Return the square root from the features along the signals."""
        relative = TARGET_ROUNDING if self.has_target else ROUNDING
        factor, extra, residual = (part / np.sqrt(self.samples) for part in shared.factor(relative))
        theta = basis_coefficients(shared.system).reshape(extra.shape)
        norms = np.linalg.norm(factor @ theta, axis=(-2, -1))
        if self.has_target:
            norms = np.sqrt(shared.target_energy / self.samples)
        return SquareRoot(factor, shared.system.inputs, extra, residual, norms)

    def _poles(self) -> np.ndarray:
        return np.ascontiguousarray(self.system.poles.reshape(self.channels, -1))

    def _check_signals(
        self, values: np.ndarray, name: str, channels: int, where: str
    ) -> np.ndarray:
        values = check_real_array(values, name, where)
        if values.shape[1:] != (channels, self.horizon) or values.ndim != 3:
            raise ShapeError(
                message(
                    where,
                    f"{name} has the wrong shape",
                    expected=f"(samples, {channels}, {self.horizon})",
                    got=f"{values.shape}",
                )
            )
        return values

    def _check_same(self, system: DiagonalSystem, where: str) -> None:
        known = self.system
        if known is None or known is system:
            return
        same = known.recurrence == system.recurrence and all(
            np.array_equal(getattr(known, name), getattr(system, name))
            for name in ("poles", "B", "C", "D")
        )
        if not same:
            raise UnsupportedOperationError(
                message(where, "these moments belong to another system than the one given")
            )

    def _add_target(self, V: np.ndarray, Y: np.ndarray) -> None:
        """Add the correlation of the inputs with what the target has beyond the layer's output."""
        if self.system is None:
            raise UnsupportedOperationError(
                message(
                    "InputMoments.update",
                    "a target needs the layer it replaces",
                    cure="Pass system= to InputMoments.",
                )
            )
        T = self.horizon
        length = int(scipy.fft.next_fast_len(2 * T, real=True))  # pyright: ignore[reportArgumentType]
        h = self.system.impulse_response(T).reshape(self.channels, T)
        transfer = np.asarray(scipy.fft.rfft(h, length))
        spectrum = np.zeros_like(transfer)
        block = max(1, BLOCK_BYTES // (32 * self.channels * length))
        for start in range(0, V.shape[0], block):
            v = np.asarray(scipy.fft.rfft(V[start : start + block], length))
            y = Y[start : start + block]
            excess = y - np.asarray(scipy.fft.irfft(transfer * v, length))[..., :T]
            spectrum += np.sum(v.conj() * np.asarray(scipy.fft.rfft(excess, length)), axis=0)
            self._excess_energy += np.sum(excess**2, axis=(0, 2))
            self._target_energy += np.sum(y**2, axis=(0, 2))
        self._correlation += np.asarray(scipy.fft.irfft(spectrum, length))[:, :T]

    def _excess_moments(self, poles: np.ndarray, alive: np.ndarray, delay: int) -> np.ndarray:
        """Return the (H, K, 1) inner products of the basis responses with the excess of the target.

        For a mode: ``sum_k l**k r_{k + delay}``, r the correlation; by two-level power tables.
        """
        r = self._correlation / self.samples
        fine, coarse = power_tables(np.where(alive, poles, 0), self.horizon)
        blocks = np.zeros((self.channels, coarse.shape[-1] * fine.shape[-1]))
        blocks[:, : self.horizon - delay] = r[:, delay:]
        blocks = blocks.reshape(self.channels, coarse.shape[-1], fine.shape[-1])
        inner = blocks @ np.swapaxes(fine, -1, -2)  # (H, Q, n)
        sums = np.einsum("hqn,hnq->hn", inner, coarse) * alive
        modes = np.stack([sums.real, sums.imag], axis=-1).reshape(self.channels, -1)
        return np.concatenate([r[:, :1], modes], axis=-1)[..., None]


def _check_layer(system: DiagonalSystem, channels: int, where: str) -> None:
    """Raise unless ``system`` is a batch of real systems with so many inputs together."""
    check_diagonal(system, where)
    fits = (
        system.real_output
        and system.is_discrete
        and int(np.prod(system.batch_shape)) * system.inputs == channels
    )
    if not fits:
        raise UnsupportedOperationError(
            message(
                where,
                "an empirical metric needs real channels",
                expected=f"systems with real_output and dt > 0, {channels} inputs together",
                got=repr(system),
            )
        )
