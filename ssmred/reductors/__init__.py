"""Reductors: one method of reduction per file, and the allocation of removals to channels."""

from ssmred.reductors.allocation import allocate, removal_curve
from ssmred.reductors.path import SubsetPath
from ssmred.reductors.reduction import Reduction
from ssmred.reductors.subset import SubsetReductor

__all__ = ["Reduction", "SubsetPath", "SubsetReductor", "allocate", "removal_curve"]
