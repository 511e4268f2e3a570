"""What the removal of each operator costs: by chance, by h2 errors, by data, by the loss."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ssmred.networks.sensing import Objective
from ssmred.prune.network import PrunableNetwork
from ssmred.prune.observation import LayerObservation, observe
from ssmred.prune.replacement import Replacement

__all__ = ["SELECTIONS", "Costs", "costs_of"]

SELECTIONS = ("random", "h2", "calibrated", "gradient")

REMOVED = np.inf
"""Cost of an operator that is gone already, which is never asked for."""


@dataclass(frozen=True, eq=False)
class Costs:
    """Hold what removals cost and what would stand in the place of the operators.

    Attributes
    ----------
    scores, gains : dict of str to (H,) float64
        By layer.
    substitutes : dict of str to OperatorBank, or None
        Where replacements have states.
    """

    scores: dict[str, np.ndarray]
    gains: dict[str, np.ndarray]
    substitutes: dict | None


def costs_of(
    network: PrunableNetwork,
    selection: str,
    replacement: Replacement,
    data: torch.Tensor,
    *,
    horizon: int,
    seed: int,
    loss: Objective | None = None,
) -> Costs:
    """Return the costs of all removals and the replacements.

    Parameters
    ----------
    network : PrunableNetwork
        In eval mode.
    selection : {"random", "h2", "calibrated", "gradient"}
        "random": a random order. "h2": squared h2 error of the replacement over the horizon,
        relative to the layer, no data. "calibrated": mean square of the first-order change of the
        network's output on the data, ``E (sum_t g_t (y_t - y'_t))^2``. "gradient": the same with
        the gradient of the loss, which needs labels.
    replacement : Replacement
    data : torch.Tensor, (S, T, ...)
        Calibration inputs; static gains are fitted to them, for "h2" to white inputs.
    horizon : int
        Steps over which responses are compared.
    seed : int
    loss : callable, optional
        Of outputs and the place of their inputs among the data; for "gradient".

    Notes
    -----
    Level: an estimate. The first-order change keeps what cancels within a sequence, which energies
    do not: removed modes oscillate, and pooling averages them away. Theory:
    ``theory/operator-removal.md``.
    """
    substitutes = replacement.substitutes(network, horizon)
    if selection == "h2":
        gains, scores = {}, {}
        for name, bank in network.banks.items():
            with torch.no_grad():
                response = bank.kernel(horizon).double().cpu().numpy()
                other = np.zeros_like(response)
                if substitutes is not None:
                    other = substitutes[name].kernel(horizon).double().cpu().numpy()
            gains[name] = replacement.gains(name, response[:, 0])  # the best one for white inputs
            if substitutes is None:
                other[:, 0] = gains[name]
            error = np.sum((response - other) ** 2, axis=1)
            scores[name] = error / max(float(np.sum(response**2)), 1e-300)
        return Costs(_of_live(network, scores), gains, substitutes)
    seen = observe(network, data, seed=seed, substitutes=substitutes,
                   objective=loss if selection == "gradient" else None)  # fmt: skip
    gains = {name: replacement.gains(name, found.gains) for name, found in seen.items()}
    if selection == "random":
        rng = np.random.default_rng(seed)
        scores = {name: rng.random(len(found.gains)) for name, found in seen.items()}
    else:
        scores = {name: _squared_change(found, gains[name]) for name, found in seen.items()}
    return Costs(_of_live(network, scores), gains, substitutes)


def _squared_change(seen: LayerObservation, gains: np.ndarray) -> np.ndarray:
    return np.mean(seen.output_change(gains) ** 2, axis=0)


def _of_live(network: PrunableNetwork, scores: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    answer = {}
    for name, values in scores.items():
        live = np.isin(np.arange(len(values)), network.live[name])
        answer[name] = np.where(live, values, REMOVED)
    return answer
