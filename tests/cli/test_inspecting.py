"""``ssmred inspect``: what it prints, writes, and refuses with which exit code."""

from __future__ import annotations

import json
import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner

from ssmred.cli import app
from ssmred.networks.deep import DeepSSM
from ssmred.networks.layers import S4


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a function that runs the command in a folder with some checkpoints."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = DeepSSM(1, 3, channels=4, states=8, layers=2)
    save_file(model.state_dict(), "s4d.safetensors")
    tensors = nn.ModuleList([S4(4, 8)]).state_dict()
    torch.save(
        {n: t for n, t in tensors.items() if "kernel.P" not in n and "l_k" not in n}, "s4.pt"
    )

    def invoke(*words: object, code: int = 0):
        result = CliRunner().invoke(app, ["inspect", *map(str, words)])
        assert result.exit_code == code, result.output
        return result

    return invoke


def test_page(run):
    result = run("s4d.safetensors")
    assert result.stdout.startswith("s4d.safetensors: safetensors, ")
    assert "2 state-space layers (2 x s4d): 64 states" in result.stdout
    assert result.stderr == ""
    assert run("s4d.safetensors", "--quiet").stdout == ""


def test_json_to_stdout_and_nothing_else(run):
    facts = json.loads(run("s4d.safetensors", "--json", "-").stdout)
    assert facts["ok"] is True
    assert facts["states"] == 64
    assert [layer["name"] for layer in facts["layers"]] == ["layers.0", "layers.1"]


def test_json_and_picture_to_files(run, tmp_path):
    result = run("s4d.safetensors", "--json", "facts.json", "--plot", "decay.png")
    assert "Written to facts.json" in result.stdout
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert facts["picture"] == "decay.png"
    assert facts["families"] == {"s4d": 2}
    assert (tmp_path / "decay.png").read_bytes().startswith(b"\x89PNG")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"s4d.safetensors", "s4.pt", "facts.json", "decay.png"}


def test_options_settle_what_the_file_leaves_open(run):
    assert "disc: assumed zoh and bilinear" in run("s4.pt").stdout
    settled = run("s4.pt", "--option", "disc=bilinear", "--option", "real_transform=exp").stdout
    assert "disc" not in settled
    assert "imag_transform: assumed none" in settled


def test_zoo_networks(run):
    facts = json.loads(run("zoo:fashion-mnist-s4d", "--json", "-").stdout)
    assert facts["source"] == "zoo:fashion-mnist-s4d"
    assert facts["states"] == 4 * 64 * 64


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["missing.pt"], 2, "there is no file"),
        (["."], 2, "is a folder"),
        (["pickled.pt"], 2, "save_file"),
        (["cut.safetensors"], 2, "truncated"),
        (["nan.safetensors"], 2, "layers.0.D holds nan"),
        (["mamba.pt"], 1, "selective layer"),
        (["other.safetensors"], 2, "no state-space layer that ssmred knows"),
        (["s4d.safetensors", "--norm", "pre"], 2, "S4oP"),
        (["s4d.safetensors", "--norm", "middle"], 2, "middle"),
        (["s4d.safetensors", "--option", "disc"], 2, "expected NAME=VALUE"),
        (["s4d.safetensors", "--option", "disc=zoh"], 2, "disc is unknown"),
        (["s4.pt", "--option", "disc=zoh", "--option", "disc=dss"], 2, "given twice"),
        (["s4.pt", "--option", "disc=euler"], 2, "zoh, bilinear, dss"),
        (["s4d.safetensors", "--plot", "decay.xyz"], 1, "another suffix"),
        (["s4d.safetensors", "--json", "no/such/folder.json"], 2, "folder"),
        (["zoo:nothing"], 2, "no bundled network"),
        ([], 2, "FILE"),
    ],
)
def test_refusals(run, tmp_path, words, code, text):
    (tmp_path / "pickled.pt").write_bytes(pickle.dumps(Bare(), protocol=2))
    data = (tmp_path / "s4d.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(data[:-9])
    tensors = DeepSSM(1, 3, channels=4, states=8, layers=2).state_dict()
    save_file(tensors | {"layers.0.D": torch.full((4,), torch.nan)}, tmp_path / "nan.safetensors")
    names = ("A_log", "x_proj.weight", "dt_proj.weight")
    torch.save({f"0.{name}": torch.zeros(2, 2) for name in names}, tmp_path / "mamba.pt")
    save_file(nn.Linear(2, 2).state_dict(), tmp_path / "other.safetensors")
    result = run(*words, code=code)
    assert text in " ".join(result.stderr.split())


def test_errors_as_json(run):
    failure = json.loads(run("missing.pt", "--json", "-", code=2).stdout)
    assert failure["ok"] is False
    assert failure["error"]["type"] == "CheckpointError"


class Bare:
    """Something that only unpickling would bring back."""
