"""Four ways to make a system smaller, and what each of them is best at.

A lecture in four claims; each is an equation, a few lines of code, a picture and a check.

    python examples/four_reductions.py           # prints the checks
    python examples/four_reductions.py --save    # also leaves four_reductions.png next to this file
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from ssmred.gramians import hankel_singular_values
from ssmred.norms import hankel_error
from ssmred.reductors import (
    BalancedReductor,
    H2OptimalReductor,
    HankelReductor,
    ResidualisedReductor,
)
from ssmred.systems import DiagonalSystem

figure, ((hankel_plot, bode_plot), (error_plot, energy_plot)) = plt.subplots(
    2, 2, figsize=(10, 7), layout="constrained"
)

# A real system of 16 states: half of a spectrum that spirals into the disc.
angles = np.linspace(0.1, 2.6, 8)
poles = (0.97 - 0.04 * np.arange(8)) * np.exp(1j * angles)
system = DiagonalSystem(poles, np.ones(8), 1 / np.arange(1, 9), real_output=True)
ORDER = 3  # pairs of conjugate poles kept: 6 of 16 states
reductions = {
    "balanced": BalancedReductor().reduce(system, order=ORDER),
    "residualised": ResidualisedReductor().reduce(system, order=ORDER),
    "Hankel": HankelReductor().reduce(system, order=ORDER),
    "h2-optimal": H2OptimalReductor().reduce(system, order=ORDER),
}

# --- Claim 1: Hankel singular values say what can be left out ---------------------------------
#     past inputs -> future outputs is a map of rank n; sigma_k are its singular values
sigma = hankel_singular_values(system)
hankel_plot.semilogy(np.arange(1, 17), sigma, "o")
hankel_plot.axvline(2 * ORDER + 0.5, color="black", ls=":")
hankel_plot.set(title="1. Hankel singular values", xlabel="state", ylabel=r"$\sigma$")
print(f"1. sigma_6 = {sigma[5]:.4f}, sigma_7 = {sigma[6]:.4f}")
# no model of 6 states is closer than sigma_7, in any induced norm
for name, reduction in reductions.items():
    assert reduction.hinf_error.upper >= sigma[6], name

# --- Claim 2: Hankel-norm approximation gets there --------------------------------------------
#     ||H - H_r||_Hankel = sigma_{r+1}, the least there is
errors = {name: hankel_error(system, r.system) for name, r in reductions.items()}
for name, error in errors.items():
    print(f"2. {name:12s} Hankel error {error:.4f} = {error / sigma[6]:.3f} sigma_7")
assert np.isclose(errors["Hankel"], sigma[6], rtol=1e-6)
assert min(errors, key=errors.__getitem__) == "Hankel"

# --- Claim 3: twice the tail bounds the worst sinusoid; residualisation is exact at rest ------
#     ||H - H_r||_inf <= 2 (sigma_{r+1} + ... + sigma_n)
omega = np.linspace(0, np.pi, 2000)
H = system.frequency_response(omega)[:, 0, 0]
bode_plot.plot(omega, np.abs(H), "black", label="$|H|$")
for name, reduction in reductions.items():
    gap = np.abs(H - reduction.system.frequency_response(omega)[:, 0, 0])
    error_plot.semilogy(omega, np.maximum(gap, 1e-6), label=name)
    worst = reduction.hinf_error
    print(f"3. {name:12s} worst sinusoid {worst.lower:.4f} at {worst.frequency:.3f} rad")
bound = reductions["balanced"].claim.value
error_plot.axhline(bound, color="black", ls=":", label="twice the tail")
assert bound == reductions["residualised"].claim.value >= reductions["balanced"].hinf_error.upper
rest = reductions["residualised"].system.frequency_response(np.zeros(1))[0, 0, 0]
assert np.isclose(rest, H[0], rtol=1e-10)
bode_plot.set(title="3. The system", xlabel="frequency, rad per step")
error_plot.set(title="3. Its error, by frequency", xlabel="frequency, rad per step")

# --- Claim 4: the energy of the error has a minimum of its own --------------------------------
#     ||H - H_r||_2^2 = sum_k |h_k - h_r,k|^2
energies = {name: float(r.h2_error) for name, r in reductions.items()}
energy_plot.bar(list(energies), list(energies.values()))
energy_plot.set(title="4. h2 error")
print("4. h2 error: " + ", ".join(f"{name} {value:.4f}" for name, value in energies.items()))
assert min(energies, key=energies.__getitem__) == "h2-optimal"

for axes in (bode_plot, error_plot):
    axes.legend(fontsize=8)
if "--save" in sys.argv:
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=150)
