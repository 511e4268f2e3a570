"""Published discretisations, frequency responses and layers, through systems alone."""

from __future__ import annotations

import numpy as np
import pytest
from published import CASES, numbers, parts, system_of

from ssmred.systems import DenseSystem, DiagonalSystem, cayley, discretise


def test_slicot_ab04md_bilinear():
    data, expected, tolerance = parts(CASES["slicot_ab04md_bilinear"])
    system = cayley(
        system_of("slicot_ab04md_bilinear"), alpha=data["alpha"], beta=data["beta"], dt=1.0
    )
    for name in "ABCD":
        np.testing.assert_allclose(
            getattr(system, name), expected[name + "d"], rtol=0, atol=tolerance["atol"]
        )
    for name in "ABCD":  # and back, in float64
        original = numbers(data[name])
        np.testing.assert_allclose(getattr(cayley(system), name), original, atol=1e-14)


def test_slicot_mb05nd_zoh():
    """B = I makes B_d the integral of the exponential."""
    data, expected, tolerance = parts(CASES["slicot_mb05nd_zoh"])
    A = numbers(data["A"])
    sampled = discretise(DenseSystem(A, np.eye(5), np.eye(5), dt=0), data["delta"])
    np.testing.assert_allclose(sampled.A, expected["expm"], rtol=0, atol=tolerance["atol"])
    np.testing.assert_allclose(sampled.B, expected["integral"], rtol=0, atol=tolerance["atol"])


def test_slicot_tb05ad_freqresp():
    data, expected, tolerance = parts(CASES["slicot_tb05ad_freqresp"])
    s = complex(numbers(data["s"]))
    system = system_of("slicot_tb05ad_freqresp")
    got = system.frequency_response(np.array([s.imag]))[0]
    np.testing.assert_allclose(got, numbers(expected["G"]), rtol=0, atol=tolerance["atol"])


@pytest.mark.parametrize("method", ["zoh", "foh", "impulse", "bilinear", "gbt_alpha_1_3"])
def test_scipy_cont2discrete(method):
    data, expected, tolerance = parts(CASES["scipy_cont2discrete"])
    system = system_of("scipy_cont2discrete")
    if method == "impulse":  # SciPy's own test takes D = 0 here
        system = system.replace(D=0 * system.D)
    options = {"method": "gbt", "alpha": 1 / 3} if method.startswith("gbt") else {"method": method}
    sampled = discretise(system, data["dt"], **options)
    for name, values in expected[method].items():
        np.testing.assert_allclose(
            getattr(sampled, name[0]), values, rtol=0, atol=tolerance["atol"], err_msg=name
        )
    diagonal = DiagonalSystem(np.diag(system.A), system.B, system.C, system.D, dt=0)
    closed = discretise(diagonal, data["dt"], **options)  # A is diagonal
    for name in "BCD":
        np.testing.assert_allclose(getattr(closed, name), getattr(sampled, name), atol=1e-14)


# --- layers: the same functions, in the post-update recurrence ----------------------------------


def test_s4_diag_zoh():
    data, expected, tolerance = parts(CASES["s4_diag_zoh"])
    atol, params = tolerance["float32_atol"], data["params"]
    step = np.exp(np.array(params["inv_dt"])[:, 0])
    poles = -np.exp(params["A_real"]) - 1j * np.array(params["A_imag"])
    B = np.array(params["B"])[0] @ [1, 1j]
    C = np.array(params["C"])[0] @ [1, 1j]
    # channels have steps of their own: time is scaled, and dt = 1
    continuous = DiagonalSystem(
        poles * step[:, None],
        (B * step[:, None])[..., None],
        2 * C[:, None, :],
        dt=0,
        real_output=True,
    )
    layer = discretise(continuous, 1.0).replace(recurrence="post-update")
    dA = np.array(expected["dA_re"]) + 1j * np.array(expected["dA_im"])
    dB = np.array(expected["dB_re"]) + 1j * np.array(expected["dB_im"])
    np.testing.assert_allclose(layer.poles, dA, rtol=0, atol=atol)
    np.testing.assert_allclose(layer.B[..., 0], dB, rtol=0, atol=atol)
    kernel = layer.impulse_response(6)[..., 0, 0]
    np.testing.assert_allclose(kernel, expected["kernel"][0], rtol=0, atol=atol)
    whole = layer.replace(D=np.array(data["D"])[0][:, None, None])
    for form in (whole, whole.with_recurrence("standard")):
        y = form.simulate(np.array(data["u"])[0][..., None])[..., 0]
        np.testing.assert_allclose(y, expected["y"][0], rtol=0, atol=atol)
        np.testing.assert_allclose(y, expected["y_step"][0], rtol=0, atol=atol)


def test_s4d_minimal_layer():
    """Its discretisation is the zero-order hold with ``B = 1``."""
    data, expected, tolerance = parts(CASES["s4d_minimal_layer"])
    params = data["params"]
    step = np.exp(params["kernel.log_dt"])
    poles = -np.exp(params["kernel.log_A_real"]) + 1j * np.array(params["kernel.A_imag"])
    C = np.array(params["kernel.C"]) @ [1, 1j]
    continuous = DiagonalSystem(
        poles * step[:, None],
        np.repeat(step[:, None, None], 2, axis=1),
        2 * C[:, None, :],
        dt=0,
        real_output=True,
    )
    layer = discretise(continuous, 1.0).replace(recurrence="post-update")
    np.testing.assert_allclose(
        layer.impulse_response(data["L"])[..., 0, 0],
        expected["kernel_float64"],
        rtol=0,
        atol=tolerance["float64_atol"],
    )


def test_s4_dplr():
    """A dense A, S4's own bilinear step: C stays, so the output sees the new state."""
    data, expected, tolerance = parts(CASES["s4_dplr"])
    params, atol = data["params_before_first_forward"], tolerance["float32_atol"]
    step = np.exp(np.array(params["inv_dt"])[:, 0])
    half = -np.exp(params["A_real"]) - 1j * np.array(params["A_imag"])
    P, B, C = (np.array(params[name])[0] @ [1, 1j] for name in ("P", "B", "C"))
    poles, P, B, C = (np.concatenate([x, x.conj()], axis=-1) for x in (half, P, B, C))
    A = poles[..., None] * np.eye(4) - P[..., :, None] * P[..., None, :].conj()
    continuous = DenseSystem(
        A * step[:, None, None], (B * step[:, None])[..., None], C[:, None, :], dt=0
    )
    bilinear = discretise(continuous, 1.0, "bilinear")
    layer = bilinear.replace(C=continuous.C, D=0 * bilinear.D, recurrence="post-update")
    dA = np.array(expected["dA_re"]) + 1j * np.array(expected["dA_im"])
    dB = np.array(expected["dB_re"]) + 1j * np.array(expected["dB_im"])
    np.testing.assert_allclose(layer.A, dA, rtol=0, atol=atol)
    np.testing.assert_allclose(layer.B[..., 0], dB, rtol=0, atol=atol)
    kernel = layer.impulse_response(6)[..., 0, 0]
    assert np.abs(kernel.imag).max() <= 1e-15
    np.testing.assert_allclose(kernel.real, expected["kernel"][0], rtol=0, atol=atol)
    whole = layer.replace(D=np.array(data["D"])[0][:, None, None])
    y = whole.simulate(np.array(data["u"])[0][..., None])[..., 0].real
    np.testing.assert_allclose(y, expected["y"][0], rtol=0, atol=atol)
    np.testing.assert_allclose(y, expected["y_step"][0], rtol=0, atol=atol)
    # the C that S4 stores after its first call: (I - dA^L)^T C, for the half spectrum
    power = np.linalg.matrix_power(layer.A, expected["l_kernel_after"])
    twisted = layer.C - layer.C @ power
    stored = numbers(expected["C_tilde_after_forward"])[0] @ [1, 1j]
    np.testing.assert_allclose(twisted[:, 0, :2], stored, rtol=0, atol=atol)


@pytest.mark.parametrize("rule", ["zoh", "bilinear"])
def test_s5_lindermanlab(rule):
    data, expected, tolerance = parts(CASES["s5_lindermanlab"])
    atol, expected = tolerance["float32_atol"], expected[rule]

    def value(name: str, source=data) -> np.ndarray:
        return np.array(source[name + "_re"]) + 1j * np.array(source[name + "_im"])

    step = np.exp(data["log_step"])
    poles, B, C = value("Lambda"), value("B"), value("C")
    continuous = DiagonalSystem(poles * step, B * step[:, None], C, dt=0)
    sampled = discretise(continuous, 1.0, rule)
    np.testing.assert_allclose(sampled.poles, value("Lambda_bar", expected), rtol=0, atol=atol)
    np.testing.assert_allclose(sampled.B, value("B_bar", expected), rtol=0, atol=atol)
    D, u = np.diag(data["D"]), np.array(data["u"])
    for factor, name in ((2, "y_conj_sym_True"), (1, "y_conj_sym_False")):
        layer = sampled.replace(C=factor * C, D=D, recurrence="post-update", real_output=True)
        np.testing.assert_allclose(layer.simulate(u), expected[name], rtol=0, atol=atol)


def test_lru_pytorch_gothos():
    data, expected, tolerance = parts(CASES["lru_pytorch_gothos"])
    p = {name: np.array(values) for name, values in data["params"].items()}
    layer = DiagonalSystem(
        np.exp(-np.exp(p["nu_log"]) + 1j * np.exp(p["theta_log"])),
        np.exp(p["gamma_log"])[:, None] * (p["B_re"] + 1j * p["B_im"]),
        p["C_re"] + 1j * p["C_im"],
        p["D"],
        recurrence="post-update",
        real_output=True,
    )
    y = layer.simulate(np.array(data["u"]))
    np.testing.assert_allclose(y, expected["y"], rtol=0, atol=tolerance["float32_atol"])


def test_annotated_s4_cnn_is_rnn():
    """A random system, bilinear, step 1/L: convolution with the kernel is the recurrence."""
    assert CASES["annotated_s4_cnn_is_rnn"]["tolerance"]["kind"] == "property"
    rng = np.random.default_rng(1)
    L = 16
    A, B, C = rng.uniform(size=(4, 4)), rng.uniform(size=(4, 1)), rng.uniform(size=(1, 4))
    layer = discretise(DenseSystem(A, B, C, dt=0), 1 / L, "bilinear")
    layer = layer.replace(C=C, D=[[0.0]], recurrence="post-update")
    u = rng.normal(size=L)
    convolved = np.convolve(u, layer.impulse_response(L)[:, 0, 0])[:L]
    recurrent = layer.simulate(u[:, None])[:, 0]
    np.testing.assert_allclose(convolved, recurrent, rtol=1e-12)


def test_last_aire_scores():
    """The squared H-infinity norm of each mode alone, on the unit circle; S5 with Tustin's rule.

    The printed scores were computed in float32, where ``(1 - |l|)^2`` keeps five digits; the
    recomputed ones are compared to nine.
    """
    case = CASES["last_aire_scores"]
    data = case["input"]
    s5 = CASES[data["uses_case"]]["input"]
    step = np.exp(s5["log_step"])

    def value(name: str) -> np.ndarray:
        return np.array(s5[name + "_re"]) + 1j * np.array(s5[name + "_im"])

    continuous = DiagonalSystem(
        value("Lambda") * step, value("B") * step[:, None], value("C"), dt=0
    )
    layer = discretise(continuous, 1.0, data["disc"]).replace(C=value("C"))
    for i, score in enumerate(case["recomputed"]["hinf_score"]):
        mode = layer.replace(
            poles=layer.poles[i : i + 1], B=layer.B[i : i + 1], C=layer.C[:, i : i + 1], D=None
        )
        peak = np.angle(mode.poles)  # where |z - l| is smallest on the circle
        response = mode.frequency_response(peak)[0]
        assert np.linalg.norm(response, 2) ** 2 == pytest.approx(score, rel=1e-9)


def test_hippo_matrices_n4():
    """LegS from its formula; the eigenvalues of its normal part, which S4D starts from."""
    _, expected, tolerance = parts(CASES["hippo_matrices_N4"])
    n = np.arange(4)
    root = np.sqrt(2 * n + 1)
    A = -np.tril(np.outer(root, root), -1) - np.diag(n + 1.0)
    legs = expected["hippo_legs_N4"]
    np.testing.assert_allclose(A, legs["A"], atol=tolerance["atol"])
    np.testing.assert_allclose(root, legs["B"], atol=tolerance["atol"])
    system = DenseSystem(A, root, np.ones(4), dt=0)
    np.testing.assert_allclose(np.sort(system.poles.real), -n[::-1] - 1.0, atol=1e-12)
    normal = system.replace(A=A + np.outer(root, root) / 2)
    poles = normal.poles[normal.poles.imag < 0]
    stored = np.array(legs["nplr_Lambda_re"]) + 1j * np.array(legs["nplr_Lambda_im"])
    np.testing.assert_allclose(
        np.sort_complex(poles), np.sort_complex(stored), atol=tolerance["atol"]
    )
