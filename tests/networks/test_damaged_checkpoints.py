"""Layers with tensors missing, misshapen or not finite, selective ones, options that do not fit."""

import math

import pytest
import torch
from foreign_s4 import BlockV4
from published_classes import popgym_s4
from test_checkpoints import cores, layers_of, network

from ssmred.errors import CheckpointError, RequestError, UnsupportedOperationError


def damaged(key, change):
    tensors = dict(network().state_dict())
    if change == "missing":
        del tensors[key]
    elif change == "misshapen":
        tensors[key] = torch.cat([tensors[key], tensors[key]])
    else:
        tensors[key] = tensors[key].clone()
        tensors[key].view(-1)[1] = {"nan": math.nan, "inf": math.inf}[change]
    return tensors


@pytest.mark.parametrize("change", ["missing", "misshapen", "nan", "inf"])
@pytest.mark.parametrize("name", ["D", "kernel.C", "kernel.log_dt", "kernel.log_A_real",
                                  "kernel.A_imag"])  # fmt: skip
def test_damage_names_the_key(name, change):
    key = f"layers.1.{name}"
    # of C and what shares its sizes, the one that is checked later is named
    named = "layers.1" if change == "misshapen" else key
    with pytest.raises(CheckpointError, match=named.replace(".", r"\.")):
        layers_of(damaged(key, change))


@pytest.mark.parametrize("name", ["layer.D", "layer.kernel.C", "layer.kernel.B", "layer.kernel.P",
                                  "layer.kernel.inv_dt", "layer.kernel.A_real",
                                  "layer.kernel.A_imag"])  # fmt: skip
def test_missing_tensors_of_s4(name):
    tensors = dict(BlockV4(4, states=6, mode="dplr").state_dict())
    del tensors[name]
    words = name.rpartition(".")[2] if name != "layer.kernel.P" else "is unknown|l_kernel|P"
    if name == "layer.kernel.P":  # what is left is a diagonal layer with a length
        assert layers_of(tensors)[0].facts["matrix"] == "diagonal"
        return
    with pytest.raises(CheckpointError, match=words):
        layers_of(tensors)


def test_missing_tensors_of_a_stored_filter():
    tensors = dict(cores()["ReducedSSM"].state_dict())
    del tensors["offsets"]
    with pytest.raises(CheckpointError, match=r"core\.offsets is missing"):
        layers_of({f"core.{name}": tensor for name, tensor in tensors.items()})
    tensors = dict(cores()["SharedSSM"].state_dict())
    tensors["C"] = tensors["C"][:, :2]
    with pytest.raises(CheckpointError, match=r"core.*C does not fit"):
        layers_of({f"core.{name}": tensor for name, tensor in tensors.items()})


@pytest.mark.parametrize("change", ["missing", "misshapen", "nan", "inf"])
@pytest.mark.parametrize(
    ("layer", "name"),
    [("s5", name) for name in ("Lambda_re", "Lambda_im", "B", "C", "D", "log_step")]
    + [("lru", name) for name in ("nu_log", "theta_log", "B_re", "C_im", "D")],
)
def test_damaged_shared_states_name_the_key(layer, name, change):
    tensors = dict(network(layer=layer).state_dict())
    key = f"layers.1.{name}"
    if change == "missing":
        del tensors[key]
    elif change == "misshapen":
        tensors[key] = torch.cat([tensors[key], tensors[key]])
    else:
        tensors[key] = tensors[key].clone()
        tensors[key].view(-1)[1] = {"nan": math.nan, "inf": math.inf}[change]
    named = "layers.1" if change == "misshapen" else key
    with pytest.raises(CheckpointError, match=named.replace(".", r"\.")):
        layers_of(tensors)


def test_selective_layers_are_refused_with_the_reason():
    names = ["A_log", "x_proj.weight", "dt_proj.weight", "conv1d.weight", "D"]
    tensors = {f"layers.0.mixer.{name}": torch.zeros(4, 4) for name in names}
    with pytest.raises(UnsupportedOperationError, match="selective layer"):
        layers_of(tensors | dict(network().state_dict()))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"disc": "euler"}, "disc is unknown"),
        ({"length": "many"}, "no whole number"),
        ({"bandlimit": "wide"}, "no number"),
        ({"swap_channels": "maybe"}, "no yes or no"),
        ({"imag_exp": "yes"}, "imag_exp is unknown to the layers found"),
    ],
)
def test_options_that_do_not_fit(options, words):
    block = BlockV4(4, states=6, mode="diag", channels=2)
    with pytest.raises(RequestError, match=words):
        layers_of(block.state_dict(), **options)


@pytest.mark.parametrize("option", [{"disc": "zoh"}, {"length": 30}])
def test_options_that_the_file_itself_answers(option):
    tensors = BlockV4(4, states=6, mode="dplr").state_dict()
    with pytest.raises(RequestError, match="the file tells it"):
        layers_of(tensors, **option)
    mixed = {f"b.{n}": t for n, t in BlockV4(4, states=6, mode="diag").state_dict().items()}
    if "disc" in option:  # of use for the other layer
        both = {f"a.{n}": t for n, t in tensors.items()} | mixed
        assert len(layers_of(both, **option)) == 2


def test_an_option_that_contradicts_the_names():
    layer = popgym_s4().S4(6, d_state=12, mode="diag", measure="diag-lin")
    with pytest.raises(CheckpointError, match="contradicts the names"):
        layers_of(layer.state_dict(), imag_transform="exp")
