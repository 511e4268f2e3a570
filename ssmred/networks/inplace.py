"""Notice operations that change a tensor in place, which a list of operations cannot express.

A traced network is a list of values. An operation that overwrites its argument changes every other
use of that memory too: the value itself, what it is a view of, and whatever was recorded before.
"""

from __future__ import annotations

import contextlib
import inspect
import operator
from typing import Any, cast

from torch import fx, nn
from torch.fx.proxy import Attribute
from torch.nn.modules.dropout import _DropoutNd

from ssmred.networks.adapters import adapter_for
from ssmred.networks.filters import LinearFilter
from ssmred.networks.reversal import OneStepDelay

__all__ = ["WatchfulProxy", "mutated", "shares_memory"]

_NAMES = "add sub mul truediv floordiv mod pow matmul and or xor lshift rshift"
_ASSIGNMENTS = {getattr(operator, f"i{name}"): f"__i{name}__" for name in _NAMES.split()} | {
    operator.setitem: "__setitem__"
}
_SPECIAL = frozenset({*_ASSIGNMENTS.values(), "__idiv__"})
_HARMLESS = frozenset({"requires_grad_"})
_SIZES = frozenset({"size", "dim", "numel", "len", "is_floating_point"})
_DESCRIPTIONS = frozenset({"shape", "ndim", "dtype", "device", "is_cuda", "requires_grad"})

_FRESH_NAMES = """
add sub mul truediv div floordiv mod pow neg rsub subtract multiply divide negative matmul mm linear
conv1d embedding layer_norm batch_norm relu silu gelu glu tanh sigmoid expit softmax log_softmax
softplus elu leaky_relu mish exp log log1p sqrt rsqrt square abs clamp mean sum amax amin max min
maximum minimum cat concat concatenate stack clone where zeros zeros_like ones ones_like full
full_like arange eye pad repeat index_select flip
"""
_FRESH = frozenset(_FRESH_NAMES.split())
"""Functions and methods whose results never share memory with what they are given."""

_FRESH_MODULES = (
    *(nn.Linear, nn.Conv1d, nn.Embedding, nn.LayerNorm, nn.GroupNorm, LinearFilter),
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.GELU, nn.GLU, nn.Tanh, nn.Sigmoid, nn.Softmax),
    OneStepDelay,
    *(nn.ReLU, nn.SiLU, nn.ELU, nn.LeakyReLU, nn.Mish, nn.Softplus),
)


class WatchfulProxy(fx.Proxy):
    """Stand for a value while tracing; record ``x += y`` as what it is, a change of ``x``."""

    def __getattr__(self, name: str) -> Attribute:
        return _WatchfulAttribute(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("data", "real", "imag"):
            raise TypeError(f"a value is assigned to the attribute {name} of a tensor")
        super().__setattr__(name, value)


class _WatchfulAttribute(Attribute):
    def __getattr__(self, name: str) -> Attribute:
        return _WatchfulAttribute(self, name)


def _record(function: Any) -> Any:
    def change(self: fx.Proxy, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    return change


for _function, _special in _ASSIGNMENTS.items():
    if _special != "__setitem__":  # x[...] = y stops the tracing by itself
        setattr(WatchfulProxy, _special, _record(_function))
        setattr(_WatchfulAttribute, _special, _record(_function))


def mutated(node: fx.Node, module: nn.Module) -> list[fx.Node]:
    """Return the arguments that an operation changes in place.

    Parameters
    ----------
    node : torch.fx.Node
    module : nn.Module
        Holds the modules that nodes call.
    """
    written: Any = node.kwargs.get("out")
    changed = list(written) if isinstance(written, (tuple, list)) else [written]
    first = node.args[0] if node.args else node.kwargs.get("input")
    if node.op == "call_module":
        called = module.get_submodule(str(node.target))
        idle = isinstance(called, _DropoutNd) and not called.training
        if getattr(called, "inplace", False) and not idle:
            changed.append(first)
    elif node.op == "call_method":
        name = str(node.target)
        trailing = name.endswith("_") and not name.endswith("__") and name not in _HARMLESS
        if trailing or name in _SPECIAL:
            changed.append(first)
    elif node.op == "call_function":
        name = _name(node)
        trailing = name.endswith("_") and not name.endswith("__")
        if node.target in _ASSIGNMENTS or trailing or _asks_in_place(node):
            changed.append(first)
    return [item for item in changed if isinstance(item, fx.Node) and not _is_number(item)]


def shares_memory(value: fx.Node, module: nn.Module) -> bool:
    """Tell whether the memory of a value with one user may be seen by anything else.

    It is, if the value or anything that it may be a view of has another user, or is a weight. What
    is not known to make memory of its own counts as a view.
    """
    if len(value.users) > 1 or value.op == "get_attr":
        return True
    if value.op == "placeholder" or _is_fresh(value, module):
        return False
    sources = (source for source in value.all_input_nodes if not _is_number(source))
    return any(shares_memory(source, module) for source in sources)


def _asks_in_place(node: fx.Node) -> bool:
    """Tell whether a function is called with inplace=True, and does something."""
    given: dict[str, Any] = dict(node.kwargs)
    with contextlib.suppress(TypeError, ValueError):  # built in: no signature, no such parameter
        signature = inspect.signature(cast(Any, node.target))
        given |= signature.bind(*node.args, **node.kwargs).arguments
    idle = "dropout" in _name(node) and given.get("training", True) is False
    return bool(given.get("inplace", False)) and not idle


def _is_fresh(node: fx.Node, module: nn.Module) -> bool:
    if mutated(node, module):
        return False  # the result is the argument
    if node.op == "call_module":
        called = module.get_submodule(str(node.target))
        return isinstance(called, _FRESH_MODULES) or adapter_for(called) is not None
    return _name(node) in _FRESH


def _is_number(node: fx.Node) -> bool:
    """Tell whether a value is a size or computed from sizes: a number cannot be changed."""
    name = _name(node)
    if name == "getattr":
        return node.args[1] in _DESCRIPTIONS
    if name in _SIZES:
        return True
    sources = node.all_input_nodes
    arithmetic = getattr(node.target, "__module__", "") == "_operator"
    return arithmetic and bool(sources) and all(_is_number(source) for source in sources)


def _name(node: fx.Node) -> str:
    if node.op == "call_method":
        return str(node.target)
    return getattr(node.target, "__name__", "") if node.op == "call_function" else ""
