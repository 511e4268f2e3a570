"""Published layers, through the trainable layers of the same parametrisation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from published import CASES, parts

from ssmred.networks.adapters.lru import read_lru
from ssmred.networks.adapters.s5 import read_s5
from ssmred.networks.layers import LRU, S4, S4D, S5

DOUBLE = torch.float64


def filled(layer: torch.nn.Module, values: dict) -> torch.nn.Module:
    """Return the layer in float64 with the given tensors; every key must fit."""
    layer = layer.double().eval()
    layer.load_state_dict({k: torch.tensor(v, dtype=DOUBLE) for k, v in values.items()})
    return layer


def steps(layer: torch.nn.Module, u: torch.Tensor) -> torch.Tensor:
    state, outputs = layer.initial_state(len(u)), []
    for k in range(u.shape[-1]):
        y, state = layer.step(u[..., k], state)
        outputs.append(y)
    return torch.stack(outputs, dim=-1)


def pairs(data: dict, name: str) -> list:
    return np.stack([data[name + "_re"], data[name + "_im"]], axis=-1).tolist()


@torch.no_grad()
def test_s4d_minimal_layer():
    data, expected, tolerance = parts(CASES["s4d_minimal_layer"])
    layer, u = filled(S4D(2, 4), data["params"]), torch.tensor(data["u"], dtype=DOUBLE)
    kernel = layer.kernel(L=data["L"])
    wanted = expected["kernel_float64"]
    np.testing.assert_allclose(kernel, wanted, rtol=0, atol=tolerance["float64_atol"])
    for y in (layer(u)[0], steps(layer, u)):
        np.testing.assert_allclose(y, expected["y_layer"], rtol=0, atol=tolerance["float32_atol"])


@pytest.mark.parametrize("form", ["plain", "made for the length"])
@torch.no_grad()
def test_s4_dplr(form):
    data, expected, tolerance = parts(CASES["s4_dplr"])
    params, atol = data["params_before_first_forward"], tolerance["float32_atol"]
    values = {f"layer.kernel.{name}": value for name, value in params.items()}
    values |= {"layer.D": data["D"], "layer.kernel.l_kernel": 0}
    if form != "plain":
        values["layer.kernel.C"] = expected["C_tilde_after_forward"]
        values["layer.kernel.l_kernel"] = expected["l_kernel_after"]
    layer = filled(S4(2, 4, mixing="none", systems=2), values)
    kernel, _ = layer.layer.kernel(L=6)
    np.testing.assert_allclose(kernel, expected["kernel"], rtol=0, atol=atol)
    np.testing.assert_allclose(layer.layer.kernel.by_powers(6), kernel, rtol=0, atol=1e-14)
    u = torch.tensor(data["u"], dtype=DOUBLE)
    np.testing.assert_allclose(layer(u)[0], expected["y"], rtol=0, atol=atol)
    np.testing.assert_allclose(steps(layer, u), expected["y_step"], rtol=0, atol=atol)
    layer.layer.kernel.make_for(expected["l_kernel_after"])
    twisted = expected["C_tilde_after_forward"]
    np.testing.assert_allclose(layer.layer.kernel.C, twisted, rtol=0, atol=atol)


@pytest.mark.parametrize("way", ["conj_sym_True", "conj_sym_False", "bidirectional"])
@pytest.mark.parametrize("rule", ["zoh", "bilinear"])
@torch.no_grad()
def test_s5_lindermanlab(rule, way):
    data, expected, tolerance = parts(CASES["s5_lindermanlab"])
    C = pairs(data, "C")
    name = f"y_{way}"
    if way == "bidirectional":  # the backward half reads the states in reversed order
        C = [row + row[::-1] for row in C]
        name = "y_bidirectional_C_concat_reversedcols_conj_sym_True"
    values = {"B": pairs(data, "B"), "C": C}
    values |= {key: data[key] for key in ("Lambda_re", "Lambda_im", "D")}
    values["log_step"] = [[value] for value in data["log_step"]]
    # three modes: those of 6 states as pairs, of 6 complex ones otherwise
    options = {"conj_sym": way != "conj_sym_False", "bidirectional": way == "bidirectional"}
    layer = S5(2, 6 if options["conj_sym"] else 8, discretisation=rule, **options)
    if not options["conj_sym"]:  # initial values come in pairs, given ones need not
        for key in ("Lambda_re", "Lambda_im", "B", "C", "log_step"):
            setattr(layer, key, torch.nn.Parameter(torch.tensor(values[key])))
    u = torch.tensor(data["u"], dtype=DOUBLE).T[None]
    y = filled(layer, values)(u)[0].T
    np.testing.assert_allclose(y, expected[rule][name], rtol=0, atol=tolerance["float32_atol"])
    if way != "bidirectional":
        np.testing.assert_allclose(steps(layer, u)[0].T, y, rtol=0, atol=1e-14)


@torch.no_grad()
def test_lru_pytorch_gothos():
    """That package has a full D, this layer a diagonal one; the rest is the same."""
    data, expected, tolerance = parts(CASES["lru_pytorch_gothos"])
    values = {key: value for key, value in data["params"].items() if key != "D"}
    D, u = np.array(data["params"]["D"]), np.array(data["u"])
    layer = filled(LRU(2, 6), values | {"D": [0.0, 0.0]})
    y = layer(torch.from_numpy(u.T[None].copy()))[0].T.numpy() + u @ D.T
    np.testing.assert_allclose(y, expected["y"], rtol=0, atol=tolerance["float32_atol"])


@pytest.mark.parametrize("way", ["conj_sym_True", "conj_sym_False", "bidirectional"])
@pytest.mark.parametrize("rule", ["zoh", "bilinear"])
def test_s5_lindermanlab_from_its_tree(rule, way):
    data, expected, tolerance = parts(CASES["s5_lindermanlab"])
    C, name = pairs(data, "C"), f"y_{way}"
    if way == "bidirectional":
        C = [row + row[::-1] for row in C]
        name = "y_bidirectional_C_concat_reversedcols_conj_sym_True"
    values = {"B": pairs(data, "B"), "C": C, "log_step": [[s] for s in data["log_step"]]}
    values |= {key: data[key] for key in ("Lambda_re", "Lambda_im", "D")}
    tree = {f"encoder/seq/{key}": np.array(value) for key, value in values.items()}
    systems = read_s5(tree, discretisation=rule, conj_sym=way != "conj_sym_False")
    u = np.array(data["u"])
    y = systems["core"].simulate(u[None])[0]
    if way == "bidirectional":
        y = y + systems["backward"].simulate(u[None, ::-1])[0, ::-1]
    y = y.reshape(u.shape)
    np.testing.assert_allclose(y, expected[rule][name], rtol=0, atol=tolerance["float32_atol"])


def test_lru_pytorch_gothos_from_its_tensors():
    data, expected, tolerance = parts(CASES["lru_pytorch_gothos"])
    values = {key: np.array(value) for key, value in data["params"].items()}
    tensors = {key: values[key] for key in ("nu_log", "theta_log", "gamma_log", "D")}
    tensors |= {name: values[f"{name}_re"] + 1j * values[f"{name}_im"] for name in "BC"}
    u = np.array(data["u"])
    y = read_lru(tensors)["core"].simulate(u[None]).reshape(len(u), -1)
    np.testing.assert_allclose(y, expected["y"], rtol=0, atol=tolerance["float32_atol"])
