"""Describe a stored network as a list of steps, from its declaration alone.

Written for this verifier and shared with nothing: each line of the declaration becomes a step that
has a rule, or is refused by name. A signal has one axis of features, and until it is pooled one of
time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ssmred.errors import (
    CheckpointError,
    SsmredError,
    UnsupportedOperationError,
    message,
)
from ssmred.rigour.reading import StoredNetwork

__all__ = ["LAYER", "Step", "describe", "wiring_sha256"]

LAYER = "layer"
"""Operation of a state-space layer."""

FUNCTIONS = {
    **dict.fromkeys(("ReLU", "torch.relu", "functional.relu", "relu", "relu_"), "relu"),
    **dict.fromkeys(("SiLU", "functional.silu"), "silu"),
    **dict.fromkeys(("Tanh", "torch.tanh", "functional.tanh", "tanh"), "tanh"),
    **dict.fromkeys(("Sigmoid", "torch.sigmoid", "functional.sigmoid", "sigmoid"), "sigmoid"),
}
NOTHING = {"Identity", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout"}
NOTHING |= {"contiguous", "clone", "detach"}
"""What does nothing in eval mode."""


@dataclass(frozen=True, eq=False)
class Step:
    """Hold one operation.

    Parameters
    ----------
    op : str
        ``input``, `LAYER`, or a key of `rules.RULES`.
    inputs : tuple of int
        Positions of the steps whose outputs it takes.
    params : dict
        Stored numbers as arrays, and settings.
    name : str
        Where it stands in the network; for a layer its name in the certificate.
    """

    op: str
    inputs: tuple[int, ...]
    params: dict[str, Any] = field(default_factory=dict)
    name: str = ""


@dataclass(frozen=True)
class _Signal:
    """Point to a step's output; ``axes`` after the batch: "ft", "tf", "f", or "t" for tokens."""

    step: int
    axes: str
    width: int = 0


def describe(network: StoredNetwork, horizon: int) -> list[Step]:
    """Return the steps of a stored network; the last one is its output.

    Parameters
    ----------
    network : StoredNetwork
    horizon : int
        Sequence length.

    Raises
    ------
    UnsupportedOperationError
        If the network does anything that is not known here; it is named.
    CheckpointError
        If the declaration is damaged.
    """
    try:
        return _Reader(network, horizon).steps_of()
    except SsmredError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise CheckpointError(
            message(
                "rigour",
                f"the declaration of {network.folder} is damaged or lacks a tensor ({error!r})",
                cure="Save the result again.",
            )
        ) from error


def wiring_sha256(steps: Sequence[Step]) -> str:
    """Return the SHA-256 of what the steps are, wired how, without the stored numbers."""
    lines = []
    for step in steps:
        settings = {
            key: value
            for key, value in step.params.items()
            if isinstance(value, (bool, int, float, str, tuple))
        }
        name = step.name if step.op == LAYER else ""
        lines.append([step.op, name, step.inputs, settings])
    return hashlib.sha256(json.dumps(lines, sort_keys=True).encode()).hexdigest()


class _Reader:
    """Go through a declaration, line by line."""

    def __init__(self, network: StoredNetwork, horizon: int) -> None:
        self.modules: dict[str, Any] = network.declared["modules"]
        self.nodes: list[dict[str, Any]] = network.declared["nodes"]
        self.tensors = network.tensors
        self.horizon = horizon
        self.steps: list[Step] = []
        self.known: dict[str, Any] = {}
        self.where = ""

    def steps_of(self) -> list[Step]:
        for node in self.nodes:
            self.where = f"{node['target']} (node {node['name']})"
            args = [self._value(arg) for arg in node["args"]["tuple"]]
            kwargs = {key: self._value(arg) for key, arg in node["kwargs"]["dict"].items()}
            if node["op"] == "output":
                return self._finished(args[0])
            self.known[node["name"]] = self._line(node["op"], node["target"], args, kwargs)
        raise self.refuse("it has no output")

    def refuse(self, problem: str) -> UnsupportedOperationError:
        return UnsupportedOperationError(
            message(
                "rigour",
                f"{self.where}: {problem}",
                cure="There is no rigorous certificate for such a network yet; "
                "`ssmred verify` without --rigorous recomputes it in float64.",
            )
        )

    # Lines ----------------------------------------------------------------------------------------

    def _value(self, arg: Any) -> Any:
        if not isinstance(arg, dict):
            return [self._value(item) for item in arg] if isinstance(arg, list) else arg
        ((kind, content),) = arg.items()
        if kind == "node":
            return self.known[content]
        if kind == "tuple":
            return tuple(self._value(item) for item in content)
        if kind == "ellipsis":
            return ...
        raise self.refuse(f"an argument of kind {kind!r} is not known")

    def _finished(self, answer: Any) -> list[Step]:
        if isinstance(answer, (tuple, list)):
            answer = answer[0] if len(answer) == 1 else None
        if not isinstance(answer, _Signal) or answer.axes not in ("f", "tf", "ft"):
            raise self.refuse("the network does not return one tensor of features")
        if answer.step != len(self.steps) - 1:
            raise self.refuse("something stands behind the network's output")
        return self.steps

    def _line(self, op: str, target: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        if op == "placeholder":
            if self.steps:
                raise self.refuse("there is more than one input")
            return self._emit("input", (), "t?")
        if op == "call_module":
            if len(args) != 1 or kwargs:
                raise self.refuse("a module is called with more than one tensor")
            return self._module(self.modules[target], target, args[0])
        if op not in ("call_function", "call_method"):
            raise self.refuse(f"a line of kind {op!r} is not known")
        if target in NOTHING and not kwargs and len(args) == 1:
            return args[0]
        if target in FUNCTIONS and not kwargs and len(args) == 1:
            return self._function(FUNCTIONS[target], args[0])
        handler = _CALLS.get(target)
        if handler is None:
            raise self.refuse("the operation is not known")
        return handler(self, *args, **kwargs)

    def _emit(
        self, op: str, inputs: tuple[_Signal, ...], axes: str, width: int = 0, **params: Any
    ) -> _Signal:
        name = params.pop("name", self.where)
        self.steps.append(Step(op, tuple(signal.step for signal in inputs), params, name))
        return _Signal(len(self.steps) - 1, axes, width)

    def _input(self, axes: str, width: int) -> _Signal:
        """Say what the network's input is: the first operation on it tells."""
        known = self.steps[0].params
        params = {"width": width, "tokens": axes == "t"}
        if known not in ({}, params):
            raise self.refuse("the network's input is taken in two ways")
        self.steps[0] = Step("input", (), params, self.steps[0].name)
        return _Signal(0, axes, width)

    def _check(self, x: Any, *axes: str) -> _Signal:
        if not isinstance(x, _Signal) or x.axes not in axes:
            raise self.refuse(f"its input has axes {getattr(x, 'axes', x)!r}, not one of {axes}")
        return x

    # Modules --------------------------------------------------------------------------------------

    def _module(self, described: dict[str, Any], path: str, x: Any) -> Any:
        kind = described["kind"]
        if kind in NOTHING:
            return x
        if kind in FUNCTIONS:
            return self._function(FUNCTIONS[kind], x)
        if kind == "Sequential":
            for name, member in described["members"].items():
                x = self._module(member, f"{path}.{name}", x)
            return x
        if kind == "S4D":
            return self._s4d(described, path, x)
        if kind == "ReducedSSM" and "stands_for" not in described and not described["settings"]:
            return self._layer(path, x, "modes", path, ("poles", "residues", "D", "offsets"))
        maker = _MODULES.get(kind)
        if maker is None:
            raise self.refuse(f"the module {kind} ({path}) is not known")
        return maker(self, described["settings"]["dict"], path, x)

    def _layer(
        self, path: str, x: Any, form: str, prefix: str, keys: tuple[str, ...], **places: str
    ) -> _Signal:
        x = self._check(x, "ft")
        tensors = {
            key: self._tensor(places.get(key, f"{prefix}.{key}" if prefix else key)) for key in keys
        }
        width = len(tensors["D"])
        if x.width != width:
            raise self.refuse(f"{x.width} features enter a layer of {width} channels")
        name = path.removesuffix("core").removesuffix(".") if _is_core(path) else path
        if any(step.op == LAYER and step.name == (name or "model") for step in self.steps):
            raise self.refuse(f"the layer {name} is used twice")
        return self._emit(
            LAYER, (x,), "ft", width, form=form, tensors=tensors, name=name or "model"
        )

    def _s4d(self, described: dict[str, Any], path: str, x: Any) -> Any:
        settings = described["settings"]["dict"]
        names = settings["names"]["dict"]
        if not settings["transposed"]:
            x = self._turned(self._check(x, "tf"))
        kernel = f"{path}.{names['kernel']}"
        keys = ("D", "C", "log_dt", "log_A_real", "A_imag")
        x = self._layer(path, x, "s4d", kernel, keys, D=f"{path}.D")
        for role in ("activation", "dropout", "mixing"):
            x = self._module(described["members"][role], f"{path}.{names[role]}", x)
        if not settings["transposed"]:
            x = self._turned(x)
        return (x, None) if settings["paired"] else x

    def _tensor(self, key: str) -> np.ndarray:
        return self.tensors[key]

    def _optional(self, key: str, there: bool, otherwise: np.ndarray) -> np.ndarray:
        return self._tensor(key) if there else otherwise

    def _function(self, kind: str, x: Any) -> _Signal:
        x = self._check(x, "ft", "tf", "f")
        return self._emit("pointwise", (x,), x.axes, x.width, function=kind)

    def _affine(self, x: _Signal, weight: np.ndarray, bias: Any) -> _Signal:
        if weight.ndim != 2 or (x.width and weight.shape[1] != x.width):
            raise self.refuse(f"a matrix of shape {weight.shape} meets {x.width} features")
        return self._emit("affine", (x,), x.axes, weight.shape[0], weight=weight, bias=bias)

    def _turned(self, x: _Signal) -> _Signal:
        return _Signal(x.step, x.axes[::-1], x.width)

    def _feature_dim(self, x: _Signal, dim: int) -> None:
        if x.axes[dim if dim < 0 else dim - 1] != "f":
            raise self.refuse(f"it works along axis {dim} of {x.axes!r}, which is time")

    def _time_dim(self, x: _Signal, dim: Any) -> None:
        dim = dim[0] if isinstance(dim, (tuple, list)) and len(dim) == 1 else dim
        if not isinstance(dim, int) or x.axes[dim if dim < 0 else dim - 1] != "t":
            raise self.refuse(f"it pools along axis {dim} of {x.axes!r}, which is not time")


def _is_core(path: str) -> bool:
    return path == "core" or path.endswith(".core")


# One function per module ----------------------------------------------------------------------


def _linear(reader: _Reader, settings: dict[str, Any], path: str, x: Any) -> _Signal:
    if getattr(x, "axes", "") == "t?":  # the network's input: steps of features
        x = reader._input("tf", settings["in_features"])
    x = reader._check(x, "tf", "f")
    bias = reader._tensor(f"{path}.bias") if settings["bias"] else None
    return reader._affine(x, reader._tensor(f"{path}.weight"), bias)


def _embedding(reader: _Reader, settings: dict[str, Any], path: str, x: Any) -> _Signal:
    if getattr(x, "axes", "") != "t?":
        raise reader.refuse("tokens come from somewhere else than the network's input")
    if settings["max_norm"] is not None:
        raise reader.refuse("it renormalises its rows")
    table = reader._tensor(f"{path}.weight")
    x = reader._input("t", len(table))
    return reader._emit("embedding", (x,), "tf", table.shape[1], table=table, steps=reader.horizon)


def _convolution(reader: _Reader, settings: dict[str, Any], path: str, x: Any) -> _Signal:
    x = reader._check(x, "ft")
    plain = {"kernel_size": 1, "stride": 1, "padding": 0, "dilation": 1}
    for key, wanted in plain.items():
        given = settings[key]["tuple"] if isinstance(settings[key], dict) else [settings[key]]
        if given != [wanted]:
            raise reader.refuse(f"its {key} is {given}, not {wanted}")
    if settings["groups"] != 1:
        raise reader.refuse("it convolves in groups")
    weight = reader._tensor(f"{path}.weight")
    bias = reader._tensor(f"{path}.bias") if settings["bias"] else None
    return reader._affine(x, weight[:, :, 0], bias)


def _batchnorm(reader: _Reader, settings: dict[str, Any], path: str, x: Any) -> _Signal:
    x = reader._check(x, "ft", "f")
    if not settings["track_running_stats"]:
        raise reader.refuse("it normalises by the statistics of the batch")
    return reader._emit(
        "batchnorm",
        (x,),
        x.axes,
        x.width,
        mean=reader._tensor(f"{path}.running_mean"),
        var=reader._tensor(f"{path}.running_var"),
        eps=float(settings["eps"]),
        **_gain(reader, path, settings["affine"], settings["affine"], x.width),
    )


def _layernorm(reader: _Reader, settings: dict[str, Any], path: str, x: Any) -> _Signal:
    x = reader._check(x, "tf", "f")
    if settings["normalized_shape"] not in ({"tuple": [x.width]}, [x.width], x.width):
        raise reader.refuse(f"it normalises {settings['normalized_shape']}")
    there = settings["elementwise_affine"]
    return reader._emit(
        "layernorm",
        (x,),
        x.axes,
        x.width,
        eps=float(settings["eps"]),
        **_gain(reader, path, there, there and settings["bias"], x.width),
    )


def _gain(
    reader: _Reader, path: str, weight: bool, bias: bool, width: int
) -> dict[str, np.ndarray]:
    found = {
        "weight": reader._tensor(f"{path}.weight") if weight else np.ones(width),
        "bias": reader._tensor(f"{path}.bias") if bias else np.zeros(width),
    }
    if any(tensor.shape != (width,) for tensor in found.values()):
        raise reader.refuse(f"its weights are not {width} numbers")
    return found


def _gelu(reader: _Reader, settings: dict[str, Any], path: str, x: Any) -> _Signal:
    kinds = {"none": "gelu", "tanh": "tanh-gelu"}
    return reader._function(kinds[settings["approximate"]], x)


def _glu(reader: _Reader, settings: dict[str, Any], path: str, x: Any) -> _Signal:
    x = reader._check(x, "ft", "tf", "f")
    reader._feature_dim(x, settings["dim"])
    if x.width % 2:
        raise reader.refuse(f"{x.width} features cannot be halved")
    return reader._emit("glu", (x,), x.axes, x.width // 2)


_MODULES: dict[str, Callable[..., Any]] = {
    "Linear": _linear,
    "Embedding": _embedding,
    "Conv1d": _convolution,
    "BatchNorm1d": _batchnorm,
    "LayerNorm": _layernorm,
    "GELU": _gelu,
    "GLU": _glu,
}


# One function per call ------------------------------------------------------------------------


def _transpose(reader: _Reader, x: Any, first: int, second: int) -> _Signal:
    x = reader._check(x, "ft", "tf")
    if {first % 3, second % 3} != {1, 2} or not -3 <= min(first, second) <= max(first, second) < 3:
        raise reader.refuse(f"it exchanges axes {first} and {second}")
    return reader._turned(x)


def _pooled(kind: str) -> Callable[..., _Signal]:
    def handler(reader: _Reader, x: Any, dim: Any = None, keepdim: bool = False) -> _Signal:
        x = reader._check(x, "ft", "tf")
        reader._time_dim(x, dim)
        if keepdim:
            raise reader.refuse("it keeps the pooled axis")
        return reader._emit("pool", (x,), "f", x.width, kind=kind)

    return handler


def _item(reader: _Reader, x: Any, index: Any) -> Any:
    if isinstance(x, tuple) and isinstance(index, int):
        return x[index]
    x = reader._check(x, "ft")
    if index not in ((..., -1), (slice(None), slice(None), -1)):
        raise reader.refuse(f"it takes the entries {index}")
    return reader._emit("pool", (x,), "f", x.width, kind="last")


def _chunk(reader: _Reader, x: Any, pieces: int, dim: int = 0) -> tuple[_Signal, ...]:
    x = reader._check(x, "ft", "tf", "f")
    reader._feature_dim(x, dim)
    if not isinstance(pieces, int) or pieces < 1 or x.width % pieces:
        raise reader.refuse(f"{x.width} features are not cut into {pieces} equal pieces")
    share = x.width // pieces
    return tuple(
        reader._emit("take", (x,), x.axes, share, piece=(at * share, (at + 1) * share))
        for at in range(pieces)
    )


def _pair(op: str) -> Callable[..., _Signal]:
    def handler(reader: _Reader, x: Any, y: Any) -> _Signal:
        x, y = (reader._check(signal, "ft", "tf", "f") for signal in (x, y))
        if (x.axes, x.width) != (y.axes, y.width):
            raise reader.refuse(f"{x.width} features {x.axes!r} meet {y.width} {y.axes!r}")
        return reader._emit(op, (x, y), x.axes, x.width)

    return handler


_CALLS: dict[str, Callable[..., Any]] = {
    "transpose": _transpose,
    "mean": _pooled("mean"),
    "amax": _pooled("max"),
    "operator.getitem": _item,
    "chunk": _chunk,
    "torch.chunk": _chunk,
    **dict.fromkeys(("operator.add", "torch.add", "add"), _pair("add")),
    **dict.fromkeys(("operator.mul", "torch.mul", "mul"), _pair("multiply")),
}
