"""Whole-sequence and streaming speed of the bundled network, original against reduced.

Prints the latency of the whole network, and the time of a streaming step of the systems against the
states kept (32 streams, where arithmetic and not the call dominates).
"""

from __future__ import annotations

import ssmred
from ssmred import zoo
from ssmred.deploy import latency
from ssmred.report import table

NAME = "fashion-mnist-s4d"
SHARES = (0.5, 0.3, 0.1)
ROWS = (
    "whole sequence, batch 1",
    "whole sequence, batch 32",
    "streaming step, network, batch 1",
    "streaming step, systems only, batch 1",
    "streaming step, systems only, batch 32",
    "parameters and buffers",
)
"""Streaming is compared with the original in ssmred's layers at full order: it has no step."""


def measure() -> tuple[list[list[str]], str]:
    """Return the ratios by share of states kept, and the whole report at 30 %."""
    model, data = zoo.load(NAME)
    reports = {}
    for share in SHARES:
        result = ssmred.reduce(model, states=share, data=data.calibration.inputs, progress=False)
        reports[share] = latency(model, result.model, data.test.inputs[:64])
    rows = [[name, *(f"{reports[s][name].ratio:.2f}" for s in SHARES)] for name in ROWS]
    return rows, str(reports[0.3])


HEADERS = ["reduced / original", *(f"{100 * share:.0f} % kept" for share in SHARES)]


if __name__ == "__main__":
    ratios, whole = measure()
    print(f"{whole}\n\n{table(ratios, HEADERS)}")
