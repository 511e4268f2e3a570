"""The drop-in that runs reduced filters in the place of a state-space layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ssmred.errors import UnsupportedOperationError, message
from ssmred.networks.filters import LinearFilter
from ssmred.networks.reversal import OneStepDelay

__all__ = ["FilterBlock"]

_CHOOSE_HOW = frozenset({"mode", "detach_state", "set_param"})
"""Arguments of layers that choose how they compute, not what."""

_AT_REST = {"return_state": False, "reset_state": True, "step_scale": 1.0, "rate": 1.0}
"""Further ones, with the value at which they ask for nothing."""


class FilterBlock(nn.Module):
    """Run linear filters in the place of a state-space layer, with the layer's other modules.

    ``output_linear(dropout(activation(filter(before(u)))))``, times ``gate(u)`` before
    ``output_linear`` where there is a gate. The filter is ``core(u)``, for a bidirectional layer
    ``core(u) + reverse(backward(reverse(u)))``, the second term one step later still where
    `delayed`.

    Parameters
    ----------
    core : LinearFilter
        ``ReducedSSM``, ``SharedSSM`` or ``DenseSSM``.
    activation, dropout, output_linear : nn.Module, optional
        Taken from the layer that is replaced; identities by default.
    backward : LinearFilter, optional
        The filter that runs from the end of the sequence to its beginning.
    delayed : bool
        Whether the backward filter sees only what comes after a step (S4Block) or the step too
        (S5): ``sum_{s > t} k_{s-t-1} u_s`` or ``sum_{s >= t} k_{s-t} u_s``.
    copies : int
        Banks of channels that the same input feeds (S4Block's ``channels``); the filters then have
        so many times as many inputs.
    interleaved : bool
        Copies of one feature lie beside each other: ``(u_0, u_0, ..., u_1, u_1, ...)``, not
        ``(u_0, u_1, ..., u_0, u_1, ...)``.
    before : nn.Module, optional
        Comes before the filter.
    gate, after : nn.Module, optional
        The output is ``output_linear(after(dropout(activation(y))) * gate(u))``, u the layer's
        input.
    features_last : bool
        Whether `before`, `gate`, `after` and `output_linear` act on (batch, T, features); the
        others act on (batch, features, T) always.
    transposed : bool
        Whether sequences are (batch, features, T) (True) or (batch, T, features).
    paired : bool
        Return ``(y, None)`` as upstream does, or ``y`` alone.
    heeds_options : bool
        Whether the replaced layer does anything with further arguments: those that would change
        its output are then refused. False for S4D, which takes any and ignores them.
    """

    def __init__(
        self,
        core: LinearFilter,
        activation: nn.Module | None = None,
        dropout: nn.Module | None = None,
        output_linear: nn.Module | None = None,
        *,
        backward: LinearFilter | None = None,
        delayed: bool = True,
        copies: int = 1,
        interleaved: bool = False,
        before: nn.Module | None = None,
        gate: nn.Module | None = None,
        after: nn.Module | None = None,
        features_last: bool = False,
        transposed: bool = True,
        paired: bool = True,
        heeds_options: bool = True,
    ) -> None:
        super().__init__()
        self.core = core
        self.activation = nn.Identity() if activation is None else activation
        self.dropout = nn.Identity() if dropout is None else dropout
        self.output_linear = nn.Identity() if output_linear is None else output_linear
        self.backward = backward
        self.delay = OneStepDelay() if backward is not None and delayed else None
        self.copies = copies
        self.interleaved = interleaved
        self.before = before
        self.gate = gate
        self.after = after
        self.features_last = features_last
        self.transposed = transposed
        self.paired = paired
        self.heeds_options = heeds_options

    @property
    def width(self) -> int | None:
        """Features of the block's input; None where `before` hides it."""
        return self.core.inputs // self.copies if self.before is None else None

    def forward(self, u: torch.Tensor, *unnamed: Any, **options: Any) -> Any:
        """Return the layer's output, with ``None`` in place of a state where upstream has one.

        Parameters
        ----------
        u : torch.Tensor
            (batch, features, T) or (batch, T, features), as the layer had it; with or without the
            batch where nothing but filters is in the block.
        *unnamed, **options
            The layer's further arguments, at the values at which they ask for nothing.

        Raises
        ------
        UnsupportedOperationError
            If a state is handed in or asked for, or steps are scaled.
        """
        if self.heeds_options:
            _check_options(unnamed, options)
        if not self.transposed:
            u = u.transpose(-1, -2)
        x = u if self.before is None else self._on_features(self.before, u)
        y = self.dropout(self.activation(self._filtered(x)))
        if self.gate is not None:
            if self.after is not None:
                y = self._on_features(self.after, y)
            y = y * self._on_features(self.gate, u)
        y = self._on_features(self.output_linear, y)
        if not self.transposed:
            y = y.transpose(-1, -2)
        return (y, None) if self.paired else y

    def _filtered(self, x: torch.Tensor) -> torch.Tensor:
        if self.copies > 1 and self.interleaved:
            x = torch.cat([x.unsqueeze(-2)] * self.copies, dim=-2).flatten(-3, -2)
        elif self.copies > 1:
            x = torch.cat([x] * self.copies, dim=-2)
        y = self.core(x)
        if self.backward is not None:
            z = self.backward(x.flip(-1))
            if self.delay is not None:
                z = self.delay(z)
            y = y + z.flip(-1)
        return y

    def _on_features(self, module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        if not self.features_last:
            return module(x)
        return module(x.transpose(-1, -2)).transpose(-1, -2)


def _check_options(unnamed: tuple[Any, ...], options: dict[str, Any]) -> None:
    """Refuse arguments that would change the output of the layer that was replaced."""
    named = [("a further argument", value) for value in unnamed]
    named += [(name, value) for name, value in options.items() if name not in _CHOOSE_HOW]
    for name, value in named:
        if value is None:
            continue
        plain = isinstance(value, (bool, int, float, str))
        if not (plain and name in _AT_REST and value == _AT_REST[name]):
            raise UnsupportedOperationError(
                message(
                    "FilterBlock",
                    f"{name} would change the output of the layer that was replaced",
                    expected="no state handed in or out, no steps scaled",
                    got=f"{name}={value!r}" if plain else name,
                    cure="Stream with ssmred.networks.StreamingNetwork; put a step scale into the "
                    "layer's steps before it is imported.",
                )
            )
