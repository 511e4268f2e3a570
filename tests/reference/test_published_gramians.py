"""Published Gramians, matrix equations and Hankel singular values."""

from __future__ import annotations

import numpy as np
import pytest
from published import CASES, exact_hankel_values, numbers, parts, system_of
from scipy import signal

from ssmred.errors import UnstableSystemError
from ssmred.gramians import (
    controllability_factor,
    controllability_gramian,
    hankel_singular_values,
    observability_factor,
    observability_gramian,
)
from ssmred.systems import DenseSystem, discretise, from_scipy

GRAMIANS = {"Wc": controllability_gramian, "Wo": observability_gramian}


def upper_factor(gramian: np.ndarray) -> np.ndarray:
    """Return R with ``R^T R`` the Gramian and a positive diagonal."""
    return np.linalg.cholesky(gramian).T


@pytest.mark.parametrize("time", ["cont", "disc_zoh_0p2"])
@pytest.mark.parametrize("case_id", ["pc_gram_mimo", "pc_gram_siso"])
def test_gramians_and_their_triangular_factors(case_id, time):
    data, expected, tolerance = parts(CASES[case_id])
    system = system_of(case_id, time_step=0)
    if time != "cont":
        system = discretise(system, data["dt"], data["discretisation"])
    for name, values in expected[time].items():
        got = GRAMIANS["W" + name[1]](system)
        if name.startswith("R"):
            got = upper_factor(got)
        np.testing.assert_allclose(got, values, rtol=0, atol=tolerance["atol"], err_msg=name)
    for factor, name in ((controllability_factor, "Wc"), (observability_factor, "Wo")):
        L = factor(system)
        np.testing.assert_allclose(
            L @ L.conj().T, expected[time][name], rtol=0, atol=tolerance["atol"]
        )


def test_pc_issue967_discrete_gramian():
    _, expected, tolerance = parts(CASES["pc_issue967_discrete_gramian"])
    system = system_of("pc_issue967_discrete_gramian", time_step=1.0)
    got = observability_gramian(system)
    np.testing.assert_allclose(got, expected["Wo"], rtol=0, atol=tolerance["atol"])


@pytest.mark.parametrize("inputs", ["212", "222"])
def test_cs_gram_norm_cont(inputs):
    data, expected, tolerance = parts(CASES["cs_gram_norm_cont"])
    system = system_of("cs_gram_norm_cont", B=data[f"B_C_{inputs}"])
    for name, values in expected[f"C_{inputs}"].items():
        if name in GRAMIANS:
            got = GRAMIANS[name](system)
            np.testing.assert_allclose(got, values, rtol=tolerance["rtol"], err_msg=name)


def test_cs_covar():
    """Output covariance for white noise: ``C P C^T + D D^T``; infinite if D passes it."""
    data, expected, tolerance = parts(CASES["cs_covar"])
    for time, D in ((0, np.zeros((2, 2))), (1.0, numbers(data["D_discrete"]))):
        system = system_of("cs_covar", time_step=time, D=D.tolist())
        W = numbers(data["W"])
        P = controllability_gramian(system.replace(B=system.B @ np.linalg.cholesky(W)))
        covariance = system.C @ P @ system.C.T + D @ W @ D.T
        np.testing.assert_allclose(
            covariance, expected["disc" if time else "cont"], rtol=tolerance["rtol"]
        )


@pytest.mark.parametrize(
    "case_id",
    ["slicot_ab09ad_bt", "slicot_ab09cd_hna", "slicot_ab13ad_hankel", "derived_ab09ad_discrete"],
)
def test_hankel_singular_values_of_the_slicot_example(case_id):
    _, expected, tolerance = parts(CASES[case_id])
    discrete = case_id == "derived_ab09ad_discrete"
    system = system_of(case_id, time_step=1.0 if discrete else 0)
    got = hankel_singular_values(system)
    atol = tolerance.get("hsv_atol", 6e-5)  # the four printed digits
    np.testing.assert_allclose(got, expected["hsv"], rtol=0, atol=atol)
    full = expected.get("hsv_full_precision_recomputed")
    if full:
        np.testing.assert_allclose(got, full, rtol=1e-11)


def test_pc_hsvd():
    _, expected, tolerance = parts(CASES["pc_hsvd"])
    got = hankel_singular_values(system_of("pc_hsvd"))
    np.testing.assert_allclose(got, expected["hsv"], rtol=tolerance["rtol"])


def test_matlab_balreal_zpk():
    data, expected, tolerance = parts(CASES["matlab_balreal_zpk"])
    system = from_scipy(signal.ZerosPolesGain(data["zeros"], data["poles"], data["gain"]))
    got = hankel_singular_values(system)
    np.testing.assert_allclose(got, expected["hsv"], rtol=0, atol=tolerance["atol"])
    # the case's own recomputation took square roots of eig(PQ) and is off by 2e-8 in the last
    np.testing.assert_allclose(got, exact_hankel_values(system), rtol=1e-9)


def test_unstable_examples_have_no_infinite_gramian():
    for case_id, time in (("slicot_ab13bd_l2_trap", 0), ("cs_d422_unstable_linf", 0.2)):
        system = system_of(case_id, time_step=time)
        for function in (*GRAMIANS.values(), hankel_singular_values):
            with pytest.raises(UnstableSystemError):
                function(system)
    data = CASES["slicot_sb03md_discrete_lyap"]["input"]
    with pytest.raises(UnstableSystemError):
        controllability_gramian(DenseSystem(data["A"], np.eye(3), np.eye(3), dt=1.0))
