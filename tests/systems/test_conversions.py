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


def definition(system: DiagonalSystem, count: int) -> np.ndarray:
    """Return ``Re(C A^j B)`` sample by sample, with D where the recurrence puts it."""
    out = []
    for k in range(count):
        j = k if system.recurrence == "post-update" else k - 1
        h = np.zeros_like(system.D)
        if j >= 0:
            h = (system.C @ np.diag(system.poles**j) @ system.B).real
        out.append(h + (system.D if k == 0 else 0))
    return np.array(out)


@pytest.mark.parametrize("recurrence", ["standard", "post-update"])
@pytest.mark.parametrize("form", ["diagonal", "dense", "real"])
def test_impulse_responses_survive_the_round_trip(recurrence, form):
    """h_0 is D or C B + D; a lost shift, sign or conjugate would show in the first samples."""
    system = layer(recurrence)
    exact = definition(system, 12)
    one = {"diagonal": system, "dense": system.to_dense(), "real": system.realified()}[form]
    foreign = to_control(one)
    assert foreign.nstates == 8
    for back in (from_control(foreign), from_scipy(to_scipy(one))):
        assert back.recurrence == "standard"
        assert back.A.dtype == np.float64
        np.testing.assert_allclose(back.impulse_response(12), exact, atol=ROUNDING)
    # python-control and SciPy themselves, from the first sample on
    response = control.impulse_response(foreign, T=0.1 * np.arange(12)).outputs
    np.testing.assert_allclose(0.1 * response, np.moveaxis(exact, 0, -1), atol=ROUNDING)
    _, sampled = signal.dimpulse(to_scipy(one), n=12)
    np.testing.assert_allclose(np.stack(sampled, axis=-1), exact, atol=ROUNDING)


def test_states_that_do_nothing_are_kept():
    """python-control may drop states without input or output; that would be a reduction."""
    system = DenseSystem(np.diag([0.5, 0.3, 0.2]), [[1], [0], [0]], [[1, 0, 0]], dt=0.1)
    with_all = to_control(system)
    assert with_all.nstates == 3
    back = from_control(with_all)
    for name in "ABCD":
        np.testing.assert_array_equal(getattr(back, name), getattr(system, name))
    fewer = control.ss(with_all.A, with_all.B, with_all.C, with_all.D, 0.1,
                       remove_useless_states=True)  # fmt: skip
    np.testing.assert_array_equal(from_control(fewer).A, fewer.A)


@pytest.mark.parametrize("dt", [True, 1.0, 0.25, 0])
def test_time_bases(dt):
    """dt=True is "some step", which counts as 1; 0 is continuous time and stays it."""
    foreign = control.ss([[0.5]], [[1]], [[1]], [[2]], dt)
    one = from_control(foreign)
    assert one.dt == float(dt)
    assert to_control(one).dt == float(dt)
    two = from_control(control.tf([1.0], [1.0, 0.5], dt))
    assert two.dt == float(dt)
    scipy_system = to_scipy(one)
    assert isinstance(scipy_system, signal.dlti if dt else signal.lti)
    assert from_scipy(scipy_system).dt == float(dt)


@pytest.mark.parametrize("dt", [0, 0.25])
def test_static_gains_of_any_shape_make_the_round_trip(dt):
    D = np.arange(6.0).reshape(3, 2)
    system = DenseSystem(np.zeros((0, 0)), np.zeros((0, 2)), np.zeros((3, 0)), D, dt)
    for back in (from_control(to_control(system)), from_scipy(to_scipy(system))):
        assert (back.order, back.inputs, back.outputs, back.dt) == (0, 2, 3, dt)
        np.testing.assert_array_equal(back.D, D)


@pytest.mark.parametrize("batch", [(), (2,)])
def test_dense_differences_keep_one_copy_of_shared_states(batch):
    """Read-outs 1e-14 apart: stacked states would leave rounding errors of the same size."""
    rng = np.random.default_rng(4)
    A, B, C = (rng.normal(size=(*batch, *k)) + 1j for k in ((4, 4), (4, 2), (3, 4)))
    full = DenseSystem(0.1 * A, B, C, rng.normal(size=(*batch, 3, 2)), recurrence="post-update")
    for field in ("C", "B"):
        whole = getattr(full, field)
        reduced = full.replace(**{field: whole * (1 + 1e-14)}, D=full.D / 2)
        got = difference(full, reduced)
        assert got.order == 4
        np.testing.assert_array_equal(getattr(got, field), whole - getattr(reduced, field))
        np.testing.assert_array_equal(got.D, full.D - full.D / 2)
        assert got.recurrence == "post-update"
    other = difference(full, full.replace(A=2 * full.A))
    assert other.order == 8
    expected = full.impulse_response(9) - full.replace(A=2 * full.A).impulse_response(9)
    np.testing.assert_allclose(other.impulse_response(9), expected, atol=ROUNDING * 100)


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
