"""What the command line reads: models, weights, data files, input sets, folders."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ssmred.cli.console import BadInputError
from ssmred.cli.sources import (
    check_new_folder,
    check_result_folder,
    input_set,
    load_data,
    load_model,
)
from ssmred.errors import CheckpointError, DataError

FACTORIES = """
from torch import nn

class Holder:
    @staticmethod
    def build():
        return nn.Linear(2, 1)

def linear():
    return nn.Linear(2, 1)

def number():
    return 3

def broken():
    raise RuntimeError("no such file:\\n  weights.pt")

def needs_argument(width):
    return nn.Linear(width, 1)
"""


@pytest.fixture
def factories(tmp_path, monkeypatch) -> str:
    (tmp_path / "factory_module.py").write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield "factory_module"
    sys.modules.pop("factory_module", None)


def test_a_factory_in_the_current_folder_is_found_and_put_in_eval_mode(factories):
    source = load_model(f"{factories}:linear")
    assert isinstance(source.model, nn.Linear)
    assert not source.model.training
    assert source.name == "factory_module:linear"
    assert source.zoo is None
    assert isinstance(load_model(f"{factories}:Holder.build").model, nn.Linear)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("plain", "neither zoo:NAME nor package.module:function"),
        (":f", "neither zoo:NAME nor package.module:function"),
        ("no_such_module_here:f", "ModuleNotFoundError"),
        ("factory_module:absent", "AttributeError"),
        ("factory_module:number", "returned int; expected a torch.nn.Module"),
        ("factory_module:broken", "RuntimeError: no such file"),
        ("factory_module:needs_argument", "takes no arguments"),
        ("zoo:absent", "no bundled network is called 'absent'; there are: "),
    ],
)
def test_a_model_that_cannot_be_made_is_refused(factories, name, text):
    with pytest.raises(BadInputError, match=text):
        load_model(name)


def test_weights_are_read_from_safetensors(factories, tmp_path):
    weights = {"weight": torch.tensor([[1.0, 2.0]]), "bias": torch.tensor([3.0])}
    save_file(weights, tmp_path / "w.safetensors")
    model = load_model(f"{factories}:linear", tmp_path / "w.safetensors").model
    assert all(torch.equal(model.state_dict()[key], weights[key]) for key in weights)


def test_weights_that_do_not_fit_are_named(factories, tmp_path):
    path = tmp_path / "w.safetensors"
    save_file({"weight": torch.zeros(2, 2), "other": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError) as caught:
        load_model(f"{factories}:linear", path)
    text = str(caught.value)
    assert "missing: bias" in text
    assert "not in the model: other" in text
    assert "weight (2, 2) for (1, 2)" in text


def test_weights_of_another_format_or_nowhere_are_refused(factories, tmp_path):
    torch.save(nn.Linear(2, 1).state_dict(), tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        load_model(f"{factories}:linear", tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="there is no file"):
        load_model(f"{factories}:linear", tmp_path / "absent.safetensors")


def test_zoo_networks_bring_their_weights(tmp_path):
    with pytest.raises(BadInputError, match="brings its own weights"):
        load_model("zoo:fashion-mnist-s4d", tmp_path / "w.safetensors")


MODEL = nn.Linear(2, 1)


@pytest.mark.parametrize("kind", ["npy", "npz", "npz-named", "safetensors", "safetensors-named"])
def test_data_of_every_format(tmp_path, kind):
    values = np.arange(12.0).reshape(2, 3, 2)
    suffix = kind.split("-", maxsplit=1)[0]
    path = tmp_path / f"data.{suffix}"
    named = {"inputs": values, "labels": np.zeros(2)} if "named" in kind else {"anything": values}
    if suffix == "npy":
        np.save(path, values)
    elif suffix == "npz":
        np.savez(path, **named)
    else:
        save_file({key: torch.from_numpy(value) for key, value in named.items()}, path)
    tensor = load_data(path, MODEL)
    assert tensor.dtype == torch.float32
    np.testing.assert_array_equal(tensor.numpy(), values)


@pytest.mark.parametrize(
    "values",
    [
        np.array([[1, 2]], dtype=np.uint16),
        np.array([[1, 2]], dtype=np.int32),
        np.array([[1, 2]], dtype=">i8"),
    ],
)
def test_tokens_of_any_integer_type_become_int64(tmp_path, values):
    np.save(tmp_path / "t.npy", values)
    tensor = load_data(tmp_path / "t.npy", MODEL)
    assert tensor.dtype == torch.int64
    assert tensor.tolist() == [[1, 2]]


@pytest.mark.parametrize("dtype", [np.float16, np.longdouble, ">f4"])
def test_floats_of_any_width_become_the_models(tmp_path, dtype):
    np.save(tmp_path / "f.npy", np.array([[[0.5]]], dtype=dtype))
    assert load_data(tmp_path / "f.npy", MODEL.double()).dtype == torch.float64
    assert load_data(tmp_path / "f.npy", MODEL.float()).dtype == torch.float32


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (np.array([True]), "real numbers or integer tokens"),
        (np.array([1j]), "real numbers or integer tokens"),
        (np.array(["a"]), "expected numbers"),
        (np.array([{"a": 1}], dtype=object), "never unpickled"),
    ],
)
def test_data_that_are_not_real_numbers_are_refused(tmp_path, values, text):
    np.save(tmp_path / "x.npy", values, allow_pickle=True)
    with pytest.raises(DataError, match=text):
        load_data(tmp_path / "x.npy", MODEL)


def test_data_files_that_cannot_be_used_are_refused(tmp_path):
    with pytest.raises(DataError, match="there is no file"):
        load_data(tmp_path / "absent.npy", MODEL)
    (tmp_path / "x.csv").write_text("1,2\n")
    with pytest.raises(DataError, match=r"expected a \.npy, \.npz or \.safetensors file"):
        load_data(tmp_path / "x.csv", MODEL)
    np.savez(tmp_path / "two.npz", first=np.zeros(1), second=np.zeros(1))
    with pytest.raises(DataError, match=r"2 arrays \(first, second\)"):
        load_data(tmp_path / "two.npz", MODEL)
    for name in ("torn.npy", "torn.npz", "torn.safetensors"):
        (tmp_path / name).write_bytes(b"\x93NUM")
        with pytest.raises(DataError, match="not a readable"):
            load_data(tmp_path / name, MODEL)


def test_new_folders(tmp_path):
    check_new_folder(tmp_path / "new", force=False)
    check_new_folder(tmp_path, force=False)
    (tmp_path / "a").write_text("")
    with pytest.raises(BadInputError, match="is a file"):
        check_new_folder(tmp_path / "a", force=True)
    for force in (False, True):
        with pytest.raises(BadInputError, match="holds other things"):
            check_new_folder(tmp_path, force=force)
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(BadInputError, match="--force"):
        check_new_folder(tmp_path, force=False)
    check_new_folder(tmp_path, force=True)


def test_folders_of_results(tmp_path):
    with pytest.raises(BadInputError, match=r"lacks result\.json and certificate\.json"):
        check_result_folder(tmp_path)
    with pytest.raises(BadInputError, match="there is no folder"):
        check_result_folder(tmp_path / "absent")
    for name in ("result.json", "certificate.json"):
        (tmp_path / name).write_text("{}")
    check_result_folder(tmp_path)


def test_input_sets():
    assert input_set(None, None) is None
    assert input_set(None, "data") == "data"
    for box, text in (((-1.0, 1.0), "tokens"),):
        with pytest.raises(BadInputError, match="not both"):
            input_set(box, text)
    for text in ("ball", "ball:", "ball:x", "cube:1", ""):
        with pytest.raises(BadInputError, match="expected"):
            input_set(None, text)


def test_input_sets_are_the_certificates_own():
    from ssmred.certify import InputSet

    assert input_set((-1.0, 2.0), None).to_json() == InputSet.box(-1.0, 2.0).to_json()
    assert input_set(None, "ball:2.5").to_json() == InputSet.ball(2.5).to_json()
    assert input_set(None, "tokens").to_json() == InputSet.tokens().to_json()
