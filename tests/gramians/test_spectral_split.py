"""A system and its parts with poles inside and outside a boundary."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import linalg

from ssmred.errors import AccuracyError, DataError, UnsupportedOperationError
from ssmred.gramians.spectral_split import decoupled, schur_form, spectral_split
from ssmred.reductors import BalancedReductor, SplitReductor
from ssmred.systems import DenseSystem, DiagonalSystem

ROUNDING = 1e-13  # of responses of five states, relative to the sizes of both parts
CONTOUR = 1e-10  # contour integral by the trapezoidal rule with 2000 points


def normal(rng, kind, *shape):
    numbers = rng.standard_normal(shape)
    return numbers + 1j * rng.standard_normal(shape) if kind == "complex" else numbers


def random_system(seed, *, kind="complex", batch=(), n=5, continuous=False, **options):
    """Return a dense system with poles on both sides and none next to the boundary."""
    rng = np.random.default_rng(seed)
    A = np.zeros((*batch, n, n), complex if kind == "complex" else float)
    for index in np.ndindex(batch):
        T = normal(rng, kind, n, n)
        sizes = np.where(np.arange(n) < 2 + sum(index) % 2, 0.5, 1.6) + 0.2 * rng.random(n)
        poles = np.log(sizes) if continuous else sizes * rng.choice([-1, 1], n)
        if kind == "complex":
            poles = (
                poles + 1j * rng.standard_normal(n) if continuous else poles * np.exp(1j * poles)
            )
        A[index] = T @ np.diag(poles) @ linalg.inv(T)
    B, C = normal(rng, kind, *batch, n, 2), normal(rng, kind, *batch, 3, n)
    D = normal(rng, "real" if options.get("real_output") else kind, *batch, 3, 2)
    return DenseSystem(A, B, C, D, 0.0 if continuous else 1.0, **options)


def assert_sum(system, inside, outside):
    """Assert that the parts add up to the system, at points of the boundary and off it."""
    omega = np.linspace(-3.0, 3.0, 25)
    parts = inside.frequency_response(omega), outside.frequency_response(omega)
    size = max(np.abs(part).max() for part in parts)
    whole = system.frequency_response(omega)
    assert np.abs(whole - sum(parts)).max() <= ROUNDING * size
    assert not outside.D.any()
    np.testing.assert_array_equal(inside.D, system.D)


@pytest.mark.theorem("spectral-split")
@pytest.mark.parametrize("kind", ["real", "complex"])
@pytest.mark.parametrize(
    "options",
    [{}, {"recurrence": "post-update"}, {"continuous": True}, {"real_output": True}],
    ids=["standard", "post-update", "continuous", "real output"],
)
def test_parts_of_dense_systems_add_up(kind, options):
    system = random_system(1, kind=kind, **options)
    inside, outside = spectral_split(system)
    assert_sum(system, inside, outside)
    assert (inside.order, outside.order) == (2, 3)
    sizes = [
        part.poles.real if options.get("continuous") else abs(part.poles) - 1
        for part in (inside, outside)
    ]
    assert sizes[0].max() < 0 < sizes[1].min()
    for part in (inside, outside):
        assert (part.dt, part.recurrence) == (system.dt, system.recurrence)
        assert part.A.dtype == system.A.dtype
    poles = np.sort_complex(np.concatenate([inside.poles, outside.poles]))
    np.testing.assert_allclose(poles, np.sort_complex(system.poles), atol=1e-11)


@pytest.mark.theorem("spectral-split")
def test_pairs_of_real_systems_stay_together():
    angles = np.array([0.5, 1.5])
    blocks = [
        size * np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
        for size, a in zip([2.0, 0.5], angles, strict=True)
    ]
    rng = np.random.default_rng(0)
    T = rng.standard_normal((4, 4))
    A = T @ linalg.block_diag(*blocks) @ linalg.inv(T)
    system = DenseSystem(A, rng.standard_normal((4, 1)), rng.standard_normal((1, 4)))
    inside, outside = spectral_split(system)
    assert_sum(system, inside, outside)
    assert inside.is_real
    assert outside.is_real
    np.testing.assert_allclose(abs(inside.poles), 0.5, rtol=1e-11)
    np.testing.assert_allclose(abs(outside.poles), 2.0, rtol=1e-11)


@pytest.mark.theorem("spectral-split")
@pytest.mark.parametrize("real_output", [False, True])
@pytest.mark.parametrize("dt", [1.0, 0.0])
def test_diagonal_systems_are_only_sorted(dt, real_output):
    poles = np.array([2.0j, 0.5, -3.0, 0.1 + 0.2j]) - (0 if dt else 0.3)
    rng = np.random.default_rng(5)
    B, C = normal(rng, "complex", 4, 2), normal(rng, "complex", 3, 4)
    D = rng.standard_normal((3, 2))
    system = DiagonalSystem(poles, B, C, D, dt, real_output=real_output)
    inside, outside = spectral_split(system)
    kept = [1, 3] if dt else [0, 2, 3]
    gone = [i for i in range(4) if i not in kept]
    for part, modes in ((inside, kept), (outside, gone)):
        np.testing.assert_array_equal(part.poles, poles[modes])
        np.testing.assert_array_equal(part.B, B[modes])
        np.testing.assert_array_equal(part.C, C[:, modes])
        assert part.real_output is real_output
    np.testing.assert_array_equal(inside.D, D)
    assert not outside.D.any()


@pytest.mark.theorem("spectral-split")
def test_poles_of_diagonal_systems_are_judged_exactly():
    """One unit in the last place inside, on the circle, and one outside."""
    poles = np.array([1 - 2.0**-53, 1.0, 1 + 2.0**-52])
    inside, outside = spectral_split(DiagonalSystem(poles, [1, 2, 3], [1, 1, 1]))
    assert inside.B.ravel().tolist() == [1]
    assert outside.B.ravel().tolist() == [2, 3]


@pytest.mark.theorem("spectral-split")
@pytest.mark.parametrize("kind", ["dense", "diagonal"])
@pytest.mark.parametrize(("dt", "boundary"), [(1.0, 0.4), (0.0, -1.5), (0.0, 0.25)])
def test_other_boundaries(kind, dt, boundary):
    poles = np.array([0.3, -0.5, 0.39j, 0.7]) if dt else np.array([-2.0, -1.0 + 1j, 0.2, 0.3])
    system = DiagonalSystem(poles, [1, 2, 3, 4], [1, 1j, 2, 1], 5.0, dt)
    if kind == "dense":
        T = normal(np.random.default_rng(3), "complex", 4, 4)
        A = T @ np.diag(poles) @ linalg.inv(T)
        B, C = T @ system.B, system.C @ linalg.inv(T)
        system = DenseSystem(A, B, C, system.D, dt)
    inside, outside = spectral_split(system, boundary)
    assert_sum(system, inside, outside)
    sizes = abs(poles) if dt else poles.real
    assert inside.order == np.sum(sizes < boundary)
    assert outside.order == np.sum(sizes >= boundary)


@pytest.mark.theorem("spectral-split")
@pytest.mark.parametrize("continuous", [False, True])
def test_batches_are_padded_with_stable_poles(continuous):
    system = random_system(2, batch=(2, 2), continuous=continuous)
    inside, outside = spectral_split(system)
    assert_sum(system, inside, outside)
    assert inside.batch_shape == outside.batch_shape == (2, 2)
    assert (inside.order, outside.order) == (3, 3)  # 2 and 3 states, padded to the larger
    rest = -1.0 if continuous else 0.0
    for index, states in (((0, 0), 2), ((0, 1), 3)):
        for part, own in ((inside, states), (outside, 5 - states)):
            assert not part.B[index][own:].any()
            assert not part.C[index][:, own:].any()
            np.testing.assert_array_equal(np.diag(part.A[index])[own:], rest)
            alone = spectral_split(
                system.replace(**{name: getattr(system, name)[index] for name in "ABCD"})
            )[0 if part is inside else 1]
            np.testing.assert_array_equal(part.A[index][:own, :own], alone.A)


@pytest.mark.parametrize("kind", ["dense", "diagonal"])
def test_everything_on_one_side(kind):
    system = DiagonalSystem([0.5, 0.2j], [1, 2], [1, 1], 3.0)
    if kind == "dense":
        system = system.to_dense()
    for boundary, orders in ((None, (2, 0)), (0.1, (0, 2))):
        inside, outside = spectral_split(system, boundary)
        assert (inside.order, outside.order) == orders
        assert_sum(system, inside, outside)
    nothing = system.replace(
        **{"A" if kind == "dense" else "poles": np.zeros((0, 0) if kind == "dense" else 0)},
        B=np.zeros((0, 1)),
        C=np.zeros((1, 0)),
    )
    assert [part.order for part in spectral_split(nothing)] == [0, 0]


@pytest.mark.theorem("spectral-split")
def test_projection_norm_of_two_states():
    """``[[a, 1], [0, b]]``: ``X = 1 / (b - a)``, and the projection has norm sqrt(1 + X^2)."""
    a, b = 0.5, 1.5 + 1j
    T, Q, poles = schur_form(np.array([[a, 1.0], [0.0, b]]) + 0j)
    B, C = np.array([[1.0], [2.0]]), np.array([[3.0, 4.0]])
    inside, outside, size = decoupled(T, Q, B, C, abs(poles) < 1)
    X = 1 / (b - a)
    assert size == pytest.approx(np.hypot(1, abs(X)), rel=ROUNDING)
    # residues do not depend on the basis
    residues = [(part[2] @ part[1]).item() for part in (inside, outside)]
    np.testing.assert_allclose(residues, [3 * (1 - 2 * X), (4 + 3 * X) * 2], rtol=ROUNDING)


@pytest.mark.theorem("spectral-split")
@pytest.mark.parametrize("kind", ["real", "complex"])
def test_projection_norm_is_that_of_the_contour_integral(kind):
    system = random_system(4, kind=kind)
    z = np.exp(2j * np.pi * np.arange(2000) / 2000)
    resolvents = np.linalg.inv(z[:, None, None] * np.eye(5) - system.A)
    projection = np.mean(z[:, None, None] * resolvents, axis=0)
    T, Q, poles = schur_form(system.A)
    inside, outside, size = decoupled(T, Q, system.B, system.C, abs(poles) < 1)
    assert size == pytest.approx(linalg.norm(projection, 2), rel=CONTOUR)
    assert size == pytest.approx(linalg.norm(np.eye(5) - projection, 2), rel=CONTOUR)
    assert linalg.norm(inside[1], 2) <= size * linalg.norm(system.B, 2)
    assert linalg.norm(outside[2], 2) <= size * linalg.norm(system.C, 2)
    np.testing.assert_allclose(  # H_1 = C (z - A)^{-1} Pi B
        inside[2] @ inside[1], system.C @ projection @ system.B, atol=CONTOUR * size
    )


@pytest.mark.theorem("spectral-split")
@pytest.mark.parametrize("gap", [1e-2, 1e-5, 1e-8])
def test_backward_error_grows_with_the_projection(gap):
    """Two poles that are ``2 gap`` apart and coupled: what the sum misses is eps times the norm."""
    A = np.array([[1 - gap, 1.0, 0.3], [0.0, 1 + gap, -0.7j], [0.0, 0.0, 0.2]])
    Q = linalg.qr(normal(np.random.default_rng(6), "complex", 3, 3))[0]
    system = DenseSystem(
        Q @ A @ Q.conj().T, Q @ [[1.0], [1.0], [1.0]], [[1.0, 2.0, 1.0j]] @ Q.conj().T
    )
    inside, outside = spectral_split(system)
    z = 3j  # far from all poles: the resolvents are of size one

    def value(part):
        n = part.order
        return (part.C @ linalg.solve(z * np.eye(n) - part.A, part.B)).item()

    norm = np.hypot(1, 0.5 / gap)
    error = abs(value(system) - value(inside) - value(outside))
    assert error <= 20 * np.finfo(float).eps * norm
    assert abs(value(inside)) >= 0.01 * norm  # the parts really are that large


@pytest.mark.theorem("spectral-split")
@pytest.mark.parametrize("continuous", [False, True])
def test_error_is_that_of_the_part_inside(continuous):
    system = random_system(9, continuous=continuous)
    inside, outside = spectral_split(system)
    reduction = SplitReductor(BalancedReductor()).reduce(system, order=4)
    alone = BalancedReductor().reduce(inside, order=1)
    np.testing.assert_allclose(reduction.claim.value, alone.claim.value, rtol=1e-10)
    omega = np.linspace(-3.0, 3.0, 101)
    gap = system.frequency_response(omega) - reduction.system.frequency_response(omega)
    assert np.linalg.norm(gap, 2, axis=(-2, -1)).max() <= reduction.claim.value
    left = reduction.system.poles
    for pole in outside.poles:
        assert abs(left - pole).min() <= 1e-11 * abs(pole)


@pytest.mark.theorem("spectral-split")
def test_what_cannot_be_told_apart_is_refused():
    turn = np.array([[0.6, 0.8], [-0.8, 0.6]])
    with pytest.raises(AccuracyError, match="on the boundary"):
        spectral_split(DenseSystem(turn, [1, 0], [1, 0]))
    with pytest.raises(AccuracyError, match="on the boundary"):
        spectral_split(DenseSystem([[0.5]], [1], [1]), 0.5)
    # coupled by 1 over a gap of 1e-3: a norm of 1000
    close = DenseSystem([[0.9995, 1.0], [0.0, 1.0005]], [1, 1], [1, 1])
    with pytest.raises(AccuracyError, match="told apart"):
        spectral_split(close, limit=999.0)
    assert [part.order for part in spectral_split(close, limit=1001.0)] == [1, 1]


@pytest.mark.parametrize("boundary", [0.0, -1.0, np.nan, np.inf, 1j, "one", [1.0, 2.0]])
def test_bad_boundaries(boundary):
    with pytest.raises(DataError):
        spectral_split(DiagonalSystem([0.5], [1], [1]), boundary)


@pytest.mark.parametrize("boundary", [np.nan, np.inf, 1j, [1.0, 2.0]])
def test_bad_boundaries_in_continuous_time(boundary):
    with pytest.raises(DataError):
        spectral_split(DiagonalSystem([-0.5], [1], [1], dt=0), boundary)


def test_bad_input():
    with pytest.raises(UnsupportedOperationError, match="not a system"):
        spectral_split(np.eye(3))
    with pytest.raises(DataError):
        spectral_split(DenseSystem([[0.5]], [1], [1]), limit=-1.0)
