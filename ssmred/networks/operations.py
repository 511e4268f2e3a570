"""Handlers of operations with weights, and of pointwise ones."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ssmred.networks.dense_core import DenseSSM
from ssmred.networks.filters import LinearFilter
from ssmred.networks.operator_bank import OperatorBank
from ssmred.networks.reduced import ReducedSSM
from ssmred.networks.shared import SharedSSM
from ssmred.networks.translation import Translation, Wire, single, to_array, translates

# Layers with weights --------------------------------------------------------------------------


@translates(ReducedSSM, SharedSSM, DenseSSM, OperatorBank)
def _ssm(t: Translation, value: Any, module: LinearFilter, u: Wire) -> Wire:
    name = t.names(str(t.current.target))
    if t.strict and any(node.op == "ssm" and node.name == name for node in t.nodes):
        raise t.refuse(
            f"the layer {name} is used twice, and a bound weighs every layer once",
            cure="Give every use its own layer.",
        )
    if u.axes != ("batch", "feature", "time"):
        raise t.refuse(f"{t.operation()} is fed {u.axes}, not (batch, channel, time)")
    return t.emit("ssm", [u], value, u.axes, name=name, system=module.to_system())


@translates(functional.linear)
def _linear(t: Translation, value: Any, x: Wire, weight: Any, bias: Any = None) -> Wire:
    _check_constant(t, weight, bias)
    t.check_feature(x, -1)
    return t.emit("linear", [x], value, x.axes, **_weights(weight, bias))


@translates(nn.Linear)
def _linear_module(t: Translation, value: Any, module: nn.Linear, x: Wire) -> Wire:
    return _linear(t, value, x, module.weight, module.bias)


@translates(torch.matmul, operator.matmul, "matmul", torch.mm, "mm")
def _matmul(t: Translation, value: Any, a: Any, b: Any) -> Wire:
    if isinstance(a, Wire) and isinstance(b, torch.Tensor) and b.ndim == 2:
        return _linear(t, value, a, b.T)
    if isinstance(b, Wire) and isinstance(a, torch.Tensor) and a.ndim == 2:
        return _conv1d(t, value, b, a[..., None])
    raise t.refuse("a matrix product of two signals has no rule")


@translates(functional.conv1d)
def _conv1d(
    t: Translation,
    value: Any,
    x: Wire,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Wire:
    _check_constant(t, weight, bias)
    plain = weight.shape[-1] == 1 and groups == 1
    plain = plain and single(stride) == 1 and single(padding) in (0, "valid", "same")
    if not plain:
        raise t.refuse(
            f"{t.operation()} is a convolution along time or in groups; only kernel_size=1, "
            "stride=1, groups=1 has a rule"
        )
    if x.axes != ("batch", "feature", "time"):
        raise t.refuse(f"{t.operation()} is fed {x.axes}, not (batch, channel, time)")
    return t.emit("conv1d", [x], value, x.axes, **_weights(weight[..., 0], bias))


@translates(nn.Conv1d)
def _conv1d_module(t: Translation, value: Any, m: nn.Conv1d, x: Wire) -> Wire:
    return _conv1d(t, value, x, m.weight, m.bias, m.stride, m.padding, m.dilation, m.groups)


@translates(functional.embedding)
def _embedding(
    t: Translation,
    value: Any,
    tokens: Wire,
    weight: Any,
    padding_idx: Any = None,
    max_norm: Any = None,
    **_training: Any,
) -> Wire:
    _check_constant(t, weight)
    if max_norm is not None:
        raise t.refuse("an embedding that renormalises its weights is no function of its input")
    return t.emit("embedding", [tokens], value, (*tokens.axes, "feature"), weight=to_array(weight))


@translates(nn.Embedding)
def _embedding_module(t: Translation, value: Any, m: nn.Embedding, tokens: Wire) -> Wire:
    return _embedding(t, value, tokens, m.weight, max_norm=m.max_norm)


@translates(functional.layer_norm)
def _layer_norm(
    t: Translation,
    value: Any,
    x: Wire,
    normalized_shape: Any,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
) -> Wire:
    _check_constant(t, weight, bias)
    dims = len(tuple(normalized_shape))
    for axis in range(1, dims + 1):
        t.check_feature(x, -axis)
    return t.emit(
        "layernorm", [x], value, x.axes, eps=float(eps), dims=dims, **_weights(weight, bias)
    )


@translates(nn.LayerNorm)
def _layer_norm_module(t: Translation, value: Any, m: nn.LayerNorm, x: Wire) -> Wire:
    return _layer_norm(t, value, x, m.normalized_shape, m.weight, m.bias, m.eps)


@translates(functional.batch_norm)
def _batch_norm(
    t: Translation,
    value: Any,
    x: Wire,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Wire:
    _check_constant(t, running_mean, running_var, weight, bias)
    if training or running_mean is None:
        raise t.refuse(
            f"{t.operation()} uses statistics of the batch",
            cure="Use running statistics (track_running_stats=True) and model.eval().",
        )
    axis = t.check_feature(x, 1)
    return t.emit(
        "batchnorm",
        [x],
        value,
        x.axes,
        mean=to_array(running_mean),
        var=to_array(running_var),
        eps=float(eps),
        axis=axis,
        **_weights(weight, bias),
    )


@translates(nn.BatchNorm1d, nn.BatchNorm2d)
def _batch_norm_module(t: Translation, value: Any, m: nn.BatchNorm1d, x: Wire) -> Wire:
    return _batch_norm(
        t, value, x, m.running_mean, m.running_var, m.weight, m.bias, m.training, eps=m.eps
    )


# Pointwise ------------------------------------------------------------------------------------


def _pointwise(op: str, *targets: Any) -> None:
    @translates(*targets)
    def handler(t: Translation, value: Any, x: Wire, *_args: Any, **_kwargs: Any) -> Wire:
        return t.emit(op, [x], value, x.axes)


_pointwise("relu", torch.relu, torch.relu_, functional.relu, "relu", "relu_")
_pointwise("silu", functional.silu)
_pointwise("tanh", torch.tanh, functional.tanh, "tanh", "tanh_")
_pointwise("sigmoid", torch.sigmoid, functional.sigmoid, "sigmoid", "sigmoid_", torch.special.expit)
_pointwise("identity", "contiguous", "clone", "detach", torch.clone)


@translates(
    *("float", "double", "to", "type_as", "type", "cpu", "cuda"),
    *("half", "bfloat16", "long", "int", "short", "bool"),
)
def _cast(t: Translation, value: Any, x: Wire, *_args: Any, **_kwargs: Any) -> Wire:
    t.check_cast(x, value)
    return t.emit("identity", [x], value, x.axes)


def _pointwise_module(op: str, *kinds: type) -> None:
    @translates(*kinds)
    def handler(t: Translation, value: Any, _module: nn.Module, x: Wire) -> Wire:
        return t.emit(op, [x], value, x.axes)


_pointwise_module("relu", nn.ReLU)
_pointwise_module("silu", nn.SiLU)
_pointwise_module("tanh", nn.Tanh)
_pointwise_module("sigmoid", nn.Sigmoid)
_pointwise_module(
    "identity",
    nn.Identity,
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
)


@translates(functional.gelu)
def _gelu(t: Translation, value: Any, x: Wire, approximate: str = "none") -> Wire:
    return t.emit("gelu", [x], value, x.axes, approximate=approximate)


@translates(nn.GELU)
def _gelu_module(t: Translation, value: Any, module: nn.GELU, x: Wire) -> Wire:
    return _gelu(t, value, x, module.approximate)


@translates(
    functional.dropout,
    functional.dropout1d,
    functional.dropout2d,
    functional.alpha_dropout,
    torch.dropout,
)
def _dropout(
    t: Translation,
    value: Any,
    x: Wire,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
) -> Wire:
    if training and p > 0.0:
        raise t.refuse(
            "dropout is active in eval mode too",
            cure="Pass training=self.training, or use an nn.Dropout module.",
        )
    return t.emit("identity", [x], value, x.axes)


@translates(functional.glu)
def _glu(t: Translation, value: Any, x: Wire, dim: int = -1) -> Wire:
    return t.emit("glu", [x], value, x.axes, axis=t.check_feature(x, dim))


@translates(nn.GLU)
def _glu_module(t: Translation, value: Any, module: nn.GLU, x: Wire) -> Wire:
    return _glu(t, value, x, module.dim)


def _check_constant(t: Translation, *weights: Any) -> None:
    if any(isinstance(weight, Wire) for weight in weights):
        raise t.refuse(f"the weights of {t.operation()} depend on the input")


def _weights(weight: Any, bias: Any) -> dict[str, np.ndarray]:
    given = {"weight": weight, "bias": bias}
    return {name: to_array(tensor) for name, tensor in given.items() if tensor is not None}
