"""Balanced truncation of layers with one shared state, written with modes again, against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from independent_errors import sampled_gain
from scipy.linalg import cholesky, solve_discrete_lyapunov, svd

from ssmred.errors import UnsupportedOperationError
from ssmred.gramians import InputMoments
from ssmred.pipeline.measured import united, with_read_out
from ssmred.reductors import BalancedReductor
from ssmred.systems import DenseSystem, DiagonalSystem

PEER = 1e-9  # SciPy squares: half of the digits of the smallest of these Hankel values are lost
MODES = 1e-11  # condition of the eigenvectors (below 1e2) times rounding


def layer(rng, n, m, p, recurrence, *, low=0.3, high=0.95):
    def normal(*shape):
        return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)

    poles = rng.uniform(low, high, (1, n)) * np.exp(1j * rng.uniform(0.02, 3.1, (1, n)))
    D = rng.standard_normal((1, p, m))
    return DiagonalSystem(
        poles, normal(1, n, m), normal(1, p, n), D, recurrence=recurrence, real_output=True
    )


def scipy_balanced(system, states):
    """Return Hankel values and the truncated system, from Lyapunov equations."""
    full = system.realified()
    A, B, C = full.A[0], full.B[0], full.C[0]
    P, Q = solve_discrete_lyapunov(A, B @ B.T), solve_discrete_lyapunov(A.T, C.T @ C)
    Lp, Lq = cholesky(P, lower=True), cholesky(Q, lower=True)
    U, values, Vt = svd(Lq.T @ Lp)
    scale = 1 / np.sqrt(values[:states])
    V, W = Lp @ Vt[:states].T * scale, Lq @ U[:, :states] * scale
    small = full.replace(A=(W.T @ A @ V)[None], B=(W.T @ B)[None], C=(C @ V)[None])
    return values, small


def single(system):
    names = ("A" if isinstance(system, DenseSystem) else "poles", "B", "C", "D")
    return system.replace(**{name: getattr(system, name)[0] for name in names})


@pytest.mark.theorem("balanced-truncation")
@pytest.mark.parametrize("recurrence", ["standard", "post-update"])
@pytest.mark.parametrize(
    ("n", "m", "p"), [(8, 3, 2), (8, 2, 5), (6, 1, 4), (6, 4, 1), (16, 16, 16)]
)
def test_modes_of_the_truncated_system_against_scipy(recurrence, n, m, p):
    rng = np.random.default_rng(n + m)
    system = layer(rng, n, m, p, recurrence)
    path = BalancedReductor(form="diagonal").path(system)
    compared = 0
    for order in range(n + 1):
        reduction = path.reduction(order)
        assert isinstance(reduction.system, DiagonalSystem)
        assert reduction.system.real_output
        assert np.all(np.abs(reduction.system.poles) < 1)
        gain = sampled_gain(single(system), single(reduction.system))
        assert gain <= reduction.bound.value[0]  # zero slack
        dense = BalancedReductor(form="dense").path(system)
        real = dense.reduction(order).system  # an order counts modes: twice as many real states
        values, small = scipy_balanced(system, 2 * order)
        scale = np.abs(system.impulse_response(60)).max()
        assert np.allclose(reduction.hankel[0], values, rtol=0, atol=PEER * values[0])
        gap = real.impulse_response(60) - small.impulse_response(60)
        assert np.abs(gap).max() <= PEER * scale
        # two real modes take two places of a half spectrum: then it holds fewer states
        if np.iscomplex(np.linalg.eigvals(small.A[0])).all():
            gap = reduction.system.impulse_response(60) - real.impulse_response(60)
            assert np.abs(gap).max() <= MODES * scale
            compared += 1
    assert compared >= n // 2


@pytest.mark.theorem("balanced-truncation")
@pytest.mark.parametrize("recurrence", ["standard", "post-update"])
@pytest.mark.parametrize("gap", [1e-6, 1e-9, 1e-12])
def test_poles_near_the_circle(recurrence, gap):
    rng = np.random.default_rng(5)
    system = layer(rng, 6, 3, 2, recurrence)
    poles = system.poles.copy()
    poles[0, 0] *= (1 - gap) / np.abs(poles[0, 0])
    poles[0, 1] = 1 - 2 * gap
    system = system.replace(poles=poles)
    path = BalancedReductor(form="diagonal").path(system)
    for order in (2, 4, 5):
        reduction = path.reduction(order)
        assert np.all(np.abs(reduction.system.poles) < 1)
        assert sampled_gain(single(system), single(reduction.system)) <= reduction.bound.value[0]
        # the slow modes decide: they stay
        assert np.isclose(np.abs(reduction.system.poles).max(), 1 - gap, rtol=gap)


def test_calibrated_balancing_moves_poles_by_the_moments_of_the_shared_state():
    rng = np.random.default_rng(6)
    system = layer(rng, 8, 3, 2, "post-update")
    V = rng.standard_normal((20, 3, 50)).cumsum(axis=-1)
    moments = InputMoments(3, 50, system=system)
    moments.update(V)
    reductor = BalancedReductor(moments=moments)
    reduction = reductor.path(system).reduction(4)
    assert reduction.bound is None
    # Hankel values: square roots of the eigenvalues of W Q, W by simulation
    x = DiagonalSystem(
        np.broadcast_to(system.poles, (1, 8)), system.B, np.eye(8)[None], recurrence="post-update"
    ).simulate(V.swapaxes(1, 2))
    real = np.stack([x.real, x.imag], axis=-1).reshape(20, 50, 16)
    W = np.einsum("stk,stl->kl", real, real) / 20
    dense = system.realified()
    powers = [dense.C[0] @ np.linalg.matrix_power(dense.A[0], k) for k in range(50)]
    Q = sum(row.T @ row for row in powers)
    values = np.sqrt(np.sort(np.linalg.eigvals(W @ Q).real)[::-1])
    assert np.allclose(reduction.hankel[0], values, rtol=0, atol=PEER * values[0])
    union = united(reduction)
    again = InputMoments(3, 50, system=union)
    again.update(V)
    fitted = with_read_out(reduction, again.square_root(union), again.name)
    gap = fitted.system.simulate(V.swapaxes(1, 2)) - system.simulate(V.swapaxes(1, 2))
    error = np.sqrt(np.mean(np.sum(gap**2, axis=(1, 2))))
    before = reduction.system.simulate(V.swapaxes(1, 2)) - system.simulate(V.swapaxes(1, 2))
    assert error < np.sqrt(np.mean(np.sum(before**2, axis=(1, 2))))
    assert np.isclose(fitted.bound.value[0], error, rtol=1e-6)
    with pytest.raises(UnsupportedOperationError):
        reductor.reduce(system.replace(poles=system.poles / 2), order=2)
