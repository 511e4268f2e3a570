"""What the battery does not ask of frequency weights: what they are for, and what they may be."""

from __future__ import annotations

import numpy as np
import pytest
from hard_systems import dense, diagonal

from ssmred.errors import ShapeError, UnstableSystemError, UnsupportedOperationError
from ssmred.reductors import BalancedReductor, FrequencyWeightedReductor
from ssmred.systems import DenseSystem, DiagonalSystem


def band(dt=1.0):
    """Return a resonance at 2 rad per sample, 200 times as high as the response at rest."""
    pole = 0.995 * np.exp(2j)
    return DiagonalSystem([pole], [1.0], [1.0], dt=dt, real_output=True)


def test_the_error_is_smaller_where_the_weight_is_large():
    system = diagonal(3, n=10, real_output=True)
    omega = np.linspace(1.97, 2.03, 200)
    errors = []
    for reductor in (BalancedReductor(), FrequencyWeightedReductor(input_weight=band())):
        reduced = reductor.reduce(system, order=3).system
        gap = system.frequency_response(omega) - reduced.frequency_response(omega)
        errors.append(np.abs(gap).max())
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.parametrize("system", [dense(1, m=1, p=1), diagonal(2, real_output=True)])
@pytest.mark.parametrize("name", ["input_weight", "output_weight"])
def test_complex_weights_of_real_systems(system, name):
    weight = DiagonalSystem([0.5j], [1.0], [1.0])
    with pytest.raises(UnsupportedOperationError, match=f"{name} is complex.*real matrices"):
        FrequencyWeightedReductor(**{name: weight}).reduce(system, order=1)


@pytest.mark.parametrize(
    ("weight", "error", "text"),
    [
        (DenseSystem([[0.5]], [[1.0, 0.0]], [[1.0], [0.0]]), ShapeError, "does not fit"),
        (band(dt=0.5), UnsupportedOperationError, "another time"),
        (DiagonalSystem([1.5], [1.0], [1.0]), UnstableSystemError, "unstable"),
        (diagonal(4, batch=(2,)), UnsupportedOperationError, "not a single system"),
        (0.5, UnsupportedOperationError, "not a single system"),
    ],
)
def test_weights_that_do_not_fit(weight, error, text):
    with pytest.raises(error, match=text):
        FrequencyWeightedReductor(input_weight=weight).reduce(diagonal(5), order=1)
