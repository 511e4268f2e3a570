"""The Python code of README.md and docs/ runs, top to bottom, page by page.

The blocks of one page share their names, as a reader would type them. A block after the comment
``<!-- skip -->`` is shown but not run. Marked docs: ``make docs``.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"^(?P<skip><!-- skip -->\s*\n)?(?P<fence>`{3,})python[^\n]*\n(?P<code>.*?)^(?P=fence)\s*$",
    flags=re.MULTILINE | re.DOTALL,
)
LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)]*)?\)")
MINUTES = 5  # a page that takes longer is no page to type along


def script(text: str) -> str:
    """Return the blocks of a page as one script; lines keep their numbers in the page."""
    lines = [""] * (text.count("\n") + 1)
    for block in BLOCK.finditer(text):
        if block["skip"]:
            continue
        start = text.count("\n", 0, block.start("code"))
        code = block["code"].splitlines()
        if any(line.startswith(">>>") for line in code):
            code = [line[4:] for line in code if line.startswith((">>> ", "... "))]
        lines[start : start + len(code)] = code
    return "\n".join(lines)


def identify(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def test_script_runs_shown_blocks_and_leaves_out_skipped_ones():
    page = "x\n```python\na = 1\n```\n\n<!-- skip -->\n```python\nb\n```\n```python\na += 1\n```\n"
    names: dict[str, int] = {}
    exec(script(page), names)
    assert names["a"] == 2
    assert script(page).splitlines()[2] == "a = 1"


@pytest.mark.docs
@pytest.mark.parametrize("page", PAGES, ids=identify)
def test_code_runs(page, tmp_path):
    code = script(page.read_text(encoding="utf-8"))
    if not code.strip():
        return
    source = tmp_path / "page.py"
    source.write_text(code, encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:__main__", str(source)],
        cwd=tmp_path,
        env=os.environ | {"MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60 * MINUTES,
        check=False,
    )
    assert run.returncode == 0, f"{identify(page)} (line numbers are the page's)\n{run.stderr}"


@pytest.mark.parametrize(
    "page", [*PAGES, *sorted((ROOT / "theory").glob("*.md")), ROOT / "CHANGELOG.md"], ids=identify
)
def test_links_within_the_project_lead_somewhere(page):
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    missing = [
        link
        for link in LINK.findall(text)
        if "://" not in link
        and not link.startswith("mailto:")
        and not (page.parent / link).exists()
    ]
    assert not missing
