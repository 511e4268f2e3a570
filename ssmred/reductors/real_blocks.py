"""Half spectra as real states: one for a real mode, two for a conjugate pair."""

from __future__ import annotations

import numpy as np

from ssmred.systems.dense import DenseSystem
from ssmred.systems.diagonal import DiagonalSystem

__all__ = ["real_blocks"]


def real_blocks(modes: DiagonalSystem, order: int) -> DenseSystem:
    """Return real matrices of a half spectrum, padded at the end.

    Parameters
    ----------
    modes : DiagonalSystem
        ``real_output``, (H,). A mode with a real pole and a real row of B takes one state, any
        other two; a mode without input and output takes none.
    order : int
        States of the result, if the modes have so many places; no channel needs more.
    """
    width = modes.order
    own = (modes.poles.imag == 0) & np.all(modes.B.imag == 0, axis=-1)
    used = np.any(modes.B != 0, axis=-1) | np.any(modes.C != 0, axis=-2)
    both = np.stack([used, used & ~own], axis=-1).reshape(len(used), 2 * width)
    # those in use to the front
    states = np.argsort(~both, axis=-1, kind="stable")[:, : min(order, 2 * width)]
    filled = np.take_along_axis(both, states, axis=-1)
    dense = modes.realified()
    A = np.take_along_axis(dense.A, states[:, :, None], axis=1)
    A = np.take_along_axis(A, states[:, None, :], axis=2)
    A = np.where(filled[:, :, None] & filled[:, None, :], A, 0)
    rest = 0.0 if modes.is_discrete else -1.0
    A += np.where(filled, 0, rest)[..., None] * np.eye(A.shape[-1])
    return dense.replace(
        A=A,
        B=np.take_along_axis(dense.B, states[..., None], axis=1) * filled[..., None],
        C=np.take_along_axis(dense.C, states[:, None, :], axis=2) * filled[:, None, :],
    )
