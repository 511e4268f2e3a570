"""Reductors: one method of reduction per file, and the allocation of removals to channels."""

from ssmred.reductors.allocation import allocate, removal_curve
from ssmred.reductors.balanced import BalancedReductor
from ssmred.reductors.h2_optimal import H2OptimalReductor
from ssmred.reductors.hankel import HankelReductor
from ssmred.reductors.modal import ModalReductor
from ssmred.reductors.modal_form import ModalForm, modal_form
from ssmred.reductors.path import ReductionPath
from ssmred.reductors.quadratic import QuadraticPath, QuadraticReduction
from ssmred.reductors.quadratic_balanced import QuadraticBalancedReductor
from ssmred.reductors.quadratic_h2 import QuadraticH2Reductor
from ssmred.reductors.quadratic_read_out import with_best_read_out
from ssmred.reductors.quadratic_subset import QuadraticSubsetReductor, quadratic_removal_errors
from ssmred.reductors.reduction import ErrorBound, Projection, Reduction
from ssmred.reductors.reductor import Reductor
from ssmred.reductors.residualised import ResidualisedReductor
from ssmred.reductors.scores import aire_scores, last_scores, score_masks, truncation
from ssmred.reductors.single_removals import single_removal_errors
from ssmred.reductors.split import SplitPath, SplitReductor
from ssmred.reductors.subset import SubsetReductor
from ssmred.reductors.subset_path import SubsetPath
from ssmred.reductors.weighted import FrequencyWeightedReductor

__all__ = [
    "BalancedReductor",
    "ErrorBound",
    "FrequencyWeightedReductor",
    "H2OptimalReductor",
    "HankelReductor",
    "ModalForm",
    "ModalReductor",
    "Projection",
    "QuadraticBalancedReductor",
    "QuadraticH2Reductor",
    "QuadraticPath",
    "QuadraticReduction",
    "QuadraticSubsetReductor",
    "Reduction",
    "ReductionPath",
    "Reductor",
    "ResidualisedReductor",
    "SplitPath",
    "SplitReductor",
    "SubsetPath",
    "SubsetReductor",
    "aire_scores",
    "allocate",
    "last_scores",
    "modal_form",
    "quadratic_removal_errors",
    "removal_curve",
    "score_masks",
    "single_removal_errors",
    "truncation",
    "with_best_read_out",
]
