"""What stands in the place of a removed operator: the input itself, nothing, a gain, few states.

Theory: ``theory/operator-removal.md``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ssmred.checks import check_choice, check_integer
from ssmred.errors import RequestError, message
from ssmred.networks.operator_bank import OperatorBank, kernel_of
from ssmred.prune.network import PrunableNetwork
from ssmred.reductors import BalancedReductor, SubsetReductor
from ssmred.systems import DiagonalSystem
from ssmred.systems.linear import LinearSystem

__all__ = ["REPLACEMENTS", "Replacement", "few_states"]

REPLACEMENTS = ("identity", "zero", "static_gain", "low_order")


@dataclass(frozen=True)
class Replacement:
    """Name what stands in the place of removed operators.

    Attributes
    ----------
    kind : {"identity", "zero", "static_gain", "low_order"}
        The channel's input, D dropped (S4oP's bypass; nothing in a filter that runs backwards);
        nothing; the best multiple of the input; a system with few states.
    order : int
        Real states of "low_order", even.
    """

    kind: str = "static_gain"
    order: int = 2

    def __post_init__(self) -> None:
        """Check the name and the order."""
        check_choice(self.kind, REPLACEMENTS, "replacement", "prune")
        if check_integer(self.order, "order", "prune", low=2) % 2:
            raise RequestError(
                message(
                    "prune",
                    "order is odd",
                    expected="an even number of real states: modes come in conjugate pairs",
                    got=f"{self.order}",
                )
            )

    def gains(self, layer: str, static: np.ndarray) -> np.ndarray:
        """Return the gain (H,) of every channel, given the best static ones."""
        if self.kind == "static_gain":
            return static
        bypass = self.kind == "identity" and not layer.endswith(".backward")
        return np.full_like(static, 1.0 if bypass else 0.0)

    def substitutes(self, network: PrunableNetwork, horizon: int) -> dict[str, OperatorBank] | None:
        """Return banks of what would stand for every channel, where that is not a gain."""
        if self.kind != "low_order":
            return None
        made = {}
        for name, bank in network.banks.items():
            small = few_states(bank.to_system(), self.order, horizon)
            D = torch.from_numpy(np.real(small.D).reshape(-1).copy())
            every = np.arange(bank.channels)
            made[name] = OperatorBank(D, [kernel_of(small, every)], every).to(bank.D)
        return made

    def applied(
        self,
        network: PrunableNetwork,
        removed: Mapping[str, Sequence[int]],
        gains: Mapping[str, np.ndarray],
        substitutes: Mapping[str, OperatorBank] | None = None,
    ) -> PrunableNetwork:
        """Return the network with these operators replaced; its tensors are really smaller."""
        if substitutes is None:
            chosen = {n: {c: float(gains[n][c]) for c in found} for n, found in removed.items()}
            return network.pruned(chosen)
        banks = {}
        for name, found in removed.items():
            if found:
                channels = torch.tensor(sorted(found))
                kernel = substitutes[name].kernels[0].taken(channels)
                direct = {c: float(substitutes[name].D.detach()[c]) for c in found}
                banks[name] = network.banks[name].replaced(kernel, direct)
        return network.with_banks(banks)


def few_states(system: LinearSystem, order: int, horizon: int) -> LinearSystem:
    """Return every channel with few real states and its best read-out in the h2 norm.

    Diagonal systems keep poles (subset, finite horizon); dense ones are balanced and truncated.
    """
    if isinstance(system, DiagonalSystem):
        path = SubsetReductor(horizon=horizon).path(system)
        modes = np.full(system.batch_shape, min(order // 2, system.order))
        return path.reduction(modes).system
    return BalancedReductor(horizon=horizon).reduce(system, order=min(order, system.order)).system
