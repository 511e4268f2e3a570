"""Cut a network into blocks around its layers, and bound what passes through and by each layer.

Theory: ``theory/quadratic-chain.md``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ssmred.certify.graph import NetworkGraph
from ssmred.certify.layer_forms import layer_width
from ssmred.certify.rules_table import apply_rule, check_rules
from ssmred.certify.values import Value, norm
from ssmred.checks import check_horizon
from ssmred.errors import UnsupportedOperationError, message

__all__ = ["BlockGains", "Blocks", "network_blocks"]

SQUARING = frozenset({"slice", "multiply", "add", "identity"})
"""Operations that make quadratic outputs out of a filter's."""

TINY = 2.0**-100
"""Size of the error that is carried through rules: bounded ones (LayerNorm) are steepest at 0."""


@dataclass(frozen=True)
class BlockGains:
    """Hold the Lipschitz constants around one layer, in the 2-norm over time and features.

    Parameters
    ----------
    name : str
        Name of the layer.
    before : float
        From the block's input to the layer's.
    after : float
        From the layer's output to the block's.
    skip : float
        From the block's input to its output, past the layer.
    """

    name: str
    before: float
    after: float
    skip: float


@dataclass(frozen=True)
class Blocks:
    """Hold the blocks of a network, front to back.

    Parameters
    ----------
    blocks : tuple of BlockGains
    last : float
        From the output of the last block to that of the network (at any one time, if it is a
        sequence).
    """

    blocks: tuple[BlockGains, ...]
    last: float


def network_blocks(graph: NetworkGraph, horizon: int | None) -> Blocks:
    """Cut a chain of blocks with quadratic outputs at the signals that everything passes through.

    Parameters
    ----------
    graph : NetworkGraph
        Each state-space node is a filter whose outputs are combined by slices, products and sums
        into those of its layer.
    horizon : int or None
        Sequence length T, which pooling over time divides by.

    Returns
    -------
    Blocks
        Constants hold for all signals; inf where an operation has none (a gate).

    Raises
    ------
    UnsupportedOperationError
        If an operation has no rule, the layers are not one behind the other, or one puts out
        anything else.

    Notes
    -----
    Certificate level FLOAT: the rules of ``theory/error-rules.md`` for signals of any size, rounded
    up.
    """
    check_horizon(horizon, "network_blocks")
    check_rules(graph)
    reader = _Reader(graph, math.inf if horizon is None else float(horizon))
    blocks, end = reader.blocks()
    return Blocks(tuple(blocks), reader.last(end))


@dataclass
class _Reader:
    """Walk a graph whose nodes are numbered in execution order."""

    graph: NetworkGraph
    length: float
    places: dict[str, int] = field(init=False)
    values: list[Value] = field(init=False)
    cuts: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.places = {node.name: place for place, node in enumerate(self.graph)}
        self.values = self._unbounded()
        used = self._reached([self.places[self.graph.input.name]])
        self.cuts = self._bottlenecks(used)

    def blocks(self) -> tuple[list[BlockGains], int]:
        """Return the constants of all blocks, front to back, and where the last one ends."""
        out, end = [], -1
        for node in self.graph.ssm_nodes:
            layer = self.places[node.name]
            squares = self._output_of(layer)
            free = [cut for cut in self.cuts if end <= cut < layer]
            after = min((cut for cut in self.cuts if cut >= squares), default=None)
            if not free or after is None:
                raise UnsupportedOperationError(
                    message(
                        "network_blocks",
                        f"layer {node.name!r} stands beside another one",
                        expected="a chain: between two layers one signal that all else depends on",
                        cure="Use another method: its layers are weighed by network_bound.",
                    )
                )
            start = free[0] if out else free[-1]  # what the last block put out; before, no error
            end = after
            within = self.places[node.inputs[0]]
            out.append(
                BlockGains(
                    node.name,
                    self._gain(start, within),
                    self._gain(squares, end),
                    self._gain(start, end, without=squares),
                )
            )
        return out, end

    def last(self, end: int) -> float:
        """Return the constant from the last block's output to the network's."""
        place = self.places[self.graph.output]
        if place == end:
            return 1.0
        return self._carried(end, place, None)[1] / TINY

    def _unbounded(self) -> list[Value]:
        """Return values that say nothing but the shapes of the signals."""
        sizes = [1 if tag == "time" else int(size)
                 for tag, size in zip(self.graph.input.axes, self.graph.input.params["shape"],
                                      strict=True)]  # fmt: skip
        values: list[Value] = []
        for node in self.graph:
            if node.op == "input":
                values.append(_nothing_known(tuple(sizes), node.axes, self.length))
            elif node.op == "ssm":
                width = layer_width(node.params["system"])[1]
                values.append(_nothing_known((width, 1), node.axes, self.length))
            else:
                inputs = (values[self.places[name]].without_error() for name in node.inputs)
                given = apply_rule(node, *inputs)
                values.append(_nothing_known(given.shape, given.axes, given.length))
        return values

    def _reached(self, sources: Sequence[int]) -> set[int]:
        """Return all nodes that depend on some, and these."""
        reached = set(sources)
        for place, node in enumerate(self.graph):
            if any(self.places[name] in reached for name in node.inputs):
                reached.add(place)
        return reached

    def _bottlenecks(self, among: set[int]) -> list[int]:
        """Return the nodes that everything passes through that starts at the first of a set."""
        used = {self.places[self.graph.output]}
        for place in reversed(range(len(self.graph.nodes))):
            if place in used:
                used |= {self.places[name] for name in self.graph.nodes[place].inputs}
        order = sorted(among & used)
        furthest, out = -1, []
        ends = dict.fromkeys(order, -1)
        for place in order:
            for name in self.graph.nodes[place].inputs:
                if self.places[name] in ends:
                    ends[self.places[name]] = place
        for place in order:
            if furthest <= place:
                out.append(place)
            furthest = max(furthest, ends[place])
        return out

    def _output_of(self, layer: int) -> int:
        """Return where the squares of a filter's outputs have been added to the others."""
        inside = self._reached([layer])
        squares = next(cut for cut in self._bottlenecks(inside) if cut > layer)
        others = {self.graph.nodes[place].op for place in inside if layer < place <= squares}
        if not others <= SQUARING:
            raise UnsupportedOperationError(
                message(
                    "network_blocks",
                    f"layer {self.graph.nodes[layer].name!r} does not put out squares",
                    expected=f"{', '.join(sorted(SQUARING))} alone",
                    got=", ".join(sorted(others - SQUARING)),
                )
            )
        return squares

    def _gain(self, start: int, end: int, *, without: int | None = None) -> float:
        if start == end:
            return 1.0
        return self._carried(start, end, without)[0] / TINY

    def _carried(self, start: int, end: int, without: int | None) -> tuple[float, float]:
        """Return what a tiny error becomes, over all times and at one."""
        errors: dict[int, Value] = {start: self.values[start].with_errors(error_l2=TINY)}
        for place in range(start + 1, end + 1):
            node = self.graph.nodes[place]
            inputs = [self.places[name] for name in node.inputs]
            if place != without and node.op != "ssm" and any(i in errors for i in inputs):
                given = [errors.get(i, self.values[i].without_error()) for i in inputs]
                found = apply_rule(node, *given).error_facts()
                errors[place] = self.values[place].with_errors(**found)
        if end not in errors:
            return 0.0, 0.0
        return errors[end].error_l2, min(float(norm(errors[end].error_sup)), errors[end].error_l2)


def _nothing_known(shape: tuple[int, ...], axes: tuple[str, ...], length: float) -> Value:
    far = np.full(shape, math.inf)
    return Value(-far, far, axes, length)
