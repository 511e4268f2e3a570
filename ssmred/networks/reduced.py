"""The reduced layer: independent diagonal channels, each with an order of its own."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from ssmred.errors import OrderError, ShapeError, message
from ssmred.kernels.step import fill_step
from ssmred.networks.filters import ChannelFilter
from ssmred.networks.ragged import as_complex, as_pairs, check_stored, power_tables
from ssmred.systems import DiagonalSystem
from ssmred.systems.linear import LinearSystem


class ReducedSSM(ChannelFilter):
    """Filter every channel with its own diagonal system.

    ``x_k = l x_{k-1} + u_k`` (post-update), ``y_k = Re(sum_i r_i x_{k,i}) + D u_k``, so
    ``h_k = Re(sum_i r_i l_i^k)`` and ``D`` is added to ``h_0``.

    Parameters
    ----------
    orders : (H,) int
        Modes of every channel; a mode is a pole and its conjugate, two real states.
    poles, residues : (K,) complex, optional
        All modes, channel after channel, ``K = orders.sum()``; the residue is ``C B`` and holds the
        factor 2 of a half spectrum. Zeros by default (for a state dict to fill).
    D : (H,) float, optional
        Direct terms; zeros by default.

    Attributes
    ----------
    poles, residues : nn.Parameter, (K, 2) float64
        Real and imaginary parts.
    D : nn.Parameter, (H,) float64
    offsets : buffer, (H + 1,) int64
        Channel h owns the modes ``offsets[h]`` to ``offsets[h + 1]``.

    Raises
    ------
    OrderError
        If an order is negative or not whole, or the modes are not as many as the orders say.

    Notes
    -----
    The parameters stay float64 whatever ``.float()`` or ``.half()`` is called: after a removal
    residues of opposite sign can be much larger than the response. Signals keep their own dtype.
    In eval mode without gradients the spectrum of the kernel is kept per length, dtype and device
    until a parameter changes. Writing through ``parameter.data[...]`` hides the change from torch;
    call `clear_cache` after it.
    A state dict of another size loads: the parameters take the sizes stored in it.

    Examples
    --------
    >>> layer = ReducedSSM([1, 0], poles=[0.5], residues=[2.0], D=[0.0, 3.0])
    >>> layer.kernel(3).tolist()
    [[2.0, 1.0, 0.5], [3.0, 0.0, 0.0]]
    >>> layer.states
    2
    """

    TENSORS: ClassVar[tuple[str, ...]] = ("poles", "residues", "D", "offsets")

    offsets: torch.Tensor

    def __init__(self, orders: Any, poles: Any = None, residues: Any = None, D: Any = None) -> None:
        super().__init__()
        counts = np.asarray(orders)
        if counts.ndim != 1 or counts.dtype.kind not in "iu" or (counts < 0).any():
            raise OrderError(
                message(
                    "ReducedSSM",
                    "orders are not usable",
                    expected="one whole number >= 0 per channel, shape (H,)",
                    got=repr(orders),
                )
            )
        offsets = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        modes = int(offsets[-1])
        self.poles = nn.Parameter(as_pairs(poles, modes, "poles"))
        self.residues = nn.Parameter(as_pairs(residues, modes, "residues"))
        if isinstance(D, torch.Tensor):
            direct = D.detach().clone().double()
        else:
            direct = torch.tensor(np.zeros(counts.size) if D is None else np.array(D, np.float64))
        if tuple(direct.shape) != counts.shape:
            raise ShapeError(
                message(
                    "ReducedSSM",
                    "D has the wrong shape",
                    expected=f"{counts.shape}",
                    got=f"{tuple(direct.shape)}",
                )
            )
        self.D = nn.Parameter(direct)
        self.register_buffer("offsets", torch.from_numpy(offsets))
        self._views: tuple[list[int], tuple[np.ndarray, ...]] | None = None

    # Sizes ---------------------------------------------------------------------------------------

    @property
    def orders(self) -> np.ndarray:
        """Modes of every channel, (H,) int64."""
        return np.diff(self.offsets.cpu().numpy())

    @property
    def states(self) -> int:
        """Real state dimension: two per mode."""
        return 2 * self.poles.shape[0]

    def extra_repr(self) -> str:
        """Describe the layer in the printed network."""
        return f"channels={self.channels}, states={self.states}"

    # Conversions ---------------------------------------------------------------------------------

    @classmethod
    def from_system(
        cls, system: LinearSystem, *, orders: Any = None, kept: Any = None
    ) -> ReducedSSM:
        """Make a layer of a batched single-input single-output real-output system.

        Parameters
        ----------
        system : DiagonalSystem
            Poles (H, n) or (n,), real output, one input and one output per channel; brought to the
            post-update recurrence.
        orders : (H,) int, optional
            Channel h keeps its first ``orders[h]`` modes.
        kept : (H, n) bool, optional
            The modes to keep. With neither, everything but padding (pole, B and C all 0) is kept.

        Returns
        -------
        ReducedSSM

        Raises
        ------
        ShapeError
            If the system is not such a layer, or `orders` or `kept` do not fit it.
        """
        layer = _as_layer_system(system)
        poles = np.atleast_2d(layer.poles)
        B = np.reshape(layer.B, poles.shape)
        C = np.reshape(layer.C, poles.shape)
        if orders is not None and kept is not None:
            raise ShapeError(
                message(
                    "ReducedSSM.from_system", "orders and kept are both given", cure="Pass one."
                )
            )
        if kept is not None:
            mask = np.asarray(kept)
            fits = mask.shape == poles.shape and mask.dtype == bool
        elif orders is not None:
            counts = np.asarray(orders)
            fits = counts.shape == poles.shape[:1] and counts.dtype.kind in "iu"
            fits = fits and bool(((counts >= 0) & (counts <= poles.shape[1])).all())
            mask = np.arange(poles.shape[1]) < counts[:, None] if fits else np.zeros(0, bool)
        else:
            mask, fits = (poles != 0) | (B != 0) | (C != 0), True
        if not fits:
            raise ShapeError(
                message(
                    "ReducedSSM.from_system",
                    "orders or kept do not fit the system",
                    expected=f"orders ({len(poles)},) int up to {poles.shape[1]} or kept "
                    f"{poles.shape} bool",
                    got=repr(kept if orders is None else orders),
                )
            )
        D = np.broadcast_to(np.reshape(np.real(layer.D), -1), len(poles))
        return cls(mask.sum(axis=1), poles[mask], (C * B)[mask], D)

    def to_system(self) -> DiagonalSystem:
        """Return the channels as one batched post-update system, padded to the largest order.

        Returns
        -------
        DiagonalSystem
            Poles (H, n), B (H, n, 1) of ones, C (H, 1, n) the residues, D (H, 1, 1), real output;
            padding is pole 0, B 0, C 0.
        """
        poles, residues = as_complex(self.poles), as_complex(self.residues)
        mask = np.arange(max(int(self.orders.max(initial=0)), 1)) < self.orders[:, None]
        padded = np.zeros((3, *mask.shape), dtype=np.complex128)
        padded[0][mask], padded[1][mask], padded[2][mask] = poles, 1.0, residues
        return DiagonalSystem(
            padded[0],
            padded[1][..., None],
            padded[2][:, None, :],
            self.D.detach().cpu().numpy().reshape(-1, 1, 1),
            recurrence="post-update",
            real_output=True,
        )

    # Whole sequences -----------------------------------------------------------------------------

    def kernel(self, T: int) -> torch.Tensor:
        """Return the first T impulse-response samples, (H, T) float64; D is part of ``h_0``.

        Notes
        -----
        Cost ``O(K sqrt(T) + H n T)`` with n the largest order: powers come from a table of
        ``l^j`` and one of ``l^{bj}``, and one batched matrix product joins them. On CPU without
        gradients the table entries are correct to one rounding.
        """
        orders = self.offsets.diff()
        width = int(orders.max()) if orders.numel() else 0
        block = 1 << max(0, (int(T) - 1).bit_length() + 1) // 2  # about sqrt(T)
        rows = -(-int(T) // block)
        if self.poles.shape[0]:
            column = torch.arange(width, device=orders.device)
            used = column < orders[:, None]
            index = torch.where(used, self.offsets[:-1, None] + column, 0)
            low, start = power_tables(self.poles, block, rows)
            start = start * torch.view_as_complex(self.residues)[:, None]
            start = torch.where(used[..., None], start[index], 0.0)
            left = torch.cat([start.real, -start.imag], dim=1).transpose(1, 2)
            right = torch.cat([low.real[index], low.imag[index]], dim=1)
            response = (left @ right).reshape(self.channels, -1)[:, :T]
        else:
            response = self.D.new_zeros(self.channels, T)
        direct = torch.zeros_like(response)
        direct[:, 0] = self.D
        return response + direct

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        """Convolve every channel with its kernel.

        Parameters
        ----------
        u : torch.Tensor, (B, H, T) or (H, T)
            Input sequences.

        Returns
        -------
        torch.Tensor, shape and dtype of `u`
        """
        return self._convolve(u)

    def clear_cache(self) -> None:
        """Forget the kernels; needed only after writing through ``parameter.data``."""
        super().clear_cache()
        self._views = None

    # Streaming -----------------------------------------------------------------------------------

    def initial_state(self, batch: int = 1) -> torch.Tensor:
        """Return the zero state of `batch` streams, (batch, K, 2) float64."""
        return self.poles.new_zeros(batch, *self.poles.shape)

    def step(
        self, u: torch.Tensor, state: torch.Tensor, *, in_place: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Advance by one time step.

        Parameters
        ----------
        u : torch.Tensor, (B, H)
            The inputs of this step.
        state : torch.Tensor, (B, K, 2) float64
            From `initial_state` or the last step.
        in_place : bool
            Write the next state over `state`, which saves memory traffic; otherwise `state` is
            left alone.

        Returns
        -------
        y : torch.Tensor, (B, H), dtype of `u`
        state : torch.Tensor, (B, K, 2) float64

        Notes
        -----
        Cost proportional to the modes kept. A compiled loop on CPU; torch operations elsewhere and
        where gradients are wanted.
        """
        poles, residues, D, offsets = self._arrays()
        fits = u.ndim == 2 and state.ndim == 3 and u.shape[0] == state.shape[0]
        fits = fits and u.shape[1] == D.size and state.shape[1:] == poles.shape
        if not (fits and state.dtype == torch.float64):
            raise ShapeError(
                message(
                    "ReducedSSM.step",
                    "input and state do not fit the layer",
                    expected=f"u (batch, {D.size}) and float64 state (batch, {len(poles)}, 2)",
                    got=f"{tuple(u.shape)} and {state.dtype} {tuple(state.shape)}",
                )
            )
        learning = torch.is_grad_enabled() and any(
            t.requires_grad for t in (u, state, *self._parameters.values())
        )
        plain = u.dtype in (torch.float32, torch.float64) and u.device.type == "cpu"
        if plain and not learning and self.D.device.type == "cpu":
            values, before = u.detach().numpy(), state.detach().numpy()
            y = np.empty(values.shape, values.dtype)
            after = before if in_place else np.empty(before.shape)
            fill_step(poles, residues, D, offsets, values, before, after, y)
            return torch.from_numpy(y), state if in_place else torch.from_numpy(after)
        channel = torch.repeat_interleave(
            torch.arange(self.channels, device=u.device), self.offsets.diff()
        )
        signal = u.to(torch.float64)
        x = torch.view_as_complex(state) * torch.view_as_complex(self.poles) + signal[:, channel]
        parts = (torch.view_as_complex(self.residues) * x).real
        y = (signal * self.D).index_add(1, channel, parts)
        after = torch.view_as_real(x)
        return y.to(u.dtype), state.copy_(after) if in_place else after

    def _arrays(self) -> tuple[np.ndarray, ...]:
        """Return the stored tensors as arrays (views on CPU, kept: making them costs a step)."""
        stored = (*self._parameters.values(), self._buffers["offsets"])
        places = [tensor.data_ptr() for tensor in stored]
        if self._views is None or self._views[0] != places:
            self._views = (places, tuple(tensor.detach().cpu().numpy() for tensor in stored))
        return self._views[1]

    # Module machinery ----------------------------------------------------------------------------

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        self._take_sizes(state_dict, prefix, check_stored)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _settings(self) -> dict[str, Any]:
        return {}

    @classmethod
    def _blank(cls) -> ReducedSSM:
        return cls([0])

    def __getstate__(self) -> dict:
        return super().__getstate__() | {"_views": None}


def _as_layer_system(system: LinearSystem) -> DiagonalSystem:
    where = "ReducedSSM.from_system"
    single = system.inputs == system.outputs == 1 and len(system.batch_shape) <= 1
    if not (isinstance(system, DiagonalSystem) and system.real_output and single):
        raise ShapeError(
            message(
                where,
                "the system is not a layer",
                expected="a DiagonalSystem, real_output=True, one input and one output per "
                "channel, poles (H, n)",
                got=f"{system!r}",
            )
        )
    return system.with_recurrence("post-update")
