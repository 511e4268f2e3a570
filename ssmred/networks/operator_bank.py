"""The core of a pruned layer: kernels of the operators that are left, a gain for every channel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self, cast

import numpy as np
import torch
from scipy.fft import next_fast_len
from torch import nn

from ssmred.errors import CheckpointError, OrderError, ShapeError, message
from ssmred.networks.convolution import convolve
from ssmred.networks.filters import ChannelFilter, LinearFilter
from ssmred.networks.layers.dplr import S4Kernel
from ssmred.networks.layers.free_kernels import DenseKernel, ModalKernel
from ssmred.networks.layers.layer import check_choice
from ssmred.networks.layers.operator_kernel import OperatorKernel
from ssmred.networks.layers.s4d import S4DKernel
from ssmred.systems import DenseSystem, DiagonalSystem
from ssmred.systems.linear import LinearSystem

__all__ = ["OperatorBank", "kernel_of"]

KERNELS: dict[str, type[OperatorKernel]] = {
    kind.__name__: kind for kind in (S4DKernel, S4Kernel, ModalKernel, DenseKernel)
}
"""Kernels that a stored bank may hold, by name."""

DTYPES = ("float32", "float64")


class OperatorBank(ChannelFilter):
    """Filter those channels that still have an operator, multiply the others by a gain.

    ``y_h = D_h u_h + (k_h * u_h)`` where channel h is alive, ``y_h = D_h u_h`` where it is not. No
    kernel is generated, stored or applied for a channel that is not.

    Parameters
    ----------
    D : (H,) float
        Direct terms of live channels, gains of the others.
    kernels : sequence of OperatorKernel
        Together as many channels as `live` names.
    live : (n,) int
        The channels of the kernels, one after the other; none twice.
    replacements : int
        How many of the kernels, the last ones, stand in the place of operators that went.

    Raises
    ------
    OrderError
        If `live` does not fit the kernels or D.

    Notes
    -----
    Unlike other filters it keeps its layer's own parameters and their dtype, so that training goes
    on as before. What `LinearFilter` says of eval mode holds: spectra are kept.

    Examples
    --------
    >>> bank = OperatorBank([1.0, 0.5], [ModalKernel([[0.5]], [[2.0]])], [1])
    >>> bank.kernel(3).tolist()
    [[1.0, 0.0, 0.0], [2.5, 1.0, 0.5]]
    """

    live: torch.Tensor

    def __init__(
        self, D: Any, kernels: Sequence[OperatorKernel], live: Any, *, replacements: int = 0
    ) -> None:
        super().__init__()
        direct = torch.as_tensor(D).detach().clone()
        self.D = nn.Parameter(direct if direct.is_floating_point() else direct.double())
        self.kernels = nn.ModuleList(kernels)
        places = torch.as_tensor(live, dtype=torch.int64).detach().clone().reshape(-1)
        total = sum(kernel.channels for kernel in kernels)
        fits = len(places) == total == len(places.unique()) and self.D.ndim == 1
        if not fits or (total and not 0 <= int(places.min()) <= int(places.max()) < len(direct)):
            raise OrderError(
                message(
                    "OperatorBank",
                    "live does not fit",
                    expected=f"{total} different channels of {tuple(self.D.shape)}",
                    got=f"{places.tolist()}",
                )
            )
        self.register_buffer("live", places)
        self.replacements = replacements
        self._tensors: tuple[torch.Tensor, ...] | None = None
        self._whole = self._is_whole()

    # Sizes ---------------------------------------------------------------------------------------

    @property
    def states(self) -> int:
        """Real state dimension of the operators that are left."""
        return sum(core.states for core in self._cores())

    def extra_repr(self) -> str:
        """Describe the layer in the printed network."""
        return f"channels={self.channels}, live={len(self.live)}"

    @property
    def own(self) -> list[int]:
        """Channels that still have the operator they came with, rising."""
        first = self._operators()[: len(self.kernels) - self.replacements]
        return sorted(self.live[: sum(kernel.channels for kernel in first)].tolist())

    # Pruning -------------------------------------------------------------------------------------

    def pruned(self, gains: dict[int, float]) -> OperatorBank:
        """Return a bank in which these channels are multiplied by gains and nothing else.

        Raises
        ------
        OrderError
            If one of the channels has no operator.
        """
        self._check_live(gains)
        gone = torch.tensor(sorted(gains), dtype=torch.int64)
        stays = ~torch.isin(self.live.cpu(), gone)
        kernels, start, replacements = [], 0, 0
        first = len(self.kernels) - self.replacements
        for number, kernel in enumerate(self._operators()):
            own = stays[start : start + kernel.channels]
            start += kernel.channels
            if own.any():
                kernels.append(kernel.taken(own.nonzero()[:, 0].to(self.live.device)))
                replacements += number >= first
        live = self.live[stays.to(self.live.device)]
        return self._like(kernels, live, gains, replacements)

    def masked(self, gains: dict[int, float]) -> OperatorBank:
        """Return what `pruned` returns, but by zero read-outs: nothing is smaller."""
        self._check_live(gains)
        gone = torch.tensor(sorted(gains), dtype=torch.int64, device=self.live.device)
        silent, kernels, start = torch.isin(self.live, gone), [], 0
        for kernel in self._operators():
            own = silent[start : start + kernel.channels]
            start += kernel.channels
            kernels.append(kernel.silenced(own.nonzero()[:, 0]))
        return self._like(kernels, self.live, gains, self.replacements)

    def replaced(self, kernel: OperatorKernel, gains: dict[int, float]) -> OperatorBank:
        """Return a bank in which these channels, in rising order, have a kernel and gain anew."""
        rest = self.pruned(gains)
        added = torch.tensor(sorted(gains), dtype=torch.int64, device=self.live.device)
        live = torch.cat([rest.live, added])
        added_kernel = kernel.to(device=self.D.device, dtype=self.D.dtype)
        return rest._like([*rest.kernels, added_kernel], live, gains, rest.replacements + 1)

    def _operators(self) -> list[OperatorKernel]:
        return cast(list[OperatorKernel], list(self.kernels))

    def _like(
        self,
        kernels: Sequence[OperatorKernel],
        live: torch.Tensor,
        gains: dict[int, float],
        replacements: int,
    ) -> OperatorBank:
        D = self.D.detach().clone()
        for channel, gain in gains.items():
            D[channel] = gain
        bank = OperatorBank(D, kernels, live, replacements=replacements).train(self.training)
        return bank.to(self.D.device)

    def _check_live(self, gains: dict[int, float]) -> None:
        unknown = sorted(set(gains) - set(self.live.tolist()))
        if unknown:
            raise OrderError(
                message(
                    "OperatorBank",
                    "a channel has no operator to remove",
                    expected=f"some of {sorted(self.live.tolist())}",
                    got=f"{unknown}",
                )
            )

    # Conversions ---------------------------------------------------------------------------------

    @classmethod
    def from_system(
        cls, system: LinearSystem, *, orders: Any = None, kept: Any = None
    ) -> OperatorBank:
        """Make a bank of a batch of channels; those without states become gains.

        Parameters
        ----------
        system : DiagonalSystem or DenseSystem
            Real outputs, one input and one output, batch shape (H,).
        orders, kept
            As of `ReducedSSM.from_system` and `DenseSSM.from_system`.
        """
        from ssmred.networks.cores import core_for  # which knows this module

        whole = core_for(system, orders=orders, kept=kept)
        counts = np.asarray(whole.orders if hasattr(whole, "orders") else [])
        if counts.shape != (whole.inputs,):
            raise ShapeError(
                message(
                    "OperatorBank.from_system",
                    "the layer has no operators",
                    expected="independent channels, one input and one output each",
                    got=f"{system!r}",
                )
            )
        stored = whole.to_system()
        live = np.flatnonzero(counts > 0)
        kernels = [kernel_of(stored, live)] if len(live) else []
        return cls(np.real(stored.D).reshape(-1).copy(), kernels, live)

    def to_system(self) -> DiagonalSystem | DenseSystem:
        """Return all channels as one batch, those without operator with a direct term alone."""
        parts = [kernel.to_system() for kernel in self.kernels]
        places = self.live.cpu().split([kernel.channels for kernel in self.kernels])
        D = self.D.detach().double().cpu().numpy().reshape(-1, 1, 1)
        H, delayed = self.channels, [not part.is_post_update for part in parts]
        if all(isinstance(part, DiagonalSystem) for part in parts):
            n = max((part.order for part in parts), default=1)
            poles, B, C = (np.zeros(shape, complex) for shape in ((H, n), (H, n, 1), (H, 1, n)))
            for part, place in zip(parts, places, strict=True):
                poles[place, : part.order] = part.poles
                B[place, : part.order] = part.B
                C[place, :, : part.order] = part.C
            return DiagonalSystem(poles, B, C, D, recurrence="post-update", real_output=True)
        if any(delayed) and not all(delayed):
            raise ShapeError("OperatorBank.to_system: kernels of different recurrences")
        dense = [part.realified().to_dense() for part in parts]
        n = max(part.order for part in dense)
        A, B, C = np.zeros((H, n, n)), np.zeros((H, n, 1)), np.zeros((H, 1, n))
        for part, place in zip(dense, places, strict=True):
            A[place, : part.order, : part.order] = part.A.real
            B[place, : part.order] = part.B.real
            C[place, :, : part.order] = part.C.real
        return DenseSystem(A, B, C, D, recurrence="standard" if all(delayed) else "post-update")

    # Whole sequences -----------------------------------------------------------------------------

    def kernel(self, T: int) -> torch.Tensor:
        """Return the first T impulse-response samples, (H, T) float64; D is part of ``h_0``."""
        response = self.D.new_zeros(self.channels, T, dtype=torch.float64)
        response[:, 0] = self.D.double()
        if len(self.live):
            response = response.index_add(0, self.live, self._responses(T).double())
        return response

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        """Filter (batch, H, T) or (H, T); shape and dtype stay."""
        self._check_signal(u)
        y = u * self.D.to(u.dtype).unsqueeze(-1)
        if not len(self.live):
            return y
        length = u.shape[-1]
        size = next_fast_len(max(2 * length - 1, 1), real=True)
        exact = u.dtype == torch.float64
        part = u if self._whole else u.index_select(-2, self.live)
        signal = part if exact else part.to(torch.float32)
        spectrum = self._spectrum(length, size, torch.complex128 if exact else torch.complex64)
        filtered = convolve(signal, spectrum, size).to(u.dtype)
        return y + filtered if self._whole else y.index_add(-2, self.live, filtered)

    def _spectrum(self, length: int, size: int, dtype: torch.dtype) -> torch.Tensor:
        def make() -> torch.Tensor:
            return torch.fft.rfft(self._responses(length), n=size).to(dtype)

        return self._remembered((length, dtype), make)

    def _responses(self, T: int) -> torch.Tensor:
        """Return the responses of the live channels in the order of `live`, without D."""
        return torch.cat([kernel.responses(T) for kernel in self.kernels])

    def _is_whole(self) -> bool:
        return self.live.tolist() == list(range(self.channels))

    # Streaming -----------------------------------------------------------------------------------

    def initial_state(self, batch: int = 1) -> torch.Tensor:
        """Return the zero state of `batch` streams, (batch, numbers) float64."""
        sizes = sum(core.initial_state(1).numel() for core in self._cores())
        return torch.zeros(batch, sizes, dtype=torch.float64, device=self.D.device)

    def step(
        self, u: torch.Tensor, state: torch.Tensor, *, in_place: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Advance by one time step.

        Parameters
        ----------
        u : torch.Tensor, (batch, H)
        state : torch.Tensor, (batch, numbers) float64
            From `initial_state` or the last step.
        in_place : bool
            Write the next state over `state`.

        Returns
        -------
        y : torch.Tensor, (batch, H), dtype of `u`
        state : torch.Tensor
        """
        cores = self._cores()
        shapes = [core.initial_state(1).shape[1:] for core in cores]
        sizes = [int(np.prod(shape)) for shape in shapes]
        fits = u.ndim == 2 and u.shape[1] == self.channels and state.shape == (len(u), sum(sizes))
        if not (fits and state.dtype == torch.float64):
            raise ShapeError(
                message(
                    "OperatorBank.step",
                    "input and state do not fit the layer",
                    expected=f"u (batch, {self.channels}) and float64 state (batch, {sum(sizes)})",
                    got=f"{tuple(u.shape)} and {state.dtype} {tuple(state.shape)}",
                )
            )
        y = u * self.D.to(u.dtype)
        places = self.live.split([core.inputs for core in cores])
        after = []
        for core, place, part, shape in zip(
            cores, places, state.split(sizes, dim=1), shapes, strict=True
        ):
            answer, new = core.step(u[:, place], part.reshape(len(u), *shape))
            y = y.index_add(1, place, answer)
            after.append(new.reshape(len(u), -1))
        joined = torch.cat(after, dim=1) if after else state.clone()
        return y, state.copy_(joined) if in_place else joined

    def _cores(self) -> list[LinearFilter]:
        """Return one filter with fast steps per kernel."""
        from ssmred.networks.cores import full_core  # which knows this module

        def make() -> list[LinearFilter]:
            return [
                full_core(kernel.to_system()).to(self.D.device).eval() for kernel in self.kernels
            ]

        return self._remembered(("cores",), make)

    # Module machinery ----------------------------------------------------------------------------

    def _stored(self) -> tuple[torch.Tensor, ...]:
        if self._tensors is None:
            self._tensors = tuple(self.parameters())
        return self._tensors

    def clear_cache(self) -> None:
        """Forget what was kept; needed only after writing through ``parameter.data``."""
        super().clear_cache()
        self._tensors = None

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:
        self.clear_cache()  # casts reach the parameters, as in the layer they come from
        return nn.Module._apply(self, fn, recurse)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        self.clear_cache()
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._check_places(prefix)
        self._whole = self._is_whole()

    def _check_places(self, prefix: str) -> None:
        """Raise CheckpointError unless a stored `live` names different channels of this bank."""
        places = self.live.tolist()
        if len(set(places)) < len(places) or not set(places) <= set(range(self.channels)):
            raise CheckpointError(
                message(
                    "OperatorBank",
                    f"{prefix}live does not fit",
                    expected=f"different channels, 0 to {self.channels - 1}",
                    got=f"{places}",
                )
            )

    def _settings(self) -> dict[str, Any]:
        kernels = [{"kind": type(k).__name__, **k.settings} for k in self._operators()]
        dtype = str(self.D.dtype).removeprefix("torch.")
        return {
            "channels": self.channels,
            "kernels": kernels,
            "dtype": dtype,
            "replacements": self.replacements,
        }

    @classmethod
    def _blank(
        cls, *, channels: int, kernels: Sequence[dict[str, Any]], dtype: str, replacements: int
    ) -> Self:
        made = []
        for described in kernels:
            kind, settings = described["kind"], {k: v for k, v in described.items() if k != "kind"}
            made.append(KERNELS[kind].blank(**settings))
        count = sum(kernel.channels for kernel in made)
        bank = cls(np.zeros(channels), made, np.arange(count), replacements=replacements)
        return bank.to(getattr(torch, check_choice(dtype, DTYPES, "dtype", "OperatorBank")))

    def __getstate__(self) -> dict:
        return super().__getstate__() | {"_tensors": None}


def kernel_of(system: LinearSystem, channels: np.ndarray) -> OperatorKernel:
    """Return a trainable kernel of some channels of a batch of single-input systems."""
    if isinstance(system, DiagonalSystem):
        post = system.with_recurrence("post-update")
        residues = post.C[channels, 0] * post.B[channels, :, 0]
        return ModalKernel(post.poles[channels], residues)
    dense = system.to_dense()
    return DenseKernel(
        dense.A[channels].real,
        dense.B[channels, :, 0].real,
        dense.C[channels, 0].real,
        delayed=not system.is_post_update,
    )
