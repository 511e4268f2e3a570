"""The command line end to end, on a tiny network made by a factory in the current folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from ssmred import pipeline
from ssmred.cli import app
from ssmred.networks.deep import DeepSSM
from ssmred.pipeline.methods import LAYER_METHODS, METHODS

ROOT = Path(__file__).resolve().parents[1]
STEPS = 24

FACTORY = '''
"""A tiny classifier, as a user would write it down."""
from ssmred.networks.deep import DeepSSM


def classifier():
    return DeepSSM(1, 3, channels=4, states=8, layers=2, mixing="linear")


class Deciding(DeepSSM):
    def forward(self, x):
        return super().forward(x) if bool(x.mean() < 9.0) else super().forward(-x)


def deciding():
    return Deciding(1, 3, channels=4, states=8, layers=2, mixing="linear")
'''


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Return a folder with a factory, its weights and data."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "my_nets.py").write_text(FACTORY)
    torch.manual_seed(0)
    model = DeepSSM(1, 3, channels=4, states=8, layers=2, mixing="linear")
    save_file(model.state_dict(), folder / "trained.safetensors")
    np.save(folder / "inputs.npy", np.random.default_rng(0).uniform(-1, 1, (160, STEPS, 1)))
    return folder


@pytest.fixture
def run(place, monkeypatch):
    """Return a function that runs a command in the user's folder."""
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def invoke(*words: object, code: int = 0):
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exit_code == code, result.output
        return result

    return invoke


MODEL = ("my_nets:classifier", "--weights", "trained.safetensors")


@pytest.fixture(scope="module")
def calibrated(place) -> Path:
    """Return the folder of a statistical reduction, made through the installed entry point."""
    return made(place, "calibrated", "--data", "inputs.npy", "--tol", "0.2")


@pytest.fixture(scope="module")
def provable(place) -> Path:
    """Return the folder of a data-free reduction under the layer guarantee."""
    return made(place, "provable", "--horizon", STEPS, "--guarantee", "layer", "--tol", "1e-3")


@pytest.fixture(scope="module")
def worst(place) -> Path:
    """Return the folder of a data-free reduction with a worst-case certificate."""
    box = ("--input-box", "-1", "1", "--states", "0.5")
    return made(place, "worst", "--horizon", STEPS, "--guarantee", "worst-case", *box)


def made(place: Path, name: str, *options: object) -> Path:
    words = ["reduce", *MODEL, *map(str, options), "--out", name, "--quiet"]
    finished = command(place, *words)
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "", "")
    return place / name


def command(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "ssmred.cli", *words],
        cwd=place,
        env=os.environ | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


# Help ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["", "reduce", "inspect", "plan", "verify", "latency", "report", "prune", "zoo"]
)
def test_every_help_has_examples_and_exit_codes(run, name):
    words = [name] if name else []
    text = run(*words, "--help").stdout
    assert f"ssmred {name}" in text.split("Examples:")[1]
    for meaning in ("0  done", "1  refused", "2  wrong usage"):
        assert meaning in text.split("Exit codes:")[1]


@pytest.mark.parametrize(
    "words", [["reduce", "--help"], ["prune", "--help"], ["prune", "--example"]]
)
def test_help_imports_nothing_heavy(words):
    code = (
        "import sys\nfrom ssmred.cli import app\n"
        f"try:\n    app({words})\nexcept SystemExit:\n    pass\n"
        "print([m for m in ('torch', 'numba', 'scipy', 'matplotlib') if m in sys.modules])"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert finished.stdout.splitlines()[-1] == "[]"


def test_version(run):
    assert run("--version").stdout.startswith("ssmred ")


# Arguments that reach the pipeline ----------------------------------------------------------------


class ReachedError(BaseException):
    """Carry the arguments of a call to `reduce`."""


@pytest.fixture
def arguments(run, monkeypatch):
    """Return a function that runs ``reduce`` and returns what the pipeline was asked for."""

    def record(model, **wish):
        raise ReachedError(wish)

    monkeypatch.setattr(pipeline, "reduce", record)

    def ask(*options: object) -> dict:
        with pytest.raises(ReachedError) as caught:
            run("reduce", *MODEL, *options, "--out", "unused")
        return caught.value.args[0]

    return ask


def test_what_is_not_asked_for_is_left_to_the_pipeline(arguments):
    assert arguments() == {
        "data": None,
        "horizon": None,
        "inputs": None,
        "guarantee": None,
        "metric": None,
        "method": "subset",
        "feedthrough": "full",
        "division": "sensitivity",
        "coverage": 0.95,
        "confidence": 0.95,
        "seed": 0,
        "progress": False,
    }


def test_every_option_arrives(arguments):
    wish = arguments(
        *("--states", "0.3", "--data", "inputs.npy", "--horizon", STEPS, "--inputs", "data"),
        *("--guarantee", "statistical", "--metric", "h2", "--coverage", "0.9"),
        *("--confidence", "0.8", "--seed", "7", "--method", "balanced"),
        *("--feedthrough", "diagonal", "--division", "measured"),
    )
    data = wish.pop("data")
    assert (data.dtype, tuple(data.shape)) == (torch.float32, (160, STEPS, 1))
    assert wish == {
        "states": 0.3,
        "horizon": STEPS,
        "inputs": "data",
        "guarantee": "statistical",
        "metric": "h2",
        "method": "balanced",
        "feedthrough": "diagonal",
        "division": "measured",
        "coverage": 0.9,
        "confidence": 0.8,
        "seed": 7,
        "progress": False,
    }
    assert arguments("--tol", "1e-2", "--json")["tol"] == 1e-2
    box = arguments("--input-box", "-1", "2", "--horizon", "8")["inputs"]
    assert json.loads(json.dumps(box.to_json())) == box.to_json()


# End to end ---------------------------------------------------------------------------------------


def test_reduce_leaves_everything_in_its_folder(calibrated):
    assert {entry.name for entry in calibrated.iterdir()} >= {
        *("network.json", "certificate.json", "result.json", "report.json", "reduction.png"),
        *("weights.safetensors", "original"),
    }
    assert not [entry for entry in calibrated.iterdir() if entry.name.endswith(".part")]
    report = json.loads((calibrated / "report.json").read_text())
    assert report["model"] == "my_nets:classifier"
    assert report["certificate"]["guarantee"] == "statistical"
    assert report["states"]["full"] == 2 * 4 * 8
    assert report["states"]["kept"] < report["states"]["full"]
    assert (calibrated / "reduction.png").stat().st_size > 10_000


def test_reduce_prints_sizes_layers_and_certificate(run, place):
    out = place / "printed"
    text = run("reduce", *MODEL, "--horizon", STEPS, "--guarantee", "layer", "--out", out).stdout
    for part in ("states", "parameters", "layers.0", "layers.1", "Written to"):
        assert part in text
    shutil.rmtree(out)


def test_json_is_one_object_and_nothing_else(place):
    words = ["reduce", *MODEL, "--states", "0.5", "--horizon", str(STEPS), "--guarantee", "layer"]
    finished = command(place, *words, "--json", "--out", "as_json")
    assert (finished.returncode, finished.stderr) == (0, ""), finished.stderr
    facts = json.loads(finished.stdout)
    assert facts["ok"]
    assert facts["states"]["kept"] <= 0.5 * facts["states"]["full"]
    assert Path(place / facts["picture"]).is_file()
    assert facts["certificate"] == json.loads((place / "as_json" / "certificate.json").read_text())


@pytest.mark.parametrize("method", LAYER_METHODS[1:])
def test_a_method_that_moves_poles_goes_from_reduce_to_verify(run, tmp_path, method):
    words = ("reduce", *MODEL, "--states", "0.5", "--horizon", STEPS, "--guarantee", "layer")
    facts = json.loads(run(*words, "--method", method, "--out", tmp_path / "it", "--json").stdout)
    assert facts["method"] == method
    assert method in facts["certificate"]["metric"]
    assert facts["states"]["kept"] <= 0.5 * facts["states"]["full"]
    assert "the certificate holds" in run("verify", tmp_path / "it").stdout
    report = json.loads((tmp_path / "it" / "report.json").read_text())
    assert report["method"] == method


def test_the_command_line_offers_every_method(run):
    text = run("reduce", "--help").stdout
    assert f"<{'|'.join(METHODS)}>" in "".join(text.split())


def test_verify_accepts_what_reduce_wrote(run, provable, calibrated):
    assert "the certificate holds" in run("verify", provable).stdout
    assert json.loads(run("verify", provable, "--json").stdout)["ok"]
    assert run("verify", calibrated, "--data", "inputs.npy", "--quiet").stdout == ""
    # Without its data the statistical part is left open, and said to be.
    text = run("verify", calibrated).stdout
    assert "not recomputed: the statistical part" in text
    assert "the certificate holds" not in text


def test_verify_refuses_changed_weights(run, provable, tmp_path):
    forged = shutil.copytree(provable, tmp_path / "forged")
    weights = forged / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-9] ^= 1
    weights.write_bytes(bytes(content))
    result = run("verify", forged, "--json", code=1)
    assert json.loads(result.stdout)["exit_code"] == 1
    assert result.stderr.count("\n") == 1


def test_verify_refuses_a_changed_certificate(run, provable, tmp_path):
    forged = shutil.copytree(provable, tmp_path / "forged")
    path = forged / "certificate.json"
    stored = json.loads(path.read_text())
    stored["bound"] = 0.5 * float(stored["bound"])
    path.write_text(json.dumps(stored))
    assert run("verify", forged, code=1).stdout == ""
    path.write_text(path.read_text()[:100])
    assert "error: " in run("verify", forged, code=1).stderr


def test_verify_rigorously(run, worst, tmp_path):
    """From the files alone; what it writes is verified as what it is."""
    path = tmp_path / "rigorous.json"
    shown = run("verify", worst, "--rigorous", "--save", path).stdout
    assert "the absolute bound is RIGOROUS" in shown
    facts = json.loads(run("verify", worst, "--rigorous", "--json").stdout)["verification"]
    assert facts["level"] == json.loads(path.read_text())["level"] == "RIGOROUS"
    assert facts["absolute_bound"] > 0.0
    assert "the certificate holds" in run("verify", worst, "--certificate", path).stdout
    path.write_text(path.read_text().replace("RIGOROUS", "FLOAT", 1))
    assert run("verify", worst, "--rigorous", "--certificate", path, code=1).stdout == ""


def test_rigorous_verification_refuses_what_it_does_not_cover(run, worst, provable, calibrated):
    for folder in (provable, calibrated):
        assert "only worst-case ones" in run("verify", folder, "--rigorous", code=1).stderr
    run("verify", worst, "--save", "x.json", code=2)
    run("verify", worst, "--rigorous", "--data", "inputs.npy", code=2)
    damaged = worst.parent / "damaged"
    shutil.copytree(worst, damaged)
    (damaged / "original" / "network.json").unlink()
    assert "damaged" in run("verify", damaged, "--rigorous", code=1).stderr


def test_verify_refuses_other_data(run, calibrated, place):
    np.save(place / "other.npy", np.zeros((160, STEPS, 1)))
    run("verify", calibrated, "--data", "other.npy", code=1)


def test_latency_measures_a_folder(run, provable, place):
    facts = json.loads(
        run(
            *("latency", provable, "--repeats", "1", "--batch", "1", "--batch", "2"),
            *("--threads", "1", "--picture", place / "latency.png", "--json"),
        ).stdout
    )
    report = facts["latency"]
    assert (report["horizon"], report["batches"], report["threads"]) == (STEPS, [1, 2], 1)
    assert (place / "latency.png").is_file()
    text = run("latency", provable, "--repeats", "1", "--data", "inputs.npy").stdout
    assert "streaming step, systems only" in text


def test_a_network_that_cannot_be_written_down_needs_its_class(run, place):
    own = ("my_nets:deciding", "--weights", "trained.safetensors")
    words = ("--data", "inputs.npy", "--tol", "0.2", "--out", "deciding", "--quiet")
    run("reduce", *own, *words)
    assert "--model" in run("verify", "deciding", code=2).stderr
    named = ("--model", *own, "--data", "inputs.npy")
    assert json.loads(run("verify", "deciding", *named, "--json").stdout)["ok"]
    assert "does not stream" in run("latency", "deciding", *named, "--repeats", "1").stdout
    # Nor is a worst-case statement about it made.
    text = run("reduce", *own, "--horizon", STEPS, "--out", "never", code=1).stderr
    assert text.count("\n") == 1


def test_zoo_lists_and_describes(run):
    text = run("zoo").stdout
    assert "fashion-mnist-s4d" in text
    assert text.splitlines()[0].split()[:3] == ["name", "layers", "channels"]
    (network,) = json.loads(run("zoo", "fashion-mnist-s4d", "--json").stdout)["networks"]
    assert network["states"] >= 4 * 64 * 64
    assert network["test"] == 10_000


@pytest.mark.slow
def test_reduce_of_a_zoo_network_measures_accuracy_and_latency(run, tmp_path):
    words = ("reduce", "zoo:fashion-mnist-s4d", "--states", "0.3", "--test-images", "200")
    facts = json.loads(run(*words, "--out", tmp_path / "zoo", "--json").stdout)
    assert facts["accuracy"]["images"] == 200
    assert facts["accuracy"]["reduced"] > facts["accuracy"]["original"] - 0.05
    assert facts["latency"]["horizon"] == 196
    assert json.loads(run("verify", tmp_path / "zoo", "--json").stdout)["ok"]


# Refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--tol", "1e-2", "--states", "0.5"), "not both"),
        (("--data", "inputs.npy", "--data-free"), "not both"),
        (("--data", "absent.npy"), "there is no file"),
        (("--inputs", "cube:1"), "expected data, tokens or ball:RADIUS"),
        (("--input-box", "1", "-1"), "box"),
        (("--tol", "0"), "tol"),
        (("--tol", "nan"), "tol"),
        (("--states", "2"), "states"),
        (("--horizon", "0"), "horizon"),
        (("--guarantee", "statistical"), "data"),
        (("--data", "inputs.npy", "--coverage", "0.999"), "needs"),
        (("--data", "inputs.npy", "--horizon", "7"), "horizon"),
    ],
)
def test_bad_input_is_one_line_and_code_2(run, place, words, text):
    result = run("reduce", *MODEL, *words, "--out", "never", code=2)
    assert result.stdout == ""
    assert result.stderr.startswith("ssmred reduce: error: ")
    assert text in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (place / "never").exists()


def test_usage_errors_have_code_2(run):
    assert "No such option" in run("reduce", *MODEL, "--nonsense", code=2).stderr
    assert "--out" in run("reduce", *MODEL, code=2).stderr
    run("reduce", *MODEL, "--guarantee", "hope", "--out", "never", code=2)
    assert "balanced" in run("reduce", *MODEL, "--method", "pca", "--out", "no", code=2).stderr
    run("nonsense", code=2)


def test_an_existing_folder_needs_force(run, provable):
    before = (provable / "certificate.json").read_bytes()
    words = ("reduce", *MODEL, "--horizon", STEPS, "--guarantee", "layer", "--out", provable)
    assert "--force" in run(*words, code=2).stderr
    assert (provable / "certificate.json").read_bytes() == before
    run(*words, "--force", "--quiet")
    run("verify", provable)


def test_force_does_not_replace_what_is_not_a_result(run, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    assert "other things" in run("reduce", *MODEL, "--out", tmp_path, "--force", code=2).stderr
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("name", ["verify", "latency"])
def test_a_folder_that_is_no_result_is_bad_input(run, tmp_path, name):
    assert "there is no folder" in run(name, tmp_path / "absent", code=2).stderr
    assert "lacks result.json" in run(name, tmp_path, code=2).stderr
