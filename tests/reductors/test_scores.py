"""Published scores by hand and by definition, the masks they make, and what a refit is worth."""

from __future__ import annotations

import mpmath as mp
import numpy as np
import pytest

from ssmred.errors import OrderError, ShapeError, UnstableSystemError, UnsupportedOperationError
from ssmred.norms import hinf_error
from ssmred.reductors import (
    SubsetReductor,
    aire_scores,
    last_scores,
    score_masks,
    single_removal_errors,
    truncation,
)
from ssmred.systems import DiagonalSystem

ROUNDING = 1e-13  # quotients of sums of some tens of products
SMALL = 300  # samples; |pole| <= 0.9 leaves 1e-14 of the response after them


def layer(rng, *, batch=(1,), n=6, m=3, p=2, radius=0.9, **options):
    def normal(*shape):
        return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)

    poles = radius * np.sqrt(rng.random((*batch, n))) * np.exp(2j * np.pi * rng.random((*batch, n)))
    options = {"real_output": True, "recurrence": "post-update", **options}
    D = rng.standard_normal((*batch, p, m))
    return DiagonalSystem(poles, normal(*batch, n, m), normal(*batch, p, n), D, **options)


@pytest.mark.theorem("state-scores")
@pytest.mark.parametrize("score", [last_scores, aire_scores])
def test_scores_by_their_definition_in_many_digits(score):
    rng = np.random.default_rng(1)
    system = layer(rng, batch=(2,), n=5)
    poles = system.poles.copy()
    poles[0, 0], poles[1, 1] = (1 - 1e-12) * 1j, 0.0
    system = system.replace(poles=poles)
    with mp.workdps(50):
        values = {}
        for h in range(2):
            for i in range(5):
                norms = [
                    mp.fsum(mp.mpf(x.real) ** 2 + mp.mpf(x.imag) ** 2 for x in v.tolist())
                    for v in (system.C[h, :, i], system.B[h, i])
                ]
                size = abs(mp.mpc(complex(system.poles[h, i])))
                share = (1 - size) ** 2 if score is last_scores else 1 - size**2
                values[h, i] = norms[0] * norms[1] / share
        expected = np.zeros((2, 5))
        for at, value in values.items():
            larger = [other for other in values.values() if other >= value]
            expected[at] = float(value / mp.fsum(larger))
    assert np.allclose(score(system), expected, rtol=ROUNDING, atol=0)
    assert score(system).max() == 1.0


@pytest.mark.theorem("state-scores")
@pytest.mark.parametrize("recurrence", ["standard", "post-update"])
def test_gain_and_energy_of_one_mode(recurrence):
    """A mode alone has that H-infinity norm and that energy; a real part at most these."""
    rng = np.random.default_rng(2)
    system = layer(rng, n=1, batch=(), recurrence=recurrence, real_output=False)
    system = system.replace(D=0 * system.D)
    none = system.replace(C=0 * system.C)
    size = abs(system.poles[0])
    gain = np.linalg.norm(system.C) * np.linalg.norm(system.B) / (1 - size)
    enclosure = hinf_error(system, none)
    assert enclosure.lower <= gain * (1 + ROUNDING)
    assert gain <= enclosure.upper * (1 + ROUNDING)
    energy = (np.linalg.norm(system.C) * np.linalg.norm(system.B)) ** 2 / (1 - size**2)
    h = system.impulse_response(SMALL)
    assert np.isclose(np.sum(np.abs(h) ** 2), energy, rtol=1e-12)
    real = system.replace(real_output=True)
    assert hinf_error(real, none.replace(real_output=True)).lower <= gain
    assert np.sum(real.impulse_response(SMALL) ** 2) <= energy


@pytest.mark.theorem("state-scores")
@pytest.mark.parametrize("score", ["last", "aire"])
def test_truncation_and_its_bounds(score):
    rng = np.random.default_rng(3)
    system = layer(rng, n=8)
    (mask,) = score_masks([system], states=8, score=score)
    assert mask.sum() == 4
    values = (last_scores if score == "last" else aire_scores)(system)
    assert values[mask].min() >= values[~mask].max()
    reduction = truncation(system, mask)
    gap = system.impulse_response(SMALL) - reduction.system.impulse_response(SMALL)
    assert np.isclose(reduction.bound.value[0], np.linalg.norm(gap), rtol=1e-10)
    assert np.array_equal(reduction.system.C[0], system.C[0][:, mask[0]])
    assert np.array_equal(reduction.system.D, system.D)
    assert reduction.states == 8
    short = truncation(system, mask, horizon=7)
    assert np.isclose(short.bound.value[0], np.linalg.norm(gap[:, :7]), rtol=1e-10)
    # both theorems, zero slack
    sizes = (np.linalg.norm(system.C, axis=1) * np.linalg.norm(system.B, axis=2))[~mask]
    radii = np.abs(system.poles[~mask])
    assert hinf_error(system, reduction.system).lower[0] <= np.sum(sizes / (1 - radii))
    assert np.linalg.norm(gap) <= np.sum(sizes / np.sqrt(1 - radii**2))


@pytest.mark.theorem("state-scores")
@pytest.mark.parametrize("horizon", [20, None])
def test_fitting_again_never_loses(horizon):
    rng = np.random.default_rng(4)
    system = layer(rng, n=8)
    (mask,) = score_masks([system], states=6)
    plain = truncation(system, mask, horizon=horizon).bound.value[0]
    output = SubsetReductor(horizon=horizon).path(system).keeping(mask).bound.value[0]
    both = SubsetReductor(horizon=horizon, refit="both").path(system).keeping(mask)
    greedy = SubsetReductor(horizon=horizon).path(system).reduction(3).bound.value[0]
    assert both.bound.value[0] < output < plain
    assert greedy <= output
    # one mode alone: what the others make up for
    singles = single_removal_errors(system, horizon=horizon)
    for i in range(8):
        alone = np.ones((1, 8), bool)
        alone[0, i] = False
        assert singles[0, i] <= truncation(system, alone, horizon=horizon).bound.value[0]


def test_masks_over_several_layers_keep_what_is_asked():
    rng = np.random.default_rng(5)
    layers = [layer(rng), layer(rng, batch=(3,), n=2, m=1, p=1), layer(rng, n=3)]
    real = DiagonalSystem(rng.uniform(-0.9, 0.9, (2, 2)), np.ones((2, 2)), np.ones((2, 2)))
    for states in (0, 1, 7, 12, 34, 100):
        masks = score_masks([*layers, real], states=states, score="aire")
        kept = sum(2 * int(mask.sum()) for mask in masks[:3]) + int(masks[3].sum())
        assert kept <= states
        assert kept >= min(states, 34) - 1
    padded = layers[0].replace(B=layers[0].B * (np.arange(6) < 4)[:, None])
    assert np.array_equal(last_scores(padded)[0, 4:], [0, 0])


def test_refusals():
    rng = np.random.default_rng(6)
    system = layer(rng)
    with pytest.raises(UnstableSystemError):
        last_scores(system.replace(poles=system.poles / np.abs(system.poles)))
    flow = DiagonalSystem([-1.0], [1.0], [1.0], dt=0.0)
    with pytest.raises(UnsupportedOperationError, match="discrete"):
        aire_scores(flow)
    with pytest.raises(ShapeError, match="score"):
        score_masks([system], states=2, score="magnitude")
    with pytest.raises(OrderError, match="states"):
        score_masks([system], states=-1)
    with pytest.raises(OrderError, match="no systems"):
        score_masks([], states=2)
    for mask in (np.ones(6, bool), np.ones((1, 6))):
        with pytest.raises(ShapeError, match="mask"):
            truncation(system, mask)
