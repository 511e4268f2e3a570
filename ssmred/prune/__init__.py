"""Remove operators, one channel's system at a time, and keep what a network can do."""

from ssmred.prune.candidates import run_all
from ssmred.prune.family import Family
from ssmred.prune.latency import Uncached, alternating
from ssmred.prune.latency_model import LatencyModel, LayerLatency, measure_layers
from ssmred.prune.member import Member
from ssmred.prune.network import PrunableNetwork, operators_of
from ssmred.prune.options import RATES, S4OP
from ssmred.prune.progressive import progressive
from ssmred.prune.repair import repaired
from ssmred.prune.training import History, Training, evaluate, train
from ssmred.tasks import Sample, Task

__all__ = [
    "RATES",
    "S4OP",
    "Family",
    "History",
    "LatencyModel",
    "LayerLatency",
    "Member",
    "PrunableNetwork",
    "Sample",
    "Task",
    "Training",
    "Uncached",
    "alternating",
    "evaluate",
    "measure_layers",
    "operators_of",
    "progressive",
    "repaired",
    "run_all",
    "train",
]
