"""Follow an example through a captured network and name what every axis of every signal means.

Each fx node is either a constant (does not depend on the input), a measure (a size), or a signal
with one tag per axis: ``"batch"``, ``"time"`` or ``"feature"``. Handlers, one per torch operation
(`operations`, `arithmetic`, `layouts`), turn it into nodes of a `ssmred.certify.NetworkGraph`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from ssmred.certify.graph import Node, operation_name
from ssmred.errors import SsmredError, UnsupportedOperationError, message
from ssmred.networks.capture import place_of
from ssmred.networks.inplace import mutated

__all__ = [
    "HANDLERS",
    "LengthNeeded",
    "Pooling",
    "Translation",
    "Wire",
    "single",
    "to_array",
    "translates",
]

BATCH = 3
"""Batch size of example runs; no unit and unlike usual widths, so that a mix-up shows."""

FREE_POINTWISE = frozenset(
    {"abs", "clamp", "elu", "exp", "hardtanh", "hardsigmoid", "hardswish", "leakyrelu"}
    | {"leaky_relu", "log_softmax", "logsigmoid", "logsoftmax", "mish", "pow", "relu6", "rsqrt"}
    | {"selu", "softmax", "softplus", "softsign", "sqrt", "square"}
)
"""Operations that have no rule but may be streamed."""

HANDLERS: dict[Any, Callable[..., Any]] = {}
"""Handler by torch function, method name or module class."""


class LengthNeeded(Exception):  # noqa: N818  (a signal between two attempts, never shown)
    """Ask for an example of full length: a value depends on the number of steps."""


@dataclass(frozen=True, eq=False)
class Wire:
    """Hold what is known about the output of one fx node.

    Attributes
    ----------
    value : object
        Its value in the example run.
    name : str
        The graph node that describes it; empty for constants and measures.
    axes : tuple of str
        Tag of every axis of a signal, the batch axis included.
    parts : tuple of Wire, optional
        The outputs of an operation that has several.
    measures : frozenset or tuple of frozenset
        Tags of the axes whose length the value depends on (per entry for a shape).
    """

    value: Any
    name: str = ""
    axes: tuple[str, ...] = ()
    parts: tuple[Wire | None, ...] | None = None
    measures: Any = frozenset()

    @property
    def is_signal(self) -> bool:
        """Whether it depends on the network's input."""
        return bool(self.name) or self.parts is not None


@dataclass(frozen=True)
class Pooling:
    """Say how an fx node reduces the time axis, for running it step by step.

    Attributes
    ----------
    kind : {"mean", "sum", "max", "last", "at"}
    index : int
        The step that "at" keeps.
    args : tuple, optional
        Arguments that do the same on a single step.
    """

    kind: str
    index: int = 0
    args: tuple | None = None


def translates(*targets: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a handler ``handler(translation, value, x, ...)`` with torch's own parameters."""

    def register(handler: Callable[..., Any]) -> Callable[..., Any]:
        HANDLERS.update(dict.fromkeys(targets, handler))
        return handler

    return register


def to_array(tensor: Any) -> np.ndarray:
    """Return a tensor or number as a float64 array."""
    if isinstance(tensor, torch.Tensor):
        return tensor.detach().cpu().to(torch.float64).numpy()
    return np.asarray(tensor, dtype=np.float64)


def single(value: Any) -> Any:
    """Return the only entry of a sequence, anything else as it is."""
    return value[0] if isinstance(value, (tuple, list)) and len(value) == 1 else value


@dataclass(eq=False)
class Translation:
    """Translate a captured network along one example.

    Parameters
    ----------
    module : torch.fx.GraphModule
        From `capture`.
    example : torch.Tensor
        Input, batch first.
    axes : tuple of str
        Tags of its axes.
    horizon : int or None
        Length of the sequences that the graph speaks about.
    names : callable
        Maps the path of a core to the layer's name.
    is_ruled : callable
        Whether a user's module class has a rule of its own.
    strict : bool
        Refuse operations without a rule; otherwise let pointwise ones pass (to stream them).
    """

    module: fx.GraphModule
    example: torch.Tensor
    axes: tuple[str, ...]
    horizon: int | None
    names: Callable[[str], str]
    is_ruled: Callable[[type], bool]
    strict: bool = True
    nodes: list[Node] = field(default_factory=list)
    wires: dict[fx.Node, Wire] = field(default_factory=dict)
    pooling: dict[fx.Node, Pooling] = field(default_factory=dict)
    current: fx.Node | None = None
    measured: frozenset[str] = frozenset()
    place: int | None = None  # of the answer, where the network returns several things

    @property
    def length(self) -> int | None:
        """Length of the example."""
        return self.example.shape[self.axes.index("time")] if "time" in self.axes else None

    def run(self) -> Wire:
        """Translate all nodes and return the wire of the network's output.

        Raises
        ------
        UnsupportedOperationError
            Naming the operation, its place and the cure.
        LengthNeeded
            If an example of full length is needed.
        """
        with torch.no_grad():
            for node in self.module.graph.nodes:
                self.current = node
                if node.op == "output":
                    return self._output(node.args[0])
                self.wires[node] = self._translate(node)
        raise self.refuse("the network has no output")

    # What handlers use ---------------------------------------------------------------------------

    def emit(
        self,
        op: str | type,
        inputs: Iterable[Wire],
        value: torch.Tensor,
        axes: tuple[str, ...],
        /,
        *,
        name: str | None = None,
        **params: Any,
    ) -> Wire:
        """Add a node to the graph and return its wire."""
        name = self._unique(name or self.current.name)
        tags = tuple(tag for tag in axes if tag != "batch")
        self.nodes.append(Node(name, op, tuple(w.name for w in inputs), params, tags))
        return Wire(value, name, axes)

    def refuse(self, problem: str, *, cure: str = "") -> UnsupportedOperationError:
        """Return the error for the current node."""
        return UnsupportedOperationError(
            message(
                "trace",
                f"{problem}, at {place_of(self.current)}",
                cure=cure
                or "Put it into a module of its own and register a rule for that class with "
                'ssmred.certify.rule, or ask for guarantee="layer" or, with data, '
                'guarantee="statistical".',
            )
        )

    def dim(self, x: Wire, dim: int) -> int:
        """Return a dimension as a position from the front."""
        return dim + len(x.axes) if dim < 0 else dim

    def sample_axis(self, x: Wire, dim: int) -> int:
        """Return a dimension as a position among the sample axes, those without the batch axis."""
        dim = self.dim(x, dim)
        if x.axes[dim] == "batch":
            raise self.refuse(
                f"{self.operation()} works across the batch", cure="Samples must not mix."
            )
        return sum(tag != "batch" for tag in x.axes[:dim])

    def check_feature(self, x: Wire, dim: int) -> int:
        """Return the sample axis of a dimension that must be a feature axis."""
        if x.axes[self.dim(x, dim)] == "time":
            raise self.refuse(f"{self.operation()} works along time")
        return self.sample_axis(x, dim)

    def check_cast(self, x: Wire, value: Any) -> None:
        """Refuse a cast that may change numbers by more than rounding."""
        exact = isinstance(value, torch.Tensor) and value.dtype in (
            x.value.dtype,
            torch.float32,
            torch.float64,
        )
        if self.strict and not exact:
            raise self.refuse(
                f"{self.operation()} casts {x.value.dtype} to {getattr(value, 'dtype', value)}",
                cure="Only casts to float32 and float64 are known to change nothing but rounding.",
            )

    def check_measures(self) -> None:
        """Refuse a number that depends on the batch; ask for the full length if it does on time."""
        if "batch" in self.measured:
            raise self.refuse("a value depends on the batch size")
        if "time" in self.measured and self.length != self.horizon:
            if self.horizon is None:
                raise self.refuse(
                    "a value depends on the sequence length", cure="Give a finite horizon."
                )
            raise LengthNeeded

    def operation(self) -> str:
        """Return the name of the current operation as a reader knows it."""
        node = self.current
        if node.op == "call_module":
            return f"{type(self.module.get_submodule(str(node.target))).__name__} ({node.target})"
        return getattr(node.target, "__name__", str(node.target))

    # Machinery -----------------------------------------------------------------------------------

    def _unique(self, name: str) -> str:
        taken = {node.name for node in self.nodes}
        number, candidate = 1, name
        while candidate in taken:
            number += 1
            candidate = f"{name}@{number}"
        return candidate

    def _output(self, answer: Any) -> Wire:
        flat = [answer] if not isinstance(answer, (tuple, list)) else list(answer)
        wires = [self.wires[item] for item in flat if isinstance(item, fx.Node)]
        signals = [wire for wire in wires if wire.is_signal]
        if len(signals) != 1 or signals[0].parts is not None:
            raise self.refuse(
                f"the network returns {len(signals)} tensors",
                cure="Wrap it in a module that returns the one tensor whose error matters.",
            )
        if isinstance(answer, (tuple, list)):
            self.place = next(
                i
                for i, item in enumerate(answer)
                if isinstance(item, fx.Node) and self.wires[item] is signals[0]
            )
        return signals[0]

    def _translate(self, node: fx.Node) -> Wire:
        if node.op == "placeholder":
            sizes = zip(self.example.shape[1:], self.axes[1:], strict=True)
            shape = tuple(1 if tag == "time" else int(n) for n, tag in sizes)
            tokens = {} if self.example.is_floating_point() else {"tokens": True}
            value = self.example.clone()  # the network may overwrite it
            return self.emit("input", (), value, self.axes, shape=shape, **tokens)
        if node.op == "get_attr":
            value: Any = self.module
            for part in str(node.target).split("."):
                value = getattr(value, part)
            return Wire(value.detach() if isinstance(value, torch.Tensor) else value)
        used = [self.wires[n] for n in node.all_input_nodes]
        changed = mutated(node, self.module)

        def value_of(n: fx.Node) -> Any:
            known = self.wires[n].value
            return known.clone() if n in changed and torch.is_tensor(known) else known

        args = fx.map_arg(node.args, value_of)
        kwargs = fx.map_arg(node.kwargs, value_of)
        measuring = self._measure(node, used)
        flat = [w.measures for w in used if isinstance(w.measures, frozenset)]
        flat += [m for w in used if isinstance(w.measures, tuple) for m in w.measures]
        self.measured = frozenset().union(*flat)
        try:
            if node.op == "call_module":
                value = self.module.get_submodule(str(node.target))(*args, **kwargs)
            elif node.op == "call_method":
                value = getattr(args[0], node.target)(*args[1:], **kwargs)
            else:
                value = node.target(*args, **kwargs)
        except SsmredError:
            raise
        except Exception as error:
            raise RuntimeError(f"{self.operation()} at {place_of(node)}: {error}") from error
        if measuring is not None:
            return Wire(value, measures=measuring)
        if not any(wire.is_signal for wire in used):
            return Wire(value, measures=self.measured)
        return self._handle(node, value)

    def _measure(self, node: fx.Node, used: list[Wire]) -> Any:
        """Return what axes a size depends on, None where the node is no size of a signal."""
        if not used:
            return None
        first = used[0]
        if first.is_signal and first.parts is None:
            tags = tuple(frozenset({tag}) for tag in first.axes)
            if node.op == "call_method" and node.target == "size":
                wanted = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
                return tags if wanted is None else tags[int(wanted)]
            if node.op == "call_method" and node.target in ("dim", "is_floating_point"):
                return frozenset()
            if node.op == "call_method" and node.target == "numel":
                return frozenset().union(*tags)
            if node.target is getattr and len(node.args) > 1:
                if node.args[1] == "shape":
                    return tags
                if node.args[1] in ("device", "dtype", "ndim", "is_cuda", "requires_grad"):
                    return frozenset()
            if node.target is len:
                return tags[0]
        if node.target is operator.getitem and isinstance(first.measures, tuple):
            return first.measures[node.args[1]]  # pyright: ignore
        return None

    def _handle(self, node: fx.Node, value: Any) -> Wire:
        def substitute(other: fx.Node) -> Any:
            wire = self.wires[other]
            return wire if wire.is_signal else wire.value

        args = fx.map_arg(node.args, substitute)
        kwargs = dict(fx.map_arg(node.kwargs, substitute))
        if "input" in kwargs:
            args = (kwargs.pop("input"), *args)
        key: Any = node.target
        if node.op == "call_module":
            module = self.module.get_submodule(str(node.target))
            key = type(module)
            if self.is_ruled(key):
                return self._user(module, value, args)
            same = (k for k in key.__mro__ if k in HANDLERS and k.forward is key.forward)
            key = next(same, key)  # a parametrised layer computes what its class computes
            args = (module, *args)
        handler = HANDLERS.get(key)
        if handler is None:
            return self._unknown(value, args)
        try:
            return handler(self, value, *args, **kwargs)
        except (TypeError, AttributeError) as error:
            raise self.refuse(
                f"{self.operation()} is called in a way unknown here: {error}"
            ) from error

    def _unknown(self, value: Any, args: tuple) -> Wire:
        operation = self.operation()
        signals = [a for a in args if isinstance(a, Wire)]
        free = operation.split(" ")[0].lower()
        known = free in FREE_POINTWISE and len(signals) == 1 and isinstance(value, torch.Tensor)
        if self.strict or not known or value.shape != signals[0].value.shape:
            raise self.refuse(f"the operation {operation} has no rule")
        return self.emit("opaque", signals, value, signals[0].axes)

    def _user(self, module: nn.Module, value: Any, args: tuple) -> Wire:
        """Describe a user's module that has a rule by its weights and plain settings."""
        signals = [a for a in args if isinstance(a, Wire)]
        if not isinstance(value, torch.Tensor) or not signals:
            raise self.refuse(f"{self.operation()} does not map tensors to one tensor")
        x = signals[0]
        if value.ndim == len(x.axes):
            axes = x.axes
        else:  # the time axis is the one that has its length
            tags = ("time" if size == self.length else "feature" for size in value.shape[1:])
            axes = ("batch", *tags)
        params: dict[str, Any] = {
            key: getattr(module, key)
            for key in vars(module)
            if not key.startswith("_") and isinstance(getattr(module, key), (int, float, str))
        }
        params.pop("training", None)
        params |= {key: to_array(tensor) for key, tensor in module.state_dict().items()}
        return self.emit(operation_name(type(module)), signals, value, axes, **params)
