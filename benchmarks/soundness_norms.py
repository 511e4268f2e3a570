"""Try to break the H-infinity enclosures: random systems against two independent methods.

Every enclosure is held, with zero slack, against

- dense sampling: the frequency response on a grid and next to every pole, in float64, the best
  points evaluated once more in ball arithmetic: a lower bound of the norm;
- the Hamiltonian matrix of Boyd, Balakrishnan and Kabamba at ``gamma = upper`` and ``lower``, at
  320 bits: gamma exceeds the norm exactly if no eigenvalue is on the imaginary axis. Systems in
  discrete time are carried over by the bilinear map, in the same arithmetic.

Nothing here uses the library's own evaluation, differences or conversions. The table goes into
`docs/benchmarks.md` too, unless `--dry`. Exits 1 on any violation, or where the eigenvalues leave a
case undecided.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass

import flint
import numpy as np
from rich.console import Console
from rich.progress import track
from timing import markdown, written

from ssmred.errors import AccuracyError
from ssmred.norms import Enclosure, hinf_error, hinf_norm, linf_norm
from ssmred.report import table
from ssmred.systems import DenseSystem, DiagonalSystem

BITS = 320
ON_AXIS, OFF_AXIS = 1e-36, 1e-27
"""Real parts relative to eigenvalues: rounding is near 1e-60, and eigenvalues off the axis are
further away than the square root of the relative distance to the norm times that of the poles."""
RTOL = 1e-6
BACKWARD = 64  # units in the last place for each state that a Schur form may cost, both sides
GRID = 256

System = DiagonalSystem | DenseSystem
Case = tuple[Callable[..., Enclosure], tuple[System, ...]]


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


def random_poles(rng: np.random.Generator, n: int, slowest: float, discrete: bool) -> np.ndarray:
    """Return stable poles, their distances from the boundary spread over decades."""
    gap = 10.0 ** rng.uniform(math.log10(slowest), -0.2, n)
    if discrete:
        poles = (1 - gap) * np.exp(1j * rng.uniform(-np.pi, np.pi, n))
        return np.where(rng.random(n) < 0.1, 1 - gap, poles)
    return 10.0 ** rng.uniform(-2, 2, n) * (-gap + 1j * rng.normal(size=n))


def diagonal(
    rng: np.random.Generator, *, slowest: float = 1e-3, discrete: bool = True, most: int = 6, **form
) -> DiagonalSystem:
    """Return a diagonal system of 1 to ``most`` poles, 1 to 3 inputs and outputs."""
    n, m, p = (int(k) for k in (rng.integers(1, most + 1), *rng.choice([1, 1, 2, 3], 2)))
    B, C = normal(rng, n, m), normal(rng, p, n)
    D = rng.normal(size=(p, m)) * rng.choice([0.0, 1.0, 10.0])
    dt = float(rng.choice([1.0, 0.1])) if discrete else 0.0
    if discrete:
        form = {"recurrence": str(rng.choice(["standard", "post-update"]))} | form
    return DiagonalSystem(random_poles(rng, n, slowest, discrete), B, C, D, dt, **form)


def repeated(rng: np.random.Generator) -> DiagonalSystem:
    """Return a system with poles at 0, equal and nearly equal poles, and silent modes."""
    system = diagonal(rng, real_output=bool(rng.random() < 0.5))
    poles, B = system.poles.copy(), system.B.copy()
    poles[rng.integers(poles.size)] = 0.0
    poles[-1] = poles[0] * (1 + rng.choice([0.0, 1e-15, 1e-9]))
    B[rng.integers(len(B))] *= rng.choice([0.0, 1.0])
    return system.replace(poles=poles, B=B)


def all_pass(rng: np.random.Generator) -> DenseSystem:
    """Return a chain of Blaschke factors, |H| = 1 up to rounding of its matrices."""
    A, B, C, D = np.zeros((0, 0)), np.zeros((0, 1)), np.zeros((1, 0)), np.ones((1, 1))
    for pole in random_poles(rng, int(rng.integers(1, 6)), 1e-2, True):
        # (1 - conj(l) z) / (z - l) = -conj(l) + (1 - |l|^2) / (z - l)
        size = math.sqrt((1 - abs(pole)) * (1 + abs(pole)))
        A = np.block([[A, np.zeros((len(A), 1))], [size * C, np.full((1, 1), pole)]])
        B = np.vstack([B, size * D])
        C, D = np.hstack([-np.conj(pole) * C, [[size]]]), -np.conj(pole) * D
    return DenseSystem(A, B, C, D)


def dense(rng: np.random.Generator, *, slowest: float = 1e-3, discrete: bool = True) -> DenseSystem:
    """Return a dense system, real or complex, far from normal in a third of the cases."""
    system = diagonal(rng, slowest=slowest, discrete=discrete, real_output=True)
    real = bool(rng.random() < 0.5)
    one = system.realified() if real else system.replace(real_output=False).to_dense()
    n = one.order
    T = np.eye(n) + 0.3 * (rng.normal(size=(n, n)) if real else normal(rng, n, n))
    if rng.random() < 0.3:
        T = T * 10.0 ** rng.uniform(-2, 2, n)
    solve = np.linalg.solve
    return one.replace(A=solve(T, one.A) @ T, B=solve(T, one.B), C=one.C @ T)


def small_error(rng: np.random.Generator) -> Case:
    """Return a system and one that differs in the read-out by 1e-14 to 1e-2 of it."""
    full = diagonal(rng, slowest=1e-6, most=3, real_output=bool(rng.random() < 0.5))
    change = 10.0 ** rng.uniform(-14, -2) * normal(rng, *full.C.shape)
    return hinf_error, (full, full.replace(C=full.C * (1 + change)))


def mirrored(rng: np.random.Generator) -> Case:
    """Return a system with poles on both sides of the boundary."""
    discrete = bool(rng.random() < 0.5)
    system = diagonal(rng, slowest=1e-6, discrete=discrete)
    outside = rng.random(system.order) < 0.5
    mirror = 1 / system.poles.conj() if discrete else -system.poles.conj()
    system = system.replace(poles=np.where(outside, mirror, system.poles))
    return linf_norm, (system if rng.random() < 0.7 else system.to_dense(),)


def static(rng: np.random.Generator) -> DiagonalSystem:
    """Return a gain without states, or with states that do nothing."""
    system = diagonal(rng)
    kept = 0 if rng.random() < 0.5 else system.order
    return system.replace(
        poles=system.poles[:kept],
        B=0 * system.B[:kept],
        C=system.C[:, :kept],
        recurrence="standard",
    )


CLASSES: dict[str, Callable[[np.random.Generator], Case]] = {
    "diagonal, complex": lambda rng: (hinf_norm, (diagonal(rng),)),
    "diagonal, real outputs": lambda rng: (hinf_norm, (diagonal(rng, real_output=True),)),
    "diagonal, poles to 1 - 1e-12": lambda rng: (hinf_norm, (diagonal(rng, slowest=1e-12),)),
    "diagonal, poles at 0, equal": lambda rng: (hinf_norm, (repeated(rng),)),
    "diagonal, continuous": lambda rng: (
        hinf_norm,
        (diagonal(rng, slowest=1e-9, discrete=False, real_output=bool(rng.random() < 0.5)),),
    ),
    "errors of 1e-2 to 1e-14": small_error,
    "poles on both sides": mirrored,
    "no dynamics": lambda rng: (hinf_norm, (static(rng),)),
    "all-pass": lambda rng: (hinf_norm, (all_pass(rng),)),
    "dense, discrete": lambda rng: (hinf_norm, (dense(rng),)),
    "dense, continuous": lambda rng: (hinf_norm, (dense(rng, discrete=False),)),
    "dense, poles to 1 - 1e-8": lambda rng: (hinf_norm, (dense(rng, slowest=1e-8),)),
}


# Exact forms


def ball(value: complex) -> flint.acb:
    return flint.acb(float(np.real(value)), float(np.imag(value)))


def balls(matrix: np.ndarray) -> flint.acb_mat:
    n, m = matrix.shape
    return flint.acb_mat(n, m, [ball(x) for x in matrix.ravel()])


def adjoint(M: flint.acb_mat) -> flint.acb_mat:
    return M.transpose().conjugate()


def identity(n: int) -> flint.acb_mat:
    return flint.acb_mat(n, n, [int(i == k) for i in range(n) for k in range(n)])


def blocks(rows: list[list[flint.acb_mat]]) -> flint.acb_mat:
    """Return a block matrix."""
    heights, widths = [row[0].nrows() for row in rows], [M.ncols() for M in rows[0]]
    entries = [
        M[i, k] for row, n in zip(rows, heights, strict=True) for i in range(n) for M in row
        for k in range(M.ncols())
    ]  # fmt: skip
    return flint.acb_mat(sum(heights), sum(widths), entries)


def zeros(n: int, m: int) -> flint.acb_mat:
    return flint.acb_mat(n, m)


@dataclass(frozen=True)
class Exact:
    """Hold the stored numbers of a system as balls, in the standard recurrence."""

    A: flint.acb_mat
    B: flint.acb_mat
    C: flint.acb_mat
    D: flint.acb_mat
    discrete: bool

    @classmethod
    def of(cls, system: System) -> Exact:
        """Return the exact form; real outputs with the conjugate modes."""
        A = np.diag(system.poles) if isinstance(system, DiagonalSystem) else system.A
        parts = [balls(M.astype(complex)) for M in (A, system.B, system.C, system.D)]
        A, B, C, D = parts
        if system.real_output:
            n = A.nrows()
            A = blocks([[A, zeros(n, n)], [zeros(n, n), A.conjugate()]])
            B = blocks([[B], [B.conjugate()]])
            C = blocks([[C, C.conjugate()]]) * flint.acb(0.5)
        if system.recurrence == "post-update":
            C, D = C * A, D + C * B
        return cls(A, B, C, D, system.is_discrete)

    def minus(self, other: Exact) -> Exact:
        """Return the difference of two systems."""
        n, k = self.A.nrows(), other.A.nrows()
        return Exact(
            blocks([[self.A, zeros(n, k)], [zeros(k, n), other.A]]),
            blocks([[self.B], [other.B]]),
            blocks([[self.C, -other.C]]),
            self.D - other.D,
            self.discrete,
        )

    def continuous(self) -> Exact:
        """Return the system with ``z = (1 + s) / (1 - s)`` put in; the same norm."""
        n = self.A.nrows()
        if not self.discrete or n == 0:
            return self
        half = (self.A + identity(n)).inv()
        root = flint.acb(2).sqrt()
        return Exact(
            half * (self.A - identity(n)),
            half * self.B * root,
            self.C * half * root,
            self.D - self.C * half * self.B,
            False,
        )

    def gain(self, omega: float) -> flint.arb:
        """Return a lower bound of ``||H||_2`` at a frequency, next to it."""
        point = ball(1j * omega)
        if self.discrete:
            point = point.exp()
        H = self.D
        if self.A.nrows():
            H = H + self.C * (identity(self.A.nrows()) * point - self.A).solve(self.B)
        return matrix_gain(H)


def matrix_gain(H: flint.acb_mat) -> flint.arb:
    """Return ``|u^* H v|``, u and v singular vectors in float64: below the norm, next to it."""
    size = np.abs(plain(H)).max()
    left, _, right = np.linalg.svd(plain(H) / (size or 1.0))
    u, v = balls(left[:, :1]), balls(right[:1].conj().T)
    norms = [(adjoint(x) * x)[0, 0].real for x in (u, v)]
    return (adjoint(u) * H * v)[0, 0].abs_lower() / (norms[0] * norms[1]).sqrt()


def exceeds(system: Exact, gamma: float) -> bool | None:
    """Tell whether gamma is larger than the norm of a continuous system; None if undecided."""
    g = flint.arb(gamma)
    n, m = system.B.nrows(), system.B.ncols()
    R = identity(m) * flint.acb(g * g) - adjoint(system.D) * system.D
    for k in range(1, m + 1):  # positive definite, by its leading minors
        minor = flint.acb_mat([[R[i, j] for j in range(k)] for i in range(k)]).det().real
        if not minor > 0:
            return False if minor < 0 or minor == 0 else None
    if n == 0:
        return True
    A, B, C, D = system.A, system.B, system.C, system.D
    left = R.solve(adjoint(D) * C)
    corner = A + B * left
    inner = C * flint.acb(1) + D * left
    M = blocks([
        [corner, B * R.solve(adjoint(B)) * flint.acb(g)],
        [-(adjoint(C) * inner) * flint.acb(1 / g), -adjoint(corner)],
    ])  # fmt: skip
    M = flint.acb_mat(2 * n, 2 * n, [x.mid() for x in M.entries()])
    distances = []
    for value in M.eig(algorithm="approx"):
        size = abs(value)
        distances.append(float(abs(value.real) / size) if size > 0 else 0.0)
    if min(distances) > OFF_AXIS:
        return True
    return False if any(d < ON_AXIS for d in distances) else None


def plain(M: flint.acb_mat) -> np.ndarray:
    """Return the midpoints in float64."""
    return np.array([complex(x) for x in M.entries()]).reshape(M.nrows(), M.ncols())


def grid(A: np.ndarray, discrete: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return frequencies and points of the boundary: everywhere, and next to the poles."""
    poles = np.linalg.eigvals(A) if len(A) else np.zeros(0)
    steps = np.array([-3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0])
    if discrete:
        near = np.angle(poles)[:, None] + np.abs(1 - np.abs(poles))[:, None] * steps
        omega = np.concatenate([np.linspace(-np.pi, np.pi, GRID), near.ravel()])
        return omega, np.exp(1j * omega)
    near = poles.imag[:, None] + np.abs(poles.real)[:, None] * steps
    scale = np.median(np.abs(poles)) if len(poles) else 1.0
    omega = np.concatenate([scale * np.tan(np.linspace(-1.55, 1.55, GRID)), [0.0], near.ravel()])
    return omega, 1j * omega


def sampled_peak(system: Exact, count: int = 3) -> tuple[flint.arb, float]:
    """Return the largest gain found, and what a relative change of A by 2^-52 may do to it.

    The latter is ``eps ||A|| max ||(z - A)^-1 B|| max ||C (z - A)^-1||``.
    """
    A, B, C, D = (plain(M) for M in (system.A, system.B, system.C, system.D))
    omega, points = grid(A, system.discrete)
    values, change = np.broadcast_to(D, (omega.size, *D.shape)), 0.0
    if len(A):
        resolvent = points[:, None, None] * np.eye(len(A)) - A
        good = np.linalg.cond(resolvent) < 1e15
        omega, resolvent = omega[good], np.linalg.inv(resolvent[good])
        states, rows = resolvent @ B, C @ resolvent
        values = D + C @ states
        largest = [np.linalg.norm(M, axis=(-2, -1)).max(initial=0.0) for M in (states, rows)]
        change = float(np.finfo(float).eps * np.linalg.norm(A) * np.prod(largest))
    size = np.abs(values).max(initial=0.0)
    sizes = np.linalg.norm(values / (size or 1.0), ord=2, axis=(-2, -1))
    best = np.argsort(sizes)[-count:]
    found = max((system.gain(float(omega[k])) for k in best), default=flint.arb(0))
    return (found if system.discrete else max(found, matrix_gain(system.D))), change


@dataclass
class Count:
    """Count what one class of systems did."""

    systems: int = 0
    refused: int = 0
    wide: int = 0
    unexplained: int = 0
    undecided: int = 0
    violations: int = 0
    widest: float = 0.0

    def row(self, name: str) -> list[object]:
        """Return a line of the table."""
        share = f"{self.wide / max(self.systems, 1):.2%}"
        return [name, self.systems, self.refused, f"{self.widest:.1e}", share,
                self.unexplained, self.undecided, self.violations]  # fmt: skip


HEADERS = [
    "class of systems", "systems", "refused", "largest width", "wider than 1e-6",
    "of these not by rounding of A", "undecided", "violations",
]  # fmt: skip


def check(case: Case, count: Count) -> None:
    """Hold one enclosure against both methods."""
    norm, systems = case
    count.systems += 1
    try:
        got = norm(*systems)
    except AccuracyError:
        count.refused += 1
        return
    exact = Exact.of(systems[0])
    for other in systems[1:]:
        exact = exact.minus(Exact.of(other))
    lower, upper, width = float(got.lower), float(got.upper), float(got.width)
    count.widest = max(count.widest, width)
    found, change = sampled_peak(exact)
    if width > RTOL:
        is_dense = any(isinstance(system, DenseSystem) for system in systems)
        rounding = BACKWARD * exact.A.nrows() * change / upper if is_dense else 0.0
        count.wide += 1
        count.unexplained += width > RTOL + rounding
    if upper == 0:
        count.violations += bool(found > 0)
        return
    moved = exact.continuous()
    above = exceeds(moved, upper)
    below = False if lower == 0 or found >= lower else exceeds(moved, lower)
    count.undecided += above is None or below is None
    count.violations += above is False or below is True or bool(found > upper)


def run(name: str, systems: int, seed: int, *, visible: bool = True) -> Count:
    """Return what a class of systems did."""
    count = Count()
    number = sorted(CLASSES).index(name)
    steps = range(systems)
    if visible:
        steps = track(steps, f"{name:<30}", console=Console(stderr=True))
    old, flint.ctx.prec = flint.ctx.prec, BITS
    try:
        for k in steps:
            check(CLASSES[name](np.random.default_rng([seed, number, k])), count)
    finally:
        flint.ctx.prec = old
    return count


def main() -> int:
    """Run all classes, print the table, return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--systems", type=int, default=10_000, help="systems in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="240 systems")
    parser.add_argument("--dry", action="store_true", help="do not write docs/benchmarks.md")
    options = parser.parse_args()
    total = 240 if options.quick else options.systems
    each = -(-total // len(CLASSES))
    counts = {name: run(name, each, options.seed) for name in CLASSES}
    whole = Count()
    for one in counts.values():
        for field in vars(whole):
            join = max if field == "widest" else sum
            setattr(whole, field, join([getattr(whole, field), getattr(one, field)]))
    rows = [*(one.row(name) for name, one in counts.items()), whole.row("all")]
    print(table(rows, HEADERS))
    if not (options.dry or options.quick):
        cells = [[str(cell) for cell in row] for row in rows]
        written("soundness-norms", f"{markdown(cells, HEADERS)}\n\nSeed {options.seed}.")
    return int(whole.violations + whole.undecided > 0)


if __name__ == "__main__":
    sys.exit(main())
