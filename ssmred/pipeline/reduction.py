"""`reduce`: import, weigh, remove, certify, put back."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from ssmred.certify import InputSet
from ssmred.deploy.latency import machine
from ssmred.networks import ImportedNetwork, import_network
from ssmred.pipeline.alternatives import alternatives
from ssmred.pipeline.feedthrough import FULL
from ssmred.pipeline.guarantees import certify_layers, certify_statistically, certify_worst_case
from ssmred.pipeline.methods import SUBSET
from ssmred.pipeline.progress import Progress
from ssmred.pipeline.request import (
    DEFAULT_TOL,
    SENSITIVITY,
    check_request,
    with_length_of_data,
)
from ssmred.pipeline.result import ReductionResult, RemovalCurve
from ssmred.reductors import modal_form, removal_curve
from ssmred.systems import DenseSystem

CERTIFY = {
    "worst-case": certify_worst_case,
    "statistical": certify_statistically,
    "layer": certify_layers,
}


def reduce(
    model: nn.Module,
    tol: float = DEFAULT_TOL,
    *,
    states: float | None = None,
    data: Any = None,
    horizon: int | None = None,
    inputs: InputSet | str | None = None,
    guarantee: str | None = None,
    metric: str | None = None,
    method: str = SUBSET,
    feedthrough: str = FULL,
    division: str = SENSITIVITY,
    coverage: float = 0.95,
    confidence: float = 0.95,
    seed: int = 0,
    progress: bool = True,
) -> ReductionResult:
    """Remove states of a trained state-space network under a bound on its output error.

    Every state-space layer is exported as a system; states are removed by a method, greedily by
    default, with the optimal read-out, front to back, as far as the guarantee allows
    ``||f(x) - f^(x)||_2 <= tol * scale``.

    Parameters
    ----------
    model : nn.Module
        A trained network in eval mode; never modified.
    tol : float
        Output error relative to the output scale: the root mean square of ``||f(x)||_2`` over the
        data, or over samples of the declared input set.
    states : float, optional
        Keep at most this share of the states instead of aiming at `tol`. States are real
        dimensions: a conjugate pair is two.
    data : torch.Tensor, numpy.ndarray or DataLoader, optional
        Inputs like those of the deployment, (n, T, ...), in the model's type.
    horizon : int, optional
        Sequence length; by default the data's, else infinite.
    inputs : InputSet or "data", optional
        Set of a worst-case statement. Default: every token sequence if the network starts with an
        Embedding, else ``|u| <= 1`` at every step. ``"data"`` is the box of the data.
    guarantee : {"worst-case", "statistical", "layer"}, optional
        Default: statistical with data, worst-case without.
    metric : {"h2", "calibrated"}, optional
        How removals are scored: by the layers alone, or on the signals the layers see. Default:
        calibrated with data.
    method : str
        One of "subset", "alternating", "balanced", "residualised", "h2_optimal", "modal", "hankel",
        "random", "lqo-bound", "lqo-h2", "lqo-limited", "lqo-balanced".
        How a layer's systems are made smaller: which poles are left. "subset", "alternating",
        "modal" and "random" keep some, the others move them; "random" lets chance choose, as a
        baseline. The read-out is the best one in the metric for every method; "alternating" fits B
        as well, in turn, by the layers alone.
        Calibrated, only "subset" and "balanced" look at the data for the poles. Those of "lqo-..."
        are for networks whose layers all have quadratic outputs (LQO), and score by the h2 norm of
        linear and quadratic outputs: poles of a search for the least error ("lqo-h2"), the same
        over the horizon ("lqo-limited"), or of balanced truncation ("lqo-balanced"), each layer by
        itself; "lqo-bound" searches too, and divides the states so that the bound of the network in
        these errors is least (:func:`ssmred.quadratic_bound`), which needs a horizon or data.
    feedthrough : {"full", "diagonal"}
        Shape of D in a reduced layer whose channels share one state and whose own D is a diagonal
        matrix (S5, LRU). The best one is full; a diagonal one holds fewer numbers, and the layer's
        class can hold it (:func:`ssmred.networks.export_plain`). Layers with squares (LQO) keep a
        diagonal one always, other layers their shape.
    division : {"sensitivity", "measured"}
        How a calibrated reduction divides states among the layers: by first-order sensitivities of
        the output, right where little is removed; or by trying divisions, and read-outs that make
        up for the errors of the layers before, on the data, for four to seven times the cost: where
        much is removed.
    coverage, confidence : float
        A statistical certificate states, with this confidence, that at least this share of inputs
        has an error below the bound.
    seed : int
        Seed of the data split, of all sampling and of the method "random".
    progress : bool
        Show progress bars on standard error.

    Returns
    -------
    ReductionResult
        With the reduced model, its certificate and the whole error-versus-order curve. If nothing
        can be removed the result says so and shows what would allow how much.

    Raises
    ------
    CheckpointError
        Weights that are not finite or not understood; no state-space layer.
    DataError
        Data that does not fit the model, or too little for the confidence asked for.
    ToleranceError, OrderError
        A tolerance or a share that means nothing, or both.
    UnstableSystemError
        Poles outside the unit circle with an infinite horizon.
    UnsupportedOperationError
        Under worst-case: an operation without a rule.

    Notes
    -----
    Certificate level: FLOAT (theorems evaluated in float64). Theory: ``theory/network-bound.md``,
    ``theory/optimal-readout.md``, ``theory/diagonal-feedthrough.md``,
    ``theory/statistical-certificate.md``, ``theory/layer-guarantee.md``.
    """
    started = time.perf_counter()
    threads = torch.get_num_threads()
    request = check_request(
        model,
        tol,
        states=states,
        data=data,
        horizon=horizon,
        inputs=inputs,
        guarantee=guarantee,
        metric=metric,
        method=method,
        feedthrough=feedthrough,
        division=division,
        coverage=coverage,
        confidence=confidence,
        seed=seed,
    )
    try:
        with Progress(progress) as bars:
            network = import_network(model)
            request = with_length_of_data(request, network)
            network = in_modal_form(network, request.horizon, bars)
            outcome = CERTIFY[request.guarantee](model, network, request, bars)
            removed, error = removal_curve(outcome.removal.paths, outcome.removal.weights)
            others = alternatives(network, request, outcome, bars)
    finally:
        torch.set_num_threads(threads)  # compiled parallel loops share, and change, torch's pool
    full = sum(layer.states for layer in network.layers)
    return ReductionResult(
        model=outcome.cut.model,
        original=model,
        certificate=outcome.certificate,
        states=(outcome.cut.states, full),
        parameters=(count(outcome.cut.model), count(model)),
        path=RemovalCurve(full - removed, np.sqrt(error / max(error[-1], 1e-300))),
        alternatives=others,
        method=request.method,
        seconds=time.perf_counter() - started,
        request=request.to_json(),
        machine=machine(),
    )


def in_modal_form(network: ImportedNetwork, horizon: int | None, bars: Progress) -> ImportedNetwork:
    """Return the same network, whose dense layers are reduced by way of their modes.

    The network itself stays as it is: errors are those against its dense systems.
    """
    dense = [layer.name for layer in network.layers if isinstance(layer.system, DenseSystem)]
    if not dense:
        return network
    advance = bars.stage("fitting modes", len(dense))
    layers = []
    for layer in network.layers:
        if isinstance(layer.system, DenseSystem):
            form = modal_form(layer.system, horizon=horizon, held=layer.held)
            layer = replace(layer, system=form.system)
            advance(1)
        layers.append(layer)
    return replace(network, layers=tuple(layers))


def count(model: nn.Module) -> int:
    """Return how many numbers the parameters and floating-point buffers of a network hold."""
    return sum(t.numel() for t in model.parameters()) + sum(
        t.numel() for t in model.buffers() if torch.is_floating_point(t)
    )
