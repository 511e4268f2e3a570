"""Evaluate a network's list of operations in NumPy, by the meaning `graph` gives to every one.

Bounds are only as good as the list they are evaluated on: whoever makes one compares this with the
network itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.fft import next_fast_len
from scipy.special import erf, expit

from ssmred.certify.graph import NetworkGraph, Node
from ssmred.certify.layer_forms import has_diagonal_channels
from ssmred.errors import ShapeError, UnsupportedOperationError, message

__all__ = ["can_evaluate", "evaluate", "node_values"]

Evaluation = Callable[..., np.ndarray]

EVALUATIONS: dict[str, Evaluation] = {}
"""What every operation computes: ``evaluation(node, *inputs)``."""


def can_evaluate(graph: NetworkGraph) -> bool:
    """Tell whether all operations are those of ``ssmred.certify.graph``, none a user's own."""
    return all(node.op == "input" or node.op in EVALUATIONS for node in graph)


def evaluate(graph: NetworkGraph, sample: np.ndarray) -> np.ndarray:
    """Return the output of a network for one sample.

    Parameters
    ----------
    graph : NetworkGraph
    sample : ndarray
        Real numbers or token indices, axes as those of the input node (no batch axis).

    Returns
    -------
    ndarray, float64
        Axes as those of the output node.

    Raises
    ------
    UnsupportedOperationError
        If an operation is a user's own.
    ShapeError
        If a value does not have the axes of its node.

    Notes
    -----
    Float64 throughout, no certificate level: a reference to compare with, not a bound.

    Examples
    --------
    >>> graph = NetworkGraph(
    ...     [Node("x", "input", (), {"shape": (1,)}, ("time",)),
    ...      Node("y", "affine", ("x",), {"scale": 2.0, "shift": 1.0}, ("time",)),
    ...      Node("z", "mean", ("y",), {"axis": 0}, ())],
    ...     output="z",
    ... )
    >>> float(evaluate(graph, np.array([0.0, 1.0, 5.0])))
    5.0
    """
    return node_values(graph, sample)[graph.output]


def node_values(graph: NetworkGraph, sample: np.ndarray) -> dict[str, np.ndarray]:
    """Return the value of every node for one sample; parameters and errors as `evaluate`."""
    values: dict[str, np.ndarray] = {}
    for node in graph:
        if node.op == "input":
            value = np.asarray(sample)
        elif node.op in EVALUATIONS:
            value = EVALUATIONS[node.op](node, *(values[name] for name in node.inputs))
        else:
            raise UnsupportedOperationError(
                message("evaluate", f"the operation {node.op!r} (node {node.name!r}) is not known")
            )
        if value.ndim != len(node.axes):
            raise ShapeError(
                message(
                    "evaluate",
                    f"node {node.name!r} ({node.op}) does not have its axes",
                    expected=f"{node.axes}",
                    got=f"an array of shape {value.shape}",
                )
            )
        values[node.name] = value
    return values


def _computes(*operations: str) -> Callable[[Evaluation], Evaluation]:
    def register(function: Evaluation) -> Evaluation:
        EVALUATIONS.update(dict.fromkeys(operations, function))
        return function

    return register


# Weights --------------------------------------------------------------------------------------


@_computes("linear")
def _linear(node: Node, x: np.ndarray) -> np.ndarray:
    return x @ node.param("weight").T + node.param("bias", 0.0)


@_computes("conv1d")
def _conv1d(node: Node, x: np.ndarray) -> np.ndarray:
    weight = node.param("weight")
    weight = weight[..., 0] if weight.ndim == 3 else weight
    return weight @ x + np.reshape(node.param("bias", 0.0), (-1, 1))


@_computes("embedding")
def _embedding(node: Node, tokens: np.ndarray) -> np.ndarray:
    return node.param("weight")[tokens]


@_computes("ssm")
def _ssm(node: Node, u: np.ndarray) -> np.ndarray:
    """Convolve with ``h_k = Re(sum_i c_i b_i l_i^k)``, ``D`` added to ``h_0``, or run the steps."""
    system = node.param("system")
    if not has_diagonal_channels(system):
        if system.batch_shape == (1,):  # one system for all channels
            return system.simulate(u.T)[0].T
        return system.simulate(u[..., None])[..., 0]
    steps = u.shape[-1]
    block = int(np.ceil(np.sqrt(steps)))  # l^(p block + q) = l^(p block) l^q
    low = system.poles[..., None] ** np.arange(block)
    high = system.poles[..., None, :] ** (block * np.arange(block))[:, None]
    residues = system.C[..., 0, :] * system.B[..., 0]
    response = (high @ (residues[..., None] * low)).real.reshape(len(residues), -1)[:, :steps]
    length = next_fast_len(2 * steps, real=True)
    spectrum = np.fft.rfft(response, length) * np.fft.rfft(u, length)
    return np.fft.irfft(spectrum, length)[:, :steps] + system.D[..., 0].real * u


@_computes("layernorm")
def _layernorm(node: Node, x: np.ndarray) -> np.ndarray:
    axes = tuple(range(-node.param("dims", 1), 0))
    centred = x - x.mean(axis=axes, keepdims=True)
    variance = (centred**2).mean(axis=axes, keepdims=True)
    normal = centred / np.sqrt(variance + node.param("eps", 1e-5))
    return normal * node.param("weight", 1.0) + node.param("bias", 0.0)


@_computes("batchnorm")
def _batchnorm(node: Node, x: np.ndarray) -> np.ndarray:
    shape = [1] * x.ndim
    shape[node.param("axis", 0)] = -1
    weight, bias, mean, var = (
        np.reshape(node.param(key, default), shape)
        for key, default in (("weight", 1.0), ("bias", 0.0), ("mean", None), ("var", None))
    )
    return (x - mean) / np.sqrt(var + node.param("eps", 1e-5)) * weight + bias


# Pointwise ------------------------------------------------------------------------------------


@_computes("gelu")
def _gelu(node: Node, x: np.ndarray) -> np.ndarray:
    if node.param("approximate", "none") == "tanh":
        return 0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1.0 + erf(x / np.sqrt(2.0)))


_POINTWISE: dict[str, Callable[..., Any]] = {
    "relu": lambda x: np.maximum(x, 0.0),
    "silu": lambda x: x * expit(x),
    "tanh": np.tanh,
    "sigmoid": expit,
    "identity": lambda x: x,
    "add": np.add,
    "sub": np.subtract,
    "multiply": np.multiply,
}


@_computes(*_POINTWISE)
def _pointwise(node: Node, *x: np.ndarray) -> np.ndarray:
    return _POINTWISE[node.op](*x)


@_computes("affine")
def _affine(node: Node, x: np.ndarray) -> np.ndarray:
    return x * node.param("scale", 1.0) + node.param("shift", 0.0)


@_computes("constant")
def _constant(node: Node) -> np.ndarray:
    return np.asarray(node.param("value"))


@_computes("glu")
def _glu(node: Node, x: np.ndarray) -> np.ndarray:
    kept, gate = np.split(x, 2, axis=node.param("axis", -1))
    return kept * expit(gate)


# Pooling and shapes ---------------------------------------------------------------------------


@_computes("mean", "max")
def _pool(node: Node, x: np.ndarray) -> np.ndarray:
    reduce = np.mean if node.op == "mean" else np.max
    return np.asarray(reduce(x, axis=node.param("axis"), keepdims=node.param("keepdim", False)))


@_computes("last", "select")
def _select(node: Node, x: np.ndarray) -> np.ndarray:
    index = -1 if node.op == "last" else node.param("index")
    return np.asarray(np.take(x, index, axis=node.param("axis")))


@_computes("slice")
def _slice(node: Node, x: np.ndarray) -> np.ndarray:
    index = [slice(None)] * x.ndim
    index[node.param("axis")] = slice(
        node.param("start", 0), node.param("stop"), node.param("step", 1)
    )
    return x[tuple(index)]


@_computes("concat")
def _concat(node: Node, *x: np.ndarray) -> np.ndarray:
    return np.concatenate(x, axis=node.param("axis"))


@_computes("reverse")
def _reverse(node: Node, x: np.ndarray) -> np.ndarray:
    return np.flip(x, node.param("axis"))


@_computes("delay")
def _delay(node: Node, x: np.ndarray) -> np.ndarray:
    axis, steps = node.param("axis"), node.param("steps", 1)
    late = np.moveaxis(np.zeros_like(x), axis, 0)
    late[steps:] = np.moveaxis(x, axis, 0)[: max(len(late) - steps, 0)]
    return np.moveaxis(late, 0, axis)


@_computes("permute")
def _permute(node: Node, x: np.ndarray) -> np.ndarray:
    return np.transpose(x, node.param("order"))


@_computes("reshape")
def _reshape(node: Node, x: np.ndarray) -> np.ndarray:
    shape = list(node.param("shape"))
    if node.time_axis is not None:
        shape[node.time_axis] = -1
    return x.reshape(shape)


@_computes("unsqueeze")
def _unsqueeze(node: Node, x: np.ndarray) -> np.ndarray:
    return np.expand_dims(x, node.param("axis"))


@_computes("squeeze")
def _squeeze(node: Node, x: np.ndarray) -> np.ndarray:
    return np.squeeze(x, node.param("axis"))
