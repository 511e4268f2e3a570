"""Diagonal and dense systems: construction, responses, simulation, conversions between forms."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssmred.errors import (
    AccuracyError,
    DataError,
    OrderError,
    ShapeError,
    UnsupportedOperationError,
)
from ssmred.systems import DenseSystem, DiagonalSystem, check_stable, is_stable, stability_margins

CASES = {
    case["id"]: case
    for case in json.loads(
        (Path(__file__).parents[1] / "reference" / "cases.json").read_text(encoding="utf-8")
    )["cases"]
}
ROUNDING = 1e-13  # a few hundred units of accumulated rounding, relative to the largest sample


def complex_array(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


def random_system(
    seed: int, *, batch=(), n=5, m=2, p=3, recurrence="standard", real_output=False, dt=0.5
) -> DiagonalSystem:
    rng = np.random.default_rng(seed)
    radius = rng.uniform(0.3, 0.98, (*batch, n))
    poles = radius * np.exp(1j * rng.uniform(-np.pi, np.pi, (*batch, n)))
    D = rng.normal(size=(*batch, p, m))
    if not real_output:
        D = D + 1j * rng.normal(size=D.shape)
    return DiagonalSystem(
        poles,
        complex_array(rng, *batch, n, m),
        complex_array(rng, *batch, p, n),
        D,
        dt,
        recurrence=recurrence,
        real_output=real_output,
    )


def stepped(system: DiagonalSystem, u: np.ndarray) -> np.ndarray:
    """Run the definition, one matrix product at a time (unbatched)."""
    A, x, y = np.diag(system.poles), np.zeros(system.order, complex), []
    for now in u:
        new = A @ x + system.B @ now
        seen = new if system.recurrence == "post-update" else x
        out = system.C @ seen
        y.append((out.real if system.real_output else out) + system.D @ now)
        x = new
    return np.array(y)


FORMS = [
    ("standard", False),
    ("standard", True),
    ("post-update", False),
    ("post-update", True),
]


@pytest.mark.parametrize(("recurrence", "real_output"), FORMS)
def test_impulse_response_and_simulation_follow_the_definition(recurrence, real_output):
    system = random_system(1, recurrence=recurrence, real_output=real_output)
    rng = np.random.default_rng(2)
    u = rng.normal(size=(40, 2))
    expected = stepped(system, u)
    scale = np.abs(expected).max()
    for one in (system, system.to_dense()):
        np.testing.assert_allclose(one.simulate(u), expected, atol=ROUNDING * scale)
    response = np.stack([stepped(system, np.eye(40)[:, :1] * row) for row in np.eye(2)], axis=-1)
    for one in (system, system.to_dense()):
        got = one.impulse_response(40)
        assert got.shape == (40, 3, 2)
        assert np.isrealobj(got) == real_output
        np.testing.assert_allclose(got, response, atol=ROUNDING * np.abs(response).max())


@pytest.mark.parametrize(("recurrence", "real_output"), FORMS)
def test_every_form_has_the_same_response(recurrence, real_output):
    system = random_system(3, batch=(2, 3), recurrence=recurrence, real_output=real_output)
    expected = system.impulse_response(30)
    other = "standard" if recurrence == "post-update" else "post-update"
    forms = [
        system.to_dense(),
        system.with_recurrence(other),
        system.with_recurrence(other).with_recurrence(recurrence),
        system.to_dense().with_recurrence(other),
        system.full_spectrum(),
    ]
    if real_output:
        forms += [system.realified(), system.to_dense().realified()]
        assert forms[-1].is_real
        assert forms[-1].A.dtype == np.float64
    for form in forms:
        got = form.impulse_response(30)
        np.testing.assert_allclose(got, expected, atol=ROUNDING * np.abs(expected).max())


@pytest.mark.parametrize(("recurrence", "real_output"), FORMS)
def test_frequency_response_is_the_transform_of_the_impulse_response(recurrence, real_output):
    system = random_system(4, batch=(2,), recurrence=recurrence, real_output=real_output)
    omega = np.linspace(-6, 6, 7)
    response = system.impulse_response(3000)
    z = np.exp(-1j * omega[:, None] * system.dt * np.arange(3000))
    expected = np.einsum("wk,bkpm->bwpm", z, response)
    for one in (system, system.to_dense()):
        got = one.frequency_response(omega)
        np.testing.assert_allclose(got, expected, atol=1e-11 * np.abs(expected).max())


def test_continuous_frequency_response_is_the_published_one():
    case = CASES["slicot_tb05ad_freqresp"]
    system = DenseSystem(*(case["input"][key] for key in "ABC"), dt=0)
    expected = np.array(case["expected"]["G"]["re"]) + 1j * np.array(case["expected"]["G"]["im"])
    got = system.frequency_response(np.array([case["input"]["s"]["im"]]))[0]
    np.testing.assert_allclose(got, expected, atol=case["tolerance"]["atol"])


def test_s4d_layer_kernel_is_the_one_of_the_official_code():
    case = CASES["s4d_minimal_layer"]
    params = case["input"]["params"].items()
    weights = {key.removeprefix("kernel."): np.array(value) for key, value in params}
    step = np.exp(weights["log_dt"])[:, None]
    A = -np.exp(weights["log_A_real"]) + 1j * weights["A_imag"]
    C = weights["C"][..., 0] + 1j * weights["C"][..., 1]
    poles = np.exp(step * A)
    layer = DiagonalSystem(
        poles,
        ((poles - 1) / A)[..., None],
        2 * C[:, None, :],
        weights["D"][:, None, None],
        recurrence="post-update",
        real_output=True,
    )
    kernel = layer.impulse_response(case["input"]["L"])[..., 0, 0]
    kernel[:, 0] -= layer.D[:, 0, 0]
    expected = np.array(case["expected"]["kernel_float64"])
    np.testing.assert_allclose(kernel, expected, atol=case["tolerance"]["float64_atol"])


def test_lru_layer_output_is_the_one_of_the_official_code():
    case = CASES["lru_pytorch_gothos"]
    w = {key: np.array(value) for key, value in case["input"]["params"].items()}
    layer = DiagonalSystem(
        np.exp(-np.exp(w["nu_log"]) + 1j * np.exp(w["theta_log"])),
        np.exp(w["gamma_log"])[:, None] * (w["B_re"] + 1j * w["B_im"]),
        w["C_re"] + 1j * w["C_im"],
        w["D"],
        recurrence="post-update",
        real_output=True,
    )
    got = layer.simulate(np.array(case["input"]["u"]))
    np.testing.assert_allclose(got, case["expected"]["y"], atol=case["tolerance"]["float32_atol"])


def test_impulse_response_of_slow_poles_has_every_digit():
    poles = np.array([1 - 1e-12, 1 - 1e-12, np.exp(-1e-7 + 0.3j), 0.5])
    system = DiagonalSystem(poles, np.ones(4), [1.0, 2.0, 1 - 1j, 3.0])
    got = system.impulse_response(20_001)[:, 0, 0]
    with mpmath.workdps(50):
        for k in (1, 2, 777, 20_000):
            exact = sum(
                mpmath.mpc(complex(c)) * mpmath.mpc(complex(pole)) ** (k - 1)
                for c, pole in zip(system.C[0], poles, strict=True)
            )
            assert abs(got[k] - complex(exact)) <= 8 * 2.0**-53 * 8  # 8 units of sum |c_i| = 8


def test_initial_state_and_broadcasting():
    system = random_system(6, n=3, m=1, p=1)
    arrays = (system.poles, system.B, system.C, system.D)
    batch = DiagonalSystem(*(np.stack([a, a]) for a in arrays), dt=system.dt)
    u = np.random.default_rng(7).normal(size=(4, 1, 10, 1))
    assert batch.simulate(u).shape == (4, 2, 10, 1)
    np.testing.assert_array_equal(batch.simulate(u)[2, 1], system.simulate(u[2, 0]))
    free = system.simulate(np.zeros((5, 1)), initial_state=np.ones(3))
    expected = [(system.C @ system.poles**k)[0] for k in range(5)]
    np.testing.assert_allclose(free[:, 0], expected, atol=ROUNDING * np.abs(free).max())


def test_shorthands_and_counts():
    system = DiagonalSystem(np.full((4, 2), 0.5), np.ones((4, 2)), np.ones((4, 2)), np.ones(4))
    assert system.B.shape == (4, 2, 1)
    assert system.C.shape == (4, 1, 2)
    assert system.D.shape == (4, 1, 1)
    assert (system.batch_shape, system.order, system.states) == ((4,), 2, 2)
    assert system.replace(poles=system.poles * 1j).states == 4
    assert system.replace(real_output=True).states == 4
    assert system.replace(dt=0.25).dt == 0.25
    assert DiagonalSystem([0.5], [1], [1], dt=True).dt == 1.0
    assert "batch=(4,)" in repr(system)


@pytest.mark.parametrize("batch", [(), (3,), (0,)])
def test_order_zero_is_a_static_gain(batch):
    D = np.broadcast_to(np.array([[2.0]]), (*batch, 1, 1))
    system = DiagonalSystem(
        np.zeros((*batch, 0)), np.zeros((*batch, 0, 1)), np.zeros((*batch, 1, 0)), D
    )
    for one in (system, system.to_dense(), system.replace(recurrence="post-update")):
        response = one.impulse_response(3)
        assert response.shape == (*batch, 3, 1, 1)
        assert (response[..., 0, :, :] == 2).all()
        assert (response[..., 1:, :, :] == 0).all()
    assert (system.frequency_response(np.zeros(2)) == 2).all()


def test_arrays_are_copied_and_read_only():
    poles = np.array([0.5 + 0j])
    system = DiagonalSystem(poles, [1.0], [1.0])
    poles[0] = 9
    assert system.poles[0] == 0.5
    with pytest.raises(ValueError, match="read-only"):
        system.poles[0] = 1
    with pytest.raises(AttributeError):
        system.dt = 2.0
    assert pickle.loads(pickle.dumps(system)).poles[0] == 0.5


@pytest.mark.parametrize(
    ("error", "arguments"),
    [
        (ShapeError, {"poles": 0.5}),
        (ShapeError, {"B": np.ones((3, 1))}),
        (ShapeError, {"C": np.ones((1, 1, 2))}),
        (ShapeError, {"D": np.ones((2, 1))}),
        (ShapeError, {"D": [[1j]], "real_output": True}),
        (ShapeError, {"recurrence": "post"}),
        (ShapeError, {"real_output": "yes"}),
        (DataError, {"poles": [np.nan, 0.5]}),
        (DataError, {"C": [np.inf, 0.5]}),
        (DataError, {"dt": -1}),
        (DataError, {"dt": None}),
        (UnsupportedOperationError, {"dt": 0, "recurrence": "post-update"}),
    ],
)
def test_bad_construction(error, arguments):
    good = {"poles": [0.5, 0.25], "B": [1.0, 1.0], "C": [1.0, 1.0]}
    with pytest.raises(error, match="DiagonalSystem"):
        DiagonalSystem(**{**good, **arguments})


def test_bad_use():
    system = random_system(8, n=2, m=1, p=1)
    layer = random_system(8, n=2, m=1, p=1, real_output=True)
    for horizon in (0, -1, 2.5, None):
        with pytest.raises((OrderError, ShapeError)):
            system.impulse_response(horizon)
    with pytest.raises(ShapeError, match="u"):
        system.simulate(np.ones((4, 2)))
    with pytest.raises(ShapeError, match="real outputs"):
        layer.simulate(np.ones((4, 1)) * 1j)
    with pytest.raises(ShapeError, match="leading axes"):
        random_system(8, batch=(3,)).simulate(np.ones((2, 4, 2)))
    with pytest.raises(UnsupportedOperationError, match="complex"):
        system.realified()
    with pytest.raises(UnsupportedOperationError, match="continuous"):
        DiagonalSystem([-1.0], [1], [1], dt=0).impulse_response(3)
    with pytest.raises(UnsupportedOperationError, match="pole is 0"):
        DiagonalSystem([0.0], [1], [1]).with_recurrence("post-update")
    with pytest.raises(UnsupportedOperationError, match="singular"):
        DenseSystem([[0.0]], [[1]], [[1]]).with_recurrence("post-update")
    for one in (DiagonalSystem([1.0], [1], [1]), DenseSystem([[1.0]], [[1]], [[1]])):
        with pytest.raises(DataError, match="pole"):
            one.frequency_response(np.array([0.0]))
    with pytest.raises(AccuracyError, match="overflows"):
        DiagonalSystem([2.0], [1], [1]).impulse_response(2000)
    with pytest.raises(ShapeError, match="square"):
        DenseSystem(np.ones((2, 3)), np.ones((2, 1)), np.ones((1, 2)))


@given(
    exponent=st.integers(min_value=1, max_value=52),
    angle=st.floats(min_value=-3.2, max_value=3.2),
)
def test_stability_is_decided_exactly(exponent, angle):
    pole = (1 - 2.0**-exponent) * np.exp(1j * angle)
    with mpmath.workdps(60):
        exact = 1 - mpmath.mpf(float(pole.real)) ** 2 - mpmath.mpf(float(pole.imag)) ** 2
        margin = stability_margins(DiagonalSystem([pole], [1], [1]))[0]
        assert (margin > 0) == (exact > 0)
        assert abs(margin - float(exact)) <= 1e-15 * abs(float(exact))


def test_stability_verdicts():
    assert is_stable(DiagonalSystem([np.nextafter(1.0, 0)], [1], [1]))
    assert not is_stable(DiagonalSystem([1.0], [1], [1]))
    assert not is_stable(DiagonalSystem([0.6 + 0.8j], [1], [1], real_output=True))
    assert not is_stable(DiagonalSystem([0.0], [1], [1], dt=0))
    assert is_stable(DenseSystem([[0.0, 5.0], [0.0, 0.0]], [[1], [1]], [[1, 1]]))
    with pytest.raises(ValueError, match=r"f: 1 poles of this DiagonalSystem.*horizon"):
        check_stable(DiagonalSystem([1.5, 0.5], [1, 1], [1, 1]), "f")
