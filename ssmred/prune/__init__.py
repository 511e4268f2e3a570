"""Remove operators, one channel's system at a time, and keep what a network can do."""

from ssmred.prune.family import Family
from ssmred.prune.latency import Uncached, alternating
from ssmred.prune.latency_model import LatencyModel, LayerLatency, measure_layers
from ssmred.prune.member import Member

__all__ = [
    "Family",
    "LatencyModel",
    "LayerLatency",
    "Member",
    "Uncached",
    "alternating",
    "measure_layers",
]
