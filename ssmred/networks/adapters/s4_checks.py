"""Compare S4 layers with what their own classes compute."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ssmred.errors import CheckpointError, message
from ssmred.networks.adapters.drop_in import LAYER_TOLERANCE, answer_of, cast_module
from ssmred.networks.adapters.s4_names import S4Names
from ssmred.networks.adapters.s4_parts import S4Parts
from ssmred.networks.adapters.s4_reading import (
    S4Weights,
    diagonal_modes,
    in_channel_order,
)
from ssmred.networks.adapters.s4_settings import S4Settings
from ssmred.systems.linear import LinearSystem

__all__ = ["OwnKernels", "own_kernels", "responses", "same_layer", "tolerances"]

CHECKED_SAMPLES = 40
"""Kernel samples compared: another setting shows in the first few."""

KERNEL_MARGIN = 8.0
"""Roundings per term that two evaluations of the same kernel may differ by."""

DENSE_MARGIN = 64.0
"""The same with a low-rank term: powers of a matrix, a solve and a Fourier transform; of 100,000
random heads the worst used half of it."""

COMPARED_STEPS = 17


@dataclass(frozen=True, eq=False)
class OwnKernels:
    """Hold what a layer's own class computes.

    Attributes
    ----------
    values : (directions * channels, H, T) float64
    eps : float
        Unit of rounding of the computation.
    length : int
        Length that C is made for while it was computed.
    """

    values: np.ndarray
    eps: float
    length: int


def own_kernels(
    module: nn.Module, parts: S4Parts, names: S4Names, length: int, *, rounded: float = 0.0
) -> OwnKernels:
    """Return the kernels that a copy of the layer computes, in float64 where its class can.

    `rounded` is the unit that the parameters were rounded with when they were written.

    Raises
    ------
    CheckpointError
        If its kernel module does not answer with kernels.
    """
    problem = "does not run"
    for dtype in (torch.float64, module.get_parameter(names.C).dtype):
        kernel = cast_module(copy.deepcopy(module.get_submodule(parts.kernel)), dtype).eval()
        for part in kernel.modules():  # nodes that are kept in the dtype of an earlier call
            for name in ("omega", "z"):
                part.__dict__.pop(name, None)
        answer = _called(kernel, length)
        if answer is None:
            continue
        problem = f"answers with shape {tuple(answer.shape)}"
        if tuple(answer.shape) == (names.directions * names.channels, names.heads, length):
            made_for = names.length.removeprefix(f"{parts.kernel}.")
            stored = kernel.state_dict().get(made_for)
            used = int(stored.reshape(())) if stored is not None else 0
            eps = max(torch.finfo(kind).eps for kind in (dtype, answer.dtype))
            return OwnKernels(answer.double().numpy(), max(eps, rounded), used)
    raise CheckpointError(
        message(
            "S4Adapter",
            f"{parts.kernel}(L={length}) {problem}",
            expected=f"kernels ({names.directions * names.channels}, {names.heads}, {length})",
        )
    )


def _called(kernel: nn.Module, length: int) -> torch.Tensor | None:
    for arguments in ({"L": length, "rate": 1.0}, {"L": length}):
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # upstream casts complex numbers to real ones
                answer = kernel(**arguments)
        except (RuntimeError, TypeError, ValueError, AttributeError):
            continue
        answer = answer[0] if isinstance(answer, tuple) else answer
        if isinstance(answer, torch.Tensor) and answer.is_floating_point():
            return answer
    return None


def tolerances(
    weights: S4Weights, names: S4Names, settings: S4Settings, own: OwnKernels
) -> np.ndarray:
    """Return how far two evaluations of the kernels may be apart, (directions * channels, H, T).

    Notes
    -----
    Diagonal layers: rounding moves a term ``r l^k`` by about ``eps |r| (n + c + c k |dt A|)``, and
    ``exp(dt A) - 1`` is as inexact as it is small. With a low-rank term the layer works in the
    frequency domain and on coefficients made for a length: everything is relative to the largest
    sample, times the condition of ``I - A^length`` and, next to a mode, ``|A / Re A|``.
    """
    steps = np.arange(own.values.shape[-1])
    if names.rank:
        return _dense_tolerances(weights, own) * np.ones(steps.shape)
    rate = np.abs(weights.A) * weights.dt
    _, hold, factor = diagonal_modes(weights, settings.disc or "", len(steps))
    with np.errstate(divide="ignore"):
        loss = 1.0 + rate + (1.0 / np.maximum(rate, 1e-300) if settings.disc != "bilinear" else 1.0)
    if settings.disc == "dss":
        loss = loss + 1.0 / np.minimum(rate * len(steps), 1.0)
    sizes = np.abs(factor * weights.C * hold)
    fixed = (sizes * (loss + names.modes / KERNEL_MARGIN)).sum(axis=-1)
    growing = (sizes * (rate + (settings.disc == "bilinear"))).sum(axis=-1)
    return KERNEL_MARGIN * own.eps * (fixed[..., None] + growing[..., None] * steps)


def _dense_tolerances(weights: S4Weights, own: OwnKernels) -> np.ndarray:
    poles = np.abs((1 + weights.A * weights.dt / 2) / (1 - weights.A * weights.dt / 2))
    slowest = poles.max(axis=-1) ** max(own.length, weights.length, 1)
    condition = 1.0 / np.maximum(1.0 - slowest, own.eps)
    push = np.linalg.norm(weights.P, axis=-1).sum(axis=0) ** 2 * weights.dt[:, 0]
    size = np.linalg.norm(weights.C, axis=-1) * np.linalg.norm(weights.B, axis=-1)
    size = np.maximum(size * weights.dt[:, 0], np.abs(own.values).max(axis=-1))
    # a Cauchy sum at a node next to a mode loses the digits that |z| has over the distance
    near = np.abs(weights.A / weights.A.real).max(axis=-1)
    amount = weights.A.shape[-1] + np.log2(max(own.length, 2)) + push + near
    return (DENSE_MARGIN * own.eps * amount * condition * size)[..., None]


def responses(
    systems: Mapping[str, LinearSystem], names: S4Names, length: int, settings: S4Settings
) -> np.ndarray:
    """Return kernels without D as the layer's kernel module orders them, channel-major."""
    parts = []
    for system in (systems[core] for core in ("core", "backward") if core in systems):
        plain = system.replace(D=np.zeros_like(system.D))
        values = plain.impulse_response(length)[..., 0, 0]
        parts.append(in_channel_order(values, names, settings))
    return np.concatenate(parts)


class _Given(nn.Module):
    """Answer with given kernels in the place of a layer's kernel module."""

    def __init__(self, kernels: np.ndarray, dtype: torch.dtype) -> None:
        super().__init__()
        self.kernels = torch.from_numpy(kernels).to(dtype)

    def forward(self, *_: object, **__: object) -> tuple[torch.Tensor, None]:
        return self.kernels, None


def same_layer(
    module: nn.Module,
    parts: S4Parts,
    names: S4Names,
    systems: dict[str, LinearSystem],
    settings: S4Settings,
    block: nn.Module,
    width: int,
) -> bool:
    """Tell whether a drop-in computes what the layer computes with these systems' kernels.

    The kernels themselves are compared elsewhere; here they are given, so that neither a length
    nor a wrong convolution enters. Notes if the layer returns a pair.
    """
    owner = module.get_submodule(parts.owner)
    limit = getattr(owner, "l_max", None) or getattr(owner, "L", None)
    steps = min(COMPARED_STEPS, limit) if isinstance(limit, int) and limit else COMPARED_STEPS
    kernels = responses(systems, names, steps, settings)
    shape = (2, width, steps) if block.transposed else (2, steps, width)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for dtype in (torch.float64, module.get_parameter(names.C).dtype):
        layer, drop_in = (cast_module(copy.deepcopy(m), dtype).eval() for m in (module, block))
        place, _, last = parts.kernel.rpartition(".")
        setattr(layer.get_submodule(place), last, _Given(np.ascontiguousarray(kernels), dtype))
        with torch.no_grad():
            wanted, paired = answer_of(layer, noise.to(dtype))
            got, _ = answer_of(drop_in, noise.to(dtype))
        if wanted is not None:
            break
    if wanted is None or got is None or wanted.shape != got.shape:
        return False
    block.paired = paired
    tolerance = LAYER_TOLERANCE.get(wanted.dtype, 1e-2)
    return bool((wanted - got).abs().max() <= tolerance * wanted.abs().max())
