"""An independent evaluation of network graphs, plainly and in extended precision."""

from __future__ import annotations

import numpy as np
from scipy.special import erf

from ssmred.certify import ErrorBall, NetworkGraph, Node, Value
from ssmred.certify.rules_table import apply_rule
from ssmred.systems import DenseSystem, DiagonalSystem

WIDE = np.longdouble


def impulse_response(system, horizon):
    """Return h by repeated multiplication in extended precision.

    (H, T) for channels by themselves, (p, m, T) for a state that all channels share.
    """
    if isinstance(system, DenseSystem) or not system.is_post_update or system.inputs > 1:
        return _stepped_response(system, horizon)
    if system.outputs > 1:
        return _stepped_response(system, horizon)
    poles = system.poles.astype(np.clongdouble)
    residues = (system.C[:, 0, :].astype(np.clongdouble)) * system.B[..., 0].astype(np.clongdouble)
    state = residues.copy()
    h = np.zeros((poles.shape[0], horizon), dtype=WIDE)
    for k in range(horizon):
        h[:, k] = state.sum(axis=-1).real
        state = state * poles
    h[:, 0] += system.D[:, 0, 0].real.astype(WIDE)
    return h


def _stepped_response(system, horizon):
    """Return the same for any form and recurrence, by running the recurrence."""
    dense = system.to_dense()
    A, B, C = (M.astype(np.clongdouble) for M in (dense.A, dense.B, dense.C))
    D = dense.D.real.astype(WIDE)
    h = np.zeros((len(A), horizon, *D.shape[-2:]), dtype=WIDE)
    state = B
    for k in range(horizon):
        if system.is_post_update or k:
            h[:, k] = (C @ state).real
            state = A @ state
    h[:, 0] += D
    if system.inputs == system.outputs == 1 and isinstance(system, DenseSystem):
        return h[..., 0, 0]
    return np.moveaxis(h[0], 0, -1)


def convolve(h, u):
    """Return y (..., p, T), the causal convolution of h (p, T) or (p, m, T) and u (..., m, T)."""
    if h.ndim == 3:
        out = np.zeros((*u.shape[:-2], len(h), u.shape[-1]), dtype=u.dtype)
        for k in range(u.shape[-1]):
            out[..., k:] += h[..., k] @ u[..., : u.shape[-1] - k]
        return out
    out = np.zeros_like(u)
    for k in range(u.shape[-1]):
        out[..., k:] += h[:, k, None] * u[..., : u.shape[-1] - k]
    return out


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def evaluate(graph, u, *, reduced=False):
    """Return every node's value for inputs u (batch, ...), in extended precision."""
    values = {}
    for node in graph:
        x = [values[name] for name in node.inputs]
        p = {key: (v.astype(WIDE) if isinstance(v, np.ndarray) and v.dtype.kind == "f" else v)
             for key, v in node.params.items()}  # fmt: skip
        values[node.name] = _apply(node, p, x, u, reduced)
    return values


def _axis(node_axis, x):
    rank = x.ndim - 1
    return tuple(1 + int(a) % rank for a in np.atleast_1d(node_axis))


def _apply(node, p, x, u, reduced):
    op = node.op
    if op == "input":
        return u if node.param("tokens", False) else u.astype(WIDE)
    if op == "constant":
        return np.asarray(p["value"], dtype=WIDE)[None]
    if op in ("add", "sub", "multiply"):
        a, b = x
        return {"add": np.add, "sub": np.subtract, "multiply": np.multiply}[op](a, b)
    if op == "concat":
        return np.concatenate(x, axis=_axis(p["axis"], x[0])[0])
    x = x[0]
    if op == "linear":
        return x @ p["weight"].T + (0 if p.get("bias") is None else p["bias"])
    if op == "conv1d":
        W = p["weight"].reshape(p["weight"].shape[:2])
        y = np.moveaxis(np.moveaxis(x, 1, -1) @ W.T, -1, 1)
        bias = p.get("bias")
        return y if bias is None else y + bias.reshape(-1, *[1] * (y.ndim - 2))
    if op == "embedding":
        return p["weight"][x]
    if op == "ssm":
        system = node.params["reduced"] if reduced else node.params["system"]
        return convolve(impulse_response(system, x.shape[-1]), x)
    if op == "identity":
        return x
    if op == "gelu":
        if node.param("approximate", "none") == "tanh":
            c = np.sqrt(WIDE(2) / WIDE(np.pi))
            return x / 2 * (1 + np.tanh(c * (x + WIDE("0.044715") * x**3)))
        return x * (1 + erf((x / np.sqrt(WIDE(2))).astype(np.float64))) / 2
    if op in ("relu", "tanh", "sigmoid", "silu"):
        return {
            "relu": lambda v: np.maximum(v, 0),
            "tanh": np.tanh,
            "sigmoid": sigmoid,
            "silu": lambda v: v * sigmoid(v),
        }[op](x)
    if op == "glu":
        a, b = np.split(x, 2, axis=_axis(p.get("axis", -1), x)[0])
        return a * sigmoid(b)
    if op == "layernorm":
        dims = int(p.get("dims") or 1)
        axes = tuple(range(x.ndim - dims, x.ndim))
        mean = x.mean(axis=axes, keepdims=True)
        var = np.mean((x - mean) ** 2, axis=axes, keepdims=True)
        y = (x - mean) / np.sqrt(var + WIDE(p.get("eps") or 1e-5))
        y = y if p.get("weight") is None else y * p["weight"]
        return y if p.get("bias") is None else y + p["bias"]
    if op == "batchnorm":
        axis = _axis(p.get("axis") or 0, x)[0]
        shape = [1] * x.ndim
        shape[axis] = -1
        r = {k: p[k].reshape(shape) for k in ("mean", "var", "weight", "bias")
             if p.get(k) is not None}  # fmt: skip
        y = (x - r["mean"]) / np.sqrt(r["var"] + WIDE(p.get("eps") or 1e-5))
        return y * r.get("weight", 1) + r.get("bias", 0)
    if op == "affine":
        return x * np.asarray(p.get("scale", 1.0)) + np.asarray(p.get("shift", 0.0))
    if op in ("mean", "max"):
        how = np.mean if op == "mean" else np.max
        return how(x, axis=_axis(p["axis"], x), keepdims=bool(p.get("keepdim")))
    if op in ("select", "last"):
        axis = _axis(p["axis"], x)[0]
        return np.take(x, -1 if p.get("index") is None else p["index"], axis=axis)
    if op == "slice":
        piece = slice(p.get("start"), p.get("stop"), p.get("step"))
        axis = _axis(p["axis"], x)[0]
        return x[tuple(piece if a == axis else slice(None) for a in range(x.ndim))]
    if op == "reverse":
        return np.flip(x, _axis(p["axis"], x))
    if op == "delay":
        late, steps = np.zeros_like(x), int(p.get("steps") or 1)
        late[..., steps:] = x[..., : max(x.shape[-1] - steps, 0)]
        return late
    if op == "permute":
        return np.transpose(x, (0, *(1 + int(a) % (x.ndim - 1) for a in p["order"])))
    if op == "unsqueeze":
        return np.expand_dims(x, 1 + int(p["axis"]) % x.ndim)
    if op == "squeeze":
        return np.squeeze(x, _axis(p["axis"], x)[0])
    if op == "reshape":
        return x.reshape(x.shape[0], *p["full_shape"])
    raise NotImplementedError(op)


def random_layer(rng, channels, modes, *, kept=None, perturb=0.3, direct=True):
    """Return a random layer and a reduced one that keeps some poles and moves some."""
    radius = rng.uniform(0.3, 0.999, (channels, modes))
    angle = rng.uniform(-np.pi, np.pi, (channels, modes))
    poles = radius * np.exp(1j * angle)
    B = rng.standard_normal((channels, modes, 2)) @ [1, 1j]
    C = rng.standard_normal((channels, modes, 2)) @ [1, 1j] / modes
    D = rng.standard_normal(channels) if direct else np.zeros(channels)
    original = layer(poles, B, C, D)
    kept = modes // 2 if kept is None else kept
    C_new = C * (1 + perturb * rng.standard_normal(C.shape))
    D_new = D + perturb * rng.standard_normal(channels) if direct else D
    other = poles.copy()
    if kept:
        other[:, 0] *= 1 - 0.01 * perturb  # one pole moves, the others stay
    return original, layer(other[:, :kept], B[:, :kept], C_new[:, :kept], D_new)


def complex_numbers(rng, *shape):
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def random_shared(rng, inputs, outputs, modes, *, kept=None, perturb=0.3, radii=None, late=False):
    """Return a random layer with one state for all channels, and a reduced one.

    The reduced one keeps some poles, moves the first and changes every read-out.
    """
    radius = rng.uniform(0.3, 0.999, modes) if radii is None else rng.choice(radii, modes)
    poles = radius * np.exp(1j * rng.uniform(-np.pi, np.pi, modes))
    B = complex_numbers(rng, modes, inputs)
    C = complex_numbers(rng, outputs, modes) / modes
    D = rng.standard_normal((outputs, inputs))
    kept = modes // 2 if kept is None else kept
    recurrence = "standard" if late else "post-update"

    def shared(poles, B, C, D):
        return DiagonalSystem(
            poles[None], B[None], C[None], D[None], recurrence=recurrence, real_output=True
        )

    C_new = C * (1 + perturb * rng.standard_normal(C.shape))
    D_new = D + perturb * rng.standard_normal(D.shape)
    other = poles.copy()
    if kept:
        other[0] *= 1 - 0.01 * perturb
    return shared(poles, B, C, D), shared(other[:kept], B[:kept], C_new[:, :kept], D_new)


def random_dense(rng, channels, order, *, kept=None, perturb=0.3, late=False):
    """Return random dense channels and reduced ones: a leading block with other read-outs."""
    A = rng.standard_normal((channels, order, order))
    A /= rng.uniform(1.001, 2.0) * np.abs(np.linalg.eigvals(A)).max(axis=-1)[:, None, None]
    B = rng.standard_normal((channels, order, 1))
    C = rng.standard_normal((channels, 1, order))
    D = rng.standard_normal((channels, 1, 1))
    kept = order if kept is None else kept
    recurrence = "standard" if late else "post-update"
    C_new = C * (1 + perturb * rng.standard_normal(C.shape))
    full = DenseSystem(A, B, C, D, recurrence=recurrence)
    block = A[:, :kept, :kept]
    radius = np.abs(np.linalg.eigvals(block)).max(axis=-1)[:, None, None]
    small = DenseSystem(
        block / np.maximum(1.05 * radius, 1.0),
        B[:, :kept],
        C_new[..., :kept],
        D,
        recurrence=recurrence,
    )
    return full, small


def layer(poles, B, C, D):
    return DiagonalSystem(
        poles, B[..., None], C[:, None, :], np.asarray(D)[:, None, None],
        recurrence="post-update", real_output=True,
    )  # fmt: skip


def pair(graph, reductions):
    """Return (original, reduced) graphs from one whose ssm nodes hold originals."""
    return graph, graph.with_systems(reductions)


def sequence_input(features, time_first=True):
    axes = ("time", "feature") if time_first else ("feature", "time")
    shape = (1, features) if time_first else (features, 1)
    return Node("u", "input", (), {"shape": shape}, axes)


def classifier(rng, *, features=2, channels=6, modes=4, layers=2, gated=False, norm="batch",
               outputs=3, gain=1.0, pool="mean", activation="gelu", post_norm=False,
               perturb=0.3, kept=None):  # fmt: skip
    """Return (original, reduced) graphs of a residual state-space classifier."""
    ft = ("feature", "time")
    draw = lambda *shape: rng.standard_normal(shape)  # noqa: E731
    nodes = [
        sequence_input(features),
        Node("encoder", "linear", ("u",),
             {"weight": draw(channels, features).astype(np.float32), "bias": draw(channels)},
             ("time", "feature")),
        Node("turn", "permute", ("encoder",), {"order": (1, 0)}, ft),
    ]  # fmt: skip
    at, reductions = "turn", {}

    def add(name, op, inputs, params=None, axes=ft):
        nodes.append(Node(name, op, inputs, params or {}, axes))
        return name

    def normalise(name, source):
        weight, bias = draw(channels), draw(channels)
        if norm == "batch":
            return add(name, "batchnorm", (source,),
                       {"weight": weight, "bias": bias, "mean": draw(channels),
                        "var": rng.uniform(0.1, 2.0, channels)})  # fmt: skip
        if norm == "layer":
            a = add(f"{name}.a", "permute", (source,), {"order": (1, 0)}, ("time", "feature"))
            b = add(f"{name}.b", "layernorm", (a,), {"weight": weight, "bias": bias},
                    ("time", "feature"))  # fmt: skip
            return add(name, "permute", (b,), {"order": (1, 0)})
        return source

    for i in range(layers):
        z = at if post_norm else normalise(f"norm{i}", at)
        system, reduced = random_layer(rng, channels, modes, perturb=perturb, kept=kept)
        z = add(f"layer{i}", "ssm", (z,), {"system": system})
        reductions[z] = reduced
        z = add(f"act{i}", activation, (z,))
        z = add(f"drop{i}", "identity", (z,))
        width = 2 * channels if gated else channels
        W = gain * draw(width, channels, 1).astype(np.float32) / np.sqrt(channels)
        z = add(f"mix{i}", "conv1d", (z,), {"weight": W, "bias": draw(width)})
        if gated:
            z = add(f"glu{i}", "glu", (z,), {"axis": 0})
        at = add(f"sum{i}", "add", (at, z))
        if post_norm:
            at = normalise(f"norm{i}", at)
    nodes.append(Node("pool", "last" if pool == "last" else pool, (at,), {"axis": 1}, ("feature",)))
    nodes.append(Node("decoder", "linear", ("pool",),
                      {"weight": draw(outputs, channels), "bias": draw(outputs)}))  # fmt: skip
    return pair(NetworkGraph(tuple(nodes), "decoder"), reductions)


def merged(original, reduced):
    """Return one graph whose ssm nodes hold both systems, as the bound sees it."""
    return NetworkGraph(
        tuple(
            node.with_params(reduced=reduced[node.name].params["system"])
            if node.op == "ssm"
            else node
            for node in original
        ),
        original.output,
    )


# --- facts about signals, and the search for violations --------------------------------------


def _above(array):
    """Return float64 numbers that are not below the extended-precision ones."""
    return np.nextafter(np.asarray(array, dtype=np.float64), np.inf)


def signal_facts(x, axes):
    """Return the true facts of signals x (batch, ...): per-entry sup, l2 over time and overall."""
    size = np.abs(x)
    if "time" in axes:
        time = 1 + axes.index("time")
        sup = size.max(axis=time, keepdims=True)
        entry = np.sqrt((size**2).sum(axis=time, keepdims=True))
    else:
        sup = entry = size
    total = np.sqrt((size**2).reshape(len(x), -1).sum(axis=1))
    return sup, entry, total


def value_of(reduced, original, axes):
    """Return the sharpest Value that holds for every pair of signals of a batch."""
    time = 1 + axes.index("time") if "time" in axes else None
    lo = reduced.min(axis=0) if time is None else reduced.min(axis=(0, time), keepdims=True)[0]
    hi = reduced.max(axis=0) if time is None else reduced.max(axis=(0, time), keepdims=True)[0]
    _, entry, total = signal_facts(reduced, axes)
    error_sup, error_entry, error_total = signal_facts(original - reduced, axes)
    scale = _above(error_entry.max(axis=0) + 0.1)
    ratio = np.sqrt(((error_entry / scale) ** 2).reshape(len(reduced), -1).sum(axis=1))
    return Value(
        -_above(-lo), _above(hi), axes,
        float(reduced.shape[time]) if time is not None else 1.0,
        l2=float(_above(total.max())),
        l2_features=_above(entry.max(axis=0)),
        error_sup=_above(error_sup.max(axis=0)),
        error_l2=float(_above(error_total.max())),
        error_features=_above(error_entry.max(axis=0)),
        error_ball=ErrorBall(scale, float(_above(ratio.max()))),
    )  # fmt: skip


def assert_facts(value, reduced, original, noise=0.0):
    """Check every fact of a value against signals: true lower bounds, and no slack at all.

    ``noise`` bounds the rounding of the signals themselves, extended precision against exact; what
    is left of a signal after taking it off is an independent lower bound.
    """
    axes = value.axes
    noise = WIDE(noise)

    def surely(array):
        return np.maximum(array - noise * np.sqrt(WIDE(array.size)), 0)

    _, entry, total = (surely(fact) for fact in signal_facts(reduced, axes))
    gaps = signal_facts(original - reduced, axes)
    error_sup, error_entry, error_total = (surely(fact) for fact in gaps)
    assert (reduced + noise >= value.lo).all()
    assert (reduced - noise <= value.hi).all()
    assert (original + noise >= value.original_lo).all()
    assert (original - noise <= value.original_hi).all()
    assert (entry <= value.l2_features).all()
    assert (total <= value.l2).all()
    assert (error_sup <= value.error_sup).all()
    assert (error_entry <= value.error_features).all()
    assert (error_total <= value.error_l2).all()
    assert in_ball(value.error_ball, error_entry).all()


def rounding_of(node, signals, outputs):
    """Bound the rounding of one evaluation in extended precision, from the sizes of its terms."""
    size = max(float(np.max(np.abs(x), initial=0.0)) for x in (*signals, *outputs))
    sizes = {key: np.abs(v) for key, v in node.params.items() if isinstance(v, np.ndarray)}
    count = 1
    if node.op in ("linear", "conv1d"):
        count = sizes["weight"].shape[1]
        size *= 1.0 + float(sizes["weight"].sum(axis=1).max())
    elif node.op == "batchnorm":
        gain = sizes.get("weight", 1.0) / np.sqrt(sizes["var"] + (node.param("eps") or 1e-5))
        size = float(np.max((size + sizes["mean"]) * gain, initial=size)) + size
    elif node.op == "affine":
        size *= 1.0 + float(np.max(np.abs(node.param("scale", 1.0))))
    elif node.op == "multiply":
        size = max(size, 1.0) ** 2
    elif node.op == "layernorm":
        size = (1.0 + size) * (1.0 + float(np.max(sizes.get("weight", 1.0)))) / np.sqrt(
            node.param("eps", 1e-5))  # fmt: skip
        count = signals[0][0].size
    return (count + 16) * 2.0**-63 * size


def in_ball(ball, entry):
    """Tell for each sample whether its per-feature norms lie in a weighted ball."""
    inside = np.where(entry > 0, entry / np.where(ball.scale > 0, ball.scale, 1e-300), 0)
    inside = np.sqrt((inside**2).reshape(len(entry), -1).sum(axis=1))
    return (inside <= ball.radius) | np.isinf(ball.radius)


def random_pair(rng, shape, axes, count=12, *, spread=1.0, gap=0.3):
    """Return (reduced, original) signals (count, *shape): random, constant and corner-like."""
    center = rng.standard_normal((1, *shape)) * rng.choice([0.0, 1.0, 5.0])
    time = 1 + axes.index("time") if "time" in axes else None
    reduced = rng.uniform(-1, 1, (count, *shape))
    error = rng.uniform(-1, 1, (count, *shape))
    for signal in (reduced, error):
        signal[: count // 3] = np.sign(signal[: count // 3])
        if time is not None:
            signal[::4] = signal[::4].mean(axis=time, keepdims=True)
    size = gap * 10.0 ** rng.uniform(-6, 0.5)
    feature = rng.uniform(0, 1, shape) if time is None else rng.uniform(0, 1, shape).max(
        axis=time - 1, keepdims=True)  # fmt: skip
    reduced = (center + spread * feature * reduced).astype(WIDE)
    return reduced, reduced + (size * feature * error).astype(WIDE)


def run_rule(node, *pairs, axes):
    """Return the rule's value and the node's outputs for pairs of (reduced, original) signals."""
    values = [value_of(*pair_, tags) for pair_, tags in zip(pairs, axes, strict=True)]
    outputs = [
        evaluate_node(node, [pair_[side] for pair_ in pairs], reduced=side == 0) for side in (0, 1)
    ]
    signals = [signal for pair_ in pairs for signal in pair_]
    return apply_rule(node, *values), *outputs, rounding_of(node, signals, outputs)


def evaluate_node(node, signals, *, reduced=False):
    """Return one node's output for given inputs."""
    params = {key: (v.astype(WIDE) if isinstance(v, np.ndarray) and v.dtype.kind == "f" else v)
              for key, v in node.params.items()}  # fmt: skip
    return _apply(node, params, list(signals), None, reduced)


def climb(objective, shape, rng, *, rounds=25, width=24):
    """Return the largest objective found by flipping entries of z in [-1, 1]^shape.

    ``objective`` maps (width, *shape) to (width,); gradient-free, starts at a random corner.
    """
    start = np.sign(rng.uniform(-1, 1, (width, *shape)))
    scores = objective(start)
    best, score = start[np.argmax(scores)], scores.max()
    for step in range(rounds):
        proposal = np.repeat(best[None], width, axis=0)
        some = rng.random(proposal.shape) < rng.choice([0.02, 0.1, 0.4])
        fresh = rng.uniform(-1, 1, proposal.shape)
        proposal = np.where(some, np.sign(fresh) if step % 3 else fresh, proposal)
        scores = objective(proposal)
        if scores.max() > score:
            best, score = proposal[np.argmax(scores)], scores.max()
    return score
