"""The HiPPO-LegS matrix, whose normal part S4 and S5 layers start from.

``A_nk = -sqrt((2n+1)(2k+1))`` below the diagonal, ``-(n+1)`` on it; ``A + P P^T`` with
``P_n = sqrt(n + 1/2)`` is ``-1/2`` plus a skew-symmetric matrix (Gu, Goel and Re,
arXiv 2111.00396, theorem 1).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["HippoModes", "hippo_legs", "hippo_modes"]


@dataclass(frozen=True, eq=False)
class HippoModes:
    """Hold the modes of ``A + P P^T`` with positive imaginary part; the others are conjugate.

    Attributes
    ----------
    poles : torch.Tensor, (N/2,) complex128
    P, B : torch.Tensor, (N/2,) complex128
        ``V^* P`` and ``V^* B``; the phases of V are such that the latter is positive.
    V : torch.Tensor, (N, N/2) complex128
        Orthonormal eigenvectors.
    """

    poles: torch.Tensor
    P: torch.Tensor
    B: torch.Tensor
    V: torch.Tensor


def hippo_legs(states: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return A (N, N), P (N,) and B (N,) of HiPPO-LegS, float64.

    Examples
    --------
    >>> A, P, B = hippo_legs(2)
    >>> A[1].round(decimals=3).tolist(), (B**2).round().tolist()
    ([-1.732, -2.0], [1.0, 3.0])
    """
    n = torch.arange(states, dtype=torch.float64)
    B = torch.sqrt(2 * n + 1)
    A = -torch.tril(B[:, None] * B, diagonal=-1) - torch.diag(n + 1)
    return A, torch.sqrt(n + 0.5), B


def hippo_modes(states: int) -> HippoModes:
    """Return the modes of the normal part of HiPPO-LegS, for an even number of states."""
    A, P, B = hippo_legs(states)
    normal = A + P[:, None] * P
    frequencies, V = torch.linalg.eigh(-0.5j * (normal - normal.T))
    frequencies, V = frequencies[states // 2 :], V[:, states // 2 :]
    gains = V.conj().T @ B.to(V.dtype)
    V = V * (gains / gains.abs())
    return HippoModes(
        torch.complex(torch.full_like(frequencies, -0.5), frequencies),
        V.conj().T @ P.to(V.dtype),
        V.conj().T @ B.to(V.dtype),
        V,
    )
