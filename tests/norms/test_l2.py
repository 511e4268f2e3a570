"""The L2 norm of systems with poles on both sides of the boundary."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate

from ssmred.errors import UnstableSystemError, UnsupportedOperationError
from ssmred.norms import h2_norm, l2_norm
from ssmred.systems import DenseSystem, DiagonalSystem

SAMPLED = 1e-12  # the trapezoidal rule converges geometrically on the circle
INTEGRATED = 1e-8  # adaptive quadrature over the axis


def mixed_system(seed, *, discrete=True, real=False, batch=()) -> DiagonalSystem:
    rng = np.random.default_rng(seed)
    n, m, p = 5, 2, 3
    radius = np.where(rng.random((*batch, n)) < 0.5, 0.7, 1 / 0.7) * rng.uniform(0.95, 1.05)
    poles = radius * np.exp(1j * rng.uniform(-3, 3, (*batch, n)))
    if not discrete:
        poles = rng.choice([-1, 1], (*batch, n)) * rng.uniform(0.5, 1) + 1j * rng.normal(size=n)
    B = rng.normal(size=(*batch, n, m)) + 1j * rng.normal(size=(*batch, n, m))
    C = rng.normal(size=(*batch, p, n)) + 1j * rng.normal(size=(*batch, p, n))
    D = rng.normal(size=(*batch, p, m)) if discrete else None
    return DiagonalSystem(poles, B, C, D, 1.0 if discrete else 0.0, real_output=real)


@pytest.mark.theorem("h2-norm")
@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize("recurrence", ["standard", "post-update"])
def test_mean_square_over_the_circle(real, recurrence):
    for seed in range(5):
        system = mixed_system(seed, real=real).replace(recurrence=recurrence)
        omega = 2 * np.pi * np.arange(2048) / 2048
        values = system.frequency_response(omega)
        exact = math.sqrt((np.abs(values) ** 2).sum() / 2048)
        for one in (system, system.to_dense()):
            assert l2_norm(one) == pytest.approx(exact, rel=SAMPLED)


@pytest.mark.theorem("h2-norm")
@pytest.mark.parametrize("real", [False, True])
def test_mean_square_over_the_axis(real):
    system = mixed_system(7, discrete=False, real=real)

    def density(t):  # omega = tan(t)
        values = system.frequency_response(np.array([math.tan(t)]))
        return (np.abs(values) ** 2).sum() / math.cos(t) ** 2 / (2 * math.pi)

    edge = math.pi / 2 - 1e-9
    exact = math.sqrt(integrate.quad(density, -edge, edge, limit=400)[0])
    for one in (system, system.to_dense()):
        assert l2_norm(one) == pytest.approx(exact, rel=INTEGRATED)
    assert l2_norm(system.replace(D=np.ones((3, 2)))) == math.inf


def test_stable_systems_and_batches():
    stable = DiagonalSystem([0.5, -0.25j], [1.0, 2.0], [1.0, 1.0], 3.0)
    assert l2_norm(stable) == h2_norm(stable)
    batch = mixed_system(9, batch=(3, 2))
    got = l2_norm(batch)
    assert got.shape == (3, 2)
    assert got == pytest.approx(l2_norm(batch.to_dense()), rel=SAMPLED)
    one = batch.replace(poles=batch.poles[1, 1], B=batch.B[1, 1], C=batch.C[1, 1], D=batch.D[1, 1])
    assert l2_norm(one) == pytest.approx(got[1, 1], rel=1e-14)


def test_bad_input():
    for system in (DiagonalSystem([1.0], [1], [1]), DenseSystem([[0.0]], [[1]], [[1]], dt=0)):
        with pytest.raises(UnstableSystemError, match=r"l2_norm: .*boundary"):
            l2_norm(system)
    with pytest.raises(UnsupportedOperationError, match="not a system"):
        l2_norm(3)
