"""The command `ssmred plan`."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from ssmred.certify import required_samples
from ssmred.cli import app


def run(*words: str, code: int = 0):
    result = CliRunner().invoke(app, ["plan", *words])
    assert result.exit_code == code, result.output
    return result


def test_how_many_inputs():
    shown = run("--coverage", "0.999", "--confidence", "0.95").stdout
    assert "2,995" in shown
    assert "5,990" in shown
    found = json.loads(run("--coverage", "0.99", "--violations", "3", "--json").stdout)
    (row,) = found["rows"]
    assert (row["violations"], row["inputs"]) == (3, required_samples(0.99, 0.95, 3))


def test_what_given_inputs_can_state():
    shown = run("--inputs", "59").stdout
    assert "59 held-out inputs allow 0 violations for 95 % at confidence 0.95" in shown
    assert "do not suffice" in run("--inputs", "58").stdout
    found = json.loads(run("--inputs", "59", "--json").stdout)
    assert 0.95 < found["rows"][0]["coverage"] < 0.951


def test_bad_wishes_end_with_one_line():
    for words in (["--coverage", "1.5"], ["--inputs", "3", "--violations", "4"]):
        result = run(*words, code=2)
        assert "ssmred plan: error:" in result.output
        assert not result.stdout
