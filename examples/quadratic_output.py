"""Why a quadratic output changes balanced truncation: energy that no linear output shows.

A lecture in four claims on a chain of masses whose sensor reports a position, and whose power
meter reports an energy.

    python examples/quadratic_output.py           # prints the checks
    python examples/quadratic_output.py --save    # also leaves quadratic_output.png next to it
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from ssmred.gramians import controllability_gramian, observability_gramian
from ssmred.norms import h2_error, h2_norm, peak_bound
from ssmred.reductors import QuadraticBalancedReductor, with_best_read_out
from ssmred.systems import QuadraticOutputSystem

figure, (values_plot, error_plot, unit_plot) = plt.subplots(
    1, 3, figsize=(13, 4), layout="constrained"
)

# --- Claim 1: ten damped modes; y_1 sees the slow ones, y_2 is the energy of the fast ones --------
#     x_k = L x_{k-1} + B u_k,   y_k = (Re(c x_k), sum_i |v_i x_i|^2)
n = 10
poles = np.exp(-np.linspace(0.02, 0.2, n) + 1j * np.linspace(0.2, 2.8, n))
C = np.stack([0.4 ** np.arange(n), np.zeros(n)])  # the energy meter has no linear part
V = np.zeros((2, n, n))
V[1] = np.diag(0.4 ** np.arange(n)[::-1])  # M_2 = V V^*: weights grow towards the fast modes
options = {"recurrence": "post-update", "real_output": True}
system = QuadraticOutputSystem(poles, np.ones((n, 1)), C, (V,), **options)
u = np.random.default_rng(0).standard_normal((200, 1)) / np.sqrt(200)
y = system.simulate(u)
print(f"1. {system}")
assert np.all(y[:, 1] >= 0)  # an energy
assert np.abs(y).max() <= peak_bound(system, energy=float(np.linalg.norm(u)))

# --- Claim 2: one norm for both parts, from two Gramians ------------------------------------------
#     ||S||^2 = tr(C P C^*) + tr(P M P M) = tr(B^* Q B),   Q = Q_1 + Q_2 sees M P M as an output
real = system.realified()
P, Q = controllability_gramian(real), observability_gramian(real)
(M,) = real.matrices()[1:]
parts = np.trace(real.C @ P @ real.C.T), np.trace(P @ M @ P @ M)
norm = h2_norm(system)
print(f"2. ||S||^2 = {norm**2:.6f}: position {parts[0]:.6f}, energy {parts[1]:.6f}")
assert np.isclose(sum(parts), norm**2)
assert np.isclose(np.trace(real.B.T @ Q @ real.B), norm**2)

# --- Claim 3: balanced without M, truncation throws away what carries the energy ------------------
blind = QuadraticOutputSystem(poles, system.B, C, (0 * V,), **options)
paths = {"C and M": QuadraticBalancedReductor().path(system)}
paths["C alone"] = QuadraticBalancedReductor().path(blind)
orders = np.arange(2, 20, 2)
errors: dict[str, list[float]] = {name: [] for name in paths}
for order in orders:
    for name, path in paths.items():
        states = path.reduction(order).system.linear
        best = with_best_read_out(system, states)  # the same read-out for both: only poles differ
        errors[name].append(h2_error(system, best) / norm)
for name, path in paths.items():
    values = path.reduction(2).values
    assert values is not None
    values_plot.semilogy(values / values[0], "o", label=name)
    error_plot.semilogy(orders, errors[name], "o-", label=name)
    print(f"3. balanced with {name}: relative error at order 10 {errors[name][4]:.4f}")
assert errors["C and M"][4] < 0.5 * errors["C alone"][4]
values_plot.set(title="3. Values that decide", xlabel="state", xticks=range(0, 20, 5))
error_plot.set(title="3. h2 error, best read-out", xlabel="real states kept")

# --- Claim 4: the values have a unit --------------------------------------------------------------
#     with a u in place of u, Q_2 counts a^2 times as much as Q_1
for unit, colour in ((0.1, "tab:blue"), (1.0, "tab:green"), (10.0, "tab:red")):
    scaled = system.replace(B=unit * system.B)
    states = QuadraticBalancedReductor().reduce(scaled, order=6).system.linear
    kept = np.abs(np.angle(states.poles))
    unit_plot.plot(kept, np.full(kept.shape, unit), "o", color=colour)
    print(
        f"4. inputs times {unit:4}: mean frequency of the kept poles {kept.mean():.2f} rad per step"
    )
unit_plot.set(title="4. Kept poles, order 6", xlabel="frequency, rad per step", yscale="log")
unit_plot.set(ylabel="unit of the input")

for axes in (values_plot, error_plot):
    axes.legend()
if "--save" in sys.argv:
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=150)
