"""Medians of warm runs, the memory of a run in a process of its own, and the machine."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numba
import numpy as np
import scipy
from threadpoolctl import threadpool_limits

BEGIN, END = "<!-- {} -->", "<!-- /{} -->"
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"


def median_seconds(run: Callable[[], object], *, repeats: int = 5, least: float = 0.0) -> float:
    """Return the median wall time of warm runs: at least `repeats` runs and `least` seconds."""
    run()
    times: list[float] = []
    while len(times) < repeats or sum(times) < least:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def seconds_each(solve: Callable[[int], object], sample: int, least: float) -> float:
    """Return the median over passes of the time per system, looped over a sample of systems.

    With one BLAS thread: with more, small systems of the peers take 2 to 60 times as long.
    """
    with threadpool_limits(1, user_api="blas"):
        run = median_seconds(lambda: [solve(k) for k in range(sample)], repeats=3, least=least)
    return run / sample


def best_seconds(run: Callable[[], object], *, repeats: int, least: float) -> float:
    """Return the smaller median: with one BLAS thread, or with all."""
    with threadpool_limits(1, user_api="blas"):
        alone = median_seconds(run, repeats=repeats, least=least)
    return min(alone, median_seconds(run, repeats=repeats, least=least))


def seconds_once(run: Callable[[], object]) -> float:
    """Return the wall time of one run, for what takes minutes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def exponent(sizes: list[int], seconds: list[float]) -> float:
    """Return the slope of log time against log size."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def _grown(run: Callable[..., object], arguments: tuple) -> float:
    run(*arguments)
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**10


def peak_mebibytes(run: Callable[..., object], *arguments: object) -> float:
    """Return the most memory a fresh process holds while it imports, makes its data and runs."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_grown, run, arguments).result()


def shown(seconds: float) -> str:
    """Return a time in a unit that fits."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"


def markdown(rows: Iterable[Sequence[str]], headers: Sequence[str]) -> str:
    """Return a table in Markdown."""
    lines = ["| " + " | ".join(row) + " |" for row in (headers, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(headers), *lines[1:]])


def machine() -> str:
    """Return what was measured on."""
    return (
        f"{platform.machine()}, {os.cpu_count()} logical processors, {numba.get_num_threads()} "
        f"Numba threads, NumPy {np.__version__}, SciPy {scipy.__version__}, "
        f"Numba {numba.__version__}; load before the run {os.getloadavg()[0]:.1f}."
    )


def written(name: str, text: str) -> None:
    """Put the text between the markers `name` of docs/benchmarks.md."""
    page = PAGE.read_text()
    begin, end = BEGIN.format(name), END.format(name)
    start, stop = page.index(begin) + len(begin), page.index(end)
    PAGE.write_text(f"{page[:start]}\n\n{text}\n\n{page[stop:]}")
