"""The drop-in that runs reduced cores in the place of a shared-state layer (S5, LRU)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from ssmred.errors import CheckpointError, UnsupportedOperationError, message
from ssmred.networks.adapters.shared_checks import CHECKED_SAMPLES, Agreement
from ssmred.networks.copying import copy_module
from ssmred.systems import DiagonalSystem

__all__ = ["BACKWARD", "CORE", "SequenceFilter", "check_block"]

CORE, BACKWARD = "core", "backward"

_WITHOUT_EFFECT = {"mode", "detach_state", "set_param"}
"""Arguments that choose how a layer computes, not what."""

_HARMLESS = {"state": None, "return_state": False, "reset_state": True, "gamma": None}
"""Arguments of the layers that are replaced, with the value at which they ask for nothing."""

BLOCK_TOLERANCE = 2e-4
"""Relative agreement asked of a drop-in in the layer's own dtype; its systems were compared with
the layer to rounding beforehand, only the wiring is left."""


class SequenceFilter(nn.Module):
    """Filter sequences as the shared-state layer did that it replaces; nothing around the filter.

    ``y = core(u)``, or ``y = core(u) + reverse(backward(reverse(u)))`` for bidirectional layers.

    Parameters
    ----------
    core : nn.Module
        Takes and gives (batch, features, T).
    backward : nn.Module, optional
        The filter that runs on the reversed sequence.
    batched, time_first, paired : bool
        The replaced layer's layout; a pair is ``(y, None)``.
    step_scale : float
        The only step scale that the core is good for.
    """

    def __init__(
        self,
        core: nn.Module,
        backward: nn.Module | None = None,
        *,
        batched: bool = True,
        time_first: bool = True,
        paired: bool = False,
        step_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.core = core
        self.backward = backward
        self.batched, self.time_first, self.paired = batched, time_first, paired
        self.step_scale = float(step_scale)

    def forward(self, u: torch.Tensor, *unnamed: Any, **options: Any) -> Any:
        """Return the filtered sequences.

        Parameters
        ----------
        u : torch.Tensor
            (batch, T, features), (T, features) or (batch, features, T), as the layer had it.
        *unnamed, **options
            The replaced layer's further arguments; those that would change the output are refused.

        Raises
        ------
        UnsupportedOperationError
            If a state is handed in or asked for, or the step scale is another one.
        """
        self._check(unnamed, options)
        x = u.transpose(-1, -2) if self.time_first else u
        x = x if self.batched else x.unsqueeze(0)
        y = self.core(x)
        if self.backward is not None:
            y = y + self.backward(x.flip(-1)).flip(-1)
        y = y if self.batched else y.squeeze(0)
        y = y.transpose(-1, -2) if self.time_first else y
        return (y, None) if self.paired else y

    def _check(self, unnamed: tuple[Any, ...], options: dict[str, Any]) -> None:
        allowed = {"step_scale": self.step_scale} | _HARMLESS
        for name, value in options.items():
            if name in _WITHOUT_EFFECT or value is None:
                continue
            wanted = allowed.get(name, value is not value)
            same = isinstance(value, (bool, int, float)) and name in allowed and value == wanted
            if not same:
                raise self._refuse(name, value)
        if any(value is not None for value in unnamed):
            raise self._refuse("a further argument", next(v for v in unnamed if v is not None))

    def _refuse(self, name: str, value: Any) -> UnsupportedOperationError:
        return UnsupportedOperationError(
            message(
                "SequenceFilter",
                f"{name} would change the output of the layer that was replaced",
                expected=f"no state handed in or out, step_scale={self.step_scale}",
                got=f"{name}={value!r}" if isinstance(value, (bool, int, float, str)) else name,
                cure="Stream with the core's step; read the layer again for another step scale.",
            )
        )


class _SimulatedCore(nn.Module):
    """Run a system's recurrence, to compare the wiring of a drop-in."""

    def __init__(self, system: DiagonalSystem) -> None:
        super().__init__()
        self.system = system

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        y = self.system.simulate(u.transpose(-1, -2).double().numpy())
        return torch.from_numpy(np.ascontiguousarray(y)).transpose(-1, -2).to(u.dtype)


def check_block(
    module: nn.Module, agreement: Agreement, cores: dict[str, nn.Module], step_scale: float = 1.0
) -> SequenceFilter:
    """Return the drop-in for a layer, compared with it when it runs the layer's own systems.

    Raises
    ------
    CheckpointError
        If the names of the cores are not those of the systems, or the drop-in answers otherwise.
    """
    where, systems = "to_block", agreement.candidate.systems
    if set(cores) != set(systems):
        raise CheckpointError(
            message(
                where,
                "the cores are not those of the layer",
                expected=f"{sorted(systems)}",
                got=f"{sorted(cores)}",
            )
        )
    layout = agreement.layout
    own = {name: _SimulatedCore(system) for name, system in systems.items()}
    block = SequenceFilter(
        own[CORE],
        own.get(BACKWARD),
        batched=layout.batched,
        time_first=layout.time_first,
        paired=layout.paired,
        step_scale=step_scale,
    )
    layer = copy_module(module).cpu().eval()
    kind = next(t.dtype for t in layer.state_dict().values() if t.is_floating_point())
    shape = (CHECKED_SAMPLES, systems[CORE].inputs)
    shape = shape if layout.time_first else shape[::-1]
    shape = (2, *shape) if layout.batched else shape
    u = torch.from_numpy(np.random.default_rng(1).standard_normal(shape)).to(kind)
    options = {} if step_scale == 1.0 else {"step_scale": step_scale}
    with torch.no_grad():
        wanted, got = layer(u, **options), block(u, **options)
    same = isinstance(wanted, tuple) == layout.paired
    first, second = (a[0] if isinstance(a, tuple) else a for a in (wanted, got))
    same = same and first.shape == second.shape
    if not same or (first - second).abs().max() > BLOCK_TOLERANCE * first.abs().max():
        raise CheckpointError(
            message(
                where,
                f"{type(module).__name__} answers otherwise than its drop-in",
                expected="y = filter(u)",
                cure="Register an adapter of its own with ssmred.networks.register_adapter.",
            )
        )
    block.core = cores[CORE]
    block.backward = cores.get(BACKWARD)
    return block.train(module.training)
