"""Bound the output error of a reduced network in balls, front to back.

Theorems 2 and 3 of ``theory/network-bound.md``, with the rules of `rules` and the layers of
`layers`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssmred.errors import CertificateError, message
from ssmred.rigour.architecture import LAYER, Step
from ssmred.rigour.balls import (
    INFINITY,
    ONE,
    ZERO,
    arb,
    exact,
    filled,
    largest,
    middle,
    norm,
)
from ssmred.rigour.layers import (
    Channels,
    Reduction,
    inherited,
    local_error,
    with_injected,
)
from ssmred.rigour.rules import Mixing, rule_of
from ssmred.rigour.values import Value

__all__ = ["Bound", "LayerBound", "Progress", "merged", "network_bound"]

Progress = Callable[[str, int, int], None]
"""Called with a stage, what is done of it and how much there is."""

TINY = arb(1e-9)
"""Of a layer's range: the error that a layer without one is weighed by."""


@dataclass(frozen=True, eq=False)
class LayerBound:
    """Hold what is enclosed about one layer; see the fields of a certificate's layers.

    Parameters
    ----------
    name : str
    states : (int, int)
        Real states, in full and kept.
    error, relative_error, gain_error, weight, contribution : arb
    tiny_weight : callable
        Weight by a tiny error equal in every channel, where there is no error to weigh.
    rounding : dict of str to float
        What float64 import may have done to each of the numbers; see `Channels.import_rounding`.
    """

    name: str
    states: tuple[int, int]
    error: arb
    relative_error: arb
    gain_error: arb
    weight: arb
    contribution: arb
    tiny_weight: Callable[[], arb]
    rounding: dict[str, float]


@dataclass(frozen=True, eq=False)
class Bound:
    """Hold the enclosed bound on the output error, and the layers in execution order."""

    bound: arb
    layers: tuple[LayerBound, ...]


def merged(original: Sequence[Step], reduced: Sequence[Step]) -> None:
    """Refuse two networks that differ in more than their state-space layers.

    Raises
    ------
    CertificateError
        With the first place where they do.
    """
    problem = ""
    if len(original) != len(reduced):
        problem = f"{len(original)} operations against {len(reduced)}"
    for first, second in zip(original, reduced, strict=False):
        if problem:
            break
        if (first.op, first.inputs) != (second.op, second.inputs):
            problem = f"{first.name} ({first.op}) stands where {second.name} ({second.op}) does"
        elif first.op == LAYER:
            if first.name != second.name:
                problem = f"layer {first.name!r} stands where layer {second.name!r} does"
        elif set(first.params) != set(second.params):
            problem = f"{first.name}: other settings"
        else:
            changed = [key for key in first.params if not _equal(first.params, second.params, key)]
            if changed:
                problem = f"{first.name}: {', '.join(changed)} differ"
    if problem:
        raise CertificateError(
            message(
                "rigour",
                f"the networks differ in more than their state-space layers: {problem}",
                expected="equal weights and wiring outside the reduced layers",
            )
        )


def _equal(first: dict[str, Any], second: dict[str, Any], key: str) -> bool:
    a, b = first[key], second[key]
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.shape == b.shape and bool((a == b).all())
    return type(a) is type(b) and a == b


def input_value(step: Step, inputs: dict[str, Any], horizon: int) -> Value | None:
    """Return the declared set as the value of the network's input; None for tokens.

    Raises
    ------
    CertificateError
        If the set does not fit the network.
    """
    width, kind = step.params["width"], inputs["kind"]
    if step.params["tokens"] != (kind == "tokens"):
        wanted = "tokens" if step.params["tokens"] else "a box or a ball"
        raise CertificateError(
            message("rigour", "the inputs do not fit the network", expected=wanted, got=kind)
        )
    if kind == "tokens":
        return None
    none = {"sup": filled(width, ZERO), "error": ZERO}
    if kind == "ball":
        radius = arb(float(inputs["radius"]))
        return Value(filled(width, -radius), filled(width, radius), horizon, l2=radius, **none)
    ends = [np.asarray(inputs[key], dtype=np.float64).reshape(-1) for key in ("low", "high")]
    if any(len(end) not in (1, width) for end in ends):
        raise CertificateError(
            message("rigour", f"the box has not {width} features, as the network's input has")
        )
    low, high = (exact(np.broadcast_to(end, (width,))) for end in ends)
    return Value(low, high, horizon, **none)


def network_bound(
    original: Sequence[Step],
    reduced: Sequence[Step],
    inputs: dict[str, Any],
    horizon: int,
    progress: Progress,
) -> Bound:
    """Enclose the bound on ``||f(u) - f^(u)||_2`` over a declared set, and every layer's part.

    Raises
    ------
    CertificateError
        If the networks differ in more than their layers, or the set does not fit them.
    """
    merged(original, reduced)
    layers = _reductions(original, reduced, horizon, progress)
    steps = _prepared(original, progress)
    places = [place for place, step in enumerate(steps) if step.op == LAYER]
    chain = _Chain(steps, layers, input_value(steps[0], inputs, horizon))
    rounds = 2 + len(places)
    progress("bounding the network", 0, rounds)
    together = chain.run(reduced=True, injected=True)[-1]
    progress("bounding the network", 1, rounds)
    ranges = chain.run(reduced=True, injected=False)
    progress("bounding the network", 2, rounds)
    bounds, parts = [], ZERO
    for done, place in enumerate(places):
        bound = chain.layer_bound(ranges, place)
        parts = parts + bound.contribution
        bounds.append(bound)
        progress("bounding the network", 3 + done, rounds)
    return Bound(_output_bound(together).min(parts), tuple(bounds))


def _reductions(
    original: Sequence[Step], reduced: Sequence[Step], horizon: int, progress: Progress
) -> dict[int, Reduction]:
    pairs = [
        (place, first, second)
        for place, (first, second) in enumerate(zip(original, reduced, strict=True))
        if first.op == LAYER
    ]
    channels = [len(first.params["tensors"]["D"]) for _, first, _ in pairs]
    whole, done = 3 * sum(channels), 0

    def advance() -> None:
        nonlocal done
        done += 1
        progress("enclosing responses", done, whole)

    progress("enclosing responses", 0, whole)
    return {
        place: Reduction.between(first.name, _channels(first), _channels(second), horizon, advance)
        for place, first, second in pairs
    }


def _channels(step: Step) -> Channels:
    makers = {"s4d": Channels.of_s4d, "modes": Channels.of_modes}
    return makers[step.params["form"]](step.params["tensors"])


def _prepared(steps: Sequence[Step], progress: Progress) -> list[Step]:
    """Return the steps with what rules ask of matrices found once."""
    out, whole = [], sum(step.op == "affine" for step in steps)
    done = 0
    for step in steps:
        if step.op == "affine":
            mixing = Mixing(step.params["weight"], step.params["bias"])
            step = dataclasses.replace(step, params={"mixing": mixing})
            done += 1
            progress("enclosing matrices", done, whole)
        out.append(step)
    return out


def _output_bound(x: Value) -> arb:
    """Return the bound on the 2-norm of the difference of the outputs, at every time."""
    return norm(x.sup).min(x.error)


@dataclass(frozen=True, eq=False)
class _Chain:
    """Carry values through the steps."""

    steps: Sequence[Step]
    layers: dict[int, Reduction]
    start: Value | None

    def run(self, *, reduced: bool, injected: bool, known: Sequence[Any] = ()) -> list[Any]:
        """Return the values of all steps, from those that are known on."""
        values: list[Any] = list(known)
        for place in range(len(values), len(self.steps)):
            step = self.steps[place]
            if step.op == "input":
                values.append(self.start)
            elif step.op == LAYER:
                x, layer = values[step.inputs[0]], self.layers[place]
                gains = layer.reduced if reduced else layer.original
                y = inherited(gains, layer.original, x)
                if injected:
                    y = with_injected(y, *local_error(layer, x))
                values.append(y)
            elif step.op == "embedding":
                values.append(rule_of(step)(step))
            else:
                values.append(rule_of(step)(step, *(values[i] for i in step.inputs)))
        return values

    def downstream(
        self, ranges: Sequence[Any], place: int, sup: np.ndarray, each: np.ndarray, whole: arb
    ) -> arb:
        """Return the output error of an error behind one layer, carried on by the original."""
        known = [*ranges[:place], with_injected(ranges[place], sup, each, whole)]
        return _output_bound(self.run(reduced=False, injected=False, known=known)[-1])

    def layer_bound(self, ranges: Sequence[Any], place: int) -> LayerBound:
        """Return what is enclosed about the layer at a step."""
        layer, x = self.layers[place], ranges[self.steps[place].inputs[0]]
        sup, each, gain_error = local_error(layer, x)
        silent = all(bound.is_zero() for bound in each)
        part = ZERO if silent else self.downstream(ranges, place, sup, each, gain_error)

        def tiny_weight() -> arb:
            reach = largest(ranges[place].magnitude)
            tiny = TINY * (reach if reach > 0 else ONE)
            spread = filled(len(each), tiny / arb(len(each)).sqrt())
            return self.downstream(ranges, place, spread, spread, norm(spread)) / tiny

        weight = tiny_weight() if silent else part / gain_error
        error = norm(layer.difference.h2)
        relative = ZERO if error.is_zero() else error / layer.size if layer.size > 0 else INFINITY
        off = float(np.linalg.norm(layer.rounding))
        reached = np.array([middle(bound) for bound in x.l2_each])
        gained = float(np.linalg.norm(layer.rounding * reached))
        rounding = {
            "error": off,
            "relative_error": _ratio(off, middle(layer.size)),
            "gain_error": gained,
            "contribution": gained * middle(weight),
            "weight": 2.0 * middle(weight) * _ratio(gained, middle(gain_error)),
        }
        return LayerBound(
            layer.name,
            layer.states,
            error,
            relative,
            gain_error,
            weight,
            part,
            tiny_weight,
            rounding,
        )


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0.0 else 0.0
