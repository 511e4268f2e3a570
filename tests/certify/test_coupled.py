"""Layers whose channels share a state, and dense channels: zero slack against hard lower bounds."""

import math

import numpy as np
import pytest
from certify_reference import (
    WIDE,
    assert_facts,
    climb,
    convolve,
    impulse_response,
    random_dense,
    random_layer,
    random_pair,
    random_shared,
    value_of,
)

from ssmred.certify import Node, Value, layer_bounds
from ssmred.certify.coupled import CoupledGains
from ssmred.certify.layer_forms import count_states, layer_width
from ssmred.certify.responses import h2_sizes, layer_gains, reduction_gains
from ssmred.certify.rules_ssm import local_error, local_size
from ssmred.certify.rules_table import apply_rule
from ssmred.errors import ShapeError, UnstableSystemError

pytestmark = pytest.mark.theorem("network-bound")
FT = ("feature", "time")
RADII = (0.0, 0.3, 0.9, 1 - 1e-3, 1 - 1e-9, 1 - 1e-12)
TIGHT = 1e-10  # sums of moduli in float64 against extended precision
OVERSAMPLED = 1.02  # 1 / cos(pi / 16), the price of eight points per sample


def toeplitz(h):
    """Return the matrix (T p, T m) of a response (p, m, T) on sequences."""
    p, m, T = h.shape
    matrix = np.zeros((T, p, T, m), dtype=h.dtype)
    for k in range(T):
        for t in range(k, T):
            matrix[t, :, t - k] = h[..., k]
    return matrix.reshape(T * p, T * m)


def attained(matrix):
    """Return a 2-norm that some input of 2-norm 1 reaches, in extended precision."""
    u = np.linalg.svd(matrix.astype(float))[2][0].astype(WIDE)
    return np.sqrt(((matrix @ u) ** 2).sum()) / np.sqrt((u**2).sum())


def node_of(original, reduced):
    return Node("s", "ssm", ("x",), {"system": original, "reduced": reduced}, FT)


def rounding(*systems, T):
    """Bound, over all entries and samples, the rounding of responses in extended precision."""
    return sum(
        (T + s.order + 16) * T * 2.0**-63 * float((abs(s.C) @ abs(s.B) + abs(s.D)).sum())
        for s in systems
    )


def assert_bounds(gains, h, noise=0.0):
    """Check every gain against a response (p, m, T), itself known up to `noise` in l1.

    What is left of a lower bound once the noise is taken off has to be below the gain.
    """
    p, m = h.shape[:2]
    noise = WIDE(noise)
    assert (np.abs(h).sum(axis=-1) - noise <= gains.l1).all()
    assert (np.sqrt((h**2).sum(axis=-1)) - noise <= gains.h2).all()
    assert (np.sqrt((h**2).sum(axis=(1, 2))) - noise <= gains.h2_rows).all()
    matrix = toeplitz(h)
    assert attained(matrix) - noise <= gains.l2_whole
    for i in range(p):
        assert attained(matrix[i::p]) - noise <= gains.l2_rows[i]
        for j in range(m):
            assert attained(matrix[i::p, j::m]) - noise <= gains.l2[i, j]
    steps = np.cumsum(h, axis=-1)
    assert (steps.min(axis=-1) + noise >= gains.step_lo).all()
    assert (steps.max(axis=-1) - noise <= gains.step_hi).all()
    assert (np.sqrt((steps**2).sum(axis=-1)) - h.shape[-1] * noise <= gains.step_l2).all()


@pytest.mark.theorem("finite-horizon-gain")
@pytest.mark.parametrize("seed", range(240))
def test_no_input_exceeds_the_gains(seed):
    rng = np.random.default_rng(seed)
    n, m, p = int(rng.integers(1, 6)), int(rng.integers(1, 4)), int(rng.integers(2, 4))
    T = int(rng.integers(1, 13))
    original, reduced = random_shared(
        rng, m, p, n, kept=int(rng.integers(0, n + 1)), radii=RADII, late=seed % 2 == 1,
        perturb=10.0 ** rng.uniform(-8, 0),
    )  # fmt: skip
    h, g = impulse_response(original, T), impulse_response(reduced, T)
    assert_bounds(layer_gains(original, T), h, rounding(original, T=T))
    difference, alone = reduction_gains(original, reduced, T)
    assert_bounds(difference, h - g, rounding(original, reduced, T=T))
    assert_bounds(alone, g, rounding(reduced, T=T))


@pytest.mark.parametrize("seed", range(8))
def test_gains_are_nearly_attained(seed):
    rng = np.random.default_rng(seed)
    original, reduced = random_shared(rng, 3, 2, 4)
    T = 160
    h = impulse_response(original, T) - impulse_response(reduced, T)
    gains, _ = reduction_gains(original, reduced, T)
    assert gains.l1 == pytest.approx(np.abs(h).sum(axis=-1).astype(float), rel=TIGHT)
    assert gains.h2_rows == pytest.approx(np.sqrt((h**2).sum(axis=(1, 2))).astype(float), rel=TIGHT)
    points = np.exp(-2j * np.pi * np.outer(np.arange(T), np.linspace(0, 1, 4001)))
    transfer = np.moveaxis(h.astype(float) @ points, -1, 0)
    peak = np.linalg.norm(transfer, ord=2, axis=(1, 2)).max()
    assert peak * (1 - TIGHT) <= gains.l2_whole <= peak * OVERSAMPLED
    rows = np.linalg.norm(transfer, axis=2).max(axis=0)
    assert (rows * (1 - TIGHT) <= gains.l2_rows).all()
    assert (gains.l2_rows <= rows * OVERSAMPLED).all()
    assert (gains.l2 <= np.abs(transfer).max(axis=0) * OVERSAMPLED).all()


@pytest.mark.parametrize("seed", range(30))
def test_an_infinite_horizon_covers_every_length(seed):
    rng = np.random.default_rng(seed)
    original, reduced = random_shared(rng, 2, 2, 3, radii=(0.5, 0.99, 1 - 1e-9), late=seed % 2 == 1)
    difference, alone = reduction_gains(original, reduced, None)
    for T in (1, 9, 40):
        h, g = impulse_response(original, T), impulse_response(reduced, T)
        assert_bounds(difference, h - g, rounding(original, reduced, T=T))
        assert_bounds(alone, g, rounding(reduced, T=T))
    both = layer_gains(original, None).l2_whole + layer_gains(reduced, None).l2_whole
    assert difference.l2_whole <= 1.03 * both


@pytest.mark.parametrize("seed", range(20))
def test_scales_far_from_one(seed):
    """Squares of such numbers overflow, or leave nothing."""
    rng = np.random.default_rng(seed)
    original, reduced = random_shared(rng, 2, 2, 3)
    scale = 2.0 ** int(rng.choice([-700, 700]))
    original, reduced = (
        system.replace(C=system.C * scale, D=system.D * scale) for system in (original, reduced)
    )
    h = impulse_response(original, 6) - impulse_response(reduced, 6)
    gains, _ = reduction_gains(original, reduced, 6)
    assert attained(toeplitz(h / WIDE(scale))) * WIDE(scale) <= gains.l2_whole
    assert gains.l2_whole <= gains.l1.sum()
    mixed = original.replace(C=original.C * np.array([[[1.0], [1e-170]]]) / scale,
                             D=original.D * np.array([[[1.0], [1e-170]]]) / scale)  # fmt: skip
    small = impulse_response(mixed, 6)
    assert attained(toeplitz(small[1:] * WIDE(1e170))) <= WIDE(
        layer_gains(mixed, 6).l2_rows[1] * 1e170
    )


@pytest.mark.parametrize("seed", range(40))
def test_differences_far_below_the_response_are_real(seed):
    rng = np.random.default_rng(seed)
    original, _ = random_shared(rng, 2, 3, 6)
    change = 1e-13 * rng.standard_normal((1, 3, 6))
    reduced = original.replace(C=original.C * (1 + change))
    exact = original.replace(C=original.C - reduced.C, D=0 * original.D)
    gains, _ = reduction_gains(original, reduced, 30)
    h = impulse_response(exact, 30)
    assert_bounds(gains, h)
    assert gains.l1 == pytest.approx(np.abs(h).sum(axis=-1).astype(float), rel=1e-2)


@pytest.mark.theorem("error-rules")
@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("kind", ["shared", "late", "dense", "late dense", "dense to diagonal"])
def test_the_rule_holds_for_random_pairs(kind, seed):
    rng = np.random.default_rng(seed)
    m, n, T = (int(size) for size in rng.integers(1, 5, 3))
    late, perturb = kind.startswith("late"), 10.0 ** rng.uniform(-8, 0)
    if "dense" in kind:
        original, reduced = random_dense(rng, m, n, kept=max(1, n - 1), perturb=perturb, late=late)
        if kind == "dense to diagonal":
            reduced, _ = random_layer(rng, m, n)
    else:
        p = int(rng.integers(1, 4)) + (m == 1)
        original, reduced = random_shared(rng, m, p, n, perturb=perturb, late=late)
    pair = random_pair(rng, (m, T), FT)
    value = apply_rule(node_of(original, reduced), value_of(*pair, FT))
    h, g = impulse_response(original, T), impulse_response(reduced, T)
    outputs = convolve(g, pair[0]), convolve(h, pair[1])
    noise = (m * T + 16) * 2.0**-63 * max(float(np.abs(o).max()) for o in (*outputs, *pair))
    noise *= 1.0 + float(np.abs(h).sum(axis=tuple(range(1, h.ndim))).max())
    assert_facts(value, *outputs, noise)


@pytest.mark.parametrize("seed", range(6))
def test_attacks_stay_below_the_bounds(seed):
    rng = np.random.default_rng(seed)
    m, T = 2, 6
    original, reduced = random_shared(rng, m, 3, 3)
    gap = impulse_response(original, T) - impulse_response(reduced, T)
    box = Value(-np.ones((m, 1)), np.ones((m, 1)), FT, float(T)).without_error()
    sup, _ = local_error(node_of(original, reduced), box)
    peaks = np.sign(gap[:, :, ::-1])  # the last output collects every sample with its sign
    for i in range(3):
        reached = convolve(gap, peaks[i][None])[0, i, -1]
        assert reached <= sup[i, 0] <= reached * (1 + TIGHT)
    far = np.full((m, 1), np.inf)
    ball = Value(-far, far, FT, float(T), l2=2.0).without_error()
    sup, features = local_error(node_of(original, reduced), ball)
    size = local_size(node_of(original, reduced), ball)

    def outputs(z):
        u = z.astype(WIDE)
        length = np.sqrt((u**2).sum(axis=(1, 2), keepdims=True)) + WIDE(1e-30)
        return convolve(gap, 2 * u / length)

    whole = climb(lambda z: np.sqrt((outputs(z) ** 2).sum(axis=(1, 2))), (m, T), rng)
    assert whole <= size
    assert size <= np.sqrt((features**2).sum()) * (1 + TIGHT)
    assert climb(lambda z: np.abs(outputs(z)).max(axis=(1, 2)), (m, T), rng) <= sup.max()
    best = 2 * attained(toeplitz(gap))
    assert best <= size


@pytest.mark.parametrize("seed", range(40))
def test_dense_channels(seed):
    rng = np.random.default_rng(seed)
    T = int(rng.integers(1, 30))
    original, reduced = random_dense(rng, 3, 4, kept=int(rng.integers(1, 5)), late=seed % 2 == 1)
    h, g = impulse_response(original, T), impulse_response(reduced, T)
    difference, alone = reduction_gains(original, reduced, T)
    for gains, response in ((difference, h - g), (alone, g)):
        assert (np.abs(response).sum(axis=1) <= gains.l1).all()
        assert gains.l1 == pytest.approx(np.abs(response).sum(axis=1).astype(float), rel=1e-9)
        assert (np.sqrt((response**2).sum(axis=1)) <= gains.h2).all()
        for channel in range(3):
            assert attained(toeplitz(response[channel][None, None])) <= gains.l2[channel]
    difference, _ = reduction_gains(original, reduced, None)
    assert (np.abs(h - g).sum(axis=1) <= difference.l1).all()


def test_h2_sizes_of_all_forms():
    rng = np.random.default_rng(0)
    T = 20
    for original, reduced in (random_shared(rng, 2, 3, 4), random_dense(rng, 3, 4)):
        h, g = impulse_response(original, T), impulse_response(reduced, T)
        size, error = h2_sizes(original, reduced, T)
        exact = float(np.sqrt((h**2).sum()))
        assert size <= exact <= size * (1 + TIGHT)
        gap = np.sqrt(((h - g) ** 2).sum())
        assert gap <= error <= float(gap) * (1 + 1e-9)
        endless, far = h2_sizes(original, reduced, None)
        assert endless >= size * (1 - TIGHT)
        assert far >= error * (1 - 1e-9)
        (record,) = layer_bounds([original], [reduced], T)
        assert record.relative_error == pytest.approx(error / size)


def test_nothing_reduced_makes_no_error():
    original, reduced = random_shared(np.random.default_rng(0), 2, 3, 3)
    x = Value(-np.ones((2, 1)), np.ones((2, 1)), FT, 9.0).without_error()
    for system in (original, original.replace()):
        y = apply_rule(node_of(original, system), x)
        assert y.shape == (3, 1)
        assert y.error_l2 == 0.0
    y = apply_rule(Node("s", "ssm", ("x",), {"system": original}, FT), x)
    assert y.error_l2 == 0.0
    assert isinstance(layer_gains(reduced, 9), CoupledGains)


def test_states_and_widths():
    rng = np.random.default_rng(0)
    shared, _ = random_shared(rng, 2, 3, 4)
    padded = shared.replace(
        poles=np.pad(shared.poles, ((0, 0), (0, 2))),
        B=np.pad(shared.B, ((0, 0), (0, 2), (0, 0))),
        C=np.pad(shared.C, ((0, 0), (0, 0), (0, 2))),
    )
    assert (layer_width(shared), count_states(shared), count_states(padded)) == ((2, 3), 8, 8)
    dense, _ = random_dense(rng, 3, 4)
    assert (layer_width(dense), count_states(dense)) == ((3, 3), 12)
    A = dense.A.copy()
    A[0, 3], A[0, :, 3] = 0.0, 0.0
    B, C = dense.B.copy(), dense.C.copy()
    B[0, 3], C[0, :, 3] = 0.0, 0.0
    assert count_states(dense.replace(A=A, B=B, C=C)) == 11


def test_wrong_pairs_are_refused():
    rng = np.random.default_rng(0)
    original, _ = random_shared(rng, 2, 3, 3)
    other, _ = random_shared(rng, 3, 3, 3)
    with pytest.raises(ShapeError, match="numbers of channels"):
        reduction_gains(original, other, 5)
    batch = original.replace(
        **{key: np.repeat(getattr(original, key), 2, axis=0) for key in ("poles", "B", "C", "D")}
    )
    with pytest.raises(ShapeError, match="wrong form"):
        layer_gains(batch, 5)
    unstable = original.replace(poles=original.poles * 0 + 1.01)
    assert math.isfinite(layer_gains(unstable, 5).l2_whole)
    with pytest.raises(UnstableSystemError):
        layer_gains(unstable, None)
