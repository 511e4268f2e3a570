"""Recognise S4 layers that are loaded as modules, and build the drop-ins that their parts allow."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ssmred.errors import CheckpointError, message
from ssmred.networks.adapters.block import FilterBlock
from ssmred.networks.adapters.s4_names import S4Names, find_names, recognises_tensors
from ssmred.networks.adapters.s4_reading import as_arrays
from ssmred.networks.adapters.s4_settings import S4Settings
from ssmred.networks.adapters.s4d_checks import FREE_FUNCTIONS
from ssmred.networks.adapters.s4d_parts import own_tensors
from ssmred.networks.filters import LinearFilter, is_core

__all__ = ["FeaturesLast", "S4Parts", "candidates", "find_parts", "layer_arrays", "parts_of"]

_GATE = ("input_linear", "input_gate", "output_gate")


@dataclass(frozen=True)
class S4Parts:
    """Name the submodules of an S4 layer by their paths.

    Attributes
    ----------
    owner : str
        Holds D; the layer itself (an empty path) or, in a block of version 4, its ``layer``.
    kernel : str
        Answers with the kernels when called.
    generator : str
        Holds C; `kernel` itself or its child.
    early, activations, dropouts : tuple of str
        Dropouts before the activations, these, and dropouts behind them.
    mixing : str
        Position-wise, or an empty string.
    gated : tuple of str
        ``input_linear``, ``input_gate``, ``output_gate``, where the layer has them.
    """

    owner: str
    kernel: str
    generator: str
    early: tuple[str, ...]
    activations: tuple[str, ...]
    dropouts: tuple[str, ...]
    mixing: str
    gated: tuple[str, ...]


class FeaturesLast(nn.Module):
    """Apply a module that wants (batch, T, features) to (batch, features, T)."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the module's output, features before time."""
        return self.inner(x.transpose(-1, -2)).transpose(-1, -2)


def find_parts(module: nn.Module) -> S4Parts | None:
    """Return the parts of an S4 layer, or None where the structure is another one.

    Two structures: a module that holds ``D (channels, H)`` itself and a kernel below it, with its
    activation, dropout and mixing beside; and a block of version 4, whose child ``layer`` is such a
    module without mixing, and which mixes in ``output_linear``.
    """
    inner = _find_owner(module, "")
    if inner is not None:
        return inner
    children = dict(module.named_children())
    if own_tensors(module) or not isinstance(getattr(module, "transposed", None), bool):
        return None
    if not {"layer", "output_linear"} <= set(children):
        return None
    inner = _find_owner(children["layer"], "layer.")
    stored = {n for n, child in children.items() if child.state_dict()}
    if inner is None or inner.mixing or inner.gated or stored - {"layer", "output_linear"}:
        return None
    free = [n for n in children if n not in ("layer", "output_linear")]
    dropouts = tuple(n for n in free if _is_dropout(n, children[n]))
    activations = tuple(n for n in free if n not in dropouts)
    return S4Parts(
        inner.owner,
        inner.kernel,
        inner.generator,
        inner.early,
        (*inner.activations, *activations),
        dropouts,
        "output_linear",
        (),
    )


def parts_of(module: nn.Module) -> S4Parts:
    """Return the parts of an S4 layer or raise CheckpointError."""
    parts = find_parts(module)
    if parts is None:
        raise CheckpointError(
            message(
                "S4Adapter",
                f"{type(module).__name__} is not an S4 layer",
                expected="a tensor D (channels, H), a kernel with C, B, a step and A, and at most "
                "an activation, a dropout and a position-wise mixing",
            )
        )
    return parts


def layer_arrays(module: nn.Module, parts: S4Parts) -> tuple[dict[str, np.ndarray], S4Names]:
    """Return the tensors of D and the kernel in float64, and their names."""
    owner = module.get_submodule(parts.owner)
    prefix = f"{parts.owner}." if parts.owner else ""
    tensors = {f"{prefix}{name}": tensor for name, tensor in own_tensors(owner).items()}
    generator = module.get_submodule(parts.generator)
    tensors |= {f"{parts.generator}.{n}": tensor for n, tensor in own_tensors(generator).items()}
    arrays = as_arrays(tensors, "S4Adapter")
    return arrays, find_names({n: a.shape for n, a in arrays.items()}, where="S4Adapter")


def candidates(
    module: nn.Module, parts: S4Parts, cores: Mapping[str, LinearFilter], names: S4Names,
    settings: S4Settings,
) -> Iterator[FilterBlock]:  # fmt: skip
    """Yield the drop-ins that the structure allows, the likeliest first."""
    named = getattr(module, "transposed", None)
    layouts = (named,) if isinstance(named, bool) else (True, False)
    early, late = (
        [_on_steps(module.get_submodule(path)) for path in paths]
        for paths in (parts.early, parts.dropouts)
    )
    found = [_elementwise(module.get_submodule(path)) for path in parts.activations]
    endings = [found] if found else [[function] for function in FREE_FUNCTIONS]
    functions = [_chained([*early, *ending]) for ending in endings]
    dropout = _chained(late)
    mixing = module.get_submodule(parts.mixing) if parts.mixing else nn.Identity()
    gated = {path: module.get_submodule(path) for path in parts.gated}
    for function, transposed, last in itertools.product(functions, layouts, (None, False, True)):
        yield FilterBlock(
            cores["core"],
            function,
            dropout,
            gated.get("output_gate", mixing),
            backward=cores.get("backward"),
            copies=names.channels,
            interleaved=bool(settings.swap_channels),
            before=gated.get("input_linear"),
            gate=gated.get("input_gate"),
            after=mixing if "output_gate" in gated else None,
            features_last=(parts.owner != "" or not transposed) if last is None else last,
            transposed=transposed,
        )


def _find_owner(module: nn.Module, prefix: str) -> S4Parts | None:
    """Return the parts of a module that holds D itself."""
    tensors = own_tensors(module)
    if set(tensors) != {"D"} or tensors["D"].ndim != 2 or is_core(module):
        return None
    children = dict(module.named_children())
    kernels = [n for n, child in children.items() if _generator(child) is not None]
    if len(kernels) != 1:
        return None
    kernel = kernels[0]
    generator = _generator(children[kernel])
    others = {n: child for n, child in children.items() if n != kernel and n != "drop_kernel"}
    stored = [n for n, child in others.items() if child.state_dict()]
    gated = tuple(n for n in stored if n in _GATE)
    mixing = [n for n in stored if n not in gated]
    if len(mixing) > 1 or ("input_gate" in gated) != ("output_gate" in gated):
        return None
    free = [n for n in others if n not in stored]
    dropouts = tuple(f"{prefix}{n}" for n in free if _is_dropout(n, others[n]))
    activations = tuple(f"{prefix}{n}" for n in free if f"{prefix}{n}" not in dropouts)
    place = f"{prefix}{kernel}"
    return S4Parts(
        prefix.removesuffix("."),
        place,
        f"{place}.{generator}" if generator else place,
        () if mixing else dropouts,
        activations,
        dropouts if mixing else (),
        f"{prefix}{mixing[0]}" if mixing else "",
        tuple(f"{prefix}{n}" for n in gated),
    )


def _generator(module: nn.Module) -> str | None:
    """Return where below a kernel module its tensors are: "" for itself, a child, or None."""
    for path, part in [("", module), *module.named_children()]:
        shapes = {f"kernel.{n}": tuple(t.shape) for n, t in own_tensors(part).items()}
        if recognises_tensors(shapes | {"D": ()}):
            return path
    return None


def _is_dropout(name: str, module: nn.Module) -> bool:
    return "drop" in f"{name} {type(module)}".lower()


def _chained(modules: list[nn.Module]) -> nn.Module:
    kept = [module for module in modules if not isinstance(module, nn.Identity)]
    if len(kept) == 1:
        return kept[0]
    return nn.Sequential(*kept) if kept else nn.Identity()


def _elementwise(module: nn.Module) -> nn.Module:
    """Return an activation that acts on (batch, features, T) as the layer's own does."""
    return nn.GLU(dim=-2) if isinstance(module, nn.GLU) else module


def _on_steps(module: nn.Module) -> nn.Module:
    """Return a dropout for (batch, features, T); one for other layouts is turned."""
    if getattr(module, "transposed", True) is False:
        return FeaturesLast(module)
    return copy.copy(module)
