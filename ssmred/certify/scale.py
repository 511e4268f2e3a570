"""Measure the size of outputs and of their differences, and say how a scale can be repeated.

A bound is relative to the output scale, so a scale that nobody can repeat could hide any bound:
``theory/network-bound.md`` (in the code), docs/certificates.md.
"""

from __future__ import annotations

import math
import re

import numpy as np

from ssmred.certify.certificate import Certificate
from ssmred.certify.graph import NetworkGraph
from ssmred.checks import check_integer
from ssmred.errors import OrderError, ShapeError, message

__all__ = ["fault_of_plan", "output_errors", "output_scale", "relative_bound"]

INFERENCE_ROUNDING = 1e-13
"""Relative to the output scale; only ever added."""

MOST_DRAWN = 2**30  # numbers that a certificate may ask a verifier to draw


def output_scale(outputs: np.ndarray) -> float:
    """Return the output scale: root mean square 2-norm of output vectors (features last).

    Parameters
    ----------
    outputs : (samples, ..., features) or (samples,) array
        The first axis is the batch; without another one every output is a single number.

    Raises
    ------
    ShapeError
        If there is no batch, or nothing in it.

    Examples
    --------
    >>> import numpy as np
    >>> output_scale(np.array([[3.0, 4.0], [0.0, 5.0]]))
    5.0
    >>> output_scale(np.array([1.0, 7.0]))
    5.0
    """
    size = np.sum(np.square(_vectors(outputs, "output_scale")), axis=-1)
    return float(np.sqrt(np.mean(size)))


def relative_bound(bound: float, scale: float) -> float:
    """Return a worst-case bound relative to the output scale.

    The theorem speaks of exact arithmetic. So that two runs in float64 can be held against it, a
    bound above 0 is raised by ``1e-13`` of the scale, many times the rounding of such a run.
    """
    return bound / scale + INFERENCE_ROUNDING if bound > 0.0 else 0.0


def output_errors(original: np.ndarray, reduced: np.ndarray) -> np.ndarray:
    """Return the 2-norm of every sample's output difference, the largest over time if it has any.

    Parameters
    ----------
    original, reduced : (samples, ..., features) or (samples,) array
        Outputs of the two networks on the same inputs. The first axis is the batch; without
        another one every output is a single number.

    Returns
    -------
    (samples,) float64

    Raises
    ------
    ShapeError
        If the shapes differ, or there is no batch, or nothing in it.

    Examples
    --------
    >>> import numpy as np
    >>> output_errors(np.array([[3.0, 4.0], [1.0, 1.0]]), np.array([[0.0, 0.0], [1.0, 1.0]]))
    array([5., 0.])
    >>> output_errors(np.array([1.0, 2.0]), np.array([1.5, 2.0]))
    array([0.5, 0. ])
    """
    first, second = _vectors(original, "output_errors"), _vectors(reduced, "output_errors")
    if first.shape != second.shape:
        raise ShapeError(
            message(
                "output_errors",
                "the outputs have different shapes",
                expected=f"{first.shape}",
                got=f"{second.shape}",
            )
        )
    size = np.sqrt(np.sum(np.square(first - second), axis=-1))
    return size.reshape(size.shape[0], -1).max(axis=-1)


def _vectors(outputs: np.ndarray, where: str) -> np.ndarray:
    """Return outputs (samples, ..., features) as float64; single numbers are vectors of one."""
    values = np.asarray(outputs, dtype=np.float64)
    if values.ndim == 0 or values.size == 0:
        raise ShapeError(
            message(
                where,
                "there are no outputs",
                expected="(samples, ..., features) or (samples,)",
                got=f"{values.shape}",
            )
        )
    return values[:, None] if values.ndim == 1 else values


def fault_of_plan(certificate: Certificate, graph: NetworkGraph | None) -> str:
    """Return what is wrong with the plan to repeat the scale; an empty text if nothing is."""
    plan, horizon = certificate.scale_sampling, certificate.horizon
    if plan is None:
        worst = certificate.guarantee == "worst-case"
        return "a worst-case certificate has to say how to repeat its scale" if worst else ""
    if set(plan) == {"data_sha256"}:
        text = plan["data_sha256"]
        known = isinstance(text, str) and re.fullmatch("[0-9a-f]{64}", text)
        return "" if known else "data_sha256 is not a SHA-256"
    if set(plan) - {"length"} != {"seed", "count", "features"}:
        return "expected seed, count, features and length, or data_sha256"
    if graph is None:
        return "there is no declared set to sample from"
    try:
        sizes = [check_integer(plan[key], key, "verify", low=1) for key in ("count", "features")]
        check_integer(plan["seed"], "seed", "verify")
        length = check_integer(plan.get("length", horizon), "length", "verify", low=1)
    except OrderError as error:
        return str(error)
    if horizon is not None and length != horizon:
        return f"length {length} is not the horizon {horizon}"
    features = drawn_features(graph)
    if sizes[1] != features:
        return f"the network's input has {features} features"
    too_many = length * math.prod(sizes) > MOST_DRAWN
    return f"more than {MOST_DRAWN} numbers to draw" if too_many else ""


def drawn_features(graph: NetworkGraph) -> int:
    """Return the features of an input, or the size of the vocabulary of tokens."""
    if graph.input.param("tokens", False):
        tables = [node.params["weight"] for node in graph.nodes if node.op == "embedding"]
        return len(tables[0]) if tables else 0
    return int(graph.input.params["shape"][-1])
