"""How tight the bounds on single inputs are on the bundled networks, and what they cost.

For each network and share of states kept: the median over some test inputs of bound over true
error (both in float64), the median bound relative to the size of the answer, how many decisions
are guaranteed, and the time per input beside that of the reduced network alone. The table goes
into `docs/benchmarks.md` too, unless `--dry`. Exits 1 where an error exceeds its bound, or a
guaranteed decision is not the original's.
"""

from __future__ import annotations

import argparse
import copy
import sys

import torch
from rich.progress import track
from timing import machine, markdown, written

import ssmred
from ssmred import zoo
from ssmred.pipeline import BoundedPredictor
from ssmred.report import table

CASES = (
    ("fashion-mnist-s4d-gelu", (0.5, 0.75, 0.9)),
    ("fashion-mnist-s4d", (0.5, 0.9)),
    ("fashion-mnist-s4", (0.9,)),
    ("fashion-mnist-s5", (0.9,)),
    ("fashion-mnist-lru", (0.9,)),
    ("listops-s4d", (0.9,)),
)
INPUTS = 16
HEADERS = [
    "network",
    "states kept",
    "bound / error",
    "bound / answer",
    "decisions guaranteed",
    "ms per input",
    "times the prediction",
]


def row(name: str, share: float) -> tuple[list[str], bool]:
    """Return the row of one network and whether all bounds held."""
    model, data = zoo.load(name)
    x = data.test.inputs[:INPUTS]
    result = ssmred.reduce(model, states=share, data=data.calibration.inputs, progress=False)
    exact, small = copy.deepcopy(model).double(), copy.deepcopy(result.model).double()
    inputs = x.double() if x.is_floating_point() else x
    found = BoundedPredictor(exact, small).predict(inputs)
    with torch.no_grad():
        truth = exact(inputs)
    errors = (truth - found.prediction).norm(dim=-1)
    same = truth.argmax(dim=-1) == found.prediction.argmax(dim=-1)
    sure = found.guaranteed
    held = bool((errors <= found.error_bound).all()) and sure is not None and bool(same[sure].all())
    relative = float((found.error_bound / found.prediction.norm(dim=-1)).median())
    return [
        name,
        f"{share:.0%}",
        f"{float((found.error_bound / errors).median()):.1e}" + ("" if held else " VIOLATED"),
        f"{relative:.1e}" + (" (vacuous)" if relative > 1.0 else ""),
        f"{0 if sure is None else int(sure.sum())} of {len(x)}",
        f"{1e3 * found.seconds / len(x):.0f}",
        f"{found.cost:.0f}",
    ], held


def main() -> None:
    """Measure, print, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dry", action="store_true", help="leave docs/benchmarks.md as it is")
    dry = parser.parse_args().dry
    about = machine()
    wanted = [(name, share) for name, shares in CASES for share in shares]
    found = [row(*case) for case in track(wanted, description="networks")]
    rows = [cells for cells, _ in found]
    print(table(rows, HEADERS))
    if not dry:
        written("observed-bounds", f"{markdown(rows, HEADERS)}\n\n{about}")
    sys.exit(not all(held for _, held in found))


if __name__ == "__main__":
    main()
