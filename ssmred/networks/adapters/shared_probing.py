"""Run a foreign layer as it is: in its own precision and in double, by every way that it offers."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from ssmred.networks.adapters.drop_in import cast_module
from ssmred.networks.copying import copy_module

__all__ = [
    "LAYOUTS",
    "Layout",
    "default_dtype",
    "in_double",
    "precision",
    "realisations",
    "run",
]

_MODES = ("loop", "scan", "conv", "fft", "recurrence", "recurrent", "parallel")
"""Values that layers know for an argument ``mode`` of their forward; those that run are used."""

_FAILURES = (RuntimeError, ValueError, TypeError, IndexError, AssertionError, AttributeError)


@dataclass(frozen=True)
class Layout:
    """Say how a layer takes sequences.

    Attributes
    ----------
    batched : bool
        (batch, ...) or a single sequence.
    time_first : bool
        (T, features) or (features, T).
    paired : bool
        Whether the answer is a tuple whose first entry is the output.
    """

    batched: bool = True
    time_first: bool = True
    paired: bool = False


LAYOUTS = (Layout(), Layout(batched=False), Layout(time_first=False))
"""Those tried, in turn; whether the answer is a tuple is seen when it comes."""

Realisation = Callable[[nn.Module, torch.Tensor], Any]
"""Runs a layer on an input in the layer's own layout."""


def in_double(module: nn.Module) -> nn.Module:
    """Return a copy on the CPU in evaluation mode, every real and complex tensor in double."""
    return cast_module(copy_module(module).cpu(), torch.float64).eval()


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Change the dtype of new tensors for a while: layers allocate their outputs in it."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def precision(module: nn.Module) -> float:
    """Return the coarsest relative rounding among a module's tensors and new tensors."""
    kinds = {t.dtype for t in module.state_dict().values() if t.is_floating_point()}
    kinds |= {t.dtype.to_real() for t in module.state_dict().values() if t.is_complex()}
    return max(torch.finfo(kind).eps for kind in (*kinds, torch.get_default_dtype()))


def realisations(module: nn.Module, stepper: nn.Module | None = None) -> dict[str, Realisation]:
    """Return the ways in which a layer computes its output, by name.

    Parameters
    ----------
    module : nn.Module
    stepper : nn.Module, optional
        The part of it that may have a ``forward_rnn(u, state)`` for single steps.
    """
    found: dict[str, Realisation] = {}
    arguments = inspect.signature(module.forward).parameters
    if "mode" in arguments:
        found = {f"mode={mode}": _in_mode(mode) for mode in _MODES}
    else:
        found["forward"] = lambda layer, u: layer(u)
    if stepper is not None and hasattr(stepper, "forward_rnn"):
        path = next(name for name, part in module.named_modules() if part is stepper)
        found["forward_rnn"] = _by_steps(path)
    return found


def _in_mode(mode: str) -> Realisation:
    return lambda layer, u: layer(u, mode=mode)


def _by_steps(path: str) -> Realisation:
    def run_steps(layer: nn.Module, u: torch.Tensor) -> torch.Tensor:
        part = layer.get_submodule(path)
        sequences = []
        for sequence in u if u.ndim == 3 else u[None]:
            state, outputs = torch.zeros((), dtype=torch.complex64), []
            for sample in sequence:
                output, state = part.forward_rnn(sample, state)
                outputs.append(output)
            sequences.append(torch.stack(outputs))
        return torch.stack(sequences) if u.ndim == 3 else sequences[0]

    return run_steps


def run(
    module: nn.Module,
    how: Realisation,
    layout: Layout,
    u: np.ndarray,
    outputs: int,
    *,
    double: bool,
) -> tuple[np.ndarray, Layout] | None:
    """Run a copy of a layer on sequences (batch, T, m); None where it does not run like that.

    Returns
    -------
    y : (batch, T, outputs) float64
    layout : Layout
        With ``paired`` as seen.
    """
    layer = in_double(module) if double else copy_module(module).cpu().eval()
    real = [t.dtype for t in layer.state_dict().values() if t.is_floating_point()]
    kind = torch.float64 if double else (real[0] if real else torch.get_default_dtype())
    signal = torch.from_numpy(u).to(kind)
    signal = signal if layout.time_first else signal.transpose(-1, -2).contiguous()
    manager = default_dtype(torch.float64) if double else contextlib.nullcontext()
    try:
        with torch.no_grad(), manager:
            answers = [how(layer, signal)] if layout.batched else [how(layer, s) for s in signal]
    except _FAILURES:
        return None
    paired = all(isinstance(answer, tuple) for answer in answers)
    values = [answer[0] if paired else answer for answer in answers]
    if not all(isinstance(value, torch.Tensor) and not value.is_complex() for value in values):
        return None
    y = values[0] if layout.batched else torch.stack(values)
    y = y if layout.time_first else y.transpose(-1, -2)
    if y.shape != (*u.shape[:2], outputs):
        return None
    return y.double().numpy(), Layout(layout.batched, layout.time_first, paired)
