"""Run a network one time step at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from ssmred.errors import ShapeError, UnsupportedOperationError, message
from ssmred.networks.capture import place_of
from ssmred.networks.filters import LinearFilter
from ssmred.networks.reversal import OneStepDelay
from ssmred.networks.tracing import follow
from ssmred.networks.translation import Pooling, Translation, Wire

__all__ = ["StreamingNetwork"]


EXAMPLE_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-8}
"""Agreement of both ways on an example, relative to the largest output."""


class StreamingNetwork:
    """Feed a network one step after another and read its answer so far.

    State-space layers keep their state, pooling over time runs along (mean, sum, maximum, last or
    a given step), everything else acts on the current step. After T steps the answer is that of
    the whole sequence, to rounding.

    Parameters
    ----------
    model : nn.Module
        Original or reduced; state-space layers are imported. A copy is made: later changes of
        `model` do not reach it.
    example_shape : tuple of int, optional
        Shape of one whole input, time first, where it cannot be inferred.

    Raises
    ------
    UnsupportedOperationError
        If the network cannot be traced, looks ahead, or uses the sequence length.

    Notes
    -----
    Cost of a step: proportional to the states kept, plus the network's other layers on one
    position. Memory does not grow with the length.
    """

    def __init__(self, model: nn.Module, *, example_shape: tuple[int, ...] | None = None) -> None:
        translation, output = follow(model, example_shape=example_shape, strict=False)
        self._module = translation.module
        self._features = tuple(translation.example.shape[2:])
        self._output_time = output.axes.index("time") if "time" in output.axes else None
        nodes = list(translation.module.graph.nodes)
        moving = _dependent(nodes)
        _check_causal(translation)
        self._fixed = {n: w.value for n, w in translation.wires.items() if n not in moving}
        self._input = next(n for n in nodes if n.op == "placeholder")
        answer = nodes[-1].args[0]  # a tensor, or a tuple with one tensor
        self._output = answer if isinstance(answer, fx.Node) else _only_node(answer)
        operations = {node.name: node.op for node in translation.nodes}
        idle = {
            n
            for n, wire in translation.wires.items()
            if n.op == "call_module" and n.args and operations.get(wire.name) == "identity"
        }
        self._calls = [
            _Call.of(n, self._module, translation.pooling.get(n), idle=n in idle)
            for n in nodes
            if n in moving and n.op not in ("placeholder", "output")
        ]
        self._steps = 0
        self._memory: dict[fx.Node, Any] = {}
        self._batch: int | None = None
        self._check_example(translation, output)

    @property
    def steps(self) -> int:
        """Number of steps since the last reset."""
        return self._steps

    def reset(self, batch: int = 1) -> None:
        """Forget everything seen and expect `batch` streams."""
        self._steps, self._memory, self._batch = 0, {}, batch

    @torch.no_grad()
    def step(self, x: torch.Tensor) -> torch.Tensor:
        """Take one time step and return the network's answer so far.

        Parameters
        ----------
        x : torch.Tensor, (B, F), or (B,) for tokens
            The input of this step; the first call sets the number of streams.

        Returns
        -------
        torch.Tensor
            What the network returns for the sequence so far; for a network that returns a
            sequence, its latest step.
        """
        if self._batch is None:
            self.reset(len(x))
        if tuple(x.shape) != (self._batch, *self._features):
            raise ShapeError(
                message(
                    "StreamingNetwork.step",
                    "the input does not fit",
                    expected=f"{(self._batch, *self._features)}, one step of every stream",
                    got=f"{tuple(x.shape)}",
                    cure="Call reset(batch) before the number of streams changes.",
                )
            )
        self._steps += 1
        values = dict(self._fixed)
        values[self._input] = x.unsqueeze(1)
        for call in self._calls:
            values[call.node] = self._run(call, values)
        answer = values[self._output]
        return answer if self._output_time is None else answer.select(self._output_time, 0)

    def _check_example(self, translation: Translation, output: Wire) -> None:
        """Stream the example of the translation: a module may look ahead in ways unseen here."""
        for step in translation.example.unbind(1):
            answer = self.step(step)
        whole = output.value
        if self._output_time is not None:
            whole = whole.select(self._output_time, -1)
        tolerance = EXAMPLE_TOLERANCE.get(whole.dtype, 0.1) * float(whole.abs().max())
        if not bool(((answer - whole).abs() <= tolerance).all()):
            raise UnsupportedOperationError(
                message(
                    "StreamingNetwork",
                    "step by step the network answers otherwise than on the whole sequence",
                    cure="A module of it looks along time; run it on whole sequences.",
                )
            )
        self._steps, self._memory, self._batch = 0, {}, None

    def _run(self, call: _Call, values: dict[fx.Node, Any]) -> Any:
        args = [values[a] if type(a) is fx.Node else a for a in call.args]
        if call.nested:  # nodes inside of lists or keywords
            args = fx.map_arg(args, values.__getitem__)
        kwargs = fx.map_arg(call.kwargs, values.__getitem__) if call.kwargs else {}
        if isinstance(call.function, LinearFilter):
            return self._advance(call.node, call.function, args[0])
        if isinstance(call.function, OneStepDelay):
            before = self._memory.get(call.node)
            self._memory[call.node] = args[0]
            return torch.zeros_like(args[0]) if before is None else before
        value = call.function(*args, **kwargs)
        return value if call.pooling is None else self._pool(call.node, call.pooling, value)

    def _advance(self, node: fx.Node, core: LinearFilter, u: torch.Tensor) -> torch.Tensor:
        state = self._memory.get(node)
        if state is None:
            state = core.initial_state(len(u))
        y, self._memory[node] = core.step(u[..., 0], state, in_place=True)
        return y.unsqueeze(-1)

    def _pool(self, node: fx.Node, pooling: Pooling, value: Any) -> Any:
        if pooling.kind == "last":
            return value
        pair = not isinstance(value, torch.Tensor)  # torch.max over a dimension
        new = value[0] if pair else value
        old = self._memory.get(node)
        if pooling.kind == "at":
            kept = new if old is None or self._steps <= pooling.index + 1 else old
        elif pooling.kind == "max":
            kept = new if old is None else torch.maximum(old, new)
        else:
            kept = new.double() if old is None else old + new.double()
        self._memory[node] = kept
        if pooling.kind == "mean":
            return (kept / self._steps).to(new.dtype)
        if pooling.kind == "max" and pair:
            return type(value)((kept, value[1]))
        return kept.to(new.dtype)


@dataclass(frozen=True, eq=False)
class _Call:
    """Hold one operation of a step: what to call, and where its arguments come from."""

    node: fx.Node
    function: Callable[..., Any]
    args: tuple
    kwargs: dict[str, Any]
    nested: bool
    pooling: Pooling | None

    @classmethod
    def of(
        cls, node: fx.Node, module: fx.GraphModule, pooling: Pooling | None, *, idle: bool
    ) -> _Call:
        args = node.args if pooling is None or pooling.args is None else pooling.args
        function: Any
        if idle:  # dropout and the like: hand the first argument on
            function, args = _same, args[:1]
        elif node.op == "call_module":
            function = module.get_submodule(str(node.target))
        elif node.op == "call_method":
            function = _method(str(node.target))
        else:
            function = node.target
        nested = any(isinstance(a, (tuple, list, slice, dict)) for a in args)
        kwargs = {} if idle else dict(node.kwargs)
        return cls(node, function, args, kwargs, nested, pooling)


def _same(x: torch.Tensor) -> torch.Tensor:
    return x


def _method(name: str) -> Callable[..., Any]:
    def call(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return getattr(tensor, name)(*args, **kwargs)

    return call


def _check_causal(translation: Translation) -> None:
    """Refuse sequences whose earlier steps depend on later ones, through something pooled."""
    operations = {node.name: node.op for node in translation.nodes}
    pooled: set[fx.Node] = set()
    for node, wire in translation.wires.items():
        late = any(source in pooled for source in node.all_input_nodes)
        if late and "time" in wire.axes:
            raise UnsupportedOperationError(
                message(
                    "StreamingNetwork",
                    f"every step depends on the whole sequence, at {place_of(node)}",
                    cure="Run the network on whole sequences.",
                )
            )
        if operations.get(wire.name) == "reverse":
            raise UnsupportedOperationError(
                message(
                    "StreamingNetwork",
                    "the network reads the sequence backwards (a bidirectional layer), at "
                    f"{place_of(node)}",
                    expected="layers whose output does not depend on steps to come",
                    cure="Run the network on whole sequences.",
                )
            )
        how = translation.pooling.get(node)
        if late or (how is not None and (how.kind, how.index) != ("at", 0)):
            pooled.add(node)


def _only_node(answer: Any) -> fx.Node:
    return next(item for item in answer if isinstance(item, fx.Node))


def _dependent(nodes: list[fx.Node]) -> set[fx.Node]:
    """Return the nodes whose value depends on the input, the output node included."""
    moving: set[fx.Node] = set()
    for node in nodes:
        inputs = node.all_input_nodes
        if node.op in ("placeholder", "output") or any(n in moving for n in inputs):
            moving.add(node)
    return moving
