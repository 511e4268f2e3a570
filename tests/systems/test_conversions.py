"""python-control and SciPy interchange, and differences of systems."""

from __future__ import annotations

import json
from pathlib import Path

import control
import numpy as np
import pytest
from scipy import signal

from ssmred.errors import ShapeError, UnsupportedOperationError
from ssmred.systems import (
    DenseSystem,
    DiagonalSystem,
    difference,
    from_control,
    from_scipy,
    to_control,
    to_scipy,
)

CASES = {
    case["id"]: case
    for case in json.loads(
        (Path(__file__).parents[1] / "reference" / "cases.json").read_text(encoding="utf-8")
    )["cases"]
}
ROUNDING = 1e-12  # relative to the largest value


def layer(recurrence: str = "post-update", seed: int = 0, n: int = 4) -> DiagonalSystem:
    rng = np.random.default_rng(seed)
    poles = rng.uniform(0.4, 0.9, n) * np.exp(1j * rng.uniform(0, 3, n))
    return DiagonalSystem(
        poles,
        rng.normal(size=(n, 2)) + 1j * rng.normal(size=(n, 2)),
        rng.normal(size=(3, n)) + 1j * rng.normal(size=(3, n)),
        rng.normal(size=(3, 2)),
        0.1,
        recurrence=recurrence,
        real_output=True,
    )


@pytest.mark.parametrize("recurrence", ["standard", "post-update"])
def test_control_and_scipy_compute_the_same_outputs(recurrence):
    system = layer(recurrence)
    u = np.random.default_rng(1).normal(size=(30, 2))
    expected = system.simulate(u)
    tolerance = ROUNDING * np.abs(expected).max()
    foreign = to_control(system)
    assert foreign.dt == 0.1
    response = control.forced_response(foreign, inputs=u.T)
    np.testing.assert_allclose(response.outputs.T, expected, atol=tolerance)
    _, outputs, _ = signal.dlsim(to_scipy(system), u)
    np.testing.assert_allclose(outputs, expected, atol=tolerance)


@pytest.mark.parametrize("dt", [0, 0.25])
def test_round_trips(dt):
    rng = np.random.default_rng(3)
    system = DenseSystem(
        rng.normal(size=(3, 3)), rng.normal(size=(3, 2)), rng.normal(size=(1, 3)), [[1.0, 2.0]], dt
    )
    for back in (
        from_control(system.to_control()),
        from_scipy(system.to_scipy()),
        DenseSystem.from_control(system.to_control()),
        DenseSystem.from_scipy(system.to_scipy()),
    ):
        assert back.dt == dt
        for name in "ABCD":
            np.testing.assert_array_equal(getattr(back, name), getattr(system, name))


def test_transfer_functions_become_systems():
    case = CASES["matlab_covar_discrete"]["input"]
    one = from_control(control.tf(case["num"], case["den"], True))
    two = from_scipy(signal.TransferFunction(case["num"], case["den"], dt=1.0))
    z = np.exp(0.7j)
    exact = np.polyval(case["num"], z) / np.polyval(case["den"], z)
    for system in (one, two):
        assert system.dt == 1.0
        np.testing.assert_allclose(system.frequency_response(np.array([0.7]))[0, 0, 0], exact)


def test_control_frequency_response_agrees():
    system = layer("standard")
    omega = np.array([0.1, 1.0, 20.0])
    foreign = to_control(system)(np.exp(1j * omega * system.dt))
    got = np.moveaxis(system.frequency_response(omega), 0, -1)
    np.testing.assert_allclose(got, foreign, atol=ROUNDING * np.abs(got).max())


def test_real_diagonal_and_static_systems_convert():
    assert to_control(DiagonalSystem([0.5], [1.0], [2.0], dt=0.5)).A.tolist() == [[0.5]]
    static = DiagonalSystem(np.zeros(0), np.zeros((0, 1)), np.zeros((1, 0)), 3.0)
    assert to_control(static).D.tolist() == [[3.0]]


def test_what_the_libraries_cannot_hold_is_refused():
    complex_outputs = DiagonalSystem([0.5j], [1.0], [1.0])
    batch = DiagonalSystem(np.full((2, 1), 0.5), np.ones((2, 1)), np.ones((2, 1)))
    for convert in (to_control, to_scipy):
        with pytest.raises(UnsupportedOperationError, match="complex"):
            convert(complex_outputs)
        with pytest.raises(UnsupportedOperationError, match="batch"):
            convert(batch)
        with pytest.raises(UnsupportedOperationError, match="not a system"):
            convert(np.eye(2))
    for convert in (from_control, from_scipy):
        with pytest.raises(UnsupportedOperationError, match=r"no (python-control|scipy)"):
            convert(np.eye(2))
    with pytest.raises(ShapeError, match="dt is None"):
        from_control(control.StateSpace([[0.5]], [[1]], [[1]], [[0]], None))


@pytest.mark.parametrize("kinds", ["diagonal", "dense", "mixed"])
@pytest.mark.parametrize("recurrence", ["post-update", "standard"])
def test_difference_is_the_difference_of_responses(kinds, recurrence):
    one, two = layer(recurrence, 0), layer("post-update", 1, n=2)
    expected = one.impulse_response(20) - two.impulse_response(20)
    if kinds == "dense":
        one, two = one.to_dense(), two.to_dense()
    if kinds == "mixed":
        two = two.realified()
    got = difference(one, two)
    np.testing.assert_allclose(
        got.impulse_response(20), expected, atol=ROUNDING * np.abs(expected).max()
    )


def test_difference_of_half_and_full_spectrum():
    one = layer()
    got = difference(one, one.full_spectrum()).impulse_response(20)
    assert np.abs(got).max() <= ROUNDING * np.abs(one.impulse_response(20)).max()


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("dt", layer().replace(dt=0.2)),
        ("inputs", layer().replace(B=np.ones((4, 1)), D=np.ones((3, 1)))),
        ("outputs", layer().replace(C=np.ones((1, 4)), D=np.ones((1, 2)))),
        ("batch_shape", DiagonalSystem([[0.5]], np.ones((1, 1, 2)), np.ones((1, 3, 1)), dt=0.1)),
    ],
)
def test_systems_that_do_not_match_are_refused(name, other):
    with pytest.raises(ShapeError, match=f"differ in {name}"):
        difference(layer(), other)
    with pytest.raises(UnsupportedOperationError, match="not a system"):
        difference(layer(), None)
