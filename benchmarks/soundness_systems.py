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
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context

import numpy as np
from flint import acb, acb_mat, arb, ctx
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
from ssmred.systems import DenseSystem, DiagonalSystem, stability_margins

System = DiagonalSystem | DenseSystem
ORDER = 6
HORIZON = 24
BATCH = 250
"""Systems that are reduced together."""

SHOWN = 5
"""Violations and refusals of a method that are printed."""

UNIT = 2.0**-52
BITS = 230
OUTWARD = 1 + 2.0**-50
"""Puts a rounded point of the circle outside: there no stable response exceeds its norm either."""

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


# --- independent lower bounds ---------------------------------------------------------------------


def whole(system: System) -> System:
    """Return the same map without the Re in the output equation; no number is rounded."""
    return system.full_spectrum() if isinstance(system, DiagonalSystem) else system


def points(systems: tuple[System, System]) -> tuple[np.ndarray, np.ndarray]:
    """Return angles or frequencies (H, W) at, beside and between poles, and the widths there."""
    full = systems[0]
    poles = np.concatenate([one.poles for one in systems], axis=-1)
    if full.is_discrete:
        centres, widths = np.angle(poles), np.abs(1 - np.abs(poles))
        between = np.broadcast_to(np.linspace(-np.pi, np.pi, 16), (len(poles), 16))
    else:
        centres, widths = poles.imag, np.abs(poles.real)
        size = np.abs(poles).max(axis=-1, initial=1e-300, keepdims=True)
        ladder = np.concatenate([[0.0], np.logspace(-3, 1, 8), -np.logspace(-3, 1, 8)])
        between = size * ladder
    steps = (0.0, 1.0, -1.0, 0.3, -0.3, 4.0, -4.0)
    around = np.concatenate([centres + step * widths for step in steps], axis=-1)
    spread = np.tile(widths, len(steps))
    rest = np.full(between.shape, np.median(widths) if widths.size else 1.0)
    return np.concatenate([around, between], axis=-1), np.concatenate([spread, rest], axis=-1)


def on_boundary(places: np.ndarray, discrete: bool) -> np.ndarray:
    """Return float64 points on the imaginary axis, or on the unit circle or just outside it."""
    if not discrete:
        return 1j * places
    return (np.cos(places) + 1j * np.sin(places)) * OUTWARD


def response(system: System, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the responses (H, W, p, m) at points (H, W), and how far rounding may move each."""
    if isinstance(system, DenseSystem):
        return dense_response(system, z)
    gaps = z[..., None] - system.poles[:, None, :]
    lift = z[..., None] if system.is_post_update else 1.0
    with np.errstate(all="ignore"):  # a point on a pole: inf, thrown away by the caller
        kernel = lift / gaps
        residues = system.C[:, :, :, None] * system.B[:, None, :, :]  # (H, p, n, m)
        H = np.einsum("hwn,hpnm->hwpm", kernel, residues) + system.D[:, None]
        size = np.einsum("hwn,hpnm->hwpm", np.abs(kernel), np.abs(residues))
    return H, UNIT * ((system.order + 24) * size + np.abs(system.D[:, None]))


def dense_response(system: DenseSystem, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the responses by solves, their rounding bounded by the residuals."""
    n = system.order
    A, B, C, D = (np.asarray(x)[:, None] for x in (system.A, system.B, system.C, system.D))
    if n == 0:
        H = np.broadcast_to(D + 0j, (*z.shape, *D.shape[-2:]))
        return H, UNIT * np.abs(H)
    resolvent = z[..., None, None] * np.eye(n) - A
    inverse = np.linalg.inv(resolvent)
    X = inverse @ B
    unit = (n + 8) * UNIT
    missed = np.abs(B - resolvent @ X) + unit * (np.abs(B) + np.abs(resolvent) @ np.abs(X))
    # twice: the computed inverse stands for the true one
    doubt = 2 * (np.abs(C) @ (np.abs(inverse) @ missed)) + unit * (np.abs(C) @ np.abs(X))
    lift = z[..., None, None] if system.is_post_update else 1.0
    H = lift * (C @ X) + D
    return H, doubt + unit * (np.abs(C @ X) + np.abs(D))


def sampled_error(full: System, reduced: System) -> np.ndarray:
    """Return a lower bound (H,) of the H-infinity norm of the error."""
    systems = whole(full), whole(reduced)
    discrete = full.is_discrete
    places, widths = points(systems)
    best = np.zeros(len(places))
    for _ in range(3):
        z = on_boundary(places, discrete)
        (one, doubt_one), (two, doubt_two) = (response(system, z) for system in systems)
        with np.errstate(all="ignore"):
            gap, doubt = one - two, doubt_one + doubt_two
            usable = (np.isfinite(gap) & np.isfinite(doubt)).all(axis=(-2, -1), keepdims=True)
            gap, doubt = (np.where(usable, x, 0) for x in (gap, doubt))
            gains = np.linalg.norm(gap, 2, axis=(-2, -1)) * (1 - 1e-14)
            gains = gains - np.linalg.norm(doubt, axis=(-2, -1)) - UNIT * np.abs(gap).sum((-2, -1))
        peak = gains.argmax(axis=-1)[:, None]
        best = np.maximum(best, np.take_along_axis(gains, peak, axis=-1)[:, 0])
        # again around the largest
        centre, width = (np.take_along_axis(x, peak, axis=-1) for x in (places, widths))
        places, widths = centre + width * np.linspace(-0.5, 0.5, 21), width * np.full(21, 0.1)
    return best


def balls(array: np.ndarray) -> acb_mat:
    """Return the numbers of a matrix as they are."""
    return acb_mat(*array.shape, [acb(x.real, x.imag) for x in array.ravel().tolist()])


@ctx.workprec(BITS)
def energies(full: System, reduced: System) -> np.ndarray:
    """Return the h2 norms (H,) of the errors, rounded to float64 at the end."""
    full, reduced = whole(full), whole(reduced)
    return np.array(
        [_energy(one, two) for one, two in zip(singles(full), singles(reduced), strict=True)]
    )


def _energy(full: System, reduced: System) -> float:
    if isinstance(full, DiagonalSystem) and isinstance(reduced, DiagonalSystem):
        total = _modal_energy(full, reduced)
    else:
        total = _gramian_energy(full.to_dense(), reduced.to_dense())
    return float(np.sqrt(max(float(total.mid()), 0.0)))


def _modal_energy(full: DiagonalSystem, reduced: DiagonalSystem) -> arb:
    residues: dict[complex, acb_mat] = {}
    direct = balls(full.D) - balls(reduced.D)
    for system, sign in ((full, 1), (reduced, -1)):
        for i, pole in enumerate(system.poles.tolist()):
            product = sign * (balls(system.C[:, i : i + 1]) * balls(system.B[i : i + 1]))
            if system.is_post_update:
                direct += product
                product = acb(pole.real, pole.imag) * product
            residues[pole] = residues[pole] + product if pole in residues else product
    alive = [(acb(l.real, l.imag), r.entries()) for l, r in residues.items() if square(r) != 0]
    poles = [pole for pole, _ in alive]
    width = full.inputs * full.outputs
    rows = acb_mat(len(alive), width, [x for _, row in alive for x in row])
    products = rows * rows.conjugate().transpose()
    total = square(direct)
    for i, pole in enumerate(poles):
        for j, other in enumerate(poles):
            mirror = other.conjugate()
            gap = 1 - pole * mirror if full.is_discrete else -(pole + mirror)
            total += (products[i, j] / gap).real
    return total


def _gramian_energy(full: DenseSystem, reduced: DenseSystem) -> arb:
    n, extra = full.order, reduced.order
    A = np.zeros((n + extra, n + extra), complex)
    A[:n, :n], A[n:, n:] = full.A, reduced.A
    a, b = balls(A), balls(np.concatenate([full.B, reduced.B]) + 0j)
    c = balls(np.concatenate([full.C, -reduced.C], axis=1) + 0j)
    d = balls(full.D + 0j) - balls(reduced.D + 0j)
    if full.is_post_update:
        c, d = c * a, d + c * b
    if not full.is_discrete:  # the Cayley image has the same Gramian
        size = arb(max(1.0, float(np.abs(A).max())))
        eye = balls(np.eye(n + extra) + 0j)
        gap = acb(size) * eye - a
        a, b = gap.solve(acb(size) * eye + a).mid(), (gap.solve(b) * acb((2 * size).sqrt())).mid()
    P = b * b.conjugate().transpose()
    for _ in range(80):
        P = (P + a * P * a.conjugate().transpose()).mid()
        a = (a * a).mid()
        if square(a).mid() < arb(10) ** -120:
            break
    energy = c * P * c.conjugate().transpose()
    return sum((energy[i, i].real for i in range(energy.nrows())), square(d))


def square(matrix: acb_mat) -> arb:
    """Return the sum of the squared moduli of the entries."""
    return sum((x.real * x.real + x.imag * x.imag for x in matrix.entries()), arb(0))


def mode_sizes(system: System) -> np.ndarray:
    """Return the sum (H,) of the h2 norms of the stable modes, which rounding is relative to."""
    system = whole(system)
    if isinstance(system, DenseSystem):
        none = system.replace(A=system.A[:, :0, :0], B=system.B[:, :0], C=system.C[:, :, :0])
        return energies(system, none)
    margins = stability_margins(system) * (1 if system.is_discrete else 2)
    residues = np.linalg.norm(system.C, axis=-2) * np.linalg.norm(system.B, axis=-1)
    sizes = np.where(margins > 0, residues / np.sqrt(np.abs(margins) + (margins <= 0)), 0)
    return sizes.sum(axis=-1) + np.linalg.norm(system.D, axis=(-2, -1))


def nearness(system: System) -> np.ndarray:
    """Return the smallest distances (H,) of poles from the boundary, relative to the matrix."""
    size = 1.0 if system.is_discrete else np.linalg.norm(system.to_dense().A, 2, axis=(-2, -1))
    return np.minimum(stability_margins(system).min(axis=-1) / size, 1.0)


def energies_over(full: System, reduced: System, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the h2 norms (H,) of the errors over the first samples, and their rounding."""
    (one, size_one), (two, size_two) = (
        samples(whole(s).to_dense(), horizon) for s in (full, reduced)
    )
    rounding = (4 * ORDER + 2) * (horizon + 4) * UNIT
    axes = (0, 2, 3)
    error = np.sqrt(np.sum(np.abs(one - two) ** 2, axis=axes))
    return error, rounding * np.sqrt(np.sum((size_one + size_two) ** 2, axis=axes))


def samples(system: DenseSystem, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the impulse responses (T, H, p, m), and those of the moduli of all matrices."""
    both = []
    for part in (np.asarray, np.abs):
        A, B, C, D = (part(x) for x in (system.A, system.B, system.C, system.D))
        states, rows = B, []
        for k in range(horizon):
            h = D if k == 0 else np.zeros_like(D)
            if system.is_post_update or k:
                h = h + C @ states
                states = A @ states
            rows.append(h)
        both.append(np.stack(rows))
    return both[0], both[1]


def singles(system: System) -> Iterator[System]:
    """Return the channels of a flat batch."""
    names = ("poles" if isinstance(system, DiagonalSystem) else "A", "B", "C", "D")
    for h in range(len(system.B)):
        yield system.replace(**{name: getattr(system, name)[h] for name in names})


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
