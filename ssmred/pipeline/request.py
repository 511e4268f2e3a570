"""Check the arguments of `ssmred.reduce` and fill in its defaults."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from ssmred.certify import (
    InputSet,
    NetworkGraph,
    data_sha256,
    required_samples,
    split_indices,
)
from ssmred.errors import (
    CheckpointError,
    DataError,
    OrderError,
    RequestError,
    ToleranceError,
    UnsupportedOperationError,
)
from ssmred.networks import ImportedNetwork
from ssmred.networks.sensing import lengths_seen
from ssmred.pipeline.feedthrough import FEEDTHROUGHS, FULL
from ssmred.pipeline.methods import QUADRATIC, check_method

SENSITIVITY, MEASURED = "sensitivity", "measured"
DIVISIONS = (SENSITIVITY, MEASURED)
"""How calibrated reductions divide states among layers."""

GUARANTEES = ("worst-case", "statistical", "layer")
METRICS = ("h2", "calibrated")


HELD_OUT = 0.5
"""Share of the data that only certifies."""


class _DefaultTolerance(float):
    """Tell an omitted ``tol`` from one that was given."""


DEFAULT_TOL = _DefaultTolerance(1e-3)


@dataclass(frozen=True, eq=False)
class Request:
    """Hold what a reduction was asked for, checked and complete.

    Attributes
    ----------
    tol : float or None
        Bound on the output error relative to the output scale; None when `states` is given.
    states : float or None
        Largest share of the states to keep; None when `tol` is given.
    guarantee : {"worst-case", "statistical", "layer"}
        What the certificate will state.
    metric : {"h2", "calibrated"}
        How removals are scored.
    method : str
        How systems are made smaller; one of `METHODS`.
    feedthrough : {"full", "diagonal"}
        Shape of D where a layer's own is a diagonal matrix.
    division : {"sensitivity", "measured"}
        How calibrated reductions divide the states among the layers.
    horizon : int or None
        Sequence length; None for infinite.
    inputs : InputSet or None
        Set of a worst-case statement; None for the network's default.
    weigh, certify : torch.Tensor or None
        The two parts of the data: one decides, the other only certifies.
    coverage, confidence : float
        Share of inputs, and confidence, of a statistical statement.
    seed : int
        Seed of the split and of the sampling.
    data : dict or None
        Shape, type and hash of all the data, by which they can be told again.
    """

    tol: float | None
    states: float | None
    guarantee: str
    metric: str
    method: str
    feedthrough: str
    division: str
    horizon: int | None
    inputs: InputSet | None
    weigh: torch.Tensor | None
    certify: torch.Tensor | None
    coverage: float
    confidence: float
    seed: int
    data: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the arguments of `ssmred.reduce` that ask for this again, as JSON types."""
        names = [entry.name for entry in fields(self) if entry.name not in ("weigh", "certify")]
        asked = {name: getattr(self, name) for name in names}
        inputs = None if self.inputs is None else self.inputs.to_json()
        return asked | {"inputs": inputs, "seed": int(self.seed)}


def check_request(
    model: nn.Module,
    tol: float,
    *,
    states: float | None,
    data: Any,
    horizon: int | None,
    inputs: InputSet | str | None,
    guarantee: str | None,
    metric: str | None,
    method: str,
    feedthrough: str,
    division: str,
    coverage: float,
    confidence: float,
    seed: int,
) -> Request:
    """Return the checked request; see `ssmred.reduce` for the meaning of the arguments.

    Raises
    ------
    TypeError, ValueError
        With the argument at fault, what was expected, what came and the cure.
    """
    check_model(model)
    check_amount(tol, states)
    tensor = None if data is None else as_tensor(data, model)
    guarantee = _choice(
        "guarantee", guarantee, GUARANTEES, "worst-case" if tensor is None else "statistical"
    )
    by_layers = tensor is None or method in QUADRATIC
    metric = _choice("metric", metric, METRICS, "h2" if by_layers else "calibrated")
    if metric == "calibrated" and method in QUADRATIC:
        raise RequestError(
            f"reduce: method {method!r} scores by the h2 norm of linear and quadratic outputs, got "
            "metric='calibrated'. Leave metric out."
        )
    for wanted, name in ((guarantee, "statistical"), (metric, "calibrated")):
        if wanted == name and tensor is None:
            raise DataError(f"reduce: {name!r} needs data, got data=None. Pass data=.")
    division = _choice("division", division, DIVISIONS, SENSITIVITY)
    if division == MEASURED and metric != "calibrated":
        raise RequestError(
            "reduce: division='measured' needs metric='calibrated', whose inputs the output is "
            f"measured on; got metric={metric!r}. Pass data=, and a method that is calibrated."
        )
    for name, value in (("coverage", coverage), ("confidence", confidence)):
        if not 0.0 < value < 1.0:
            raise ToleranceError(f"reduce: {name} must lie between 0 and 1, got {value!r}.")
    weigh = certify = None
    if tensor is not None:
        if guarantee == "statistical":
            weigh, certify = split(tensor, coverage, confidence, seed)
        else:
            weigh = tensor
    return Request(
        tol=None if states is not None else float(tol),
        states=None if states is None else float(states),
        guarantee=guarantee,
        metric=metric,
        method=check_method(method),
        feedthrough=_choice("feedthrough", feedthrough, FEEDTHROUGHS, FULL),
        division=division,
        horizon=_horizon(horizon),
        inputs=_input_set(inputs, tensor),
        weigh=weigh,
        certify=certify,
        coverage=float(coverage),
        confidence=float(confidence),
        seed=seed,
        data=None if tensor is None else described_data(tensor),
    )


def described_data(data: torch.Tensor) -> dict[str, Any]:
    """Return the shape, the type and the hash of data."""
    values = data.numpy()
    return {
        "shape": list(values.shape),
        "dtype": str(values.dtype),
        "sha256": data_sha256(values),
    }


def with_length_of_data(request: Request, network: ImportedNetwork) -> Request:
    """Return the request with the horizon that the layers see on the data, if there are data.

    Raises
    ------
    DataError
        If a horizon was given and the layers see another length.
    """
    if request.weigh is None:
        return request
    if request.guarantee == "worst-case":  # a statement about inputs, of the inputs' length
        length = int(request.weigh.shape[1])
        return _with_horizon(request, length, "the data have")
    cores: dict[str, nn.Module] = {at.name: network.core(at.name) for at in network.layers}
    length = max(lengths_seen(network.model, cores, request.weigh))
    return _with_horizon(request, length, "on the data the layers see")


def _with_horizon(request: Request, length: int, who: str) -> Request:
    if request.horizon not in (None, length):
        raise DataError(
            f"reduce: horizon={request.horizon} but {who} {length} steps. "
            "Leave horizon out; it is the data's length."
        )
    return replace(request, horizon=length)


def check_model(model: nn.Module) -> None:
    """Refuse what is not a network in eval mode with finite weights."""
    if not isinstance(model, nn.Module):
        raise UnsupportedOperationError(
            f"reduce: model must be a torch.nn.Module, got {type(model).__name__}."
        )
    for name, module in model.named_modules():
        random = "Dropout" in type(module).__name__ and getattr(module, "p", 0.0) > 0.0
        batch = isinstance(module, nn.modules.batchnorm._BatchNorm)
        if module.training and (random or batch):
            raise RequestError(
                f"reduce: {name or 'the model'} ({type(module).__name__}) is in training mode, so "
                "the network's output is not a function of its input. Call model.eval() first."
            )
    for name, tensor in model.state_dict().items():
        if tensor.dtype in (torch.float16, torch.bfloat16):
            raise CheckpointError(
                f"reduce: the weights {name} are {tensor.dtype}; expected float32 or float64. "
                "Call model.float() first."
            )
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(
                f"reduce: the weights {name} hold nan or inf; expected finite numbers. "
                "Load a checkpoint from before the training diverged."
            )


def check_amount(tol: float, states: float | None) -> None:
    """Refuse a tolerance or a share of states that means nothing."""
    if states is None:
        if isinstance(tol, bool) or not isinstance(tol, (int, float, np.floating)):
            raise ToleranceError(f"reduce: tol must be a number, got {tol!r}.")
        if not (math.isfinite(tol) and tol > 0.0):
            raise ToleranceError(
                f"reduce: tol must be positive and finite (relative output error), got {tol!r}."
            )
        return
    if not isinstance(tol, _DefaultTolerance):
        raise ToleranceError(
            f"reduce: give tol or states, not both; got tol={tol!r} and states={states!r}. "
            "tol bounds the error, states the size."
        )
    if isinstance(states, bool) or not isinstance(states, (int, float, np.floating)):
        raise OrderError(f"reduce: states must be a share between 0 and 1, got {states!r}.")
    if not 0.0 <= states <= 1.0:
        raise OrderError(
            f"reduce: states is the share of states to keep, between 0 and 1; got {states!r}. "
            "To keep 30 % write states=0.3."
        )


def as_tensor(data: Any, model: nn.Module) -> torch.Tensor:
    """Return inputs as one tensor (n, T, ...) of the type the model computes in.

    Parameters
    ----------
    data : torch.Tensor, numpy.ndarray or iterable of batches
        A DataLoader may yield tensors or tuples whose first entry is the input.
    model : nn.Module
        Decides the floating type.

    Raises
    ------
    DataError
        Wrong kind, type, shape; empty; nan or inf.
    """
    tensor = _collect(data)
    if tensor.ndim < 2 or len(tensor) == 0 or tensor.numel() == 0:
        raise DataError(
            "reduce: data must be a non-empty batch of sequences, shape (n, T, features) or "
            f"(n, T) for tokens, got shape {tuple(tensor.shape)}."
        )
    types = {p.dtype for p in model.parameters() if p.is_floating_point()}
    if tensor.is_floating_point():
        if types and tensor.dtype not in types:
            wanted = ", ".join(sorted(str(t) for t in types))
            raise DataError(
                f"reduce: data is {tensor.dtype} but the model computes in {wanted}. "
                "Cast it yourself, for example data.to(torch.float32)."
            )
        if not bool(torch.isfinite(tensor).all()):
            raise DataError("reduce: data holds nan or inf; expected finite numbers. Clean it.")
    elif tensor.is_complex() or tensor.dtype == torch.bool:
        raise DataError(f"reduce: data must be real numbers or tokens, got {tensor.dtype}.")
    try:
        with torch.no_grad():
            output = model(tensor[:2])
    except Exception as error:
        raise DataError(
            f"reduce: the model does not run on data of shape {tuple(tensor.shape)} and type "
            f"{tensor.dtype}: {error}. Pass inputs as the model takes them, batch first."
        ) from error
    if not isinstance(output, torch.Tensor):
        raise DataError(
            f"reduce: the model must return one tensor, got {type(output).__name__}. "
            "Wrap it in a module that returns the tensor whose error matters."
        )
    return tensor


def split(
    data: torch.Tensor, coverage: float, confidence: float, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Split data at random into a half that decides and a half that only certifies.

    Raises
    ------
    DataError
        If the certifying half is too small for the confidence; says how many are needed.
    """
    needed = required_samples(coverage, confidence)
    held = len(data) - round(len(data) * (1.0 - HELD_OUT))
    if held < needed:
        raise DataError(
            f"reduce: a statistical statement about {coverage:.4g} of the inputs at confidence "
            f"{confidence:.4g} needs {needed} inputs to certify on, so at least {2 * needed} in "
            f"data (half of it decides the cut); got {len(data)}. Pass more data, or lower "
            "coverage= or confidence=."
        )
    decide, hold = split_indices(len(data), seed, fraction=HELD_OUT)
    return data[decide], data[hold]


def default_inputs(graph: NetworkGraph) -> InputSet:
    """Return every token sequence behind an Embedding, else ``|u| <= 1`` at every step."""
    tokens = graph.input.param("tokens", False)
    return InputSet.tokens() if tokens else InputSet.box(-1.0, 1.0)


def check_inputs(graph: NetworkGraph, inputs: InputSet) -> None:
    """Refuse token sequences for a network that takes numbers, and the reverse."""
    tokens = bool(graph.input.param("tokens", False))
    if tokens != (inputs.kind == "tokens"):
        raise DataError(
            f"reduce: the network takes {'tokens' if tokens else 'numbers'}, but the declared set "
            f"is {inputs.describe()}. Use InputSet.{'tokens()' if tokens else 'box(low, high)'}."
        )


def _choice(name: str, value: str | None, known: tuple[str, ...], default: str) -> str:
    if value is None:
        return default
    if value not in known:
        raise RequestError(f"reduce: {name} must be one of {', '.join(known)}, got {value!r}.")
    return value


def _collect(data: Any) -> torch.Tensor:
    if isinstance(data, torch.Tensor):
        return data.detach().cpu()
    if isinstance(data, np.ndarray):
        if data.dtype == object:
            raise DataError("reduce: data is an array of objects; expected numbers.")
        return torch.from_numpy(np.ascontiguousarray(data))
    if isinstance(data, Iterable) and not isinstance(data, (str, bytes, dict)):
        batches = [_collect(b[0] if isinstance(b, (tuple, list)) else b) for b in data]
        kinds = {(tuple(b.shape[1:]), b.dtype) for b in batches}
        if len(kinds) != 1:
            raise DataError(
                "reduce: data is empty or its batches differ in shape or type: "
                f"{sorted(kinds, key=str) or 'none'}. Pass sequences of one length, and inputs "
                "only, without labels."
            )
        return torch.cat(batches)
    raise DataError(
        f"reduce: data must be a tensor, an array or a DataLoader, got {type(data).__name__}."
    )


def _horizon(horizon: int | None) -> int | None:
    if horizon is None:
        return None
    if isinstance(horizon, bool) or not isinstance(horizon, (int, np.integer)) or horizon < 1:
        raise OrderError(f"reduce: horizon must be a positive number of steps, got {horizon!r}")
    return int(horizon)


def _input_set(inputs: InputSet | str | None, data: torch.Tensor | None) -> InputSet | None:
    if inputs is None or isinstance(inputs, InputSet):
        return inputs
    if inputs == "data":
        if data is None:
            raise DataError('reduce: inputs="data" needs data, got data=None. Pass data=.')
        return InputSet.box_of(data.numpy(), slack=0.0)
    raise UnsupportedOperationError(
        f'reduce: inputs must be an ssmred.InputSet or "data", got {inputs!r}.'
    )
