"""What all cores share: float64 parameters, kept spectra, one protocol for sequences and steps.

A *core* is the linear filter inside a layer: `ReducedSSM` (independent diagonal channels),
`SharedSSM` (one diagonal state, many inputs and outputs), `DenseSSM` (independent dense channels).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

import torch
from scipy.fft import next_fast_len
from torch import nn

from ssmred.errors import ShapeError, message
from ssmred.networks.convolution import convolve
from ssmred.systems.linear import LinearSystem

__all__ = ["CACHED_LENGTHS", "ChannelFilter", "LinearFilter", "holds_place", "is_core", "stood_for"]

CACHED_LENGTHS = 8
"""Spectra kept per layer; the oldest goes first."""


class LinearFilter(nn.Module, ABC):
    """Filter sequences (batch, inputs, T) with a linear time-invariant system.

    Notes
    -----
    The parameters stay float64 whatever ``.float()`` or ``.half()`` is called: after a removal
    residues of opposite sign can be much larger than the response. Signals keep their own dtype.
    In eval mode without gradients what a filter computes of its parameters is kept per length,
    dtype and device until a parameter changes. Writing through ``parameter.data[...]`` hides the
    change from torch; call `clear_cache` after it.
    """

    TENSORS: ClassVar[tuple[str, ...]] = ()
    """Keys of its state dict."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: dict[tuple, Any] = {}
        self.stands_for: tuple[str, ...] | None = None
        """Keys of the tensors that it stands in for, where its own are not in the state dict."""

    # What every core offers ----------------------------------------------------------------------

    @property
    @abstractmethod
    def inputs(self) -> int:
        """Number of input features."""

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Number of output features."""

    @property
    @abstractmethod
    def states(self) -> int:
        """Real state dimension: a complex mode counts as two."""

    @classmethod
    @abstractmethod
    def from_system(cls, system: Any, *, orders: Any = None, kept: Any = None) -> Self:
        """Make a core of a system, of its first `orders` modes, or of those `kept`."""

    @abstractmethod
    def to_system(self) -> LinearSystem:
        """Return the system that the core filters with."""

    @abstractmethod
    def kernel(self, T: int) -> torch.Tensor:
        """Return the first T samples of the impulse response, time last, float64."""

    @abstractmethod
    def initial_state(self, batch: int = 1) -> torch.Tensor:
        """Return the zero state of `batch` streams, float64."""

    @abstractmethod
    def step(
        self, u: torch.Tensor, state: torch.Tensor, *, in_place: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Advance by one time step; return the outputs (batch, outputs) and the next state."""

    @abstractmethod
    def _settings(self) -> dict[str, Any]:
        """Return what `_blank` needs to make an empty core of this form."""

    @classmethod
    @abstractmethod
    def _blank(cls, **settings: Any) -> Self:
        """Return a core of a form, for a state dict to fill."""

    # Machinery -----------------------------------------------------------------------------------

    def clear_cache(self) -> None:
        """Forget what was kept; needed only after writing through ``parameter.data``."""
        self._kept = {}

    def _check_signal(self, u: torch.Tensor) -> None:
        if u.ndim < 2 or u.shape[-2] != self.inputs or not u.is_floating_point():
            raise ShapeError(
                message(
                    type(self).__name__,
                    "the input does not fit",
                    expected=f"floating (batch, {self.inputs}, T)",
                    got=f"{u.dtype} {tuple(u.shape)}",
                    cure="Channels come before time; transpose the last two axes if needed.",
                )
            )

    def _remembered(self, key: tuple, make: Callable[[], Any]) -> Any:
        """Return what `make` makes of the parameters, kept where they do not learn."""
        stored = self._stored()
        learning = torch.is_grad_enabled() and any(
            p is not None and p.requires_grad for p in stored
        )
        if self.training or learning:
            return make()
        now = tuple((p._version, p.data_ptr(), p.device) for p in stored)
        value = self._kept.get((key, now))
        if value is None:
            value = make()
            current = [k for k in self._kept if k[1] == now][1 - CACHED_LENGTHS :]
            self._kept = {k: self._kept[k] for k in current} | {(key, now): value}
        return value

    def _stored(self) -> tuple[torch.Tensor | None, ...]:
        """Return the parameters that what is kept was made of."""
        return tuple(self._parameters.values())

    def _convolve(self, u: torch.Tensor) -> torch.Tensor:
        """Convolve every channel with its row of the kernel, (H, T)."""
        self._check_signal(u)
        length = u.shape[-1]
        size = next_fast_len(max(2 * length - 1, 1), real=True)
        exact = u.dtype == torch.float64
        signal = u if exact else u.to(torch.float32)
        dtype = torch.complex128 if exact else torch.complex64
        spectrum = self._spectrum(length, size, dtype)
        return convolve(signal, spectrum, size).to(u.dtype)

    def _spectrum(self, length: int, size: int, dtype: torch.dtype) -> torch.Tensor:
        def make() -> torch.Tensor:
            return torch.fft.rfft(self.kernel(length), n=size).to(dtype)

        return self._remembered((length, dtype), make)

    def train(self, mode: bool = True) -> Self:
        """Set the mode and forget what was kept."""
        self.clear_cache()
        return super().train(mode)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:
        # Follow a move to another device, ignore a cast: the parameters stay float64.
        def keep_dtype(tensor: torch.Tensor) -> torch.Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        self.clear_cache()
        return super()._apply(keep_dtype, recurse)

    def _take_sizes(self, state_dict: dict, prefix: str, check: Callable[..., None]) -> None:
        """Give the tensors the sizes that a state dict has, once `check` has passed them."""
        self.clear_cache()
        stored = {name: state_dict.get(prefix + name) for name in self.TENSORS}
        if all(isinstance(tensor, torch.Tensor) for tensor in stored.values()):
            check(stored, prefix)
            for name, tensor in stored.items():
                own = getattr(self, name)
                if own.shape != tensor.shape:
                    own.data = own.new_zeros(tensor.shape)

    def hide(self, stands_for: Sequence[str]) -> None:
        """Leave the tensors out of the state dict: those named are stored in their place."""
        self.stands_for = tuple(stands_for)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        if self.stands_for is None:
            super()._save_to_state_dict(destination, prefix, keep_vars)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        if self.stands_for is None:
            super()._load_from_state_dict(state_dict, prefix, *args)

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_kept": {}}


def holds_place(module: Any) -> bool:
    """Tell whether a module is a filter that stands in for a stored layer."""
    return isinstance(module, LinearFilter) and module.stands_for is not None


def stood_for(model: nn.Module) -> Callable[[str], bool]:
    """Return what tells whether the module at a path holds tensors that a filter stands for.

    Such a module is what is left of a stored layer: it has the tensors and computes nothing.
    """
    cores = (module for module in model.modules() if isinstance(module, LinearFilter))
    keys = [key for core in cores for key in core.stands_for or ()]

    def tells(path: str) -> bool:
        prefix = f"{path}." if path else ""
        return any(key.startswith(prefix) for key in keys)

    return tells


def is_core(module: Any) -> bool:
    """Tell whether a module is the linear filter of a layer, which needs no adapter."""
    return isinstance(module, LinearFilter)


class ChannelFilter(LinearFilter):
    """A filter of H independent channels, one input and one output each.

    Attributes
    ----------
    D : nn.Parameter, (H,)
        Direct terms.
    """

    D: nn.Parameter

    @property
    def channels(self) -> int:
        """Number of channels, H."""
        return self.D.numel()

    @property
    def inputs(self) -> int:
        """Number of input features, H."""
        return self.D.numel()

    @property
    def outputs(self) -> int:
        """Number of output features, H."""
        return self.D.numel()
