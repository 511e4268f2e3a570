"""Upper bounds of ``int |C e^{At} B| dt`` for dense systems in continuous time.

In coordinates in which ``||e^{At}||_2`` never grows, every remainder is bounded by the length of
the present state, so cells widen as fast modes die, and the tail is bounded wherever the sum ends.

Theory: ``theory/l1-gain.md``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from scipy.linalg import solve_triangular

from ssmred.errors import AccuracyError, message
from ssmred.gramians.equations import lyapunov
from ssmred.gramians.triangular import balancing_scales
from ssmred.norms.response_form import UNIT
from ssmred.systems.dense import DenseSystem, flat_matrices
from ssmred.systems.linear import adjoint

__all__ = ["dense_integrals"]

CELLS = 16  # cells of one step
HALVINGS = 5  # 2 CELLS = 2^5: half a cell is this many levels below its step
STEPS = 2**13  # steps until the rest is left to the bound of the tail
FINE = 64.0  # half width of the smallest cell, in units of 1 / ||A||
EXCESS = 1e-4  # remainder of a cell, relative to ||c|| ||x||, to begin with
WANTED = 1e-3  # remainders relative to the integral, from which on cells are made smaller
SMALL_TAIL = 1e-9
ROUNDS = 3
SHIFT = 0.5  # rate of decay that is asked for, relative to that of the slowest mode
RESOLVED = 0.1  # rounding of the change of coordinates, relative to the rate of decay
INVERTED = 0.005  # ||I - X L||_F for the computed inverse X of L; 1.01 covers 1 / (1 - 0.005)


@dataclass(frozen=True)
class Contraction:
    """Hold ``(A, B, C)`` in coordinates with ``||e^{At}||_2 <= e^{-rate t}``.

    Parameters
    ----------
    A, B, C : (n, n), (n, m), (p, n) float64 or complex128
    rate : float
    extra : (p, m) float64
        Bound of what rounding of the coordinates did to the integrals.
    step : float
        Rounding of a product of matrices relative to the product of their Frobenius norms.
    """

    A: np.ndarray
    B: np.ndarray
    C: np.ndarray
    rate: float
    extra: np.ndarray
    step: float


def dense_integrals(system: DenseSystem, where: str) -> np.ndarray:
    """Return bounds (H, p, m) of the integrals of ``|C e^{At} B|`` over t > 0.

    Raises
    ------
    AccuracyError
        If A is so close to an unstable matrix that rounding hides it.
    """
    if system.is_real:
        system = system.realified()
    A, B, C, D = flat_matrices(system)
    out = np.zeros(D.shape)
    for h in range(len(A) if system.order else 0):
        (a, time), (b, size_b), (c, size_c) = (_normalised(M[h]) for M in (A, B, C))
        form = _contraction(a, b, c, where)
        bounds = _Marcher(form).integrals()
        if form.extra.sum() > bounds.sum():
            raise _refusal(where)
        with np.errstate(over="ignore"):
            out[h] = np.ldexp(bounds + form.extra, size_b + size_c - time)
    if not np.isfinite(out).all():
        raise AccuracyError(
            message(
                where,
                "the gain overflows float64",
                cure="Scale the inputs and outputs.",
            )
        )
    return out


def _normalised(M: np.ndarray) -> tuple[np.ndarray, int]:
    """Return ``M / 2^k`` with entries of at most 1, and k."""
    k = int(np.frexp(np.abs(M).max(initial=0.0))[1])
    return M * math.ldexp(1.0, -k // 2) * math.ldexp(1.0, -k - (-k // 2)), k


def _contraction(A: np.ndarray, B: np.ndarray, C: np.ndarray, where: str) -> Contraction:
    """Change to ``L^{-1} x``, ``(A + a I) L L^* + L L^* (A + a I)^* = -I``, in balanced units."""
    n = len(A)
    d = balancing_scales(A)
    A, B, C = A / d[:, None] * d, B / d[:, None], C * d
    shift = SHIFT * float(-np.linalg.eigvals(A).real.max())
    try:
        L = np.linalg.cholesky(lyapunov(A + shift * np.eye(n), np.eye(n)).X)
    except (AccuracyError, np.linalg.LinAlgError):
        raise _refusal(where) from None
    left = solve_triangular(L, A @ L, lower=True)
    inputs = solve_triangular(L, B, lower=True)
    outputs = C @ L
    inverse = solve_triangular(L, np.eye(n), lower=True)
    step = 4 * (n + 8) * UNIT
    missed = np.abs(np.eye(n) - inverse @ L) + step * (np.abs(inverse) @ np.abs(L))
    if not np.linalg.norm(missed) <= INVERTED:
        raise _refusal(where)
    inverse = np.abs(inverse)
    size = float(np.linalg.norm(left))
    largest = float(np.linalg.eigvalsh((left + adjoint(left)) / 2)[-1])
    rate = -largest - 16 * step * size
    # L^{-1} A L = left + moved, and so for B; entry by entry
    moved = np.abs(A @ L - L @ left) + step * (np.abs(A) @ np.abs(L) + np.abs(L) @ np.abs(left))
    moved = 1.01 * float(np.linalg.norm(inverse @ moved))
    if not moved <= RESOLVED * rate:
        raise _refusal(where)
    rest = np.abs(B - L @ inputs) + step * (np.abs(B) + np.abs(L) @ np.abs(inputs))
    rest = 1.01 * np.linalg.norm(inverse @ rest, axis=0)
    rows, columns = _lengths(outputs), 1.001 * np.linalg.norm(inputs, axis=0)
    lost = step * _lengths(np.abs(C) @ np.abs(L))
    slower = rate - moved
    extra = np.outer(rows, columns * moved / (rate * slower) + rest / slower)
    extra += np.outer(lost, columns + rest) / slower
    return Contraction(left, inputs, outputs, rate, 1.001 * extra, step)


@dataclass
class _Marcher:
    """March through time with steps ``2^k`` times the shortest one, and add the cells up."""

    form: Contraction
    powers: list[np.ndarray] = field(default_factory=list)  # e^{A t_0 2^k}
    defects: list[float] = field(default_factory=list)  # bounds of their errors, 2-norm
    rows: dict[int, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Fill the shortest power by its Taylor series."""
        A, n = self.form.A, len(self.form.A)
        self.size = float(np.linalg.norm(A)) * 1.001
        self.shortest = 2.0 ** -math.ceil(math.log2(FINE * self.size))
        M, power = self.shortest * A, np.eye(n, dtype=A.dtype)
        for k in range(10, 0, -1):  # 64^-11 / 11! is far below rounding
            power = np.eye(n, dtype=A.dtype) + M @ power / k
        self.powers.append(power)
        self.defects.append(4 * self.form.step * math.sqrt(n))

    def level(self, k: int) -> tuple[np.ndarray, float]:
        """Return ``e^{A t_0 2^k}`` and a bound of its error."""
        while len(self.powers) <= k:
            last, defect = self.powers[-1], self.defects[-1]
            self.powers.append(last @ last)
            size = float(np.linalg.norm(last)) ** 2
            self.defects.append((2.01 + defect) * defect + 1.01 * self.form.step * size)
        return self.powers[k], self.defects[k]

    def outputs(self, k: int) -> np.ndarray:
        """Return ``C e^{At}`` and ``C e^{At} A``, (2, CELLS, p, n), t the centres of the cells."""
        if k not in self.rows:
            row = self.form.C @ self.level(k - HALVINGS)[0]
            jump = self.level(k - HALVINGS + 1)[0]
            rows = [row]
            for _ in range(CELLS - 1):
                rows.append(rows[-1] @ jump)
            values = np.stack(rows)
            self.rows[k] = np.stack([values, values @ self.form.A])
        return self.rows[k]

    def integrals(self) -> np.ndarray:
        """Return the bounds (p, m), with cells small enough where they can be."""
        excess = EXCESS
        best = np.full((self.form.C.shape[0], self.form.B.shape[1]), np.inf)
        for _ in range(ROUNDS):
            total, remainder = self.march(excess)
            best = np.minimum(best, total)
            if not remainder > WANTED * total.sum():
                break
            excess *= WANTED * float(total.sum()) / remainder / 2
        return best

    def march(self, excess: float) -> tuple[np.ndarray, float]:
        """Return bounds (p, m) of the integrals, and the sum of the remainders in them."""
        form = self.form
        n, root = len(form.A), math.sqrt(len(form.A))
        lengths, x = _lengths(form.C), form.B
        total, remainders = np.zeros((len(lengths), x.shape[1])), 0.0
        error = np.zeros(x.shape[1])  # of x, in the 2-norm
        for _ in range(STEPS):
            columns = np.linalg.norm(x, axis=0) * 1.001
            tail = np.outer(lengths, columns + error) / form.rate
            if tail.sum() <= SMALL_TAIL * total.sum() or not tail.any():
                break
            twice = form.A @ (form.A @ x)
            bend = np.linalg.norm(twice, axis=0) + self.size**2 * (2 * form.step * columns + error)
            k = self._step(math.sqrt(6 * excess * columns.sum() / bend.sum()))
            half = self.shortest * 2.0 ** (k - HALVINGS)
            rows = self.outputs(k)
            values, slopes = rows @ x
            slopes = half * slopes
            cells = np.abs(values - slopes) + 2 * np.abs(values) + np.abs(values + slopes)
            total += 0.5 * half * (1 + (CELLS + 8) * UNIT) * cells.sum(axis=0)
            rest = np.outer(lengths, CELLS * half**3 / 3 * bend * 1.001)
            remainders += float(rest.sum())
            # a row is a product of CELLS powers: its error is below that of (1 + zeta)^CELLS
            defect = self.level(k - HALVINGS + 1)[1]
            zeta = defect + (2 + defect) * form.step * root
            defect = math.expm1((CELLS + 2) * zeta)
            rounding = (1 + half * self.size) * (defect * columns + error)
            total += rest + np.outer(lengths, 2 * CELLS * half * 1.001 * rounding)
            power, defect = self.level(k)
            decay = math.exp(-form.rate * 2 * CELLS * half) * (1 + 4 * UNIT)
            error = decay * error + (defect + (2 + defect) * form.step * root) * columns
            x = power @ x
        columns = np.linalg.norm(x, axis=0) * 1.001
        tail = np.outer(lengths, columns + error) / form.rate
        return (total + tail) * (1 + 2 * STEPS * UNIT) * (1 + n * UNIT), remainders

    def _step(self, half: float) -> int:
        """Return the level of the longest step whose cells have at most this half width."""
        return HALVINGS + max(0, math.floor(math.log2(half / self.shortest)))


def _lengths(M: np.ndarray) -> np.ndarray:
    """Return upper bounds of the norms of the rows."""
    return np.linalg.norm(M, axis=1) * 1.001


def _refusal(where: str) -> AccuracyError:
    return AccuracyError(
        message(
            where,
            "the dense system is within rounding of an unstable one",
            cure="Give it as a DiagonalSystem, whose poles are exact, or in better units.",
        )
    )
