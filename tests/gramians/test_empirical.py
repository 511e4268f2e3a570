"""The empirical metric against simulated signals, in both ways of accumulating it."""

from __future__ import annotations

import numpy as np
import pytest

from ssmred.errors import DataError, OrderError, ShapeError, UnsupportedOperationError
from ssmred.gramians import InputMoments, basis_coefficients, basis_square_root, empirical
from ssmred.gramians.square_root import change_read_out
from ssmred.systems import DiagonalSystem

TOEPLITZ = 1e-12  # Cholesky of T x T sums: T eps, times a few
DISPLACEMENT = 1e-10  # its diagonal is raised by 1e-13; the recurrence adds T eps
TARGET = 1e-9  # the regularisation with a target is 1e-8 of each column, squared when it acts


def random_layer(rng, H=3, n=4, *, radius=0.95, recurrence="post-update"):
    poles = radius * np.sqrt(rng.random((H, n))) * np.exp(2j * np.pi * rng.random((H, n)))
    B = rng.standard_normal((H, n, 1)) + 1j * rng.standard_normal((H, n, 1))
    C = rng.standard_normal((H, 1, n)) + 1j * rng.standard_normal((H, 1, n))
    D = rng.standard_normal((H, 1, 1))
    return DiagonalSystem(poles, B, C, D, recurrence=recurrence, real_output=True)


def outputs(system, V):
    return system.simulate(V[..., None])[..., 0]


def basis_signals(system, V):
    """Return the (H, S T, K) signals of all basis responses driven by V, by simulation."""
    theta = np.zeros_like(basis_coefficients(system))
    zero = system.replace(C=np.zeros_like(system.C), D=np.zeros_like(system.D))
    columns = []
    for j in range(theta.shape[1]):
        change = theta.copy()
        change[:, j] = 1
        columns.append(np.swapaxes(outputs(change_read_out(zero, change), V), 0, 1))
    return np.stack(columns, axis=-1).reshape(len(theta), -1, theta.shape[1])


def moments_of(system, V, Y=None, *, displacement=False, monkeypatch=None):
    if displacement:
        monkeypatch.setattr(empirical, "LONGEST_TOEPLITZ", 0)
    moments = InputMoments(V.shape[1], V.shape[2], system=system)
    assert moments.is_toeplitz is not displacement
    half = len(V) // 2
    for part in (slice(0, half), slice(half, None)):
        moments.update(V[part], None if Y is None else Y[part])
    return moments


@pytest.mark.theorem("calibrated-metric")
@pytest.mark.parametrize("recurrence", ["standard", "post-update"])
@pytest.mark.parametrize("displacement", [False, True])
@pytest.mark.parametrize("horizon", [1, 2, 33, 80])
def test_gramian_of_simulated_signals(recurrence, displacement, horizon, monkeypatch):
    rng = np.random.default_rng(1)
    system = random_layer(rng, recurrence=recurrence)
    V = rng.standard_normal((6, 3, horizon)).cumsum(axis=-1)
    moments = moments_of(system, V, displacement=displacement, monkeypatch=monkeypatch)
    root = moments.square_root(system)
    F = basis_signals(system, V) / np.sqrt(len(V))
    floor = 1.0 if displacement else 1e-2  # a delayed state may vanish where its energy does not
    scale = np.maximum(np.linalg.norm(F, axis=1), floor * np.linalg.norm(F[..., :1], axis=1))
    G = np.swapaxes(root.factor, 1, 2) @ root.factor
    tolerance = DISPLACEMENT if displacement else TOEPLITZ
    bound = tolerance * scale[:, :, None] * scale[:, None, :]
    assert np.all(np.abs(G - np.swapaxes(F, 1, 2) @ F) <= bound)
    Y = outputs(system, V)
    assert np.allclose(root.norms**2, np.mean(np.sum(Y**2, axis=-1), axis=0), rtol=tolerance)
    assert not np.any(root.residual)
    assert not np.any(root.extra)


@pytest.mark.theorem("calibrated-metric")
@pytest.mark.parametrize("recurrence", ["standard", "post-update"])
def test_displacement_on_and_next_to_the_circle(recurrence, monkeypatch):
    """Short horizons and poles on the circle, real and repeated: where the division cancels."""
    rng = np.random.default_rng(2)
    poles = np.array([[1.0, 1j, 1j * (1 - 1e-9), -1.0, 0.5, 0.5, 1 - 1e-12]])
    system = DiagonalSystem(
        poles,
        np.ones((1, 7, 1)),
        np.ones((1, 1, 7)),
        recurrence=recurrence,
        real_output=True,
    )
    V = rng.standard_normal((4, 1, 40))
    exact = moments_of(system, V).square_root(system).factor[0]
    root = moments_of(system, V, displacement=True, monkeypatch=monkeypatch)
    R = root.square_root(system).factor[0]
    norms = np.linalg.norm(exact, axis=0)
    # both columns of a mode round relative to the mode: a real pole has no imaginary part
    scale = np.append(norms[0], np.hypot(norms[1::2], norms[2::2]).repeat(2))
    difference = np.abs(R.T @ R - exact.T @ exact)
    assert np.all(difference <= DISPLACEMENT * np.outer(scale, scale))


@pytest.mark.theorem("calibrated-metric")
@pytest.mark.parametrize("recurrence", ["standard", "post-update"])
def test_impulses_give_the_h2_metric(recurrence):
    rng = np.random.default_rng(3)
    system = random_layer(rng, recurrence=recurrence, radius=1.0)
    V = np.zeros((2, 3, 50))
    V[:, :, 0] = 1
    R = moments_of(system, V).square_root(system).factor
    h2 = basis_square_root(system, horizon=50)
    norms = np.linalg.norm(h2, axis=1)
    G, G2 = (np.swapaxes(X, 1, 2) @ X for X in (R, h2))
    assert np.all(np.abs(G - G2) <= TOEPLITZ * norms[:, :, None] * norms[:, None, :])


@pytest.mark.theorem("calibrated-metric")
def test_redundancy_is_seen_below_the_square_root_of_eps():
    """Two modes 1e-13 apart differ by 1e-12 of their size; squared, that would be lost."""
    rng = np.random.default_rng(4)
    poles = 0.97 * np.exp(1j * np.array([[0.2, 0.2 + 1e-13]]))
    system = DiagonalSystem(
        poles,
        np.ones((1, 2, 1)),
        np.array([[[1.0, -1.0]]]),
        recurrence="post-update",
        real_output=True,
    )
    V = rng.standard_normal((3, 1, 60))
    root = moments_of(system, V).square_root(system)
    # l^k - m^k = (l - m) k l^(k-1) to first order; simulated so, with the exact difference of poles
    k = np.arange(60)
    slope = k * poles[0, 0] ** np.maximum(k - 1, 0) * (poles[0, 0] - poles[0, 1])
    expected = np.sqrt(np.mean([np.sum(np.convolve(slope.real, v[0])[:60] ** 2) for v in V]))
    assert expected < 1e-10
    assert abs(root.norms[0] - expected) < 1e-2 * expected


@pytest.mark.theorem("calibrated-metric")
@pytest.mark.parametrize("recurrence", ["standard", "post-update"])
@pytest.mark.parametrize("displacement", [False, True])
def test_target_is_projected(recurrence, displacement, monkeypatch):
    rng = np.random.default_rng(5)
    system = random_layer(rng, recurrence=recurrence)
    V = rng.standard_normal((8, 3, 40))
    Y = outputs(system, V) + 0.1 * rng.standard_normal(V.shape)
    moments = moments_of(system, V, Y, displacement=displacement, monkeypatch=monkeypatch)
    root = moments.square_root(system)
    F = basis_signals(system, V)
    for h in range(3):
        y = Y[:, h].ravel()
        theta, *_ = np.linalg.lstsq(F[h], y, rcond=None)
        best = np.linalg.norm(y - F[h] @ theta) / np.sqrt(len(V))
        assert abs(root.residual[h] - best) <= TARGET * best
        change = np.linalg.solve(root.factor[h], root.extra[h])[:, 0]
        found = basis_coefficients(system)[h, :, 0] + change
        fit = np.linalg.norm(y - F[h] @ found) / np.sqrt(len(V))
        assert fit <= best * (1 + TARGET)
        assert np.isclose(root.norms[h], np.linalg.norm(y) / np.sqrt(len(V)), rtol=1e-13)


def test_own_outputs_as_target_change_nothing():
    rng = np.random.default_rng(6)
    system = random_layer(rng)
    V = rng.standard_normal((8, 3, 40))
    root = moments_of(system, V, outputs(system, V)).square_root(system)
    assert np.all(root.residual <= 1e-13 * root.norms)
    assert np.all(np.abs(root.extra) <= 1e-8 * root.norms[:, None, None])  # 1e-16 / 1e-8


def test_silent_channel_and_undriven_modes():
    rng = np.random.default_rng(7)
    system = random_layer(rng)
    B = system.B.copy()
    B[1, 2] = 0
    V = rng.standard_normal((4, 3, 30))
    V[:, 0] = 0
    V[:, 2, :5] = 0  # leading zeros: the first rows of the sums vanish
    root = moments_of(system.replace(B=B), V).square_root(system.replace(B=B))
    assert np.isfinite(root.factor).all()
    assert not np.any(root.factor[0])
    assert not np.any(root.factor[1][:, 5:7])
    assert root.norms[0] == 0


def test_single_precision_inputs_are_used_as_they_are():
    rng = np.random.default_rng(8)
    system = random_layer(rng)
    V = rng.standard_normal((4, 3, 30)).astype(np.float32)
    single = moments_of(system, V).square_root(system).factor
    double = moments_of(system, V.astype(float)).square_root(system).factor
    assert np.array_equal(single, double)


def test_refusals():
    rng = np.random.default_rng(9)
    system = random_layer(rng)
    V = rng.standard_normal((4, 3, 30))
    with pytest.raises(UnsupportedOperationError, match="system="):
        InputMoments(3, 2000)
    with pytest.raises(UnsupportedOperationError, match="system="):
        InputMoments(3, 30).update(V, V)
    with pytest.raises(OrderError, match="channels"):
        InputMoments(0, 30)
    moments = InputMoments(3, 30, system=system)
    with pytest.raises(DataError, match="no inputs"):
        moments.square_root(system)
    with pytest.raises(ShapeError, match=r"\(samples, 3, 30\)"):
        moments.update(V[:, :2])
    with pytest.raises(ShapeError, match="complex"):
        moments.update(V * 1j)
    with pytest.raises(DataError, match="nan"):
        moments.update(V * np.nan)
    with pytest.raises(ShapeError, match="differ"):
        moments.update(V, V[:2])
    moments.update(V)
    with pytest.raises(DataError, match="target"):
        moments.update(V, V)
    with pytest.raises(UnsupportedOperationError, match="another system"):
        moments.square_root(system.replace(poles=system.poles / 2))
    with pytest.raises(UnsupportedOperationError, match="real channels"):
        moments.square_root(system.replace(real_output=False))
    with pytest.raises(UnsupportedOperationError, match="real channels"):
        InputMoments(2, 30, system=system)
