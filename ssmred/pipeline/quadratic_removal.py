"""Remove states of layers with quadratic outputs by their h2 errors, layer by layer or jointly.

Theory: ``theory/quadratic-chain.md``.
"""

from __future__ import annotations

import numpy as np

from ssmred.networks import ImportedNetwork
from ssmred.pipeline.methods import QUADRATIC
from ssmred.pipeline.quadratic_bound import NetworkChain, check_squares
from ssmred.pipeline.quadratic_division import least_bound_division
from ssmred.pipeline.quadratic_layers import QuadraticLayerPath
from ssmred.pipeline.removal import Advance, Cut, relative_to_layer
from ssmred.reductors import allocate

__all__ = ["QuadraticRemoval"]

ROUNDS = 20
"""Most times that states are divided anew after searches."""


class QuadraticRemoval:
    """Move the poles of layers with quadratic outputs, and divide the states among them.

    Parameters
    ----------
    network : ImportedNetwork
        Every layer squares outputs.
    horizon : int or None
        Length over which responses are compared.
    method : str
        One of `QUADRATIC`: how states are found, and whether layers count relative to their own
        norms or by the bound of the network.
    chain : NetworkChain, optional
        The network, for the latter.
    advance : callable, optional
        Reports progress.
    """

    def __init__(
        self,
        network: ImportedNetwork,
        horizon: int | None,
        *,
        method: str,
        chain: NetworkChain | None = None,
        advance: Advance = lambda _: None,
    ) -> None:
        check_squares(network, "reduce")
        self.network, self.horizon, self.method, self.chain = network, horizon, method, chain
        self.paths: list[QuadraticLayerPath] = []
        units = [block.unit for block in chain.blocks] if chain else [1.0] * len(network.layers)
        for layer, unit in zip(network.layers, units, strict=True):
            path = QuadraticLayerPath(layer, horizon, search=QUADRATIC[method], unit=unit)
            self.paths.append(path)
            advance(1)
        self.weights = relative_to_layer(self.paths)
        if chain:
            weights = chain.bound(network.systems, network.systems).weights
            self.weights = [np.array([(w / weights[0]) ** 2]) for w in weights]

    @property
    def metric(self) -> str:
        """What removals were scored in."""
        return f"{self.paths[0].metric}, method {self.method}"

    def cut(self, states: int) -> Cut:
        """Return the network that keeps at most so many states.

        States are divided anew as long as searches at the orders of a division find better ones.
        """
        kept = self._divided(states)
        for _ in range(ROUNDS):
            pairs = list(zip(self.paths, kept, strict=True))
            looked = [path.look(modes) for path, modes in pairs]
            if not any(looked) and not any([path.improve(modes) for path, modes in pairs]):
                break
            kept = self._divided(states)
        reductions = (path.reduction(modes) for path, modes in zip(self.paths, kept, strict=True))
        return Cut(self.network, tuple(reductions))

    def _divided(self, states: int) -> list[int]:
        """Return the modes that every layer keeps."""
        if self.chain:
            errors = [path.least for path in self.paths]
            modes = min(states // 2, sum(path.system.order for path in self.paths))
            return least_bound_division(self.chain.blocks, errors, self.chain.horizon, modes)[0]
        return [int(k[0]) for k in allocate(self.paths, self.weights, states=states)]
