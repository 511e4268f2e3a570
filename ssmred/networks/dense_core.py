"""Independent channels with a full real matrix each, for systems that no diagonal form holds."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from ssmred.errors import CheckpointError, OrderError, ShapeError, message
from ssmred.networks.filters import ChannelFilter
from ssmred.networks.layers.free_kernels import powers_onto
from ssmred.networks.ragged import check_tensors
from ssmred.systems import DenseSystem
from ssmred.systems.linear import LinearSystem

__all__ = ["DenseSSM"]


class DenseSSM(ChannelFilter):
    """Filter every channel with its own dense real system.

    ``x_k = A x_{k-1} + B u_k``, ``y_k = C x_k + D u_k`` (post-update), or
    ``y_k = C x_{k-1} + D u_k`` where `delayed`.

    Parameters
    ----------
    A : (H, n, n) float
    B, C : (H, n) float
    D : (H,) float, optional
        Zeros by default.
    orders : (H,) int, optional
        States of every channel, n by default; the others are padding, all zeros.
    delayed : bool
        Whether the output sees the state before the update.

    Attributes
    ----------
    A, B, C, D : nn.Parameter, float64
    orders : buffer, (H,) int64

    Raises
    ------
    ShapeError
        If the arrays do not fit each other.
    OrderError
        If an order is not between 0 and n, or a channel has numbers beyond its order.

    Notes
    -----
    See `LinearFilter` on dtypes and on what is kept. A state dict with another n loads.

    Examples
    --------
    A delay of one step, and a decay:

    >>> layer = DenseSSM([[[0.0, 1.0], [0.0, 0.0]], [[0.5, 0.0], [0.0, 0.0]]],
    ...                  [[0.0, 1.0], [1.0, 0.0]], [[1.0, 0.0], [1.0, 0.0]], orders=[2, 1])
    >>> layer.kernel(4).tolist()
    [[0.0, 1.0, 0.0, 0.0], [1.0, 0.5, 0.25, 0.125]]
    >>> layer.states
    3
    """

    TENSORS: ClassVar[tuple[str, ...]] = ("A", "B", "C", "D", "orders")

    orders: torch.Tensor

    def __init__(
        self, A: Any, B: Any, C: Any, D: Any = None, *, orders: Any = None, delayed: bool = False
    ) -> None:
        super().__init__()
        A, B, C = (np.array(_plain(array), dtype=np.float64) for array in (A, B, C))
        H, n = A.shape[:2] if A.ndim == 3 else (0, -1)
        direct = np.zeros(H) if D is None else np.array(_plain(D), dtype=np.float64)
        shapes = [array.shape for array in (A, B, C, direct)]
        if shapes != [(H, n, n), (H, n), (H, n), (H,)]:
            raise ShapeError(
                message(
                    "DenseSSM",
                    "the arrays do not fit each other",
                    expected="A (H, n, n), B (H, n), C (H, n), D (H,)",
                    got=f"{shapes}",
                )
            )
        counts = np.full(H, n) if orders is None else np.asarray(_plain(orders))
        good = counts.shape == (H,) and counts.dtype.kind in "iu"
        good = good and bool(((counts >= 0) & (counts <= n)).all())
        if not good or _beyond(A, B, C, counts):
            raise OrderError(
                message(
                    "DenseSSM",
                    "orders are not usable",
                    expected=f"({H},) whole numbers up to {n}, and zeros beyond them",
                    got=repr(orders),
                )
            )
        self.A, self.B, self.C, self.D = (
            nn.Parameter(torch.from_numpy(array)) for array in (A, B, C, direct)
        )
        self.register_buffer("orders", torch.from_numpy(counts.astype(np.int64)))
        self.delayed = bool(delayed)

    # Sizes ---------------------------------------------------------------------------------------

    @property
    def states(self) -> int:
        """Real state dimension of all channels together, padding not counted."""
        return int(self.orders.sum())

    def extra_repr(self) -> str:
        """Describe the layer in the printed network."""
        late = ", delayed=True" if self.delayed else ""
        return f"channels={self.channels}, states={self.states}{late}"

    # Conversions ---------------------------------------------------------------------------------

    @classmethod
    def from_system(cls, system: LinearSystem, *, orders: Any = None, kept: Any = None) -> DenseSSM:
        """Make a layer of a batch of real single-input single-output systems.

        Parameters
        ----------
        system : DenseSystem or DiagonalSystem
            Batch shape (H,), real outputs, in either recurrence, which is kept; a complex one is
            written with twice as many real states.
        orders : (H,) int, optional
            Channel h keeps its first ``orders[h]`` states. By default everything but trailing
            padding (rows and columns of A, B and C all 0) is kept.
        kept : None
            States of a dense system cannot be picked one by one.

        Raises
        ------
        ShapeError
            If the system is not such a layer, or `kept` is given.
        """
        where = "DenseSSM.from_system"
        fits = isinstance(system, LinearSystem) and len(system.batch_shape) == 1
        fits = fits and system.inputs == system.outputs == 1 and system.is_real
        if not (fits and system.is_discrete and kept is None):
            raise ShapeError(
                message(
                    where,
                    "the system is not a layer of dense channels",
                    expected="discrete, real outputs, batch shape (H,), one input and one output; "
                    "kept=None",
                    got=f"{system!r}",
                )
            )
        dense = system.realified()
        A, B, C = dense.A, dense.B[..., 0], dense.C[..., 0, :]
        n = dense.order
        live = (A != 0).any(axis=1) | (A != 0).any(axis=2) | (B != 0) | (C != 0)
        counts = np.where(live.any(axis=1), n - live[:, ::-1].argmax(axis=1), 0)
        if orders is not None:
            counts = np.asarray(orders)
            if counts.shape != (len(A),) or (counts < 0).any() or (counts > n).any():
                raise OrderError(
                    message(where, "orders do not fit", expected=f"({len(A)},) up to {n}")
                )
        width = max(int(counts.max(initial=0)), 1)
        used = np.arange(width) < counts[:, None]
        A = np.where(used[:, :, None] & used[:, None, :], A[:, :width, :width], 0.0)
        B, C = (np.where(used, array[:, :width], 0.0) for array in (B, C))
        return cls(A, B, C, dense.D[:, 0, 0], orders=counts, delayed=not system.is_post_update)

    def to_system(self) -> DenseSystem:
        """Return the channels as one batch of real systems, padding included.

        Returns
        -------
        DenseSystem
            A (H, n, n), B (H, n, 1), C (H, 1, n), D (H, 1, 1); recurrence "standard" where the
            layer is delayed.
        """
        A, B, C, D = (p.detach().cpu().numpy().copy() for p in (self.A, self.B, self.C, self.D))
        recurrence = "standard" if self.delayed else "post-update"
        return DenseSystem(A, B[..., None], C[:, None, :], D[:, None, None], recurrence=recurrence)

    # Whole sequences -----------------------------------------------------------------------------

    def kernel(self, T: int) -> torch.Tensor:
        """Return the first T impulse-response samples, (H, T) float64; D is part of ``h_0``.

        Notes
        -----
        ``h_{qb + r} = (C A^{qb}) (A^r B)`` with b about ``sqrt(T)``: both tables grow by doubling
        with repeated squares of A, ``O(H n^2 (n log T + sqrt(T)))``, and one batched matrix product
        joins them.
        """
        count = int(T) - int(self.delayed)
        response = self.D.new_zeros(self.channels, 0)
        if count > 0:
            block = 1 << max(0, (count - 1).bit_length() + 1) // 2
            fine, power = powers_onto(self.A, self.B[..., None], block)
            coarse, _ = powers_onto(power.mT, self.C[..., None], -(-count // block))
            response = (coarse.mT @ fine).reshape(self.channels, -1)[:, :count]
        if self.delayed:
            return torch.cat([self.D[:, None], response], dim=1)
        return torch.cat([self.D[:, None] + response[:, :1], response[:, 1:]], dim=1)

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        """Convolve every channel with its kernel.

        Parameters
        ----------
        u : torch.Tensor, (batch, H, T) or (H, T)

        Returns
        -------
        torch.Tensor, shape and dtype of `u`
        """
        return self._convolve(u)

    # Streaming -----------------------------------------------------------------------------------

    def initial_state(self, batch: int = 1) -> torch.Tensor:
        """Return the zero state of `batch` streams, (batch, H, n) float64."""
        return self.B.new_zeros(batch, *self.B.shape)

    def step(
        self, u: torch.Tensor, state: torch.Tensor, *, in_place: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Advance by one time step.

        Parameters
        ----------
        u : torch.Tensor, (batch, H)
        state : torch.Tensor, (batch, H, n) float64
        in_place : bool
            Write the next state over `state`.

        Returns
        -------
        y : torch.Tensor, (batch, H), dtype of `u`
        state : torch.Tensor, (batch, H, n) float64
        """
        fits = u.ndim == 2 and state.ndim == 3 and u.shape[0] == state.shape[0]
        fits = fits and u.shape[1] == self.inputs and state.shape[1:] == self.B.shape
        if not (fits and state.dtype == torch.float64):
            raise ShapeError(
                message(
                    "DenseSSM.step",
                    "input and state do not fit the layer",
                    expected=f"u (batch, {self.inputs}) and float64 state "
                    f"(batch, {', '.join(map(str, self.B.shape))})",
                    got=f"{tuple(u.shape)} and {state.dtype} {tuple(state.shape)}",
                )
            )
        signal = u.to(torch.float64)
        after = (self.A @ state.permute(1, 2, 0)).permute(2, 0, 1) + self.B * signal[..., None]
        seen = state if self.delayed else after
        y = (seen * self.C).sum(dim=-1) + self.D * signal
        return y.to(u.dtype), state.copy_(after) if in_place else after

    # Module machinery ----------------------------------------------------------------------------

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        self._take_sizes(state_dict, prefix, self._check_stored)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _check_stored(self, stored: dict[str, torch.Tensor], prefix: str) -> None:
        H, n = self.channels, stored["B"].shape[-1] if stored["B"].ndim else 0
        shapes = {"A": (H, n, n), "B": (H, n), "C": (H, n), "D": (H,)}
        check_tensors("DenseSSM", stored, shapes, prefix)
        A, B, C = (stored[name].numpy(force=True) for name in ("A", "B", "C"))
        counts = stored["orders"].numpy(force=True)
        good = counts.shape == (H,) and counts.dtype == np.int64
        if not good or _beyond(A, B, C, counts):
            raise CheckpointError(
                message(
                    "DenseSSM",
                    f"{prefix}orders does not fit {prefix}A",
                    expected=f"int64 ({H},), up to {n}, and zeros beyond them",
                    got=f"{counts.dtype} {counts.shape}",
                )
            )

    def _settings(self) -> dict[str, Any]:
        return {"channels": self.channels, "delayed": self.delayed}

    @classmethod
    def _blank(cls, *, channels: int, delayed: bool) -> DenseSSM:
        return cls(*(np.zeros((channels, *[0] * k)) for k in (2, 1, 1)), delayed=delayed)


def _plain(values: Any) -> Any:
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else values


def _beyond(A: np.ndarray, B: np.ndarray, C: np.ndarray, orders: np.ndarray) -> bool:
    """Tell whether a channel has numbers beyond its order, or orders reach beyond the arrays."""
    n = B.shape[-1]
    if ((orders < 0) | (orders > n)).any():
        return True
    rest = np.arange(n) >= orders[:, None]
    return bool(A[rest].any() or np.swapaxes(A, 1, 2)[rest].any() or B[rest].any() or C[rest].any())
