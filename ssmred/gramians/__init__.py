"""Gramians, their factors, and Hankel singular values."""

from ssmred.gramians.empirical import InputMoments
from ssmred.gramians.gramian import (
    controllability_factor,
    controllability_gramian,
    hankel_singular_values,
    observability_factor,
    observability_gramian,
    pseudo_gramian,
    realified_gramian,
)
from ssmred.gramians.output_metric import OutputMetric, OutputSensitivity
from ssmred.gramians.square_root import SquareRoot, basis_coefficients, basis_square_root

__all__ = [
    "InputMoments",
    "OutputMetric",
    "OutputSensitivity",
    "SquareRoot",
    "basis_coefficients",
    "basis_square_root",
    "controllability_factor",
    "controllability_gramian",
    "hankel_singular_values",
    "observability_factor",
    "observability_gramian",
    "pseudo_gramian",
    "realified_gramian",
]
