"""Reductors: one method of reduction per file, and the allocation of removals to channels."""

from ssmred.reductors.allocation import allocate, removal_curve
from ssmred.reductors.balanced import BalancedReductor
from ssmred.reductors.path import ReductionPath
from ssmred.reductors.reduction import ErrorBound, Projection, Reduction
from ssmred.reductors.reductor import Reductor
from ssmred.reductors.subset import SubsetReductor
from ssmred.reductors.subset_path import SubsetPath

__all__ = [
    "BalancedReductor",
    "ErrorBound",
    "Projection",
    "Reduction",
    "ReductionPath",
    "Reductor",
    "SubsetPath",
    "SubsetReductor",
    "allocate",
    "removal_curve",
]
