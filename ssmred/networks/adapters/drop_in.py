"""Compare a layer with the drop-in that shall take its place."""

from __future__ import annotations

import torch
from torch import nn

from ssmred.networks.adapters.block import FilterBlock
from ssmred.networks.copying import copy_module
from ssmred.networks.filters import is_core

__all__ = ["LAYER_TOLERANCE", "agrees", "answer_of", "cast_module", "layer_dtype"]

LAYER_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-9}
"""Relative agreement asked of a whole layer; its kernel is compared to rounding beforehand."""

COMPARED_STEPS = 17


def layer_dtype(module: nn.Module) -> torch.dtype:
    """Return the real dtype that a layer computes in: that of its tensors outside of cores."""
    for part in module.modules():
        if not is_core(part):
            for tensor in (*part.parameters(recurse=False), *part.buffers(recurse=False)):
                if tensor.is_complex():
                    return tensor.real.dtype
                if tensor.is_floating_point():
                    return tensor.dtype
    return torch.get_default_dtype()


def answer_of(layer: nn.Module, u: torch.Tensor) -> tuple[torch.Tensor | None, bool]:
    """Return a layer's output and whether it comes in a pair; None where it does not run."""
    try:
        answer = layer(u)
    except (RuntimeError, ValueError, TypeError, IndexError):
        return None, False
    paired = isinstance(answer, tuple)
    answer = answer[0] if paired else answer
    return (answer if isinstance(answer, torch.Tensor) else None), paired


def agrees(
    module: nn.Module, block: FilterBlock, *, width: int | None = None, batched: bool = True
) -> bool:
    """Tell whether a drop-in computes what the layer computes, and note if it returns a pair.

    Parameters
    ----------
    module : nn.Module
    block : FilterBlock
        Its ``transposed`` says the layout, and ``paired`` is set.
    width : int, optional
        Features of the input; by default the block's.
    batched : bool
        Whether the layer takes (batch, ...) or a single sequence.
    """
    width = width or block.width or 1
    shape = (2, width, COMPARED_STEPS) if block.transposed else (2, COMPARED_STEPS, width)
    shape = shape if batched else shape[1:]
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for dtype in (torch.float64, layer_dtype(module)):
        layer, drop_in = (
            cast_module(copy_module(m).to("cpu"), dtype).eval() for m in (module, block)
        )
        with torch.no_grad():
            wanted, paired = answer_of(layer, noise.to(dtype))
            got, _ = answer_of(drop_in, noise.to(dtype))
        if wanted is not None:  # a class that insists on float32 is compared in float32
            break
    if wanted is None or got is None or wanted.shape != got.shape:
        return False
    block.paired = paired
    tolerance = LAYER_TOLERANCE.get(wanted.dtype, 1e-2)
    return bool((wanted - got).abs().max() <= tolerance * wanted.abs().max())


def cast_module(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Cast a module to a real dtype, in place; complex tensors stay complex, of that precision.

    ``module.double()`` leaves complex parameters alone and ``module.to(torch.float64)`` drops their
    imaginary parts. States that layers keep outside the state dict are cast too.
    """
    with_pair = {torch.float64: torch.complex128, torch.float32: torch.complex64}

    def cast(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.is_complex():
            return tensor.to(with_pair.get(dtype, tensor.dtype))
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    module._apply(cast)
    for owner in module.modules():
        for name, value in list(vars(owner).items()):
            if isinstance(value, torch.Tensor):
                setattr(owner, name, cast(value))
    return module
