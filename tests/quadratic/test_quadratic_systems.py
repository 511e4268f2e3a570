"""Systems with quadratic outputs: recurrences, kernels, forms, refusals."""

import numpy as np
import pytest
from quadratic_cases import FORMS, normal, quadratic_system

from ssmred.errors import DataError, OrderError, ShapeError, UnsupportedOperationError
from ssmred.systems import DenseSystem, DiagonalSystem, QuadraticOutputSystem, difference

ROUNDING = 1e-12  # of outputs of size 10 to 1000, relative to the largest


def inputs(system, length=9, seed=1, lead=()):
    rng = np.random.default_rng(seed)
    shape = (*lead, length, system.inputs)
    return rng.standard_normal(shape) if system.real_output else normal(rng, *shape)


def by_hand(system, u):
    """Run the recurrence of one system, matrix by matrix."""
    A = np.diag(system.A) if system.A.ndim == 1 else system.A
    x = np.zeros(system.order, complex)
    rows = []
    for step in u:
        seen = A @ x + system.B @ step
        now = seen if system.is_post_update else x
        left = now.conj() if system.convention == "hermitian" else now
        y = system.C @ now + np.array([left @ M @ now for M in system.matrices()])
        y = y.real if system.real_output else y
        rows.append(y + system.D @ step)
        x = seen
    return np.array(rows)


def assert_same_outputs(one, two, u):
    wanted, found = one.simulate(u), two.simulate(u)
    assert np.abs(found - wanted).max() <= ROUNDING * np.abs(wanted).max()


@pytest.mark.parametrize("recurrence", ["standard", "post-update"])
@pytest.mark.parametrize("form", FORMS)
def test_outputs_are_those_of_the_recurrence(form, recurrence):
    system = quadratic_system(0, form, recurrence=recurrence)
    u = inputs(system)
    wanted, found = by_hand(system, u), system.simulate(u)
    assert found.dtype == (float if form[3] else complex)
    assert np.abs(found - wanted).max() <= ROUNDING * np.abs(wanted).max()
    start = normal(np.random.default_rng(3), system.order)
    free = system.simulate(np.zeros((1, 2)), start)
    seen = (np.diag(system.A) if system.A.ndim == 1 else system.A) @ start
    x = seen if system.is_post_update else start
    left = x.conj() if system.convention == "hermitian" else x
    wanted = system.C @ x + np.array([left @ M @ x for M in system.matrices()])
    wanted = wanted.real if system.real_output else wanted
    assert np.abs(free[0] - wanted).max() <= ROUNDING * np.abs(wanted).max()


@pytest.mark.parametrize("form", FORMS)
def test_batches_are_their_entries(form):
    batch = quadratic_system(1, form, batch=(2, 3))
    u = inputs(batch, lead=(3,))
    y = batch.simulate(u)
    assert y.shape == (2, 3, 9, 2)
    for i in range(2):
        for j in range(3):
            M = batch.M[i, j] if batch.factors is None else tuple(f[i, j] for f in batch.factors)
            one = batch.replace(
                M=M, **{name: getattr(batch, name)[i, j] for name in ("A", "B", "C", "D")}
            )
            assert_same_outputs(one, one, u[j])
            assert np.abs(one.simulate(u[j]) - y[i, j]).max() <= ROUNDING * np.abs(y).max()


@pytest.mark.parametrize("recurrence", ["standard", "post-update"])
@pytest.mark.parametrize("form", FORMS)
def test_kernels_give_the_outputs(form, recurrence):
    system = quadratic_system(2, form, recurrence=recurrence)
    T = 6
    u = inputs(system, T)
    h1, h2 = system.kernels(T)
    assert h1.shape == (T, 2, 2)
    assert h2.shape == (T, T, 2, 2, 2)
    last = u[::-1]  # u_{k - i} for the last sample
    left = last.conj() if system.convention == "hermitian" else last
    wanted = np.einsum("ipm,im->p", h1, last) + np.einsum("ilpmq,im,lq->p", h2, left, last)
    found = system.simulate(u)[-1]
    assert np.abs(found - wanted).max() <= ROUNDING * np.abs(wanted).max()
    if system.real_output:  # what real inputs see is symmetric
        assert np.isrealobj(h2)
        np.testing.assert_allclose(h2, h2.transpose(1, 0, 2, 4, 3), rtol=0, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_other_forms_have_the_same_outputs(form):
    system = quadratic_system(4, form)
    u = inputs(system)
    assert_same_outputs(system, system.to_dense(), u)
    whole = system.replace(M=system.matrices())
    assert_same_outputs(system, whole, u)
    if not system.real_output:
        assert system.full_spectrum() is system
        return
    real = system.realified()
    assert isinstance(real.linear, DenseSystem)
    assert all(np.isrealobj(part) for part in real.factors or (real.M,))
    assert (real.factors is None) == (system.factors is None)
    assert real.states == system.states == 2 * system.order
    assert_same_outputs(system, real, u)
    assert_same_outputs(system, whole.realified(), u)
    if form[0] == "diagonal":
        full = system.full_spectrum()
        assert full.order == 2 * system.order
        assert_same_outputs(system, full, u)
        other = "transpose" if form[2] == "hermitian" else "hermitian"
        turned = system.with_convention(other)
        assert turned.convention == other
        assert (turned.factors is None) == (system.factors is None)
        assert_same_outputs(system, turned, u)


def test_conventions_of_real_states_and_of_complex_ones():
    rng = np.random.default_rng(0)
    M = rng.standard_normal((3, 3))
    real = QuadraticOutputSystem(0.5 * np.eye(3), rng.standard_normal((3, 1)), None, M + M.T)
    assert_same_outputs(real, real.with_convention("transpose"), rng.standard_normal((5, 1)))
    assert real.with_convention("hermitian") is real
    with pytest.raises(UnsupportedOperationError, match="conjugates are not among them"):
        quadratic_system(0, FORMS[1]).with_convention("transpose")


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_differences(form, same):
    full = quadratic_system(5, form)
    reduced = quadratic_system(6, form, n=full.order if same else 2)
    if same:
        reduced = reduced.replace(A=full.A, B=full.B)
    error = difference(full, reduced)
    assert error.order == (3 if same else 5)
    u = inputs(full)
    wanted = full.simulate(u) - reduced.simulate(u)
    assert np.abs(error.simulate(u) - wanted).max() <= ROUNDING * np.abs(full.simulate(u)).max()
    mixed = difference(full, reduced.replace(M=reduced.matrices()))
    assert np.abs(mixed.simulate(u) - wanted).max() <= ROUNDING * np.abs(full.simulate(u)).max()


def test_differences_of_two_kinds():
    one = quadratic_system(7, FORMS[0])
    two = quadratic_system(8, ("dense", "factors", "hermitian", True))
    other = quadratic_system(8, ("dense", "factors", "hermitian", False), n=2)
    real = QuadraticOutputSystem(
        other.A.real, other.B.real, other.C.real, other.matrices().real, other.D.real
    )
    u = inputs(one)
    for reduced in (two, real):
        error = difference(one, reduced)
        wanted = one.simulate(u) - reduced.simulate(u)
        assert np.abs(error.simulate(u) - wanted).max() <= ROUNDING * np.abs(wanted).max()


def test_parts_and_names():
    linear = DiagonalSystem([0.5, 0.2j], [1.0, 2.0], [3.0, 4.0], 1.0, recurrence="post-update")
    system = QuadraticOutputSystem.of(linear, (np.ones((2, 1)), np.zeros((2, 1))))
    assert "order=2" in repr(system)
    assert "rank=1, convention='hermitian'" in repr(system)
    assert (system.order, system.inputs, system.outputs, system.states) == (2, 1, 1, 4)
    assert system.is_discrete
    assert system.is_post_update
    assert not system.is_real
    np.testing.assert_array_equal(system.linear.poles, linear.poles)
    np.testing.assert_array_equal(system.linear.D, linear.D)
    quiet = QuadraticOutputSystem(system.A, system.B, None, np.eye(2))
    assert not quiet.C.any()
    assert not quiet.M.flags.writeable
    square = QuadraticOutputSystem(
        np.full((2, 2), 0.1), np.ones((2, 2, 1)), None, np.ones((2, 1, 2, 2))
    )
    assert isinstance(square.linear, DiagonalSystem)  # a batch of two, not a matrix


# --- refusals ------------------------------------------------------------------------------------

POLES, B = np.array([0.5, 0.3]), np.ones((2, 1))


@pytest.mark.parametrize(
    ("M", "convention", "error", "text"),
    [
        ([[1.0, 2.0], [0.0, 1.0]], "hermitian", ShapeError, "not Hermitian"),
        ([[1.0, 1j], [1j, 1.0]], "hermitian", ShapeError, "not Hermitian"),
        ([[1.0, 1j], [-1j, 1.0]], "transpose", ShapeError, "not symmetric"),
        ([[1.0, np.nan], [0.0, 1.0]], "hermitian", DataError, "nan"),
        (np.eye(3), "hermitian", ShapeError, "does not fit the states"),
        (np.ones((2, 3)), "hermitian", ShapeError, "not square"),
        (np.ones(2), "hermitian", ShapeError, r"expected \(..., p, n, n\)"),
        ((np.ones((2, 1)), np.ones((2, 2))), "hermitian", ShapeError, "differ in shape"),
        ((), "hermitian", ShapeError, "M is a tuple"),
        (np.eye(2), "complex", Exception, "convention"),
    ],
)  # fmt: skip
def test_matrices_that_are_refused(M, convention, error, text):
    with pytest.raises(error, match=text):
        QuadraticOutputSystem(POLES, B, None, M, convention=convention)


def test_shapes_that_are_refused():
    with pytest.raises(ShapeError, match="neither as poles nor as a matrix"):
        QuadraticOutputSystem(np.ones((3, 3)), B, None, np.eye(2))
    with pytest.raises(ShapeError, match=r"expected \(..., n, m\)"):
        QuadraticOutputSystem(POLES, np.ones(2), None, np.eye(2))
    with pytest.raises(ShapeError, match="numbers of outputs"):
        QuadraticOutputSystem(POLES, B, np.ones((3, 2)), np.eye(2))
    with pytest.raises(ShapeError, match="D is complex but real_output"):
        QuadraticOutputSystem(POLES, B, None, np.eye(2), [[1j]], real_output=True)
    system = QuadraticOutputSystem(POLES, B, None, np.eye(2), real_output=True)
    with pytest.raises(ShapeError, match="u is complex"):
        system.simulate(np.array([[1j]]))
    with pytest.raises(OrderError, match="horizon"):
        system.kernels(None)
    with pytest.raises(UnsupportedOperationError, match="continuous time"):
        system.replace(dt=0.0).simulate(np.ones((3, 1)))
    with pytest.raises(UnsupportedOperationError, match="outputs are complex"):
        quadratic_system(0, FORMS[1]).realified()
    with pytest.raises(UnsupportedOperationError, match="A is dense"):
        quadratic_system(0, ("dense", "factors", "hermitian", True)).full_spectrum()


def test_differences_that_are_refused():
    system = QuadraticOutputSystem(POLES, B, None, np.eye(2))
    with pytest.raises(ShapeError, match=r"differ in convention.*with_convention"):
        difference(system, system.replace(convention="transpose"))
    with pytest.raises(ShapeError, match="differ in recurrence"):
        difference(system, system.replace(recurrence="post-update"))
    with pytest.raises(ShapeError, match="differ in dt"):
        difference(system, system.replace(dt=2.0))
    with pytest.raises(UnsupportedOperationError, match="no quadratic outputs"):
        difference(system, system.linear)
