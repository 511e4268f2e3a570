"""How commands end: exit codes, one line per error, JSON."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import typer

from ssmred.cli.console import BadInputError, Console, plain
from ssmred.errors import (
    AccuracyError,
    CertificateError,
    CheckpointError,
    DataError,
    ToleranceError,
    UnsupportedOperationError,
)


def code_of(console: Console, error: BaseException) -> int:
    """Return the exit code that an error in a command's body leads to."""
    with pytest.raises(typer.Exit) as caught, console.guarded():
        raise error
    return caught.value.exit_code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CertificateError("a"), 1),
        (AccuracyError("a"), 1),
        (UnsupportedOperationError("a"), 1),
        (ToleranceError("a"), 2),
        (CheckpointError("a"), 2),
        (DataError("a"), 2),
        (BadInputError("a"), 2),
        (PermissionError(13, "Permission denied", "/nowhere"), 2),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_codes(error, code, capsys):
    assert code_of(Console("verify"), error) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("ssmred verify: ")
    assert captured.err.count("\n") == 1


def test_an_error_of_many_lines_becomes_one(capsys):
    code_of(Console("reduce"), DataError("first\n   second\n"))
    assert capsys.readouterr().err == "ssmred reduce: error: first second\n"


def test_an_error_under_json_is_an_object_on_stdout(capsys):
    code_of(Console("reduce", as_json=True), DataError("too little data"))
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {
        "ok": False,
        "exit_code": 2,
        "error": {"type": "DataError", "message": "too little data"},
    }
    assert captured.err == "ssmred reduce: error: too little data\n"


def test_a_fault_of_the_program_shows_its_traceback_and_is_no_refusal(capsys):
    assert code_of(Console("verify", as_json=True), ZeroDivisionError("by zero")) == 3
    captured = capsys.readouterr()
    assert captured.err.startswith("Traceback")
    assert captured.err.endswith("ssmred verify: error: by zero\n")
    assert json.loads(captured.out)["exit_code"] == 3


def test_bars_are_for_a_terminal_that_someone_watches(monkeypatch):
    assert not Console("zoo").progress
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert Console("zoo").progress


def test_json_and_quiet_silence_text_and_progress(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    for console in (Console("zoo", as_json=True), Console("zoo", quiet=True)):
        console.show("text")
        assert not console.progress
    assert capsys.readouterr().out == ""
    Console("zoo", as_json=True, quiet=True).finish({"bound": math.inf, "at": Path("a")})
    assert json.loads(capsys.readouterr().out) == {"ok": True, "bound": "inf", "at": "a"}
    Console("zoo").finish({"bound": 1.0})
    assert capsys.readouterr().out == ""


def test_warnings_are_one_line_on_stderr(capsys):
    with Console("reduce", as_json=True).guarded():
        warnings.simplefilter("always")
        warnings.warn("loose\nbound", stacklevel=1)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "ssmred reduce: warning: loose bound\n"


def test_plain_turns_everything_into_json_types():
    value = {
        1: (np.float64(0.5), np.int64(2), np.array([1.0, math.nan])),
        "flag": np.bool_(True),
        "none": None,
        "set": {3},
        "other": object,
    }
    assert plain(value) == {
        "1": [0.5, 2, [1.0, "nan"]],
        "flag": True,
        "none": None,
        "set": [3],
        "other": str(object),
    }
    json.dumps(plain(value), allow_nan=False)
