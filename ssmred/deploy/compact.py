"""Networks for inference alone: what a layer does around its filters is done in fewer passes.

Channels are put in the order that the filters want, once per layer; what never differs from a
constant is not computed but counted in the bias of the mixing behind.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from scipy.fft import next_fast_len
from torch import nn
from torch.nn import functional

from ssmred.networks import FilterBlock, LinearFilter, ReducedSSM
from ssmred.networks.convolution import convolve
from ssmred.networks.copying import copy_module
from ssmred.networks.discovery import find_layers, with_module
from ssmred.networks.operator_bank import OperatorBank
from ssmred.systems.linear import LinearSystem

__all__ = ["CompactBlock", "CompactNorm", "compacted"]

ELEMENTWISE = (
    nn.Identity, nn.GELU, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Softplus,
)  # fmt: skip
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d)
KEPT = 4
"""Lengths whose spectra a block keeps."""


def compacted(model: nn.Module) -> nn.Module:
    """Return a copy of a network that answers the same, for inference on whole sequences.

    Parameters
    ----------
    model : nn.Module
        An original, a pruned or a reduced network; never modified.

    Returns
    -------
    nn.Module
        In eval mode. Layers of independent channels, an activation and a position-wise mixing,
        gated or not, are `CompactBlock`, batch norms `CompactNorm`; all others are copies.

    Notes
    -----
    The outputs are those of the model to rounding of its dtype. Not for training, streaming or
    `save_network`: make it anew from what was stored.

    Examples
    --------
    >>> from ssmred.networks.deep import DeepSSM
    >>> model = DeepSSM(1, 3, channels=4, states=4, layers=2).eval()
    >>> small, x = compacted(model), torch.randn(2, 50, 1)
    >>> bool((small(x) - model(x)).abs().max() < 1e-5)
    True
    """
    network = copy_module(model).eval()
    for found in find_layers(network):
        path, block = found.path, found.module
        if isinstance(block, LinearFilter):
            path = path.rpartition(".")[0]
            block = network.get_submodule(path)
        elif found.adapter is not None:
            systems = list(found.to_systems().values())
            if len(systems) == 1 and _independent(systems[0]):
                core = OperatorBank.from_system(systems[0])
                block = found.adapter.to_block(block, {"core": core})
        if isinstance(block, FilterBlock):
            compact = _compact(block)
            if compact is not None:
                network = with_module(network, path, compact)
    for path, module in list(network.named_modules()):
        if type(module) is nn.BatchNorm1d and module.running_mean is not None:
            network = with_module(network, path, CompactNorm(module))
    return network.eval()


class CompactNorm(nn.Module):
    """Compute ``s x + t`` per feature, which is what a batch norm does in eval mode.

    Parameters
    ----------
    norm : nn.BatchNorm1d
        With running means.
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, norm: nn.BatchNorm1d) -> None:
        super().__init__()
        mean, variance = (
            cast(torch.Tensor, t).double() for t in (norm.running_mean, norm.running_var)
        )
        scale = torch.rsqrt(variance + norm.eps)
        shift = -mean * scale
        if norm.affine:
            weight, bias = norm.weight.detach().double(), norm.bias.detach().double()
            scale, shift = scale * weight, shift * weight + bias
        dtype = cast(torch.Tensor, norm.running_mean).dtype
        self.register_buffer("scale", scale.to(dtype)[:, None], persistent=False)
        self.register_buffer("shift", shift.to(dtype)[:, None], persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scale and shift (batch, features, T) or (batch, features)."""
        if x.ndim == 2:
            return torch.addcmul(self.shift[:, 0], x, self.scale[:, 0])
        return torch.addcmul(self.shift, x, self.scale)


class CompactBlock(nn.Module):
    """Compute ``gate(W act(k * u + D u) + b)`` for the channels that W needs, filtered ones first.

    Parameters
    ----------
    core : OperatorBank or ReducedSSM
        Of H channels.
    activation : nn.Module
        Elementwise.
    weight : (m, H) torch.Tensor
    bias : (m,) torch.Tensor
    gated : bool
        Whether a GLU over the m features follows.
    transposed, paired : bool
        As of `FilterBlock`.
    """

    order: torch.Tensor
    D: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(
        self,
        core: OperatorBank | ReducedSSM,
        activation: nn.Module,
        weight: torch.Tensor,
        bias: torch.Tensor,
        *,
        gated: bool,
        transposed: bool,
        paired: bool,
    ) -> None:
        super().__init__()
        self.core, self.activation = core, activation
        self.gated, self.transposed, self.paired = gated, transposed, paired
        live = _live(core)
        D = core.D.detach().reshape(-1)
        others = [h for h in range(len(D)) if h not in set(live) and D[h] != 0]
        silent = sorted(set(range(len(D))) - {*live, *others})
        order = torch.tensor([*live, *others], dtype=torch.int64, device=D.device)
        self.filtered = len(live)
        self.whole = order.tolist() == list(range(len(D)))
        rest = activation(weight.new_zeros(())) * weight[:, silent].sum(1)
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("D", D[order].to(weight.dtype).unsqueeze(-1), persistent=False)
        self.register_buffer("weight", weight[:, order].unsqueeze(0), persistent=False)
        self.register_buffer("bias", (bias + rest)[:, None], persistent=False)
        self._spectra: dict[tuple, torch.Tensor] = {}

    def forward(self, u: torch.Tensor, *_unnamed: Any, **_options: Any) -> Any:
        """Return the layer's output for (batch, H, T), or (batch, T, H) if not transposed."""
        if not self.transposed:
            u = u.transpose(-1, -2)
        x = u if self.whole else u.index_select(-2, self.order)
        y = x * self.D
        if self.filtered:
            length = u.shape[-1]
            size = next_fast_len(max(2 * length - 1, 1), real=True)
            spectrum = self._spectrum(length, size, u)
            y[..., : self.filtered, :] += convolve(x[..., : self.filtered, :], spectrum, size)
        y = self.activation(y)
        y = torch.baddbmm(self.bias, self.weight.expand(len(y), -1, -1), y)
        if self.gated:
            y = functional.glu(y, -2)
        if not self.transposed:
            y = y.transpose(-1, -2)
        return (y, None) if self.paired else y

    def _spectrum(self, length: int, size: int, u: torch.Tensor) -> torch.Tensor:
        key = (length, u.dtype, u.device)
        if key not in self._spectra:
            with torch.no_grad():
                kernel = self.core.kernel(length).index_select(0, self.order[: self.filtered])
                kernel[:, 0] -= self.core.D.reshape(-1)[self.order[: self.filtered]]
                spectrum = torch.fft.rfft(kernel, n=size)
            dtype = torch.complex128 if u.dtype == torch.float64 else torch.complex64
            recent = list(self._spectra.items())[1 - KEPT :]
            self._spectra = {**dict(recent), key: spectrum.to(dtype)}
        return self._spectra[key]

    def extra_repr(self) -> str:
        """Describe the layer in the printed network."""
        return f"channels={len(self.order)}, filtered={self.filtered}"


def _independent(system: LinearSystem) -> bool:
    return len(system.batch_shape) == 1 and system.inputs == system.outputs == 1


def _live(core: OperatorBank | ReducedSSM) -> list[int]:
    """Return the channels that have states."""
    if isinstance(core, OperatorBank):
        return core.live.tolist()
    return np.flatnonzero(np.asarray(core.orders)).tolist()


def _compact(block: FilterBlock) -> CompactBlock | None:
    """Return the compact form of a block, None where there is none."""
    plain = block.backward is None and block.copies == 1
    plain = plain and block.before is None and block.gate is None
    steps = [*_steps(block.activation), *_steps(block.dropout)]
    steps = [step for step in steps if not isinstance(step, DROPOUTS)]
    if not plain or not all(type(step) in ELEMENTWISE for step in steps):
        return None
    if not isinstance(block.core, OperatorBank | ReducedSSM):
        return None
    mixing, *rest = _steps(block.output_linear)
    pointwise = isinstance(mixing, nn.Conv1d) and mixing.kernel_size == mixing.stride == (1,)
    pointwise = pointwise and mixing.groups == 1 and mixing.padding in ((0,), "valid")
    if not (isinstance(mixing, nn.Linear) if block.features_last else pointwise):
        return None
    features = (-1, 2) if block.features_last else (-2, 1)
    gated = [isinstance(step, nn.GLU) and step.dim in features for step in rest]
    if gated not in ([], [True]):
        return None
    weight = cast(torch.Tensor, mixing.weight).detach().flatten(1)
    bias = weight.new_zeros(len(weight)) if mixing.bias is None else mixing.bias.detach()
    return CompactBlock(
        block.core,
        nn.Sequential(*steps) if len(steps) != 1 else steps[0],
        weight,
        cast(torch.Tensor, bias),
        gated=bool(gated),
        transposed=block.transposed,
        paired=block.paired,
    )


def _steps(module: nn.Module) -> list[nn.Module]:
    """Return the modules of nested sequences, one after the other."""
    if isinstance(module, nn.Sequential):
        return [step for part in module for step in _steps(part)]
    return [module]
