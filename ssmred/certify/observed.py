"""Bound the output error on single inputs, from what the reduced network computes on them.

The rules of ``theory/error-rules.md`` at known points: time steps are features here, every range is
the activation itself, and a layer's own error ``(S - S^) v^`` is computed. The original network
does not run. Theory: ``theory/observed-bound.md``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.fft import next_fast_len

from ssmred.certify.chain import merge_graphs
from ssmred.certify.coupled import CoupledGains, carried
from ssmred.certify.evaluate import EVALUATIONS, can_evaluate
from ssmred.certify.graph import NetworkGraph, Node
from ssmred.certify.layer_forms import check_layer
from ssmred.certify.responses import (
    Gains,
    difference_samples,
    fingerprint,
    layer_gains,
    response_samples,
)
from ssmred.certify.rules_ssm import with_injected
from ssmred.certify.rules_table import apply_rule, check_rules
from ssmred.certify.values import EPS, ErrorBall, Value, norm, times, up
from ssmred.checks import check_integer
from ssmred.errors import DataError, ShapeError, UnsupportedOperationError, message

__all__ = ["ObservedBound", "ObservedChain"]

EVALUATED = 2.0**-30
"""What float64 evaluation may lose of a signal, relative to its largest entry; far more than was
ever seen."""

FFT_ULPS = 16  # per halving: Higham, Accuracy and Stability of Numerical Algorithms, 24.1, thrice

INFERENCE_ROUNDING = 1e-13  # of the output's size: so that two runs in float64 can be compared


@dataclass(frozen=True, eq=False)
class ObservedBound:
    """Hold the output of the reduced network on one input, and how far the original's can be.

    Parameters
    ----------
    output : ndarray, float64
        Axes as those of the network, without a batch.
    error : ndarray, float64
        Bound on the 2-norm of the difference of every output vector (features last): a number, or
        one per time step; inf where nothing is known.
    """

    output: np.ndarray
    error: np.ndarray


class Response:
    """Convolve with a known response, and carry error bounds through its moduli.

    Parameters
    ----------
    h : (H, T) or (p, m, T) float64
        Of channels by themselves, or of a shared state.
    noise : (H,) or (p, m) float64
        Bounds on ``sum_k |rounding_k|``.
    """

    def __init__(self, h: np.ndarray, noise: np.ndarray) -> None:
        self.steps = h.shape[-1]
        self.length = next_fast_len(2 * self.steps, real=True)
        self.spectrum = np.fft.rfft(h, self.length)
        self.noise = noise
        self.l1 = up(np.sum(np.abs(h), axis=-1) + noise, self.steps)
        share = FFT_ULPS * EPS * math.log2(self.length)
        size = math.sqrt(self.steps) * norm(np.abs(h), axis=-1) + 2.0 * self.l1
        self.loss = up(share * size)  # of the convolution, per 2-norm of the signal

    def of(self, u: np.ndarray) -> np.ndarray:
        """Return the outputs for inputs (channels, T)."""
        spectrum = np.fft.rfft(u, self.length)
        product = (
            self.spectrum * spectrum
            if self.spectrum.ndim == 2
            else np.einsum("pmf,mf->pf", self.spectrum, spectrum)
        )
        return np.fft.irfft(product, self.length)[:, : self.steps]

    def doubt(self, u: np.ndarray, wide: np.ndarray) -> np.ndarray:
        """Return what `of` may lose on inputs known to ``wide`` (channels,), for every output."""
        size, peak = norm(np.abs(u), axis=-1), np.max(np.abs(u), axis=-1, initial=0.0)
        lost = self.loss * size + self.noise * peak + self.l1 * wide
        return up(lost if lost.ndim == 1 else lost.sum(axis=-1), 8 + lost.shape[-1])


@dataclass(frozen=True, eq=False)
class ObservedLayer:
    """Hold what one layer needs: the reduced response, the difference, the original's moduli."""

    reduced: Response
    difference: Response | None
    moduli: Response
    gains: Gains

    @classmethod
    def of(cls, node: Node, steps: int) -> ObservedLayer:
        """Prepare a node that holds both systems."""
        original, reduced = node.params["system"], node.params["reduced"]
        for system in (original, reduced):
            check_layer(system, "ObservedChain")
        h, noise = response_samples(original, steps)
        same = fingerprint(original) == fingerprint(reduced)
        return cls(
            Response(*response_samples(reduced, steps)),
            None if same else Response(*difference_samples(original, reduced, steps)),
            Response(np.abs(h), noise),
            layer_gains(original, steps),
        )

    def own_error(self, u: np.ndarray) -> np.ndarray:
        """Return bounds on ``|(S - S^) v^|``, (outputs, T), for the signal ``v^`` (inputs, T)."""
        if self.difference is None:
            return np.zeros((len(self.reduced.spectrum), u.shape[-1]))
        wide = EVALUATED * np.full(len(u), np.max(np.abs(u), initial=0.0))
        return np.abs(self.difference.of(u)) + self.difference.doubt(u, wide)[:, None]

    def carried_error(self, x: Value) -> dict[str, Any]:
        """Return the error fields of ``S (v - v^)`` for a value (inputs, T)."""
        weights = np.max(x.error_ball.scale, axis=-1)
        channel = np.minimum(norm(x.error_features, axis=-1), x.error_l2)
        channel = np.minimum(channel, times(weights, x.error_ball.radius))
        unknown = np.isinf(x.error_sup).any(axis=-1)
        known = np.where(unknown[:, None], 0.0, x.error_sup)
        sup = np.maximum(self.moduli.of(known), 0.0)
        sup = up(sup + self.moduli.doubt(known, np.zeros(len(known)))[:, None])
        if isinstance(self.gains, CoupledGains):
            gains, column = self.gains, channel[:, None]
            if unknown.any():
                sup = np.full_like(sup, math.inf)
            peak = np.minimum(carried(gains.h2, column)[:, 0], times(gains.h2_rows, x.error_l2))
            entry = np.minimum(carried(gains.l2, column)[:, 0], times(gains.l2_rows, x.error_l2))
            whole, ball = float(times(gains.l2_whole, x.error_l2)), None
        else:
            sup[unknown] = math.inf
            peak, entry = times(self.gains.h2, channel), times(self.gains.l2, channel)
            whole = math.inf
            scale = np.broadcast_to(times(self.gains.l2, weights)[:, None], sup.shape)
            ball = ErrorBall(scale, x.error_ball.radius)
        return {
            "error_sup": np.minimum(sup, np.minimum(peak, entry)[:, None]),
            "error_l2": min(whole, float(norm(entry))),
            "error_ball": ball,
        }


class ObservedChain:
    """Bound the error of a reduced network on single inputs of one length.

    Parameters
    ----------
    original, reduced : NetworkGraph
        The same network, but for the systems of its state-space layers.
    steps : int
        Length T of the inputs.

    Raises
    ------
    UnsupportedOperationError
        If an operation has no rule, or is a user's own: its values are not known here.
    CertificateError
        If the networks differ outside their state-space layers.

    Notes
    -----
    Certificate level FLOAT: the theorem evaluated in float64, bounds rounded up; activations are
    taken to be right to ``2**-30`` of their largest entry. What depends on the layers alone is
    computed once, here. Theory: ``theory/observed-bound.md``.
    """

    def __init__(self, original: NetworkGraph, reduced: NetworkGraph, steps: int) -> None:
        self.steps = check_integer(steps, "steps", "ObservedChain", low=1)
        self.graph = merge_graphs(original, reduced)
        check_rules(self.graph, "ObservedChain")
        if not can_evaluate(self.graph):
            own = [n.op for n in self.graph if n.op != "input" and n.op not in EVALUATIONS]
            raise UnsupportedOperationError(
                message(
                    "ObservedChain",
                    f"the values of {', '.join(sorted(set(own)))} are not known",
                    expected="operations of ssmred.certify.graph alone",
                    cure="Write the module in such operations; a rule alone computes nothing.",
                )
            )
        self._layers: dict[tuple[str, int], ObservedLayer] = {}
        for node in self.graph.ssm_nodes:
            self._layer(node, self.steps)

    def bound(self, sample: np.ndarray) -> ObservedBound:
        """Return the reduced network's output on one input, and the bound on its error.

        Parameters
        ----------
        sample : ndarray
            Axes as those of the input node (no batch): real numbers, or tokens.

        Raises
        ------
        ShapeError, DataError
            If the input has another length or shape, or is not finite.
        """
        signals: dict[str, np.ndarray] = {}
        values: dict[str, Value] = {}
        overflow = False
        for node in self.graph:
            signals[node.name] = self._signal(node, signals, sample)
            overflow = overflow or not np.isfinite(signals[node.name]).all()
            if not overflow:
                values[node.name] = self._carried(node, signals, values)
        return _answer(signals[self.graph.output], values.get(self.graph.output))

    def _layer(self, node: Node, steps: int) -> ObservedLayer:
        """Return what a layer needs for signals of a length, which may be a part of the input's."""
        key = node.name, steps
        if key not in self._layers:
            self._layers[key] = ObservedLayer.of(node, steps)
        return self._layers[key]

    def _signal(self, node: Node, signals: dict[str, np.ndarray], sample: np.ndarray) -> np.ndarray:
        """Return what a node computes in the reduced network."""
        if node.op == "input":
            return self._checked(node, sample)
        inputs = [signals[name] for name in node.inputs]
        with np.errstate(over="ignore", invalid="ignore"):
            if node.op == "ssm":
                return self._layer(node, inputs[0].shape[-1]).reduced.of(inputs[0])
            return np.asarray(EVALUATIONS[node.op](node, *inputs))

    def _carried(
        self, node: Node, signals: dict[str, np.ndarray], values: dict[str, Value]
    ) -> Value:
        """Return the value of a node: its range is the signal, its error follows by the rule."""
        signal = signals[node.name]
        given = [values[name] for name in node.inputs]
        value = _observed(signal, node)
        if node.op == "input":
            return value
        if node.op == "ssm":
            layer = self._layer(node, signal.shape[-1])
            if given[0].error_l2 > 0.0:
                with np.errstate(all="ignore"):
                    value = value.with_errors(**layer.carried_error(given[0]))
            own = layer.own_error(signals[node.inputs[0]])
            return with_injected(value, own, own, float(norm(own))) if own.any() else value
        if all(x.error_l2 == 0.0 for x in given):  # nothing before it is reduced
            return value
        found = apply_rule(_unrolled(node, signal.shape), *given)
        return value.with_errors(**found.error_facts())

    def _checked(self, node: Node, sample: np.ndarray) -> np.ndarray:
        signal = np.asarray(sample)
        shape = list(node.params["shape"])
        if node.time_axis is not None:
            shape[node.time_axis] = self.steps
        if signal.shape != tuple(shape):
            raise ShapeError(
                message(
                    "ObservedChain.bound",
                    "the input does not fit the network",
                    expected=f"{tuple(shape)}",
                    got=f"{signal.shape}",
                )
            )
        if node.param("tokens", False):
            return signal
        signal = signal.astype(np.float64)
        if not np.isfinite(signal).all():
            raise DataError(message("ObservedChain.bound", "the input holds nan or inf"))
        return signal


def _unrolled(node: Node, shape: tuple[int, ...]) -> Node:
    """Return a node in which time is an axis like any other."""
    changed = replace(node, axes=("feature",) * len(node.axes))
    return changed.with_params(shape=shape) if node.op == "reshape" else changed


def _observed(signal: np.ndarray, node: Node) -> Value:
    """Return the value of a signal that is known, without error; the input is known exactly."""
    wide = EVALUATED * float(np.max(np.abs(signal), initial=0.0)) if node.inputs else 0.0
    axes = ("feature",) * len(node.axes)
    nothing = np.zeros(signal.shape)
    return Value(signal - wide, signal + wide, axes, error_sup=nothing, error_l2=0.0)


def _answer(signal: np.ndarray, value: Value | None) -> ObservedBound:
    """Return the bound on every output vector: features last, one per time step."""
    signal = np.atleast_1d(signal)
    if value is None:  # a signal overflowed: nothing is known
        return ObservedBound(signal, np.full(signal.shape[:-1], math.inf))
    error = np.minimum(norm(value.error_sup.reshape(signal.shape), axis=-1), value.error_l2)
    rounding = INFERENCE_ROUNDING * norm(np.abs(signal), axis=-1)
    return ObservedBound(signal, np.asarray(np.where(error > 0.0, up(error + rounding), 0.0)))
