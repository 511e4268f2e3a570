"""What all trainable layers share: signals, steps, systems."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch

from ssmred.errors import OrderError, RequestError, ShapeError, UnsupportedOperationError, message
from ssmred.networks.layers.optimisation import MarkedModule
from ssmred.systems.linear import LinearSystem

__all__ = ["StateSpaceLayer", "check_choice", "check_even", "powers", "to_array"]


class StateSpaceLayer(MarkedModule):
    """Filter sequences (batch, H, T), whole or step by step, with a linear time-invariant system.

    Notes
    -----
    Kernels, powers of poles and the recurrence are computed in float64 whatever the parameters'
    dtype: after k steps a phase ``k arg(l)`` has lost as many digits as it has before the point.
    Signals keep their own dtype.
    """

    MIXINGS: ClassVar[tuple[str, ...]] = ()
    """What the layer itself can do after its filter; empty for a layer that is its filter.

    A layer that mixes answers with a pair, ``(y, None)``, as its original does.
    """

    bidirectional: bool = False

    def __init__(self) -> None:
        super().__init__()
        self._kept: tuple[Any, Any] = (None, None)

    @abstractmethod
    def to_systems(self) -> dict[str, LinearSystem]:
        """Return the filters of the layer, float64: ``"core"``, and ``"backward"`` if it has one.

        Only the linear filter with its direct term: what follows it in the layer is left out.
        """

    def to_system(self) -> LinearSystem:
        """Return the linear filter of the layer as a system in float64.

        Raises
        ------
        UnsupportedOperationError
            If the layer is bidirectional: it holds two.
        """
        systems = self.to_systems()
        if len(systems) > 1:
            raise UnsupportedOperationError(
                message(
                    f"{type(self).__name__}.to_system",
                    "the layer is bidirectional and holds two systems",
                    cure="Call to_systems().",
                )
            )
        return systems["core"]

    @abstractmethod
    def initial_state(self, batch: int = 1) -> torch.Tensor:
        """Return the zero state of `batch` streams."""

    @abstractmethod
    def step(self, u: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Advance by one time step: from (batch, H) and a state to (batch, H) and the next one."""

    @abstractmethod
    def _recurrence(self) -> Any:
        """Return what a step needs of the parameters."""

    # Machinery -----------------------------------------------------------------------------------

    def _step_terms(self) -> Any:
        """Return `_recurrence`, kept until a parameter changes where nothing learns."""
        stored = (*self.parameters(), *self.buffers())
        if self.training or (torch.is_grad_enabled() and any(p.requires_grad for p in stored)):
            return self._recurrence()
        now = tuple((p._version, p.data_ptr(), p.dtype, p.device) for p in stored)
        if self._kept[0] != now:
            self._kept = (now, self._recurrence())
        return self._kept[1]

    def _check_signal(self, u: torch.Tensor, features: int) -> None:
        if u.ndim < 2 or u.shape[-2] != features or not u.is_floating_point():
            raise ShapeError(
                message(
                    type(self).__name__,
                    "the input does not fit",
                    expected=f"floating, {features} channels before time",
                    got=f"{u.dtype} {tuple(u.shape)}, time last",
                )
            )

    def _check_step(self, u: torch.Tensor, state: torch.Tensor, features: int) -> None:
        where = f"{type(self).__name__}.step"
        if self.bidirectional:
            raise UnsupportedOperationError(
                message(
                    where,
                    "a bidirectional layer sees steps to come",
                    cure="Run it on whole sequences.",
                )
            )
        expected = self.initial_state(1)
        fits = u.ndim == 2 and u.shape[1] == features and state.dtype == expected.dtype
        if not fits or state.shape != (u.shape[0], *expected.shape[1:]):
            raise ShapeError(
                message(
                    where,
                    "input and state do not fit the layer",
                    expected=f"u (batch, {features}) and a state as initial_state(batch) makes it",
                    got=f"{tuple(u.shape)} and {state.dtype} {tuple(state.shape)}",
                )
            )

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": (None, None)}


def powers(poles: torch.Tensor, count: int) -> torch.Tensor:
    """Return ``poles ** 0 ... poles ** (count - 1)``, (..., count), by doubling.

    Examples
    --------
    >>> powers(torch.tensor([0.5, 0.0]), 3).tolist()
    [[1.0, 0.5, 0.25], [1.0, 0.0, 0.0]]
    """
    table = torch.ones_like(poles)[..., None]
    base = poles[..., None]
    while table.shape[-1] < count:
        table = torch.cat([table, table * base], dim=-1)
        base = base * base
    return table[..., :count]


def to_array(tensor: torch.Tensor) -> np.ndarray:
    """Return a tensor as an array."""
    return tensor.detach().cpu().resolve_conj().numpy()


def check_choice(value: str, choices: tuple[str, ...], name: str, where: str) -> str:
    """Return an option or raise RequestError."""
    if value not in choices:
        raise RequestError(
            message(
                where, f"unknown {name}", expected=f"one of {', '.join(choices)}", got=repr(value)
            )
        )
    return value


def check_even(states: int, where: str) -> int:
    """Return half of an even number of states or raise OrderError."""
    if states < 2 or states % 2:
        raise OrderError(
            message(
                where,
                "states must be even",
                expected="a positive even number: modes come in conjugate pairs",
                got=f"{states}",
            )
        )
    return states // 2
