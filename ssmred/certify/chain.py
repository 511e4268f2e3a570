"""Bound the output error of a reduced network, front to back.

``S_l v_l - S^_l v^_l = (S_l - S^_l) v^_l + S_l (v_l - v^_l)`` at every layer, and one rule per
operation in between: ``theory/network-bound.md``. The layer guarantee, which speaks of the layers
alone, is ``theory/layer-guarantee.md``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssmred.certify.graph import NetworkGraph, Node
from ssmred.certify.inputs import InputSet
from ssmred.certify.layer_forms import check_layer, count_states
from ssmred.certify.responses import h2_sizes
from ssmred.certify.rules_ssm import local_error, local_size, propagated_error, with_injected
from ssmred.certify.rules_table import apply_rule, check_rules
from ssmred.certify.values import Value, norm, up
from ssmred.checks import check_horizon
from ssmred.errors import CertificateError, message
from ssmred.systems.linear import LinearSystem

__all__ = [
    "ChainBound",
    "LayerBound",
    "LayerError",
    "layer_bounds",
    "network_bound",
    "signal_energies",
]

TINY_INJECTION = 1e-9  # of a layer's range: far inside the region where the rules are linear


@dataclass(frozen=True)
class LayerError:
    """Report one layer by itself.

    Parameters
    ----------
    name : str
        Name of the layer.
    error, relative_error : float
        h2 norm of ``S - S^`` over all channels, absolute and relative to that of S.
    states_full, states_kept : int
        Real state dimensions.
    """

    name: str
    error: float
    relative_error: float
    states_full: int
    states_kept: int


@dataclass(frozen=True)
class LayerBound:
    """Report one layer within the network.

    Parameters
    ----------
    name : str
        Name of the layer.
    error : float
        ``eps_l``: 2-norm of ``(S - S^) v^`` over the horizon, bounded over the input set.
    weight : float
        ``w_l``: output error per unit of error at this layer's output, ``contribution / eps_l``;
        where ``eps_l`` is 0 or infinite, per unit of a tiny error equal in every channel.
    contribution : float
        The output error that this layer causes alone, downstream of the reduced layers before it
        and upstream of original ones: the contributions add up to a valid bound.
    h2_error, relative_error : float
        h2 norm of ``S - S^``, absolute and relative.
    states_full, states_kept : int
        Real state dimensions.
    """

    name: str
    error: float
    weight: float
    contribution: float
    h2_error: float
    relative_error: float
    states_full: int
    states_kept: int


@dataclass(frozen=True)
class ChainBound:
    """Hold a bound on the output error of a reduced network.

    Parameters
    ----------
    bound : float
        Absolute bound on the 2-norm of the difference of the two output vectors, at every time if
        the output is a sequence; inf where nothing is known.
    layers : tuple of LayerBound
        In execution order.
    output : Value
        Everything known about the output.
    """

    bound: float
    layers: tuple[LayerBound, ...]
    output: Value


def layer_bounds(
    original: Mapping[str, LinearSystem] | Sequence[LinearSystem],
    reduced: Mapping[str, LinearSystem] | Sequence[LinearSystem],
    horizon: int | None,
) -> tuple[LayerError, ...]:
    """Return the h2 error of every layer, absolute and relative.

    Parameters
    ----------
    original, reduced : mapping or sequence of DiagonalSystem or DenseSystem
        Layers by name, or in order (then named by their position).
    horizon : int or None
        Number of samples; None for an infinite horizon.

    Returns
    -------
    tuple of LayerError

    Raises
    ------
    CertificateError
        If the two networks do not have the same layers.
    UnstableSystemError
        If the horizon is infinite and a pole is not inside the unit circle.

    Notes
    -----
    A relative error of 0 is reported for a layer that is 0 itself and stays so.
    Certificate level FLOAT. Theory: ``theory/layer-guarantee.md``.
    """
    horizon = check_horizon(horizon, "layer_bounds")
    first, second = _named(original), _named(reduced)
    if list(first) != list(second):
        raise CertificateError(
            message(
                "layer_bounds",
                "the networks have different layers",
                expected=str(list(first)),
                got=str(list(second)),
            )
        )
    return tuple(_layer_error(name, first[name], second[name], horizon) for name in first)


def _named(systems: Mapping[str, Any] | Sequence[Any]) -> dict[str, Any]:
    if isinstance(systems, Mapping):
        return dict(systems)
    return {str(position): system for position, system in enumerate(systems)}


def _layer_error(
    name: str, original: LinearSystem, reduced: LinearSystem, horizon: int | None
) -> LayerError:
    check_layer(original, "layer_bounds")
    check_layer(reduced, "layer_bounds")
    size, error = h2_sizes(original, reduced, horizon)
    relative = error / size if size > 0.0 else (0.0 if error == 0.0 else math.inf)
    return LayerError(name, error, relative, count_states(original), count_states(reduced))


def merge_graphs(original: NetworkGraph, reduced: NetworkGraph) -> NetworkGraph:
    """Return one graph whose state-space nodes hold the original and the reduced system.

    Raises
    ------
    CertificateError
        If the two networks differ in anything but the systems of their state-space layers.
    """
    problems = []
    if len(original.nodes) != len(reduced.nodes):
        problems.append(f"{len(original.nodes)} operations against {len(reduced.nodes)}")
    places = {node.name: at for at, node in enumerate(original.nodes)}
    other_places = {node.name: at for at, node in enumerate(reduced.nodes)}
    nodes: list[Node] = []
    for first, second in zip(original.nodes, reduced.nodes, strict=False):
        same = (
            first.op == second.op
            and first.axes == second.axes
            and [places[name] for name in first.inputs]
            == [other_places[name] for name in second.inputs]
        )
        if not same:
            problems.append(f"operation {first.name!r} ({first.op}) against {second.op!r}")
            break
        skipped = {"system"} if first.op == "ssm" else set()
        changed = [
            key
            for key in sorted(set(first.params) | set(second.params))
            if key not in skipped and not _equal(first.params.get(key), second.params.get(key))
        ]
        if changed:
            problems.append(f"parameters {changed} of {first.name!r} ({first.op}) differ")
        node = first
        if first.op == "ssm":
            node = first.with_params(reduced=second.params["system"])
        nodes.append(node)
    if places.get(original.output) != other_places.get(reduced.output):
        problems.append("the outputs are taken at different places")
    if problems:
        raise CertificateError(
            message(
                "network_bound",
                "the networks differ in more than their state-space layers: " + "; ".join(problems),
                expected="equal weights and wiring outside the reduced layers",
                cure="Reduce a copy of this original, without retraining it.",
            )
        )
    return NetworkGraph(tuple(nodes), original.output)


def _equal(first: Any, second: Any) -> bool:
    if isinstance(first, np.ndarray) or isinstance(second, np.ndarray):
        if first is None or second is None:
            return False
        first, second = np.asarray(first), np.asarray(second)
        return first.shape == second.shape and bool(np.all(first == second))
    return bool(first == second)


def _output_bound(x: Value) -> float:
    """Return the bound on the 2-norm of the difference of the outputs, at every time."""
    return min(float(norm(x.error_sup)), x.error_l2)


def _run(
    graph: NetworkGraph, values: dict[str, Value], start: int = 0, *, injected: bool = True
) -> Value:
    """Carry values from node ``start`` to the output, in place; optionally without own errors."""
    for node in graph.nodes[start:]:
        if node.op == "input":
            continue
        inputs = [values[name] for name in node.inputs]
        if node.op == "ssm" and not injected:
            with np.errstate(all="ignore"):
                values[node.name] = propagated_error(node, *inputs)
        else:
            values[node.name] = apply_rule(node, *inputs)
    return values[graph.output]


def _downstream(
    original: NetworkGraph,
    ranges: dict[str, Value],
    position: int,
    sup: np.ndarray,
    features: np.ndarray,
    size: float,
) -> float:
    """Return the output error of an error at one layer's output, carried on by the original."""
    values = dict(ranges)
    name = original.nodes[position].name
    values[name] = with_injected(ranges[name], sup, features, size)
    return _output_bound(_run(original, values, position + 1))


def _tiny_weight(original: NetworkGraph, ranges: dict[str, Value], position: int) -> float:
    """Return the output error per unit of error, for a tiny error equal in every channel."""
    value = ranges[original.nodes[position].name]
    reach = float(np.max(np.where(np.isfinite(value.magnitude), value.magnitude, 0.0), initial=0.0))
    tiny = TINY_INJECTION * (reach if reach > 0.0 else 1.0)
    each = np.full(value.shape, tiny / math.sqrt(max(1, value.lo.size)))
    return _downstream(original, ranges, position, each, each, float(norm(each))) / tiny


def network_bound(
    original: NetworkGraph,
    reduced: NetworkGraph,
    inputs: InputSet,
    horizon: int | None,
    *,
    weights: bool = True,
) -> ChainBound:
    """Bound the output error of a reduced network over a whole set of inputs.

    ``||f(u) - f^(u)||_2 <= bound`` for every u of the set.

    Parameters
    ----------
    original, reduced : NetworkGraph
        The same network, but for the systems of its state-space layers.
    inputs : InputSet
        What the statement is about.
    horizon : int or None
        Sequence length T; None makes the statement for every length.
    weights : bool
        Also report the layers; a search that only asks for ``bound`` can save the time. The bound
        is the same.

    Returns
    -------
    ChainBound

    Raises
    ------
    UnsupportedOperationError
        If an operation has no rule; names it.
    CertificateError
        If the networks differ outside their state-space layers.
    UnstableSystemError
        If the horizon is infinite and a pole is not inside the unit circle.

    Notes
    -----
    Certificate level FLOAT: the theorem evaluated in float64, every bound rounded up by a count
    of its operations. Theory: ``theory/network-bound.md``, ``theory/error-rules.md``.
    """
    horizon = check_horizon(horizon, "network_bound")
    graph = merge_graphs(original, reduced)
    check_rules(graph)
    for node in graph.ssm_nodes:
        check_layer(node.params["system"], "network_bound")
        check_layer(node.params["reduced"], "network_bound")
    values = {graph.input.name: inputs.value(graph.input, horizon)}
    ranges = dict(values)
    output = _run(graph, values)
    _run(graph, ranges, injected=False)
    layers: list[LayerBound] = []
    parts = 0.0  # one layer at a time: theorem 3
    for position, node in enumerate(graph.nodes):
        if node.op != "ssm":
            continue
        with np.errstate(all="ignore"):
            sup, features = local_error(node, ranges[node.inputs[0]])
            size = local_size(node, ranges[node.inputs[0]])
        part = 0.0
        if np.any(features > 0.0):
            part = _downstream(original, ranges, position, sup, features, size)
        parts += part
        if weights:
            layers.append(_layer_bound(original, ranges, position, node, size, part))
    bound = min(_output_bound(output), float(up(parts, len(graph.ssm_nodes))))
    return ChainBound(bound, tuple(layers), output)


def signal_energies(graph: NetworkGraph, inputs: InputSet, horizon: int | None) -> dict[str, float]:
    """Return the largest 2-norm, over time and features, of what reaches each layer.

    Parameters
    ----------
    graph : NetworkGraph
    inputs : InputSet
        Declared set.
    horizon : int or None
        Sequence length T; None for every length.

    Returns
    -------
    dict of str to float
        By state-space node; inf where no bound is known.

    Raises
    ------
    UnsupportedOperationError
        If an operation has no rule; names it.

    Notes
    -----
    Certificate level FLOAT. Theory: ``theory/error-rules.md``.
    """
    horizon = check_horizon(horizon, "signal_energies")
    check_rules(graph)
    values = {graph.input.name: inputs.value(graph.input, horizon)}
    _run(graph, values)
    return {node.name: values[node.inputs[0]].l2 for node in graph.ssm_nodes}


def _layer_bound(
    original: NetworkGraph,
    ranges: dict[str, Value],
    position: int,
    node: Node,
    error: float,
    part: float,
) -> LayerBound:
    """Return the report on one layer."""
    length = ranges[node.inputs[0]].length
    horizon = int(length) if math.isfinite(length) else None
    alone = _layer_error(node.name, node.params["system"], node.params["reduced"], horizon)
    measured = 0.0 < error < math.inf  # else nothing is reduced, or the horizon is infinite
    weight = part / error if measured else _tiny_weight(original, ranges, position)
    return LayerBound(
        node.name,
        error,
        weight,
        part,
        alone.error,
        alone.relative_error,
        alone.states_full,
        alone.states_kept,
    )
