"""Try to break the bounds of the reductors: random systems against independent lower bounds.

Thousands of random systems for every method: complex, with unequal numbers of inputs and outputs,
half spectra, poles next to the stability boundary, repeated and nearly repeated poles, dense
matrices far from normal, discrete and continuous, some of them unstable where a method takes that.
Every system is reduced to a random order, and the bound is held against a lower bound of the error
that shares no code with it, with zero slack: H-infinity errors against responses at and beside the
poles, their rounding subtracted; h2 errors against the closed form of the energy in 230 bits; those
over a horizon against samples, their rounding subtracted. Exits 1 on any violation.

"raised" counts the systems where a claim, which holds in exact arithmetic, is below the error of
the system as stored, so that `Reduction.bound` had to be raised to the enclosure of that error:
poles at 1e-12 from the boundary are rounded by 1e-4 of that distance. "refused" are AccuracyErrors.

Random numbers come from --seed alone. A run over all methods also goes into `docs/benchmarks.md`,
unless `--dry`. `--quick` is 300 systems for every method.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context

import numpy as np
from lower_bounds import (
    ORDER,
    System,
    energies,
    energies_over,
    mode_sizes,
    nearness,
    sampled_error,
    singles,
)
from rich.progress import Progress
from timing import markdown, written

from ssmred.errors import AccuracyError
from ssmred.reductors import (
    BalancedReductor,
    H2OptimalReductor,
    HankelReductor,
    ModalReductor,
    Reduction,
    Reductor,
    ResidualisedReductor,
    SplitReductor,
    SubsetReductor,
)
from ssmred.report import table
from ssmred.systems import DenseSystem, DiagonalSystem

HORIZON = 24
BATCH = 250
"""Systems that are reduced together."""

SHOWN = 5
"""Violations and refusals of a method that are printed."""

EVALUATED = 1e-12
"""Rounding of an evaluated h2 norm, as a share of itself and of the modes it is made of."""


# --- random systems -------------------------------------------------------------------------------


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Return complex numbers of random size, over two decades."""
    size = 10 ** rng.uniform(-1, 1, shape)
    return size * (rng.standard_normal(shape) + 1j * rng.standard_normal(shape))


def poles_inside(rng: np.random.Generator, count: int, continuous: bool) -> np.ndarray:
    """Return stable poles of every kind, ORDER for each system."""
    shape = (count, ORDER)
    if continuous:
        rate = 10 ** rng.uniform(-2, 2, shape)
        return -rate + 1j * rng.standard_normal(shape) * 10 ** rng.uniform(-2, 2, shape)
    return np.sqrt(rng.random(shape)) * np.exp(2j * np.pi * rng.random(shape))


def poles_near_the_boundary(rng: np.random.Generator, count: int, continuous: bool) -> np.ndarray:
    """Return poles at distances from 1e-12 to 0.1 from the boundary, some of them neighbours."""
    shape = (count, ORDER)
    gap, angle = 10 ** rng.uniform(-12, -1, shape), 2 * np.pi * rng.random(shape)
    close = rng.random(shape) < 0.3
    angle = np.where(close, angle[:, :1] + gap * rng.standard_normal(shape), angle)
    return -gap + 5j * np.sin(angle) if continuous else (1 - gap) * np.exp(1j * angle)


def poles_repeated(rng: np.random.Generator, count: int, continuous: bool) -> np.ndarray:
    """Return three poles for every system, each several times, exactly or nearly so."""
    sites = poles_inside(rng, count, continuous)[:, :3]
    poles = np.take_along_axis(sites, rng.integers(0, 3, (count, ORDER)), axis=-1)
    nearly = rng.random((count, ORDER)) < 0.5
    return poles * np.where(nearly, 1 - 10 ** rng.uniform(-14, -3, poles.shape), 1)


def diagonal(
    rng: np.random.Generator,
    count: int,
    poles: Callable[[np.random.Generator, int, bool], np.ndarray],
    *,
    m: int = 1,
    p: int = 1,
    continuous: bool = False,
    real: bool = False,
    recurrence: str = "standard",
) -> DiagonalSystem:
    """Return a batch of diagonal systems; ``real`` are half spectra with some real poles."""
    places = poles(rng, count, continuous)
    B, C = normal(rng, count, ORDER, m), normal(rng, count, p, ORDER)
    D = normal(rng, count, p, m)
    if real:
        own = rng.random(places.shape) < 0.2
        size = places.real if continuous else np.abs(places) * np.sign(places.real)
        places = np.where(own, size, places)
        B = np.where(own[..., None], B.real, B)
        D = D.real
    B *= rng.random(B.shape) < 0.95  # an input that does not reach a mode
    return DiagonalSystem(
        places, B, C, D, 0.0 if continuous else 0.5, recurrence=recurrence, real_output=real
    )


def dense(
    rng: np.random.Generator, count: int, *, m: int, p: int, continuous: bool, real: bool
) -> DenseSystem:
    """Return a batch of dense systems, far from normal; spectral radius 0.3 to 1 - 1e-4."""
    n = ORDER
    A = normal(rng, count, n, n)
    B, C, D = normal(rng, count, n, m), normal(rng, count, p, n), normal(rng, count, p, m)
    if real:
        A, B, C, D = A.real, B.real, C.real, D.real
    poles = np.linalg.eigvals(A)
    if continuous:
        margin = 10 ** rng.uniform(-3, 1, count)
        A = A - (poles.real.max(axis=-1) + margin)[:, None, None] * np.eye(n)
    else:
        radius = 1 - 10 ** rng.uniform(-4, -0.2, count)
        A = A * (radius / np.abs(poles).max(axis=-1))[:, None, None]
    return DenseSystem(A, B, C, D, 0.0 if continuous else 1.0)


def partly_unstable(rng: np.random.Generator, system: DiagonalSystem) -> DiagonalSystem:
    """Return diagonal systems with none to three poles on or outside the boundary."""
    shape = system.poles.shape
    outer = np.arange(ORDER) < rng.integers(0, 4, (shape[0], 1))
    gap = np.where(rng.random(shape) < 0.2, 0.0, 10 ** rng.uniform(-9, 0, shape))
    if system.is_discrete:
        # on the circle exactly: 1, j, -1, -j
        turn = np.where(
            gap > 0, np.exp(2j * np.pi * rng.random(shape)), 1j ** rng.integers(0, 4, shape)
        )
        return system.replace(poles=np.where(outer, (1 + gap) * turn, system.poles))
    return system.replace(poles=np.where(outer, gap + 1j * system.poles.imag, system.poles))


FAMILIES: dict[str, Callable[[np.random.Generator, int], System]] = {
    "complex": lambda r, k: diagonal(r, k, poles_inside),
    "complex, post-update": lambda r, k: diagonal(r, k, poles_inside, recurrence="post-update"),
    "complex, near": lambda r, k: diagonal(r, k, poles_near_the_boundary),
    "complex, repeated": lambda r, k: diagonal(r, k, poles_repeated),
    "complex, continuous": lambda r, k: diagonal(r, k, poles_inside, continuous=True),
    "complex, continuous, near": lambda r, k: diagonal(
        r, k, poles_near_the_boundary, continuous=True
    ),
    "half": lambda r, k: diagonal(r, k, poles_inside, real=True),
    "half, post-update, near": lambda r, k: diagonal(
        r, k, poles_near_the_boundary, real=True, recurrence="post-update"
    ),
    "half, repeated": lambda r, k: diagonal(r, k, poles_repeated, real=True),
    "half, continuous": lambda r, k: diagonal(r, k, poles_inside, real=True, continuous=True),
    "3 x 2": lambda r, k: diagonal(r, k, poles_inside, m=2, p=3),
    "3 x 2, near": lambda r, k: diagonal(r, k, poles_near_the_boundary, m=2, p=3),
    "3 x 2, repeated": lambda r, k: diagonal(r, k, poles_repeated, m=2, p=3),
    "2 x 3, half, post-update": lambda r, k: diagonal(
        r, k, poles_inside, m=3, p=2, real=True, recurrence="post-update"
    ),
    "2 x 3, half, near": lambda r, k: diagonal(r, k, poles_near_the_boundary, m=3, p=2, real=True),
    "3 x 2, continuous, near": lambda r, k: diagonal(
        r, k, poles_near_the_boundary, m=2, p=3, continuous=True
    ),
    "dense": lambda r, k: dense(r, k, m=2, p=3, continuous=False, real=True),
    "dense, one input": lambda r, k: dense(r, k, m=1, p=1, continuous=False, real=True),
    "dense, complex": lambda r, k: dense(r, k, m=3, p=2, continuous=False, real=False),
    "dense, continuous": lambda r, k: dense(r, k, m=2, p=1, continuous=True, real=True),
    "dense, continuous, complex": lambda r, k: dense(r, k, m=1, p=2, continuous=True, real=False),
}
DIAGONAL = [name for name in FAMILIES if "dense" not in name]
SINGLE = [name for name in DIAGONAL if " x " not in name]
DISCRETE = [name for name in FAMILIES if "continuous" not in name]
UNSTABLE: dict[str, Callable[[np.random.Generator, int], System]] = {
    f"{name}, unstable": lambda r, k, name=name: partly_unstable(r, FAMILIES[name](r, k))
    for name in DIAGONAL
}


@dataclass(frozen=True)
class Method:
    """A claim to break: how the reductor is made, and which systems it takes."""

    make: Callable[[], Reductor]
    families: tuple[str, ...] = tuple(FAMILIES)


METHODS: dict[str, Method] = {
    "subset": Method(SubsetReductor, tuple(DIAGONAL)),
    "subset, horizon": Method(
        lambda: SubsetReductor(horizon=HORIZON),
        tuple(name for name in DIAGONAL if name in DISCRETE)
        + tuple(name for name in UNSTABLE if "continuous" not in name),
    ),
    "balanced": Method(BalancedReductor),
    "balanced, horizon": Method(
        lambda: BalancedReductor(horizon=HORIZON),
        tuple(DISCRETE) + tuple(name for name in UNSTABLE if "continuous" not in name),
    ),
    "residualised": Method(ResidualisedReductor),
    "hankel": Method(HankelReductor),
    "hankel, Glover": Method(lambda: HankelReductor(method="glover")),
    "modal": Method(ModalReductor),
    "modal, static gain": Method(lambda: ModalReductor(match_dc=True, measure="h2")),
    "h2-optimal": Method(H2OptimalReductor),
    "split, balanced": Method(lambda: SplitReductor(BalancedReductor()), tuple(UNSTABLE)),
    "split, Hankel": Method(lambda: SplitReductor(HankelReductor()), tuple(UNSTABLE)),
    "split, subset": Method(lambda: SplitReductor(SubsetReductor()), tuple(UNSTABLE)),
    "split at 0.7, residualised": Method(
        lambda: SplitReductor(ResidualisedReductor(), boundary=0.7), tuple(DISCRETE)
    ),
}


# --- the search -----------------------------------------------------------------------------------


@dataclass
class Row:
    """What became of one claim."""

    method: str
    norm: str = ""
    systems: int = 0
    orders: tuple[int, int] = (ORDER, 0)
    worst: float = 0.0
    violations: int = 0
    raised: int = 0
    refused: int = 0
    seconds: float = 0.0
    remarks: list[str] = field(default_factory=list)

    def add(self, other: Row) -> None:
        """Add what became of the same claim on other systems."""
        self.norm = self.norm or other.norm
        for name in ("systems", "violations", "raised", "refused", "seconds"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.orders = (
            min(self.orders[0], other.orders[0]),
            max(self.orders[1], other.orders[1]),
        )
        self.worst = max(self.worst, other.worst)
        self.remarks += other.remarks

    def cells(self) -> list[str]:
        """Return the line of the table."""
        return [
            self.method,
            self.norm,
            f"{self.systems:,}",
            "{} to {}".format(*self.orders),
            f"{self.worst:.12g}",
            str(self.violations),
            str(self.raised),
            str(self.refused),
            f"{self.seconds:.0f}",
        ]


HEADERS = [
    "method",
    "error",
    "systems",
    "orders",
    "largest error / bound",
    "violations",
    "raised",
    "refused",
    "seconds",
]


def judged(full: System, reduction: Reduction) -> tuple[np.ndarray, np.ndarray]:
    """Return lower bounds of the errors (H,), and which bounds are violated."""
    bound = reduction.bound
    assert bound is not None
    value = bound.value
    if bound.norm == "hinf":
        error = sampled_error(full, reduction.system)
        return error, error > value
    if bound.norm == "h2":
        error = energies(full, reduction.system)
        slack = EVALUATED * (error + mode_sizes(full) + mode_sizes(reduction.system))
        if isinstance(full, DenseSystem):  # rounding of A is as large as it is near the boundary
            slack = slack / nearness(full)
    else:
        horizon = int(bound.norm.rsplit(" ", 1)[1])
        error, rounding = energies_over(full, reduction.system, horizon)
        none = full.replace(C=0 * full.C, D=0 * full.D)
        slack = rounding + EVALUATED * (error + energies_over(full, none, horizon)[0])
    # the value is the error itself, evaluated in float64
    assert bound.exact
    return np.maximum(error - slack, 0.0), np.abs(error - value) > slack


def fewest(system: System, method: Method) -> np.ndarray:
    """Return the least order (H,) of every system."""
    reductor = method.make()
    if not isinstance(reductor, SplitReductor):
        return np.zeros(len(system.B), np.int64)
    errors = reductor.path(system).errors
    return ORDER + 1 - np.isfinite(errors).sum(axis=-1)


def attempt(full: System, method: Method, kept: np.ndarray, row: Row, family: str) -> None:
    """Reduce one batch and add what came of it to the row; refused batches one by one."""
    try:
        reduction = method.make().path(full).reduction(kept)
        error, broken = judged(full, reduction)
    except AccuracyError as refusal:
        if len(kept) == 1:
            row.refused += 1
            row.remarks.append(f"{family}, order {kept[0]}: {refusal}")
            return
        for one, order in zip(singles(full), kept, strict=True):
            names = ("poles" if isinstance(one, DiagonalSystem) else "A", "B", "C", "D")
            batch = one.replace(**{name: getattr(one, name)[None] for name in names})
            attempt(batch, method, np.array([order]), row, family)
        return
    row.norm = reduction.bound.norm
    row.systems += len(kept)
    row.violations += int(broken.sum())
    bound, claim = reduction.bound.value, reduction.claim.value
    row.raised += int(np.sum((error > claim) & ~broken))
    lowest, highest = row.orders
    row.orders = (min(lowest, int(kept.min())), max(highest, int(kept.max())))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(error > 0, error / bound, 0.0)
    row.worst = max(row.worst, float(ratio.max(initial=0.0)))
    row.remarks += [
        f"{family}, order {kept[h]}: {float(error[h])!r} against {float(bound[h])!r}"
        for h in np.flatnonzero(broken)
    ]


def search_family(name: str, number: int, systems: int, seed: int) -> Row:
    """Return what became of the claim of a method on random systems of one of its families."""
    method, row = METHODS[name], Row(name)
    family = method.families[number]
    rng = np.random.default_rng([seed, number])
    start = time.perf_counter()
    while row.systems + row.refused < systems:
        count = min(systems - row.systems - row.refused, BATCH)
        full = (FAMILIES | UNSTABLE)[family](rng, count)
        least = fewest(full, method)
        kept = rng.integers(least, np.maximum(least + 1, ORDER))
        attempt(full, method, kept, row, family)
    row.seconds = time.perf_counter() - start
    return row


def shares(name: str, systems: int) -> list[int]:
    """Return how many of the systems each family of a method contributes."""
    families = len(METHODS[name].families)
    return [systems // families + (number < systems % families) for number in range(families)]


def search(name: str, systems: int, seed: int) -> Row:
    """Return what became of the claim of one method on so many random systems."""
    row = Row(name)
    for number, share in enumerate(shares(name, systems)):
        row.add(search_family(name, number, share, seed))
    return row


def searched(names: list[str], systems: int, seed: int, jobs: int) -> list[Row]:
    """Return the rows of several methods, searched in processes of one thread each."""
    rows = {name: Row(name) for name in names}
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[variable] = "1"  # of the new processes
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool, Progress() as bars:
        task = bars.add_task("systems", total=systems * len(names))
        futures = {
            pool.submit(search_family, name, number, share, seed): share
            for name in names
            for number, share in enumerate(shares(name, systems))
        }
        for future in as_completed(futures):
            part = future.result()
            rows[part.method].add(part)
            bars.advance(task, futures[future])
    return list(rows.values())


def main() -> int:
    """Search all methods, print the table, return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--systems", type=int, default=10_000, help="for every method")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="300 systems for every method")
    parser.add_argument("--dry", action="store_true", help="do not write docs/benchmarks.md")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    wish = parser.parse_args()
    systems = 300 if wish.quick else wish.systems
    start = time.perf_counter()
    rows = searched(wish.methods, systems, wish.seed, wish.jobs)
    cells = [row.cells() for row in rows]
    note = f"{time.perf_counter() - start:.0f} s in {wish.jobs} processes, seed {wish.seed}."
    print(f"{table(cells, HEADERS)}\n\n{note}")
    if not (wish.dry or wish.quick or len(rows) < len(METHODS)):
        written("soundness-systems", f"{markdown(cells, HEADERS)}\n\n{note}")
    for row in rows:
        for line in row.remarks[:SHOWN]:
            print(f"{row.method}: {line}")
    return int(any(row.violations for row in rows))


if __name__ == "__main__":
    sys.exit(main())
