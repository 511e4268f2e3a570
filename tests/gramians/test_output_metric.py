"""The output metric against direct sums and against a network's own Jacobian."""

from __future__ import annotations

import numpy as np
import pytest

from ssmred.errors import DataError, ShapeError
from ssmred.gramians import InputMoments, OutputMetric, OutputSensitivity
from ssmred.gramians.output_metric import COHERENT, WHITE
from ssmred.reductors import SubsetReductor
from ssmred.systems import DiagonalSystem

H, N, T, S = 3, 4, 40, 30
ROUNDING = 1e-10
"""Squares of sums over 40 samples and 30 sequences, relative to the largest term."""


def layer(rng: np.random.Generator, recurrence: str = "post-update") -> DiagonalSystem:
    poles = rng.uniform(0.6, 0.99, (H, N)) * np.exp(1j * rng.uniform(0, 3, (H, N)))
    B = rng.standard_normal((H, N)) + 1j * rng.standard_normal((H, N))
    C = rng.standard_normal((H, N)) + 1j * rng.standard_normal((H, N))
    D = rng.standard_normal(H)
    return DiagonalSystem(poles, B, C, D, recurrence=recurrence, real_output=True)


def metric_of(system: DiagonalSystem, V: np.ndarray, G: np.ndarray) -> OutputMetric:
    moments, sensitivity = InputMoments(H, T), OutputSensitivity(system, T)
    for part in (slice(0, 7), slice(7, None)):
        moments.update(V[part])
        sensitivity.update(V[part], G[part])
    return OutputMetric(moments, sensitivity)


@pytest.mark.theorem("output-metric")
@pytest.mark.parametrize("recurrence", ["standard", "post-update"])
def test_norm_of_a_removal_equals_the_direct_sums(recurrence: str) -> None:
    rng = np.random.default_rng(0)
    system = layer(rng, recurrence)
    V, G = rng.standard_normal((S, H, T)), rng.standard_normal((S, H, T)) * 0.1
    reduction = SubsetReductor(metric=metric_of(system, V, G)).path(system).reduction(2)
    gap = system.impulse_response(T)[..., 0, 0] - reduction.system.impulse_response(T)[..., 0, 0]
    for c in range(H):
        errors = np.array([np.convolve(gap[c], v)[:T] for v in V[:, c]])
        coherent = np.mean(np.sum(G[:, c] * errors, axis=1) ** 2)
        energy = np.mean(np.sum(errors**2, axis=1))
        inputs = np.mean(np.sum(V[:, c] ** 2, axis=1))
        slope = np.mean(G[:, c] ** 2)
        expected = COHERENT * coherent + (1 - COHERENT) * slope * (
            energy + WHITE * inputs * np.sum(gap[c] ** 2)
        )
        assert abs(reduction.bound.value[c] ** 2 / expected - 1) < ROUNDING


@pytest.mark.theorem("output-metric")
def test_read_out_is_the_best_in_the_metric() -> None:
    rng = np.random.default_rng(1)
    system = layer(rng)
    V, G = rng.standard_normal((S, H, T)), rng.standard_normal((S, H, T))
    metric = metric_of(system, V, G)
    path = SubsetReductor(metric=metric).path(system)
    best = path.reduction(2)
    root = metric.square_root(system).factor
    for c in range(H):
        kept = np.flatnonzero(best.kept[c])
        columns = np.concatenate([[0], np.stack([1 + 2 * kept, 2 + 2 * kept], 1).ravel()])
        theta = np.concatenate([[system.D[c, 0, 0].real], np.zeros(2 * N)])
        coefficient = system.C[c, 0] * system.B[c, :, 0]
        theta[1::2], theta[2::2] = coefficient.real, -coefficient.imag
        scaled = root[c] @ theta
        # The basis carries B = 1 responses; the residual of the best fit does not depend on that.
        residual = np.linalg.lstsq(root[c][:, columns], scaled, rcond=None)[1]
        assert abs(best.bound.value[c] ** 2 / residual[0] - 1) < ROUNDING


def test_channel_without_input_or_influence_goes_first() -> None:
    rng = np.random.default_rng(2)
    system = layer(rng)
    V, G = rng.standard_normal((S, H, T)), rng.standard_normal((S, H, T))
    V[:, 0] = 0.0
    G[:, 1] = 0.0
    path = SubsetReductor(metric=metric_of(system, V, G)).path(system)
    assert np.all(path.errors[:2, -1] < 1e-6 * path.errors[2, -1])
    assert np.isfinite(path.reduction(1).system.C).all()


def test_bad_signals() -> None:
    rng = np.random.default_rng(3)
    system = layer(rng)
    sensitivity = OutputSensitivity(system, T)
    with pytest.raises(ShapeError, match="wrong shape"):
        sensitivity.update(np.zeros((2, H, T)), np.zeros((2, H, T + 1)))
    with pytest.raises(DataError):
        sensitivity.update(np.full((2, H, T), np.nan), np.zeros((2, H, T)))
    moments = InputMoments(H, T)
    moments.update(np.ones((1, H, T)))
    with pytest.raises(DataError, match="no gradients"):
        OutputMetric(moments, sensitivity).square_root(system)
