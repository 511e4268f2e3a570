"""The metric of what an error at a layer does to the network's output.

Theory: ``theory/output-metric.md``, ``theory/shared-metric.md``.
"""

from __future__ import annotations

import numpy as np
import scipy.fft

from ssmred.checks import check_real_array
from ssmred.errors import DataError, ShapeError, message
from ssmred.gramians.empirical import InputMoments
from ssmred.gramians.features import features, signal_blocks, triangle
from ssmred.gramians.square_root import SquareRoot, basis_coefficients, basis_square_root
from ssmred.kernels.powers import accurate_powers
from ssmred.systems import DiagonalSystem

__all__ = ["OutputMetric", "OutputSensitivity"]

COHERENT = 0.5
"""Share of the first-order term; the rest weighs the energy of the error."""

WHITE = 1e-6
"""Energy, relative to the inputs', of white noise that is added to them."""

BLOCK_BYTES = 2**26  # temporary arrays are kept below this size


class OutputSensitivity:
    """Accumulate how the network's output answers to small errors of a layer, batch by batch.

    An error h of the impulse response moves a scalar output of the network, to first order, by
    ``a(h) = sum_k g_k (h * v)_k`` with g the gradient at the layer's output. As h is a combination
    of the basis responses Phi, ``a = theta^T Phi^T rho`` with ``rho_j = sum_k g_k v_{k-j}``. With
    several outputs ``a = sum_o theta_o^T phi_o``, ``phi_o = sum_k g_{o,k} f_k`` with the features f
    along the signals; of its second moment the factors of a Kronecker product are kept, one for the
    features and one for the outputs.

    Parameters
    ----------
    system : DiagonalSystem
        The layer, batch shape (H,).
    horizon : int
        Length T of the signals.

    Notes
    -----
    Level: ESTIMATE (first order). Cost O(S H T (log T + n)); several inputs or outputs: QR of the
    rows phi, ``2 S H p (m + 2 n) (m + 2 n + T)``. Theory: ``theory/output-metric.md``,
    ``theory/shared-metric.md``.
    """

    def __init__(self, system: DiagonalSystem, horizon: int) -> None:
        self.system, self.horizon = system, horizon
        self.channels = int(np.prod(system.batch_shape))
        self.samples = 0
        self._squares = np.zeros((self.channels, system.outputs, system.outputs))
        size = 2 * system.order + system.inputs
        self._factor = np.zeros((self.channels, size, size))

    @property
    def covariance(self) -> np.ndarray:
        """Mean of ``g_k g_k^T`` over samples and time, (H, p, p) float64."""
        return self._squares / max(self.samples * self.horizon, 1)

    @property
    def slopes(self) -> np.ndarray:
        """Mean square of the gradient over samples and time, all outputs together, (H,)."""
        return np.trace(self.covariance, axis1=-2, axis2=-1)

    @property
    def is_alone(self) -> bool:
        """Whether every channel has one input and one output."""
        return (self.system.inputs, self.system.outputs) == (1, 1)

    def update(self, V: np.ndarray, G: np.ndarray) -> None:
        """Add a batch of inputs of the layer and gradients at its output.

        Parameters
        ----------
        V, G : (S, H m, T) and (S, H p, T), float32 or float64
            Inputs; gradients of one random projection of the network's output per sample.

        Raises
        ------
        ShapeError, DataError
            If shapes differ or values are nan or inf.
        """
        where = "OutputSensitivity.update"
        V, G = check_real_array(V, "V", where), check_real_array(G, "G", where)
        signals = [self.channels * k for k in (self.system.inputs, self.system.outputs)]
        if [V.shape, G.shape] != [(V.shape[0], k, self.horizon) for k in signals]:
            raise ShapeError(
                message(
                    where,
                    "signals have the wrong shape",
                    expected=f"V (samples, {signals[0]}, {self.horizon}) and "
                    f"G (samples, {signals[1]}, {self.horizon})",
                    got=f"{V.shape} and {G.shape}",
                )
            )
        self.samples += len(V)
        if not self.is_alone:
            self._add_shared(V, G)
            return
        self._squares[:, 0, 0] += np.sum(G**2, axis=(0, 2))
        length = int(scipy.fft.next_fast_len(2 * self.horizon, real=True))  # pyright: ignore[reportArgumentType]
        block = max(1, BLOCK_BYTES // (16 * self.horizon * (2 * self.system.order + 1 + len(V))))
        for start in range(0, self.channels, block):
            part = slice(start, start + block)
            spectrum = np.asarray(scipy.fft.rfft(G[:, part], length)) * np.conj(
                np.asarray(scipy.fft.rfft(V[:, part], length))
            )
            rho = np.asarray(scipy.fft.irfft(spectrum, length))[..., : self.horizon]
            answers = np.swapaxes(rho, 0, 1) @ self._basis(part)  # (H, S, 2 n + 1)
            stack = np.concatenate([self._factor[part], answers], axis=1)
            self._factor[part] = np.linalg.qr(stack, mode="r")

    def _add_shared(self, V: np.ndarray, G: np.ndarray) -> None:
        """Add the rows ``phi_o`` of every sample and output."""
        outputs, size = self.system.outputs, self._factor.shape[-1]
        G = np.swapaxes(G.reshape(-1, self.channels, outputs, self.horizon), 0, 1)
        self._squares += np.sum(G @ np.swapaxes(G, -1, -2), axis=1)
        for part in signal_blocks(len(V), self.horizon * self.channels, size):
            answers = G[:, part] @ features(self.system, V[part])  # (H, S, p, K)
            for h, rows in enumerate(answers):
                stack = np.concatenate([self._factor[h], rows.reshape(-1, size)])
                self._factor[h] = triangle(stack)

    def factor(self) -> np.ndarray:
        """Return R, (H, K, K), with ``R^T R = mean_s sum_o phi_{s,o} phi_{s,o}^T``."""
        return self._factor / np.sqrt(max(self.samples, 1))

    def _basis(self, part: slice) -> np.ndarray:
        """Return the basis responses of some channels, (H, T, 2 n + 1)."""
        poles = self.system.poles[part]
        alive = self.system.B[part, :, 0] != 0
        powers = accurate_powers(np.where(alive, poles, 0), self.horizon) * alive[..., None]
        Phi = np.zeros((len(poles), self.horizon, 2 * self.system.order + 1))
        delay = 0 if self.system.is_post_update else 1
        Phi[:, 0, 0] = 1.0
        kept = np.swapaxes(powers[..., : self.horizon - delay], 1, 2)
        Phi[:, delay:, 1::2], Phi[:, delay:, 2::2] = kept.real, kept.imag
        return Phi


class OutputMetric:
    """Measure an error of a layer by what it does to the network's output.

    ``||h||^2 = c mean_s (sum_k g_k (h * v)_k)^2 + (1 - c) mean(g^2) mean_s ||h * v_s||_2^2``: the
    first-order change of the output, and the energy of the error times the mean squared slope for
    what first order does not see. White noise of ``1e-6`` of the inputs' energy is added to them,
    so that no direction that the data never excite carries a huge coefficient. For systems with
    several inputs or outputs, with features f along the signals and S the covariance of the
    gradients: ``tr(S E^T M E)`` for coefficients that are wrong by E, where
    ``M = c mean_s phi_s phi_s^T / tr(S) + (1 - c) mean_s sum_k f_k f_k^T`` and the noise.

    Parameters
    ----------
    moments : InputMoments
        Inputs that reach the layer now.
    sensitivity : OutputSensitivity
        Gradients of the network, of the same layer.

    Notes
    -----
    Positive semidefinite, so the optimal read-out and the exact error along the path carry over.
    Level: ESTIMATE of the output error. Theory: ``theory/output-metric.md``,
    ``theory/shared-metric.md``.
    """

    def __init__(self, moments: InputMoments, sensitivity: OutputSensitivity) -> None:
        self.moments, self.sensitivity = moments, sensitivity
        self.horizon = moments.horizon

    @property
    def name(self) -> str:
        """Description for results and certificates."""
        return f"output error, calibrated on {self.moments.samples} inputs"

    def square_root(self, system: DiagonalSystem) -> SquareRoot:
        """Return the least-squares problems of the read-outs of ``system`` in this metric.

        Parameters
        ----------
        system : DiagonalSystem
            The layer that the sensitivities belong to.

        Raises
        ------
        DataError
            If no gradients were added.
        """
        if self.sensitivity.samples == 0:
            raise DataError(
                message("OutputMetric", "no gradients were added", cure="Call update first.")
            )
        if not self.sensitivity.is_alone:
            return self._shared_root(system)
        energy = self.moments.square_root(system).factor
        white = basis_square_root(system, horizon=self.horizon)
        inputs = np.sum(energy[:, :, 0] ** 2, axis=1)  # the direct term answers with the input
        floor = np.finfo(float).eps
        inputs = np.maximum(inputs, floor * max(float(inputs.max()), floor))
        slopes = self.sensitivity.slopes
        slopes = np.maximum(slopes, floor * max(float(slopes.max()), floor))
        spread = np.sqrt((1.0 - COHERENT) * slopes)[:, None, None]
        stack = np.concatenate(
            [
                np.sqrt(COHERENT) * self.sensitivity.factor(),
                spread * energy,
                spread * np.sqrt(WHITE * inputs)[:, None, None] * white,
            ],
            axis=1,
        )
        factor = np.ascontiguousarray(np.linalg.qr(stack, mode="r"))
        theta = basis_coefficients(system).reshape(len(factor), -1, 1)
        norms = np.linalg.norm((factor @ theta)[..., 0], axis=-1)
        return SquareRoot(factor, 1, np.zeros_like(theta), np.zeros(len(factor)), norms)

    def _shared_root(self, system: DiagonalSystem) -> SquareRoot:
        """Return the same for several inputs or outputs."""
        root = self.moments.square_root(system)
        energy, m = root.factor, system.inputs
        white = basis_square_root(system, horizon=self.horizon).reshape(energy.shape)
        inputs = np.sum(energy[:, :, :m] ** 2, axis=(1, 2)) / m  # of the average input
        floor = np.finfo(float).eps
        inputs = np.maximum(inputs, floor * max(float(inputs.max()), floor))
        slopes = self.sensitivity.slopes
        seen = np.sqrt(COHERENT / np.where(slopes > 0, slopes, 1))[:, None, None]
        noise = np.sqrt(WHITE * inputs)[:, None, None]
        stacks = np.concatenate(
            [
                seen * self.sensitivity.factor(),
                np.sqrt(1.0 - COHERENT) * energy,
                np.sqrt(1.0 - COHERENT) * noise * white,
            ],
            axis=1,
        )
        factor = np.stack([triangle(stack) for stack in stacks])
        values, vectors = np.linalg.eigh(self.sensitivity.covariance)
        values = np.maximum(values, floor * max(float(values.max()), floor))
        mixing = vectors * np.sqrt(values)[:, None, :]
        theta = basis_coefficients(system).reshape(len(factor), -1, system.outputs)
        norms = np.linalg.norm(factor @ theta @ mixing, axis=(-2, -1))
        zeros = np.zeros_like(theta)
        return SquareRoot(factor, m, zeros, np.zeros(len(factor)), norms, mixing)
