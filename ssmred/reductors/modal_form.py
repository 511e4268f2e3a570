"""Write dense channels with modes: the poles of A, and the read-out that comes closest.

Theory: ``theory/modal-form.md``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ssmred.checks import check_horizon
from ssmred.errors import (
    AccuracyError,
    UnstableSystemError,
    UnsupportedOperationError,
    message,
)
from ssmred.gramians import controllability_factor
from ssmred.norms import h2_error, h2_norm
from ssmred.systems.dense import DenseSystem
from ssmred.systems.diagonal import DiagonalSystem
from ssmred.systems.diagonalisation import diagonalised

__all__ = ["ModalForm", "modal_form"]

AnySystem = TypeVar("AnySystem", DenseSystem, DiagonalSystem)

ERROR_LIMIT, ERROR_SOUGHT = 1e-6, 1e-7
"""Relative h2 error up to which the modal form stands for the system; from which on no other poles
are tried."""

DISTURBANCES = (1e-9, 1e-8, 1e-7)
"""Sizes, relative to A, of the disturbances that move the poles of a matrix without eigenvectors
apart. What single precision does to a stored layer is of the last size."""

NEGLIGIBLE = 4 * np.finfo(np.float64).eps
"""Singular values, relative to the largest, of read-outs that no response tells apart."""

CHANNELS_AT_ONCE = 16
"""Bounds the memory for the Gramians of both systems together."""


@dataclass(frozen=True, eq=False)
class ModalForm:
    """Hold a diagonal system in place of a dense one, and how far apart they are.

    Attributes
    ----------
    system : DiagonalSystem
        One mode of every conjugate pair, ``real_output``; B is 1, C the best read-out.
    error : (H,) float64
        The h2 norm of the difference, relative to that of the dense system; evaluated.
    """

    system: DiagonalSystem
    error: np.ndarray


def modal_form(
    system: DenseSystem,
    *,
    horizon: int | None = None,
    limit: float = ERROR_LIMIT,
    held: Callable[[DiagonalSystem], DiagonalSystem] | None = None,
) -> ModalForm:
    """Return the diagonal system with the poles of A that comes closest in the h2 norm.

    Eigenvectors of a HiPPO matrix are so badly conditioned that ``X^{-1} B`` and ``C X`` mean
    nothing, yet its computed poles are those of a matrix next to it, and their exponentials span
    the response to many digits. So the poles are taken from A (where they do not serve, from A with
    a small random disturbance, always the same one), and C from the response.

    Parameters
    ----------
    system : DenseSystem
        Real, with one input and one output, batch shape (H,), discrete.
    horizon : int, optional
        Samples over which the responses are compared; None is infinite.
    limit : float
        Largest relative error that is accepted.
    held : callable, optional
        Rounds the poles of a system, to those that some parameters hold for instance. Channels
        whose error stays within the limit with the rounded poles have these.

    Returns
    -------
    ModalForm

    Raises
    ------
    AccuracyError
        If the error is larger: of a defective A, for instance.
    UnstableSystemError
        If a pole is not stable and the horizon is infinite.
    UnsupportedOperationError
        For other systems.

    Notes
    -----
    The read-out solves ``min ||L^T (c_dense, -c)||`` for a factor L of the Gramian of both systems'
    states, which one input drives. Level FLOAT: nothing is assumed of the result, its error is
    evaluated. Cost O(n^3) per channel. Theory: ``theory/modal-form.md``.

    Examples
    --------
    >>> A = np.array([[[0.5, 1.0], [0.0, 0.4]]])
    >>> found = modal_form(DenseSystem(A, np.ones((1, 2, 1)), np.ones((1, 1, 2))))
    >>> found.system.poles.real.round(9).tolist(), bool(found.error[0] < 1e-12)
    ([[0.5, 0.4]], True)
    """
    where = "modal_form"
    horizon = check_horizon(horizon, where)
    single = system.inputs == system.outputs == 1 and len(system.batch_shape) == 1
    if not (single and system.is_real and system.is_discrete):
        raise UnsupportedOperationError(
            message(
                where,
                "this system has no modal form here",
                expected="a real discrete system, one input and one output, batch shape (H,)",
                got=f"{system!r}",
            )
        )
    dense = system.realified()
    norms = np.asarray(h2_norm(dense, horizon=horizon))
    found, relative = closest(dense, 0.0, norms, horizon)
    for size in DISTURBANCES:
        poor = np.flatnonzero(relative > ERROR_SOUGHT)
        if not poor.size:
            break
        with contextlib.suppress(UnstableSystemError):  # poles closer to the circle than that
            other, errors = closest(_taken(dense, poor), size, norms[poor], horizon)
            found, relative = _better(found, relative, other, errors, poor)
    if held is not None:
        rounded, errors = fitted(dense, held(found), norms, horizon)
        good = np.flatnonzero(errors <= limit)
        allowed = np.where(errors <= limit, np.inf, relative)
        found, relative = _better(found, allowed, _taken(rounded, good), errors[good], good)
    worst = float(relative.max(initial=0.0))
    if not worst <= limit:
        raise AccuracyError(
            message(
                where,
                f"the poles of channel {int(relative.argmax())} do not span its response",
                expected=f"a relative h2 error of at most {limit:.3g}",
                got=f"{worst:.3g}",
                cure="Reduce the dense system itself: BalancedReductor(form='dense').",
            )
        )
    return ModalForm(found, relative)


def closest(
    dense: DenseSystem, size: float, norms: np.ndarray, horizon: int | None
) -> tuple[DiagonalSystem, np.ndarray]:
    """Return the best system with the poles of a disturbed A, and its relative error (H,)."""
    E = np.random.default_rng(0).standard_normal(dense.A.shape)
    E *= size * np.linalg.norm(dense.A, axis=(-2, -1), keepdims=True) / dense.order
    poles = diagonalised(dense.replace(A=dense.A + E), half=True, limit=np.inf)
    used = np.arange(poles.system.order) < poles.modes[:, None]
    modes = poles.system.replace(
        B=used[:, :, None].astype(np.complex128), C=np.zeros_like(poles.system.C)
    )
    return fitted(dense, modes, norms, horizon)


def fitted(
    dense: DenseSystem, modes: DiagonalSystem, norms: np.ndarray, horizon: int | None
) -> tuple[DiagonalSystem, np.ndarray]:
    """Return modes (H,) with the best read-out, and the relative error (H,) that is left."""
    parts = np.array_split(np.arange(len(norms)), -(-len(norms) // CHANNELS_AT_ONCE))
    C = [_best_read_out(_taken(dense, part), _taken(modes, part), horizon) for part in parts]
    found = modes.replace(C=np.concatenate(C)[:, None, :])
    errors = np.asarray(h2_error(dense, found, horizon=horizon))
    return found, np.where(norms > 0, errors / np.where(norms > 0, norms, 1), errors)


def _better(
    found: DiagonalSystem,
    relative: np.ndarray,
    other: DiagonalSystem,
    errors: np.ndarray,
    channels: np.ndarray,
) -> tuple[DiagonalSystem, np.ndarray]:
    """Return the better of two systems for each of some channels, (poles, B, C) padded alike."""
    won = errors < relative[channels]
    order = max(found.order, other.order)
    arrays = {}
    for name, axis in (("poles", -1), ("B", -2), ("C", -1)):
        ours, theirs = (_padded(getattr(part, name), axis, order) for part in (found, other))
        ours[channels[won]] = theirs[won]
        arrays[name] = ours
    relative = relative.copy()
    relative[channels[won]] = errors[won]
    return found.replace(**arrays), relative


def _padded(array: np.ndarray, axis: int, order: int) -> np.ndarray:
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, order - array.shape[axis])
    return np.pad(array, widths)


def _best_read_out(dense: DenseSystem, modes: DiagonalSystem, horizon: int | None) -> np.ndarray:
    """Return C (H, n) of the modes in ``Re(C x)``, closest to the response of the dense system."""
    split, real = dense.order, modes.realified()
    channels, width = len(dense.B), split + real.order
    A = np.zeros((channels, width, width))
    A[:, :split, :split], A[:, split:, split:] = dense.A, real.A
    B = np.concatenate([dense.B, real.B], axis=-2)
    both = DenseSystem(
        A, B, np.zeros((channels, 1, width)), recurrence=dense.recurrence, dt=dense.dt
    )
    factor = np.swapaxes(controllability_factor(both, horizon=horizon), -1, -2)
    wanted = (factor[..., :split] @ np.swapaxes(dense.C, -1, -2))[..., 0]
    columns = factor[..., split:]
    sizes = np.linalg.norm(columns, axis=-2)
    scale = np.where(sizes > 0, 1 / np.where(sizes > 0, sizes, 1), 0)
    U, values, Vh = np.linalg.svd(columns * scale[:, None, :], full_matrices=False)
    kept = values > NEGLIGIBLE * values[:, :1]
    weights = np.where(kept, 1 / np.where(kept, values, 1), 0)
    parts = np.einsum("hkn,hk->hn", Vh, weights * np.einsum("hmk,hm->hk", U, wanted)) * scale
    return parts[:, 0::2] - 1j * parts[:, 1::2]  # the real states are (Re x, Im x)


def _taken(system: AnySystem, channels: np.ndarray) -> AnySystem:
    names = ("poles" if isinstance(system, DiagonalSystem) else "A", "B", "C", "D")
    return system.replace(**{name: getattr(system, name)[channels] for name in names})
