"""Read-out and input map fitted in turn: monotone, stationary, and right about its error."""

from __future__ import annotations

import numpy as np
import pytest

from ssmred.errors import DataError, OrderError, ShapeError, UnsupportedOperationError
from ssmred.gramians import InputMoments, OutputMetric, OutputSensitivity
from ssmred.norms import h2_error
from ssmred.pipeline.measured import h2_root, united, with_read_out
from ssmred.reductors import SubsetReductor
from ssmred.systems import DiagonalSystem

EXACT = 1e-11  # conditioning of random problems (up to 1e3) times rounding, relative to the norm
STATIONARY = 1e-7  # of the error: what is left to gain when sweeps gain less than 1e-12 of it
SMALL = 300  # samples; |pole| <= 0.9 leaves 1e-14 of the response after them


def complex_normal(rng, *shape):
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def layer(rng, *, batch=(1,), n=8, m=4, p=3, radius=0.9, **options):
    poles = radius * np.sqrt(rng.random((*batch, n))) * np.exp(2j * np.pi * rng.random((*batch, n)))
    D = rng.standard_normal((*batch, p, m))
    options = {"real_output": True, "recurrence": "post-update", **options}
    return DiagonalSystem(
        poles, complex_normal(rng, *batch, n, m), complex_normal(rng, *batch, p, n), D, **options
    )


def distance(one, two, horizon):
    gap = one.impulse_response(horizon) - two.impulse_response(horizon)
    return np.linalg.norm(gap.reshape(*one.batch_shape, -1), axis=-1)


@pytest.mark.theorem("alternating-readout")
@pytest.mark.parametrize("recurrence", ["standard", "post-update"])
@pytest.mark.parametrize("real_output", [True, False])
@pytest.mark.parametrize(("m", "p"), [(4, 3), (2, 5)])
@pytest.mark.parametrize("horizon", [12, None])
def test_errors_fall_with_every_sweep_and_are_those_of_the_responses(
    recurrence, real_output, m, p, horizon
):
    rng = np.random.default_rng(1)
    system = layer(rng, m=m, p=p, recurrence=recurrence, real_output=real_output)
    length = horizon or SMALL
    norm = distance(system, system.replace(C=0 * system.C, D=0 * system.D), length)
    last = SubsetReductor(horizon=horizon).reduce(system, order=3).bound.value
    for sweeps in (1, 2, 3, 5, 8):
        reductor = SubsetReductor(horizon=horizon, refit="both", sweeps=sweeps, change=0.0)
        reduction = reductor.reduce(system, order=3)
        assert reduction.sweeps[0] == sweeps
        assert reduction.bound.value[0] < last[0]  # zero slack
        assert reduction.bound.theorem == "alternating-readout"
        true = distance(system, reduction.system, length)
        assert np.abs(reduction.bound.value - true) <= EXACT * norm
        last = reduction.bound.value
        kept = reduction.kept[0]
        assert np.array_equal(reduction.system.poles[0], system.poles[0, kept])
        sizes = [np.linalg.norm(B, axis=-1) for B in (reduction.system.B[0], system.B[0, kept])]
        assert np.allclose(*sizes, rtol=1e-12)


@pytest.mark.theorem("alternating-readout")
@pytest.mark.parametrize("recurrence", ["standard", "post-update"])
@pytest.mark.parametrize("real_output", [True, False])
def test_the_limit_is_stationary(recurrence, real_output):
    """Neither C (with D) nor B alone can lower the error further: both fits by a plain lstsq."""
    rng = np.random.default_rng(2)
    system = layer(rng, recurrence=recurrence, real_output=real_output)
    reductor = SubsetReductor(horizon=40, refit="both", sweeps=5000, change=1e-13)
    reduction = reductor.reduce(system, order=3)
    assert reduction.sweeps[0] < 5000
    start = 1 if recurrence == "post-update" else 0
    kept = reduction.kept[0]
    powers = system.poles[0, kept] ** np.arange(start, start + 39)[:, None]
    h = system.impulse_response(40)[0][1:]
    for fixed, other in ((reduction.system.B[0].T, h), (reduction.system.C[0], h.swapaxes(1, 2))):
        # rows: samples and entries of what is fixed; columns: modes
        Phi = (powers[:, None, :] * fixed).reshape(-1, 3)
        y = other.swapaxes(1, 2).reshape(len(Phi), -1)
        if real_output:
            Phi = np.concatenate([Phi.real, -Phi.imag], axis=1)
        best = np.linalg.norm(y - Phi @ np.linalg.lstsq(Phi, y, rcond=None)[0])
        assert abs(reduction.bound.value[0] - best) <= STATIONARY * best


@pytest.mark.theorem("alternating-readout")
@pytest.mark.parametrize("recurrence", ["standard", "post-update"])
def test_one_output_or_input_leaves_residues_free(recurrence):
    rng = np.random.default_rng(3)
    start = 1 if recurrence == "post-update" else 0
    many = layer(rng, m=4, p=1, recurrence=recurrence)
    both = SubsetReductor(horizon=40, refit="both").reduce(many, order=3)
    h = many.impulse_response(40)[0][1:].reshape(39, -1)
    powers = many.poles[0, both.kept[0]] ** np.arange(start, start + 39)[:, None]
    powers = np.concatenate([powers.real, powers.imag], axis=1)
    best = np.linalg.norm(h - powers @ np.linalg.lstsq(powers, h, rcond=None)[0])
    assert np.isclose(both.bound.value[0], best, rtol=1e-10)
    assert both.sweeps[0] <= 2
    single = layer(rng, m=1, p=4, recurrence=recurrence)
    one, two = (
        SubsetReductor(horizon=40, refit=refit).reduce(single, order=3)
        for refit in ("output", "both")
    )
    assert np.isclose(one.bound.value[0], two.bound.value[0], rtol=1e-10)


@pytest.mark.theorem("alternating-readout")
def test_full_spectra_stay_real():
    rng = np.random.default_rng(4)
    half = layer(rng, n=4)
    half = half.replace(
        poles=np.concatenate([half.poles, [[0.3, -0.5]]], axis=-1),
        B=np.concatenate([half.B, rng.standard_normal((1, 2, 4))], axis=-2),
        C=np.concatenate([half.C, rng.standard_normal((1, 3, 2))], axis=-1),
    )
    pairs, single = half.poles[:, :4], half.poles[:, 4:]
    full = DiagonalSystem(
        np.concatenate([pairs, single, pairs.conj()], axis=-1),
        np.concatenate([half.B, half.B[:, :4].conj()], axis=-2),
        np.concatenate([half.C[..., :4] / 2, half.C[..., 4:], half.C[..., :4].conj() / 2], -1),
        half.D,
        recurrence="post-update",
    )
    reductor = SubsetReductor(horizon=30, refit="both")
    reduced = reductor.reduce(full, order=5)
    assert np.allclose(reduced.system.impulse_response(30).imag, 0, atol=1e-13)
    assert np.isclose(reduced.bound.value[0], distance(full, reduced.system, 30)[0], rtol=1e-9)
    kept = reduced.kept[0, :6]
    direct = reductor.path(half).keeping(kept[None])
    assert np.isclose(direct.bound.value[0], reduced.bound.value[0], rtol=1e-9)


@pytest.mark.theorem("alternating-readout")
def test_continuous_time_and_real_data():
    rng = np.random.default_rng(5)
    poles = -np.exp(rng.uniform(-2, 2, 6))
    system = DiagonalSystem(poles, rng.standard_normal((6, 3)), rng.standard_normal((3, 6)), dt=0.0)
    one, two = (SubsetReductor(refit=r).reduce(system, order=2) for r in ("output", "both"))
    assert two.bound.value < one.bound.value
    assert two.system.is_real
    assert np.isclose(two.bound.value, h2_error(system, two.system), rtol=1e-9)


def test_whole_empty_and_undriven_channels():
    rng = np.random.default_rng(6)
    system = layer(rng, batch=(3,), n=5)
    B = system.B.copy()
    B[1, 2] = 0
    system = system.replace(B=B)
    path = SubsetReductor(refit="both").path(system)
    reduction = path.reduction([5, 3, 0])
    assert reduction.sweeps[0] == 0
    assert reduction.sweeps[1] > 0
    assert reduction.sweeps[2] == 0
    assert np.array_equal(reduction.system.C[0], system.C[0])
    assert np.array_equal(reduction.system.B[0], system.B[0])
    assert reduction.bound.value[0] == 0
    true = distance(system, reduction.system, SMALL)
    assert np.all(np.abs(reduction.bound.value - true) <= EXACT * path.norms)
    alone = SubsetReductor(refit="both").path(
        system.replace(**{k: getattr(system, k)[1:2] for k in ("poles", "B", "C", "D")})
    )
    assert np.isclose(alone.reduction(3).bound.value[0], reduction.bound.value[1], rtol=1e-9)
    one = path.keeping(np.array([[False, False, True, False, False]] * 3))  # undriven in 1
    assert np.all(np.isfinite(one.system.C))


def test_nearly_dependent_modes_and_poles_at_the_circle():
    """Modes 1e-9 apart and a pole 1 - 1e-12: no sweep may raise the error or break anything."""
    rng = np.random.default_rng(7)
    system = layer(rng, n=6)
    poles = system.poles.copy()
    poles[0, 1] = poles[0, 0] * (1 + 1e-9)
    poles[0, 2], poles[0, 3] = 1 - 1e-12, -1 + 1e-10
    system = system.replace(poles=poles)
    for order in range(1, 6):
        one, two = (SubsetReductor(refit=r).reduce(system, order=order) for r in ("output", "both"))
        assert two.bound.value[0] <= one.bound.value[0] * (1 + 1e-12)
        assert np.isclose(two.bound.value[0], h2_error(system, two.system)[0], rtol=1e-6)


@pytest.mark.theorem("alternating-readout")
def test_read_out_on_the_data_with_the_moved_input_map():
    """B from the h2 metric, C and D from the calibrated one: the best on the data for this B."""
    rng = np.random.default_rng(8)
    system = layer(rng, n=8, m=4, p=4)
    V = rng.standard_normal((20, 4, 40)).cumsum(axis=-1)
    reduction = SubsetReductor(horizon=40, refit="both").reduce(system, order=3)
    union = united(reduction)
    moments = InputMoments(4, 40, system=union)
    moments.update(V)
    fitted = with_read_out(reduction, moments.square_root(union), moments.name)
    assert np.array_equal(fitted.system.B, reduction.system.B)
    errors = []
    for candidate in (reduction.system, fitted.system):
        gap = candidate.simulate(V.swapaxes(1, 2)) - system.simulate(V.swapaxes(1, 2))
        errors.append(np.sqrt(np.mean(np.sum(gap**2, axis=(1, 2)))))
    assert errors[1] < errors[0]
    assert np.isclose(fitted.bound.value[0], errors[1], rtol=1e-6)
    # with gradients of the network, and in the h2 norm, where nothing is left to gain
    sensitivity = OutputSensitivity(union, 40)
    sensitivity.update(V, rng.standard_normal(V.shape))
    metric = OutputMetric(moments, sensitivity)
    weighed = with_read_out(reduction, metric.square_root(union), metric.name)
    assert weighed.bound.value[0] < metric.square_root(union).norms[0]
    again = with_read_out(reduction, h2_root(union, 40), "h2")
    assert np.isclose(again.bound.value[0], reduction.bound.value[0], rtol=1e-9)


def test_refusals():
    with pytest.raises(ShapeError, match="refit"):
        SubsetReductor(refit="input")
    with pytest.raises(UnsupportedOperationError, match="refit"):
        SubsetReductor(metric=InputMoments(1, 30), refit="both")
    with pytest.raises(OrderError, match="sweeps"):
        SubsetReductor(refit="both", sweeps=0)
    with pytest.raises(DataError, match="change"):
        SubsetReductor(refit="both", change=-1.0)
    system = layer(np.random.default_rng(9))
    path = SubsetReductor().path(system)
    for mask in (np.ones((1, 7), bool), np.ones((1, 8))):
        with pytest.raises(ShapeError, match="mask"):
            path.keeping(mask)
