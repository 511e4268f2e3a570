"""Filters with a bilinear gate as one system: outputs, norms, the best read-out, refusals."""

import numpy as np
import pytest
from quadratic_cases import normal

from ssmred.errors import DataError, ShapeError, UnsupportedOperationError
from ssmred.norms import h2_error, h2_norm
from ssmred.reductors import (
    QuadraticBalancedReductor,
    QuadraticH2Reductor,
    QuadraticSubsetReductor,
    with_best_read_out,
)
from ssmred.systems import DenseSystem, DiagonalSystem, gated_system

pytestmark = pytest.mark.theorem("bilinear-gate")

EXACT = 1e-12
FITTED = 1e-8
"""Of errors that a least-squares problem of condition 1e4 or so was solved for."""

KINDS = [
    (kind, batch, direct)
    for kind in ("half", "real", "dense")
    for batch in ((), (1,), (3,))
    for direct in (True, False)
]


def random_filter(seed, kind="half", batch=(), direct=True, *, n=4, m=2, q=3, **options):
    """Return a filter with real outputs; single-input single-output channels in a batch (H,)."""
    rng = np.random.default_rng(seed)
    if batch == (3,):
        m = q = 1
    D = rng.normal(size=(*batch, q, m)) * direct
    options = {"recurrence": "post-update", **options}
    if kind == "dense":
        A = rng.normal(size=(*batch, n, n))
        A = 0.6 * A / np.abs(np.linalg.eigvals(A)).max(axis=-1)[..., None, None]
        return DenseSystem(
            A, rng.normal(size=(*batch, n, m)), rng.normal(size=(*batch, q, n)), D, **options
        )
    size = rng.uniform(0.2, 0.6, (*batch, n))
    if kind == "real":
        parts = rng.normal(size=(*batch, n, m)), rng.normal(size=(*batch, q, n))
        return DiagonalSystem(size, *parts, D, **options)
    poles = size * np.exp(1j * rng.uniform(0.2, 3, size.shape))
    parts = normal(rng, *batch, n, m), normal(rng, *batch, q, n)
    return DiagonalSystem(poles, *parts, D, real_output=True, **options)


def weights(seed, outputs, p=2, bias=True):
    rng = np.random.default_rng(seed)
    W1, W2, b1, b2 = (rng.normal(size=s) for s in ((p, outputs), (p, outputs), p, p))
    return (W1, W2, b1, b2) if bias else (W1, W2)


def responses(filtered, T):
    """Return the impulse response (T, q, m) of all channels side by side."""
    h = filtered.impulse_response(T)
    if not filtered.batch_shape:
        return h
    H, _, q, m = h.shape
    out = np.zeros((T, H * q, H * m))
    for i in range(H):
        out[:, i * q : (i + 1) * q, i * m : (i + 1) * m] = h[i]
    return out


def width(filtered):
    return filtered.outputs * int(np.prod(filtered.batch_shape))


def kernels(filtered, W1, W2, b1=0.0, b2=0.0, T=40):
    """Return both kernels of the gate, written out from the filter's impulse response."""
    h = responses(filtered, T)
    one, two = W1 @ h, W2 @ h  # (T, p, m)
    b1, b2 = (np.broadcast_to(b, len(W1))[:, None] for b in (b1, b2))
    product = np.einsum("ipm,lpq->ilpmq", one, two)
    return b2 * one + b1 * two, (product + product.transpose(1, 0, 2, 4, 3)) / 2


def size(*parts):
    return np.sqrt(sum(np.sum(np.abs(part) ** 2) for part in parts))


def answers(filtered, u):
    """Return the filter's own outputs (T, q) for inputs (T, m), channels side by side."""
    if filtered.batch_shape == (3,):
        return filtered.simulate(u.T[..., None])[..., 0].T
    return filtered.simulate(u).reshape(len(u), -1)


def gated(y, W1, W2, b1=0.0, b2=0.0):
    return (y @ W1.T + b1) * (y @ W2.T + b2)


def assert_answers(found, filtered, gate, seed=2):
    u = np.random.default_rng(seed).normal(size=(20, found.system.inputs))
    wanted, got = gated(answers(filtered, u), *gate), found.simulate(u)
    assert got.dtype == float
    assert np.abs(got - wanted).max() <= EXACT * np.abs(wanted).max()


# --- the system ----------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("kind", "batch", "direct"), KINDS)
def test_it_answers_as_the_filter_and_the_gate(kind, batch, direct, bias):
    filtered = random_filter(0, kind, batch, direct)
    gate = weights(1, width(filtered), bias=bias)
    found = gated_system(filtered, *gate)
    states = {"half": 8, "real": 4, "dense": 4}[kind] * int(np.prod(batch))
    inputs = width(filtered) if batch == (3,) else 2
    assert (found.system.order, found.system.inputs) == (states + inputs * direct, inputs)
    assert found.system.factors[0].shape == (2, found.system.order, 1)
    assert_answers(found, filtered, gate)
    several = found.simulate(np.ones((5, 4, inputs)))
    assert several.shape == (5, 4, 2)


@pytest.mark.parametrize("dt", [0.5, 0.0])
def test_without_a_direct_term_every_time_will_do(dt):
    filtered = random_filter(4, direct=False, recurrence="standard", dt=dt)
    if dt == 0:
        filtered = filtered.replace(poles=-1 + 1j * filtered.poles)
    gate = weights(5, 3)
    found = gated_system(filtered, *gate)
    assert (found.system.dt, found.system.order) == (dt, 8)
    if dt == 0:  # integrals of products of exponentials, by a fine rule
        t, w = np.polynomial.legendre.leggauss(400)
        t, w = 12.5 * (t + 1), 12.5 * w
        h = (filtered.C @ (np.exp(np.outer(t, filtered.poles))[..., None] * filtered.B)).real
        one, two = (np.sqrt(w)[:, None, None] * (W @ h) for W in gate[:2])
        product = np.einsum("ipm,lpq->ilpmq", one, two)
        quadratic = (product + product.transpose(1, 0, 2, 4, 3)) / 2
        linear = gate[3][:, None] * one + gate[2][:, None] * two
        norm = size(linear, quadratic)
        assert abs(h2_norm(found.system) - norm) <= 1e-9 * norm
    else:
        assert_answers(found, filtered, gate)


def test_only_inputs_that_a_factor_sees_become_states():
    filtered = random_filter(6, m=3, q=3)
    D = np.diag([1.0, 0.0, 2.0])
    W1, W2 = np.eye(3)[:2], np.eye(3)[1:]
    assert gated_system(filtered.replace(D=D), W1, W2).system.order == 8 + 2
    assert gated_system(filtered.replace(D=D), W1[1:], W1[1:]).system.order == 8


def test_padding_is_left_out():
    filtered = random_filter(7, batch=(3,))
    B = filtered.B.copy()
    B[0, 2:] = B[2, 1:] = 0
    ragged = filtered.replace(B=B, poles=np.where(B[..., 0] == 0, 0, filtered.poles))
    gate = weights(8, 3)
    for filtered in (ragged, ragged.realified()):
        found = gated_system(filtered, *gate)
        assert found.system.order == 2 * (2 + 4 + 1) + 3
        assert_answers(found, ragged, gate)


def test_no_smaller_state_will_do():
    """Rows of the kernels and all that is left of them when time goes on: n + rank D dimensions."""
    filtered = random_filter(10, "real", n=3, m=2, q=2)
    for D in (np.eye(2), np.ones((2, 2)), np.zeros((2, 2))):
        one = filtered.replace(D=D)
        gate = weights(11, 2, p=3, bias=False)
        _, h2 = kernels(one, *gate, T=14)
        T, p, m = 14, 3, 2
        rows = h2.transpose(0, 2, 3, 1, 4).reshape(T * p * m, T, m)  # one per first index
        shifted = [np.concatenate([rows[:, s:], np.zeros((len(rows), s, m))], 1) for s in range(4)]
        everything = np.concatenate(shifted)[:, :10].reshape(-1, 20)
        values = np.linalg.svd(everything, compute_uv=False)
        least = int((values > 1e-9 * values[0]).sum())
        assert least == 3 + np.linalg.matrix_rank(D)
    assert gated_system(filtered.replace(D=np.eye(2)), *gate).system.order == 3 + 2


# --- norms ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("horizon", [7, None])
@pytest.mark.parametrize(("kind", "batch", "direct"), KINDS)
def test_norms_are_sums_over_kernels(kind, batch, direct, horizon):
    filtered = random_filter(12, kind, batch, direct)
    gate = weights(13, width(filtered))
    T = horizon or 60  # 0.6^60 is 5e-14 and is squared
    h1, h2 = kernels(filtered, *gate, T=T)
    system = gated_system(filtered, *gate).system
    found = h2_norm(system, horizon=horizon)
    assert abs(found - size(h1, h2)) <= EXACT * found
    one, two = (W @ responses(filtered, T) for W in gate[:2])
    a, b, c = (np.sum(x * y, axis=(0, 2)) for x, y in ((one, one), (two, two), (one, two)))
    linear = gate[3] ** 2 * a + gate[2] ** 2 * b + 2 * gate[2] * gate[3] * c
    assert abs(found**2 - np.sum(linear + (a * b + c**2) / 2)) <= EXACT * found**2
    other = gated_system(filtered, *weights(14, width(filtered))).system
    g1, g2 = kernels(filtered, *weights(14, width(filtered)), T=T)
    error = h2_error(system, other, horizon=horizon)
    assert abs(error - size(h1 - g1, h2 - g2)) <= EXACT * (found + size(g1, g2))


# --- the best read-out ---------------------------------------------------------------------------


def best_outputs(states, target, T, direct):
    """Fit C, and D where allowed, by least squares to impulse responses (T, q, m)."""
    h = states.impulse_response(T)  # (T, r, m)
    design = h.transpose(1, 0, 2).reshape(h.shape[1], -1)
    if direct:
        m = h.shape[2]
        impulses = np.zeros((m, T, m))
        impulses[np.arange(m), 0, np.arange(m)] = 1
        design = np.vstack([design, impulses.reshape(m, -1)])
    goal = target.transpose(1, 0, 2).reshape(target.shape[1], -1)
    fitted = np.linalg.lstsq(design.T, goal.T, rcond=None)[0].T
    r = h.shape[1]
    return fitted[:, :r], fitted[:, r:] if direct else np.zeros((len(goal), h.shape[2]))


def least_error(states, h1, h2, direct, linear_direct=False):
    """Return the least h2 error of all quadratic outputs on given states, by brute force.

    `direct`: the present inputs are states too, and D is free; `linear_direct`: only D is.
    """
    T, p, m = h1.shape
    b = states.impulse_response(T)  # (T, r, m)
    impulses = np.zeros((T, m, m))
    impulses[0] = np.eye(m)
    seen = np.concatenate([b, impulses], axis=1) if direct else b
    linear = np.concatenate([b, impulses], axis=1) if direct or linear_direct else b
    r = seen.shape[1]
    forms = []
    for i in range(r):
        for k in range(i, r):
            E = np.zeros((r, r))
            E[i, k] = E[k, i] = 1
            forms.append(np.einsum("iam,ab,lbn->ilmn", seen, E, seen).ravel())
    design, rest = np.array(forms).T, []
    for j in range(p):
        goal = h2[:, :, j].ravel()
        rest.append(goal - design @ np.linalg.lstsq(design, goal, rcond=None)[0])
        rows = linear.transpose(1, 0, 2).reshape(linear.shape[1], -1).T
        goal = h1[:, j].ravel()
        rest.append(goal - rows @ np.linalg.lstsq(rows, goal, rcond=None)[0])
    return size(*rest)


def real_states(seed, r=3, m=2):
    """Return states of a reduced model, each its own output; one real pole and a pair."""
    rng = np.random.default_rng(seed)
    A = np.zeros((r, r))
    A[:2, :2] = 0.5 * np.array([[np.cos(1), -np.sin(1)], [np.sin(1), np.cos(1)]])
    A[2, 2] = 0.35
    return DenseSystem(A, rng.normal(size=(r, m)), np.eye(r), recurrence="post-update")


@pytest.mark.parametrize("T", [6, 40])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("direct", [True, False])
def test_the_best_linear_read_out_gives_the_best_gate(direct, bias, T):
    filtered, states = random_filter(15, direct=direct), real_states(16)
    gate = weights(17, 3, bias=bias)
    C, D = best_outputs(states, responses(filtered, T), T, direct)
    reduced = gated_system(states.replace(C=C, D=D), *gate)
    full = gated_system(filtered, *gate)
    np.testing.assert_array_equal(full.offset, reduced.offset)
    error = h2_error(full.system, reduced.system, horizon=T)
    least = least_error(states, *kernels(filtered, *gate, T=T), direct)
    assert least > 1e-3 * h2_norm(full.system, horizon=T)
    assert abs(error - least) <= FITTED * least
    norms = [h2_norm(gate.system, horizon=T) for gate in (full, reduced)]
    assert abs(error**2 - (norms[0] ** 2 - norms[1] ** 2)) <= FITTED * error**2
    if direct or not bias:  # where D is free in both, or has nothing to do
        fitted = with_best_read_out(full.system, reduced.system.linear, horizon=T)
        assert abs(h2_error(full.system, fitted, horizon=T) - least) <= FITTED * least


def test_a_bias_and_a_free_direct_term_alone_break_it():
    """D for the linear outputs, no inputs among the states: the best linear outputs are others."""
    T, filtered, states = 12, random_filter(18, direct=False), real_states(19)
    gate = weights(20, 3)
    both = kernels(filtered, *gate, T=T)
    C, D = best_outputs(states, responses(filtered, T), T, direct=False)
    gap = h2_error(
        gated_system(filtered, *gate).system,
        gated_system(states.replace(C=C, D=D), *gate).system,
        horizon=T,
    )
    assert gap > (1 + 1e-3) * least_error(states, *both, direct=False, linear_direct=True)


def test_channels_side_by_side_have_their_own_best_read_outs():
    """No state of one channel makes up for anything in another."""
    T = 10
    filtered = random_filter(21, batch=(3,), n=3)
    kept = filtered.replace(poles=filtered.poles[:, :1], B=filtered.B[:, :1], C=filtered.C[..., :1])
    C, D = np.zeros((3, 1, 1), complex), np.zeros((3, 1, 1))
    for h in range(3):
        states = DiagonalSystem(
            kept.poles[h], kept.B[h], [[1.0], [-1j]], np.zeros((2, 1)),
            recurrence="post-update", real_output=True,
        )  # fmt: skip
        target = filtered.impulse_response(T)[h]
        real, D[h] = best_outputs(states, target, T, direct=True)
        C[h] = real[:, :1] - 1j * real[:, 1:]
    reduced = kept.replace(C=C, D=D)
    gate = weights(22, 3)
    full, small = (gated_system(s.realified(), *gate).system for s in (filtered, reduced))
    fitted = with_best_read_out(full, small.linear, horizon=T)
    error, least = (h2_error(full, s, horizon=T) for s in (small, fitted))
    assert abs(error - least) <= FITTED * least


@pytest.mark.parametrize(
    "reductor", [QuadraticSubsetReductor, QuadraticBalancedReductor, QuadraticH2Reductor]
)
def test_reductors_take_it_and_their_errors_are_true(reductor):
    modes, gate, order = random_filter(23, n=4), weights(24, 3), 6
    filtered = modes if reductor is QuadraticSubsetReductor else modes.realified()
    full = gated_system(filtered, *gate)
    assert full.system.is_real == (filtered is not modes)
    reduction = reductor().reduce(full.system, order=order)
    assert reduction.order <= order
    h1, h2 = kernels(modes, *gate, T=60)
    g1, g2 = reduction.system.kernels(60)
    wanted = size(h1 - g1, h2 - g2)
    assert 0 < wanted < size(h1, h2)
    assert abs(float(reduction.bound.value) - wanted) <= 1e-9 * size(h1, h2)


# --- what an error does --------------------------------------------------------------------------


def test_errors_of_products():
    rng = np.random.default_rng(25)
    filtered, states = random_filter(26), real_states(27)
    T, gate = 30, weights(28, 3)
    C, D = best_outputs(states, responses(filtered, T), T, direct=True)
    small = states.replace(C=C, D=D)
    full, reduced = (gated_system(s, *gate) for s in (filtered, small))
    for _ in range(50):
        u = rng.normal(size=(T, 2))
        (a1, a2), (c1, c2) = (
            (y @ gate[0].T + gate[2], y @ gate[1].T + gate[3])
            for y in (filtered.simulate(u), small.simulate(u))
        )
        gap = np.abs(full.simulate(u) - reduced.simulate(u))
        bound = np.abs(a2) * np.abs(a1 - c1) + np.abs(c1) * np.abs(a2 - c2)
        assert (gap <= bound + EXACT * np.abs(full.simulate(u)).max()).all()


# --- refusals ------------------------------------------------------------------------------------


def test_what_does_not_fit():
    filtered = random_filter(29)
    W1, W2, b1, _ = weights(30, 3)
    with pytest.raises(ShapeError, match=r"W1 does not fit the filter.*\(p, 3\).*got \(2, 2\)"):
        gated_system(filtered, W1[:, :2], W2)
    with pytest.raises(ShapeError, match="W1 and W2 differ in shape"):
        gated_system(filtered, W1, W2[:1])
    with pytest.raises(ShapeError, match=r"b1 does not fit W1.*\(2,\).*\(1,\)"):
        gated_system(filtered, W1, W2, b1[:1])
    with pytest.raises(ShapeError, match="W2 is complex"):
        gated_system(filtered, W1, W2 + 0j)
    with pytest.raises(ShapeError, match="W1 does not hold numbers"):
        gated_system(filtered, "W", W2)
    with pytest.raises(DataError, match="W2 has 1 entries that are nan"):
        gated_system(filtered, W1, np.where(np.arange(3) == 1, np.nan, W2[:1]))
    with pytest.raises(DataError, match="b2 has 2 entries that are nan or inf"):
        gated_system(filtered, W1, W2, b1, np.full(2, np.inf))
    with pytest.raises(ShapeError, match=r"a batch with several axes.*\(2, 3\)"):
        gated_system(
            DiagonalSystem(np.full((2, 3, 1), 0.5), np.ones((2, 3, 1)), np.ones((2, 3, 1))), W1, W2
        )
    with pytest.raises(UnsupportedOperationError, match=r"outputs are complex.*real_output=True"):
        gated_system(filtered.replace(real_output=False), W1, W2)
    with pytest.raises(UnsupportedOperationError, match="not a system"):
        gated_system(W1, W1, W2)
    with pytest.raises(ShapeError, match="u is complex"):
        gated_system(filtered, W1, W2).simulate(np.ones((3, 2)) + 0j)


def test_a_direct_term_needs_a_state_that_is_the_present_input():
    gate = weights(31, 3)
    standard = random_filter(32, recurrence="standard")
    with pytest.raises(UnsupportedOperationError, match=r"the standard recurrence.*post-update"):
        gated_system(standard, *gate)
    found = gated_system(standard.with_recurrence("post-update"), *gate)
    assert_answers(found, standard, gate)
    continuous = random_filter(34, recurrence="standard", dt=0.0)
    with pytest.raises(UnsupportedOperationError, match=r"continuous time.*Discretise"):
        gated_system(continuous, *gate)
    silent = np.zeros_like(standard.D)
    assert gated_system(standard.replace(D=silent), *gate).system.order == 8


@pytest.mark.parametrize("m", [0, 2])
def test_nothing_to_filter(m):
    filtered = DiagonalSystem(
        np.zeros(0), np.zeros((0, 2)), np.zeros((2, 0)), m * np.eye(2), recurrence="post-update"
    )
    gate = gated_system(filtered, np.eye(2), np.eye(2)[::-1], [1.0, 0.0], [0.0, 3.0])
    u = np.random.default_rng(35).normal(size=(5, 2))
    wanted = (m * u + [1.0, 0.0]) * (m * u[:, ::-1] + [0.0, 3.0])
    np.testing.assert_allclose(gate.simulate(u), wanted, rtol=1e-14, atol=0)
