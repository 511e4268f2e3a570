"""Style and saving that all figures share: colour-blind-safe, readable in grey."""

from __future__ import annotations

import base64
import contextlib
import functools
import io
import os
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssmred.errors import UnsupportedOperationError, message

__all__ = [
    "BLUE",
    "GREY",
    "LIGHT",
    "ORANGE",
    "clean",
    "drawable",
    "embedded",
    "save_figure",
    "style",
]

LONGEST = 28
"""Characters of a name in a figure."""

# Okabe and Ito's palette: distinct for every common colour vision; the lightness differs too, so a
# grey print keeps them apart.
BLUE = "#0072B2"
ORANGE = "#E69F00"
GREY = "#4D4D4D"
LIGHT = "#D9D9D9"


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Draw in the house style, whatever the caller's matplotlib settings are."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(
            {
                "font.size": 9.0,
                "axes.titlesize": 10.0,
                "axes.titlelocation": "left",
                "axes.titleweight": "bold",
                "axes.edgecolor": GREY,
                "axes.axisbelow": True,
                "grid.color": LIGHT,
                "grid.linewidth": 0.6,
                "legend.frameon": False,
                "hatch.linewidth": 0.6,
                "svg.fonttype": "none",
            }
        )
        yield


def clean(axes: Axes, *, grid: str) -> None:
    """Take away the upper and right frame lines and put a light grid behind one or both axes."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, axis=grid)  # type: ignore[arg-type]


def drawable(name: str) -> str:
    """Return a name as a figure can show it: the end of a long one, signs that the font has.

    Matplotlib reads dollars as mathematics; whoever draws the text has to turn that off.

    Examples
    --------
    >>> drawable("layers.0")
    'layers.0'
    >>> drawable("encoder." + 30 * "x")
    '...xxxxxxxxxxxxxxxxxxxxxxxxx'
    """
    unknown = "\N{REPLACEMENT CHARACTER}"
    signs = "".join(c if c.isprintable() and ord(c) in _signs() else unknown for c in name)
    return signs if len(signs) <= LONGEST else f"...{signs[-LONGEST + 3 :]}"


@functools.cache
def _signs() -> frozenset[int]:
    """Return the characters that the font of the house style has."""
    font = font_manager.get_font(font_manager.findfont("DejaVu Sans"))
    return frozenset(font.get_charmap())


def embedded(figure: Figure) -> str:
    """Return a figure as a ``data:`` address: SVG, its letters drawn, the same bytes every time.

    A page shows it as an image, so that nothing in it can run or load anything.
    """
    stream = io.BytesIO()
    with style(), mpl.rc_context({"svg.fonttype": "path", "svg.hashsalt": "ssmred"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Write a figure to a file; an interrupted write leaves an older file untouched.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    path : path
        Its suffix chooses the format (png, pdf, svg, ...); png without one.

    Returns
    -------
    pathlib.Path
        The file that was written.

    Raises
    ------
    UnsupportedOperationError
        If matplotlib cannot write this format.
    """
    target = Path(path)
    if not target.suffix:
        target = target.with_suffix(".png")
    kind = target.suffix[1:].lower()
    known = figure.canvas.get_supported_filetypes()
    if kind not in known:
        raise UnsupportedOperationError(
            message(
                "save_figure",
                "matplotlib cannot write this format",
                expected=f"one of {', '.join(sorted(known))}",
                got=f"{kind!r}",
                cure="Give the file another suffix.",
            )
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with style(), part.open("wb") as stream:
            figure.savefig(stream, format=kind, dpi=150)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target
