"""Measured paths of pole-moving methods, and read-outs for moved poles."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from ssmred.errors import AccuracyError
from ssmred.norms import h2_norm
from ssmred.pipeline.measured import h2_root, measured, united, usable, with_read_out
from ssmred.pipeline.methods import LAYER_METHODS, reductor_of
from ssmred.reductors import allocate, removal_curve
from ssmred.systems import DiagonalSystem

HORIZON = 64
ROUNDING = 1e-12
"""Relative to the norm of the full response."""


def layer(seed: int = 0, channels: int = 3, modes: int = 5) -> DiagonalSystem:
    """Return random half spectra with D, one of them with a real pole."""
    rng = np.random.default_rng(seed)
    shape = (channels, modes)
    poles = np.sqrt(rng.uniform(0.1, 0.95, shape)) * np.exp(1j * np.pi * rng.random(shape))
    poles[0, 0] = 0.5
    B = rng.standard_normal((*shape, 1)) + 1j * rng.standard_normal((*shape, 1))
    C = rng.standard_normal((channels, 1, modes)) + 1j * rng.standard_normal((channels, 1, modes))
    D = rng.standard_normal(channels)
    return DiagonalSystem(poles, B, C, D, recurrence="post-update", real_output=True)


def gap(full: DiagonalSystem, reduced: DiagonalSystem, length: int = HORIZON) -> np.ndarray:
    """Return the h2 error by summation of samples, (H,)."""
    difference = full.impulse_response(length) - reduced.impulse_response(length)
    return np.linalg.norm(difference.reshape(len(full.poles), -1), axis=-1)


@pytest.mark.parametrize("method", LAYER_METHODS[1:])
@pytest.mark.parametrize("horizon", [HORIZON, None])
def test_errors_are_those_of_the_reductions(method: str, horizon: int | None) -> None:
    system = layer()
    path = measured(reductor_of(method, system, horizon).path(system), horizon)
    assert np.all(np.diff(path.errors, axis=-1) >= 0)
    assert np.all(path.errors[:, 0] == 0)
    assert np.allclose(path.norms, h2_norm(system, horizon=horizon))
    for kept in range(system.order + 1):
        reduction = path.reduction(kept)
        assert np.all(reduction.orders <= kept)
        found = gap(system, reduction.system, horizon or 4000)
        assert np.allclose(
            path.errors[:, system.order - kept], found, atol=ROUNDING * path.norms.max()
        )


@pytest.mark.parametrize("method", LAYER_METHODS[1:])
def test_states_are_divided_by_the_measured_errors(method: str) -> None:
    system = layer(1)
    path = measured(reductor_of(method, system, HORIZON).path(system), HORIZON)
    states, error = removal_curve([path], [np.ones(3)])
    for removed, expected in zip(states, error, strict=True):
        (kept,) = allocate([path], [np.ones(3)], states=int(states[-1] - removed))
        found = np.sum(gap(system, path.reduction(kept).system) ** 2)
        assert np.isclose(found, expected, rtol=1e-8, atol=ROUNDING)


class Faulty:
    """A path on which one channel cannot have order 3 or 2, and one is unstable at order 4."""

    def __init__(self, system: DiagonalSystem) -> None:
        self.system = system

    def reduction(self, kept: np.ndarray) -> SimpleNamespace:
        kept = np.broadcast_to(kept, len(self.system.poles))
        if kept[1] in (2, 3):
            raise AccuracyError("defective")
        stays = np.arange(self.system.order) < kept[:, None]
        poles = np.where(stays, self.system.poles, 0)
        if kept[2] == 4:
            poles[2, 0] = 1.5
        C = np.where(stays[:, None], self.system.C, 0)
        return SimpleNamespace(system=self.system.replace(poles=poles, C=C), orders=kept)


def test_orders_that_cannot_be_had_are_passed_over() -> None:
    source = Faulty(layer(2))
    path = measured(source, HORIZON)
    assert path.orders[1, 3] <= 1
    assert path.orders[2, 4] <= 3
    assert np.all(path.reduction(3).orders[[0, 2]] <= 3)
    assert np.isfinite(path.errors).all()
    assert usable(source, np.array([3, 3, 4])).orders.tolist() == [3, 1, 3]
    assert usable(source, np.array([5, 5, 5])).orders.tolist() == [5, 5, 5]


def test_channels_that_were_unstable_may_stay_so() -> None:
    source = Faulty(layer(2).replace(poles=1.02 * np.exp(1j * np.arange(15).reshape(3, 5))))
    assert usable(source, np.array([3, 4, 4])).orders.tolist() == [3, 4, 4]


@pytest.mark.theorem("optimal-readout")
@pytest.mark.parametrize("method", LAYER_METHODS[1:])
@pytest.mark.parametrize("horizon", [HORIZON, None])
def test_read_out_against_least_squares(method: str, horizon: int | None) -> None:
    system = layer(3)
    reduction = reductor_of(method, system, horizon).path(system).reduction([2, 5, 0])
    fitted = with_read_out(reduction, h2_root(united(reduction), horizon), "h2")
    assert np.array_equal(fitted.system.poles, reduction.system.poles)
    assert np.array_equal(fitted.system.B, reduction.system.B)
    assert fitted.claim.value[1] == 0
    length = horizon or 2000
    found = gap(system, fitted.system, length)
    assert np.allclose(fitted.claim.value, found, atol=ROUNDING * float(h2_norm(system).max()))
    assert np.all(found <= gap(system, reduction.system, length) + 1e-13)
    h = system.impulse_response(length).reshape(3, length)
    for channel in (0, 2):
        order = int(reduction.orders[channel])
        powers = reduction.system.poles[channel, :order, None] ** np.arange(length)
        basis = np.concatenate([np.eye(1, length), powers.real, powers.imag]).T
        best = h[channel] - basis @ np.linalg.lstsq(basis, h[channel], rcond=None)[0]
        assert np.isclose(found[channel], np.linalg.norm(best), rtol=1e-9)
