"""Networks for inference alone: what a layer does around its filters is done in fewer passes.

Channels are put in the order that the filters want, once per layer; batch norms before the filters
become part of them; what never differs from a constant is not computed but counted in the bias of
the mixing behind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from scipy.fft import next_fast_len
from torch import fx, nn
from torch.nn import functional

from ssmred.networks import LinearFilter, ReducedSSM
from ssmred.networks.adapters import adapter_for
from ssmred.networks.capture import capture
from ssmred.networks.convolution import convolve
from ssmred.networks.copying import copy_module
from ssmred.networks.discovery import find_layers, with_module
from ssmred.networks.operator_bank import OperatorBank
from ssmred.systems.linear import LinearSystem

__all__ = ["CompactBlock", "CompactNorm", "compacted"]

ELEMENTWISE = (
    nn.GELU, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Softplus,
)  # fmt: skip
IDLE = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d)
"""Modules that do nothing in eval mode."""

TURNS = ((-1, -2), (-2, -1), (1, 2), (2, 1))
KEPT = 4
"""Lengths whose spectra a block keeps."""


def compacted(model: nn.Module) -> nn.Module:
    """Return a copy of a network that answers the same, for inference on whole sequences.

    Parameters
    ----------
    model : nn.Module
        An original, a pruned or a reduced network, loaded from a file or not; never modified.

    Returns
    -------
    torch.fx.GraphModule
        In eval mode. Layers of independent channels, an activation and a position-wise mixing,
        gated or not, are `CompactBlock`, with the batch norm before them where there is one; batch
        norms elsewhere are `CompactNorm`. All else is as it was.

    Raises
    ------
    UnsupportedOperationError
        If the network cannot be traced, because its control flow depends on values, say.
    UnstableSystemError
        If an original layer has a pole that is not inside the unit circle.

    Notes
    -----
    The outputs are those of the model to rounding of its dtype; an S4D original's own float32
    convolution may be further from its tensors than the compact form is. Not for training,
    streaming or `save_network`: make it anew from what was stored.

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
        if isinstance(found.module, LinearFilter) or found.adapter is None:
            continue
        systems = list(found.to_systems().values())
        if len(systems) == 1 and _independent(systems[0]):
            core = OperatorBank.from_system(systems[0])
            block = found.adapter.to_block(found.module, {"core": core})
            network = with_module(network, found.path, block)
    module = capture(network, is_leaf=lambda leaf: adapter_for(leaf) is not None)
    _drop_idle(module)
    for number, node in enumerate(list(module.graph.nodes)):
        chain = _chain(module, node)
        if chain is not None:
            _replace(module, chain, f"compact_{number}")
    for node in module.graph.nodes:
        norm = _called(module, node)
        if _is_norm(norm):
            module = cast(fx.GraphModule, with_module(module, str(node.target), CompactNorm(norm)))
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    module.recompile()
    return module.eval()


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
        dtype = cast(torch.Tensor, norm.running_mean).dtype
        for name, value in zip(("scale", "shift"), _scale_and_shift(norm), strict=True):
            self.register_buffer(name, value.to(dtype)[:, None], persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scale and shift (batch, features, T) or (batch, features)."""
        if x.ndim == 2:
            return torch.addcmul(self.shift[:, 0], x, self.scale[:, 0])
        return torch.addcmul(self.shift, x, self.scale)


class CompactBlock(nn.Module):
    """Compute ``gate(W act(k * v + D v) + b)``, ``v = s u + t``, for the channels that W needs.

    Parameters
    ----------
    core : OperatorBank or ReducedSSM
        Of H channels.
    activations : list of nn.Module
        Elementwise, one after the other.
    mixing : nn.Linear or nn.Conv1d
    gated : bool
        Whether a GLU over the features follows.
    norm : nn.BatchNorm1d, optional
        What s and t are of; 1 and 0 otherwise.
    """

    order: torch.Tensor
    D: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(
        self,
        core: OperatorBank | ReducedSSM,
        activations: list[nn.Module],
        mixing: nn.Linear | nn.Conv1d,
        *,
        gated: bool,
        norm: nn.BatchNorm1d | None,
    ) -> None:
        super().__init__()
        self.core, self.gated = core, gated
        self.activation = activations[0] if len(activations) == 1 else nn.Sequential(*activations)
        weight = mixing.weight.detach().flatten(1)
        bias = weight.new_zeros(len(weight)) if mixing.bias is None else mixing.bias.detach()
        live = _live(core)
        D = core.D.detach().reshape(-1).double()
        others = [h for h in range(len(D)) if h not in set(live) and D[h] != 0]
        silent = sorted(set(range(len(D))) - {*live, *others})
        order = torch.tensor([*live, *others], dtype=torch.int64, device=D.device)
        self.filtered = len(live)
        self.whole = order.tolist() == list(range(len(D)))
        self._scale = self._shift = None
        if norm is not None:
            self._scale, self._shift = (value[order] for value in _scale_and_shift(norm))
            D = D.clone()
            D[order] *= self._scale
        rest = self.activation(weight.new_zeros(())) * weight[:, silent].sum(1)
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("D", D[order].to(weight.dtype).unsqueeze(-1), persistent=False)
        self.register_buffer("weight", weight[:, order].unsqueeze(0), persistent=False)
        self.register_buffer("bias", (bias + rest)[:, None], persistent=False)
        self._terms: dict[tuple, tuple[torch.Tensor, torch.Tensor | None]] = {}

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        """Return the layer's output for (batch, H, T) or (H, T)."""
        if u.ndim == 2:
            return self(u.unsqueeze(0)).squeeze(0)
        length = u.shape[-1]
        size = next_fast_len(max(2 * length - 1, 1), real=True)
        x = u if self.whole else u.index_select(-2, self.order)
        spectrum, constant = self._made_for(length, size, u)
        y = x * self.D if constant is None else torch.addcmul(constant, x, self.D)
        if self.filtered:
            y[:, : self.filtered] += convolve(x[:, : self.filtered], spectrum, size)
        y = torch.baddbmm(self.bias, self.weight.expand(len(y), -1, -1), self.activation(y))
        return functional.glu(y, -2) if self.gated else y

    def _made_for(
        self, length: int, size: int, u: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the spectra of the filters, and what the norm's shift becomes behind them."""
        key = (length, u.dtype, u.device)
        if key not in self._terms:
            recent = list(self._terms.items())[1 - KEPT :]
            self._terms = {**dict(recent), key: self._make(length, size, u)}
        return self._terms[key]

    @torch.no_grad()
    def _make(
        self, length: int, size: int, u: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        responses = self.core.kernel(length).to(u.device, torch.float64)[self.order]
        constant = None
        if self._scale is not None and self._shift is not None:
            steps = responses.cumsum(-1) * self._shift.to(u.device)[:, None]
            constant = steps.to(u.dtype)
            responses = responses * self._scale.to(u.device)[:, None]
        dtype = torch.complex128 if u.dtype == torch.float64 else torch.complex64
        if not self.filtered:
            return torch.empty(0, dtype=dtype), constant
        kernel = responses[: self.filtered].clone()
        kernel[:, 0] -= self._direct(u)[: self.filtered]
        return torch.fft.rfft(kernel, n=size).to(dtype), constant

    def _direct(self, u: torch.Tensor) -> torch.Tensor:
        """Return the direct terms that `D` holds, before they were rounded."""
        D = self.core.D.detach().reshape(-1).to(u.device, torch.float64)[self.order]
        return D if self._scale is None else D * self._scale.to(u.device)

    def extra_repr(self) -> str:
        """Describe the layer in the printed network."""
        return f"channels={len(self.order)}, filtered={self.filtered}"


def _scale_and_shift(norm: nn.BatchNorm1d) -> tuple[torch.Tensor, torch.Tensor]:
    mean, variance = (cast(torch.Tensor, t).double() for t in (norm.running_mean, norm.running_var))
    scale = torch.rsqrt(variance + norm.eps)
    shift = -mean * scale
    if norm.affine:
        weight, bias = norm.weight.detach().double(), norm.bias.detach().double()
        scale, shift = scale * weight, shift * weight + bias
    return scale, shift


def _independent(system: LinearSystem) -> bool:
    return len(system.batch_shape) == 1 and system.inputs == system.outputs == 1


def _live(core: OperatorBank | ReducedSSM) -> list[int]:
    """Return the channels that have states."""
    if isinstance(core, OperatorBank):
        return core.live.tolist()
    return np.flatnonzero(np.asarray(core.orders)).tolist()


# The graph ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Chain:
    """Hold what a `CompactBlock` is made of, and the first and last node that it replaces."""

    core: OperatorBank | ReducedSSM
    activations: list[nn.Module]
    mixing: nn.Linear | nn.Conv1d
    gated: bool
    first: fx.Node
    last: fx.Node


def _chain(module: fx.GraphModule, node: fx.Node) -> _Chain | None:
    """Return the chain that begins at a node: core, activations, mixing, perhaps a gate."""
    core = _called(module, node)
    if not isinstance(core, OperatorBank | ReducedSSM):
        return None
    activations: list[nn.Module] = []
    at = _next(node)
    while isinstance(step := _called(module, at), ELEMENTWISE):
        activations.append(step)
        at = _next(at)
    turned = _is_turn(at)
    if turned:
        at = _next(at)
    mixing, last = _called(module, at), at
    if not (isinstance(mixing, nn.Linear) if turned else _is_pointwise(mixing)):
        return None
    gate = _called(module, _next(at))
    gated = isinstance(gate, nn.GLU) and gate.dim in ((-1, 2) if turned else (-2, 1))
    if gated:
        last = _next(last)
    if turned:
        last = _next(last)
        if not _is_turn(last):
            return None
    return _Chain(core, activations, cast(nn.Linear, mixing), gated, node, cast(fx.Node, last))


def _replace(module: fx.GraphModule, chain: _Chain, name: str) -> None:
    """Put a block in the place of a chain, and of the batch norm that only this chain sees."""
    source = cast(fx.Node, chain.first.args[0])
    norm = _called(module, source)
    folded = _is_norm(norm) and len(source.users) == 1
    block = CompactBlock(
        chain.core,
        chain.activations,
        chain.mixing,
        gated=chain.gated,
        norm=cast(nn.BatchNorm1d, norm) if folded else None,
    )
    module.add_submodule(name, block)
    with module.graph.inserting_after(chain.last):
        new = module.graph.call_module(name, (source.args[0] if folded else source,))
    chain.last.replace_all_uses_with(new)


def _drop_idle(module: fx.GraphModule) -> None:
    """Leave out modules that do nothing in eval mode."""
    for node in list(module.graph.nodes):
        if type(_called(module, node)) in IDLE:
            node.replace_all_uses_with(cast(fx.Node, node.args[0]))
            module.graph.erase_node(node)


def _called(module: fx.GraphModule, node: fx.Node | None) -> nn.Module | None:
    """Return the module that a node calls with one argument."""
    if node is None or node.op != "call_module" or len(node.args) != 1 or node.kwargs:
        return None
    return module.get_submodule(str(node.target))


def _next(node: fx.Node | None) -> fx.Node | None:
    """Return the only node that uses another one."""
    users = [] if node is None else list(node.users)
    return users[0] if len(users) == 1 else None


def _is_turn(node: fx.Node | None) -> bool:
    """Whether a node swaps features and time."""
    return (
        node is not None
        and node.op == "call_method"
        and node.target == "transpose"
        and tuple(node.args[1:]) in TURNS
    )


def _is_norm(module: nn.Module | None) -> bool:
    return type(module) is nn.BatchNorm1d and module.running_mean is not None


def _is_pointwise(module: nn.Module | None) -> bool:
    return (
        isinstance(module, nn.Conv1d)
        and module.kernel_size == module.stride == (1,)
        and module.groups == 1
        and module.padding in ((0,), "valid")
    )
