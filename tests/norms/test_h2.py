"""The h2 norm and h2 error against 50-digit closed forms, print, slycot and impulse responses."""

from __future__ import annotations

import json
import math
from pathlib import Path

import mpmath
import numpy as np
import pytest
import slycot
from hypothesis import given
from hypothesis import strategies as st
from scipy import signal

from ssmred.errors import (
    AccuracyError,
    OrderError,
    ShapeError,
    UnstableSystemError,
    UnsupportedOperationError,
)
from ssmred.norms import h2_error, h2_norm
from ssmred.systems import DenseSystem, DiagonalSystem, difference

CASES = {
    case["id"]: case
    for case in json.loads(
        (Path(__file__).parents[1] / "reference" / "cases.json").read_text(encoding="utf-8")
    )["cases"]
}
NORM_TOLERANCE = 1e-13  # relative; a hundred times the rounding seen for random residues
DENSE_TOLERANCE = 1e-10  # relative; Schur form of a matrix with poles at 1 - 1e-3


def complex_array(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


def random_system(seed, *, n=5, m=1, p=1, slowest=1e-12, dt=1.0, **form) -> DiagonalSystem:
    """Return a system with one pole ``slowest`` from the boundary and one repeated pole."""
    rng = np.random.default_rng(seed)
    gap = 10.0 ** rng.uniform(np.log10(slowest), -0.2, n)
    gap[0] = slowest
    angle = rng.uniform(-np.pi, np.pi, n)
    poles = (1 - gap) * np.exp(1j * angle) if dt else -gap + 5j * angle
    if n > 2:
        poles[-1] = poles[-2]
    D = rng.normal(size=(p, m)) * bool(dt)
    if not form.get("real_output"):
        D = D * (1 + 0.5j)
    return DiagonalSystem(poles, complex_array(rng, n, m), complex_array(rng, p, n), D, dt, **form)


def exact_h2(system: DiagonalSystem, horizon: int | None = None) -> float:
    """Return the norm from the closed form of the Gramian, in 50 digits (difference of squares
    and all: there are digits enough)."""
    with mpmath.workdps(60):
        poles = [mpmath.mpc(complex(v)) for v in system.poles]
        discrete = system.dt > 0
        total = mpmath.mpf(0)
        for a in range(system.outputs):
            for b in range(system.inputs):
                residues = [
                    mpmath.mpc(complex(system.C[a, i])) * mpmath.mpc(complex(system.B[i, b]))
                    for i in range(system.order)
                ]
                direct = mpmath.mpc(complex(system.D[a, b]))
                if system.recurrence == "post-update":
                    direct += mpmath.fsum(residues)
                    residues = [r * z for r, z in zip(residues, poles, strict=True)]
                every = poles
                if system.real_output:
                    direct = mpmath.re(direct)
                    residues = [r / 2 for r in residues]
                    residues += [mpmath.conj(r) for r in residues]
                    every = poles + [mpmath.conj(z) for z in poles]
                total += abs(direct) ** 2
                for r, x in zip(residues, every, strict=True):
                    for s, y in zip(residues, every, strict=True):
                        z = x * mpmath.conj(y) if discrete else x + mpmath.conj(y)
                        if not discrete:
                            factor = -1 / z
                        elif horizon is None:
                            factor = 1 / (1 - z)
                        else:
                            factor = horizon - 1 if z == 1 else (1 - z ** (horizon - 1)) / (1 - z)
                        total += mpmath.re(r * mpmath.conj(s) * factor)
        return mpmath.sqrt(abs(total))


def assert_norm(got: float, exact, tolerance: float = NORM_TOLERANCE) -> None:
    assert isinstance(got, float)
    with mpmath.workdps(60):
        assert abs(mpmath.mpf(got) - exact) <= tolerance * exact


FORMS = [
    {"recurrence": recurrence, "real_output": real}
    for recurrence in ("standard", "post-update")
    for real in (False, True)
]


@pytest.mark.theorem("h2-norm")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("m", "p"), [(1, 1), (2, 3)])
@pytest.mark.parametrize("horizon", [None, 1, 2, 196, 20_000])
def test_diagonal_norm_next_to_the_unit_circle(form, m, p, horizon):
    system = random_system(m, m=m, p=p, **form)
    assert_norm(h2_norm(system, horizon=horizon), exact_h2(system, horizon))


@pytest.mark.theorem("h2-norm")
@pytest.mark.parametrize("horizon", [1, 2, 50, 3000])
def test_finite_horizon_on_and_outside_the_circle(horizon):
    rng = np.random.default_rng(1)
    poles = np.array([1.0, -1.0, 0.6 + 0.8j, 1.01, 1 + 1e-12, 0.0, 1.0])
    for form in FORMS:
        system = DiagonalSystem(poles, complex_array(rng, 7), complex_array(rng, 7), 0.5, **form)
        assert_norm(h2_norm(system, horizon=horizon), exact_h2(system, horizon))


@pytest.mark.theorem("h2-norm")
@pytest.mark.parametrize("real", [False, True])
def test_continuous_time(real):
    system = random_system(2, slowest=1e-9, m=2, p=2, dt=0, real_output=real)
    assert_norm(h2_norm(system), exact_h2(system))
    # A dense A is known to eps ||A|| only, the margin of its slowest pole to eps / 1e-9.
    assert h2_norm(system.to_dense()) == pytest.approx(h2_norm(system), rel=1e-5)
    with_direct = system.replace(D=np.array([[0.0, 0.0], [1e-30, 0.0]]))
    assert h2_norm(with_direct) == np.inf
    assert h2_norm(with_direct.to_dense()) == np.inf
    assert h2_error(with_direct, with_direct) <= 1e-12 * h2_norm(system)


@pytest.mark.theorem("h2-norm")
@given(
    exponents=st.lists(st.integers(min_value=1, max_value=50), min_size=1, max_size=5),
    seed=st.integers(min_value=0, max_value=10**6),
)
def test_any_distance_from_the_circle(exponents, seed):
    rng = np.random.default_rng(seed)
    poles = (1 - 2.0 ** -np.array(exponents)) * np.sign(rng.normal(size=len(exponents)))
    system = DiagonalSystem(poles, np.ones(len(poles)), rng.uniform(0.5, 2, len(poles)))
    assert_norm(h2_norm(system), exact_h2(system))


@pytest.mark.theorem("h2-norm")
@pytest.mark.parametrize("horizon", [None, 1, 2, 17, 100])
@pytest.mark.parametrize("form", FORMS)
def test_dense_norm(form, horizon):
    diagonal = random_system(3, m=2, p=2, slowest=1e-3, **form)
    rng = np.random.default_rng(4)
    S = np.linalg.qr(complex_array(rng, 5, 5))[0]
    dense = DenseSystem(
        S @ np.diag(diagonal.poles) @ S.conj().T,
        S @ diagonal.B,
        diagonal.C @ S.conj().T,
        diagonal.D,
        **form,
    )
    exact = exact_h2(diagonal, horizon)
    assert_norm(h2_norm(dense, horizon=horizon), exact, DENSE_TOLERANCE)
    assert_norm(h2_norm(diagonal.to_dense(), horizon=horizon), exact)


def test_dense_norm_with_a_slow_pole_is_exact_where_the_matrix_is_triangular():
    system = DiagonalSystem([1 - 1e-12, 0.5], [1.0, 1.0], [1.0, 2.0])
    assert_norm(h2_norm(system.to_dense()), exact_h2(system))


def test_dense_norm_agrees_with_slycot():
    rng = np.random.default_rng(5)
    A = rng.normal(size=(6, 6))
    A *= 0.9 / np.abs(np.linalg.eigvals(A)).max()
    B, C, D = rng.normal(size=(6, 2)), rng.normal(size=(3, 6)), rng.normal(size=(3, 2))
    expected = slycot.ab13bd("D", "H", 6, 2, 3, A.copy(), B.copy(), C.copy(), D.copy())
    assert h2_norm(DenseSystem(A, B, C, D)) == pytest.approx(expected, rel=DENSE_TOLERANCE)


@pytest.mark.theorem("h2-norm")
def test_hand_values():
    assert h2_norm(DiagonalSystem([0.6], [1.0], [1.0], dt=0.1)) == 1.25  # dt does not scale sums
    assert h2_norm(DiagonalSystem([0.0], [3.0], [1.0], 4.0)) == 5.0
    assert h2_norm(DiagonalSystem([0.0], [3.0], [1.0], 1.0, recurrence="post-update")) == 4.0
    # Re(i * (i/2)^k) = 0, -1/2, 0, 1/8, ...: sum of squares (1/4) / (1 - 1/16) = 4/15
    turning = DiagonalSystem([0.5j], [1.0], [1j], recurrence="post-update", real_output=True)
    assert h2_norm(turning) == pytest.approx(np.sqrt(4 / 15), rel=1e-15)


def test_published_norms():
    case = CASES["pc_norm_first_order"]
    matrices = [np.array(case["input"][key]) for key in "ABCD"]
    continuous = DenseSystem(*matrices, 0)
    dt = case["input"]["dt"]
    discrete = DenseSystem(*signal.cont2discrete(matrices, dt)[:4], dt)
    rtol = case["tolerance"]["rtol"]
    assert h2_norm(continuous) == pytest.approx(case["expected"]["cont"]["h2"], rel=rtol)
    # The printed discrete value holds to 1e-8 only: by hand it is sqrt(tanh(dt / 2)).
    assert h2_norm(discrete) == pytest.approx(case["expected"]["disc"]["h2"], rel=2e-8)
    assert h2_norm(discrete) == pytest.approx(np.sqrt(np.tanh(dt / 2)), rel=1e-14)
    case = CASES["pc_linfnorm_2nd_order"]
    system = DenseSystem(*(case["input"][key] for key in "ABCD"), 0)
    assert h2_norm(system) == pytest.approx(case["expected"]["h2"], rel=1e-7)
    case = CASES["harold_improper_h2"]
    assert h2_norm(DenseSystem(*(case["input"][key] for key in "ABCD"), 0)) == np.inf
    case = CASES["slicot_ab13bd_l2_trap"]
    with pytest.raises(UnstableSystemError):
        h2_norm(DenseSystem(*(case["input"][key] for key in "ABCD"), 0))
    case = CASES["cs_d422_unstable_linf"]
    with pytest.raises(UnstableSystemError):
        h2_norm(DenseSystem(*(case["input"][key] for key in "ABCD"), case["input"]["dt"]))


def test_published_covariances():
    case = CASES["matlab_covar_discrete"]
    entry = case["input"]
    transfer = signal.TransferFunction(entry["num"], entry["den"], dt=1.0)
    got = h2_norm(DenseSystem.from_scipy(transfer)) ** 2 * entry["W"]
    assert got == pytest.approx(case["expected"]["output_covariance"], abs=1e-4)
    case = CASES["cs_covar"]
    A, B, C, D = (np.array(case["input"][key]) for key in ("A", "B", "C", "D_discrete"))
    rtol = case["tolerance"]["rtol"]
    for system, expected in (
        (DenseSystem(A, B, C, None, 0), case["expected"]["cont"]),
        (DenseSystem(A, B, C, D, 1.0), case["expected"]["disc"]),
    ):
        assert h2_norm(system) ** 2 == pytest.approx(np.trace(expected), rel=10 * rtol)
    assert h2_norm(DenseSystem(A, B, C, D, 0)) == np.inf


@pytest.mark.theorem("h2-norm")
@pytest.mark.parametrize("horizon", [None, 196])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [1e-2, 1e-8, 1e-14])
def test_an_error_of_any_size_is_real_where_poles_are_shared(horizon, form, size):
    full = random_system(6, n=7, slowest=1e-6, **form)
    rng = np.random.default_rng(7)
    kept = rng.permutation(7)
    nudged = full.C * (1 + size * complex_array(rng, 7))
    reduced = full.replace(
        poles=full.poles[kept], B=full.B[kept], C=nudged[:, kept], D=full.D * (1 + size)
    )
    got = h2_error(full, reduced, horizon=horizon)
    exact = exact_h2(difference(full, reduced), horizon)
    # The rounded inputs differ by what they differ by; the error is as accurate as a norm.
    assert_norm(got, exact, 1e-11)
    assert got < 100 * size * h2_norm(full, horizon=horizon)
    assert h2_error(full, full, horizon=horizon) == 0.0


@pytest.mark.theorem("cauchy-ldl")
@pytest.mark.parametrize("dt", [0.5, 0.0])
@pytest.mark.parametrize("real_output", [True, False])
@pytest.mark.parametrize("size", [1.0, 1e-150, 1e150])
def test_several_inputs_and_outputs_share_the_states(real_output, dt, size):
    """Distinct poles, two of them close, one next to the boundary; the same entry by entry."""
    form = {"recurrence": "post-update"} if dt else {}
    full = random_system(12, n=6, m=3, p=2, dt=dt, real_output=real_output, **form)
    poles = full.poles.copy()
    poles[-1] = poles[-1] * (1 - 1e-7) if dt else poles[-1] - 1e-7
    full = full.replace(poles=poles, B=full.B * size, D=full.D * size)
    found = h2_norm(full)
    assert_norm(found, size * exact_h2(full.replace(B=full.B / size, D=full.D / size)))
    entries = [
        h2_norm(full.replace(B=full.B[:, [j]], C=full.C[[i]], D=full.D[[i]][:, [j]]))
        for i in range(2)
        for j in range(3)
    ]
    assert found == pytest.approx(math.hypot(*entries), rel=NORM_TOLERANCE)


@pytest.mark.theorem("h2-norm")
def test_error_of_a_dropped_mode_is_the_norm_of_that_mode():
    full = random_system(8, recurrence="post-update", real_output=True)
    reduced = full.replace(poles=full.poles[1:], B=full.B[1:], C=full.C[:, 1:])
    mode = full.replace(poles=full.poles[:1], B=full.B[:1], C=full.C[:, :1], D=full.D * 0)
    assert_norm(h2_error(full, reduced), exact_h2(mode))


def test_padding_and_conjugate_order_change_nothing():
    full = random_system(9, n=4, recurrence="post-update", real_output=True)
    padded = full.replace(
        poles=np.append(full.poles.conj(), [0, 0]),
        B=np.append(full.B.conj(), [[0], [0]], axis=0),
        C=np.append(full.C.conj(), [[0, 0]], axis=1),
    )
    assert h2_norm(padded) == pytest.approx(h2_norm(full), rel=NORM_TOLERANCE)
    assert h2_error(full, padded) == 0.0


def test_error_across_kinds_and_recurrences():
    full = random_system(10, n=4, slowest=1e-2, recurrence="post-update", real_output=True)
    other = random_system(11, n=3, slowest=1e-2, recurrence="standard", real_output=True)
    h = full.impulse_response(5000) - other.impulse_response(5000)
    expected = np.sqrt((h**2).sum())
    forms = (full, full.to_dense(), full.realified(), full.full_spectrum())
    for one in forms:
        for two in (other, other.realified(), other.full_spectrum()):
            assert h2_error(one, two) == pytest.approx(expected, rel=1e-12)


def test_batches_equal_single_systems():
    systems = [random_system(seed, m=2, p=1, real_output=True) for seed in range(6)]
    stack = DiagonalSystem(
        *(np.stack([getattr(s, f) for s in systems]).reshape(2, 3, *getattr(systems[0], f).shape)
          for f in ("poles", "B", "C", "D")),
        real_output=True,
    )  # fmt: skip
    for horizon in (None, 10):
        got = h2_norm(stack, horizon=horizon)
        assert got.shape == (2, 3)
        expected = [h2_norm(s, horizon=horizon) for s in systems]
        np.testing.assert_allclose(got.ravel(), expected, rtol=NORM_TOLERANCE)
    slow_free = stack.replace(poles=stack.poles * 0.9)
    np.testing.assert_allclose(
        h2_norm(slow_free.realified()), h2_norm(slow_free), rtol=DENSE_TOLERANCE
    )


@pytest.mark.parametrize("scale", [1e-200, 1e-14, 1e150])
def test_scale_neither_underflows_nor_overflows(scale):
    system = random_system(12, real_output=True)
    scaled = system.replace(C=system.C * scale, D=system.D * scale)
    for horizon in (None, 100):
        expected = h2_norm(system, horizon=horizon) * scale
        assert h2_norm(scaled, horizon=horizon) == pytest.approx(expected, rel=1e-12)
    growing = DiagonalSystem([2.0], [1.0], [1.0])
    assert h2_norm(growing, horizon=700) == pytest.approx(2.0**699 / np.sqrt(3), rel=1e-12)


@pytest.mark.parametrize("batch", [(), (3,)])
def test_order_zero_and_silence(batch):
    static = DiagonalSystem(
        np.zeros((*batch, 0)), np.zeros((*batch, 0, 1)), np.zeros((*batch, 1, 0)), np.full(batch, 3)
    )
    silent = DiagonalSystem(np.full((*batch, 2), 0.5), np.zeros((*batch, 2)), np.ones((*batch, 2)))
    for horizon in (None, 1, 5):
        for system in (static, static.to_dense()):
            assert (np.asarray(h2_norm(system, horizon=horizon)) == 3).all()
        for system in (silent, silent.to_dense()):
            assert (np.asarray(h2_norm(system, horizon=horizon)) == 0).all()


@pytest.mark.theorem("h2-sup-bound")
@given(seed=st.integers(min_value=0, max_value=10**6), post=st.booleans())
def test_peak_of_the_output_is_bounded(seed, post):
    rng = np.random.default_rng(seed)
    recurrence = "post-update" if post else "standard"
    system = random_system(seed, m=2, p=2, slowest=1e-2, real_output=True, recurrence=recurrence)
    u = rng.normal(size=(60, 2))
    peak = np.linalg.norm(system.simulate(u), axis=1).max()
    for horizon in (60, None):
        assert peak <= h2_norm(system, horizon=horizon) * np.linalg.norm(u)


@pytest.mark.theorem("h2-sup-bound")
def test_the_matched_input_reaches_the_bound():
    system = random_system(13, slowest=1e-2, real_output=True)
    h = system.impulse_response(50)[:, 0, 0]
    peak = system.simulate(h[::-1, None])[-1, 0]
    assert peak == pytest.approx(h2_norm(system, horizon=50) * np.linalg.norm(h), rel=1e-13)


def test_bad_input():
    unstable = DiagonalSystem([1.0, 0.5], [1, 1], [1, 1])
    for system in (unstable, unstable.to_dense(), DiagonalSystem([1.5j], [0.0], [0.0])):
        with pytest.raises(UnstableSystemError, match=r"h2_norm: .*horizon=T"):
            h2_norm(system)
        with pytest.raises(UnstableSystemError, match="h2_error"):
            h2_error(system, system)
    for horizon in (0, -3, 2.5, "4", np.inf):
        with pytest.raises(OrderError, match="h2_norm: horizon"):
            h2_norm(unstable, horizon=horizon)
    with pytest.raises(UnsupportedOperationError, match="continuous"):
        h2_norm(DiagonalSystem([-1.0], [1], [1], dt=0), horizon=5)
    with pytest.raises(UnsupportedOperationError, match="not a system"):
        h2_norm(np.eye(2))
    with pytest.raises(AccuracyError, match="overflows"):
        h2_norm(DiagonalSystem([2.0], [1.0], [1.0]), horizon=5000)
    with pytest.raises(ShapeError, match="differ in dt"):
        h2_error(DiagonalSystem([0.5], [1], [1]), DiagonalSystem([0.5], [1], [1], dt=0.5))
