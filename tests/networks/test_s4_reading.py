"""S4 layers read from named tensors: published numbers, 50 digits, old names, what is refused."""

import json
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch
from foreign_s4 import BlockV4, ModeBank

from ssmred.errors import CheckpointError, RequestError, UnsupportedOperationError
from ssmred.networks.adapters.s4_names import recognises_tensors
from ssmred.networks.adapters.s4_reading import read_s4
from ssmred.networks.adapters.s4_settings import (
    TRANSFORMS,
    UPSTREAM,
    S4Settings,
    inverse_transform,
    transformed,
)
from ssmred.networks.adapters.s4d_reading import read_s4d
from ssmred.networks.adapters.s4d_reading import recognises_tensors as is_s4d

CASES = {
    case["id"]: case
    for case in json.loads(
        (Path(__file__).parents[1] / "reference" / "cases.json").read_text(encoding="utf-8")
    )["cases"]
}
# rounding of a float64 evaluation, relative to the size of the terms
ROUNDING = 1e-13
# solving for the stored coefficients of a short length; relative, measured 2e-14
UNTWISTING = 1e-12


def published(case_id, key="params"):
    data = CASES[case_id]["input"]
    tensors = {f"layer.kernel.{name}": np.array(value) for name, value in data[key].items()}
    return tensors | {"layer.D": np.array(data["D"])}, CASES[case_id]["expected"]


def shapes_of(tensors):
    return {name: tuple(np.shape(value)) for name, value in tensors.items()}


def response(system, length):
    return system.impulse_response(length)[..., 0, 0]


def test_published_diagonal_layer():
    tensors, expected = published("s4_diag_zoh")
    atol = CASES["s4_diag_zoh"]["tolerance"]["float32_atol"]
    assert recognises_tensors(shapes_of(tensors))
    system = read_s4(tensors, UPSTREAM)["core"]
    dA = np.array(expected["dA_re"]) + 1j * np.array(expected["dA_im"])
    dB = np.array(expected["dB_re"]) + 1j * np.array(expected["dB_im"])
    np.testing.assert_allclose(system.poles, dA, rtol=0, atol=atol)
    np.testing.assert_allclose(system.B[..., 0], dB, rtol=0, atol=atol)
    u = np.array(CASES["s4_diag_zoh"]["input"]["u"])[0]
    y = system.simulate(u[..., None])[..., 0]
    np.testing.assert_allclose(y, expected["y"][0], rtol=0, atol=atol)
    np.testing.assert_allclose(y, expected["y_step"][0], rtol=0, atol=atol)


def test_published_low_rank_layer_before_and_after_its_first_call():
    tensors, expected = published("s4_dplr", "params_before_first_forward")
    atol = CASES["s4_dplr"]["tolerance"]["float32_atol"]
    fresh = tensors | {"layer.kernel.l_kernel": np.array(0)}
    called = tensors | {
        "layer.kernel.l_kernel": np.array(expected["l_kernel_after"]),
        "layer.kernel.C": np.array(expected["C_tilde_after_forward"]),
    }
    u = np.array(CASES["s4_dplr"]["input"]["u"])[0]
    for stored in (fresh, called):
        system = read_s4(stored, UPSTREAM)["core"]
        assert system.A.dtype == np.float64
        assert system.order == 4
        y = system.simulate(u[..., None])[..., 0]
        np.testing.assert_allclose(y, expected["y"][0], rtol=0, atol=atol)
    dA = np.array(expected["dA_re"]) + 1j * np.array(expected["dA_im"])
    for power in (1, 2, 3, 4):  # the same poles
        got, wanted = (np.linalg.matrix_power(M, power) for M in (system.A, dA))
        traces = [np.trace(M, axis1=-2, axis2=-1) for M in (got, wanted)]
        np.testing.assert_allclose(*traces, rtol=0, atol=4 * power * atol)
    with pytest.raises(CheckpointError, match="do not tell length"):
        read_s4(tensors, UPSTREAM)
    assert read_s4(tensors, UPSTREAM.replace(length=0))["core"].order == 4


def test_published_minimal_layer():
    case = CASES["s4d_minimal_layer"]
    tensors = case["input"]["params"]
    assert is_s4d(shapes_of(tensors))
    assert not recognises_tensors(shapes_of(tensors))
    system = read_s4d(tensors)["core"]
    kernel = response(system.replace(D=0 * system.D), case["input"]["L"])
    np.testing.assert_allclose(
        kernel, case["expected"]["kernel_float64"], rtol=0, atol=case["tolerance"]["float64_atol"]
    )


# --- 50 digits -----------------------------------------------------------------------------------


def exact_transform(name, x):
    x = mpmath.mpf(float(x))
    return {
        "none": lambda: x,
        "exp": lambda: mpmath.exp(x),
        "softplus": lambda: mpmath.log1p(mpmath.exp(x)),
        "sigmoid": lambda: 1 / (1 + mpmath.exp(-x)),
        "relu": lambda: max(x, mpmath.mpf(0)) + mpmath.mpf("1e-4"),
    }[name]()


def exact_heads(tensors, settings, heads, systems, modes):
    """Yield A, dt, B, C of every head with 50 digits."""
    for h in range(heads):
        s = h % systems
        A, B, C = [], [], []
        for i in range(modes):
            real = exact_transform(settings.real_transform, tensors["A_real"][s, i])
            imag = exact_transform(settings.imag_transform, tensors["A_imag"][s, i])
            A.append(mpmath.mpc(-real, -imag))
            B.append(mpmath.mpc(*tensors["B"][0, s, i]))
            C.append(mpmath.mpc(*tensors["C"][0, h, i]))
        yield A, exact_transform(settings.dt_transform, tensors["inv_dt"][h, 0]), B, C


@pytest.mark.parametrize("disc", ["zoh", "bilinear", "dss"])
@pytest.mark.parametrize(
    "transforms",
    [("exp", "none", "exp"), ("softplus", "exp", "sigmoid"), ("sigmoid", "relu", "relu")],
)
def test_diagonal_layer_against_fifty_digits(disc, transforms):
    real, imag, step = transforms
    bank = ModeBank(
        4, 6, systems=2, disc=disc, real_transform=real, imag_transform=imag, dt_transform=step
    ).float()
    tensors = {n: t.detach().double().numpy() for n, t in bank.state_dict().items()}
    settings = S4Settings(
        disc=disc, real_transform=real, imag_transform=imag, dt_transform=step, length=90
    )
    layer = {f"kernel.{n}": t for n, t in bank.state_dict().items()} | {"D": torch.zeros(1, 4)}
    got = response(read_s4(layer, settings)["core"], 90)
    with mpmath.workdps(50):
        heads = exact_heads(tensors, settings, 4, 2, 3)
        for h, (A, dt, B, C) in enumerate(heads):
            for k in (0, 1, 89):
                total, size = mpmath.mpf(0), mpmath.mpf(0)
                for a, b, c in zip(A, B, C, strict=True):
                    x = a * dt
                    if disc == "bilinear":
                        pole, hold, factor = (1 + x / 2) / (1 - x / 2), dt / (1 - x / 2), 2
                    elif disc == "zoh":
                        pole, hold, factor = mpmath.exp(x), (mpmath.exp(x) - 1) / a, 2
                    else:
                        whole = (mpmath.exp(90 * x) - 1) * a
                        share = mpmath.conj(whole) / (abs(whole) ** 2 + mpmath.mpf("1e-7"))
                        pole, hold, factor = mpmath.exp(x), (mpmath.exp(x) - 1) * share, 1
                    term = factor * b * c * hold * pole**k
                    total, size = total + mpmath.re(term), size + abs(factor * b * c * hold)
                assert abs(got[h, k] - total) <= ROUNDING * size


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("length", [0, 70])
def test_low_rank_layer_against_fifty_digits(rank, length):
    block = BlockV4(2, states=6, mode="dplr", rank=rank).float()
    if length:
        block.layer.kernel.make_for(length)
    stored = dict(block.state_dict())
    got = response(read_s4(stored, UPSTREAM)["core"], 90)
    kernel = {n.removeprefix("layer.kernel."): t for n, t in stored.items()}
    tensors = {n: t.double().numpy() for n, t in kernel.items()}
    D = stored["layer.D"].double().numpy()
    with mpmath.workdps(50):
        for h, (A, dt, B, C) in enumerate(exact_heads(tensors, UPSTREAM, 2, 2, 3)):
            P = [[mpmath.mpc(*tensors["P"][r, h, i]) for i in range(3)] for r in range(rank)]
            full = mpmath.diag(A + [mpmath.conj(a) for a in A])
            for row in P:
                column = mpmath.matrix(row + [mpmath.conj(p) for p in row])
                full = full - column * column.H
            identity = mpmath.eye(6)
            inverse = (identity - full * (dt / 2)) ** -1
            discrete = inverse * (identity + full * (dt / 2))
            state = inverse * mpmath.matrix(B + [mpmath.conj(b) for b in B]) * dt
            row = mpmath.matrix(C + [mpmath.conj(c) for c in C]).T
            if length:  # stored for a length
                row = mpmath.lu_solve((identity - discrete**length).T, row.T).T
            scale = mpmath.norm(row) * mpmath.norm(state)
            for k in range(90):
                exact = mpmath.re((row * state)[0]) + (D[0, h] if k == 0 else 0)
                assert abs(got[h, k] - exact) <= UNTWISTING * (scale + abs(D[0, h]))
                state = discrete * state


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_are_undone(name):
    values = np.array([1e-3, 0.2, 0.9]) if name == "sigmoid" else np.array([1e-3, 0.5, 7.0, 31.0])
    again = transformed(name, inverse_transform(name, values))
    np.testing.assert_allclose(again, values, rtol=1e-12)
    for impossible in {"exp": [0.0, -1.0], "softplus": [0.0], "sigmoid": [0.0, 1.0, 2.0],
                       "relu": [5e-5], "none": []}[name]:  # fmt: skip
        assert np.isnan(inverse_transform(name, np.array(impossible)))


# --- names ---------------------------------------------------------------------------------------


def old_names(stored, generation):
    """Rename the tensors of a current layer, with the signs and shapes of the time."""
    renamed = {}
    low_rank = "layer.kernel.P" in stored
    real = {"v3": "inv_w_real" if low_rank else "inv_A_real", "v2": "log_w_real"}[generation]
    for name, tensor in stored.items():
        last = name.removeprefix("layer.kernel.")
        if last == "A_imag":
            renamed["kernel.kernel." + ("w_imag" if low_rank else "A_imag")] = -tensor
        elif last == "B":
            renamed["kernel.kernel.B"] = tensor if low_rank else tensor[0]
        elif last in ("C", "P"):
            renamed[f"kernel.kernel.{last}"] = tensor
        elif last in ("inv_dt", "A_real", "l_kernel"):
            new = {"inv_dt": "log_dt", "A_real": real, "l_kernel": "L"}[last]
            renamed[f"kernel.kernel.{new}"] = tensor[:, 0] if last == "inv_dt" else tensor
        else:
            renamed[name.replace("layer.", "")] = tensor
    return renamed


@pytest.mark.parametrize(
    ("mode", "generation", "missing"),
    [("diag", "v3", "disc"), ("dplr", "v3", "real_transform"), ("dplr", "v2", None)],
)
def test_old_names_read_as_new_ones(mode, generation, missing):
    block = BlockV4(6, states=8, mode=mode, systems=3, channels=2, bidirectional=True)
    if mode == "dplr":
        block.layer.kernel.make_for(33)
    stored = dict(block.state_dict())
    renamed = old_names(stored, generation)
    assert recognises_tensors(shapes_of(renamed))
    new, old = read_s4(stored, UPSTREAM), read_s4(renamed, UPSTREAM)
    assert set(new) == set(old) == {"core", "backward"}
    for core in new:
        np.testing.assert_array_equal(response(new[core], 50), response(old[core], 50))
    if missing is None:
        read_s4(renamed, S4Settings(swap_channels=False))
    else:
        with pytest.raises(CheckpointError, match=f"do not tell .*{missing}"):
            read_s4(renamed, S4Settings(swap_channels=False))


def test_wrappers_are_stripped_and_extra_copies_of_old_files_ignored():
    block = BlockV4(4)
    stored = {f"module._orig_mod.{n}": t for n, t in block.state_dict().items()}
    assert recognises_tensors(shapes_of(stored))
    system = read_s4(stored, UPSTREAM)["core"]
    renamed = old_names(dict(block.state_dict()), "v3")
    renamed["kernel.kernel.A"] = torch.zeros(4, 4, 2)  # version 3 stores it and never reads it
    np.testing.assert_array_equal(
        response(read_s4(renamed, UPSTREAM)["core"], 9), response(system, 9)
    )


def test_relu_of_the_old_low_rank_kernels_has_no_floor():
    block = BlockV4(2, mode="dplr", real_transform="relu")
    stored = dict(block.state_dict())
    renamed = old_names(stored, "v3")
    renamed["kernel.kernel.inv_w_real"] = stored["layer.kernel.A_real"] + 1e-4
    settings = UPSTREAM.replace(real_transform="relu")
    np.testing.assert_allclose(
        response(read_s4(stored, settings)["core"], 20),
        response(read_s4(renamed, settings)["core"], 20),
        rtol=1e-12,
    )


# --- bad input -----------------------------------------------------------------------------------


def some_layer(**options):
    return dict(BlockV4(4, **options).state_dict())


def test_settings_that_tensors_do_not_tell_are_asked_for():
    with pytest.raises(CheckpointError, match="disc, real_transform, imag_transform, dt_transform"):
        read_s4(some_layer())
    with pytest.raises(CheckpointError, match="do not tell swap_channels"):
        read_s4(some_layer(channels=2), UPSTREAM.replace(swap_channels=None))
    with pytest.raises(CheckpointError, match="do not tell length"):
        read_s4(some_layer(), UPSTREAM.replace(disc="dss"))
    with pytest.raises(CheckpointError, match="do not tell real_transform, imag_transform"):
        read_s4(some_layer(mode="dplr"))
    old = old_names(some_layer(mode="dplr"), "v2")
    with pytest.raises(CheckpointError, match="real_transform contradicts the names"):
        read_s4(old, UPSTREAM.replace(real_transform="softplus"))
    with pytest.raises(RequestError, match="disc is unknown"):
        S4Settings(disc="euler")
    with pytest.raises(RequestError, match="length"):
        S4Settings(length=-1)


@pytest.mark.parametrize("name", ["C", "B", "A_real", "A_imag", "inv_dt", "P"])
def test_missing_misshapen_and_broken_tensors_are_named(name):
    key = f"layer.kernel.{name}"
    if name != "P":
        layer = some_layer(mode="dplr")
        del layer[key]
        with pytest.raises(CheckpointError, match=rf"kernel\.(.* or )?{name}\b.*missing"):
            read_s4(layer, UPSTREAM)
    layer = some_layer(mode="dplr")
    layer[key] = layer[key][..., :1]
    if name != "inv_dt":
        with pytest.raises(CheckpointError, match=r"layer\.kernel\.\w+ has the wrong shape"):
            read_s4(layer, UPSTREAM)
    layer[key] = torch.cat([layer[key], layer[key]])
    with pytest.raises(CheckpointError, match=r"layer\.\w+(\.\w+)? has the wrong shape"):
        read_s4(layer, UPSTREAM.replace(swap_channels=False))
    for value in (float("nan"), float("inf")):
        layer = some_layer(mode="dplr")
        layer[key].view(-1)[0] = value
        with pytest.raises(CheckpointError, match=f"{key} holds nan or inf"):
            read_s4(layer, UPSTREAM)


def test_unknown_tensors_are_named():
    with pytest.raises(CheckpointError, match=r"layer\.kernel\.E is unknown"):
        read_s4(some_layer() | {"layer.kernel.E": torch.zeros(1)}, UPSTREAM)
    with pytest.raises(CheckpointError, match=r"layer\.E is unknown"):
        read_s4(some_layer() | {"layer.E": torch.zeros(1)}, UPSTREAM)
    layer = some_layer()
    del layer["layer.D"]
    with pytest.raises(CheckpointError, match="D is missing"):
        read_s4(layer, UPSTREAM)
    with pytest.raises(CheckpointError, match="no S4 kernel"):
        read_s4({"fc.weight": torch.zeros(2, 2)}, UPSTREAM)


def test_modes_that_do_not_decay_are_refused_by_key():
    layer = some_layer(real_transform="none")
    layer["layer.kernel.A_real"][1, 2] = 0.0
    with pytest.raises(
        CheckpointError, match=r"layer\.kernel\.A_real .*head 1, mode 2.*Re\(A\) < 0"
    ):
        read_s4(layer, UPSTREAM.replace(real_transform="none"))
    layer = some_layer()
    layer["layer.kernel.inv_dt"][3] = 1e4
    with pytest.raises(CheckpointError, match=r"layer\.kernel\.inv_dt is out of range \(head 3"):
        read_s4(layer, UPSTREAM)
    layer = some_layer(mode="dplr")
    layer["layer.kernel.l_kernel"].fill_(-2)
    with pytest.raises(CheckpointError, match="l_kernel is negative"):
        read_s4(layer, UPSTREAM)


def test_selective_layers_are_refused_with_the_reason():
    layer = {
        "mixer.A_log": torch.zeros(4, 2),
        "mixer.x_proj.weight": torch.zeros(4, 4),
        "mixer.dt_proj.weight": torch.zeros(4, 4),
        "mixer.conv1d.weight": torch.zeros(4, 1, 4),
        "mixer.D": torch.zeros(4),
    }
    assert not recognises_tensors(shapes_of(layer))
    for read in (read_s4, read_s4d):
        with pytest.raises(UnsupportedOperationError, match=r"A_log.*selective layer \(Mamba\)"):
            read(layer)


@pytest.mark.parametrize("name", ["C", "log_dt", "log_A_real", "A_imag"])
def test_minimal_layers_name_what_is_wrong(name):
    case = CASES["s4d_minimal_layer"]["input"]["params"]
    good = {key: np.array(value) for key, value in case.items()}
    key = f"kernel.{name}"
    with pytest.raises(CheckpointError, match=f"{key} is missing"):
        read_s4d({n: v for n, v in good.items() if n != key})
    with pytest.raises(CheckpointError, match="has the wrong shape"):
        read_s4d(good | {key: good[key][..., :1] if name != "log_dt" else good[key][:1]})
    with pytest.raises(CheckpointError, match=f"{key} holds nan"):
        read_s4d(good | {key: good[key] * np.nan})
    with pytest.raises(CheckpointError, match="D is missing"):
        read_s4d({n: v for n, v in good.items() if n != "D"})
    with pytest.raises(CheckpointError, match="out of range"):
        read_s4d(good | {"kernel.log_A_real": good["kernel.log_A_real"] + 1e4})
    with pytest.raises(CheckpointError, match=r"kernel\.E is unknown"):
        read_s4d(good | {"kernel.E": np.zeros(1)})
