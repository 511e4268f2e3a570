"""From a trained network to a reduced one with a certificate."""

from ssmred.pipeline.reduction import reduce
from ssmred.pipeline.result import Alternative, ReductionResult, RemovalCurve, load

__all__ = ["Alternative", "ReductionResult", "RemovalCurve", "load", "reduce"]
