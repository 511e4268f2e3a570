"""Write a captured network as plain data, and rebuild it from nothing but that data.

Only names from the tables below are ever turned into code, so a stored network cannot run anything
that is not listed here.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from ssmred.errors import CheckpointError, UnsupportedOperationError, message
from ssmred.networks.adapters import adapter_for
from ssmred.networks.adapters.plain import PlainS4D
from ssmred.networks.adapters.s4d import S4DAdapter
from ssmred.networks.capture import place_of
from ssmred.networks.cores import CORES
from ssmred.networks.filters import LinearFilter
from ssmred.networks.operator_bank import OperatorBank
from ssmred.networks.reversal import OneStepDelay

__all__ = ["declare", "rebuild"]

_OPERATORS = "add sub mul truediv floordiv mod neg pow matmul getitem iadd isub imul itruediv"
_TORCH = """
abs add amax amin arange cat chunk clamp clone concat div einsum exp eye flatten flip full full_like
log log1p log_softmax matmul max maximum mean min minimum mul narrow neg ones ones_like permute pow
relu reshape rsqrt rsub select sigmoid softmax split sqrt square squeeze stack sub sum swapaxes tanh
transpose unbind unsqueeze where zeros zeros_like
"""
_FUNCTIONAL = """
adaptive_avg_pool1d adaptive_max_pool1d batch_norm conv1d dropout elu embedding gelu glu layer_norm
leaky_relu linear log_softmax mish pad relu sigmoid silu softmax softplus tanh
"""
_METHODS = """
abs add add_ amax amin chunk clamp clone contiguous detach dim div div_ double exp expand flatten
flip float index_select log_softmax long max mean min movedim mul mul_ narrow neg numel permute pow
relu relu_ repeat reshape select sigmoid size softmax split sqrt square squeeze sub sub_ sum
swapaxes t tanh to transpose type_as unbind unflatten unsqueeze view
"""

FUNCTIONS: dict[str, Any] = {
    f"{room}.{name}": getattr(source, name)
    for room, source, names in (
        ("operator", operator, _OPERATORS),
        ("torch", torch, _TORCH),
        ("functional", functional, _FUNCTIONAL),
    )
    for name in names.split()
} | {"getattr": getattr, "len": len}
"""Functions a stored network may call."""

ATTRIBUTES = frozenset({"shape", "ndim", "dtype", "device", "T", "mT", "values"})
"""Attributes it may read."""

METHODS = frozenset(_METHODS.split())
"""Tensor methods it may call."""

_POOLED = ("output_size",)
_CONVOLUTION = (
    *("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups"),
    *("bias", "padding_mode"),
)
MODULES: dict[str, tuple[type[nn.Module], tuple[str, ...]]] = {
    kind.__name__: (kind, settings)
    for kind, settings in (
        (nn.Linear, ("in_features", "out_features", "bias")),
        (nn.Conv1d, _CONVOLUTION),
        (
            nn.Embedding,
            ("num_embeddings", "embedding_dim", "padding_idx", "max_norm", "norm_type"),
        ),
        (nn.LayerNorm, ("normalized_shape", "eps", "elementwise_affine", "bias")),
        (nn.GroupNorm, ("num_groups", "num_channels", "eps", "affine")),
        (nn.BatchNorm1d, ("num_features", "eps", "momentum", "affine", "track_running_stats")),
        (nn.BatchNorm2d, ("num_features", "eps", "momentum", "affine", "track_running_stats")),
        (nn.GELU, ("approximate",)),
        (nn.GLU, ("dim",)),
        *((kind, ("inplace",)) for kind in (nn.ReLU, nn.SiLU, nn.ReLU6, nn.Mish)),
        *((kind, ()) for kind in (nn.Tanh, nn.Sigmoid, nn.Identity, nn.Softsign, nn.LogSigmoid)),
        (nn.ELU, ("alpha", "inplace")),
        (nn.LeakyReLU, ("negative_slope", "inplace")),
        (nn.Softplus, ("beta", "threshold")),
        (nn.Hardtanh, ("min_val", "max_val", "inplace")),
        *((kind, ("dim",)) for kind in (nn.Softmax, nn.LogSoftmax)),
        *(
            (kind, ("p", "inplace"))
            for kind in (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
        ),
        (OneStepDelay, ()),
        (nn.Flatten, ("start_dim", "end_dim")),
        (nn.Unflatten, ("dim", "unflattened_size")),
        (nn.AdaptiveAvgPool1d, _POOLED),
        (nn.AdaptiveMaxPool1d, _POOLED),
    )
}
"""Modules it may build, and the constructor settings that are stored."""

FILTERS: dict[str, type[LinearFilter]] = CORES | {OperatorBank.__name__: OperatorBank}
"""Filters that it may build."""

_NAMES = {id(function): name for name, function in reversed(FUNCTIONS.items())}


def declare(module: fx.GraphModule) -> dict[str, Any]:
    """Return a captured network as JSON-ready data: its modules and its nodes, no weights.

    Raises
    ------
    UnsupportedOperationError
        If it uses something that is not in the tables of this file; names it and the line.
    """
    nodes, modules = [], {}
    for node in module.graph.nodes:
        target: Any = node.target
        if node.op == "call_function":
            target = _NAMES.get(id(target))
            if target == "getattr" and node.args[1] not in ATTRIBUTES:
                target = None
        elif node.op == "call_method":
            target = target if target in METHODS else None
        elif node.op == "call_module":
            modules[target] = _declare_module(module.get_submodule(target), str(target))
        if target is None:
            name = getattr(node.target, "__name__", node.target)
            raise _refusal(f"{name} at {place_of(node)}")
        nodes.append(
            {
                "name": node.name,
                "op": node.op,
                "target": str(target),
                "args": _encode(node.args if node.op != "placeholder" else ()),
                "kwargs": _encode(node.kwargs),
            }
        )
    return {"class": type(module).__name__, "modules": modules, "nodes": nodes}


def rebuild(declared: dict[str, Any]) -> fx.GraphModule:
    """Build the network that `declare` described; its weights are placeholders without memory.

    Raises
    ------
    CheckpointError
        If the description is damaged or names something that is not in the tables.
    """
    try:
        return _rebuild(declared)
    except CheckpointError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise CheckpointError(
            message("load_network", f"the stored network is damaged ({error!r})")
        ) from error


def _rebuild(declared: dict[str, Any]) -> fx.GraphModule:
    root = nn.Module()
    for path, described in declared["modules"].items():
        _attach(root, path, _rebuild_module(described))
    graph, made = fx.Graph(), {}
    for entry in declared["nodes"]:
        made[entry["name"]] = graph.create_node(
            _known_op(entry["op"]),
            _known_target(entry),
            tuple(_decode(entry["args"], made)),
            dict(_decode(entry["kwargs"], made)),
            name=str(entry["name"]),
        )
    for node in graph.nodes:
        if node.op == "get_attr":  # filled by the weights
            owner, name = _owner(root, str(node.target))
            if not hasattr(owner, name):
                owner.register_buffer(name, torch.empty(0, device="meta"))
    graph.lint()
    return fx.GraphModule(root, graph, "LoadedNetwork")


# Modules --------------------------------------------------------------------------------------


def _declare_module(module: nn.Module, path: str) -> dict[str, Any]:
    kind = type(module).__name__
    if isinstance(module, LinearFilter) and type(module) in FILTERS.values():
        described = {"kind": kind, "settings": module._settings()}
        if module.stands_for is not None:
            described["stands_for"] = list(module.stands_for)
        return described
    known = MODULES.get(kind)
    if known is not None and type(module) is known[0]:
        settings = {name: getattr(module, name) for name in known[1]}
        if "bias" in settings:
            settings["bias"] = module.bias is not None
        return {"kind": kind, "settings": _encode(settings)}
    if type(module) is nn.Sequential:
        members = {
            name: _declare_module(m, f"{path}.{name}") for name, m in module.named_children()
        }
        return {"kind": "Sequential", "members": members}
    if isinstance(adapter_for(module), S4DAdapter):
        plain = PlainS4D.like(module)
        children = {
            name: _declare_module(child, f"{path}.{name}") for name, child in plain.reused.items()
        }
        return {"kind": "S4D", "settings": _encode(plain.settings), "members": children}
    if not module.state_dict() and "drop" in kind.lower():
        return {
            "kind": "Identity",
            "settings": _encode({}),
        }  # a user's dropout does nothing in eval mode
    raise _refusal(f"the module {kind} ({path})")


def _rebuild_module(described: dict[str, Any]) -> nn.Module:
    kind = described["kind"]
    if kind in FILTERS:
        core = FILTERS[kind]._blank(**described["settings"])
        if "stands_for" in described:
            core.hide([str(key) for key in described["stands_for"]])
        return core
    members = {name: _rebuild_module(m) for name, m in described.get("members", {}).items()}
    if kind == "Sequential":
        sequence = nn.Sequential()
        for name, member in members.items():
            sequence.add_module(name, member)
        return sequence
    settings = _decode(described["settings"], {})
    with torch.device("meta"):  # no memory, no random numbers: the weights come from the file
        if kind == "S4D":
            return PlainS4D(**settings, reused=members)
        if kind not in MODULES or set(settings) != set(MODULES[kind][1]):
            raise CheckpointError(
                message("load_network", "a stored module is not known", got=f"{kind} {settings}")
            )
        return MODULES[kind][0](**settings)


def _attach(root: nn.Module, path: str, module: nn.Module) -> None:
    owner, name = _owner(root, path)
    owner.add_module(name, module)


def _owner(root: nn.Module, path: str) -> tuple[nn.Module, str]:
    *parents, name = path.split(".")
    for parent in parents:
        if parent not in root._modules:
            root.add_module(parent, nn.Module())
        root = root.get_submodule(parent)
    return root, name


# Nodes ----------------------------------------------------------------------------------------

_OPS = ("placeholder", "get_attr", "call_function", "call_method", "call_module", "output")


def _known_op(op: str) -> str:
    if op not in _OPS:
        raise CheckpointError(message("load_network", "a stored node is not known", got=op))
    return op


def _known_target(entry: dict[str, Any]) -> Any:
    op, target = entry["op"], entry["target"]
    known = {"call_function": FUNCTIONS, "call_method": METHODS}.get(op)
    wrong = known is not None and target not in known
    if op == "call_function" and target == "getattr":
        wrong = wrong or entry["args"]["tuple"][1] not in ATTRIBUTES
    if wrong or not isinstance(target, str):
        raise CheckpointError(
            message(
                "load_network",
                "the stored network calls something that is not allowed",
                expected="operations in ssmred.networks.declaration",
                got=f"{target!r}",
            )
        )
    return FUNCTIONS[target] if op == "call_function" else target


def _encode(value: Any) -> Any:
    """Return arguments as JSON data; what JSON lacks is a dictionary with one key."""
    if isinstance(value, fx.Node):
        return {"node": value.name}
    if isinstance(value, slice):
        return {"slice": [_encode(v) for v in (value.start, value.stop, value.step)]}
    if value is Ellipsis:
        return {"ellipsis": True}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    if isinstance(value, torch.device):
        return {"device": str(value)}
    if isinstance(value, tuple):
        return {"tuple": [_encode(v) for v in value]}
    if isinstance(value, list):
        return [_encode(v) for v in value]
    if isinstance(value, dict):
        return {"dict": {str(k): _encode(v) for k, v in value.items()}}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise _refusal(f"an argument of type {type(value).__name__}")


def _decode(value: Any, made: dict[str, fx.Node]) -> Any:
    if isinstance(value, list):
        return [_decode(v, made) for v in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "node":
        return made[content]
    if kind == "slice":
        return slice(*(_decode(v, made) for v in content))
    if kind == "ellipsis":
        return Ellipsis
    if kind == "dtype":
        dtype = getattr(torch, content)
        if not isinstance(dtype, torch.dtype):
            raise TypeError(content)
        return dtype
    if kind == "device":
        return torch.device(content)
    if kind == "float":
        return float(content)
    if kind == "tuple":
        return tuple(_decode(v, made) for v in content)
    if kind == "dict":
        return {k: _decode(v, made) for k, v in content.items()}
    raise KeyError(kind)


def _refusal(what: str) -> UnsupportedOperationError:
    return UnsupportedOperationError(
        message(
            "save_network",
            f"{what} cannot be stored as a declaration",
            cure="The weights are stored all the same: build the network with its own class and "
            "call ssmred.networks.load_weights_into(model, folder).",
        )
    )
