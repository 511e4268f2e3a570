"""Divide states among layers, and fit read-outs, by what the reduced network really does.

Sensitivities hold for small changes. Where much is removed, the division that they make leaves the
last layers empty; the division by the layers alone knows nothing of the network. The best lies
between, and is found by trying.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ssmred.certify import output_errors
from ssmred.networks import ImportedNetwork
from ssmred.networks.sensing import outputs
from ssmred.pipeline.removal import (
    Advance,
    CalibratedMove,
    CalibratedRemoval,
    Cut,
    DataFreeRemoval,
)
from ssmred.reductors import ReductionPath, allocate

__all__ = ["MeasuredDivision"]

MIXES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of the division by sensitivities in the divisions that may be tried."""


class MeasuredDivision:
    """Try divisions of the states between two, and both ways to fit read-outs.

    The two are those by the errors of the layers alone and by the sensitivities of the network's
    output; from the middle between them the search goes downhill. Read-outs are fitted to the
    original's outputs; for the best division, and for that by sensitivities, also to the layers'
    own. What has the least root mean square error of the network's output on the calibration
    inputs is taken: it is not worse there than without the search.

    Parameters
    ----------
    removal : CalibratedRemoval or CalibratedMove
        Makes the cuts.
    network : ImportedNetwork
        The network with its systems.
    data : torch.Tensor, (S, T, ...)
        Calibration inputs.
    horizon : int or None
        Length over which responses are compared where the layers are judged alone.
    advance : callable, optional
        Called with 1 after every layer that is judged alone.

    Notes
    -----
    Level: ESTIMATE; the inputs that decide certify nothing. Four to seven cuts for each
    number of states. Theory of the fit to the original's outputs: ``theory/calibrated-metric.md``.
    """

    def __init__(
        self,
        removal: CalibratedRemoval | CalibratedMove,
        network: ImportedNetwork,
        data: torch.Tensor,
        *,
        horizon: int | None,
        advance: Advance = lambda _: None,
    ) -> None:
        self.removal, self.data = removal, data
        self.alone = DataFreeRemoval(network, horizon, advance=advance)
        self.wanted = outputs(network.model, data)

    @property
    def paths(self) -> Sequence[ReductionPath]:
        """Removal paths of the layers, scored on the original network."""
        return self.removal.paths

    @property
    def metric(self) -> str:
        """What removals were scored in."""
        return f"{self.removal.metric}, measured division"

    @property
    def weights(self) -> Sequence[np.ndarray]:
        """Weight of every channel's squared error, one (H,) array per layer."""
        return self.removal.weights

    def cut(self, states: int) -> Cut:
        """Return the best network found that keeps at most so many states."""
        ends = [
            _budget(self.alone.paths, self.alone.weights, states),
            _budget(self.removal.paths, self.removal.weights, states),
        ]
        cuts: dict[tuple[float, bool], tuple[float, Cut]] = {}

        def error(mix: float, *, to_original: bool = True) -> float:
            if (mix, to_original) not in cuts:
                budget = _between(self.paths, ends, mix)
                cut = self.removal.cut_to(budget, to_original=to_original)
                cuts[mix, to_original] = self._error(cut), cut
            return cuts[mix, to_original][0]

        place = len(MIXES) // 2
        step = -1 if error(MIXES[place - 1]) < error(MIXES[place]) else 1
        while 0 <= place + step < len(MIXES) and error(MIXES[place + step]) < error(MIXES[place]):
            place += step  # downhill, from the middle
        for mix in (MIXES[place], 1.0):  # 1: what sensitivities alone would do
            error(mix, to_original=False)
        return min(cuts.values(), key=lambda one: one[0])[1]

    def _error(self, cut: Cut) -> float:
        errors = output_errors(self.wanted, outputs(cut.model, self.data))
        return float(np.sqrt(np.mean(np.square(errors))))


def _between(paths: Sequence[ReductionPath], ends: Sequence[np.ndarray], mix: float) -> list[int]:
    """Return the division at a place between two, in whole modes, of no more states."""
    size = np.array([path.states_per_mode for path in paths])
    exact = ((1.0 - mix) * ends[0] + mix * ends[1]) / size
    modes = np.floor(exact + 1e-9).astype(int)
    spare = int((min(ends[0].sum(), ends[1].sum()) - (modes * size).sum()) // size.max())
    modes[np.argsort(modes - exact, kind="stable")[: max(spare, 0)]] += 1
    return [int(states) for states in modes * size]


def _budget(
    paths: Sequence[ReductionPath], weights: Sequence[np.ndarray], states: int
) -> np.ndarray:
    """Return the states of every layer, (L,) int64."""
    kept = allocate(paths, weights, states=states)
    counts = zip(paths, kept, strict=True)
    return np.array([path.states_per_mode * int(modes.sum()) for path, modes in counts])
