"""A layer whose channels share one state: what a mode costs when all outputs read it.

A lecture in four claims on the second layer of a trained LRU network.

    python examples/shared_state.py           # prints the checks
    python examples/shared_state.py --save    # also leaves shared_state.png next to this file
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from ssmred import zoo
from ssmred.networks import import_network
from ssmred.norms import h2_error, h2_norm
from ssmred.reductors import BalancedReductor, SubsetReductor, aire_scores, score_masks, truncation

figure, (modes_plot, error_plot, gain_plot) = plt.subplots(
    1, 3, figsize=(13, 4), layout="constrained"
)

# --- Claim 1: one system, 64 inputs, 64 outputs, 64 modes -----------------------------------------
#     x_k = L x_{k-1} + B u_k,   y_k = Re(C x_k) + D u_k,   L diagonal
network, _ = zoo.load("fashion-mnist-lru")
layer = import_network(network).systems["layers.1"]
print(f"1. {layer}")
assert layer.poles.shape == (1, 64)
assert layer.states == 2 * 64  # every complex mode is two real numbers
T = 196  # the network sees so many steps
norm = float(np.squeeze(h2_norm(layer, horizon=T)))

# --- Claim 2: a score of single modes knows nothing of the others ---------------------------------
#     e_i = ||c_i||^2 ||b_i||^2 / (1 - |l_i|^2): the energy of mode i alone
scores = aire_scores(layer)[0]
angles, radii = np.angle(layer.poles[0]), np.abs(layer.poles[0])
points = modes_plot.scatter(angles, radii, c=np.log10(scores), cmap="viridis")
figure.colorbar(points, ax=modes_plot, label="log10 of the AIRE score")
modes_plot.set(title="2. Poles and scores", xlabel="angle, rad", ylabel="modulus")

# --- Claim 3: what the others can make up for is not lost -----------------------------------------
#     min over C', D' of ||H - (L_S, B_S, C', D')||_2: a least-squares problem
reductor = SubsetReductor(horizon=T)
path = reductor.path(layer)  # modes go one by one, the read-out is fitted at every step
kept = np.array([56, 48, 40, 32, 24, 16])
curves: dict[str, list[float]] = {"as scored": [], "removed and fitted": [], "balanced": []}
for count in kept:
    (mask,) = score_masks([layer], states=2 * int(count), score="aire")
    scored = truncation(layer, mask, horizon=T)
    fitted = path.reduction([count])
    moved = BalancedReductor(horizon=T).reduce(layer, order=int(count))
    for curve, reduction in zip(curves.values(), (scored, fitted, moved), strict=True):
        error = h2_error(layer, reduction.system, horizon=T)
        curve.append(float(np.squeeze(error)) / norm)
for name, errors in curves.items():
    error_plot.semilogy(100 * kept / 64, errors, "o-", label=name)
    print(f"3. {name:18s} half the modes: relative h2 error {errors[3]:.4f}")
assert all(f < s for f, s in zip(curves["removed and fitted"], curves["as scored"], strict=True))
error_plot.set(title="3. h2 error", xlabel="modes kept, %")
error_plot.legend()

# --- Claim 4: the worst direction at the worst frequency ------------------------------------------
#     the gain of an error with many inputs is its largest singular value over frequency
omega = np.linspace(0, np.pi, 300)
full = layer.frequency_response(omega)[0]
for name, system in (
    ("as scored", truncation(layer, score_masks([layer], states=64, score="aire")[0]).system),
    ("removed and fitted", path.reduction([32]).system),
):
    gap = full - system.frequency_response(omega)[0]
    gain = np.linalg.norm(gap, 2, axis=(-2, -1))
    gain_plot.plot(omega, gain, label=name)
    assert np.all(np.abs(gap).max(axis=(-2, -1)) <= gain)  # no entry says it all
gain_plot.plot(omega, np.linalg.norm(full, 2, axis=(-2, -1)), "black", label="the layer")
gain_plot.set(title="4. Gain of the error, half the modes", xlabel="frequency, rad per step")
gain_plot.legend()

if "--save" in sys.argv:
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=150)
