"""Modules that move a sequence in time: what filters that run backwards are made of."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["OneStepDelay"]


class OneStepDelay(nn.Module):
    """Shift a sequence by one step: ``y_k = u_{k-1}``, ``y_0 = 0``; time is the last axis.

    Examples
    --------
    >>> OneStepDelay()(torch.tensor([1.0, 2.0, 3.0])).tolist()
    [0.0, 1.0, 2.0]
    """

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        """Return the sequence one step later, without its last step."""
        return nn.functional.pad(u, (1, 0))[..., : u.shape[-1]]
