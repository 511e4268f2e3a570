"""A peak of the frequency response at 60 digits, found by local searches in ball arithmetic."""

from __future__ import annotations

import math

import flint
import numpy as np

from ssmred.systems import DenseSystem, DiagonalSystem

BITS = 220
GOLDEN = (3 - math.sqrt(5)) / 2
STEPS = 44  # a flat peak is right to the square of 0.618^44 of the first bracket


class ExactResponse:
    """Transfer matrix of one system, from its stored numbers, independent of the library."""

    def __init__(self, system: DiagonalSystem | DenseSystem) -> None:
        diagonal = isinstance(system, DiagonalSystem)
        A = np.diag(system.poles) if diagonal else system.A
        B, C = system.B.astype(complex), system.C.astype(complex)
        if system.real_output:  # Re(C x) = (C x + conj(C) conj(x)) / 2
            zero = np.zeros_like(A)
            A = np.block([[A, zero], [zero, A.conj()]])
            B, C = np.concatenate([B, B.conj()]), np.concatenate([C, C.conj()], axis=1) / 2
        self.poles = np.linalg.eigvals(A) if not diagonal else np.diag(A)
        self.A, self.B, self.C = A, B, C
        self.D = system.D.astype(complex)
        self.discrete, self.post = system.is_discrete, system.recurrence == "post-update"

    def matrix(self, omega: flint.arb) -> flint.acb_mat:
        """Return H at ``exp(j omega)`` or ``j omega``."""
        j = flint.acb(0, 1)
        z = (j * omega).exp() if self.discrete else j * omega
        n = len(self.A)
        gap = flint.acb_mat([[(z if i == k else 0) - _acb(self.A[i, k]) for k in range(n)]
                             for i in range(n)])  # fmt: skip
        C, D = _mat(self.C * 1.0), _mat(self.D)
        value = C * gap.solve(_mat(self.B))
        return (value * z if self.post else value) + D

    def size(self, omega: flint.arb) -> float | flint.arb:
        """Return a lower bound of ``||H||_2``, next to it: ``|u^* H v|`` with singular vectors."""
        H = self.matrix(omega)
        p, m = H.nrows(), H.ncols()
        if p == 1 and m == 1:
            return _mid(H[0, 0].abs_lower())
        plain = np.array([[complex(H[a, b]) for b in range(m)] for a in range(p)])
        left, _, right = np.linalg.svd(plain)
        u, v = left[:, 0], right[0].conj()
        total = flint.acb(0)
        for a in range(p):
            for b in range(m):
                total += _acb(u[a].conjugate()) * H[a, b] * _acb(v[b])
        sizes = flint.arb(0), flint.arb(0)
        norm_u = sum((_acb(x).real ** 2 + _acb(x).imag ** 2 for x in u), sizes[0])
        norm_v = sum((_acb(x).real ** 2 + _acb(x).imag ** 2 for x in v), sizes[1])
        return _mid(total.abs_lower() / (norm_u * norm_v).sqrt())

    def angles(self) -> list[flint.arb]:
        """Return the frequencies of the poles, at full precision for diagonal systems."""
        exact = [_acb(pole) for pole in self.poles]
        return [_mid(l.arg()) if self.discrete else _mid(l.imag) for l in exact]

    def distance(self, omega: flint.arb) -> float:
        """Return the distance to the nearest pole."""
        j = flint.acb(0, 1)
        z = (j * omega).exp() if self.discrete else j * omega
        gaps = [float((z - _acb(pole)).abs_lower()) for pole in self.poles]
        return min(gaps, default=1.0)

    def climb(self, start: flint.arb) -> flint.arb:
        """Return a value of ``||H||`` at a local maximum next to ``start``."""
        width = flint.arb(0.7 * self.distance(start))
        low, high = start - width, start + width
        a, b = low + GOLDEN * (high - low), high - GOLDEN * (high - low)
        value_a, value_b = self.size(a), self.size(b)
        best = max(self.size(start), value_a, value_b)
        for _ in range(STEPS):
            if value_a < value_b:
                low, a, value_a = a, b, value_b
                b = _mid(high - GOLDEN * (high - low))
                value_b = self.size(b)
            else:
                high, b, value_b = b, a, value_a
                a = _mid(low + GOLDEN * (high - low))
                value_a = self.size(a)
            best = max(best, value_a, value_b)
        return best


def exact_peak(system: DiagonalSystem | DenseSystem, hint: float) -> flint.arb:
    """Return the largest of the local maxima next to a hint and next to the largest samples."""
    old, flint.ctx.prec = flint.ctx.prec, BITS
    try:
        response = ExactResponse(system)
        if math.isinf(hint):
            return _mid(flint.arb(float(np.linalg.norm(response.D, 2))))
        scale = 1.0 if response.discrete else max(np.abs(response.poles).max(initial=1.0), 1e-3)
        grid = np.linspace(-math.pi, math.pi, 24, endpoint=False)
        grid = grid if response.discrete else scale * np.tan(grid / 2.001)
        starts = [flint.arb(float(w)) for w in grid] + response.angles()
        values = [(float(response.size(w)), k) for k, w in enumerate(starts)]
        best = [starts[k] for _, k in sorted(values, reverse=True)[:2]]
        return max(response.climb(w) for w in [flint.arb(hint), *best])
    finally:
        flint.ctx.prec = old


def _mid(value: flint.arb) -> flint.arb:
    return flint.arb(value.mid())


def _acb(value: complex) -> flint.acb:
    return flint.acb(float(np.real(value)), float(np.imag(value)))


def _mat(matrix: np.ndarray) -> flint.acb_mat:
    return flint.acb_mat([[_acb(x) for x in row] for row in matrix])
