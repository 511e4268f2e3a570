"""Compare an adapter with a layer, and name the mistake where they differ."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from ssmred.errors import CheckpointError, SsmredError
from ssmred.networks.adapter_mistakes import Candidate, candidates, fitted_steps
from ssmred.networks.adapters import Adapter
from ssmred.networks.adapters.drop_in import (
    LAYER_TOLERANCE,
    agrees,
    answer_of,
    cast_module,
    layer_dtype,
)
from ssmred.networks.adapters.own import LayerAdapter
from ssmred.networks.cores import full_core
from ssmred.systems import DiagonalSystem
from ssmred.systems.linear import LinearSystem

__all__ = ["AdapterReport", "check_adapter"]

LAGS = 24
"""Samples of the response, to both sides, that are compared."""

FITTED = 1e-5
"""Agreement asked where the steps were fitted."""

HOOKED = ("activation", "dropout", "output_linear")
"""Parts of a layer whose input is what its filter gives, the first of them that there is."""


@dataclass(frozen=True)
class AdapterReport:
    """Say whether an adapter reads a layer rightly, and what is wrong if not.

    Attributes
    ----------
    passed : bool
        Whether nothing differs.
    response_error : float
        Largest difference between the layer's response and that of the systems, relative to the
        layer's largest sample; nan where it could not be measured apart from the rest of the layer.
    mistakes : tuple of str
        What would explain the differences. Several lines that begin with "or" explain the same
        ones; with two mistakes at once both are in one line.
    """

    passed: bool
    response_error: float
    mistakes: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        error = f"largest difference of the responses: {self.response_error:.2e}"
        if self.passed:
            return f"the adapter agrees with the layer ({error})"
        return "\n".join(["the adapter does not agree with the layer", error, *self.mistakes])


def check_adapter(adapter: Adapter, module: nn.Module) -> AdapterReport:
    """Compare the systems that an adapter reads with what a layer computes.

    Parameters
    ----------
    adapter : Adapter
        Need not be registered.
    module : nn.Module
        A layer with random weights: with special ones (real B, say) mistakes look alike.

    Returns
    -------
    AdapterReport
        Names the mistake: the sign of the imaginary or the real part of A, a conjugated B or C, a
        missing or doubled factor 2, an output that is one step off, a missing D, transposed B and
        C or sequences, a wrong step size; or says what is left.

    Notes
    -----
    The layer's response is measured where its filter ends: at the input of the first module that
    the adapter's ``parts`` names, at the layer's output if it names none. Where that is not linear
    (an activation that is no module), the outputs of the whole layer are compared.

    Examples
    --------
    See docs/own-layer.md.
    """
    if not adapter.recognises(module):
        return AdapterReport(False, float("nan"), ("recognises() says that this is no such layer",))
    try:
        systems = adapter.to_systems(module)
    except CheckpointError as error:  # an adapter that makes this comparison by itself
        return AdapterReport(False, float("nan"), (f"to_systems() refuses the layer: {error}",))
    width = _width(adapter, module, systems)
    measured = _measured(adapter, module, width)
    if measured is None:
        return _by_outputs(adapter, module, systems, width)
    response, tolerance, transposed = measured
    parts = _parts(adapter, module)
    error = _distance(_predicted(systems, parts, width), response)
    if error <= tolerance:
        return _around_the_filter(adapter, module, systems, error, transposed)

    def error_of(changed: Mapping[str, LinearSystem], *, but_direct: bool = False) -> float:
        predicted = _predicted(changed, parts, width)
        return _distance(predicted, response, but_direct=but_direct)

    mistakes = _explained(adapter, module, systems, response, tolerance, error_of)
    return AdapterReport(False, error, mistakes)


def _explained(
    adapter: Adapter,
    module: nn.Module,
    systems: Mapping[str, LinearSystem],
    response: np.ndarray,
    tolerance: float,
    error_of: Any,
) -> tuple[str, ...]:
    """Return the explanations that leave no difference, those with fewer mistakes first."""
    parts, width = _parts(adapter, module), _width(adapter, module, systems)
    found: list[Candidate] = []
    if error_of(systems, but_direct=True) <= tolerance:
        return (_about_direct(module, systems, response, _predicted(systems, parts, width)),)
    if "backward" in systems:
        other = dict(parts) | {"delayed": not parts.get("delayed", True)}
        if _distance(_predicted(systems, other, width), response) <= tolerance:
            return (f"the backward filter is one step off: give delayed={other['delayed']}",)
        swapped = {
            "core": systems["backward"].replace(D=systems["core"].D),
            "backward": systems["core"].replace(D=systems["backward"].D),
        }
        if error_of(swapped) <= tolerance:
            return ("the forward and the backward filter have changed places",)
    for candidate in candidates(systems):
        if found and len(candidate.mistakes) > len(found[0].mistakes):
            break
        if error_of(candidate.systems) <= tolerance:
            found.append(candidate)
        elif (
            len(candidate.mistakes) == 1
            and error_of(candidate.systems, but_direct=True) <= tolerance
        ):
            predicted = _predicted(candidate.systems, parts, width)
            direct = _about_direct(module, candidate.systems, response, predicted)
            found.append(Candidate((*candidate.mistakes, direct), candidate.systems))
    if not found:
        channels = np.broadcast_shapes(*(s.batch_shape for s in systems.values()))[0]
        by_channel = all(s.inputs == s.outputs == 1 for s in systems.values()) and channels > 1

        def errors(changed: Mapping[str, LinearSystem]) -> np.ndarray:
            gap = np.abs(_predicted(changed, parts, width) - response).max(axis=(1, 2))
            return gap if by_channel else gap.max(keepdims=True)

        steps = fitted_steps(systems, errors)
        fits = (c for c in steps if error_of(c.systems) <= max(tolerance, FITTED))
        found = list(itertools.islice(fits, 1))
    if found:
        lines = list(dict.fromkeys(" and ".join(c.mistakes) for c in found))
        return tuple(line if i == 0 else f"or: {line}" for i, line in enumerate(lines))
    outside = sum(
        int(np.sum(np.abs(system.poles) > 1.0))
        for system in systems.values()
        if isinstance(system, DiagonalSystem)
    )
    predicted = _predicted(systems, parts, width)
    bare = {name: system.replace(D=0.0 * system.D) for name, system in systems.items()}
    direct = predicted - _predicted(bare, parts, width)
    lines = _described(predicted - direct, response - direct, tolerance)
    if outside:
        lines += (f"{outside} poles lie outside the unit circle: look at Re A and at the step",)
    return lines


def _about_direct(
    module: nn.Module,
    systems: Mapping[str, LinearSystem],
    response: np.ndarray,
    predicted: np.ndarray,
) -> str:
    """Say what is wrong with D, given that only the sample at lag 0 differs."""
    gap = (response - predicted)[:, :, LAGS]
    direct = np.diagonal(gap) if gap.shape[0] == gap.shape[1] else gap
    given = any(np.any(system.D) for system in systems.values())
    text = "D is wrong" if given else "D is missing"
    for name, tensor in module.state_dict().items():
        values = tensor.detach().double().cpu().numpy() if not tensor.is_complex() else None
        wanted = gap if values is not None and values.ndim == 2 else direct
        if values is None or given or values.shape != wanted.shape:
            continue
        if np.allclose(values, wanted, rtol=1e-4, atol=1e-6 * np.abs(values).max()):
            return f"{text}: the layer adds {name} * u"
    if np.allclose(direct, 1.0, atol=1e-4):
        return f"{text}: the layer adds its input"
    return f"{text}: the layer's is larger by {np.abs(direct).max():.4g} at most"


def _described(predicted: np.ndarray, response: np.ndarray, tolerance: float) -> tuple[str, ...]:
    """Say what can be seen where no usual mistake explains the difference."""
    lines = ["no usual mistake explains the difference"]
    live = np.abs(predicted) > tolerance * np.abs(predicted).max()
    if live.any():
        ratios = response[live] / predicted[live]
        if np.ptp(ratios) <= 1e-3 * np.abs(ratios).max():
            return (
                f"C, or B, is off by a factor: the layer's is {ratios.mean():.6g} times as large",
            )
    per_row = np.abs(predicted - response).max(axis=(1, 2))
    wrong = per_row > tolerance * np.abs(response).max()
    if not wrong.all():
        lines.append(f"outputs that differ: {np.flatnonzero(wrong)[:8].tolist()} of {len(wrong)}")
    per_lag = np.abs(predicted - response).max(axis=(0, 1))
    first = int(np.argmax(per_lag[LAGS:] > tolerance * np.abs(response).max()))
    lines.append(f"first lag that differs: {first}")
    return tuple(lines)


def _around_the_filter(
    adapter: Adapter,
    module: nn.Module,
    systems: Mapping[str, LinearSystem],
    error: float,
    transposed: bool,
) -> AdapterReport:
    """Compare the whole layer once its filter is known to be right."""
    cores = {name: full_core(system) for name, system in systems.items()}
    try:
        block = adapter.to_block(module, cores)
    except SsmredError as problem:
        named = getattr(module, "transposed", None)
        if isinstance(named, bool) and named != transposed:
            layout = "(batch, features, T)" if transposed else "(batch, T, features)"
            text = f"transposed layout: the layer takes {layout}, its attribute says otherwise"
            return AdapterReport(False, error, (text,))
        text = "the filter is right, what is around it is not as parts() says"
        return AdapterReport(False, error, (f"{text}: {problem}",))
    if not agrees(module, block, width=_width(adapter, module, systems)):
        block.transposed = not block.transposed
        swapped = agrees(module, block, width=_width(adapter, module, systems))
        text = "transposed layout: time and features have changed places in the block"
        other = "to_block() gives a block that does not compute what the layer does"
        return AdapterReport(False, error, (text if swapped else other,))
    return AdapterReport(True, error)


def _by_outputs(
    adapter: Adapter, module: nn.Module, systems: Mapping[str, LinearSystem], width: int
) -> AdapterReport:
    """Compare whole layers where the response of the filter cannot be measured."""
    nan = float("nan")

    def fits(changed: Mapping[str, LinearSystem]) -> bool:
        if not isinstance(adapter, LayerAdapter):
            return False
        try:
            cores = {name: full_core(system) for name, system in changed.items()}
        except SsmredError:
            return False
        blocks = adapter.blocks(module, cores)
        return any(agrees(module, block, width=width) for block in blocks)

    cores = {name: full_core(system) for name, system in systems.items()}
    try:
        adapter.to_block(module, cores)
        return AdapterReport(True, nan)
    except CheckpointError as error:
        problem = str(error)
    found = []
    for candidate in candidates(systems):
        if found and len(candidate.mistakes) > len(found[0].mistakes):
            break
        if fits(candidate.systems):
            found.append(candidate)
    for name, tensor in {} if found else module.state_dict().items():
        direct = {
            key: system.replace(D=tensor.detach().double().cpu().numpy().reshape(system.D.shape))
            for key, system in systems.items()
            if not tensor.is_complex() and tensor.numel() == system.D.size
        }
        if direct and fits(dict(systems) | direct):
            return AdapterReport(False, nan, (f"D is missing: the layer adds {name} * u",))
    lines = list(dict.fromkeys(" and ".join(candidate.mistakes) for candidate in found))
    lines = [line if i == 0 else f"or: {line}" for i, line in enumerate(lines)]
    return AdapterReport(False, nan, tuple(lines) or (problem,))


# Measuring ------------------------------------------------------------------------------------


def _parts(adapter: Adapter, module: nn.Module) -> dict[str, Any]:
    parts = getattr(adapter, "parts", None)
    return {} if parts is None else parts(module)


def _width(adapter: Adapter, module: nn.Module, systems: Mapping[str, LinearSystem]) -> int:
    """Return the number of features that a layer takes."""
    cores = [full_core(system) for system in systems.values()]
    return cores[0].inputs // int(_parts(adapter, module).get("copies", 1))


def _measured(
    adapter: Adapter, module: nn.Module, width: int
) -> tuple[np.ndarray, float, bool] | None:
    """Return a layer's response (p, m, lags), its accuracy, and the layout; None if not linear."""
    parts = _parts(adapter, module)
    if parts.get("before") is not None:
        return None
    paths = {id(part): path for path, part in module.named_modules() if path}
    hooked = next((paths[id(parts[k])] for k in HOOKED if id(parts.get(k)) in paths), None)
    if hooked is None and any(parts.get(k) is not None for k in HOOKED):
        return None
    length = 2 * LAGS + 1
    for dtype in dict.fromkeys((torch.float64, layer_dtype(module))):
        layer = cast_module(copy.deepcopy(module).to("cpu"), dtype).eval()
        for transposed in (True, False):
            response = _impulses(layer, hooked, width, length, dtype, transposed)
            if response is not None:
                tolerance = 10.0 * LAYER_TOLERANCE.get(dtype, 1e-2)
                return response, tolerance, transposed
    return None


def _impulses(
    layer: nn.Module,
    hooked: str | None,
    width: int,
    length: int,
    dtype: torch.dtype,
    transposed: bool,
) -> np.ndarray | None:
    """Return the response (p, m, length) to impulses in the middle, None if there is none."""
    impulses = torch.zeros(width + 2, width, length, dtype=dtype)
    impulses[torch.arange(width), torch.arange(width), LAGS] = 1.0
    noise = torch.randn(width, LAGS, generator=torch.Generator().manual_seed(0), dtype=dtype)
    impulses[width, :, :LAGS] = noise
    impulses[width + 1, :, :LAGS] = 2.0 * noise
    seen: list[torch.Tensor] = []
    handle = None
    if hooked is not None:
        part = layer.get_submodule(hooked)
        handle = part.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    with torch.no_grad():
        answer, _ = answer_of(layer, impulses if transposed else impulses.mT)
    if handle is not None:
        handle.remove()
        answer = seen[0] if seen else None
    if answer is None or answer.ndim != 3 or answer.shape[0] != width + 2:
        return None
    if answer.shape[-1] != length:
        answer = answer.mT
    if answer.shape[-1] != length:
        return None
    values = answer.double().cpu().numpy()
    once, twice = values[width], values[width + 1]
    if not np.allclose(twice, 2.0 * once, rtol=1e-3, atol=1e-3 * np.abs(once).max()):
        return None
    return np.moveaxis(values[:width], 0, 1)


def _predicted(
    systems: Mapping[str, LinearSystem], parts: Mapping[str, Any], width: int
) -> np.ndarray:
    """Return the response (p, m, lags) of the systems of a layer, lag 0 in the middle."""
    forward = _entries(systems["core"], parts, width)
    response = np.zeros((*forward.shape[:2], 2 * LAGS + 1))
    response[:, :, LAGS:] = forward
    if "backward" in systems:
        backward = _entries(systems["backward"], parts, width)[:, :, ::-1]
        if parts.get("delayed", True):
            response[:, :, :LAGS] += backward[:, :, 1:]
        else:
            response[:, :, : LAGS + 1] += backward
    return response


def _entries(system: LinearSystem, parts: Mapping[str, Any], width: int) -> np.ndarray:
    with np.errstate(all="ignore"):
        try:
            h = system.impulse_response(LAGS + 1)
        except SsmredError:  # it overflows
            h = np.full((*system.batch_shape, LAGS + 1, system.outputs, system.inputs), 1e300)
    if system.inputs == system.outputs == 1:
        h = h.reshape(-1, LAGS + 1)
        feeds = np.arange(len(h))
        copies = int(parts.get("copies", 1))
        feeds = feeds // copies if parts.get("interleaved", False) else feeds % width
        response = np.zeros((len(h), width, LAGS + 1))
        response[np.arange(len(h)), feeds] = h
        return response
    return np.moveaxis(h.reshape(LAGS + 1, system.outputs, system.inputs), 0, -1)


def _distance(predicted: np.ndarray, response: np.ndarray, *, but_direct: bool = False) -> float:
    """Return the largest difference relative to the largest sample."""
    if predicted.shape != response.shape:
        return np.inf
    gap = np.abs(predicted - response)
    if but_direct:
        gap[:, :, LAGS] = 0.0
    return float(gap.max() / max(np.abs(response).max(), 1e-300))
