"""The safety report in a browser without a screen: it loads, is complete, says nothing on the
console, and prints."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from ssmred.report import save_page
from tests.report.page_cases import GUARANTEES, Reader, certificate, latency, page

NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
SECONDS = 120

pytestmark = pytest.mark.skipif(
    BROWSER is None,
    reason=f"none of {', '.join(NAMES)} is installed (Debian: apt install chromium)",
)


def browse(profile: Path, target: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Open a page and return what the browser printed."""
    return subprocess.run(
        [
            str(BROWSER),
            "--headless",
            "--no-sandbox",  # which containers do not offer; the page is ours
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--enable-logging=stderr",
            f"--user-data-dir={profile}",
            *options,
            target.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )


@pytest.fixture(scope="module", params=GUARANTEES)
def shown(request, tmp_path_factory):
    """Return a certificate, its page, and the document as the browser understood it."""
    folder = tmp_path_factory.mktemp(request.param)
    stated = certificate(request.param, bound=1.5 if request.param == "worst-case" else 0.03)
    target = save_page(page(stated, latency=latency()), folder / "report.html")
    return stated, target, browse(folder / "profile", target, "--dump-dom")


def test_the_document_says_what_the_certificate_says(shown):
    stated, _, run = shown
    text = Reader(run.stdout).text
    assert stated.statement() in text
    assert stated.original_sha256 in text
    for part in (*stated.assumptions, "What is not covered", "ssmred verify", "another machine"):
        assert part in text
    assert ("This bound is vacuous" in text) == stated.vacuous


def test_the_console_stays_silent(shown):
    assert "CONSOLE" not in shown[2].stderr


def test_the_console_is_heard(tmp_path):
    loud = tmp_path / "loud.html"
    loud.write_text("<!DOCTYPE html><script>console.error('help')</script>", encoding="utf-8")
    assert "CONSOLE" in browse(tmp_path / "profile", loud, "--dump-dom").stderr


def test_it_prints(shown, tmp_path):
    _, target, _ = shown
    printed = tmp_path / "report.pdf"
    browse(tmp_path / "profile", target, f"--print-to-pdf={printed}", "--no-pdf-header-footer")
    content = printed.read_bytes()
    assert content.startswith(b"%PDF-")
    assert 2 <= content.count(b"/Type /Page\n") <= 12


def test_it_is_drawn(shown, tmp_path):
    _, target, _ = shown
    picture = tmp_path / "report.png"
    size = "--window-size=1100,3000"
    browse(tmp_path / "profile", target, f"--screenshot={picture}", size, "--hide-scrollbars")
    assert len(colours(picture)) > 50  # text, tables and figures, not an empty page


def colours(picture: Path) -> set[tuple[int, ...]]:
    from matplotlib.image import imread

    pixels = (255.0 * imread(picture)).astype(int)
    return {tuple(pixel) for pixel in pixels[::4, ::4].reshape(-1, pixels.shape[-1])}
