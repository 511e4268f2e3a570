"""Tell the forms that a layer's system may have, and refuse all others.

H channels by themselves, diagonal or dense, or one diagonal state shared by all.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ssmred.errors import ShapeError, message
from ssmred.systems import DenseSystem, DiagonalSystem
from ssmred.systems.linear import LinearSystem

__all__ = ["check_layer", "count_states", "has_diagonal_channels", "layer_width"]


def has_diagonal_channels(system: Any) -> bool:
    """Tell whether a system is a batch of post-update diagonal channels, each by itself."""
    return (
        isinstance(system, DiagonalSystem)
        and len(system.batch_shape) == 1
        and system.inputs == system.outputs == 1
        and system.recurrence == "post-update"
    )


def check_layer(system: Any, where: str) -> LinearSystem:
    """Return ``system`` if it has a form that layers are imported in."""
    fits = isinstance(system, LinearSystem) and system.is_real and system.is_discrete
    if fits and not has_diagonal_channels(system):
        single = system.inputs == system.outputs == 1
        if isinstance(system, DiagonalSystem):
            fits = system.batch_shape == (1,)
        else:
            fits = isinstance(system, DenseSystem) and len(system.batch_shape) == 1 and single
    if not fits:
        raise ShapeError(
            message(
                where,
                "a layer's system has the wrong form",
                expected="real outputs, discrete time, and a DiagonalSystem with poles (H, n), one "
                "input and one output, post-update recurrence; or such a DenseSystem in either "
                "recurrence; or a DiagonalSystem with batch shape (1,)",
                got=f"{system!r}",
                cure="Import it with ssmred.networks, which brings layers into these forms.",
            )
        )
    return system


def layer_width(system: LinearSystem) -> tuple[int, int]:
    """Return how many features a layer takes and gives."""
    if system.inputs == system.outputs == 1:
        return system.batch_shape[0], system.batch_shape[0]
    return system.inputs, system.outputs


def count_states(system: LinearSystem) -> int:
    """Return the real state dimension of a layer, padding not counted.

    A mode whose pole, B and C all vanish is padding of a ragged order; any other counts, and
    twice where it is complex. In a dense channel padding comes last.
    """
    if isinstance(system, DiagonalSystem):
        padding = (system.poles == 0) & (system.B == 0).all(-1) & (system.C == 0).all(-2)
        per_mode = 2 if system.states == 2 * system.order else 1
        return int(per_mode * np.count_nonzero(~padding))
    dense = system.to_dense()
    live = (dense.A != 0).any(-1) | (dense.A != 0).any(-2)
    live |= (dense.B != 0).any(-1) | (dense.C != 0).any(-2)
    return int(np.where(live.any(-1), dense.order - live[:, ::-1].argmax(-1), 0).sum())
