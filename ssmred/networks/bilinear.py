"""Find the filters of a network whose outputs are multiplied, and hand them out as one system each.

Between a filter and the product may stand whatever acts on every step alone and is affine in the
features. What that does is not derived operation by operation: the operations themselves are
evaluated on unit vectors, one per step. Theory: ``theory/bilinear-gate.md``.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ssmred.certify.evaluate import node_values
from ssmred.certify.graph import NetworkGraph, Node
from ssmred.errors import RequestError, UnsupportedOperationError, message
from ssmred.networks.layers.layer import check_choice
from ssmred.networks.tracing import follow
from ssmred.networks.translation import Translation, Wire, to_array
from ssmred.systems.bilinear import GatedSystem, gated_system

__all__ = ["export_bilinear"]

STEPWISE = frozenset(
    {"linear", "conv1d", "identity", "affine", "batchnorm", "add", "sub", "mean"}
    | {"permute", "reshape", "unsqueeze", "squeeze", "slice", "select", "concat"}
)
"""Operations that are affine in the features, and act on every step alone if time stays an axis."""

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3}
"""Agreement with what the network computed on the example, relative to the largest product; half
precision has none."""

FORMS = ("diagonal", "dense")

WHERE = "export_bilinear"


def export_bilinear(
    model: nn.Module,
    *,
    layers: Collection[str] | None = None,
    form: str = "diagonal",
    horizon: int | None = None,
    example_shape: tuple[int, ...] | None = None,
    tokens: bool | None = None,
) -> dict[str, GatedSystem]:
    """Return every filter of a network with the bilinear gate after it, as one system each.

    ``(W1 y + b1) * (W2 y + b2)`` of a layer's filtered sequence y: by two `Linear` or 1 x 1
    convolutions, by halves of one, by y itself (``y * y`` too), in any layout, through norms that
    are affine in eval mode. The network need not be built of ssmred's modules.

    Parameters
    ----------
    model : nn.Module
        Takes (batch, T, features) or tokens (batch, T); never modified.
    layers : collection of str, optional
        Names of the layers to export; all by default.
    form : {"diagonal", "dense"}
        Modes with their conjugates, where the filter has modes, or real matrices, which the
        reductors that move poles keep real.
    horizon, example_shape, tokens
        As of `trace`: the length of sequences where the network uses it, the shape and kind of one
        input where the network does not show them.

    Returns
    -------
    dict of str to GatedSystem
        By layer, in execution order: from what the filter is fed to the product, its features in
        the order of the product's, flattened. Float64; see `ssmred.systems.gated_system`.

    Raises
    ------
    UnsupportedOperationError
        If a layer has no such gate: anything else comes before a product, a factor holds another
        signal, the outputs go elsewhere too. Names every such layer and the reason. As `trace`
        where the network cannot be followed; or if a system does not answer as the network does.
    RequestError
        If a name in `layers` is none of a layer, or there is no such form.

    Notes
    -----
    Exact up to rounding: every system is run on an example and compared with the product that the
    network computed. Theory: ``theory/bilinear-gate.md``.

    Examples
    --------
    >>> from ssmred.networks.deep import DeepSSM
    >>> model = DeepSSM(3, 2, layer="lru", channels=4, states=6, layers=2, mixing="bilinear").eval()
    >>> gates = export_bilinear(model)
    >>> list(gates), gates["layers.0"].system.outputs
    (['layers.0', 'layers.1'], 4)
    """
    check_choice(form, FORMS, "form", WHERE)
    translation, output = follow(
        model, horizon=horizon, example_shape=example_shape, tokens=tokens, strict=False
    )
    filters = {node.name: node for node in translation.nodes if node.op == "ssm"}
    wanted = list(filters) if layers is None else list(layers)
    unknown = sorted(set(wanted) - set(filters))
    if unknown:
        raise RequestError(
            message(
                WHERE,
                f"there are no layers {unknown}",
                expected=f"names among {list(filters)}",
            )
        )
    paths = {
        name: _Path.after(node, translation.nodes)
        for name, node in filters.items()
        if name in wanted
    }
    reasons = {name: path.obstacle(output.name) for name, path in paths.items()}
    refused = [f"{name}: {reason}" for name, reason in reasons.items() if reason]
    if refused:
        others = [name for name, reason in reasons.items() if not reason]
        raise UnsupportedOperationError(
            message(
                WHERE,
                f"{len(refused)} of {len(paths)} layers are not followed by a bilinear gate alone",
                expected="outputs that only affine maps of the features take to one product",
                got="; ".join(refused),
                cure=f"Pass layers={others} for the others." if others else "",
            )
        )
    return {name: _exported(path, translation, form) for name, path in paths.items()}


@dataclass(frozen=True, eq=False)
class _Path:
    """Hold what follows one filter.

    Attributes
    ----------
    filter : Node
    affine : tuple of Node
        Everything that is an affine map of the features of its outputs.
    beyond : tuple of Node
        What takes one of these, or the filter's outputs, and is none.
    """

    filter: Node
    affine: tuple[Node, ...]
    beyond: tuple[Node, ...]

    @classmethod
    def after(cls, filter: Node, nodes: Sequence[Node]) -> _Path:
        """Follow a filter's outputs."""
        known, affine, beyond = {filter.name: filter}, [], []
        for node in nodes:
            if not any(name in known for name in node.inputs):
                continue
            if all(name in known for name in node.inputs) and _is_stepwise(node, known):
                known[node.name] = node
                affine.append(node)
            else:
                beyond.append(node)
        return cls(filter, tuple(affine), tuple(beyond))

    @property
    def known(self) -> set[str]:
        """Names of the filter and of all that is affine in its outputs."""
        return {self.filter.name, *(node.name for node in self.affine)}

    @property
    def product(self) -> Node:
        """The product; only where there is no obstacle."""
        return self.beyond[0]

    def obstacle(self, output: str) -> str:
        """Return in words what is no bilinear gate here, nothing where all is well."""
        gates = [node for node in self.beyond if self._is_gate(node)]
        others = [node for node in self.beyond if not self._is_gate(node)]
        if output in self.known:
            return "the network returns its outputs without a product"
        if others:
            place = "goes into" if not gates else "goes elsewhere too, into"
            return f"it {place} {', '.join(map(self._described, others))}"
        if len(gates) != 1:
            return f"it goes into {len(gates)} products"
        return ""

    def _is_gate(self, node: Node) -> bool:
        return node.op == "multiply" and self.known.issuperset(node.inputs) and "time" in node.axes

    def _described(self, node: Node) -> str:
        op = "an operation without a rule" if node.op == "opaque" else repr(node.op)
        alone = self.known.issuperset(node.inputs)
        return f"{op} ({node.name})" + ("" if alone else " with another signal")


def _is_stepwise(node: Node, known: dict[str, Node]) -> bool:
    on_time = node.op == "slice" and node.param("axis") == known[node.inputs[0]].time_axis
    return node.op in STEPWISE and "time" in node.axes and not on_time


def _exported(path: _Path, translation: Translation, form: str) -> GatedSystem:
    """Return a filter and the gate after it, once it answers as the network did."""
    filtered = path.filter.param("system")
    (W1, W2), (b1, b2) = _weights(path), _biases(path)
    try:
        if form == "dense":
            filtered = filtered.realified()
        gate = gated_system(filtered, W1, W2, b1[:, 0], b2[:, 0])
    except UnsupportedOperationError as error:
        raise UnsupportedOperationError(f"layer {path.filter.name}: {error}") from error
    _check_answers(gate, path, translation)
    return gate


def _weights(path: _Path) -> list[np.ndarray]:
    """Return W (p, q) of both factors: what they make of unit vectors, without their constants."""
    affine = []
    for node in path.affine:
        constants = {key: node.params.get(key) for key in ("bias", "shift", "mean")}
        given = {key: np.zeros_like(c) for key, c in constants.items() if c is not None}
        affine.append(node.with_params(**given))
    return _factors(path, affine, np.eye(_width(path.filter)))  # step k holds unit vector k


def _biases(path: _Path) -> list[np.ndarray]:
    """Return b (p, 1) of both factors: what they make of silence."""
    return _factors(path, path.affine, np.zeros((_width(path.filter), 1)))


def _width(filter: Node) -> int:
    system = filter.param("system")
    return system.outputs * len(system.B)  # of independent channels, or of one system for all


def _factors(path: _Path, affine: Sequence[Node], sample: np.ndarray) -> list[np.ndarray]:
    """Return both factors (features, steps) where the filter's outputs are a sample."""
    source = Node(path.filter.name, "input", (), {"shape": (len(sample), 1)}, path.filter.axes)
    graph = NetworkGraph((source, *affine), source.name)
    values = node_values(graph, sample)
    factors = np.broadcast_arrays(*(values[name] for name in path.product.inputs))
    return [_time_last(factor, path.product.axes) for factor in factors]


def _time_last(values: np.ndarray, axes: tuple[str, ...]) -> np.ndarray:
    """Return an array (features, steps) of one whose axes are named."""
    moved = np.moveaxis(values, axes.index("time"), -1)
    return moved.reshape(-1, moved.shape[-1])


def _check_answers(gate: GatedSystem, path: _Path, translation: Translation) -> None:
    """Compare a system with what the network computed on the example."""
    wires = translation.wires
    ran = next(node for node, wire in wires.items() if wire.name == path.filter.name)
    fed = _samples(wires[ran.all_input_nodes[0]])
    wire = next(wire for wire in wires.values() if wire.name == path.product.name)
    wanted = _samples(wire)
    got = np.swapaxes(gate.simulate(np.swapaxes(fed, -1, -2)), -1, -2)
    error = np.abs(got - wanted).max(initial=0.0)
    if not error <= TOLERANCE.get(wire.value.dtype, 0.0) * np.abs(wanted).max(initial=0.0):
        raise UnsupportedOperationError(
            message(
                WHERE,
                f"the layer {path.filter.name} and its gate do not compute what they say",
                expected=f"the product {path.product.name} in {wire.value.dtype}",
                got=f"a difference of {error:.3g}",
                cure="Look for state that the forward keeps, tensors changed in place, and "
                "precision: model.double() rounds less.",
            )
        )


def _samples(wire: Wire) -> np.ndarray:
    """Return the example's values (batch, features, steps)."""
    batch = wire.axes.index("batch")
    axes = (*wire.axes[:batch], *wire.axes[batch + 1 :])
    return np.stack([_time_last(x, axes) for x in np.moveaxis(to_array(wire.value), batch, 0)])
