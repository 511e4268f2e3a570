"""The S5 layer."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import nn

from ssmred.errors import OrderError, message
from ssmred.networks.layers.hippo import hippo_modes
from ssmred.networks.layers.layer import check_choice, check_even
from ssmred.networks.layers.shared_state import SharedStateLayer

__all__ = ["S5"]

CLIPPED_AT = -1e-4
"""Largest real part of a continuous pole where eigenvalues are clipped."""


class S5(SharedStateLayer):
    """Apply an S5 layer: ``y = 2 Re(C x) + D u``, nothing after it.

    ``x' = L x + B u`` with ``L = Lambda_re + i Lambda_im``, discretised with one step per pole.

    Parameters
    ----------
    channels : int
        Width ``H``.
    states : int
        Real state dimension, two per stored pole, even.
    discretisation : {"zoh", "bilinear"}
    conj_sym : bool
        Whether the poles stand for conjugate pairs; otherwise ``y = Re(C x) + D u``.
    clip_eigs : bool
        Whether real parts are at most -1e-4.
    bidirectional : bool
        A second state runs through the reversed sequence.
    blocks : int
        The initial matrix is block diagonal with so many HiPPO-LegS matrices.
    dt_min, dt_max : float
        Range of the log-uniform initial steps.

    Attributes
    ----------
    Lambda_re, Lambda_im : nn.Parameter, (P,)
    B : nn.Parameter, (P, H, 2)
    C : nn.Parameter, (H, P, 2)
        ``(H, 2 P, 2)`` if bidirectional, the forward half first.
    D : nn.Parameter, (H,)
    log_step : nn.Parameter, (P, 1)

    Notes
    -----
    Parametrisation of Smith, Warrington and Linderman, arXiv 2208.04933; names and shapes of the
    original JAX code.
    """

    SLOW: ClassVar[tuple[str, ...]] = ("Lambda_re", "Lambda_im", "B", "log_step")

    def __init__(
        self,
        channels: int,
        states: int = 64,
        *,
        discretisation: str = "zoh",
        conj_sym: bool = True,
        clip_eigs: bool = True,
        bidirectional: bool = False,
        blocks: int = 1,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
    ) -> None:
        super().__init__()
        modes = check_even(states, "S5")
        size, rest = divmod(states if conj_sym else modes, blocks)  # of one block
        if rest or size % 2:
            raise OrderError(
                message(
                    "S5",
                    f"{states} states do not make {blocks} blocks of conjugate pairs",
                    expected=f"a multiple of {(2 if conj_sym else 4) * blocks}",
                )
            )
        self.discretisation = check_choice(
            discretisation, ("zoh", "bilinear"), "discretisation", "S5"
        )
        self.conj_sym = conj_sym
        self.clip_eigs = clip_eigs
        self.bidirectional = bidirectional
        hippo = hippo_modes(size)
        poles, V = hippo.poles, hippo.V
        if not conj_sym:
            poles, V = torch.cat([poles, poles.conj()]), torch.cat([V, V.conj()], dim=-1)
        dtype = torch.get_default_dtype()
        V = torch.block_diag(*[V] * blocks).to(dtype.to_complex())
        self.Lambda_re = nn.Parameter(poles.real.repeat(blocks).to(dtype))
        self.Lambda_im = nn.Parameter(poles.imag.repeat(blocks).to(dtype))
        drive = torch.randn(len(V), channels) / math.sqrt(channels)
        self.B = _as_pairs(V.conj().T @ drive.to(V.dtype))
        read_outs = [
            torch.complex(*torch.randn(2, channels, len(V)) / math.sqrt(len(V))) @ V
            for _ in range(1 + bidirectional)
        ]
        self.C = _as_pairs(torch.cat(read_outs, dim=-1))
        self.D = nn.Parameter(torch.randn(channels))
        spread = torch.rand(modes, 1) * (math.log(dt_max) - math.log(dt_min))
        self.log_step = nn.Parameter(spread + math.log(dt_min))
        self.mark()

    def discrete(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return poles (P,), B (P, H) and C (H, P), the 2 of a half spectrum in it, complex128."""
        real = self.Lambda_re.double()
        if self.clip_eigs:
            real = real.clamp(max=CLIPPED_AT)
        rate = torch.complex(real, self.Lambda_im.double())
        step = self.log_step.double().exp()[:, 0]
        B, C = (torch.view_as_complex(pairs.double()) for pairs in (self.B, self.C))
        if self.discretisation == "zoh":
            poles = torch.exp(rate * step)
            hold = torch.expm1(rate * step) / rate
        else:
            solved = 1.0 / (1.0 - rate * step / 2)
            poles = solved * (1.0 + rate * step / 2)
            hold = solved * step
        return poles, hold.unsqueeze(-1) * B, 2.0 * C if self.conj_sym else C

    def _modes(self) -> int:
        return self.Lambda_re.numel()


def _as_pairs(values: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(torch.view_as_real(values.resolve_conj()).clone())
