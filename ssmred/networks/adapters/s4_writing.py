"""Write reduced systems back as padded S4 layers of the original's class."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
from torch import nn

from ssmred.errors import CheckpointError, OrderError, message
from ssmred.networks.adapters.s4_checks import (
    CHECKED_SAMPLES,
    OwnKernels,
    own_kernels,
    responses,
    tolerances,
)
from ssmred.networks.adapters.s4_dplr import dense_heads, twisted
from ssmred.networks.adapters.s4_modes import modes_by_head
from ssmred.networks.adapters.s4_names import S4Names
from ssmred.networks.adapters.s4_parts import S4Parts, layer_arrays
from ssmred.networks.adapters.s4_reading import (
    S4Weights,
    complex_weights,
    diagonal_modes,
    floor_of,
    in_channel_order,
    systems_of,
)
from ssmred.networks.adapters.s4_settings import S4Settings, inverse_transform, transformed
from ssmred.networks.adapters.s4d_writing import replace_tensor
from ssmred.systems import DenseSystem
from ssmred.systems.linear import LinearSystem

__all__ = ["write_layer"]

WHERE = "S4Adapter.from_systems"

PADDING = 0.5
"""Decay and frequency of modes that are padding; their C is 0."""


def write_layer(
    module: nn.Module,
    parts: S4Parts,
    names: S4Names,
    settings: S4Settings,
    systems: Mapping[str, LinearSystem],
    states: int | None,
) -> nn.Module:
    """Return a copy of a layer that holds the systems; see `S4Adapter.from_systems`."""
    arrays, _ = layer_arrays(module, parts)
    weights = complex_weights(arrays, names, settings)
    same = _own_matrices(systems, weights, names, settings, states)
    if same is not None:
        return _finished(module, parts, systems, settings, same)
    poles, residues, D = modes_by_head(systems, names, settings)
    count = _count(poles, states)
    stored = _parameters(poles, weights, arrays, names, settings)
    dtype = _dtype(module, names)
    values = {name: _widened(array, count // 2).astype(dtype) for name, array in stored.items()}
    values |= _coefficients(values, poles, residues, weights, arrays, names, settings, dtype)
    return _finished(module, parts, systems, settings, values | {names.D: D}, names, count)


def _finished(
    module: nn.Module,
    parts: S4Parts,
    systems: Mapping[str, LinearSystem],
    settings: S4Settings,
    values: Mapping[str, np.ndarray],
    names: S4Names | None = None,
    count: int = 0,
) -> nn.Module:
    """Return a copy with other tensors, once it is seen to give the systems' responses."""
    result = copy.deepcopy(module)
    for name, array in values.items():
        place, _, last = name.rpartition(".")
        replace_tensor(result.get_submodule(place), last, np.array(array))
    if names is not None:
        _rename_sizes(result, parts, names, count)
    _, found = layer_arrays(result, parts)
    _check(result, parts, systems, settings, np.finfo(_dtype(result, found)).eps)
    return result


def _dtype(module: nn.Module, names: S4Names) -> np.dtype:
    return module.get_parameter(names.C).detach().cpu().numpy().dtype


def _own_matrices(
    systems: Mapping[str, LinearSystem],
    weights: S4Weights,
    names: S4Names,
    settings: S4Settings,
    states: int | None,
) -> dict[str, np.ndarray] | None:
    """Return C and D for systems that still have the layer's own A and B, or None.

    Then P and everything else can stay, and a dense system needs no modes.
    """
    if not names.rank or states not in (None, 2 * names.modes):
        return None
    own = systems_of(weights, names, settings)
    if set(own) != set(systems):
        return None
    A, _ = dense_heads(weights.A, weights.P, weights.B, weights.dt[:, 0])
    read_outs = []
    for core in own:
        system = systems[core]
        kept = isinstance(system, DenseSystem) and system.recurrence == "post-update"
        if not (kept and np.array_equal(system.A, own[core].A)):
            return None
        if not np.array_equal(system.B, own[core].B) or system.C.shape != own[core].C.shape:
            return None
        read_outs.append(in_channel_order(system.C[:, 0, :], names, settings))
    if "backward" in systems and bool(systems["backward"].D.any()):
        return None
    C = twisted(A, np.concatenate(read_outs), weights.length)
    D = in_channel_order(systems["core"].D[:, 0, 0], names, settings)
    return {names.C: np.stack([C.real, C.imag], axis=-1), names.D: D}


def _count(poles: list[np.ndarray], states: int | None) -> int:
    wanted = max(2 * max(len(own) for own in poles), 2)
    count = wanted if states is None else states
    if count % 2 or count < wanted:
        raise OrderError(
            message(
                WHERE,
                "states do not fit",
                expected=f"an even number >= {wanted}: channels and directions of a head share "
                "its modes, and a real pole takes a mode of its own",
                got=f"{states}",
            )
        )
    return count


def _parameters(
    poles: list[np.ndarray],
    weights: S4Weights,
    arrays: Mapping[str, np.ndarray],
    names: S4Names,
    settings: S4Settings,
) -> dict[str, np.ndarray]:
    """Return step, real and imaginary parameters, (H, n), bit for bit where a pole is known."""
    n = max(max(len(own) for own in poles), 1)
    used = np.arange(n) < np.array([len(own) for own in poles])[:, None]
    table = np.full(used.shape, PADDING, dtype=np.complex128)
    table[used] = np.concatenate(poles)
    tile = np.arange(names.heads) % names.systems
    step = arrays[names.step].reshape(names.heads, -1)
    step = np.broadcast_to(step, weights.A.shape)
    known = np.zeros(used.shape, bool)
    source = np.zeros(used.shape, int)
    if not names.rank:
        old, _, _ = diagonal_modes(weights, settings.disc or "", settings.length)
        same = table[:, :, None] == old[:, None, :]
        known, source = same.any(axis=2) & used, same.argmax(axis=2)
    rows = np.arange(names.heads)[:, None]
    chosen = np.where(known, step[rows, source], step[:, :1])
    dt = transformed(settings.dt_transform or "", chosen)
    bad = used & ~known & ~((np.abs(table) < 1.0) & (table != 0))
    _refuse(bad, table, "0 < |pole| < 1")
    table = np.where(bad | ~used, PADDING, table)
    if settings.disc == "bilinear":
        A = 2.0 / dt * (table - 1.0) / (table + 1.0)
    else:
        A = np.log(table) / dt
    A = np.where(used, A, -PADDING * (1.0 + (1j if names.imag else 0.0)))
    real = inverse_transform(settings.real_transform or "", -A.real, floor=floor_of(names))
    imag = A.imag
    if names.is_current:  # of a pole and its conjugate either may be stored
        free = (settings.imag_transform or "none") == "none"
        imag = inverse_transform(settings.imag_transform or "", -imag if free else np.abs(imag))
    if not names.imag:
        _refuse(used & ~known & (A.imag != 0), table, "a real pole: the layer is a real one")
    for values in (real, imag):
        _refuse(
            used & ~known & np.isnan(values), table, "a pole within the range of the transforms"
        )
    stored = {names.real: np.where(known, arrays[names.real][tile][rows, source], real)}
    if names.imag:
        stored[names.imag] = np.where(known, arrays[names.imag][tile][rows, source], imag)
    if arrays[names.step].size != names.heads:
        stored[names.step] = chosen
    return {name: np.where(used, v, _padding(name, names, settings)) for name, v in stored.items()}


def _padding(name: str, names: S4Names, settings: S4Settings) -> float:
    if name == names.step:
        return float(inverse_transform(settings.dt_transform or "", np.array(PADDING)))
    transform = settings.real_transform if name == names.real else settings.imag_transform
    return float(inverse_transform(transform or "", np.array(PADDING), floor=floor_of(names)))


def _refuse(bad: np.ndarray, poles: np.ndarray, expected: str) -> None:
    if bad.any():
        head, mode = (int(i) for i in np.argwhere(bad)[0])
        raise CheckpointError(
            message(
                WHERE,
                f"a pole has no parameters in this layer (head {head})",
                expected=expected,
                got=f"{poles[head, mode]:.6g}",
                cure="Keep the reduced layer; it holds any pole.",
            )
        )


def _widened(array: np.ndarray, modes: int) -> np.ndarray:
    """Repeat the last column, which is padding or unused, up to `modes` columns."""
    extra = modes - array.shape[1]
    return np.concatenate([array, np.repeat(array[:, -1:], extra, axis=1)], axis=1)


def _coefficients(
    values: dict[str, np.ndarray],
    wanted: list[np.ndarray],
    residues: list[np.ndarray],
    weights: S4Weights,
    arrays: Mapping[str, np.ndarray],
    names: S4Names,
    settings: S4Settings,
    dtype: np.dtype,
) -> dict[str, np.ndarray]:
    """Return B = 1, P = 0 and C for parameters that are rounded already."""
    heads, modes = values[names.real].shape
    pair = 2 if names.imag else 1
    one = np.zeros((heads, modes, pair))
    one[..., 0] = 1.0
    B = one if names.imag else one[..., 0]
    table = np.zeros((names.directions * names.channels, heads, modes), dtype=np.complex128)
    fresh = dict(arrays) | {n: v.astype(np.float64) for n, v in values.items()}
    fresh[names.B] = B[None]
    blank = np.zeros((*table.shape, 2)) if names.imag else np.zeros(table.shape)
    fresh[names.C] = blank
    plain = settings.replace(bandlimit=None)
    sizes = {"heads": heads, "systems": heads, "modes": modes, "rank": 0}
    rounded = complex_weights(fresh, S4Names(**{**vars(names), **sizes, "P": ""}), plain)
    poles, hold, factor = diagonal_modes(rounded, settings.disc or "", settings.length)
    for head, own in enumerate(wanted):  # of some only the conjugate can be stored
        stored = poles[head, : len(own)]
        turned = np.abs(stored.conj() - own) < np.abs(stored - own)
        table[:, head, : len(own)] = np.where(turned, residues[head].conj(), residues[head])
    C = np.where(table == 0, 0.0, table / (factor * hold))
    if weights.length:
        C = C * (1.0 - poles**weights.length)
    stored = {names.C: np.stack([C.real, C.imag], axis=-1) if names.imag else C.real}
    stored[names.B] = B if arrays[names.B].ndim == B.ndim else B[None]
    if names.P:
        stored[names.P] = np.zeros((names.rank, heads, modes, 2))
    return {name: array.astype(dtype) for name, array in stored.items()}


def _rename_sizes(module: nn.Module, parts: S4Parts, names: S4Names, count: int) -> None:
    """Change the sizes that the classes remember in attributes."""
    sizes = {2 * names.modes: count, names.modes: count // 2}
    for path in dict.fromkeys(("", parts.owner, parts.kernel, parts.generator)):
        own = vars(module.get_submodule(path))
        for name in ("n", "N", "d_state"):
            if own.get(name) in sizes:
                own[name] = sizes[own[name]]
        if own.get("n_ssm") == names.systems:
            own["n_ssm"] = names.heads
        for name in ("repeat", "broadcast"):
            if own.get(name) == names.heads // names.systems:
                own[name] = 1
        for name in ("omega", "z", "step_params", "dA", "dB", "dC"):
            own.pop(name, None)


def _check(
    module: nn.Module,
    parts: S4Parts,
    systems: Mapping[str, LinearSystem],
    settings: S4Settings,
    eps: float,
) -> None:
    """Raise CheckpointError unless the written layer gives the systems' responses."""
    arrays, names = layer_arrays(module, parts)
    weights = complex_weights(arrays, names, settings)
    length = CHECKED_SAMPLES if settings.disc != "dss" else settings.length or 1
    wanted = responses(systems, names, length, settings)
    if settings.trust == "matrices":  # the class's own kernels mean nothing
        own = responses(systems_of(weights, names, settings), names, length, settings)
        allowed = tolerances(weights, names, settings, OwnKernels(own, eps, weights.length))
    else:
        found = own_kernels(module, parts, names, length, rounded=eps)
        own, allowed = found.values, tolerances(weights, names, settings, found)
    wrong = ~(np.abs(own - wanted) <= allowed)
    if wrong.any():
        channel, head, step = (int(i) for i in np.argwhere(wrong)[0])
        raise CheckpointError(
            message(
                WHERE,
                f"the written layer does not give the systems' responses (channel {channel}, head "
                f"{head}, step {step})",
                expected=f"{wanted[channel, head, step]:.9g}",
                got=f"{own[channel, head, step]:.9g}",
                cure="Keep the reduced layer, or write in float64.",
            )
        )
