"""State-space layers in balls: exact modes, impulse responses, gains, and the rule of a layer.

``S v - S^ v^ = (S - S^) v^ + S (v - v^)``: theorem 1 of ``theory/network-bound.md``; gains over a
finite horizon are those of ``theory/l1-gain.md`` and ``theory/finite-horizon-gain.md``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from ssmred.errors import CheckpointError, message
from ssmred.rigour.balls import (
    ZERO,
    acb,
    acb_mat,
    arb,
    exact,
    largest,
    maximum,
    minimum,
    norm,
    root,
    size,
    times,
    total,
)
from ssmred.rigour.values import Value

__all__ = ["Channels", "Gains", "Reduction", "inherited", "local_error", "with_injected"]

OVERSAMPLING = 8
"""Frequencies per sample of the response, as where the certificate was made."""

UNIT = 2.0**-53


@dataclass(frozen=True, eq=False)
class Channels:
    """Hold H independent channels: ``h_k = Re sum_i r_i l_i^k``, and ``D`` added to ``h_0``.

    Parameters
    ----------
    poles, residues : list of lists of acb
        One list per channel.
    direct : (H,) array
    keys : list of tuple
        The stored numbers of every channel: equal keys are equal channels.
    """

    poles: list[list[acb]]
    residues: list[list[acb]]
    direct: np.ndarray
    keys: list[tuple[Any, ...]]

    @property
    def states(self) -> int:
        """Real states: two per mode."""
        return 2 * sum(len(channel) for channel in self.poles)

    @classmethod
    def of_s4d(cls, tensors: dict[str, np.ndarray]) -> Channels:
        """Return the channels of a minimal S4D layer, exact functions of its stored parameters.

        ``A = -exp(log_A_real) + i A_imag``, ``dt = exp(log_dt)``, ``l = exp(dt A)``,
        ``r = 2 C (l - 1) / A``.

        Parameters
        ----------
        tensors : dict
            ``D (H)``, ``C (H, n, 2)``, ``log_dt (H)``, ``log_A_real (H, n)``, ``A_imag (H, n)``.
        """
        H, n = tensors["A_imag"].shape
        shapes = {"D": (H,), "C": (H, n, 2), "log_dt": (H,), "log_A_real": (H, n)}
        for name, shape in shapes.items():
            _check_shape(name, tensors[name], shape)
        C, imaginary, logs = (exact(tensors[name]) for name in ("C", "A_imag", "log_A_real"))
        poles, residues = [], []
        for channel, log_dt in enumerate(exact(tensors["log_dt"])):
            step = log_dt.exp()
            rates = [acb(-logs[channel, i].exp(), imaginary[channel, i]) for i in range(n)]
            exponents = [step * rate for rate in rates]
            poles.append([exponent.exp() for exponent in exponents])
            residues.append(
                [2 * acb(*C[channel, i]) * exponents[i].expm1() / rates[i] for i in range(n)]
            )
        keys = [("S4D", *(tensors[name][h].tobytes() for name in tensors)) for h in range(H)]
        return cls(poles, residues, exact(tensors["D"]), keys)

    @classmethod
    def of_modes(cls, tensors: dict[str, np.ndarray]) -> Channels:
        """Return the channels of a reduced layer: ``poles``, ``residues (K, 2)`` as they stand."""
        offsets = tensors["offsets"].tolist()
        H, K = len(offsets) - 1, tensors["poles"].shape[0]
        for name, shape in (("poles", (K, 2)), ("residues", (K, 2)), ("D", (H,))):
            _check_shape(name, tensors[name], shape)
        if offsets[0] != 0 or offsets[-1] != K or offsets != sorted(offsets):
            raise CheckpointError(message("rigour", "the offsets of a layer do not fit its modes"))
        pairs = [[acb(*pair) for pair in exact(tensors[name])] for name in ("poles", "residues")]
        spans = list(pairwise(offsets))
        parts = [[modes[first:last] for first, last in spans] for modes in pairs]
        stored = [tensors[name] for name in ("poles", "residues")]
        keys = [
            ("modes", direct.tobytes(), *(tensor[first:last].tobytes() for tensor in stored))
            for direct, (first, last) in zip(tensors["D"], spans, strict=True)
        ]
        return cls(*parts, exact(tensors["D"]), keys)

    def response(self, horizon: int) -> np.ndarray:
        """Return the first samples of every channel's impulse response, (H, T).

        ``l^k = l^(s a) l^b``: two tables of powers and one product of matrices per channel.
        """
        span = math.isqrt(horizon - 1) + 1
        rows = -(-horizon // span)
        out = np.empty((len(self.poles), horizon), dtype=object)
        for channel, (poles, residues) in enumerate(zip(self.poles, self.residues, strict=True)):
            out[channel] = _samples(poles, residues, span, rows)[:horizon]
        out[:, 0] = out[:, 0] + self.direct
        return out

    def import_rounding(self, horizon: int) -> np.ndarray:
        """Return, as floats, how far a float64 import of the layer may be off in the l1 norm.

        No theorem: it tells rounding from a difference where a FLOAT certificate is compared.
        """
        out = np.empty(len(self.poles))
        steps = np.arange(1, horizon + 1)
        for channel, (poles, residues) in enumerate(zip(self.poles, self.residues, strict=True)):
            moduli = np.array([float(abs(pole)) for pole in poles])
            turns = np.array([abs(float(pole.log().imag)) if pole != 0 else 0.0 for pole in poles])
            sizes = np.array([float(abs(residue)) for residue in residues])
            with np.errstate(over="ignore"):
                powers = moduli[:, None] ** (steps - 1)
            terms = sizes[:, None] * (1.0 + turns[:, None]) * steps * powers
            out[channel] = 8 * UNIT * float(terms.sum() + abs(float(self.direct[channel])))
        return out


def _samples(poles: list[acb], residues: list[acb], span: int, rows: int) -> list[arb]:
    n = len(poles)
    if n == 0:
        return [ZERO] * (span * rows)
    low = [[acb(1)] * n]
    for _ in range(span):
        low.append([power * pole for power, pole in zip(low[-1], poles, strict=True)])
    strides = low.pop()
    high = [residues]
    for _ in range(rows - 1):
        high.append([power * stride for power, stride in zip(high[-1], strides, strict=True)])
    right = acb_mat(n, span, [row[i] for i in range(n) for row in low])
    values = acb_mat(rows, n, [entry for row in high for entry in row]) * right
    return [value.real for value in values.entries()]


def _check_shape(name: str, tensor: np.ndarray, shape: tuple[int, ...]) -> None:
    if tensor.shape != shape:
        raise CheckpointError(
            message(
                "rigour",
                f"the tensor {name!r} of a layer has another shape",
                expected=f"{shape}",
                got=f"{tensor.shape}",
            )
        )


# Gains ----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Gains:
    """Hold the gains of H channels, (H,) each.

    Parameters
    ----------
    l1, l2, h2 : array
        ``sum |h_k|``; largest modulus of the transfer function; ``(sum h_k^2)^(1/2)``.
    step_lo, step_hi, step_l2 : array
        Range and 2-norm of the step response.
    """

    l1: np.ndarray
    l2: np.ndarray
    h2: np.ndarray
    step_lo: np.ndarray
    step_hi: np.ndarray
    step_l2: np.ndarray

    @property
    def step(self) -> np.ndarray:
        """Largest absolute value of the step response."""
        return minimum(maximum(size(self.step_lo), size(self.step_hi)), self.l1)


def transform_length(horizon: int) -> int:
    """Return the least number of frequencies, at least 8 T, whose only factors are 2, 3 and 5."""
    length = OVERSAMPLING * horizon
    while True:
        rest = length
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return length
        length += 1


def gains_of(h: np.ndarray, advance: Callable[[], None]) -> Gains:
    """Return the gains of responses (H, T)."""
    rows = []
    for samples in h:
        rows.append(_channel_gains(samples))
        advance()
    return Gains(*(np.array(column, dtype=object) for column in zip(*rows, strict=True)))


def _channel_gains(samples: np.ndarray) -> tuple[arb, ...]:
    l1 = total(abs(sample) for sample in samples)
    if l1.is_zero():
        return (ZERO,) * 6
    l2 = _largest_transfer(samples).min(l1)
    steps, so_far = [], ZERO
    for sample in samples:
        so_far = so_far + sample
        steps.append(so_far)
    step_lo, step_hi = -largest(-step for step in steps), largest(steps)
    return l1, l2, norm(samples).min(l2), step_lo, step_hi, norm(steps)


def _largest_transfer(samples: np.ndarray) -> arb:
    """Return ``max_j |H(w_j)| / cos(pi (T - 1) / (2 N))`` over N equispaced frequencies."""
    horizon = len(samples)
    length = transform_length(horizon)
    padded = [acb(sample) for sample in samples] + [acb(0)] * (length - horizon)
    values = acb.dft(padded)[: length // 2 + 1]  # a real response: the others are conjugates
    peak = largest(value.real * value.real + value.imag * value.imag for value in values)
    return root(peak) / (arb.pi() * (horizon - 1) / (2 * length)).cos()


@dataclass(frozen=True, eq=False)
class Reduction:
    """Hold one layer before and after: gains of S, of S^ and of the difference.

    Parameters
    ----------
    name : str
    original, reduced, difference : Gains
    size : arb
        h2 norm of the original layer.
    states : (int, int)
        Real states, original and reduced.
    rounding : (H,) float64
        What float64 import may have done to the original; see `Channels.import_rounding`.
    """

    name: str
    original: Gains
    reduced: Gains
    difference: Gains
    size: arb
    states: tuple[int, int]
    rounding: np.ndarray

    @classmethod
    def between(
        cls,
        name: str,
        original: Channels,
        reduced: Channels,
        horizon: int,
        advance: Callable[[], None],
    ) -> Reduction:
        """Return the gains of a layer and of its reduction over T samples."""
        if len(original.poles) != len(reduced.poles):
            raise CheckpointError(
                message(
                    "rigour",
                    f"layer {name!r} has another number of channels once reduced",
                    expected=str(len(original.poles)),
                    got=str(len(reduced.poles)),
                )
            )
        h, g = original.response(horizon), reduced.response(horizon)
        gap = h - g
        for channel, keys in enumerate(zip(original.keys, reduced.keys, strict=True)):
            if keys[0] == keys[1]:
                gap[channel] = ZERO  # the balls of equal responses differ by their width
        return cls(
            name,
            gains_of(h, advance),
            gains_of(g, advance),
            gains_of(gap, advance),
            norm(norm(channel) for channel in h),
            (original.states, reduced.states),
            original.import_rounding(horizon),
        )


# The rule of a layer --------------------------------------------------------------------------


def _outputs(gains: Gains, x: Value) -> tuple[np.ndarray, np.ndarray]:
    """Return bounds on the sup and on the 2-norm of every output for inputs like x^."""
    center, radius = size(x.center), x.radius
    sup = times(center, gains.step) + times(radius, gains.l1)
    each = times(center, gains.step_l2) + times(x.root_steps * radius, gains.l2)
    return minimum(sup, times(x.l2_each, gains.h2)), minimum(each, times(x.l2_each, gains.l2))


def local_error(layer: Reduction, x: Value) -> tuple[np.ndarray, np.ndarray, arb]:
    """Return bounds on ``(S - S^) v^``: sup and 2-norm of every channel, 2-norm of all."""
    sup, each = _outputs(layer.difference, x)
    return sup, each, norm(each)


def inherited(gains: Gains, original: Gains, x: Value) -> Value:
    """Return the range behind a layer with `gains`, and the error ``S (v - v^)`` that comes in."""
    center, radius = x.center, x.radius
    first, second = center * gains.step_lo, center * gains.step_hi
    spread = times(radius, gains.l1)
    sup, each = _outputs(gains, x)
    errors = x.scaled_errors(original.l2)
    errors["sup"] = minimum(times(original.l1, x.sup), times(original.h2, x.each))
    return Value(
        maximum(minimum(first, second) - spread, -sup),
        minimum(maximum(first, second) + spread, sup),
        x.steps,
        l2=times(largest(gains.l2), x.l2),
        l2_each=each,
        **errors,
    )


def with_injected(x: Value, sup: np.ndarray, each: np.ndarray, whole: arb) -> Value:
    """Return the value with a further error within these bounds."""
    return x.with_errors(
        sup=x.sup + minimum(sup, each),
        error=x.error + whole,
        each=x.each + each,
        ball=x.ball.plus_box(each),
    )
