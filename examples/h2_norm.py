"""What is an H2 norm?

A lecture in four claims; each is an equation, a few lines of code, a picture and a check.

    python examples/h2_norm.py           # prints the checks
    python examples/h2_norm.py --save    # also leaves h2_norm.png next to this file
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from ssmred.gramians import controllability_gramian
from ssmred.norms import h2_error, h2_norm
from ssmred.systems import DiagonalSystem

figure, ((energy_plot, spectrum_plot), (peak_plot, removal_plot)) = plt.subplots(
    2, 2, figsize=(10, 7), layout="constrained"
)

# --- Claim 1: the h2 norm is the energy of the answer to a single kick ------------------------
#     ||S||^2 = sum_k |h_k|^2,      h_0 = D,  h_k = C A^(k-1) B
# Two modes, each a pair of conjugate poles: a slow strong one and a fast weak one.
poles = np.array([0.97 * np.exp(0.2j), 0.90 * np.exp(1.5j)])
poles = np.concatenate([poles, poles.conj()])
B = np.ones((4, 1))
C = np.array([[1.0, 0.2, 1.0, 0.2]])
system = DiagonalSystem(poles, B, C)
h = system.impulse_response(400)[:, 0, 0].real
energy_plot.plot(h[:120], ".-", label="$h_k$")
energy_plot.plot(np.sqrt(np.cumsum(h**2))[:120], label="energy so far, root")
energy_plot.axhline(h2_norm(system), color="black", ls=":", label="$||S||$")
energy_plot.set(title="1. The energy of a kick", xlabel="step k")
print(f"1. root of the summed squares {np.linalg.norm(h):.12f}, h2_norm {h2_norm(system):.12f}")
assert np.isclose(np.linalg.norm(h), h2_norm(system), rtol=1e-9)  # 0.97^400 is 5e-6: cut off there

# --- Claim 2: no simulation is needed -----------------------------------------------------------
#     ||S||^2 = C P C^*,      P_ij = b_i conj(b_j) / (1 - l_i conj(l_j))     (a geometric series)
P = controllability_gramian(system)
by_hand = (B @ B.T) / (1 - np.outer(poles, poles.conj()))
from_gramian = np.sqrt((C @ P @ C.T).real.item())
print(f"2. root of C P C^*            {from_gramian:.12f}")
assert np.allclose(P, by_hand, rtol=1e-12)
assert np.isclose(from_gramian, h2_norm(system), rtol=1e-12)

# --- Claim 3: it is the mean of the spectrum, not its peak (Parseval) -------------------------
#     ||S||^2 = 1/(2 pi) * integral over [-pi, pi] of |H(e^jw)|^2
omega = np.linspace(-np.pi, np.pi, 4096, endpoint=False)
H = np.abs(system.frequency_response(omega)[:, 0, 0])
spectrum_plot.plot(omega, H, label="$|H|$")
spectrum_plot.axhline(h2_norm(system), color="black", ls=":", label="$||S||$: root mean square")
spectrum_plot.set(title="3. A mean over frequencies", xlabel="frequency, rad per step")
print(f"3. root mean square of |H|    {np.sqrt(np.mean(H**2)):.12f}, its peak {H.max():.3f}")
assert np.isclose(np.sqrt(np.mean(H**2)), h2_norm(system), rtol=1e-12)

# --- Claim 4: no input of energy 1 gets the output above it, and one gets there ---------------
#     max_k |y_k| <= ||S|| * ||u||_2,   with equality for u = h read backwards (Cauchy, Schwarz)
rng = np.random.default_rng(0)
for _ in range(3):
    u = rng.standard_normal(400)
    peak_plot.plot(system.simulate((u / np.linalg.norm(u))[:, None])[:, 0].real, lw=0.8)
worst = h[::-1] / np.linalg.norm(h)
y = system.simulate(worst[:, None])[:, 0].real
peak_plot.plot(y, color="black", label="answer to the worst input, $h$ backwards")
peak_plot.axhline(h2_norm(system), color="black", ls=":", label="$||S||$")
peak_plot.set(title="4. A bound on the peak", xlabel="step k")
print(f"4. peak for the worst input   {np.abs(y).max():.12f}")
assert np.abs(y).max() <= h2_norm(system)
assert np.isclose(np.abs(y).max(), h2_norm(system), rtol=1e-9)

# --- So what: remove the weak mode, and the norm of the difference is the price ---------------
reduced = DiagonalSystem(poles[[0, 2]], B[[0, 2]], C[:, [0, 2]])
price = h2_error(system, reduced)
difference = h - reduced.impulse_response(400)[:, 0, 0].real
removal_plot.plot(h[:60], label="full: 4 states")
removal_plot.plot((h - difference)[:60], "--", label="reduced: 2 states")
removal_plot.set(title=f"So what: half the states cost {price / h2_norm(system):.1%}")
print(f"   without the weak mode the peak error is at most {price:.4f} per unit of input energy")
assert np.isclose(price, np.linalg.norm(difference), rtol=1e-9)

if "--save" in sys.argv[1:]:
    for plot in figure.axes:
        plot.legend(fontsize="small")
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=150)
