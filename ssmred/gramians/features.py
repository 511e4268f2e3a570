"""What a shared state offers its outputs to be read from, along signals, and its square roots.

Theory: ``theory/shared-metric.md``.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ssmred.errors import AccuracyError, message
from ssmred.gramians.square_root import basis_coefficients
from ssmred.kernels.features import fill_states
from ssmred.systems import DiagonalSystem

__all__ = ["FeatureRoot", "driven_rows", "features", "signal_blocks", "triangle"]

INPUT_ROUNDING = 2.0**-17
"""Length, relative to the input, of what keeps coefficients of inputs off their rounding errors.

Where inputs of a layer depend on each other (after a LayerNorm their sum is constant) their float32
rounding, ``e = 2**-24``, spans a direction of its own. A least-squares coefficient along it is
``e r / (e**2 + d**2)`` at most, r what is left to fit: below 1000 r for this d.
"""

BLOCK_BYTES = 2**26  # rows are triangularised in blocks of this size
LEAST_ROWS = 4  # times the number of columns: the triangle is carried along at little cost


def features(system: DiagonalSystem, V: np.ndarray) -> np.ndarray:
    """Return the signals that the coefficients of a read-out multiply.

    Parameters
    ----------
    system : DiagonalSystem
        Batch of H, real outputs, discrete time.
    V : (S, H m, T) float64
        Inputs, those of the first system first.

    Returns
    -------
    (H, S, T, m + 2 n) float64
        The inputs, then ``(Re x_i, Im x_i)`` for every mode, in the order of
        :func:`ssmred.gramians.basis_coefficients`; driven with weight 1 if there is one input.
    """
    modes, m = system.order, system.inputs
    poles = np.ascontiguousarray(system.poles.reshape(int(np.prod(system.batch_shape)), modes))
    weights = _weights(system)
    count, _, length = V.shape
    U = np.moveaxis(V.reshape(count, len(poles), m, length), (1, 3), (0, 2))  # (H, S, T, m)
    out = np.empty((len(poles), count, length, m + 2 * modes))
    out[..., :m] = U
    delay = 0 if system.is_post_update else 1
    for h, rows in enumerate(out):
        np.matmul(rows[..., :m], weights[h], out=rows[..., m:])
        fill_states(poles[h], delay, rows[..., m:])
    return out


def _weights(system: DiagonalSystem) -> np.ndarray:
    """Return what drives (Re x, Im x) of every mode, (H, m, 2 n)."""
    channels = int(np.prod(system.batch_shape))
    B = np.swapaxes(system.B.reshape(channels, system.order, system.inputs), -1, -2)
    if system.inputs == 1:  # its weight is part of the coefficients
        B = (B != 0).astype(complex)
    return np.stack([B.real, B.imag], axis=-1).reshape(*B.shape[:-1], -1)


def driven_rows(rows: np.ndarray, system: DiagonalSystem) -> np.ndarray:
    """Return rows (H, 2 n, K) for modes of weight 1 as rows for the modes that B drives."""
    if system.inputs != 1:
        return np.ascontiguousarray(rows)
    channels, states, width = rows.shape
    parts = rows.reshape(channels, states // 2, 2, width)
    b = system.B.reshape(channels, -1)[:, :, None]
    real, imag = parts[:, :, 0], parts[:, :, 1]
    turned = np.stack([b.real * real - b.imag * imag, b.imag * real + b.real * imag], axis=2)
    return np.ascontiguousarray(turned.reshape(channels, states, width))


def signal_blocks(samples: int, length: int, width: int) -> Iterator[slice]:
    """Yield parts of the samples whose rows fill a block of memory."""
    step = max(1, BLOCK_BYTES // (8 * length * width))
    for start in range(0, samples, step):
        yield slice(start, start + step)


def triangle(stack: np.ndarray) -> np.ndarray:
    """Return a square upper triangular R with ``R^T R = F^T F``, rows of zero columns empty.

    Parameters
    ----------
    stack : (N, K) float64

    Returns
    -------
    (K, K) float64
    """
    width = stack.shape[1]
    alive = np.any(stack != 0, axis=0)
    upper = np.linalg.qr(stack if alive.all() else stack[:, alive], mode="r")
    out = np.zeros((width, width))
    places = np.flatnonzero(alive)
    out[np.ix_(places[: len(upper)], places)] = upper
    return out


class FeatureRoot:
    """Accumulate the triangular factor of the features along signals, batch by batch.

    Parameters
    ----------
    system : DiagonalSystem
        Batch of H, real outputs, discrete time.

    Notes
    -----
    Level: FLOAT. By QR of the rows as they are, no squares are formed: column j is exact for a
    column moved by a few eps of its length. Cost ``2 S T (m + 2 n)**2`` per batch of S signals.
    """

    def __init__(self, system: DiagonalSystem) -> None:
        self.system = system
        self.channels = int(np.prod(system.batch_shape))
        self.width = system.inputs + 2 * system.order
        self.target_energy = np.zeros(self.channels)
        size = self.width + system.outputs  # columns of a target stay zero where there is none
        self._triangle = np.zeros((self.channels, size, size))

    def add(self, V: np.ndarray, Y: np.ndarray | None = None) -> None:
        """Add inputs (S, H m, T) and outputs wanted instead of the system's own, (S, H p, T)."""
        size, outputs, length = self._triangle.shape[-1], self.system.outputs, V.shape[-1]
        theta = None
        if Y is not None:
            theta = basis_coefficients(self.system).reshape(self.channels, self.width, outputs)
        for part in signal_blocks(len(V), length * self.channels, size):
            rows = features(self.system, V[part])
            wanted = None
            if Y is not None:
                wanted = Y[part].reshape(-1, self.channels, outputs, length)
                wanted = np.moveaxis(wanted, (1, 3), (0, 2))  # (H, S, T, p)
                self.target_energy += np.sum(wanted**2, axis=(1, 2, 3))
            for h, own in enumerate(rows):
                stack = own.reshape(-1, self.width)
                if wanted is not None and theta is not None:
                    excess = wanted[h].reshape(-1, outputs) - stack @ theta[h]
                    stack = np.concatenate([stack, excess], axis=1)
                self._absorb(h, stack)

    def _absorb(self, h: int, stack: np.ndarray) -> None:
        width = stack.shape[1]
        step = max(LEAST_ROWS * width, BLOCK_BYTES // (8 * width))
        for start in range(0, len(stack), step):
            block = stack[start : start + step]
            upper = self._triangle[h, :width, :width]
            self._triangle[h, :width, :width] = triangle(np.concatenate([upper, block]))

    def factor(self, relative: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return R, what a target has beyond the system in its coordinates, and the rest.

        Parameters
        ----------
        relative : float
            Length of the direction of its own that every column of a mode gets, relative to the
            mode; see ``theory/square-root-doubling.md``. Columns of several inputs get
            `INPUT_ROUNDING`.

        Returns
        -------
        factor : (H, K, K), extra : (H, K, p), residual : (H,) float64

        Raises
        ------
        AccuracyError
            If states overflowed.
        """
        if not np.isfinite(self._triangle).all():
            raise AccuracyError(
                message(
                    "InputMoments",
                    "states overflow float64 along the signals",
                    cure="Shorten the signals or remove unstable modes first.",
                )
            )
        size = self._triangle.shape[-1]
        m, width = self.system.inputs, self.width
        factors = np.empty((self.channels, width, width))
        extra = np.empty((self.channels, width, size - width))
        residual = np.empty(self.channels)
        for h, upper in enumerate(self._triangle):
            lengths = np.linalg.norm(upper[:, :width], axis=0)
            lengths[m:] = np.hypot(lengths[m::2], lengths[m + 1 :: 2]).repeat(2)
            lengths *= np.where(np.arange(width) < (m if m > 1 else 0), INPUT_ROUNDING, relative)
            own = np.zeros((width, size))
            own[:, :width] = np.diag(lengths)
            alive = np.append(lengths > 0, np.any(upper[:, width:] != 0, axis=0))
            out = np.zeros((size, size))
            places = np.flatnonzero(alive)
            stack = np.concatenate([upper, own])[:, alive]
            if places.size:
                out[np.ix_(places, places)] = np.linalg.qr(stack, mode="r")
            factors[h], extra[h] = out[:width, :width], out[:width, width:]
            residual[h] = np.linalg.norm(out[width:, width:])
        return factors, extra, residual
