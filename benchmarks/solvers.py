"""Gramians, matrix equations and single removals: time, growth, memory, accuracy, beside peers.

``python benchmarks/solvers.py`` prints the table and puts it into ``docs/benchmarks.md``; with
``--dry`` it only prints; ``--quick`` is a smoke run whose figures mean nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import cases
import numpy as np
import peers
from rows import HEADERS, error_row, plain, row
from timing import (
    best_seconds,
    exponent,
    machine,
    markdown,
    median_seconds,
    peak_mebibytes,
    seconds_each,
    seconds_once,
    shown,
    written,
)

from ssmred.gramians import controllability_gramian, lyapunov, stein
from ssmred.reductors.single_removals import single_removal_errors
from ssmred.report import table
from ssmred.systems import DenseSystem

LARGE = 1000
"""Above this order every solver runs once, with all BLAS threads."""

NOTE = (
    "Medians of warm runs: compilation and imports left out, random data from fixed seeds. Batched "
    "rows: time per system, ssmred amortised over {channels:,} systems, peers in a loop over "
    "{sample}, with one BLAS thread, which is fastest for them."
)


def batched(channels: int, states: int, sample: int, least: float) -> list[list[str]]:
    """Measure many small systems."""
    system = cases.layer(channels, states)
    blocks = cases.modal(system, sample)
    full = cases.turned(cases.modal(system, channels))
    W = blocks.B @ np.swapaxes(blocks.B, -1, -2)
    V = full.B @ np.swapaxes(full.B, -1, -2)
    V = (V + np.swapaxes(V, -1, -2)) / 2
    objects = [peers.control_object((blocks.A[k], blocks.B[k], blocks.C[k])) for k in range(sample)]

    def per_system(run: Callable[[], object]) -> float:
        return median_seconds(run, least=least) / channels

    def peers_with(solvers: dict, A: np.ndarray, W: np.ndarray) -> dict[str, float]:
        return {
            name: seconds_each(lambda k, f=solve: f(A[k], W[k]), sample, least)
            for name, solve in solvers.items()
        }

    def pymor_fresh(k: int) -> object:  # a model remembers its Gramian
        case = (blocks.A[k], blocks.B[k], blocks.C[k])
        return peers.pymor_gramian(peers.pymor_object(case))

    def both() -> None:
        controllability_gramian(system)
        single_removal_errors(system)

    gramians = per_system(lambda: controllability_gramian(system))
    removals = {
        name: seconds_each(
            lambda k, f=solve: peers.pair_removals(f(blocks.A[k], W[k]), blocks.C[k]),
            sample,
            least,
        )
        for name, solve in peers.STEIN.items()
    }
    looped = {
        "python-control": seconds_each(lambda k: peers.control_gramian(objects[k]), sample, least),
        "pyMOR": seconds_each(pymor_fresh, sample, least),
    }
    what = f"{states} states, Gramians"
    return [
        row(what, gramians, peers_with(peers.STEIN, blocks.A, W), 20),
        *(row(f"{what}, objects looped", gramians, {n: t}, 100) for n, t in looped.items()),
        row(f"{what} and errors of all single removals", per_system(both), removals, 20),
        row(
            f"{states} states, dense Stein equations",
            per_system(lambda: stein(full.A, V)),
            peers_with(peers.STEIN, full.A, V),
            1.8,
        ),
    ]


def single(order: int, least: float) -> list[list[str]]:
    """Measure one dense system."""
    rows = []
    for name, ours, theirs, continuous in (
        ("Stein", stein, peers.STEIN, False),
        ("Lyapunov", lyapunov, peers.LYAPUNOV, True),
    ):
        A, B, _ = cases.dense(order, continuous=continuous)
        W = B @ B.T
        if order > LARGE:
            times = {
                peer: seconds_once(lambda f=f, A=A, W=W: f(A, W)) for peer, f in theirs.items()
            }
            own = seconds_once(lambda f=ours, A=A, W=W: f(A, W))
        else:
            times = {
                peer: best_seconds(lambda f=f, A=A, W=W: f(A, W), repeats=3, least=least)
                for peer, f in theirs.items()
            }
            own = median_seconds(lambda f=ours, A=A, W=W: f(A, W), repeats=3, least=least)
        rows.append(row(f"one dense {name} equation, n = {order:,}", own, times, 1 / 1.5))
    return rows


def growth(orders: list[int], channels: list[int], least: float) -> list[list[str]]:
    """Fit how time grows."""

    def fitted(systems: list, run: Callable, sizes: list[int]) -> str:
        seconds = [median_seconds(lambda s=s: run(s), least=least) for s in systems]
        spread = f"{shown(seconds[0])} to {shown(seconds[-1])}"
        return f"exponent {exponent(sizes, seconds):.2f} ({spread})"

    wide = [cases.layer(count, 64) for count in channels]
    tall = [cases.layer(64, order) for order in orders]
    reach = f"{channels[0]} to {channels[-1]:,} channels"
    lines = []
    for name, run in (
        ("Gramians", controllability_gramian),
        ("single removals", single_removal_errors),
    ):
        lines.append(plain(f"{name}, {reach}", fitted(wide, run, channels)))
        states = f"{orders[0]} to {orders[-1]} states"
        lines.append(plain(f"{name}, {states}", fitted(tall, run, orders)))
    full = [cases.turned(cases.modal(system, 64)) for system in tall]

    def solve(system: DenseSystem) -> object:
        return stein(system.A, system.B @ np.swapaxes(system.B, -1, -2))

    states = f"{orders[0]} to {orders[-1]} states"
    return [*lines, plain(f"dense Stein, 64 systems of {states}", fitted(full, solve, orders))]


def run_gramians(channels: int, states: int) -> None:
    """Make a layer and its Gramians."""
    controllability_gramian(cases.layer(channels, states))


def run_removals(channels: int, states: int) -> None:
    """Make a layer and the errors of its single removals."""
    single_removal_errors(cases.layer(channels, states))


def run_stein(channels: int, states: int) -> None:
    """Make dense systems and solve their Stein equations."""
    system = cases.modal(cases.layer(channels, states), channels)
    stein(system.A, system.B @ np.swapaxes(system.B, -1, -2))


def run_dense(order: int) -> None:
    """Solve one Stein equation."""
    A, B, _ = cases.dense(order)
    stein(A, B @ B.T)


def run_nothing() -> None:
    """Import only."""


def memory(channels: int, states: int, order: int) -> list[list[str]]:
    """Measure processes that do one thing each."""
    jobs: dict[str, tuple] = {
        "imports only": (run_nothing,),
        f"Gramians, {channels:,} x {states}": (run_gramians, channels, states),
        f"single removals, {channels:,} x {states}": (run_removals, channels, states),
        f"dense Stein, {channels:,} x {states}": (run_stein, channels, states),
        f"one Stein equation, n = {order:,}": (run_dense, order),
    }
    return [
        plain(f"peak memory of a process: {name}", f"{peak_mebibytes(*job):,.0f} MiB")
        for name, job in jobs.items()
    ]


def accuracy() -> list[list[str]]:
    """Compare with 60-digit answers: the largest relative error over all entries."""
    rows = []
    for name, system in cases.hard_cases().items():
        P, removals, _ = cases.reference(name)
        exact = list(P)
        own = controllability_gramian(system)
        A, W = np.diag(system.poles), system.B @ system.B.conj().T
        if system.is_real and not np.iscomplexobj(own):
            A, W = A.real, W.real
        real = not np.iscomplexobj(A)
        solvers = peers.STEIN if system.is_discrete else peers.LYAPUNOV
        found = {
            peer: cases.relative_errors(f(A, W), exact).max()
            for peer, f in solvers.items()
            if real or peer == "SciPy"  # slycot takes real data
        }
        best = min(found, key=found.__getitem__)
        ours = cases.relative_errors(own, exact).max()
        rows.append(error_row(f"Gramian entries, {name}", ours, best, found[best]))
        ours = cases.relative_errors(single_removal_errors(system), removals).max()
        if real:
            costs = _numpy_removals(own, system.C[0].real)
            theirs = cases.relative_errors(costs, removals).max()
            rows.append(error_row(f"single removals, {name}", ours, "NumPy inverse", theirs))
        else:
            rows.append(plain(f"relative error: single removals, {name}", f"{ours:.1e}"))
    return rows


def _numpy_removals(P: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Return the errors of single removals from the accurate P by NumPy's inverse."""
    try:
        return np.abs(c) / np.sqrt(np.abs(np.diag(np.linalg.inv(P))))
    except np.linalg.LinAlgError:  # singular in float64
        return np.full(c.shape, np.nan)


def measure(*, quick: bool) -> tuple[list[list[str]], str]:
    """Return all rows and the note on how they were found."""
    channels, sample, least = (64, 8, 0.0) if quick else (1536, 64, 0.3)
    note = NOTE.format(channels=channels, sample=sample) + " " + machine()
    rows = batched(channels, 64, sample, least)
    for order in (100,) if quick else (100, 500, 2000):
        rows += single(order, least)
    orders = [16, 32] if quick else [16, 32, 64, 128, 256]
    rows += growth(orders, [16, 64] if quick else [64, 256, 1024, 4096], least)
    rows += memory(channels, 64, 100 if quick else 2000)
    rows += accuracy()
    return rows, note


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smoke run in less than a minute")
    parser.add_argument("--dry", action="store_true", help="do not write docs/benchmarks.md")
    options = parser.parse_args()
    rows, note = measure(quick=options.quick)
    print(f"{table(rows, HEADERS)}\n\n{note}")
    if not (options.dry or options.quick):
        written("solvers", f"{markdown(rows, HEADERS)}\n\n{note}")


if __name__ == "__main__":
    main()
