"""Rule of a state-space layer, in which the error of a reduction is born.

``S v - S^ v^ = (S - S^) v^ + S (v - v^)``: the layer's own error on the input it sees in the
reduced network, and the original layer's gain on the error that comes in. Proved in
``theory/network-bound.md`` (theorem 1) and ``theory/error-rules.md`` (lemma 11).
"""

from __future__ import annotations

import math

import numpy as np

from ssmred.certify.coupled import CoupledGains, carried
from ssmred.certify.graph import Node
from ssmred.certify.layer_forms import layer_width
from ssmred.certify.responses import Gains, layer_gains, reduction_gains
from ssmred.certify.rules_table import rule
from ssmred.certify.values import Value, norm, outward, times, up
from ssmred.errors import ShapeError, message

__all__ = ["local_error", "local_size", "propagated_error", "with_injected"]


def _horizon(x: Value) -> int | None:
    return int(x.length) if math.isfinite(x.length) else None


def _entries(gains: Gains, x: Value) -> tuple[np.ndarray, np.ndarray]:
    """Return bounds on the sup and on the 2-norm of every output for inputs like x^."""
    center, radius = np.abs(x.center), x.radius
    if isinstance(gains, CoupledGains):
        sup = np.minimum(
            up(carried(gains.step, center) + carried(gains.l1, radius)),
            carried(gains.h2, x.l2_features),
        )
        swing = times(x.root_steps, radius)
        l2 = np.minimum(
            carried(gains.l2, x.l2_features),
            up(carried(gains.step_l2, center) + carried(gains.l2, swing)),
        )
        return (
            np.minimum(sup, times(gains.h2_rows[:, None], x.l2)),
            np.minimum(l2, times(gains.l2_rows[:, None], x.l2)),
        )
    sup = np.minimum(
        up(times(center, gains.column("step")) + times(radius, gains.column("l1"))),
        times(x.l2_features, gains.column("h2")),
    )
    swing = times(x.root_steps, radius)
    l2 = np.minimum(
        times(x.l2_features, gains.column("l2")),
        up(times(center, gains.column("step_l2")) + times(swing, gains.column("l2"))),
    )
    return sup, l2


def _check_input(node: Node, x: Value, channels: int) -> None:
    if x.axes != ("feature", "time") or x.shape != (channels, 1):
        raise ShapeError(
            message(
                f"rule for 'ssm' (node {node.name!r})",
                "the input does not fit the layer",
                expected=f"axes ('feature', 'time'), {channels} channels",
                got=f"axes {x.axes}, shape {x.shape}",
            )
        )


def local_error(node: Node, x: Value) -> tuple[np.ndarray, np.ndarray]:
    """Return bounds on ``(S - S^) v^``: the sup and the 2-norm over time of every channel.

    Parameters
    ----------
    node : Node
        With params ``system`` (the original's) and ``reduced``; without the latter nothing is
        reduced.
    x : Value
        What the layer sees in the reduced network.

    Returns
    -------
    sup, l2 : (outputs, 1) float64
    """
    reduced = node.param("reduced")
    if reduced is None:
        nothing = np.zeros((layer_width(node.params["system"])[1], 1))
        return nothing, nothing
    difference, _ = reduction_gains(node.params["system"], reduced, _horizon(x))
    return _entries(difference, x)


def local_size(node: Node, x: Value) -> float:
    """Return a bound on the 2-norm of ``(S - S^) v^`` over time and all outputs together.

    Not below that of the outputs one by one where the channels do not share a state.
    """
    reduced = node.param("reduced")
    if reduced is None:
        return 0.0
    difference, _ = reduction_gains(node.params["system"], reduced, _horizon(x))
    whole = float(norm(_entries(difference, x)[1]))
    if isinstance(difference, CoupledGains):
        whole = min(whole, float(times(difference.l2_whole, x.l2)))
    return whole


def propagated_error(node: Node, x: Value) -> Value:
    """Return the range of the reduced layer's output and the error ``S (v - v^)`` alone."""
    system = node.params["system"]
    _check_input(node, x, layer_width(system)[0])
    horizon = _horizon(x)
    original = layer_gains(system, horizon)
    reduced = node.param("reduced")
    gains = original if reduced is None else reduction_gains(system, reduced, horizon)[1]
    if isinstance(gains, CoupledGains) and isinstance(original, CoupledGains):
        return _propagated_coupled(gains, original, x)
    center, radius = x.center, x.radius
    ends = center * gains.column("step_lo"), center * gains.column("step_hi")
    spread = times(radius, gains.column("l1"))
    scale = times(np.abs(center), gains.column("step")) + spread
    lo, hi = outward(np.minimum(*ends) - spread, np.maximum(*ends) + spread, scale)
    sup, l2 = _entries(gains, x)
    error = x.scaled_error(original.column("l2"))
    error["error_sup"] = np.minimum(
        times(original.column("l1"), x.error_sup),
        times(original.column("h2"), x.error_features),
    )
    return Value(
        np.maximum(lo, -sup),
        np.minimum(hi, sup),
        x.axes,
        x.length,
        l2=float(times(np.max(gains.l2, initial=0.0), x.l2)),
        l2_features=l2,
        **error,
    )


def _propagated_coupled(gains: CoupledGains, original: CoupledGains, x: Value) -> Value:
    """Return the same for channels that share a state."""
    center = x.center[:, 0]
    ends = center * gains.step_lo, center * gains.step_hi
    spread = carried(gains.l1, x.radius)
    scale = carried(gains.step, np.abs(x.center)) + spread
    middle = (np.sum(pick(*ends), axis=1, keepdims=True) for pick in (np.minimum, np.maximum))
    lo, hi = middle
    lo, hi = outward(lo - spread, hi + spread, scale, center.size + 2)
    sup, l2 = _entries(gains, x)
    error_sup = np.minimum(
        carried(original.l1, x.error_sup), carried(original.h2, x.error_features)
    )
    error_features = carried(original.l2, x.error_features)
    return Value(
        np.maximum(lo, -sup),
        np.minimum(hi, sup),
        x.axes,
        x.length,
        l2=float(times(gains.l2_whole, x.l2)),
        l2_features=l2,
        error_sup=np.minimum(error_sup, times(original.h2_rows[:, None], x.error_l2)),
        error_features=np.minimum(error_features, times(original.l2_rows[:, None], x.error_l2)),
        error_l2=float(times(original.l2_whole, x.error_l2)),
    )


@rule("ssm")
def ssm(node: Node, x: Value) -> Value:
    """Pass a signal through a state-space layer that may be reduced."""
    result = propagated_error(node, x)
    if node.param("reduced") is None:
        return result
    sup, features = local_error(node, x)
    return with_injected(result, sup, features, local_size(node, x))


def with_injected(x: Value, sup: np.ndarray, features: np.ndarray, size: float) -> Value:
    """Return the value with a further error.

    Of at most ``sup`` and ``features`` per feature, and ``size`` in the 2-norm of all together.
    """
    return x.with_errors(
        error_sup=up(x.error_sup + np.minimum(sup, features)),
        error_l2=float(up(x.error_l2 + size)),
        error_features=up(x.error_features + features),
        error_ball=x.error_ball.plus_box(features),
    )
