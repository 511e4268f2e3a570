"""The SLICOT benchmark models: building, pde, heat-cont, and the demo of its reduction toolbox.

The files are not part of the project (no licence is stated); `slicot_folder` finds them or skips.
Answers: what the collection prints, and 60 digits computed by `sixty_digits.py` from the matrices
as stored, kept in `slicot_sixty_digits.json`. The printed Hankel values of pde hold to 19 values
only, over 24 decades.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from published import CASES, parts, system_of
from sixty_digits import COUNT, STORED, norm_and_hankel_values, read_model

from ssmred.gramians import hankel_singular_values
from ssmred.norms import h2_norm, hankel_norm, hinf_norm
from ssmred.reductors import BalancedReductor, HankelReductor, ResidualisedReductor
from ssmred.systems import DenseSystem

EXACT = {
    name: {"h2": float(values["h2"]), "hankel": np.array(values["hankel"], dtype=float)}
    for name, values in json.loads(STORED.read_text(encoding="utf-8")).items()
}
MODELS = {
    "building": "slicot_bench_building",
    "pde": "slicot_bench_pde",
    "heat-cont": "slicot_bench_heat-cont",
}
SIX_DIGITS = 1e-6
TEN_DIGITS = 1e-10
DECADES = {"building": 1e-6, "pde": 1e-35, "heat-cont": 4e-13}
"""Down to this fraction of the largest value six digits are asked for."""


def read(folder: Path, name: str) -> tuple[DenseSystem, np.ndarray]:
    """Return the model and the Hankel singular values that come with it."""
    data = read_model(folder, name)
    return DenseSystem(data["A"], data["B"], data["C"], dt=0), np.ravel(data["hsv"])


@pytest.mark.parametrize("name", MODELS)
def test_the_files_are_those_of_the_case(name, slicot_folder):
    data, expected, _ = parts(CASES[MODELS[name]])
    digest = hashlib.sha256((slicot_folder / f"{name}.mat").read_bytes()).hexdigest()
    assert digest == data["sha256"]
    system, hsv = read(slicot_folder, name)
    sizes = (system.order, system.inputs, system.outputs)
    assert sizes == (expected["n"], expected["m"], expected["p"])
    np.testing.assert_allclose(hsv[:20], expected["hsv_first_20"], rtol=1e-14)


@pytest.mark.parametrize("name", MODELS)
def test_hankel_singular_values(name, slicot_folder):
    _, expected, tolerance = parts(CASES[MODELS[name]])
    system, _ = read(slicot_folder, name)
    got = hankel_singular_values(system)
    np.testing.assert_allclose(
        got[:10], expected["hsv_first_20"][:10], rtol=tolerance["hsv_rtol_leading10"]
    )
    exact = EXACT[name]["hankel"]
    count = int((exact >= DECADES[name] * exact[0]).sum())
    np.testing.assert_allclose(
        got[:count], exact[:count], rtol=TEN_DIGITS if name == "pde" else SIX_DIGITS
    )
    assert hankel_norm(system) == pytest.approx(exact[0], rel=1e-11)


@pytest.mark.parametrize("name", MODELS)
def test_h2_norms(name, slicot_folder):
    _, expected, _ = parts(CASES[MODELS[name]])
    system, _ = read(slicot_folder, name)
    assert h2_norm(system) == pytest.approx(EXACT[name]["h2"], rel=1e-11)
    assert h2_norm(system) == pytest.approx(expected["h2_recomputed_recomputed"], rel=1e-8)


@pytest.mark.parametrize("name", MODELS)
def test_hinf_norms(name, slicot_folder):
    _, expected, tolerance = parts(CASES[MODELS[name]])
    system, _ = read(slicot_folder, name)
    got = hinf_norm(system)
    assert got.lower <= got.upper <= got.lower * (1 + 2e-6)
    if "linf_published" in expected:
        published, slack = expected["linf_published"], tolerance["linf_rtol"]
        assert got.lower <= published * (1 + slack)
        assert got.upper >= published * (1 - slack)
        frequency = expected["linf_frequency_published"]
        assert abs(got.frequency) == pytest.approx(frequency, rel=1e-5, abs=1e-6)
    # and against the response on a grid, which can only be below
    grid = np.concatenate([[0.0], np.geomspace(1e-3, 1e5, 400)])
    assert np.abs(system.frequency_response(grid)).max() <= got.upper


@pytest.mark.parametrize("reductor", [BalancedReductor, ResidualisedReductor, HankelReductor])
@pytest.mark.parametrize(("name", "order"), [("building", 10), ("pde", 4), ("heat-cont", 6)])
def test_reductions_keep_their_bounds(name, order, reductor, slicot_folder):
    system, _ = read(slicot_folder, name)
    result = reductor().reduce(system, order=order)
    exact = EXACT[name]["hankel"]
    error = result.hinf_error
    assert result.system.order == order
    assert error.lower <= result.claim.value
    assert error.upper <= result.bound.value
    # no system of this order has a smaller error
    assert error.upper >= exact[order] * (1 - SIX_DIGITS)
    if reductor is ResidualisedReductor:
        gain, full = (
            s.frequency_response(np.array([0.0]))[0, 0, 0] for s in (result.system, system)
        )
        # the static gain of building is zero
        assert abs(gain - full) <= 1e-9 * max(abs(full), exact[0])


def test_slicot_mrdemo2m_16():
    """No printed answers: sixteen states over five decades of time, against 60 digits."""
    case = CASES["slicot_mrdemo2m_16"]["input"]
    system = system_of("slicot_mrdemo2m_16", **{name.upper(): case[name] for name in "abcd"})
    norm, values = norm_and_hankel_values(system.A, system.B, system.C, 16)
    exact = np.array(values, dtype=float)
    got = hankel_singular_values(system)
    large = exact >= 1e-10 * exact[0]
    np.testing.assert_allclose(got[large], exact[large], rtol=SIX_DIGITS)
    np.testing.assert_allclose(got, exact, rtol=0, atol=1e-13 * exact[0])
    strictly_proper = system.replace(D=0 * system.D)
    assert h2_norm(strictly_proper) == pytest.approx(float(norm), rel=1e-10)
    result = BalancedReductor().reduce(system, order=6)
    assert result.hinf_error.upper <= result.bound.value
    assert result.hinf_error.upper >= exact[6] * (1 - SIX_DIGITS)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["building", "pde"])
def test_sixty_digits_again(name, slicot_folder):
    """The stored answers come out of the matrices; heat-cont takes ten minutes by itself.

    ``python tests/reference/sixty_digits.py FOLDER`` writes all three anew, to be compared.
    """
    system, _ = read(slicot_folder, name)
    norm, values = norm_and_hankel_values(system.A, system.B, system.C, COUNT)
    stored = json.loads(STORED.read_text(encoding="utf-8"))[name]
    assert norm[:50] == stored["h2"][:50]
    for one, two in zip(values, stored["hankel"], strict=True):
        assert float(one) == float(two)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["building", "pde"])
def test_sixty_digits_agree_with_the_printed_ones(name, slicot_folder):
    """Where both are meant to be right: the ten largest."""
    _, hsv = read(slicot_folder, name)
    np.testing.assert_allclose(EXACT[name]["hankel"][:10], hsv[:10], rtol=1e-9)
