"""Responses and gains of layers in balls, against 50 digits; poles next to the circle."""

import mpmath
import numpy as np
import pytest

from ssmred.errors import CheckpointError
from ssmred.rigour.balls import arb, upper_float, working_precision
from ssmred.rigour.layers import Channels, Reduction, gains_of, transform_length

pytestmark = pytest.mark.theorem("ball-arithmetic")

DIGITS = 60


@pytest.fixture(autouse=True)
def precision():
    with working_precision(128):
        yield


def quiet():
    pass


def s4d(rng, H=2, n=3, kind=np.float32):
    return {
        "D": rng.standard_normal(H).astype(kind),
        "C": rng.standard_normal((H, n, 2)).astype(kind),
        "log_dt": rng.uniform(-7, -2, H).astype(kind),
        "log_A_real": rng.uniform(-2, 1, (H, n)).astype(kind),
        "A_imag": (np.pi * np.arange(n) * np.ones((H, 1))).astype(kind),
    }


def modes(poles, residues, D=(0.0,)):
    """Return the tensors of a reduced layer of one channel."""
    pairs = [np.stack([np.real(a), np.imag(a)], -1).astype(np.float64) for a in (poles, residues)]
    return {"poles": pairs[0], "residues": pairs[1], "D": np.asarray(D, np.float64),
            "offsets": np.array([0, len(pairs[0])])}  # fmt: skip


def mp_s4d(tensors, channel, horizon):
    """Return the response by the formula of the layer, sample by sample."""
    mpf = mpmath.mpf
    dt = mpmath.exp(mpf(float(tensors["log_dt"][channel])))
    h = []
    for k in range(horizon):
        value = mpf(0)
        for i in range(tensors["A_imag"].shape[1]):
            A = mpmath.mpc(-mpmath.exp(mpf(float(tensors["log_A_real"][channel, i]))),
                           float(tensors["A_imag"][channel, i]))  # fmt: skip
            C = mpmath.mpc(*map(float, tensors["C"][channel, i]))
            value += 2 * (C * (mpmath.exp(dt * A) - 1) / A * mpmath.exp(dt * A * k)).real
        h.append(value + (mpf(float(tensors["D"][channel])) if k == 0 else 0))
    return h


def mp_modes(tensors, horizon):
    poles, residues = ([mpmath.mpc(*pair) for pair in tensors[key].tolist()]
                       for key in ("poles", "residues"))  # fmt: skip
    h = [mpmath.fsum((r * p**k).real for r, p in zip(residues, poles, strict=True))
         for k in range(horizon)]  # fmt: skip
    h[0] += mpmath.mpf(float(tensors["D"][0]))
    return h


def as_ball(value):
    return arb(mpmath.nstr(value, DIGITS - 5))


def holds(balls, values, bits):
    """Tell whether balls hold the values and are as narrow as said."""
    inside = all(b.overlaps(as_ball(value)) for b, value in zip(balls, values, strict=True))
    return inside and all(b.is_zero() or b.rad() <= arb(2) ** -bits for b in balls)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("horizon", [1, 2, 17, 60])
def test_s4d_responses_hold_the_formula(kind, horizon):
    tensors = s4d(np.random.default_rng(0), kind=kind)
    h = Channels.of_s4d(tensors).response(horizon)
    with mpmath.workdps(DIGITS):
        for channel in range(2):
            assert holds(h[channel], mp_s4d(tensors, channel, horizon), 100)


HARD = {
    "next to the circle": modes(
        [1 - 1e-12, (1 - 1e-12) * np.exp(0.3j), -(1 - 1e-12)], [1.0, 2.0 - 1j, 0.5]
    ),
    "on and outside the circle": modes([1.0, 1.05j], [1.0, 1.0]),
    "huge residues that cancel": modes(
        [0.9, 0.9 + 1e-13, np.nextafter(0.9, 1)], [1e14, -1e14, 3.0]
    ),
    "one pole twice": modes([0.5 + 0.5j, 0.5 + 0.5j], [1.0 + 1j, -1.0]),
    "pole 0": modes([0.0, 0.25], [2.0, 1.0], D=[-2.0]),
    "nothing": modes([], [], D=[0.5]),
}


@pytest.mark.parametrize("name", HARD)
def test_hard_responses_hold_50_digits(name):
    horizon = 400
    h = Channels.of_modes(HARD[name]).response(horizon)[0]
    with mpmath.workdps(DIGITS):
        assert holds(h, mp_modes(HARD[name], horizon), 60)


@pytest.mark.theorem("l1-gain")
@pytest.mark.theorem("finite-horizon-gain")
@pytest.mark.parametrize("name", HARD)
def test_gains_are_bounds_without_slack(name):
    horizon = 50
    channels = Channels.of_modes(HARD[name])
    gains = gains_of(channels.response(horizon), quiet)
    with mpmath.workdps(DIGITS):
        h = mp_modes(HARD[name], horizon)
        l1 = mpmath.fsum(abs(v) for v in h)
        h2 = mpmath.sqrt(mpmath.fsum(v**2 for v in h))
        steps = [mpmath.fsum(h[: k + 1]) for k in range(horizon)]
        peak = max(
            abs(mpmath.fsum(v * mpmath.expj(-w * k) for k, v in enumerate(h)))
            for w in np.linspace(0, np.pi, 401)
        )
        assert gains.l1[0].overlaps(as_ball(l1))
        assert gains.h2[0].overlaps(as_ball(h2))
        assert gains.step_lo[0].overlaps(as_ball(min(steps)))
        assert gains.step_hi[0].overlaps(as_ball(max(steps)))
        assert gains.step_l2[0].overlaps(as_ball(mpmath.sqrt(mpmath.fsum(v**2 for v in steps))))
        assert mpmath.mpf(upper_float(gains.l2[0])) >= peak
        assert mpmath.mpf(upper_float(gains.l2[0])) <= 1.02 * max(peak, h2) + mpmath.mpf(1e-300)


def test_transform_lengths():
    assert [transform_length(T) for T in (1, 2, 3, 7, 196)] == [8, 16, 24, 60, 1600]


def test_equal_layers_differ_by_exactly_nothing():
    tensors = s4d(np.random.default_rng(1))
    first, second = (Channels.of_s4d({k: v.copy() for k, v in tensors.items()}) for _ in range(2))
    layer = Reduction.between("x", first, second, 9, quiet)
    assert all(gain.is_zero() for gain in (*layer.difference.l1, *layer.difference.l2))
    tensors["C"][1, 0, 0] = np.nextafter(tensors["C"][1, 0, 0], np.float32(9))
    layer = Reduction.between("x", first, Channels.of_s4d(tensors), 9, quiet)
    assert layer.difference.l1[0].is_zero()
    assert layer.difference.l1[1] > 0


def test_the_import_to_float64_is_seen_and_small():
    """The original's own poles, rounded to float64, are another layer: by about 1e-16 of it."""
    tensors = s4d(np.random.default_rng(2), H=1)
    A = -np.exp(tensors["log_A_real"].astype(float)) + 1j * tensors["A_imag"]
    dtA = A * np.exp(tensors["log_dt"].astype(float))[:, None]
    C = tensors["C"][..., 0] + 1j * tensors["C"][..., 1].astype(float)
    imported = modes(np.exp(dtA)[0], (2 * C * np.expm1(dtA) / A)[0], tensors["D"].astype(float))
    exact_layer = Channels.of_s4d(tensors)
    layer = Reduction.between("x", exact_layer, Channels.of_modes(imported), 40, quiet)
    found = upper_float(layer.difference.l1[0])
    assert 0.0 < found <= layer.rounding[0]
    assert layer.rounding[0] < 1e-11 * upper_float(layer.original.l1[0])


def test_misshapen_layers_are_refused():
    tensors = s4d(np.random.default_rng(0))
    with pytest.raises(CheckpointError, match="log_dt"):
        Channels.of_s4d(tensors | {"log_dt": tensors["log_dt"][:1]})
    reduced = modes([0.5], [1.0])
    with pytest.raises(CheckpointError, match="offsets"):
        Channels.of_modes(reduced | {"offsets": np.array([0, 2])})
    one, two = Channels.of_modes(reduced), Channels.of_s4d(tensors)
    with pytest.raises(CheckpointError, match="channels"):
        Reduction.between("x", one, two, 3, quiet)
