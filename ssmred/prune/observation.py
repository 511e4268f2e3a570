"""What calibration inputs say of every operator: its energies, and how much its output matters.

Theory: ``theory/operator-removal.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from ssmred.networks.operator_bank import OperatorBank
from ssmred.networks.sensing import Objective, sensitivities
from ssmred.prune.network import PrunableNetwork

__all__ = ["LayerObservation", "observe"]

TINY = 1e-300


@dataclass(frozen=True, eq=False)
class LayerObservation:
    """Hold moments of one layer's channels: input u, output y, output gradient g, all (S, H, T).

    Attributes
    ----------
    energy_in, energy_out, product : (H,) float64
        ``sum |u|^2``, ``sum |y|^2`` and ``sum u y`` over all inputs and steps.
    gradient_in, gradient_out : (S, H) float64
        ``sum_t g u`` and ``sum_t g y`` of every calibration input.
    gradient_energy : (H,) float64
        Mean of ``g^2``.
    gradient_substitute : (S, H) float64, optional
        ``sum_t g y'``, y' what would stand in the place of y where that is no gain.
    """

    energy_in: np.ndarray
    energy_out: np.ndarray
    product: np.ndarray
    gradient_in: np.ndarray
    gradient_out: np.ndarray
    gradient_energy: np.ndarray
    gradient_substitute: np.ndarray | None = None

    @property
    def gains(self) -> np.ndarray:
        """The static gains (H,) nearest to the operators: ``sum u y / sum u^2``."""
        return self.product / np.maximum(self.energy_in, TINY)

    def residual_energy(self, gains: np.ndarray) -> np.ndarray:
        """Return ``sum |y - g u|^2`` (H,) for gains g, which a static gain leaves."""
        left = self.energy_out - 2 * gains * self.product + gains**2 * self.energy_in
        return np.maximum(left, 0.0)

    def output_change(self, gains: np.ndarray) -> np.ndarray:
        """Return the first-order change of the output projection, or the loss, (S, H) per input.

        Of the substitutes where there are some, and otherwise of the gains (H,).
        """
        if self.gradient_substitute is not None:
            return self.gradient_out - self.gradient_substitute
        return self.gradient_out - gains * self.gradient_in


def observe(
    network: PrunableNetwork,
    data: torch.Tensor,
    *,
    seed: int,
    substitutes: Mapping[str, OperatorBank] | None = None,
    objective: Objective | None = None,
) -> dict[str, LayerObservation]:
    """Return what every layer's channels do on calibration inputs, in one pass forth and back.

    Parameters
    ----------
    network : PrunableNetwork
        In eval mode.
    data : torch.Tensor, (S, T, ...)
    seed : int
        Of the random signs that project the network's output.
    substitutes : mapping of str to OperatorBank, optional
        What would stand in the place of every channel.
    objective : callable, optional
        What to differentiate instead of random projections; see `ssmred.networks.sensing`.
    """
    learning = [p for p in network.model.parameters() if p.requires_grad]
    for parameter in learning:  # kernels are kept where nothing learns
        parameter.requires_grad_(False)
    try:
        return _observed(network, data, seed, substitutes, objective)
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


def _observed(
    network: PrunableNetwork,
    data: torch.Tensor,
    seed: int,
    substitutes: Mapping[str, OperatorBank] | None,
    objective: Objective | None,
) -> dict[str, LayerObservation]:
    banks = network.banks
    sums: dict[str, list[list[np.ndarray]]] = {name: [] for name in banks}
    signals = sensitivities(network.model, dict(banks), data, seed=seed, objective=objective)
    for part in signals:
        for name, bank in banks.items():
            u, g = part[name].inputs, part[name].sensitivities.double()
            with torch.no_grad():
                y = bank(u).double()
                others = [] if substitutes is None else [substitutes[name](u).double()]
            u = u.double()
            row = [(u * u).sum((0, 2)), (y * y).sum((0, 2)), (u * y).sum((0, 2))]
            row += [(g * u).sum(-1), (g * y).sum(-1), (g * g).mean(-1)]
            row += [(g * other).sum(-1) for other in others]
            sums[name].append([tensor.cpu().numpy() for tensor in row])
    found = {}
    for name, rows in sums.items():
        totals = [np.sum([row[k] for row in rows], axis=0) for k in range(3)]
        each = [np.concatenate([row[k] for row in rows]) for k in range(3, len(rows[0]))]
        other = each[3] if len(each) > 3 else None
        found[name] = LayerObservation(*totals, each[0], each[1], each[2].mean(axis=0), other)
    return found
