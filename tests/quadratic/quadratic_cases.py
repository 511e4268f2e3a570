"""Random systems with quadratic outputs, for the tests about them."""

import numpy as np

from ssmred.systems import QuadraticOutputSystem

__all__ = ["FORMS", "TIMES", "in_time", "normal", "plain", "quadratic_system"]

FORMS = [
    (kind, stored, convention, real_output)
    for kind in ("diagonal", "dense")
    for stored in ("matrices", "factors", "squares")
    for convention in ("hermitian", "transpose")
    for real_output in (True, False)
]
"""Kind of A, how M is given, convention, real_output."""

TIMES = [
    ("standard", None), ("standard", 7), ("post-update", None), ("post-update", 7),
    ("continuous", None),
]  # fmt: skip
"""Recurrence or continuous time, horizon."""


def normal(rng, *shape):
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def quadratic_system(seed, form, *, n=3, m=2, p=2, rank=2, batch=(), radius=0.8, **options):
    """Return a complex system of a form, stable in discrete time."""
    kind, stored, convention, real_output = form
    rng = np.random.default_rng(seed)
    if kind == "diagonal":
        A = radius * np.sqrt(rng.uniform(0.1, 1, (*batch, n)))
        A = A * np.exp(1j * rng.uniform(-3, 3, A.shape))
    else:
        A = normal(rng, *batch, n, n)
        A = radius * A / np.abs(np.linalg.eigvals(A)).max(axis=-1)[..., None, None]
    parts = normal(rng, 2, *batch, p, n, rank)
    if stored == "matrices":
        M = parts[0] @ np.swapaxes(parts[1], -1, -2)
        other = np.swapaxes(M, -1, -2)
        M = (M + (other.conj() if convention == "hermitian" else other)) / 2
    else:
        M = (parts[0],) if stored == "squares" else (parts[0], parts[1])
    D = normal(rng, *batch, p, m)
    return QuadraticOutputSystem(
        A,
        normal(rng, *batch, n, m),
        normal(rng, *batch, p, n),
        M,
        D.real if real_output else D,
        real_output=real_output,
        convention=convention,
        **options,
    )


def in_time(seed, form, time, horizon=None, **options):
    """Return a random system; beyond the stability boundary where the horizon is finite."""
    if time != "continuous":
        radius = options.pop("radius", 0.85 if horizon is None else 1.1)
        return quadratic_system(seed, form, radius=radius, recurrence=time, **options)
    system = quadratic_system(seed, form, **options)
    shift = 1.1 if system.A.ndim == 1 else 1.1 * np.eye(system.order)
    return system.replace(A=system.A - shift, D=np.zeros_like(system.D), dt=0.0)


def plain(system):
    """Return real matrices of a real system, any other as it is."""
    return system.realified() if system.is_real else system
