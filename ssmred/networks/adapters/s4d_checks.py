"""Compare an imported S4D layer with what its own class computes."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from ssmred.errors import CheckpointError, message
from ssmred.networks.adapters.block import FilterBlock
from ssmred.networks.adapters.s4d_parts import S4DParts, parts_of, read_weights
from ssmred.networks.filters import LinearFilter
from ssmred.systems import DiagonalSystem

__all__ = ["FREE_FUNCTIONS", "candidates", "check_kernel"]

FREE_FUNCTIONS = (  # what a forward may call where no activation is a submodule; tried in turn
    nn.GELU(),
    nn.GELU("tanh"),
    nn.SiLU(),
    nn.ReLU(),
    nn.Tanh(),
    nn.Identity(),
)

CHECKED_SAMPLES = 40
"""Kernel samples compared after reading and writing: another discretisation, sign, factor or
pairing of modes shows in the first few, at a cost that does not weigh on large networks."""

KERNEL_MARGIN = 8.0
"""Roundings per term that two evaluations of the same kernel may differ by."""


def check_kernel(
    module: nn.Module, system: DiagonalSystem, *, rounded: torch.dtype = torch.float64
) -> None:
    """Raise CheckpointError unless the layer's own kernel is the system's impulse response.

    With `rounded` the system was rounded to that dtype when it was written.

    Compared sample by sample in the module's dtype and in float64. Rounding moves a term
    ``2 C b l^k`` by at most about ``eps |r| (n + c + c k |dt A|) + eps c |2 C / A| (1 + |dt A|)``:
    the phase loses as many digits as it has before the point, ``exp(dt A) - 1`` as it is small.
    """
    parts = parts_of(module)
    length = CHECKED_SAMPLES
    expected = system.replace(D=np.zeros_like(system.D)).impulse_response(length)[..., 0, 0]
    A, dt, C = read_weights(module, parts)
    rate = np.abs(A) * dt[:, None]
    scale = np.abs(2.0 * C / A)
    sizes = scale * np.abs(np.expm1(A * dt[:, None]))
    fixed = sizes * (1.0 + parts.modes / KERNEL_MARGIN) + scale * (1.0 + rate)
    terms = fixed.sum(axis=1)[:, None] + (sizes * rate).sum(axis=1)[:, None] * np.arange(length)
    for dtype in {module.D.dtype, torch.float64}:
        own = _own_kernel(module, parts, length, dtype)
        eps = max(torch.finfo(kind).eps for kind in (dtype, own.dtype, rounded))
        values = own.double().numpy()
        wrong = ~(np.abs(values - expected) <= KERNEL_MARGIN * eps * terms)
        if wrong.any():
            channel, step = (int(i) for i in np.argwhere(wrong)[0])
            raise CheckpointError(
                message(
                    "S4DAdapter",
                    f"the kernel of {type(module).__name__} is not the response of its weights "
                    f"({dtype}, channel {channel}, step {step})",
                    expected=f"{expected[channel, step]:.6g}",
                    got=f"{values[channel, step]:.6g}",
                    cure="The class discretises otherwise; register an adapter of its own.",
                )
            )


def _own_kernel(
    module: nn.Module, parts: S4DParts, length: int, dtype: torch.dtype
) -> torch.Tensor:
    generator = copy.deepcopy(getattr(module, parts.kernel)).to(dtype).eval()
    with torch.no_grad():
        try:
            own = generator(L=length)
        except TypeError:  # another keyword
            own = generator(length)
    if not isinstance(own, torch.Tensor) or own.shape != (parts.channels, length):
        raise CheckpointError(
            message(
                "S4DAdapter",
                f"{parts.kernel}(L={length}) is no kernel",
                expected=f"a tensor ({parts.channels}, {length})",
                got=f"{tuple(own.shape)}" if isinstance(own, torch.Tensor) else f"{type(own)}",
            )
        )
    return own.cpu()


def candidates(module: nn.Module, parts: S4DParts, core: LinearFilter) -> Iterator[FilterBlock]:
    """Yield the drop-ins that the structure allows, the likeliest first."""
    named = getattr(module, "transposed", None)
    layouts = (named,) if isinstance(named, bool) else (True, False)
    activations = (getattr(module, parts.activation),) if parts.activation else FREE_FUNCTIONS
    dropout = getattr(module, parts.dropout) if parts.dropout else nn.Identity()
    mixing = getattr(module, parts.mixing) if parts.mixing else nn.Identity()
    for activation in activations:
        for transposed in layouts:
            yield FilterBlock(
                core, activation, dropout, mixing, transposed=transposed, heeds_options=False
            )
