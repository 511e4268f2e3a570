"""Say what other tolerances and guarantees would allow."""

from __future__ import annotations

import math

from ssmred.networks import ImportedNetwork
from ssmred.pipeline.feedthrough import DIAGONAL, has_diagonal
from ssmred.pipeline.guarantees import Outcome, layer_share
from ssmred.pipeline.methods import LAYER_METHODS, SUBSET
from ssmred.pipeline.progress import Progress
from ssmred.pipeline.removal import DataFreeRemoval
from ssmred.pipeline.request import Request
from ssmred.pipeline.result import Alternative

LAYER_TOLERANCES = (1e-6, 1e-3, 1e-2)


def alternatives(
    network: ImportedNetwork, request: Request, outcome: Outcome, bars: Progress
) -> tuple[Alternative, ...]:
    """Return what the cuts that were tried would need, and what the layer guarantee would allow.

    The tolerances of a statistical guarantee are those seen on the deciding half of the data, so
    they are estimates; the others are what a certificate would state.
    """
    full = sum(layer.states for layer in network.layers)
    rows = [
        Alternative(request.guarantee, trial.error, 1.0 - trial.cut.states / full)
        for trial in outcome.trials
        if math.isfinite(trial.error)
    ]
    if request.feedthrough == DIAGONAL and any(has_diagonal(at.system) for at in network.layers):
        return _in_order(rows)
    removal = outcome.removal
    if not isinstance(removal, DataFreeRemoval) and outcome.cut.states == full:
        removal = DataFreeRemoval(
            network,
            request.horizon,
            method=request.method if request.method in LAYER_METHODS else SUBSET,
            seed=request.seed,
            advance=bars.stage("asking the layers", len(network.layers)),
        )
    if isinstance(removal, DataFreeRemoval):
        rows += [Alternative("layer", tol, layer_share(removal, tol)) for tol in LAYER_TOLERANCES]
    return _in_order(rows)


def _in_order(rows: list[Alternative]) -> tuple[Alternative, ...]:
    return tuple(sorted(rows, key=lambda row: (row.guarantee, row.removed)))
