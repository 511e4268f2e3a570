"""What it costs to take a whole operator out, and why a gain should stay in its place.

A lecture in four claims on a trained network: one operator first, then all 256 of them.

    python examples/remove_operators.py           # prints the checks
    python examples/remove_operators.py --save    # also leaves remove_operators.png next to it
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from ssmred import prune, zoo
from ssmred.norms import h2_norm
from ssmred.prune.allocation import exponential
from ssmred.prune.replacement import Replacement
from ssmred.prune.selection import costs_of

model, data = zoo.load("fashion-mnist-s4d")
seen = data.calibration.inputs[:128]
images, labels = data.test.inputs[:500], data.test.labels[:500]
network = prune.operators_of(model.eval())
size, total = len(network.layers), network.operators
figure, (gain_plot, layer_plot, rate_plot) = plt.subplots(
    1, 3, figsize=(13, 4), layout="constrained"
)

# --- Claim 1: h2 errors of replacing one operator by a gain d are a parabola, least at d = h_0 ----
#     ||h - d delta||^2 = (h_0 - d)^2 + sum_{k>0} h_k^2
layer, channel = "layers.2", 5
h = network.banks[layer].kernel(data.test.inputs.shape[1])[channel].detach().numpy()
gains = np.linspace(h[0] - 2, h[0] + 2, 81)
costs = (h[0] - gains) ** 2 + np.sum(h[1:] ** 2)
bank = network.banks[layer].to_system()
tails = bank.replace(D=bank.D - bank.impulse_response(1)[..., 0])
left = np.asarray(h2_norm(tails, horizon=len(h)))
assert np.isclose(costs.min(), left[channel] ** 2)
gain_plot.plot(gains, costs, label=f"{layer}, channel {channel}")
for name, d in (("silence", 0.0), ("bypass (S4oP)", 1.0), ("static gain", h[0])):
    cost = (h[0] - d) ** 2 + np.sum(h[1:] ** 2)
    gain_plot.plot(d, cost, "o", label=name)
    print(f"1. {name}: squared h2 error {cost:.4f}")
gain_plot.set(title="1. One operator, replaced by a gain", xlabel="gain", ylabel="squared error")

# --- Claim 2: on the data the best gain is another one, for the inputs are not white --------------
#     d* = sum u y / sum u^2
options = {"horizon": len(h), "seed": 0}
white = costs_of(network, "h2", Replacement("static_gain"), seen, **options)
fitted = costs_of(network, "calibrated", Replacement("static_gain"), seen, **options)
print(f"2. gain for white inputs {h[0]:.3f}, for images {fitted.gains[layer][channel]:.3f}")
assert np.isclose(white.gains[layer][channel], h[0], atol=1e-5)

# --- Claim 3: which layers lose most is the data's to say, no rule's ------------------------------
queue = sorted((c, k, e) for k, row in fitted.scores.items() for e, c in enumerate(row))
half = queue[: total // 2]
by_cost = [sum(k == name for _, k, _ in half) for name in network.layers]
by_rule = exponential(0.5, (total // size,) * size)  # S4oP: 2^i operators of layer i
for shift, counts, label in ((-0.2, by_cost, "by cost on the data"), (0.2, by_rule, "2^i rule")):
    layer_plot.bar(np.arange(size) + shift, counts, width=0.38, label=label)
layer_plot.set(title="3. Half of all operators", xlabel="layer", ylabel="operators removed")
pairs = zip(network.layers, by_rule, strict=True)
ratio = sum(np.sort(fitted.scores[k])[:n].sum() for k, n in pairs) / sum(c for c, _, _ in half)
print(f"3. per layer {by_cost}; by the rule {list(by_rule)}, at {ratio:.1f} times the cost")
assert ratio > 1


# --- Claim 4: choice and gain are worth more than anything that is trained later ------------------
def accuracy(removed):
    gone = {}
    for name, number, gain in removed:
        gone.setdefault(name, {})[number] = gain
    with torch.no_grad():
        answers = network.pruned(gone).model.eval()(images).argmax(-1)
    return 100.0 * float((answers == labels).double().mean())


rng = np.random.default_rng(0)
shuffled = [queue[i] for i in rng.permutation(total)]
rates, curves = (0.0, 0.1, 0.3, 0.5), {}
for name, order, gain in (
    ("random, bypass", shuffled, lambda k, e: 1.0),
    ("by cost, bypass", queue, lambda k, e: 1.0),
    ("by cost, static gain", queue, lambda k, e: fitted.gains[k][e]),
):
    curves[name] = [
        accuracy([(k, e, gain(k, e)) for _, k, e in order[: round(r * total)]]) for r in rates
    ]
    rate_plot.plot([100 * r for r in rates], curves[name], "o-", label=name)
    print(f"4. {name}: right answers {', '.join(f'{a:.1f}' for a in curves[name])} %")
rate_plot.set(title="4. No training", xlabel="operators removed (%)", ylabel="right answers (%)")
assert curves["by cost, static gain"][2] > curves["random, bypass"][2] + 10

for axes in (gain_plot, layer_plot, rate_plot):
    axes.legend()
if "--save" in sys.argv:
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=150)
