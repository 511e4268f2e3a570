"""The three kinds of cores, and which of them holds a given system."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ssmred.errors import CheckpointError, ShapeError, message
from ssmred.networks.dense_core import DenseSSM
from ssmred.networks.filters import LinearFilter
from ssmred.networks.reduced import ReducedSSM
from ssmred.networks.shared import SharedSSM
from ssmred.systems import DenseSystem, DiagonalSystem
from ssmred.systems.diagonalisation import diagonalised
from ssmred.systems.linear import LinearSystem

__all__ = [
    "CORES",
    "check_core",
    "core_for",
    "core_kind",
    "core_like",
    "full_core",
    "largest_order",
]

CHECKED_SAMPLES = 40
"""Samples of a new core's kernel that are compared with the response of its system."""

CORES: dict[str, type[LinearFilter]] = {
    kind.__name__: kind for kind in (ReducedSSM, SharedSSM, DenseSSM)
}
"""Kinds of cores by name."""


def core_kind(system: Any) -> type[LinearFilter]:
    """Return the class of cores that holds a layer's system.

    Raises
    ------
    ShapeError
        If none does.
    """
    if isinstance(system, (DiagonalSystem, DenseSystem)) and system.is_real:
        single = system.inputs == system.outputs == 1
        batch = len(system.batch_shape)
        if isinstance(system, DenseSystem):
            if single and batch == 1:
                return DenseSSM
        elif single and batch == 1 and (system.is_post_update or system.batch_shape != (1,)):
            return ReducedSSM
        elif system.batch_shape in ((), (1,)):
            return SharedSSM
    raise ShapeError(
        message(
            "core_for",
            "no core holds this system",
            expected="real outputs and: H diagonal or dense channels with one input and one output "
            "(batch shape (H,)), or one diagonal system (batch shape (1,))",
            got=f"{system!r}",
        )
    )


def core_for(system: Any, *, orders: Any = None, kept: Any = None) -> LinearFilter:
    """Make the core that filters with a system.

    Parameters
    ----------
    system : DiagonalSystem or DenseSystem
        H channels with one input and one output each, batch shape (H,): a `ReducedSSM`, or a
        `DenseSSM` where they are dense. One diagonal system with many inputs or outputs, batch
        shape (1,), in either recurrence: a `SharedSSM`.
    orders, kept
        What to keep of it; see the class.

    Returns
    -------
    ReducedSSM, SharedSSM or DenseSSM

    Raises
    ------
    ShapeError
        If no core holds the system.

    Examples
    --------
    >>> import numpy as np
    >>> system = DiagonalSystem([[0.5]], np.ones((1, 1, 2)), np.ones((1, 3, 1)),
    ...                         recurrence="post-update", real_output=True)
    >>> core_for(system)
    SharedSSM(inputs=2, outputs=3, states=2)
    """
    return core_kind(system).from_system(system, orders=orders, kept=kept)


def full_core(system: LinearSystem) -> LinearFilter:
    """Return the core of a system; a mode with a zero read-out is a state all the same."""
    if isinstance(system, DiagonalSystem):
        return core_for(system, kept=np.ones(system.poles.shape, dtype=bool))
    return core_for(system)


def core_like(old: LinearFilter, system: LinearSystem, orders: Any) -> LinearFilter:
    """Return the core of a system, of the old one's class where that can hold it."""
    kind = core_kind(system)
    shared = isinstance(old, SharedSSM) and system.batch_shape == (1,)
    if shared and isinstance(system, DiagonalSystem):  # also with one input and one output
        kind = SharedSSM
    return kind.from_system(system, orders=orders)


def largest_order(system: LinearSystem) -> int:
    """Return the real states of the largest channel, at least 2: two per mode that it needs."""
    if isinstance(system, DenseSystem):
        modes = diagonalised(system, half=True, limit=np.inf).modes
    else:
        modes = np.asarray(core_for(system).orders)
    return 2 * max(int(modes.max(initial=1)), 1)


def check_core(core: LinearFilter, system: LinearSystem, name: str) -> None:
    """Raise CheckpointError unless a layer's own kernel is the response of its system."""
    with torch.no_grad():
        kernel = core.kernel(CHECKED_SAMPLES).cpu().numpy()
    response = system.impulse_response(CHECKED_SAMPLES)
    if kernel.ndim == 2:
        response = response[..., 0, 0]
    else:
        response = np.moveaxis(response, -3, -1).reshape(kernel.shape)
    margin = _rounding_of(system).reshape(kernel.shape[:-1])
    if not (np.abs(kernel - response) <= margin[..., None]).all():
        raise CheckpointError(
            message(
                "import_network",
                f"the kernel of layer {name} is not the response of its system",
                got=f"a difference of {np.abs(kernel - response).max():.3g}",
            )
        )


def _rounding_of(system: LinearSystem) -> np.ndarray:
    """Return how far two evaluations of a response, (..., p, m), may be apart."""
    eps = np.finfo(np.float64).eps
    if isinstance(system, DiagonalSystem):
        sizes = np.abs(system.C) @ np.abs(system.B) + np.abs(system.D)
        growth = np.abs(system.poles).max(axis=-1, initial=0.0)
        growth = np.maximum(growth, 1.0) ** CHECKED_SAMPLES
        return (system.order + 16) * eps * sizes * growth[..., None, None]
    power, growth = system.to_dense().A, np.ones(system.batch_shape)
    for _ in range(CHECKED_SAMPLES.bit_length()):
        growth = np.maximum(growth, np.linalg.norm(power, axis=(-2, -1)))
        power = power @ power
    sizes = (
        np.linalg.norm(system.C, axis=-1)[..., None]
        * np.linalg.norm(system.B, axis=-2)[..., None, :]
    )
    # every step rounds what it carries on, and the rest of the powers carries that
    terms = (system.order + 16) * CHECKED_SAMPLES * eps
    return terms * (sizes * growth[..., None, None] ** 2 + np.abs(system.D))
