"""Every published case about linear systems is used by a test; the file is as collected."""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path

import pytest
from published import CASES, FILE

DIGEST = "7e444659511782c1b199455bf55ba05052ec21585a87e536afffc705fbd4a940"
UNUSED: set[str] = set()
"""Cases that nothing here takes."""
TESTS = sorted(Path(__file__).parent.glob("test_published_*.py"))
OTHERS = [
    Path(__file__).with_name(f"test_{name}.py") for name in ("ill_conditioned", "slicot_models")
]


def strings(path: Path) -> set[str]:
    """Return the string constants of a module."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def test_the_file_is_unchanged():
    """Its answers are published ones: a test that fails is no reason to edit them."""
    assert hashlib.sha256(FILE.read_bytes()).hexdigest() == DIGEST


@pytest.mark.parametrize("case_id", sorted(CASES.keys() - UNUSED))
def test_case_is_used(case_id):
    """By its name, which the tests only look up in ``CASES``."""
    assert any(case_id in strings(path) for path in (*TESTS, *OTHERS))


def test_nothing_is_left_out_for_longer_than_needed():
    used = set().union(*(strings(path) for path in (*TESTS, *OTHERS)))
    assert UNUSED & CASES.keys() == UNUSED
    assert not UNUSED & used
