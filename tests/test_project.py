"""Promises about the project as a whole: what it imports and when, and what it says of itself."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import ssmred

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = sorted((ROOT / "ssmred").rglob("*.py"))
NO_TORCH = ("certify", "reductors", "norms", "gramians", "systems", "kernels")


def run_python(code: str) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def imported_at_top(tree: ast.Module) -> set[str]:
    """Return the top packages imported outside function bodies."""
    found: set[str] = set()
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
        pending += ast.iter_child_nodes(node)
    return found


def test_top_imports_are_told_from_lazy_ones():
    tree = ast.parse("import a.b\nif a:\n    from c import d\ndef f():\n    import e\n")
    assert imported_at_top(tree) == {"a", "c"}


@pytest.mark.parametrize("path", PACKAGE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_slycot_is_imported_inside_functions_only(path):
    assert "slycot" not in imported_at_top(ast.parse(path.read_text(encoding="utf-8")))


def test_every_module_imports_without_slycot():
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in PACKAGE
        if path.stem != "__main__"
    ]
    run_python(
        "import importlib, sys\n"
        "sys.modules['slycot'] = None  # an import of it now raises ImportError\n"
        f"for name in {modules!r}:\n"
        "    importlib.import_module(name)\n"
    )


def test_importing_ssmred_does_not_import_torch():
    assert (
        json.loads(
            run_python("import json, sys, ssmred; print(json.dumps('torch' in sys.modules))")
        )
        is False
    )


@pytest.mark.parametrize("room", NO_TORCH)
def test_rooms_below_networks_do_not_import_torch(room):
    code = f"import json, sys, ssmred.{room}; print(json.dumps('torch' in sys.modules))"
    assert json.loads(run_python(code)) is False


def test_public_names_exist():
    missing = [name for name in ssmred.__all__ if not hasattr(ssmred, name)]
    assert not missing


def test_versions_agree():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "version"
    ]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (\S+)$", citation, flags=re.MULTILINE) == [version]
    assert ssmred.__version__ == version
    assert f"\n## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_changelog_keeps_the_heading_for_bounds():
    assert "\n### Bound changed\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_constraints_pin_every_declared_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = project["dependencies"] + project["optional-dependencies"]["dev"]
    names = {re.match(r"[A-Za-z0-9._-]+", line).group().lower() for line in declared}
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.lower().split("==") for line in lines if line and not line.startswith("#"))
    assert names <= pins.keys()
    assert pins["torch"] == "2.13.0"
    assert not [name for name, version in pins.items() if "+" in version]
