"""Measure every figure of the README and write its section "Measured".

Runs accuracy, guarantees, streaming and speed one after the other; prints each table. Meant for an
otherwise idle machine. ``soundness.py`` and ``subset_numpy.py`` are run by themselves.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import accuracy
import guarantees
import speed
import streaming
import torch

from ssmred.report import table

Rows = list[list[str]]
README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- measured -->", "<!-- /measured -->"


def markdown(rows: Iterable[Sequence[str]], headers: Sequence[str]) -> str:
    """Return a table in Markdown."""
    lines = ["| " + " | ".join(row) + " |" for row in (headers, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(headers), *lines[1:]])


def alone(measure: Callable[[], Rows]) -> Rows:
    """Run a measurement in a process of its own, whose memory is nobody else's."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure).result()


def main() -> None:
    """Measure, print, and rewrite the README's section."""
    sections = []
    for title, rows, headers in (
        (
            "No retraining, all 10,000 test images:",
            accuracy.cells(accuracy.measure()),
            accuracy.HEADERS,
        ),
        (
            "What the guarantees allow, and how far the bound is from the largest error found "
            "(all relative to the output scale; a layer bound to the layer's norm):",
            guarantees.measure(),
            guarantees.HEADERS,
        ),
        (
            "Speed of the reduced network, alternating with the original in one run. Whole "
            "sequences gain from the cached kernel, not from fewer states; a streaming step gains "
            "from fewer states once arithmetic outweighs the fixed cost of a call:",
            streaming.measure()[0],
            streaming.HEADERS,
        ),
        ("Speed of the reduction:", alone(speed.measure), speed.HEADERS),
    ):
        print(f"\n{title}\n\n{table(rows, headers)}", flush=True)
        sections.append(f"{title}\n\n{markdown(rows, headers)}")
    machine = f"Measured on {os.cpu_count()} logical processors, no GPU, torch {torch.__version__}."
    text = README.read_text()
    start, stop = text.index(BEGIN) + len(BEGIN), text.index(END)
    body = "\n\n".join([*sections, machine])
    README.write_text(f"{text[:start]}\n\n{body}\n\n{text[stop:]}")


if __name__ == "__main__":
    main()
