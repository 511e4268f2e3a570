"""Compare what tensors say about a shared-state layer with what the layer itself computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from ssmred.errors import CheckpointError, RequestError, message
from ssmred.networks.adapters.shared_probing import (
    LAYOUTS,
    Layout,
    precision,
    realisations,
    run,
)
from ssmred.systems import DiagonalSystem

__all__ = ["Agreement", "Candidate", "Rounding", "agree", "discrepancy", "respond"]

CHECKED_SAMPLES = 40
"""Steps that are compared: another discretisation, sign, factor, conjugate or delay shows in the
first few, at a cost that does not weigh on large networks."""

MARGIN = 8.0
"""Roundings per term that two evaluations of the same layer may differ by."""

NONLINEAR = 1e-3
"""Relative departure from linearity that is no rounding, in any precision."""

DOUBLE = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Rounding:
    """Say how far one rounding of every operation moves poles and inputs, in units of eps.

    Attributes
    ----------
    poles : (P,) float64
    inputs : (P, m) float64
    """

    poles: np.ndarray
    inputs: np.ndarray


@dataclass(frozen=True)
class Candidate:
    """Hold one reading of a layer's tensors.

    Attributes
    ----------
    settings : Any
        What the tensors do not tell.
    systems : dict of str to DiagonalSystem
        ``core``, and ``backward`` for the filter that runs on the reversed sequence.
    rounding : Rounding
    eps : float
        Rounding of the numbers that the systems are made of.
    """

    settings: Any
    systems: dict[str, DiagonalSystem]
    rounding: Rounding
    eps: float = DOUBLE


@dataclass(frozen=True)
class Agreement:
    """Hold the reading that a layer agrees with, and how the layer takes sequences."""

    candidate: Candidate
    layout: Layout


def respond(systems: dict[str, DiagonalSystem], u: np.ndarray) -> np.ndarray:
    """Return the output for u (..., T, m): the forward filter, and the other on time reversed."""
    y = systems["core"].simulate(u)
    if "backward" in systems:
        y = y + systems["backward"].simulate(u[..., ::-1, :])[..., ::-1, :]
    return y


def agree(
    module: nn.Module,
    candidates: Sequence[Candidate],
    where: str,
    *,
    trusted: str | None = None,
    stepper: nn.Module | None = None,
) -> Agreement:
    """Return the candidate whose response is the layer's own, by every way it offers.

    Compared on random inputs in the module's dtype and in double precision. The bound on their
    difference follows the rounding of every term to first order, so that nothing is left to a
    tolerance of the user's.

    Parameters
    ----------
    module : nn.Module
    candidates : sequence of Candidate
        Readings, the likeliest first.
    where : str
        The public name that refuses.
    trusted : str, optional
        The realisation that decides where the layer's own ones disagree.
    stepper : nn.Module, optional
        See `realisations`.

    Raises
    ------
    CheckpointError
        If no reading agrees, or the layer's realisations disagree and none is trusted.
    RequestError
        If the trusted one does not exist.
    """
    system = candidates[0].systems["core"]
    u = _noise(system)
    ways = realisations(module, stepper)
    answers: dict[str, dict[bool, tuple[np.ndarray, Layout]]] = {}
    layout = None
    for name, how in ways.items():
        for wanted in (layout,) if layout else LAYOUTS:
            both = {d: run(module, how, wanted, u, system.outputs, double=d) for d in (True, False)}
            ran = {double: answer for double, answer in both.items() if answer is not None}
            if ran:
                answers[name] = ran
                layout = layout or next(iter(ran.values()))[1]
                break
    if not answers or layout is None:
        raise CheckpointError(
            message(
                where,
                f"{type(module).__name__} does not run on a random input",
                expected=f"(batch, T, {system.inputs}), (T, {system.inputs}) or "
                f"(batch, {system.inputs}, T) to give {system.outputs} outputs",
                cure="Register an adapter of its own with ssmred.networks.register_adapter.",
            )
        )
    if trusted is not None and trusted not in answers:
        raise RequestError(
            message(
                where,
                f"{type(module).__name__} has no realisation {trusted!r}",
                expected=f"one of {sorted(answers)}",
            )
        )
    judged = [name for name in answers if trusted in (None, name)]
    coarse = precision(module)
    shares = [
        {name: _share(candidate, u, answers[name], coarse) for name in answers}
        for candidate in candidates
    ]
    order = sorted(range(len(candidates)), key=lambda i: max(shares[i][n] for n in judged))
    best = order[0]
    if all(shares[best][name] <= 1.0 for name in judged):
        return Agreement(candidates[best], layout)
    name = judged[0]
    again = run(module, ways[name], layout, 2.0 * u, system.outputs, double=max(answers[name]))
    y = _any(answers[name])
    if again is None or np.abs(again[0] - 2.0 * y).max() > NONLINEAR * np.abs(y).max():
        raise CheckpointError(
            message(
                where,
                f"{type(module).__name__} ({name}) is not linear in its input: twice the input "
                "does not give twice the output",
                expected="a linear time-invariant filter",
                cure="Input-dependent layers (liquid, selective) have no impulse response to "
                "reduce; only their other layers can be.",
            )
        )
    raise _mismatch(module, candidates, shares, u, answers, where, judged)


def _noise(system: DiagonalSystem) -> np.ndarray:
    length = CHECKED_SAMPLES
    while length in (system.inputs, system.outputs, system.order):  # axes must be told apart
        length += 1
    return np.random.default_rng(0).standard_normal((2, length, system.inputs))


def _share(
    candidate: Candidate,
    u: np.ndarray,
    answers: dict[bool, tuple[np.ndarray, Layout]],
    coarse: float,
) -> float:
    """Return the largest difference over what rounding explains."""
    wanted, size = respond(candidate.systems, u), _sizes(candidate, u)
    worst = 0.0
    for double, (y, _) in answers.items():
        eps = max(DOUBLE if double else coarse, candidate.eps)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            share = np.abs(y - wanted) / (MARGIN * eps * size)
        share[y == wanted] = 0.0
        worst = max(worst, float(np.where(np.isnan(share), np.inf, share).max(initial=0.0)))
    return worst


def _sizes(candidate: Candidate, u: np.ndarray) -> np.ndarray:
    """Return, per output, the largest first-order effect of one rounding of everything.

    ``x`` bounds the states, ``e`` what a change of poles, inputs and sums does to them. The largest
    of all times counts: a Fourier transform spreads its rounding over them.
    """
    total = 0.0
    for name, system in candidate.systems.items():
        signal = np.abs(u if name == "core" else u[..., ::-1, :])
        radius, B, C = np.abs(system.poles[0]), np.abs(system.B[0]), np.abs(system.C[0])
        terms = system.order + system.inputs
        moved = candidate.rounding.poles + 4.0 * radius
        x = np.zeros((*signal.shape[:-2], system.order))
        e, largest = x.copy(), np.zeros((*signal.shape[:-2], 1, system.outputs))
        for k in range(signal.shape[-2]):
            new = signal[..., k, :] @ B.T
            e = radius * e + moved * x + signal[..., k, :] @ candidate.rounding.inputs.T
            x = radius * x + new
            e = e + new  # hold and input rounded
            direct = signal[..., k, :] @ np.abs(system.D[0]).T
            y = (e + terms * x) @ C.T + terms * direct
            largest = np.maximum(largest, y[..., None, :])
        total = total + largest
    return np.asarray(total)


def _mismatch(
    module: nn.Module,
    candidates: Sequence[Candidate],
    shares: list[dict[str, float]],
    u: np.ndarray,
    answers: dict[str, dict[bool, tuple[np.ndarray, Layout]]],
    where: str,
    judged: list[str],
) -> CheckpointError:
    kind = type(module).__name__
    for candidate, share in zip(candidates, shares, strict=True):
        right = [name for name in judged if share[name] <= 1.0]
        if right:
            wrong = {
                name: discrepancy(candidate.systems, u, _any(answers[name]))
                for name in judged
                if name not in right
            }
            listed = ", ".join(f"{name} ({error:.2g})" for name, error in wrong.items())
            return CheckpointError(
                message(
                    where,
                    f"the realisations of {kind} disagree: {', '.join(right)} computes what the "
                    f"weights say, {listed} does not (relative difference)",
                    cure=f"Name the one you trust: trusted={right[0]!r}.",
                )
            )
    best = min(range(len(candidates)), key=lambda i: min(shares[i][n] for n in judged))
    name = min(judged, key=lambda n: shares[best][n])
    y = _any(answers[name])
    wanted = respond(candidates[best].systems, u)
    place = tuple(int(i) for i in np.unravel_index(np.argmax(np.abs(y - wanted)), y.shape))
    tried = "; ".join(str(candidate.settings) for candidate in candidates)
    return CheckpointError(
        message(
            where,
            f"the output of {kind} ({name}) is not the response of its weights (step {place[1]}, "
            f"output {place[2]}, relative difference "
            f"{discrepancy(candidates[best].systems, u, y):.2g}; tried {tried})",
            expected=f"{wanted[place]:.6g}",
            got=f"{y[place]:.6g}",
            cure="A layer that computes otherwise needs an adapter of its own; a discretisation or "
            "step scale that was set by hand may be wrong.",
        )
    )


def _any(answers: dict[bool, tuple[np.ndarray, Layout]]) -> np.ndarray:
    return answers[max(answers)][0]  # in double where it runs


def discrepancy(systems: dict[str, DiagonalSystem], u: np.ndarray, y: np.ndarray) -> float:
    """Return the largest difference between response and output, over the largest output."""
    difference = np.abs(respond(systems, u) - y).max(initial=0.0)
    largest = np.abs(y).max(initial=0.0)
    return float(difference / largest) if largest else float(difference)
