"""Norms and gains of systems; all gains are upper bounds."""

from ssmred.norms.h2 import h2_error, h2_norm
from ssmred.norms.impulse import impulse_l1_gain, impulse_l2_gain
from ssmred.norms.l1_gain import l1_gain, l1_gain_error
from ssmred.norms.l2_gain import l2_gain, l2_gain_error
from ssmred.norms.response_form import difference_response

__all__ = [
    "difference_response",
    "h2_error",
    "h2_norm",
    "impulse_l1_gain",
    "impulse_l2_gain",
    "l1_gain",
    "l1_gain_error",
    "l2_gain",
    "l2_gain_error",
]
