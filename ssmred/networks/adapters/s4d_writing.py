"""Write a reduced system back as a padded minimal S4D layer of the original's class."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn

from ssmred.errors import CheckpointError, OrderError, message
from ssmred.networks.adapters.s4d_checks import check_kernel
from ssmred.networks.adapters.s4d_parts import own_tensors, parts_of, read_weights
from ssmred.networks.reduced import ReducedSSM
from ssmred.systems.linear import LinearSystem

__all__ = ["replace_tensor", "write_layer"]


def write_layer(module: nn.Module, system: LinearSystem, states: int | None) -> nn.Module:
    """Return a copy of a layer that holds `system`; see `S4DAdapter.from_systems`."""
    parts = parts_of(module)
    where = "S4DAdapter.from_systems"
    core = ReducedSSM.from_system(system)
    padded = core.to_system()
    wanted = max(2 * int(core.orders.max(initial=0)), 2)
    count = wanted if states is None else states
    if count % 2 or count < wanted or len(core.orders) != parts.channels:
        raise OrderError(
            message(
                where,
                "states or channels do not fit",
                expected=f"{parts.channels} channels and an even number >= {wanted} of states",
                got=f"{len(core.orders)} channels, states={states}",
            )
        )
    modes = count // 2
    used = np.arange(padded.poles.shape[1]) < core.orders[:, None]
    poles, residues = padded.poles, padded.C[:, 0, :] * padded.B[..., 0]
    A, dt, _ = read_weights(module, parts)
    same = poles[:, :, None] == np.exp(A * dt[:, None])[:, None, :]
    known, source = same.any(axis=2), same.argmax(axis=2)
    outside = used & ~known & ~((np.abs(poles) < 1.0) & (poles != 0))
    if outside.any():
        raise CheckpointError(
            message(
                where,
                "a pole has no S4D parameters",
                expected="0 < |pole| < 1",
                got=f"{poles[outside][0]:.6g}",
                cure="Keep the ReducedSSM layer; it holds any pole.",
            )
        )
    log_pole = np.log(np.where(used & ~known, poles, 0.5)) / dt[:, None]
    stored = own_tensors(getattr(module, parts.kernel))
    kind = {n: t.detach().cpu().numpy() for n, t in stored.items()}
    rows = np.arange(parts.channels)[:, None]
    values = {
        "log_A_real": np.where(known, kind["log_A_real"][rows, source], np.log(-log_pole.real)),
        "A_imag": np.where(known, kind["A_imag"][rows, source], log_pole.imag),
    }
    values = {n: np.where(used, v, 0.0).astype(kind[n].dtype) for n, v in values.items()}
    rounded = {n: v.astype(np.float64) for n, v in values.items()}
    exact = -np.exp(rounded["log_A_real"]) + 1j * rounded["A_imag"]
    hold = np.expm1(exact * dt[:, None]) / exact
    C = np.where(used, residues / (2.0 * hold), 0.0)
    values["C"] = np.stack([C.real, C.imag], axis=-1).astype(kind["C"].dtype)
    result = copy.deepcopy(module)
    kernel = getattr(result, parts.kernel)
    for name, array in values.items():
        room = [(0, 0)] * array.ndim
        room[1] = (0, max(modes - array.shape[1], 0))
        replace_tensor(kernel, name, np.pad(array, room)[:, :modes])
    D = padded.D[:, 0, 0].astype(module.D.detach().cpu().numpy().dtype)
    replace_tensor(result, "D", D)
    for owner in (result, kernel):  # the classes remember their sizes under these names
        for name in ("n", "N", "d_state"):
            if getattr(owner, name, None) == 2 * parts.modes:
                setattr(owner, name, count)
    check_kernel(result, system, rounded=module.D.dtype)
    return result


def replace_tensor(owner: nn.Module, name: str, array: np.ndarray) -> None:
    """Put an array in the place of a parameter or buffer, of any size, in the old dtype."""
    old = getattr(owner, name)
    new = torch.from_numpy(np.ascontiguousarray(array)).to(old.device, old.dtype)
    if name in owner._parameters:
        parameter = nn.Parameter(new, requires_grad=old.requires_grad)
        parameter.__dict__.update(old.__dict__)  # upstream marks its optimiser settings there
        owner._parameters[name] = parameter
    else:
        owner._buffers[name] = new
