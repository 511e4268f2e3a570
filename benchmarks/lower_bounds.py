"""Lower bounds of errors that share no code with the package, for `soundness_systems.py`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from flint import acb, acb_mat, arb, ctx

from ssmred.systems import DenseSystem, DiagonalSystem, stability_margins

System = DiagonalSystem | DenseSystem
ORDER = 6
UNIT = 2.0**-52
BITS = 230
OUTWARD = 1 + 2.0**-50
"""Puts a rounded point of the circle outside: there no stable response exceeds its norm either."""


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
