"""Kernels of channels that belong to no family: any diagonal or dense systems, to be trained."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from ssmred.errors import UnstableSystemError, message
from ssmred.networks.layers.layer import to_array
from ssmred.networks.layers.operator_kernel import OperatorKernel, modal_responses
from ssmred.networks.ragged import to_pairs
from ssmred.systems import DenseSystem, DiagonalSystem

__all__ = ["DenseKernel", "ModalKernel"]

FASTEST = 6.0
"""Largest log decay: ``exp(-exp(6))`` is 0 in float64, so a pole at 0 has it."""


class ModalKernel(OperatorKernel):
    """Generate kernels of stable modes: ``h_k = Re sum_i r_i l_i^k``.

    ``l = exp(-exp(log_decay) + i angle)`` stays inside the unit circle whatever is learnt.

    Parameters
    ----------
    poles, residues : (H, n) complex
        The residue is ``C B`` and holds the factor 2 of a half spectrum.

    Raises
    ------
    UnstableSystemError
        If a pole with a residue is on the unit circle or outside.

    Examples
    --------
    >>> ModalKernel([[0.5]], [[2.0]]).responses(3).tolist()
    [[2.0, 1.0, 0.5]]
    """

    SLOW: ClassVar[tuple[str, ...]] = ("log_decay", "angle")
    AXES: ClassVar[dict[str, int]] = {"residues": 0, "log_decay": 0, "angle": 0}
    READ_OUT: ClassVar[str] = "residues"

    def __init__(self, poles: Any, residues: Any) -> None:
        super().__init__()
        values, weights = (np.asarray(array, dtype=np.complex128) for array in (poles, residues))
        radii = np.where(weights != 0, np.abs(values), 0.0)
        if radii.max(initial=0.0) >= 1.0:
            raise UnstableSystemError(
                message(
                    "ModalKernel",
                    "a pole is not inside the unit circle",
                    expected="stable poles, which training keeps stable",
                    got=f"modulus {radii.max():.12g}",
                    cure="Prune layers with a native kernel (S4D, S4), or drop the mode first.",
                )
            )
        with np.errstate(divide="ignore"):
            decay = np.minimum(np.log(-np.log(radii)), FASTEST)
        self.log_decay = nn.Parameter(torch.from_numpy(decay))
        self.angle = nn.Parameter(torch.from_numpy(np.angle(values)))
        self.residues = nn.Parameter(to_pairs(weights))
        self.mark()

    @property
    def settings(self) -> dict[str, int]:
        """Channels and modes of each."""
        return {"channels": self.channels, "modes": self.angle.shape[1]}

    @classmethod
    def blank(cls, channels: int, modes: int) -> ModalKernel:
        """Return a kernel for a state dict to fill."""
        return cls(np.zeros((channels, modes)), np.zeros((channels, modes)))

    def responses(self, T: int) -> torch.Tensor:
        """Return the first T samples of every channel's impulse response, (H, T)."""
        exponents = torch.complex(-self.log_decay.exp(), self.angle)
        return modal_responses(exponents, torch.view_as_complex(self.residues), T)

    def to_system(self) -> DiagonalSystem:
        """Return the channels as one batch of modes, without direct terms."""
        poles = to_array(torch.exp(torch.complex(-self.log_decay.exp(), self.angle)))
        residues = to_array(torch.view_as_complex(self.residues))
        return DiagonalSystem(
            poles.astype(np.complex128),
            np.ones((*poles.shape, 1)),
            residues.astype(np.complex128)[:, None],
            recurrence="post-update",
            real_output=True,
        )


class DenseKernel(OperatorKernel):
    """Generate kernels of dense real channels: ``h_k = C A^k B``, or a step later where `delayed`.

    Parameters
    ----------
    A : (H, n, n) float
    B, C : (H, n) float
    delayed : bool

    Examples
    --------
    >>> DenseKernel([[[0.5]]], [[1.0]], [[2.0]]).responses(3).tolist()
    [[2.0, 1.0, 0.5]]
    """

    SLOW: ClassVar[tuple[str, ...]] = ("A", "B")
    AXES: ClassVar[dict[str, int]] = {"A": 0, "B": 0, "C": 0}

    def __init__(self, A: Any, B: Any, C: Any, *, delayed: bool = False) -> None:
        super().__init__()
        self.A, self.B, self.C = (
            nn.Parameter(torch.from_numpy(np.array(array, dtype=np.float64))) for array in (A, B, C)
        )
        self.delayed = bool(delayed)
        self.mark()

    @property
    def settings(self) -> dict[str, Any]:
        """Channels, states of each, and the recurrence."""
        return {
            "channels": self.channels,
            "states": self.A.shape[1],
            "delayed": self.delayed,
        }

    @classmethod
    def blank(cls, channels: int, states: int, delayed: bool) -> DenseKernel:
        """Return a kernel for a state dict to fill."""
        row = np.zeros((channels, states))
        return cls(np.zeros((channels, states, states)), row, row, delayed=delayed)

    def responses(self, T: int) -> torch.Tensor:
        """Return the first T samples of every channel's impulse response, (H, T)."""
        count = max(T - int(self.delayed), 1)
        block = 1 << max(0, (count - 1).bit_length() + 1) // 2
        fine, power = powers_onto(self.A, self.B[..., None], block)
        coarse, _ = powers_onto(power.mT, self.C[..., None], -(-count // block))
        response = (coarse.mT @ fine).flatten(-2)[:, :count]
        if self.delayed:
            response = torch.cat([torch.zeros_like(response[:, :1]), response], dim=1)
        return response[:, :T]

    def to_system(self) -> DenseSystem:
        """Return the channels as one batch of real systems, without direct terms."""
        A, B, C = (to_array(p).astype(np.float64) for p in (self.A, self.B, self.C))
        recurrence = "standard" if self.delayed else "post-update"
        return DenseSystem(A, B[..., None], C[:, None], recurrence=recurrence)


def powers_onto(A: torch.Tensor, B: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``[B, A B, ..., A^(count - 1) B]``, (H, n, count), and the last square of A made.

    With `count` a power of two the latter is ``A^count``.
    """
    table, power = B, A
    while table.shape[-1] < count:
        table = torch.cat([table, power @ table], dim=-1)
        power = power @ power
    return table[..., :count], power
