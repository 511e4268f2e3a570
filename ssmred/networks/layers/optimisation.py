"""Parameters that learn slower than others: marks on them, and optimiser groups made of the marks.

Poles, steps and input gains of state-space layers are trained with a small rate and without weight
decay, as in the papers of S4, S5 and the LRU.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

from torch import nn

__all__ = ["SLOW_RATE", "MarkedModule", "parameter_groups"]

SLOW_RATE = 1e-3
"""Largest learning rate of a marked parameter."""


class MarkedModule(nn.Module):
    """Mark the parameters named in `SLOW`: ``parameter._optim = {"lr": ..., "weight_decay": 0.0}``.

    Notes
    -----
    A deep copy of a torch parameter loses its attributes; the copy of such a module marks anew.
    """

    SLOW: ClassVar[tuple[str, ...]] = ()

    def mark(self) -> None:
        """Set the marks; to be called once the parameters exist."""
        for name in self.SLOW:
            self._parameters[name]._optim = {"lr": SLOW_RATE, "weight_decay": 0.0}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.mark()

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.mark()  # assign=True exchanges the parameters

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        # torch may put new parameters in the place of the old ones
        answer = super()._apply(*args, **kwargs)
        self.mark()
        return answer


def parameter_groups(
    model: nn.Module, lr: float, weight_decay: float = 0.01
) -> list[dict[str, Any]]:
    """Return the groups of an optimiser: marked parameters with their own rate and decay.

    Parameters
    ----------
    model : nn.Module
    lr : float
        Learning rate of everything without a mark; no mark exceeds it.
    weight_decay : float
        Weight decay of everything without a mark.

    Returns
    -------
    list of dict
        For ``torch.optim.AdamW(groups)``; the unmarked parameters first.

    Examples
    --------
    >>> from ssmred.networks.layers import LRU
    >>> groups = parameter_groups(LRU(2, 4), lr=4e-3, weight_decay=0.1)
    >>> [(len(g["params"]), g["lr"], g["weight_decay"]) for g in groups]
    [(3, 0.004, 0.1), (5, 0.001, 0.0)]
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {(lr, weight_decay): []}
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        mark = getattr(parameter, "_optim", {})
        key = (min(lr, mark.get("lr", lr)), mark.get("weight_decay", weight_decay))
        groups.setdefault(key, []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
        if parameters
    ]
