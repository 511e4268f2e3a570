"""The first-order conditions, the gradient, and what is better than balanced truncation."""

from __future__ import annotations

import mpmath as mp
import numpy as np
import pytest
from conformance import ReductorConformance
from hard_systems import dense, diagonal

from ssmred import zoo
from ssmred.errors import AccuracyError, OrderError, SsmredError, ToleranceError
from ssmred.kernels.h2_descent import _evaluated
from ssmred.networks import import_network
from ssmred.norms import h2_error, h2_norm
from ssmred.reductors import BalancedReductor, H2OptimalReductor
from ssmred.reductors.h2_descent import _one_descent, moved_across
from ssmred.systems import DenseSystem, DiagonalSystem

pytestmark = pytest.mark.theorem("h2-optimality")

MET = 1e-6
"""Relative to the responses: a model that moves by 1e-8 is so far from the fixed point, or less."""

DIFFERENCES = 1e-7
"""Central differences with steps of 1e-20 at 60 digits are exact; the gradient is float64."""


class TestTwoSidedIteration(ReductorConformance):
    def make(self, **options):
        return H2OptimalReductor(**options)


class TestDescent(ReductorConformance):
    def make(self, **options):
        return H2OptimalReductor(algorithm="gradient", **options)


def random_systems(kind, *, n=8, count=4):
    """Return single systems with one and with several inputs and outputs."""
    options = {
        "complex": {},
        "half spectrum": {"real_output": True},
        "continuous": {"continuous": True},
        "continuous, half spectrum": {"continuous": True, "real_output": True},
    }
    for seed in range(count):
        m, p = ((1, 1), (2, 3))[seed % 2]
        if kind in options:
            yield diagonal(100 + seed, n=n, m=m, p=p, **options[kind])
        else:
            yield dense(200 + seed, n=n, m=m, p=p, continuous="continuous" in kind)


KINDS = (
    "complex",
    "half spectrum",
    "continuous",
    "continuous, half spectrum",
    "dense",
    "dense, continuous",
)


def response_and_slope(system, s):
    """Return H and H' at one complex point by linear solves."""
    dense_form = system.realified() if system.is_real else system.to_dense()
    gap = s * np.eye(dense_form.order) - dense_form.A
    right = np.linalg.solve(gap, dense_form.B + 0j)
    slope = -dense_form.C @ np.linalg.solve(gap, right)
    return dense_form.C @ right + dense_form.D, slope


def mirrored(pole, discrete):
    return 1 / np.conj(pole) if discrete else -np.conj(pole)


@pytest.mark.parametrize("algorithm", ["tsia", "gradient"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_converged_model_interpolates_at_the_mirror_images_of_its_poles(kind, algorithm):
    converged = 0
    for system in random_systems(kind):
        reductor = H2OptimalReductor(algorithm=algorithm, form="dense", rtol=1e-10, steps=400)
        reduction = reductor.reduce(system, order=2)
        model = reduction.system
        if not reduction.converged:
            continue
        converged += 1
        poles, S = np.linalg.eig(model.A)
        rows, columns = np.linalg.solve(S, model.B + 0j), model.C @ S
        for j, pole in enumerate(poles):
            point = mirrored(pole, system.is_discrete)
            H, dH = response_and_slope(system, point)
            Hr, dHr = response_and_slope(model, point)
            b, c = rows[j].conj(), columns[:, j].conj()
            size, slope = np.linalg.norm(H - system.D), np.linalg.norm(dH)
            b, c = b / np.linalg.norm(b), c / np.linalg.norm(c)
            assert np.linalg.norm((H - Hr) @ b) <= MET * size
            assert np.linalg.norm(c @ (H - Hr)) <= MET * size
            assert abs(c @ (dH - dHr) @ b) <= 10 * MET * slope
    assert converged >= 3


@pytest.mark.parametrize("algorithm", ["tsia", "gradient"])
@pytest.mark.parametrize("kind", KINDS)
def test_never_worse_than_balanced_truncation_and_mostly_better(kind, algorithm):
    gains = []
    for system in random_systems(kind, count=6):
        still = system.replace(D=np.zeros_like(system.D))
        for order in (1, 3):
            start = BalancedReductor(form="dense").reduce(still, order=order)
            best = H2OptimalReductor(algorithm=algorithm, form="dense").reduce(still, order=order)
            before, after = h2_error(still, start.system), h2_error(still, best.system)
            assert after <= before * (1 + 1e-12)  # both are evaluated in float64
            assert best.bound.value == after
            assert best.bound.exact
            gains.append(after / before)
    assert np.median(gains) < 1 - 1e-4  # what balanced truncation leaves may be little


@pytest.mark.parametrize("kind", ["complex", "continuous", "half spectrum"])
def test_both_algorithms_find_the_same_minimum(kind):
    """Minima are local, so not always: in most cases."""
    same = []
    for system in random_systems(kind, count=10):
        one, two = (
            H2OptimalReductor(algorithm=name, form="dense", steps=400).reduce(system, order=1)
            for name in ("tsia", "gradient")
        )
        same.append(abs(one.bound.value - two.bound.value) <= 1e-8 * one.bound.value)
    assert np.mean(same) >= 0.7


@pytest.mark.parametrize("algorithm", ["tsia", "gradient"])
def test_order_one_against_a_search_on_a_grid(algorithm):
    """For a real pole m the error is ``||H||^2 - (1 - m^2) (sum_k h_k m^(k-1))^2``."""
    system = DiagonalSystem([0.9, 0.5, -0.3], [1.0, 1.0, 1.0], [1.0, -0.7, 0.5])
    h = system.impulse_response(400)[1:, 0, 0]
    grid = np.linspace(-0.999, 0.999, 200001)
    gains = (1 - grid**2) * np.polynomial.polynomial.polyval(grid, h) ** 2
    best = np.sqrt(np.sum(h**2) - gains.max())
    found = H2OptimalReductor(algorithm=algorithm).reduce(system, order=1)
    assert found.bound.value <= best
    assert found.bound.value == pytest.approx(best, rel=1e-6)
    assert found.system.poles.real.item() == pytest.approx(grid[gains.argmax()], abs=2e-5)


@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize(("m", "p"), [(1, 1), (2, 3)])
def test_gradient_equals_differences_at_sixty_digits(m, p, real, continuous):
    """The energy is evaluated from Gramians in many digits, with the same read-out."""
    system = diagonal(5, n=4, m=m, p=p, continuous=continuous, real_output=real)
    written = system.full_spectrum() if real else system
    rng = np.random.default_rng(0)
    start = np.array([0.3 + 0.4j, 0.5 + 0j, -0.2 - 0.6j])
    start = (start - 1) if continuous else start
    turns = start.imag != 0 if real else np.ones(3, bool)
    rates = -start.real if continuous else -np.log(np.abs(start))
    rows = rng.standard_normal((3, m)) + 1j * rng.standard_normal((3, m))
    rows = np.where(turns[:, None], rows, rows.real) if m > 1 else np.ones((3, 1), complex)
    x = []
    for j in range(3):
        x += [0.1, -0.05][: 2 if turns[j] else 1]
        if m > 1:
            for value in rows[j]:
                x += [value.real, value.imag][: 2 if turns[j] else 1]
    x = np.array(x)
    columns, gradient = np.empty((3, p), complex), np.empty(x.size)
    out = (np.empty(3, complex), rows.copy(), columns, gradient)
    arrays = (written.poles, written.B, np.ascontiguousarray(written.C.T))
    value = _evaluated(x, start, rates, turns, real, continuous, *arrays, out)

    def energy(y):
        """Return the squared error for parameters y and the read-out that is best for x."""
        k, poles, b, c = 0, list(map(mp.mpc, written.poles)), written.B.tolist(), []
        c = [[-v for v in column] for column in written.C.T.tolist()]
        for j in range(3):
            rate, turn, k = mp.mpf(rates[j]) * mp.exp(y[k]), mp.mpf(0), k + 1
            if turns[j]:
                turn, k = mp.mpf(rates[j]) * y[k], k + 1
            angle = mp.mpf(np.angle(start[j])) + turn
            pole = mp.exp(-rate) * mp.expj(angle)
            if continuous:
                pole = mp.mpc(-rate, mp.mpf(start[j].imag) + turn)
            row = [mp.mpf(1)]
            if m > 1:
                row = []
                for _ in range(m):
                    row.append(mp.mpc(y[k], y[k + 1] if turns[j] else 0))
                    k += 2 if turns[j] else 1
            poles.append(pole)
            b.append(row)
            c.append(list(columns[j]))
            if real and turns[j]:
                poles.append(mp.conj(pole))
                b.append([mp.conj(v) for v in row])
                c.append([mp.conj(mp.mpc(v)) for v in columns[j]])
        total = mp.mpf(0)
        for i, one in enumerate(poles):
            for j, two in enumerate(poles):
                gap = -(one + mp.conj(two)) if continuous else 1 - one * mp.conj(two)
                left = mp.fsum(u * mp.conj(mp.mpc(v)) for u, v in zip(c[i], c[j], strict=True))
                right = mp.fsum(u * mp.conj(mp.mpc(v)) for u, v in zip(b[i], b[j], strict=True))
                total += (left * right / gap).real
        return total

    with mp.workdps(60):
        assert float(energy([mp.mpf(v) for v in x])) == pytest.approx(value, rel=1e-11)
        for k in range(x.size):
            step = mp.mpf(10) ** -20
            ahead, back = ([mp.mpf(v) for v in x] for _ in range(2))
            ahead[k], back[k] = ahead[k] + step, back[k] - step
            difference = float((energy(ahead) - energy(back)) / (2 * step))
            assert abs(gradient[k] - difference) <= DIFFERENCES * abs(value)


def test_poles_meet_on_the_real_axis_and_go_on():
    """The minimum has two real poles: it is nearly ``1 / (z - 0.9) - 1 / (z + 0.8)``."""
    poles = [0.9, -0.8, 0.85, 0.3, 0.1j]
    C = [1.0, -1.0, 0.2, 0.3, 0.1]
    system = DiagonalSystem(poles, np.ones(5), C, real_output=True)
    for algorithm in ("tsia", "gradient"):
        reduction = H2OptimalReductor(algorithm=algorithm, form="dense").reduce(system, order=1)
        assert reduction.system.order == 2
        assert np.all(reduction.system.poles.imag == 0)
        assert bool(reduction.converged)


def test_direct_terms_of_post_update_systems_are_optimal():
    """The first sample is matched: D is free in that recurrence."""
    system = diagonal(7, n=6, recurrence="post-update")
    reduced = H2OptimalReductor().reduce(system, order=2).system
    assert reduced.is_post_update
    gap = system.impulse_response(1) - reduced.impulse_response(1)
    assert abs(gap.item()) <= 1e-10 * np.abs(system.impulse_response(20)).max()


def test_small_errors_are_right():
    """Near full order the errors are far below the square root of rounding."""
    poles = [0.9, 0.6, 0.3, -0.4]
    system = DiagonalSystem(poles, np.ones(4), [1.0, 1.0, 1.0, 1e-11])
    reduction = H2OptimalReductor().reduce(system, order=3)
    start = BalancedReductor().reduce(system, order=3)
    assert 0 < reduction.bound.value <= float(start.h2_error)
    assert reduction.bound.value <= 2e-11


def test_a_tolerance_finds_the_smallest_order():
    system = diagonal(3, n=8, batch=(3,))
    path = H2OptimalReductor().path(system)
    for tol in (0.5, 0.1, 1e-2):
        reduction = path.reduction_to(tol)
        assert np.all(reduction.bound.value <= tol * path.norms)
        for h, kept in enumerate(reduction.orders):
            if kept:
                fewer = path.reduction(np.maximum(reduction.orders - 1, 0))
                assert fewer.bound.value[h] > tol * path.norms[h]


def test_dense_systems_without_eigenvectors():
    A = 0.5 * np.eye(4) + np.diag([1.0, 1.0, 1.0], 1)
    system = DenseSystem(A, [0.0, 0.3, 0.2, 1.0], [1.0, 0.2, 0.1, 0.5])
    reduction = H2OptimalReductor().reduce(system, order=2)
    assert reduction.bound.value < float(BalancedReductor().reduce(system, order=2).h2_error)
    with pytest.raises(AccuracyError, match="defective"):
        H2OptimalReductor(algorithm="gradient").reduce(system, order=2)


def test_what_does_not_converge_says_so():
    system = diagonal(11, n=8, m=2, p=2)
    reduction = H2OptimalReductor(steps=1, rtol=1e-15).reduce(system, order=3)
    assert not reduction.converged
    assert reduction.bound.value <= h2_norm(system.replace(D=0 * system.D))


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"algorithm": "newton"}, SsmredError),
        ({"rtol": 0}, ToleranceError),
        ({"rtol": np.nan}, ToleranceError),
        ({"steps": 0}, OrderError),
        ({"steps": 2.5}, OrderError),
        ({"form": "sparse"}, SsmredError),
    ],
)
def test_bad_options(options, error):
    with pytest.raises(error, match="H2OptimalReductor"):
        H2OptimalReductor(**options)


@pytest.mark.theorem("h2-optimality")
def test_real_poles_that_come_to_zero_change_sign_and_never_are_zero():
    """Layers are post-update: a pole 0 has no such form. Two real poles, one of them negative."""
    poles = np.array([[0.9, -0.6, 1e-12]])
    start = DiagonalSystem(poles, np.ones((1, 3, 1)), np.ones((1, 1, 3)), dt=1.0, real_output=True)
    moved, counts, crossed = moved_across(start, np.array([3]))
    assert crossed.all()
    assert counts.tolist() == [3]
    assert moved.poles[0, :2].tolist() == [0.9, -0.6]
    assert moved.poles[0, 2] == -0.05
    zero = start.replace(poles=np.where(poles == 1e-12, 0, poles))
    model, _, _ = _one_descent(zero.full_spectrum(), zero, np.array([3]), True, 0)
    assert (np.abs(model.poles) >= 1e-8).all()


def test_a_trained_post_update_layer_is_reduced_at_every_order_asked_for():
    layer = import_network(zoo.load("fashion-mnist-s4d")[0]).layers[3].system
    reduction = H2OptimalReductor().reduce(layer, order=10)
    used = (reduction.system.B != 0).any(axis=-1)
    assert (np.abs(reduction.system.poles[used]) > 0).all()
    assert np.isfinite(reduction.claim.value).all()
    assert (reduction.claim.relative < 1).all()
