"""Record what a network computes as a torch.fx graph of known leaves."""

from __future__ import annotations

import copy
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

from ssmred.errors import UnsupportedOperationError, message
from ssmred.networks import inplace
from ssmred.networks.filters import is_core
from ssmred.networks.reversal import OneStepDelay

__all__ = ["capture", "check_hooks", "place_of"]

_ROOT = "network"
_TORCH = str(Path(torch.__file__).parent)
_HERE = (str(Path(__file__)), str(Path(inplace.__file__)))


class _Root(nn.Module):
    """Call a network with one argument, so that its optional arguments keep their defaults."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> Any:
        return self.network(x)


class _Tracer(fx.Tracer):
    def __init__(self, leaves: set[int]) -> None:
        super().__init__()
        self.record_stack_traces = True  # errors name the line that cannot be followed
        self._leaves = leaves

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return inplace.WatchfulProxy(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if is_core(m) or isinstance(m, OneStepDelay) or id(m) in self._leaves:
            return True
        return super().is_leaf_module(m, module_qualified_name)


def capture(
    model: nn.Module, *, is_leaf: Callable[[nn.Module], bool] = lambda _module: False
) -> fx.GraphModule:
    """Trace a network in eval mode, through every user module down to known leaves.

    Parameters
    ----------
    model : nn.Module
        Called with one positional argument; never modified.
    is_leaf : callable
        Says which modules to keep whole besides those of torch.nn and the cores.

    Returns
    -------
    torch.fx.GraphModule
        Its submodules are those of a copy of `model`, under their own names.

    Raises
    ------
    UnsupportedOperationError
        If the control flow depends on values, the network needs more than one argument, a module
        has forward hooks, or a tensor that is used elsewhere is changed in place; names the line
        and the cure.
    """
    check_hooks(model, "trace")
    model = copy.deepcopy(model).eval()
    root = _Root(model)
    # found beforehand: while tracing, a look at a module's tensors would be recorded
    leaves = {id(module) for module in model.modules() if is_leaf(module)}
    try:
        graph = _Tracer(leaves).trace(root)
    except Exception as error:
        raise UnsupportedOperationError(
            message(
                "trace",
                f"{type(model).__name__} cannot be traced at {_last_place(error)}: {error}",
                expected="a forward(x) without control flow that depends on values",
                cure="Rewrite that line with tensor operations, or move it into a module of its "
                "own and register a rule for the module with ssmred.certify.rule; without a "
                "trace the layer and statistical guarantees remain.",
            )
        ) from error
    for node in graph.nodes:
        if node.op in ("call_module", "get_attr"):
            target = str(node.target)
            if target.startswith(f"{_ROOT}."):
                node.target = target.removeprefix(f"{_ROOT}.")
            elif target == _ROOT:  # the network is a single leaf
                return fx.GraphModule(root, graph, type(model).__name__)
            else:  # a tensor made in forward itself; not part of the state dict
                model.register_buffer(target, getattr(root, target), persistent=False)
    _check_in_place(graph, model)  # before bare statements, which have no user, are removed
    module = fx.GraphModule(model, graph, type(model).__name__)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


def check_hooks(model: nn.Module, where: str) -> None:
    """Raise UnsupportedOperationError, naming the module, if one has forward hooks.

    A hook may change what its module takes and returns; neither a trace nor an imported layer sees
    it.
    """
    for path, module in model.named_modules():
        if module._forward_hooks or module._forward_pre_hooks:
            raise UnsupportedOperationError(
                message(
                    where,
                    f"the module {path or 'model'} ({type(module).__name__}) has forward hooks",
                    expected="modules that compute what their forward says",
                    cure="Remove the hook (handle.remove(); torch.nn.utils.prune.remove or "
                    "remove_weight_norm for hooks of torch's own), or write what it does into "
                    "the forward.",
                )
            )


def _check_in_place(graph: fx.Graph, model: nn.Module) -> None:
    for node in graph.nodes:
        for value in inplace.mutated(node, model):
            if inplace.shares_memory(value, model):
                raise UnsupportedOperationError(
                    message(
                        "trace",
                        f"a tensor that is used elsewhere is changed in place, at {place_of(node)}",
                        expected="in-place operations on tensors without another use",
                        cure="Write x = x + y instead of x += y, x = x.mul(y) instead of "
                        "x.mul_(y), and inplace=False.",
                    )
                )


def place_of(node: fx.Node) -> str:
    """Return the source line that made a node, or its name where that is not known."""
    lines = [line.strip() for line in (node.stack_trace or "").strip().splitlines()]
    frames = [i for i, line in enumerate(lines) if line.startswith("File ")]
    frames = [i for i in frames if not any(part in lines[i] for part in (_TORCH, *_HERE))]
    if not frames:
        return f"node {node.name}"
    file, line, *_ = lines[frames[-1]].removeprefix("File ").split(", ")
    code = lines[frames[-1] + 1] if frames[-1] + 1 < len(lines) else ""
    return f"{Path(file.strip(chr(34))).name} {line} ({code})"


def _last_place(error: Exception) -> str:
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((_TORCH, *_HERE))
    ]
    if not frames:
        return "its forward"
    last = frames[-1]
    return f"{Path(last.filename).name} line {last.lineno} ({last.line})"
