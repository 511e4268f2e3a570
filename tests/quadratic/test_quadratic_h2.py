"""H2-optimal reduction with quadratic outputs: conditions, and what is returned."""

import numpy as np
import pytest
from quadratic_cases import FORMS, TIMES, in_time, normal, plain, quadratic_system
from scipy import linalg

from ssmred.errors import ShapeError, UnstableSystemError, UnsupportedOperationError
from ssmred.norms import h2_error, h2_norm
from ssmred.reductors import (
    H2OptimalReductor,
    QuadraticBalancedReductor,
    QuadraticH2Reductor,
    with_best_read_out,
)
from ssmred.reductors.quadratic_descent import quadratic_descent
from ssmred.reductors.quadratic_modes import ModalStates, modal_states
from ssmred.reductors.quadratic_objective import QuadraticObjective
from ssmred.reductors.quadratic_tsia import quadratic_two_sided
from ssmred.systems import DiagonalSystem, QuadraticOutputSystem, is_stable

METHODS = ("tsia", "descent", "both")


def real_system(seed, n=30, m=1, p=1, *, continuous=False):
    """Return a system with dense random matrices, of spectral radius 0.95."""
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((n, n))
    A *= 0.95 / np.abs(np.linalg.eigvals(A)).max()
    if continuous:
        A -= (np.linalg.eigvals(A).real.max() + 0.1) * np.eye(n)
    M = rng.standard_normal((p, n, n))
    B, C = rng.standard_normal((n, m)), rng.standard_normal((p, n))
    return QuadraticOutputSystem(A, B, C, (M + M.swapaxes(1, 2)) / 2, dt=float(not continuous))


# --- conditions ----------------------------------------------------------------------------------


@pytest.mark.theorem("quadratic-h2")
@pytest.mark.parametrize("method", ["tsia", "both"])
@pytest.mark.parametrize("continuous", [False, True])
def test_first_order_conditions(continuous, method):
    """All gradients of the unconstrained problem vanish, by plain solvers in real matrices."""
    full = real_system(5, n=12, m=2, p=2, continuous=continuous)
    start = QuadraticBalancedReductor(read_out="best").reduce(full, order=4).system
    reduction = QuadraticH2Reductor(method=method, rtol=1e-9, steps=2000).reduce(full, order=4)
    assert reduction.converged
    sizes = []
    for model in (start, reduction.system):
        A, B, C, M = full.A, full.B, full.C, full.M
        a, b, c, N = model.A, model.B, model.C, model.M
        if continuous:

            def solved(left, right, W):
                return linalg.solve_sylvester(left, right, -W)
        else:

            def solved(left, right, W):
                kron = np.kron(left, right.T)
                X = np.linalg.solve(np.eye(len(kron)) - kron, W.ravel())
                return X.reshape(W.shape)

        X, P = solved(A, a.T, B @ b.T), solved(a, a.T, b @ b.T)
        Z = solved(A.T, a, C.T @ c + 2 * sum(M[j] @ X @ N[j] for j in range(2)))
        Q = solved(a.T, a, c.T @ c + 2 * sum(N[j] @ P @ N[j] for j in range(2)))
        inner, other = (P, X) if continuous else (a @ P, A @ X)
        parts = [
            (Q @ inner, Z.T @ other), (Q @ b, Z.T @ B), (c @ P, C @ X),
            *((P @ N[j] @ P, X.T @ M[j] @ X) for j in range(2)),
        ]  # fmt: skip
        sizes.append([np.linalg.norm(u - v) / np.linalg.norm(v) for u, v in parts])
        if model is reduction.system:  # the same as a projection
            V, W = X @ np.linalg.inv(P), Z @ np.linalg.inv(Q)
            np.testing.assert_allclose(W.T @ V, np.eye(4), atol=1e-6)
            np.testing.assert_allclose(W.T @ A @ V, a, atol=1e-6)
            np.testing.assert_allclose(V.T @ M[1] @ V, N[1], atol=1e-6 * np.abs(N[1]).max())
    assert max(sizes[1]) <= 1e-7
    assert min(sizes[0][:2]) > 1e-5  # which the start does not meet
    assert max(sizes[0][2:]) <= 1e-9  # but for its read-out


@pytest.mark.theorem("quadratic-h2")
def test_order_one_on_a_grid():
    """One real pole, one input: J is a function of one number."""
    best = 0
    for seed in range(8):
        full = real_system(seed, n=6)
        reduction = QuadraticH2Reductor().reduce(full, order=1)
        objective = QuadraticObjective(full, None)
        grid = np.linspace(-0.999, 0.999, 2001)
        values = [objective(np.array([pole]), np.ones((1, 1))).value for pole in grid]
        near = np.abs(grid - reduction.system.A[0, 0]) < 0.01
        square = reduction.bound.value**2
        assert square <= np.min(values, where=near, initial=np.inf) * (1 + 1e-12)
        best += square <= min(values) * (1 + 1e-12)
    assert best >= 6


# --- what is returned ----------------------------------------------------------------------------


@pytest.mark.theorem("quadratic-h2")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("time", "horizon"), TIMES)
def test_never_worse_than_the_start_and_stable(time, horizon, method):
    """12 forms of systems, both result forms: 360 searches altogether."""
    better, count = 0, 0
    for seed, form in enumerate(FORMS):
        full = in_time(seed, form, time, horizon, n=5, radius=0.95)
        for stored in ("dense", "diagonal"):
            options = {"horizon": horizon, "form": stored}
            start = QuadraticBalancedReductor(read_out="best", **options).reduce(full, order=3)
            found = QuadraticH2Reductor(method=method, **options).reduce(full, order=3)
            assert found.bound.value <= start.bound.value
            value = h2_error(plain(full), found.system, horizon=horizon)
            np.testing.assert_allclose(found.bound.value, value, rtol=1e-12)
            assert isinstance(found.converged, bool)
            if horizon is None:
                assert is_stable(found.system.linear)
            assert (found.system.factors is None) == (full.factors is None)
            if stored == "dense":
                assert found.system.is_real == full.is_real
                assert found.condition is None
            else:
                assert isinstance(found.system.linear, DiagonalSystem)
            if full.is_real and stored == "diagonal":
                poles = found.system.A
                assert {*poles.tolist()} == {*poles.conj().tolist()}
            if full.is_real and stored == "diagonal" and full.is_discrete:
                y = found.system.simulate(np.random.default_rng(0).standard_normal((9, 2)))
                assert np.abs(y.imag).max() <= 1e-12 * np.abs(y).max()
            better += found.bound.value < 0.999 * start.bound.value
            count += 1
    assert better > count / 2


@pytest.mark.theorem("quadratic-h2")
def test_it_beats_balanced_truncation_on_average():
    """Random systems of 30 states, 6 kept."""
    errors = {method: [] for method in ("balanced", *METHODS)}
    converged = []
    for seed in range(15):
        full = real_system(seed, continuous=bool(seed % 2))
        start = QuadraticBalancedReductor(read_out="best").reduce(full, order=6)
        errors["balanced"].append(start.bound.relative)
        for method in METHODS:
            found = QuadraticH2Reductor(method=method).reduce(full, order=6)
            errors[method].append(found.bound.relative)
            converged.append(found.converged)
    mean = {method: np.mean(values) for method, values in errors.items()}
    for method in METHODS:
        assert mean[method] < 0.95 * mean["balanced"]
    for method in METHODS[:2]:  # which "both" tries
        assert np.all(np.array(errors["both"]) <= np.array(errors[method]) * (1 + 1e-9))
    assert np.mean(converged) > 0.9


@pytest.mark.theorem("quadratic-h2")
def test_a_system_of_that_order_is_found():
    """From its own states for nothing, from wrong states by descent."""
    for form in (FORMS[0], FORMS[3], FORMS[-1]):
        small = quadratic_system(11, form, n=3, radius=0.9)
        poles = small.order
        rng = np.random.default_rng(0)
        mixed = plain(small).to_dense()
        n = mixed.order
        basis = rng.standard_normal((n, n))
        joined = QuadraticOutputSystem(
            linalg.block_diag(basis @ mixed.A @ np.linalg.inv(basis), 0.3),
            np.concatenate([basis @ mixed.B, np.ones((1, 2))]),
            np.concatenate([mixed.C @ np.linalg.inv(basis), np.zeros((2, 1))], axis=1),
            np.stack([
                linalg.block_diag(_back(M, np.linalg.inv(basis), form[2]), 0.0)
                for M in mixed.matrices()
            ]),
            mixed.D,
            convention=form[2],
        )  # fmt: skip
        reduction = QuadraticH2Reductor().reduce(joined, order=n)
        assert reduction.bound.relative <= 1e-11
        assert reduction.converged
        objective = QuadraticObjective(small, None)
        own = modal_states(mixed.A, mixed.B, small.is_real)
        assert len(own.poles) == poles
        wrong = 0.9 * own.poles * np.exp(0.05j * (own.poles.imag != 0))
        wrong = ModalStates(wrong, own.rows, own.real)
        assert objective(*wrong.written_out()).value > 1e-3 * objective.energy
        found = quadratic_descent(objective, wrong, rtol=1e-6, steps=1000)
        linear = found.states.system(small.linear)
        model = with_best_read_out(plain(small), linear)
        assert h2_error(plain(small), model) <= 1e-6 * h2_norm(small)


def _back(M, inverse, convention):
    left = inverse.conj().T if convention == "hermitian" else inverse.T
    M = left @ M @ inverse
    return (M + (M.conj().T if convention == "hermitian" else M.T)) / 2


@pytest.mark.theorem("quadratic-h2")
def test_descent_crosses_the_real_axis():
    """A pair is found from two real poles, two real poles from a pair, and the sign of one."""
    M = np.array([[1.0, 0.3], [0.3, -0.5]])
    cases = [
        ([[0.6, -0.3], [0.3, 0.6]], [0.5, 0.7]),
        ([[0.8, 0.0], [0.0, 0.3]], [0.5 + 0.2j]),
        ([[0.8, 0.0], [0.0, -0.4]], [0.7, 0.2]),
    ]
    for A, poles in cases:
        full = QuadraticOutputSystem(A, [[1.0], [0.5]], [[1.0, 1.0]], M)
        objective = QuadraticObjective(full, None)
        start = ModalStates(np.array(poles) + 0j, np.ones((len(poles), 1)) + 0j, True)
        found = quadratic_descent(objective, start, rtol=1e-6, steps=1000)
        assert found.value <= 1e-10 * objective.energy
        wanted = np.sort_complex(np.linalg.eigvals(A))
        ended = np.sort_complex(found.states.written_out()[0])
        np.testing.assert_allclose(ended, wanted, atol=1e-3)


@pytest.mark.theorem("quadratic-h2")
@pytest.mark.parametrize(("seed", "leaves"), [(49, True), (115, False)])
def test_an_iteration_that_leaves_the_stable_set_falls_back(seed, leaves):
    """Over few samples the iteration leaves the stable set, or its start lies outside."""
    horizon = 10 if leaves else 8
    full = real_system(seed, n=12)
    assert is_stable(full.linear)
    start = QuadraticBalancedReductor(read_out="best", horizon=horizon).reduce(full, order=4)
    objective = QuadraticObjective(full, horizon)
    states = modal_states(start.system.A, start.system.B, True)
    assert is_stable(start.system.linear) == leaves
    passed = quadratic_two_sided(objective, states.mirrored(False), rtol=1e-6, steps=100)
    assert passed.unstable > 0
    assert not passed.converged
    assert np.all(np.abs(passed.states.poles) < 1)
    found = {
        method: QuadraticH2Reductor(method=method, horizon=horizon).reduce(full, order=4)
        for method in METHODS
    }
    assert not found["tsia"].converged
    assert found["both"].converged
    for reduction in found.values():
        assert reduction.bound.value <= start.bound.value
    assert found["both"].bound.value < found["tsia"].bound.value
    assert is_stable(found["both"].system.linear)


def test_unstable_systems_over_a_horizon():
    """Poles may leave the unit circle where those of the system do."""
    outside = 0
    for seed in range(6):
        full = quadratic_system(seed, FORMS[2 * seed], n=6, radius=1.15, recurrence="post-update")
        with pytest.raises(UnstableSystemError):
            QuadraticH2Reductor().path(full)
        start = QuadraticBalancedReductor(read_out="best", horizon=20).reduce(full, order=3)
        found = QuadraticH2Reductor(horizon=20).reduce(full, order=3)
        assert found.bound.value <= start.bound.value
        outside += not is_stable(found.system.linear)
    assert outside > 0


def test_a_search_cut_short_says_so():
    for method in METHODS:
        full = real_system(0, m=2)
        short = QuadraticH2Reductor(method=method, steps=1).reduce(full, order=6)
        assert short.converged is False
        whole = QuadraticH2Reductor(method=method, steps=400).reduce(full, order=6)
        assert whole.converged is True
        assert whole.bound.value < short.bound.value
    assert QuadraticBalancedReductor().reduce(full, order=6).converged is None


def test_a_half_spectrum_is_worked_on_in_full():
    half = quadratic_system(1, ("diagonal", "factors", "hermitian", True), n=4)
    one = QuadraticH2Reductor().reduce(half, order=4)
    two = QuadraticH2Reductor().reduce(half.realified(), order=4)
    three = QuadraticH2Reductor().reduce(half.with_convention("transpose"), order=4)
    np.testing.assert_allclose(one.bound.value, two.bound.value, rtol=1e-6)
    assert three.bound.value <= 1.2 * one.bound.value
    assert one.full is half
    assert one.order == 4


def test_factors_are_not_multiplied_out(monkeypatch):
    def refused(self):
        raise AssertionError("p x n x n")

    monkeypatch.setattr(QuadraticOutputSystem, "matrices", refused)
    for form in FORMS:
        if form[1] == "matrices":
            continue
        full = quadratic_system(2, form, n=5)
        reduction = QuadraticH2Reductor().reduce(full, order=3)
        assert reduction.system.factors[0].shape == (2, 3, 2 if not form[3] else 4)


def test_orders_and_tolerances():
    full = quadratic_system(8, FORMS[1], n=5)
    path = QuadraticH2Reductor().path(full)
    whole = path.reduction(5)
    assert whole.system is full
    assert whole.converged
    assert whole.bound.value == 0.0
    none = path.reduction(0)
    assert none.system.order == 0
    assert path.reduction(3) is path.reduction(3)
    tol = float(path.reduction(3).bound.relative) * (1 + 1e-9)
    reduction = path.reduction_to(tol)
    assert reduction.order == 3
    assert reduction.bound.relative <= tol
    assert np.all(np.diff(path.errors) >= 0)
    assert path.reduction_to(1e-300).system is full


def test_what_is_refused():
    reductor = QuadraticH2Reductor()
    with pytest.raises(ShapeError, match="one system"):
        reductor.reduce(quadratic_system(9, FORMS[1], batch=(2,)), order=1)
    with pytest.raises(UnsupportedOperationError, match="QuadraticOutputSystem"):
        reductor.reduce(quadratic_system(9, FORMS[1]).linear, order=1)
    for options in ({"method": "irka"}, {"form": "input"}):
        with pytest.raises(ShapeError, match="not known"):
            QuadraticH2Reductor(**options)


def test_without_quadratic_outputs_it_is_the_linear_descent():
    for seed in range(6):
        full = real_system(seed, n=12, m=2, p=2, continuous=bool(seed % 2))
        full = full.replace(M=np.zeros_like(full.M))
        found = QuadraticH2Reductor(method="descent").reduce(full, order=4)
        linear = H2OptimalReductor(algorithm="gradient").reduce(full.linear, order=4)
        np.testing.assert_allclose(found.bound.value, linear.h2_error, rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_degenerate_systems(method):
    """Poles at 0 and at the boundary, repeated ones, Jordan blocks, no input, extreme scales."""
    rng = np.random.default_rng(0)
    factors = (normal(rng, 2, 6, 1),)
    close = np.array([1 - 1e-12, 1 - 1e-9, 0.5, 0.3, -0.2, (1 - 1e-10) * np.exp(0.3j)])
    plain = quadratic_system(1, FORMS[1], n=6)
    shift = QuadraticOutputSystem(
        np.diag(np.ones(3), 1),
        rng.standard_normal((4, 1)),
        rng.standard_normal((1, 4)),
        np.diag([1.0, 2.0, 3.0, 4.0]),
        recurrence="post-update",
    )
    jordan = 0.5 * np.eye(3) + np.diag(np.ones(2), 1)
    ending = [[0.0], [0.0], [1.0]], [[1.0, 0.0, 0.0]], np.eye(3)
    systems = [
        QuadraticOutputSystem(close, normal(rng, 6, 2), normal(rng, 2, 6), factors),
        QuadraticOutputSystem(
            np.zeros(6), normal(rng, 6, 2), normal(rng, 2, 6), factors, recurrence="post-update"
        ),
        shift,
        shift.replace(recurrence="standard"),
        QuadraticOutputSystem(np.full(6, 0.5), normal(rng, 6, 2), normal(rng, 2, 6), factors),
        QuadraticOutputSystem(jordan, *ending),
        plain.replace(B=np.zeros((6, 2))),
        plain.replace(B=1e8 * plain.B),
        plain.replace(B=1e-100 * plain.B),
        plain.replace(C=np.zeros((2, 6))),
    ]
    for full in systems:
        for horizon in (None, 1, 2, 50):
            start = QuadraticBalancedReductor(read_out="best", horizon=horizon)
            start = start.reduce(full, order=1)
            found = QuadraticH2Reductor(method=method, horizon=horizon).reduce(full, order=1)
            assert found.bound.value <= start.bound.value
            if horizon is None:
                assert is_stable(found.system.linear)
