"""Published H2, L2, Hankel, H-infinity and L-infinity norms, with their peak frequencies."""

from __future__ import annotations

import math

import numpy as np
import pytest
from published import CASES, numbers, parts, system_of
from scipy import signal

from ssmred.errors import UnstableSystemError
from ssmred.norms import Enclosure, h2_norm, hankel_norm, hinf_norm, l2_norm, linf_norm
from ssmred.systems import DenseSystem, discretise, from_scipy

FLAT = 1e-4  # relative; a peak is flat, so its place is known to the root of its height
NARROW = 1e-9  # asked of an enclosure where the case prints more digits than the default gives


def assert_encloses(got: Enclosure, expected: float, rtol: float) -> None:
    """The published value lies in the enclosure up to its own digits; the enclosure is narrow."""
    slack = rtol * expected
    assert got.lower <= expected + slack
    assert got.upper >= expected - slack
    assert got.lower <= got.upper
    assert got.upper - got.lower <= 1e-6 * got.upper


def test_slicot_ab13ad_hankel():
    _, expected, tolerance = parts(CASES["slicot_ab13ad_hankel"])
    got = hankel_norm(system_of("slicot_ab13ad_hankel"))
    assert got == pytest.approx(expected["hankel_norm"], abs=tolerance["atol"])


def test_slicot_ab13bd_l2_trap():
    _, expected, tolerance = parts(CASES["slicot_ab13bd_l2_trap"])
    system = system_of("slicot_ab13bd_l2_trap")
    with pytest.raises(UnstableSystemError):
        h2_norm(system)
    assert l2_norm(system) == pytest.approx(expected["l2_norm"], rel=tolerance["rtol"])


def test_slicot_ab13dd_linf():
    _, expected, tolerance = parts(CASES["slicot_ab13dd_linf"])
    system = system_of("slicot_ab13dd_linf")
    for function in (hinf_norm, linf_norm):
        got = function(system, rtol=NARROW)
        for name in ("linf_ab13dd", "linf_ab13cd"):
            assert_encloses(got, expected[name], tolerance["rtol"])
        assert abs(got.frequency) == pytest.approx(expected["peak_frequency"], rel=1e-9)
    recomputed = CASES["slicot_ab13dd_linf"]["recomputed"]
    assert h2_norm(system) == pytest.approx(recomputed["h2"], rel=1e-9)


def test_pc_norm_first_order():
    data, expected, tolerance = parts(CASES["pc_norm_first_order"])
    rtol = tolerance["rtol"]
    system = system_of("pc_norm_first_order", time_step=0)
    sampled = discretise(system, data["dt"])
    for one, values in ((system, expected["cont"]), (sampled, expected["disc"])):
        assert_encloses(hinf_norm(one), values["hinf"], rtol)
    assert h2_norm(system) == pytest.approx(expected["cont"]["h2"], rel=rtol)
    # the printed discrete value is off by 1.1e-8: by hand it is sqrt(tanh(dt / 2))
    by_hand = math.sqrt(math.tanh(data["dt"] / 2))
    assert h2_norm(sampled) == pytest.approx(by_hand, rel=rtol)
    assert expected["disc"]["h2"] == pytest.approx(by_hand, rel=2e-8)


def test_pc_norm_first_order_unstable_and_marginal():
    """1/(1 - s) has an L-infinity norm only, 1/(s^2 + 1) none at all."""
    data = CASES["pc_norm_first_order"]["input"]
    unstable = DenseSystem([[1.0]], [[1.0]], [[-1.0]], dt=0)
    marginal = DenseSystem([[0.0, 1.0], [-1.0, 0.0]], [[0.0], [1.0]], [[1.0, 0.0]], dt=0)
    for system in (unstable, discretise(unstable, data["dt"])):
        assert_encloses(linf_norm(system), 1.0, 1e-9)
        for norm in (h2_norm, hinf_norm, hankel_norm):
            with pytest.raises(UnstableSystemError):
                norm(system)
    for norm in (h2_norm, hinf_norm, hankel_norm, linf_norm, l2_norm):
        with pytest.raises(UnstableSystemError):
            norm(marginal)


@pytest.mark.parametrize("case_id", ["pc_linfnorm_2nd_order"])
def test_pc_linfnorm_2nd_order(case_id):
    data, expected, tolerance = parts(CASES[case_id])
    transfer = from_scipy(signal.TransferFunction(data["num"], data["den"]))
    for system in (system_of(case_id), transfer):
        got = hinf_norm(system)
        assert_encloses(got, expected["hinf"], tolerance["rtol"])
        assert abs(got.frequency) == pytest.approx(expected["peak_frequency"], rel=FLAT)
        assert h2_norm(system) == pytest.approx(expected["h2"], rel=tolerance["rtol"])


@pytest.mark.parametrize("inputs", ["212", "222"])
def test_cs_gram_norm_cont(inputs):
    data, expected, tolerance = parts(CASES["cs_gram_norm_cont"])
    system = system_of("cs_gram_norm_cont", B=data[f"B_C_{inputs}"])
    values = expected[f"C_{inputs}"]
    assert h2_norm(system) == pytest.approx(values["h2"], rel=tolerance["rtol"])
    got = hinf_norm(system, rtol=1e-11)
    assert got.lower <= values["hinf"] + tolerance["hinf_atol"]
    assert got.upper >= values["hinf"] - tolerance["hinf_atol"]


@pytest.mark.parametrize("which", [0, 1, 2])
def test_cs_complex_shift(which):
    data, expected, tolerance = parts(CASES["cs_complex_shift"])
    A = numbers(data["A"][which])
    system = DenseSystem(A, numbers(data["B"]), numbers(data["C"]), numbers(data["D"]), dt=0)
    got = hinf_norm(system)
    assert_encloses(got, expected["hinf"], tolerance["rtol"])
    distance = abs(got.frequency - expected["shift"][which])
    assert distance == pytest.approx(
        expected["peak_distance_from_shift"], rel=tolerance["freq_rtol"]
    )


@pytest.mark.parametrize("which", ["1", "2"])
def test_cs_multi_resonance_20(which):
    data, expected, tolerance = parts(CASES["cs_multi_resonance_20"])
    system = system_of("cs_multi_resonance_20", B=data["B" + which])
    got = hinf_norm(system)
    assert_encloses(got, expected["hinf_B" + which], tolerance["rtol"])
    assert abs(got.frequency) == pytest.approx(expected["w_B" + which], rel=tolerance["freq_rtol"])


def test_cs_covar():
    _, expected, tolerance = parts(CASES["cs_covar"])
    for name, time, D in (("cont", 0, np.zeros((2, 2))), ("disc", 1.0, np.eye(2))):
        system = system_of("cs_covar", time_step=time, D=D.tolist())
        trace = np.trace(expected[name])
        assert h2_norm(system) ** 2 == pytest.approx(trace, rel=tolerance["rtol"])
    assert h2_norm(system_of("cs_covar", time_step=0, D=np.eye(2).tolist())) == math.inf


def test_matlab_covar_discrete():
    data, expected, tolerance = parts(CASES["matlab_covar_discrete"])
    system = from_scipy(signal.TransferFunction(data["num"], data["den"], dt=1.0))
    covariance = data["W"] * h2_norm(system) ** 2
    assert covariance == pytest.approx(expected["output_covariance"], abs=tolerance["atol"])


def test_cs_d422_unstable_linf():
    data, expected, tolerance = parts(CASES["cs_d422_unstable_linf"])
    system = system_of("cs_d422_unstable_linf", time_step=data["dt"])
    got = linf_norm(system, rtol=NARROW)
    assert_encloses(got, expected["linf"], tolerance["rtol"])
    assert abs(got.frequency) == pytest.approx(expected["peak_frequency"], rel=FLAT)
    for norm in (hinf_norm, h2_norm, hankel_norm):
        with pytest.raises(UnstableSystemError):
            norm(system)


def test_cs_d311_hinf():
    data, expected, tolerance = parts(CASES["cs_d311_hinf"])
    system = from_scipy(signal.TransferFunction(data["num"], data["den"], dt=data["dt"]))
    got = hinf_norm(system, rtol=NARROW)
    assert_encloses(got, expected["hinf"], tolerance["rtol"])
    assert abs(got.frequency) == pytest.approx(expected["peak_frequency"], rel=FLAT)


def test_harold_improper_h2():
    _, expected, tolerance = parts(CASES["harold_improper_h2"])
    system = system_of("harold_improper_h2")
    assert_encloses(hinf_norm(system), expected["hinf"], tolerance["rtol"])
    assert h2_norm(system) == math.inf
