"""A bound on a whole network: derive it, watch it become vacuous, then build one where it is not.

A lecture in four claims on blocks x <- x + W gelu(S x); a sixth of every layer's modes is removed.

    python examples/watch_a_bound.py           # prints the table
    python examples/watch_a_bound.py --save    # also leaves watch_a_bound.png next to this file
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from ssmred.certify import InputSet, NetworkGraph, Node, network_bound
from ssmred.certify.evaluate import evaluate
from ssmred.norms import h2_error, l2_gain, l2_gain_error
from ssmred.reductors import SubsetReductor
from ssmred.systems import DiagonalSystem

H, T, SLOPE = 4, 32, 1.12905  # channels, steps, largest slope of the GELU
BOX, ONES = InputSet.box(-1, 1), np.ones((H, 6, 1))


def network(kind, depth):
    """Return a network, the reduced one, and (S, its reduction, c = 1.129 |W|) of every block."""
    rng, axes = np.random.default_rng(0), ("feature", "time")
    nodes, x, blocks = [Node("u", "input", (), {"shape": (H, 1)}, axes)], "u", []
    for k in range(depth):
        poles = rng.uniform(0.3, 0.9, (H, 6)) * np.exp(1j * rng.uniform(0, np.pi, (H, 6)))
        C = rng.normal(size=(H, 1, 6)) + 1j * rng.normal(size=(H, 1, 6))
        layer = DiagonalSystem(poles, ONES, C, recurrence="post-update", real_output=True)
        W = rng.normal(size=(2 * H if kind == "gated" else H, H)) / np.sqrt(H)
        if kind == "by construction":  # the layer, W and the GELU's slope divided by their gains
            layer = layer.replace(C=C / np.reshape(l2_gain(layer, horizon=T), (H, 1, 1)))
            W = W / np.linalg.norm(W, 2) / SLOPE
        nodes += [
            Node(f"S{k}", "ssm", (x,), {"system": layer}, axes),
            Node(f"gelu{k}", "gelu", (f"S{k}",), {}, axes),
            Node(f"W{k}", "conv1d", (f"gelu{k}",), {"weight": W}, axes),
            *([Node(f"glu{k}", "glu", (f"W{k}",), {"axis": 0}, axes)] if kind == "gated" else []),
        ]
        nodes.append(Node(f"x{k}", "add", (x, nodes[-1].name), {}, axes))
        x, small = nodes[-1].name, SubsetReductor(horizon=T).reduce(layer, order=5).system
        blocks.append((layer, small, SLOPE * np.linalg.norm(W, 2)))
    full = NetworkGraph([*nodes, Node("y", "mean", (x,), {"axis": 1})], output="y")
    return full, full.with_systems({f"S{k}": b[1] for k, b in enumerate(blocks)}), blocks


# --- Claim 1: one layer. Its error is a convolution; the worst input is its response, reversed ----
#     sup_k |(S - S^) u|_k <= ||S - S^||_h2 ||u||_2
full, reduced, blocks = network("plain", 4)
layer, small, _ = blocks[0]
difference = (layer.impulse_response(T) - small.impulse_response(T))[0, :, 0, 0]
worst = difference[::-1] / np.linalg.norm(difference)
found, bound = abs(worst @ difference[::-1]), np.ravel(h2_error(layer, small, horizon=T))[0]
print(f"1. a channel moves its output by {found:.8e}, and by no more than {bound:.8e}")
assert np.isclose(found, bound, rtol=1e-9)  # attained

# --- Claim 2: blocks. Errors are born in a layer and multiplied by every gain behind it -----------
#     e_l <= e_{l-1} (1 + c_l M(S_l)) + c_l M(S_l - S_l^) |v_{l-1}|,  c_l = 1.129 |W_l|
#     |v_l| <= |v_{l-1}| (1 + c_l M(S_l^)),  |v_0| <= sqrt(H T),  M = max over frequencies
error, size = 0.0, np.sqrt(H * T)
for layer, small, c in blocks:
    M, M_small = (max(l2_gain(s, horizon=T)) for s in (layer, small))
    error = error * (1 + c * M) + c * size * max(l2_gain_error(layer, small, horizon=T))
    size *= 1 + c * M_small
by_hand, issued = error / np.sqrt(T), network_bound(full, reduced, BOX, T).bound  # the mean
print(f"2. by hand {by_hand:.4g}; issued, which takes the best of several routes, {issued:.4g}")
assert issued <= by_hand

# --- Claims 3 and 4: depth and gates make it vacuous; a network that is bounded stays below 1 -----
figure, (size_plot, ratio_plot) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
depths = range(1, 7)
inputs = BOX.sample(np.random.default_rng(1), 200, T, H).transpose(0, 2, 1)
print(f"3. {'network':16s} depth  bound / scale  error found  bound / error")
for kind in ("plain", "gated", "by construction"):
    rows = []
    for depth in depths:
        full, reduced, _ = network(kind, depth)
        wanted, got = (np.array([evaluate(net, u) for u in inputs]) for net in (full, reduced))
        scale = np.sqrt((wanted**2).sum(axis=1).mean())
        worst = np.linalg.norm(wanted - got, axis=1).max() / scale
        bound = network_bound(full, reduced, BOX, T).bound / scale
        rows.append((bound, worst))
        text = f"   {kind:16s} {depth:5d} {bound:14.3g} {worst:12.3g} {bound / worst:14.3g}"
        print(text, "vacuous" if bound > 1 else "")
        assert worst <= bound  # no input breaks it
    bounds, errors = np.array(rows).T
    (line,) = size_plot.semilogy(depths, bounds, "o-", label=f"{kind}: bound")
    size_plot.semilogy(depths, errors, ":", color=line.get_color(), label=f"{kind}: found")
    ratio_plot.semilogy(depths, bounds / errors, "o-", label=kind)
    assert (bounds[-1] > 1) == (kind != "by construction")
size_plot.axhline(1, color="black", lw=1)
size_plot.set(title="3, 4. Above the black line: vacuous", xlabel="blocks", ylabel="/ scale")
ratio_plot.set(title="How loose: bound over error found", xlabel="blocks")
size_plot.legend(fontsize=8)
if "--save" in sys.argv:
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=150)
