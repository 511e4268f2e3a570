"""Poles as the parameters of a layer's own class hold them, which round to its dtype."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from ssmred.errors import CheckpointError, OrderError, UnsupportedOperationError
from ssmred.networks.adapters import Adapter
from ssmred.systems.diagonal import DiagonalSystem

__all__ = ["held_poles"]

SAME_POLE = 1e-4
"""How far, relative to its modulus, a pole may move by rounding; farther off is another one."""


def held_poles(
    adapter: Adapter, module: nn.Module, core: str, system: DiagonalSystem
) -> DiagonalSystem:
    """Return a system with the poles that a layer of the module's class has once it holds it.

    Writing a pole into float32 parameters moves it by some 1e-7, and its response by as much at
    every time constant. A read-out that is fitted to the rounded poles has no part in that.

    Parameters
    ----------
    adapter : Adapter
        Of the layer.
    module : nn.Module
        The layer.
    core : str
        Which of its filters the system is for.
    system : DiagonalSystem
        Real outputs, as the adapter returns them. Modes with B = 0 are padding.

    Returns
    -------
    DiagonalSystem
        The same but for its poles. The system itself if the class cannot hold it, or in float64.

    Notes
    -----
    Why that is allowed: ``theory/modal-form.md``, statement 1.
    """
    floating = [t for t in module.state_dict().values() if t.is_floating_point()]
    if all(t.dtype == torch.float64 for t in floating) or not system.order:
        return system
    used = np.any(system.B != 0, axis=-1)
    audible = system.replace(
        C=np.where(used[..., None, :], np.ones_like(system.C), 0), D=np.zeros_like(system.D)
    )
    try:
        names = adapter.to_systems(module)
        written = adapter.from_systems(module, dict.fromkeys(names, audible))
        held = adapter.to_systems(written)[core]
    except (CheckpointError, OrderError, UnsupportedOperationError):  # export_plain will say why
        return system
    if held.batch_shape != system.batch_shape:
        return system
    return system.replace(poles=_nearest(system.poles, np.asarray(held.poles), used))


def _nearest(poles: np.ndarray, held: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Return the held pole next to each one, or its conjugate; the pole itself if none is near.

    A real pole stays real: an angle that is rounded near pi would make a second state of it, which
    hardly moves and gets huge read-outs.
    """
    both = np.concatenate([held, held.conj()], axis=-1)
    gaps = np.abs(poles[..., :, None] - both[..., None, :])
    found = np.take_along_axis(both, gaps.argmin(axis=-1), axis=-1)
    found = np.where(poles.imag == 0, found.real, found)
    near = used & (np.abs(found - poles) <= SAME_POLE * np.abs(poles))
    return np.where(near, found, poles)
