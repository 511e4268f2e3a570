"""Balanced bases of a flat batch of systems: what balanced truncation and its kin share.

Theory: ``theory/balanced-truncation.md``, ``theory/hankel-values.md``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from ssmred.gramians.hankel import check_converged, residue_roots
from ssmred.kernels.balancing import fill_hankel_decompositions, fill_truncations
from ssmred.kernels.jacobi import fill_decompositions, fill_vectors
from ssmred.reductors.reduction import Projection
from ssmred.systems.dense import DenseSystem
from ssmred.systems.diagonal import DiagonalSystem
from ssmred.systems.linear import LinearSystem, adjoint

__all__ = [
    "Balancing",
    "Compression",
    "FactorBalancing",
    "ResidueBalancing",
    "dense_result",
]

DROPPED = 1e-40
"""Square, relative to the largest entry, of columns of the Hankel matrix that are left out."""


@dataclass(frozen=True, eq=False)
class Compression:
    """Hold ``W^* M V`` for a diagonal or dense M, ``W^* B`` and ``C V``, and the bases."""

    A: np.ndarray
    B: np.ndarray
    C: np.ndarray
    projection: Projection


class Balancing(ABC):
    """Hold the balanced bases of a flat batch (H,), ready for any order.

    Attributes
    ----------
    values : (H, N) float64
        Hankel singular values; below 1e-20 of the largest they may be 0.
    dropped : (H,) float64
        The true values exceed ``values`` by no more.
    """

    values: np.ndarray
    dropped: np.ndarray

    @abstractmethod
    def compression(
        self, channels: np.ndarray, order: int, shift: float | None = None
    ) -> Compression:
        """Return the compression to an order of A, B, C, or of a shifted inverse.

        With a shift z the matrices are ``N = (A - z I)^{-1}``, ``N B`` and ``C N``.
        """

    def tail_bounds(self) -> np.ndarray:
        """Return ``2 sum_{k > r} sigma_k`` for r = 0, ..., N, (H, N + 1)."""
        values = self.values + self.dropped[:, None]
        tails = np.cumsum(values[:, ::-1], axis=-1)[:, ::-1]
        return 2 * np.concatenate([tails, np.zeros((len(tails), 1))], axis=-1)


class ResidueBalancing(Balancing):
    """Balance real single-input single-output half spectra, from their residues alone.

    Parameters
    ----------
    system : DiagonalSystem
        With ``real_output``, flat batch, stable.
    where : str
        Named in errors.
    """

    def __init__(self, system: DiagonalSystem, where: str) -> None:
        self.system = system
        self.poles, self.roots = residue_roots(system)
        channels, n = self.poles.shape
        self.parts, self.values, self.ranks, self.dropped = _room(
            channels, 2 * n, 2 * n, np.float64
        )
        self.used = np.empty(channels, np.int64)
        fill_hankel_decompositions(
            self.poles,
            self.roots,
            not system.is_discrete,
            DROPPED,
            *self.parts,
            self.values,
            self.used,
            self.ranks,
            self.dropped,
        )
        check_converged(self.values, where)

    def compression(
        self, channels: np.ndarray, order: int, shift: float | None = None
    ) -> Compression:
        """Return the compression of the real states ``(Re x_1, Im x_1, ...)``; see Balancing."""
        count, n = channels.size, self.poles.shape[-1]
        A = np.empty((count, order, order))
        B, C = np.empty((count, order)), np.empty((count, order))
        V, W = np.empty((count, 2 * n, order)), np.empty((count, 2 * n, order))
        poles, weights = self.poles, self.roots
        if shift is not None:
            poles = 1 / (poles - shift)
            weights = weights * poles
        # the factors are those of sqrt(c b) in place of b and c
        silent = self.roots == 0
        roots = np.where(silent, 1, self.roots)
        fill_truncations(
            channels,
            self.poles,
            self.roots,
            not self.system.is_discrete,
            *self.parts,
            self.values,
            self.used,
            self.ranks,
            poles,
            weights,
            np.where(silent, 0, self.system.B[..., 0] / roots),
            np.where(silent, 0, self.system.C[..., 0, :] / roots),
            A,
            B,
            C,
            V,
            W,
        )
        return Compression(A, B[..., None], C[:, None, :], Projection(V, W))


class FactorBalancing(Balancing):
    """Balance by the square-root method, from factors of both Gramians.

    Parameters
    ----------
    system : DenseSystem or DiagonalSystem
        Flat batch; not ``real_output``.
    Lp, Lq : (H, n, K) float64 or complex128
        Factors of the Gramians of its states.
    where : str
    """

    def __init__(self, system: LinearSystem, Lp: np.ndarray, Lq: np.ndarray, where: str) -> None:
        self.system, self.Lp, self.Lq = system, Lp, Lq
        hankel = np.ascontiguousarray(adjoint(Lq) @ Lp)
        channels, m, n = hankel.shape
        self.parts, self.values, self.ranks, self.dropped = _room(channels, m, n, hankel.dtype)
        fill_decompositions(hankel, DROPPED, *self.parts, self.values, self.ranks, self.dropped)
        check_converged(self.values, where)
        # vectors of values at rounding level are noise: the numerically minimal part is what is
        # compressed, states beyond it come back zero
        noise = max(m, n) * np.finfo(float).eps * self.values[:, :1]
        self.ranks = np.minimum(self.ranks, np.sum(self.values > noise, axis=-1))

    def compression(
        self, channels: np.ndarray, order: int, shift: float | None = None
    ) -> Compression:
        """Return the compression; see Balancing."""
        Lp, Lq = self.Lp[channels], self.Lq[channels]
        U = np.empty((channels.size, Lq.shape[-1], order), dtype=self.parts[0].dtype)
        Z = np.empty((channels.size, Lp.shape[-1], order), dtype=self.parts[0].dtype)
        fill_vectors(channels, *self.parts, self.ranks, U, Z)
        values = self.values[channels, None, :order]
        scale = np.where(values > 0, 1 / np.sqrt(np.where(values > 0, values, 1)), 0)
        V, W = Lp @ (Z * scale), Lq @ (U * scale)
        system, projection = self.system, Projection(V, W)
        B, C = system.B[channels], system.C[channels]
        if isinstance(system, DiagonalSystem):
            poles = system.poles[channels, :, None]
            if not np.iscomplexobj(V):
                poles, B, C = poles.real, B.real, C.real
            if shift is None:
                return Compression(adjoint(W) @ (poles * V), adjoint(W) @ B, C @ V, projection)
            inverse = 1 / (poles - shift)
            B, moved = inverse * B, inverse * V
        else:
            A = system.A[channels]  # type: ignore[attr-defined]
            if shift is None:
                return Compression(adjoint(W) @ A @ V, adjoint(W) @ B, C @ V, projection)
            both = np.linalg.solve(
                A - shift * np.eye(system.order), np.concatenate([B, V], axis=-1)
            )
            B, moved = both[..., : B.shape[-1]], both[..., B.shape[-1] :]
        return Compression(adjoint(W) @ moved, adjoint(W) @ B, C @ moved, projection)


def dense_result(
    system: LinearSystem, A: np.ndarray, B: np.ndarray, C: np.ndarray, D: np.ndarray
) -> DenseSystem:
    """Return a reduced system in the time of the full one, real where the matrices are.

    States that nothing drives and nothing sees (their rank was exhausted) get a stable pole.
    """
    if not system.is_discrete:
        r = A.shape[-1]
        busy = A.any(axis=-1) | A.any(axis=-2) | B.any(axis=-1) | C.any(axis=-2)
        idle = np.logical_not(busy)
        A = np.where(idle[..., None] & np.eye(r, dtype=bool), -1.0, A)
    if not (np.iscomplexobj(A) or np.iscomplexobj(B) or np.iscomplexobj(C)) and system.is_real:
        D = D.real
    return DenseSystem(A, B, C, D, system.dt, recurrence=system.recurrence)


def _room(
    channels: int, m: int, n: int, dtype: np.typing.DTypeLike
) -> tuple[tuple[np.ndarray, ...], np.ndarray, np.ndarray, np.ndarray]:
    """Return (W, tau, rows, place, X, order), values, ranks and dropped for H matrices (m, n)."""
    r = min(m, n)
    parts = (
        np.empty((channels, n, m), dtype),
        np.empty((channels, r)),
        np.empty((channels, m), np.int64),
        np.empty((channels, n), np.int64),
        np.empty((channels, r, n), dtype),
        np.empty((channels, r), np.int64),
    )
    return parts, np.empty((channels, r)), np.empty(channels, np.int64), np.empty(channels)
