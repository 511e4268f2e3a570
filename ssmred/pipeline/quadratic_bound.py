"""Bound a network of layers with quadratic outputs by the h2 errors of its layers.

Theory: ``theory/quadratic-chain.md``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from ssmred.certify import (
    InputSet,
    QuadraticBlock,
    QuadraticChainBound,
    network_blocks,
    quadratic_chain_bound,
    signal_energies,
)
from ssmred.errors import CertificateError, RequestError, UnsupportedOperationError, message
from ssmred.networks import ImportedNetwork, import_network, trace
from ssmred.networks.sensing import inputs_of
from ssmred.norms import h2_error, h2_norm
from ssmred.pipeline.quadratic_layers import quadratic_layer
from ssmred.pipeline.request import as_tensor, check_inputs, check_model, default_inputs
from ssmred.systems import DiagonalSystem

__all__ = ["NetworkChain", "check_squares", "quadratic_bound"]


class NetworkChain:
    """Hold a network as a chain of blocks with quadratic outputs.

    Parameters
    ----------
    network : ImportedNetwork
        Every layer squares outputs.
    horizon : int or None
        Length of the inputs.
    inputs : InputSet, optional
        Declared set; by default every token sequence, or ``|u| <= 1`` at every step.
    data : torch.Tensor, optional
        Inputs that the bound is about in place of a set.
    where : str
        Named in errors.

    Attributes
    ----------
    blocks : tuple of QuadraticBlock
        Inputs of layers are in units of the root mean square of a signal of the largest energy.
    last : float
        Lipschitz constant of what follows the last block.

    Raises
    ------
    RequestError
        If the horizon is infinite.
    UnsupportedOperationError
        If a layer has no squares, the network is no chain, or a constant or an energy is infinite:
        then so is the bound.
    """

    def __init__(
        self,
        network: ImportedNetwork,
        horizon: int | None,
        *,
        inputs: InputSet | None = None,
        data: torch.Tensor | None = None,
        where: str = "reduce",
    ) -> None:
        check_squares(network, where)
        if horizon is None:
            raise RequestError(
                message(
                    where,
                    "the chain of h2 errors needs a horizon",
                    expected="a number of steps: for every length at once the bound is infinite",
                    got="horizon=None",
                    cure="Pass horizon= or data=.",
                )
            )
        self.horizon = horizon
        graph = trace(network.model, horizon=horizon, inputs=inputs)
        if data is None:
            inputs = inputs or default_inputs(graph)
            check_inputs(graph, inputs)
            energies = signal_energies(graph, inputs, horizon)
        else:
            energies = energies_on(network, data)
        found = network_blocks(graph, horizon)
        self.last = found.last
        blocks = []
        for gains, layer in zip(found.blocks, network.layers, strict=True):
            known = {
                "what comes before it": gains.before,
                "what follows it": gains.after,
                "what passes it by": gains.skip,
                "its inputs": energies[layer.name],
                "what follows the last block": found.last,
            }
            unknown = [name for name, value in known.items() if not math.isfinite(value)]
            if unknown:
                raise UnsupportedOperationError(
                    message(
                        where,
                        f"the chain of h2 errors is infinite at layer {layer.name!r}",
                        expected="finite Lipschitz constants and energies",
                        got=f"none for {', '.join(unknown)}",
                        cure='Use method="lqo-h2", whose layers count by themselves.',
                    )
                )
            energy = energies[layer.name]
            unit = energy / math.sqrt(horizon * layer.system.inputs) or 1.0
            norm = h2_norm(quadratic_layer(layer.system, unit), horizon=horizon)
            blocks.append(
                QuadraticBlock(
                    layer.name, gains.before, gains.after, gains.skip, energy, float(norm), unit
                )
            )
        self.blocks = tuple(blocks)

    def bound(self, original: Mapping[str, Any], reduced: Mapping[str, Any]) -> QuadraticChainBound:
        """Return the bound for reduced filters, both by layer name."""
        errors, norms = [], []
        for block in self.blocks:
            filters = original[block.name], reduced[block.name]
            full, small = (quadratic_layer(one, block.unit) for one in filters)
            error = 0.0 if _same(*filters) else h2_error(full, small, horizon=self.horizon)
            errors.append(float(error))
            norms.append(float(h2_norm(small, horizon=self.horizon)))
        return quadratic_chain_bound(self.blocks, errors, norms, self.horizon, last=self.last)


def quadratic_bound(
    original: nn.Module,
    reduced: nn.Module | None = None,
    *,
    data: Any = None,
    horizon: int | None = None,
    inputs: InputSet | None = None,
) -> QuadraticChainBound:
    """Bound the output error of a network of layers with quadratic outputs by their h2 errors.

    Parameters
    ----------
    original : nn.Module
        In eval mode; every state-space layer squares outputs (`LQOLayer`).
    reduced : nn.Module, optional
        With smaller layers of the same names, a result's ``model``. By default the original: its
        weights are those of small errors.
    data : torch.Tensor, numpy.ndarray or DataLoader, optional
        Inputs that the bound is about, (n, T, ...).
    horizon : int, optional
        Length T without data.
    inputs : InputSet, optional
        Set that the bound is about without data; as for `ssmred.reduce`.

    Returns
    -------
    QuadraticChainBound
        ``weights``: output error per unit of a layer's h2 error. Draw them with
        :func:`ssmred.report.plot_weights`.

    Raises
    ------
    RequestError
        Without a finite horizon.
    UnsupportedOperationError
        If a layer has no squares, the network is no chain, or the bound is infinite.
    CertificateError
        If the networks have different layers.

    Notes
    -----
    The bound that ``ssmred.reduce(method="lqo-bound")`` makes small, evaluated in float64: level
    FLOAT. With data it holds for these inputs alone. The certificates of `ssmred.reduce` are
    sharper. Theory: ``theory/quadratic-chain.md``.

    Examples
    --------
    >>> from ssmred.networks.deep import DeepLQO
    >>> model = DeepLQO(1, 2, channels=2, states=4, layers=2).eval()
    >>> weights = quadratic_bound(model, horizon=16).weights
    >>> len(weights), weights[0] > weights[1]
    (2, True)
    """
    where = "quadratic_bound"
    check_model(original)
    tensor = None if data is None else as_tensor(data, original)
    network = import_network(original)
    length = horizon if tensor is None else int(tensor.shape[1])
    chain = NetworkChain(network, length, inputs=inputs, data=tensor, where=where)
    small = network.systems if reduced is None else import_network(reduced).systems
    if list(small) != list(network.systems):
        raise CertificateError(
            message(
                where,
                "the networks have different layers",
                expected=str(list(network.systems)),
                got=str(list(small)),
            )
        )
    return chain.bound(network.systems, small)


def check_squares(network: ImportedNetwork, where: str) -> None:
    """Refuse a network that has layers without quadratic outputs."""
    plain = [layer.name for layer in network.layers if not layer.squared]
    if plain:
        raise UnsupportedOperationError(
            message(
                where,
                "layers without quadratic outputs",
                expected="squares in every state-space layer",
                got=f"none in {', '.join(plain)}",
                cure='Reduce with method="h2_optimal" or "balanced".',
            )
        )


def _same(one: DiagonalSystem, two: DiagonalSystem) -> bool:
    pairs = ((getattr(one, name), getattr(two, name)) for name in ("poles", "B", "C", "D"))
    return all(np.array_equal(*pair) for pair in pairs)


def energies_on(network: ImportedNetwork, data: torch.Tensor) -> dict[str, float]:
    """Return the largest 2-norm of what reaches every layer on the data."""
    energies = {}
    for layer in network.layers:
        parts = inputs_of(network.model, layer.name, network.core(layer.name), data)
        norms = [torch.linalg.vector_norm(part.double(), dim=(1, 2)).max() for part in parts]
        energies[layer.name] = float(torch.stack(norms).max())
    return energies
