"""Gramians, h2 norms and Hankel values against 60 digits, and against the best of the peers.

Two claims for every published system and for a few that are hard on purpose: the relative error
is what float64 can give, and no peer has a smaller one beyond chance.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache

import control
import mpmath
import numpy as np
import pytest
import slycot
from published import (
    CASES,
    DIGITS,
    as_floats,
    exact,
    exact_gramians,
    exact_hankel_values,
    system_of,
)
from scipy import linalg, signal

from ssmred.gramians import (
    controllability_gramian,
    hankel_singular_values,
    observability_gramian,
)
from ssmred.norms import h2_norm
from ssmred.systems import DenseSystem, discretise, from_scipy

EPS = np.finfo(float).eps
CHANCE = 8
"""Units of n eps ||X|| below which two backward stable solvers differ by chance."""


def legs(n: int) -> DenseSystem:
    """Return HiPPO's LegS with all states read: far from normal, worse with every state."""
    k = np.arange(n)
    root = np.sqrt(2 * k + 1)
    A = -np.tril(np.outer(root, root), -1) - np.diag(k + 1.0)
    return DenseSystem(A, root, np.ones(n), dt=0)


def zpk(case_id: str) -> DenseSystem:
    data = CASES[case_id]["input"]
    return from_scipy(signal.ZerosPolesGain(data["zeros"], data["poles"], data["gain"]))


def tf(case_id: str, dt: float) -> DenseSystem:
    data = CASES[case_id]["input"]
    return from_scipy(signal.TransferFunction(data["num"], data["den"], dt=dt))


def shifted(which: int) -> DenseSystem:
    data = CASES["cs_complex_shift"]["input"]
    A = np.array(data["A"][which]["re"]) + 1j * np.array(data["A"][which]["im"])
    return DenseSystem(A, data["B"], data["C"], dt=0)


def near_the_circle() -> DenseSystem:
    """Poles 1 - 1e-12 and 1 - 2e-12: the Gramian is 1e12 and its condition 1e24."""
    return DenseSystem(np.diag([1 - 1e-12, 1 - 2e-12, 0.5]), np.ones(3), [1.0, -1.0, 1.0])


SYSTEMS: dict[str, Callable[[], DenseSystem]] = {
    "slicot_ab09ad_bt": lambda: system_of("slicot_ab09ad_bt"),
    "derived_ab09ad_discrete": lambda: system_of("derived_ab09ad_discrete", time_step=1.0),
    "slicot_ab13dd_linf": lambda: system_of("slicot_ab13dd_linf"),
    "pc_hsvd": lambda: system_of("pc_hsvd"),
    "pc_gram_mimo": lambda: system_of("pc_gram_mimo", time_step=0),
    "pc_gram_mimo sampled": lambda: discretise(system_of("pc_gram_mimo", time_step=0), 0.2),
    "pc_modred": lambda: system_of("pc_modred"),
    "pc_norm_first_order": lambda: system_of("pc_norm_first_order", time_step=0),
    "pc_linfnorm_2nd_order": lambda: system_of("pc_linfnorm_2nd_order"),
    "pc_issue967_discrete_gramian": lambda: system_of(
        "pc_issue967_discrete_gramian", time_step=1.0
    ),
    "matlab_covar_discrete": lambda: tf("matlab_covar_discrete", 1.0),
    "matlab_balreal_zpk": lambda: zpk("matlab_balreal_zpk"),
    "cs_gram_norm_cont": lambda: system_of(
        "cs_gram_norm_cont", B=CASES["cs_gram_norm_cont"]["input"]["B_C_212"]
    ),
    "cs_complex_shift": lambda: shifted(1),
    "cs_covar": lambda: system_of("cs_covar", time_step=0),
    "cs_d311_hinf": lambda: tf("cs_d311_hinf", 0.05),
    "hippo_matrices_N4": lambda: legs(4),
    "hippo of order 8": lambda: legs(8),
    "near the circle": near_the_circle,
}
CONDITIONS = {"slicot_ab13dd_linf": 1e6, "near the circle": 1e12}
"""How far rounding A moves the Gramian: one over the distance of the poles from the boundary."""
PEERLESS = ("cs_complex_shift",)
"""Complex data: only SciPy takes it."""


@cache
def truth(name: str) -> tuple[np.ndarray, np.ndarray, float, np.ndarray]:
    """Return P, Q, the h2 norm of the strictly proper part, and the Hankel values."""
    system = SYSTEMS[name]()
    with mpmath.workdps(2 * DIGITS):
        P, Q = exact_gramians(system)
        C = exact(system.C)
        energy = C * P * C.H
        norm = mpmath.sqrt(mpmath.re(sum(energy[i, i] for i in range(energy.rows))))
        return as_floats(P), as_floats(Q), float(norm), exact_hankel_values(system)


def relative(got: np.ndarray, exact_value: np.ndarray) -> float:
    return float(np.linalg.norm(got - exact_value) / np.linalg.norm(exact_value))


def strictly_proper(name: str) -> DenseSystem:
    system = SYSTEMS[name]()
    return system.replace(D=0 * system.D)


def own_answers(name: str) -> dict[str, np.ndarray]:
    system = strictly_proper(name)
    return {
        "P": controllability_gramian(system),
        "Q": observability_gramian(system),
        "h2": np.array([h2_norm(system)]),
        "hankel": hankel_singular_values(system),
    }


def scipy_answers(name: str) -> dict[str, np.ndarray]:
    system = strictly_proper(name)
    A, B, C = system.A, system.B, system.C
    if system.is_discrete:
        P = linalg.solve_discrete_lyapunov(A, B @ B.conj().T)
        Q = linalg.solve_discrete_lyapunov(A.conj().T, C.conj().T @ C)
    else:
        P = linalg.solve_continuous_lyapunov(A, -B @ B.conj().T)
        Q = linalg.solve_continuous_lyapunov(A.conj().T, -C.conj().T @ C)
    energy = np.trace(C @ P @ C.conj().T).real
    squares = np.linalg.eigvals(P @ Q).real
    return {
        "P": P,
        "Q": Q,
        "h2": np.sqrt([max(energy, 0.0)]),
        "hankel": np.sort(np.sqrt(np.maximum(squares, 0.0)))[::-1],
    }


def slycot_answers(name: str) -> dict[str, np.ndarray]:
    system = strictly_proper(name)
    n, m, p = system.order, system.inputs, system.outputs
    kind = "D" if system.is_discrete else "C"
    A, B, C = (np.array(a, order="F") for a in (system.A, system.B, system.C))
    norm = slycot.ab13bd(kind, "H", n, m, p, A.copy(), B.copy(), C.copy(), np.zeros((p, m)))
    values = slycot.ab09ad(kind, "B", "N", n, m, p, A.copy(), B.copy(), C.copy(), n, 0.0)[4]
    found = {"h2": np.array([norm]), "hankel": np.asarray(values)}
    for key, matrix, weight, job in (("P", A, B @ B.T, "T"), ("Q", A, C.T @ C, "N")):
        found[key] = slycot.sb03md57(matrix.copy(), C=-weight, dico=kind, job="X", trana=job)[2]
    return found


def control_answers(name: str) -> dict[str, np.ndarray]:
    system = strictly_proper(name)
    foreign = system.to_control()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Poles close to", UserWarning)
        norm = control.system_norm(foreign, 2)
    found = {
        "P": np.asarray(control.gram(foreign, "c")),
        "Q": np.asarray(control.gram(foreign, "o")),
        "h2": np.array([norm]),
    }
    if not system.is_discrete:  # python-control has no Hankel values of discrete systems
        found["hankel"] = np.asarray(control.hsvd(foreign))
    return found


def errors(answers: dict[str, np.ndarray], name: str) -> dict[str, float]:
    P, Q, norm, values = truth(name)
    exact_answers = {"P": P, "Q": Q, "h2": np.array([norm]), "hankel": values}
    return {key: relative(np.asarray(value), exact_answers[key]) for key, value in answers.items()}


def floor(name: str) -> float:
    """Return the relative error below which nothing tells two good solvers apart."""
    return CHANCE * SYSTEMS[name]().order * EPS * CONDITIONS.get(name, 1.0)


@pytest.mark.parametrize("name", SYSTEMS)
def test_answers_are_right_to_rounding(name):
    for key, error in errors(own_answers(name), name).items():
        assert error <= 100 * floor(name), key


@pytest.mark.parametrize("name", SYSTEMS)
def test_no_peer_is_closer_beyond_chance(name):
    found = [scipy_answers(name)]
    if name not in PEERLESS:
        found += [slycot_answers(name), control_answers(name)]
    peers = [errors(answers, name) for answers in found]
    own = errors(own_answers(name), name)
    assert own.keys() == {"P", "Q", "h2", "hankel"}
    for key, error in own.items():
        best = min(np.nan_to_num(peer[key], nan=np.inf) for peer in peers if key in peer)
        assert error <= max(best, floor(name)), key
