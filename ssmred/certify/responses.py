"""Measure state-space layers: the gains that the rule of a layer needs.

A layer on a finite horizon is its first T impulse-response samples; gains, differences and step
responses are taken from them. The difference of two systems that share poles is formed from the
differences of their coefficients, in double-double arithmetic: reductions to relative errors of
1e-14 are real there, not noise (``theory/network-bound.md``).
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssmred.certify.coupled import CoupledGains, coupled_gains, endless_gains
from ssmred.certify.layer_forms import check_layer, has_diagonal_channels, layer_width
from ssmred.certify.values import EPS, norm, up
from ssmred.checks import check_finite
from ssmred.errors import ShapeError, message
from ssmred.kernels.compensated import fill_difference_response
from ssmred.norms import (
    difference_response,
    h2_error,
    h2_norm,
    impulse_l1_gain,
    impulse_l2_gain,
    l1_gain_error,
    l2_gain_error,
)
from ssmred.norms.dense_gain import dense_samples
from ssmred.systems import DenseSystem, DiagonalSystem
from ssmred.systems.conversions import difference_of
from ssmred.systems.linear import LinearSystem

__all__ = [
    "LayerGains",
    "difference_samples",
    "layer_gains",
    "reduction_gains",
    "response_samples",
]

LARGEST = 1e280  # terms above it are near the splitting limit of error-free products
CACHED_LAYERS = 128  # gains kept; a search asks for the same original layers again and again
_known: OrderedDict[Any, Any] = OrderedDict()


@dataclass(frozen=True, eq=False)
class LayerGains:
    """Hold the gains of H independent channels, each an upper bound.

    Parameters
    ----------
    l1 : (H,) float64
        ``sum_k |h_k|``: largest output per largest input.
    l2 : (H,) float64
        2-norm of the output per 2-norm of the input.
    h2 : (H,) float64
        ``(sum_k h_k^2)^(1/2)``: largest output per 2-norm of the input.
    step_lo, step_hi : (H,) float64
        Range of the step response ``sum_{j <= k} h_j`` over time.
    step_l2 : (H,) float64
        2-norm of the step response over the horizon; inf where that is infinite.
    """

    l1: np.ndarray
    l2: np.ndarray
    h2: np.ndarray
    step_lo: np.ndarray
    step_hi: np.ndarray
    step_l2: np.ndarray

    @property
    def step(self) -> np.ndarray:
        """Largest absolute value of the step response, at most ``l1``."""
        return np.minimum(np.maximum(np.abs(self.step_lo), np.abs(self.step_hi)), self.l1)

    def column(self, key: str) -> np.ndarray:
        """Return one gain as an (H, 1) array, to meet values of shape (H, 1)."""
        return getattr(self, key)[:, None]


Gains = LayerGains | CoupledGains


def is_coupled(system: LinearSystem) -> bool:
    """Tell whether the channels of a layer share one state."""
    return isinstance(system, DiagonalSystem) and not has_diagonal_channels(system)


def fingerprint(system: LinearSystem) -> bytes:
    """Return a hash of a system's data."""
    digest = hashlib.blake2b(system.recurrence.encode(), digest_size=16)
    state = system.poles if isinstance(system, DiagonalSystem) else system.to_dense().A
    for array in (state, system.B, system.C, system.D):
        digest.update(repr((array.shape, array.dtype.str)).encode())
        digest.update(np.ascontiguousarray(array))
    return digest.digest()


def _remembered(key: Any, make: Callable[[], Any]) -> Any:
    """Return a cached answer, making it first if need be."""
    if key not in _known:
        _known[key] = make()
        if len(_known) > CACHED_LAYERS:
            _known.popitem(last=False)
    _known.move_to_end(key)
    return _known[key]


def layer_gains(system: LinearSystem, horizon: int | None) -> Gains:
    """Return the gains of a layer.

    Parameters
    ----------
    system : DiagonalSystem or DenseSystem
        H real channels by themselves, or one state that they share; see `layer_forms`.
    horizon : int or None
        Number of samples; None for an infinite horizon.

    Raises
    ------
    UnstableSystemError
        If the horizon is infinite and a pole is not inside the unit circle.
    """
    check_layer(system, "layer_gains")

    def make() -> Gains:
        if horizon is None:
            return _infinite_gains(system, None)
        return _finite_gains(system, *response_samples(system, horizon))

    return _remembered((fingerprint(system), horizon), make)


def reduction_gains(
    original: LinearSystem, reduced: LinearSystem, horizon: int | None
) -> tuple[Gains, Gains]:
    """Return the gains of the difference ``original - reduced`` and of ``reduced``.

    Parameters
    ----------
    original, reduced : DiagonalSystem or DenseSystem
        Equally many real channels by themselves, diagonal or dense, or two shared states; orders
        may differ, poles may be shared.
    horizon : int or None
        Number of samples; None for an infinite horizon.
    """
    check_layer(original, "reduction_gains")
    check_layer(reduced, "reduction_gains")
    alike = is_coupled(original) == is_coupled(reduced)
    if not alike or layer_width(original) != layer_width(reduced):
        raise ShapeError(
            message(
                "reduction_gains",
                "the layers have different numbers of channels, or share states in one only",
                expected=f"{original!r}",
                got=f"{reduced!r}",
            )
        )
    first, second = fingerprint(original), fingerprint(reduced)
    if first == second:
        nothing: Gains = LayerGains(*[np.zeros(original.batch_shape)] * 6)
        if is_coupled(original):
            nothing = CoupledGains.zero(original.outputs, original.inputs)
        return nothing, layer_gains(reduced, horizon)

    def make() -> tuple[Gains, Gains]:
        if horizon is None:
            return _infinite_gains(original, reduced), layer_gains(reduced, horizon)
        difference, extra = difference_samples(original, reduced, horizon)
        if not (has_diagonal_channels(original) and has_diagonal_channels(reduced)):
            return _finite_gains(original, difference, extra), layer_gains(reduced, horizon)
        h, noise = response_samples(original, horizon)
        rounded = EPS * (np.sum(np.abs(h), axis=-1) + np.sum(np.abs(difference), axis=-1))
        alone = _finite_gains(original, h - difference, up(noise + extra + rounded, horizon + 4))
        return _finite_gains(original, difference, extra), alone

    return _remembered((first, second, horizon), make)


def h2_sizes(
    original: LinearSystem, reduced: LinearSystem, horizon: int | None
) -> tuple[float, float]:
    """Return the h2 norms of a layer and of ``original - reduced``, over all channels.

    On a finite horizon the norm of the layer is a lower bound and that of the difference an upper
    one. The lower one is 0 where the response is smaller than the rounding of its own terms.
    """
    if horizon is not None:
        h, noise = response_samples(check_layer(original, "h2_sizes"), horizon)
        # || |h| || - noise, and norm rounds up: twice its allowance down again, at both steps
        sizes = norm(np.abs(h), axis=-1) * (1.0 - 4 * (horizon + 16) * EPS) - noise
        size = float(norm(np.maximum(sizes, 0.0))) * (1.0 - 4 * (len(h) + 16) * EPS)
        return size, float(norm(reduction_gains(original, reduced, horizon)[0].h2))
    key = ("h2", fingerprint(original), fingerprint(reduced))

    def make() -> tuple[float, float]:
        size = float(norm(h2_norm(original, horizon=None)))
        return size, float(norm(h2_error(original, reduced, horizon=None)))

    return _remembered(key, make)


def _no_modes(system: LinearSystem) -> DiagonalSystem:
    """Return the zero layer with as many channels."""
    H, p, m = system.batch_shape[0], system.outputs, system.inputs
    return DiagonalSystem(
        np.zeros((H, 0)),
        np.zeros((H, 0, m)),
        np.zeros((H, p, 0)),
        np.zeros((H, p, m)),
        system.dt,
        recurrence=system.recurrence,
        real_output=True,
    )


def _infinite_gains(original: LinearSystem, reduced: LinearSystem | None) -> Gains:
    """Return the gains of a layer, or of a difference, over an infinite horizon."""
    if is_coupled(original):
        return endless_gains(original, reduced)  # pyright: ignore
    if reduced is None:
        reduced = _no_modes(original)
    l1 = np.asarray(l1_gain_error(original, reduced, horizon=None))
    l2 = np.minimum(l2_gain_error(original, reduced, horizon=None), l1)
    # the h2 norm is no upper bound against its own rounding; the l2 gain is one, and is larger
    h2 = np.minimum(up(np.asarray(h2_error(original, reduced, horizon=None)), 2**20), l2)
    return LayerGains(l1, l2, h2, -l1, l1, np.where(l1 > 0.0, math.inf, 0.0))


def _geometric(poles: np.ndarray, horizon: int) -> np.ndarray:
    """Return an upper bound on ``sum_{k < T} |l|^k``, good to a factor of a few."""
    radius = np.abs(poles) * (1.0 + 4 * EPS)
    with np.errstate(over="ignore", divide="ignore"):
        bounded = np.minimum(1.0 / np.maximum(1.0 - radius, 0.0), float(horizon))
        growing = horizon * radius**horizon
    return np.where(radius <= 1.0, bounded, growing)


def response_samples(system: LinearSystem, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """Return ``h`` (..., T) and, per entry, a bound on ``sum_k |rounding_k|``; remembered.

    Entries are the H channels, or the p outputs times m inputs of a shared state.
    """

    def make() -> tuple[np.ndarray, np.ndarray]:
        if isinstance(system, DiagonalSystem):
            return difference_samples(system, _no_modes(system), horizon)
        samples = dense_samples(system.to_dense(), horizon, "network_bound")
        return samples.values[..., 0, 0], samples.extra

    return _remembered(("response", fingerprint(system), horizon), make)


def difference_samples(
    original: LinearSystem, reduced: LinearSystem, horizon: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return ``h - h^`` (..., T) and, per entry, a bound on ``sum_k |rounding_k|``.

    Diagonal channels: every sample is correct to one rounding and 2^-90 of the terms it is the sum
    of. A shared state: correct to some roundings of its terms, read-outs of equal poles being
    differenced first. Dense channels: two responses, or one of equal matrices.
    """
    if is_coupled(original) and is_coupled(reduced):
        values, noise = difference_response(original, reduced, horizon)  # pyright: ignore
        return np.ascontiguousarray(np.moveaxis(values[0], 0, -1)), up(noise[0], 4)
    if not (has_diagonal_channels(original) and has_diagonal_channels(reduced)):
        return _dense_difference(original, reduced, horizon)
    return _channel_difference(original, reduced, horizon)  # pyright: ignore


def _dense_difference(
    original: LinearSystem, reduced: LinearSystem, horizon: int
) -> tuple[np.ndarray, np.ndarray]:
    first, second = original, reduced
    if isinstance(first, DenseSystem) and isinstance(second, DenseSystem):
        alike = first.recurrence == second.recurrence and np.array_equal(first.A, second.A)
        if alike and (np.array_equal(first.B, second.B) or np.array_equal(first.C, second.C)):
            return response_samples(difference_of(first, second, "network_bound"), horizon)
    (h, noise), (g, extra) = (response_samples(system, horizon) for system in (first, second))
    gap = h - g
    return gap, up(noise + extra + EPS * np.sum(np.abs(gap), axis=-1), horizon + 4)


def _channel_difference(
    original: DiagonalSystem, reduced: DiagonalSystem, horizon: int
) -> tuple[np.ndarray, np.ndarray]:
    h = np.empty((original.poles.shape[0], horizon))
    columns = [
        np.ascontiguousarray(array)
        for system in (original, reduced)
        for array in (system.poles, system.B[..., 0], system.C[:, 0, :])
    ]
    fill_difference_response(*columns, h)
    poles = np.concatenate([original.poles, reduced.poles], axis=-1)
    size = np.abs(np.concatenate([columns[1] * columns[2], columns[4] * columns[5]], axis=-1))
    terms = np.sum(size * _geometric(poles, horizon), axis=-1)
    # near overflow the double-doubles lose their low halves
    precision = np.where(terms < LARGEST, 2.0**-90, 2.0**-40)
    noise = terms * precision * (horizon + poles.shape[-1])
    direct = original.D[:, 0, 0].real - reduced.D[:, 0, 0].real
    noise += EPS * (np.sum(np.abs(h), axis=-1) + np.abs(h[:, 0]) + 2.0 * np.abs(direct))
    h[:, 0] += direct
    check_finite(h, "impulse response", "network_bound")
    return h, up(noise, horizon + 8)


def _finite_gains(system: LinearSystem, h: np.ndarray, noise: np.ndarray) -> Gains:
    """Return the gains of responses (..., T) known up to ``sum_k |rounding_k| <= noise``."""
    if is_coupled(system):
        return coupled_gains(h, noise)
    horizon = h.shape[-1]
    size = np.abs(h)
    l1 = up(impulse_l1_gain(h) + noise)
    l2 = np.minimum(up(impulse_l2_gain(h) + noise), l1)
    h2 = np.minimum(up(np.atleast_1d(norm(size, axis=-1)) + noise), l2)
    steps = np.cumsum(h, axis=-1)
    slack = up(noise + (horizon + 2) * EPS * l1)
    step_l2 = up(norm(np.abs(steps), axis=-1) + math.sqrt(horizon) * slack, 4)
    return LayerGains(
        l1, l2, h2, steps.min(axis=-1) - slack, steps.max(axis=-1) + slack, np.atleast_1d(step_l2)
    )
