"""The l2 gain is an upper bound, within the promised factor, for any distance of the poles."""

from __future__ import annotations

import json
from pathlib import Path

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import signal

from ssmred.errors import (
    AccuracyError,
    DataError,
    OrderError,
    UnstableSystemError,
    UnsupportedOperationError,
)
from ssmred.norms import difference_response, impulse_l2_gain, l2_gain, l2_gain_error
from ssmred.systems import DenseSystem, DiagonalSystem, difference

CASES = {
    case["id"]: case
    for case in json.loads(
        (Path(__file__).parents[1] / "reference" / "cases.json").read_text(encoding="utf-8")
    )["cases"]
}
FACTOR = 1 / np.cos(np.pi / 16)  # oversampling 8
TIGHT = 1e-9  # what rounding terms may add, relative, for well-scaled systems


def random_system(seed, *, batch=(), n=5, m=1, p=1, slowest=1e-2, **form) -> DiagonalSystem:
    rng = np.random.default_rng(seed)
    gap = 10.0 ** rng.uniform(np.log10(slowest), -0.2, (*batch, n))
    poles = (1 - gap) * np.exp(1j * rng.uniform(-np.pi, np.pi, (*batch, n)))
    B = rng.normal(size=(*batch, n, m)) + 1j * rng.normal(size=(*batch, n, m))
    C = rng.normal(size=(*batch, p, n)) + 1j * rng.normal(size=(*batch, p, n))
    return DiagonalSystem(poles, B, C, rng.normal(size=(*batch, p, m)), **form)


def exact_transfer(system: DiagonalSystem, z: mpmath.mpc) -> mpmath.mpc:
    """Return H(z) of a single-input single-output system in 50 digits."""
    total = mpmath.mpc(complex(system.D[0, 0]))
    for c, b, pole in zip(system.C[0], system.B[:, 0], system.poles, strict=True):
        r, pole = mpmath.mpc(complex(c)) * mpmath.mpc(complex(b)), mpmath.mpc(complex(pole))
        gain = z if system.recurrence == "post-update" else 1
        total += r * gain / (z - pole) if not system.real_output else 0
        if system.real_output:
            total += r / 2 * gain / (z - pole)
            total += mpmath.conj(r) / 2 * gain / (z - mpmath.conj(pole))
    return total


def exact_sample(system: DiagonalSystem, k: int) -> mpmath.mpf:
    """Return sample k of the real, post-update response of the modes, without D."""
    modes = zip(system.C[0], system.B[:, 0], system.poles, strict=True)
    terms = [[mpmath.mpc(complex(v)) for v in mode] for mode in modes]
    return mpmath.re(mpmath.fsum(c * b * pole**k for c, b, pole in terms))


def exact_peak(system: DiagonalSystem) -> mpmath.mpf:
    """Return a lower bound of max |H|, next to it: 50 digits, local searches from every pole."""
    with mpmath.workdps(50):
        starts = [mpmath.mpf(2 * k) * mpmath.pi / 64 for k in range(64)]
        for pole in system.poles:
            pole = mpmath.mpc(complex(pole))
            gap, angle = 1 - abs(pole), mpmath.arg(pole)
            for sign in (1, -1) if system.real_output else (1,):
                starts += [sign * angle + gap * k for k in (-30, -5, -1, 0, 1, 5, 30)]
        peak = mpmath.mpf(0)
        size = lambda w: abs(exact_transfer(system, mpmath.expj(w)))  # noqa: E731
        for start in sorted(starts, key=lambda w: -size(w))[:6]:
            width = min(1 - abs(mpmath.mpc(complex(p))) for p in system.poles)
            low, high = start - width, start + width
            for _ in range(40):
                third = (high - low) * mpmath.mpf("0.381966")
                if size(low + third) < size(high - third):
                    low += third
                else:
                    high -= third
            peak = max(peak, size((low + high) / 2))
        return peak


FORMS = [
    {"recurrence": recurrence, "real_output": real}
    for recurrence in ("standard", "post-update")
    for real in (False, True)
]


@pytest.mark.theorem("finite-horizon-gain")
@pytest.mark.parametrize("slowest", [1e-1, 1e-3, 1e-6, 1e-9, 1e-12])
@pytest.mark.parametrize("form", FORMS)
def test_infinite_horizon_bounds_the_peak_however_slow_the_poles(form, slowest):
    system = random_system(int(-np.log10(slowest)), n=4, slowest=slowest, **form)
    poles = system.poles.copy()
    poles[0] = (1 - slowest) * poles[0] / abs(poles[0])
    system = system.replace(poles=poles)
    gain, peak = l2_gain(system, horizon=None), exact_peak(system)
    assert mpmath.mpf(gain) >= peak
    assert gain <= float(peak) * FACTOR * (1 + TIGHT)


@pytest.mark.theorem("finite-horizon-gain")
@pytest.mark.parametrize("oversampling", [1.5, 2, 8, 64])
def test_oversampling_tightens_the_infinite_bound(oversampling):
    system = random_system(20, n=6, real_output=True)
    peak = exact_peak(system)
    gain = l2_gain(system, horizon=None, oversampling=oversampling)
    assert mpmath.mpf(gain) >= peak
    assert gain <= float(peak) / np.cos(np.pi / (2 * oversampling)) * (1 + TIGHT)


@pytest.mark.theorem("finite-horizon-gain")
def test_known_peaks():
    one = DiagonalSystem([1 - 1e-12], [1.0], [1.0])
    exact = 1 / (1 - mpmath.mpf(1 - 1e-12))
    assert exact <= mpmath.mpf(l2_gain(one, horizon=None)) <= exact * (1 + TIGHT)
    all_pass = DiagonalSystem([0.5], [1.0], [-0.75], 0.5, dt=0.1)  # (z/2 - 1)/(z - 1/2)
    assert 1.0 <= l2_gain(all_pass, horizon=None) <= FACTOR * (1 + TIGHT)
    assert 3.0 <= l2_gain(DiagonalSystem([0.5], [0.0], [1.0], -3.0), horizon=None) <= 3 * FACTOR


@pytest.mark.theorem("finite-horizon-gain")
def test_poles_where_float64_has_no_points_left_fall_back_to_a_valid_bound():
    for pole in (np.nextafter(1.0, 0), -np.nextafter(1.0, 0), np.nextafter(1.0, 0) * 1j):
        system = DiagonalSystem([pole], [1.0], [1.0])
        with mpmath.workdps(40):
            exact = 1 / (1 - mpmath.mpf(float(abs(pole))))
            assert mpmath.mpf(l2_gain(system, horizon=None)) >= exact
        assert l2_gain(system, horizon=None) <= float(exact) * 2


@pytest.mark.theorem("finite-horizon-gain")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("m", "p"), [(1, 1), (2, 3), (3, 1)])
@pytest.mark.parametrize("horizon", [1, 2, 7, 100])
def test_finite_horizon_bounds_the_sampled_peak(form, m, p, horizon):
    system = random_system(horizon, batch=(2,), m=m, p=p, **form)
    h = system.impulse_response(horizon)
    dense = np.linalg.norm(np.fft.fft(h, 1 << 13, axis=1), ord=2, axis=(-2, -1)).max(axis=1)
    for one in (system, system.to_dense()):
        gain = l2_gain(one, horizon=horizon)
        assert gain.shape == (2,)
        assert (gain >= dense).all()
        assert (gain <= dense * FACTOR * (1 + 1e-3)).all()


@pytest.mark.theorem("finite-horizon-gain")
def test_several_inputs_and_outputs_at_infinite_horizon():
    for seed, form in enumerate(FORMS):
        system = random_system(seed, batch=(2,), n=4, m=2, p=3, slowest=1e-3, **form)
        angles = np.angle(system.poles)[..., None] + 1e-3 * np.linspace(-40, 40, 401)
        omega = np.concatenate([angles.ravel(), -angles.ravel(), np.linspace(-3.2, 3.2, 4000)])
        peak = np.linalg.norm(system.frequency_response(omega), ord=2, axis=(-2, -1)).max(axis=1)
        for one in (system, system.to_dense()):
            gain = l2_gain(one, horizon=None)
            assert (gain >= peak).all()
            assert (gain <= peak * FACTOR * (1 + 1e-4)).all()


@pytest.mark.theorem("finite-horizon-gain")
@given(seed=st.integers(min_value=0, max_value=10**6), post=st.booleans())
def test_no_signal_is_amplified_more(seed, post):
    rng = np.random.default_rng(seed)
    form = {"recurrence": "post-update" if post else "standard", "real_output": True}
    system = random_system(seed, m=2, p=2, **form)
    other = random_system(seed + 1, m=2, p=2, **form)
    u = rng.normal(size=(50, 2))
    size = np.linalg.norm(u)
    y, z = system.simulate(u), other.simulate(u)
    for horizon in (50, None):
        assert np.linalg.norm(y) <= l2_gain(system, horizon=horizon) * size
        assert np.linalg.norm(y - z) <= l2_gain_error(system, other, horizon=horizon) * size


def test_published_peaks_of_discrete_systems():
    case = CASES["cs_d311_hinf"]
    entry = case["input"]
    transfer = signal.TransferFunction(entry["num"], entry["den"], dt=entry["dt"])
    system = DenseSystem.from_scipy(transfer)
    gain = l2_gain(system, horizon=None, oversampling=100)
    assert case["expected"]["hinf"] * (1 - 1e-10) <= gain <= case["expected"]["hinf"] * 1.001


@pytest.mark.theorem("finite-horizon-gain")
@pytest.mark.parametrize("size", [1e-2, 1e-14])
def test_gain_of_a_tiny_difference_is_real(size):
    full = random_system(30, n=6, slowest=1e-4, recurrence="post-update", real_output=True)
    rng = np.random.default_rng(31)
    reduced = full.replace(C=full.C * (1 + size * rng.normal(size=6)))
    peak = exact_peak(difference(full, reduced))
    gain = l2_gain_error(full, reduced, horizon=None)
    assert mpmath.mpf(gain) >= peak
    assert gain <= float(peak) * FACTOR * (1 + TIGHT)
    h, radius = difference_response(full, reduced, 196)
    assert radius.shape == (1, 1)
    assert (radius < 1e-12 * np.abs(h).sum()).all()
    with mpmath.workdps(50):
        terms = difference(full, reduced)
        for k in (0, 1, 195):
            exact = exact_sample(terms, k)
            assert abs(mpmath.mpf(float(h[k, 0, 0])) - exact) <= mpmath.mpf(float(radius[0, 0]))
    finite = l2_gain_error(full, reduced, horizon=196)
    raw = impulse_l2_gain(h[:, 0, 0], radius=radius[0, 0])
    assert finite == pytest.approx(raw, rel=1e-12)
    assert l2_gain_error(full, full, horizon=196) <= 1e-300


def test_rounding_bound_covers_the_samples():
    for seed in range(4):
        zero = random_system(seed, n=1, recurrence="post-update", real_output=True)
        full = random_system(seed + 40, n=8, slowest=1e-9, **FORMS[3])
        h, radius = difference_response(full, zero, 60)
        terms = difference(full, zero)
        with mpmath.workdps(50):
            error = mpmath.mpf(0)
            for k in range(60):
                exact = exact_sample(terms, k)
                if k == 0:
                    exact += mpmath.mpf(float(full.D[0, 0])) - mpmath.mpf(float(zero.D[0, 0]))
                error += abs(mpmath.mpf(float(h[k, 0, 0])) - exact)
            assert error <= mpmath.mpf(float(radius[0, 0]))


def test_order_zero_and_batches():
    static = DiagonalSystem(np.zeros((3, 0)), np.zeros((3, 0, 1)), np.zeros((3, 1, 0)), [1, -2, 3])
    for horizon in (None, 1, 9):
        for system in (static, static.to_dense()):
            gain = l2_gain(system, horizon=horizon)
            assert (gain >= [1, 2, 3]).all()
            assert (gain <= np.array([1, 2, 3]) * FACTOR * (1 + 1e-12)).all()


def test_bad_input():
    system = DiagonalSystem([1.0], [1], [1])
    for one in (system, system.to_dense()):
        with pytest.raises(UnstableSystemError, match=r"l2_gain: .*horizon=T"):
            l2_gain(one, horizon=None)
        assert 2.0 <= l2_gain(one, horizon=3) <= 2.0 * (1 + 1e-12)
    with pytest.raises(OrderError, match="l2_gain: horizon"):
        l2_gain(system, horizon=0)
    with pytest.raises(DataError, match="oversampling"):
        l2_gain(system, horizon=3, oversampling=0.5)
    with pytest.raises(UnsupportedOperationError, match="continuous"):
        l2_gain(DiagonalSystem([-1.0], [1], [1], dt=0), horizon=None)
    with pytest.raises(UnsupportedOperationError, match="not a system"):
        l2_gain(None, horizon=None)
    with pytest.raises(AccuracyError, match="not decayed"):
        l2_gain(DenseSystem([[1 - 1e-9]], [[1]], [[1]]), horizon=None)
    for one in (DiagonalSystem([2.0], [1], [1]), DenseSystem([[2.0]], [[1]], [[1]])):
        with pytest.raises(AccuracyError, match="overflows"):
            l2_gain(one, horizon=3000)
    with pytest.raises(UnsupportedOperationError, match="diagonal"):
        difference_response(system, system.to_dense(), 4)
