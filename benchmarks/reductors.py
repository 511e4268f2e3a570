"""Hankel values and balanced truncation: time, growth, memory, accuracy, beside peers.

``python benchmarks/reductors.py`` prints the table and puts it into ``docs/benchmarks.md``; with
``--dry`` it only prints; ``--quick`` is a smoke run whose figures mean nothing.
"""

from __future__ import annotations

import argparse
from unittest import mock

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
    shown,
    written,
)

from ssmred.gramians import hankel_singular_values
from ssmred.norms import h2_norm, hinf_norm
from ssmred.reductors import BalancedReductor, quadratic_removal_errors
from ssmred.report import table
from ssmred.systems import DenseSystem, DiagonalSystem, QuadraticOutputSystem

KEPT = 16
NOTE = (
    "Medians of warm runs: compilation and imports left out, random data from fixed seeds. Batched "
    "rows: time per system, ssmred amortised over {channels:,} systems, peers in a loop over "
    "{sample}, with one BLAS thread, which is fastest for them. "
    "python-control truncates no discrete system correctly and is left out there."
)


def truncated(system: DiagonalSystem) -> object:
    """Reduce half spectra to 16 real states, dense."""
    return BalancedReductor(form="dense").reduce(system, order=KEPT // 2)


def batched(channels: int, states: int, sample: int, least: float) -> list[list[str]]:
    """Measure many small systems."""
    system = cases.layer(channels, states)
    blocks = cases.modal(system, sample)
    case = [(blocks.A[k], blocks.B[k], blocks.C[k]) for k in range(sample)]

    def fresh(k: int) -> object:  # a model remembers its Gramians
        return peers.pymor_object(case[k])

    hankel = median_seconds(lambda: hankel_singular_values(system), least=least) / channels
    balanced = median_seconds(lambda: truncated(system), repeats=3, least=least) / channels
    by_slycot = seconds_each(lambda k: peers.slycot_balanced(case[k], KEPT), sample, least)
    hankel_peers = {
        "slycot": by_slycot,
        "SciPy": seconds_each(lambda k: peers.scipy_hankel(case[k]), sample, least),
    }
    balanced_peers = {
        "slycot": by_slycot,
        "SciPy": seconds_each(lambda k: peers.scipy_balanced(case[k], KEPT), sample, least),
    }
    pymor_hankel = seconds_each(lambda k: peers.pymor_hankel(fresh(k)), sample, least)
    pymor_balanced = seconds_each(lambda k: peers.pymor_balanced(fresh(k), KEPT), sample, least)
    what = f"{states} states, Hankel values"
    cut = f"{states} states, balanced truncation to {KEPT}"
    return [
        row(what, hankel, hankel_peers, 4),
        row(f"{what}, objects looped", hankel, {"pyMOR": pymor_hankel}, 100),
        row(cut, balanced, balanced_peers, 4),
        row(f"{cut}, objects looped", balanced, {"pyMOR": pymor_balanced}, 100),
    ]


def numpy_quadratic(system: QuadraticOutputSystem) -> tuple[float, np.ndarray]:
    """Return the norm and the errors of all single removals, all M_j multiplied out."""
    poles, B, C = system.A, system.B, system.C
    M = system.matrices()
    P = (B @ B.conj().T) / (1 - np.outer(poles, poles.conj()))
    seen = M @ P
    energy = np.trace(C @ P @ C.conj().T).real + np.sum(seen * np.swapaxes(seen, -1, -2)).real
    distance = 1 / np.diagonal(np.linalg.inv(P)).real
    images = np.einsum("pij,pji->i", seen, M).real
    inner = np.sum(np.abs(np.diagonal(M, axis1=-2, axis2=-1)) ** 2, axis=0)
    costs = distance * (np.sum(np.abs(C) ** 2, axis=0) + 2 * images - distance * inner)
    return float(np.sqrt(energy)), np.sqrt(np.maximum(costs, 0.0))


def quadratic(order: int, channels: int, least: float) -> list[str]:
    """Measure the norm and all single removals of one system with quadratic outputs."""
    system = cases.quadratic(order, channels)

    def ours() -> tuple[object, np.ndarray]:
        return h2_norm(system), quadratic_removal_errors(system)

    for found, wanted in zip(ours(), numpy_quadratic(system), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
    times = {
        "NumPy, M multiplied out": best_seconds(
            lambda: numpy_quadratic(system), repeats=3, least=least
        )
    }
    own = median_seconds(ours, repeats=3, least=least)
    what = f"{order} states, {channels} inputs, {channels} quadratic outputs"
    return row(f"{what}: norm and errors of all single removals", own, times, 1)


def layer(channels: int, states: int, length: int, least: float) -> list[list[str]]:
    """Measure a layer with quadratic outputs on 16 sequences, beside its convolution by FFT."""
    import torch  # not above: the processes whose memory is measured import this file

    from ssmred.networks.layers import LQOLayer, shared_state

    torch.manual_seed(0)
    module = LQOLayer(channels, states)
    signal = torch.randn(16, channels, length)

    def passed() -> torch.Tensor:
        with torch.no_grad():
            return module(signal)

    def learnt() -> torch.Tensor:
        return torch.autograd.grad(module(signal).square().sum(), list(module.parameters()))[0]

    what = f"layer of {channels} channels, {states} states, squares: 16 sequences of {length:,}"
    table = []
    for name, run in ((what, passed), (f"{what}, with gradients", learnt)):
        own = median_seconds(run, repeats=3, least=least)
        ours = run()
        with mock.patch.object(shared_state, "can_scan", return_value=False):
            gap = (run() - ours).abs().max()
            peer = median_seconds(run, repeats=3, least=least)
        assert gap <= 1e-4 * ours.abs().max()
        table.append(row(name, own, {"torch, FFT": peer}, 1))
    return table


def single(order: int, least: float) -> list[str]:
    """Measure the balanced truncation of one dense system to a tenth of its states."""
    case = cases.dense(order)
    system = DenseSystem(*case)
    kept = order // 10
    reductor = BalancedReductor(form="dense")
    ours = median_seconds(lambda: reductor.reduce(system, order=kept), repeats=3, least=least)
    times = {
        "slycot": best_seconds(lambda: peers.slycot_balanced(case, kept), repeats=3, least=least),
        "pyMOR": best_seconds(
            lambda: peers.pymor_balanced(peers.pymor_object(case), kept), repeats=3, least=least
        ),
    }
    return row(f"one dense balanced truncation, n = {order} to {kept}", ours, times, 1 / 1.5)


def growth(orders: list[int], channels: list[int], least: float) -> list[list[str]]:
    """Fit how time grows."""
    lines = []
    for name, run in (("Hankel values", hankel_singular_values), ("truncation", truncated)):
        for sizes, make, what in (
            (channels, lambda count: cases.layer(count, 64), "channels"),
            (orders, lambda order: cases.layer(16, order), "states"),
        ):
            taken = []
            for size in sizes:
                system = make(size)
                taken.append(
                    median_seconds(lambda s=system, f=run: f(s), repeats=3, least=least / 3)
                )
            spread = f"{shown(taken[0])} to {shown(taken[-1])}"
            value = f"exponent {exponent(sizes, taken):.2f} ({spread})"
            lines.append(plain(f"{name}, {sizes[0]} to {sizes[-1]:,} {what}", value))
    return lines


def run_nothing() -> None:
    """Import only."""


def run_hankel(channels: int, states: int) -> None:
    """Make a layer and its Hankel values."""
    hankel_singular_values(cases.layer(channels, states))


def run_truncation(channels: int, states: int) -> None:
    """Make a layer and truncate it."""
    truncated(cases.layer(channels, states))


def memory(channels: int, states: int) -> list[list[str]]:
    """Measure processes that do one thing each."""
    jobs: dict[str, tuple] = {
        "imports only": (run_nothing,),
        f"Hankel values, {channels:,} x {states}": (run_hankel, channels, states),
        f"balanced truncation, {channels:,} x {states}": (run_truncation, channels, states),
    }
    return [
        plain(f"peak memory of a process: {name}", f"{peak_mebibytes(*job):,.0f} MiB")
        for name, job in jobs.items()
    ]


def right_to_six(values: np.ndarray, exact: list) -> str:
    """Return down to which value, over the largest, all are right to 6 digits."""
    errors = cases.relative_errors(values, exact)
    wrong = np.flatnonzero(~(errors <= 1e-6))
    last = wrong[0] - 1 if wrong.size else len(exact) - 1
    return f"{float(exact[last] / exact[0]):.0e}" if last >= 0 else "none"


def accuracy() -> list[list[str]]:
    """Compare with 60-digit answers."""
    rows = []
    for name, system in cases.hard_cases().items():
        exact = cases.reference(name)[2]
        own = np.sort(np.asarray(hankel_singular_values(system)))[::-1]
        dense = _real_matrices(system)
        model = peers.pymor_object(dense, continuous=not system.is_discrete)
        found = {
            "slycot": _slycot_hankel(dense, "D" if system.is_discrete else "C"),
            "pyMOR": _padded(peers.pymor_hankel(model), len(exact)),
        }
        worst = {peer: cases.relative_errors(v, exact).max() for peer, v in found.items()}
        best = min(worst, key=worst.__getitem__)
        ours = cases.relative_errors(own, exact).max()
        rows.append(error_row(f"all Hankel values, {name}", ours, best, worst[best]))
        line = plain(f"smallest Hankel value right to 6 digits: {name}", right_to_six(own, exact))
        line[2:4] = [best, right_to_six(found[best], exact)]
        rows.append(line)
    # H = 1 / (z - (1 - 1e-12)): the norm is 1 / (1 - pole), at frequency 0
    edge = DiagonalSystem([1 - 1e-12], [1.0], [1.0])
    norm = hinf_norm(edge)
    exact_norm = 1 / (1 - (1 - 1e-12))
    gap = float(abs(norm.upper - exact_norm) / exact_norm)
    return [*rows, plain("relative error: H-infinity, pole 1 - 1e-12", f"{gap:.1e}")]


def _real_matrices(system: DiagonalSystem) -> tuple[np.ndarray, ...]:
    """Return real A, B, C of a system of real modes, or of conjugate pairs only."""
    if not system.poles.imag.any():
        return np.diag(system.poles.real), system.B.real, system.C.real
    up = system.poles.imag > 0
    half = DiagonalSystem(
        system.poles[up], system.B[up], 2 * system.C[:, up], dt=system.dt, real_output=True
    ).realified()
    return half.A, half.B, half.C


def _slycot_hankel(case: tuple, dico: str) -> np.ndarray:
    order = len(case[0])
    values = next(
        v
        for v in peers.slycot_balanced(case, order, dico)
        if isinstance(v, np.ndarray) and v.shape == (order,)
    )
    return _padded(values, order)


def _padded(values: np.ndarray, count: int) -> np.ndarray:
    return np.concatenate([values, np.full(count - len(values), np.nan)])


def measure(*, quick: bool) -> tuple[list[list[str]], str]:
    """Return all rows and the note on how they were found."""
    channels, sample, least = (32, 4, 0.0) if quick else (1536, 64, 0.3)
    note = NOTE.format(channels=channels, sample=sample) + " " + machine()
    rows = batched(channels, 64, sample, least)
    rows += [single(order, least) for order in ((100,) if quick else (100, 500))]
    rows.append(quadratic(*((32, 8) if quick else (256, 64)), least))
    rows.extend(layer(*((8, 8, 64) if quick else (64, 256, 2048)), least))
    orders = [16, 32] if quick else [16, 32, 64, 128, 256]
    rows += growth(orders, [8, 16] if quick else [64, 256, 1024, 4096], least)
    rows += memory(channels, 64)
    return rows + accuracy(), note


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smoke run in less than a minute")
    parser.add_argument("--dry", action="store_true", help="do not write docs/benchmarks.md")
    options = parser.parse_args()
    rows, note = measure(quick=options.quick)
    print(f"{table(rows, HEADERS)}\n\n{note}")
    if not (options.dry or options.quick):
        written("reductors", f"{markdown(rows, HEADERS)}\n\n{note}")


if __name__ == "__main__":
    main()
