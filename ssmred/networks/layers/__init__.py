"""Trainable state-space layers in the parametrisations that their checkpoints use."""

from ssmred.networks.layers.dplr import S4Kernel
from ssmred.networks.layers.gates import BilinearGate, Gate
from ssmred.networks.layers.lqo import LQOLayer
from ssmred.networks.layers.lru import LRU
from ssmred.networks.layers.optimisation import parameter_groups
from ssmred.networks.layers.s4 import S4
from ssmred.networks.layers.s4d import S4D, S4DKernel
from ssmred.networks.layers.s5 import S5

__all__ = [
    "LRU",
    "S4",
    "S4D",
    "S5",
    "BilinearGate",
    "Gate",
    "LQOLayer",
    "S4DKernel",
    "S4Kernel",
    "parameter_groups",
]
