"""Calibrated metrics of layers with one shared state, against simulated signals."""

from __future__ import annotations

import numpy as np
import pytest

from ssmred.errors import (
    AccuracyError,
    DataError,
    ShapeError,
    UnsupportedOperationError,
)
from ssmred.gramians import (
    InputMoments,
    OutputMetric,
    OutputSensitivity,
    basis_coefficients,
)
from ssmred.gramians.features import INPUT_ROUNDING, features
from ssmred.gramians.output_metric import COHERENT, WHITE
from ssmred.gramians.square_root import change_read_out
from ssmred.reductors import SubsetReductor
from ssmred.systems import DiagonalSystem

EXACT = 1e-12  # QR of some hundred rows, relative to the column
FLOOR = 1e-8  # regularisation: 2**-17 of an input, squared, times changes of D of some units
SIZES = [(1, 3, 2), (1, 1, 3), (1, 3, 1), (2, 2, 2)]


def layer(rng, H=1, n=5, m=3, p=2, *, radius=0.95, recurrence="post-update"):
    poles = radius * np.sqrt(rng.random((H, n))) * np.exp(2j * np.pi * rng.random((H, n)))
    B = rng.standard_normal((H, n, m)) + 1j * rng.standard_normal((H, n, m))
    C = rng.standard_normal((H, p, n)) + 1j * rng.standard_normal((H, p, n))
    D = rng.standard_normal((H, p, m))
    return DiagonalSystem(poles, B, C, D, recurrence=recurrence, real_output=True)


def outputs(system, V):
    """Return (S, H p, T) outputs for inputs (S, H m, T), by simulation."""
    H = len(system.poles)
    U = np.moveaxis(V.reshape(len(V), H, system.inputs, -1), 2, 3)
    return np.moveaxis(system.simulate(U), 3, 2).reshape(len(V), -1, V.shape[-1])


def basis_signals(system, V):
    """Return (H, S, T, K): what every coefficient of the first output multiplies."""
    one = system.replace(C=np.zeros_like(system.C), D=np.zeros_like(system.D))
    H, K = len(system.poles), system.inputs + 2 * system.order
    columns = []
    for j in range(K):
        change = np.zeros((H, K, system.outputs))
        change[:, j, 0] = 1
        y = outputs(change_read_out(one, change), V)
        columns.append(y.reshape(len(V), H, system.outputs, -1)[:, :, 0].swapaxes(0, 1))
    return np.stack(columns, axis=-1)


def moments_of(system, V, Y=None):
    moments = InputMoments(V.shape[1], V.shape[2], system=system)
    for part in (slice(0, 2), slice(2, None)):
        moments.update(V[part], None if Y is None else Y[part])
    return moments


@pytest.mark.theorem("shared-metric")
@pytest.mark.parametrize("recurrence", ["standard", "post-update"])
@pytest.mark.parametrize(("H", "m", "p"), SIZES)
def test_features_are_what_coefficients_multiply(recurrence, H, m, p):
    rng = np.random.default_rng(1)
    system = layer(rng, H, m=m, p=p, recurrence=recurrence)
    V = rng.standard_normal((3, H * m, 40))
    F, expected = features(system, V), basis_signals(system, V)
    assert np.allclose(F, expected, rtol=0, atol=EXACT * np.abs(expected).max())
    Y = outputs(system, V).reshape(3, H, p, 40)
    theta = basis_coefficients(system)
    assert np.allclose(np.moveaxis(F @ theta[:, None], 0, 1).swapaxes(2, 3), Y, atol=1e-11)


@pytest.mark.theorem("shared-metric")
@pytest.mark.parametrize("recurrence", ["standard", "post-update"])
@pytest.mark.parametrize(("H", "m", "p"), SIZES)
@pytest.mark.parametrize("horizon", [1, 2, 60])
def test_gramian_of_simulated_signals(recurrence, H, m, p, horizon):
    rng = np.random.default_rng(2)
    system = layer(rng, H, m=m, p=p, recurrence=recurrence)
    V = rng.standard_normal((6, H * m, horizon)).cumsum(axis=-1)
    root = moments_of(system, V).square_root(system)
    F = basis_signals(system, V).reshape(H, -1, root.factor.shape[-1]) / np.sqrt(6)
    scale = np.linalg.norm(F, axis=1)
    # both columns of a mode round relative to the mode
    scale[:, m:] = np.hypot(scale[:, m::2], scale[:, m + 1 :: 2]).repeat(2, axis=-1)
    G = np.swapaxes(root.factor, 1, 2) @ root.factor
    expected = np.swapaxes(F, 1, 2) @ F
    if m > 1:  # what keeps coefficients of dependent inputs small
        inputs = np.arange(m)
        expected[:, inputs, inputs] *= 1 + INPUT_ROUNDING**2
    assert np.all(np.abs(G - expected) <= EXACT * scale[:, :, None] * scale[:, None, :])
    assert np.all(np.tril(root.factor, -1) == 0)
    Y = outputs(system, V).reshape(6, H, p, -1)
    assert np.allclose(root.norms**2, np.mean(np.sum(Y**2, axis=(2, 3)), axis=0), rtol=FLOOR)
    assert not np.any(root.residual)
    assert not np.any(root.extra)


@pytest.mark.theorem("shared-metric")
def test_redundancy_is_seen_below_the_square_root_of_eps():
    """Two modes 1e-13 apart, read with opposite signs: squared, their difference would be lost."""
    rng = np.random.default_rng(3)
    poles = 0.97 * np.exp(1j * np.array([[0.2, 0.2 + 1e-13]]))
    B = np.broadcast_to(rng.standard_normal((1, 1, 3)), (1, 2, 3))
    C = np.array([[[1.0, -1.0], [1.0j, -1.0j]]])
    system = DiagonalSystem(poles, B, C, recurrence="post-update", real_output=True)
    V = rng.standard_normal((3, 3, 60))
    root = moments_of(system, V).square_root(system)
    k = np.arange(60)
    slope = k * poles[0, 0] ** np.maximum(k - 1, 0) * (poles[0, 0] - poles[0, 1])
    drive = np.einsum("j,sjt->st", B[0, 0].real, V)
    parts = (slope.real, -slope.imag)
    energy = [sum(np.sum(np.convolve(x, d)[:60] ** 2) for x in parts) for d in drive]
    expected = np.sqrt(np.mean(energy))
    assert expected < 1e-11 * np.linalg.norm(root.factor[0, :, 3])
    assert abs(root.norms[0] - expected) < 1e-2 * expected


@pytest.mark.theorem("shared-metric")
@pytest.mark.parametrize(("H", "m", "p"), SIZES)
def test_calibrated_errors_and_read_outs_are_the_best_on_the_signals(H, m, p):
    rng = np.random.default_rng(4)
    system = layer(rng, H, m=m, p=p)
    V = rng.standard_normal((12, H * m, 40)).cumsum(axis=-1)
    Y = outputs(system, V)
    Z = Y + 0.01 * rng.standard_normal(Y.shape)
    F = basis_signals(system, V)
    for target in (None, Z):
        path = SubsetReductor(metric=moments_of(system, V, target)).path(system)
        y = Y if target is None else Z
        scale = np.sqrt(np.mean(np.sum(y.reshape(12, H, -1) ** 2, axis=-1), axis=0))
        assert np.allclose(path.norms, scale, rtol=FLOOR)
        for order in (0, 2, 3, 5):
            reduction = path.reduction(order)
            missed = (outputs(reduction.system, V) - y).reshape(12, H, -1)
            error = np.sqrt(np.mean(np.sum(missed**2, axis=-1), axis=0))
            assert np.all(np.abs(reduction.bound.value - error) <= FLOOR * scale)
            assert np.all(np.abs(path.errors[:, 5 - order] - error) <= FLOOR * scale)
            for h in range(H):
                kept = np.flatnonzero(reduction.kept[h])
                modes = m + np.stack([2 * kept, 2 * kept + 1], axis=1).ravel()
                Phi = F[h][..., np.append(np.arange(m), modes)].reshape(12 * 40, -1)
                wanted = y.reshape(12, H, p, 40)[:, h].swapaxes(1, 2).reshape(-1, p)
                rest = wanted - Phi @ np.linalg.lstsq(Phi, wanted, rcond=None)[0]
                best = np.linalg.norm(rest) / np.sqrt(12)
                assert abs(error[h] - best) <= FLOOR * scale[h]


@pytest.mark.theorem("shared-metric")
def test_dependent_inputs_do_not_make_large_coefficients():
    """After a LayerNorm the inputs sum to rounding errors of float32; D must not use these."""
    rng = np.random.default_rng(5)
    system = layer(rng, m=6, p=4, n=8)
    V = rng.standard_normal((30, 6, 50)).cumsum(axis=-1)
    V = (V - V.mean(axis=1, keepdims=True)).astype(np.float32)
    reduction = SubsetReductor(metric=moments_of(system, V)).path(system).reduction(2)
    assert np.abs(reduction.system.D).max() < 1e2 * np.abs(system.C).max()


def test_silent_inputs_and_undriven_modes():
    rng = np.random.default_rng(6)
    system = layer(rng)
    B = system.B.copy()
    B[0, 2] = 0
    system = system.replace(B=B)
    V = rng.standard_normal((4, 3, 30))
    V[:, 1] = 0
    root = moments_of(system, V).square_root(system)
    dead = [1, 7, 8]
    assert not np.any(root.factor[0][dead])
    assert not np.any(root.factor[0][:, dead])
    path = SubsetReductor(metric=moments_of(system, V)).path(system)
    assert path.removal[0, 0] == 2
    assert path.errors[0, 1] == 0
    nothing = moments_of(system, 0 * V).square_root(system)
    assert not np.any(nothing.factor)
    assert nothing.norms[0] == 0


def shared_norm(system, reduced, V, G):
    """Return the squared metric of a difference from its definition, by direct sums."""
    S, _, T = V.shape
    gap = system.impulse_response(T)[0] - reduced.impulse_response(T)[0]  # (T, p, m)
    errors = np.zeros(G.shape)
    for k in range(T):
        errors[..., k:] += np.einsum("om,smt->sot", gap[k], V[..., : T - k])
    covariance = np.einsum("sot,sqt->oq", G, G) / (S * T)
    energy = np.mean(np.einsum("oq,sot,sqt->s", covariance, errors, errors))
    inputs = np.mean(np.sum(V**2, axis=-1))
    white = WHITE * inputs * np.einsum("oq,tom,tqm->", covariance, gap, gap)
    # tr(S E^T phi phi^T E) over the outputs of the gradient, whatever the output of the error
    coherent = 0.0
    for o in range(G.shape[1]):  # the gradient's output
        for s in range(S):
            a = np.array(
                [sum(gap[j, q] @ V[s, :, : T - j] @ G[s, o, j:] for j in range(T))
                 for q in range(G.shape[1])]
            )  # fmt: skip
            coherent += a @ covariance @ a / S
    return COHERENT * coherent / np.trace(covariance) + (1 - COHERENT) * (energy + white)


@pytest.mark.theorem("shared-metric")
@pytest.mark.parametrize("recurrence", ["standard", "post-update"])
@pytest.mark.parametrize(("m", "p"), [(3, 2), (1, 2), (3, 1)])
def test_output_metric_equals_the_direct_sums(recurrence, m, p):
    rng = np.random.default_rng(7)
    system = layer(rng, m=m, p=p, recurrence=recurrence)
    V = rng.standard_normal((5, m, 20))
    G = rng.standard_normal((5, p, 1)) + 0.1 * rng.standard_normal((5, p, 20))
    sensitivity = OutputSensitivity(system, 20)
    for part in (slice(0, 2), slice(2, None)):
        sensitivity.update(V[part], G[part])
    path = SubsetReductor(metric=OutputMetric(moments_of(system, V), sensitivity)).path(system)
    zero = system.replace(C=0 * system.C, D=0 * system.D)
    assert np.isclose(path.norms[0] ** 2, shared_norm(system, zero, V, G), rtol=FLOOR)
    for order in (0, 2, 4):
        reduction = path.reduction(order)
        expected = shared_norm(system, reduction.system, V, G)
        assert np.isclose(reduction.bound.value[0] ** 2, expected, rtol=FLOOR)
        assert np.isclose(path.errors[0, 5 - order] ** 2, expected, rtol=FLOOR)


@pytest.mark.theorem("shared-metric")
def test_one_input_and_output_is_the_metric_of_channels():
    """Two copies of a channel, one silent: the metric of systems is that of channels."""
    rng = np.random.default_rng(8)
    system = layer(rng, m=1, p=1)
    V, G = rng.standard_normal((9, 1, 30)), rng.standard_normal((9, 1, 30))
    wide = system.replace(
        C=np.concatenate([system.C, 0 * system.C], axis=1),
        D=np.concatenate([system.D, 0 * system.D], axis=1),
    )
    found = []
    for one, slopes in ((system, G), (wide, np.concatenate([G, 0 * G], axis=1))):
        sensitivity = OutputSensitivity(one, 30)
        sensitivity.update(V, slopes)
        path = SubsetReductor(metric=OutputMetric(moments_of(one, V), sensitivity)).path(one)
        found.append((path.removal, path.errors))
    assert np.array_equal(found[0][0], found[1][0])
    assert np.allclose(found[0][1], found[1][1], rtol=FLOOR)


def test_refusals():
    rng = np.random.default_rng(9)
    system = layer(rng)
    V = rng.standard_normal((4, 3, 30))
    with pytest.raises(UnsupportedOperationError, match="4 inputs"):
        InputMoments(4, 30, system=system)
    with pytest.raises(UnsupportedOperationError, match="system="):
        InputMoments(3, 30).square_root(system)
    moments = InputMoments(3, 30, system=system)
    with pytest.raises(DataError, match="no inputs"):
        moments.square_root(system)
    with pytest.raises(ShapeError, match=r"\(samples, 3, 30\)"):
        moments.update(V[:, :2])
    with pytest.raises(ShapeError, match=r"\(samples, 2, 30\)"):
        moments.update(V, V)
    with pytest.raises(ShapeError, match="differ"):
        moments.update(V, V[:3, :2])
    moments.update(V)
    with pytest.raises(UnsupportedOperationError, match="another system"):
        moments.square_root(system.replace(poles=system.poles / 2))
    with pytest.raises(ShapeError, match=r"V \(samples, 3, 30\) and G \(samples, 2, 30\)"):
        OutputSensitivity(system, 30).update(V, V)
    wild = system.replace(poles=1e200 * system.poles)
    with np.errstate(all="ignore"):
        moments = InputMoments(3, 30, system=wild)
        moments.update(V)
    with pytest.raises(AccuracyError, match="overflow"):
        moments.square_root(wild)
