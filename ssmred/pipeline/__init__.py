"""From a trained network to a reduced one with a certificate; what a checkpoint is."""

from ssmred.pipeline.inspected import Inspection
from ssmred.pipeline.inspection import inspect
from ssmred.pipeline.prediction import BoundedPredictor, Predictions
from ssmred.pipeline.quadratic_bound import quadratic_bound
from ssmred.pipeline.reduction import reduce
from ssmred.pipeline.result import Alternative, ReductionResult, RemovalCurve, load

__all__ = [
    "Alternative",
    "BoundedPredictor",
    "Inspection",
    "Predictions",
    "ReductionResult",
    "RemovalCurve",
    "inspect",
    "load",
    "quadratic_bound",
    "reduce",
]
