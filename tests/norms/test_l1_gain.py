"""The l1 gain is an upper bound with zero slack, and tight for decaying systems."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssmred.errors import AccuracyError, UnstableSystemError, UnsupportedOperationError
from ssmred.norms import l1_gain, l1_gain_error
from ssmred.systems import DenseSystem, DiagonalSystem

TIGHT = 1e-11  # rounding terms and a tail of 2**-40, relative


def random_system(seed, *, batch=(), n=5, m=2, p=3, **form) -> DiagonalSystem:
    rng = np.random.default_rng(seed)
    poles = rng.uniform(0.1, 0.97, (*batch, n)) * np.exp(1j * rng.uniform(-3, 3, (*batch, n)))
    B = rng.normal(size=(*batch, n, m)) + 1j * rng.normal(size=(*batch, n, m))
    C = rng.normal(size=(*batch, p, n)) + 1j * rng.normal(size=(*batch, p, n))
    return DiagonalSystem(poles, B, C, rng.normal(size=(*batch, p, m)), **form)


FORMS = [
    {"recurrence": recurrence, "real_output": real}
    for recurrence in ("standard", "post-update")
    for real in (False, True)
]


@pytest.mark.theorem("l1-gain")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("horizon", [None, 1, 2, 50])
def test_row_sums_of_the_samples(form, horizon):
    system = random_system(1, batch=(2,), **form)
    h = system.impulse_response(horizon or 3000)
    rows = np.abs(h).sum(axis=(1, 3)).max(axis=1)
    for one in (system, system.to_dense()):
        gain = l1_gain(one, horizon=horizon)
        assert gain.shape == (2,)
        assert (gain >= rows).all()
        assert (gain <= rows * (1 + (TIGHT if one is system else 1e-5))).all()


@pytest.mark.theorem("l1-gain")
@pytest.mark.parametrize("gap", [0.5, 1e-3, 1e-6, 1e-12, 2.0**-52])
def test_a_single_real_pole_is_exact_at_any_distance(gap):
    pole = 1 - gap
    with mpmath.workdps(40):
        exact = 1 / (1 - mpmath.mpf(pole)) + 2
        for sign in (1, -1):
            gain = l1_gain(DiagonalSystem([sign * pole], [1.0], [1.0], -2.0))
            assert mpmath.mpf(gain) >= exact
            assert gain <= float(exact) * (1 + TIGHT)


@pytest.mark.theorem("l1-gain")
def test_a_slow_pair_is_bounded_within_pi_half():
    pole = (1 - 1e-9) * np.exp(0.7j)
    gain = l1_gain(DiagonalSystem([pole], [1.0], [1.0], real_output=True))
    mean = 2 / np.pi / 1e-9  # mean of |cos| times the geometric sum
    assert mean * (1 - 1e-3) <= gain <= np.pi / 2 * mean * (1 + 1e-3)


@pytest.mark.theorem("l1-gain")
@given(seed=st.integers(min_value=0, max_value=10**6), post=st.booleans())
def test_no_peak_is_amplified_more(seed, post):
    rng = np.random.default_rng(seed)
    form = {"recurrence": "post-update" if post else "standard", "real_output": True}
    system, other = random_system(seed, **form), random_system(seed + 1, **form)
    u = rng.uniform(-1, 1, (60, 2))
    y, z = system.simulate(u), other.simulate(u)
    for horizon in (60, None):
        assert np.abs(y).max() <= l1_gain(system, horizon=horizon) * np.abs(u).max()
        bound = l1_gain_error(system, other, horizon=horizon)
        assert np.abs(y - z).max() <= bound * np.abs(u).max()


@pytest.mark.theorem("l1-gain")
def test_the_sign_input_reaches_the_gain():
    system = random_system(3, m=1, p=1, **FORMS[3])
    h = system.impulse_response(80)[:, 0, 0]
    peak = system.simulate(np.sign(h[::-1, None]))[-1, 0]
    gain = l1_gain(system, horizon=80)
    assert peak <= gain <= peak * (1 + TIGHT)


@pytest.mark.theorem("l1-gain")
def test_finite_horizon_outside_the_circle():
    system = DiagonalSystem([1.0, -1.01, 1j], [1, 1, 1], [1, 1, 1])
    h = system.impulse_response(300)[:, 0, 0]
    for one in (system, system.to_dense()):
        gain = l1_gain(one, horizon=300)
        assert np.abs(h).sum() <= gain <= np.abs(h).sum() * (1 + 1e-9)


def test_order_zero_and_bad_input():
    static = DiagonalSystem(np.zeros(0), np.zeros((0, 1)), np.zeros((1, 0)), -3.0)
    for system in (static, static.to_dense()):
        for horizon in (None, 1, 4):
            assert 3.0 <= l1_gain(system, horizon=horizon) <= 3.0 * (1 + TIGHT)
    unstable = DiagonalSystem([1.0], [1], [1])
    with pytest.raises(UnstableSystemError, match="l1_gain"):
        l1_gain(unstable)
    with pytest.raises(UnsupportedOperationError, match="continuous"):
        l1_gain(DiagonalSystem([-1.0], [1], [1], dt=0))
    with pytest.raises(AccuracyError, match="not decayed"):
        l1_gain(DenseSystem([[1 - 1e-9]], [[1]], [[1]]))
    with pytest.raises(AccuracyError, match="overflow"):
        l1_gain(DiagonalSystem([2.0], [1], [1]), horizon=3000)
