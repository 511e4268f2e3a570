"""The theory pages, the code and the tests name each other, in both directions."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
THEORY = ROOT / "theory"
SECTIONS = ("Statement", "Proof", "In the code", "Sources")
MENTION = re.compile(r"theory/([a-z0-9-]+)\.md")


def page_files() -> list[Path]:
    return sorted(path for path in THEORY.glob("*.md") if path.name != "README.md")


def python_files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def field(page: Path, name: str) -> list[str]:
    """Return the quoted entries of a line such as ``- **Code:** `a.py`, `b.py```; wrapped too."""
    match = re.search(
        rf"^- \*\*{name}:\*\*(.*?)(?=^- \*\*|^\s*$|^#|\Z)",
        page.read_text(encoding="utf-8"),
        flags=re.MULTILINE | re.DOTALL,
    )
    return re.findall(r"`([^`]+)`", match.group(1)) if match else []


def docstring_mentions(path: Path) -> set[str]:
    """Return the slugs that the docstrings of a file name."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    texts = (
        ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, documented)
    )
    return {slug for text in texts for slug in MENTION.findall(text)}


def theorem_markers(path: Path) -> set[str]:
    """Return the slugs of the ``pytest.mark.theorem("slug")`` calls of a file."""
    return {
        argument.value
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.theorem"
        for argument in node.args
        if isinstance(argument, ast.Constant)
    }


def disagreements(listed: dict[str, set[str]], found: dict[str, set[str]], how: str) -> list[str]:
    """Compare page -> files as the pages list them with the same as the files name them."""
    return [
        f"{slug}: the page lists {file}, which does not name it {how}"
        for slug in sorted(listed)
        for file in sorted(listed[slug] - found.get(slug, set()))
    ] + [
        f"{slug}: {file} names it {how}, but "
        + ("the page does not list the file" if slug in listed else "there is no such page")
        for slug in sorted(found)
        for file in sorted(found[slug] - listed.get(slug, set()))
    ]


def by_slug(folder: str, slugs_of) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for path in python_files(folder):
        for slug in slugs_of(path):
            found.setdefault(slug, set()).add(path.relative_to(ROOT).as_posix())
    return found


def test_there_are_pages():
    assert page_files()


def test_pages_have_their_shape():
    problems = []
    for page in page_files():
        text = page.read_text(encoding="utf-8")
        if not text.startswith("# "):
            problems.append(f"{page.name}: does not begin with a title")
        if field(page, "Slug") != [page.stem]:
            problems.append(f"{page.name}: its slug is not {page.stem}")
        for name in ("Code", "Tests"):
            if not field(page, name):
                problems.append(f"{page.name}: no **{name}:** line, or it quotes no file")
        headings = re.findall(r"^## (.+?)\s*$", text, flags=re.MULTILINE)
        if [h for h in headings if h in SECTIONS] != list(SECTIONS):
            problems.append(f"{page.name}: sections are {headings}, expected {list(SECTIONS)}")
    assert not problems, "\n".join(problems)


def test_pages_and_code_name_each_other():
    listed = {page.stem: set(field(page, "Code")) for page in page_files()}
    problems = disagreements(listed, by_slug("ssmred", docstring_mentions), "in a docstring")
    assert not problems, "\n".join(problems)


def test_pages_and_tests_name_each_other():
    listed = {page.stem: set(field(page, "Tests")) for page in page_files()}
    problems = disagreements(listed, by_slug("tests", theorem_markers), "with pytest.mark.theorem")
    assert not problems, "\n".join(problems)


def test_reading_order_is_complete():
    text = (THEORY / "README.md").read_text(encoding="utf-8")
    linked = re.findall(r"\]\(([a-z0-9-]+)\.md\)", text)
    assert sorted(linked) == sorted(page.stem for page in page_files())


def test_references_are_known_and_keys_unique():
    keys = re.findall(
        r"^@\w+\{([^,\s]+),", (THEORY / "references.bib").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(keys) == len(set(keys))
    cited = {
        (page.name, key)
        for page in page_files()
        for key in re.findall(
            r"\[@?([A-Z][A-Za-z0-9]*\d{4}[A-Za-z0-9]*)\]", page.read_text(encoding="utf-8")
        )
    }
    assert not {entry for entry in cited if entry[1] not in keys}
