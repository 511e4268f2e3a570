"""Ranges and slopes of entrywise functions, against 50 digits and points inside."""

from itertools import pairwise

import mpmath
import numpy as np
import pytest

from ssmred.rigour.balls import arb, exact, working_precision
from ssmred.rigour.functions import RANGES, SLOPES

pytestmark = pytest.mark.theorem("ball-arithmetic")


def mp_gelu(x):
    return x * mpmath.ncdf(x)


def mp_tanh_gelu(x):
    inner = mpmath.sqrt(2 / mpmath.pi) * (x + mpmath.mpf("0.044715") * x**3)
    return x / (1 + mpmath.exp(-2 * inner))


MP = {
    "gelu": mp_gelu,
    "tanh-gelu": mp_tanh_gelu,
    "silu": lambda x: x / (1 + mpmath.exp(-x)),
    "relu": lambda x: max(x, mpmath.mpf(0)),
    "tanh": mpmath.tanh,
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
}
ENDS = [(-4.0, -2.0), (-1.0, -0.5), (-0.75179152469356458, 3.0), (-0.7, 0.4), (0.0, 0.0),
        (1.2, 1.4), (1.3, 1.5), (2.3, 2.5), (-2.45, -2.38), (-1.5, -1.2), (-30.0, 30.0),
        (-1e6, 1e24), (5.0, 40.0)]  # fmt: skip


@pytest.fixture(autouse=True)
def precision():
    with working_precision(128):
        yield


def inside(low, high):
    """Return points of an interval, near its ends, near 0 and in between."""
    rng = np.random.default_rng(0)
    points = [low, high, *rng.uniform(low, high, 20), -1.0, -1e-3, 1e-3, 1.0]
    points += [-0.7517915246935645, 1.4142135623730951, -1.4142135623730951, -1.2784645427610738]
    return [p for p in points if low <= p <= high and abs(p) < 1e5]


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize("ends", ENDS)
def test_ranges_hold_every_point(name, ends):
    lo, hi = RANGES[name](exact([ends[0]]), exact([ends[1]]))
    with mpmath.workdps(50):
        for point in inside(*ends):
            value = arb(mpmath.nstr(MP[name](mpmath.mpf(point)), 45))
            assert lo[0].lower() <= value.upper()
            assert hi[0].upper() >= value.lower()


@pytest.mark.parametrize("name", SLOPES)
@pytest.mark.parametrize("ends", ENDS)
def test_slopes_bound_every_difference_quotient(name, ends):
    slope = SLOPES[name](exact([ends[0]]), exact([ends[1]]))[0]
    with mpmath.workdps(50):
        points = sorted(set(inside(*ends)))
        for a, b in pairwise(points):
            first, second = (MP[name](mpmath.mpf(p)) for p in (a, b))
            quotient = abs(second - first) / (mpmath.mpf(b) - mpmath.mpf(a))
            # below the 50 digits of the reference there is nothing to compare
            assert slope.upper() >= arb(mpmath.nstr(quotient, 40)) - arb("1e-35")


@pytest.mark.parametrize("name", ["gelu", "silu"])
def test_extrema_are_those_of_50_digits(name):
    """A hand-free check: minimum and largest slope by root finding in mpmath."""
    guesses = {"gelu": (-0.75, 1.41), "silu": (-1.28, 2.4)}[name]
    wide = exact([-50.0]), exact([50.0])
    with mpmath.workdps(50):
        least = MP[name](mpmath.findroot(lambda x: mpmath.diff(MP[name], x), guesses[0]))
        place = mpmath.findroot(lambda x: mpmath.diff(MP[name], x, 2), guesses[1])
        steepest = mpmath.diff(MP[name], place)
        assert abs(RANGES[name](*wide)[0][0] - arb(mpmath.nstr(least, 45))) < arb("1e-25")
        assert abs(SLOPES[name](*wide)[0] - arb(mpmath.nstr(steepest, 45))) < arb("1e-25")


def test_slopes_away_from_extrema_are_sharp():
    """GELU's slope on [2, 3] is that at 2, where g'' < 0 beyond sqrt(2)."""
    slope = SLOPES["gelu"](exact([2.0]), exact([3.0]))[0]
    with mpmath.workdps(50):
        wanted = mpmath.diff(mp_gelu, 2)
        assert abs(slope - arb(mpmath.nstr(wanted, 45))) < arb("1e-25")


def test_an_end_that_balls_cannot_tell_from_the_extremum_counts_as_it():
    end = arb(2).sqrt() + arb(0, 1e-30)
    slope = SLOPES["gelu"](np.array([end], dtype=object), exact([3.0]))[0]
    assert slope.upper() >= SLOPES["gelu"](exact([1.0]), exact([2.0]))[0].lower()
