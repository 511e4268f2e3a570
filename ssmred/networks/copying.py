"""Copy modules that `copy.deepcopy` refuses."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

__all__ = ["copy_module"]


def copy_module(module: nn.Module) -> nn.Module:
    """Return a copy of a module, also where it keeps tensors that were computed with gradients.

    `copy.deepcopy` refuses those, which some layers leave in their attributes.
    """
    memo: dict[int, Any] = {}
    for owner in module.modules():
        for value in vars(owner).values():
            parts = value.values() if isinstance(value, dict) else [value]
            for part in parts:
                if isinstance(part, torch.Tensor) and not part.is_leaf:
                    memo[id(part)] = part.detach().clone()
    return copy.deepcopy(module, memo)
