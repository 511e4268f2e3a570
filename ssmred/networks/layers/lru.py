"""The linear recurrent unit."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import nn

from ssmred.networks.layers.layer import check_even
from ssmred.networks.layers.shared_state import SharedStateLayer

__all__ = ["LRU", "initial_ring", "ring_poles"]


class LRU(SharedStateLayer):
    """Apply a linear recurrent unit: ``y = Re(C x) + D u``, nothing after it.

    ``x_k = l x_{k-1} + exp(gamma_log) B u_k`` with ``l = exp(-exp(nu_log) + i exp(theta_log))``.

    Parameters
    ----------
    channels : int
        Width ``H``.
    states : int
        Real state dimension, two per pole, even.
    r_min, r_max : float
        The initial moduli of the poles; uniform on the ring.
    max_phase : float
        Largest initial angle.

    Attributes
    ----------
    nu_log, theta_log, gamma_log : nn.Parameter, (N/2,)
    B_re, B_im : nn.Parameter, (N/2, H)
    C_re, C_im : nn.Parameter, (H, N/2)
    D : nn.Parameter, (H,)

    Notes
    -----
    Parametrisation and initial values of Orvieto et al., arXiv 2303.06349; names and shapes of the
    minimal-LRU package.
    """

    SLOW: ClassVar[tuple[str, ...]] = ("nu_log", "theta_log", "gamma_log", "B_re", "B_im")

    def __init__(
        self,
        channels: int,
        states: int = 64,
        *,
        r_min: float = 0.0,
        r_max: float = 1.0,
        max_phase: float = 2 * math.pi,
    ) -> None:
        super().__init__()
        modes = check_even(states, "LRU")
        ring = initial_ring(modes, r_min, r_max, max_phase)
        self.nu_log, self.theta_log, self.gamma_log = map(nn.Parameter, ring)
        for name, shape, variance in (
            ("B", (modes, channels), 2 * channels),
            ("C", (channels, modes), modes),
        ):
            for part in ("re", "im"):
                values = torch.randn(shape) / math.sqrt(variance)
                setattr(self, f"{name}_{part}", nn.Parameter(values))
        self.D = nn.Parameter(torch.randn(channels))
        self.mark()

    def discrete(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return poles (N/2,), B (N/2, H) and C (H, N/2), complex128."""
        poles = ring_poles(self.nu_log, self.theta_log)
        B = torch.complex(self.B_re.double(), self.B_im.double())
        C = torch.complex(self.C_re.double(), self.C_im.double())
        return poles, self.gamma_log.double().exp().unsqueeze(-1) * B, C

    def _modes(self) -> int:
        return self.nu_log.numel()


def initial_ring(
    modes: int, r_min: float, r_max: float, max_phase: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return nu_log, theta_log and gamma_log of poles that are uniform on a ring, (modes,) each."""
    areas = torch.rand(modes) * (r_max**2 - r_min**2) + r_min**2
    nu, theta = torch.log(-0.5 * torch.log(areas)), torch.log(max_phase * torch.rand(modes))
    return nu, theta, 0.5 * torch.log1p(-areas)


def ring_poles(nu_log: torch.Tensor, theta_log: torch.Tensor) -> torch.Tensor:
    """Return ``exp(-exp(nu_log) + i exp(theta_log))``, complex128."""
    return torch.exp(torch.complex(-nu_log.double().exp(), theta_log.double().exp()))
