"""Errors of reduced systems by algorithms of their own, in 60 digits.

The numbers of a system are taken as they are stored. Responses are sums over modes or linear
solves, energies closed forms, doublings or sums over samples, all in Arb at ``BITS`` bits, so that
only the last step, a norm of float64 matrices, rounds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from flint import acb, acb_mat, arb, ctx

from ssmred.systems import DenseSystem, DiagonalSystem

BITS = 230
LAST = 1e-14  # rounding of the norm of a small matrix
ROUNDING = 1e-14  # of an error that is evaluated in float64, relative to the modes it is made of
RELATIVE = 1e-12  # the same, relative to the error
DOUBLINGS = 60


EXACTLY = ctx.workprec(BITS)


def written_out(system):
    """Return the same map without the Re in the output equation."""
    if isinstance(system, DiagonalSystem):
        return system.full_spectrum()
    return system.realified() if system.is_real else system


def balls(array: np.ndarray) -> acb_mat:
    """Return the numbers of a matrix as they are."""
    return acb_mat(*array.shape, [acb(x.real, x.imag) for x in array.ravel().tolist()])


def floats(matrix: acb_mat) -> np.ndarray:
    """Return a matrix rounded to complex128."""
    values = [complex(x) for x in matrix.entries()]
    return np.array(values).reshape(matrix.nrows(), matrix.ncols())


def frequencies(full, reduced):
    """Return frequencies (rad per unit of time) at, beside and between the poles."""
    poles = np.concatenate([full.poles, reduced.poles])
    if full.is_discrete:
        poles = poles[poles != 0]
        centres, widths = np.angle(poles) / full.dt, np.abs(1 - np.abs(poles)) / full.dt
        between = np.linspace(-np.pi, np.pi, 17) / full.dt
    else:
        centres, widths = poles.imag, np.abs(poles.real)
        between = np.concatenate([[0.0], *(np.logspace(-2, 2, 8) * sign for sign in (1, -1))])
    return np.concatenate([between, centres, centres + widths, centres - widths])


class _Response:
    """The transfer matrix of one system."""

    def __init__(self, system) -> None:
        self.system = system
        self.B, self.C, self.D = (balls(np.asarray(x)) for x in (system.B, system.C, system.D))
        if isinstance(system, DiagonalSystem):
            self.poles = [acb(x.real, x.imag) for x in system.poles.tolist()]
            self.rows = system.C.tolist()
        else:
            self.A = balls(system.A)

    def at(self, z: acb) -> acb_mat:
        """Return C (z - A)^{-1} B + D, with a factor z in the post-update recurrence.

        Raises ZeroDivisionError where z cannot be told from a pole.
        """
        n = self.system.order
        if n == 0:
            return self.D
        lift = z if self.system.is_post_update else acb(1)
        if isinstance(self.system, DiagonalSystem):
            if any((z - pole).contains(0) for pole in self.poles):
                raise ZeroDivisionError("on a pole")
            gaps = [lift / (z - pole) for pole in self.poles]
            scaled = [
                [acb(c.real, c.imag) * g for c, g in zip(row, gaps, strict=True)]
                for row in self.rows
            ]
            return acb_mat(scaled) * self.B + self.D
        resolvent = z * acb_mat(n, n, [int(i == j) for i in range(n) for j in range(n)]) - self.A
        return self.C * (lift * resolvent.solve(self.B)) + self.D


@EXACTLY
def sampled_gain(full, reduced):
    """Return a lower bound of the H-infinity norm of the error, by sampling off the poles."""
    full, reduced = written_out(full), written_out(reduced)
    one, two = _Response(full), _Response(reduced)
    largest = 0.0
    for omega in frequencies(full, reduced).tolist():
        z = acb(0, arb(omega) * arb(full.dt)).exp() if full.is_discrete else acb(0, omega)
        try:
            gap = floats(one.at(z) - two.at(z))
        except ZeroDivisionError:  # on a pole
            continue
        largest = max(largest, np.linalg.norm(gap, 2))
    return largest * (1 - LAST)


@EXACTLY
def energy(full, reduced):
    """Return the h2 norm of the error; poles that both have with equal residues cancel exactly."""
    full, reduced = written_out(full), written_out(reduced)
    if isinstance(full, DiagonalSystem) and isinstance(reduced, DiagonalSystem):
        total = _modal_energy(full, reduced)
    else:
        total = _gramian_energy(full.to_dense(), reduced.to_dense())
    return float(np.sqrt(max(float(total.mid()), 0.0)))


@EXACTLY
def energy_over(full, reduced, horizon):
    """Return the h2 norm of the error over the first samples."""
    total = arb(0)
    one, two = (_samples(written_out(system).to_dense(), horizon) for system in (full, reduced))
    for h, other in zip(one, two, strict=True):
        total += _square(h - other)
    return float(np.sqrt(max(float(total.mid()), 0.0)))


def sizes(system):
    """Return the sum of the h2 norms of the stable modes, which rounding is relative to."""
    system = written_out(system)
    if isinstance(system, DenseSystem):
        none = system.replace(A=system.A[:0, :0], B=system.B[:0], C=system.C[:, :0])
        return energy(system, none)
    gaps = 1 - np.abs(system.poles) ** 2 if system.is_discrete else -2 * system.poles.real
    residues = np.linalg.norm(system.C, axis=0) * np.linalg.norm(system.B, axis=1)
    return np.sum(residues[gaps > 0] / np.sqrt(gaps[gaps > 0]))


def check_bound(full, reduced, bound, value):
    """Assert that a bound holds for one system without slack, or that an exact value is right."""
    if bound.norm == "hinf":
        assert sampled_gain(full, reduced) <= value
        return
    if bound.norm == "hankel":  # the Hankel operator maps a unit pulse to the response after it
        error = energy(full.replace(D=0 * full.D), reduced.replace(D=0 * reduced.D))
        assert error * (1 - LAST) / np.sqrt(min(full.inputs, full.outputs)) <= value
        return
    if bound.norm == "h2":
        error, rounding = energy(full, reduced), ROUNDING * (sizes(full) + sizes(reduced))
    elif bound.norm.startswith("h2, horizon "):
        horizon = int(bound.norm.rsplit(" ", 1)[1])
        none = full.replace(C=0 * full.C, D=0 * full.D)
        error = energy_over(full, reduced, horizon)
        rounding = ROUNDING * energy_over(full, none, horizon)
    else:
        pytest.fail(f"the battery knows no lower bound for {bound.norm!r}")
    if bound.exact:  # right to rounding, relative to itself and to the modes
        assert abs(value - error) <= rounding + RELATIVE * error
    else:
        assert error * (1 - LAST) <= value


def _square(matrix: acb_mat) -> arb:
    return sum((x.real * x.real + x.imag * x.imag for x in matrix.entries()), arb(0))


def _modal_energy(full, reduced):
    """Return sum_ij r_i conj(r_j) / (1 - l_i conj(l_j)), equal poles merged."""
    residues: dict[complex, acb_mat] = {}
    direct = balls(np.asarray(full.D)) - balls(np.asarray(reduced.D))
    for system, sign in ((full, 1), (reduced, -1)):
        for i, pole in enumerate(system.poles.tolist()):
            product = sign * (balls(system.C[:, i : i + 1]) * balls(system.B[i : i + 1]))
            if system.is_post_update:
                direct += product
                product = acb(pole.real, pole.imag) * product
            residues[pole] = residues[pole] + product if pole in residues else product
    alive = [(acb(l.real, l.imag), r.entries()) for l, r in residues.items() if _square(r) != 0]
    total = _square(direct)
    for pole, one in alive:
        for other, two in alive:
            mirror = other.conjugate()
            gap = 1 - pole * mirror if full.is_discrete else -(pole + mirror)
            product = sum((a * b.conjugate() for a, b in zip(one, two, strict=True)), acb(0))
            total += (product / gap).real
    return total


def _gramian_energy(full, reduced):
    """Return tr(C P C^*) + ||D||^2 of the difference, P by doubling."""
    A, B, C, D = _difference(full, reduced)
    n = A.nrows()
    if n == 0:
        return _square(D)
    eye = balls(np.eye(n))
    if not full.is_discrete:  # P of the Cayley image is the same
        size = arb(max(1.0, float(np.abs(full.A).max(initial=0))))
        gap = acb(size) * eye - A
        A, B = gap.solve(acb(size) * eye + A).mid(), (gap.solve(B) * acb((2 * size).sqrt())).mid()
    P = B * _adjoint(B)
    for _ in range(DOUBLINGS):
        P = (P + A * P * _adjoint(A)).mid()
        A = (A * A).mid()
        if _square(A).mid() < arb(10) ** -150:
            break
    else:
        raise ArithmeticError("the doubling did not converge")
    energies = C * P * _adjoint(C)
    return sum((energies[i, i].real for i in range(energies.nrows())), _square(D))


def _difference(full, reduced):
    """Return A, B, C, D of the difference of two dense systems, in the standard recurrence."""
    n, extra = full.order, reduced.order
    A = np.zeros((n + extra, n + extra), complex)
    A[:n, :n], A[n:, n:] = full.A, reduced.A
    A, B = balls(A), balls(np.concatenate([full.B, reduced.B]))
    first, second = (balls(np.asarray(s.D)) for s in (full, reduced))
    C = np.concatenate([full.C, -reduced.C], axis=1)
    C, D = balls(C), first - second
    if full.is_post_update and n + extra:
        C, D = C * A, D + C * B
    return A, B, C, D


def _samples(system, horizon) -> Sequence[acb_mat]:
    A, B, C, D = (balls(np.asarray(x)) for x in (system.A, system.B, system.C, system.D))
    samples = []
    for k in range(horizon):
        h = D if k == 0 else 0 * D
        if system.order and (system.is_post_update or k):
            h += C * B
            B = A * B
        samples.append(h)
    return samples


def _adjoint(matrix: acb_mat) -> acb_mat:
    return matrix.conjugate().transpose()
