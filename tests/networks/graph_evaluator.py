"""Evaluate a NetworkGraph in NumPy by the meaning its documentation gives to every operation."""

import numpy as np
from scipy.special import erf, expit


def moments(x, axes):
    mean = x.mean(axis=axes, keepdims=True)
    return mean, ((x - mean) ** 2).mean(axis=axes, keepdims=True)


def channelwise(values, ndim, axis):
    shape = [1] * ndim
    shape[axis] = -1
    return np.asarray(values).reshape(shape)


def convolve(system, u):
    h = system.impulse_response(u.shape[-1])[..., 0, 0]
    return np.stack(
        [
            np.convolve(hc, uc)[: len(uc)]
            for hc, uc in zip(np.broadcast_to(h, u.shape), u, strict=True)
        ]
    )


def evaluate(graph, sample):
    """Return the output of the graph for one sample (no batch axis)."""
    values = {}
    for node in graph:
        x = [values[name] for name in node.inputs]
        value = evaluate_node(node, x, sample)
        values[node.name] = value
        assert value.ndim == len(node.axes), node
    return values[graph.output]


def evaluate_node(node, x, sample):
    p, op = node.param, node.op
    if op == "input":
        return np.asarray(sample)
    if op == "constant":
        return np.asarray(p("value"))
    if op in ("linear", "conv1d"):
        weight, bias = (
            np.squeeze(p("weight"), 2) if p("weight").ndim == 3 else p("weight"),
            p("bias", 0.0),
        )
        return (
            x[0] @ weight.T + bias if op == "linear" else weight @ x[0] + np.reshape(bias, (-1, 1))
        )
    if op == "embedding":
        return p("weight")[x[0]]
    if op == "ssm":
        return convolve(p("system"), x[0])
    if op == "gelu":
        if p("approximate", "none") == "tanh":
            return 0.5 * x[0] * (1 + np.tanh(np.sqrt(2 / np.pi) * (x[0] + 0.044715 * x[0] ** 3)))
        return 0.5 * x[0] * (1 + erf(x[0] / np.sqrt(2)))
    if op in ("relu", "silu", "tanh", "sigmoid", "identity"):
        maps = {
            "relu": lambda v: np.maximum(v, 0),
            "silu": lambda v: v * expit(v),
            "tanh": np.tanh,
            "sigmoid": expit,
            "identity": lambda v: v,
        }
        return maps[op](x[0])
    if op == "glu":
        a, b = np.split(x[0], 2, axis=p("axis", -1))
        return a * expit(b)
    if op == "layernorm":
        axes = tuple(range(-p("dims", 1), 0))
        mean, variance = moments(x[0], axes)
        return (x[0] - mean) / np.sqrt(variance + p("eps")) * p("weight", 1.0) + p("bias", 0.0)
    if op == "batchnorm":
        put = lambda v: channelwise(v, x[0].ndim, p("axis", 0))  # noqa: E731
        scaled = (x[0] - put(p("mean"))) / np.sqrt(put(p("var")) + p("eps"))
        return scaled * put(p("weight", 1.0)) + put(p("bias", 0.0))
    if op in ("add", "sub", "multiply"):
        return {"add": np.add, "sub": np.subtract, "multiply": np.multiply}[op](*x)
    if op == "affine":
        return x[0] * p("scale", 1.0) + p("shift", 0.0)
    if op in ("mean", "max"):
        reduce = np.mean if op == "mean" else np.max
        return reduce(x[0], axis=p("axis"), keepdims=p("keepdim", False))
    if op in ("last", "select"):
        return np.take(x[0], -1 if op == "last" else p("index"), axis=p("axis"))
    if op == "slice":
        index = [slice(None)] * x[0].ndim
        index[p("axis")] = slice(p("start"), p("stop"), p("step"))
        return x[0][tuple(index)]
    if op == "concat":
        return np.concatenate(x, axis=p("axis"))
    if op == "permute":
        return np.transpose(x[0], p("order"))
    if op == "reshape":
        shape = list(p("shape"))
        if node.time_axis is not None:
            shape[node.time_axis] = -1
        return x[0].reshape(shape)
    if op == "unsqueeze":
        return np.expand_dims(x[0], p("axis"))
    raise AssertionError(f"operation {op} is not in the documentation")
