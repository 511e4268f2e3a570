"""Choose the cut under each of the three guarantees, and write its certificate."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from ssmred._version import __version__
from ssmred.certify import (
    DECISION_THEOREMS,
    THEOREMS,
    Certificate,
    InputSet,
    LayerRecord,
    NetworkGraph,
    data_sha256,
    decision_changes,
    fixed_sequence_test,
    has_decisions,
    layer_bounds,
    layer_records,
    network_bound,
    order_statistic_bound,
    output_errors,
    output_scale,
    relative_bound,
)
from ssmred.errors import DataError
from ssmred.networks import ImportedNetwork, trace, weights_sha256
from ssmred.networks.sensing import outputs
from ssmred.networks.tracing import floating_dtype
from ssmred.pipeline.measured_division import MeasuredDivision
from ssmred.pipeline.methods import LQO_BOUND, QUADRATIC, SUBSET
from ssmred.pipeline.progress import Progress
from ssmred.pipeline.quadratic_bound import NetworkChain
from ssmred.pipeline.quadratic_removal import QuadraticRemoval
from ssmred.pipeline.removal import (
    CalibratedMove,
    CalibratedRemoval,
    Cut,
    DataFreeRemoval,
    Removal,
    Weigher,
    relative_to_layer,
)
from ssmred.pipeline.request import HELD_OUT, MEASURED, Request, check_inputs, default_inputs
from ssmred.pipeline.search import Trial, boldest
from ssmred.reductors import ReductionPath, allocate

SAMPLES, SAMPLE_STEPS = 64, 2**15
"""Most inputs, and most steps of all together, that are drawn from the declared set to measure the
output scale where there are no data."""

SAMPLE_LENGTH = 512
"""Their length where the horizon is infinite."""

ROUNDS = {"worst-case": 12, "statistical": 5, "layer": 12}
"""Cuts tried under each guarantee."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """Hold the cut that a guarantee allows, what chose it, and its certificate."""

    cut: Cut
    removal: Removal
    certificate: Certificate
    trials: Sequence[Trial[Cut]]


def certify_worst_case(
    model: nn.Module, network: ImportedNetwork, request: Request, bars: Progress
) -> Outcome:
    """Cut as far as the network bound over the declared input set allows.

    Theory: ``theory/network-bound.md``.
    """
    graph = trace(network.model, horizon=request.horizon, inputs=request.inputs)
    inputs = request.inputs or default_inputs(graph)
    check_inputs(graph, inputs)
    scale, source, sampling = _scale_of_set(network, graph, inputs, request)

    def bound_of(cut: Cut) -> float:
        reduced = graph.with_systems(cut.systems)
        chain = network_bound(graph, reduced, inputs, request.horizon, weights=False)
        return relative_bound(chain.bound, scale)

    def weigh(paths: Sequence[ReductionPath]) -> list[np.ndarray]:
        layers = network_bound(graph, graph, inputs, request.horizon).layers
        gains = np.array([layer.weight for layer in layers])
        finite = np.isfinite(gains) & (gains > 0.0)
        gains = np.where(finite, gains, gains[finite].max(initial=1.0)) / gains[finite].max(
            initial=1.0
        )
        return [np.full(path.norms.size, g**2) for g, path in zip(gains, paths, strict=True)]

    removal = _removal(network, request, bars, weigh)
    cut, trials = _cut(network, request, bars, removal, bound_of)
    if request.states is not None and isinstance(removal, DataFreeRemoval) and bound_of(cut) > 1.0:
        # Gains that prove nothing are no guide either: let every layer count alike.
        removal = removal.weighed(relative_to_layer)
        cut, trials = _cut(network, request, bars, removal, bound_of)
    chain = network_bound(
        graph,
        graph.with_systems(cut.systems),
        inputs,
        request.horizon,
    )
    certificate = _certificate(
        model,
        cut,
        request,
        removal,
        bound=relative_bound(chain.bound, scale),
        scale=scale,
        scale_source=source,
        scale_sampling=sampling,
        layers=layer_records(chain),
        inputs=inputs.to_json(),
    )
    return Outcome(cut, removal, certificate, trials)


def certify_statistically(
    model: nn.Module, network: ImportedNetwork, request: Request, bars: Progress
) -> Outcome:
    """Cut as far as held-out inputs show, with the confidence asked for.

    One half of the data chooses the cuts and their order; the other half tests them in that order,
    the most cautious first, and stops at the first failure. Where outputs are scores of classes
    it also counts changed decisions. Theory: ``theory/fixed-sequence-testing.md``,
    ``theory/statistical-certificate.md``, ``theory/decision-changes.md``.
    """
    weigh, held_out = _given(request.weigh), _given(request.certify)
    wanted = outputs(model, weigh)
    scale = _positive_scale(output_scale(wanted))

    def error_of(cut: Cut) -> float:
        errors = output_errors(wanted, outputs(cut.model, weigh))
        quantile = order_statistic_bound(errors, request.coverage, request.confidence)
        return (errors.max() if quantile is None else quantile) / scale

    removal = _removal(network, request, bars)
    cut, trials = _cut(network, request, bars, removal, error_of)
    sequence = [Cut(network, ()), *(trial.cut for trial in trials)] if request.tol else [cut]
    advance = bars.stage("testing on held-out inputs", len(sequence))
    truth = outputs(model, held_out)
    errors = np.empty((len(sequence), len(held_out)))
    decisions: list[dict[str, Any]] = []
    for row, candidate in zip(errors, sequence, strict=True):
        answers = outputs(candidate.model, held_out)
        row[:] = output_errors(truth, answers)
        if has_decisions(truth):  # one of these cuts is chosen below, by these inputs
            changes = decision_changes(truth, answers, request.confidence, cuts=len(sequence))
            decisions.append(changes.to_json())
        advance(1)
    facts: dict[str, Any] = {
        "coverage": request.coverage,
        "confidence": request.confidence,
        "n": len(held_out),
        "split_seed": request.seed,
        "split_fraction": HELD_OUT,
        "data_sha256": data_sha256(held_out.numpy()),
    }
    accepted = None
    if request.tol:
        test = fixed_sequence_test(
            errors, request.tol * scale, request.coverage, request.confidence
        )
        accepted = test.accepted
        facts["stopped_at"] = test.stopped_at
        facts["sequence"] = [
            {
                "states": sequence[step.cut].states,
                "violations": step.violations,
                "p_value": step.p_value,
                "accepted": step.accepted,
            }
            for step in test.steps
        ]
    kept = accepted or 0
    cut, row = sequence[kept], errors[kept]
    if accepted is None:
        # A single cut, fixed before the held-out inputs were looked at.
        level = order_statistic_bound(row, request.coverage, request.confidence)
        bound = _relative(level, scale)
    else:
        bound = float(request.tol or 0.0)
    theorems = THEOREMS["statistical"]
    if decisions:
        facts["decisions"] = decisions[kept]
        theorems += DECISION_THEOREMS
    facts["violations"] = int(np.count_nonzero(~(row <= bound * scale)))
    certificate = _certificate(
        model,
        cut,
        request,
        removal,
        bound=bound,
        scale=scale,
        scale_source=f"root mean square over {len(weigh)} inputs that took part in the decision",
        layers=_layer_records(network, cut, request),
        statistics=facts,
        theorems=theorems,
    )
    return Outcome(cut, removal, certificate, trials)


def certify_layers(
    model: nn.Module, network: ImportedNetwork, request: Request, bars: Progress
) -> Outcome:
    """Cut every layer as far as its own relative h2 error allows.

    Theory: ``theory/layer-guarantee.md``.
    """
    removal = _removal(network, request, bars)

    def error_of(cut: Cut) -> float:
        return max(record.relative_error for record in _layer_records(network, cut, request))

    if isinstance(removal, DataFreeRemoval) and request.tol:
        cut, trials = _cut_each_layer(removal, request.tol, error_of), []
    else:
        cut, trials = _cut(network, request, bars, removal, error_of)
    records = _layer_records(network, cut, request)
    certificate = _certificate(
        model,
        cut,
        request,
        removal,
        bound=max(record.relative_error for record in records),
        scale=1.0,
        scale_source="each layer's own h2 norm",
        layers=records,
    )
    return Outcome(cut, removal, certificate, trials)


def layer_share(removal: DataFreeRemoval, tol: float) -> float:
    """Return the share of states that the layer guarantee would let go at a tolerance."""
    kept = sum(int(k.sum()) for k in _layer_budget(removal.paths, tol))
    return 1.0 - kept / sum(path.norms.size * path.system.order for path in removal.paths)


def _layer_budget(paths: Sequence[ReductionPath], tol: float) -> list[np.ndarray]:
    kept = []
    for path in paths:
        ones = np.ones(path.norms.shape)
        kept += allocate([path], [ones], budget=tol**2 * float(np.sum(path.norms**2)))
    return kept


def _cut_each_layer(removal: DataFreeRemoval, tol: float, error_of: Callable[[Cut], float]) -> Cut:
    budget = tol
    while True:
        cut = removal.cut_to(_layer_budget(removal.paths, budget))
        if all((r.orders == r.full.order).all() for r in cut.reductions):
            return Cut(removal.network, ())
        error = error_of(cut)
        if error <= tol:
            return cut
        # by rounding the path's error differs from the recomputed one; by more if D is diagonal
        budget *= min(0.99, tol / error)


def _removal(
    network: ImportedNetwork, request: Request, bars: Progress, weigh: Weigher | None = None
) -> Removal:
    advance = bars.stage("weighing states", len(network.layers))
    if request.method in QUADRATIC:
        chain = None
        if request.method == LQO_BOUND:
            chain = NetworkChain(
                network, request.horizon, inputs=request.inputs, data=request.weigh
            )
        return QuadraticRemoval(
            network, request.horizon, method=request.method, chain=chain, advance=advance
        )
    if request.metric == "calibrated":
        data = _given(request.weigh)
        options: dict[str, Any] = {"seed": request.seed, "feedthrough": request.feedthrough}
        if request.method == SUBSET:
            removal = CalibratedRemoval(network, data, advance=advance, **options)
        else:
            moving = {"method": request.method, "horizon": request.horizon}
            removal = CalibratedMove(network, data, advance=advance, **moving, **options)
        if request.division != MEASURED:
            return removal
        alone = bars.stage("weighing layers alone", len(network.layers))
        return MeasuredDivision(removal, network, data, horizon=request.horizon, advance=alone)
    return DataFreeRemoval(
        network,
        request.horizon,
        method=request.method,
        weigh=weigh,
        feedthrough=request.feedthrough,
        seed=request.seed,
        advance=advance,
    )


def _cut(
    network: ImportedNetwork,
    request: Request,
    bars: Progress,
    removal: Removal,
    measure: Callable[[Cut], float],
) -> tuple[Cut, list[Trial[Cut]]]:
    """Return the cut with the states asked for, or the boldest one within the tolerance."""
    full = sum(layer.states for layer in network.layers)
    if request.states is not None:
        advance = bars.stage("removing states", 1)
        cut = removal.cut(int(request.states * full))
        advance(1)
        return cut, []
    rounds = ROUNDS[request.guarantee]
    advance = bars.stage("removing states", rounds)

    def build(states: int) -> Cut:
        cut = removal.cut(states)
        advance(1)
        return cut

    limit = float(request.tol or 0.0)
    trials = boldest(build, measure, full=full, limit=limit, rounds=rounds)
    admissible = [trial for trial in trials if trial.error <= limit]
    advance(rounds - len(trials))
    return (admissible[-1].cut if admissible else Cut(network, ())), trials


def _layer_records(network: ImportedNetwork, cut: Cut, request: Request) -> tuple[LayerRecord, ...]:
    full = Cut(network, ()).systems
    return layer_records(layer_bounds(full, cut.systems, request.horizon))


def _certificate(
    model: nn.Module, cut: Cut, request: Request, removal: Removal, **content: Any
) -> Certificate:
    return Certificate(
        guarantee=request.guarantee,
        tol=request.tol,
        horizon=request.horizon,
        metric=removal.metric,
        original_sha256=weights_sha256(model),
        reduced_sha256=weights_sha256(cut.model),
        ssmred_version=__version__,
        created=datetime.datetime.now(datetime.UTC).date().isoformat(),
        **content,
    )


def _scale_of_set(
    network: ImportedNetwork, graph: NetworkGraph, inputs: InputSet, request: Request
) -> tuple[float, str, dict[str, Any]]:
    if request.weigh is not None:
        scale = output_scale(outputs(network.model, request.weigh))
        source = f"root mean square over {len(request.weigh)} inputs"
        return _positive_scale(scale), source, {"data_sha256": data_sha256(request.weigh.numpy())}
    tokens = bool(graph.input.param("tokens", False))
    features = int(graph.input.params["shape"][-1])
    if tokens:
        features = next(len(n.params["weight"]) for n in graph.nodes if n.op == "embedding")
    length = request.horizon or SAMPLE_LENGTH
    count = min(SAMPLES, max(8, SAMPLE_STEPS // length))
    rng = np.random.default_rng(request.seed)
    drawn = torch.from_numpy(inputs.sample(rng, count, length, features))
    if not tokens:
        drawn = drawn.to(floating_dtype(network.model))
    source = f"root mean square over {count} sequences of {length} steps drawn from the input set"
    plan = {"seed": request.seed, "count": count, "length": length, "features": features}
    return _positive_scale(output_scale(outputs(network.model, drawn))), source, plan


def _positive_scale(scale: float) -> float:
    if not 0.0 < scale < float("inf"):
        raise DataError(
            f"reduce: the output scale is {scale}; expected a positive number, to measure errors "
            "against. Pass inputs on which the network's output is not zero."
        )
    return scale


def _relative(error: float | None, scale: float) -> float:
    """Return ``error / scale``, rounded up so that multiplying back loses no input."""
    if error is None:
        raise DataError("reduce: too few held-out inputs for this coverage and confidence.")
    bound = error / scale
    while bound * scale < error:
        bound = float(np.nextafter(bound, np.inf))
    return bound


def _given(data: torch.Tensor | None) -> torch.Tensor:
    if data is None:
        raise DataError("reduce: this needs data, got data=None. Pass data=.")
    return data
