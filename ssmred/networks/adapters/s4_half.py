"""The convolution of copies of S4 whose CPU fallback leaves out the conjugate modes.

Their Cauchy sums run over the stored half of the spectrum only, so their kernels are not the
impulse response of their own matrices, nor that of any system whose order does not grow with the
length: what comes out depends on the length that C is made for.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from ssmred.networks.adapters.s4_dplr import dense_heads, twisted, untwisted
from ssmred.networks.adapters.s4_reading import S4Weights

__all__ = ["half_spectrum_kernels", "made_for", "realised"]


def half_spectrum_kernels(weights: S4Weights, length: int, samples: int) -> np.ndarray:
    """Return what the fallback computes, (channels, H, samples) float64.

    ``K(w) = 2 / (1 + w) (r_CB - r_CP (I + r_QP)^{-1} r_QB)`` with
    ``r_XY(z) = sum_n dt X_n Y_n / (z - dt L_n)``, ``z = 2 (1 - w) / (1 + w)``, at the roots of
    unity of the upper half circle; then the real inverse transform.
    """
    w = np.exp(-2j * np.pi / length * np.arange(length // 2 + 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        z = 2.0 * (1.0 - w) / (1.0 + w)
        dt = weights.dt[..., None]
        cauchy = dt / (z - dt * weights.A[..., None])  # (H, n, nodes)
        Q = weights.P.conj()

        def total(left: np.ndarray, right: np.ndarray) -> np.ndarray:
            return np.einsum("ahn,bhn,hnw->hwab", left, right, cauchy)

        B, C = weights.B[None], weights.C
        inner = np.eye(len(Q)) + total(Q, weights.P)
        correction = total(C, weights.P) @ np.linalg.solve(inner, total(Q, B))
        spectrum = np.moveaxis((total(C, B) - correction)[..., 0], -1, 0) * (2.0 / (1.0 + w))
    return np.fft.irfft(spectrum, n=length)[..., :samples]


def made_for(weights: S4Weights, length: int) -> S4Weights:
    """Return the weights with C made for another length, as a longer input makes it."""
    if length == weights.length:
        return weights
    A, _ = dense_heads(weights.A, weights.P, weights.B, weights.dt[:, 0])
    C = twisted(A, untwisted(A, weights.C, weights.length), length)
    return dataclasses.replace(weights, C=C, length=length)


def realised(kernels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return modes whose responses are given kernels: ``h_k = Re sum r l^k`` for k < T.

    Parameters
    ----------
    kernels : (K, T) float64

    Returns
    -------
    poles, residues : (K, T // 2 + 1) complex128

    Notes
    -----
    The poles are the roots of unity of order T on the upper half circle, the residues the discrete
    Fourier coefficients: exact to rounding for the T samples, repeated with period T beyond them.
    No system of a few modes does as well, because kernels that are cut out of half a spectrum
    neither decay nor end (the realisation of Ho and Kalman grows beyond all bounds).

    Examples
    --------
    >>> poles, residues = realised(np.array([[3.0, 1.0, 2.0]]))
    >>> [round(float((residues * poles**k).sum().real), 12) for k in range(3)]
    [3.0, 1.0, 2.0]
    """
    T = kernels.shape[1]
    residues = np.fft.rfft(kernels, axis=1) / T
    residues[:, 1 : (T + 1) // 2] *= 2.0
    poles = np.exp(2j * np.pi / T * np.arange(residues.shape[1]))
    return np.broadcast_to(poles, residues.shape), residues
