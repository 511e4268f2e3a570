"""Gramians, their factors, and Hankel singular values."""

from ssmred.gramians.closed_form import cauchy_ldl
from ssmred.gramians.empirical import InputMoments
from ssmred.gramians.equations import (
    discrete_sylvester,
    lyapunov,
    lyapunov_factor,
    stein,
    stein_factor,
    sylvester,
)
from ssmred.gramians.gramian import (
    controllability_factor,
    controllability_gramian,
    observability_factor,
    observability_gramian,
    pseudo_gramian,
    realified_gramian,
)
from ssmred.gramians.hankel import hankel_singular_values
from ssmred.gramians.output_metric import OutputMetric, OutputSensitivity
from ssmred.gramians.solution import Solution
from ssmred.gramians.spectral_split import spectral_split
from ssmred.gramians.square_root import SquareRoot, basis_coefficients, basis_square_root

__all__ = [
    "InputMoments",
    "OutputMetric",
    "OutputSensitivity",
    "Solution",
    "SquareRoot",
    "basis_coefficients",
    "basis_square_root",
    "cauchy_ldl",
    "controllability_factor",
    "controllability_gramian",
    "discrete_sylvester",
    "hankel_singular_values",
    "lyapunov",
    "lyapunov_factor",
    "observability_factor",
    "observability_gramian",
    "pseudo_gramian",
    "realified_gramian",
    "spectral_split",
    "stein",
    "stein_factor",
    "sylvester",
]
