"""Systems that every reductor has to take or to refuse: hard ones of every kind.

All have five modes or states (the batches too), except where the name says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ssmred.systems import DenseSystem, DiagonalSystem

Case = Callable[[], DiagonalSystem | DenseSystem]


def complex_normal(rng, *shape):
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def diagonal(seed, *, batch=(), n=5, m=1, p=1, continuous=False, real=False, **options):
    """Return a random complex diagonal system; ``real`` only keeps D real."""
    rng = np.random.default_rng(seed)
    if continuous:
        poles = -rng.uniform(0.1, 2, (*batch, n)) + 3j * rng.standard_normal((*batch, n))
        options["dt"] = 0.0
    else:
        angles = 2 * np.pi * rng.random((*batch, n))
        poles = 0.95 * np.sqrt(rng.random((*batch, n))) * np.exp(1j * angles)
    D = rng.standard_normal((*batch, p, m))
    D = D if real or options.get("real_output") else D + 1j * rng.standard_normal(D.shape)
    B, C = complex_normal(rng, *batch, n, m), complex_normal(rng, *batch, p, n)
    return DiagonalSystem(poles, B, C, D, **options)


def dense(seed, *, n=5, m=2, p=3, continuous=False, complex_data=False, **options):
    """Return a random dense system with spectral radius 0.9, or spectral abscissa -0.1."""
    rng = np.random.default_rng(seed)
    normal = complex_normal if complex_data else (lambda rng, *shape: rng.standard_normal(shape))
    A = normal(rng, n, n)
    poles = np.linalg.eigvals(A)
    if continuous:
        A = A - (poles.real.max() + 0.1) * np.eye(n)
        options["dt"] = 0.0
    else:
        A = 0.9 * A / np.abs(poles).max()
    return DenseSystem(A, normal(rng, n, m), normal(rng, p, n), normal(rng, p, m), **options)


def pairs(seed, **options):
    """Return a real system with its full spectrum: two pairs and a real mode."""
    half = diagonal(seed, n=2, real_output=True, **options)
    full = half.full_spectrum()
    return full.replace(
        poles=np.append(full.poles, 0.7), B=np.append(full.B, [[1.0]], 0), C=np.append(full.C, 0.4)
    )


def edge():
    """Return a system with a pole at 1 - 1e-12, one near z = -1 and ordinary ones."""
    return DiagonalSystem(
        [1 - 1e-12, -(1 - 1e-9), 0.5 + 0.3j, -0.2j, 0.1],
        [1e-6, 1e-5, 1.0, 1.0 - 1.0j, 1.0],
        [1e-6j, 1e-5, 1.0, 2.0, 0.3],
        0.5,
    )


def repeated():
    """Return a system with a pole three times and a pole twice."""
    system = diagonal(12, n=5, m=2, p=2)
    return system.replace(poles=system.poles[[0, 0, 0, 1, 1]])


def real_data():
    """Return a half spectrum that is all of it: real poles, B and C."""
    system = diagonal(20, real_output=True)
    arrays = {name: getattr(system, name).real for name in ("poles", "B", "C")}
    return system.replace(**arrays)


def zero_column():
    """Return a system with an input and an output that do nothing."""
    system = diagonal(13, m=3, p=2)
    B, C = system.B.copy(), system.C.copy()
    B[:, 1], C[1] = 0, 0
    return system.replace(B=B, C=C)


CASES: dict[str, Case] = {
    "complex": lambda: diagonal(0),
    "complex, dt 0.1": lambda: diagonal(1, dt=0.1),
    "complex, post-update": lambda: diagonal(2, recurrence="post-update"),
    "half spectrum": lambda: diagonal(3, real_output=True),
    "half spectrum, post-update": lambda: diagonal(
        4, batch=(2,), real_output=True, recurrence="post-update"
    ),
    "half spectrum, real data": real_data,
    "full spectrum of a real system": lambda: pairs(5),
    "complex, m < p": lambda: diagonal(6, m=2, p=3),
    "half spectrum, m > p": lambda: diagonal(7, m=3, p=2, real_output=True),
    "continuous": lambda: diagonal(8, continuous=True),
    "continuous, half spectrum": lambda: diagonal(9, continuous=True, real_output=True),
    "batch": lambda: diagonal(10, batch=(3, 2)),
    "on the edge": edge,
    "repeated poles": repeated,
    "zero input": zero_column,
    "dense": lambda: dense(14),
    "dense, complex": lambda: dense(15, complex_data=True),
    "dense, SISO": lambda: dense(16, m=1, p=1),
    "dense, post-update": lambda: dense(19, m=3, recurrence="post-update"),
    "dense, continuous": lambda: dense(17, continuous=True),
    "dense, continuous, complex": lambda: dense(18, continuous=True, complex_data=True),
}
SINGLE_IO = frozenset(
    name for name, make in CASES.items() if make().inputs == 1 and make().outputs == 1
)
MULTIPLE_IO = frozenset(CASES) - SINGLE_IO
DENSE = frozenset(name for name, make in CASES.items() if isinstance(make(), DenseSystem))
CONTINUOUS = frozenset(name for name, make in CASES.items() if not make().is_discrete)


# --- the same with poles that are not stable ------------------------------------------------------


def unstable_poles(system):
    """Return where two poles go: far outside, and on the boundary (diagonal systems only)."""
    far = 1.5 * np.exp(0.7j) if system.is_discrete else 0.5 + 2.0j
    return far, 1.0 if system.is_discrete else 0.0


def unstable(system):
    """Return a system with one or two poles outside; in a batch their number varies."""
    far, border = unstable_poles(system)
    if isinstance(system, DenseSystem):
        return _dense_unstable(system, far)
    poles = system.poles.copy()
    if _is_conjugate(poles):  # as the case lists them: two pairs and a real mode
        poles[..., 1], poles[..., 3] = far, np.conj(far)
        return system.replace(poles=poles)
    poles[..., 1] = far
    if system.batch_shape:
        poles.reshape(-1, poles.shape[-1])[::2, 3] = border
        poles.reshape(-1, poles.shape[-1])[-1, 0] = -far
        poles.reshape(-1, poles.shape[-1])[0, 1] = 0.3
    else:
        poles[3] = border
    return system.replace(poles=poles)


def _is_conjugate(poles):
    return poles.ndim == 1 and np.array_equal(np.sort(poles), np.sort(poles.conj()))


def _dense_unstable(system, far):
    """Mirror the outermost pole, or pair of poles, to the other side of the boundary."""
    poles, X = np.linalg.eig(system.A)
    outermost = np.argmax(np.abs(poles)) if system.is_discrete else np.argmax(poles.real)
    partners = np.isclose(poles, poles[outermost]) | np.isclose(poles, poles[outermost].conj())
    if not system.is_real:
        partners = np.arange(len(poles)) == outermost
    moved = 1.4 * poles / np.abs(poles) if system.is_discrete else 0.3 + 1j * poles.imag
    A = (X * np.where(partners, moved, poles)) @ np.linalg.inv(X)
    return system.replace(A=A.real if system.is_real else A)


UNSTABLE: dict[str, Case] = {
    f"{name}, unstable": lambda make=make: unstable(make()) for name, make in CASES.items()
}
UNSTABLE_DENSE = frozenset(f"{name}, unstable" for name in DENSE)
