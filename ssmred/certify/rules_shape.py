"""Rules of reshapes, selections and pooling, and the broadcasting of two signals.

Every rule is proved in ``theory/error-rules.md`` (lemmas 5 and 6).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ssmred.certify.graph import Node
from ssmred.certify.rules_table import rule
from ssmred.certify.values import ErrorBall, Value, norm, outward, times, up
from ssmred.errors import ShapeError, UnsupportedOperationError, message

__all__ = ["spread_pair", "spread_to"]

FEATURE_FIELDS = ("lo", "hi", "l2_features", "error_sup", "error_features")


def spread_to(x: Value, shape: tuple[int, ...], axes: tuple[str, ...], steps: float) -> Value:
    """Return the value of a signal broadcast to a sample shape, as NumPy aligns it (lemma 5)."""
    if x.shape == shape and x.axes == axes and x.steps == steps:
        return x
    lead = len(shape) - len(x.shape)
    tags = ("feature",) * lead + x.axes
    sizes = (1,) * lead + x.shape
    time = axes.index("time") if "time" in axes else None
    fits = lead >= 0 and all(
        # a time axis may only meet the time axis; anything else there has to be a unit axis
        (tag != "time" or axis == time) and size in (1, want)
        for axis, (tag, size, want) in enumerate(zip(tags, sizes, shape, strict=True))
    )
    if not fits or x.steps not in (1.0, steps):
        raise ShapeError(
            message(
                "broadcast of two signals",
                "the axes do not line up",
                expected=f"shape {shape}, axes {axes}, {steps:g} time steps",
                got=f"shape {x.shape}, axes {x.axes}, {x.steps:g} time steps",
            )
        )
    copies = math.prod(shape) / max(1, math.prod(sizes))
    longer = math.sqrt(steps) if steps != x.steps else 1.0
    growth = up(longer * math.sqrt(copies), 3)

    def widen(array: np.ndarray, factor: float = 1.0) -> np.ndarray:
        array = np.broadcast_to(array.reshape(sizes), shape)
        return array if factor == 1.0 else times(array, factor)

    # copies of one feature repeat its share of the ball's sum of squares
    ball = ErrorBall(widen(x.error_ball.scale), float(times(x.error_ball.radius, growth)))
    return Value(
        widen(x.lo),
        widen(x.hi),
        axes,
        steps if time is not None else 1.0,
        l2=float(times(x.l2, growth)),
        l2_features=widen(x.l2_features, longer),
        error_sup=widen(x.error_sup),
        error_l2=float(times(x.error_l2, growth)),
        error_features=widen(x.error_features, longer),
        error_ball=ball,
    )


def spread_pair(x: Value, y: Value, axes: tuple[str, ...]) -> tuple[Value, Value]:
    """Return two signals broadcast against each other."""
    try:
        shape = np.broadcast_shapes(x.shape, y.shape)
    except ValueError as error:
        raise ShapeError(message("broadcast of two signals", str(error))) from error
    steps = max(x.steps, y.steps)
    return spread_to(x, shape, axes, steps), spread_to(y, shape, axes, steps)


def _mapped(x: Value, change: Any, axes: tuple[str, ...], length: float | None = None) -> Value:
    """Return a value whose arrays went through one rearrangement of entries."""
    facts = x.facts()
    for key in FEATURE_FIELDS:
        facts[key] = change(facts[key])
    facts["error_ball"] = ErrorBall(change(x.error_ball.scale), x.error_ball.radius)
    facts["length"] = x.length if length is None else length
    return Value(axes=axes, **facts)


@rule("identity")
def identity(node: Node, x: Value) -> Value:
    """Hand the signal on: Dropout in eval mode, Identity, detach, contiguous."""
    return x


@rule("permute")
def permute(node: Node, x: Value) -> Value:
    """Reorder the sample axes."""
    order = tuple(int(axis) % len(x.shape) for axis in node.params["order"])
    axes = tuple(x.axes[axis] for axis in order)
    return _mapped(x, lambda array: np.transpose(array, order), axes)


@rule("reverse")
def reverse(node: Node, x: Value) -> Value:
    """Run an axis from its end to its beginning (lemma 12)."""
    axis = int(node.params["axis"]) % len(x.shape)
    if x.axes[axis] == "time":  # the same numbers at other times
        return x
    return _mapped(x, lambda array: np.flip(array, axis), x.axes)


@rule("delay")
def delay(node: Node, x: Value) -> Value:
    """Shift a signal in time; zeros come first and the last steps are lost (lemma 12)."""
    axis = int(node.params["axis"]) % len(x.shape)
    if x.axes[axis] != "time":  # every step by itself: each moves to its later place
        steps = min(int(node.param("steps", 1)), x.shape[axis])

        def late(array: np.ndarray) -> np.ndarray:
            array = np.moveaxis(array, axis, 0)
            gone = np.zeros_like(array[:steps])
            return np.moveaxis(np.concatenate([gone, array[: len(array) - steps]]), 0, axis)

        return _mapped(x, late, x.axes)
    facts = x.facts()
    facts["lo"], facts["hi"] = np.minimum(x.lo, 0.0), np.maximum(x.hi, 0.0)
    return Value(axes=x.axes, **facts)


@rule("unsqueeze")
def unsqueeze(node: Node, x: Value) -> Value:
    """Insert a unit axis."""
    axis = int(node.params["axis"]) % (len(x.shape) + 1)
    axes = (*x.axes[:axis], "feature", *x.axes[axis:])
    return _mapped(x, lambda array: np.expand_dims(array, axis), axes)


@rule("squeeze")
def squeeze(node: Node, x: Value) -> Value:
    """Drop a unit axis."""
    axis = int(node.params["axis"]) % len(x.shape)
    if x.axes[axis] == "time" and x.length != 1.0:
        raise ShapeError(message(f"rule for 'squeeze' (node {node.name!r})", "the axis is time"))
    axes = x.axes[:axis] + x.axes[axis + 1 :]
    length = None if "time" in axes else 1.0
    return _mapped(x, lambda array: np.squeeze(array, axis), axes, length)


@rule("reshape")
def reshape(node: Node, x: Value) -> Value:
    """Rearrange the axes; time may dissolve into features or come out of them (lemma 5)."""
    shape = tuple(int(size) for size in node.params["shape"])
    target = node.time_axis
    if ("time" in x.axes) == (target is not None):
        before = [size for size, tag in zip(x.shape, x.axes, strict=True) if tag != "time"]
        after = [1 if axis == target else size for axis, size in enumerate(shape)]
        if target is None or _beside(x.shape, x.axes.index("time")) == _beside(after, target):
            return _mapped(x, lambda array: array.reshape(after), node.axes)
        raise UnsupportedOperationError(
            message(
                f"rule for 'reshape' (node {node.name!r})",
                "entries cross the time axis",
                expected=f"features {before} regrouped on their own side of time",
                got=f"shape {shape}",
                cure="Permute first, or register a rule for your own module.",
            )
        )
    if target is None:  # every time step becomes features of its own
        if not math.isfinite(x.length):
            raise UnsupportedOperationError(
                message(
                    f"rule for 'reshape' (node {node.name!r})",
                    "time dissolves into features and the horizon is infinite",
                    cure="Pass horizon=<the sequence length>.",
                )
            )
        full = list(x.shape)
        full[x.axes.index("time")] = int(x.length)

        def unfold(array: np.ndarray) -> np.ndarray:
            return np.broadcast_to(array, full).reshape(shape)

        return Value(
            unfold(x.lo),
            unfold(x.hi),
            node.axes,
            l2=x.l2,
            l2_features=unfold(x.l2_features),
            error_sup=unfold(x.error_sup),
            error_l2=x.error_l2,
            error_features=unfold(x.error_features),
            error_ball=None,
        )
    full = list(shape)  # features become time steps: all of them at once bound each
    full[target] = x.lo.size // max(1, math.prod(shape[:target] + shape[target + 1 :]))

    def fold(array: np.ndarray, how: Any) -> np.ndarray:
        return how(array.reshape(full), axis=target, keepdims=True)

    def fold_norm(array: np.ndarray) -> np.ndarray:
        return np.expand_dims(norm(array.reshape(full), axis=target), target)

    return Value(
        fold(x.lo, np.min),
        fold(x.hi, np.max),
        node.axes,
        float(full[target]),
        l2=x.l2,
        l2_features=fold_norm(x.l2_features),
        error_sup=fold(x.error_sup, np.max),
        error_l2=x.error_l2,
        error_features=fold_norm(x.error_features),
    )


def _beside(shape: Any, time: int) -> tuple[int, int]:
    """Return how many entries lie before and after the time axis: a reshape must keep both."""
    return math.prod(shape[:time]), math.prod(shape[time + 1 :])


@rule("select", "last")
def select(node: Node, x: Value) -> Value:
    """Take one entry of an axis: one time step or one feature."""
    default = x.axes.index("time") if "time" in x.axes else -1
    axis = int(node.param("axis", default)) % len(x.shape)
    axes = x.axes[:axis] + x.axes[axis + 1 :]
    index = 0 if x.axes[axis] == "time" else int(node.param("index", -1))
    length = 1.0 if x.axes[axis] == "time" else None
    return _mapped(x, lambda array: np.take(array, index, axis=axis), axes, length)


@rule("slice")
def take_slice(node: Node, x: Value) -> Value:
    """Take a piece of an axis."""
    axis = int(node.params["axis"]) % len(x.shape)
    piece = slice(node.param("start"), node.param("stop"), node.param("step"))
    if x.axes[axis] != "time":
        index = tuple(piece if a == axis else slice(None) for a in range(len(x.shape)))
        return _mapped(x, lambda array: array[index], x.axes)
    if not math.isfinite(x.length):  # a bound for every length holds for the piece's as well
        return x
    count = len(range(*piece.indices(int(x.length))))
    if count == 0:
        raise ShapeError(message(f"rule for 'slice' (node {node.name!r})", "no time step is left"))
    return _mapped(x, lambda array: array, x.axes, float(count))


@rule("concat")
def concat(node: Node, *values: Value) -> Value:
    """Join signals along one axis."""
    axis = int(node.params["axis"]) % len(node.axes)
    if any(value.axes != node.axes for value in values):
        raise ShapeError(
            message(
                f"rule for 'concat' (node {node.name!r})",
                "the axes differ",
                expected=str(node.axes),
                got=str([value.axes for value in values]),
            )
        )
    l2 = float(norm([value.l2 for value in values]))
    error_l2 = float(norm([value.error_l2 for value in values]))
    stacked = {key: [getattr(value, key) for value in values] for key in FEATURE_FIELDS}
    if axis == node.time_axis:
        return Value(
            np.minimum.reduce(stacked["lo"]),
            np.maximum.reduce(stacked["hi"]),
            node.axes,
            sum(value.length for value in values),
            l2=l2,
            l2_features=norm(np.stack(stacked["l2_features"]), axis=0),
            error_sup=np.maximum.reduce(stacked["error_sup"]),
            error_l2=error_l2,
            error_features=norm(np.stack(stacked["error_features"]), axis=0),
        )
    length = max(value.steps for value in values)
    if any(value.steps != length for value in values):
        raise ShapeError(
            message(f"rule for 'concat' (node {node.name!r})", "the numbers of time steps differ")
        )
    joined = {key: np.concatenate(arrays, axis=axis) for key, arrays in stacked.items()}
    return Value(axes=node.axes, length=length, l2=l2, error_l2=error_l2, **joined)


def _pooled_axes(node: Node, x: Value) -> tuple[tuple[int, ...], tuple[int, ...], bool]:
    """Return the pooled axes, those of them that are features, and whether time is among them."""
    axis = node.params["axis"]
    pooled = tuple(int(a) % len(x.shape) for a in np.atleast_1d(axis))
    features = tuple(a for a in pooled if x.axes[a] != "time")
    return pooled, features, len(features) < len(pooled)


def _pooled_length(node: Node, x: Value) -> float:
    return x.length if "time" in node.axes else 1.0


@rule("mean")
def mean(node: Node, x: Value) -> Value:
    """Average over time, over features or both (lemma 6)."""
    pooled, features, over_time = _pooled_axes(node, x)
    keep = bool(node.param("keepdim", False))
    count = math.prod(x.shape[a] for a in features)
    # an infinite horizon stands for every length, the length 1 included
    steps = x.steps if over_time and math.isfinite(x.steps) else 1.0
    shrink = up(1.0 / math.sqrt(count * steps), 3)
    shrink_time = up(1.0 / math.sqrt(steps), 3)

    def average(array: np.ndarray) -> np.ndarray:
        total = np.sum(array, axis=pooled, keepdims=keep) / count
        return up(total, count + 1)

    lo, hi = (np.sum(end, axis=pooled, keepdims=keep) / count for end in (x.lo, x.hi))
    lo, hi = outward(lo, hi, average(x.magnitude), count + 1)
    scale = norm(x.error_ball.scale, axis=pooled)  # Cauchy and Schwarz over the pooled features
    scale = np.expand_dims(scale, pooled) if keep else scale
    radius = float(times(x.error_ball.radius, shrink_time))
    return Value(
        lo,
        hi,
        node.axes,
        _pooled_length(node, x),
        l2=float(times(x.l2, shrink)),
        l2_features=times(average(x.l2_features), shrink_time),
        error_sup=average(x.error_sup),
        error_l2=float(times(x.error_l2, shrink)),
        error_features=times(average(x.error_features), shrink_time),
        error_ball=ErrorBall(up(scale / count, 1), radius),
    )


@rule("max")
def maximum(node: Node, x: Value) -> Value:
    """Take the maximum over time, over features or both (lemma 6)."""
    pooled, _, _ = _pooled_axes(node, x)
    keep = bool(node.param("keepdim", False))

    def largest(array: np.ndarray) -> np.ndarray:
        return np.max(array, axis=pooled, keepdims=keep)

    def total(array: np.ndarray) -> np.ndarray:
        array = norm(array, axis=pooled)
        return np.expand_dims(array, pooled) if keep else array

    return Value(
        largest(x.lo),
        largest(x.hi),
        node.axes,
        _pooled_length(node, x),
        l2=x.l2,
        l2_features=total(x.l2_features),
        error_sup=largest(x.error_sup),
        error_l2=x.error_l2,
        error_features=total(x.error_features),
    )
