"""Differences of impulse responses in double-double arithmetic, against 60 digits."""

import mpmath
import numpy as np
import pytest

from ssmred.kernels.compensated import fill_difference_response

DIGITS = 60
ONE_ROUNDING = 1.2e-16  # half a unit in the last place


def reference(systems, horizon):
    """Return the difference of two responses, one channel, in 60 digits."""
    with mpmath.workdps(DIGITS):
        out = []
        for k in range(horizon):
            total = mpmath.mpf(0)
            for sign, (poles, B, C) in zip((1, -1), systems, strict=True):
                for pole, b, c in zip(poles, B, C, strict=True):
                    total += sign * (mpmath.mpc(c) * mpmath.mpc(b) * mpmath.mpc(pole) ** k).real
            out.append(total)
        return out


def difference(first, second, horizon):
    out = np.empty((first[0].shape[0], horizon))
    fill_difference_response(*first, *second, out)
    return out


def draw(rng, channels, modes):
    return rng.standard_normal((channels, modes)) + 1j * rng.standard_normal((channels, modes))


@pytest.mark.theorem("network-bound")
@pytest.mark.parametrize("seed", range(5))
def test_tiny_differences_of_shared_poles_are_real(seed):
    rng = np.random.default_rng(seed)
    H, n, T = 2, 6, 40
    poles = rng.uniform(0.9, 1 - 1e-12, (H, n)) * np.exp(1j * rng.uniform(-3, 3, (H, n)))
    B, C = draw(rng, H, n), draw(rng, H, n)
    kept = rng.permutation(n)[:4]  # in another order
    change = 1 + 1e-13 * draw(rng, H, 4)
    second = poles[:, kept].copy(), B[:, kept].copy(), C[:, kept] * change
    C[:, [i for i in range(n) if i not in kept]] *= 1e-13
    got = difference((poles, B, C), second, T)
    for h in range(H):
        exact = reference([(poles[h], B[h], C[h]), tuple(a[h] for a in second)], T)
        scale = max(abs(value) for value in exact)
        assert scale < 1e-10
        for k in range(T):
            gap = abs(mpmath.mpf(float(got[h, k])) - exact[k])
            assert gap <= ONE_ROUNDING * abs(exact[k]) + 1e-26


def test_moved_repeated_and_missing_poles():
    rng = np.random.default_rng(9)
    poles = np.array([[0.5, 0.5, 0.9j, 1.0]], dtype=complex)
    B, C = draw(rng, 1, 4), draw(rng, 1, 4)
    second = np.array([[0.5, 0.50001, 0.0]], dtype=complex), draw(rng, 1, 3), draw(rng, 1, 3)
    got = difference((poles, B, C), second, 30)
    exact = reference([(poles[0], B[0], C[0]), tuple(a[0] for a in second)], 30)
    assert got[0] == pytest.approx(np.array([float(v) for v in exact]), rel=1e-14)
    none = np.zeros((1, 0), dtype=complex)
    assert not difference((none, none, none), (none, none, none), 3).any()
    same = difference((poles, B, C), (poles, B, C), 5)
    assert np.abs(same).max() <= 1e-28  # merged into the first of two equal poles
