"""The names that docs/names.md maps to each other exist in the libraries that it names."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "names.md").read_text(encoding="utf-8")
FULL = sorted(set(re.findall(r"`((?:ssmred|control|pymor|slycot)\.[\w.]+)`", PAGE)))
REDUCTORS = sorted(set(re.findall(r"`(\w+Reductor)`", PAGE)))
METHODS = sorted(set(re.findall(r"`LTIModel\.(\w+)`", PAGE)))


def test_the_page_has_names_of_every_library():
    for library in ("ssmred", "control", "pymor", "slycot"):
        assert sum(name.startswith(f"{library}.") for name in FULL) >= 4


@pytest.mark.parametrize("name", FULL)
def test_full_names(name):
    module, _, attribute = name.rpartition(".")
    assert hasattr(importlib.import_module(module), attribute)


def test_reductors_are_all_there():
    reductors = importlib.import_module("ssmred.reductors")
    public = {name for name in reductors.__all__ if name.endswith("Reductor")} - {"Reductor"}
    assert set(REDUCTORS) == public


def test_methods_of_pymor_models():
    model = importlib.import_module("pymor.models.iosys").LTIModel
    assert METHODS
    assert not [name for name in METHODS if not hasattr(model, name)]
