"""``ssmred prune``: what arrives, what is left, what is refused; once without any stand-in."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

from ssmred import prune, tasks
from ssmred.cli import app
from ssmred.cli.prune_example import EXAMPLE
from ssmred.deploy import Spread
from ssmred.networks import save_network
from ssmred.networks.deep import DeepSSM
from ssmred.prune import Family, Member
from ssmred.prune.training import Training

RECIPE = {"inputs": 1, "outputs": 3, "channels": 4, "states": 8, "layers": 2}
TABLE = f"{{ {', '.join(f'{key} = {value}' for key, value in RECIPE.items())} }}"
CONFIG = """
[model]
{model}
[task]
name = "toy"
length = 12
[prune]
rates = [0.5]
seeds = [0, 1]
[training]
epochs = 2
"""


ROUNDING = 1e-4
"""Percent: a score may be computed in single precision."""


def stand_in(model, task, *, folder, **options) -> Family:
    """Prune nothing, and say what was asked for."""

    def member(kept: list[int], name: str) -> Member:
        return Member(
            rate=1.0 - len(kept) / 2,
            kept={"layers.0": kept},
            removed=2 - len(kept),
            operators=2,
            parameters=10,
            bytes=40,
            latency=Spread(1.0, 2.0, 3.0),
            parent_latency=Spread(2.0, 4.0, 6.0),
            error={},
            scores=dict.fromkeys(("val_before", "val_after", "test_before", "test_after"), 50.0)
            | {"candidates": []},
            seconds=0.0,
            weights=name,
        )

    said = {key: value for key, value in options.items() if key != "training"}
    parent, half = member([0, 1], "parent"), member([1], "half")
    held = {"parent": model, "half": model}
    given = {"task": task.name, "length": task.length, **said}
    folder.mkdir(exist_ok=True)
    (folder / "run.json").write_text("{}")
    family = Family(parent, (half,), given, {}, "a machine", folder=folder, held=held)
    return family.save()


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Return the user's folder, with stand-ins for the task and the pruning."""
    torch.manual_seed(0)
    model = DeepSSM(**RECIPE)
    from safetensors.torch import save_file

    save_file(model.state_dict(), tmp_path / "trained.safetensors")
    (tmp_path / "nets_to_prune.py").write_text(
        f"from ssmred.networks.deep import DeepSSM\n\ndef net():\n    return DeepSSM(**{RECIPE})\n"
    )
    save_network(model, tmp_path / "net")
    calls = []

    def progressive(model, task, **options):
        calls.append((model, options))
        return stand_in(model, task, **options)

    monkeypatch.setattr(tasks, "load", lambda name, **o: SimpleNamespace(name=name, **o))
    monkeypatch.setattr(prune, "progressive", progressive)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return SimpleNamespace(folder=tmp_path, model=model, calls=calls)


def config(place, model: str, name: str = "a.toml") -> str:
    (place.folder / name).write_text(CONFIG.format(model=model))
    return name


FACTORY = 'factory = "nets_to_prune:net"\nweights = "trained.safetensors"'


def run(*words: object, code: int = 0):
    result = CliRunner().invoke(app, ["prune", *map(str, words)])
    assert result.exit_code == code, result.output
    return result


@pytest.mark.parametrize(
    "model",
    [
        FACTORY,
        'folder = "net"',
        f"recipe = {TABLE}\nweights = 'trained.safetensors'",
    ],
    ids=["factory", "folder", "recipe"],
)
def test_every_source_arrives_with_every_option(place, model):
    run(config(place, model), "--workers", 3, "--folder", "out")
    ((network, options),) = place.calls
    x = torch.randn(2, 12, 1)
    with torch.no_grad():
        assert torch.equal(network(x), place.model.eval()(x))
    assert not network.training
    assert options == {
        "rates": (0.5,),
        "seeds": (0, 1),
        "training": Training(epochs=2),
        "workers": 3,
        "folder": options["folder"],
        "progress": False,
    }
    assert str(options["folder"]) == "out"


def test_a_zoo_network_arrives(place):
    run(config(place, 'zoo = "fashion-mnist-s4d"'))
    assert isinstance(place.calls[0][0], DeepSSM)
    named = run(config(place, 'zoo = "absent"', "b.toml"), code=2).stderr
    assert "no bundled network is called 'absent'" in named


def test_the_family_its_picture_and_the_file_are_left(place):
    name = config(place, FACTORY)
    text = run(name).stdout
    folder = place.folder / "a-family"
    assert {entry.name for entry in folder.iterdir()} == {
        *("run.json", "family.json", "family.png", "prune.toml", "parent", "half"),
    }
    assert (folder / "prune.toml").read_text() == (place.folder / name).read_text()
    assert "operators removed" in text
    assert "Written to a-family" in text
    assert Family.load(folder).options["length"] == 12
    run(name, "--force", "--quiet")
    facts = json.loads(run(name, "--force", "--json").stdout)
    assert facts["ok"]
    assert facts["family"] == json.loads((folder / "family.json").read_text())


def test_an_earlier_run_is_neither_mixed_nor_lost(place):
    name = config(place, FACTORY)
    run(name)
    mark = place.folder / "a-family" / "state"
    mark.write_text("kept")
    assert "--resume" in run(name, code=2).stderr
    run(name, "--resume")
    assert mark.read_text() == "kept"
    assert "not both" in run(name, "--resume", "--force", code=2).stderr
    # What fails before anything is pruned leaves the earlier run.
    (place.folder / "bad.toml").write_text(CONFIG.format(model="factory = 'nets_to_prune:absent'"))
    run("bad.toml", "--folder", "a-family", "--force", code=2)
    assert mark.read_text() == "kept"
    run(name, "--force")
    assert not mark.exists()
    assert len(place.calls) == 3


def test_resuming_what_is_not_there_starts(place):
    run(config(place, FACTORY), "--resume")
    assert len(place.calls) == 1


def test_other_folders_stay(place):
    name = config(place, FACTORY)
    (place.folder / "thesis").mkdir()
    (place.folder / "thesis" / "a.tex").write_text("years of work")
    for words in ((), ("--resume",), ("--force",)):
        assert "other things" in run(name, "--folder", "thesis", *words, code=2).stderr
    assert (place.folder / "thesis" / "a.tex").read_text() == "years of work"
    assert "is a file" in run(name, "--folder", "nets_to_prune.py", code=2).stderr
    assert place.calls == []


def test_a_stopped_run_says_how_to_go_on(place, monkeypatch):
    def stopped(*_, folder, **__):
        folder.mkdir(exist_ok=True)
        (folder / "run.json").write_text("{}")
        raise KeyboardInterrupt

    monkeypatch.setattr(prune, "progressive", stopped)
    result = run(config(place, FACTORY), code=130)
    assert "go on with: ssmred prune a.toml --folder a-family --resume" in result.stdout
    run("a.toml", "--resume", code=130)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ('factory = "nets_to_prune:absent"', "Expected an importable module"),
        ('folder = "absent"', "holds no readable network.json"),
        ('factory = "nets_to_prune:net"\nweights = "absent"', "there is no file"),
        ('recipe = { inputs = 1 }\nweights = "trained.safetensors"', "DeepSSM refuses it"),
        ('recipe = { inputs = 1, outputs = 3, layer = "a" }\nweights = "b"', "DeepSSM refuses it"),
        (
            'recipe = { inputs = 1, outputs = 3 }\nweights = "trained.safetensors"',
            "does not fit the model",
        ),
    ],
)
def test_models_that_are_none_are_one_line_and_code_2(place, model, said):
    result = run(config(place, model), code=2)
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (place.folder / "a-family").exists()


def test_the_example_is_printed_and_a_file_is_needed(place):
    assert run("--example").stdout == EXAMPLE
    assert "--example prints one" in " ".join(run(code=2).stderr.replace("`", "").split())
    assert "no readable TOML file" in run("absent.toml", code=2).stderr


def test_a_tiny_network_is_pruned_for_real(tmp_path, monkeypatch):
    """No stand-in: from the file to a family whose networks give the scores that it says."""
    monkeypatch.chdir(tmp_path)
    recipe = {"inputs": 16, "outputs": 10, "channels": 4, "states": 4, "layers": 2}
    recipe |= {"encoder": "embedding", "norm": "layer"}
    torch.manual_seed(0)
    save_network(DeepSSM(**recipe), tmp_path / "net")
    sizes = {"training": 64, "held_out": 160, "test": 80}
    (tmp_path / "tiny.toml").write_text(
        "[model]\nfolder = 'net'\n[task]\nname = 'listops'\n"
        + "\n".join(f"{key} = {value}" for key, value in sizes.items())
        + "\n[prune]\nrates = [0.5]\nseeds = [0, 1]\nstep = 'all'\ncalibration = 32\nrepeats = 1\n"
        "[training]\nepochs = 1\nrate = 1e-2\nbatch = 16\n"
    )
    text = run("tiny.toml").stdout
    assert "50 %" in text
    family = Family.load("tiny-family")
    test = tasks.load("listops", **sizes).open_test()
    for member in (family.parent, *family.members):
        network = family.model(member.rate)
        with torch.no_grad():
            right = (network(test.inputs).argmax(-1) == test.labels).double().mean()
        assert float(100.0 * right) == pytest.approx(member.scores["test_after"], abs=ROUNDING)
    (half,) = family.members
    assert (half.removed, half.operators) == (4, 8)
    assert [c["seed"] for c in half.scores["candidates"]] == [0, 1]
    assert half.parameters < family.parent.parameters
    before = (tmp_path / "tiny-family" / "family.json").read_bytes()
    run("tiny.toml", "--resume", "--quiet")
    assert (tmp_path / "tiny-family" / "family.json").read_bytes() == before
    (tmp_path / "tiny.toml").write_text((tmp_path / "tiny.toml").read_text().replace("16", "8"))
    assert "holds another run" in run("tiny.toml", "--resume", code=2).stderr
