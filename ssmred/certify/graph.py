"""Describe a traced network as a list of operations, free of any deep-learning library.

This is the form in which a network reaches the bounds of ``theory/network-bound.md`` and the rules
of ``theory/error-rules.md``.

**Axes.** A *sample* is one tensor without its batch axis. ``Node.axes`` names every sample axis of
the node's output: ``"time"`` for the sequence (at most one, of full length T) and ``"feature"`` for
anything else, unit axes included. A hidden state stored as (batch, channel, T) has axes
``("feature", "time")``; after mean pooling ``("feature",)``. Every ``axis`` parameter counts sample
axes of the node's *input* (the batch axis is not counted), may be negative, and refers to the
output only for ``unsqueeze``.

**Operations and their parameters** (arrays are float64 copies of the stored weights; optional
parameters may be absent or None):

============ ======================================================================================
input        shape (sample shape, the time axis written as 1); optional tokens (bool)
linear       weight (out, in), optional bias (out,): acts on the last axis
conv1d       weight (out, in) or (out, in, 1), optional bias: kernel size 1, acts on axis 0
embedding    weight (tokens, features): appends a feature axis
ssm          system: H real post-update channels (batch (H,), diagonal or dense) or one real
             DiagonalSystem with m inputs and p outputs (batch (1,)); channels on axis 0, then time
gelu         approximate "none" (default) or "tanh"
relu, silu, tanh, sigmoid, identity (Dropout in eval), none
glu          axis (default -1): first half times the sigmoid of the second half
layernorm    optional weight, bias; eps (1e-5); dims (1): normalises the last ``dims`` axes
batchnorm    optional weight, bias; mean, var, eps (1e-5); axis (0): the channel axis
add, sub, multiply  two inputs, NumPy broadcasting
affine       scale (1), shift (0): scalars or arrays that broadcast to the sample (time axis 1)
constant     value (the sample itself, the time axis at full length)
mean, max    axis (int or tuple), keepdim (False)
last         axis (the time axis); select: axis, index (one entry of an axis)
slice        axis, start (0), stop (None), step (1): a piece of an axis
concat       axis: any number of inputs
reverse      axis: from its end to its beginning
delay        axis (the time axis), steps (1): zeros come first, the last steps go
permute      order (of the sample axes)
reshape      shape (sample shape of the output, the time axis written as 1)
unsqueeze    axis (position in the output); squeeze: axis
============ ======================================================================================

A user's own module is a node whose ``op`` is ``operation_name(cls)`` and whose params hold what
its rule needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ssmred.checks import check_finite
from ssmred.errors import ShapeError, message

__all__ = ["NetworkGraph", "Node", "operation_name"]

AXES = ("time", "feature")


def operation_name(kind: type | str) -> str:
    """Return the operation name of a module class: its qualified name; a string is its own name.

    Examples
    --------
    >>> operation_name("gelu"), operation_name(dict)
    ('gelu', 'builtins.dict')
    """
    return kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"


@dataclass(frozen=True, eq=False)
class Node:
    """Hold one operation of a network.

    Parameters
    ----------
    name : str
        Unique in its graph; for ``ssm`` nodes the layer's name in certificates.
    op : str
        Operation, see the module's table; a class is replaced by its qualified name.
    inputs : sequence of str
        Names of the nodes whose outputs it takes, in order.
    params : mapping
        Parameters of the operation. Real arrays become read-only float64 copies (exact for
        float16 and float32); integers, strings, None and systems are kept.
    axes : sequence of str
        ``"time"`` or ``"feature"`` for every sample axis (no batch axis) of the output.

    Raises
    ------
    ShapeError
        If a tag is unknown or time appears twice.
    DataError
        If a parameter is nan or inf.
    """

    name: str
    op: str
    inputs: tuple[str, ...] = ()
    params: Mapping[str, Any] = field(default_factory=dict)
    axes: tuple[str, ...] = ("feature",)

    def __post_init__(self) -> None:
        set_field = object.__setattr__  # the fields of a frozen value are cleaned once, here
        set_field(self, "op", operation_name(self.op))
        set_field(self, "inputs", tuple(self.inputs))
        set_field(self, "axes", tuple(self.axes))
        set_field(self, "params", {k: self._clean(k, v) for k, v in self.params.items()})
        unknown = [tag for tag in self.axes if tag not in AXES]
        if unknown or self.axes.count("time") > 1:
            raise ShapeError(
                message(
                    f"Node {self.name!r} ({self.op})",
                    "axes are not usable",
                    expected='"time" at most once, "feature" elsewhere, no batch axis',
                    got=repr(self.axes),
                )
            )

    def _clean(self, key: str, value: Any) -> Any:
        if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
            check_finite(value, f"parameter {key!r}", f"Node {self.name!r} ({self.op})")
            kind = np.float64 if value.dtype.kind == "f" else value.dtype
            if value.flags.writeable or value.dtype != kind:  # a clean copy need not be copied
                value = np.array(value, dtype=kind)
                value.setflags(write=False)
        elif isinstance(value, (float, np.floating)):
            check_finite(value, f"parameter {key!r}", f"Node {self.name!r} ({self.op})")
            value = float(value)
        return value

    @property
    def time_axis(self) -> int | None:
        """Position of the time axis among the sample axes of the output, or None."""
        return self.axes.index("time") if "time" in self.axes else None

    def param(self, key: str, default: Any = None) -> Any:
        """Return a parameter, ``default`` where it is absent or None."""
        value = self.params.get(key)
        return default if value is None else value

    def with_params(self, **changes: Any) -> Node:
        """Return a copy with some parameters added or replaced."""
        return replace(self, params={**self.params, **changes})


@dataclass(frozen=True, eq=False)
class NetworkGraph:
    """Hold the operations of a network in an order in which they can be executed.

    Parameters
    ----------
    nodes : sequence of Node
        Every node after the nodes it takes inputs from; exactly one ``input`` node.
    output : str
        Name of the node whose value the network returns.

    Raises
    ------
    ShapeError
        If names repeat, an input is unknown or comes later, or there is not one input node.

    Examples
    --------
    >>> graph = NetworkGraph(
    ...     [Node("x", "input", (), {"shape": (1, 2)}, ("time", "feature")),
    ...      Node("y", "mean", ("x",), {"axis": 0}, ("feature",))],
    ...     output="y",
    ... )
    >>> [node.op for node in graph], graph["y"].axes
    (['input', 'mean'], ('feature',))
    """

    nodes: tuple[Node, ...]
    output: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "nodes", tuple(self.nodes))
        seen: set[str] = set()
        for node in self.nodes:
            missing = [name for name in node.inputs if name not in seen]
            if missing or node.name in seen:
                raise ShapeError(
                    message(
                        "NetworkGraph",
                        f"node {node.name!r} repeats a name or takes an input that is not there",
                        expected="unique names, inputs listed before their consumers",
                        got=f"missing inputs {missing}",
                    )
                )
            seen.add(node.name)
        inputs = [node.name for node in self.nodes if node.op == "input"]
        if self.output not in seen or len(inputs) != 1:
            raise ShapeError(
                message(
                    "NetworkGraph",
                    "the graph needs exactly one input node and an existing output node",
                    got=f"inputs {inputs}, output {self.output!r}",
                )
            )

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def __getitem__(self, name: str) -> Node:
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    @property
    def input(self) -> Node:
        """The input node."""
        return next(node for node in self.nodes if node.op == "input")

    @property
    def ssm_nodes(self) -> tuple[Node, ...]:
        """The state-space layers in execution order."""
        return tuple(node for node in self.nodes if node.op == "ssm")

    def with_systems(self, systems: Mapping[str, Any]) -> NetworkGraph:
        """Return a copy whose state-space nodes named in ``systems`` hold these systems.

        Raises
        ------
        ShapeError
            If a name is not a state-space node of this graph.
        """
        unknown = sorted(set(systems) - {node.name for node in self.ssm_nodes})
        if unknown:
            raise ShapeError(
                message(
                    "NetworkGraph.with_systems",
                    f"{unknown} are not state-space nodes",
                    expected=f"names among {[node.name for node in self.ssm_nodes]}",
                )
            )
        nodes: Sequence[Node] = [
            node.with_params(system=systems[node.name]) if node.name in systems else node
            for node in self.nodes
        ]
        return NetworkGraph(tuple(nodes), self.output)
