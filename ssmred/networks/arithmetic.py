"""Handlers of arithmetic between signals and constants, and of pooling."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ssmred.networks.translation import (
    Pooling,
    Translation,
    Wire,
    single,
    to_array,
    translates,
)

# Arithmetic -----------------------------------------------------------------------------------


@translates(operator.add, operator.iadd, torch.add, "add", "add_")
def _add(t: Translation, value: Any, a: Any, b: Any, alpha: float = 1) -> Wire:
    if alpha != 1:
        raise t.refuse("add with alpha has no rule", cure="Write a + alpha * b.")
    return _combine(t, "add", value, a, b)


@translates(operator.sub, operator.isub, torch.sub, torch.subtract, "sub", "sub_")
def _sub(t: Translation, value: Any, a: Any, b: Any, alpha: float = 1) -> Wire:
    if alpha != 1:
        raise t.refuse("sub with alpha has no rule", cure="Write a - alpha * b.")
    return _combine(t, "sub", value, a, b)


@translates(torch.rsub, "rsub")
def _rsub(t: Translation, value: Any, a: Any, b: Any) -> Wire:
    return _combine(t, "sub", value, b, a)


@translates(operator.mul, operator.imul, torch.mul, torch.multiply, "mul", "mul_")
def _mul(t: Translation, value: Any, a: Any, b: Any) -> Wire:
    return _combine(t, "multiply", value, a, b)


@translates(operator.truediv, operator.itruediv, torch.div, torch.divide, "div", "div_")
def _div(t: Translation, value: Any, a: Any, b: Any, rounding_mode: Any = None) -> Wire:
    if isinstance(b, Wire) or rounding_mode is not None:
        raise t.refuse("division by a signal, or with rounding, has no rule")
    with np.errstate(divide="ignore"):
        return _combine(t, "multiply", value, a, torch.as_tensor(1.0 / to_array(b)))


@translates(operator.neg, torch.neg, torch.negative, "neg")
def _neg(t: Translation, value: Any, x: Wire) -> Wire:
    return t.emit("affine", [x], value, x.axes, scale=-1.0)


def _combine(t: Translation, op: str, value: Any, a: Any, b: Any) -> Wire:
    """Join two signals, or a signal and a constant, with NumPy broadcasting."""
    t.check_measures()
    if isinstance(a, Wire) and isinstance(b, Wire):
        return t.emit(op, [a, b], value, _joint_axes(t, a, b))
    x, constant = (a, b) if isinstance(a, Wire) else (b, a)
    array = to_array(constant)
    if array.ndim:
        array = array.reshape((1,) * (len(x.axes) - array.ndim) + array.shape)
        place = x.axes.index("batch")
        if array.ndim != len(x.axes) or array.shape[place] != 1:
            raise t.refuse(f"a constant of shape {tuple(array.shape)} varies across the batch")
        array = array.squeeze(place)
    tags = tuple(tag for tag in x.axes if tag != "batch")
    sizes = tuple(n for n, tag in zip(x.value.shape, x.axes, strict=True) if tag != "batch")
    fits = all(have in (1, want) for have, want in zip(array.shape, sizes, strict=False))
    varies = any(n > 1 and tag == "time" for n, tag in zip(array.shape, tags, strict=False))
    if fits and not varies:
        number = float(array) if array.ndim == 0 else array
        params = {"scale": number} if op == "multiply" else {"shift": number}
        if op == "sub":
            first = x is a
            params = {"scale": 1.0 if first else -1.0, "shift": -number if first else number}
        return t.emit("affine", [x], value, x.axes, **params)
    if varies and t.length != t.horizon:
        t.measured = frozenset({"time"})
        t.check_measures()
    own = tuple(
        tag if tag == "time" and n > 1 else "feature"
        for n, tag in zip(array.shape, tags, strict=True)
    )
    other = t.emit("constant", (), constant, own, name=f"{t.current.name}_constant", value=array)
    inputs = [x, other] if x is a else [other, x]
    return t.emit(op, inputs, value, x.axes)


def _joint_axes(t: Translation, a: Wire, b: Wire) -> tuple[str, ...]:
    if len(a.axes) != len(b.axes):
        raise t.refuse(f"signals with axes {a.axes} and {b.axes} are broadcast")
    joint = []
    pairs = (zip(w.value.shape, w.axes, strict=True) for w in (a, b))
    for (n, p), (m, q) in zip(*pairs, strict=True):
        if p != q and (p == "batch" or q == "batch" or (n != 1 and m != 1)):
            raise t.refuse(f"signals with axes {a.axes} and {b.axes} are combined")
        joint.append(p if n >= m else q)
    return tuple(joint)


# Pooling --------------------------------------------------------------------------------------


@translates(torch.mean, "mean")
def _mean(
    t: Translation, value: Any, x: Wire, dim: Any = None, keepdim: bool = False, **_dtype: Any
) -> Wire:
    return pool(t, "mean", value, x, dim, keepdim)


@translates(torch.amax, "amax")
def _amax(t: Translation, value: Any, x: Wire, dim: Any = None, keepdim: bool = False) -> Wire:
    return pool(t, "max", value, x, dim, keepdim)


@translates(torch.max, "max")
def _max(t: Translation, value: Any, x: Wire, dim: Any = None, keepdim: bool = False) -> Wire:
    if not isinstance(dim, int) or isinstance(value, torch.Tensor):
        raise t.refuse("a maximum without a dimension mixes the batch", cure="Give dim=.")
    peak = pool(t, "max", value[0], x, dim, keepdim)
    return Wire(value, parts=(peak, None))


@translates(torch.sum, "sum")
def _sum(
    t: Translation, value: Any, x: Wire, dim: Any = None, keepdim: bool = False, **_dtype: Any
) -> Wire:
    dims = _dims(x, dim)
    if t.strict and any(x.axes[d] == "time" for d in dims):
        t.measured = frozenset({"time"})  # the sum is so many times the mean
        t.check_measures()
    count = float(np.prod([x.value.shape[d] for d in dims]))
    mean = pool(t, "mean", value, x, dim, keepdim, kind="sum")
    return t.emit("affine", [mean], value, mean.axes, name=f"{t.current.name}_scale", scale=count)


@translates(nn.AdaptiveAvgPool1d, nn.AdaptiveMaxPool1d)
def _adaptive(t: Translation, value: Any, module: nn.Module, x: Wire) -> Wire:
    if single(module.output_size) != 1 or x.axes[-1] != "time":
        raise t.refuse(f"{t.operation()} keeps several steps; only output_size=1 has a rule")
    op = "mean" if isinstance(module, nn.AdaptiveAvgPool1d) else "max"
    return pool(t, op, value, x, -1, True)


@translates(functional.adaptive_avg_pool1d)
def _adaptive_mean(t: Translation, value: Any, x: Wire, output_size: Any) -> Wire:
    return _adaptive(t, value, nn.AdaptiveAvgPool1d(output_size), x)


@translates(functional.adaptive_max_pool1d)
def _adaptive_max(t: Translation, value: Any, x: Wire, output_size: Any, *_: Any) -> Wire:
    return _adaptive(t, value, nn.AdaptiveMaxPool1d(output_size), x)


def pool(
    t: Translation, op: str, value: Any, x: Wire, dim: Any, keepdim: bool, kind: str = ""
) -> Wire:
    """Reduce some axes by mean or max; note how the time axis is reduced."""
    t.check_cast(x, value)
    dims = _dims(x, dim)
    axis = tuple(t.sample_axis(x, d) for d in dims)
    if any(x.axes[d] == "time" for d in dims):
        t.pooling[t.current] = Pooling(kind or op)
    if keepdim:
        axes = tuple("feature" if d in dims else tag for d, tag in enumerate(x.axes))
    else:
        axes = tuple(tag for d, tag in enumerate(x.axes) if d not in dims)
    params = {"axis": axis[0] if len(axis) == 1 else axis, "keepdim": bool(keepdim)}
    return t.emit(op, [x], value, axes, **params)


def _dims(x: Wire, dim: Any) -> tuple[int, ...]:
    wanted = range(len(x.axes)) if dim is None else [dim] if isinstance(dim, int) else list(dim)
    return tuple(sorted(d % len(x.axes) for d in wanted))
