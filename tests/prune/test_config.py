"""Configuration files: what arrives, and that no typing error passes for a default."""

from __future__ import annotations

import inspect
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from ssmred.cli.prune_example import EXAMPLE
from ssmred.errors import RequestError
from ssmred.prune.config import ModelSource, read_config
from ssmred.prune.options import S4OP, Options
from ssmred.prune.progressive import progressive
from ssmred.prune.recipe import Training

WHOLE = """
[model]
recipe = { inputs = 1, outputs = 3, layer = "s4d", layer_options = { length = 8 } }
weights = "nets/trained.safetensors"

[task]
name = "listops"
depth = 3
lengths = [8, 16]

[prune]
rates = [0.25, 0.5]
selection = "gradient"
replacement = "low_order"
order = 2
allocation = "latency"
repair = false
silence = 0
step = "all"
seeds = [0, 3]
repeats = 5
threads = 2
calibration = 64
seed = 7

[training]
epochs = 2
rate = 1
patience = 4
samples = 100
precision = "bf16-mixed"
"""


@pytest.fixture
def read(tmp_path):
    """Return a function that reads a text as a configuration."""

    def write_and_read(text: str):
        (tmp_path / "a.toml").write_text(text)
        return read_config(tmp_path / "a.toml")

    return write_and_read


def test_every_key_arrives(read, tmp_path):
    config = read(WHOLE)
    recipe = {"inputs": 1, "outputs": 3, "layer": "s4d", "layer_options": {"length": 8}}
    weights = tmp_path / "nets/trained.safetensors"
    assert config.model == ModelSource(recipe=recipe, weights=weights)
    assert (config.task.name, config.task.options) == ("listops", {"depth": 3, "lengths": [8, 16]})
    assert config.options == {
        "rates": (0.25, 0.5),
        "selection": "gradient",
        "replacement": "low_order",
        "order": 2,
        "allocation": "latency",
        "repair": False,
        "silence": 0.0,
        "step": None,
        "seeds": (0, 3),
        "repeats": 5,
        "threads": 2,
        "calibration": 64,
        "seed": 7,
    }
    assert config.training == Training(
        epochs=2, rate=1.0, patience=4, samples=100, precision="bf16-mixed"
    )
    assert config.text == WHOLE


MINIMAL = '[model]\nzoo = "fashion-mnist-s4d"\n[task]\nname = "fashion-mnist"\n'


def test_what_is_left_out_is_left_to_progressive(read):
    config = read(MINIMAL)
    assert config.options == {}
    assert config.training == Training()
    targets = read(MINIMAL + "[prune]\ntargets = { latency = [0.8, 0.5] }\n").options
    assert targets == {"targets": {"latency": (0.8, 0.5)}}


def test_files_are_looked_for_from_the_file(read, tmp_path):
    absolute = read('[model]\nfolder = "/net"\n[task]\nname = "a"\n').model.folder
    assert absolute == Path("/net")
    assert read('[model]\nfolder = "net"\n[task]\nname = "a"\n').model.folder == tmp_path / "net"


def test_the_example_names_every_key_with_its_default(read):
    """Each commented key, uncommented alone, is a key with the default that the comment says."""
    config = read(EXAMPLE)
    assert config.model == ModelSource(zoo="listops-s4d")
    assert config.task.name == "listops"
    assert config.training == Training(epochs=1, rate=1e-3, batch=64, samples=512)
    defaults = Training()
    training = EXAMPLE.split("[training]")[1]
    for line in training.splitlines():
        key, sign, rest = line.removeprefix("# ").partition(" = ")
        if line.startswith("# ") and sign:
            assert getattr(defaults, key) == tomllib.loads(f"a = {rest}")["a"], key
    mentioned = {line.removeprefix("# ").partition(" = ")[0] for line in EXAMPLE.splitlines()}
    for section in ("model", "prune", "training"):
        with pytest.raises(RequestError, match="has no key 'x'") as caught:
            read(with_key(section, "x = 1"))
        known = set(str(caught.value).split("one of ")[1].rstrip(".").split(", "))
        assert known - mentioned <= {"devices", "strategy", "precision"}, section


def test_every_option_of_a_run_is_a_key(read):
    run_only = {"training"}
    given = set(read(WHOLE).options) | {"targets"}
    assert given == {entry.name for entry in fields(Options)} - run_only
    keywords = set(inspect.signature(progressive).parameters)
    assert given <= keywords
    assert keywords - given == {"model", "task", "training", "workers", "folder", "progress"}


def test_the_page_writes_the_published_method_as_a_file(read):
    page = (Path(__file__).resolve().parents[2] / "docs" / "prune.md").read_text(encoding="utf-8")
    section = page.split("```toml\n")[1].split("```")[0]
    assert read(MINIMAL + section).options == S4OP


def with_key(section: str, line: str) -> str:
    text = MINIMAL if f"[{section}]" in MINIMAL else f"{MINIMAL}[{section}]\n"
    return text.replace(f"[{section}]", f"[{section}]\n{line}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[task]\nname = 'a'\n", r"there is no section \[model\]"),
        ("[model]\nzoo = 'a'\n", r"there is no section \[task\]"),
        ("[model]\nzoo = 'a'\n[task]\n", r"\[task\] has no name"),
        (MINIMAL + "[trainig]\n", "no section 'trainig'.*Did you mean 'training'"),
        ("model = 'a'\n[task]\nname = 'a'\n", "model is a value, not a section"),
        ("[model\n", r"no readable TOML file \(.*line 1"),
        (MINIMAL + MINIMAL, "no readable TOML file"),
        (
            with_key("model", "path = 'x'"),
            r"\[model\] has no key 'path'; expected one of zoo",
        ),
        (with_key("model", "folder = 'x'"), "exactly one of .* got zoo, folder|folder, zoo"),
        (with_key("model", "weights = 'x'"), "brings its own weights"),
        ("[model]\n[task]\nname = 'a'\n", "exactly one of .* got none"),
        ("[model]\nrecipe = {}\n[task]\nname = 'a'\n", "a recipe needs weights"),
        ("[model]\nzoo = 3\n[task]\nname = 'a'\n", r"\[model\] zoo .* a text, got 3"),
        ("[model]\nzoo = 'a'\n[task]\nname = 3\n", r"\[task\] name .* a text, got 3"),
        (with_key("prune", "rate = [0.1]"), r"no key 'rate'.*Did you mean 'rates'"),
        (with_key("prune", "rates = 0.1"), "rates .* a list of numbers, got 0.1"),
        (with_key("prune", "rates = [0.1, '1']"), "rates .* a list of numbers"),
        (with_key("prune", "rates = [true]"), "rates .* a list of numbers"),
        (with_key("prune", "rates = [0.5, 0.1]"), r"a.toml: \[prune\] .* rates cannot be used"),
        (with_key("prune", "seeds = [0.5]"), "seeds .* a list of whole numbers"),
        (with_key("prune", "repeats = true"), "repeats .* a whole number, got True"),
        (
            with_key("prune", "selection = 'best'"),
            "selection .* one of .random.* got 'best'",
        ),
        (with_key("prune", "targets = [0.5]"), r"targets .* a table of lists"),
        (with_key("prune", "targets = { bytes = 0.5 }"), r"targets .* a table of lists"),
        (with_key("prune", "rates = [0.5]\ntargets = { bytes = [0.5] }"), "both rates and targets"),
        (with_key("prune", "step = true"), 'step .* a number, or "all", got True'),
        (with_key("prune", "step = 1.5"), r"a.toml: \[prune\] .*step"),
        (with_key("prune", "seeds = [0, 0]"), r"a.toml: \[prune\] .*seeds"),
        (with_key("prune", "targets = { watts = [0.5] }"), r"\[prune\] .* one of latency, bytes"),
        (with_key("prune", "workers = 2"), "no key 'workers'"),
        (
            with_key("training", "epoch = 2"),
            r"no key 'epoch'.*Did you mean 'epochs'",
        ),
        (with_key("training", "epochs = 2.5"), "epochs .* a whole number, got 2.5"),
        (with_key("training", "patience = 'none'"), "patience .* a whole number"),
        (with_key("training", "rate = '1e-3'"), "rate .* a number, got '1e-3'"),
        (with_key("training", "accelerator = 1"), "accelerator .* a text"),
    ],
)
def test_errors_name_the_key(read, text, said):
    with pytest.raises(RequestError, match=said) as caught:
        read(text)
    assert "a.toml" in str(caught.value)


def test_files_that_cannot_be_read_are_refused(tmp_path):
    for path in (tmp_path / "absent.toml", tmp_path):
        with pytest.raises(RequestError, match="no readable TOML file"):
            read_config(path)
    (tmp_path / "latin.toml").write_bytes(b"a = '\xe9'")
    with pytest.raises(RequestError, match="no readable TOML file"):
        read_config(tmp_path / "latin.toml")
