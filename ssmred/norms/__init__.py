"""Norms and gains of systems; gains are upper bounds, the H-infinity norm an enclosure."""

from ssmred.norms.enclosure import Enclosure
from ssmred.norms.h2 import h2_error, h2_norm
from ssmred.norms.hankel import hankel_error, hankel_norm
from ssmred.norms.hinf import hinf_error, hinf_norm, linf_norm
from ssmred.norms.impulse import impulse_l1_gain, impulse_l2_gain
from ssmred.norms.l1_gain import l1_gain, l1_gain_error
from ssmred.norms.l2 import l2_norm
from ssmred.norms.l2_gain import l2_gain, l2_gain_error
from ssmred.norms.quadratic import EnergyGains, energy_gains, h2_inner, peak_bound
from ssmred.norms.response_form import difference_response

__all__ = [
    "Enclosure",
    "EnergyGains",
    "difference_response",
    "energy_gains",
    "h2_error",
    "h2_inner",
    "h2_norm",
    "hankel_error",
    "hankel_norm",
    "hinf_error",
    "hinf_norm",
    "impulse_l1_gain",
    "impulse_l2_gain",
    "l1_gain",
    "l1_gain_error",
    "l2_gain",
    "l2_gain_error",
    "l2_norm",
    "linf_norm",
    "peak_bound",
]
