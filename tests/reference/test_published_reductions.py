"""Published reduced models: SLICOT, python-control, MATLAB, Varga.

States may be permuted, turned and mirrored, so reduced systems are compared by their poles and
transfer matrices, and their errors by norms.
"""

from __future__ import annotations

import numpy as np
import pytest
from published import CASES, assert_same_system, parts, system_of, value_at
from scipy import signal

from ssmred.gramians import hankel_singular_values, spectral_split
from ssmred.norms import hankel_error, hinf_norm
from ssmred.reductors import (
    BalancedReductor,
    FrequencyWeightedReductor,
    HankelReductor,
    ResidualisedReductor,
    SplitReductor,
)
from ssmred.systems import DenseSystem, cayley, difference, from_control, from_scipy, is_stable

POINTS = [0.0, 1j, 10j]  # as the cases ask
PRINTED = 6e-5  # half of the fourth decimal
BOUNDARY = -0.6
SLICOT = {
    "slicot_ab09ad_bt": BalancedReductor(),
    "slicot_ab09cd_hna": HankelReductor(),
    "slicot_ab09md_alpha_bt": SplitReductor(BalancedReductor(), boundary=BOUNDARY),
    "slicot_ab09nd_alpha_spa": SplitReductor(ResidualisedReductor(), boundary=BOUNDARY),
    "slicot_ab09ed_alpha_hna": SplitReductor(HankelReductor(), boundary=BOUNDARY),
}


def printed(case_id: str) -> DenseSystem:
    """Return the reduced model that the case prints."""
    expected = CASES[case_id]["expected"]
    return DenseSystem(*(expected[name] for name in ("Ar", "Br", "Cr", "Dr")), dt=0)


@pytest.mark.parametrize("case_id", SLICOT)
def test_slicot_reduced_models(case_id):
    data, expected, tolerance = parts(CASES[case_id])
    system = system_of(case_id)
    result = SLICOT[case_id].reduce(system, order=expected["order"])
    reduced = result.system
    assert_same_system(reduced, printed(case_id), tolerance["atol"], POINTS)
    np.testing.assert_allclose(reduced.D, expected["Dr"], rtol=0, atol=tolerance["atol"])
    assert data.get("alpha", BOUNDARY) == BOUNDARY


@pytest.mark.parametrize("case_id", SLICOT)
def test_slicot_errors_and_bounds(case_id):
    _, expected, _ = parts(CASES[case_id])
    recomputed = CASES[case_id]["recomputed"]
    system = system_of(case_id)
    result = SLICOT[case_id].reduce(system, order=expected["order"])
    error = result.hinf_error
    # a grid sees at most the norm; the printed model it was taken from has four decimals
    assert error.upper >= expected["linf_error_on_grid"] - 1e-3
    assert error.upper <= recomputed["tail_bound"]
    assert result.bound.value >= error.upper
    assert result.bound.value <= recomputed["tail_bound"] * (1 + 1e-9)


@pytest.mark.parametrize("case_id", [name for name in SLICOT if "alpha" in name])
def test_hankel_values_of_the_part_inside_the_boundary(case_id):
    _, expected, _ = parts(CASES[case_id])
    inside, outside = spectral_split(system_of(case_id), BOUNDARY)
    assert (inside.poles.real < BOUNDARY).all()
    assert (outside.poles.real >= BOUNDARY).all()
    got = hankel_singular_values(inside)
    np.testing.assert_allclose(got, expected["hsv"], rtol=0, atol=PRINTED)
    recomputed = CASES[case_id]["recomputed"]["hsv_alpha_stable_part"]
    np.testing.assert_allclose(got, recomputed, rtol=1e-10)


def test_slicot_ab09cd_hna_is_optimal():
    """No model of order five has a Hankel-norm error below the sixth Hankel singular value."""
    case = CASES["slicot_ab09cd_hna"]
    system = system_of("slicot_ab09cd_hna")
    sigma = case["recomputed"]["hsv_all_full_system"]
    result = HankelReductor().reduce(system, order=5)
    assert hankel_error(system, result.system) == pytest.approx(sigma[5], rel=1e-8)
    assert result.hinf_error.upper <= sigma[5] + sigma[6]


def test_derived_ab09ad_discrete():
    """The Cayley image has the same Gramians, the same bound, and balanced truncation keeps it."""
    data, expected, tolerance = parts(CASES["derived_ab09ad_discrete"])
    image = cayley(system_of("slicot_ab09ad_bt"))
    system = system_of("derived_ab09ad_discrete", time_step=1.0)
    for name in "ABCD":
        np.testing.assert_allclose(getattr(image, name), getattr(system, name), atol=1e-13)
    result = BalancedReductor().reduce(system, order=5)
    np.testing.assert_allclose(result.hankel, expected["hsv"], rtol=0, atol=tolerance["atol"])
    assert result.claim.value == pytest.approx(expected["bt_order5_bound"], rel=1e-9)
    assert result.hinf_error.upper <= expected["bt_order5_bound"]
    assert is_stable(result.system)
    assert data["map"].startswith("z=(1+s)/(1-s)")


@pytest.mark.parametrize(
    ("name", "reductor"),
    [("truncate", BalancedReductor()), ("matchdc", ResidualisedReductor())],
)
def test_pc_modred(name, reductor):
    """The model is printed with four digits and balanced to as many; so are the answers."""
    _, expected, tolerance = parts(CASES["pc_modred"])
    values = [expected[name][key] for key in ("Ar", "Br", "Cr", "Dr")]
    got = reductor.reduce(system_of("pc_modred"), order=2).system
    for point in POINTS:
        np.testing.assert_allclose(
            value_at(got, point), value_at(DenseSystem(*values, dt=0), point), atol=1e-2
        )
    np.testing.assert_allclose(got.D, expected[name]["Dr"], atol=tolerance["D_atol"])


def test_matlab_balreal_zpk():
    """``1.0001 / (s + 4.97)`` after two of three balanced states are deleted."""
    case = CASES["matlab_balreal_zpk"]
    data, expected, tolerance = parts(case)
    system = from_scipy(signal.ZerosPolesGain(data["zeros"], data["poles"], data["gain"]))
    reduced = BalancedReductor().reduce(system, order=1).system
    assert expected["modred_delete_states_2_3"] == "1.0001/(s+4.97)"
    assert (reduced.C @ reduced.B).item() == pytest.approx(1.0001, abs=tolerance["atol"])
    assert reduced.poles.item() == pytest.approx(-4.97, abs=5e-3)  # three digits are printed
    pole, b, c = case["recomputed"]["order1"]
    assert reduced.poles.item() == pytest.approx(pole, rel=1e-10)
    assert (reduced.C @ reduced.B).item() == pytest.approx(b * c, rel=1e-10)


def test_varga_cdc01_weighted():
    """Residualised to one state; its direct term is the ratio of the leading coefficients."""
    case = CASES["varga_cdc01_weighted"]
    data, expected, tolerance = parts(case)
    system, weight_in, weight_out = (
        from_scipy(signal.TransferFunction(*coefficients))
        for coefficients in ((data["num"], data["den"]), data["Wi"], data["Wo"])
    )
    assert data["residual"] is True
    reductor = FrequencyWeightedReductor(
        input_weight=weight_in, output_weight=weight_out, residualised=True
    )
    reduced = reductor.reduce(system, order=data["order"]).system
    pole, gain = reduced.poles.item().real, (reduced.C @ reduced.B).item()
    direct = reduced.D.item()
    got = np.array([direct, gain - direct * pole, -pole])
    printed = np.array([*expected["Gr_num"], expected["Gr_den"][1]])
    np.testing.assert_allclose(got, printed, rtol=tolerance["coef_rtol"])
    np.testing.assert_allclose(got, printed, rtol=0, atol=5e-4)  # all digits that are printed

    def weighted_error(model):
        one, error, two = (
            s.to_control() for s in (weight_in, difference(system, model), weight_out)
        )
        return hinf_norm(from_control(two * error * one)).value

    assert weighted_error(reduced) == pytest.approx(
        expected["weighted_hinf_error"], rel=tolerance["err_rtol"]
    )
    # the case's own value is that of the model as it is printed
    model = from_scipy(signal.TransferFunction(expected["Gr_num"], expected["Gr_den"]))
    recomputed = case["recomputed"]["weighted_err"]
    assert weighted_error(model) == pytest.approx(recomputed, rel=1e-6)
    assert weighted_error(reduced) == pytest.approx(recomputed, rel=2e-4)
