"""Chains of layers with quadratic outputs: the bound, its weights, and the best read-outs in it."""

import math

import numpy as np
import pytest

from ssmred.certify import QuadraticBlock, quadratic_chain_bound
from ssmred.errors import DataError, ShapeError
from ssmred.norms import h2_error, h2_norm
from ssmred.reductors import with_best_read_out
from ssmred.systems import DenseSystem, QuadraticOutputSystem

pytestmark = pytest.mark.theorem("quadratic-chain")
T = 24


def real_system(rng, *, n=4, m=2, p=2, size=1.0):
    """Return a stable real system, first recurrence of the layers, not small in either part."""
    A = rng.standard_normal((n, n))
    A *= rng.uniform(0.3, 0.95) / np.abs(np.linalg.eigvals(A)).max()
    M = rng.standard_normal((p, n, n))
    linear = DenseSystem(
        A, size * rng.standard_normal((n, m)), rng.standard_normal((p, n)),
        rng.standard_normal((p, m)), recurrence="post-update",
    )  # fmt: skip
    return QuadraticOutputSystem.of(linear, (M + M.swapaxes(-1, -2)) / 2)


def scaled(system, unit):
    return system.replace(B=unit * system.B, D=unit * system.D)


def small_of(rng, full, order):
    """Return a smaller system, near or far: the best read-out of random states, disturbed."""
    states = real_system(rng, n=order).linear
    best = with_best_read_out(full, states, horizon=T)
    return best.replace(C=best.C + rng.choice([0.0, 0.3]) * rng.standard_normal(best.C.shape))


class Chain:
    """A network ``z <- skip z + after tanh(S(before z))``, as it is and as it is reduced."""

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self.rng, depth = rng, int(rng.integers(1, 5))
        size = 10.0 ** rng.uniform(-2, 0.5)
        self.full = [real_system(rng, size=size) for _ in range(depth)]
        self.small = [small_of(rng, one, int(rng.integers(1, 4))) for one in self.full]
        self.before, self.after = (rng.uniform(0.2, 2, depth) for _ in range(2))
        self.skip = rng.choice([0.0, 1.0], depth)
        self.bounded = rng.uniform() < 0.5

    def run(self, systems, u):
        seen = []
        for system, before, after, skip in zip(
            systems, self.before, self.after, self.skip, strict=True
        ):
            seen.append(np.linalg.norm(before * u))
            y = system.simulate(before * u)
            u = skip * u + after * (np.tanh(y) if self.bounded else y)
        return u, seen

    def inputs(self):
        """Noise, constants, resonance with the first layer, all of them also small or large."""
        poles = np.linalg.eigvals(self.full[0].linear.A)
        angle = float(np.angle(poles[np.argmax(np.abs(poles))]))
        wave = np.cos(angle * np.arange(T))[:, None] * self.rng.choice([-1.0, 1.0], 2)
        kernel = self.full[0].linear.impulse_response(T)[::-1, 0]  # the peak at the last step
        shapes = [self.rng.standard_normal((T, 2)), np.ones((T, 2)), wave, kernel]
        return [10.0 ** self.rng.uniform(-2, 0.5) * shape for shape in shapes]

    def bound(self, energies, unit, **options):
        blocks, errors, norms = [], [], []
        for k, (full, small) in enumerate(zip(self.full, self.small, strict=True)):
            own = unit or max(energies[k], 1e-9)
            one, two = scaled(full, own), scaled(small, own)
            blocks.append(
                QuadraticBlock(
                    f"layers.{k}", self.before[k], self.after[k], self.skip[k], energies[k],
                    float(h2_norm(one, horizon=T)), own,
                )
            )  # fmt: skip
            errors.append(float(h2_error(one, two, horizon=T)))
            norms.append(float(h2_norm(two, horizon=T)))
        return quadratic_chain_bound(blocks, errors, norms, T, **options)


def check_chain(seed):
    chain = Chain(seed)
    for u in chain.inputs():
        wanted, energies = chain.run(chain.full, u)
        gap = np.linalg.norm(wanted - chain.run(chain.small, u)[0])
        for unit in (1.0, None, 0.1):
            found = chain.bound(energies, unit)
            assert gap <= found.bound
            assert sum(found.contributions) >= 0.99 * found.bound or math.isinf(found.bound)


@pytest.mark.parametrize("start", range(0, 60, 20))
def test_bounds_hold(start):
    for seed in range(start, start + 20):
        check_chain(seed)


@pytest.mark.slow
@pytest.mark.parametrize("start", range(60, 500, 55))
def test_bounds_of_five_hundred_networks_hold(start):
    for seed in range(start, start + 55):
        check_chain(seed)


def test_one_layer_and_one_sample_are_met_exactly():
    """y = m (b u)^2: the h2 norm and the output are both m b^2 u^2 in the unit of the input."""
    linear = DenseSystem([[0.0]], [[2.0]], [[0.0]], recurrence="post-update")
    system = QuadraticOutputSystem.of(linear, [[3.0]])
    u = 5.0
    norm = float(h2_norm(scaled(system, u), horizon=1))
    block = QuadraticBlock("one", 1.0, 1.0, 0.0, u, norm, u)
    bound = quadratic_chain_bound([block], [norm], [0.0], 1).bound
    assert bound == pytest.approx(math.sqrt(2) * 3 * (2 * u) ** 2, rel=1e-12)
    # a unit that is small beside the input makes no such factor
    norm = float(h2_norm(scaled(system, 1e-4), horizon=1))
    block = QuadraticBlock("one", 1.0, 1.0, 0.0, u, norm, 1e-4)
    assert quadratic_chain_bound([block], [norm], [0.0], 1).bound == pytest.approx(300, rel=1e-6)


def test_weights_are_derivatives_and_fall_towards_the_output():
    blocks = [QuadraticBlock(str(k), 1.0, 1.0, 1.0, 1.0, 0.5) for k in range(4)]
    none = quadratic_chain_bound(blocks, [0.0] * 4, [0.5] * 4, T)
    assert none.bound == 0.0
    assert list(none.weights) == sorted(none.weights, reverse=True)
    for k in range(4):
        errors = [1e-9 * (j == k) for j in range(4)]
        bound = quadratic_chain_bound(blocks, errors, [0.5] * 4, T).bound
        assert bound / 1e-9 == pytest.approx(none.weights[k], rel=1e-4)


def test_best_read_outs():
    """3a, and 3c: no other read-out of one layer has a smaller bound than a weaker best one."""
    rng = np.random.default_rng(0)
    full = real_system(rng)
    states = real_system(rng, n=2).linear
    best = with_best_read_out(full, states, horizon=T)
    norm, error, left = (
        float(value)
        for value in (
            h2_norm(full, horizon=T), h2_error(full, best, horizon=T), h2_norm(best, horizon=T),
        )
    )  # fmt: skip
    assert norm**2 == pytest.approx(error**2 + left**2, rel=1e-10)
    first = QuadraticBlock("first", 1.0, 1.0, 1.0, 1.0, 1.0)
    second = QuadraticBlock("second", 1.0, 1.0, 1.0, 1.0, norm)

    def bound(system):
        errors = [0.01, float(h2_error(full, system, horizon=T))]
        norms = [1.0, float(h2_norm(system, horizon=T))]
        return quadratic_chain_bound([first, second], errors, norms, T).bound

    def times(system, t):
        return system.replace(C=t * system.C, D=t * system.D, M=t * system.M)

    weaker = [bound(times(best, t)) for t in np.linspace(0.0, 1.0, 201)]
    least = int(np.argmin(weaker))
    assert 0 < least < 200  # not the best read-out itself
    for _ in range(200):
        M = rng.standard_normal(best.M.shape)
        C, D = (rng.standard_normal(getattr(best, name).shape) for name in "CD")
        s = 10.0 ** rng.uniform(-4, 0)
        one = times(best, rng.uniform(0, 1))
        other = one.replace(C=one.C + s * C, D=one.D + s * D, M=one.M + s * (M + M.swapaxes(1, 2)))
        assert bound(other) >= weaker[least]


def test_divergence_is_reported():
    blocks = [QuadraticBlock(str(k), 1.0, 1.0, 1.0, 1e60, 1e60) for k in range(4)]
    found = quadratic_chain_bound(blocks, [1e60] * 4, [1e60] * 4, T)
    assert found.bound == math.inf
    assert quadratic_chain_bound(blocks, [0.0] * 4, [1e60] * 4, T).bound == 0.0
    one = QuadraticBlock("one", 1.0, 1.0, 0.0, 1.0, 1.0)
    assert quadratic_chain_bound([one], [0.1], [1.0], None).bound == math.inf
    assert quadratic_chain_bound([one], [0.0], [1.0], None).bound == 0.0
    gate = QuadraticBlock("gate", 1.0, math.inf, 1.0, 1.0, 1.0)
    assert quadratic_chain_bound([gate], [0.1], [1.0], T).bound == math.inf


def test_bad_input():
    with pytest.raises(DataError, match=r"before of 'a' is no bound.*got -1"):
        QuadraticBlock("a", -1.0, 1.0, 1.0, 1.0, 1.0)
    with pytest.raises(DataError, match=r"norm of 'a' is no bound.*got nan"):
        QuadraticBlock("a", 1.0, 1.0, 1.0, 1.0, math.nan)
    with pytest.raises(DataError, match=r"unit of 'a' is no unit.*got 0"):
        QuadraticBlock("a", 1.0, 1.0, 1.0, 1.0, 1.0, 0.0)
    one = QuadraticBlock("a", 1.0, 1.0, 1.0, 1.0, 1.0)
    with pytest.raises(ShapeError, match="1 of each, got 2 errors, 1 norms"):
        quadratic_chain_bound([one], [0.1, 0.2], [1.0], T)
    with pytest.raises(DataError, match="reduced_norms are no norms"):
        quadratic_chain_bound([one], [0.1], [-1.0], T)
