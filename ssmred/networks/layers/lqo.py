"""A trainable layer whose outputs are linear and quadratic in its state."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from ssmred.errors import OrderError, message
from ssmred.networks.layers.hippo import hippo_modes
from ssmred.networks.layers.layer import check_choice, check_even, to_array
from ssmred.networks.layers.lru import initial_ring, ring_poles
from ssmred.networks.layers.shared_state import SharedStateLayer
from ssmred.systems import DiagonalSystem, QuadraticOutputSystem
from ssmred.systems.linear import LinearSystem

__all__ = ["INITIAL", "LQOLayer", "QuadraticOutputs", "quadratic_system"]

INITIAL = ("ring", "legs")
"""Where poles start."""


class QuadraticOutputs(nn.Module):
    """Add sums of squares to the first channels: (batch, (1 + r) H, T) to (batch, H, T).

    ``y_j = v_j + sum_k v_{H + k H + j}^2``.

    Parameters
    ----------
    channels : int
    rank : int
        Squares per output.
    """

    def __init__(self, channels: int, rank: int) -> None:
        super().__init__()
        self.channels, self.rank = channels, rank

    def forward(self, v: torch.Tensor) -> torch.Tensor:
        """Return the outputs, (..., H, T)."""
        parts = v.chunk(1 + self.rank, dim=-2)
        y = parts[0]
        for k in range(1, self.rank + 1):
            y = y + parts[k] * parts[k]
        return y


class LQOLayer(SharedStateLayer):
    """Drive one diagonal state by all features and read it linearly and in squares.

    ``x_k = l x_{k-1} + exp(gamma_log) B u_k``, ``y_k = Re(C x_k) + D u_k + q_k`` with
    ``q_j = sum_r Re(U_jr x)^2`` and ``l = exp(-exp(nu_log) + i exp(theta_log))``: a linear system
    with quadratic outputs, ``M_j = sum_r U_jr^* U_jr`` on the modes with their conjugates.

    Parameters
    ----------
    channels : int
        Width ``H``.
    states : int
        Real state dimension, two per pole, even.
    rank : int
        Squares per output: the rank of the M_j.
    initial : {"ring", "legs"}
        Initial poles: uniform on a ring, as those of `LRU`; or ``exp(dt a)`` (zero-order hold) for
        the eigenvalues a of the normal part of HiPPO-LegS and one log-uniform step dt each, as
        those of `S5`.
    r_min, r_max, max_phase : float
        Moduli and largest angle on the ring.
    dt_min, dt_max : float
        Range of the steps of "legs".

    Attributes
    ----------
    nu_log, theta_log, gamma_log : nn.Parameter, (N/2,)
    B_re, B_im : nn.Parameter, (N/2, H)
    C_re, C_im : nn.Parameter, (H, N/2)
    U_re, U_im : nn.Parameter, (rank, H, N/2)
    D : nn.Parameter, (H,)

    Raises
    ------
    OrderError
        If `states` is not even, or `rank` is less than 1.
    RequestError
        If `initial` is none of the two.

    Notes
    -----
    The state of Orvieto et al., arXiv 2303.06349, with its normalisation ``exp(gamma_log) =
    sqrt(1 - |l|^2)`` for either choice of poles; HiPPO-LegS as in Smith et al., arXiv 2208.04933;
    quadratic outputs in factors as in Sakamoto and Sato, arXiv 2510.14542. Squares of real parts
    are closed under the best read-out of fewer modes (theory/lqo-layer.md), squares of moduli are
    not.

    Examples
    --------
    >>> layer = LQOLayer(3, 8, rank=2)
    >>> layer(torch.zeros(1, 3, 10)).shape, layer.to_system().outputs
    (torch.Size([1, 3, 10]), 3)
    """

    SLOW: ClassVar[tuple[str, ...]] = ("nu_log", "theta_log", "gamma_log", "B_re", "B_im")

    def __init__(
        self,
        channels: int,
        states: int = 64,
        *,
        rank: int = 1,
        initial: str = "ring",
        r_min: float = 0.0,
        r_max: float = 1.0,
        max_phase: float = 2 * math.pi,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
    ) -> None:
        super().__init__()
        modes = check_even(states, "LQOLayer")
        if rank < 1:
            raise OrderError(message("LQOLayer", "no squares", expected="rank >= 1", got=f"{rank}"))
        if check_choice(initial, INITIAL, "initial", "LQOLayer") == "ring":
            start = initial_ring(modes, r_min, r_max, max_phase)
        else:
            start = initial_legs(modes, dt_min, dt_max)
        self.nu_log, self.theta_log, self.gamma_log = map(nn.Parameter, start)
        for name, shape, variance in (
            ("B", (modes, channels), 2 * channels),
            ("C", (channels, modes), modes),
            ("U", (rank, channels, modes), modes),
        ):
            for part in ("re", "im"):
                values = torch.randn(shape) / math.sqrt(variance)
                setattr(self, f"{name}_{part}", nn.Parameter(values))
        self.D = nn.Parameter(torch.randn(channels))
        self.squares = QuadraticOutputs(channels, rank)
        self.mark()

    @property
    def rank(self) -> int:
        """Squares per output."""
        return self.squares.rank

    def discrete(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return poles (N/2,), B (N/2, H), and C above all rows of U, ((1 + r) H, N/2)."""
        poles = ring_poles(self.nu_log, self.theta_log)
        B = torch.complex(self.B_re.double(), self.B_im.double())
        C, U = (
            torch.complex(
                getattr(self, f"{name}_re").double(), getattr(self, f"{name}_im").double()
            )
            for name in "CU"
        )
        rows = torch.cat([C, U.flatten(0, 1)])
        return poles, self.gamma_log.double().exp().unsqueeze(-1) * B, rows

    def read(self, filtered: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        """Return what the layer makes of the rows that it reads."""
        return self.squares(filtered) + self.D.unsqueeze(-1) * u

    def to_systems(self) -> dict[str, LinearSystem]:
        """Return ``{"core": system}``: the linear filter that the squares come after.

        DiagonalSystem of batch shape (1,), outputs ``(C, U)``, ``(1 + r) H`` of them; D (1, (1 + r)
        H, H) reaches the first H.
        """
        poles, B, rows, D = self._recurrence()
        direct = np.zeros((1, len(rows), len(D)))
        direct[0, : len(D)] = np.diag(to_array(D))
        arrays = (to_array(tensor)[None] for tensor in (poles, B, rows))
        system = DiagonalSystem(*arrays, direct, recurrence="post-update", real_output=True)
        return {"core": system}

    def to_system(self) -> QuadraticOutputSystem:  # type: ignore[override]
        """Return the layer as a system with quadratic outputs, its conjugate modes written out."""
        return quadratic_system(self.to_systems()["core"], self.rank)

    def _modes(self) -> int:
        return self.nu_log.numel()


def initial_legs(
    modes: int, dt_min: float, dt_max: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return nu_log, theta_log and gamma_log of held HiPPO-LegS poles, (modes,) each.

    Angles are taken within one turn: it is the same pole, and a gradient step stays a small one.
    """
    rates = hippo_modes(2 * modes).poles
    spread = torch.rand(modes).double() * (math.log(dt_max) - math.log(dt_min))
    held = rates * torch.exp(spread + math.log(dt_min))
    nu, theta = -held.real, held.imag.remainder(2 * math.pi)
    logs = (torch.log(nu), torch.log(theta), 0.5 * torch.log(-torch.expm1(-2 * nu)))
    nu_log, theta_log, gamma_log = (log.to(torch.get_default_dtype()) for log in logs)
    return nu_log, theta_log, gamma_log


def quadratic_system(filtered: LinearSystem, rank: int) -> QuadraticOutputSystem:
    """Return the system with quadratic outputs that a filter and the squares after it are.

    Parameters
    ----------
    filtered : DiagonalSystem
        Batch shape (1,), real outputs, ``(1 + rank) p`` of them: p that count as they are, then
        those that are squared. These have no direct term.
    rank : int

    Returns
    -------
    QuadraticOutputSystem
        Of order 2 n, complex, M in factors (p, 2 n, rank): ``Re(u x) = (u, conj(u)) (x, conj(x)) /
        2``.

    Raises
    ------
    OrderError
        If the outputs cannot be divided so, or a squared one has a direct term.
    """
    p, odd = divmod(filtered.outputs, 1 + rank)
    if odd or np.any(filtered.D[:, p:]):
        raise OrderError(
            message(
                "quadratic_system",
                "this is no filter before squares",
                expected=f"{1 + rank} times as many outputs as channels, D = 0 for the squared",
                got=f"{filtered.outputs} outputs",
            )
        )
    full = filtered.full_spectrum()  # type: ignore[attr-defined]
    C, U = full.C[0, :p], full.C[0, p:].reshape(rank, p, -1)
    linear = full.replace(poles=full.poles[0], B=full.B[0], C=C, D=full.D[0, :p])
    return QuadraticOutputSystem.of(linear, (np.moveaxis(U.conj(), 0, -1),))
