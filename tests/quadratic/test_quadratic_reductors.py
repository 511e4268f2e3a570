"""Reductors for quadratic outputs: the best read-out, removal of modes, balanced truncation."""

import itertools

import numpy as np
import pytest
from quadratic_cases import FORMS, normal, quadratic_system
from scipy import linalg

from ssmred.errors import (
    OrderError,
    ShapeError,
    ToleranceError,
    UnstableSystemError,
    UnsupportedOperationError,
)
from ssmred.norms import h2_error, h2_norm
from ssmred.reductors import (
    QuadraticBalancedReductor,
    QuadraticSubsetReductor,
    SubsetReductor,
    quadratic_removal_errors,
    with_best_read_out,
)
from ssmred.systems import DenseSystem, DiagonalSystem, QuadraticOutputSystem, is_stable

T = 6
EVALUATED = 1e-9  # two ways to evaluate one error, relative to it
MODAL = [form for form in FORMS if form[0] == "diagonal"]
COMPLEX = [form for form in FORMS if not form[3]]


def least_error(full, states, horizon, *, direct=True):
    """Return the least h2 error of all read-outs of some states, by plain lstsq over the kernels.

    Real parameters: real and imaginary parts of C and D, and of the entries of M.
    """
    n, hermitian = states.order, full.convention == "hermitian"
    h1, h2 = full.kernels(horizon)
    eye = states.replace(C=np.eye(n, dtype=complex), D=np.zeros((n, states.inputs)))
    b = eye.impulse_response(horizon)  # (T, n, m)
    total = 0.0
    for j in range(full.outputs):
        impulse = np.zeros((horizon, full.inputs, full.inputs))
        impulse[0] = np.eye(full.inputs)
        columns = np.concatenate([b.swapaxes(1, 2), impulse.swapaxes(1, 2)], axis=2)
        columns = columns.reshape(-1, n + full.inputs)
        target = h1[:, j].ravel()
        if not direct:
            columns = columns[:, :n]
            target = np.concatenate([target[: full.inputs] - full.D[j], target[full.inputs :]])
        rest = target - columns @ np.linalg.lstsq(columns, target, rcond=None)[0]
        total += np.sum(np.abs(rest) ** 2)
        left = b.conj() if hermitian else b
        shapes = []
        for k, l in itertools.product(range(n), repeat=2):
            unit = np.zeros((n, n), complex)
            if k >= l:  # Hermitian or symmetric matrices with real coefficients
                unit[k, l] = 1.0
                unit[l, k] = 1.0
                shapes.append(unit)
            if hermitian and k > l:
                turned = np.zeros((n, n), complex)
                turned[k, l], turned[l, k] = 1j, -1j
                shapes.append(turned)
            elif not hermitian and k >= l:
                shapes.append(1j * unit)
        design = np.stack(
            [np.einsum("iam,ab,lbq->ilmq", left, M, b).ravel() for M in shapes], axis=1
        )
        design = np.concatenate([design.real, design.imag])
        target = np.concatenate([h2[:, :, j].real.ravel(), h2[:, :, j].imag.ravel()])
        rest = target - design @ np.linalg.lstsq(design, target, rcond=None)[0]
        total += rest @ rest
    return np.sqrt(total)


@pytest.mark.theorem("quadratic-read-out")
@pytest.mark.parametrize("horizon", [None, T])
@pytest.mark.parametrize("form", [form for form in FORMS if form[0] == "diagonal"])
def test_errors_of_single_removals_are_those_of_the_removals(form, horizon):
    full = quadratic_system(13, form, n=4, m=3)
    found = quadratic_removal_errors(full, horizon=horizon)
    plain = full.full_spectrum()
    pairs = plain.order // full.order
    for mode in range(full.order):
        kept = np.tile(np.arange(full.order) != mode, pairs)
        linear = plain.linear
        states = linear.replace(poles=linear.poles[kept], B=linear.B[kept], C=linear.C[:, kept])
        best = with_best_read_out(plain, states, horizon=horizon)
        wanted = h2_error(plain, best, horizon=horizon)
        np.testing.assert_allclose(found[mode], wanted, rtol=1e-10)


@pytest.mark.theorem("quadratic-read-out")
@pytest.mark.parametrize("recurrence", ["standard", "post-update"])
@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("form", COMPLEX)
def test_the_read_out_is_the_best_of_all(form, direct, recurrence):
    full = quadratic_system(0, form, n=4, recurrence=recurrence)
    rng = np.random.default_rng(1)
    poles = 0.7 * np.sqrt(rng.uniform(0.1, 1, 2)) * np.exp(1j * rng.uniform(-3, 3, 2))
    empty = np.zeros((2, 2)), np.zeros((2, 2))
    states = DiagonalSystem(poles, normal(rng, 2, 2), *empty, recurrence=recurrence)
    for horizon in (1, 2, T):
        best = with_best_read_out(full, states, horizon=horizon, direct=direct)
        assert (best.factors is None) == (full.factors is None)
        wanted = least_error(full, states, horizon, direct=direct)
        found = h2_error(full, best, horizon=horizon)
        np.testing.assert_allclose(found, wanted, rtol=1e-8, atol=1e-10 * h2_norm(full, horizon=T))
    dense = with_best_read_out(full, states.to_dense(), horizon=T, direct=direct)
    np.testing.assert_allclose(h2_error(full, dense, horizon=T), wanted, rtol=1e-8)
    long = with_best_read_out(full, states, horizon=200)
    np.testing.assert_allclose(
        h2_error(full, with_best_read_out(full, states)), h2_error(full, long), rtol=EVALUATED
    )


def test_states_that_do_not_fit_are_refused():
    full = quadratic_system(0, FORMS[1], recurrence="post-update")
    states = DiagonalSystem([0.5], np.ones((1, 2)), np.zeros((1, 1)), recurrence="post-update")
    with_best_read_out(full, states)
    for change, text in (
        ({"recurrence": "standard"}, "differ in recurrence"),
        ({"dt": 2.0}, "differ in dt"),
        ({"B": np.ones((1, 1)), "D": np.zeros((1, 1))}, "differ in inputs"),
        ({"real_output": True}, "without real_output"),
    ):
        with pytest.raises(ShapeError, match=text):
            with_best_read_out(full, states.replace(**change))


def test_real_outputs_and_real_states():
    full = quadratic_system(2, ("diagonal", "squares", "hermitian", True), n=3)
    states = full.realified().linear
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((6, 4)))[0]
    states = DenseSystem(basis.T @ states.A @ basis, basis.T @ states.B, np.zeros((2, 4)))
    best = with_best_read_out(full, states)
    assert best.is_real
    assert np.linalg.eigvalsh(best.matrices()).min() >= -1e-10  # positive stays positive
    for _ in range(5):
        step = 1e-3 * rng.standard_normal((2, 4, 4))
        other = best.replace(M=best.matrices() + step + step.swapaxes(1, 2))
        assert h2_error(full, other) > h2_error(full, best)


# --- subset --------------------------------------------------------------------------------------


@pytest.mark.theorem("quadratic-read-out")
@pytest.mark.parametrize("horizon", [None, T])
@pytest.mark.parametrize("recurrence", ["standard", "post-update"])
@pytest.mark.parametrize("form", MODAL)
def test_errors_along_the_path_are_those_of_the_results(form, recurrence, horizon):
    full = quadratic_system(3, form, n=5, recurrence=recurrence)
    path = QuadraticSubsetReductor(horizon=horizon).path(full)
    n = path.system.order
    assert n == (10 if full.real_output else 5)
    found = [path.reduction(k).bound.value for k in range(n, -1, -1)]
    np.testing.assert_allclose(path.errors, found, rtol=EVALUATED, atol=1e-12 * path.norms)
    assert found[0] == 0.0
    assert path.reduction(n).system is full
    step = 2 if full.real_output else 1
    for k in range(n + 1):
        reduction = path.reduction(k)
        assert reduction.order == int(reduction.kept.sum()) == k - k % step
        if k < n:
            mask = reduction.kept
            np.testing.assert_array_equal(reduction.system.linear.poles, path.system.A[mask])
            np.testing.assert_array_equal(reduction.system.B, path.system.B[mask])
        if full.real_output:
            np.testing.assert_array_equal(mask[:5], mask[5:])
            u = np.random.default_rng(0).standard_normal((9, 2))
            y = reduction.system.simulate(u)
            assert np.abs(y.imag).max() <= 1e-12 * max(np.abs(y).max(), 1e-300)


@pytest.mark.theorem("quadratic-read-out")
@pytest.mark.parametrize("form", MODAL)
def test_the_first_mode_to_go_is_the_cheapest(form):
    for seed in range(5):
        full = quadratic_system(seed, form, n=5, recurrence="post-update")
        path = QuadraticSubsetReductor().path(full)
        spectrum, groups = path.system, 5
        errors = []
        for g in range(groups):
            mask = np.ones(spectrum.order, bool)
            mask[g::groups] = False
            linear = spectrum.linear
            states = linear.replace(poles=linear.poles[mask], B=linear.B[mask], C=linear.C[:, mask])
            errors.append(h2_error(spectrum, with_best_read_out(spectrum, states)))
        step = 2 if full.real_output else 1
        np.testing.assert_allclose(path.errors[step], min(errors), rtol=EVALUATED)
        assert not path.reduction(spectrum.order - step).kept[int(np.argmin(errors))]


def test_without_quadratic_outputs_it_is_the_linear_method():
    linear = DiagonalSystem(
        *(x[0] for x in _layer(4)), recurrence="post-update"
    )  # complex, two inputs and outputs
    full = QuadraticOutputSystem.of(linear, np.zeros((2, 6, 6)))
    one, two = QuadraticSubsetReductor().path(full), SubsetReductor().path(linear)
    np.testing.assert_allclose(one.errors, two.errors, rtol=1e-7, atol=1e-12 * one.norms)
    kept = two.reduction(3)
    reduction = one.reduction(3)
    np.testing.assert_array_equal(reduction.kept, kept.kept)
    np.testing.assert_allclose(reduction.system.C, kept.system.C, rtol=1e-8)


def _layer(seed, n=6):
    rng = np.random.default_rng(seed)
    poles = 0.9 * np.sqrt(rng.uniform(0.1, 1, (1, n))) * np.exp(1j * rng.uniform(-3, 3, (1, n)))
    return poles, normal(rng, 1, n, 2), normal(rng, 1, 2, n), normal(rng, 1, 2, 2)


def test_repeated_poles_and_silent_modes_cost_nothing():
    poles, ones = [0.5, 0.5, 0.5, -0.2, 0.9], np.array([[1.0], [2.0], [3.0], [1.0], [0.0]])
    rng = np.random.default_rng(0)
    for M in ((normal(rng, 2, 5, 3),), np.stack([np.diag(rng.standard_normal(5))] * 2)):
        full = QuadraticOutputSystem(poles, ones, normal(rng, 2, 5), M, recurrence="post-update")
        path = QuadraticSubsetReductor().path(full)
        assert path.errors[3] <= 1e-13 * path.norms  # two copies and what nothing drives
        reduction = path.reduction(2)
        assert reduction.bound.relative <= 1e-13
        assert reduction.kept[3]
        assert not reduction.kept[4]


# --- balanced truncation -------------------------------------------------------------------------


@pytest.mark.theorem("quadratic-balancing")
@pytest.mark.parametrize("recurrence", ["standard", "post-update"])
@pytest.mark.parametrize("form", FORMS)
def test_truncation_is_that_of_the_text_book(form, recurrence):
    """Values from the eigenvalues of P Q; the projection commutes with any balanced basis."""
    full = quadratic_system(5, form, n=4, recurrence=recurrence)
    work = full.realified() if full.real_output else full
    A = np.diag(work.A) if work.A.ndim == 1 else work.A
    P = linalg.solve_discrete_lyapunov(A, work.B @ work.B.conj().T)
    weigh = P if form[2] == "hermitian" else P.conj()
    R = work.C.conj().T @ work.C
    R = R + sum(M.conj().T @ weigh @ M for M in work.matrices())
    Q = linalg.solve_discrete_lyapunov(A.conj().T, R)
    values = np.sort(np.sqrt(linalg.eigvals(P @ Q).real))[::-1]
    path = QuadraticBalancedReductor().path(full)
    reduction = path.reduction(3)
    np.testing.assert_allclose(reduction.values, values, rtol=1e-8)
    lam, right = linalg.eig(P @ Q)
    best = np.argsort(-lam.real)[:3]
    V = right[:, best]
    W = Q @ V
    W = W @ np.linalg.inv(V.conj().T @ W).conj().T  # W^* V = I
    left = V.conj().T if form[2] == "hermitian" else V.T
    hand = QuadraticOutputSystem(
        W.conj().T @ A @ V, W.conj().T @ work.B, work.C @ V,
        np.stack([_even(left @ M @ V, form) for M in work.matrices()]), work.D,
        recurrence=recurrence, convention=form[2],
    )  # fmt: skip
    u = normal(np.random.default_rng(1), 12, 2)
    if form[3]:
        u = u.real
    wanted, found = hand.simulate(u), reduction.system.simulate(u)
    assert np.abs(found - wanted).max() <= 1e-8 * np.abs(wanted).max()
    np.testing.assert_allclose(
        reduction.bound.value, h2_error(full, reduction.system), rtol=EVALUATED
    )


def _even(M, form):
    return (M + (M.conj().T if form[2] == "hermitian" else M.T)) / 2


@pytest.mark.theorem("quadratic-balancing")
@pytest.mark.parametrize("form", FORMS)
def test_truncated_systems_are_stable_and_the_best_read_out_is_better(form):
    for seed in range(3):
        full = quadratic_system(seed, form, n=4, radius=0.97, recurrence="post-update")
        paths = [QuadraticBalancedReductor(read_out=r).path(full) for r in ("projected", "best")]
        n = paths[0].system.order
        for order in range(n):
            one, two = (path.reduction(order) for path in paths)
            assert is_stable(one.system.linear)
            assert (
                two.bound.value <= one.bound.value * (1 + EVALUATED) + 1e-13 * one.bound.reference
            )
            assert one.system.is_real == full.is_real
            assert (one.system.factors is None) == (full.factors is None)


@pytest.mark.parametrize("form", FORMS)
def test_diagonal_results_are_the_same_systems(form):
    full = quadratic_system(6, form, n=4)
    dense = QuadraticBalancedReductor().reduce(full, order=3)
    modal = QuadraticBalancedReductor(form="diagonal").reduce(full, order=3)
    assert isinstance(modal.system.linear, DiagonalSystem)
    assert modal.condition >= 1.0
    assert dense.condition is None
    u = normal(np.random.default_rng(2), 9, 2)
    u = u.real if form[3] else u
    wanted, found = dense.system.simulate(u), modal.system.simulate(u)
    assert np.abs(found - wanted).max() <= 1e-10 * np.abs(wanted).max()


def test_a_horizon_counts_samples_and_takes_unstable_poles():
    full = quadratic_system(7, FORMS[1], n=4, radius=1.1, recurrence="post-update")
    for reductor in (QuadraticSubsetReductor, QuadraticBalancedReductor):
        with pytest.raises(UnstableSystemError):
            reductor().path(full)
        reduction = reductor(horizon=T).reduce(full, order=3)
        error = h2_error(full, reduction.system, horizon=T)
        np.testing.assert_allclose(reduction.bound.value, error, rtol=EVALUATED)
        assert reduction.bound.norm == "h2, horizon 6"


def test_quadratic_outputs_change_what_balancing_keeps():
    """Random systems: balanced with Q of all outputs beats balanced with that of C alone."""
    wins, ratios = 0, []
    for seed in range(10):
        form = ("dense", "factors", "hermitian", False)
        full = quadratic_system(seed, form, n=20, m=2, p=2, rank=1, radius=0.9)
        work = QuadraticBalancedReductor(read_out="best")
        error = work.reduce(full, order=6).bound.value
        linear = full.replace(M=np.zeros((2, 20, 20)))
        states = work.reduce(linear, order=6).system.linear
        blind = h2_error(full, with_best_read_out(full, states))
        wins += error < blind
        ratios.append(error / blind)
    assert wins >= 8
    assert np.median(ratios) < 0.9


@pytest.mark.parametrize("reductor", [QuadraticSubsetReductor, QuadraticBalancedReductor])
def test_tolerances(reductor):
    full = quadratic_system(8, FORMS[1], n=6)
    path = reductor().path(full)
    relative = path.errors / path.norms
    assert np.all(np.diff(relative) >= 0)
    tol = float(relative[2]) * (1 + 1e-9)
    reduction = reductor().reduce(full, tol=tol)
    assert reduction.order == 4
    assert reduction.bound.relative <= tol
    with pytest.raises(ToleranceError):
        reductor().reduce(full, tol=0.0)


def test_what_is_refused():
    system = quadratic_system(9, FORMS[1])
    batch = quadratic_system(9, FORMS[1], batch=(2,))
    dense = quadratic_system(9, ("dense", "factors", "hermitian", False))
    for reductor in (QuadraticSubsetReductor(), QuadraticBalancedReductor()):
        with pytest.raises(ShapeError, match="one system"):
            reductor.reduce(batch, order=1)
        with pytest.raises(UnsupportedOperationError, match="QuadraticOutputSystem"):
            reductor.reduce(system.linear, order=1)
        with pytest.raises(OrderError):
            reductor.reduce(system, order=4)
        with pytest.raises(OrderError, match="exactly one"):
            reductor.reduce(system, order=1, tol=0.1)
        with pytest.raises(OrderError):
            type(reductor)(horizon=0)
    with pytest.raises(UnsupportedOperationError, match="no modes to keep"):
        QuadraticSubsetReductor().reduce(dense, order=1)
    with pytest.raises(UnsupportedOperationError, match="DiagonalSystem or DenseSystem"):
        SubsetReductor().reduce(system, order=1)
    for option in ({"form": "input"}, {"read_out": "refit"}):
        with pytest.raises(ShapeError, match="one of"):
            QuadraticBalancedReductor(**option)
