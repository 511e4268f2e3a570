"""Checkpoints read without their classes: every kind of file, every family, every damage."""

import json
import math
import pickle
import warnings

import numpy as np
import pytest
import torch
from foreign_layers import DiagonalMixer
from foreign_s4 import BlockV4
from published_classes import popgym_s4
from safetensors.torch import save_file
from test_s4op import ACTIVE, DEPTH, MODES, H, full_state, new_form, old_form
from torch import nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from gated_state_spaces_pytorch.gss import DSS, GSS

from ssmred import zoo
from ssmred.errors import CheckpointError, RequestError, UnsupportedOperationError
from ssmred.networks import DenseSSM, ReducedSSM, SharedSSM, import_network, save_network
from ssmred.networks.adapters.dss import read_dss
from ssmred.networks.adapters.s4_reading import read_s4
from ssmred.networks.adapters.s4_settings import UPSTREAM
from ssmred.networks.adapters.s4d_reading import read_s4d
from ssmred.networks.checkpoints import (
    FAMILIES,
    Family,
    as_stored,
    module_layers,
    read_file,
    stored_layers,
)
from ssmred.networks.checkpoints import layers as checkpoint_layers
from ssmred.networks.deep import DeepSSM
from ssmred.pipeline import inspect
from ssmred.systems import DenseSystem, DiagonalSystem

# the same reader on the same tensors; two readers differ by roundings of exp(A dt) - 1
EXACT, ROUNDING = 0.0, 1e-14


def layers_of(tensors, **options):
    return stored_layers(as_stored(tensors), options)


def system_of(layer, core="core", reading=0):
    return layer.readings[reading].filters[core].system


def same(first, second, tolerance=EXACT):
    return all(
        np.allclose(getattr(first, name), getattr(second, name), rtol=tolerance, atol=0)
        for name in ("poles", "B", "C", "D")
    )


def network(**options):
    torch.manual_seed(0)
    return DeepSSM(2, 3, **({"channels": 4, "states": 8, "layers": 2} | options)).eval()


# Files -------------------------------------------------------------------------------------------


def written(kind, tensors, folder):
    """Write tensors as a kind of file and return its path."""
    path = folder / kind.replace(" ", "_")
    if kind == "safetensors":
        save_file(tensors, path)
    elif kind == "npz":
        with path.open("wb") as file:
            np.savez(file, **{name: tensor.numpy() for name, tensor in tensors.items()})
    elif kind == "flat tree npz":
        with path.open("wb") as file:
            np.savez(file, **{n.replace(".", "/"): t.numpy() for n, t in tensors.items()})
    elif kind == "torch":
        torch.save(tensors, path)
    elif kind == "old torch":
        torch.save(tensors, path, _use_new_zipfile_serialization=False)
    elif kind == "training":
        optimiser = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-3}]}
        torch.save({"model_state_dict": tensors, "optimizer": optimiser, "epoch": 3}, path)
    elif kind == "lightning":
        state = {f"model.{name}": tensor for name, tensor in tensors.items()}
        settings = {"lr": 0.1, "model": {"l_max": 784, "prenorm": True, "name": "s4d"}}
        hyper = {"hyper_parameters": settings, "callbacks": {}}
        torch.save({"state_dict": state, "pytorch-lightning_version": "2.4", **hyper}, path)
    elif kind == "wrapped":
        torch.save({f"module._orig_mod.{name}": tensor for name, tensor in tensors.items()}, path)
    elif kind == "nested":
        tree: dict = {}
        for name, tensor in tensors.items():
            place = tree
            *parents, last = name.split(".")
            for part in parents:
                place = place.setdefault(part, {})
            place[last] = tensor
        torch.save({"params": tree}, path)
    return path


KINDS = ["safetensors", "npz", "torch", "old torch", "training", "lightning", "wrapped", "nested"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_gives_the_same_layers(kind, tmp_path):
    model = network(layers=12)
    stored = read_file(written(kind, model.state_dict(), tmp_path))
    assert set(stored.tensors) == set(model.state_dict())
    found = stored_layers(stored)
    assert [layer.name for layer in found] == [f"layers.{i}" for i in range(12)]
    for layer, module in zip(found, model.layers, strict=True):
        assert layer.family == "s4d"
        assert same(system_of(layer), read_s4d(module.state_dict())["core"])
    entries = {"training": "model_state_dict", "lightning": "state_dict", "nested": "params"}
    assert stored.entry == entries.get(kind, "")
    if kind == "lightning":
        told = {"hyper_parameters.model.l_max": 784, "hyper_parameters.model.prenorm": True}
        assert stored.hints == told
    if kind == "training":
        assert set(stored.others) == {"optimizer", "epoch"}


def test_flattened_trees_have_slashes(tmp_path):
    model = network()
    path = written("flat tree npz", model.state_dict(), tmp_path)
    found = stored_layers(read_file(path))
    assert [layer.name for layer in found] == ["layers.0", "layers.1"]


def saved_objects(path):
    with path.open("wb") as file:
        np.savez(file, a=np.array([{}], object))


class NotATensor:
    """Something that only unpickling would bring back."""


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda path: None, "there is no file"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n0000"), "no checkpoint of a known kind"),
        (lambda path: path.write_bytes(pickle.dumps(NotATensor())), "never loaded"),
        (lambda path: path.write_bytes(pickle.dumps({"a": 1.0})[:-1]), "truncated|never loaded"),
        (lambda path: torch.save({"a": NotATensor()}, path), "never loaded.*save_file"),
        (lambda path: torch.save(torch.zeros(3), path), "no named tensors"),
        (lambda path: torch.save({"epoch": 3}, path), "holds no tensors.*epoch"),
        (lambda path: saved_objects(path), "pickled objects"),
        (lambda path: save_file({"a": torch.zeros(3)}, path), "no state-space layer.*s4d.*got a"),
    ],
)  # fmt: skip
def test_refused_files(content, words, tmp_path):
    path = tmp_path / "file"
    content(path)
    with pytest.raises(CheckpointError, match=words):
        stored_layers(read_file(path))


@pytest.mark.parametrize("start", [b"\x80", b"PK"])
def test_safetensors_that_begin_like_something_else(start, tmp_path):
    """The file begins with the length of its header, which may spell anything."""
    tensors, path = network().state_dict(), tmp_path / "weights"
    wanted = int.from_bytes(start, "little")
    save_file(tensors, path, {"note": ""})
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header, rest = data[8 : 8 + length], data[8 + length :]
    target = wanted if wanted >= length else wanted + 256 * (length // 256 + 1)
    path.write_bytes(target.to_bytes(8, "little") + header.ljust(target) + rest)
    assert path.read_bytes().startswith(start)
    assert set(read_file(path).tensors) == set(tensors)


@pytest.mark.parametrize("kind", ["safetensors", "torch", "old torch", "npz"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_truncated_files(kind, share, tmp_path):
    path = written(kind, network().state_dict(), tmp_path)
    cut = tmp_path / f"cut.{kind.split()[-1]}"
    data = path.read_bytes()
    cut.write_bytes(data[: int(share * len(data))])
    with pytest.raises(CheckpointError, match=r"cut\."):
        read_file(cut)


def test_names_that_differ_in_wrappers_only_are_refused():
    with pytest.raises(CheckpointError, match="prefixes of wrappers"):
        as_stored({"a": torch.zeros(1), "module.a": torch.ones(1)})


def test_what_is_no_array_of_numbers_is_refused():
    with pytest.raises(CheckpointError, match="name is no array of numbers"):
        as_stored({"name": np.array(["text"])})


# Families ----------------------------------------------------------------------------------------


def test_minimal_s4d_of_a_foreign_class():
    module = DiagonalMixer(6, 8)
    (layer,) = layers_of(module.state_dict())
    assert (layer.name, layer.family) == ("model", "s4d")
    assert same(system_of(layer), read_s4d(module.state_dict())["core"])
    assert set(layer.tensors) == {
        "D", "kernel.C", "kernel.log_dt", "kernel.log_A_real", "kernel.A_imag",
    }  # fmt: skip
    assert layer.readings[0].filters["core"].states.tolist() == [8] * 6


def test_diagonal_s4_is_read_under_both_discretisations():
    block = BlockV4(6, states=8, mode="diag", disc="bilinear", channels=2, bidirectional=True)
    (layer,) = layers_of({f"net.{n}": t for n, t in block.state_dict().items()})
    assert (layer.name, layer.family) == ("net", "s4")
    assert [reading.assumed["disc"] for reading in layer.readings] == ["zoh", "bilinear"]
    assert all(list(r.filters) == ["core", "backward"] for r in layer.readings)
    exponent = (lambda A, B, C, dt: A * dt)(*block.layer.kernel.pieces()).detach().numpy()
    wanted = {"zoh": np.exp(exponent), "bilinear": (1 + exponent / 2) / (1 - exponent / 2)}
    for reading in layer.readings:
        poles = reading.filters["core"].system.poles
        assert np.allclose(poles[:6], wanted[reading.assumed["disc"]], rtol=1e-14, atol=0)
    told = layers_of(block.state_dict(), disc="bilinear", real_transform="exp")[0]
    assert [reading.assumed for reading in told.readings] == [
        {"imag_transform": "none", "dt_transform": "exp"}
    ]


def test_dss_discretisation_needs_a_length():
    block = BlockV4(6, states=8, mode="diag", disc="dss")
    with pytest.raises(CheckpointError, match="length"):
        layers_of(block.state_dict(), disc="dss")
    (layer,) = layers_of(block.state_dict(), disc="dss", length="60")
    wanted = read_s4(block.state_dict(), UPSTREAM.replace(disc="dss", length=60))["core"]
    assert same(system_of(layer), wanted)


@pytest.mark.parametrize("made_for", [0, 48])
def test_low_rank_s4_tells_its_length(made_for):
    block = BlockV4(6, states=8, mode="dplr", rank=2)
    if made_for:
        block.layer.kernel.make_for(made_for)
    (layer,) = layers_of(block.state_dict())
    assert layer.facts["matrix"] == "diagonal plus rank 2"
    horizon = layer.facts["horizon (l_kernel)"]
    assert horizon == made_for if made_for else "never made" in horizon
    assert system_of(layer).A.shape == (6, 8, 8)
    tensors = dict(block.state_dict())
    del tensors["layer.kernel.l_kernel"]
    (without,) = layers_of(tensors)
    assert without.readings[0].assumed["length"] == 0
    assert "horizon (l_kernel)" not in without.facts


@pytest.mark.parametrize("mode", ["diag", "nplr"])
def test_generations_of_a_published_class(mode):
    measure = "diag-lin" if mode == "diag" else "legs"
    model = nn.Sequential(
        nn.Linear(2, 6), popgym_s4().S4(6, d_state=12, mode=mode, measure=measure)
    )
    (layer,) = layers_of(model.state_dict())
    assert layer.name == "1"
    assert layer.facts["generation"].startswith("state-spaces/s4, version 3")
    assert "imag_transform" not in layer.readings[0].assumed  # the old names say it


def test_published_dss_layers_alone_and_inside_gated_ones():
    torch.manual_seed(0)
    for module, name in ((DSS(dim=6, kernel_N=8), "model"), (GSS(dim=6, dim_expansion_factor=2,
                          dss_kernel_N=8, dss_kernel_H=5), "dss")):  # fmt: skip
        (layer,) = layers_of(module.state_dict())
        assert (layer.name, layer.family) == (name, "dss")
        assert [r.assumed for r in layer.readings] == [{"imag_exp": True}, {"imag_exp": False}]
        for index, imag_exp in enumerate((True, False)):
            wanted = read_dss(module.state_dict(), imag_exp=imag_exp)["core"]
            assert same(system_of(layer, reading=index), wanted)
        (told,) = layers_of(module.state_dict(), imag_exp="yes")
        assert len(told.readings) == 1


@pytest.mark.parametrize("family", ["s4d", "s4"])
@pytest.mark.parametrize("form", [new_form, old_form])
def test_bypassed_channels_of_s4op_have_no_states(family, form, tmp_path):
    torch.save(form(full_state(family), family), tmp_path / "pruned.pt")
    stored = read_file(tmp_path / "pruned.pt")
    assert stored.others == ()
    found = stored_layers(stored)
    assert [layer.name for layer in found] == [f"{family}_layers.{i}" for i in range(DEPTH)]
    for layer, active in zip(found, ACTIVE, strict=True):
        states = layer.readings[0].filters["core"].states
        assert np.flatnonzero(states).tolist() == sorted(active)
        assert set(states[active]) <= {2 * MODES}
        assert layer.facts["bypassed channels"] == H - len(active)
        assert "norm" in layer.silent


def test_the_norm_of_s4op_is_asked_for(tmp_path):
    state = full_state("s4d", norm="BN")
    found = stored_layers(as_stored(state), {"norm": "pre"})
    assert found[0].facts["norms"] == "BatchNorm1d, pre-norm"
    assert "norm" not in found[0].silent
    with pytest.raises(RequestError, match="pre, post"):
        stored_layers(as_stored(state), {"norm": "middle"})
    with pytest.raises(RequestError, match="not"):
        stored_layers(as_stored(network().state_dict()), {"norm": "pre"})
    with pytest.raises(RequestError, match="the file tells it by P"):
        stored_layers(as_stored(full_state("s4")), {"disc": "zoh"})
    del state["fc.bias"]
    with pytest.raises(CheckpointError, match="fc"):  # found when the network is built
        stored_layers(as_stored(state), {"norm": "pre"})


def cores():
    rng = np.random.default_rng(0)

    def draw(*shape):
        return 0.6 * (rng.uniform(-1, 1, shape) + 1j * rng.uniform(-1, 1, shape))

    return {
        "ReducedSSM": ReducedSSM([2, 0, 1], draw(3), draw(3), rng.standard_normal(3)),
        "SharedSSM": SharedSSM(draw(4), draw(4, 3), draw(2, 4), rng.standard_normal((2, 3))),
        "DenseSSM": DenseSSM(
            [[[0.5, 0.1], [0.0, 0.2]], [[0.3, 0.0], [0.0, 0.0]]],
            [[1.0, 2.0], [1.0, 0.0]], [[1.0, 1.0], [2.0, 0.0]], orders=[2, 1],
        ),
    }  # fmt: skip


@pytest.mark.parametrize("kind", list(cores()))
def test_filters_of_ssmred_itself(kind):
    core = cores()[kind]
    (layer,) = layers_of({f"layers.0.core.{n}": t for n, t in core.state_dict().items()})
    assert (layer.name, layer.family) == ("layers.0", f"ssmred {kind}")
    assert [r.assumed for r in layer.readings] == (
        [{}] if kind == "ReducedSSM" else [{"delayed": False}, {"delayed": True}]
    )
    found = layer.readings[0].filters["core"]
    assert np.array_equal(found.system.impulse_response(9), core.to_system().impulse_response(9))
    wanted = {"ReducedSSM": [4, 0, 2], "SharedSSM": [8], "DenseSSM": [2, 1]}
    assert found.states.tolist() == wanted[kind]


def test_stored_networks_before_and_after_reduction(tmp_path):
    model = network()
    save_network(model, tmp_path / "full")
    save_network(import_network(model).model, tmp_path / "imported")
    full = stored_layers(read_file(tmp_path / "full"))
    imported = stored_layers(read_file(tmp_path / "imported"))
    assert [layer.family for layer in full] == ["s4d"] * 2
    assert [layer.family for layer in imported] == ["ssmred ReducedSSM"] * 2
    for one, other in zip(full, imported, strict=True):
        assert one.name == other.name
        assert np.array_equal(system_of(one).poles, system_of(other).poles)


def test_the_declaration_says_whether_a_filter_is_delayed(tmp_path):
    class Delayed(nn.Module):
        def __init__(self):
            super().__init__()
            shared = cores()["SharedSSM"]
            system = shared.to_system().replace(recurrence="standard")
            self.core = SharedSSM.from_system(system)
            self.out = nn.Linear(2, 1)

        def forward(self, x):
            return self.out(self.core(x.transpose(-1, -2)).mean(-1))

    save_network(Delayed(), tmp_path / "late")
    (layer,) = stored_layers(read_file(tmp_path / "late"))
    assert [reading.assumed for reading in layer.readings] == [{}]
    assert system_of(layer).recurrence == "standard"


def test_a_changed_folder_is_refused(tmp_path):
    save_network(network(), tmp_path)
    record = json.loads((tmp_path / "network.json").read_text())
    (tmp_path / "network.json").write_text(json.dumps(record | {"weights_file_sha256": "0"}))
    with pytest.raises(CheckpointError, match="is not the file"):
        read_file(tmp_path)


def test_several_families_in_one_file():
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {
            "first": DiagonalMixer(4, 8),
            "second": BlockV4(4, states=6, mode="dplr"),
            "third": DSS(dim=4, kernel_N=4),
            "fourth": cores()["ReducedSSM"],
            "head": nn.Linear(4, 2),
        }
    )
    found = layers_of(model.state_dict(), imag_exp="true")
    assert {layer.name: layer.family for layer in found} == {
        "first": "s4d", "fourth": "ssmred ReducedSSM", "second": "s4", "third": "dss",
    }  # fmt: skip
    owned = [name for layer in found for name in layer.tensors]
    assert len(set(owned)) == len(owned)
    rest = set(model.state_dict()) - set(owned)
    assert rest == {
        "first.output_linear.0.weight", "first.output_linear.0.bias", "head.weight", "head.bias",
        "second.output_linear.0.weight", "second.output_linear.0.bias", "third.norm.weight",
        "third.norm.bias",
    }  # fmt: skip


def test_zoo_files():
    for name in zoo.names():
        model, _ = zoo.load(name)
        family = zoo.record(name)["recipe"]["layer"]
        options = (
            {"clip_eigs": "true"} if family == "s5" else {}
        )  # ours clip, the original need not
        found = layers_of(model.state_dict(), **options)
        live = module_layers(model)
        assert [layer.name for layer in live] == [layer.name for layer in found]
        for one, other in zip(found, live, strict=True):
            assert one.family == other.family
            assert one.tensors == other.tensors
            assert equivalent(system_of(one), system_of(other))


def equivalent(first, second):
    """Tell whether two systems have the same poles and matrices, dense ones the same response."""
    if not isinstance(first, DenseSystem):
        return same(first, second, ROUNDING)
    one, two = (system.impulse_response(100) for system in (first, second))
    return np.abs(one - two).max() <= 10 * ROUNDING * np.abs(one).max()


def test_a_family_is_one_line_in_the_table(monkeypatch):
    """Three entries, the third what makes systems of tensors; all else has defaults."""
    model = network(layer="lru")

    def read(tensors):
        own = {name.rpartition(".")[2]: t.double().numpy() for name, t in tensors.items()}
        poles = np.exp(-np.exp(own["nu_log"]) + 1j * np.exp(own["theta_log"]))
        B = np.exp(own["gamma_log"])[:, None] * (own["B_re"] + 1j * own["B_im"])
        C, D = own["C_re"] + 1j * own["C_im"], np.diag(own["D"])
        arrays = (array[None] for array in (poles, B, C, D))
        return {"core": DiagonalSystem(*arrays, recurrence="post-update", real_output=True)}

    line = Family("lru", lambda shapes: any(n.endswith("nu_log") for n in shapes), read)
    monkeypatch.setattr(checkpoint_layers, "FAMILIES", (*FAMILIES, line))
    found = layers_of(model.state_dict())
    assert [(layer.name, layer.family) for layer in found] == [
        ("layers.0", "lru"), ("layers.1", "lru"),
    ]  # fmt: skip
    for layer, module in zip(found, model.layers, strict=True):
        assert same(system_of(layer), module.to_system(), ROUNDING)
        assert layer.readings[0].filters["core"].states.tolist() == [8]
        assert set(layer.tensors) == {f"{layer.name}.{n}" for n in module.state_dict()}


def test_short_floats_and_integers():
    tensors = {name: t.bfloat16() if t.is_floating_point() else t
               for name, t in network().state_dict().items()}  # fmt: skip
    tensors["decoder.scale"] = torch.ones(3).to(torch.float8_e4m3fn)
    found = inspect(tensors)
    assert found.layers[0].dtypes == {"bfloat16": found.layers[0].numbers}
    assert found.dtypes["float8_e4m3fn"] == 3
    tensors["decoder.scale"] = torch.full((3,), math.nan).to(torch.float8_e4m3fn)
    with pytest.raises(CheckpointError, match="scale holds nan"):
        inspect(tensors)


@pytest.mark.parametrize("family", ["s4d", "s4"])
@pytest.mark.parametrize("form", [new_form, old_form])
def test_inspections_of_s4op(family, form):
    found = inspect(form(full_state(family), family), norm="post")
    assert found.families == {family: DEPTH}
    for layer, active in zip(found.layers, ACTIVE, strict=True):
        (one,) = layer.filters
        assert (one.inputs, one.states) == (H, 2 * MODES * len(active))
        assert (one.answers.margin is None) == (not active)
        assert 0 <= one.answers.spare[1e-6] <= one.answers.spare[1e-3] <= one.states
    assert "post-norm" in str(found)
    assert "norms.0.weight" in found.rest


def test_live_layers_of_ssmred_and_of_others():
    model = network(layer="s5")
    found = module_layers(model)
    assert [layer.name for layer in found] == ["layers.0", "layers.1"]
    assert all(layer.family == "s5" for layer in found)
    with pytest.raises(UnsupportedOperationError, match="no state-space layer"):
        module_layers(nn.Linear(2, 2))
