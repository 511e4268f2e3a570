"""Handlers of operations that only move numbers: permute, reshape, index, split, join."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import nn

from ssmred.networks.reversal import OneStepDelay
from ssmred.networks.translation import Pooling, Translation, Wire, translates

# Permutations ---------------------------------------------------------------------------------


@translates(torch.permute, "permute")
def _permute(t: Translation, value: Any, x: Wire, *dims: Any) -> Wire:
    order = dims[0] if len(dims) == 1 and isinstance(dims[0], (tuple, list)) else dims
    return _reorder(t, value, x, tuple(d % len(x.axes) for d in order))


@translates(
    torch.transpose, "transpose", torch.swapaxes, "swapaxes", torch.swapdims, "swapdims", "mT"
)
def _transpose(t: Translation, value: Any, x: Wire, dim0: int = -2, dim1: int = -1) -> Wire:
    order = list(range(len(x.axes)))
    dim0, dim1 = dim0 % len(order), dim1 % len(order)
    order[dim0], order[dim1] = order[dim1], order[dim0]
    return _reorder(t, value, x, tuple(order))


@translates(torch.movedim, "movedim", torch.moveaxis, "moveaxis")
def _movedim(t: Translation, value: Any, x: Wire, source: int, destination: int) -> Wire:
    order = list(range(len(x.axes)))
    order.insert(destination % len(order), order.pop(source % len(order)))
    return _reorder(t, value, x, tuple(order))


def _reorder(t: Translation, value: Any, x: Wire, order: tuple[int, ...]) -> Wire:
    axes = tuple(x.axes[d] for d in order)
    samples = [t.sample_axis(x, d) for d in order if x.axes[d] != "batch"]
    if samples == sorted(samples):  # only the batch axis moved, which the graph does not show
        return Wire(value, x.name, axes)
    return t.emit("permute", [x], value, axes, order=tuple(samples))


@translates(torch.flip, "flip")
def _flip(t: Translation, value: Any, x: Wire, *dims: Any) -> Wire:
    axes = dims[0] if len(dims) == 1 and isinstance(dims[0], (tuple, list)) else dims
    if len(axes) != 1:
        raise t.refuse("several axes are reversed at once", cure="Reverse one after the other.")
    axis = t.sample_axis(x, axes[0])
    return t.emit("reverse", [x], value, x.axes, axis=axis)


@translates(OneStepDelay)
def _delay(t: Translation, value: Any, _module: nn.Module, x: Wire) -> Wire:
    if x.axes[-1] != "time":
        raise t.refuse(f"{t.operation()} acts on the last axis, which is not time here")
    return t.emit("delay", [x], value, x.axes, axis=t.sample_axis(x, -1), steps=1)


# Shapes ---------------------------------------------------------------------------------------


@translates(
    torch.reshape,
    "reshape",
    "view",
    torch.flatten,
    "flatten",
    "unflatten",
    torch.squeeze,
    "squeeze",
)
def _reshape(t: Translation, value: Any, x: Wire, *_shape: Any, **_kwargs: Any) -> Wire:
    return reshape(t, value, x)


@translates(nn.Flatten, nn.Unflatten)
def _reshape_module(t: Translation, value: Any, _module: nn.Module, x: Wire) -> Wire:
    return reshape(t, value, x)


@translates(torch.unsqueeze, "unsqueeze")
def _unsqueeze(t: Translation, value: Any, x: Wire, dim: int) -> Wire:
    return unsqueeze(t, x, dim % (len(x.axes) + 1))


def reshape(t: Translation, value: torch.Tensor, x: Wire) -> Wire:
    """Group the axes of both shapes; the batch must stay an axis of its own."""
    t.check_cast(x, value)  # view(dtype) reads the same bits as other numbers
    before = [(n, tag) for n, tag in zip(x.value.shape, x.axes, strict=True) if n != 1]
    axes = ["feature"] * value.ndim
    places = [d for d, n in enumerate(value.shape) if n != 1]
    while before and places:
        group = [before.pop(0)]
        targets = [places.pop(0)]
        old, new = group[0][0], value.shape[targets[0]]
        while old != new:
            if old < new:
                group.append(before.pop(0))
                old *= group[-1][0]
            else:
                targets.append(places.pop(0))
                new *= value.shape[targets[-1]]
        tags = [tag for _, tag in group]
        if "batch" in tags and len(tags) + len(targets) > 2:
            raise t.refuse(
                f"{t.operation()} merges or splits the batch axis", cure="Samples must not mix."
            )
        if len(tags) + len(targets) == 2:
            axes[targets[0]] = tags[0]
        elif "time" in tags:  # every step becomes features of its own
            t.measured = frozenset({"time"})
            t.check_measures()
    if tuple(axes) == x.axes and value.shape == x.value.shape:
        return Wire(value, x.name, x.axes)
    shape = tuple(
        1 if tag == "time" else int(n)
        for n, tag in zip(value.shape, axes, strict=True)
        if tag != "batch"
    )
    return t.emit("reshape", [x], value, tuple(axes), shape=shape)


def unsqueeze(t: Translation, x: Wire, dim: int) -> Wire:
    """Insert a unit axis before position `dim`."""
    axes = (*x.axes[:dim], "feature", *x.axes[dim:])
    position = sum(tag != "batch" for tag in axes[:dim])
    if "batch" in axes[dim + 1 :]:
        raise t.refuse("an axis is inserted before the batch axis")
    return t.emit("unsqueeze", [x], x.value.unsqueeze(dim), axes, axis=position)


# Pieces ---------------------------------------------------------------------------------------


@translates(operator.getitem)
def _getitem(t: Translation, value: Any, x: Wire, index: Any) -> Wire:
    if x.parts is not None:
        part = x.parts[index] if isinstance(index, int) else None
        if part is None:
            raise t.refuse(f"this output of {t.operation()} has no rule")
        return part
    items = list(index) if isinstance(index, tuple) else [index]
    known = all(i is None or i is Ellipsis or isinstance(i, (int, slice)) for i in items)
    if not known or sum(i is Ellipsis for i in items) > 1:
        raise t.refuse("indexing with a tensor or a list has no rule")
    if Ellipsis in items:
        where = items.index(Ellipsis)
        missing = len(x.axes) - sum(i is not None for i in items) + 1
        items[where : where + 1] = [slice(None)] * missing
    stepwise, dim = list(items), 0
    for place, item in enumerate(items):
        if item is None:
            x, dim = unsqueeze(t, x, dim), dim + 1
        elif isinstance(item, int):
            if x.axes[dim] == "time":
                stepwise[place] = 0
            x = _select(t, x, dim, item)
        else:
            if x.axes[dim] == "time" and item != slice(None):
                stepwise[place] = slice(None)
            x, dim = _slice(t, x, dim, item), dim + 1
    if t.current in t.pooling:
        pooling = t.pooling[t.current]
        source = t.current.args[0]
        t.pooling[t.current] = Pooling(pooling.kind, pooling.index, (source, tuple(stepwise)))
    return x


@translates(torch.select, "select")
def _select_call(t: Translation, value: Any, x: Wire, dim: int, index: int) -> Wire:
    dim = dim % len(x.axes)
    on_time = x.axes[dim] == "time"
    wire = _select(t, x, dim, index)
    if on_time:
        pooling = t.pooling[t.current]
        source = t.current.args[0]
        t.pooling[t.current] = Pooling(pooling.kind, pooling.index, (source, dim, 0))
    return wire


@translates(torch.narrow, "narrow")
def _narrow(t: Translation, value: Any, x: Wire, dim: int, start: int, length: int) -> Wire:
    return _slice(t, x, dim % len(x.axes), slice(start, start + length))


@translates(getattr)
def _getattr(t: Translation, value: Any, x: Wire, name: str) -> Wire:
    if x.parts is not None and x.parts[0] is not None and name == "values":
        return x.parts[0]
    if x.parts is None and name in ("T", "mT"):
        return _transpose(t, value, x)
    if x.parts is None and name == "data":
        return x
    raise t.refuse(f"the attribute {name} of a signal has no rule")


@translates(torch.chunk, "chunk", torch.split, "split", torch.tensor_split, "tensor_split")
def _chunk(t: Translation, value: Any, x: Wire, _sizes: Any, dim: int = 0) -> Wire:
    dim, start, parts = dim % len(x.axes), 0, []
    for piece in value:
        stop = start + piece.shape[dim]
        parts.append(_slice(t, x, dim, slice(start, stop)))
        start = stop
    return Wire(value, parts=tuple(parts))


@translates(torch.unbind, "unbind")
def _unbind(t: Translation, value: Any, x: Wire, dim: int = 0) -> Wire:
    t.check_feature(x, dim)
    dim = dim % len(x.axes)
    return Wire(value, parts=tuple(_select(t, x, dim, i) for i in range(len(value))))


@translates(torch.cat, torch.concat, torch.concatenate)
def _cat(t: Translation, value: Any, tensors: Any, dim: int = 0) -> Wire:
    signals = list(tensors.parts if isinstance(tensors, Wire) else tensors)
    if not all(isinstance(s, Wire) and s.axes == signals[0].axes for s in signals):
        raise t.refuse("a constant, or signals with other axes, are joined to a signal")
    axis = t.check_feature(signals[0], dim)
    return t.emit("concat", signals, value, signals[0].axes, axis=axis)


def _select(t: Translation, x: Wire, dim: int, index: int) -> Wire:
    axis = t.sample_axis(x, dim)
    value = x.value.select(dim, index)
    axes = (*x.axes[:dim], *x.axes[dim + 1 :])
    if x.axes[dim] != "time":
        index = index % x.value.shape[dim]
        return t.emit("select", [x], value, axes, axis=axis, index=index)
    if index == -1 or ("time" in t.measured and index == t.length - 1):
        t.pooling[t.current] = Pooling("last")
        return t.emit("last", [x], value, axes, axis=axis)
    if index < 0 or "time" in t.measured:
        raise t.refuse(
            f"step {index} counted from the end of the sequence has no rule",
            cure="Take the last step (-1), or one counted from the front.",
        )
    t.pooling[t.current] = Pooling("at", index)
    return t.emit("select", [x], value, axes, axis=axis, index=index)


def _slice(t: Translation, x: Wire, dim: int, piece: slice) -> Wire:
    if piece == slice(None):
        return x
    axis = t.sample_axis(x, dim)
    index = (slice(None),) * dim + (piece,)
    if x.axes[dim] == "time":
        if (piece.start, piece.stop, piece.step) in ((-1, None, None), (-1, None, 1)):
            return unsqueeze(t, _select(t, x, dim, -1), dim)
        t.measured = frozenset({"time"})
        t.check_measures()
    start, stop, step = piece.indices(x.value.shape[dim])
    value = x.value[index]
    return t.emit("slice", [x], value, x.axes, axis=axis, start=start, stop=stop, step=step)
