"""Ball arithmetic on arrays: every answer holds the one of 50 digits."""

import math
import os
import subprocess
import sys

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssmred.rigour.balls import (
    INFINITY,
    ONE,
    ZERO,
    arb,
    exact,
    lower_float,
    matrix,
    norm,
    product,
    root,
    spectral_norm,
    times,
    upper_float,
    working_precision,
)

pytestmark = pytest.mark.theorem("ball-arithmetic")

finite = st.floats(allow_nan=False, allow_infinity=False, width=64)


@pytest.fixture(autouse=True)
def precision():
    with working_precision(128):
        yield


@given(finite, st.integers(1, 1000))
def test_upper_and_lower_floats_are_the_nearest_ones(value, divisor):
    with working_precision(128):
        ball = arb(value) / divisor
        top, bottom = upper_float(ball), lower_float(ball)
        assert arb(top) >= ball.upper()
        assert arb(bottom) <= ball.lower()
        if math.isfinite(top):
            assert not arb(math.nextafter(top, -math.inf)) >= ball.upper()
        assert top <= math.nextafter(math.nextafter(bottom, math.inf), math.inf)


def test_unknown_bounds():
    assert upper_float(INFINITY) == math.inf
    assert upper_float(arb.nan()) == math.inf
    assert times(ZERO, INFINITY).is_zero()
    assert times(ONE, INFINITY) == INFINITY
    # not certainly 0: nothing is known
    assert times(arb(0, 1e-30), INFINITY) == INFINITY
    assert root(arb(0, 1e-20)).upper() >= 1e-10


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_stored_numbers_are_exact(kind):
    values = np.array([0.1, -3.7e-30, 2.5], dtype=kind)
    balls = exact(values)
    assert all(ball.is_exact() for ball in balls)
    assert [float(ball) for ball in balls] == values.astype(np.float64).tolist()


def test_norms_and_products_hold_the_answer_of_50_digits():
    rng = np.random.default_rng(0)
    W, v = rng.standard_normal((7, 5)), rng.standard_normal(5) * 1e9
    with mpmath.workdps(50):
        wanted = [mpmath.fsum(mpmath.mpf(a) * mpmath.mpf(b) for a, b in zip(row, v, strict=True))
                  for row in W.tolist()]  # fmt: skip
        length = mpmath.sqrt(mpmath.fsum(mpmath.mpf(b) ** 2 for b in v.tolist()))
        for ball, value in zip(product(matrix(exact(W)), exact(v)), wanted, strict=True):
            assert ball.overlaps(arb(mpmath.nstr(value, 45)))
            assert ball.rel_accuracy_bits() > 90
        assert norm(exact(v)).overlaps(arb(mpmath.nstr(length, 45)))


def test_a_product_with_an_unknown_entry():
    W = matrix(exact([[1.0, 0.0], [0.0, 2.0]]))
    out = product(W, np.array([ONE, INFINITY], dtype=object))
    assert out[0] == 1
    assert out[1] == INFINITY


def mp_spectral_norm(A):
    with mpmath.workdps(50):
        return max(mpmath.svd_r(mpmath.matrix(A.tolist()), compute_uv=False))


def hilbert(n):
    i = np.arange(n)
    return (1.0 / (i[:, None] + i + 1)).astype(np.float32).astype(np.float64)


MATRICES = {
    "tall": np.random.default_rng(1).standard_normal((9, 4)),
    "wide": np.random.default_rng(2).standard_normal((3, 8)),
    "float32 Hilbert": hilbert(10),
    "rank one": np.outer(np.arange(1.0, 6.0), [1e-8, 1.0, 1e8]),
    "equal singular values": np.kron(np.eye(3), [[3.0, 4.0], [-4.0, 3.0]]),
    "close singular values": np.diag([1.0, 1.0 - 2.0**-50, 1.0 - 2.0**-51]),
    "column": np.array([[3.0], [4.0]]),
    "tiny": 1e-200 * np.random.default_rng(3).standard_normal((4, 4)),
    "huge": 1e200 * np.random.default_rng(4).standard_normal((4, 4)),
}


@pytest.mark.parametrize("name", MATRICES)
def test_spectral_norms_are_bounds_and_tight(name):
    A = MATRICES[name]
    bound, wanted = spectral_norm(exact(A)), mp_spectral_norm(A)
    with mpmath.workdps(50):
        top = mpmath.mpf(upper_float(bound))
        assert top >= wanted  # no slack
        assert top <= wanted * (1 + mpmath.mpf(10) ** -12)


def test_the_spectral_norm_of_nothing():
    assert spectral_norm(exact(np.zeros((3, 2)))).is_zero()


def test_the_precision_outside_is_left_alone():
    with working_precision(77):
        with working_precision(300):
            pass
        assert (ONE / 3).rel_accuracy_bits() <= 78


RUN = """
import sys
{before}
try:
    import ssmred.rigour
except ImportError as error:
    print(type(error).__name__, error)
print(sorted({{name.split(".")[0] for name in sys.modules}} & {{"torch", "scipy", "numba"}}))
print(sorted(name for name in sys.modules if name.startswith("ssmred.")))
"""


def run(before=""):
    return subprocess.run(
        [sys.executable, "-c", RUN.format(before=before)],
        capture_output=True, text=True, check=True, env=dict(os.environ),
    ).stdout  # fmt: skip


def test_without_python_flint_the_cure_is_named():
    answer = run('sys.modules["flint"] = None')
    assert answer.startswith("MissingDependencyError")
    assert "pip install 'ssmred[rigour]'" in answer


def test_nothing_of_the_code_that_makes_certificates_is_loaded():
    heavy, own = run().splitlines()
    assert heavy == "[]"
    allowed = ("ssmred.rigour", "ssmred.errors", "ssmred._version")
    assert not [name for name in eval(own) if not name.startswith(allowed)]
